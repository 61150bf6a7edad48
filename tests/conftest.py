"""What the tests share. Where something that a test needs is missing, it skips visibly; in CI it fails."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def need(present: bool, what: str) -> None:
    """Skip the test that lacks `what`, or fail it where everything must be there (EGOCHEF_REQUIRE_ALL)."""
    if present:
        return
    if os.environ.get("EGOCHEF_REQUIRE_ALL"):
        pytest.fail(f"needs {what}, and EGOCHEF_REQUIRE_ALL is set")
    pytest.skip(f"needs {what}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for `make soak`, unless it or a single test is asked for."""
    if "soak" in config.option.markexpr or any("::" in word for word in config.args):
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=soak)
    items[:] = [item for item in items if not item.get_closest_marker("soak")]


def machine_s() -> float | None:
    """Processor seconds that all processes of the machine have taken so far; None where it does not say."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


BEGAN_S = machine_s()

# Before torch is imported, here and in what tests start: several files of small work run at a time, and threads that
# wait for each other cost more than they bring. `OMP_NUM_THREADS=2 make test` tries several.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell takes Ctrl-C away from what it starts in the background, and what that starts inherits it: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The processor time of the whole run: what `make test` costs."""
    waited_for_s = sum(os.times()[:4])  # this process and its children, the workers of xdist among them
    line = f"processor time: {waited_for_s:.0f} s"
    if BEGAN_S is not None and (now_s := machine_s()) is not None:
        line += f"; of the whole machine meanwhile: {now_s - BEGAN_S:.0f} s"  # also of orphans, and of other work
    terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is fetched or written once goes here, for processes that tests start too, and not into a person's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("EGOCHEF_CACHE")
    os.environ["EGOCHEF_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["EGOCHEF_CACHE"]
    else:
        os.environ["EGOCHEF_CACHE"] = before


@pytest.fixture(scope="session")
def ek100_annotations() -> Path:
    """The official EK-100 annotation files (CC BY-NC 4.0, not carried by the project)."""
    folder = SHARED / "ek100" / "annotations"
    need(folder.is_dir(), f"the EK-100 annotations in {folder}")
    return folder


@pytest.fixture(scope="session")
def ek100_clips() -> Path:
    """Three real EK-100 segments as videos (CC BY-NC 4.0, not carried by the project)."""
    folder = SHARED / "ek100" / "clips"
    need(folder.is_dir(), f"the EK-100 clips in {folder}")
    return folder


@pytest.fixture(scope="session")
def odd_videos() -> Path:
    """Odd and broken videos from other projects' test suites."""
    folder = SHARED / "videos" / "odd"
    need(folder.is_dir(), f"the odd videos in {folder}")
    return folder


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ToyKitchen, drawn once for all of xdist's workers. Tests read it; one that changes it takes a copy."""
    import fcntl

    from egochef.toykitchen import ToyConfig, draw_kitchen

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers' folders are in it
    root = folder / "toy-kitchen"
    with (folder / "toy-kitchen.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        if not root.exists():
            config = ToyConfig(preset="small", num_segments=36, seed=7, width_px=228, height_px=128)
            draw_kitchen(root, config)
    return root
