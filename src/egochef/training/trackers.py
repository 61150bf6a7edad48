"""Showing a run while it goes, in TensorBoard or Weights & Biases. `log.jsonl` stays the truth.

In: the lines of `log.jsonl`, as dicts. Out: RUN/tensorboard, RUN/wandb. Whatever a tracker does - hang, fail, fill the
disk - training neither waits for it nor ends by it: lines go over a bounded queue to a thread, which hands them to a
process of the tracker's own. That process starts clean (so training's data workers are never forked from a process
with a tracker's threads and locks in it), has no terminal to ask on, hears none of the signals that training gets, can
be killed where it hangs, and ends by itself when training is gone.
"""

import contextlib
import importlib
import json
import logging
import math
import os
import queue
import secrets
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egochef.errors import InputError
from egochef.extras import need_extra

log = logging.getLogger(__name__)

MAX_WAITING = 4096
"""lines that wait for a tracker; more are dropped and counted"""
POLL_S = 0.2
"""how often lines are handed over"""
ORPHAN_S = 10.0
"""that a tracker has to finish when training is gone"""
MIN_FREE_BYTES = 1 << 20
"""on the disk; with less, what Weights & Biases writes may be lost"""
INIT_S = 60.0
"""that Weights & Biases has to answer at the start"""
CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from egochef.training.trackers import serve; serve()"
BLOCKED = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT")
    if hasattr(signal, name)
)
"""meant for training, which tells the trackers itself; schedulers send them to every process of a job"""
NO_TAGS = ("kind", "step", "epoch", "split")
"""fields of a line that are no curves of their own"""


@dataclass(frozen=True)
class Tracker:
    """A kind of tracker."""

    target: str
    """`module:function`, called in the tracker's process"""
    packages: tuple[str, ...]
    """that have to be installed"""


TRACKERS = {
    "tensorboard": Tracker("egochef.training.trackers:write_tensorboard", ("tensorboard",)),
    "wandb": Tracker("egochef.training.trackers:write_wandb", ("wandb",)),
}


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers asked for, each once.

    Raises:
        InputError: there is no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"unknown tracker {name!r}, expected one of {', '.join(TRACKERS)}")
        need_extra("track", f"the tracker {name}", TRACKERS[name].packages)
    return tuple(dict.fromkeys(names))


def open_trackers(names: Sequence[str], run: Path, settings: dict[str, Any], resumed_step: int) -> "Trackers":
    """Start showing a run.

    Args:
        settings: what the run was started with, shown beside its curves.
        resumed_step: optimiser steps done before; what an earlier start sent of later ones is replaced.

    Raises:
        InputError: there is no such tracker, or its package is not installed.
    """
    trackers = {name: TRACKERS[name] for name in check_trackers(names)}
    return Trackers(trackers, run, settings, resumed_step)


def tags(line: Mapping[str, Any]) -> dict[str, float]:
    """What of a log line is a curve: its finite numbers, by names such as `step/loss`.

    >>> tags({"kind": "step", "epoch": 1, "step": 7, "loss": 2.5, "verb_loss": None})
    {'epoch': 1, 'step/loss': 2.5}
    """
    kind = line.get("kind", "line")
    values = {"epoch": line["epoch"]} if kind == "step" and "epoch" in line else {}
    values |= {f"{kind}/{name}": value for name, value in line.items() if name not in NO_TAGS}
    if isinstance(counts := line.get("unreadable"), dict):
        values[f"{kind}/unreadable"] = sum(counts.values())
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


class Trackers:
    """The trackers of a run. Whatever happens to them, its methods neither raise nor wait (`close`: not for long)."""

    def __init__(self, trackers: Mapping[str, Tracker], run: Path, settings: dict[str, Any], resumed_step: int):
        start = {"run": str(Path(run).absolute()), "settings": settings, "resumed_step": resumed_step}
        self._feeders = [_Feeder(name, tracker.target, start) for name, tracker in trackers.items()]
        for feeder in self._feeders:
            feeder.start()

    def write(self, line: Mapping[str, Any]) -> None:
        """Hand over a line of the log."""
        for feeder in self._feeders:
            feeder.put(dict(line))

    def close(self, timeout_s: float = 10.0) -> None:
        """Let the trackers finish within that time, end those that do not, and tell what was lost."""
        until = time.monotonic() + timeout_s
        for feeder in self._feeders:
            feeder.closing.set()
        for feeder in self._feeders:
            feeder.end(until, timeout_s)
        self._feeders = []


