"""Fine-tuning of the encoder on classification tasks: train, evaluate, predict.

`_score_epoch` scores dev after every epoch and keeps the best model, by `_rank`.
"""

import contextlib
import logging
import os
from typing import NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from albert_zh.base import files, json_files, locks, progress
from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints, model_graph, output_directory
from albert_zh.models import directory as model_directory
from albert_zh.tasks import (
    classification_model,
    features,
    metrics,
    model_files,
    training_settings,
)
from albert_zh.training import estimator as estimators
from albert_zh.training import results, sessions

_LOGGER = logging.getLogger(__name__)

# Dev scores after every epoch: what "best" is chosen from, also after a restart.
EPOCH_SCORES_FILE = "dev_scores.json"
PREDICTIONS_FILE = "predictions.tsv"

# The fields that are read; the other scores are for people.
_EPOCH_SCORES_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "step": {"type": "integer", "minimum": 0},
            "accuracy": {"type": "number", "minimum": 0, "maximum": 1},
            "loss": {"type": "number"},
        },
        "required": ["step", "accuracy", "loss"],
    },
}
_EPOCH_SCORES_ADVICE = (
    "train into another --output_dir, or remove it: best/ is then chosen among the "
    "epochs scored from now on"
)

# Every epoch is scored, and its scores are kept.
_MAX_EPOCHS = 10000

# Bounds the memory of predictions, at some KB an example. Batches are of examples of
# like length among so many.
_EXAMPLES_AT_A_TIME = 10000

# A restart needs the newest checkpoint only; one more survives a damaged one.
_CHECKPOINTS_KEPT = 2


def check_inputs(output_dir, inputs):
    """Makes sure that a run in `output_dir` overwrites none of its data files.

    Args:
      output_dir: directory of the results.
      inputs: list of paths.

    Raises:
      UserError: names the file.
    """
    names = results.FILES + (PREDICTIONS_FILE, EPOCH_SCORES_FILE)
    written = [os.path.join(output_dir, name) for name in names]
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


class _FeatureFile(NamedTuple):
    """A temporary file of features: its record i holds example `positions[i]`."""

    path: str
    positions: np.ndarray
    num_truncated: int


