"""What `egochef bench live` says: quantities of every way, ratios from rows, and what could not be measured."""

import json

import pytest

from egochef.bench.live import LiveBench, bench_live, quick_bench, ratios_of, take_turns
from egochef.bench.rows import Row, as_json, value_of
from egochef.cli.main import main
from egochef.errors import InputError


@pytest.mark.slow
def test_all_is_measured_in_one_run():
    numbers = bench_live(quick_bench())
    for way in ("torch", "onnx"):
        for quantity in ("encoder", "head", "rolling", "windows", "window"):
            value = value_of(numbers.rows, f"light16@{way} {quantity}")
            assert value is not None and value > 0, (way, quantity)
        rolling, window = (value_of(numbers.rows, f"light16@{way} {name}") for name in ("rolling", "window"))
        assert numbers.ratios[f"window_over_rolling_light16@{way}"] == pytest.approx(window / rolling, abs=1e-3)
    runs = [f"light16@{way} live_{fps}fps" for way in ("torch", "onnx") for fps in (60, 30)]
    rates = [value_of(numbers.rows, f"{run} predictions") for run in runs]
    assert None not in rates and max(rates) > 0  # a machine that stands still for the second of a run leaves it at 0
    ends = [[value_of(numbers.rows, f"{run} screen_{end}") for end in ("median", "p95")] for run in runs]
    shown = [both for both in ends if None not in both]
    assert shown and all(0 < median <= p95 for median, p95 in shown)
    assert json.loads(json.dumps(as_json(numbers)))["machine"]["onnxruntime"] != "none"


def test_the_baselines_ratios_have_plain_names():
    bench = LiveBench(models=("ours16", "light16"), ways=("onnx", "torch"))
    rows = [
        Row("ours16@onnx encoder", 50.0, "ms"),
        Row("ours16@onnx rolling", 60.0, "ms"),
        Row("ours16@onnx windows", 65.0, "ms"),
        Row("ours16@onnx window", 900.0, "ms"),
        Row("light16@onnx encoder", 10.0, "ms"),
        Row("light16@onnx rolling", 18.0, "ms"),
        Row("ours16@torch rolling", None, "ms", "not installed"),
    ]
    ratios = ratios_of(rows, bench)
    assert ratios["rolling_over_encoder@onnx"] == 1.2 and ratios["window_over_rolling@onnx"] == 15.0
    assert ratios["windows_over_encoder@onnx"] == 1.3 and ratios["rolling_over_encoder_light16@onnx"] == 1.8
    assert ratios["window_over_rolling_light16@onnx"] is None and ratios["rolling_over_encoder@torch"] is None


def test_turns_are_taken_and_medians_count():
    calls = []
    quantities = {name: lambda name=name: calls.append(name) for name in ("a", "b", "c")}
    took_ms, num_rounds = take_turns(quantities, LiveBench(rounds=4))
    assert num_rounds == 4 and set(took_ms) == {"a", "b", "c"}
    assert calls == ["a", "b", "c"] * (len(calls) // 3), "in turn, so that a slow moment meets all alike"


def test_what_is_refused(capsys):
    for wrong, message in (
        ({"models": ("swin_t",)}, "unknown model 'swin_t' of bench live"),
        ({"ways": ("tensorrt",)}, "unknown way 'tensorrt' of bench live"),
        ({"rounds": 0}, "expected at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            LiveBench(**wrong)
    for words, message in (
        (["live", "--segments", "5"], "--segments does not belong to bench live"),
        (["data", "--ways", "onnx"], "--ways does not belong to bench data"),
        (["live", "--precision", "bf16"], "--precision does not belong to bench live"),
    ):
        assert main(["bench", *words]) == 1
        assert message in capsys.readouterr().err
