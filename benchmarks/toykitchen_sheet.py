"""Makes a contact sheet of toy kitchen actions, one row a segment: `python benchmarks/toykitchen_sheet.py`.

In: a seed and a difficulty. Out: a PNG of a few hundred kB (docs/images/toykitchen.png is made by the defaults).
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from egochef.files import atomic_path
from egochef.toykitchen import ToyConfig
from egochef.toykitchen.annotations import narrate
from egochef.toykitchen.render import Renderer
from egochef.toykitchen.script import Act, VideoPlan, plan_kitchen

WANTED = (
    ("take", "plate"),
    ("open", "fridge"),
    ("close", "drawer"),
    ("turn-on", "tap"),
    ("turn-off", "hob"),
    ("wash", "cup"),
    ("cut", "carrot"),
    ("mix", "pasta"),
    ("pour", "milk"),
)
NUM_COLUMNS = 6
CELL_PX = (160, 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs", "images", "toykitchen.png"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--difficulty", default="normal")
    parser.add_argument("--actions", nargs="*", metavar="VERB:NOUN", help="such as take:plate (default: nine of them)")
    args = parser.parse_args()
    wanted = [tuple(text.split(":", 1)) for text in args.actions] if args.actions else WANTED
    config = ToyConfig(seed=args.seed, difficulty=args.difficulty)
    plans = plan_kitchen(config)
    rows = [row_of(*find(plans, verb, noun, skip=index), config) for index, (verb, noun) in enumerate(wanted)]
    # A palette makes a third of the file; paint needs few colours.
    sheet = Image.fromarray(np.vstack(rows)).quantize(256, kmeans=4, dither=Image.Dither.NONE)
    with atomic_path(args.out) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


def find(plans: tuple[VideoPlan, ...], verb: str, noun: str, *, skip: int) -> tuple[VideoPlan, Act]:
    """A training segment of this action of at least 0.8 s; `skip` makes rows come from different kitchens."""
    found = [(plan, act) for plan in plans for act in plan.acts if (act.verb, act.noun) == (verb, noun)]
    long_enough = [(plan, act) for plan, act in found if plan.split == "train" and act.stop_s - act.start_s > 0.8]
    if not long_enough:
        raise SystemExit(f"no segment '{verb} {noun}' in this kitchen")
    return long_enough[(2 * skip) % len(long_enough)]


def row_of(plan: VideoPlan, act: Act, config: ToyConfig) -> np.ndarray:
    """(H, W, 3) uint8: moments of a segment side by side, its narration in the corner."""
    renderer = Renderer(plan, config)
    times = np.linspace(act.start_s, act.stop_s, NUM_COLUMNS + 2)[1:-1]
    cells = [
        Image.fromarray(renderer.frame(round(float(t) * plan.fps))).resize(CELL_PX, Image.Resampling.LANCZOS)
        for t in times
    ]
    row = Image.fromarray(np.hstack([np.asarray(cell) for cell in cells]))
    font = ImageFont.load_default(14)
    ImageDraw.Draw(row).text((5, 2), narrate(act), font=font, fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(row)


if __name__ == "__main__":
    main()
