"""An annotated copy of a video: what is recognised, on its pictures and along its time.

In: a video file, its predictions, and what really happens in it where that is known. Out: an H.264 file whose frames
stand at their own times, without sound.
"""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from egochef.data.annotations import open_data_folder, read_split
from egochef.errors import InputError
from egochef.inference.prediction import Prediction
from egochef.inference.segments import Run, join_runs
from egochef.runtime import num_cpus
from egochef.texts import escaped
from egochef.video.decode import iter_frames, probe
from egochef.video.encode import TICKS_PER_S, EncodeSpec, write_video
from egochef.video.overlay import Overlay, StripPart, at_least, draw_overlay
from egochef.video.times import clock

STRIP_S = 60.0
"""a longer video's strip shows this much of it, around now"""


@dataclass(frozen=True)
class Timeline:
    """All that is said of a video, ready to be looked up by time."""

    predictions: Sequence[Prediction]
    """in their order"""
    shown: Sequence[StripPart]
    """the shown actions, covering the video"""
    truth: Sequence[StripPart]
    """what really happens, by start; may be empty"""
    end_s: float
    """the video's end"""
    threshold: float | None
    """a mark on the bars of actions"""

    def overlay(self, time_s: float) -> Overlay:
        """What is drawn on the frame at a time: the prediction of the nearest moment, and the strip around it."""
        start_s = min(max(0.0, time_s - STRIP_S / 2), max(0.0, self.end_s - STRIP_S))
        stop_s = min(start_s + STRIP_S, self.end_s)
        return dataclasses.replace(
            overlay_of(nearest(self.predictions, time_s)),
            threshold=self.threshold,
            strip=_between(self.shown, start_s, stop_s),
            truth=_between(self.truth, start_s, stop_s),
            strip_start_s=start_s,
            strip_stop_s=stop_s,
            now_s=time_s,
            status=(f"{clock(time_s)} / {clock(self.end_s)}",),
        )


def make_timeline(
    path: Path,
    predictions: Sequence[Prediction],
    truth: Sequence[StripPart] = (),
    threshold: float | None = None,
) -> Timeline:
    """Look up a video's end, and join its predictions to a strip.

    Raises:
        VideoError: the video cannot be read.
    """
    assert predictions, "a video has at least one prediction"
    declared_s = probe(path).duration_s
    runs = join_runs(predictions, declared_s)
    truth = sorted(truth, key=lambda part: part.start_s)
    return Timeline(predictions, strip_of(runs), truth, runs[-1].stop_s, threshold)


def overlay_of(prediction: Prediction) -> Overlay:
    """What a prediction says, without the time around it."""
    return Overlay(
        title=prediction.shown or "uncertain",
        tone="uncertain" if prediction.shown is None else "sure",
        title_prob=None if prediction.shown is None else prediction.shown_prob,
        verb=prediction.verb,
        noun=prediction.noun,
        action=prediction.action,
    )


def nearest(predictions: Sequence[Prediction], time_s: float) -> Prediction:
    """The prediction whose moment is nearest, the earlier of two that are as near."""
    place = bisect_left(predictions, time_s, key=lambda prediction: prediction.time_s)
    around = predictions[max(0, place - 1) : place + 1]
    return min(around, key=lambda prediction: abs(prediction.time_s - time_s))


def strip_of(runs: Sequence[Run]) -> list[StripPart]:
    return [StripPart(run.start_s, run.stop_s, run.shown) for run in runs]


def read_truth(root: Path, splits: Sequence[str], video_id: str) -> list[StripPart]:
    """The annotated segments of a video, by start.

    Args:
        root: a data folder in EK-100's layout, or a store.
        splits: which to look in.

    Raises:
        InputError: none of them has a segment of the video, or one has no labels, and faults of the folder.
    """
    folder = open_data_folder(root)
    parts = []
    for split in splits:
        if not folder.labelled(split):
            raise InputError(f"--split {split}: its labels are not public. Give train or validation.")
        for segment in read_split(folder, split):
            if segment.video_id == video_id:
                assert segment.verb is not None and segment.noun is not None
                name = folder.taxonomy.action_name(segment.verb, segment.noun)
                parts.append(StripPart(segment.start_s, segment.stop_s, name))
    if not parts:
        raise InputError(
            f"{root}: no segment of a video {video_id} in {' and '.join(splits)}. The video's file name must be its "
            "video id, and --split the split it is in."
        )
    return sorted(parts, key=lambda part: part.start_s)


def render_video(
    path: Path,
    predictions: Sequence[Prediction],
    out: Path,
    truth: Sequence[StripPart] = (),
    *,
    threshold: float | None = None,
    spec: EncodeSpec | None = None,
) -> int:
    """Write the annotated copy; it appears under its name when it is whole.

    Every frame comes at its own time, upright, and scaled up where it is too small to read on. Memory does not grow
    with the video, but for the predictions, which the caller has (about 2 KB each: 16 MB for an hour, one every 0.5 s).

    Args:
        truth: what really happens: a second row along the strip.
        threshold: a mark on the bars of actions.

    Returns:
        Number of frames written.

    Raises:
        VideoError: the video cannot be read.
        InputError: the copy cannot be written.
    """
    timeline = make_timeline(path, predictions, truth, threshold)
    total_s = round(timeline.end_s, 1)
    with (
        write_video(out, spec=spec) as writer,
        tqdm(total=total_s, desc=f"render {escaped(path.name)}", unit="s", disable=None, leave=False) as bar,
    ):
        last_tick = -1
        for time_s, frame in iter_frames(path, num_threads=num_cpus()):
            if round(time_s * TICKS_PER_S) <= last_tick:
                continue  # on screen for no time
            last_tick = round(time_s * TICKS_PER_S)
            writer.add(draw_overlay(at_least(frame), timeline.overlay(time_s)), time_s)
            bar.update(round(min(time_s, total_s) - bar.n, 3))
        return writer.num_frames


def _between(parts: Sequence[StripPart], start_s: float, stop_s: float) -> Sequence[StripPart]:
    """The parts that lie in [start_s, stop_s), some of them in part; they stand by start and are few."""
    stop = bisect_right(parts, stop_s, key=lambda part: part.start_s)
    return [part for part in parts[:stop] if part.stop_s > start_s]
