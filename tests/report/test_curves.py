"""Curves: from logs of runs, from both forms of Weights & Biases' CSV files, and to panels without losing a mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_runs import TINY

from egochef.errors import InputError
from egochef.files import write_json
from egochef.records import to_dict
from egochef.report.curves import PANELS, canonical, downsample, find_metric, read_curves
from egochef.training.runfiles import RunLog
from egochef.training.state import Progress
from egochef.training.trackers import tags

STEPS_AN_EPOCH = 4


def step_line(log, epoch, step, **changes):
    fields = {"loss": 7.5 - step / 4, "verb_loss": 3.0, "noun_loss": 4.5, "lr": 0.001 * step, "skipped": 0}
    return log.write(
        kind="step", epoch=epoch, step=step, **fields | {"data_ms": 5.0 * step, "step_ms": 200.0} | changes
    )


def evaluation_line(log, epoch, **changes):
    metrics = {f"all_{task}_accuracy_at_1": 0.1 * epoch for task in ("verb", "noun", "action")}
    step = epoch * STEPS_AN_EPOCH
    return log.write(kind="evaluation", epoch=epoch, step=step, split="validation", eval_ms=9, **metrics | changes)


def write_run(run, num_epochs=3):
    write_json(run / "config.json", to_dict(TINY))
    log = RunLog(run, Progress())
    for epoch in range(1, num_epochs + 1):
        for step in range((epoch - 1) * STEPS_AN_EPOCH + 1, epoch * STEPS_AN_EPOCH + 1):
            step_line(log, epoch, step)
        evaluation_line(log, epoch)
        log.write(kind="epoch", epoch=epoch, step=epoch * STEPS_AN_EPOCH, loss=6.0, unreadable={}, wait_share=0.25)
    log.close()
    return run


def panel_lines(panel):
    return {(line.run, line.label): line for line in panel.lines}


def test_a_run(tmp_path):
    run = write_run(tmp_path / "run")
    (curves,) = read_curves([run])
    assert (curves.name, curves.sources, curves.missing, curves.notes) == ("run", (run,), (), ())
    loss = curves.series["step/loss"]
    assert loss.axis == "step" and loss.x.tolist() == list(range(1, 13))
    assert loss.y.tolist() == [7.5 - step / 4 for step in range(1, 13)]
    assert loss.epoch.tolist() == [step / 4 for step in range(1, 13)]
    assert curves.series["step/wait_share"].y.tolist() == pytest.approx([step / 40 for step in range(1, 13)])
    action = curves.series["evaluation/all_action_accuracy_at_1"]
    assert (action.x.tolist(), action.epoch.tolist()) == ([4, 8, 12], [1, 2, 3])
    assert curves.series["epoch/wait_share"].y.tolist() == [0.25] * 3


def test_names_are_those_that_trackers_get(tmp_path):
    run = write_run(tmp_path / "run")
    (curves,) = read_curves([run])
    sent = set()
    for line in RunLog(run, Progress(epoch=9, step=99)).lines:
        sent |= tags(line).keys()
    assert sent - {"epoch"} == curves.series.keys() - {"step/wait_share"}


def test_panels_of_a_run(tmp_path):
    panels = canonical(read_curves([write_run(tmp_path / "run")]))
    assert panels.keys() == PANELS.keys()
    assert {panel.axis for panel in panels.values()} == {"step"}
    assert [(line.label, len(line.y)) for line in panels["loss"].lines] == [("train", 12)]
    for task in ("verb", "noun", "action"):
        (line,) = panels[task].lines
        # Our accuracies are percent, however small: a model of EK-100 that knows nothing has less than one.
        assert (panels[task].unit, line.label) == ("%", "validation")
        assert line.y.tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert not panels[task].notes
    waits = panel_lines(panels["wait"])
    assert waits["run", "step by step"].y[0] == pytest.approx(2.5)
    assert waits["run", "means of epochs"].y.tolist() == [25] * 3
    assert panels["lr"].lines[0].y.tolist() == [0.001 * step for step in range(1, 13)]


def test_a_loss_that_is_not_finite_stays_a_gap(tmp_path):
    write_json(tmp_path / "config.json", to_dict(TINY))
    log = RunLog(tmp_path, Progress())
    step_line(log, 1, 1)
    assert step_line(log, 1, 2, loss=math.inf, skipped=1)["loss"] is None
    step_line(log, 1, 3)
    log.close()
    (curves,) = read_curves([tmp_path])
    assert np.isnan(curves.series["step/loss"].y).tolist() == [False, True, False]
    assert curves.series["step/loss"].num_gaps == 1
    assert curves.notes == ("the loss of 1 of 3 steps was not finite",)
    (line,) = canonical([curves])["loss"].lines
    assert (line.num_values, line.num_gaps) == (3, 1) and np.isnan(line.y[1])


def test_a_run_under_way(tmp_path):
    run = tmp_path / "run"
    write_json(run / "config.json", to_dict(TINY))
    (curves,) = read_curves([run])
    assert (curves.series, curves.missing) == ({}, ("nothing in its log yet",))
    log = RunLog(run, Progress())
    (curves,) = read_curves([run])
    assert curves.missing == ("nothing in its log yet",)
    step_line(log, 1, 1)
    (curves,) = read_curves([run])
    assert curves.missing == ("no evaluation yet", "no epoch yet")
    assert curves.series["step/loss"].y.tolist() == [7.25]
    log.close()
    panels = canonical([curves])
    assert not panels["action"].lines and panels["loss"].lines

    write_run(tmp_path / "later", num_epochs=1)
    log = RunLog(tmp_path / "later", Progress(epoch=1, step=4))
    step_line(log, 2, 5)
    log.close()
    with (tmp_path / "later" / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "epoch": 2, "st')  # cut off
    (curves,) = read_curves([tmp_path / "later" / "log.jsonl"])
    assert curves.name == "later" and curves.missing == ()
    assert curves.series["step/loss"].x.tolist() == [1, 2, 3, 4, 5]
    assert curves.series["step/loss"].epoch.tolist() == [0.25, 0.5, 0.75, 1, 1.25]  # as long as the epoch before


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"kind": "step", "epoch": 1, "step": 2, "loss": "low"}', "line 2: loss is 'low', expected a number"),
        ('{"kind": "step", "epoch": 1, "loss": 2.0}', "line 2: step is None, expected a whole number"),
        ('{"kind": "step", "epoch": "1", "step": 2}', "line 2: epoch is '1', expected a whole number"),
        ('{"kind": "step", "epoch": 1, "step": 0, "loss": 2.0}', "step/loss goes from step 1 back to 0"),
        ("[]", "line 2: not a line of a run's log"),
    ],
)
def test_bad_logs(tmp_path, line, fault):
    (tmp_path / "log.jsonl").write_text('{"kind": "step", "epoch": 1, "step": 1, "loss": 2.0}\n' + line + "\n")
    with pytest.raises(InputError, match=fault) as caught:
        read_curves([tmp_path])
    assert str(tmp_path / "log.jsonl") in str(caught.value)


LOSS_CHART = """\
"Step","calm-sun-1 - train_loss","calm-sun-1 - train_loss__MIN","calm-sun-1 - train_loss__MAX","a - b - train_loss",\
"a - b - train_loss__MIN","a - b - train_loss__MAX"
"0","6.5","6.5","6.5","","",""
"10","5.5","5.5","5.5","7","6","8"
"20","NaN","NaN","NaN","Infinity","6","Infinity"
"""
ACTION_CHART = """\
"Step","calm-sun-1 - val_action_acc","calm-sun-1 - val_action_acc__MIN","calm-sun-1 - val_action_acc__MAX"
"10","0.125","0.125","0.125"
"20","0.25","0.25","0.25"
"""


def write(folder, **texts):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_charts_of_a_run_come_together(tmp_path):
    folder = write(tmp_path / "charts", loss=LOSS_CHART, action=ACTION_CHART)
    one, two = read_curves([folder])
    assert (one.name, two.name) == ("calm-sun-1", "a - b")
    assert one.sources == (folder / "action.csv", folder / "loss.csv") and two.sources == (folder / "loss.csv",)
    assert one.series.keys() == {"train_loss", "val_action_acc"}
    loss = one.series["train_loss"]
    assert (loss.axis, loss.x.tolist(), loss.y[:2].tolist(), loss.num_gaps) == ("step", [0, 10, 20], [6.5, 5.5], 1)
    assert loss.low is None and loss.epoch is None
    other = two.series["train_loss"]  # blank is no value, Infinity is one that was not finite
    assert other.x.tolist() == [10, 20] and np.isnan(other.y[1])
    assert (other.low[0], other.high[0]) == (6, 8)
    assert "no action top-1 found by name" in two.missing and "no loss found by name" not in two.missing
    panels = canonical([one, two])
    assert panel_lines(panels["action"])["calm-sun-1", "validation"].y.tolist() == [12.5, 25]
    assert panels["action"].notes == (
        "calm-sun-1: val_action_acc never exceeds 1: taken for a fraction, shown as percent",
    )
    assert panel_lines(panels["loss"]).keys() == {("calm-sun-1", "train"), ("a - b", "train")}
    assert panel_lines(panels["loss"])["a - b", "train"].high[0] == 8


def test_charts_by_other_axes(tmp_path):
    by_epoch = '"epoch","r - _step","r - _step__MIN","r - _step__MAX","r - val_loss","r - val_loss__MIN"\n'
    folder = write(tmp_path / "charts", epochs=by_epoch + "1,100,100,100,3.5,3.5\n2,200,200,200,3.0,3.0\n")
    (curves,) = read_curves([folder])
    loss = curves.series["val_loss"]
    assert (loss.axis, loss.x.tolist(), loss.epoch.tolist()) == ("step", [100, 200], [1, 2])

    write(folder, epochs='"epoch","r - val_loss"\n1,3.5\n2,3.0\n')
    (curves,) = read_curves([folder])
    loss = curves.series["val_loss"]
    assert (loss.axis, loss.x.tolist(), loss.epoch.tolist()) == ("epoch", [1, 2], [1, 2])

    write(folder, epochs='"Relative Time (Process)","r - val_loss"\n0.5,3.5\n60.25,3.0\n')
    (curves,) = read_curves([folder])
    assert (curves.series["val_loss"].axis, curves.series["val_loss"].x.tolist()) == ("runtime, s", [0.5, 60.25])

    write(folder, epochs='"Wall Time","r - val_loss"\n1970-01-01T00:01:00Z,3.5\n1970-01-01 00:02:00,3.0\n')
    (curves,) = read_curves([folder])
    assert (curves.series["val_loss"].axis, curves.series["val_loss"].x.tolist()) == ("time, s", [60, 120])

    write(folder, epochs='"frames seen","r - val_loss","s - val_loss"\n300,3.5,\n200,3.0,\n')
    (curves,) = read_curves([folder])  # s has no value
    loss = curves.series["val_loss"]
    assert (curves.name, loss.axis, loss.x.tolist(), loss.y.tolist()) == ("r", "frames seen", [200, 300], [3.0, 3.5])


def test_two_runs_of_one_name_in_a_chart(tmp_path):
    write(
        tmp_path,
        chart="Step,r - loss,r - loss__MIN,r - loss__MAX,r - loss,r - loss__MIN,r - loss__MAX\n1,2,2,2,4,3,5\n",
    )
    one, two = read_curves([tmp_path / "chart.csv"])
    assert (one.name, one.series["loss"].y.tolist()) == ("r", [2])
    assert (two.name, two.series["loss"].y.tolist(), two.series["loss"].low.tolist()) == ("r (2)", [4], [3])


HISTORY = """\
,_step,_runtime,_timestamp,epoch,train/loss,val/action_acc,lr,examples
0,0,1.5,1700000001.5,0,6.5,,0.001,
1,50,2.5,1700000002.5,,NaN,,0.002,"{'_type': 'images'}"
2,99,3.5,1700000003.5,1,5.0,17.5,0.001,
"""


def test_a_history(tmp_path):
    folder = write(tmp_path / "wandb", baseline=HISTORY)
    (curves,) = read_curves([folder / "baseline.csv"])
    assert curves.name == "baseline" and curves.sources == (folder / "baseline.csv",)
    assert curves.series.keys() == {"train/loss", "val/action_acc", "lr"}
    loss = curves.series["train/loss"]
    assert (loss.axis, loss.x.tolist(), loss.epoch.tolist()) == ("step", [0, 50, 99], [0, 0, 1])
    assert loss.num_gaps == 1
    assert (curves.series["val/action_acc"].x.tolist(), curves.series["val/action_acc"].y.tolist()) == ([99], [17.5])
    assert curves.notes == ("baseline.csv: left out what is no number: examples",)
    panels = canonical([curves])
    assert panels["action"].lines[0].y.tolist() == [17.5]
    assert panels["action"].notes == ()
    assert panels["loss"].notes == ("baseline: train/loss: 1 of 3 values were not finite",)


def test_histories_of_one_file_name_are_two_runs(tmp_path):
    paths = [write(tmp_path / name, history="epoch,loss\n1,2.5\n") / "history.csv" for name in "ab"]
    assert [curves.name for curves in read_curves(paths)] == ["a/history", "b/history"]


def test_a_run_and_a_csv_of_one_name(tmp_path):
    write(tmp_path, run="epoch,loss\n1,2.5\n")
    names = [curves.name for curves in read_curves([tmp_path / "run.csv", write_run(tmp_path / "run")])]
    assert names == ["run", "run (CSV)"]


def test_the_same_chart_twice(tmp_path):
    shorter = "Step,r - loss\n1,5\n"
    folder = write(tmp_path / "charts", early=shorter, late="Step,r - loss\n1,5\n2,4\n", same=shorter)
    (curves,) = read_curves([folder])
    assert curves.series["loss"].y.tolist() == [5, 4]
    assert set(curves.notes) == {"loss is in two files: the one with 2 values by step counts"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty, expected curves"),
        ("Step,r - loss\n", "no rows below the header"),
        ("Step,r - loss\n1,2.5\n2,abc\n", "row 3: r - loss is 'abc', expected a number or nothing"),
        ("Step,r - loss\n1,1_000\n", "row 2: r - loss is '1_000', expected a number"),
        ("Step,r - loss\n1,2.5\n,2.5\n", "row 3: Step is '', expected a finite number"),
        ("Step,r - loss\n1,2.5\nNaN,2.5\n", "row 3: Step is 'NaN', expected a finite number"),
        ("Wall Time,r - loss\nMonday 9:00,2.5\n", "row 2: Wall Time is 'Monday 9:00', expected a number"),
        ("Step,r - loss\n1,2.5,3\n", "row 2: 3 values, expected 2"),
        ("Step,r - loss\n1,\n", "no values below the header"),
        ("Name,State\nrun,finished\n", "row 1: columns are Name, State; expected a chart"),
        ("_step\n1\n", "row 1: columns are _step; expected a chart"),
        ("_step,loss,loss\n1,2,3\n", "row 1: two columns are called 'loss'"),
        ("_step,loss\n1,2\n2,low\n", "row 3: loss is 'low', expected a number or nothing"),
        ("_step,loss\n5,2\n0,2\n", "row 3: _step is 0 after 5, expected rows in the order of time, of one run"),
        ("_step,words\n5,a\n6,b\n", "no column of numbers beside _step"),
        ('Step,r - loss\n1,"2.5\n', "not a readable CSV file"),
        ("Step,r - loss\n1,2.5\xff\n".encode("latin-1"), "not a readable CSV file"),
    ],
)
def test_bad_csv_files(tmp_path, text, fault):
    path = tmp_path / "chart.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        read_curves([path])
    assert str(path) in str(caught.value) and fault in str(caught.value)


def test_bad_sources(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read_curves([tmp_path / "nothing"])
    with pytest.raises(InputError, match=r"neither a run .* nor a folder with .csv files"):
        read_curves([tmp_path])
    run, path = write_run(tmp_path / "run"), write(tmp_path, chart=LOSS_CHART) / "chart.csv"
    for source in (run, path):
        with pytest.raises(InputError, match="given twice"):
            read_curves([source, source])
    assert read_curves([]) == []
    assert {panel.axis for panel in canonical([]).values()} == {"step"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("train_loss", ("loss", "train")),
        ("train/loss", ("loss", "train")),
        ("loss", ("loss", "split not named")),
        ("trainLoss", ("loss", "train")),
        ("train_loss_epoch", ("loss", "train")),
        ("Validation/total_loss", ("loss", "validation")),
        ("val_verb_acc", ("verb", "validation")),
        ("val/action_accuracy", ("action", "validation")),
        ("eval/noun_top1", ("noun", "validation")),
        ("val_action_acc@1", ("action", "validation")),
        ("test_noun_accuracy", ("noun", "test")),
        ("noun_acc_percent", ("noun", "split not named")),
        ("lr", ("lr", "")),
        ("learning_rate", ("lr", "")),
        ("train/learning_rate", ("lr", "")),
        ("lr-AdamW/pg1", ("lr", "")),
        ("epoch/wait_share", ("wait", "means of epochs")),
        ("verb_loss", None),
        ("ema_val_loss", None),
        ("val_verb_acc_top5", None),
        ("all_action_accuracy_at_5", None),
        ("best_val_action_acc", None),
        ("tail_action_accuracy_at_1", None),
        ("val_acc", None),
        ("train_val_loss", None),
        ("verb", None),
        ("loss_scale", None),
        ("lr_finder", None),
    ],
)
def test_metrics_are_found_by_their_names(name, found):
    assert find_metric(name) == found


def units(tmp_path, text):
    write(tmp_path, run=text)
    panels = canonical(read_curves([tmp_path / "run.csv"]))
    return {task: [line.y.tolist() for line in panels[task].lines] for task in ("verb", "noun", "action")}, panels


def test_fractions_and_percent(tmp_path):
    values, panels = units(tmp_path, "_step,val_verb_acc,val_noun_acc\n1,0.5,0.25\n2,1.0,0.5\n")
    assert (values["verb"], values["noun"]) == ([[50, 100]], [[25, 50]])
    assert "taken for a fraction" in panels["verb"].notes[0]
    values, panels = units(tmp_path, "_step,val_verb_acc,val_action_acc\n1,30,0.5\n2,40,0.75\n")
    assert (values["verb"], values["action"]) == ([[30, 40]], [[0.5, 0.75]])  # 0.75 % it is, beside 40 %
    assert not panels["verb"].notes and "shown as percent, as they are" in panels["action"].notes[0]
    values, panels = units(tmp_path, "_step,val_verb_acc_pct\n1,0.5\n")
    assert values["verb"] == [[0.5]] and not panels["verb"].notes
    values, panels = units(tmp_path, "_step,val_verb_acc,val_noun_acc\n1,-3,130\n")
    assert values["verb"] == values["noun"] == [] and "outside 0 to 100 %: left out" in panels["noun"].notes[0]


def test_one_axis_for_all(tmp_path):
    steps = write(tmp_path, steps="_step,epoch,loss\n10,1,3\n20,2,2\n") / "steps.csv"
    epochs = write(tmp_path, epochs="epoch,loss\n1,5\n2,4\n") / "epochs.csv"
    times = write(tmp_path, times="Relative Time (Process),r - loss\n1,5\n2,4\n") / "times.csv"
    assert canonical(read_curves([steps]))["loss"].axis == "step"
    both = canonical(read_curves([steps, epochs]))["loss"]
    assert both.axis == "epoch" and [line.x.tolist() for line in both.lines] == [[1, 2], [1, 2]]
    panel = canonical(read_curves([steps, epochs, times]))["loss"]
    assert panel.axis == "epoch" and [line.run for line in panel.lines] == ["steps", "epochs"]
    assert panel.notes == ("r: loss is known by runtime, s only, not by epoch: left out",)


def test_of_names_that_say_the_same_one_is_shown(tmp_path):
    write(tmp_path, run="_step,val_loss,val/loss_epoch,train/loss\n1,2,3,4\n")
    panel = canonical(read_curves([tmp_path / "run.csv"]))["loss"]
    assert {line.metric for line in panel.lines} == {"val_loss", "train/loss"}
    assert panel.notes == ("run: val_loss is shown, not val/loss_epoch",)


def test_long_runs_are_binned(tmp_path):
    write_json(tmp_path / "config.json", to_dict(TINY))
    rows = [f'{{"kind": "step", "epoch": 1, "step": {step}, "loss": {step % 7}}}\n' for step in range(1, 10_001)]
    (tmp_path / "log.jsonl").write_text("".join(rows))
    (line,) = canonical(read_curves([tmp_path]))["loss"].lines
    assert len(line.x) == len(line.y) == 2000 and line.num_values == 10_000
    assert line.y.mean() == pytest.approx(np.mean([step % 7 for step in range(1, 10_001)]))
    assert (line.low.min(), line.high.max()) == (0, 6)


VALUES = st.one_of(st.floats(-1e9, 1e9, width=32), st.just(math.nan))


@given(y=arrays(np.float64, st.integers(0, 300), elements=VALUES), max_points=st.integers(1, 60))
def test_binning_keeps_means_and_extremes(y, max_points):
    x = np.arange(len(y), dtype=np.float64)
    binned = downsample(x, y, max_points=max_points)
    finite = y[~np.isnan(y)]
    assert len(binned.y) <= max_points or len(binned.y) == len(y) <= max_points
    assert binned.count.sum() == len(finite)
    assert (np.diff(binned.x) > 0).all()
    assert np.array_equal(np.isnan(binned.y), binned.count == 0)
    kept = binned.count > 0
    assert (binned.low[kept] <= binned.y[kept]).all() and (binned.y[kept] <= binned.high[kept]).all()
    if len(finite):
        mean = (binned.y[kept] * binned.count[kept]).sum() / binned.count.sum()
        assert mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-9 * np.abs(finite).max())
        assert (np.nanmin(binned.low), np.nanmax(binned.high)) == (finite.min(), finite.max())
    if len(y) <= max_points:
        assert np.array_equal(binned.y, y, equal_nan=True)
