"""The text of a job's script, and what `egochef slurm` refuses. Without a Slurm; test_slurm.py runs scripts on one."""

import argparse
import os
import subprocess
from pathlib import Path

import pytest

from egochef.cli.main import build_parser, main
from egochef.cluster.script import Job, Resources, seconds_of, write_script
from egochef.cluster.submit import PACKAGE, keep_code, submit
from egochef.errors import InputError, Interrupted
from egochef.stopping import StopSignals

RUN = Path("/runs/run16")
JOB = Job(("train", "--recipe", "frames16"), Path("/data/store"), RUN, RUN, Path("/home/me"), Resources())
TOP = """\
#!/bin/bash
# Made by `egochef slurm`. Submit it with sbatch; Slurm reads the #SBATCH lines.
#SBATCH --job-name=egochef-run16
#SBATCH --output=/runs/run16/slurm/job-%j.out
#SBATCH --open-mode=append
#SBATCH --time=12:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=4G
#SBATCH --gres=gpu:1
#SBATCH --requeue
#SBATCH --signal=USR1@120

# What differs from job to job.
here=/home/me
data=/data/store
out=/runs/run16
code=/runs/run16/code
slurm=/runs/run16/slurm
command=(train --recipe frames16 --resume)
python=python3
container=()
parts=
stage=
results=("$out/checkpoints/last" "$out/features")  # what grows as the work goes on
most_starts=5
setup() { :; }

# Everything below is the same in every job.
"""


def job(**changes):
    return Job(**({name: getattr(JOB, name) for name in JOB.__dataclass_fields__} | changes))


def values(text, *names):
    """What bash makes of the variables in a script."""
    top = text.split("# Everything below")[0]
    shown = "".join(f'printf "%s\\0" "${{{name}[@]}}"; ' for name in names)
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2", "SLURM_CPUS_PER_TASK": "8", "TMPDIR": "/scratch/a b"}
    done = subprocess.run(["bash", "-c", top + shown], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split("\0")[:-1]


@pytest.fixture
def fails(capsys):
    def check(*words, message):
        """The command ends with 1 and one line that says `message`."""
        assert main(["slurm", *map(str, words)]) == 1
        said = capsys.readouterr().err.strip()
        assert said.startswith("egochef: ") and message in said and "\n" not in said

    return check


def test_what_a_job_begins_with():
    assert write_script(JOB).startswith(TOP)


def test_what_is_asked_for_is_in_the_script():
    asked = Resources("1-0", 2, "a100:4", 16, "200G", "4G", "gpu", "lab_1", 300, ("--qos=long", "--comment=two words"))
    lines = [line.removeprefix("#SBATCH ") for line in write_script(job(resources=asked)).splitlines()]
    for line in ("--time=1-0", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=16", "--mem=200G"):
        assert line in lines
    for line in ("--partition=gpu", "--account=lab_1", "--gres=gpu:a100:4", "--signal=USR1@300", "--qos=long"):
        assert line in lines
    assert "'--comment=two words'" in lines and not any(line.startswith("--mem-per-cpu") for line in lines)


def test_an_array_of_parts():
    text = write_script(job(command=("prepare", "--size", "128"), parts=4, at_once=2, resources=Resources(gpus="0")))
    assert "#SBATCH --array=1-4%2\n" in text and "--output=/runs/run16/slurm/job-%A_%a.out\n" in text
    assert "gres" not in text
    assert values(text, "command") == ["prepare", "--size", "128", "--shard", "2/4", "--workers", "8"]
    text = write_script(job(command=("prepare", "--workers", "3"), parts=4))
    assert values(text, "command") == ["prepare", "--workers", "3", "--shard", "2/4"]


@pytest.mark.parametrize("odd", ["two words", "it's", 'a "b"', "$(touch /tmp/x)`id`", "#1", "é", "*", "-rf", "a;b&c|d"])
def test_bash_reads_values_as_they_are(odd):
    data, out = Path("/data") / odd, Path("/runs") / odd
    text = write_script(job(data=data, out=out, home=out, here=Path("/") / odd, command=("train", "--init", odd)))
    assert values(text, "data", "out", "here", "command") == [
        str(data),
        str(out),
        f"/{odd}",
        *("train", "--init", odd, "--resume"),
    ]


def test_percent_signs_in_a_folder_are_not_slurms_patterns():
    assert "--output=/runs/100%%j/slurm/job-%j.out\n" in write_script(job(home=Path("/runs/100%j")))


def test_words_for_a_container():
    text = write_script(job(container=Path("/img/my egochef.sif"), data=Path("/data/a b"), stage=True))
    binds = [word for path in ("/home/me", "/data/a b", "/runs/run16", "/scratch/a b") for word in ("--bind", path)]
    assert values(text, "container") == ["apptainer", "exec", "--nv", *binds, "/img/my egochef.sif"]
    assert "--nv" not in write_script(job(container=Path("/img"), resources=Resources(gpus="0")))
    with pytest.raises(InputError, match="comma or colon"):
        job(container=Path("/img"), data=Path("/data,ro"))


def test_setup_runs_as_it_is_written():
    text = write_script(job(setup="module load Python; source venv/bin/activate\nexport A='b c'"))
    assert "setup() {\n    module load Python; source venv/bin/activate\n    export A='b c'\n}\n" in text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("10:30", 630), ("2:00:00", 7200), ("1-0", 86400), ("1-12:30", 131400), ("2-0:0:5", 172805)],
)
def test_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "1h", "12:00:00:00", "1:90:00", "1:60", "0:0:0", "1.5", "soon", "٣"])
def test_wrong_times(text):
    with pytest.raises(InputError, match="hours:minutes:seconds"):
        Resources(time=text)


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": 0},
        {"nodes": -2},
        {"gpus": "-1"},
        {"gpus": "two"},
        {"gpus": "1\n#SBATCH --uid=0"},
        {"cpus": 0},
        {"memory": "lots"},
        {"memory": "-4G"},
        {"partition": "a b"},
        {"partition": "x\n#SBATCH --wrap=y"},
        {"account": ""},
        {"account": "a;b"},
        {"save_before_s": 0},
        {"save_before_s": 70000, "time": "3-0"},
        {"time": "2"},
        {"more": ("qos=long",)},
        {"more": ("--qos=a\n#SBATCH --wrap=b",)},
    ],
)
def test_wrong_resources(change):
    with pytest.raises(InputError):
        Resources(**change)


