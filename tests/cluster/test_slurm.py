"""Jobs on a real Slurm (conftest starts it): they finish, are stopped, go on, and end as they should."""

import dataclasses
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import TINY, assert_same_run, one_thread

from egochef.files import write_json
from egochef.records import to_dict
from egochef.training.runfiles import locked, read_log

pytestmark = pytest.mark.slow
SMALL = ("--gpus", 0, "--cpus", 2, "--time", 10)
CONFIG = dataclasses.replace(TINY, max_train_segments=16, patience=1000, save_minutes=1e-6)
"""8 steps in 2 epochs, each saved"""
MIDDLE = "step-00000006."
"""amid the second epoch: as the state after this step gets its name, programs are paused"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    write_json(path, to_dict(CONFIG))
    return path


def sessions(run):
    return [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]


def assert_went_on(run):
    """From where it was stopped, at the sixth step or the one after it, to the end."""
    assert [session["resumed_step"] for session in sessions(run)] in ([0, 6], [0, 7])
    assert [line["step"] for line in read_log(run) if line["kind"] == "step"] == list(range(1, 9))


@pytest.mark.parametrize(
    "words",
    [
        "train --recipe frames16 --nodes 1 --gpus 2 --account none --mem 64G",
        "train --recipe frames32 --partition high --stage --container image.sif",
        "--recipe toy --gpus 0 --setup 'module load X; source venv/bin/activate' --sbatch=--comment='two words'",
        "prepare --parts 4 --at-once 2 --quality 75",
    ],
)
def test_slurm_takes_what_is_printed(cluster, tmp_path, words):
    script = tmp_path / "job.sh"
    out = tmp_path / "it's 100% #1"
    script.write_text(cluster.egochef("slurm", "print", *shlex.split(words), "--data", "D", "--out", out))
    subprocess.run(["bash", "-n", script], check=True)
    cluster("sbatch", "--test-only", script)


def test_a_training_finishes_from_its_own_copy_of_the_code(cluster, toy_root, tmp_path):
    """In a folder with a space and a quote; while it waits a second job is refused; edits of the copy are what runs.

    Later a job for the finished run has nothing to do, and nothing is started again. That one asks for a container: a
    stand-in for apptainer writes down what it is told, and runs the command outside of any image.
    """
    run = tmp_path / "it's a run"
    words = ("--recipe", "toy", "--debug", "--num-frames", 4, "--workers", 0, "--data", toy_root, "--out", run)
    words = (*words, *SMALL)
    submit = (sys.executable, "-m", "egochef", "slurm", "submit")  # in a process of its own, as a person does
    job = cluster(*submit, *words, "--sbatch=--hold").split()[1]
    assert f"job {job} works on it already (PENDING)" in cluster.egochef("slurm", "submit", *words, ok=False)
    with (run / "code" / "egochef" / "__init__.py").open("a") as file:
        file.write('\nprint("this is the copy")\n')
    cluster("scontrol", "release", job)
    facts = cluster.wait(job, "COMPLETED")
    log = (run / "slurm" / f"job-{job}.out").read_text()
    assert facts["ExitCode"] == "0:0" and facts["Restarts"] == "0"
    assert "this is the copy" in log and "best validation action accuracy" in log and "finished" in log
    assert (run / "checkpoints" / "best.safetensors").is_file()
    assert json.loads((run / "code" / "about.json").read_text())["version"]
    assert not list(run.rglob("*.part*"))

    image, told, programs = tmp_path / "image.sif", tmp_path / "told", tmp_path / "programs"
    programs.mkdir()
    image.write_text("an image")
    program = programs / "apptainer"
    program.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" > {told}\nwhile [ "$1" != {image} ]; do shift; done\nshift\n"$@"\n'
    )
    program.chmod(0o755)
    setup = f"PATH={programs}:{Path(sys.executable).parent}:$PATH"
    again = cluster.submit(*words, "--container", image, "--setup", setup)
    assert cluster.wait(again, "COMPLETED")["Restarts"] == "0"
    assert "this is the copy" in (run / "slurm" / f"job-{again}.out").read_text()
    lines = told.read_text().splitlines()
    bound = {lines[index + 1] for index, line in enumerate(lines) if line == "--bind"}
    assert lines[0] == "exec" and {str(toy_root), str(run)} <= bound and "--nv" not in lines
    assert lines[lines.index(str(image)) + 2 :][:3] == ["-m", "egochef", "train"]


def test_an_array_makes_the_same_store(cluster, toy_root, tmp_path):
    """One of its parts is stopped at its work, and it alone is started again."""
    plain, store = tmp_path / "plain", tmp_path / "the store"
    words = ("prepare", "--data", toy_root, "--size", 64)
    job = cluster.submit(*words, "--out", store, "--parts", 2, "--cpus", 1, "--time", 10, pause_at=".tar")
    pid, task = cluster.paused(job)
    stopped, other = f"{job}_{task}", f"{job}_{3 - int(task)}"
    cluster("scancel", "--signal=USR1", stopped)
    cluster.wake(pid, after=signal.SIGUSR1)
    cluster.start_again(stopped)
    with one_thread():
        cluster.egochef(*words, "--out", plain, "--workers", 1)
    assert cluster.wait(other, "COMPLETED")["Restarts"] == "0"
    assert cluster.wait(stopped, "COMPLETED")["Restarts"] == "1"
    names = sorted(path.relative_to(plain) for path in plain.rglob("*") if path.is_file())
    made = [path for path in store.rglob("*") if path.is_file() and ".part" not in path.name]  # the stopped one's rest
    assert names == sorted(path.relative_to(store) for path in made)
    assert all((plain / name).read_bytes() == (store / name).read_bytes() for name in names)
    assert len(list((tmp_path / "the store-job" / "slurm").glob(f"job-{job}_*.out"))) == 2


def test_preempted_jobs_go_on_and_end_as_one_that_was_left_alone(cluster, toy_root, tmp_path, config):
    """`low` tells the job and waits, `rude` ends it at once; each is started again by other means.

    They have a data worker, which gets Slurm's signals too.
    """
    words = ("--config", config, "--data", toy_root)
    worker = ("--workers", 1)
    runs = {partition: tmp_path / partition for partition in ("low", "rude")}
    jobs = {
        partition: cluster.submit(
            *words, "--out", run, *SMALL, *worker, "--partition", partition, "--stage", pause_at=MIDDLE
        )
        for partition, run in runs.items()
    }
    for job in jobs.values():
        cluster.paused(job)
    urgent = cluster("sbatch", "--parsable", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=true")
    cluster.wait(urgent.strip(), "COMPLETED")
    for job in jobs.values():
        cluster.start_again(job)
    with one_thread():
        cluster.egochef("train", *words, "--out", tmp_path / "straight")
    for partition, job in jobs.items():
        facts = cluster.wait(job, "COMPLETED")
        assert facts["Restarts"] == "1" and facts["ExitCode"] == "0:0"
        assert_went_on(runs[partition])
        assert_same_run(runs[partition], tmp_path / "straight")
    assert not list(cluster.scratch.glob("egochef-*"))


def test_a_job_at_its_time_limit_saves_and_goes_on(cluster, toy_root, tmp_path, config):
    """Slurm looks at time limits twice a minute, and tells the job when 15 minutes are left."""
    run = tmp_path / "run"
    words = ("--config", config, "--data", toy_root, "--out", run, "--gpus", 0, "--cpus", 2)
    job = cluster.submit(*words, "--time", 60, "--save-before", 900, pause_at=MIDDLE)
    pid, _ = cluster.paused(job)
    cluster("scontrol", "update", f"JobId={job}", "TimeLimit=15")
    cluster.wake(pid, after=signal.SIGUSR1)
    cluster.wait(job, "PENDING", restarts=1)
    cluster("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    cluster.start_again(job)
    facts = cluster.wait(job, "COMPLETED")
    assert facts["Restarts"] == "1" and facts["ExitCode"] == "0:0"
    assert_went_on(run)
    assert "stopped by SIGUSR1" in (run / "slurm" / f"job-{job}.out").read_text()


def test_what_slurm_or_the_run_refuses_is_one_line(cluster, toy_root, tmp_path, config):
    run = tmp_path / "run"
    words = ("slurm", "submit", "--config", config, "--data", toy_root, "--out", run, *SMALL)
    said = cluster.egochef(*words, "--partition", "nowhere", ok=False)
    assert "Slurm refuses the job: " in said and "invalid partition" in said and "Traceback" not in said
    assert not list(run.glob("slurm/job*"))
    (strange := tmp_path / "thesis").mkdir()
    (strange / "thesis.txt").write_text("years of work")
    assert "exists and is not a run" in cluster.egochef(*words, "--out", strange, ok=False)
    with locked(run):
        assert "is in use by process" in cluster(sys.executable, "-m", "egochef", *words, ok=False)


def test_a_fault_is_not_started_again(cluster, tmp_path, config):
    data = tmp_path / "data"
    data.mkdir()
    run = tmp_path / "run"
    job = cluster.submit("--config", config, "--data", data, "--out", run, *SMALL)
    facts = cluster.wait(job, "FAILED")
    log = (run / "slurm" / f"job-{job}.out").read_text()
    assert facts["Restarts"] == "0" and facts["ExitCode"] == "1:0"
    assert "annotations" in log and "failed (1)" in log and "Traceback" not in log


def test_a_cancelled_job_saves_and_stays_cancelled(cluster, toy_root, tmp_path, config):
    """Slurm says CANCELLED when all of the job has ended, the script that could have it started again too."""
    run = tmp_path / "run"
    job = cluster.submit("--config", config, "--data", toy_root, "--out", run, *SMALL, pause_at="step-00000002.")
    cluster.paused(job)
    cluster("scancel", job)
    assert cluster.wait(job, "CANCELLED")["Restarts"] == "0"
    assert "Slurm is ending this job" in (run / "slurm" / f"job-{job}.out").read_text()
    saved = {path.name for path in (run / "checkpoints" / "last").glob("step-*.safetensors")}
    assert saved & {"step-00000002.safetensors", "step-00000003.safetensors"}
    assert not cluster("squeue", "--noheader", "--job", job)


def test_a_job_that_never_gets_on_ends(cluster, toy_root, tmp_path, config):
    """Its starts so far are written down as Slurm's restarts would have left them."""
    run = tmp_path / "run"
    words = ("--config", config, "--data", toy_root, "--out", run, *SMALL, "--sbatch=--hold")
    job = cluster.submit(*words)
    nothing = subprocess.run("cksum", input=b"", capture_output=True, check=True).stdout.decode().strip()
    (run / "slurm" / f"starts-{job}").write_text(f"{nothing}\n" * 5)
    cluster("scontrol", "release", job)
    assert cluster.wait(job, "FAILED")["Restarts"] == "0"
    assert "5 starts have saved nothing new" in (run / "slurm" / f"job-{job}.out").read_text()


