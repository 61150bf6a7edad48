"""How each noun that hands carry is painted and held. In: a noun's key. Out: a `Prop`."""

from collections.abc import Callable
from dataclasses import dataclass

from egochef.toykitchen import food, objects
from egochef.toykitchen.looks import Look
from egochef.toykitchen.sprites import Point, Sprite


@dataclass(frozen=True)
class Prop:
    """A thing that can be carried."""

    paint: Callable[[Look], Sprite]
    grip: Point
    """where the right hand holds it, world px from its middle"""
    tilt_deg: float = 6.0
    """how far it may be turned where it lies, to either side"""
    mouth: Point = (0.0, 0.0)
    """where it pours out"""
    second_grip: Point | None = None
    """where the left hand holds it, for what takes two"""


PROPS: dict[str, Prop] = {
    "spoon": Prop(objects.spoon, (0, 44), 30),
    "fork": Prop(objects.fork, (0, 44), 30),
    "knife": Prop(objects.knife, (0, 46), 30),
    "spatula": Prop(objects.spatula, (0, 50), 30),
    "plate": Prop(objects.plate, (50, 20)),
    "bowl": Prop(objects.bowl, (46, 2)),
    "cup": Prop(objects.cup, (42, 4)),
    "glass": Prop(objects.glass, (22, 8), mouth=(-26, -42)),
    "pan": Prop(objects.pan, (96, 20)),
    "pot": Prop(objects.pot, (62, 2), second_grip=(-62, 2)),
    "board:chopping": Prop(objects.board, (84, 26), second_grip=(-84, 26)),
    "bottle": Prop(objects.bottle, (18, 16), mouth=(0, -50)),
    "oil": Prop(lambda look: objects.bottle(look, with_cap=False), (18, 16), mouth=(0, -50)),
    "jar": Prop(objects.jar, (30, 8)),
    "milk": Prop(objects.milk, (26, 14), mouth=(-18, -54)),
    "sponge": Prop(objects.sponge, (24, 12), 16),
    "kettle": Prop(objects.kettle, (66, -4), mouth=(-64, -28)),
    "water": Prop(objects.kettle, (66, -4), mouth=(-64, -28)),
    "box": Prop(objects.box, (28, 10), 10),
    "paper": Prop(objects.paper, (16, 12), 40),
    "onion": Prop(food.onion, (22, 18), 24),
    "tomato": Prop(food.tomato, (22, 16), 16),
    "carrot": Prop(food.carrot, (34, 8), 18),
    "potato": Prop(food.potato, (26, 12), 20),
    "bread": Prop(food.bread, (28, 18), 20),
    "cheese": Prop(food.cheese, (34, 14), 10),
    "egg": Prop(food.egg, (14, 16), 40),
    "lemon": Prop(food.lemon, (26, 10), 24),
}
CONTENTS: dict[str, Callable[[Look], Sprite]] = {
    "pasta": food.pasta,
    "rice": food.rice,
    "sauce": food.sauce,
    "egg": food.batter,
}
"""what is stirred, as a round seen from above"""
