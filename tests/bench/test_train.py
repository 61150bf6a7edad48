"""What `egochef bench train` says: the models are what their papers say, steps are training's own, ratios from rows."""

import dataclasses
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import islice

import pytest
import torch
from conftest import need

from egochef.bench.kitchens import set_up
from egochef.bench.peers import CONTENDERS, NUM_NOUNS, NUM_VERBS, Peer, as_recogniser, classes, size_of
from egochef.bench.rows import Row
from egochef.bench.steps import (
    Effort,
    measure_bare,
    measure_inference,
    measure_one_process,
    measure_passes,
    measure_resident,
    measure_store,
    resident_clips,
    store_clips,
)
from egochef.bench.train import TrainBench, claims_of, quick_bench, ratios_of
from egochef.cli.main import main
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.extras import ExtraError
from egochef.training.step import TIMED, Learner, StepTimer

CPU = torch.device("cpu")
TINY = Effort(device="cpu", precision="fp32", seconds=0.0, least_steps=2, tiny=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    quick = quick_bench()
    return set_up(tmp_path_factory.mktemp("bench") / "train", quick.kitchen, quick.store, num_workers=1).store


def need_library(name):
    """Skip what a peer's library is missing for. torchvision cannot be had in CI, where torch is a CPU build."""
    if name.startswith("swin"):
        if find_spec("torchvision") is None:
            pytest.skip("needs torchvision")
    elif not CONTENDERS[name].is_ours:
        need(find_spec("transformers") is not None, "transformers")


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_model_answers_both_questions(name):
    need_library(name)
    contender = CONTENDERS[name]
    config = contender.config(True)
    model = contender.build(config, True).eval()
    size = config.clip.image_size
    with torch.no_grad():
        logits = model(torch.zeros(2, config.clip.num_frames, 3, size, size))
    assert logits.verb.shape == (2, NUM_VERBS) and logits.noun.shape == (2, NUM_NOUNS)


@pytest.mark.parametrize(
    ("name", "parameters_m", "gflops"),
    [
        ("ours16", 40.71, 16 * 4.09),  # ResNet-50 has 4.09 GFLOPs a picture
        ("ours32", 40.71, 32 * 4.09),
        ("timesformer", 121.4, 590 / 3),  # Bertasius et al. 2021, table 2: 121.4 M, 0.59 TFLOPs for three views
        ("videomae", 87, 180),  # Tong et al. 2022, table 6
    ],
)
def test_models_are_as_large_as_their_papers_say(name, parameters_m, gflops):
    need_library(name)
    size = size_of(CONTENDERS[name], tiny=False)
    assert size.num_parameters / 1e6 == pytest.approx(parameters_m, rel=0.01)
    assert size.gflops == pytest.approx(gflops, rel=0.01)
    assert size.weights_mib == pytest.approx(size.num_parameters * 4 / 2**20)


def test_why_a_peer_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ExtraError, match=r"TimeSformer: transformers is not installed: pip install .egochef.bench"):
        size_of(CONTENDERS["timesformer"], tiny=True)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExtraError, match="torchvision cannot be imported here .operator torchvision::nms"):
        size_of(CONTENDERS["swin_t"], tiny=True)


def test_resident_clips_make_whole_steps_without_end():
    config = dataclasses.replace(CONTENDERS["light16"].config(True), batch_size=5)
    micros = list(islice(resident_clips(config, 2, CPU), 6))
    assert [len(micro.verb) for micro in micros] == [len(micro.segment) for micro in micros]
    assert [micro.ends_step for micro in micros] == [False, False, True] * 2
    assert sum(micro.step_share for micro in micros[:3]) == pytest.approx(1)
    assert sum(len(micro.verb) for micro in micros[:3]) == 5
    assert all(micro.inputs.dtype == torch.uint8 and micro.colour is not None for micro in micros)


