"""Handing a job to Slurm. In: a `Job`. Out: its number, with the code and the script kept beside the run.

RUN/code/egochef        the package as it was when the job was submitted; every start of the job runs it
RUN/code/about.json     its version and commit
RUN/slurm/job-123.sh    the script of job 123
RUN/slurm/job-123.out   what job 123 printed, all its starts
RUN/slurm/starts-123    a line per start: what was saved by then
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import egochef
from egochef.cluster.script import Job, write_script
from egochef.errors import InputError, Interrupted
from egochef.files import atomic_folder, write_json, write_text
from egochef.stopping import held
from egochef.training.card import COPY_ABOUT, git_commit

PACKAGE = Path(egochef.__file__).resolve().parent


def submit(job: Job, *, new_code: bool = False) -> int:
    """Keep code and script beside the run and hand the job to Slurm.

    Args:
        new_code: where a run has a copy of the code already, replace it by today's.

    Returns:
        The job's number.

    Raises:
        InputError: there is no Slurm here, the run has a job already, or Slurm refuses this one; says why.
    """
    check_free(job)
    text = write_script(job)
    check_shell(text)
    keep_code(job.code, renew=new_code)
    script = job.slurm / "job.sh"
    write_text(script, text)
    number: int | None = None
    try:
        with held():  # else a job that Slurm has taken would be nobody's
            number = _sbatch(script)
            script.rename(job.slurm / f"job-{number}.sh")
    except KeyboardInterrupt as stopped:
        raise stopped if number is None else Interrupted(f"job {number} is submitted; {stopped}") from None
    return number


def _sbatch(script: Path) -> int:
    """The number of the job; a script that Slurm refuses is removed."""
    words = ["sbatch", "--parsable", str(script)]
    # A session of its own hears no Ctrl-C.
    done = subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        script.unlink()
        raise InputError(f"Slurm refuses the job: {_one_line(done.stderr)}. The partitions there are: sinfo")
    return int(done.stdout.strip().partition(";")[0])  # number;cluster where there are several


def check_free(job: Job) -> None:
    """
    Raises:
        InputError: there is no Slurm here, or a job for this run waits or works already.
    """
    if shutil.which("sbatch") is None:
        raise InputError(
            "sbatch is not here: submit on the cluster's login node, or write the script by `egochef slurm print`"
        )
    numbers = {int(match[1]) for path in job.slurm.glob("job-*.sh") if (match := re.match(r"job-(\d+)\.sh", path.name))}
    if not numbers:
        return
    listing = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%F %T"]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"Slurm does not answer: {_one_line(done.stderr)}. Try again in a while.")
    for line in done.stdout.splitlines():
        number, _, state = line.strip().partition(" ")
        if number.isdecimal() and int(number) in numbers:
            raise InputError(
                f"{job.out}: job {number} works on it already ({state}). Wait for it, or end it: scancel {number}"
            )


def check_shell(text: str) -> None:
    """
    Raises:
        InputError: bash cannot read the script, which only --setup can be the reason for.
    """
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"--setup is not what bash can read: {_one_line(done.stderr)}")


def keep_code(folder: Path, *, renew: bool = False) -> None:
    """Copy this package into `folder`, whole or not at all. A copy that is there stays, or with `renew` moves aside."""
    kept = folder / "egochef"
    if kept.is_dir() and not renew:
        return
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"before-{1 + sum(1 for _ in folder.glob('before-*'))}" / "egochef"
    try:
        with atomic_folder(kept) as copy:
            shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"), dirs_exist_ok=True)
            if kept.is_dir():
                with held():
                    aside.parent.mkdir()
                    kept.rename(aside)
    except BaseException:
        if aside.is_dir() and not kept.exists():
            aside.rename(kept)
            aside.parent.rmdir()
        raise
    write_json(folder / COPY_ABOUT, {"version": egochef.__version__, "git_commit": git_commit()})


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines) or "no reason given"
