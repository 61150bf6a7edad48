"""Trackers get what the log has, and whatever happens to them, training neither waits nor ends."""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import need

from egochef.errors import InputError
from egochef.training import trackers
from egochef.training.trackers import TRACKERS, Tracker, Trackers, open_trackers, tags

CONFIG = {"recipe": "tiny", "clip": {"num_frames": 2}}
PATIENCE_S = 300.0
"""for a tracker's process to start and finish on a machine that is busy"""


@pytest.fixture
def tensorboard():
    need(bool(find_spec("tensorboard")), "tensorboard (the extra `track`)")


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """Weights & Biases of somebody who never logged in."""
    need(bool(find_spec("wandb")), "wandb (the extra `track`)")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")


def step_line(step, loss):
    return {"kind": "step", "epoch": 1, "step": step, "lr": 1e-4, "loss": loss, "verb_loss": None, "skipped": 0}


def evaluation_line(step, score):
    return {"kind": "evaluation", "epoch": 1, "step": step, "split": "validation", "all_action_accuracy_at_1": score}


def read_tensorboard(run):
    """Name -> [(step, value)], as TensorBoard itself shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def read_wandb(file):
    """(run id, name of the project, {step: values}) of a file that Weights & Biases keeps."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(file))
    about, rows = (), {}
    while (data := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            about = (record.run.run_id, record.run.project)
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows[row["_step"]] = row
    return *about, rows


def state_of(pid):
    """(state, parent) of a process; None: there is none, or it only waits for its parent to look."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else (state, int(parent))


def is_alive(pid):
    return state_of(pid) is not None


def living():
    """Each living process and its parent."""
    states = {int(folder.name): state_of(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()}
    return {pid: state[1] for pid, state in states.items() if state}


def all_below(pid):
    """Ids of living processes that a process has started, and those that these have."""
    parents, found = living(), [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def of_trackers(pids):
    """Those among the processes that are a tracker's own, not one that a library started."""

    def command(pid):
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return b""

    return [pid for pid in pids if command(pid).count(b"trackers import serve; serve()")]


def wait_until(condition):
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def hand_made(tmp_path, monkeypatch, body):
    """Trackers of one that a test wrote itself."""
    head = "import os, sys, time\n\ndef write(lines, run, settings, resumed_step, say):\n"
    (tmp_path / "handmade.py").write_text(head + textwrap.indent(body, "    "))
    monkeypatch.syspath_prepend(tmp_path)
    return Trackers({"handmade": Tracker("handmade:write", ())}, tmp_path, CONFIG, 0)


def test_only_finite_numbers_are_curves():
    line = {
        "kind": "epoch",
        "epoch": 2,
        "step": 9,
        "split": "x",
        "clips_per_s": 4,
        "a": True,
        "b": float("nan"),
        "c": "d",
    }
    assert tags(line | {"unreadable": {"P01_01": 2, "P01_02": 1}}) == {"epoch/clips_per_s": 4, "epoch/unreadable": 3}
    assert tags(step_line(7, 2.5)) == {"epoch": 1, "step/lr": 1e-4, "step/loss": 2.5, "step/skipped": 0}


def test_faults_before_training_are_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"unknown tracker 'mlflow', expected one of tensorboard, wandb"):
        open_trackers(["mlflow"], tmp_path, CONFIG, 0)
    monkeypatch.setitem(TRACKERS, "absent", Tracker("a:b", ("no_such_package",)))
    with pytest.raises(InputError, match=r'absent: no_such_package is not installed: pip install "egochef\[track\]"'):
        open_trackers(["absent"], tmp_path, CONFIG, 0)
    nothing = open_trackers([], tmp_path, CONFIG, 0)
    nothing.write(step_line(1, 1.0))
    nothing.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_has_the_values_of_the_log(tmp_path, tensorboard, caplog):
    caplog.set_level(logging.INFO)
    first = open_trackers(["tensorboard", "tensorboard"], tmp_path, CONFIG, 0)
    lines = [step_line(step, 3.0 / step) for step in range(1, 31)] + [evaluation_line(30, 12.5)]
    for line in lines[:28]:
        first.write(line)
    first.close(PATIENCE_S)
    again = open_trackers(["tensorboard"], tmp_path, CONFIG, 20)  # killed after step 28, saved after step 20
    for line in lines[20:]:
        again.write(line)
    again.close(PATIENCE_S)
    shown = read_tensorboard(tmp_path)
    assert sorted(shown) == ["epoch", "evaluation/all_action_accuracy_at_1", "step/loss", "step/lr", "step/skipped"]
    assert shown["step/loss"] == [(step, pytest.approx(3.0 / step)) for step in range(1, 31)]
    assert shown["evaluation/all_action_accuracy_at_1"] == [(30, 12.5)]
    assert not [record for record in caplog.records if record.name.startswith("egochef")]


