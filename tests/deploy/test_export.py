"""`egochef export`: what it writes does what the checkpoint does; what was spoilt is caught; faults leave nothing."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import need
from deploy.exported import (
    CLIP,
    TAXONOMY,
    change_constant,
    change_initializer,
    change_spec,
    pictures,
    save,
)

from egochef.cli.main import main
from egochef.clip import Grid
from egochef.data.annotations import open_data_folder, read_split
from egochef.deploy import export as deploy_export
from egochef.deploy.backends import load_engine, load_scorer, origin_of
from egochef.deploy.coreml_files import write_coreml
from egochef.deploy.export import check_files, export, open_exported, read_about, report_of
from egochef.deploy.source import open_source
from egochef.engines.engine import Engine
from egochef.engines.exported import FEATURES, IMAGE, METADATA_KEY, NOUN, VERB
from egochef.engines.mil import MilProgram
from egochef.engines.torch_engine import load
from egochef.errors import InputError, Stopped
from egochef.inference.rolling import RollingRecogniser
from egochef.model.checkpoint import load_checkpoint, save_checkpoint, write_tensors

SWIFT = Path(__file__).resolve().parents[2] / "ios" / "EgoChefCore" / "Sources" / "EgoChefCore"


@pytest.fixture(scope="module", autouse=True)
def what_exports():
    need(all(importlib.util.find_spec(name) for name in ("coremltools", "onnx", "onnxruntime")), "the export extras")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return save(folder / "x.safetensors", encoder="efficientnet_lite0")


@pytest.fixture(scope="module")
def packages(folder, checkpoint, toy_root):
    """A Core ML pair."""
    output = folder / "pair" / "x.mlpackage"
    return output, export(checkpoint, output, format="coreml", parts="stream", data=toy_root)


@pytest.fixture(scope="module")
def onnx_file(folder, checkpoint, toy_root):
    """An ONNX file for whole clips."""
    output = folder / "file" / "x.onnx"
    return output, export(checkpoint, output, format="onnx", data=toy_root)


def agrees(checkpoint, output, tolerance, *, num_clips, num_frames):
    """The saved file against torch on clips that its own check did not see."""
    engine, written = load(checkpoint, device="cpu", precision="fp32"), open_exported(output)
    clips = pictures(num_clips, num_frames, seed=5)
    for ours, theirs in zip(engine.clip_logits(clips), written.clip_logits(clips), strict=True):
        ours, theirs = ours.log_softmax(1), theirs.log_softmax(1)
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < tolerance * ours.abs().max()


def test_a_core_ml_pair_and_all_that_lies_beside_it(packages, checkpoint):
    output, report = packages
    names = {"x-encoder.mlpackage", "x-head.mlpackage", "x.mlpackage.json", "class_mappings.json"}
    assert {path.name for path in output.parent.iterdir()} == names
    assert json.loads(report_of(output).read_text()) == json.loads(json.dumps(dataclasses.asdict(report)))
    assert json.loads((output.parent / "class_mappings.json").read_text())["verbs"] == {"0": "a", "1": "b", "2": "c"}
    assert report.agreement.num_clips == 8 and report.agreement.verb_top1 == report.agreement.noun_top1 == 1
    assert "lstm" in report.op_types["x-head.mlpackage"]
    for num_frames in (1, 4, 9):
        agrees(checkpoint, output, 5e-3, num_clips=2, num_frames=num_frames)
    about = read_about(output.with_name("x-head.mlpackage"))
    assert (about.clip, about.taxonomy, about.part, about.precision) == (CLIP, TAXONOMY, "head", "fp16")
    assert about.checkpoint == report.checkpoint and about.num_features == 1280


def test_the_app_finds_what_it_reads(packages):
    """Names, shapes and counts that the Swift code asks for are those of the packages."""
    import coremltools

    output, _ = packages
    found = {}
    for part in ("encoder", "head"):
        path = output.with_name(f"x-{part}.mlpackage")
        spec = coremltools.utils.load_spec(str(path))
        metadata = json.loads(spec.description.metadata.userDefined[METADATA_KEY])
        for kind, fields in (("ModelAbout", metadata), ("ClipSpec", metadata["clip"] | metadata["clip"]["grid"])):
            text = (SWIFT / f"{kind}.swift").read_text(encoding="utf-8")
            keys = set()
            for body in re.findall(r"enum CodingKeys: String, CodingKey \{(.*?)\n    \}", text, re.DOTALL):
                keys |= {value or name for name, value in re.findall(r'case (\w+)(?: = "(\w+)")?', body)}
            assert keys and keys <= set(fields), kind
        for feature in (*spec.description.input, *spec.description.output):
            array = feature.type.multiArrayType
            found[part, feature.name] = (
                (feature.type.imageType.height, feature.type.imageType.width)
                if feature.type.WhichOneof("Type") == "imageType"
                else tuple(array.shape)
            )
            if feature.type.WhichOneof("Type") == "multiArrayType":
                assert array.dataType == array.ArrayDataType.Value("FLOAT32")
                if feature.name == FEATURES and part == "head":
                    sizes = array.shapeRange.sizeRanges
                    assert [(size.lowerBound, size.upperBound) for size in sizes] == [(1, 1), (1, 64), (1280, 1280)]
        assert spec.specificationVersion == 8, "iOS 17"
    assert found == {
        ("encoder", IMAGE): (64, 64),
        ("encoder", FEATURES): (1, 1280),
        ("head", FEATURES): (1, 4, 1280),
        ("head", VERB): (1, 3),
        ("head", NOUN): (1, 4),
    }


@pytest.mark.parametrize(
    ("format", "parts", "precision", "model"),
    [
        ("coreml", "clip", "fp16", {"encoder": "resnet50_tsm_online", "temporal": "tcn", "causal": True}),
        ("coreml", "stream", "int8", {"temporal": "tcn", "pooling": "attention"}),
        ("onnx", "stream", "fp16", {"temporal": "tcn"}),
        ("onnx", "clip", "int8", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_every_kind_of_file_equals_its_checkpoint(format, parts, precision, model, tmp_path, toy_root):
    checkpoint = save(tmp_path / "x.safetensors", **{"encoder": "efficientnet_lite0"} | model)
    output = tmp_path / "out" / ("x.onnx" if format == "onnx" else "x.mlpackage")
    report = export(checkpoint, output, format=format, parts=parts, precision=precision, data=toy_root)
    fixed = (format, parts) == ("coreml", "clip")
    tolerance = report.agreement.tolerance.log_probs
    agrees(checkpoint, output, tolerance, num_clips=3, num_frames=4 if fixed else 7)
    if model.get("temporal") == "tcn" and format == "coreml":
        assert "lstm" not in {kind for kinds in report.op_types.values() for kind in kinds}
    if precision == "int8":
        size = sum(report.files.values())
        assert size < 0.3 * checkpoint.stat().st_size, "eight bits are a quarter of thirty-two"


@pytest.mark.parametrize("model", [{"pooling": "last"}, {"temporal": "tcn", "causal": True, "pooling": "last"}])
def test_a_core_ml_head_takes_windows_of_any_length(model, tmp_path):
    source = open_source(save(tmp_path / "x.safetensors", encoder="efficientnet_lite0", **model))
    write_coreml(source, "head", tmp_path / "x-head.mlpackage")
    program = MilProgram(tmp_path / "x-head.mlpackage")
    for num_frames in (1, 4, 9):
        features = torch.rand(1, num_frames, 1280, generator=torch.Generator().manual_seed(num_frames))
        written = program({FEATURES: features})
        for name, ours in zip((VERB, NOUN), source.engine.classify(features), strict=True):
            ours, theirs = ours.log_softmax(1), written[name].log_softmax(1)
            assert (ours - theirs).abs().max() < 5e-3 * ours.abs().max()


def test_onnx_takes_any_number_of_clips_and_frames(onnx_file, checkpoint):
    output, report = onnx_file
    assert report.agreement.difference < 1e-5
    for num_clips, num_frames in ((1, 1), (3, 4), (2, 9)):
        agrees(checkpoint, output, 1e-5, num_clips=num_clips, num_frames=num_frames)


def swap_names(about):
    verbs = (about.verbs[1], about.verbs[0], *about.verbs[2:])
    return dataclasses.replace(about, verbs=verbs).to_json()


def swap_names_in_package(package):
    about = swap_names(read_about(package))
    change_spec(package, lambda spec: spec.description.metadata.userDefined.__setitem__(METADATA_KEY, about))


def blue_first(package):
    def change(spec):
        image = spec.description.input[0].type.imageType
        image.colorSpace = image.ColorSpace.Value("BGR")

    change_spec(package, change)


@pytest.mark.parametrize(
    ("part", "spoil", "message"),
    [
        ("encoder", swap_names_in_package, "names another verbs"),
        ("head", swap_names_in_package, "names another verbs"),
        ("encoder", blue_first, "differs from its checkpoint"),
        ("encoder", lambda path: change_constant(path, "gamma", lambda scale: scale[::-1]), "differs from its"),
        ("encoder", lambda path: change_constant(path, "beta", lambda shift: 0.9 * shift), "differs from its"),
        ("encoder", lambda path: change_constant(path, "blocks_7_project_conv_weight", np.flip), "differs from its"),
        (
            "head",
            lambda path: change_constant(path, "noun_head_bias", lambda bias: bias + np.array([0.1, 0, 0, 0])),
            "differs",
        ),
    ],
    ids=["names", "names of the head", "colours", "scale", "mean", "a tensor", "a bias"],
)
def test_a_spoilt_package_is_caught(packages, checkpoint, tmp_path, part, spoil, message):
    output, _ = packages
    shutil.copytree(output.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / output.name
    report_of(copy).unlink()  # its checksums would tell before
    source = open_source(checkpoint)
    spoil(copy.with_name(f"x-{part}.mlpackage"))
    with pytest.raises(InputError, match=message):
        check_files(source, copy, pictures(4, 4), parts="stream", precision="fp16")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["package", "file"])
def test_a_flipped_bit_is_noticed_where_the_report_lies_beside_it(kind, packages, onnx_file, tmp_path):
    output, _ = packages if kind == "package" else onnx_file
    shutil.copytree(output.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / output.name
    if kind == "package":
        (copy.with_name("x-head.mlpackage") / ".DS_Store").write_bytes(b"a Mac was here")
    open_exported(copy)
    flip_a_bit(next(copy.with_name("x-head.mlpackage").rglob("weight.bin")) if kind == "package" else copy)
    with pytest.raises(InputError, match=r"damaged, .* SHA-256 .* in x.(onnx|mlpackage).json"):
        open_exported(copy)
    if kind == "file":
        renamed = copy.with_name("y.onnx")
        shutil.copyfile(report_of(copy), report_of(renamed))
        shutil.copyfile(output, renamed)
        open_exported(renamed)
        shutil.copyfile(copy, renamed)
        with pytest.raises(InputError, match=r"damaged, .* in y.onnx.json"):
            open_exported(renamed)
    report = json.loads(report_of(copy).read_text())
    del report["sha256"]  # as version 0.1 wrote it
    report_of(copy).write_text(json.dumps(report))
    open_exported(copy)
    report_of(copy).write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"x.\w+.json: cannot be read \(nested too deeply\)"):
        open_exported(copy)
    report_of(copy).unlink()
    open_exported(copy)


def swap_names_in_file(path):
    import onnx

    about = swap_names(read_about(path))
    model = onnx.load(path)
    next(entry for entry in model.metadata_props if entry.key == METADATA_KEY).value = about
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (swap_names_in_file, "names another verbs"),
        (
            lambda path: change_initializer(path, "stem_conv.weight", lambda w: w[:, ::-1]),
            "differs from its checkpoint",
        ),
        (lambda path: change_initializer(path, "shift", lambda shift: 0.99 * shift), "differs from its checkpoint"),
        (lambda path: change_initializer(path, "blocks.7.project_conv.bias", lambda bias: bias + 1e-2), "differs from"),
    ],
    ids=["names", "colours", "mean", "a bias"],
)
def test_a_spoilt_onnx_file_is_caught(onnx_file, checkpoint, tmp_path, spoil, message):
    copy = tmp_path / "x.onnx"
    shutil.copyfile(onnx_file[0], copy)
    source = open_source(checkpoint)
    check_files(source, copy, pictures(4, 4), parts="clip", precision="fp32")
    spoil(copy)
    with pytest.raises(InputError, match=message):
        check_files(source, copy, pictures(4, 4), parts="clip", precision="fp32")


def test_an_exported_model_is_scored_like_any_checkpoint(packages, onnx_file, tmp_path, toy_root):
    taxonomy = open_data_folder(toy_root).taxonomy
    checkpoint = save_for(taxonomy, tmp_path / "x.safetensors")
    recogniser, about = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, recogniser, dataclasses.replace(about, held_out=("P01",)))
    output = tmp_path / "x.onnx"
    export(checkpoint, output, format="onnx", parts="stream", data=toy_root)
    scores = []
    for name in (checkpoint, output, tmp_path / "x-head.onnx"):
        out = tmp_path / f"scores{len(scores)}"
        with contextlib.redirect_stdout(io.StringIO()):
            words = ["evaluate", "--checkpoint", str(name), "--data", str(toy_root), "--out", str(out)]
            exact = ["--precision", "fp32"] if name == checkpoint else []  # some processors would take bf16
            assert main(words + exact) == 0
        scores.append(np.load(out / "scores.npz")["verb_output"])
    assert len(scores[0]) == len(read_split(open_data_folder(toy_root), "validation"))
    assert all(np.abs(scores[0] - other).max() < 1e-4 for other in scores[1:])
    assert origin_of(output).train_on == origin_of(checkpoint).train_on == ("train",)
    assert origin_of(output).held_out == origin_of(checkpoint).held_out == ("P01",)
    with contextlib.redirect_stderr(io.StringIO()) as errors:  # it tells what it has learned from, as its checkpoint
        assert main(["evaluate", "--checkpoint", str(output), "--data", str(toy_root), "--split", "train"]) == 1
    assert f"{output}: has learned from the labels of" in errors.getvalue()
    with pytest.raises(InputError, match="runs on the cpu in its own precision"):
        load_scorer(output, precision="bf16")


def save_for(taxonomy, path):
    """A checkpoint with the classes of a data folder."""
    model = {"encoder": "efficientnet_lite0", "num_verbs": taxonomy.num_verbs, "num_nouns": taxonomy.num_nouns}
    return save(path, taxonomy=taxonomy, **model)


def test_a_stream_takes_a_pair_and_no_file_of_clips(packages, onnx_file):
    engine = load_engine(packages[0])
    assert isinstance(engine, Engine) and "fp16" in engine.name
    rolling = RollingRecogniser(engine, [0.4])
    for number in range(6):
        rolling.see(number / 10, pictures(1, 1, seed=number)[0, 0].numpy())
    assert rolling.probs().verb.sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="a stream needs a pair. Export it by --parts stream"):
        load_engine(onnx_file[0])
    with pytest.raises(InputError, match="was exported already. Leave out --backend"):
        load_engine(packages[0], backend="torch")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--format coreml --output {out}/x.onnx", "the name of a file in coreml ends in .mlpackage"),
        ("--format onnx --output {out}/x", "the name of a file in onnx ends in .onnx"),
        ("--format coreml --precision fp32 --output {out}/x.mlpackage", "'fp32' in coreml: expected one of fp16, int8"),
        ("--format onnx --precision int8 --output {out}/x.onnx", "int8 needs to see clips like those to come: --data"),
        ("--format onnx --output {out}/x.onnx --data {out}/none", "none: no such"),
        ("--format onnx --output {out}/file/x.onnx --data {toy}", "cannot be written"),
        ("--format onnx --output {out}/x-head.onnx", "are those of a pair's parts. Choose another --output"),
        ("--format onnx --output {out}/x.onnx --participants P01", "--participants without --data"),
        ("--format onnx --output {out}/damaged/x.onnx", "class_mappings.json: cannot be read"),
        ("--format onnx --output {out}/there.onnx", "there.onnx: exists. Remove it, or choose another --output"),
        ("--format onnx --output {out}/other/x.onnx", "names other classes than the checkpoint"),
        ("--format onnx --checkpoint {out}/strange.safetensors --output {out}/x.onnx", "model.encoder is 'vgg'"),
        ("--format onnx --checkpoint {out}/none.safetensors --output {out}/x.onnx", "no such checkpoint"),
    ],
)
def test_what_is_refused_leaves_nothing(words, message, checkpoint, toy_root, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "class_mappings.json").write_text('{"verbs": ')
    (tmp_path / "other" / "class_mappings.json").write_text('{"verbs": {"0": "cook"}}')
    header = json.loads(_header(checkpoint))
    header["model"]["encoder"] = "vgg"
    write_tensors(tmp_path / "strange.safetensors", {"x": torch.zeros(1)}, header)
    before = sorted(tmp_path.rglob("*"))
    words = words.format(out=tmp_path, toy=toy_root).split()
    if "--checkpoint" not in words:
        words += ["--checkpoint", str(checkpoint)]
    assert main(["export", *words]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("egochef: ") and message in last
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_made_for_nothing_is_removed(checkpoint, toy_root, tmp_path):
    (tmp_path / "full").mkdir()
    with pytest.raises(InputError, match="no such"):
        export(checkpoint, tmp_path / "full" / "a" / "b" / "x.onnx", format="onnx", data=tmp_path / "none")
    assert list(tmp_path.rglob("*")) == [tmp_path / "full"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about | {"format": 2}, r"x.onnx: .*export format 2, this version of EgoChef reads 1\)"),
        (lambda about: {key: value for key, value in about.items() if key != "verbs"}, "x.onnx: .*'verbs' .*missing"),
    ],
    ids=["format", "missing"],
)
def test_metadata_of_another_version(change, message, onnx_file, tmp_path):
    import onnx

    model = onnx.load(onnx_file[0])
    entry = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = json.dumps(change(json.loads(entry.value)))
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(InputError, match=message + ".*Export it again."):
        open_exported(tmp_path / "x.onnx")


def _header(checkpoint):
    from safetensors import safe_open

    with safe_open(checkpoint, framework="pt") as file:
        return file.metadata()["egochef"]


@pytest.mark.parametrize("format", ["coreml", "onnx"])
def test_a_disk_that_is_full(format, checkpoint, toy_root, tmp_path):
    output = tmp_path / "out" / ("x.onnx" if format == "onnx" else "x.mlpackage")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))  # no file may become larger
    try:
        with pytest.raises(InputError, match="cannot be written .* Free space"):
            export(checkpoint, output, format=format, data=toy_root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_more_frames_than_a_head_takes(tmp_path):
    clip = dataclasses.replace(CLIP, num_frames=65, grid=Grid(min_frames=65))
    checkpoint = save(tmp_path / "x.safetensors", clip=clip, encoder="efficientnet_lite0")
    with pytest.raises(InputError, match="a head for windows of 65 frames: Core ML heads take at most 64"):
        write_coreml(open_source(checkpoint), "head", tmp_path / "x-head.mlpackage")


@pytest.mark.parametrize("kind", ["unknown operation", "a node is missing"])
def test_a_damaged_onnx_file_that_can_be_read(kind, onnx_file, tmp_path):
    import onnx

    model = onnx.load(onnx_file[0])
    if kind == "unknown operation":
        model.graph.node[-1].op_type = "Sofmax"
    else:
        del model.graph.node[20]
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(InputError, match=r"x.onnx: onnxruntime cannot run it \(.*\). Export it again."):
        open_exported(tmp_path / "x.onnx")


def test_what_is_not_installed(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(InputError, match=r'Core ML: coremltools is not installed: pip install "egochef\[coreml\]"'):
        export(checkpoint, tmp_path / "x.mlpackage", format="coreml")


def test_a_signal_before_anything_is_written(checkpoint, tmp_path, monkeypatch):
    """While the clips are found; the folder is hidden until all is done."""

    def stopped(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)  # the signal comes before

    monkeypatch.setattr(deploy_export, "find_clips", stopped)
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        export(checkpoint, tmp_path / "new" / "x.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_pair_that_is_not_of_one_recogniser(packages, folder, toy_root, tmp_path):
    other = save(tmp_path / "y.safetensors", seed=1, encoder="efficientnet_lite0")
    export(other, tmp_path / "y.onnx", format="onnx", parts="stream", data=toy_root)
    export(folder / "x.safetensors", tmp_path / "x.onnx", format="onnx", parts="stream", data=toy_root)
    (tmp_path / "y-head.onnx").replace(tmp_path / "x-head.onnx")
    with pytest.raises(InputError, match="not of one recogniser: they differ in checkpoint"):
        open_exported(tmp_path / "x.onnx")
    with pytest.raises(InputError, match="y-head.onnx: no such file. Make it by egochef export"):
        open_exported(tmp_path / "y.onnx")


@pytest.mark.parametrize(
    ("format", "suffix", "tolerance", "encoder"),
    [
        ("onnx", ".onnx", 1e-5, "efficientnet_lite0_tsm"),
        ("onnx", ".onnx", 1e-5, "efficientnet_lite0_tsm_online"),  # in Core ML: among the kinds of files above
        ("coreml", ".mlpackage", 5e-3, "efficientnet_lite0_tsm"),
    ],
)
def test_a_temporal_shift_is_exported_in_whole_clips(encoder, format, suffix, tolerance, tmp_path, toy_root):
    checkpoint = save(tmp_path / "x.safetensors", encoder=encoder, temporal="mean")
    output = tmp_path / f"x{suffix}"
    export(checkpoint, output, format=format, data=toy_root)
    agrees(checkpoint, output, tolerance, num_clips=2, num_frames=4)
    if format == "onnx":
        agrees(checkpoint, output, tolerance, num_clips=3, num_frames=6)  # their ends lie elsewhere
    with pytest.raises(InputError, match="cannot be written as an encoder of single frames"):
        export(checkpoint, tmp_path / f"pair{suffix}", format=format, parts="stream", data=toy_root)
    assert load_engine(checkpoint, device="cpu").shift == load(checkpoint).shift != "none"  # by torch
    with pytest.raises(InputError, match="run streams with --backend torch"):
        load_engine(checkpoint, backend="onnx")


def test_a_gru_goes_into_onnx_and_not_into_core_ml(tmp_path, toy_root):
    checkpoint = save(tmp_path / "x.safetensors", encoder="efficientnet_lite0", temporal="bigru")
    export(checkpoint, tmp_path / "x.onnx", format="onnx", parts="stream", data=toy_root)
    agrees(checkpoint, tmp_path / "x.onnx", 1e-5, num_clips=2, num_frames=7)
    with pytest.raises(InputError, match="Core ML has no GRU"):
        export(checkpoint, tmp_path / "x.mlpackage", format="coreml", data=toy_root)


def test_a_joint_head_is_exported_in_float32_alone(tmp_path, toy_root):
    joint = {"joint": True, "action_ids": (0, 1002, 2003)}
    checkpoint = save(tmp_path / "x.safetensors", encoder="efficientnet_lite0", **joint)
    output = tmp_path / "x.onnx"
    export(checkpoint, output, format="onnx", data=toy_root)
    agrees(checkpoint, output, 1e-4, num_clips=2, num_frames=4)
    for format, precision, name in (("onnx", "fp16", "y.onnx"), ("coreml", None, "y.mlpackage")):
        with pytest.raises(InputError, match="needs float32: export it as ONNX in fp32"):
            export(checkpoint, tmp_path / name, format=format, precision=precision, data=toy_root)
