"""Draws a video's frames, one after the other. In: a `VideoPlan`. Out: (H, W, 3) uint8 RGB."""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from egochef.toykitchen import scenery
from egochef.toykitchen.actions import build_scene
from egochef.toykitchen.camera import camera_path, light_path
from egochef.toykitchen.config import DIFFICULTIES, ToyConfig
from egochef.toykitchen.looks import hands_of, kitchen_of
from egochef.toykitchen.script import Act, VideoPlan
from egochef.toykitchen.sprites import Placement, Point, draw
from egochef.toykitchen.stage import Moment, Scene, smooth

FRONTS = {"cupboard", "fridge", "drawer", "oven"}
"""seen so near that nothing stands beside them"""
MAX_SMEAR_PX = 31


class Renderer:
    """Draws frames of one video; fastest in order of time."""

    def __init__(self, plan: VideoPlan, config: ToyConfig) -> None:
        rng = np.random.default_rng((plan.seed, 5))
        self.plan, self.difficulty = plan, DIFFICULTIES[config.difficulty]
        self.size_px = (config.width_px, config.height_px)
        self.kitchen = kitchen_of(plan.participant_seed)
        self.hands = hands_of(plan.participant_seed, np.random.default_rng((plan.seed, 6)))
        self.stock = scenery.Stock(self.kitchen, rng)
        self.clean = scenery.panorama(self.kitchen, self.stock, self.difficulty.clutter, rng)
        self.world = self.clean.copy()
        self.cameras = camera_path(plan, self.difficulty, self.size_px)
        self.light = light_path(plan, self.difficulty, self.size_px)
        self.flicker = rng.uniform(-1, 1, plan.num_frames)
        self.soft = bool(rng.uniform() < self.difficulty.blur)
        grain = rng.integers(0, 2 * self.difficulty.noise + 1, (config.height_px + 64, config.width_px + 64, 3))
        self.grain, self.grain_at = grain.astype(np.uint8), rng.integers(0, 64, (plan.num_frames, 2))
        self.scenes: dict[int, Scene] = {}
        """by number of the act: those that are in sight"""
        self.known: dict[tuple[int, int], list[Placement]] = {}
        """by numbers of act and frame: what moves"""

    def frame(self, number: int) -> np.ndarray:
        """Frame `number`, (H, W, 3) uint8 RGB."""
        time_s = float(number / self.plan.fps)
        acts = self.plan.acts
        index = next((i for i, act in enumerate(acts) if time_s < act.stop_s), len(acts))
        self._prepare(index)
        camera = self.cameras[number]
        picture = cv2.warpAffine(self.world, camera, self.size_px, borderMode=cv2.BORDER_REPLICATE)
        for act_number, scene in self.scenes.items():
            if act_number < index < len(acts) and time_s >= acts[index].start_s:
                continue  # the camera has turned away from it
            whole = compose(camera, scenery.at_spot(acts[act_number].spot, scene.matrix))
            before, now, after = (self._moving(act_number, number + step) for step in (-1, 0, 1))
            draw(picture, now, whole, _smears(before, now, after, self.difficulty.shutter * whole[:, :2]))
        return self._expose(picture, number, self._gain(time_s, index))

    def _prepare(self, index: int) -> None:
        """Have the scenes before and after this moment ready, their still parts drawn into the panorama."""
        wanted = {i for i in (index - 1, index) if 0 <= i < len(self.plan.acts)}
        for number in set(self.scenes) - wanted:
            del self.scenes[number]
            self.known = {key: value for key, value in self.known.items() if key[0] != number}
        for number in sorted(wanted - set(self.scenes)):
            act = self.plan.acts[number]
            scene = build_scene(act, self.kitchen, self.hands, self.difficulty)
            rng = np.random.default_rng((act.seed, 3))
            around = scenery.clutter_around(self.stock, 0 if act.noun in FRONTS else self.difficulty.clutter, rng)
            scenery.clear_spot(self.world, self.clean, act.spot)
            draw(self.world, around, scenery.at_spot(act.spot, np.eye(2, 3)))
            draw(self.world, scene.still, scenery.at_spot(act.spot, scene.matrix))
            if rng.uniform() < self.difficulty.occlusion:
                scene = _with_foreground(scene, scenery.occluder(rng))
            self.scenes[number] = scene

    def _moving(self, act_number: int, number: int) -> list[Placement]:
        """What moves in an act at a frame, in scene coordinates; each frame is asked for three times."""
        known = self.known.get((act_number, number))
        if known is None:
            self.known.pop((act_number, number - 3), None)
            flicker = float(self.flicker[number % self.plan.num_frames])
            moment = moment_of(self.plan.acts[act_number], float(number / self.plan.fps), flicker)
            known = self.known[act_number, number] = self.scenes[act_number].moving(moment)
        return known

    def _expose(self, picture: np.ndarray, number: int, gain: float) -> np.ndarray:
        """Motion blur of a turning camera, focus, light and noise."""
        last = min(number + 1, len(self.cameras) - 1)
        pan_px = 0.5 * self.difficulty.shutter * abs(self.cameras[last, 0, 2] - self.cameras[max(number - 1, 0), 0, 2])
        if pan_px >= 1.5:
            picture = cv2.blur(picture, (min(MAX_SMEAR_PX, round(float(pan_px))), 1))
        if self.soft:
            picture = cv2.GaussianBlur(picture, (3, 3), 0.9)
        picture = self.light.over(cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), number, gain)
        if self.difficulty.noise:
            y, x = self.grain_at[number]
            picture = cv2.add(picture, self.grain[y : y + self.size_px[1], x : x + self.size_px[0]])
        return picture

    def _gain(self, time_s: float, index: int) -> float:
        """Brightness of the scene; in a gap it goes over from one act's to the next one's."""
        gains = {i: scene.gain(moment_of(self.plan.acts[i], time_s, 0.0)) for i, scene in self.scenes.items()}
        if index in gains and index - 1 in gains:
            share = smooth(time_s, self.plan.acts[index - 1].stop_s, self.plan.acts[index].start_s)
            return gains[index - 1] + (gains[index] - gains[index - 1]) * share
        return next(iter(gains.values()))


