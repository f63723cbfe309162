"""Curves of training runs: what is read of event files, and the picture."""

import os
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import plot_training
from albert_zh.base import pictures
from albert_zh.base.errors import UserError
from albert_zh.data import record_format
from albert_zh.training import curves


def event(step, time, as_tensor=True, **scalars):
    """An event as TensorFlow 2's writer or, without tensors, 1's leaves it."""
    values = []
    for tag, number in scalars.items():
        if as_tensor:
            tensor = tf.make_tensor_proto(number, tf.float32)
            values.append(tf.Summary.Value(tag=tag, tensor=tensor))
        else:
            values.append(tf.Summary.Value(tag=tag, simple_value=number))
    return tf.Event(step=step, wall_time=time, summary=tf.Summary(value=values))


def write(directory, name, events):
    """Writes an event file; returns its path."""
    directory.mkdir(exist_ok=True)
    path = directory / ("events.out.tfevents." + name)
    header = tf.Event(wall_time=0.0, file_version="brain.Event:2")
    records = [e.SerializeToString() for e in [header] + list(events)]
    record_format.write_records(records, str(path))
    return path


def test_records_that_are_no_events_and_no_numbers(run_dir, caplog):
    expected = points(read(run_dir)["loss"])
    foreign = tf.make_tensor_proto([1.0, 2.0], tf.float32)
    value = tf.Summary.Value(tag="loss", tensor=foreign)
    events = [tf.Event(step=600, wall_time=2000.0, summary=tf.Summary(value=[value]))]
    write(run_dir, "2", events)
    assert points(read(run_dir)["loss"]) == expected
    path = run_dir / "events.out.tfevents.3"
    record_format.write_records([b"\xff\xff no event"], str(path))
    assert points(read(run_dir)["loss"]) == expected


def read(directory):
    return curves.read_run(str(directory), "run").curves


def points(curve):
    return list(zip(curve.steps.tolist(), curve.values.tolist()))


@pytest.fixture
def run_dir(tmp_path):
    """A run of 11 points, 50 steps and 10 seconds apart, at a batch of 32."""
    events = [
        event(
            50 * i,
            1000.0 + 10 * i,
            loss=10.0 - 0.5 * i,
            masked_lm_accuracy=0.0625 * i,
            learning_rate=0.25 * i,
            train_batch_size=32.0,
            other=1.0,
        )
        for i in range(11)
    ]
    write(tmp_path / "run", "1.v2", events)
    return tmp_path / "run"


def test_curves_equal_what_was_written(run_dir):
    curves = read(run_dir)
    assert points(curves["loss"]) == [(50 * i, 10.0 - 0.5 * i) for i in range(11)]
    assert points(curves["learning_rate"]) == [(50 * i, 0.25 * i) for i in range(11)]
    assert points(curves["masked_lm_accuracy"])[3] == (150, 0.1875)
    assert set(curves) == {
        "loss",
        "masked_lm_accuracy",
        "learning_rate",
        "steps_per_second",
        "sequences_per_second",
    }


def test_throughput_comes_from_the_times(run_dir):
    curves = read(run_dir)
    steps = list(range(50, 501, 50))
    assert points(curves["steps_per_second"]) == [(step, 5.0) for step in steps]
    assert points(curves["sequences_per_second"]) == [(step, 160.0) for step in steps]


def test_first_tensorflow_events_are_read_alike(tmp_path):
    events = [event(i, 10.0 * i, as_tensor=False, loss=0.5 * i) for i in (1, 2)]
    write(tmp_path, "1", events)
    curves = read(tmp_path)
    assert points(curves["loss"]) == [(1, 0.5), (2, 1.0)]
    assert points(curves["steps_per_second"]) == [(2, 0.1)]
    assert "sequences_per_second" not in curves


