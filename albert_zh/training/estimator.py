"""Estimators: built, trained, and their errors said in one line."""

import contextlib
import importlib.util
import logging
import re
import warnings
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

import tensorflow.compat.v1 as tf

import modeling
import optimization
from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline
from albert_zh.models import checkpoints
from albert_zh.training import distribution as distributions
from albert_zh.training import preemption, progress_hook, results

_LOGGER = logging.getLogger(__name__)


# Of a pod, each host feeds so many (TPU v2 and v3).
TPU_CORES_OF_A_HOST = 8


class Schedule(NamedTuple):
    """How training updates the weights.

    Attributes:
      optimizer: one of `optimization.OPTIMIZERS`.
      learning_rate: float, the peak.
      num_train_steps: int, the step at which the schedule and the run end.
      num_warmup_steps: int, steps of linear warm-up.
      batch_size: int, sequences per step, over all devices.
      shape: one of `optimization.SCHEDULES`.
      rate_multipliers: tuple of (regular expression, float), as
        `optimization.create_training_operation` takes it.
    """

    optimizer: str
    learning_rate: float
    num_train_steps: int
    num_warmup_steps: int
    batch_size: int
    shape: str = "linear"
    rate_multipliers: Tuple[Tuple[str, float], ...] = ()

    def check(self):
        """Raises `UserError` for a warm-up that leaves no step to train."""
        if self.num_warmup_steps >= self.num_train_steps:
            raise UserError(
                "--num_warmup_steps {} leaves nothing of --num_train_steps {}; give "
                "more steps or a shorter warm-up".format(
                    self.num_warmup_steps, self.num_train_steps
                )
            )


class Device(NamedTuple):
    """What a session computes on; the default is the CPU or one GPU.

    Attributes:
      use_tpu: bool.
      tpu_name: name or grpc:// address of the TPU, or None.
      tpu_zone, gcp_project: where it is; detected if None.
      master: URL of a TensorFlow master, or None.
      num_tpu_cores: int.
      iterations_per_loop: int, TPU steps between two returns to the host.
    """

    use_tpu: bool = False
    tpu_name: Optional[str] = None
    tpu_zone: Optional[str] = None
    gcp_project: Optional[str] = None
    master: Optional[str] = None
    num_tpu_cores: int = 8
    iterations_per_loop: int = 1000


class Runtime(NamedTuple):
    """On what, and how, a run computes.

    Attributes:
      device: `Device`.
      numerics: `modeling.Numerics`.
      distribution: `distribution.Distribution` of its training.
    """

    device: Device = Device()
    numerics: modeling.Numerics = modeling.FLOAT32
    distribution: distributions.Distribution = distributions.ONE_DEVICE


DEFAULT_RUNTIME = Runtime()


class Start(NamedTuple):
    """What the variables of a run start from.

    Attributes:
      output_dir: the estimator's directory; a checkpoint in it goes first.
      init_checkpoint: path prefix of another checkpoint; None for random weights.
      allow_missing: bool; whether `init_checkpoint` may lack the pooler and the
        pretraining heads.
      anew: names of variables that are not read from `init_checkpoint`.
    """

    output_dir: str
    init_checkpoint: Optional[str] = None
    allow_missing: bool = False
    anew: Tuple[str, ...] = ()


class Saving(NamedTuple):
    """When training saves checkpoints.

    Attributes:
      save_checkpoints_steps: int, steps between two checkpoints.
      keep_checkpoint_max: int, how many are kept.
    """

    save_checkpoints_steps: int = 1000
    keep_checkpoint_max: int = 5


DEFAULT_SAVING = Saving()


class Input(NamedTuple):
    """What a run reads.

    Attributes:
      input_fn: Estimator's input function.
      files: list of the TFRecord files that it reads.
      form: `input_pipeline.Form` of their records, None if it is not known.
    """

    input_fn: Callable[..., Any]
    files: List[str]
    form: Optional[input_pipeline.Form] = None


