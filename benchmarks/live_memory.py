"""Measures whether `egochef live` holds its memory over a long stream.

    python benchmarks/live_memory.py > benchmarks/results/live_memory.json     # half an hour

Runs the command itself, headless, on a drawn kitchen video of about a minute in a loop, with a recording and a log, and
reads the process's memory from /proc every five seconds (Linux). Weights are random: they change nothing here. Prints
one JSON object; memory in MiB, `growth_mib_per_h` a line fitted to the second half.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from egochef.bench.live import random_checkpoint
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.runtime import describe_machine
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.video.decode import probe

SAMPLE_EVERY_S = 5.0
START_S = 60.0
"""of which memory is not looked at: the loop has not begun again yet"""


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0, help="that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps({"machine": describe_machine(), **measure(Path(temporary), args.seconds)}, indent=1))


def measure(work: Path, seconds: float) -> dict[str, Any]:
    """One run, and its memory along the way."""
    checkpoint = random_checkpoint("light16", work)
    folder = open_data_folder(draw_kitchen(work / "kitchen", ToyConfig(num_segments=100)))
    videos = find_videos(folder, read_split(folder, "train")).values()
    video = max(videos, key=seconds_of)
    command = [sys.executable, "-m", "egochef", "live", "--checkpoint", checkpoint, "--camera", video]
    command += ["--loop", "--headless", "--record", work / "out.mp4", "--log", work / "out.jsonl"]
    command += ["--seconds", seconds, "--json"]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    began_at = time.perf_counter()
    samples: list[tuple[float, float]] = []
    while process.poll() is None:
        samples.append((time.perf_counter() - began_at, resident_mib(process.pid)))
        time.sleep(SAMPLE_EVERY_S)
    assert process.stdout is not None
    report = json.loads(process.stdout.read())
    times_s, mib = np.array([(at, used) for at, used in samples if at > min(START_S, seconds / 4) and used > 0]).T
    half = times_s > times_s[-1] / 2
    lines = (work / "out.jsonl").read_text().splitlines()
    return {
        "video_s": round(seconds_of(video), 1),
        "seconds": report["seconds"],
        "num_captured": report["num_captured"],
        "num_predictions": report["num_predictions"],
        "num_lines": len(lines),
        "num_loops": json.loads(lines[-1])["session"],
        "recording_s": round(seconds_of(work / "out.mp4"), 1),
        "recording_mib": round((work / "out.mp4").stat().st_size / 2**20, 1),
        "memory": {
            "after_a_minute": round(float(mib[0]), 1),
            "most": round(float(mib.max()), 1),
            "at_the_end": round(float(mib[-1]), 1),
            "growth_mib_per_h": round(float(3600 * np.polyfit(times_s[half], mib[half], 1)[0]), 1),
        },
    }


def seconds_of(video: Path) -> float:
    """Its length."""
    return probe(video).duration_s or 0.0


def resident_mib(pid: int) -> float:
    """Memory of a process; 0 when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    main()
