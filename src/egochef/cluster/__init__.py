"""Jobs for Slurm. In: a command of ours and what it needs. Out: a script for sbatch, code and script beside the run."""
