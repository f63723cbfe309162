"""The one loop that fine-tunes, scores and applies models of every kind of task.

After every epoch dev is scored, and `best_model.BestModel` keeps the best model. What
kinds of task do differently is in `kind.Kind`.
"""

import collections
import contextlib
import itertools
import logging
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from albert_zh.base import files, locks, progress
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import checkpoints, model_graph, output_directory
from albert_zh.models import directory as model_directory
from albert_zh.tasks import (
    best_model,
    epochs,
    features,
    kinds,
    learning_rates,
    model_files,
    training_settings,
)
from albert_zh.tasks import objective as objectives
from albert_zh.training import estimator as estimators
from albert_zh.training import results, sessions

_LOGGER = logging.getLogger(__name__)

# Held by the process that writes predictions into an --output_dir.
_PREDICTIONS_LOCK = ".predictions.lock"

# Bounds the memory of predictions, at some KB an example. Batches are of examples of
# like length among so many.
_EXAMPLES_AT_A_TIME = 10000

# Batches of a training are padded to a multiple of this, as kernels are made for each
# length: by oneDNN, and at greater cost by XLA, with which those to predict are, too.
_LENGTH_MULTIPLE = 8

# A restart needs the newest checkpoint only; one more survives a damaged one.
_CHECKPOINTS_KEPT = 2


def check_inputs(output_dir, prediction_files, inputs):
    """Makes sure that a run in `output_dir` overwrites none of its data files.

    Args:
      output_dir: directory of the results.
      prediction_files: set of the names of files of predictions.
      inputs: list of paths.

    Raises:
      UserError: names the file.
    """
    names = prediction_files.union(results.FILES, [best_model.EPOCH_SCORES_FILE])
    written = [os.path.join(output_dir, name) for name in sorted(names)]
    files.require_separate(output_dir, written, inputs)


class Training(NamedTuple):
    """How to fine-tune.

    Attributes:
      batch_size: examples per step, over all devices.
      learning_rate: peak of the schedule.
      num_epochs: passes over the training set, may be fractional.
      warmup_proportion: share of the steps with linear warm-up.
      optimizer: one of `optimization.OPTIMIZERS`.
      init_checkpoint: pretrained checkpoint to start from, None for random weights.
      save_checkpoints_steps: steps between two checkpoints within an epoch.
      allow_missing: whether `init_checkpoint` may lack the pooler.
      seed: of initial weights, dropout and the order of training examples.
      objective: `objective.Objective`.
      early_stopping: number of epochs without a new best one after which the training
        ends; None trains to the end.
      head_learning_rate: peak of the schedule of the head's variables; None for
        `learning_rate`.
      layerwise_decay, freeze: as `learning_rates.multipliers` takes them.
      recipe: dict of the published settings that were taken, as
        `training_settings.read_recipe` returns it, or None.
      teacher: `distillation.Teacher`, or None.
    """

    batch_size: int
    learning_rate: float
    num_epochs: float
    warmup_proportion: float
    optimizer: str = "adamw"
    init_checkpoint: Optional[str] = None
    save_checkpoints_steps: int = 1000
    allow_missing: bool = False
    seed: int = 12345
    objective: objectives.Objective = objectives.PLAIN
    early_stopping: Optional[int] = None
    head_learning_rate: Optional[float] = None
    layerwise_decay: float = 1.0
    freeze: str = "none"
    recipe: Optional[Dict[str, Any]] = None
    teacher: Optional[Any] = None


class _Source(NamedTuple):
    """Features of some examples, and the temporary file of their records.

    Attributes:
      path: of the file.
      examples: list of them.
      windows: list of lists, the features of each example.
      order: int64 [N], which of all the windows, one after another, each record holds.
      fields: tuple of `features.Field`, the targets that the records hold.
    """

    path: str
    examples: List[Any]
    windows: List[List[features.Features]]
    order: np.ndarray
    fields: Tuple[features.Field, ...]

    def count_notes(self, max_seq_length):
        """Returns the `Counter` of what is to be told of the examples."""
        truncated = "truncated to {} tokens".format(max_seq_length)
        counts = collections.Counter()
        for windows in self.windows:
            notes = {note for window in windows for note in window.notes}
            if any(window.is_truncated for window in windows):
                notes.add(truncated)
            counts.update(notes)
        return counts


