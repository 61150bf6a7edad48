"""The plan of a kitchen: who does what, when and in which video. In: a `ToyConfig`. Out: `VideoPlan`s, pure data.

As in EK-100, validation videos are at 59.94 fps and test videos at 50 (those are numbered from 101 on), training videos
are mixed; the last participants occur in validation or test only. A verb and its reverse come in twos, in the same
video and with the same noun, so that neither is the more frequent.
"""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from egochef.toykitchen.classes import REVERSED, USES, Use
from egochef.toykitchen.config import MAX_LENGTH_S, MIN_LENGTH_S, PRESETS, Preset, ToyConfig

FPS_60 = Fraction(60000, 1001)
FPS_50 = Fraction(50)
NUM_SPOTS = 3
"""places of a kitchen where something can happen"""
NARROW_SPREAD = 0.08
"""standard deviation of the logarithm of the length, where the configuration sets the length"""


@dataclass(frozen=True)
class Act:
    """One segment: what is done and everything random about how."""

    verb: str
    """class key"""
    noun: str
    """class key"""
    other_nouns: tuple[str, ...]
    """class keys of what else the narration names"""
    start_s: float
    stop_s: float
    lead_in_s: float
    """how long before the start the hand begins to come"""
    lead_out_s: float
    """how long after the stop the hand is gone"""
    begin: float
    """where in the segment (0..1) the deed begins"""
    end: float
    """where in the segment (0..1) the deed is done"""
    spot: int
    """where in the kitchen"""
    mirrored: bool
    """the left hand acts and all is mirrored"""
    x: float
    """offset of the scene, -1..1 of what the difficulty allows"""
    y: float
    zoom: float
    """-1..1 of what the difficulty allows"""
    tilt: float
    """-1..1 of how far the thing may be turned"""
    speed_hz: float
    """rounds a second of motions that repeat"""
    seed: int
    """for what things look like"""


@dataclass(frozen=True)
class VideoPlan:
    """One video."""

    video_id: str
    participant_id: str
    split: str
    fps: Fraction
    num_frames: int
    participant_seed: int
    """for the kitchen and the skin"""
    seed: int
    """for sleeves, camera and light"""
    acts: tuple[Act, ...]
    """in order of time, not overlapping"""

    @property
    def duration_s(self) -> float:
        return float(self.num_frames / self.fps)


