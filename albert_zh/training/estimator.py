"""Estimator set-up: device, checkpoints, progress, errors in one line."""

import collections
import contextlib
import json
import logging
import math
import os
import re
import warnings

import tensorflow.compat.v1 as tf
import tensorflow.compat.v2 as tf2

import optimization
from albert_zh.base import files, locks
from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.training import distribution, preemption
from albert_zh.training.progress_hook import ProgressHook

_LOGGER = logging.getLogger(__name__)

# Steps between two points of the TensorBoard curves.
SUMMARY_STEPS = 50

# Held by the process that trains in an --output_dir.
LOCK_FILE = ".lock"

Schedule = collections.namedtuple(
    "Schedule",
    ["optimizer", "learning_rate", "num_train_steps", "num_warmup_steps"],
)

Device = collections.namedtuple(
    "Device",
    [
        "use_tpu",
        "tpu_name",
        "tpu_zone",
        "gcp_project",
        "master",
        "num_tpu_cores",
        "iterations_per_loop",
    ],
)


def device_from(args):
    """Picks the `Device` out of flags added by `flags.add_device_arguments`.

    Raises:
      UserError: --use_tpu without --tpu_name or --master, or this TensorFlow has
        no Estimator.
    """
    if not hasattr(tf, "estimator"):
        raise UserError(
            "TensorFlow {} has no Estimator; use TensorFlow 2.15 (Python 3.9-3.11) or "
            "1.15 (Python 3.7)".format(tf.__version__)
        )
    device = Device(*[getattr(args, field) for field in Device._fields])
    if device.use_tpu and not (device.tpu_name or device.master):
        raise UserError("--use_tpu needs --tpu_name (or --master)")
    return device


def load_config(path, max_seq_length, dropout=None):
    """Reads an `AlbertConfig` and holds --max_seq_length against it.

    Args:
      path: the model's JSON.
      max_seq_length: int.
      dropout: float in place of both of the config's dropout probabilities, or None.

    Raises:
      UserError: the file is missing or wrong, or the length too large.
    """
    config = model_settings.read_config(path)
    if max_seq_length > config.max_position_embeddings:
        raise UserError(
            "--max_seq_length {} is above max_position_embeddings {} of {}".format(
                max_seq_length, config.max_position_embeddings, path
            )
        )
    if dropout is not None:
        config.hidden_dropout_prob = dropout
        config.attention_probs_dropout_prob = dropout
    return config


@contextlib.contextmanager
def training_in(output_dir):
    """Keeps other trainings out of an --output_dir for as long as the block runs.

    The directory is made where absent, and removed again if nothing came of it.

    Raises:
      UserError: another process trains there, the directory cannot be made, or its
        name is a pattern.
    """
    _check_no_pattern(output_dir)
    made = _absent_directories(output_dir)
    _make_output_dir(output_dir)
    lock = os.path.join(output_dir, LOCK_FILE)
    message = (
        "--output_dir {}: another process trains there (it holds {}); wait for its end "
        "or choose another --output_dir".format(output_dir, lock)
    )
    try:
        with locks.hold(lock, message):
            yield
    finally:
        for directory in made:
            # Those with anything in them stay.
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def _check_no_pattern(output_dir):
    """Raises `UserError` for a name that TensorFlow's saver takes for a pattern.

    It deletes old checkpoints by patterns: for "run[12]" those of "run1" and "run2".
    """
    special = "*?[]" if os.sep == "\\" else "*?[]\\"
    found = [character for character in special if character in output_dir]
    if found:
        raise UserError(
            "--output_dir {}: TensorFlow takes {} for a pattern and would delete the "
            "checkpoints of other directories; choose a name without it".format(
                output_dir, found[0]
            )
        )


def _absent_directories(path):
    """The local directories that making one makes, the innermost first."""
    if files.is_remote(path):
        return []
    absent, path = [], os.path.abspath(path)
    while not os.path.lexists(path):
        absent.append(path)
        path = os.path.dirname(path)
    return absent


def _make_output_dir(output_dir):
    try:
        tf.io.gfile.makedirs(output_dir)
    except tf.errors.OpError as error:
        raise UserError(
            "--output_dir {}: cannot be made ({})".format(output_dir, error.message)
        ) from error


def prepare_output_dir(output_dir, config):
    """Creates the directory and keeps the model's config in it.

    Raises:
      UserError: the directory holds a model of another config.
    """
    _make_output_dir(output_dir)
    path = os.path.join(output_dir, model_directory.CONFIG_FILE)
    if tf.io.gfile.exists(path):
        check_same_config(output_dir, path, config)
    files.write_text(config.to_json_string(), path)


