"""`egochef runs` finds every run, tells how it stands, and leaves it alone."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tiny_runs import TINY, command, ends, put_state, start

from egochef.cli.main import main
from egochef.errors import InputError
from egochef.files import write_json
from egochef.model.checkpoint import read_tensors, write_tensors
from egochef.records import to_dict
from egochef.training.runfiles import read_log
from egochef.training.runs import find_runs, is_in_use, look_at, sort_runs
from egochef.training.state import newest_whole, state_path


def listed(capsys, *words):
    assert main(["runs", *map(str, words), "--json"]) == 0
    return {run["path"]: run for run in json.loads(capsys.readouterr().out)["runs"]}


def files_of(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def hold(run):
    """A process that works on the run: it holds its lock until it is killed."""
    code = "import sys, time\nfrom pathlib import Path\nfrom egochef.training.runfiles import locked\n"
    code += "with locked(Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(1000)\n"
    process = subprocess.Popen([sys.executable, "-c", code, run], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_finished_run(tiny_run, capsys):
    before = files_of(tiny_run)
    run = listed(capsys, tiny_run.parent)[str(tiny_run)]
    assert files_of(tiny_run) == before
    evaluations = [line for line in read_log(tiny_run) if line["kind"] == "evaluation"]
    best = max(evaluations, key=lambda line: line["all_action_accuracy_at_1"])
    assert run["state"] == "finished" and run["fault"] is None
    assert (run["recipe"], run["encoder"], run["num_frames"]) == ("tiny", "efficientnet_lite0", 2)
    assert (run["epochs_done"], run["epochs"], run["steps"], run["best_epoch"]) == (2, 2, 4, best["epoch"])
    assert [run[task] for task in ("verb", "noun", "action")] == [
        best[f"all_{task}_accuracy_at_1"] for task in ("verb", "noun", "action")
    ]
    assert main(["runs", str(tiny_run.parent)]) == 0
    table = capsys.readouterr().out
    for part in (str(tiny_run), "efficientnet_lite0", "2/2", f"{best['all_verb_accuracy_at_1']:.2f}", "finished"):
        assert part in table


def test_states(tiny_run, tmp_path, capsys):
    for name in ("stopped", "running", "older layout"):
        run = shutil.copytree(tiny_run, tmp_path / "deep" / name)
        path = state_path(run, newest_whole(run))
        tensors, header = read_tensors(path)
        header["progress"] |= {"epoch": 1, "finished": False}
        write_tensors(path, tensors, header)
        if name == "older layout":
            path.with_suffix(".sha256").unlink()
            path.replace(path.with_name("epoch-0002.safetensors"))
    write_json(tmp_path / "empty" / "config.json", to_dict(TINY))
    (tmp_path / "empty" / "lock").write_text("process 1 on somewhere\n")
    write_json(tmp_path / "config.json", to_dict(TINY))  # for --config, no run
    write_json(tmp_path / "other" / "config.json", {"theirs": 1})
    holder = hold(tmp_path / "deep" / "running")
    try:
        found = listed(capsys, tmp_path, tmp_path / "deep")
        lock = tmp_path / "deep" / "running" / "lock"
        assert str(holder.pid) in lock.read_text() and is_in_use(lock.parent)  # looking did not loosen it
    finally:
        holder.kill()
        holder.wait()
    assert {os.path.relpath(path, tmp_path): run["state"] for path, run in found.items()} == {
        "deep/stopped": "stopped",
        "deep/older layout": "stopped",
        "deep/running": "running",
        "empty": "empty",
    }
    assert look_at(tmp_path / "deep" / "running").state == "stopped"


def test_the_newest_state_counts_whatever_the_names_say(tiny_run, tmp_path):
    """Several ranks save before the evaluation too, under a name that sorts behind; and steps can have many digits."""
    for steps in (4, 100_000_000):
        run = shutil.copytree(tiny_run, tmp_path / str(steps))
        tensors, header = read_tensors(state_path(run, newest_whole(run)))
        put_state(run, f"step-{steps:08d}-judged", tensors, header)
        header["progress"] |= {"epoch": 1, "epoch_step": 2, "finished": False}
        put_state(run, "step-00000004" if steps == 4 else "step-99999999", tensors, header)
        assert newest_whole(run) == f"step-{steps:08d}-judged"
        assert look_at(run).state == "finished"


def damage_log(run):
    lines = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join([lines[0], "{nonsense", *lines[2:]]) + "\n")


def damage_state(run):
    path = state_path(run, newest_whole(run))
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda run: (run / "config.json").write_text('{"epochs": "many"}'), "config.json: epochs is 'many'"),
        (lambda run: (run / "config.json").write_bytes(b"\xff\x00"), "config.json: not a readable config.json"),
        (damage_log, "log.jsonl, line 2: not JSON"),
        (
            lambda run: (run / "log.jsonl").write_text('{"kind": "step", "epoch": 1}\n{"kind": "x", "epoch": 1}\n'),
            "'step'",
        ),
        (damage_state, "not a whole safetensors file"),
        (lambda run: (run / "checkpoints" / "best.safetensors").unlink(), "best.safetensors"),
    ],
)
def test_a_damaged_run_is_listed_with_its_fault(tiny_run, tmp_path, capsys, damage, fault):
    good, run = shutil.copytree(tiny_run, tmp_path / "good"), shutil.copytree(tiny_run, tmp_path / "run")
    damage(run)
    found = listed(capsys, tmp_path)
    assert found[str(good)]["state"] == "finished"
    assert found[str(run)]["state"] == "damaged" and fault in found[str(run)]["fault"]
    assert main(["runs", str(tmp_path)]) == 0
    assert fault in capsys.readouterr().out


def test_a_log_that_a_crash_cut_off_is_no_damage(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    with (run / "log.jsonl").open("a") as file:
        file.write('{"kind": "st')
    assert look_at(run).fault is None


def test_order(tiny_run, tmp_path):
    runs = []
    for name, changed, action in (("a", 30, 1.0), ("b", 10, None), ("c", 20, 3.0)):
        run = dataclasses.replace(look_at(tiny_run), path=name, action=action, changed=f"2026-01-01T00:00:{changed}")
        runs.append(run)
    assert ["".join(run.path for run in sort_runs(runs, by)) for by in ("score", "time", "name")] == [
        "cab",
        "acb",
        "abc",
    ]


def test_nothing_there(tmp_path, capsys, monkeypatch):
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}: no training runs there. Train one: egochef train")
    assert listed(capsys, tmp_path) == {}
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert capsys.readouterr().out.startswith("outputs: no training runs there.")
    with pytest.raises(InputError, match="absent: no such folder"):
        find_runs([tmp_path / "absent"])


def test_a_run_under_way_is_not_disturbed(toy_root, tmp_path):
    """A real run is looked at again and again, from its first moment on, and ends as it should when it is told to."""
    run = tmp_path / "run"
    process = start(command(dataclasses.replace(TINY, epochs=500, patience=500), toy_root, run))
    done = set()
    while len(done) < 3:
        assert process.poll() is None, process.communicate()
        for found in find_runs([tmp_path]):
            assert found.fault is None
            if found.state == "running":
                done.add(found.steps)
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    ends(process, 75)
    assert look_at(run).state == "stopped" and look_at(run).steps >= max(done)
