"""Which classes are drawn, and what goes with what.

Ids and keys are EK-100's official ones (EPIC_100_verb_classes.csv, EPIC_100_noun_classes.csv), for the drawn classes
only: EK-100's class tables are CC BY-NC and not carried.
"""

from dataclasses import dataclass

NUM_VERBS = 97
NUM_NOUNS = 300

VERBS = {
    "take": 0,
    "put": 1,
    "wash": 2,
    "open": 3,
    "close": 4,
    "turn-on": 6,
    "cut": 7,
    "turn-off": 8,
    "pour": 9,
    "mix": 10,
    "move": 11,
    "throw": 13,
    "dry": 14,
    "shake": 15,
    "squeeze": 18,
    "peel": 19,
    "flip": 22,
}
NOUNS = {
    "tap": 0,
    "spoon": 1,
    "plate": 2,
    "cupboard": 3,
    "knife": 4,
    "pan": 5,
    "bowl": 7,
    "drawer": 8,
    "sponge": 9,
    "glass": 10,
    "fridge": 12,
    "cup": 13,
    "fork": 14,
    "bottle": 15,
    "onion": 16,
    "board:chopping": 18,
    "spatula": 20,
    "box": 23,
    "hob": 24,
    "water": 27,
    "pot": 29,
    "potato": 30,
    "oil": 31,
    "cheese": 32,
    "bread": 33,
    "bin": 36,
    "jar": 40,
    "carrot": 41,
    "tomato": 43,
    "kettle": 44,
    "pasta": 45,
    "oven": 46,
    "sauce": 47,
    "paper": 49,
    "egg": 53,
    "rice": 55,
    "milk": 64,
    "lemon": 105,
    "light": 114,
}
REVERSE_OF = {"put": "take", "close": "open", "turn-off": "turn-on"}
"""verbs that are drawn as another one played backwards"""
REVERSED = {forward: backward for backward, forward in REVERSE_OF.items()}


@dataclass(frozen=True)
class Use:
    """How a verb occurs; a verb with a reverse stands for both."""

    share: float
    """how often, against the other verbs"""
    nouns: dict[str, float]
    """what it is done with, and how often"""
    repeated: bool = False
    """whether the motion goes round or to and fro all through the segment"""
    length: float = 1.0
    """segments are this much longer than the preset's"""
    speed_hz: float = 2.0
    """rounds a second"""
    into: tuple[str, ...] = ()
    """second nouns to choose from: what is poured or thrown into"""


USES: dict[str, dict[str, Use]] = {
    "full": {
        "take": Use(
            34,
            {"spoon": 8, "knife": 7, "plate": 8, "bowl": 6, "fork": 5, "cup": 6, "glass": 5, "pan": 5, "bottle": 3}
            | {"onion": 3, "carrot": 3, "tomato": 2.5, "egg": 2, "milk": 2, "sponge": 2.5, "bread": 2, "potato": 2}
            | {"pot": 1.6, "jar": 1.6, "board:chopping": 1.5, "cheese": 1.2, "lemon": 0.9, "spatula": 0.8, "box": 0.6},
            length=0.9,
        ),
        "open": Use(21, {"drawer": 6, "cupboard": 6, "fridge": 6, "jar": 2, "bottle": 2, "bin": 1.6, "oven": 1.4}),
        "turn-on": Use(10, {"tap": 5, "hob": 3, "kettle": 1.2, "light": 1}, length=0.9),
        "wash": Use(
            10,
            {"plate": 4, "bowl": 2, "cup": 2, "glass": 2, "pan": 2, "spoon": 1.4, "knife": 1, "fork": 1, "carrot": 0.8},
            repeated=True,
            length=1.5,
            speed_hz=1.5,
        ),
        "cut": Use(
            7,
            {"onion": 3, "carrot": 2.4, "tomato": 2, "potato": 1.6, "bread": 1.2, "cheese": 0.9, "lemon": 0.5},
            repeated=True,
            length=1.4,
            speed_hz=2.6,
        ),
        "mix": Use(5, {"pasta": 2, "sauce": 1.6, "rice": 1.2, "egg": 0.8}, repeated=True, length=1.4, speed_hz=1.4),
        "pour": Use(4, {"water": 2, "milk": 1.2, "oil": 1}, length=1.3, into=("bowl", "cup")),
        "move": Use(2.4, {"pan": 1.4, "plate": 1, "bowl": 0.8, "pot": 0.8, "kettle": 0.6}),
        "shake": Use(1.6, {"bottle": 1, "jar": 0.8, "milk": 0.6}, repeated=True, speed_hz=2.2),
        "throw": Use(1.4, {"paper": 1.4, "box": 0.6, "bottle": 0.5}, length=0.8, into=("bin",)),
        "peel": Use(1.2, {"potato": 1, "carrot": 1}, repeated=True, length=1.5, speed_hz=1.6),
        "dry": Use(1.0, {"plate": 1, "glass": 0.6, "cup": 0.4}, repeated=True, length=1.4, speed_hz=1.6),
        "flip": Use(0.9, {"egg": 1, "bread": 0.6}),
        "squeeze": Use(0.8, {"lemon": 1, "sponge": 0.6}, repeated=True, speed_hz=1.8),
    },
    "small": {
        "take": Use(34, {"plate": 5, "cup": 4, "carrot": 3}),
        "open": Use(24, {"drawer": 5, "fridge": 4}),
        "turn-on": Use(22, {"tap": 5, "hob": 4}),
        "wash": Use(12, {"plate": 3, "cup": 2}, repeated=True, speed_hz=1.8),
        "cut": Use(8, {"carrot": 2, "onion": 2}, repeated=True, speed_hz=2.6),
    },
}
"""by preset, then by forward verb"""


def spoken(noun: str) -> str:
    """A noun's key as people say it: `chopping board` for `board:chopping`."""
    return " ".join(reversed(noun.split(":")))
