"""Pretraining on record files: train, resume, evaluate."""

import contextlib
import logging
import os
from typing import NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline
from albert_zh.models import checkpoints, model_graph, output_directory
from albert_zh.models import directory as model_directory
from albert_zh.training import (
    accumulation,
    initial_weights,
    input_position,
    memory,
    optimizer_record,
    pretraining_model,
    results,
)
from albert_zh.training import distribution as distributions
from albert_zh.training import estimator as estimators

_LOGGER = logging.getLogger(__name__)


class Training(NamedTuple):
    """How to pretrain.

    Attributes:
      schedule: `estimators.Schedule`.
      micro_batch_size: sequences that a device computes at a time; None for all of
        its share of the batch.
      saving: `estimators.Saving`.
      seed: of initial weights, dropout and the order of records.
      initial_weights: one of `initial_weights.CHOICES`.
      recipe: name of the recipe that the settings are from, which a run is resumed
        with, or None.
    """

    schedule: estimators.Schedule
    micro_batch_size: Optional[int] = None
    saving: estimators.Saving = estimators.DEFAULT_SAVING
    seed: int = 12345
    initial_weights: str = "random"
    recipe: Optional[str] = None


class Pretraining:
    """A model with the directory it is pretrained in."""

    def __init__(
        self,
        files,
        config,
        output_dir,
        runtime=estimators.DEFAULT_RUNTIME,
        allow_missing=False,
        sop_weight=1.0,
    ):
        """Writes nothing.

        Args:
          files: `model_directory.ModelDirectory`; its checkpoint, if any, is the one
            to start from, its vocabulary is copied to `output_dir`.
          config: `modeling.AlbertConfig`.
          output_dir: holds checkpoints, curves and results. A checkpoint in it is
            resumed.
          runtime: `estimators.Runtime`.
          allow_missing: whether the checkpoint to start from may lack the pooler and
            the pretraining heads.
          sop_weight: float, what the loss of sentence order is multiplied by.
        """
        self._files = files
        self._config = config
        self._runtime = runtime
        self._start = estimators.Start(output_dir, files.checkpoint, allow_missing)
        self._output_dir = output_dir
        self._sop_weight = sop_weight
        self._has_trained = False

    def train(self, records, training):
        """Trains up to the schedule's last step, resuming a run that was stopped.

        Args:
          records: `record_files.RecordFiles`.
          training: a `Training`.

        Raises:
          UserError: the batch cannot be divided, another process trains in the
            directory or it holds another model, the checkpoint to start from does
            not fit, records are damaged, or the loss is NaN.
          Stopped: SIGTERM or Ctrl-C arrived; a checkpoint is saved if a step was taken.
        """
        distribution = self._runtime.distribution
        self._check_batch(training, records.form.max_seq_length)
        distributions.check_enough_files(records.files, distribution)
        with contextlib.ExitStack() as stack:
            if distribution.is_chief:
                stack.enter_context(output_directory.hold(self._output_dir))
            step = self._prepare_output_dir(training, records)
            self._say_what_cannot_follow(step)
            position = self._position(records, training, step)
            estimators.train(
                self._training_estimator(training, step),
                self._input(records, True, training.seed, position),
                training.schedule.num_train_steps,
                distribution,
            )
        self._has_trained = True

    def evaluate(self, records, batch_size=64, max_steps=100):
        """Evaluates a checkpoint; writes `eval_results.json` and `.txt`.

        It is the newest in `output_dir`, or without any the one to start from.

        Args:
          records: `record_files.RecordFiles`.
          batch_size: int, sequences per step.
          max_steps: int, steps at most.

        Returns:
          Dict of name to number.

        Raises:
          UserError: there is no checkpoint; `output_dir` has one of another run beside
            the one to start from; records are damaged; or a result is NaN.
        """
        if not self._has_trained:
            self._prepare_output_dir()
        _LOGGER.info(
            "evaluating at most --max_eval_steps=%d batches of %d",
            max_steps,
            batch_size,
        )
        if self._runtime.device.use_tpu:
            max_steps = min(max_steps, self._count_full_batches(records, batch_size))
        estimator = estimators.build_estimator(
            self._model_fn(), self._output_dir, self._runtime.device, batch_size
        )
        given = self._input(records, is_training=False)
        with estimators.one_line_errors(given.files, given.form):
            scores = estimator.evaluate(given.input_fn, steps=max_steps)
        scores = {
            key: int(value) if key == "global_step" else float(value)
            for key, value in scores.items()
        }
        results.write_results(self._output_dir, scores)
        for key in sorted(scores):
            _LOGGER.info("%s = %s", key, scores[key])
        return scores

    def check_evaluation(self, records, batch_size):
        """Checks before a training what `evaluate` would refuse after it.

        Args:
          records, batch_size: as `evaluate`.

        Raises:
          UserError: the cores of a TPU cannot share the batch, or there are too few
            records for one.
        """
        device = self._runtime.device
        if device.use_tpu:
            cores, flag = device.num_tpu_cores, "--eval_batch_size"
            distributions.check_divisible(batch_size, cores, flag)
            self._count_full_batches(records, batch_size)

    def _count_full_batches(self, records, batch_size):
        """The steps that an evaluation on a TPU, which has no smaller batch, can take.

        Raises:
          UserError: there are none, or a record file is damaged.
        """
        cores = self._runtime.device.num_tpu_cores
        num_hosts = -(-cores // estimators.TPU_CORES_OF_A_HOST)
        counts = [input_position.count_records(path) for path in records.files]
        # As `input_pipeline` shares them out.
        fewest = min(sum(counts[host::num_hosts]) for host in range(num_hosts))
        steps = fewest // (batch_size // num_hosts)
        if not steps:
            raise UserError(
                "--eval_batch_size {}: {} has {} records, fewer than a batch; give "
                "more records or a smaller batch".format(
                    batch_size, records.files[0], fewest
                )
            )
        return steps

    def _say_what_cannot_follow(self, step):
        """Logs that a new model is begun in a layout that converts to no other."""
        is_new = step == 0 and self._start.init_checkpoint is None
        if is_new and self._config.dialect == "albert_zh":
            _LOGGER.info(
                "this config has albert_zh's layout, which no other framework reads; "
                "for a new model take one of the google layout, such as "
                "albert_config/albert_config_tiny_google.json"
            )

    def _check_batch(self, training, length):
        """Checks the batch of sequences of `length` tokens.

        Raises:
          UserError: devices or micro-batches cannot share it, or it cannot fit.
        """
        device, numerics, distribution = self._runtime
        batch_size = training.schedule.batch_size
        num_devices = distribution.num_replicas
        if device.use_tpu:
            num_devices = device.num_tpu_cores
        distributions.check_divisible(batch_size, num_devices)
        gpus = tf.config.experimental.list_physical_devices("GPU")
        if not (device.use_tpu or gpus):  # whose memory is not this machine's
            share = training.micro_batch_size or batch_size // num_devices
            memory.check_batch(self._config, length, share, numerics)
        if training.micro_batch_size is None:
            return
        number = accumulation.count_micro_batches(
            batch_size, training.micro_batch_size, num_devices
        )
        _LOGGER.info(
            "%d sequences per step as %d micro-batches of %d%s",
            batch_size,
            number,
            training.micro_batch_size,
            " on each of {} devices".format(num_devices) * (num_devices > 1),
        )

    def _prepare_output_dir(self, training=None, records=None):
        """Prepares the directory; returns the step the run is at, 0 for a new one.

        Args:
          training, records: as `train`; None if nothing is trained.

        Raises:
          UserError: as `_check_checkpoints`, or it holds another model, or a run with
            another optimizer or recipe.
        """
        step = self._check_checkpoints(will_train=training is not None)
        if training:
            settings = self._settings(training, records)
            trained, recipe = (training.schedule.optimizer, settings), training.recipe
            if step:
                recipe = optimizer_record.check(self._output_dir, *trained, recipe)
        # The chief alone: it removes what it takes for a dead run's half-written files.
        if self._runtime.distribution.is_chief:
            output_directory.prepare(self._output_dir, self._config)
            tokenizer = records.tokenizer_settings if training else {}
            model_directory.copy_vocabulary(self._files, self._output_dir, tokenizer)
            if training:
                optimizer_record.write(self._output_dir, *trained, recipe)
        return step

    def _settings(self, training, records):
        """What a resumed run may change but seldom means to: dict of flag -> value."""
        schedule, masks = training.schedule, records.masks
        settings = {
            "--learning_rate": schedule.learning_rate,
            "--lr_schedule": schedule.shape,
            "--num_warmup_steps": schedule.num_warmup_steps,
            "--sop_weight": self._sop_weight,
            # The config's, where the flag is not given.
            "--dropout": self._config.hidden_dropout_prob,
        }
        for name, value in masks.settings._asdict().items() if masks else ():
            settings["--" + name] = value
        return settings

    def _check_checkpoints(self, will_train):
        """Checks the checkpoints that a run could start from; returns the step.

        Raises:
          UserError: a checkpoint is missing, damaged or of another model; the one to
            resume has no step; or an evaluation has no checkpoint, or two.
        """
        output_dir, init_checkpoint, allow_missing, _ = self._start
        latest = checkpoints.latest_checkpoint(output_dir)
        step = checkpoints.resume_step(latest, output_dir) if latest else 0
        if init_checkpoint and not (latest and will_train):
            model_graph.check_init_checkpoint(
                init_checkpoint,
                self._config,
                model_graph.pretraining_heads(self._config),
                allow_missing,
            )
        if latest and init_checkpoint:
            if will_train:
                _LOGGER.info("the run is resumed; ignoring %s", init_checkpoint)
            elif os.path.abspath(latest) != os.path.abspath(init_checkpoint):
                raise UserError(
                    "--output_dir {} holds {}, which would be evaluated in place of "
                    "{}; give another directory".format(
                        output_dir, latest, init_checkpoint
                    )
                )
        if not (latest or init_checkpoint or will_train):
            raise UserError(
                "--do_eval: --output_dir {} has no checkpoint; give --init_checkpoint "
                "or --model_dir, or add --do_train".format(output_dir)
            )
        return step

    def _model_fn(self, training=None):
        """The model function; `training` is None for evaluation."""
        return pretraining_model.model_fn_builder(
            self._config,
            self._start,
            training and training.schedule,
            self._runtime.device.use_tpu,
            training and training.micro_batch_size,
            self._runtime.numerics,
            self._sop_weight,
            training
            and initial_weights.custom_getter(
                self._config, training.initial_weights, training.seed
            ),
        )

    def _training_estimator(self, training, step):
        """Builds the estimator that trains from `step` on."""
        device, _, distribution = self._runtime
        arguments = (
            training.schedule.batch_size,
            training.saving,
            _graph_seed(training.seed, step),
        )
        model_fn = self._model_fn(training)
        if distribution.strategy:
            return estimators.build_distributed_estimator(
                model_fn, self._output_dir, distribution, *arguments
            )
        return estimators.build_estimator(
            model_fn, self._output_dir, device, *arguments
        )

    def _input(
        self, records, is_training, seed=None, position=input_pipeline.BEGINNING
    ):
        """Returns `estimators.Input`; arguments as `RecordFiles.input_fn`."""
        use_tpu = self._runtime.device.use_tpu
        input_fn = records.input_fn(is_training, seed, position, drop_remainder=use_tpu)
        return estimators.Input(input_fn, records.files, records.form)

    def _position(self, records, training, step):
        """Returns the `input_pipeline.Position` that training resumes from."""
        schedule = training.schedule
        if step >= schedule.num_train_steps:
            return input_pipeline.BEGINNING  # nothing is left to train
        device, _, distribution = self._runtime
        order = {
            "--seed": training.seed,
            "--shuffle_buffer_size": records.reading.shuffle_records,
            "--num_input_threads": records.reading.num_threads,
            "--deterministic_input": records.reading.deterministic,
            "the number of workers": distribution.num_workers,
        }
        if device.use_tpu:
            # Each host of a pod, of 8 cores, reads files of its own.
            order["--num_tpu_cores"] = device.num_tpu_cores
        return input_position.resume(
            self._output_dir,
            step,
            schedule.batch_size,
            records.files,
            order,
            distribution.is_chief,
        )


def _graph_seed(seed, step):
    """Returns another seed for each resume, so that dropout masks do not repeat."""
    if step == 0:
        return seed
    return np.random.RandomState([seed, step % 2**32]).randint(2**31)