def test_wandb_offline_keeps_the_values_and_the_run_id(tmp_path, wandb, caplog):
    run = tmp_path / "run"
    run.mkdir()
    for resumed_step in (0, 5):
        tracker = open_trackers(["wandb"], run, CONFIG, resumed_step)
        for step in range(resumed_step + 1, resumed_step + 6):
            tracker.write(step_line(step, 3.0 / step))
        tracker.write(evaluation_line(step, 12.5))
        tracker.close(PATIENCE_S)
    assert not caplog.records
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    (id_a, project, first), (id_b, _, second) = map(read_wandb, files)
    assert id_a == id_b and project == "egochef"
    assert {step: row["step/loss"] for step, row in (first | second).items()} == {s: 3.0 / s for s in range(1, 11)}
    assert first[5]["evaluation/all_action_accuracy_at_1"] == 12.5
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["run"]


def test_wandb_without_a_login_is_switched_off_and_asks_nothing(tmp_path, wandb, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "online")
    tracker = open_trackers(["wandb"], tmp_path, CONFIG, 0)
    wait_until(lambda: caplog.records)
    tracker.write(step_line(1, 1.0))
    tracker.close(PATIENCE_S)
    (record,) = caplog.records
    assert "tracker wandb: switched off" in record.message and "set WANDB_MODE=offline" in record.message


