"""Checkpoints: restore with a report, find, strip of optimizer slots."""

import collections
import logging
import os
import re

import numpy as np
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
_DATA_FILE = re.compile(r"^(?P<prefix>.+)\.data-\d{5}-of-(?P<shards>\d{5})$")
# Variables of the encoder, without which no task can start from a checkpoint.
_ENCODER = re.compile(r"^(bert|albert)/(embeddings|encoder)/")
# Variables that pretraining leaves beside the encoder's; some published checkpoints
# have lost them. All others belong to a task and are new to it.
_PRETRAINED = re.compile(r"^((bert|albert)/pooler|cls)/")


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


def prefix_of(path):
    """Returns the prefix of a checkpoint's .index or .data file, None for others."""
    if path.endswith(".index"):
        return path[: -len(".index")]
    match = _DATA_FILE.match(path)
    return match.group("prefix") if match else None


def find_files(checkpoint):
    """Returns the paths of a checkpoint's .index and .data files that are there."""
    directory, name = os.path.split(checkpoint)
    return [
        os.path.join(directory, present)
        for present in sorted(tf.io.gfile.listdir(directory or "."))
        if prefix_of(present) == name
    ]


def missing_files(checkpoint):
    """Returns the paths of a checkpoint's .index and .data files that are not there.

    How many .data files there are is told by the name of any of them.
    """
    present = find_files(checkpoint)
    matches = filter(None, map(_DATA_FILE.match, present))
    num_shards = max([int(match.group("shards")) for match in matches], default=1)
    expected = [checkpoint + ".index"] + [
        "{}.data-{:05d}-of-{:05d}".format(checkpoint, shard, num_shards)
        for shard in range(num_shards)
    ]
    return [path for path in expected if path not in present]


def check_readable(checkpoint, flag="--init_checkpoint"):
    """Reads every tensor once, so that a damaged file is found before the work.

    Raises:
      UserError: the checkpoint is missing, or a data file is missing or damaged.
    """
    for _ in _iterate_tensors(checkpoint, flag, lambda name: True):
        pass


def compare(checkpoint, variables):
    """Compares a checkpoint with a graph's variables.

    Args:
      checkpoint: path prefix.
      variables: list of variables.

    Returns:
      `RestoreReport`.

    Raises:
      UserError: there is no readable checkpoint.
    """
    saved, wanted = read_shapes(checkpoint), _shapes_of(variables)
    restored = sorted(
        name for name in wanted if name in saved and list(saved[name]) == wanted[name]
    )
    return RestoreReport(
        checkpoint,
        restored,
        sorted(set(wanted) - set(restored)),
        [n for n in sorted(set(saved) - set(wanted)) if not is_training_state(n)],
        count_parameters({name: wanted[name] for name in restored}),
    )


def plan_restore(checkpoint, variables, allow_missing=False):
    """Compares a checkpoint with the variables of a model that is to start from it.

    Args:
      checkpoint: path prefix.
      variables: list of the model's variables.
      allow_missing: bool; whether the pooler and the pretraining heads may be
        absent. Another shape of theirs, and a missing variable of the embeddings or
        the layers, is an error in any case; a task's own head never is.

    Returns:
      `RestoreReport`.

    Raises:
      UserError: a variable that pretraining leaves is missing or has another shape.
    """
    report = compare(checkpoint, variables)
    saved, wanted = read_shapes(checkpoint), _shapes_of(variables)
    lacking = []
    for name in report.missing:
        if is_training_state(name):
            continue
        if _PRETRAINED.search(name) and name not in saved:
            lacking.append(name)
        elif _PRETRAINED.search(name) or _ENCODER.search(name):
            raise UserError(
                "{}: {} {}, this config expects {}; give the config that belongs to "
                "the checkpoint".format(
                    checkpoint,
                    name,
                    "has shape {}".format(list(saved[name]))
                    if name in saved
                    else "is missing",
                    wanted[name],
                )
            )
    if lacking and not allow_missing:
        raise UserError(
            "{}: it lacks {}; give a checkpoint that has them, or --allow_missing to "
            "initialize them newly".format(checkpoint, _summarize(lacking))
        )
    return report


