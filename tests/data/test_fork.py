"""A forked process that hangs before it has begun, as CPython leaves one where a thread held a lock, is replaced."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, time
from pathlib import Path
import torch
from egochef.data import fork

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, place):
        return place, os.getpid()

def hang():  # in the first new processes, inside of os.fork; each leaves a file
    Path(sys.argv[1], str(os.getpid())).touch()
    if len(os.listdir(sys.argv[1])) <= int(sys.argv[2]):
        time.sleep(1000)

fork.PATIENCE_S = (0.5, 1.0, 1.5)
os.register_at_fork(after_in_child=hang)
loader = torch.utils.data.DataLoader(Numbers(), num_workers=2, multiprocessing_context=fork.fork_context())
rows = [(int(place), int(pid)) for place, pid in loader]
print([place for place, _ in rows], len({pid for _, pid in rows}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
@pytest.mark.parametrize(("num_hanging", "told"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_a_process_that_does_not_come_up_is_replaced(tmp_path, num_hanging, told):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(num_hanging)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.count("did not come up") == told, done.stderr
    if num_hanging < 3:
        assert (done.returncode, done.stdout) == (0, "[0, 1, 2, 3, 4, 5] 2\n"), done.stderr
    else:
        assert "InputError: data workers do not come up. Use --workers 0" in done.stderr
