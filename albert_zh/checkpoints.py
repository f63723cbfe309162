"""Checkpoints: restore with a report, find, strip of optimizer slots."""

import collections
import logging
import os
import re

import tensorflow.compat.v1 as tf

from albert_zh.errors import UserError

_LOGGER = logging.getLogger(__name__)

# What a training run saves beside the model: optimizer slots of this repository
# and of the published ones, powers of the bias correction, the step.
_TRAINING_STATE = re.compile(
    r"/(adam_m|adam_v|lamb_m|lamb_v|Adam(_1)?|Momentum)$|beta_?[12]_power|global_step"
)
# The number of updates a checkpoint has seen.
STEP = "global_step"
# Variables of the encoder, without which no task can start from a checkpoint.
_ENCODER = re.compile(r"^(bert|albert)/(embeddings|encoder|pooler)/")


class RestoreReport(
    collections.namedtuple(
        "RestoreReport", ["checkpoint", "restored", "missing", "unused", "parameters"]
    )
):
    """What a checkpoint gives to a graph.

    Attributes:
      checkpoint: its path prefix.
      restored: sorted names of the variables that the checkpoint initializes.
      missing: sorted names of the variables that it lacks, or, outside the encoder,
        has in another shape (a head for other labels); they start anew.
      unused: sorted names of its model variables that the graph lacks; the
        optimizer's state is not counted.
      parameters: int, number of scalars restored.
    """

    def __str__(self):
        lines = [
            "{}: {} variables restored ({:,} parameters), {} missing, {} unused".format(
                self.checkpoint,
                len(self.restored),
                self.parameters,
                len(self.missing),
                len(self.unused),
            )
        ]
        lines += ["  newly initialized: " + name for name in self.missing]
        lines += ["  not used: " + name for name in self.unused]
        return "\n".join(lines)


def is_training_state(name):
    """Whether a variable of this name belongs to the optimizer, not the model."""
    return bool(_TRAINING_STATE.search(name))


def read_shapes(checkpoint, flag="--init_checkpoint"):
    """Returns {variable name: shape list} of a checkpoint.

    Raises:
      UserError: there is no readable checkpoint at that path.
    """
    try:
        return dict(tf.train.list_variables(checkpoint))
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            "{}: no readable TensorFlow checkpoint at {} (expected {}.index "
            "and its .data file beside it)".format(flag, checkpoint, checkpoint)
        ) from error


def check_readable(checkpoint, flag="--init_checkpoint"):
    """Reads every tensor once, so that a damaged file is found before the work.

    Raises:
      UserError: the checkpoint is missing, or a data file is missing or damaged.
    """
    for _ in _iterate_tensors(checkpoint, flag, lambda name: True):
        pass


def plan_restore(checkpoint, variables):
    """Compares a checkpoint with a graph's variables.

    Args:
      checkpoint: path prefix.
      variables: list of the model's variables.

    Returns:
      `RestoreReport`.

    Raises:
      UserError: a variable of the encoder is missing or has another shape.
    """
    saved = read_shapes(checkpoint)
    wanted = {re.sub(r":\d+$", "", v.name): v.shape.as_list() for v in variables}
    restored = sorted(
        name for name in wanted if name in saved and list(saved[name]) == wanted[name]
    )
    missing = sorted(set(wanted) - set(restored))
    for name in missing:
        if is_training_state(name) or not _ENCODER.search(name):
            continue
        raise UserError(
            "{}: {} {}, this config expects {}; give the config that belongs to the "
            "checkpoint".format(
                checkpoint,
                name,
                "has shape {}".format(list(saved[name]))
                if name in saved
                else "is missing",
                wanted[name],
            )
        )
    return RestoreReport(
        checkpoint,
        restored,
        missing,
        [n for n in sorted(set(saved) - set(wanted)) if not is_training_state(n)],
        sum(_size(wanted[name]) for name in restored),
    )


def _size(shape):
    size = 1
    for dimension in shape:
        size *= dimension
    return size