def moment_of(act: Act, time_s: float, flicker: float) -> Moment:
    """A time of the video as a moment of an act."""
    return Moment((time_s - act.start_s) / (act.stop_s - act.start_s), time_s - act.start_s, flicker)


def frames_of(plan: VideoPlan, config: ToyConfig) -> Iterator[np.ndarray]:
    """All frames of a video."""
    renderer = Renderer(plan, config)
    yield from map(renderer.frame, range(plan.num_frames))


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """(2, 3): first `inner`, then `outer`, both (2, 3)."""
    whole = outer[:, :2] @ inner
    whole[:, 2] += outer[:, 2]
    return whole


def _with_foreground(scene: Scene, front: list[Placement]) -> Scene:
    return replace(scene, moving=lambda moment: scene.moving(moment) + front)


def _smears(before: list[Placement], now: list[Placement], after: list[Placement], matrix: np.ndarray) -> list[Point]:
    """How far, in frame px, each thing moves while the shutter is open.

    Half the way from the frame before to the frame after, so that it is the same backwards in time.
    """
    earlier, later = ({item.name: item.corners for item in items if item.name} for items in (before, after))
    smears: list[Point] = []
    for item in now:
        if item.name in earlier and item.name in later:
            step = later[item.name] - earlier[item.name]  # (4, 2)
            way_x, way_y = np.abs(matrix @ (step[0] + step[2])).tolist()  # four times the way of the middle
            smears.append((min(MAX_SMEAR_PX, 0.25 * way_x), min(MAX_SMEAR_PX, 0.25 * way_y)))
        else:
            smears.append((0.0, 0.0))
    return smears
