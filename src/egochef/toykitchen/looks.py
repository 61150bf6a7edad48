"""What things look like: records of colours, and how they are drawn at random.

In: a random generator and the difficulty. Out: `Look` (a thing), `HandLook` (a participant's hands), `KitchenLook` (a
participant's kitchen).
"""

from dataclasses import dataclass

import numpy as np

from egochef.toykitchen.sprites import Color, darker, mix

STEEL: Color = (188, 194, 202)
GLASS: Color = (205, 228, 236)
WOOD: Color = (186, 134, 84)

_WHITE = (244, 240, 232)
_CROCKERY = (_WHITE, _WHITE, (228, 214, 190), (120, 168, 190), (196, 110, 84), (132, 160, 120), (88, 98, 128))
_BAND = ((60, 110, 190), (200, 70, 60), (60, 140, 130), (214, 160, 60), (110, 80, 140))
_MUG = ((206, 66, 58), (56, 110, 176), (232, 184, 70), (70, 140, 100), (238, 234, 226), (120, 86, 150))
_HANDLE = ((44, 40, 44), (60, 62, 70), (120, 76, 46), (150, 44, 40))
_BRIGHT = ((220, 70, 50), (60, 110, 200), (70, 150, 80), (236, 170, 50))

PALETTES: dict[str, tuple[tuple[Color, ...], tuple[Color, ...]]] = {
    "spoon": ((STEEL, STEEL, (206, 196, 170)), _HANDLE),
    "fork": ((STEEL, STEEL, (206, 196, 170)), _HANDLE),
    "knife": ((STEEL,), _HANDLE),
    "spatula": (((80, 80, 90), (60, 56, 60)), ((200, 60, 50), (60, 100, 160), (60, 60, 66))),
    "plate": (_CROCKERY, _BAND),
    "bowl": (_CROCKERY, _BAND),
    "cup": (_MUG, (_WHITE, (250, 220, 150), (60, 60, 80))),
    "glass": ((GLASS,), (GLASS,)),
    "pan": (((70, 72, 80), (56, 52, 54), (90, 60, 56)), _HANDLE),
    "pot": ((STEEL, (200, 70, 56), (90, 120, 160), (214, 206, 190)), _HANDLE),
    "board:chopping": ((WOOD, (204, 160, 106), (150, 100, 62)), _HANDLE),
    "bottle": (((60, 150, 80), (120, 74, 40), (60, 110, 160), (150, 180, 60)), _BRIGHT),
    "jar": (
        ((170, 40, 50), (210, 130, 40), (90, 60, 110), (120, 140, 60)),
        ((220, 170, 60), (200, 60, 60), (70, 110, 170)),
    ),
    "milk": (((245, 246, 248),), ((60, 110, 210), (60, 160, 90), (210, 60, 70))),
    "oil": (((226, 186, 50), (198, 176, 50)), ((70, 120, 50), (180, 120, 30))),
    "water": ((STEEL, (236, 236, 232), (180, 60, 54)), ((50, 50, 56), (60, 60, 70))),
    "sponge": (((250, 208, 70), (246, 176, 190), (130, 200, 230)), ((70, 150, 80), (60, 120, 190), (200, 90, 140))),
    "cloth": ((_WHITE, (250, 236, 190), (206, 226, 240)), _BRIGHT),
    "kettle": ((STEEL, (236, 236, 232), (180, 60, 54), (60, 64, 72)), ((50, 50, 56),)),
    "box": (((220, 120, 50), (90, 150, 90), (70, 110, 180), (190, 70, 110)), _BRIGHT),
    "paper": (((240, 240, 236),), _BRIGHT),
    "onion": (((206, 140, 66), (190, 120, 60), (160, 60, 96)), _BRIGHT),
    "tomato": (((214, 52, 38), (226, 78, 40)), _BRIGHT),
    "carrot": (((238, 126, 36), (230, 110, 40)), _BRIGHT),
    "potato": (((186, 142, 90), (204, 166, 104)), _BRIGHT),
    "bread": (((206, 150, 86), (180, 122, 66)), _BRIGHT),
    "cheese": (((248, 196, 62), (244, 212, 110)), _BRIGHT),
    "egg": (((236, 204, 168), (250, 240, 226), (222, 176, 132)), _BRIGHT),
    "lemon": (((246, 220, 50), (240, 230, 80)), _BRIGHT),
    "bin": (((70, 74, 82), (196, 200, 206), (60, 120, 90)), _BRIGHT),
}
"""main and second colours by noun; what is not listed takes the kitchen's colours"""


@dataclass(frozen=True)
class Look:
    """What one instance of a noun looks like."""

    color: Color
    """main colour"""
    accent: Color
    """second colour: labels, stripes, handles"""
    texture_seed: int
    """seeds spots and grain"""

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.texture_seed)