def set_up_process():
    """Silences what TensorFlow logs and warns of; a command calls it once.

    What matters of it is said by this package, or raised.
    """
    tf.logging.set_verbosity(tf.logging.FATAL)
    # Of Estimator's own way to iterate under a strategy.
    warnings.filterwarnings("ignore", "To make it possible to preserve tf.data options")


def create_device(**settings):
    """Returns the `Device` of settings, a dict of its fields.

    Raises:
      UserError: it is a TPU without a name, or with two, or one that cannot be looked
        up; or this TensorFlow has no Estimator.
    """
    if not hasattr(tf, "estimator"):
        raise UserError(
            "TensorFlow {} has no Estimator; use TensorFlow 2.15 (Python 3.9-3.11) or "
            "1.15 (Python 3.7)".format(tf.__version__)
        )
    device = Device(**settings)
    if device.use_tpu and not (device.tpu_name or device.master):
        raise UserError("--use_tpu needs --tpu_name (or --master)")
    if device.use_tpu and device.tpu_name and device.master:
        raise UserError("--tpu_name and --master exclude each other; remove one")
    if device.use_tpu and device.tpu_name:
        _check_lookup(device.tpu_name)
    return device


def _check_lookup(tpu_name):
    """Raises `UserError` where TensorFlow cannot ask Google Cloud for an address."""
    if "://" in tpu_name or tpu_name == "local":
        return
    for module in ("googleapiclient", "oauth2client"):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                "--tpu_name {}: to find its address, run: pip install "
                "google-api-python-client oauth2client; or give a grpc:// "
                "address".format(tpu_name)
            )


def start_variables(start, use_tpu):
    """Decides in a model function where the variables start; call it last.

    Estimator itself restores a checkpoint in the output directory, the optimizer's
    slots included; it is only compared with the graph here. Without one,
    `init_checkpoint` is restored if given.

    Args:
      start: `Start`.
      use_tpu: bool.

    Returns:
      A `scaffold_fn` or None.

    Raises:
      UserError: the checkpoint does not fit the graph.
    """
    latest = checkpoints.latest_checkpoint(start.output_dir)
    if latest:
        report = checkpoints.compare(latest, tf.global_variables())
        if report.missing:
            raise UserError(
                "--output_dir {} holds a different model ({} has no fitting {}); give "
                "another directory and, to start from that checkpoint, "
                "--init_checkpoint".format(start.output_dir, latest, report.missing[0])
            )
        return None
    if not start.init_checkpoint:
        return None
    variables = [v for v in tf.trainable_variables() if v.op.name not in start.anew]
    return checkpoints.restore(
        start.init_checkpoint, variables, use_tpu, start.allow_missing
    )


def session_config():
    """Returns the `ConfigProto` of every session that computes with a model."""
    return tf.ConfigProto(allow_soft_placement=True)


def build_estimator(
    model_fn, output_dir, device, batch_size, saving=DEFAULT_SAVING, seed=None
):
    """Builds a `TPUEstimator`, which also serves CPU and one GPU.

    Args:
      model_fn: function (features, labels, mode, params) -> TPUEstimatorSpec.
      output_dir: directory of the checkpoints and event files.
      device: `Device`.
      batch_size: int, sequences per step, over all TPU cores, in the one mode that
        the estimator is used in.
      saving: `Saving`.
      seed: int or None, the graph's seed.
    """
    return tf.estimator.tpu.TPUEstimator(
        use_tpu=device.use_tpu,
        model_fn=model_fn,
        config=_run_config(output_dir, device, saving, seed),
        train_batch_size=batch_size,
        eval_batch_size=batch_size,
        predict_batch_size=batch_size,
        # Exports are made without TPU graphs.
        export_to_tpu=False,
    )


