"""Which dataset a data folder holds, where that can be told.

Any dataset in EK-100's layout is read as EK-100 is, so neither the layout nor the number of classes says whose data it
is. What says it are all class names and all narration ids; they are not carried (CC BY-NC 4.0), their hashes are.
"""

import csv
import hashlib
import json

from egochef.data.annotations import SPLIT_FILES, DataFolder
from egochef.taxonomy import Taxonomy

EK100, TOY, UNKNOWN = "EPIC-KITCHENS-100", "ToyKitchen", "unknown"
CLASSES_SHA256 = "fe80d3eecf15adf0a9be9776ebb46f323e5c6eee5d0e9b30a320038a38f1cc6c"
"""of EK-100's verb names and noun names, as JSON"""
IDS_SHA256 = "2a970fe6eea22ddf1f015cfdb7580356838f18d398b3ba6eb3fc5bf153342153"
"""of EK-100's narration ids of train (67,217) and of validation (9,668), each sorted, as JSON"""


def known_dataset(folder: DataFolder) -> str:
    """EK100, TOY, or UNKNOWN: another dataset, or a part of EK-100's annotation files.

    A data folder with few participants' videos is EK-100 all the same: its annotation files are whole.
    """
    if _is_drawn(folder.taxonomy):
        return TOY
    if _sha256([folder.taxonomy.verbs, folder.taxonomy.nouns]) != CLASSES_SHA256:
        return UNKNOWN
    try:
        ids = [_narration_ids(folder, split) for split in ("train", "validation")]
    except (OSError, ValueError, KeyError, csv.Error):  # whoever reads its rows tells what is wrong
        return UNKNOWN
    return EK100 if _sha256(ids) == IDS_SHA256 else UNKNOWN


def _is_drawn(taxonomy: Taxonomy) -> bool:
    """Whether most verbs and most nouns have ToyKitchen's stand-ins for names, `verb5`: those that are not drawn."""
    return all(
        2 * sum(name == f"{kind}{place}" for place, name in enumerate(names)) > len(names)
        for kind, names in (("verb", taxonomy.verbs), ("noun", taxonomy.nouns))
    )


def _narration_ids(folder: DataFolder, split: str) -> list[str]:
    with (folder.annotations / SPLIT_FILES[split]).open(encoding="utf-8-sig", newline="") as file:
        return sorted(row["narration_id"] or "" for row in csv.DictReader(file))


def _sha256(names: list[tuple[str, ...]] | list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()
