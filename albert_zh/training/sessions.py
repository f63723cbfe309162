"""One graph that is trained epoch by epoch, and one that predicts.

Estimator builds a graph in every call: a training that is scored after each epoch would
need more memory with each. Here each graph is built once. A TPU's loop over steps is
Estimator's own, so there every call builds one.
"""

import contextlib
from typing import Any, Callable, NamedTuple

import tensorflow.compat.v1 as tf

from albert_zh.base.errors import Stopped
from albert_zh.training import estimator as estimators
from albert_zh.training import preemption, progress_hook


class Job(NamedTuple):
    """A training that is interrupted after every epoch, such as for scoring.

    Attributes:
      model_fn: function (features, labels, mode, params) -> TPUEstimatorSpec.
      input_fn: function (batch_size, seed, skip_batches) -> `tf.data.Dataset` of one
        epoch without its first `skip_batches`; `seed`, int or int64 scalar tensor,
        decides its order.
      input_file: TFRecord file that it reads.
      output_dir: directory of checkpoints and event files.
      batch_size: int, examples per step, over all TPU cores.
      num_train_steps: int, the global step at which the training ends.
      seed: int, of initial weights and dropout.
      saving: `estimator.Saving`.
    """

    model_fn: Callable[..., Any]
    input_fn: Callable[..., Any]
    input_file: str
    output_dir: str
    batch_size: int
    num_train_steps: int
    seed: int
    saving: estimators.Saving = estimators.DEFAULT_SAVING


@contextlib.contextmanager
def open_trainer(job, device):
    """Prepares a training: from the newest checkpoint of its directory, if it has one.

    Args:
      job: `Job`.
      device: `estimator.Device`.

    Yields:
      A trainer with two methods. `train(seed, skip_batches, max_steps)` trains to the
      global step `max_steps` on one epoch and saves a checkpoint; `check_stop(step)`
      raises `Stopped` where SIGTERM or Ctrl-C has arrived after that.

    Raises:
      UserError: as `estimator.one_line_errors`, or a checkpoint does not fit.
      Stopped: SIGTERM or Ctrl-C arrived; a checkpoint is saved.
    """
    if device.use_tpu:
        with preemption.StopHook() as hook:
            yield _TpuTrainer(job, device, hook)
        return
    with preemption.StopHook() as hook, estimators.one_line_errors([job.input_file]):
        stopped = None
        with contextlib.ExitStack() as stack:
            try:
                yield _GraphTrainer(job, device, hook, stack)
            except Stopped as error:  # all is saved; the session ends as usual
                stopped = error
        if stopped:
            raise stopped


class _TpuTrainer:
    """A trainer that builds an Estimator for every epoch."""

    def __init__(self, job, device, hook):
        self._job = job
        self._device = device
        self._hook = hook

    def train(self, seed, skip_batches, max_steps):
        job = self._job

        def input_fn(params):
            return job.input_fn(params["batch_size"], seed, skip_batches)

        estimator = estimators.build_estimator(
            job.model_fn, job.output_dir, self._device, job.batch_size, job.saving, seed
        )
        given = estimators.Input(input_fn, [job.input_file])
        estimators.run_steps(estimator, given, max_steps, job.num_train_steps)

    def check_stop(self, step):
        self._hook.check(self._job.num_train_steps, step)