class FineTuner:
    """A model with the directory it is trained in and predicts from.

    Attributes:
      kind: the `kind.Kind` of its task.
      files: `model_files.TaskFiles`.
      best_dir: directory of the model that evaluation and prediction use.
    """

    def __init__(
        self,
        task_files,
        output_dir,
        runtime=estimators.DEFAULT_RUNTIME,
        eval_batch_size=64,
        predict_batch_size=64,
        model_dir=None,
        kind=None,
    ):
        """Builds the tokenizer; writes nothing.

        Args:
          task_files: `model_files.TaskFiles`.
          output_dir: holds the training state, the results and `best/`, a model
            directory with the best checkpoint. To predict, a model directory can be
            given itself; None where no results are written.
          runtime: `estimators.Runtime`; its distribution is not used.
          eval_batch_size: windows per step when scoring.
          predict_batch_size: windows per step when predicting.
          model_dir: directory of the fine-tuned model to evaluate or predict with;
            None stands for `output_dir`, where `train` keeps its own.
          kind: `kind.Kind` of `task_files`; None for that of its task.

        Raises:
          UserError: the vocabulary cannot be used, or not with this config.
        """
        self.files = task_files
        self.kind = kind or kinds.kind_of(task_files.task)(task_files)
        self.best_dir = model_files.best_directory(model_dir or output_dir)
        self._best = best_model.BestModel(
            output_dir, self.best_dir, self.kind, task_files
        )
        self._output_dir = output_dir
        self._runtime = runtime
        self._eval_batch_size = eval_batch_size
        self._predict_batch_size = predict_batch_size
        self._padded_length = None
        if runtime.device.use_tpu:  # which needs static shapes
            self._padded_length = self.files.max_seq_length
        self._rounding = _LENGTH_MULTIPLE, self.files.max_seq_length
        self._predictor = sessions.Predictor(
            self._model_fn(),
            features.prediction_input_fn(
                self.kind.target_fields,
                self._padded_length,
                self._rounding if runtime.numerics.use_xla else None,
            ),
            output_dir,
            runtime.device,
        )
        self._best_scores = None  # (dev data, its scores) of the best epoch so far
        model_directory.check_vocabulary(
            self.kind.tokenizer.vocab_size,
            self.files.spm_model_file or self.files.vocab_file,
            self.files.config,
            exact=True,
        )

    def train(self, train_data, dev_data, training):
        """Trains, scoring dev after every epoch; then `best/` holds the best model.

        Best is the highest metric of the task; the lower loss breaks ties. A killed run
        resumes after its last checkpoint, with the examples left in that epoch.

        Args:
          train_data: labelled `reading.ExampleFile`.
          dev_data: the same; None keeps the last checkpoint as the best.
          training: a `Training`.

        Raises:
          UserError: the directory holds another model or training, another process
            trains there, the pretrained checkpoint does not fit, or the loss is NaN.
        """
        with output_directory.hold(self._output_dir):
            self._train(train_data, dev_data, training)

    def _train(self, train_data, dev_data, training):
        """`train`, while the directory is locked."""
        windows = self._build_features(train_data.examples)
        plan = epochs.EpochPlan(
            sum(map(len, windows)),
            training.batch_size,
            training.num_epochs,
            full_batches_only=self._runtime.device.use_tpu,
        )
        step = self._prepare_output_dir(training, train_data, dev_data)
        self._best.read_history(step)
        if dev_data:
            self._recover_best(dev_data)
        is_complete = self._is_complete(plan, step, bool(dev_data))
        is_complete = is_complete or self._best.has_stalled(
            step, training.early_stopping
        )
        self._report_step(plan, step, training, is_complete)
        if is_complete:
            return
        teacher_fields = ()
        if training.teacher:
            windows = training.teacher.add_logits(windows, train_data)
            teacher_fields = self.kind.teacher_fields
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(
                self._feature_file("train", train_data, None, windows, teacher_fields)
            )
            dev_source = None
            if dev_data:
                dev_source = stack.enter_context(
                    self._feature_file("dev", dev_data, self._eval_batch_size)
                )
            job = self._training_job(source, training, plan, step)
            trainer = stack.enter_context(
                sessions.open_trainer(job, self._runtime.device)
            )
            self._train_epochs(plan, step, training, trainer, dev_source)
        if not dev_data:
            _LOGGER.warning("no dev file: the last checkpoint is kept as the best")
            latest = checkpoints.latest_checkpoint(self._output_dir)
            checkpoints.name_only(self._best.add(latest))

    def _recover_best(self, dev_data):
        """Makes `best/` whole where a run was killed, or its model was removed."""
        removed = self._best.find_removed()
        if not removed:
            self._best.settle(
                lambda: self._score("dev", dev_data, self._best.find_checkpoint())
            )
            return
        with self._feature_file("dev", dev_data, self._eval_batch_size) as source:
            scores = self._score_dev(source, removed)
        self._best.add(removed)
        self._best.settle(lambda: scores)

    def _report_step(self, plan, step, training, is_complete):
        unread = "; --init_checkpoint is not read again"
        unread = unread if training.init_checkpoint else ""
        if is_complete:
            _LOGGER.info(
                "training is complete: %s is at step %d of %d%s",
                self._output_dir,
                step,
                plan.num_steps,
                unread,
            )
        elif step:
            _LOGGER.info("resuming after step %d of %d%s", step, plan.num_steps, unread)

    def _train_epochs(self, plan, step, training, trainer, dev_source):
        """Trains and scores what is left of the plan after `step` steps."""
        for epoch, (first, end) in enumerate(plan.epochs):
            if step < end:
                skip = max(step - first, 0)
                trainer.train(epochs.epoch_seed(training.seed, epoch), skip, end)
                step = end
            if dev_source and step == end:
                self._score_epoch(dev_source, epoch, end)
                trainer.check_stop(step)
                if self._best.has_stalled(step, training.early_stopping):
                    text = "training ended early: no new best in %d epochs"
                    _LOGGER.info(text, training.early_stopping)
                    return

    def _score_epoch(self, source, epoch, step):
        """Scores dev after an epoch, unless that is done; keeps the best model."""
        if self._best.has_epoch(step):
            return
        checkpoint = checkpoints.latest_checkpoint(self._output_dir)
        scores = self._score_dev(source, checkpoint)
        if self._best.add_epoch(epoch, step, scores, checkpoint):
            self._best_scores = source.examples, scores

    def _score_dev(self, source, checkpoint):
        """Scores a checkpoint on dev, on which the kind's decision is fitted."""
        predictions = self._predict_all("dev", source, checkpoint)
        self.kind.decision = self.kind.fit_decision(source.examples, predictions)
        return self.kind.score(source.examples, predictions)

    def write_scores(self, splits):
        """Scores the best checkpoint; writes `eval_results.json` and `.txt`.

        Args:
          splits: dict name ("dev", "test") -> labelled `reading.ExampleFile`.

        Returns:
          Dict name -> the dict of `kind.Kind.score`.
        """
        checkpoint, scores = self._best.find_checkpoint(), {}
        for name, data in splits.items():
            if self._best_scores and self._best_scores[0] is data.examples:
                scores[name] = self._best_scores[1]
                continue
            scores[name] = self._score(name, data, checkpoint)
        results.write_results(self._output_dir, scores)
        return scores

    def _score(self, name, data, checkpoint):
        """Returns the dict of `kind.Kind.score` of a checkpoint."""
        with self._feature_file(name, data, self._eval_batch_size) as source:
            predictions = self._predict_all(name, source, checkpoint)
            return self.kind.score(source.examples, predictions)

    def write_predictions(self, data, submission=None):
        """Writes the kind's file of predictions.

        Args:
          data: `reading.TextFile`, of which a part is in memory at a time.
          submission: name of the file for a judge that is written besides, or None.

        Returns:
          The path written.

        Raises:
          UserError: it cannot be written, or another process is writing it.
        """
        with self._writing_predictions():
            predictions = self.predict(data)
            if submission is None:
                return self.kind.write_predictions(self._output_dir, data, predictions)
            with self.kind.open_submission(self.path_of(submission), data) as add:
                return self.kind.write_predictions(
                    self._output_dir, data, _passed_on(predictions, add)
                )

    def write_submission(self, data, submission):
        """Writes a file for a judge alone; the arguments are `write_predictions`'."""
        with self._writing_predictions():
            with self.kind.open_submission(self.path_of(submission), data) as add:
                for example, prediction in self.predict(data):
                    add(example, prediction)

    @contextlib.contextmanager
    def _writing_predictions(self):
        """Keeps other processes from writing predictions while the block runs.

        What a killed run has left half-written is removed.
        """
        lock = os.path.join(self._output_dir, _PREDICTIONS_LOCK)
        message = (
            "--output_dir={}: another process writes predictions there (it holds {}); "
            "wait for its end or choose another --output_dir"
        )
        with locks.hold(lock, message.format(self._output_dir, lock)):
            names = list(self.kind.prediction_files)
            names += [submission.file for submission in self.files.task.submissions]
            files.remove_leftovers(*map(self.path_of, names))
            yield

    def path_of(self, name):
        """Returns the path of a file of results."""
        return os.path.join(self._output_dir, name)

    def predict(self, data, name="predict"):
        """Applies the best checkpoint.

        Args:
          data: `reading.TextFile` or `reading.ExampleFile`, whose labels are not read.
          name: what this is in the log.

        Yields:
          (example, prediction) in the order of `data`, as `kind.Kind.decode` gives it.
        """
        checkpoint, batch_size = self._best.find_checkpoint(), self._predict_batch_size
        _LOGGER.info("%s: %d examples of %s", name, data.num_examples, data.path)
        notes = collections.Counter()
        with self._progress(name, data.num_examples, batch_size) as shown:
            for examples in data.chunks(_EXAMPLES_AT_A_TIME):
                with self._records(name, examples, batch_size) as source:
                    decoded = self._predict(source, checkpoint, batch_size, shown)
                    yield from zip(examples, decoded)
                notes += source.count_notes(self.files.max_seq_length)
        _report_notes(name, notes)

    def check_training(self, train_data, dev_data, training):
        """Checks what `train` begins with; writes nothing.

        Returns:
          (dict of the settings to note, the directory's newest checkpoint or None).

        Raises:
          UserError: the directory holds another model or training, or the pretrained
            checkpoint does not fit.
        """
        settings = training_settings.describe(
            training, train_data, dev_data, self.files
        )
        latest = checkpoints.latest_checkpoint(self._output_dir)
        saved = model_files.load(self._output_dir)
        if saved is not None:
            model_files.check_same_model(self._output_dir, saved, self.files)
        elif latest is not None:
            raise UserError(
                "--output_dir={} holds a different model: {} is no fine-tuned "
                "checkpoint; choose another directory (and name the checkpoint with "
                "--init_checkpoint to start from it)".format(self._output_dir, latest)
            )
        if latest is not None:
            training_settings.check_same_training(
                self._output_dir, settings, training.init_checkpoint
            )
        elif training.init_checkpoint:
            self._check_init_checkpoint(training)
        model_files.check_not_foreign(self._output_dir, self.files)
        model_files.check_best(self.best_dir, self.files, is_new=saved is None)
        return settings, latest

    def _prepare_output_dir(self, training, train_data, dev_data):
        """Prepares the directory for this training; returns the step it is at."""
        settings, latest = self.check_training(train_data, dev_data, training)
        step = 0
        if latest is not None:
            step = checkpoints.resume_step(latest, self._output_dir)
        if files.is_directory(self.best_dir):
            output_directory.remove_leftovers(self.best_dir)
        output_directory.prepare(self._output_dir, self.files.config)
        model_files.save(self._output_dir, self.files)
        training_settings.save(self._output_dir, settings, is_new=latest is None)
        return step

    def _check_init_checkpoint(self, training):
        """Raises `UserError` where it does not fit, before anything is written."""
        model_graph.check_init_checkpoint(
            training.init_checkpoint,
            self.files.config,
            self.kind.outputs,
            training.allow_missing,
        )

    def _build_features(self, examples):
        """Returns the list of lists of the features of each example."""
        return [self.kind.build_features(example) for example in examples]

    @contextlib.contextmanager
    def _feature_file(
        self, name, data, batch_size=None, windows=None, teacher_fields=()
    ):
        """Writes the features of `data` to a file that lives as long as the block.

        Args:
          name: of the file and in the log.
          data: `reading.ExampleFile`.
          batch_size: of the predictions made from it, None for training.
          windows: what `_build_features` returns for them, if it is known.
          teacher_fields: fields that the windows have besides those of the kind.
        """
        _LOGGER.info("%s: %d examples of %s", name, data.num_examples, data.path)
        if data.num_ignored:
            _LOGGER.info("%s: %d rows ignored by label", name, data.num_ignored)
        with self._records(
            name, data.examples, batch_size, windows, teacher_fields
        ) as source:
            _report_notes(name, source.count_notes(self.files.max_seq_length))
            yield source

    @contextlib.contextmanager
    def _records(
        self, name, examples, batch_size=None, windows=None, teacher_fields=()
    ):
        """`_feature_file` of a list of examples, which says nothing."""
        windows = windows or self._build_features(examples)
        items = [window for group in windows for window in group]
        order = features.length_order(items)
        fields = tuple(self.kind.target_fields) + tuple(teacher_fields)
        fills_batches = self._runtime.device.use_tpu and batch_size is not None
        # A model that only predicts may be in a directory that cannot be written to. A
        # TPU reads where it writes.
        is_written_to = batch_size is None or self._runtime.device.use_tpu
        with features.temporary_records(
            self._output_dir if is_written_to else None,
            name,
            [items[i] for i in order],
            fields,
            num_padding_examples=-len(items) % batch_size if fills_batches else 0,
        ) as path:
            yield _Source(path, examples, windows, order, fields)

    @staticmethod
    @contextlib.contextmanager
    def _progress(name, num_examples, batch_size):
        """Shows progress while the block runs; yields it, None for a single batch."""
        if num_examples <= batch_size:
            yield None
            return
        with progress.ExampleProgress(num_examples, name) as shown:
            yield shown

    def _model_fn(self, *training):
        """Returns the model function; `training` as its builder takes it."""
        use_tpu, numerics = self._runtime.device.use_tpu, self._runtime.numerics
        return model_fn_builder(self.kind, use_tpu, numerics, *training)

    def _training_job(self, source, training, plan, step):
        """The `sessions.Job` of a training that begins, or resumes, after `step`."""
        epoch = sum(end <= step for _, end in plan.epochs)
        return sessions.Job(
            self._model_fn(
                self._training_spec(training, plan), training.objective, training.seed
            ),
            features.training_input_fn(
                source.path,
                len(source.order),
                source.fields,
                self._padded_length,
                self._rounding,
            ),
            source.path,
            self._output_dir,
            training.batch_size,
            plan.num_steps,
            epochs.epoch_seed(training.seed, epoch),
            estimators.Saving(training.save_checkpoints_steps, _CHECKPOINTS_KEPT),
        )

    def _training_spec(self, training, plan):
        """Returns what the model function calls with the mean loss."""
        device, numerics, _ = self._runtime
        head = [variable.name for variable in self.kind.head(self.files)]
        head_rate = training.head_learning_rate or training.learning_rate
        multipliers = learning_rates.multipliers(
            self.files.config,
            head,
            head_rate / training.learning_rate,
            training.layerwise_decay,
            training.freeze,
        )
        schedule = estimators.Schedule(
            training.optimizer,
            training.learning_rate,
            plan.num_steps,
            int(plan.num_steps * training.warmup_proportion),
            training.batch_size,
            rate_multipliers=multipliers,
        )
        init_checkpoint = training.init_checkpoint
        reuses_head = model_files.has_head_of(init_checkpoint, self.files)
        start = estimators.Start(
            self._output_dir,
            init_checkpoint,
            training.allow_missing,
            anew=() if reuses_head else head,
        )

        def training_spec(loss):
            return estimators.training_spec(
                loss, {}, schedule, start, device.use_tpu, use_xla=numerics.use_xla
            )

        return training_spec

    def _is_complete(self, plan, step, has_dev):
        """Whether all is trained and, with a dev file, scored.

        Raises:
          UserError: more is trained already, of which nothing can be scored.
        """
        if step < plan.num_steps:
            return False
        if not has_dev:
            return self._best.saved_step() == step
        if step > plan.num_steps and not self._best.history:
            raise UserError(
                "--num_train_epochs: the training in {} is at step {}, past the {} of "
                "so few epochs, and none is scored; give as many as it began "
                "with".format(self._output_dir, step, plan.num_steps)
            )
        return step > plan.num_steps or self._best.has_epoch(step)

    def _predict(self, source, checkpoint, batch_size, shown=None):
        """Returns the list of predictions of the examples of a source, in order."""
        rows = [None] * len(source.order)
        done = 0
        if not self._runtime.device.use_tpu:  # memory is reserved for what is asked for
            batch_size = min(batch_size, max(len(rows), 1))
        for batch in self._predictor.predict(source.path, checkpoint, batch_size):
            is_real = batch.pop("is_real_example")
            _check_finite(batch, checkpoint)
            num_real = int(is_real.sum())  # padding is at the end
            for i, place in enumerate(source.order[done : done + num_real]):
                rows[place] = {name: values[i] for name, values in batch.items()}
            done += num_real
            if shown:
                # Windows of an example may be batches apart: an estimate.
                share = len(source.examples) / len(source.order)
                shown.update(int(done * share) - int((done - num_real) * share))
        rows = iter(rows)
        predictions = []
        for example, windows in zip(source.examples, source.windows):
            predicted = list(itertools.islice(rows, len(windows)))
            predictions.append(self.kind.decode(example, windows, predicted))
        return predictions

    def _predict_all(self, name, source, checkpoint):
        """Returns the list of predictions to score, while it shows progress."""
        batch_size = self._eval_batch_size
        with self._progress(name, len(source.examples), batch_size) as shown:
            return self._predict(source, checkpoint, batch_size, shown)


