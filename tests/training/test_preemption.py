"""Tests of `albert_zh.training.preemption`: SIGTERM in a session."""

import os
import signal

import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import Stopped
from albert_zh.training import preemption


def _train(hook, num_steps, step_of_signal=None):
    """Counts steps in a session up to `num_steps`; returns the last step."""
    with tf.Graph().as_default():
        step = tf.train.get_or_create_global_step()
        train_op = tf.assign_add(step, 1)
        hooks = [hook, tf.train.StopAtStepHook(last_step=num_steps)]
        with tf.train.SingularMonitoredSession(hooks) as session:
            while not session.should_stop():
                last = session.run(train_op)
                if last == step_of_signal:
                    os.kill(os.getpid(), signal.SIGTERM)
    return last


def test_a_session_ends_after_the_step_after_the_signal():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.SigtermHook() as hook:
        # It came when step 3 had ended.
        assert _train(hook, 10, step_of_signal=3) == 4
        # Sent through a launcher, too: the same one.
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(Stopped, match="by SIGTERM at step 4 of 20, .* to resume"):
        hook.check(20)


def test_another_signal_later_ends_the_process(monkeypatch):
    monkeypatch.setattr(preemption, "_REPEAT_SECONDS", -1.0)
    taken = []
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with preemption.SigtermHook():
            monkeypatch.setattr(
                preemption.os, "kill", lambda *given: taken.append(given)
            )
            handler = signal.getsignal(signal.SIGTERM)
            handler(signal.SIGTERM, None)
            assert not taken
            handler(signal.SIGTERM, None)
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert taken == [(os.getpid(), signal.SIGTERM)]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_session_without_the_signal_goes_to_its_end():
    with preemption.SigtermHook() as hook:
        assert _train(hook, 10) == 10
    hook.check(10)


def test_the_former_handler_is_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), preemption.SigtermHook():
        assert signal.getsignal(signal.SIGTERM) != before
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before