def test_where_slurm_does_not_start_jobs_again_a_new_one_is_submitted(cluster, toy_root, tmp_path, config):
    """The stand-in for python says that there is more to do when it is asked to train first, and ends well then."""
    run, python = tmp_path / "run", tmp_path / "python"
    python.write_text(
        f'#!/bin/bash\n[ "$1" = -c ] && exec {sys.executable} "$@"\n'
        f"[ -e {tmp_path}/been ] && exit 0\ntouch {tmp_path}/been\nexit 75\n"
    )
    python.chmod(0o755)
    words = ("--config", config, "--data", toy_root, "--out", run, *SMALL, "--python", python, "--sbatch=--hold")
    job = cluster.submit(*words)
    cluster("scontrol", "update", f"JobId={job}", "Requeue=0")
    script = run / "slurm" / f"job-{job}.sh"
    cluster("scontrol", "release", job)
    assert cluster.wait(job, "FAILED")["ExitCode"] == "75:0"
    log = (run / "slurm" / f"job-{job}.out").read_text()
    following = log.split("submitted as job ")[1].split(",")[0]
    assert cluster.facts(following)["JobState"] == "PENDING"  # held, as its script says
    cluster("scontrol", "release", following)
    assert cluster.wait(following, "COMPLETED")["ExitCode"] == "0:0"
    assert (run / "slurm" / f"job-{following}.sh").read_text() == script.read_text()


