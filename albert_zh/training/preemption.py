"""SIGTERM, which preempted machines receive, or Ctrl-C: training ends, saved."""

import logging
import os
import signal
import time

import numpy as np
import tensorflow.compat.v1 as tf

import optimization
from albert_zh.base.errors import Stopped

_LOGGER = logging.getLogger(__name__)

# Signal -> the name that people know, and the exit code: a machine that is taken away
# has done nothing wrong; a script that a person interrupts must not go on.
_SIGNALS = {signal.SIGTERM: ("SIGTERM", 0), signal.SIGINT: ("Ctrl-C", 130)}

# Seconds within which another signal is the same one: a scheduler may send it to a
# launcher and to the processes that the launcher passes it on to.
_REPEAT_SECONDS = 5.0


class StopHook(tf.train.SessionRunHook):
    """Ends a session after the step, on TPU the loop, in which a signal arrives.

    The signals are SIGTERM and, from Ctrl-C, SIGINT. Estimator then saves a checkpoint,
    as at the end of every training. Pass the hook to `Estimator.train` within
    `with StopHook() as hook`, in the main thread: the block handles the signals. A
    second Ctrl-C, or another SIGTERM some seconds later, ends the process as usual, as
    soon as Python can handle it: between two steps. Workers that train together all end
    after the step in which one of them receives the signal, as none can take a step
    without the others.
    """

    def __init__(self):
        self._requested_at = None  # seconds, when this process had the signal
        self._signal = signal.SIGTERM  # the first one
        self._stops = False  # of the session, so of all workers
        self._previous_handlers = {}
        self._step = None

    def __enter__(self):
        for number in _SIGNALS:
            # A shell's background jobs ignore Ctrl-C, which is not meant for them.
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous = signal.signal(number, self._request)
                self._previous_handlers[number] = previous
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _request(self, signal_number, frame):
        now = time.monotonic()
        if self._requested_at is None:
            self._requested_at, self._signal = now, signal_number
            if signal_number == signal.SIGINT:
                _LOGGER.info(
                    "stopping after this step, with a checkpoint; Ctrl-C again stops "
                    "at once, without"
                )
            return
        is_insisted = signal_number == self._signal == signal.SIGINT
        if is_insisted or now - self._requested_at > _REPEAT_SECONDS:
            previous = self._previous_handlers[signal_number]
            signal.signal(signal_number, previous)
            if callable(previous):  # Ctrl-C: raises KeyboardInterrupt
                previous(signal_number, frame)
            else:
                os.kill(os.getpid(), signal_number)

    @property
    def is_requested(self):
        """Whether this process has the signal."""
        return self._requested_at is not None

    def begin(self):
        self._global_step = tf.train.get_global_step()
        self._share = None
        if tf.distribute.has_strategy():
            strategy = tf.distribute.get_strategy()
            shares = strategy.extended.call_for_each_replica(self._share_requested)
            self._share = strategy.experimental_local_results(shares)[0]

    def _share_requested(self):
        """In a replica: the share of all replicas whose process has the signal."""
        flag = tf.py_func(lambda: np.float32(self.is_requested), [], tf.float32)
        flag.set_shape([])
        return optimization.mean_over_replicas([flag])[0]

    def before_run(self, run_context):
        if self._share is None:
            return None
        return tf.train.SessionRunArgs(self._share)

    def after_run(self, run_context, run_values):
        if self._share is None:
            self._stops = self.is_requested
        else:
            self._stops = bool(run_values.results > 0)
        if self._stops:
            run_context.request_stop()

    def end(self, session):
        self._step = int(session.run(self._global_step))

    def check(self, num_train_steps, step=None):
        """Raises `Stopped` where the signal has arrived; call it after training.

        Args:
          num_train_steps: int, of the whole training.
          step: int, the step that is saved; by default the session's last.
        """
        if self._stops or self.is_requested:
            name, exit_code = _SIGNALS[self._signal]
            raise Stopped(
                "stopped by {} at step {} of {}, which is saved; what comes after "
                "training was left out; rerun the same command to resume".format(
                    name, self._step if step is None else step, num_train_steps
                ),
                exit_code,
            )
