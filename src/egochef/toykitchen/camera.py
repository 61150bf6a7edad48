"""The moving camera and the changing light. In: a `VideoPlan`. Out: what they are at a time.

Both are sums of sines with random phases, so their statistics are the same forwards and backwards in time.
"""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from egochef.toykitchen.config import Difficulty
from egochef.toykitchen.scenery import SPOT_DISTANCE, SPOT_X, SPOT_Y
from egochef.toykitchen.script import VideoPlan

EYE_LEVEL = 143 / 256
"""where in the frame's height the middle of a scene is seen"""


def waves(rng: np.random.Generator, times_s: np.ndarray, slowest_hz: float, fastest_hz: float) -> np.ndarray:
    """A few slow sines, within -1..1, at each time: (F,)."""
    rates = 2 * np.pi * np.geomspace(slowest_hz, fastest_hz, 4) * rng.uniform(0.8, 1.25, 4)
    amplitudes = 1 / np.sqrt(rates)
    sines = np.sin(times_s[:, None] * rates + rng.uniform(0, 2 * np.pi, 4))  # (F, 4)
    return sines @ amplitudes / amplitudes.sum()


def gaze(plan: VideoPlan, times_s: np.ndarray) -> np.ndarray:
    """(F,) the spot that is looked at, as a broken number while the camera turns in a gap."""
    spots, turns = [float(plan.acts[0].spot)], [0.0]
    for before, after in itertools.pairwise(plan.acts):
        gap = after.start_s - before.stop_s
        spots += [before.spot, after.spot]
        turns += [before.stop_s + 0.15 * gap, after.start_s - 0.15 * gap]
    position = np.interp(times_s, turns, np.arange(len(turns)))
    share = position % 1
    first = np.array(spots)[position.astype(int)]
    last = np.array([*spots[1:], spots[-1]])[position.astype(int)]
    return first + (last - first) * share * share * (3 - 2 * share)


def camera_path(plan: VideoPlan, difficulty: Difficulty, size_px: tuple[int, int]) -> np.ndarray:
    """(F, 2, 3) float: world px to frame px, for each frame."""
    rng = np.random.default_rng((plan.seed, 3))
    times_s = frame_times(plan)
    sway_x, sway_y, roll = (waves(rng, times_s, 0.15, 1.6) for _ in range(3))
    x = SPOT_X + SPOT_DISTANCE * gaze(plan, times_s) + difficulty.shake_px * sway_x
    y = SPOT_Y + 0.6 * difficulty.shake_px * sway_y
    turn = np.radians(difficulty.turn_deg * roll)
    scale = size_px[1] / 256
    path = np.empty((len(times_s), 2, 3))
    path[:, 0, 0] = path[:, 1, 1] = scale * np.cos(turn)
    path[:, 1, 0] = scale * np.sin(turn)
    path[:, 0, 1] = -path[:, 1, 0]
    middle = np.array([size_px[0] / 2, size_px[1] * EYE_LEVEL])
    path[:, :, 2] = middle - np.einsum("fij,fj->fi", path[:, :, :2], np.stack([x, y], 1))
    return path


@dataclass(frozen=True, eq=False)
class Light:
    """A tint, a map of brighter and darker patches that drifts, and a brightness that changes slowly."""

    patches: np.ndarray
    """(2 H, 2 W, 3) uint8, `BASE` where the light is full"""
    corners: np.ndarray
    """(F, 2) int: y and x of the part of the map that lies over each frame"""
    brightness: np.ndarray
    """(F,) float, about 1"""

    BASE = 200

    def over(self, frame: np.ndarray, number: int, gain: float) -> np.ndarray:
        """Frame `number`, (H, W, 3) uint8, lit."""
        y, x = self.corners[number]
        part = self.patches[y : y + frame.shape[0], x : x + frame.shape[1]]
        return cv2.multiply(frame, part, scale=gain * float(self.brightness[number]) / self.BASE)


def light_path(plan: VideoPlan, difficulty: Difficulty, size_px: tuple[int, int]) -> Light:
    """The light of a video."""
    rng = np.random.default_rng((plan.seed, 4))
    times_s = frame_times(plan)
    drift_x, drift_y, flow = (waves(rng, times_s, 0.05, 0.5) for _ in range(3))
    warmth, green = difficulty.light * rng.uniform(-1, 1, 2)
    tint = np.array([1 + 0.5 * warmth, 1 + 0.15 * green, 1 - 0.5 * warmth])
    width, height = size_px
    patches = cv2.resize(rng.uniform(-1, 1, (5, 7)), (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    lit = Light.BASE * (1 + 0.9 * difficulty.light * patches[..., None]) * tint  # (2 H, 2 W, 3)
    return Light(
        patches=np.clip(lit, 0, 255).astype(np.uint8),
        corners=np.round(np.stack([height * (0.5 + 0.45 * drift_y), width * (0.5 + 0.45 * drift_x)], 1)).astype(int),
        brightness=(1 + difficulty.light * rng.uniform(-1.2, 0.8)) * (1 + 0.7 * difficulty.light * flow),
    )


def frame_times(plan: VideoPlan) -> np.ndarray:
    """(F,) float, seconds."""
    return np.arange(plan.num_frames) / float(plan.fps)
