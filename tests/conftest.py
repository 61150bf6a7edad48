"""What the tests share. Where something that a test needs is missing, it skips visibly; in CI it fails."""

import os
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The processor time of the whole run: what `make test` costs, whatever else the machine does meanwhile."""
    if not hasattr(config, "workerinput"):
        total_s = sum(os.times()[:4])  # this process and all that it waited for, the workers of xdist among them
        terminalreporter.write_line(f"processor time: {total_s:.0f} s, of all processes")


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
    """A tiny ToyKitchen. Tests read it; one that changes it takes a copy."""
    from egochef.toykitchen import ToyConfig, draw_kitchen

    root = tmp_path_factory.mktemp("toy") / "kitchen"
    return draw_kitchen(root, ToyConfig(preset="small", num_segments=36, seed=7))
