"""Tests of `albert_zh.training.preemption`: SIGTERM and Ctrl-C in a session."""

import os
import signal

import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import Stopped
from albert_zh.training import preemption


def _train(hook, num_steps, step_of_signal=None, number=signal.SIGTERM):
    """Counts steps in a session up to `num_steps`; returns the last step."""
    with tf.Graph().as_default():
        step = tf.train.get_or_create_global_step()
        train_op = tf.assign_add(step, 1)
        hooks = [hook, tf.train.StopAtStepHook(last_step=num_steps)]
        with tf.train.SingularMonitoredSession(hooks) as session:
            while not session.should_stop():
                last = session.run(train_op)
                if last == step_of_signal:
                    os.kill(os.getpid(), number)
    return last


def test_a_session_ends_after_the_step_after_the_signal():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.StopHook() as hook:
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
        with preemption.StopHook():
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


def test_ctrl_c_ends_a_session_like_sigterm_and_insists_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with preemption.StopHook() as hook:
            assert _train(hook, 10, step_of_signal=3, number=signal.SIGINT) == 4
            # A launcher passes it on as SIGTERM: the same one.
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped, match="by Ctrl-C at step 4 of 20") as caught:
            hook.check(20)
        assert caught.value.exit_code == 130
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with preemption.StopHook() as hook:
            os.kill(os.getpid(), signal.SIGINT)
        assert not hook.is_requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_session_without_the_signal_goes_to_its_end():
    with preemption.StopHook() as hook:
        assert _train(hook, 10) == 10
    hook.check(10)


def test_the_former_handler_is_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), preemption.StopHook():
        assert signal.getsignal(signal.SIGTERM) != before
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before