def check_same_config(directory, config_file, config, flag="--output_dir"):
    """Holds a config against the one that a directory has.

    Args:
      directory: for the message.
      config_file: path of the directory's config.
      config: `modeling.AlbertConfig`.
      flag: the flag that named the directory.

    Raises:
      UserError: names the first setting that differs.
    """
    held = model_settings.read_config(config_file).to_dict()
    given = config.to_dict()
    for key in sorted(set(held) | set(given)):
        if held.get(key) != given.get(key):
            raise UserError(
                "{} {} holds a different model ({} is {}, not {}); give another "
                "directory".format(flag, directory, key, held.get(key), given.get(key))
            )


def write_results(output_dir, results):
    """Writes results, a nested dict of numbers, as eval_results.json and .txt.

    Raises:
      UserError: a number is NaN or infinite, or a file cannot be written.
    """
    for name, value in _flatten(results):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                "{} is {}: the weights are damaged or their training diverged; take "
                "an earlier checkpoint, or train again with a lower "
                "--learning_rate".format(name, value)
            )
    base = os.path.join(output_dir, "eval_results")
    text = json.dumps(results, indent=2, sort_keys=True)
    files.write_text(text + "\n", base + ".json")
    lines = ["{} = {}".format(*item) for item in _flatten(results)]
    files.write_text("\n".join(lines) + "\n", base + ".txt")


def _flatten(results, prefix=""):
    for key in sorted(results):
        if isinstance(results[key], dict):
            yield from _flatten(results[key], prefix + key + "_")
        else:
            yield prefix + key, results[key]


def start_variables(output_dir, init_checkpoint, use_tpu, allow_missing=False):
    """Decides in a model function where the variables start; call it last.

    A checkpoint in `output_dir` wins, as Estimator restores it, the optimizer's
    slots included; it is only compared with the graph here. Else `init_checkpoint`
    is restored if given.

    Args:
      output_dir: the estimator's directory.
      init_checkpoint: path prefix, or None.
      use_tpu: bool.
      allow_missing: as `checkpoints.plan_restore` takes it for `init_checkpoint`.

    Returns:
      A `scaffold_fn` or None.

    Raises:
      UserError: the checkpoint does not fit the graph.
    """
    latest = checkpoints.latest_checkpoint(output_dir)
    if latest:
        report = checkpoints.compare(latest, tf.global_variables())
        if report.missing:
            raise UserError(
                "--output_dir {} holds a different model ({} has no fitting {}); give "
                "another directory and, to start from that checkpoint, "
                "--init_checkpoint".format(output_dir, latest, report.missing[0])
            )
        return None
    if not init_checkpoint:
        return None
    return checkpoints.restore(
        init_checkpoint, tf.trainable_variables(), use_tpu, allow_missing
    )


def session_config():
    """Returns the `ConfigProto` of every session that computes with a model."""
    return tf.ConfigProto(allow_soft_placement=True)


def build_estimator(
    model_fn,
    model_dir,
    device,
    train_batch_size,
    eval_batch_size,
    predict_batch_size=None,
    save_checkpoints_steps=1000,
    keep_checkpoint_max=5,
    seed=None,
):
    """Builds a `TPUEstimator`, which also serves CPU and one GPU.

    Args:
      model_fn: function (features, labels, mode, params) -> TPUEstimatorSpec.
      model_dir: directory of the checkpoints and event files.
      device: `Device`.
      train_batch_size: int, of the whole step, over all TPU cores.
      eval_batch_size: int, likewise.
      predict_batch_size: int or None.
      save_checkpoints_steps: int.
      keep_checkpoint_max: int, how many checkpoints are kept.
      seed: int or None, the graph's seed.
    """
    # What matters of TensorFlow's log is said by this module or raised.
    tf.logging.set_verbosity(tf.logging.FATAL)
    resolver = None
    if device.use_tpu and device.tpu_name:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            device.tpu_name, zone=device.tpu_zone, project=device.gcp_project
        )
    run_config = tf.estimator.tpu.RunConfig(
        cluster=resolver,
        master=device.master,
        model_dir=model_dir,
        save_checkpoints_steps=save_checkpoints_steps,
        keep_checkpoint_max=keep_checkpoint_max,
        tf_random_seed=seed,
        session_config=session_config(),
        # Progress and summaries come from this module.
        log_step_count_steps=None,
        save_summary_steps=None,
        tpu_config=tf.estimator.tpu.TPUConfig(
            iterations_per_loop=device.iterations_per_loop,
            num_shards=device.num_tpu_cores,
            per_host_input_for_training=tf.estimator.tpu.InputPipelineConfig.PER_HOST_V2,
        ),
    )
    return tf.estimator.tpu.TPUEstimator(
        use_tpu=device.use_tpu,
        model_fn=model_fn,
        config=run_config,
        train_batch_size=train_batch_size,
        eval_batch_size=eval_batch_size,
        predict_batch_size=predict_batch_size,
        # Exports are made without TPU graphs.
        export_to_tpu=False,
    )