def test_a_peer_is_trained_by_trainings_own_step():
    need_library("videomae")
    contender = CONTENDERS["videomae"]
    config = contender.config(True)
    peer = contender.build(config, True)
    assert isinstance(peer, Peer)
    before = [parameter.detach().clone() for parameter in peer.parameters()]
    engine = TorchEngine(as_recogniser(peer), config.clip, classes(), CPU, torch.float32)
    micros = resident_clips(config, 4, CPU)
    result = Learner(engine, config).take_step(micros, 1, 1e-3, StepTimer(CPU))
    assert result.loss > 0 and not result.skipped
    changed = [not torch.equal(a, b) for a, b in zip(before, peer.parameters(), strict=True)]
    assert all(changed), f"{changed.count(False)} of {len(changed)} tensors did not learn"


def test_clips_from_a_store_are_repeated_until_there_are_enough(store):
    config = CONTENDERS["light16"].config(True)
    few, many = store_clips(store, config, 1), store_clips(store, config, 50)
    assert 0 < len(few) < 50 <= len(many) and len(many) % len(few) == 0
    assert (many.verb >= 0).all() and (many.noun >= 0).all()
    sample = many[(1, 0, len(many) - 1)]
    assert sample.frames.shape == (16, 32, 32, 3)


def test_steps_from_a_store_tell_where_their_time_goes(store):
    taken = measure_store("light16", TINY, store)
    assert taken.num_clips == CONTENDERS["light16"].cpu_batch and taken.num_steps == 2
    assert set(taken.parts_ms) == set(TIMED) and all(part >= 0 for part in taken.parts_ms.values())
    assert taken.ms > 0 and taken.parts_ms["backward"] > 0
    assert 0 < taken.wait_share < 1 and taken.peak_mib > 100


def test_what_else_is_measured():
    resident, bare, inference = (
        measure("light16", TINY) for measure in (measure_resident, measure_bare, measure_inference)
    )
    assert resident.ms > 0 and set(resident.parts_ms) == set(TIMED)
    assert bare.ms > 0 and inference.ms > 0 and not bare.parts_ms and not inference.parts_ms


def test_half_as_many_clips_where_the_device_has_no_room():
    asked = []

    def prepare(num_clips):
        asked.append(num_clips)
        if num_clips > room:
            raise torch.OutOfMemoryError
        return lambda: None

    config, room = CONTENDERS["light16"].config(True), 3
    taken = measure_passes("light16", prepare, config, 9, CPU, TINY)
    assert asked == [9, 5, 3] and taken.num_clips == taken.micro_batch == 3
    room = 0
    with pytest.raises(InputError, match="light16: the device has no room for one clip"):
        measure_passes("light16", prepare, config, 2, CPU, TINY)


def test_a_store_is_read_by_one_process(store):
    assert measure_one_process(store, CONTENDERS["light16"].config(True), 16) > 0


def rows_of(**models):
    """Rows as they are measured, of `model=(resident, peak, weights, hours)`."""
    rows = []
    for name, (speed, peak, weights, hours) in models.items():
        rows += [
            Row(f"{name}/resident clips_per_s", speed, "clips/s"),
            Row(f"{name}/resident peak_memory", peak, "MiB"),
            Row(f"{name}/model weights", weights, "MiB"),
            Row(f"{name}/reckoned epoch", hours, "GPU-hours"),
            Row(f"{name}/reckoned training", 10 * hours, "GPU-hours"),
        ]
    return rows