@pytest.mark.parametrize(
    "change",
    [{"parts": 0}, {"parts": 4, "at_once": 0}, {"out": Path("/a\nb")}, {"home": Path("/a\\b")}, {"setup": "a\0b"}],
)
def test_wrong_jobs(change):
    with pytest.raises(InputError):
        job(**change)


def test_code_is_copied_whole_and_kept(tmp_path):
    code = tmp_path / "code"
    keep_code(code)
    names = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {path.relative_to(code / "egochef") for path in (code / "egochef").rglob("*") if path.is_file()} == names
    (code / "egochef" / "mine.py").write_text("")
    keep_code(code)
    assert (code / "egochef" / "mine.py").is_file()
    keep_code(code, renew=True)
    assert not (code / "egochef" / "mine.py").exists() and (code / "before-1" / "egochef" / "mine.py").is_file()
    assert sorted(path.name for path in code.iterdir()) == ["about.json", "before-1", "egochef"]


def flags(*words):
    """Of the command that the words name."""
    parser = build_parser()
    for word in words:
        (parser,) = (
            action.choices[word] for action in parser._actions if isinstance(action, argparse._SubParsersAction)
        )
    return {flag for action in parser._actions for flag in action.option_strings}


def test_no_flag_of_a_job_hides_one_of_the_command():
    for kind in ("train", "prepare"):
        same = flags("slurm", "submit", kind) & flags(kind) - flags()
        assert same == {"--data", "--out", "--traceback"} | ({"--config"} if kind == "train" else set())


def test_print_with_and_without_the_word_train(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("--recipe", "frames16", "--data", "D", "--out", "RUN", "--num_frames=8", "--nodes", "2")
    assert main(["slurm", "print", "train", *words]) == 0
    first = capsys.readouterr()
    assert main(["slurm", "print", *words]) == 0
    assert first == capsys.readouterr()
    assert "command=(train --recipe frames16 --num-frames=8 --resume)" in first.out
    assert f"out={tmp_path}/RUN\n" in first.out and "#SBATCH --nodes=2\n" in first.out
    assert "mkdir -p" in first.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        "",
        "train",
        "train --recipe toy --data D",
        "--recipe toy --data D --out R --cook",
        "train --data D --out R",
        "bake",
    ],
)
def test_wrong_usage_is_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["slurm", "print", *words.split()])
    assert stop.value.code == 2


def test_faults_are_one_line(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    toy = ("--recipe", "toy", "--data", "D", "--out", "RUN")
    fails("print", *toy, "--nodes", -1, message="--nodes is -1")
    fails("print", *toy, "--time", "1h", message="for example 12:00:00")
    fails("print", *toy, "--setup", "if true; then", message="--setup is not what bash can read")
    fails("print", *toy, "--lr", 7, message="lr is 7.0")
    fails("print", "--recipe", "frames64", "--data", "D", "--out", "RUN", message="unknown recipe 'frames64'")
    fails("print", "prepare", "--data", "D", "--out", "S", "--shard", "1/2", message="--parts")
    fails("submit", *toy, message="which is not there")
    assert not list(tmp_path.iterdir())


def test_a_job_that_slurm_takes_while_a_signal_comes_is_told_and_kept(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", "kill -TERM $PPID; echo 77"), ("squeue", "true")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    one = job(out=tmp_path / "run", home=tmp_path / "run")
    with pytest.raises(Interrupted, match="^job 77 is submitted; stopped by SIGTERM"), StopSignals(Interrupted):
        submit(one)
    assert [path.name for path in one.slurm.iterdir()] == ["job-77.sh"]


def test_submit_without_slurm_says_so_and_leaves_nothing_behind(tmp_path, monkeypatch, fails):
    monkeypatch.setenv("PATH", str(tmp_path))
    run = tmp_path / "run"
    fails("submit", "--recipe", "toy", "--data", tmp_path, "--out", run, message="sbatch is not here")
    assert not run.exists()