def test_wandb_without_a_network_holds_nothing_up(tmp_path, wandb, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    others = set(all_below(os.getpid()))
    tracker, below = open_trackers(["wandb"], tmp_path, CONFIG, 0), set()

    def both_run():
        """The tracker's process and the service that it starts."""
        below.update(set(all_below(os.getpid())) - others)
        return len(below) >= 2

    wait_until(both_run)
    for step in range(1000):
        tracker.write(step_line(step, 1.0))
    tracker.close(1.0)
    assert "had not finished after 1 s and was ended" in caplog.text
    wait_until(lambda: not any(is_alive(pid) for pid in below))


def test_a_tracker_that_hangs_drops_lines_and_is_ended(tmp_path, monkeypatch, caplog):
    """It would hang for an hour, which no call here waits for."""
    tracker = hand_made(tmp_path, monkeypatch, "os.fork()\ntime.sleep(3600)")
    wait_until(lambda: len(of_trackers(all_below(os.getpid()))) == 2)
    below = of_trackers(all_below(os.getpid()))
    for step in range(4 * trackers.MAX_WAITING):
        tracker.write(step_line(step, 1.0))
    tracker.close(0.5)
    tracker.close(0.5)  # tells nothing twice
    tracker.write(step_line(1, 1.0))
    assert [record.message.partition(" (")[0] for record in caplog.records if "off" in record.message] == [
        "tracker handmade: switched off"
    ]
    (dropped,) = [record.args[1] for record in caplog.records if "only in log.jsonl" in record.message]
    # kept: those that wait, a batch on its way that waits no more, and what a pipe holds
    assert trackers.MAX_WAITING < dropped <= 3 * trackers.MAX_WAITING
    wait_until(lambda: not any(is_alive(pid) for pid in below))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("next(lines)\nraise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left on device"),
        ("next(lines)\nos._exit(3)", "its process ended with code 3"),
        ("next(lines)\nsys.exit('enough')", "SystemExit: enough"),
        ("input('API key: ')", "EOFError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_tracker_that_fails_is_switched_off_once(tmp_path, monkeypatch, caplog, body, reason):
    tracker = hand_made(tmp_path, monkeypatch, body)
    tracker.write(step_line(1, 1.0))
    wait_until(lambda: caplog.records)
    for step in range(2 * trackers.MAX_WAITING):
        tracker.write(step_line(step, 1.0))
    tracker.close(1.0)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and reason in record.message


def test_the_lines_arrive_whole_and_in_order(tmp_path, monkeypatch):
    body = "with open(run / 'got', 'w') as file:\n    for line in lines:\n        print(line['step'], file=file)"
    tracker = hand_made(tmp_path, monkeypatch, body)
    for step in range(3000):
        tracker.write(step_line(step, 1.0) | {"long": "x" * 200})
    tracker.close(PATIENCE_S)
    assert (tmp_path / "got").read_text().split() == [str(step) for step in range(3000)]


TRAINING = """
import logging, signal, sys, time
from pathlib import Path
from egochef.training.trackers import open_trackers
logging.basicConfig(level=logging.INFO, format="%(message)s")
heard = []
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
    signal.signal(number, lambda number, frame: heard.append(number))
trackers = open_trackers(sys.argv[1].split(","), Path(sys.argv[2]), {}, 0)
line = {"kind": "step", "epoch": 1, "loss": 1.0}
for step in range(1, 1000000):
    trackers.write(line | {"step": step})
    num_heard = len(heard)  # read once: what is printed and what ends the loop are the same
    print(step, num_heard, flush=True)
    if num_heard == 3 or step == int(sys.argv[3]):
        break
    time.sleep(0.05)
"""
CLOSE = "trackers.close(60)\nprint('closed')\n"


def training(code, *arguments, **options):
    """A process that stands for training, in a group of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def test_signals_reach_training_only(tmp_path, tensorboard, wandb):
    """The process group gets them, and, as Slurm does it, every process of the job.

    SIGTERM and SIGINT are left out for wandb-core itself, which ends by them whatever it inherits.
    """
    process = training(TRAINING + CLOSE, "tensorboard,wandb", tmp_path, 0)
    wait_until(lambda: list(tmp_path.glob("wandb/offline-run-*/*.wandb")) and list(tmp_path.glob("tensorboard/*")))
    below = all_below(process.pid)
    cores = [pid for pid in below if Path(f"/proc/{pid}/comm").read_text() == "wandb-core\n"]
    ours = of_trackers(below)
    assert len(cores) == 1 and len(ours) == 2
    last = ""
    for num_heard, number in enumerate((signal.SIGUSR1, signal.SIGINT, signal.SIGTERM), 1):
        for pid in ours + cores * (number == signal.SIGUSR1):
            os.kill(pid, number)
        os.killpg(process.pid, number)
        while not last.endswith(f" {num_heard}\n"):
            last = process.stdout.readline()
            assert last, process.communicate()
    closed, told = process.communicate()
    assert (process.returncode, closed, told) == (0, "closed\n", "")
    num_steps = int(last.split()[0])
    assert [step for step, _ in read_tensorboard(tmp_path)["step/loss"]] == list(range(1, num_steps + 1))
    *_, rows = read_wandb(next(tmp_path.glob("wandb/offline-run-*/*.wandb")))
    assert sorted(rows) == list(range(1, num_steps + 1))
    wait_until(lambda: not any(is_alive(pid) for pid in below))


@pytest.mark.slow
def test_trackers_end_when_training_is_killed(tmp_path, tensorboard, wandb):
    process = training(TRAINING, "tensorboard,wandb", tmp_path, 0)
    wait_until(lambda: list(tmp_path.glob("wandb/offline-run-*/*.wandb")) and list(tmp_path.glob("tensorboard/*")))
    below = all_below(process.pid)
    assert len(below) >= 3
    for _ in range(40):
        assert process.stdout.readline()  # and each wrote a step
    process.kill()
    process.communicate()
    wait_until(lambda: not any(is_alive(pid) for pid in below))
    shown = [step for step, _ in read_tensorboard(tmp_path)["step/loss"]]
    assert shown == list(range(1, len(shown) + 1)), "they end in good order"


def test_an_exit_without_closing_waits_for_nothing(tmp_path):
    """The tracker hangs for an hour, and ends by itself only when training is gone."""
    (tmp_path / "handmade.py").write_text("def write(*arguments):\n    import time\n    time.sleep(3600)\n")
    code = TRAINING.replace(
        'open_trackers(sys.argv[1].split(","), ',
        "trackers_module.Trackers({'handmade': trackers_module.Tracker('handmade:write', ())}, ",
    )
    code = "import egochef.training.trackers as trackers_module\n" + code
    process = training(code, "", tmp_path, 0, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    wait_until(lambda: of_trackers(all_below(process.pid)))
    below = all_below(process.pid)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        process.send_signal(number)  # it ends by itself when it has heard all three
    process.communicate()
    assert process.returncode == 0
    wait_until(lambda: not any(is_alive(pid) for pid in below))


def test_a_disk_that_takes_no_more_only_switches_it_off(tmp_path, tensorboard):
    """Files may not grow beyond some size, which the library sees as it sees a full disk."""
    limit = 20_000
    process = training(
        TRAINING.replace("0.05", "0.002") + CLOSE,
        "tensorboard",
        tmp_path,
        3000,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    out, told = process.communicate()
    assert process.returncode == 0 and out.endswith("3000 0\nclosed\n")
    assert told == (
        "tracker tensorboard: switched off (OSError: [Errno 27] File too large); log.jsonl has everything\n"
    )


def test_data_workers_are_forked_beside_it(tmp_path, tensorboard, wandb):
    """DataLoader's processes come and go from the first moment on, while trackers start, write and end."""
    code = """
import sys
from pathlib import Path
import torch
from torch.utils.data import DataLoader
from egochef.training.trackers import open_trackers
data = torch.arange(16)
trackers = open_trackers(["tensorboard", "wandb"], Path(sys.argv[1]), {}, 0)
for step in range(1, 16):
    loader = DataLoader(data, 4, num_workers=2, multiprocessing_context="fork", timeout=300)
    total = sum(int(batch.sum()) for batch in loader)
    assert total == 120
    trackers.write({"kind": "step", "epoch": 1, "step": step, "loss": 1.0 * total})
keeps = iter(DataLoader(data, 4, num_workers=2, multiprocessing_context="fork", persistent_workers=True))
next(keeps)
trackers.close(60)
"""
    process = training(code, tmp_path)
    _, told = process.communicate()
    assert (process.returncode, told) == (0, "")
    assert read_tensorboard(tmp_path)["step/loss"] == [(step, 120.0) for step in range(1, 16)]
