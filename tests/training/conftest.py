"""What the tests of training share. All of it is tiny: on one thread it costs least, and gives the same bits again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import TINY, one_thread

from egochef.training.loop import train


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def tiny_run(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of TINY. Tests read it; one that changes it takes a copy."""
    run = tmp_path_factory.mktemp("tiny") / "my: 'run' #1"  # a name that has to be quoted
    with one_thread():
        train(TINY, toy_root, run)
    return run
