"""Curves of training runs: read from their event files, drawn into one picture."""

import logging
import os
from typing import Dict, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from albert_zh.base import files, pictures
from albert_zh.base.errors import UserError
from albert_zh.data import record_format

_LOGGER = logging.getLogger(__name__)

_EVENT_FILE_PREFIX = "events.out.tfevents."
# The tags that every training writes, see `estimator.training_spec`.
_CLOCK_TAG = "loss"
_BATCH_SIZE_TAG = "train_batch_size"
# Derived here from the times of the points.
STEPS_PER_SECOND = "steps_per_second"
SEQUENCES_PER_SECOND = "sequences_per_second"

# A moving average over a twentieth of the points, but over five where there are few.
_SMOOTHED_SHARE = 20
_SMOOTHED_POINTS = 5
_MARKED_POINTS = 30


class _Panel(NamedTuple):
    """One diagram of the picture."""

    tag: str
    title: str
    smoothed: bool = True
    from_zero: bool = False


_PANELS = (
    _Panel("loss", "loss"),
    _Panel("masked_lm_accuracy", "MLM accuracy"),
    _Panel("sentence_order_accuracy", "SOP accuracy"),
    _Panel("learning_rate", "learning rate", smoothed=False, from_zero=True),
    _Panel("gradient_norm", "gradient norm, before clipping"),
    _Panel(SEQUENCES_PER_SECOND, "sequences per second", from_zero=True),
    _Panel(STEPS_PER_SECOND, "steps per second", from_zero=True),
)


class Curve(NamedTuple):
    """The points of one curve: int64 steps [N], ascending, and float64 values [N]."""

    steps: np.ndarray
    values: np.ndarray


_NO_POINTS = Curve(np.zeros([0], np.int64), np.zeros([0]))


class Run(NamedTuple):
    """The curves of a run by their tags, under a name for the legend."""

    label: str
    curves: Dict[str, Curve]


def read_run(directory, label):
    """Reads the curves of a run, whatever the number of its starts.

    A run that was resumed has an event file for each start. Where their steps
    overlap the later one counts: the steps after the checkpoint were lost.
    `STEPS_PER_SECOND` and, where the run's batch size was recorded,
    `SEQUENCES_PER_SECOND` come from the times between points of one start.

    Args:
      directory: the run's --output_dir, local or remote.
      label: its name.

    Returns:
      `Run`.

    Raises:
      UserError: no such directory, no event files or no points in them.
    """
    starts = [_read_event_file(path) for path in _find_event_files(directory)]
    starts = sorted(filter(None, starts), key=_first_time)
    if not starts:
        raise UserError(
            "--run_dir {}: its event files hold no curves yet; training writes the "
            "first points after some steps".format(directory)
        )
    joined = {tag: _join([points.get(tag, []) for points in starts]) for tag in _tags()}
    curves = {tag: _curve(points) for tag, points in joined.items() if points}
    curves.update(_throughput(joined[_CLOCK_TAG], curves.pop(_BATCH_SIZE_TAG, None)))
    return Run(label, curves)


def draw(runs, path):
    """Draws one picture, a panel for each quantity that some run has.

    Args:
      runs: list of `Run`.
      path: PNG file to write.

    Raises:
      UserError: matplotlib is missing or the file cannot be written.
    """
    pictures.require_matplotlib("plot_training.py")
    panels = [panel for panel in _PANELS if _is_shown(panel, runs)]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = pictures.new_figure(3.3 * columns, 2.6 * rows + 0.6)
    for number, panel in enumerate(panels, 1):
        _draw_panel(figure.add_subplot(rows, columns, number), panel, runs)
    # Where the legend and the note are, in shares of the height.
    margin = 0.32 / figure.get_figheight()
    figure.tight_layout(rect=(0, margin, 1, 1 - margin))
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="upper center", ncol=min(4, len(runs)), frameon=False)
    figure.text(
        0.5,
        0.02,
        "faint: as recorded; strong: moving average over the neighbouring points",
        ha="center",
        fontsize=8,
        color="0.4",
    )
    pictures.save(figure, path)


