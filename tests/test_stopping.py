"""Signals become an exception at the right moment, once, and not where they are ignored or something is being made."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from egochef.errors import Stopped
from egochef.stopping import SIGNALS, StopSignals, held


@pytest.fixture(autouse=True)
def heard():
    """None of them is ignored, as `nohup` has SIGHUP."""
    ignored = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_each_signal_is_told_by_its_name_and_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with pytest.raises(Stopped, match=f"^stopped by {number.name}$"), StopSignals():
            send(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_asking_twice_gets_the_same_orderly_end():
    cleaned = []
    with pytest.raises(Stopped, match="SIGTERM"), StopSignals():
        try:
            send()
        finally:
            send(signal.SIGINT)
            cleaned.append("in a finally")

            def produce():
                try:
                    yield
                finally:
                    send(signal.SIGHUP)
                    cleaned.append("in a generator")

            next(produce())  # closed as it is dropped
    assert cleaned == ["in a finally", "in a generator"]


def test_one_that_a_library_has_swallowed_can_be_sent_again():
    with pytest.raises(Stopped, match="SIGTERM"), StopSignals():
        with contextlib.suppress(BaseException):
            send()
        send()


def test_one_that_is_ignored_at_the_start_stays_ignored():
    """As `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            send(signal.SIGHUP)
        assert stop.received is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_waits_until_something_is_made():
    made = []
    with pytest.raises(Stopped), StopSignals():
        with held():
            send()
            made.append("whole")
        made.append("more")
    assert made == ["whole"]


def test_one_that_only_the_last_part_of_a_work_heard_ends_the_next_part():
    with StopSignals():
        with StopSignals() as inner, inner.deferred():
            send()
        with StopSignals() as later:
            assert later.received == "SIGTERM"
            with pytest.raises(Stopped), held():
                pass


def test_none_ends_the_telling_of_what_one_has_ended():
    told = []
    with StopSignals():
        with StopSignals() as stop, stop.deferred():
            send()
            stop.answer()
        send(signal.SIGINT)
        with held():
            send(signal.SIGHUP)
        told.append("all")
    assert told == ["all"]


def test_while_a_compiled_library_loads_it_waits_for_the_end(tmp_path):
    """Here one whose start runs Python, as that of many does: numpy's would turn the signal into an ImportError."""
    script = (
        "import os, signal, sys, threading\n"
        "from importlib.machinery import ExtensionFileLoader\n"
        "from egochef.stopping import StopSignals\n"
        "heard = []\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        frame = sys._getframe()\n"
        "        while frame and frame.f_code is not ExtensionFileLoader.exec_module.__code__: frame = frame.f_back\n"
        "        if frame and not heard:\n"
        "            heard.append(name); os.kill(os.getpid(), signal.SIGTERM); heard.append('after')\n"
        "sys.meta_path.insert(0, Watch())\n"
        "try:\n"
        "    with StopSignals(): import numpy, numpy.random, cv2, pandas; threading.Event().wait(60)\n"
        "except BaseException as error: print(type(error).__name__, heard[1:])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "Stopped ['after']\n", done.stderr
