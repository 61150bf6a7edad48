"""The explorer as a process of its own, and folders and scores to show in it."""

import csv
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from egochef.data.annotations import Segment, open_data_folder, read_split
from egochef.scoring.table import ScoreTable, save_scores

ANNOTATIONS = "epic-kitchens-100-annotations"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> & \u2028"
DAMAGED_VIDEO, MISSING_VIDEO = "P03_01", "P04_101"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict:
        return json.loads(self.body)


@dataclass(frozen=True)
class Explorer:
    """A server that runs."""

    process: subprocess.Popen
    url: str
    port: int

    def get(self, target: str, *, method: str = "GET", headers: dict[str, str] | None = None, **parameters) -> Answer:
        """An answer; no address is mended on its way."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection._validate_path = lambda url: None  # what is malformed must reach the server
        if parameters:
            target += "?" + urlencode(parameters)
        try:
            connection.putrequest(method, target, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@contextmanager
def explorer(*words: object) -> Iterator[Explorer]:
    """`egochef explore WORDS` on a free port; in the end Ctrl-C must end it with 0 and without a traceback."""
    command = [sys.executable, "-m", "egochef", "explore", *map(str, words), "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"(http://127\.0\.0\.1:(\d+)/)\n", line)
        assert found, f"no address but {line!r}: {process.communicate()[1]}"
        yield Explorer(process, found[1], int(found[2]))
        assert process.poll() is None, f"the server ended: {process.communicate()[1]}"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=300)
        assert (process.returncode, rest) == (0, ""), errors
        assert "Traceback" not in errors, errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def spoiled_copy(toy_root: Path, root: Path) -> Path:
    """A kitchen with a hostile narration, a damaged video and a missing one."""
    (root / ANNOTATIONS).mkdir(parents=True)
    for path in (toy_root / ANNOTATIONS).glob("*.csv"):
        (root / ANNOTATIONS / path.name).write_bytes(path.read_bytes())
    for path in (toy_root / "videos_640x360").rglob("*.MP4"):
        link = root / path.relative_to(toy_root)
        link.parent.mkdir(parents=True, exist_ok=True)
        if path.stem == DAMAGED_VIDEO:
            link.write_bytes(os.urandom(1000) + path.read_bytes()[5000:9000])
        elif path.stem != MISSING_VIDEO:
            link.symlink_to(path)
    path = root / ANNOTATIONS / "EPIC_100_validation.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[1][rows[0].index("narration")] = HOSTILE
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def write_scores(
    path: Path, root: Path, seed: int, *, split: str = "validation", participants: Sequence[str] = (), lift: float = 4.0
) -> Path:
    """Made-up scores that are right about half of the time."""
    folder = open_data_folder(root, participants)
    save_scores(
        path, made_up(read_split(folder, split), folder.taxonomy.num_verbs, folder.taxonomy.num_nouns, seed, lift)
    )
    return path


def made_up(segments: Sequence[Segment], num_verbs: int, num_nouns: int, seed: int, lift: float = 4.0) -> ScoreTable:
    rng = np.random.default_rng(seed)
    rows = np.arange(len(segments))
    verbs, nouns = rng.normal(size=(len(rows), num_verbs)), rng.normal(size=(len(rows), num_nouns))
    if segments[0].verb is not None:
        verbs[rows, [segment.verb for segment in segments]] += lift * rng.random(len(rows))
        nouns[rows, [segment.noun for segment in segments]] += lift * rng.random(len(rows))
    return ScoreTable(np.array([segment.narration_id for segment in segments]), verbs, nouns, "logits")