def _passed_on(predictions, add):
    """Yields (example, prediction), each after it was added to a submission."""
    for example, prediction in predictions:
        add(example, prediction)
        yield example, prediction


def model_fn_builder(
    kind, use_tpu, numerics, training_spec=None, objective=objectives.PLAIN, seed=0
):
    """Builds the Estimator's `model_fn`.

    Args:
      kind: `kind.Kind`.
      use_tpu: whether the graph is for TPU.
      numerics: `modeling.Numerics`.
      training_spec: function of the loss that returns the `TPUEstimatorSpec` of a
        training step; None for a model that only predicts.
      objective: `objective.Objective`, of the training.
      seed: int, of the training's dropout in front of the head.

    Returns:
      `model_fn(features, labels, mode, params)` for `features` as
      `features.training_input_fn` yields them. It predicts what `kind.predictions`
      returns and `is_real_example` int32 [B].
    """

    def model_fn(features, labels, mode, params):
        del labels, params  # part of the interface; all is in `features`
        encoder = {"use_tpu": use_tpu, "numerics": numerics}
        if mode == tf.estimator.ModeKeys.TRAIN:
            loss = objectives.training_loss(kind, features, objective, seed, **encoder)
            return training_spec(loss)
        model = objectives.run_encoder(kind, features, is_training=False, **encoder)
        predictions = kind.predictions(kind.outputs(model), features)
        predictions["is_real_example"] = features["is_real_example"]
        return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=predictions)

    return model_fn


def _check_finite(batch, checkpoint):
    """Raises `UserError` where a model predicts NaN."""
    for values in batch.values():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UserError(
                "{} predicts NaN: its weights are damaged or its training diverged; "
                "take an earlier checkpoint, or train again with a lower "
                "--learning_rate into another --output_dir".format(checkpoint)
            )


def _report_notes(name, counts):
    for note, number in sorted(counts.items()):
        _LOGGER.info("%s: %d of them %s", name, number, note)
