#!/bin/bash
# Made by `egochef slurm`. Submit it with sbatch; Slurm reads the #SBATCH lines.
@directives@

# What differs from job to job.
@values@

# Everything below is the same in every job.
say() { echo "egochef job $job, $(date '+%F %T'): $*"; }
fail() { say "$*"; exit 1; }
job=$SLURM_JOB_ID
[ -n "$parts" ] && job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST"

# 1. Signals. Slurm sends them to the processes that srun started: USR1 some time before the time limit (--signal
#    above), TERM when a more important job needs the place. They save and end with 75. This script lives on.
trap : USR1 TERM

# 2. The environment. The code is the run's own copy, so that a start days later runs the same.
cd "$here" || fail "$here is not there on $(hostname)"
setup
export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
found=$("${container[@]}" "$python" -c 'import egochef; print(egochef.__file__)') ||
    fail "$python cannot import egochef here. Is it installed in what --setup or --container name?"
say "code: ${found%/*}"

# 3. Where the processes of several GPUs or nodes meet: on the first node, at a port that follows from the job's number.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((12000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# 4. A job that starts again and again and never saves anything new is ended.
mkdir -p "$slurm" || fail "$slurm cannot be made"
starts="$slurm/starts-${EGOCHEF_FIRST_JOB:=$job}"
export EGOCHEF_FIRST_JOB
saved=$(find "${results[@]}" -type f ! -name '.*' 2> /dev/null | sort | cksum)
echo "$saved" >> "$starts"
if [ "$(tail -n $((most_starts + 1)) "$starts" | grep -cxF "$saved")" -gt "$most_starts" ]; then
    fail "$most_starts starts have saved nothing new, so it ends here. See above why, or ask for more --time."
fi

# 5. Scratch: a copy of the data on each node's own disk.
result=0
if [ -n "$stage" ]; then
    copy="${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/egochef-$SLURM_JOB_ID"
    each_node=(srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1)
    say "copying $data to $copy on each node"
    # Once a disk, also where nodes share it, and to the end: a start that was cut off here leaves no mark.
    "${each_node[@]}" bash -c 'mkdir -p "$1" && exec 9> "$1/.copying" && flock 9 &&
        { [ -e "$1/.whole" ] || { cp -rL "$0/." "$1" && touch "$1/.whole"; }; }' "$data" "$copy"
    result=$?
    [ "$result" = 0 ] && data=$copy
fi

# 6. The work: one process a GPU. Where one fails, the others say so and end; srun ends what is left after that.
if [ "$result" = 0 ]; then
    srun --kill-on-bad-exit=0 --wait=120 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        "${container[@]}" "$python" -m egochef "${command[@]}" --data "$data" --out "$out"
    result=$?
fi
[ -n "$stage" ] && "${each_node[@]}" rm -rf "$copy"

# 7. What now? 75: saved, there is more to do. 138 and 143: USR1 or TERM came before the program could hear it.
case $result in
    0) say "finished"; exit 0 ;;
    75 | 138 | 143) ;;
    137) say "killed (137), often because memory ran out: ask for more --mem. It is not started again."; exit 137 ;;
    *) say "failed ($result): see above. Mend it and submit again; it goes on from what was saved."; exit "$result" ;;
esac
is_running() { [ "$(squeue --noheader --job "$job" --format %T 2> /dev/null)" = RUNNING ]; }
if ! is_running; then
    say "Slurm is ending this job itself. After a preemption Slurm starts it again, after scancel not."
    exit "$result"
fi
say "what is done is saved; asking Slurm to start the job again"
(trap '' TERM; exec scontrol requeue "$job")  # Slurm may end this script before scontrol has heard the answer
is_running || exit "$result"
if next=$(sbatch --parsable ${parts:+--array="$SLURM_ARRAY_TASK_ID"} "$0"); then
    cp "$0" "$slurm/job-${next%%;*}.sh"
    say "this cluster does not start jobs again: submitted as job ${next%%;*}, which goes on"
else
    say "could neither be started again nor submitted. Submit it yourself; it goes on from what was saved."
fi
exit "$result"