class _Feeder(threading.Thread):
    """Starts a tracker's process, hands it the lines and hears what it says."""

    def __init__(self, name: str, target: str, start: dict[str, Any]):
        super().__init__(daemon=True, name=f"tracker {name}")
        self.tracker, self.target, self.start_line = name, target, start
        self.closing = threading.Event()
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue(MAX_WAITING)
        self._process: subprocess.Popen[bytes] | None = None
        self._num_dropped = 0
        self._fault: str | None = None
        self._done = False

    def put(self, line: dict[str, Any]) -> None:
        if self._fault is not None or self.closing.is_set():
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._num_dropped += 1

    def run(self) -> None:
        try:
            self._feed()
        except Exception as error:  # whatever it is, training goes on without the tracker
            self._fail(f"{type(error).__name__}: {error}")
        if not self._done:
            self._fail("its process ended")

    def end(self, until: float, timeout_s: float) -> None:
        self.join(max(0.0, until - time.monotonic()))
        if self.is_alive():
            self._fail(f"it had not finished after {timeout_s:g} s and was ended")
        if (process := self._process) is not None and process.poll() is None:
            _kill(process.pid)
            self.join(1.0)
        if self._num_dropped:
            log.warning(
                "tracker %s: %d lines came faster than it took them, and are only in log.jsonl",
                self.tracker,
                self._num_dropped,
            )

    def _fail(self, why: str) -> None:
        """Switch the tracker off, and say why, once."""
        if self._fault is None:
            self._fault = why
            log.warning("tracker %s: switched off (%s); log.jsonl has everything", self.tracker, why)

    def _feed(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # for this thread and the process it starts, which inherits it
            signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        lines_out, lines_in = os.pipe()
        words_out, words_in = os.pipe()
        process = None
        try:
            command = [sys.executable, "-c", CHILD, json.dumps(sys.path), self.target]
            command += [str(lines_out), str(words_in), str(os.getpid())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(lines_out, words_in),
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
            self._process = process
        finally:
            os.close(lines_out)
            os.close(words_in)
            if process is None:
                os.close(lines_in)
                os.close(words_out)
        try:
            self._exchange(process, lines_in, words_out)
        finally:
            os.close(lines_in)
            os.close(words_out)

    def _exchange(self, process: subprocess.Popen[bytes], lines_in: int, words_out: int) -> None:
        """Until the process ends: lines go in as fast as it takes them, its words come out."""
        os.set_blocking(lines_in, False)
        waiting = _as_line(self.start_line)
        words = b""
        ended = False
        ears, mouth = select.poll(), select.poll()
        ears.register(words_out, select.POLLIN)
        mouth.register(lines_in, select.POLLOUT)
        while True:
            if not waiting and not ended:
                waiting, ended = self._take()
            if waiting and mouth.poll(0 if words_out in dict(ears.poll(0)) else POLL_S * 1000):
                try:
                    waiting = waiting[os.write(lines_in, waiting) :]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    waiting, ended = b"", True
            if words_out in dict(ears.poll(0 if waiting else POLL_S * 1000)):
                heard = os.read(words_out, 65536)
                if not heard:
                    process.wait()
                    break
                words += heard
                *whole, words = words.split(b"\n")
                for word in whole:
                    self._hear(json.loads(word))
        if not self._done:
            self._fail(f"its process ended with code {process.returncode}")

    def _take(self) -> tuple[bytes, bool]:
        """The lines that wait, and whether the last one is among them."""
        is_last = self.closing.is_set()
        taken: list[bytes] = []
        while len(taken) < MAX_WAITING:
            try:
                taken.append(_as_line(self._lines.get_nowait()))
            except queue.Empty:
                if is_last:
                    return b"".join(taken) + b"null\n", True
                break
        return b"".join(taken), False

    def _hear(self, word: dict[str, str]) -> None:
        if "fault" in word:
            self._fail(word["fault"])
        elif "say" in word:
            log.info("tracker %s: %s", self.tracker, word["say"])
        else:
            self._done = True


def _as_line(value: Any) -> bytes:
    return json.dumps(value, default=str).encode() + b"\n"


def _kill(pid: int) -> None:
    """End a tracker's process, which leads a group of its own, and those that it started in groups of theirs."""
    for each in (*_started_by(pid), pid):
        for kill in (os.killpg, os.kill):
            try:
                kill(each, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue


def _started_by(pid: int) -> list[int]:
    """Processes below one, the lowest first; none where the system does not tell."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for task in Path(f"/proc/{pid}/task").iterdir():
            if task.name != str(pid):
                children += [int(each) for each in (task / "children").read_text().split()]
    except OSError:
        return []
    return [each for child in children for each in (*_started_by(child), child)]


# What follows runs in the tracker's own process.


def serve() -> None:
    """Main function of a tracker's process: lines in on one pipe, `say`, `fault` and `done` out on another."""
    target, lines_out, words_in, parent = sys.argv[2], *(int(word) for word in sys.argv[3:6])
    del sys.argv[1:]  # trackers show it
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.nice(5)  # training comes first

    def tell(**word: str) -> None:
        with contextlib.suppress(OSError):  # training is gone
            os.write(words_in, _as_line(word))

    lines = _read_lines(lines_out, parent)
    try:
        start = next(lines)
        module, _, function = target.partition(":")
        write = getattr(importlib.import_module(module), function)
        write(lines, Path(start["run"]), start["settings"], start["resumed_step"], lambda text: tell(say=text))
        tell(done="")
    except BaseException as error:  # SystemExit too: libraries exit
        tell(fault=_one_line(error))
    _kill_others()
    os._exit(0)  # libraries' own exit handlers may wait for a network


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.300}" if text else type(error).__name__


def _read_lines(lines_out: int, parent: int) -> Iterator[dict[str, Any]]:
    """Lines until the last one, or until the process that sends them is gone."""
    ears = select.poll()
    ears.register(lines_out, select.POLLIN)
    rest = b""
    while os.getppid() == parent:
        if not ears.poll(1000):
            continue
        heard = os.read(lines_out, 65536)
        if not heard:
            return
        *whole, rest = (rest + heard).split(b"\n")
        for line in map(json.loads, whole):
            if line is None:
                return
            yield line


def _end_with(parent: int) -> None:
    """Where training was killed, finish; and where that takes too long, end."""
    while os.getppid() == parent:
        time.sleep(1.0)
    time.sleep(ORPHAN_S)
    _kill_others()
    os._exit(1)


def _kill_others() -> None:
    for each in _started_by(os.getpid()):
        try:
            os.kill(each, signal.SIGKILL)
            os.waitpid(each, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def write_tensorboard(
    lines: Iterator[dict[str, Any]],
    run: Path,
    settings: dict[str, Any],
    resumed_step: int,
    say: Callable[[str], None],
) -> None:
    """Curves into RUN/tensorboard."""
    from torch.utils.tensorboard import SummaryWriter

    purge_step = resumed_step + 1 if (run / "tensorboard").is_dir() else None
    writer = SummaryWriter(str(run / "tensorboard"), purge_step=purge_step, flush_secs=5)
    if resumed_step == 0:
        shown = json.dumps(settings, indent=1)
        writer.add_text("config", "".join(f"    {row}\n" for row in shown.splitlines()), 0)  # Markdown's code
    for line in lines:
        for name, value in tags(line).items():
            writer.add_scalar(name, value, line["step"])
    writer.close()


def write_wandb(
    lines: Iterator[dict[str, Any]],
    run: Path,
    settings: dict[str, Any],
    resumed_step: int,
    say: Callable[[str], None],
) -> None:
    """Curves to Weights & Biases; its files are in RUN/wandb. WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY count as ever."""
    kept_id = run / "wandb" / "egochef-run-id"
    kept_id.parent.mkdir(exist_ok=True)
    if not kept_id.is_file():
        kept_id.write_text(secrets.token_hex(8))
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    import wandb

    options = wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        init_timeout=INIT_S,
        x_stats_pid=os.getppid(),
    )
    try:
        live = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "egochef"),
            name=os.environ.get("WANDB_NAME", run.name),
            id=kept_id.read_text().strip(),
            resume="allow",
            dir=str(run),
            config=settings,
            settings=options,
        )
    except wandb.Error as error:
        raise RuntimeError(f"{error} Without a network or an account, set WANDB_MODE=offline.") from error
    if live.url:
        say(live.url)
    for line in lines:
        live.log(tags(line), step=line["step"])
        _check_space(run)
    live.finish()
    wandb.teardown()  # the service writes what it holds, and ends
    _check_space(run)


def _check_space(run: Path) -> None:
    """The service of Weights & Biases keeps to itself that a disk is full."""
    if shutil.disk_usage(run).free < MIN_FREE_BYTES:
        raise OSError(f"less than {MIN_FREE_BYTES >> 20} MiB is free on the disk of {run}")
