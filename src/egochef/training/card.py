"""A run's model card, and what is noted of each start of a run for it.

In: RUN/config.json, RUN/log.jsonl, RUN/sessions.jsonl and the header of RUN/checkpoints/best.safetensors. Out:
RUN/MODEL_CARD.md, Markdown under the YAML front matter that Hugging Face reads.
"""

import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

import egochef
from egochef.clip import ClipSpec
from egochef.data.known import EK100, TOY, UNKNOWN
from egochef.errors import InputError
from egochef.files import write_text
from egochef.model.checkpoint import BEST
from egochef.model.recogniser import ModelConfig
from egochef.records import from_dict, parse_json, read_json, to_flat_dict
from egochef.runtime import describe_machine
from egochef.texts import without_secrets
from egochef.training.config import TrainConfig, load_config
from egochef.training.runfiles import LOG, SESSIONS, read_log

CARD = "MODEL_CARD.md"
COPY_ABOUT = "about.json"
"""beside a copy of the package that was made to run from: which version and commit it is"""
SCORE = "all_action_accuracy_at_1"
GIT_S = 5.0
"""that git has to answer"""
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""tensors of BatchNorm that nothing learns"""
TASKS = ("verb", "noun", "action")
MAX_VIDEOS = 20
"""that the card names"""


@dataclass(frozen=True)
class Header:
    """What a safetensors file of ours says of itself, without its weights."""

    fields: dict[str, Any]
    num_parameters: int
    num_bytes: int


def read_header(path: Path) -> Header:
    """Read a checkpoint's or a state's header; its weights stay on the disk.

    Raises:
        InputError: not a whole safetensors file, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "egochef" not in metadata:
                raise InputError(f"{path}: a safetensors file, but not one of EgoChef's")
            names = [name for name in file.keys() if name.rpartition(".")[2] not in BUFFERS]  # noqa: SIM118
            shapes = [file.get_slice(name).get_shape() for name in names]
        num_parameters = sum(int(torch.Size(shape).numel()) for shape in shapes)
        fields = parse_json(metadata["egochef"])
        if not isinstance(fields, dict):
            raise ValueError("its header is no object")
        return Header(fields, num_parameters, path.stat().st_size)
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a whole safetensors file of ours ({error})") from None


def describe_start(
    *,
    data: Path | None = None,
    device: torch.device,
    num_ranks: int,
    precision: str,
    resumed_step: int,
    dataset: str = UNKNOWN,
    num_segments: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What RUN/sessions.jsonl keeps of a start. Nothing in it can fail: what cannot be found out is None.

    Args:
        device: of this rank; the others' are taken to be like it.
        precision: that is used, not `auto`.
        dataset: what the data is, of `data.known`.
        num_segments: by split, what is trained and judged on.
    """
    machine = describe_machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine["processor"]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "system": platform.platform(),
        "device": device.type,
        "devices": [name] * num_ranks,
        "cores": machine["cores"],
        "ranks": num_ranks,
        "precision": precision,
        "versions": {
            "egochef": egochef.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
        },
        "git_commit": git_commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *without_secrets(sys.argv[1:])]),
        "data": None if data is None else str(data),
        "dataset": dataset,
        "num_segments": None if num_segments is None else dict(num_segments),
        "resumed_step": resumed_step,
    }


def git_commit(package: Path | None = None) -> str | None:
    """The commit of the checkout that this package runs from, with `-dirty` where the package has been changed since.

    A copy that a cluster's job runs from has it written beside it. None: it runs from no checkout (a package that is
    merely installed below one is no part of it), or there is no git.
    """
    folder = Path(egochef.__file__).parent if package is None else package
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        try:
            return read_json(folder.parent / COPY_ABOUT)["git_commit"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".")
    return f"{commit}-dirty" if commit and changes else commit or None


def _git(folder: Path, *words: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def read_sessions(run: Path) -> list[dict[str, Any]]:
    """The starts of a run, the first one first; lines that a crash cut off are left out."""
    try:
        text = (run / SESSIONS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    sessions = []
    for line in text.splitlines():
        try:
            session = parse_json(line)
        except ValueError:
            continue
        if isinstance(session, dict):
            sessions.append(session)
    return sessions


def best_evaluation(lines: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The log's evaluation of the best validation action accuracy; of equal ones the first, as training keeps it."""
    scored = [line for line in lines if line["kind"] == "evaluation" and isinstance(line.get(SCORE), int | float)]
    return max(scored, key=lambda line: float(line[SCORE]), default=None)