class EpochPlan:
    """Which steps make up which epoch.

    Attributes:
      num_steps: of the whole training.
      epochs: list of (first step, step after the last) of each epoch.
    """

    def __init__(self, num_examples, batch_size, num_epochs, full_batches_only):
        """Divides the steps.

        Args:
          num_examples: size of the training set.
          batch_size: examples per step.
          num_epochs: may be fractional; the last epoch is then cut short.
          full_batches_only: whether a last partial batch is left out (TPU).

        Raises:
          UserError: no full batch where only full ones are taken, or too many epochs.
        """
        if num_epochs > _MAX_EPOCHS:
            raise UserError(
                "--num_train_epochs={:g}: expected at most {:,}".format(
                    num_epochs, _MAX_EPOCHS
                )
            )
        if full_batches_only and num_examples < batch_size:
            raise UserError(
                "--train_batch_size={} is more than the {} training examples; a TPU "
                "takes full batches only".format(batch_size, num_examples)
            )
        per_epoch = (
            num_examples // batch_size
            if full_batches_only
            else -(-num_examples // batch_size)
        )
        self.num_steps = max(1, int(round(per_epoch * num_epochs)))
        self.epochs = [
            (first, min(first + per_epoch, self.num_steps))
            for first in range(0, self.num_steps, per_epoch)
        ]


class Classifier:
    """A classifier with the directory it is trained in and predicts from."""

    def __init__(
        self,
        classifier_files,
        output_dir,
        runtime=estimators.DEFAULT_RUNTIME,
        eval_batch_size=64,
        predict_batch_size=64,
        model_dir=None,
    ):
        """Builds the tokenizer; writes nothing.

        Args:
          classifier_files: `model_files.ClassifierFiles`.
          output_dir: holds the training state, the results and `best/`, a model
            directory with the best checkpoint. To predict, a model directory can be
            given itself; None where no results are written.
          runtime: `estimators.Runtime`; its distribution is not used.
          eval_batch_size: examples per step when scoring.
          predict_batch_size: examples per step when predicting.
          model_dir: directory of the fine-tuned model to evaluate or predict with;
            None stands for `output_dir`, where `train` keeps its own.

        Raises:
          UserError: the vocabulary cannot be used, or not with this config.
        """
        self.files = classifier_files
        self.best_dir = model_files.best_directory(model_dir or output_dir)
        self._output_dir = output_dir
        self._runtime = runtime
        self._eval_batch_size = eval_batch_size
        self._predict_batch_size = predict_batch_size
        self._padded_length = None
        if runtime.device.use_tpu:  # which needs static shapes
            self._padded_length = self.files.max_seq_length
        self._predictor = sessions.Predictor(
            self._model_fn(),
            features.prediction_input_fn(self._padded_length),
            output_dir,
            runtime.device,
        )
        self._best_scores = None  # (dev data, its scores) of the best epoch so far
        self._tokenizer = self.files.build_tokenizer()
        model_directory.check_vocabulary(
            self._tokenizer.vocab_size,
            self.files.spm_model_file or self.files.vocab_file,
            self.files.config,
            exact=True,
        )

    def train(self, train_data, dev_data, training):
        """Trains, scoring dev after every epoch; then `best/` holds the best model.

        Best is the highest dev accuracy; the lower loss breaks ties. A killed run
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
        plan = EpochPlan(
            len(train_data.examples),
            training.batch_size,
            training.num_epochs,
            full_batches_only=self._runtime.device.use_tpu,
        )
        step = self._prepare_output_dir(training, train_data, dev_data)
        unread = "; --init_checkpoint is not read again"
        unread = unread if training.init_checkpoint else ""
        history = self._read_history(step)
        if self._is_complete(plan, step, history if dev_data else None):
            _LOGGER.info(
                "training is complete: %s is at step %d of %d%s",
                self._output_dir,
                step,
                plan.num_steps,
                unread,
            )
            return
        if step:
            _LOGGER.info("resuming after step %d of %d%s", step, plan.num_steps, unread)
        self._train_epochs(plan, step, training, train_data, dev_data, history)
        if not dev_data:
            _LOGGER.warning("no dev file: the last checkpoint is kept as the best")
            self._save_best(checkpoints.latest_checkpoint(self._output_dir))

    def _train_epochs(self, plan, step, training, train_data, dev_data, history):
        """Trains and scores what is left of the plan after `step` steps."""
        with contextlib.ExitStack() as stack:
            train_file = stack.enter_context(self._feature_file("train", train_data))
            dev_file = None
            if dev_data:
                dev_file = stack.enter_context(
                    self._feature_file("dev", dev_data, self._eval_batch_size)
                )
            job = self._training_job(train_file, training, plan, step)
            trainer = stack.enter_context(
                sessions.open_trainer(job, self._runtime.device)
            )
            for epoch, (first, end) in enumerate(plan.epochs):
                if step < end:
                    skip = max(step - first, 0)
                    trainer.train(_epoch_seed(training.seed, epoch), skip, end)
                    step = end
                if dev_data and step == end:
                    self._score_epoch(dev_data, dev_file, epoch, end, history)
                    trainer.check_stop(step)

    def write_scores(self, splits):
        """Scores the best checkpoint; writes `eval_results.json` and `.txt`.

        Args:
          splits: dict name ("dev", "test") -> labelled `reading.ExampleFile`.

        Returns:
          Dict name -> the dict of `metrics.score`.
        """
        checkpoint, batch_size = self._best_checkpoint(), self._eval_batch_size
        scores = {}
        for name, data in splits.items():
            if self._best_scores and self._best_scores[0] is data:
                scores[name] = self._best_scores[1]
                continue
            with self._feature_file(name, data, batch_size) as source:
                scores[name] = self._score(name, data, source, checkpoint)
        results.write_results(self._output_dir, scores)
        return scores

    def write_predictions(self, data):
        """Writes `predictions.tsv`, one line for each line of the data.

        Columns: the predicted label, then the probability of each class. It has a
        header row exactly if the data has one, so that line numbers match.

        Args:
          data: `reading.TextFile`, of which a part is in memory at a time.

        What a killed run has left half-written is removed.

        Returns:
          The path written.

        Raises:
          UserError: it cannot be written, or another process is writing it.
        """
        path = os.path.join(self._output_dir, PREDICTIONS_FILE)
        lock = os.path.join(self._output_dir, ".{}.lock".format(PREDICTIONS_FILE))
        message = (
            "{}: another process writes it (it holds {}); wait for its end or choose "
            "another --output_dir".format(path, lock)
        )
        with locks.hold(lock, message):
            files.remove_leftovers(path)
            self._write_predictions(data, path)
        return path

    def _write_predictions(self, data, path):
        with files.whole(path) as target:
            if data.has_header:
                target.write(format_header(self.files.labels).encode("utf-8"))
            for probabilities in self.predict(data):
                text = format_predictions(self.files.labels, probabilities)
                target.write(text.encode("utf-8"))

    def predict(self, data):
        """Judges texts with the best checkpoint.

        Args:
          data: `reading.TextFile` or `reading.ExampleFile`, whose labels are not read.

        Yields:
          float32 [number of examples, num_labels], probabilities of the examples next
          in the order of `data`.
        """
        checkpoint, batch_size = self._best_checkpoint(), self._predict_batch_size
        _LOGGER.info("predict: %d examples of %s", data.num_examples, data.path)
        num_truncated = 0
        with self._progress("predict", data.num_examples, batch_size) as shown:
            for examples in data.chunks(_EXAMPLES_AT_A_TIME):
                with self._records("predict", examples, batch_size) as source:
                    yield np.exp(self._predict(source, checkpoint, batch_size, shown))
                num_truncated += source.num_truncated
        self._report_truncated("predict", num_truncated)

    def _prepare_output_dir(self, training, train_data, dev_data):
        """Prepares the directory for this training; returns the step it is at."""
        settings = training_settings.describe(
            training, train_data, dev_data, self.files.max_seq_length
        )
        latest = checkpoints.latest_checkpoint(self._output_dir)
        saved = model_files.load(self._output_dir)
        if saved is not None:
            model_files.check_same_model(self._output_dir, saved, self.files)
        elif latest is not None:
            raise UserError(
                "--output_dir={} holds a different model: {} is no classifier's "
                "checkpoint; choose another directory (and name the checkpoint with "
                "--init_checkpoint to start from it)".format(self._output_dir, latest)
            )
        step = 0
        if latest is not None:
            training_settings.check_same_training(
                self._output_dir, settings, training.init_checkpoint
            )
            step = checkpoints.resume_step(latest, self._output_dir)
        elif training.init_checkpoint:
            self._check_init_checkpoint(training)
        model_files.check_not_foreign(self._output_dir, self.files)
        model_files.check_best(self.best_dir, self.files, is_new=saved is None)
        output_directory.prepare(self._output_dir, self.files.config)
        model_files.save(self._output_dir, self.files)
        training_settings.save(self._output_dir, settings, is_new=latest is None)
        return step

    def _check_init_checkpoint(self, training):
        """Raises `UserError` where it does not fit, before anything is written."""
        config, num_labels = self.files.config, len(self.files.labels)

        def add_head(model):
            classification_model.logits_of(model.get_pooled_output(), num_labels, False)

        model_graph.check_init_checkpoint(
            training.init_checkpoint, config, add_head, training.allow_missing
        )

    @contextlib.contextmanager
    def _feature_file(self, name, data, batch_size=None):
        """Writes the features of `data` to a file that lives as long as the block.

        Args:
          name: of the file and in the log.
          data: `reading.ExampleFile`.
          batch_size: of the predictions made from it, None for training.
        """
        _LOGGER.info("%s: %d examples of %s", name, data.num_examples, data.path)
        if data.num_ignored:
            _LOGGER.info("%s: %d rows ignored by label", name, data.num_ignored)
        with self._records(name, data.examples, batch_size) as source:
            self._report_truncated(name, source.num_truncated)
            yield source

    @contextlib.contextmanager
    def _records(self, name, examples, batch_size=None):
        """`_feature_file` of a list of examples, which says nothing."""
        items = [
            features.build_features(
                example, self._tokenizer, self.files.max_seq_length, self.files.labels
            )
            for example in examples
        ]
        positions = features.length_order(items)
        fills_batches = self._runtime.device.use_tpu and batch_size is not None
        # A model that only predicts may be in a directory that cannot be written to. A
        # TPU reads where it writes.
        is_written_to = batch_size is None or self._runtime.device.use_tpu
        with features.temporary_records(
            self._output_dir if is_written_to else None,
            name,
            [items[i] for i in positions],
            num_padding_examples=-len(items) % batch_size if fills_batches else 0,
        ) as path:
            num_truncated = sum(item.is_truncated for item in items)
            yield _FeatureFile(path, positions, num_truncated)

    def _report_truncated(self, name, number):
        if number:
            length = self.files.max_seq_length
            _LOGGER.info("%s: %d of them truncated to %d tokens", name, number, length)

    @staticmethod
    @contextlib.contextmanager
    def _progress(name, num_examples, batch_size):
        """Shows progress while the block runs; yields it, None for a single batch."""
        if num_examples <= batch_size:
            yield None
            return
        with progress.ExampleProgress(num_examples, name) as shown:
            yield shown

    def _model_fn(self, training_spec=None):
        """Returns the model function; `training_spec` as its builder takes it."""
        return classification_model.model_fn_builder(
            self.files.config,
            len(self.files.labels),
            self._runtime.device.use_tpu,
            self._runtime.numerics,
            training_spec,
        )

    def _training_job(self, source, training, plan, step):
        """The `sessions.Job` of a training that begins, or resumes, after `step`."""
        epoch = sum(end <= step for _, end in plan.epochs)
        return sessions.Job(
            self._model_fn(self._training_spec(training, plan)),
            features.training_input_fn(
                source.path, len(source.positions), self._padded_length
            ),
            source.path,
            self._output_dir,
            training.batch_size,
            plan.num_steps,
            _epoch_seed(training.seed, epoch),
            estimators.Saving(training.save_checkpoints_steps, _CHECKPOINTS_KEPT),
        )

    def _training_spec(self, training, plan):
        """Returns what the model function calls with the mean loss."""
        device, numerics, _ = self._runtime
        schedule = estimators.Schedule(
            training.optimizer,
            training.learning_rate,
            plan.num_steps,
            int(plan.num_steps * training.warmup_proportion),
            training.batch_size,
        )
        init_checkpoint = training.init_checkpoint
        reuses_head = model_files.has_head_of(init_checkpoint, self.files.labels)
        start = estimators.Start(
            self._output_dir,
            init_checkpoint,
            training.allow_missing,
            anew=() if reuses_head else classification_model.HEAD,
        )

        def training_spec(loss):
            return estimators.training_spec(
                loss, {}, schedule, start, device.use_tpu, use_xla=numerics.use_xla
            )

        return training_spec

    def _is_complete(self, plan, step, history):
        """Whether all is trained and scored; `history` is None without a dev file."""
        if step < plan.num_steps:
            return False
        if history is None:
            return self._best_step() == step
        return step > plan.num_steps or any(entry["step"] == step for entry in history)

    def _best_step(self):
        """The step of the model in `best/`; None where there is none, or not whole."""
        try:
            best = checkpoints.latest_checkpoint(self.best_dir)
            return best and checkpoints.resume_step(best, self.best_dir)
        except UserError:
            return None

    def _read_history(self, step):
        """Dev scores of the epochs up to `step`; later ones are a deleted run's."""
        path = os.path.join(self._output_dir, EPOCH_SCORES_FILE)
        if not tf.io.gfile.exists(path):
            return []
        history = json_files.read(path, _EPOCH_SCORES_SCHEMA, _EPOCH_SCORES_ADVICE)
        return [metrics.summary(entry) for entry in history if entry["step"] <= step]

    def _score_epoch(self, data, source, epoch, step, history):
        """Scores dev after an epoch, unless `history` has it; keeps the best model."""
        if any(entry["step"] == step for entry in history):
            return
        checkpoint = checkpoints.latest_checkpoint(self._output_dir)
        scores = self._score("dev", data, source, checkpoint)
        is_best = all(_rank(scores) > _rank(entry) for entry in history)
        _LOGGER.info(
            "epoch %d, step %d: dev accuracy %.4f, loss %.4f, F1 %.4f%s",
            epoch + 1,
            step,
            scores["accuracy"],
            scores["loss"],
            scores["f1"],
            ", the best so far" if is_best else "",
        )
        if is_best:
            self._save_best(checkpoint)
            results.write_results(self.best_dir, {"dev": scores})
            self._best_scores = data, scores
        # Last: a run killed before this line scores the epoch again.
        history.append(dict(metrics.summary(scores), step=step, epoch=epoch + 1))
        json_files.write(history, os.path.join(self._output_dir, EPOCH_SCORES_FILE))

    def _save_best(self, checkpoint):
        """Makes `best/` a complete model directory with this checkpoint alone."""
        model_files.save(self.best_dir, self.files)
        kept = checkpoints.write_stripped(
            checkpoint, os.path.join(self.best_dir, "model.ckpt")
        )
        for name in checkpoints.run_files(self.best_dir):
            if not name.startswith(os.path.basename(kept) + "."):
                files.remove(os.path.join(self.best_dir, name))

    def _best_checkpoint(self):
        checkpoint = model_directory.find_checkpoint(self.best_dir)
        if checkpoint is None:
            raise UserError(
                "--output_dir={} holds no fine-tuned model; run with --do_train "
                "first".format(self._output_dir)
            )
        return checkpoint

    def _predict(self, source, checkpoint, batch_size, shown=None):
        """Log-probabilities, float32 [num_examples, num_labels], in data order."""
        rows, is_real = [], []
        for batch in self._predictor.predict(source.path, checkpoint, batch_size):
            rows.append(batch["log_probabilities"])
            is_real.append(batch["is_real_example"])
            if shown:
                shown.update(int(is_real[-1].sum()))
        rows, is_real = np.concatenate(rows), np.concatenate(is_real)
        ordered = np.empty_like(rows[is_real == 1])
        ordered[source.positions] = rows[is_real == 1]
        if not np.isfinite(ordered).all():
            raise UserError(
                "{} predicts NaN: its weights are damaged or its training diverged; "
                "take an earlier checkpoint, or train again with a lower "
                "--learning_rate into another --output_dir".format(checkpoint)
            )
        return ordered

    def _score(self, name, data, source, checkpoint):
        batch_size = self._eval_batch_size
        with self._progress(name, data.num_examples, batch_size) as shown:
            log_probabilities = self._predict(source, checkpoint, batch_size, shown)
        label_ids = [self.files.labels.index(e.label) for e in data.examples]
        return metrics.score(label_ids, log_probabilities, self.files.labels)


def format_header(labels):
    """The line that names the columns of `format_predictions`."""
    return "\t".join(("label",) + tuple(labels)) + "\n"


def format_predictions(labels, probabilities):
    """Predictions as TSV: the label, then the probability of each class.

    Args:
      labels: names of the classes.
      probabilities: float [num_examples, len(labels)].

    Returns:
      Text with one line per example.
    """
    lines = []
    for row in probabilities:
        values = ["{:.6f}".format(value) for value in row]
        lines.append("\t".join([labels[int(np.argmax(row))]] + values) + "\n")
    return "".join(lines)


def _epoch_seed(seed, epoch):
    """The seed of an epoch's order; also of dropout, in a process that begins there."""
    return np.random.RandomState([seed, epoch]).randint(2**31 - 1)


def _rank(scores):
    """Sort key of an epoch, larger is better: dev accuracy, then lower loss."""
    return scores["accuracy"], -scores["loss"]