def build_distributed_estimator(
    model_fn,
    model_dir,
    spread,
    train_batch_size,
    save_checkpoints_steps=1000,
    keep_checkpoint_max=5,
    seed=None,
):
    """Builds an `Estimator` that trains on the replicas of a strategy.

    `TPUEstimator`, which serves everything else, takes no strategy.

    Args:
      model_fn: function (features, labels, mode, params) -> TPUEstimatorSpec.
      model_dir: directory of the checkpoints and event files, which all workers see.
      spread: `distribution.Distribution` with a strategy.
      train_batch_size: int, of the whole step, over all replicas.
      save_checkpoints_steps: int.
      keep_checkpoint_max: int, how many checkpoints are kept.
      seed: int or None, the graph's seed.
    """
    tf.logging.set_verbosity(tf.logging.FATAL)
    # Of Estimator's own way to iterate under a strategy.
    warnings.filterwarnings("ignore", "To make it possible to preserve tf.data options")

    def replica_model_fn(features, labels, mode, params):
        spec = model_fn(features, labels, mode, params)
        if not spread.is_chief:
            spec = spec._replace(host_call=None, training_hooks=())
            return spec.as_estimator_spec()
        if not distribution.is_first_replica():
            # Only the first one's hooks run, but all have to have as many.
            spec = spec._replace(host_call=(lambda *given: given, spec.host_call[1]))
        saver = tf.train.CheckpointSaverHook(
            model_dir, save_steps=save_checkpoints_steps
        )
        return spec.as_estimator_spec()._replace(training_chief_hooks=[saver])

    return tf.estimator.Estimator(
        replica_model_fn,
        config=tf.estimator.RunConfig(
            model_dir=model_dir,
            train_distribute=spread.strategy,
            session_config=session_config(),
            # Estimator would let every worker write checkpoints, and forget them
            # where no summaries are saved: only the chief has the hook above.
            save_checkpoints_steps=None,
            save_checkpoints_secs=None,
            keep_checkpoint_max=keep_checkpoint_max,
            # Dropout differs by worker; the variables start from the chief's.
            tf_random_seed=None if seed is None else seed + spread.rank,
            log_step_count_steps=None,
            save_summary_steps=None,
        ),
        params={"batch_size": train_batch_size // spread.num_replicas},
    )


def summary_host_call(output_dir, scalars):
    """Builds the host call that writes TensorBoard curves, on every device.

    Args:
      output_dir: directory of the event files.
      scalars: dict curve name -> scalar tensor.

    Returns:
      (function, tensors) for `TPUEstimatorSpec(host_call=...)`.
    """
    names = sorted(scalars)

    def write(step, *values):
        # What is not written yet a killed run loses.
        writer = tf2.summary.create_file_writer(output_dir, flush_millis=10000)
        step = step[0]
        with writer.as_default(), tf2.summary.record_if(
            tf.equal(step % SUMMARY_STEPS, 0)
        ):
            for name, value in zip(names, values):
                # One value a TPU shard
                tf2.summary.scalar(name, tf.reduce_mean(value), step=step)
            return tf.summary.all_v2_summary_ops()

    tensors = [tf.reshape(tf.train.get_global_step(), [1])]
    tensors += [tf.reshape(tf.cast(scalars[name], tf.float32), [1]) for name in names]
    return write, tensors


def training_spec(
    loss,
    curves,
    schedule,
    batch_size,
    output_dir,
    init_checkpoint,
    use_tpu,
    allow_missing=False,
    gradients=None,
    use_xla=False,
):
    """Completes a model function for training: restore, update, progress, curves.

    Args:
      loss: float32 scalar tensor.
      curves: dict name -> scalar tensor, what TensorBoard shows beside the loss,
        the learning rate and the gradients' norm.
      schedule: `Schedule`.
      batch_size: int, sequences a step.
      output_dir: the estimator's directory.
      init_checkpoint: path prefix of the checkpoint to start from, or None.
      use_tpu: bool.
      allow_missing: as `start_variables` takes it.
      gradients: as `optimization.create_training_operation` takes them.
      use_xla: likewise.

    Returns:
      `TPUEstimatorSpec`.

    Raises:
      UserError: the checkpoint does not fit the graph.
    """
    operation = optimization.create_training_operation(
        loss,
        schedule.learning_rate,
        schedule.num_train_steps,
        schedule.num_warmup_steps,
        use_tpu,
        optimizer=schedule.optimizer,
        gradients=gradients,
        use_xla=use_xla,
    )
    curves = dict(
        curves,
        loss=loss,
        learning_rate=operation.learning_rate,
        gradient_norm=operation.gradient_norm,
        # With the times of the points it tells the sequences a second.
        train_batch_size=tf.constant(batch_size),
    )
    train_op = operation.train_op
    if not use_tpu:  # whose host call gets every shard's
        curves = _mean_curves(curves)
        # A mean over replicas needs all of them: also those that show no curves.
        train_op = tf.group(train_op, *curves.values())
    # A TPU's tensors are out of the reach of hooks.
    progress = ProgressHook(
        schedule.num_train_steps, batch_size, None if use_tpu else curves["loss"]
    )
    return tf.estimator.tpu.TPUEstimatorSpec(
        tf.estimator.ModeKeys.TRAIN,
        loss=loss,
        train_op=train_op,
        training_hooks=[progress],
        host_call=summary_host_call(output_dir, curves),
        scaffold_fn=start_variables(
            output_dir, init_checkpoint, use_tpu, allow_missing
        ),
    )


def _mean_curves(curves):
    """Means of scalars over the replicas, in one reduction; dict by name."""
    names = sorted(curves)
    values = tf.stack([tf.cast(curves[name], tf.float32) for name in names])
    (means,) = optimization.mean_over_replicas([values])
    return dict(zip(names, tf.unstack(means)))


_RECORD_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.DataLossError)
# What the checks of `records`, a gather, a loss or a parser say of a record.
_RECORD_ERROR = re.compile(
    "of a record is not in|valid range|Dataset was empty|values != expected|"
    "Could not parse example|could not be found|Data types don't match"
)


