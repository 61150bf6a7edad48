"""The rules for the JSON inside a submission, and what breaks them.

In: the text of test.json. Out: Faults, each naming the rule, the narration id and the key. `submission` has
the format.

A test split is 6.5 million numbers, so each segment is checked as soon as the parser closes its object and
only its faults are kept: memory stays near the size of the text.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from egochef.scoring.actions import NUM_ACTIONS
from egochef.scoring.table import wrong_classes

VERSION = "0.2"
CHALLENGE = "action_recognition"
MAX_LEVEL = 5
LEVELS = ("sls_pt", "sls_tl", "sls_td")
FIELDS = ("version", "challenge", *LEVELS, "results")
SEGMENT_FIELDS = ("verb", "noun", "action")


def num_submitted_actions(num_verbs: int, num_nouns: int) -> int:
    """Actions per segment of a submission: 100, or all there are in a smaller taxonomy."""
    return min(NUM_ACTIONS, num_verbs * num_nouns)


@dataclass(frozen=True)
class Rules:
    """What a submission for one split and one taxonomy must hold."""

    narration_ids: tuple[str, ...]
    """every segment of the split"""
    keys: dict[str, frozenset[str]]
    """for `verb`, `noun` and `action`: the keys that may appear"""
    num_actions: int
    """entries of an action field"""

    @classmethod
    def of(cls, narration_ids: Sequence[str], num_verbs: int, num_nouns: int) -> "Rules":
        keys = {
            "verb": frozenset(str(verb) for verb in range(num_verbs)),
            "noun": frozenset(str(noun) for noun in range(num_nouns)),
            "action": frozenset(f"{verb},{noun}" for verb in range(num_verbs) for noun in range(num_nouns)),
        }
        return cls(tuple(narration_ids), keys, num_submitted_actions(num_verbs, num_nouns))

    @property
    def counts(self) -> tuple[int, int]:
        """Verbs and nouns."""
        return len(self.keys["verb"]), len(self.keys["noun"])

    @property
    def num_scores(self) -> int:
        """Numbers in a whole submission."""
        return len(self.narration_ids) * (sum(self.counts) + self.num_actions)


class Fault(NamedTuple):
    """A rule that a submission breaks."""

    reason: str
    """the same text for the same rule"""
    where: str
    """narration id, field, key and value, as far as there are such"""


class CheckedSegment(NamedTuple):
    """What is kept of a segment's object once it has been checked."""

    faults: list[Fault]
    """`where` lacks the narration id, which the parser has not seen yet"""
    has_actions: bool
    counts: tuple[int, int]
    """verbs and nouns that it scores"""


class RepeatedKeys(dict[str, Any]):
    """A JSON object that names a key more than once; the last value stays, as in any JSON reader."""

    repeated: str


def parse_submission(text: str, rules: Rules) -> Any:
    """Parse the text; objects of segments come out as CheckedSegment.

    Raises:
        ValueError: the text is not JSON.
        RecursionError: it is nested too deeply.
    """

    def closed(pairs: list[tuple[str, Any]]) -> Any:
        value = dict(pairs)
        if len(value) < len(pairs):
            value = RepeatedKeys(value)
            value.repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        if "results" not in value and any(name in value for name in SEGMENT_FIELDS):
            return _check_segment(value, rules)
        return value

    return json.loads(text, object_pairs_hook=closed)


def find_faults(document: Any, rules: Rules) -> Iterator[Fault]:
    """Everything that is wrong with a parsed submission."""
    if not isinstance(document, dict):
        yield Fault(f"test.json is no object with {', '.join(FIELDS)}", "at its top")
        return
    yield from _repeated(document, "at its top")
    for name in FIELDS:
        if name not in document:
            yield Fault("a field is missing", name)
    for name in document.keys() - set(FIELDS):
        yield Fault("unknown field", _shown(name))
    for name, expected in (("version", VERSION), ("challenge", CHALLENGE)):
        if name in document and document[name] != expected:
            yield Fault(f"{name} is not {expected!r}", _shown(document[name]))
    for name in LEVELS:
        level = document.get(name, 0)
        if type(level) is not int or not 0 <= level <= MAX_LEVEL:
            yield Fault(f"an SLS level is no whole number from 0 to {MAX_LEVEL}", f"{name} {_shown(level)}")
    results = document.get("results", {})
    if isinstance(results, dict):
        yield from _results_faults(results, rules)
    else:
        yield Fault("results is no object of segments", _shown(results))


