"""Jobs on a real Slurm (conftest starts it): they finish, are stopped, go on, and end as they should."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import TINY, assert_same_run

from egochef.files import write_json
from egochef.records import to_dict
from egochef.training.runfiles import locked, read_log

pytestmark = pytest.mark.slow
SMALL = ("--gpus", 0, "--cpus", 2, "--time", 10)
LONGER = dataclasses.replace(TINY, epochs=6, max_train_segments=16, num_workers=1, patience=1000)
"""24 steps in 6 epochs, with a data worker, which gets Slurm's signals too"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.json"
    write_json(path, to_dict(LONGER))
    return path


def wait_for_steps(run, number, within_s=90):
    """Until the run's log holds so many steps."""
    until = time.monotonic() + within_s
    log = run / "log.jsonl"
    while not log.is_file() or log.read_text().count('"kind": "step"') < number:
        assert time.monotonic() < until, "\n".join(path.read_text() for path in (run / "slurm").glob("*.out"))
        time.sleep(0.05)


def sessions(run):
    return [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]


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
    """In a folder with a space and a quote; while it waits a second job is refused; edits of the copy are what runs."""
    run = tmp_path / "it's a run"
    words = ("--recipe", "toy", "--debug", "--num-frames", 4, "--data", toy_root, "--out", run, *SMALL)
    job = cluster.submit(*words, "--sbatch=--hold")
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
    again = cluster.submit(*words)  # of a finished run: nothing to do, and nothing is started again
    facts = cluster.wait(again, "COMPLETED")
    assert facts["Restarts"] == "0"
    assert "this is the copy" in (run / "slurm" / f"job-{again}.out").read_text()


def test_an_array_makes_the_same_store(cluster, toy_root, tmp_path):
    """One of its parts is stopped at its work, and it alone is started again."""
    plain, store = tmp_path / "plain", tmp_path / "the store"
    job = cluster.submit("prepare", "--data", toy_root, "--out", store, "--parts", 2, "--cpus", 1, "--time", 10)
    log = tmp_path / "the store-job" / "slurm" / f"job-{job}_2.out"
    until = time.monotonic() + 60
    while not log.is_file() or "to be made" not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    cluster("scancel", "--signal=USR1", f"{job}_2")
    cluster.egochef("prepare", "--data", toy_root, "--out", plain, "--workers", 1)
    assert cluster.wait(f"{job}_1", "COMPLETED")["Restarts"] == "0"
    assert cluster.wait(f"{job}_2", "COMPLETED")["Restarts"] == "1"
    names = sorted(path.relative_to(plain) for path in plain.rglob("*") if path.is_file())
    made = [path for path in store.rglob("*") if path.is_file() and ".part" not in path.name]  # the stopped one's rest
    assert names == sorted(path.relative_to(store) for path in made)
    assert all((plain / name).read_bytes() == (store / name).read_bytes() for name in names)
    assert len(list((tmp_path / "the store-job" / "slurm").glob(f"job-{job}_*.out"))) == 2


@pytest.mark.parametrize("partition", ["low", "rude"])
def test_a_preempted_job_goes_on_and_ends_as_one_that_was_left_alone(cluster, toy_root, tmp_path, config, partition):
    """`low` tells the job and waits, `rude` ends it at once; each is started again by other means.

    It is paused after a few steps, lest it ends before; Slurm wakes it to tell it.
    """
    run, straight = tmp_path / "run", tmp_path / "straight"
    words = ("--config", config, "--data", toy_root)
    job = cluster.submit(*words, "--out", run, *SMALL, "--partition", partition, "--stage")
    wait_for_steps(run, 5)
    cluster("scancel", "--signal=STOP", job)
    urgent = cluster(
        "sbatch", "--parsable", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"
    ).strip()
    cluster.wait(urgent, "COMPLETED")
    cluster.egochef("train", *words, "--out", straight)
    facts = cluster.wait(job, "COMPLETED")
    assert facts["Restarts"] == "1" and facts["ExitCode"] == "0:0"
    assert sessions(run)[0]["resumed_step"] == 0
    assert 5 <= sessions(run)[1]["resumed_step"] < 24
    assert_same_run(run, straight)
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"egochef-{job}"))