def test_ratios_come_from_rows_and_the_worst_of_ours_counts():
    rows = rows_of(ours16=(8.0, 100.0, 150.0, 1.0), timesformer=(2.0, 300.0, 450.0, 4.0))
    for name, share, over, store, bare in (("ours16", 0.02, 0.97, 90.0, 100.0), ("light16", 0.01, 0.99, 40.0, 80.0)):
        rows += [
            Row(f"{name}/store data_wait_share", share, "share"),
            Row(f"{name}/store over_resident", over, "times"),
            Row(f"{name}/store images_per_s", store, "images/s"),
            Row(f"{name}/bare images_per_s", bare, "images/s"),
        ]
    rows += [Row("data/one_process clips_per_s", 100.0, ""), Row("data/loader clips_per_s", 180.0, "")]
    rows += [Row("data/cores for_a100", 1.54, "cores"), Row("swin_t/resident clips_per_s", None, "clips/s", "missing")]
    ratios = ratios_of(rows)
    assert ratios["data_wait_share"] == 0.02 and ratios["data_wait_share@light16"] == 0.01
    assert ratios["store_over_resident"] == 0.97 and ratios["store_over_resident@light16"] == 0.99
    assert ratios["store_over_bare@light16"] == 0.5
    assert ratios["loader_over_one_process"] == 1.8
    assert ratios["cores_for_a100"] == 1.54 and ratios["cores_for_h100_high"] is None
    assert ratios["training_speed_ours16_over_timesformer"] == 4.0
    assert ratios["training_memory_timesformer_over_ours16"] == 3.0
    assert ratios["inference_speed_ours16_over_timesformer"] is None
    assert not any("swin_t" in name for name in ratios)


def test_claims_stand_beside_what_was_measured_even_where_it_is_worse():
    rows = rows_of(ours16=(8.0, 100.0, 150.0, 1.0), timesformer=(2.0, 50.0, 450.0, 4.0))
    claims = {claim.what: claim for claim in claims_of(rows)}
    assert claims["an epoch"].measured_times == {"timesformer": 4.0} and claims["an epoch"].times == "12x"
    assert claims["memory in training"].measured_times == {"timesformer": 0.5}
    assert claims["cost of a training"].unit == "GPU-hours" and claims["cost of a training"].measured_ours == 10.0
    assert claims["action accuracy"].measured_ours is None
    rows += [Row(f"{name}/reckoned cost", cost, "") for name, cost in (("ours16", 20.0), ("timesformer", 80.0))]
    priced = {claim.what: claim for claim in claims_of(rows)}["cost of a training"]
    assert priced.measured_ours == 20.0 and priced.measured_others == {"timesformer": 80.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"price": 0.0}, "price is 0.0"),
        ({"models": ("ours16", "vgg")}, "unknown model 'vgg', expected some of ours16"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        TrainBench(**fields)


@pytest.mark.parametrize("words", (["data", "--price", "2"], ["train", "--segments", "20"], ["train", "--models", "x"]))
def test_the_command_refuses_what_does_not_fit(words, capsys):
    assert main(["bench", *words]) == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and words[-2].strip("-").rstrip("s") in err


@pytest.mark.slow
def test_the_command_prints_json_and_nothing_else(tmp_path):
    need_library("timesformer")
    command = [sys.executable, "-m", "egochef", "bench", "train", "--quick", "--price", "2.5", "--json"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"machine", "rows", "ratios", "claims"}
    assert {"cores", "gpu", "torch", "transformers", "device", "precision", "threads"} <= set(found["machine"])
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"])
    assert all({"name", "value", "unit"} <= set(row) <= {"name", "value", "unit", "note"} for row in found["rows"])
    assert all(row.get("note") for row in found["rows"] if row["value"] is None), "missing without a reason"
    for name in ("ours16", "light16"):
        for way in ("resident", "store", "bare", "inference"):
            assert rows[f"{name}/{way} clips_per_s"]["value"] > 0
    for name in ("ours16", "light16", "timesformer"):
        hours = rows[f"{name}/reckoned epoch"]["value"] * CONTENDERS[name].epochs
        assert rows[f"{name}/reckoned training"]["value"] == pytest.approx(hours, rel=0.01)
        assert rows[f"{name}/reckoned cost"]["value"] == pytest.approx(hours * 2.5, rel=0.01)
    assert found["ratios"] == ratios_of([Row(**row) for row in found["rows"]])
    assert {"data_wait_share", "store_over_resident", "cores_for_a100"} <= set(found["ratios"])
    assert len(found["claims"]) == 7
    assert not list(tmp_path.glob("egochef-bench-*")), "the drawn kitchen is left behind"