def write_card(run: Path) -> Path:
    """Write RUN/MODEL_CARD.md and return its path.

    Raises:
        InputError: the run has no readable config.json or no readable best checkpoint, or its folder cannot be written.
    """
    run = Path(run)
    config = load_config(run / "config.json")
    header = read_header(run / BEST)
    lines = list(read_log(run)) if (run / LOG).is_file() else []
    sessions = read_sessions(run)
    dataset = next((str(session["dataset"]) for session in reversed(sessions) if session.get("dataset")), UNKNOWN)
    parts = (
        _front_matter(run, config, header, dataset),
        f"# {run.absolute().name}\n",
        _summary(config, header),
        _scores(header, lines),
        _use(run, header, dataset),
        _data(config, header, sessions, dataset),
        _training(config, lines, sessions),
        _limits(config, header, dataset),
        _settings(config),
    )
    path = run / CARD
    write_text(path, "\n".join(parts))
    return path


def _front_matter(run: Path, config: TrainConfig, header: Header, dataset: str) -> str:
    """YAML. Every value is written as JSON, which YAML contains: no name can break it.

    Scores are given as those of a dataset only where that is known, and all of its validation split was scored.
    """
    name = run.absolute().name
    rows = ["---"]
    if EK100 in _datasets(header):
        rows.append("license: cc-by-nc-4.0")
    rows.append("library_name: egochef")
    rows.append("pipeline_tag: video-classification")
    rows.append("tags:")
    tags = ["action-recognition", "egocentric-video", *(each.lower() for each in _datasets(header))]
    rows += [f"- {json.dumps(tag)}" for tag in tags]
    rows += ["metrics:", "- accuracy"]
    found = _scores_of(header)
    scores = {key: found[key] for key in _score_names() if key in found}
    if scores and dataset != UNKNOWN and not config.participants and config.max_validation_segments is None:
        rows += ["model-index:", f"- name: {json.dumps(name)}", "  results:", "  - task:"]
        rows += ["      type: video-classification", "    dataset:", f"      name: {json.dumps(dataset)}"]
        rows += [f"      type: {json.dumps(dataset.lower())}", "      split: validation", "    metrics:"]
        for key, value in scores.items():
            rows += ["    - type: accuracy", f"      name: {key}", f"      value: {round(float(value), 2)}"]
    return "\n".join([*rows, "---", ""])


def _datasets(header: Header) -> list[str]:
    """Known ones that the weights have learned from."""
    return [str(name) for name in header.fields.get("datasets", ()) if name != UNKNOWN]


def _scores_of(header: Header) -> dict[str, Any]:
    """Those of the validation split; {} where its labels were learned from, maybe by what the run started from."""
    return {} if "validation" in header.fields.get("train_on", ()) else header.fields.get("scores", {})


def _score_names() -> list[str]:
    names = [f"all_{task}_accuracy_at_{k}" for k in (1, 5) for task in TASKS]
    return names + [f"{subset}_{task}_accuracy_at_1" for subset in ("tail", "unseen") for task in TASKS]


def _summary(config: TrainConfig, header: Header) -> str:
    fields = header.fields
    model = from_dict(ModelConfig, fields.get("model", {}), str(BEST))
    start = fields.get("initial_weights", config.init)
    starts = {
        "imagenet": "weights trained on ImageNet",
        "none": "random weights",
    }.get(start, f"the weights in `{start}`")
    temporal = "no temporal model"
    if model.temporal in ("bilstm", "bigru"):
        temporal = f"a {model.num_layers}-layer {model.temporal} of {model.hidden_size} units per direction"
    elif model.temporal == "tcn":
        causal = "causal " if model.causal else ""
        temporal = f"a {causal}tcn of {model.num_layers} blocks and {model.hidden_size} channels"
    fixed = "; it was not trained further" if config.encoder_is_fixed else ""
    seen = {
        "none": "each frame",
        "past": "each frame, with channels of the one before",
        "both": "the frames of a clip, which exchange channels",
    }[model.shift]
    joint = f", which a joint head ties by {len(model.action_ids):,} actions" if model.joint else ""
    return (
        "Recognises what a pair of hands does in first-person kitchen video: a verb "
        f"({model.num_verbs} classes) and a noun ({model.num_nouns}) for each segment.\n\n"
        f"- Recipe: `{fields.get('recipe', config.recipe)}`\n"
        f"- Encoder: `{model.encoder}` on {seen}, which started from {starts}{fixed}\n"
        f"- Over time: {temporal}, pooled by {model.pooling}\n"
        f"- Heads: verb and noun{joint}\n"
        f"- Size: {header.num_parameters:,} parameters; `{BEST}` has {header.num_bytes:,} bytes\n"
    )