def plan_kitchen(config: ToyConfig) -> tuple[VideoPlan, ...]:
    """Plan all videos of all splits."""
    preset = PRESETS[config.preset]
    rng = np.random.default_rng(np.random.SeedSequence((config.seed, 1)))
    sizes = _split_sizes(config, preset)
    seen = [f"P{i + 1:02d}" for i in range(int(np.clip(sizes["train"] // preset.segments_per_participant, 2, 12)))]
    unseen = {"validation": f"P{len(seen) + 1:02d}", "test": f"P{len(seen) + 2:02d}"}
    numbers: Counter[tuple[str, bool]] = Counter()
    videos = []
    for split, size in sizes.items():
        deeds = _deal(
            _choose_deeds(USES[config.preset], size, rng), max(2, round(size / preset.segments_per_video)), rng
        )
        for index, deed in enumerate(deeds):
            participant = unseen[split] if split != "train" and index % 3 == 0 else seen[index % len(seen)]
            slow = split == "test" or (split == "train" and index % 5 in (1, 3))
            numbers[participant, slow] += 1
            video_id = f"{participant}_{numbers[participant, slow] + (100 if slow else 0):02d}"
            videos.append(_plan_video(video_id, participant, split, FPS_50 if slow else FPS_60, deed, config, rng))
    return tuple(sorted(videos, key=lambda video: video.video_id))


def _split_sizes(config: ToyConfig, preset: Preset) -> dict[str, int]:
    total = config.num_segments
    assert total is not None
    share = preset.validation_share if config.validation_share is None else config.validation_share
    validation = max(4, round(total * share))
    test = max(3, round(total * preset.test_share))
    return {"train": total - validation - test, "validation": validation, "test": test}


def _choose_deeds(uses: dict[str, Use], size: int, rng: np.random.Generator) -> list[tuple[str, str, bool]]:
    """(verb, noun, with its reverse) so often that `size` segments come out, near to the wanted shares."""
    total = sum(use.share for use in uses.values())
    paired = {verb: use for verb, use in uses.items() if verb in REVERSED}
    num_pairs = round(size * sum(use.share for use in paired.values()) / total / 2)
    singles = {verb: use for verb, use in uses.items() if verb not in REVERSED}
    pairs = [(verb, noun, True) for verb, noun in _sample(paired, num_pairs, rng)]
    return pairs + [(verb, noun, False) for verb, noun in _sample(singles, size - 2 * num_pairs, rng)]


def _sample(uses: dict[str, Use], num: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Systematic sampling: each (verb, noun) comes out its expected number of times, rounded up or down."""
    actions = [(verb, noun) for verb, use in uses.items() for noun in use.nouns]
    weights = np.array([uses[v].share * uses[v].nouns[n] / sum(uses[v].nouns.values()) for v, n in actions])
    order = rng.permutation(len(actions))
    ends = np.cumsum(weights[order]) / weights.sum()
    points = (np.arange(num) + rng.uniform()) / max(num, 1)
    return [actions[order[i]] for i in np.minimum(np.searchsorted(ends, points, side="right"), len(actions) - 1)]


def _deal(deeds: list[tuple[str, str, bool]], num_videos: int, rng: np.random.Generator) -> list[list[tuple[str, str]]]:
    """Deal deeds to videos evenly; in a video, each pair's reverse comes some time after it."""
    hands: list[list[tuple[str, str, bool]]] = [[] for _ in range(num_videos)]
    loads = [0] * num_videos
    for index in rng.permutation(len(deeds)):
        least = loads.index(min(loads))
        hands[least].append(deeds[index])
        loads[least] += 1 + deeds[index][2]
    videos = []
    for hand in hands:
        slots = [index for index, deed in enumerate(hand) for _ in range(1 + deed[2])]
        started: set[int] = set()
        video = []
        for index in (slots[i] for i in rng.permutation(len(slots))):
            verb, noun, _ = hand[index]
            video.append((REVERSED[verb] if index in started else verb, noun))
            started.add(index)
        videos.append(video)
    return videos


def _plan_video(
    video_id: str,
    participant_id: str,
    split: str,
    fps: Fraction,
    deeds: list[tuple[str, str]],
    config: ToyConfig,
    rng: np.random.Generator,
) -> VideoPlan:
    preset = PRESETS[config.preset]
    gaps = [
        round(float(np.clip(preset.gap_s * np.exp(0.4 * rng.normal()), 0.2, 4.0)), 2) for _ in range(len(deeds) + 1)
    ]
    acts: list[Act] = []
    now, spot = gaps[0], 1
    for (verb, noun), gap_before, gap_after in zip(deeds, gaps[:-1], gaps[1:], strict=True):
        spot = 1 if spot != 1 else int(rng.choice((0, 2)))  # always to the place beside
        act = _plan_act(verb, noun, now, (gap_before, gap_after), spot, config, rng)
        acts.append(act)
        now = round(act.stop_s + gap_after, 2)
    return VideoPlan(
        video_id=video_id,
        participant_id=participant_id,
        split=split,
        fps=fps,
        num_frames=int(np.ceil(now * fps)),
        participant_seed=int(np.random.SeedSequence((config.seed, 2, int(participant_id[1:]))).generate_state(1)[0]),
        seed=int(rng.integers(1 << 30)),
        acts=tuple(acts),
    )


def _plan_act(
    verb: str,
    noun: str,
    start_s: float,
    gaps_s: tuple[float, float],
    spot: int,
    config: ToyConfig,
    rng: np.random.Generator,
) -> Act:
    """All random numbers of an act come from the same distribution for a verb and its reverse."""
    preset, uses = PRESETS[config.preset], USES[config.preset]
    use = uses.get(verb) or uses[next(forward for forward, backward in REVERSED.items() if backward == verb)]
    median_s, spread = preset.median_s * use.length, preset.length_spread
    if config.segment_s is not None:
        median_s, spread = config.segment_s, NARROW_SPREAD
    length = float(np.clip(median_s * float(np.exp(spread * rng.normal())), MIN_LENGTH_S, MAX_LENGTH_S))
    margin = (0.05, 0.14) if use.repeated else (0.2, 0.34)
    return Act(
        verb=verb,
        noun=noun,
        other_nouns=(str(rng.choice(use.into)),) if use.into else (),
        start_s=start_s,
        stop_s=round(start_s + length, 2),
        lead_in_s=float(rng.uniform(0.1, 0.4)) * gaps_s[0],
        lead_out_s=float(rng.uniform(0.1, 0.4)) * gaps_s[1],
        begin=float(rng.uniform(*margin)),
        end=1 - float(rng.uniform(*margin)),
        spot=spot,
        mirrored=bool(rng.uniform() < 0.25),
        x=float(rng.uniform(-1, 1)),
        y=float(rng.uniform(-1, 1)),
        zoom=float(rng.uniform(-1, 1)),
        tilt=float(rng.uniform(-1, 1)),
        speed_hz=use.speed_hz * float(rng.uniform(0.8, 1.25)),
        seed=int(rng.integers(1 << 30)),
    )
