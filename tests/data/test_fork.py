"""A forked process that hangs before it has begun, as CPython leaves one where a thread held a lock, is replaced."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, sys, time
from pathlib import Path
import torch
from egochef.data import fork
from egochef.errors import InputError

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, place):
        return place

def hang():  # in each new process, inside of os.fork; it leaves a file, and the first ones stay here
    Path(folder, str(os.getpid())).touch()
    if len(os.listdir(folder)) <= num_hanging:
        time.sleep(1000)

os.register_at_fork(after_in_child=hang)
for num_hanging in map(int, sys.argv[2:]):
    folder = Path(sys.argv[1], str(num_hanging))
    folder.mkdir()
    fork.PATIENCE_S = [0.5 if number < num_hanging else 600.0 for number in range(3)]  # long for one that only is slow
    loader = torch.utils.data.DataLoader(Numbers(), num_workers=1, multiprocessing_context=fork.fork_context())
    try:
        print(json.dumps([int(place) for place in loader]), flush=True)
    except InputError as error:
        print(json.dumps(str(error)), flush=True)
    print(num_hanging, "done", file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_a_process_that_does_not_come_up_is_replaced(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "0", "1", "2", "9"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole = [0, 1, 2, 3, 4, 5]
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said == [whole] * 3 + ["data workers do not come up. Use --workers 0, or a newer Python (3.11.10 or later)."]
    parts = done.stderr.split(" done\n")
    assert [part.count("did not come up") for part in parts] == [0, 1, 2, 3, 0], done.stderr