def smooth(values):
    """Moving average over an odd number of neighbours, fewer towards the ends.

    It is not finite just where one of them is not.

    Args:
      values: float64 [N].

    Returns:
      float64 [N].
    """
    count = len(values)
    window = max(count // _SMOOTHED_SHARE, _SMOOTHED_POINTS)
    index = np.arange(count)
    # As many on either side, so that a slope is not bent at the ends.
    reach = np.minimum(window // 2, np.minimum(index, index[::-1]))
    with np.errstate(invalid="ignore"):  # both infinities in one window
        means = [np.mean(values[i - r : i + r + 1]) for i, r in zip(index, reach)]
    return np.array(means, np.float64)


class _Point(NamedTuple):
    step: int
    value: float
    time: float  # seconds, of the wall clock
    path: str  # the event file, one for each start of a run


def _tags():
    return {panel.tag for panel in _PANELS} | {_BATCH_SIZE_TAG}


def _find_event_files(directory):
    if not files.is_directory(directory):
        raise UserError(
            "--run_dir {}: no such folder; expected the --output_dir of a "
            "training".format(directory)
        )
    names = files.list_directory(directory)
    names = [name for name in names if name.startswith(_EVENT_FILE_PREFIX)]
    if not names:
        raise UserError(
            "--run_dir {}: holds no event files ({}*); expected the --output_dir of a "
            "training".format(directory, _EVENT_FILE_PREFIX)
        )
    return [os.path.join(directory, name) for name in names]


def _read_event_file(path):
    """Returns a dict of tag -> points, up to where a killed run left the file."""
    found = {}
    wanted = _tags()
    files.require_regular(path)
    try:
        for record in record_format.read_records(path):
            event = tf.Event.FromString(record)
            for value in event.summary.value:
                number = _scalar(value) if value.tag in wanted else None
                if number is not None:
                    point = _Point(event.step, number, event.wall_time, path)
                    found.setdefault(value.tag, []).append(point)
    except (ValueError, DecodeError) as error:
        # A file of a graph and no curves may break off unheard.
        if found:
            _LOGGER.warning("%s: read up to where it breaks off (%s)", path, error)
    return found


def _scalar(value):
    """The number in a `Summary.Value`, of either of TensorFlow's two writers.

    None where it holds something else.
    """
    if not value.HasField("tensor"):
        return value.simple_value
    try:
        return float(tf.make_ndarray(value.tensor))
    except TypeError:
        return None


def _first_time(found):
    return min(points[0].time for points in found.values())


def _join(starts):
    """Joins one tag's points of several starts, lists in the order of time."""
    joined = []
    for points in filter(None, starts):
        joined = [point for point in joined if point.step < points[0].step] + points
    return joined


def _curve(points):
    return Curve(
        np.array([point.step for point in points], np.int64),
        np.array([point.value for point in points], np.float64),
    )


def _throughput(points, batch_size):
    """Curves of the speed between neighbouring points of one start.

    Args:
      points: list of `_Point`, of any tag.
      batch_size: `Curve`, or None where it is not known.

    Returns:
      Dict of tag -> `Curve`.
    """
    speeds = [
        last._replace(value=(last.step - first.step) / (last.time - first.time))
        for first, last in zip(points, points[1:])
        if first.path == last.path and first.time < last.time
    ]
    if not speeds:
        return {}
    curve = _curve(speeds)
    curves = {STEPS_PER_SECOND: curve}
    if batch_size is not None:
        # A resumed run may have another batch size.
        places = np.searchsorted(batch_size.steps, curve.steps, side="right") - 1
        sizes = batch_size.values[np.maximum(places, 0)]
        curves[SEQUENCES_PER_SECOND] = curve._replace(values=sizes * curve.values)
    return curves


def _is_shown(panel, runs):
    """Steps a second are shown only where some run's batch size is not known."""
    shown = [panel.tag in run.curves for run in runs]
    if panel.tag == SEQUENCES_PER_SECOND:
        return all(shown)
    if panel.tag == STEPS_PER_SECOND:
        return any(shown) and not all(SEQUENCES_PER_SECOND in r.curves for r in runs)
    return any(shown)


def _draw_panel(axes, panel, runs):
    for number, run in enumerate(runs):
        # Also without points, for the legend
        steps, values = run.curves.get(panel.tag, _NO_POINTS)
        style = {
            "color": "C{}".format(number % 10),
            # A line through one point is not to be seen.
            "marker": "." if len(steps) < _MARKED_POINTS else None,
        }
        if panel.smoothed:
            axes.plot(steps, values, alpha=0.25, linewidth=1, **style)
            values, style["marker"] = smooth(values), None
        axes.plot(steps, values, label=run.label, linewidth=1.5, **style)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if panel.from_zero:
        axes.set_ylim(bottom=0)
