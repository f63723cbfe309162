"""Progress of training, shown by a hook of its session."""

import collections

import tensorflow.compat.v1 as tf

from albert_zh.base import progress

# The loss of one small batch says little: shown is the mean of so many steps.
_AVERAGED_STEPS = 50


class ProgressHook(tf.train.SessionRunHook):
    """Shows mean loss, speed and the time left while a session trains."""

    def __init__(self, total_steps, batch_size, loss=None):
        """Creates the hook.

        Args:
          total_steps: int, the global step at which the run ends.
          batch_size: int, sequences per step.
          loss: scalar tensor to show, None on TPU.
        """
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._loss = loss
        self._progress = None  # from the first step on, whose set-up takes long

    def begin(self):
        self._global_step = tf.train.get_global_step()
        self._progress = None

    def before_run(self, run_context):
        fetches = {"step": self._global_step}
        if self._loss is not None:
            fetches["loss"] = self._loss
        return tf.train.SessionRunArgs(fetches)

    def after_run(self, run_context, run_values):
        step = int(run_values.results["step"])
        if self._progress is None:
            self._progress = _StepProgress(self._total_steps, step, self._batch_size)
            return
        if self._loss is not None:
            self._progress.losses.append(float(run_values.results["loss"]))
        self._progress.update(step - self._progress.done)

    def end(self, session):
        """Ends the progress shown; the next step, if there is one, begins another."""
        if self._progress is None:
            return
        self._progress.close()
        if self._progress.rate:
            # The hook may have been shown the step before the last update.
            self._progress.done = int(session.run(self._global_step))
            self._progress.log()
        self._progress = None


class _StepProgress(progress.Progress):
    """Progress in training steps.

    Args:
      total_steps: int, the global step at which the run ends.
      step: int, the global step now.
      batch_size: int, sequences per step.

    Attributes:
      losses: deque of float, the latest ones; empty if they are not known.
    """

    def __init__(self, total_steps, step, batch_size):
        super().__init__(total_steps, step, unit="step")
        self._batch_size = batch_size
        self.losses = collections.deque(maxlen=_AVERAGED_STEPS)

    def measures(self):
        """Returns a dict name -> text of what is shown besides the steps."""
        measures = collections.OrderedDict()
        if self.losses:
            mean = sum(self.losses) / len(self.losses)
            measures["loss"] = "{:.4f}".format(mean)
        measures["sequences/s"] = "{:.1f}".format(self.rate * self._batch_size)
        return measures

    def line(self):
        """Returns the log line."""
        return "step {}/{}  {}  {:.2f} steps/s  {} left".format(
            self.done,
            self.total,
            "  ".join("{} {}".format(*item) for item in self.measures().items()),
            self.rate,
            self.time_left(),
        )
