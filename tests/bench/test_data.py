"""What `egochef bench data` says: the same clips for every way, ratios from its rows, JSON and nothing else."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import need

from egochef.bench import ways
from egochef.bench.data import (
    DataBench,
    Row,
    Watched,
    open_dataset,
    plan,
    quick_bench,
    ratios_of,
    share_of_others,
    wanted_frames,
)
from egochef.bench.kitchens import Kitchen, set_up
from egochef.bench.process import in_fresh_process
from egochef.bench.ways import WAYS
from egochef.errors import InputError, Stopped
from egochef.extras import ExtraError
from egochef.stopping import StopSignals

KITCHENS = ("long", "short", "easy")
BENCH = dataclasses.replace(quick_bench(), naive_clips=8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return set_up(tmp_path_factory.mktemp("bench") / "long", BENCH.long, BENCH.store, num_workers=1)


@pytest.fixture(scope="module")
def wanted(place):
    return wanted_frames(place, BENCH)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_shows_the_same_frames_in_the_same_order(place, wanted, way):
    try:
        dataset = open_dataset(way, place, BENCH)
    except ExtraError as error:
        need(False, f"{way} ({error})")
    frames = dataset.frames = Watched(dataset.frames)
    keys = plan(len(dataset), 1, BENCH.seed)[:8]
    samples = [dataset[key] for key in keys]
    assert [sample.segment for sample in samples] == [key[2] for key in keys]
    assert all(sample.frames.shape == (8, 64, 64, 3) and not sample.failures for sample in samples)
    assert share_of_others(np.concatenate(frames.small), wanted) == 0


def test_other_frames_are_noticed(wanted):
    moving = np.abs(wanted[0].astype(int) - wanted[1]).mean(axis=(1, 2, 3)) > 0.1
    assert moving.mean() > 0.5, "the kitchen stands still"
    assert share_of_others(wanted[0], wanted) == 0
    assert share_of_others(wanted[1][moving], wanted[:, moving]) == 1
    assert share_of_others(255 - wanted[0], wanted) == 1


def test_every_segment_is_read_once_in_a_pass():
    keys = plan(10, 3, seed=1)
    assert [key[:2] for key in keys] == [(epoch, position) for epoch in range(3) for position in range(10)]
    assert all(sorted(key[2] for key in keys[start : start + 10]) == list(range(10)) for start in (0, 10, 20))
    assert keys[:10] == plan(10, 1, seed=1)


def test_what_is_there_is_used_again_and_another_kitchen_refused(place):
    root = place.kitchen.parent
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert len(list(place.pictures.rglob("*.jpg"))) > 100
    assert set_up(root, BENCH.long, BENCH.store, num_workers=1) == place
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert set(after) == set(before)
    assert all(after[path] == before[path] for path in before if path.suffix in (".MP4", ".tar", ".jpg"))
    with pytest.raises(InputError, match="another kitchen"):
        set_up(root, Kitchen(BENCH.long.config), BENCH.store)


def test_ratios_come_from_rows_and_the_fastest_raw_way_counts():
    speeds = {"store": 100.0, "jpeg_folder": 80.0, "raw": 8.0, "torchcodec": None, "opencv": 10.0, "pyav_seek": 0.5}
    rows = [Row(f"long/{way} clips_per_core_s", speed, "clips/s a core") for way, speed in speeds.items()]
    rows += [Row("long/store num_files", 4, "files"), Row("long/jpeg_folder num_files", 1000, "files")]
    assert ratios_of(rows) == {
        "store_over_raw": 10.0,
        "store_over_jpeg_folder": 1.25,
        "store_over_raw_short": None,
        "store_over_raw_easy": None,
        "store_over_pyav_seek": 200.0,
        "files_jpeg_folder_over_store": 250.0,
    }


def test_why_torchcodec_is_missing(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ExtraError, match=r"torchcodec is not installed: pip install \"egochef\[bench\]\""):
        ways.torchcodec_decoder()
    monkeypatch.delitem(sys.modules, "torchcodec")
    _spoil_torchcodec(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExtraError, match=r"cannot be imported \(RuntimeError: Could not load libtorchcodec"):
        ways.torchcodec_decoder()


def _spoil_torchcodec(folder):
    """A torchcodec that finds no FFmpeg, as it says so."""
    package = folder / "torchcodec"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise RuntimeError('Could not load libtorchcodec. Likely causes:\\n  1. ...')"
    )


def refuse():
    raise InputError("no")


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def test_faults_of_processes_that_measure_are_told():
    with pytest.raises(InputError, match="^no$"):
        in_fresh_process(refuse)
    with pytest.raises(InputError, match="killed .signal 9"):
        in_fresh_process(kill_itself)


def start_and_wait(fifo, parent):
    """Open what tells that this process, and one that it starts, are there."""
    held_by_both = os.open(fifo, os.O_WRONLY)
    subprocess.Popen(["sleep", "1000"], pass_fds=[held_by_both])
    os.kill(parent, signal.SIGTERM)
    time.sleep(1000)


def test_a_signal_ends_the_process_that_measures_and_what_it_has_started(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    ear = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(Stopped, match="SIGTERM"), StopSignals():
        in_fresh_process(start_and_wait, tmp_path / "fifo", os.getpid())
    os.set_blocking(ear, True)
    assert os.read(ear, 1) == b"", "closed by both"
    os.close(ear)


def test_wrong_numbers_are_refused():
    with pytest.raises(InputError, match="rounds is 0"):
        DataBench(rounds=0)


@pytest.mark.slow
def test_the_command_prints_json_and_nothing_else(tmp_path):
    _spoil_torchcodec(tmp_path)
    command = [sys.executable, "-m", "egochef", "bench", "data", "--quick", "--json"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"machine", "rows", "ratios"}
    assert {"cores", "processor", "gpu", "torch", "av", "load_average_before"} <= set(found["machine"])
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"])
    assert all({"name", "value", "unit"} <= set(row) <= {"name", "value", "unit", "note"} for row in found["rows"])
    missing = {name: row for name, row in rows.items() if row["value"] is None}
    assert set(missing) == {f"{kitchen}/torchcodec clips_per_core_s" for kitchen in KITCHENS}
    broken = "torchcodec is installed, but cannot be imported (RuntimeError: Could not load libtorchcodec"
    assert all(broken in row["note"] for row in missing.values())
    for kitchen in KITCHENS:
        for way in set(WAYS) - {"torchcodec"}:
            assert rows[f"{kitchen}/{way} other_frames"]["value"] == 0
            assert rows[f"{kitchen}/{way} clips_per_core_s"]["value"] > 0
    assert found["ratios"] == ratios_of([Row(**row) for row in found["rows"]])
    assert all(found["ratios"].values())
    assert not list(tmp_path.glob("egochef-bench-*")), "the drawn kitchens are left behind"
