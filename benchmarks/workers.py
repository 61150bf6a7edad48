"""Memory of the data workers over many clips, and what a training batch costs.

    python benchmarks/workers.py [--data ROOT] > benchmarks/results/workers.json

Without --data it draws a small kitchen. Two workers read 3,200 training clips of 16 frames at 224 px; their
private memory is read from /proc along the way (Linux). Prints one JSON object.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import torch

from egochef.clip import ClipSpec
from egochef.data.annotations import open_data_folder, read_split
from egochef.data.dataset import Batches, ClipDataset, Key, epoch_order, make_loader, split_evenly
from egochef.data.frames import open_frames
from egochef.data.transforms import Augment
from egochef.runtime import describe_machine
from egochef.toykitchen import ToyConfig, draw_kitchen

NUM_WORKERS, MICRO_BATCH, NUM_CLIPS = 2, 8, 3200


def resident_mib(pid: int) -> float:
    """Memory of a process that no other one shares, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
    return kib / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data folder in EK-100's layout")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = args.data or draw_kitchen(Path(temporary, "kitchen"), ToyConfig(preset="small", num_segments=120))
        print(json.dumps(measure(data), indent=1))


def measure(data: Path) -> dict[str, object]:
    torch.set_num_threads(1)
    folder = open_data_folder(data)
    segments = read_split(folder, "train")
    dataset = ClipDataset(segments, open_frames(folder, segments, ClipSpec().grid), ClipSpec(), augment=Augment())
    num_epochs = -(-NUM_CLIPS // len(segments))
    keys: list[Key] = [
        (e, p, int(i)) for e in range(num_epochs) for p, i in enumerate(epoch_order(len(segments), 0, e))
    ]
    plan = split_evenly(keys[:NUM_CLIPS], MICRO_BATCH)
    loader = make_loader(dataset, Batches(plan), num_workers=NUM_WORKERS)
    memory = []
    started = time.perf_counter()
    batch_bytes = 0
    for number, batch in enumerate(loader, 1):
        batch_bytes = max(batch_bytes, batch.frames.nbytes)
        if number % (len(plan) // 10) == 0:
            workers = multiprocessing.active_children()
            memory.append(round(max(resident_mib(worker.pid) for worker in workers if worker.pid), 1))
    seconds = time.perf_counter() - started
    return {
        "machine": describe_machine(),
        "num_clips": NUM_CLIPS,
        "frames_a_clip": 16,
        "clips_per_s": round(NUM_CLIPS / seconds, 1),
        "batch_mib": round(batch_bytes / 2**20, 1),
        "largest_worker_private_mib": memory,
        "growth_mib_second_half": round(memory[-1] - memory[len(memory) // 2], 1),
    }


if __name__ == "__main__":
    main()
