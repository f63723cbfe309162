"""The progress of training: log lines without a terminal, a bar on one."""

import io
import sys
import types

import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base import progress
from albert_zh.training import progress_hook


@pytest.fixture
def clock(monkeypatch):
    """An object whose `now`, in seconds, is the time."""
    clock = types.SimpleNamespace(now=1000.0)
    fake = types.SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(progress, "time", fake)
    return clock


def train(clock, has_loss=True, seconds=20):
    """Goes through 4 steps of a run that began at step 6 of 20."""
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.create_global_step()
        session.run(step.assign(10))
        hook = progress_hook.ProgressHook(
            20, 8, loss=tf.constant(0.5) if has_loss else None
        )
        hook.begin()
        for number in range(7, 11):
            fetched = session.run(hook.before_run(None).fetches)
            assert fetched.keys() == ({"step", "loss"} if has_loss else {"step"})
            clock.now += seconds
            results = dict(fetched, step=number)
            if has_loss:
                results["loss"] = float(number)
            values = types.SimpleNamespace(results=results)
            hook.after_run(None, values)
        clock.now += 100  # to save the last checkpoint
        hook.end(session)


def test_lines_are_logged_now_and_then_and_at_the_end(clock, caplog):
    caplog.set_level("INFO")
    train(clock)
    # The first step, which builds the graph, does not count. The loss is the mean.
    assert caplog.messages == [
        "step 9/20  loss 8.5000  sequences/s 0.4  0.05 steps/s  0:03:40 left",
        "step 10/20  loss 9.0000  sequences/s 0.4  0.05 steps/s  0:03:20 left",
    ]


def test_without_a_loss_the_speed_is_shown(clock, caplog):
    caplog.set_level("INFO")
    train(clock, has_loss=False)
    assert caplog.messages[-1].startswith("step 10/20  sequences/s 0.4  0.05 steps/s")


def test_a_terminal_shows_a_bar(clock, caplog, monkeypatch):
    caplog.set_level("INFO")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    train(clock)
    assert "10/20" in terminal.getvalue()
    assert "loss=9.0000, sequences/s=0.4" in terminal.getvalue()
    assert len(caplog.messages) == 1