def test_a_job_at_its_time_limit_saves_and_goes_on(cluster, toy_root, tmp_path, config):
    """Slurm looks at time limits twice a minute. Until then the job is paused, lest it ends before; Slurm wakes it."""
    run = tmp_path / "run"
    words = ("--config", config, "--data", toy_root, "--out", run, "--gpus", 0, "--cpus", 2)
    job = cluster.submit(*words, "--time", 10, "--save-before", 45)
    wait_for_steps(run, 5)
    cluster("scancel", "--signal=STOP", job)
    cluster("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    cluster.wait(job, "PENDING", restarts=1)
    cluster("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    facts = cluster.wait(job, "COMPLETED")
    assert facts["Restarts"] == "1" and facts["ExitCode"] == "0:0"
    assert sessions(run)[1]["resumed_step"] >= 5
    assert [line["step"] for line in read_log(run) if line["kind"] == "step"] == list(range(1, 25))
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
        assert "is in use by process" in cluster.egochef(*words, ok=False)


def test_a_fault_is_not_started_again(cluster, toy_root, tmp_path, config):
    data = tmp_path / "data"
    data.mkdir()
    run = tmp_path / "run"
    job = cluster.submit("--config", config, "--data", data, "--out", run, *SMALL)
    facts = cluster.wait(job, "FAILED")
    log = (run / "slurm" / f"job-{job}.out").read_text()
    assert facts["Restarts"] == "0" and facts["ExitCode"] == "1:0"
    assert "annotations" in log and "failed (1)" in log and "Traceback" not in log


def test_a_cancelled_job_saves_and_stays_cancelled(cluster, toy_root, tmp_path):
    run, config = tmp_path / "run", tmp_path / "config.json"
    write_json(config, to_dict(dataclasses.replace(LONGER, epochs=1000)))
    job = cluster.submit("--config", config, "--data", toy_root, "--out", run, *SMALL)
    wait_for_steps(run, 3)
    cluster("scancel", job)
    cluster.wait(job, "CANCELLED")
    until = time.monotonic() + 20
    while "Slurm is ending this job" not in (log := (run / "slurm" / f"job-{job}.out").read_text()):
        assert time.monotonic() < until, log
        time.sleep(0.1)
    time.sleep(2)
    assert cluster.facts(job)["JobState"] == "CANCELLED"
    assert list((run / "checkpoints" / "last").glob("step-*.safetensors"))


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
    run = tmp_path / "run"
    job = cluster.submit("--config", config, "--data", toy_root, "--out", run, *SMALL)
    cluster("scontrol", "update", f"JobId={job}", "Requeue=0")
    wait_for_steps(run, 3)
    cluster("scancel", "--signal=USR1", job)
    cluster.wait(job, "FAILED")
    log = (run / "slurm" / f"job-{job}.out").read_text()
    following = log.split("submitted as job ")[1].split(",")[0]
    assert cluster.wait(following, "COMPLETED")["ExitCode"] == "0:0"
    assert (run / "slurm" / f"job-{following}.sh").read_text() == (run / "slurm" / f"job-{job}.sh").read_text()
    assert sessions(run)[1]["resumed_step"] >= 3


def test_two_processes_on_two_gpus(cluster, toy_root, tmp_path, config):
    """The GPUs are none, so they compute on the processor; all else is as with real ones."""
    run = tmp_path / "run"
    words = ("--config", config, "--data", toy_root, "--out", run, "--device", "cpu", "--epochs", 2)
    job = cluster.submit(*words, "--gpus", 2, "--cpus", 1, "--time", 10)
    assert cluster.wait(job, "COMPLETED")["ExitCode"] == "0:0"
    assert sessions(run)[0]["ranks"] == 2
    assert sum(line["num_clips"] for line in read_log(run) if line["kind"] == "step") == 32


def test_two_nodes_are_stopped_together_and_go_on(cluster, toy_root, tmp_path, config):
    """With a copy of the data on each node's own disk."""
    run = tmp_path / "run"
    words = ("--config", config, "--data", toy_root, "--out", run, "--gpus", 0, "--cpus", 1, "--time", 10, "--stage")
    job = cluster.submit(*words, "--nodes", 2, "--partition", "pair")
    wait_for_steps(run, 5)
    cluster("scancel", "--signal=USR1", job)
    facts = cluster.wait(job, "COMPLETED")
    assert facts["NumNodes"] == "2" and facts["Restarts"] == "1"
    assert [session["ranks"] for session in sessions(run)] == [2, 2] and sessions(run)[1]["resumed_step"] >= 5
    assert [line["step"] for line in read_log(run) if line["kind"] == "step"] == list(range(1, 25))


def test_a_container_gets_the_paths_it_needs(cluster, toy_root, tmp_path, config):
    """A stand-in for apptainer writes down what it is told, and runs the command outside of any image."""
    image, told, programs = tmp_path / "image.sif", tmp_path / "told", tmp_path / "programs"
    programs.mkdir()
    image.write_text("an image")
    program = programs / "apptainer"
    program.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" > {told}\nwhile [ "$1" != {image} ]; do shift; done\nshift\n"$@"\n'
    )
    program.chmod(0o755)
    run = tmp_path / "a run"
    words = ("--config", config, "--data", toy_root, "--out", run, *SMALL, "--epochs", 1)
    job = cluster.submit(
        *words, "--container", image, "--setup", f"PATH={programs}:{Path(sys.executable).parent}:$PATH"
    )
    cluster.wait(job, "COMPLETED")
    lines = told.read_text().splitlines()
    bound = {lines[index + 1] for index, line in enumerate(lines) if line == "--bind"}
    assert lines[0] == "exec" and {str(toy_root), str(run)} <= bound and "--nv" not in lines