def _scores(header: Header, lines: Sequence[Mapping[str, Any]]) -> str:
    scores = _scores_of(header)
    rows = ["## Scores\n"]
    if not scores:
        why = (
            "None: the validation split was trained on, and scores on it would be of labels that the model has seen.\n"
        )
        return "\n".join([*rows, why])
    best = best_evaluation(lines)
    epoch = f"epoch {best['epoch']}" if best and best[SCORE] == scores.get(SCORE) else "the epoch kept"
    count = f" ({scores['num_segments']:,} segments)" if "num_segments" in scores else ""
    rows.append(f"The official metrics on the validation split{count} after {epoch}, the best by action, in percent:\n")
    rows += ["| | verb | noun | action |", "|---|---|---|---|"]
    for title, subset, k in (
        ("all, top-1", "all", 1),
        ("all, top-5", "all", 5),
        ("tail classes, top-1", "tail", 1),
        ("unseen participants, top-1", "unseen", 1),
    ):
        values = [scores.get(f"{subset}_{task}_accuracy_at_{k}") for task in TASKS]
        rows.append(f"| {title} | " + " | ".join("-" if v is None else f"{v:.2f}" for v in values) + " |")
    rows.append("\nThe epoch was chosen by these same numbers, so they are a little better than on new segments.\n")
    return "\n".join(rows)


def _use(run: Path, header: Header, dataset: str) -> str:
    clip = from_dict(ClipSpec, header.fields.get("clip", {}), str(BEST))
    name = shlex.quote(str(run))
    data = {TOY: "TOY", EK100: "EPIC-KITCHENS"}.get(dataset, "DATA")
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (clip.mean, clip.std))
    return (
        "## How to use it\n\n"
        f"    egochef evaluate --checkpoint {name} --data {data}\n"
        f"    egochef predict VIDEO.mp4 --checkpoint {name}\n\n"
        "```python\nimport egochef\n\n"
        f"engine = egochef.load({json.dumps(str(run))})\n"
        "verb, noun = engine.recognise(frames)  # (T, H, W, 3) uint8 RGB -> probabilities\n```\n\n"
        "What a clip is (EgoChef does it by itself, from the checkpoint):\n\n"
        f"- {clip.num_frames} RGB frames, one of each of {clip.num_frames} equal bins of the segment: the middle one "
        f"of its candidates, which are {clip.grid.fps:g} a second and at least {clip.grid.min_frames}\n"
        f"- shorter side resized to {clip.resize_size} pixels, centre crop of {clip.image_size} x {clip.image_size}\n"
        f"- pixel values in 0..1, minus ({mean}), divided by ({std})\n"
    )


def _data(config: TrainConfig, header: Header, sessions: Sequence[Mapping[str, Any]], dataset: str) -> str:
    splits = ", ".join(header.fields.get("train_on", config.train_on))
    rows = ["## Data\n", f"- Dataset: {dataset}", f"- Trained on the splits: {splits}"]
    if others := [name for name in _datasets(header) if name != dataset]:
        rows.append(f"- The weights that it started from have learned from: {', '.join(others)}")
    paths = list(dict.fromkeys(str(session["data"]) for session in sessions if session.get("data")))
    if paths:
        rows.append(f"- Read from: {', '.join(f'`{path}`' for path in paths)}")
    counts = next((s["num_segments"] for s in reversed(sessions) if isinstance(s.get("num_segments"), dict)), None)
    if counts:
        rows.append("- Segments: " + ", ".join(f"{split} {count:,}" for split, count in counts.items()))
    if config.held_out:
        rows.append(f"- Held out of training, to tune by: {', '.join(config.held_out)}")
    if config.participants:
        rows.append(f"- Only the videos of: {', '.join(config.participants)}")
    for split, most in (("training", config.max_train_segments), ("validation", config.max_validation_segments)):
        if most is not None:
            rows.append(f"- Cut down to at most {most:,} {split} segments")
    return "\n".join([*rows, ""])