def test_a_later_start_replaces_the_steps_that_were_lost(tmp_path):
    sizes = {"train_batch_size": 8.0}
    # The names sort against the times.
    first = [event(s, 100.0 + s, loss=1.0, **sizes) for s in (0, 50, 100, 150, 200)]
    second = [event(s, 9000.0 + s / 2, loss=2.0, **sizes) for s in (100, 150)]
    third = [event(s, 9900.0 + s, loss=3.0, train_batch_size=4.0) for s in (200, 250)]
    write(tmp_path, "9.v2", first)
    write(tmp_path, "5.v2", second)
    write(tmp_path, "7.v2", third)
    curves = read(tmp_path)
    assert points(curves["loss"]) == [
        (0, 1.0),
        (50, 1.0),
        (100, 2.0),
        (150, 2.0),
        (200, 3.0),
        (250, 3.0),
    ]
    # No speed across the pause between two starts
    assert points(curves["steps_per_second"]) == [(50, 1.0), (150, 2.0), (250, 1.0)]
    assert points(curves["sequences_per_second"]) == [
        (50, 8.0),
        (150, 16.0),
        (250, 4.0),
    ]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_file_that_breaks_off_is_read_up_to_there(run_dir, caplog, cut):
    (path,) = run_dir.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(points(read(run_dir)["loss"])) == 10
    assert str(path) in caplog.text


def test_an_empty_file_of_a_killed_start_is_no_hindrance(run_dir):
    (run_dir / "events.out.tfevents.2.v2").write_bytes(b"")
    assert len(points(read(run_dir)["loss"])) == 11


def test_a_pipe_among_event_files_is_refused(run_dir):
    os.mkfifo(str(run_dir / "events.out.tfevents.9.pipe"))
    with pytest.raises(UserError, match="9.pipe: it is no ordinary file"):
        curves.read_run(str(run_dir), "run")


@pytest.mark.parametrize("make", [lambda d: None, lambda d: write(d, "1.v2", [])])
def test_a_directory_without_curves_is_refused(tmp_path, make):
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "missing")
    make(tmp_path)
    with pytest.raises(UserError, match="no event files|no curves yet"):
        read(tmp_path)


def test_smoothing_keeps_lines_and_lessens_noise():
    line = 3.0 - 0.5 * np.arange(40)
    np.testing.assert_allclose(curves.smooth(line), line)
    for count in range(5):
        assert curves.smooth(line[:count]) == pytest.approx(line[:count])
    peak = np.eye(1, 11, 5)[0]
    expected = [0, 0, 0, 0.2, 0.2, 0.2, 0.2, 0.2, 0, 0, 0]
    np.testing.assert_allclose(curves.smooth(peak), expected, atol=1e-12)
    noise = np.random.RandomState(0).randn(1000)
    assert np.std(curves.smooth(noise)) < 0.2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_smoothing_keeps_a_bad_value_to_its_neighbours(bad):
    line = 3.0 - 0.5 * np.arange(40)
    values = line.copy()
    values[20] = bad
    expected = line.copy()
    expected[18:23] = bad
    np.testing.assert_allclose(curves.smooth(values), expected)
    values[21] = -np.inf
    assert np.isfinite(curves.smooth(values)).sum() == 34