def _run_config(output_dir, device, saving, seed):
    """Returns the `RunConfig` of a `TPUEstimator`; arguments as `build_estimator`."""
    resolver = None
    if device.use_tpu and device.tpu_name:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            device.tpu_name, zone=device.tpu_zone, project=device.gcp_project
        )
    return tf.estimator.tpu.RunConfig(
        cluster=resolver,
        master=device.master,
        model_dir=output_dir,
        tf_random_seed=seed,
        session_config=session_config(),
        # Progress and summaries come from this package.
        log_step_count_steps=None,
        save_summary_steps=None,
        tpu_config=tf.estimator.tpu.TPUConfig(
            iterations_per_loop=device.iterations_per_loop,
            num_shards=device.num_tpu_cores,
            per_host_input_for_training=tf.estimator.tpu.InputPipelineConfig.PER_HOST_V2,
        ),
        **saving._asdict(),
    )


def build_distributed_estimator(
    model_fn, output_dir, distribution, batch_size, saving=DEFAULT_SAVING, seed=None
):
    """Builds an `Estimator` that trains on the replicas of a strategy.

    `TPUEstimator`, which serves everything else, takes no strategy.

    Args:
      model_fn: function (features, labels, mode, params) -> TPUEstimatorSpec.
      output_dir: directory of checkpoints and event files, which all workers see.
      distribution: `distribution.Distribution` with a strategy.
      batch_size: int, sequences per step, over all replicas.
      saving: `Saving`.
      seed: int or None, the graph's seed.
    """

    def replica_model_fn(features, labels, mode, params):
        spec = model_fn(features, labels, mode, params)
        if not distribution.is_chief:
            spec = spec._replace(host_call=None, training_hooks=())
            return spec.as_estimator_spec()
        if not distributions.is_first_replica():
            # Only the first one's hooks run, but all have to have as many.
            spec = spec._replace(host_call=(lambda *given: given, spec.host_call[1]))
        saver = tf.train.CheckpointSaverHook(
            output_dir, save_steps=saving.save_checkpoints_steps
        )
        return spec.as_estimator_spec()._replace(training_chief_hooks=[saver])

    return tf.estimator.Estimator(
        replica_model_fn,
        config=tf.estimator.RunConfig(
            model_dir=output_dir,
            train_distribute=distribution.strategy,
            session_config=session_config(),
            # Estimator would let every worker write checkpoints, and forget them
            # where no summaries are saved: only the chief has the hook above.
            save_checkpoints_steps=None,
            save_checkpoints_secs=None,
            keep_checkpoint_max=saving.keep_checkpoint_max,
            # Dropout differs by worker; the variables start from the chief's.
            tf_random_seed=None if seed is None else seed + distribution.rank,
            log_step_count_steps=None,
            save_summary_steps=None,
        ),
        params={"batch_size": batch_size // distribution.num_replicas},
    )


def training_spec(
    loss, curves, schedule, start, use_tpu=False, gradients=None, use_xla=False
):
    """Completes a model function for training: restore, update, progress, curves.

    Args:
      loss: float32 scalar tensor.
      curves: dict name -> scalar tensor, what TensorBoard shows beside the loss,
        the learning rate and the gradients' norm.
      schedule: `Schedule`.
      start: `Start`.
      use_tpu: bool.
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
        schedule=schedule.shape,
        rate_multipliers=schedule.rate_multipliers,
    )
    curves = dict(
        curves,
        loss=loss,
        learning_rate=operation.learning_rate,
        gradient_norm=operation.gradient_norm,
        # With the times of the points it gives the sequences per second.
        train_batch_size=tf.constant(schedule.batch_size),
    )
    train_op = operation.train_op
    if not use_tpu:  # whose host call gets every shard's
        curves = results.mean_curves(curves)
        # A mean over replicas needs all of them: also those that show no curves.
        train_op = tf.group(train_op, *curves.values())
    # A TPU's tensors are out of the reach of hooks.
    shown_loss = None if use_tpu else curves["loss"]
    progress = progress_hook.ProgressHook(
        schedule.num_train_steps, schedule.batch_size, shown_loss
    )
    return tf.estimator.tpu.TPUEstimatorSpec(
        tf.estimator.ModeKeys.TRAIN,
        loss=loss,
        train_op=train_op,
        training_hooks=[progress],
        host_call=results.summary_host_call(start.output_dir, curves),
        scaffold_fn=start_variables(start, use_tpu),
    )


_RECORD_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.DataLossError)
# What the checks of `input_pipeline`, a gather, a loss or a parser say of a record.
_RECORD_ERROR = re.compile(
    "of a record is not in|valid range|Dataset was empty|values != expected|"
    "Could not parse example|could not be found|Data types don't match"
)


# What TensorFlow says where a file cannot be written to its end.
_STORAGE_ERROR = re.compile(
    r"(?:(?:^|\s)(/[^\n;]*|\S+); )?"
    "(No space left on device|Disk quota exceeded|File too large)"
)


@contextlib.contextmanager
def one_line_errors(input_files, form=None):
    """Turns errors of a session into one line each.

    Args:
      input_files: list of the TFRecord files that the run reads.
      form: `input_pipeline.Form` of their records, None where it is not known.

    Raises:
      UserError: the loss became NaN, the disk is full, the memory does not suffice, an
        input file is damaged, or holds records that do not fit the model.
    """
    try:
        yield
    except tf.train.NanLossDuringTrainingError as error:
        raise UserError(
            "the loss became NaN; lower --learning_rate (LAMB: scale it by the "
            "square root of batch/4096) or lengthen the warm-up, and start anew or "
            "from a checkpoint before the last"
        ) from error
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        full = _STORAGE_ERROR.search(getattr(error, "message", ""))
        if full:
            raise UserError(
                "cannot write {}: {}; make room and rerun the same command, which goes "
                "on from the last checkpoint".format(
                    full.group(1) or "a file", full.group(2)
                )
            ) from error
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise UserError(
                "the device's memory is too small ({}); give a smaller batch "
                "(--train_batch_size or, in pretraining, --micro_batch_size; "
                "--eval_batch_size; --predict_batch_size), a smaller --max_seq_length, "
                "or --recompute=layers".format(error.message.split("\n")[0][:200])
            ) from error
        if not isinstance(error, (*_RECORD_ERRORS, UnicodeDecodeError)):
            raise
        # Python has no text for TensorFlow's where that quotes a damaged record.
        if isinstance(error, tf.errors.InvalidArgumentError):
            if not _RECORD_ERROR.search(error.message):
                raise
        unknown = "{}: a record is damaged or does not fit the model; make it again"
        raise UserError(
            input_pipeline.find_fault(input_files, form)
            or unknown.format(", ".join(input_files))
        ) from error


def train(estimator, given, num_train_steps, distribution=distributions.ONE_DEVICE):
    """Trains up to global step `num_train_steps`, resuming a run that was stopped.

    Args:
      estimator: of `build_estimator`, or of `build_distributed_estimator`.
      given: `Input`.
      num_train_steps: int, the global step to reach.
      distribution: the estimator's `distribution.Distribution`.

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
    run_steps(estimator, given, num_train_steps, num_train_steps, distribution)


def run_steps(
    estimator,
    given,
    max_steps,
    num_train_steps,
    distribution=distributions.ONE_DEVICE,
):
    """Trains up to global step `max_steps`, of `num_train_steps` in the whole run.

    Args:
      estimator: as `train` takes it.
      given: `Input`.
      max_steps: int, the global step to reach now.
      num_train_steps: int, the global step at which the run ends.
      distribution: as `train` takes it.

    Raises:
      UserError: as `one_line_errors`, or a worker does not answer.
      Stopped: SIGTERM or Ctrl-C arrived; a checkpoint is saved if a step was taken.
    """
    with preemption.StopHook() as hook, one_line_errors(given.files, given.form):
        if distribution.cluster:
            distributions.train_workers(
                estimator, given.input_fn, max_steps, distribution, hook
            )
        else:
            estimator.train(given.input_fn, max_steps=max_steps, hooks=[hook])
    hook.check(num_train_steps)
