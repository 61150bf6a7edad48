"""Parts of one store that begin at the same moment, as the jobs of an array do."""

from pathlib import Path

from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec


def test_a_part_finds_a_store_that_another_part_begins_just_then(toy_root, tmp_path, monkeypatch):
    """The other one begins, and ends, while the first looks what is in the folder, where it saw no store before."""
    store, spec, iterdir = tmp_path / "store", StoreSpec(size_px=16), Path.iterdir
    store.mkdir()

    def begin_other(folder):
        if folder == store:
            monkeypatch.undo()
            assert prepare(toy_root, store, spec, splits=("test",), shard=(2, 2)).num_missing > 0
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", begin_other)
    done = prepare(toy_root, store, spec, splits=("test",), shard=(1, 2))
    assert done.num_missing == 0 and done.about.finished