@pytest.mark.filterwarnings("error")
def test_picture_of_a_run_that_diverged(tmp_path):
    pytest.importorskip("matplotlib")
    losses = [3.0, 2.0, np.inf, 5.0, -np.inf, np.nan, 1.0, 1.0]
    events = [event(i, 10.0 * i, loss=loss) for i, loss in enumerate(losses)]
    write(tmp_path / "run", "1.v2", events)
    command(run_dir=tmp_path / "run", output_file=tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def command(**flags):
    argv = ["--{}={}".format(name, value) for name, value in flags.items()]
    plot_training.main(plot_training.build_parser().parse_args(argv))


def test_picture_has_the_panels_that_there_are_curves_for(run_dir, tmp_path, capsys):
    image = pytest.importorskip("matplotlib.image")
    tuned = tmp_path / "tuned"
    write(tuned, "1.v2", [event(i, 10.0 * i, loss=1.0) for i in range(3)])
    sizes = {}
    for name, directories in (
        ("pretrained.png", run_dir),
        ("tuned.png", tuned),
        ("new/both.png", "{},{}".format(run_dir, tuned)),
    ):
        path = tmp_path / name
        command(run_dir=directories, output_file=path)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert capsys.readouterr().out == "Picture saved to {}\n".format(path)
        sizes[name] = image.imread(str(path)).shape[:2]
    # Rows of three panels: 4 (with the throughput), 2 (loss, throughput), 4
    assert sizes["pretrained.png"] == sizes["new/both.png"]
    assert sizes["pretrained.png"] == pytest.approx((696, 1188), abs=1)
    assert sizes["tuned.png"] == pytest.approx((384, 792), abs=1)
    assert not list(tmp_path.glob("**/.*"))


@pytest.fixture
def drawn(monkeypatch):
    """List that gets the figure of each picture in place of a file."""
    pytest.importorskip("matplotlib")
    figures = []
    monkeypatch.setattr(
        curves.pictures, "save", lambda figure, path: figures.append(figure)
    )
    return figures


def test_labels_name_the_runs(run_dir, tmp_path, drawn):
    other = tmp_path / "deeper" / "run"
    other.parent.mkdir()
    write(other, "1.v2", [event(i, 10.0 * i, loss=1.0) for i in range(3)])
    both = "{},{}".format(run_dir, other)
    picture = tmp_path / "a.png"
    command(run_dir="{}/".format(run_dir), output_file=picture)
    command(run_dir=both, output_file=picture)
    command(run_dir=both, output_file=picture, label="LAMB, AdamW")
    labels = [[t.get_text() for t in f.legends[0].get_texts()] for f in drawn]
    assert labels == [["run"], [str(run_dir), str(other)], ["LAMB", "AdamW"]]
    titles = [[axes.get_title() for axes in figure.axes] for figure in drawn]
    assert titles[0] == ["loss", "MLM accuracy", "learning rate"] + [
        "sequences per second"
    ]
    # The second run's batch size is not known.
    assert titles[1] == ["loss", "MLM accuracy", "learning rate", "steps per second"]
    rate = drawn[0].axes[2].lines[0]
    assert rate.get_ydata().tolist() == [0.25 * i for i in range(11)]


def test_chinese_labels_without_a_font_give_one_line_of_advice(
    run_dir, tmp_path, monkeypatch, caplog, recwarn
):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setattr(pictures, "_CHINESE_FONTS", ("no such font",))
    with matplotlib.rc_context():
        command(run_dir=run_dir, output_file=tmp_path / "a.png", label="基线模型")
        (record,) = caplog.records
        assert "型基模线" in record.getMessage() and "install" in record.getMessage()
        caplog.clear()
        command(run_dir=run_dir, output_file=tmp_path / "a.png", label="baseline")
    assert not caplog.records
    assert not [warning for warning in recwarn if "lyph" in str(warning.message)]


def test_the_first_chinese_font_that_is_installed_is_used(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    fonts = ("no such font", "STIXGeneral", "cmr10")  # matplotlib brings these two
    monkeypatch.setattr(pictures, "_CHINESE_FONTS", fonts)
    with matplotlib.rc_context():
        text = pictures.new_figure(1, 1).text(0, 0, "a")
        assert text.get_fontfamily() == ["STIXGeneral", "DejaVu Sans"]


@pytest.mark.parametrize(
    "flags,expected",
    [
        ({"run_dir": ","}, "--run_dir ',' names no directory"),
        ({"run_dir": "missing"}, "--run_dir missing: no such folder"),
        ({"label": "a,b"}, "--label 'a,b' has 2 names for the 1 directories"),
        ({"output_file": "a.svg"}, "--output_file 'a.svg': expected a name in .png"),
        ({"output_file": "a.png,b.png"}, "expected one name"),
        ({"output_file": "{run}/events.out.tfevents.1.v2/a.png"}, "cannot write"),
    ],
)
def test_wrong_flags_are_refused(run_dir, tmp_path, monkeypatch, flags, expected):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    given = dict({"run_dir": run_dir, "output_file": "a.png"}, **flags)
    given = {name: str(text).format(run=run_dir) for name, text in given.items()}
    with pytest.raises(UserError, match=expected):
        command(**given)
    assert list(tmp_path.glob("*.png*")) == []


def test_without_matplotlib_the_installation_is_named(run_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    expected = "plot_training.py needs matplotlib: run `pip install matplotlib`"
    with pytest.raises(UserError, match=expected):
        command(run_dir=run_dir, output_file=tmp_path / "a.png")
    assert list(tmp_path.glob("*.png")) == []
