"""Actions over the time of whole videos, in constant memory: each frame is encoded once.

In: an engine and video files. Out: a `Prediction` every hop, of windows that lie around the moment it speaks of: a file
knows what comes after.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor
from tqdm import tqdm

from egochef.data.transforms import eval_crop
from egochef.engines.engine import Engine, recognise
from egochef.errors import InputError
from egochef.files import atomic_path
from egochef.inference.log import LineWriter, log_format
from egochef.inference.prediction import Prediction, as_line
from egochef.inference.rolling import WINDOWS_S, RollingRecogniser, window_times
from egochef.inference.segments import RunJoiner, SegmentWriter, check_ids
from egochef.inference.smoothing import Smoother, Smoothing
from egochef.texts import escaped
from egochef.video.decode import VideoError, decode_at, iter_frames, probe

HOP_S = 0.5
"""seconds between predictions"""
CHUNK_FRAMES = 16
"""frames in one encoder call"""


def recognise_video(
    engine: Engine,
    path: Path,
    *,
    windows_s: Sequence[float] = WINDOWS_S,
    hop_s: float = HOP_S,
    smoothing: Smoothing | None = None,
) -> Iterator[Prediction]:
    """Look at a video around the moments hop_s / 2, 3 hop_s / 2, ... up to its end.

    Frames are taken every T-th of the shortest window, as training takes T of a segment. Near the video's edges the
    windows that reach beyond it are left out; the shortest one is shifted inside. A video shorter than the shortest
    window is one window.

    Raises:
        VideoError: the video cannot be read; after the predictions for what came before.
        InputError: windows that are not positive, or a hop that is not.
    """
    _check_hop(hop_s)
    rolling, smoother = RollingRecogniser(engine, windows_s), Smoother(engine.taxonomy, smoothing)
    half_shortest_s, half_longest_s = rolling.windows_s[0] / 2, rolling.windows_s[-1] / 2
    step_s = rolling.windows_s[0] / engine.clip.num_frames
    moments = ((place + 0.5) * hop_s for place in count())
    moment_s, num_frames, end_s = next(moments), 0, 0.0
    fault: VideoError | None = None

    def look(at_s: float, middle_s: float) -> Prediction:
        probs = rolling.probs(middle_s)
        assert probs is not None, f"no window around {middle_s} s"
        return smoother.update(at_s, *probs)

    try:
        for features in _encode_stream(rolling, path, step_s):
            rolling.keep(num_frames * step_s, features)
            num_frames += 1
            end_s = num_frames * step_s
            while (middle_s := max(moment_s, half_shortest_s)) + half_longest_s <= end_s:
                yield look(moment_s, middle_s)
                moment_s = next(moments)
    except VideoError as error:
        fault = error
    if num_frames >= engine.clip.num_frames:
        if moment_s == hop_s / 2 > end_s - step_s:  # no moment lies in it
            yield look(end_s / 2, min(max(end_s / 2, half_shortest_s), end_s - half_shortest_s))
        while moment_s <= end_s - step_s:  # the last frame's time: later ones may lie beyond the end
            yield look(moment_s, min(max(moment_s, half_shortest_s), end_s - half_shortest_s))
            moment_s = next(moments)
    elif fault is None:
        yield _look_at_whole(engine, path, smoother)
    if fault is not None:
        raise fault


def _check_hop(hop_s: float) -> None:
    if not 0.01 <= hop_s <= 3600:
        raise InputError(f"hop of {hop_s} s between predictions: expected 0.01 to 3600")


def _encode_stream(rolling: RollingRecogniser, path: Path, step_s: float) -> Iterator[Tensor]:
    """Features (D,) of the frame on screen at 0, step_s, 2 * step_s, ...; a frame that comes again is encoded once.

    Raises:
        VideoError: after the frames before the fault.
    """
    frames = iter_frames(path, every_s=step_s)
    fault: VideoError | None = None
    num_frames = 0
    while fault is None:
        crops: list[Tensor] = []
        times_s: list[float] = []
        places: list[int] = []
        last_s = -1.0
        try:
            for time_s, frame in islice(frames, CHUNK_FRAMES):
                if time_s != last_s:
                    crops.append(eval_crop(frame[None], rolling.engine.clip))  # (1, S, S, 3)
                    times_s.append((num_frames + len(places)) * step_s)
                    last_s = time_s
                places.append(len(crops) - 1)
        except VideoError as error:
            fault = error
        if not places:
            break
        features = rolling.encode_crops(times_s, torch.cat(crops))  # of distinct frames
        yield from (features[place] for place in places)
        num_frames += len(places)
    if fault is not None:
        raise fault


def _look_at_whole(engine: Engine, path: Path, smoother: Smoother) -> Prediction:
    """One prediction of a short video: T frames over all of it."""
    length_s = probe(path).duration_s or max(time_s for time_s, _ in iter_frames(path)) or 1.0
    frames = decode_at(path, window_times(length_s, engine.clip)).frames
    return smoother.update(length_s / 2, *recognise(engine, frames))


def predict_videos(
    engine: Engine,
    videos: Sequence[Path],
    *,
    log: Path | None = None,
    segments: Path | None = None,
    windows_s: Sequence[float] = WINDOWS_S,
    hop_s: float = HOP_S,
    smoothing: Smoothing | None = None,
    when_done: Callable[[Path, list[Prediction]], None] | None = None,
) -> Generator[dict[str, Any], None, None]:
    """`recognise_video` for several videos, as plain values (`as_line`) that begin with the `video`.

    Log and segments appear under their names when all is done. A video given twice is looked at once. One that turns
    out to be damaged gives what comes before that, and the others are looked at all the same.

    Args:
        log: a .jsonl or .csv file that gets a line for each prediction.
        segments: a .csv file that gets a row for each shown action, see `SegmentWriter`.
        when_done: is called after each whole video with all its predictions, which are kept for that (about 2 KB each).

    Raises:
        VideoError: a video that cannot be opened, before the first is begun; or, when all is done, what was damaged.
        InputError: an output of unknown suffix or that cannot be written, windows or a hop that are not positive.
    """
    log_kind = log_format(log) if log else None
    if segments:
        check_ids(videos)
        if segments.suffix.lower() != ".csv":
            raise InputError(f"{segments}: segments are written as CSV, expected a name that ends in .csv")
    infos = {path: probe(path) for path in videos}
    faults: list[VideoError] = []
    with ExitStack() as stack:
        lines = LineWriter(stack.enter_context(_text_file(log)), log_kind) if log and log_kind else None
        rows = SegmentWriter(stack.enter_context(_text_file(segments)), engine.taxonomy) if segments else None
        for path, info in infos.items():
            runs, kept = RunJoiner(), []
            total_s = round(info.duration_s, 1) if info.duration_s else None
            predictions = recognise_video(engine, path, windows_s=windows_s, hop_s=hop_s, smoothing=smoothing)
            is_whole = True
            try:
                with tqdm(total=total_s, desc=escaped(path.name), unit="s", disable=None, leave=False) as bar:
                    for prediction in predictions:
                        line = as_line(prediction, video=str(path))
                        if lines:
                            lines.add(line)
                        if rows:
                            rows.add(path, runs.add(prediction), info.average_fps)
                        if when_done:
                            kept.append(prediction)
                        yield line
                        bar.update(round(min(prediction.time_s, total_s or prediction.time_s) - bar.n, 3))
            except VideoError as error:
                faults.append(error)
                is_whole = False
            if rows:
                rows.add(path, runs.finish(info.duration_s if is_whole else None), info.average_fps)
            if when_done and is_whole:
                try:
                    when_done(path, kept)
                except VideoError as error:  # in a frame that no window needed
                    faults.append(error)
    if faults:
        count = f"{len(faults)} of {len(infos)} videos are damaged, the others are done: " if len(infos) > 1 else ""
        raise VideoError(count + " ".join(map(str, faults)))


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name when the block ends without an error."""
    with (
        atomic_path(path) as temporary,  # names of files may be more than UTF-8 can say
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file