def _shapes_of(variables):
    return {re.sub(r":\d+$", "", v.name): v.shape.as_list() for v in variables}


def _summarize(names):
    """Names by their first two scopes: "cls/predictions (5 variables), ..."."""
    counts = collections.Counter("/".join(name.split("/")[:2]) for name in names)
    return ", ".join(
        "{} ({} variables)".format(scope, count)
        for scope, count in sorted(counts.items())
    )


def count_parameters(shapes):
    """Returns the number of scalars in variables, a dict name -> list of int."""
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())


def restore(checkpoint, variables, use_tpu=False, allow_missing=False):
    """Makes these variables start from a checkpoint, and logs the report.

    Args:
      checkpoint: path prefix.
      variables: list of variables of the graph under construction.
      use_tpu: bool; the restore then runs in the returned scaffold function.
      allow_missing: as `plan_restore` takes it.

    Returns:
      A `scaffold_fn` for `TPUEstimatorSpec`, None without TPU.

    Raises:
      UserError: as `plan_restore`.
    """
    report = plan_restore(checkpoint, variables, allow_missing)
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


def read_step(checkpoint, flag="--init_checkpoint"):
    """Returns the number of updates a checkpoint has seen, None if it has no step.

    Raises:
      UserError: as `read_tensors`.
    """
    step = dict(_iterate_tensors(checkpoint, flag, lambda name: name == STEP))
    return int(step[STEP]) if step else None


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
        missing = missing_files(checkpoint)
        if missing:
            raise UserError(
                "{}: {} is missing; copy or download the checkpoint again".format(
                    flag, missing[0]
                )
            ) from error
        raise UserError(
            "{}: {} is damaged: {} cannot be read from its .data file; copy or "
            "download it again".format(flag, checkpoint, name)
        ) from error


def write_tensors(tensors, output_prefix):
    """Writes tensors as a checkpoint.

    The checkpoint appears whole: TensorFlow's saver writes beside the target and
    renames. The directory's `checkpoint` file names it.

    Args:
      tensors: dict variable name -> ndarray; without a "global_step" it is 0.
      output_prefix: path prefix to write, without the step.

    Returns:
      The prefix written: `output_prefix`-STEP.
    """
    # Estimator reads no checkpoint without a step.
    tensors = dict({STEP: np.int64(0)}, **tensors)
    with tf.Graph().as_default(), tf.Session() as session:
        values = {}
        for name, value in sorted(tensors.items()):
            placeholder = tf.placeholder(value.dtype, value.shape)
            values[placeholder] = value
            tf.Variable(placeholder, trainable=False, name=name, use_resource=False)
        session.run(tf.global_variables_initializer(), values)
        saver = tf.train.Saver(
            tf.global_variables(),
            max_to_keep=1,
            # The directory may be moved or copied.
            save_relative_paths=True,
        )
        return saver.save(
            session,
            output_prefix,
            global_step=int(tensors[STEP]),
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


def named_checkpoint(directory):
    """Returns the prefix that a directory's `checkpoint` file names; None without one.

    Raises:
      UserError: the file names none.
    """
    try:
        state = tf.train.get_checkpoint_state(directory)
    except ValueError as error:
        raise UserError(
            "{}: names no checkpoint; delete this file".format(
                os.path.join(directory, "checkpoint")
            )
        ) from error
    return None if state is None else state.model_checkpoint_path


def latest_checkpoint(directory):
    """Returns the path prefix of the newest checkpoint in a directory, or None.

    Raises:
      UserError: the directory's `checkpoint` file names files that are not there.
    """
    if not tf.io.gfile.isdir(directory):
        return None
    prefix = named_checkpoint(directory)
    if prefix is not None and not tf.io.gfile.exists(prefix + ".index"):
        raise UserError(
            "{}: names {}, which is not there".format(
                os.path.join(directory, "checkpoint"), prefix
            )
        )
    return prefix