@dataclass(frozen=True)
class HandLook:
    """The hands of one participant in one video."""

    skin: Color
    """skin, or the glove's colour"""
    gloved: bool
    """gloves have no nails and end in a rim"""
    sleeve: Color
    stripe: Color
    """colour of the sleeve's cuff and stripes"""
    pattern: str
    """of the sleeve: plain, striped or bare (no sleeve)"""


@dataclass(frozen=True)
class KitchenLook:
    """The kitchen of one participant."""

    wall: Color
    tile_px: float
    """tile size, world px"""
    tile_ratio: float
    """tile width over height"""
    counter: Color
    counter_kind: str
    """plain, speckled or wood"""
    cabinet: Color
    metal: Color
    """handles, taps"""
    appliance: Color
    """fridge, oven"""
    texture_seed: int


def look_of(noun: str, kitchen: KitchenLook, rng: np.random.Generator, *, likeness: float) -> Look:
    """A random instance of a noun; `likeness` 0..1 pulls its colours to the counter's."""
    mains, accents = PALETTES.get(noun, ((kitchen.appliance,), (kitchen.metal,)))
    share = likeness * float(rng.uniform(0.4, 1.0))
    color = mix(_shifted(mains[rng.integers(len(mains))], rng), kitchen.counter, share)
    accent = mix(_shifted(accents[rng.integers(len(accents))], rng), kitchen.counter, share * 0.6)
    return Look(color, accent, int(rng.integers(1 << 30)))


def hands_of(participant_seed: int, rng: np.random.Generator) -> HandLook:
    """A participant's skin stays; gloves and sleeves are chosen by `rng`, once per video."""
    skins = ((244, 206, 178), (230, 182, 146), (206, 152, 112), (168, 116, 80), (122, 80, 56), (92, 60, 46))
    gloves = ((250, 190, 60), (236, 120, 160), (90, 170, 210))
    sleeves = (
        (70, 90, 140),
        (196, 62, 58),
        (60, 120, 90),
        (228, 222, 210),
        (60, 60, 68),
        (150, 110, 160),
        (222, 160, 70),
    )
    skin = skins[np.random.default_rng(participant_seed).integers(len(skins))]
    gloved = bool(rng.uniform() < 0.12)
    sleeve = _shifted(sleeves[rng.integers(len(sleeves))], rng)
    stripe = mix(sleeve, _WHITE, 0.65) if rng.uniform() < 0.6 else darker(sleeve, 0.3)
    pattern = str(rng.choice(("plain", "striped", "bare"), p=(0.5, 0.3, 0.2)))
    return HandLook(
        gloves[rng.integers(len(gloves))] if gloved else _shifted(skin, rng, 5), gloved, sleeve, stripe, pattern
    )


def kitchen_of(participant_seed: int) -> KitchenLook:
    """The same kitchen for the same participant."""
    rng = np.random.default_rng(participant_seed)
    walls = ((236, 232, 222), (206, 220, 216), (226, 206, 178), (188, 202, 216), (214, 190, 186), (182, 190, 172))
    counters = (
        (214, 206, 192),
        (170, 166, 164),
        (206, 160, 112),
        (120, 116, 118),
        (160, 118, 80),
        (232, 228, 222),
        (150, 166, 160),
    )
    cabinets = (
        (238, 234, 226),
        (178, 130, 84),
        (118, 146, 152),
        (98, 112, 90),
        (206, 186, 156),
        (90, 92, 108),
        (196, 120, 92),
    )
    counter = counters[rng.integers(len(counters))]
    wooden = counter[0] - counter[2] > 60
    return KitchenLook(
        wall=_shifted(walls[rng.integers(len(walls))], rng),
        tile_px=float(rng.uniform(24, 46)),
        tile_ratio=float(rng.choice((1.0, 1.0, 2.0))),
        counter=_shifted(counter, rng),
        counter_kind="wood" if wooden else str(rng.choice(("plain", "speckled"))),
        cabinet=_shifted(cabinets[rng.integers(len(cabinets))], rng),
        metal=((196, 200, 206), (212, 182, 120), (70, 72, 78))[rng.integers(3)],
        appliance=((236, 238, 240), (186, 192, 198), (90, 96, 104), (150, 190, 186), (204, 80, 70))[rng.integers(5)],
        texture_seed=int(rng.integers(1 << 30)),
    )


def _shifted(color: Color, rng: np.random.Generator, spread: float = 9.0) -> Color:
    """The colour, a little off, so that no two things have quite the same."""
    shift = rng.uniform(-spread, spread) + rng.uniform(-spread / 2, spread / 2, 3)
    return tuple(int(x) for x in np.clip(np.round(np.array(color) + shift), 0, 255))  # type: ignore[return-value]