def restore(checkpoint, variables, use_tpu=False):
    """Makes these variables start from a checkpoint, and logs the report.

    Args:
      checkpoint: path prefix.
      variables: list of variables of the graph under construction.
      use_tpu: bool; the restore then runs in the returned scaffold function.

    Returns:
      A `scaffold_fn` for `TPUEstimatorSpec`, None without TPU.

    Raises:
      UserError: as `plan_restore`.
    """
    report = plan_restore(checkpoint, variables)
    for line in str(report).split("\n"):
        _LOGGER.info(line)
    assignment_map = {name: name for name in report.restored}
    if not use_tpu:
        tf.train.init_from_checkpoint(checkpoint, assignment_map)
        return None

    def scaffold_fn():
        tf.train.init_from_checkpoint(checkpoint, assignment_map)
        return tf.train.Scaffold()

    return scaffold_fn


def read_tensors(checkpoint, flag="--init_checkpoint", keep_training_state=False):
    """Reads a checkpoint into memory.

    Args:
      checkpoint: path prefix.
      flag: the flag that named it, for the message.
      keep_training_state: bool; whether the optimizer's slots come along.

    Returns:
      dict variable name -> ndarray, sorted by name; "global_step", if the
      checkpoint has one, is always among them.

    Raises:
      UserError: the checkpoint is missing, or a data file is missing or damaged.
    """
    return dict(
        _iterate_tensors(
            checkpoint,
            flag,
            lambda name: (
                keep_training_state or name == STEP or not is_training_state(name)
            ),
        )
    )


def _iterate_tensors(checkpoint, flag, is_wanted):
    """Yields (name, ndarray) by name; raises `UserError` as `read_tensors`."""
    name = "its data"
    names = sorted(filter(is_wanted, read_shapes(checkpoint, flag)))
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        for name in names:
            yield name, reader.get_tensor(name)
    # TensorFlow 2 raises plain Python errors for some of the damage.
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        raise UserError(
            "{}: {} is damaged: {} cannot be read from its .data file; copy or "
            "download it again".format(flag, checkpoint, name)
        ) from error


def write_tensors(tensors, output_prefix):
    """Writes tensors as a checkpoint.

    The checkpoint appears whole: TensorFlow's saver writes beside the target and
    renames. The directory's `checkpoint` file names it.

    Args:
      tensors: dict variable name -> ndarray.
      output_prefix: path prefix to write, without the step.

    Returns:
      The prefix written: `output_prefix`-STEP, STEP 0 without a "global_step".
    """
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in sorted(tensors.items()):
            placeholder = tf.placeholder(value.dtype, value.shape)
            variable = tf.Variable(
                placeholder, trainable=False, name=name, use_resource=False
            )
            session.run(variable.initializer, {placeholder: value})
        saver = tf.train.Saver(
            tf.global_variables(),
            max_to_keep=1,
            # The directory may be moved or copied.
            save_relative_paths=True,
        )
        return saver.save(
            session,
            output_prefix,
            global_step=int(tensors.get(STEP, 0)),
            write_meta_graph=False,
        )


def write_stripped(checkpoint, output_prefix):
    """Copies a checkpoint without the optimizer's state, a third of its size.

    The global step is kept.

    Returns:
      The prefix written: `output_prefix`-STEP.

    Raises:
      UserError: as `read_tensors`.
    """
    return write_tensors(read_tensors(checkpoint, "--output_dir"), output_prefix)


def latest_checkpoint(directory):
    """Returns the path prefix of the newest checkpoint in a directory, or None.

    Raises:
      UserError: the directory's `checkpoint` file names files that are not there.
    """
    if not tf.io.gfile.isdir(directory):
        return None
    state = tf.train.get_checkpoint_state(directory)
    if state is None:
        return None
    prefix = state.model_checkpoint_path
    if not tf.io.gfile.exists(prefix + ".index"):
        raise UserError(
            "{}: names {}, which is not there".format(
                os.path.join(directory, "checkpoint"), prefix
            )
        )
    return prefix
