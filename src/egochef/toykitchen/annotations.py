"""Writes a plan as annotation files, column by column as EK-100's own. In: `VideoPlan`s. Out: CSV files."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from egochef.data.annotations import timestamp
from egochef.files import write_text
from egochef.toykitchen.classes import NOUNS, NUM_NOUNS, NUM_VERBS, VERBS, spoken
from egochef.toykitchen.config import ToyConfig
from egochef.toykitchen.script import FPS_50, Act, VideoPlan

Row = tuple[str | int | float, ...]
FOLDER = "epic-kitchens-100-annotations"
TAIL_SHARE = 0.2
"""the tail is the rarest classes that together have at most this part of the training segments (EK-100's own rule: it
gives the official lists from the official training set)"""

_TIME_COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "narration_timestamp",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
)
_LABEL_COLUMNS = ("narration", "verb", "verb_class", "noun", "noun_class", "all_nouns", "all_noun_classes")


def write_annotations(root: Path, plans: Sequence[VideoPlan], config: ToyConfig) -> None:
    """Write all annotation files of a kitchen below `root`."""
    folder = root / FOLDER
    for split, name in (("train", "train"), ("validation", "validation"), ("test", "test_timestamps")):
        labelled = split != "test"
        columns = _TIME_COLUMNS + (_LABEL_COLUMNS if labelled else ())
        _write(folder / f"EPIC_100_{name}.csv", columns, _segment_rows(plans, split, labelled))
    train = [act for plan in plans if plan.split == "train" for act in plan.acts]
    verbs, nouns = Counter(VERBS[act.verb] for act in train), Counter(NOUNS[act.noun] for act in train)
    _write(folder / "EPIC_100_tail_verbs.csv", ("verb",), [(verb,) for verb in tail_classes(verbs)])
    _write(folder / "EPIC_100_tail_nouns.csv", ("noun",), [(noun,) for noun in tail_classes(nouns)])
    columns = ("id", "key", "instances", "category")
    _write(folder / "EPIC_100_verb_classes.csv", columns, _class_rows(VERBS, NUM_VERBS, "verb"))
    _write(folder / "EPIC_100_noun_classes.csv", columns, _class_rows(NOUNS, NUM_NOUNS, "noun"))
    trained = {plan.participant_id for plan in plans if plan.split == "train"}
    for split in ("validation", "test"):
        unseen = sorted({plan.participant_id for plan in plans if plan.split == split} - trained)
        name = f"EPIC_100_unseen_participant_ids_{split}.csv"
        _write(folder / name, ("participant_id",), [(participant,) for participant in unseen])
    _write(
        folder / "EPIC_100_video_info.csv",
        ("video_id", "duration", "fps", "resolution"),
        [(p.video_id, p.duration_s, float(p.fps), f"{config.width_px}x{config.height_px}") for p in plans],
    )


def tail_classes(counts: Counter[int]) -> list[int]:
    """Ids of the rarest classes whose segments together are at most TAIL_SHARE of all."""
    allowed, tail = TAIL_SHARE * counts.total(), []
    for class_id in sorted(counts, key=lambda c: (counts[c], c)):
        allowed -= counts[class_id]
        if allowed < 0:
            break
        tail.append(class_id)
    return sorted(tail)


def _segment_rows(plans: Sequence[VideoPlan], split: str, labelled: bool) -> list[Row]:
    """Rows in the official order, that of the narration ids as strings."""
    rows: list[Row] = []
    for plan in plans:
        if plan.split != split:
            continue
        rate = 50 if plan.fps == FPS_50 else 60  # the official files count 60 frames a second for all that is not 50
        rng = np.random.default_rng((plan.seed, 8))
        for number, act in enumerate(plan.acts):
            narrated_s = max(0.0, act.start_s + float(rng.uniform(-0.4, 0.6)) * (act.stop_s - act.start_s))
            row: Row = (
                f"{plan.video_id}_{number}",
                plan.participant_id,
                plan.video_id,
                timestamp(narrated_s, decimals=3),
                timestamp(act.start_s),
                timestamp(act.stop_s),
                max(1, round(act.start_s * 100) * rate // 100),
                round(act.stop_s * 100) * rate // 100,
            )
            rows.append(row + _labels(act) if labelled else row)
    return sorted(rows)


def _labels(act: Act) -> Row:
    nouns = [act.noun, *act.other_nouns]
    return (
        narrate(act),
        act.verb,
        VERBS[act.verb],
        act.noun,
        NOUNS[act.noun],
        str(nouns),
        str([NOUNS[noun] for noun in nouns]),
    )


def narrate(act: Act) -> str:
    """What a narrator would say: `open drawer`, `turn on tap`, `pour milk into bowl`."""
    words = f"{act.verb.replace('-', ' ')} {spoken(act.noun)}"
    return words + "".join(f" into {spoken(noun)}" for noun in act.other_nouns)


def _class_rows(drawn: dict[str, int], number: int, kind: str) -> list[Row]:
    """All ids; classes that are not drawn have placeholder keys."""
    keys = {class_id: key for key, class_id in drawn.items()}
    rows: list[Row] = []
    for class_id in range(number):
        key = keys.get(class_id, f"{kind}{class_id}")
        rows.append((class_id, key, str([key]), "drawn" if class_id in keys else "placeholder"))
    return rows


def _write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