def _training(config: TrainConfig, lines: Sequence[Mapping[str, Any]], sessions: Sequence[Mapping[str, Any]]) -> str:
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    num_epochs = max((line["epoch"] for line in (*epochs, *evaluations)), default=0)
    rows = ["## Training\n", f"- {num_epochs} epochs of at most {config.epochs}, {len(steps):,} steps"]
    seconds = sum(_number(line, "epoch_s") for line in epochs)
    seconds = seconds or sum(_number(line, "step_ms") + _number(line, "data_ms") for line in steps) / 1000
    judged_s = sum(_number(line, "eval_ms") for line in evaluations) / 1000
    if seconds:
        rows.append(f"- Time: {_duration(seconds)} in steps, {_duration(judged_s)} in evaluations")
    if sessions:
        rows.append(f"- Starts: {len(sessions)}, {len(sessions) - 1} of them after an interruption")
        for title, name in (
            ("Machines", "host"),
            ("Precision", "precision"),
            ("Ranks", "ranks"),
            ("Code", "git_commit"),
        ):
            if values := _different(sessions, name):
                rows.append(f"- {title}: {', '.join(values)}")
        devices = [
            ", ".join(f"{n} x {name}" for name, n in Counter(s["devices"]).items()) for s in sessions if _devices(s)
        ]
        if devices:
            rows.append(f"- Devices: {'; '.join(dict.fromkeys(devices))}")
        versions = [s["versions"] for s in sessions if isinstance(s.get("versions"), dict)]
        shown = [", ".join(f"{name} {value}" for name, value in each.items() if value) for each in versions]
        if shown:
            rows.append(f"- Versions: {'; '.join(dict.fromkeys(shown))}")
        if command := next((s["command"] for s in sessions if s.get("command")), None):
            rows.append(f"- Command: `{command}`")
    skipped = sum(1 for line in steps if line.get("skipped"))
    rows.append(f"- Steps skipped because their numbers were not finite: {skipped}")
    unreadable = _unreadable(lines)
    if unreadable:
        rows.append(f"- Training samples that could not be read and were replaced: {unreadable.total():,}")
        rows += [f"  - `{video_id}`: {count:,}" for video_id, count in unreadable.most_common(MAX_VIDEOS)]
        if len(unreadable) > MAX_VIDEOS:
            rows.append(f"  - and {len(unreadable) - MAX_VIDEOS:,} more videos")
    else:
        rows.append("- Training samples that could not be read: none")
    return "\n".join([*rows, ""])


def _number(line: Mapping[str, Any], name: str) -> float:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.1f} min" if minutes >= 2 else f"{seconds:.1f} s"


def _different(sessions: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(str(session[name]) for session in sessions if session.get(name) is not None))


def _devices(session: Mapping[str, Any]) -> bool:
    devices = session.get("devices")
    return isinstance(devices, list) and bool(devices) and all(isinstance(name, str) for name in devices)


def _unreadable(lines: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """By video: of whole epochs as their lines have it, of one that was not finished from its steps."""
    summed_up = {line["epoch"] for line in lines if line["kind"] == "epoch"}
    counts: Counter[str] = Counter()
    for line in lines:
        if line["kind"] == "epoch" or (line["kind"] == "step" and line["epoch"] not in summed_up):
            found = line.get("unreadable")
            counts.update(found if isinstance(found, dict) else {})
    return counts


def _limits(config: TrainConfig, header: Header, dataset: str) -> str:
    rows = [
        "## What it is for, and what it is not\n",
        "For research on first-person video: scoring segments whose start and end are known, and trying out what a "
        "model sees in a video. It names one verb and one noun of the classes that it knows for every clip, also where "
        "nothing happens or something else does. It was not made to watch or judge people, nor for anything whose "
        "failure harms somebody. Kitchens, cameras and hands unlike those of the training videos lower its accuracy; "
        "rare classes are recognised far less often than frequent ones (the row of tail classes tells).",
    ]
    if config.max_train_segments is not None:
        rows.append("\nIt learned from a part of the segments only: its scores mean little.")
    if "validation" in header.fields.get("train_on", ()):
        rows.append("\nIt has seen the labels of the validation split: scores on that split say nothing.")
    rows.append("\n## Licence\n")
    datasets = _datasets(header)
    if EK100 in datasets:
        rows.append(
            "The annotations and videos of EPIC-KITCHENS-100 are under CC BY-NC 4.0: weights trained on them are for "
            "non-commercial research, and who passes them on names the dataset."
        )
    if TOY in datasets:
        rows.append(
            "ToyKitchen is drawn by a program: no licence comes with the data. Scores on it say nothing about "
            "EPIC-KITCHENS-100."
        )
    if dataset == UNKNOWN:
        rows.append(
            "EgoChef does not know this dataset: the weights are under its terms. Name it and its licence in the first "
            "lines of this card before you pass them on."
        )
    start = header.fields.get("initial_weights")
    if start == "imagenet":
        rows.append("\nThe encoder started from weights trained on ImageNet, which has terms of its own.")
    elif start not in (None, "none"):
        rows.append(f"\nThe encoder started from the weights in `{start}`, which may have terms of their own.")
    return "\n".join([*rows, ""])


def _settings(config: TrainConfig) -> str:
    rows = [f"    {name} = {json.dumps(value)}" for name, value in to_flat_dict(config).items()]
    return "\n".join(["## Settings\n", *rows, ""])