@contextlib.contextmanager
def one_line_errors(input_files, form=None):
    """Turns what can go wrong inside a session into one line.

    Args:
      input_files: list of the TFRecord files that the run reads.
      form: `input_pipeline.Form` of their records, None where it is not known.

    Raises:
      UserError: the loss became NaN, an input file is damaged, or holds records
        that do not fit the model.
    """
    try:
        yield
    except tf.train.NanLossDuringTrainingError as error:
        raise UserError(
            "the loss became NaN; lower --learning_rate (LAMB: scale it by the "
            "square root of batch/4096) or lengthen the warm-up, and start anew or "
            "from a checkpoint before the last"
        ) from error
    except (*_RECORD_ERRORS, UnicodeDecodeError) as error:
        # Python has no text for TensorFlow's where that quotes a damaged record.
        if isinstance(error, tf.errors.InvalidArgumentError):
            if not _RECORD_ERROR.search(error.message):
                raise
        unknown = "{}: a record is damaged or does not fit the model; make it again"
        raise UserError(
            input_pipeline.find_fault(input_files, form)
            or unknown.format(", ".join(input_files))
        ) from error


def train(
    estimator,
    input_fn,
    num_train_steps,
    input_files,
    spread=distribution.ONE_DEVICE,
    form=None,
):
    """Trains up to global step `num_train_steps`, going on where a run stopped.

    Args:
      estimator: of `build_estimator`, or of `build_distributed_estimator`.
      input_fn: the input function.
      num_train_steps: int, the global step to reach.
      input_files: list of the TFRecord files that the run reads.
      spread: the estimator's `distribution.Distribution`.
      form: as `one_line_errors` takes it.

    Raises:
      UserError: as `one_line_errors`, or a worker does not answer.
      Stopped: as `run_steps`.
    """
    latest = checkpoints.latest_checkpoint(estimator.model_dir)
    if latest:
        step = checkpoints.read_step(latest, "--output_dir")
        if step >= num_train_steps:
            _LOGGER.info(
                "%s is at step %d of %d already: nothing left to train; raise the "
                "number of steps or give another --output_dir",
                latest,
                step,
                num_train_steps,
            )
            return
        _LOGGER.info("resuming from %s", latest)
    run_steps(
        estimator,
        input_fn,
        num_train_steps,
        num_train_steps,
        input_files,
        spread,
        form,
    )


def run_steps(
    estimator,
    input_fn,
    max_steps,
    num_train_steps,
    input_files,
    spread=distribution.ONE_DEVICE,
    form=None,
):
    """Trains up to global step `max_steps`, of `num_train_steps` in the whole run.

    Raises:
      UserError: as `one_line_errors`, or a worker does not answer.
      Stopped: SIGTERM arrived; a checkpoint is saved if a step was taken.
    """
    with preemption.SigtermHook() as hook, one_line_errors(input_files, form):
        if spread.cluster:
            distribution.train_workers(estimator, input_fn, max_steps, spread, hook)
        else:
            estimator.train(input_fn=input_fn, max_steps=max_steps, hooks=[hook])
    hook.check(num_train_steps)
