"""Estimators: built, trained, and their errors said in one line."""

import collections
import contextlib
import logging
import re
import warnings

import tensorflow.compat.v1 as tf

import optimization
from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline
from albert_zh.models import checkpoints
from albert_zh.training import distribution, preemption, results
from albert_zh.training.progress_hook import ProgressHook

_LOGGER = logging.getLogger(__name__)

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
        curves = results.mean_curves(curves)
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
        host_call=results.summary_host_call(output_dir, curves),
        scaffold_fn=start_variables(
            output_dir, init_checkpoint, use_tpu, allow_missing
        ),
    )


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