class _GraphTrainer:
    """A trainer on one graph, in one session, which the first epoch begins."""

    def __init__(self, job, device, hook, stack):
        self._job = job
        self._device = device
        self._hook = hook
        self._stack = stack  # ends the session
        self._graph = tf.Graph()
        self._session = None

    def train(self, seed, skip_batches, max_steps):
        with self._graph.as_default():  # where savers look for what they save
            if self._session is None:
                self._begin()
            self._train(seed, skip_batches, max_steps)
        self.check_stop(self._step)

    def _train(self, seed, skip_batches, max_steps):
        epoch = {self._seed: seed, self._skip: skip_batches}
        self._run_alone(lambda session: session.run(self._iterator.initializer, epoch))
        while self._step < max_steps and not self._session.should_stop():
            self._session.run(self._train_op)
            self._step += 1
        for hook in self._ended:
            self._run_alone(hook.end)

    def check_stop(self, step):
        self._hook.check(self._job.num_train_steps, step)

    def _run_alone(self, function):
        """Calls a function of the session, without the session's hooks."""
        # The name of the argument is fixed.
        return self._session.run_step_fn(
            lambda step_context: function(step_context.session)
        )

    def _begin(self):
        job = self._job
        self._seed = tf.placeholder(tf.int64, [])
        self._skip = tf.placeholder(tf.int64, [])
        # Before the graph has a seed: the order of an epoch must not depend on the one
        # that this process began with.
        dataset = job.input_fn(job.batch_size, self._seed, self._skip)
        tf.set_random_seed(job.seed)
        global_step = tf.train.create_global_step()
        self._iterator = tf.data.make_initializable_iterator(dataset)
        features = self._iterator.get_next()
        params = {"batch_size": job.batch_size}
        spec = job.model_fn(features, None, tf.estimator.ModeKeys.TRAIN, params)
        spec = spec.as_estimator_spec()
        self._train_op = spec.train_op
        self._session = self._stack.enter_context(self._create_session(spec))
        self._step = self._run_alone(lambda session: int(session.run(global_step)))

    def _create_session(self, spec):
        """Returns the session, which restores the newest checkpoint or initializes."""
        job = self._job
        saver = tf.train.Saver(
            max_to_keep=job.saving.keep_checkpoint_max, save_relative_paths=True
        )
        scaffold = tf.train.Scaffold(saver=saver)
        save_steps = job.saving.save_checkpoints_steps
        saving = _SavingHook(job.output_dir, save_steps=save_steps, scaffold=scaffold)
        shown = [
            hook
            for hook in spec.training_hooks
            if isinstance(hook, progress_hook.ProgressHook)
        ]
        self._ended = shown + [saving]
        own = [self._hook, tf.train.NanTensorHook(spec.loss), saving]
        creator = tf.train.ChiefSessionCreator(
            scaffold,
            self._device.master or "",
            estimators.session_config(),
            checkpoint_dir=job.output_dir,
        )
        return tf.train.MonitoredSession(creator, own + list(spec.training_hooks))


class _SavingHook(tf.train.CheckpointSaverHook):
    """Saves every few steps, and in `end`, which may be called repeatedly."""

    def begin(self):
        super().begin()
        self._global_step = tf.train.get_global_step()

    def end(self, session):
        step = int(session.run(self._global_step))
        latest = self._get_saver().last_checkpoints[-1:]
        if not (latest and latest[0].endswith("-{}".format(step))):
            with session.graph.as_default():
                super().end(session)


class Predictor:
    """Predicts with one graph, whichever checkpoint and file are given."""

    def __init__(self, model_fn, input_fn, output_dir, device):
        """Builds nothing yet.

        Args:
          model_fn: as that of `Job`; all its predictions are [batch, ...].
          input_fn: function (path, batch_size) -> `tf.data.Dataset` that reads a file
            once, in its order; both may be scalar tensors.
          output_dir: directory that Estimator is given on TPU.
          device: `estimator.Device`.
        """
        self._model_fn = model_fn
        self._input_fn = input_fn
        self._output_dir = output_dir
        self._device = device
        self._session = None

    def predict(self, path, checkpoint, batch_size):
        """Yields the predictions of each batch of a file, dict name -> array.

        Args:
          path: TFRecord file.
          checkpoint: path prefix.
          batch_size: int, examples per step.

        Raises:
          UserError: as `estimator.one_line_errors`.
        """
        with estimators.one_line_errors([path]):
            if self._device.use_tpu:
                yield from self._predict_on_tpu(path, checkpoint, batch_size)
            else:
                yield from self._predict(path, checkpoint, batch_size)

    def _predict_on_tpu(self, path, checkpoint, batch_size):
        estimator = estimators.build_estimator(
            self._model_fn, self._output_dir, self._device, batch_size
        )

        def input_fn(params):
            return self._input_fn(path, params["batch_size"])

        yield from estimator.predict(
            input_fn, checkpoint_path=checkpoint, yield_single_examples=False
        )

    def _predict(self, path, checkpoint, batch_size):
        if self._session is None:
            self._build()
        with self._session.graph.as_default():
            self._saver.restore(self._session, checkpoint)
        self._session.run(
            self._iterator.initializer, {self._path: path, self._batch_size: batch_size}
        )
        with contextlib.suppress(tf.errors.OutOfRangeError):
            while True:
                yield self._session.run(self._predictions)

    def _build(self):
        with tf.Graph().as_default() as graph:
            self._path = tf.placeholder(tf.string, [])
            self._batch_size = tf.placeholder(tf.int64, [])
            dataset = self._input_fn(self._path, self._batch_size)
            self._iterator = tf.data.make_initializable_iterator(dataset)
            features = self._iterator.get_next()
            mode = tf.estimator.ModeKeys.PREDICT
            self._predictions = self._model_fn(features, None, mode, {}).predictions
            self._saver = tf.train.Saver()
            graph.finalize()
        self._session = tf.Session(
            self._device.master or "", graph, estimators.session_config()
        )