def _results_faults(results: dict[str, Any], rules: Rules) -> Iterator[Fault]:
    yield from _repeated(results, "in results")
    for narration_id in rules.narration_ids:
        if narration_id not in results:
            yield Fault("a segment of the split is missing", narration_id)
    counts = {segment.counts for segment in results.values() if isinstance(segment, CheckedSegment)}
    if len(counts) == 1 and (fault := wrong_classes(counts.pop(), rules.counts, "the data")):
        yield Fault(fault, "in each segment")
    expected = set(rules.narration_ids)
    num_with_actions = 0
    without_actions = None
    for narration_id, segment in results.items():
        if narration_id not in expected:
            yield Fault("a segment is not in the split", _shown(narration_id))
        elif not isinstance(segment, CheckedSegment):
            yield Fault("a segment is no object with verb and noun", f"{narration_id}: {_shown(segment)}")
        else:
            yield from (Fault(reason, f"{narration_id} {where}") for reason, where in segment.faults)
            num_with_actions += segment.has_actions
            without_actions = without_actions or (None if segment.has_actions else narration_id)
    if num_with_actions and without_actions:
        yield Fault("action is given for some segments and not for all", f"not for {without_actions}")


def _check_segment(segment: dict[str, Any], rules: Rules) -> CheckedSegment:
    faults = list(_repeated(segment, "among its fields"))
    faults += [Fault("unknown field of a segment", _shown(name)) for name in segment.keys() - set(SEGMENT_FIELDS)]
    for field in SEGMENT_FIELDS:
        scores = segment.get(field)
        if field not in segment:
            if field != "action":
                faults.append(Fault(f"{field} is missing", field))
        elif not isinstance(scores, dict):
            faults.append(Fault(f"{field} is no object of scores", f"{field}: {_shown(scores)}"))
        else:
            faults += _score_faults(field, scores, rules)
    verbs, nouns = (len(scores) if isinstance(scores := segment.get(field), dict) else 0 for field in ("verb", "noun"))
    return CheckedSegment(faults, "action" in segment, (verbs, nouns))


def _score_faults(field: str, scores: dict[str, Any], rules: Rules) -> Iterator[Fault]:
    """What is wrong with one object of scores; at most one fault a rule."""
    keys = rules.keys[field]
    yield from _repeated(scores, f"in {field}")
    unknown = next((key for key in scores if key not in keys), None)
    if unknown is not None:
        expected = '"verb,noun"' if field == "action" else f'"0" to "{len(keys) - 1}"'
        yield Fault(f"a {field} key is none of {expected}", f"{field} {_shown(unknown)}")
    if field == "action" and len(scores) != rules.num_actions:
        yield Fault(f"action has not {rules.num_actions} entries", f"action: {len(scores)}")
    if field != "action" and not keys <= scores.keys():
        missing = min(keys - scores.keys(), key=int)
        yield Fault(f"a {field} key is missing", f'{field} "{missing}"')
    if not _all_finite(scores):
        key, value = next((key, value) for key, value in scores.items() if not _is_finite(value))
        yield Fault("a score is no finite number", f"{field} {_shown(key)}: {_shown(value)}")


def _all_finite(scores: dict[str, Any]) -> bool:
    """Quick for what is nearly always so; whole numbers and overflowing sums take the slow way."""
    if all(type(value) is float for value in scores.values()) and math.isfinite(sum(scores.values())):
        return True
    return all(map(_is_finite, scores.values()))


def _is_finite(value: Any) -> bool:
    """A JSON number that a float can hold; true and false are none."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _repeated(value: dict[str, Any], where: str) -> Iterator[Fault]:
    if isinstance(value, RepeatedKeys):
        yield Fault("a key appears more than once", f"{where} {_shown(value.repeated)}")


def _shown(value: Any) -> str:
    """A stranger's value, short and on one line."""
    if isinstance(value, CheckedSegment):
        return "an object with verb, noun or action"
    return f"{value!r:.40}"