def test_two_processes_on_two_gpus(cluster, toy_root, tmp_path, config):
    """The GPUs are none, so they compute on the processor; all else is as with real ones."""
    run = tmp_path / "run"
    words = ("--config", config, "--data", toy_root, "--out", run, "--device", "cpu", "--epochs", 1)
    job = cluster.submit(*words, "--gpus", 2, "--cpus", 1, "--time", 10)
    assert cluster.wait(job, "COMPLETED")["ExitCode"] == "0:0"
    assert sessions(run)[0]["ranks"] == 2
    assert sum(line["num_clips"] for line in read_log(run) if line["kind"] == "step") == 16


def test_two_nodes_are_stopped_together_and_go_on(cluster, toy_root, tmp_path, config):
    """With a copy of the data on each node's own disk."""
    run = tmp_path / "run"
    words = ("--config", config, "--data", toy_root, "--out", run, "--gpus", 0, "--cpus", 1, "--time", 10, "--stage")
    job = cluster.submit(*words, "--nodes", 2, "--partition", "pair", pause_at=MIDDLE)
    pid, _ = cluster.paused(job)
    cluster("scancel", "--signal=USR1", job)
    cluster.wake(pid, after=signal.SIGUSR1)
    cluster.start_again(job)
    facts = cluster.wait(job, "COMPLETED")
    assert facts["NumNodes"] == "2" and facts["Restarts"] == "1"
    assert [session["ranks"] for session in sessions(run)] == [2, 2]
    assert_went_on(run)
