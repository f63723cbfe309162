"""Checkpoints: find, read, restore with a report, copy without optimizer state."""

import collections
import hashlib
import logging
import os
import re

import numpy as np

import modeling
from albert_zh.base import children, files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import bundles, checkpoint_state

_LOGGER = logging.getLogger(__name__)

# Variables of training, not of the model: optimizer slots of this repository and of
# the published ones, powers of the bias correction, the step.
_TRAINING_STATE = re.compile(
    r"/(adam_m|adam_v|lamb_m|lamb_v|Adam(_1)?|Momentum)$|beta_?[12]_power|global_step"
)
# The number of updates a checkpoint has seen.
STEP = "global_step"
# Estimator's names for a run's checkpoints, such as "model.ckpt-1000.index".
_RUN_PREFIX = "model.ckpt"
_OF_A_RUN = re.compile(r"^model\.ckpt-([0-9]+)\.(index|data-[0-9]{5}-of-[0-9]{5})\Z")
_DATA_FILE = re.compile(r"^(?P<prefix>.+)\.data-\d{5}-of-(?P<shards>\d{5})$")
# Variables of the encoder; a task cannot start from a checkpoint without them.
_ENCODER = re.compile(r"^(bert|albert)/(embeddings|encoder)/")
# Further variables of pretraining, which some published checkpoints lack. All others
# belong to a task and start untrained.
_PRETRAINED = re.compile(r"^((bert|albert)/pooler|cls/(predictions|seq_relationship))/")


class RestoreReport(
    collections.namedtuple(
        "RestoreReport", ["checkpoint", "restored", "missing", "unused", "parameters"]
    )
):
    """Which variables of a graph a checkpoint initializes.

    Attributes:
      checkpoint: its path prefix.
      restored: sorted names of the variables that the checkpoint initializes.
      missing: sorted names of the variables that it lacks, or, outside the encoder,
        has in another shape (a head for other labels); they are newly initialized.
      unused: sorted names of its model variables that the graph lacks, without the
        optimizer's state.
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


def read_variables(checkpoint, flag="--init_checkpoint"):
    """Reads types, shapes and places of the variables from a checkpoint's .index file.

    Args:
      checkpoint: path prefix, or a directory that names one.
      flag: the flag that named it, for messages.

    Returns:
      dict variable name -> `bundles.Tensor`; the names are those of `modeling`
      (`modeling.usual_names`), the tensor has the one in the file.

    Raises:
      UserError: there is no readable checkpoint at that path.
    """
    return _read_index(checkpoint, flag).tensors


def read_shapes(checkpoint, flag="--init_checkpoint"):
    """Returns {variable name: shape list} of a checkpoint; as `read_variables`."""
    variables = read_variables(checkpoint, flag)
    return {name: list(tensor.shape) for name, tensor in variables.items()}


def _read_index(checkpoint, flag):
    """Returns the `bundles.Index`; raises `UserError` as `read_variables`."""
    prefix = prefix_at(checkpoint)
    reason = "expected {}.index and its .data file beside it".format(prefix)
    if prefix and files.exists(prefix + ".index"):
        try:
            index = bundles.read_index(prefix + ".index")
            new = modeling.usual_names(index.tensors)
            tensors = {new[name]: held for name, held in index.tensors.items()}
            return index._replace(tensors=tensors)
        except bundles.BundleError as error:
            reason = "{}.index is damaged or malicious: {}; copy or download it again"
            reason = reason.format(prefix, error)
    raise UserError(
        "{}: no readable TensorFlow checkpoint at {} ({})".format(
            flag, checkpoint, reason
        )
    )


def fingerprint(checkpoint):
    """Returns a SHA-256, in hex, that all values of a checkpoint decide.

    It is that of the .index file, which has a checksum of every variable.

    Raises:
      UserError: as `read_variables`.
    """
    read_variables(checkpoint)
    content = files.read_bytes(prefix_at(checkpoint) + ".index")
    return hashlib.sha256(content).hexdigest()


def prefix_at(path):
    """Returns a path prefix; for a directory, the one its `checkpoint` file names."""
    if files.is_directory(path):
        return named_checkpoint(path) or path
    return without_ending(path)


def without_ending(path):
    """Returns the path prefix if a path is one of a checkpoint's files, else the path.

    "model.ckpt-4.index", "model.ckpt-4.meta" and "model.ckpt-4.data-00000-of-00001" all
    stand for "model.ckpt-4".
    """
    meta = path[: -len(".meta")] if path.endswith(".meta") else None
    prefix = prefix_of(path) or meta
    is_file = (
        prefix and files.exists(prefix + ".index") and not files.exists(path + ".index")
    )
    return prefix if is_file else path


def prefix_of(path):
    """Returns the prefix of a checkpoint's .index or .data file, None for others.

    macOS adds a file ._NAME to every file of an archive or a foreign disk.
    """
    if os.path.basename(path).startswith("._"):
        return None
    if path.endswith(".index"):
        return path[: -len(".index")]
    match = _DATA_FILE.match(path)
    return match.group("prefix") if match else None


def find_files(checkpoint):
    """Returns the paths of a checkpoint's existing .index and .data files."""
    directory, name = os.path.split(checkpoint)
    return [
        os.path.join(directory, present)
        for present in files.list_directory(directory or ".")
        if prefix_of(present) == name
    ]


def missing_files(checkpoint):
    """Returns the paths of a checkpoint's missing .index and .data files.

    The name of each .data file has the number of .data files.
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
    """Reads every tensor once, to find a damaged file before the work.

    Some files crash TensorFlow's reader, so it runs in a copy of this process.

    Args:
      checkpoint: path prefix.
      flag: the flag that named it, for messages.

    Raises:
      UserError: the checkpoint is missing, a data file is missing or damaged, or a
        variable holds NaN or infinity.
    """
    _try(checkpoint, flag, is_finite=True)


# What `_try` has verified: (stamps of the files, whether values must be finite).
_TRIED = set()


def _try(checkpoint, flag, is_finite):
    """Reads every tensor in a copy of this process, once for each checkpoint.

    Args:
      checkpoint: path prefix.
      flag: the flag that named it, for messages.
      is_finite: bool; whether the values must be finite.

    Raises:
      UserError: as `check_readable`.
    """
    _read_index(checkpoint, flag)
    checkpoint = prefix_at(checkpoint)
    stamps = _stamps(checkpoint)
    if (stamps, True) in _TRIED or (stamps, is_finite) in _TRIED:
        return

    def read_all(sign_of_life):
        for name, value in _iterate_tensors(checkpoint, flag, lambda name: True):
            sign_of_life()
            if is_finite:
                check_finite("{}: {}".format(flag, checkpoint), name, value)

    _call(read_all, checkpoint, flag)
    _TRIED.add((stamps, is_finite))


def _stamps(checkpoint):
    return tuple((path, files.stamp(path)) for path in find_files(checkpoint))


def _call(work, checkpoint, flag):
    """`children.call`; raises `UserError` if the checkpoint crashes the copy."""
    try:
        return children.call(work)
    except children.Died as died:
        raise UserError(
            "{}: {} is damaged or malicious: TensorFlow cannot read it ({}); copy or "
            "download it again".format(flag, checkpoint, died)
        ) from died


def check_finite(source, name, value):
    """Raises `UserError` if a variable has NaN or infinity.

    Args:
      source: the checkpoint, for the message.
      name: name of the variable.
      value: its value, an ndarray.
    """
    if not np.issubdtype(value.dtype, np.floating):
        return
    number = value.size - np.count_nonzero(np.isfinite(value))
    if number:
        raise UserError(
            "{}: {} holds NaN or infinity ({:,} of {:,} values): its training failed; "
            "give an earlier checkpoint".format(source, name, number, value.size)
        )


def compare(checkpoint, variables):
    """Compares a checkpoint with a graph's variables.

    Args:
      checkpoint: path prefix.
      variables: list of variables.

    Returns:
      `RestoreReport`.

    Raises:
      UserError: there is no readable checkpoint, or a variable is of another type.
    """
    held, wanted = read_variables(checkpoint), _shapes_of(variables)
    _check_types(checkpoint, held, variables)
    saved = {name: list(tensor.shape) for name, tensor in held.items()}
    restored = sorted(
        name for name in wanted if name in saved and saved[name] == wanted[name]
    )
    return RestoreReport(
        checkpoint,
        restored,
        sorted(set(wanted) - set(restored)),
        [n for n in sorted(set(saved) - set(wanted)) if not is_training_state(n)],
        count_parameters({name: wanted[name] for name in restored}),
    )


def plan_restore(checkpoint, variables, allow_missing=False):
    """Compares a checkpoint with the variables of a model to initialize from it.

    A missing head of a task is never an error. Missing embeddings or layers, and
    variables of pretraining with another shape, always are.

    Args:
      checkpoint: path prefix.
      variables: list of the model's variables.
      allow_missing: bool; whether the pooler and the pretraining heads may be absent.

    Returns:
      `RestoreReport`.

    Raises:
      UserError: a variable of pretraining is missing or has another shape.
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
                    "has shape {}".format(saved[name])
                    if name in saved
                    else "is missing",
                    wanted[name],
                )
            )
    if lacking and not allow_missing:
        raise UserError(
            "{}: lacks {}; give a checkpoint that has them, or --allow_missing to "
            "start with random values".format(checkpoint, _summarize(lacking))
        )
    return report


def _shapes_of(variables):
    return {_name_of(variable): variable.shape.as_list() for variable in variables}


def _name_of(variable):
    return re.sub(r":\d+$", "", variable.name)


def _check_types(checkpoint, held, variables):
    """Raises `UserError` if a variable to restore has another type."""
    for variable in variables:
        name, expected = _name_of(variable), variable.dtype.base_dtype
        if name in held:
            check_type(checkpoint, name, held[name].dtype, expected)


def check_type(source, name, dtype, expected=None):
    """Raises `UserError` if a checkpoint's variable does not have the expected type.

    TensorFlow restores variables only in the type that was saved.

    Args:
      source: the checkpoint, for the message.
      name: name of the variable.
      dtype: its `tf.DType`.
      expected: `tf.DType`; None for float32.
    """
    expected = tf.float32 if expected is None else expected
    if dtype != expected:
        raise UserError(
            "{0}: {1} is {2}, expected {3}; give a checkpoint saved as {3}".format(
                source, name, dtype.name, expected.name
            )
        )


def _summarize(names):
    """Groups names by their first two scopes: "cls/predictions (5 variables), ..."."""
    counts = collections.Counter("/".join(name.split("/")[:2]) for name in names)
    return ", ".join(
        "{} ({} variables)".format(scope, count)
        for scope, count in sorted(counts.items())
    )


def count_parameters(shapes):
    """Returns the number of scalars in a dict variable name -> shape list."""
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())


def restore(checkpoint, variables, use_tpu=False, allow_missing=False):
    """Initializes variables from a checkpoint, and logs the report.

    Args:
      checkpoint: path prefix.
      variables: list of variables of the graph under construction.
      use_tpu: bool; the returned scaffold function then restores.
      allow_missing: as in `plan_restore`.

    Returns:
      A `scaffold_fn` for `TPUEstimatorSpec`, None without TPU.

    Raises:
      UserError: as `plan_restore`.
    """
    report = plan_restore(checkpoint, variables, allow_missing)
    for line in str(report).split("\n"):
        _LOGGER.info(line)
    held = read_variables(checkpoint)
    checkpoint = prefix_at(checkpoint)
    assignment_map = {held[name].name: name for name in report.restored}
    if not use_tpu:
        tf.train.init_from_checkpoint(checkpoint, assignment_map)
        return None

    def scaffold_fn():
        tf.train.init_from_checkpoint(checkpoint, assignment_map)
        return tf.train.Scaffold()

    return scaffold_fn


def read_tensors(
    checkpoint, flag="--init_checkpoint", keep_training_state=False, is_ours=False
):
    """Reads a checkpoint into memory.

    Args:
      checkpoint: path prefix.
      flag: the flag that named it, for messages.
      keep_training_state: bool; whether to read the optimizer's slots, too.
      is_ours: bool; whether this process wrote it; it is then not read in a copy of
        the process first.

    Returns:
      dict variable name -> ndarray, sorted by name; always with "global_step", if
      the checkpoint has it.

    Raises:
      UserError: the checkpoint is missing, a data file is missing or damaged, or the
        step is not a number of updates.
    """
    if not is_ours:
        _try(checkpoint, flag, is_finite=False)
        read_step(checkpoint, flag)
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
      UserError: as `read_tensors`, or the step is not a number of updates.
    """
    held = read_variables(checkpoint, flag).get(STEP)
    if held is None:
        return None
    found = "{} of shape {}".format(held.dtype.name, list(held.shape))
    if held.dtype.is_integer and not held.shape:
        step = _read_integer(checkpoint, flag, STEP)
        if 0 <= step < 2**63:
            return step
        found = str(step)
    raise UserError(
        "{}: {}: its {} is {}, expected one integer of at least 0; give another "
        "checkpoint".format(flag, checkpoint, STEP, found)
    )


def _read_integer(checkpoint, flag, name):
    """Returns the value of a variable; reads it in a copy of the process if untried."""

    def read(sign_of_life):
        ((_, value),) = _iterate_tensors(checkpoint, flag, lambda held: held == name)
        return int(value)

    stamps = _stamps(prefix_at(checkpoint))
    if {(stamps, True), (stamps, False)} & _TRIED:
        return read(lambda: None)
    return _call(read, checkpoint, flag)


def _iterate_tensors(checkpoint, flag, is_wanted):
    """Yields (name, ndarray) by name; raises `UserError` as `read_tensors`.

    Strings are skipped: no model has any, and the index lacks their length.
    """
    name = "its data"
    index = _read_index(checkpoint, flag)
    checkpoint = prefix_at(checkpoint)
    names = [
        name
        for name, tensor in sorted(index.tensors.items())
        if is_wanted(name) and tensor.dtype != tf.string
    ]
    _check_data(checkpoint, flag, index, names)
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        for name in names:
            yield name, reader.get_tensor(index.tensors[name].name)
    except UnicodeEncodeError as error:
        raise UserError(
            "{}: {!r} is not UTF-8; rename it".format(flag, checkpoint)
        ) from error
    # For some damage TensorFlow 2 raises plain Python errors.
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        raise _damaged(checkpoint, flag, name) from error


def _check_data(checkpoint, flag, index, names):
    """Raises `UserError` if the .data files do not match the index."""
    sizes = {}
    for path in find_files(checkpoint):
        files.require_regular(path)
        sizes[path] = files.size(path)
    for name in names:
        tensor = index.tensors[name]
        path = "{}.data-{:05d}-of-{:05d}".format(
            checkpoint, tensor.shard, index.num_shards
        )
        if path not in sizes:
            raise UserError(
                "{}: {} is missing; copy or download the checkpoint again".format(
                    flag, path
                )
            )
        if tensor.offset + tensor.size > sizes[path]:
            raise _damaged(checkpoint, flag, name)


def _damaged(checkpoint, flag, name):
    return UserError(
        "{}: {} is damaged: {} cannot be read from its .data file; copy or "
        "download it again".format(flag, checkpoint, name)
    )


def write_tensors(tensors, output_prefix, names_it=True):
    """Writes tensors as a checkpoint, and the directory's `checkpoint` file.

    The checkpoint appears whole: TensorFlow's saver writes beside the target and
    renames.

    Args:
      tensors: dict variable name -> ndarray; "global_step" is 0 if absent.
      output_prefix: path prefix without the step.
      names_it: whether that file is to name it.

    Returns:
      The path prefix written, `output_prefix`-STEP.

    Raises:
      UserError: it cannot be written.
    """
    # Estimator requires a step of this type.
    step = int(tensors.get(STEP, 0))
    tensors = dict(tensors, **{STEP: np.int64(step)})
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
        try:
            return saver.save(
                session,
                output_prefix,
                global_step=step,
                write_meta_graph=False,
                write_state=names_it,
            )
        except tf.errors.OpError as error:
            reason = printable(error.message)
            raise files.cannot_write(output_prefix, reason) from error


def write_stripped(checkpoint, output_prefix):
    """Copies a checkpoint of this process without the optimizer's state.

    The copy has a third of the size. It keeps the global step. Its directory's
    `checkpoint` file does not name it: see `name_only`.

    Returns:
      The path prefix written, `output_prefix`-STEP.

    Raises:
      UserError: as `read_tensors`.
    """
    tensors = read_tensors(checkpoint, "--output_dir", is_ours=True)
    return write_tensors(tensors, output_prefix, names_it=False)


def name_only(checkpoint):
    """Makes a checkpoint the only one of a run in its directory.

    Args:
      checkpoint: path prefix. The directory's `checkpoint` file names it; the files of
        others are removed.
    """
    directory, name = os.path.split(checkpoint)
    if named_checkpoint(directory) != checkpoint:
        checkpoint_state.write(checkpoint_state.State(name, [name]), directory)
    for found in run_files(directory):
        if not found.startswith(name + "."):
            files.remove(os.path.join(directory, found))


def named_checkpoint(directory):
    """Returns the prefix that a directory's `checkpoint` file names; None without one.

    Raises:
      UserError: the file names none, or cannot be read.
    """
    try:
        state = checkpoint_state.read(directory)
    except checkpoint_state.StateError as error:
        raise UserError("{}; delete this file".format(error)) from error
    return None if state is None else os.path.join(directory, state.newest)


def named_step(directory):
    """Returns the step in the name of `named_checkpoint`; None where there is none."""
    match = re.search(r"-([0-9]+)\Z", named_checkpoint(directory) or "")
    return match and int(match.group(1))


def latest_checkpoint(directory):
    """Returns the checkpoint that training in a directory resumes from, or None.

    Finds what Estimator restores by itself, the one that the `checkpoint` file names:
    another choice here would not change the restored weights. If the directory was
    moved or copied, that is the checkpoint of this name beside the file;
    `resume_step` then corrects the file.

    Raises:
      UserError: the directory has checkpoints of a run, but its `checkpoint` file
        is unusable or was not written by a run; the message says how to resume.
    """
    if not files.is_directory(directory):
        return None
    try:
        state = _run_state(directory)
    except checkpoint_state.StateError as error:
        raise UserError(
            "--output_dir: {}; {}".format(error, _how_to_resume(directory))
        ) from error
    return None if state is None else os.path.join(directory, state.newest)


def _run_state(directory):
    """Returns the `checkpoint_state.State` of a run, with paths inside its directory.

    Returns:
      None if the directory has no run.

    Raises:
      checkpoint_state.StateError: the `checkpoint` file cannot be used.
      UserError: it names a model to start from.
    """
    path = os.path.join(directory, checkpoint_state.FILE)
    state = checkpoint_state.read(directory)
    if state is None:
        if not run_files(directory):
            return None
        state = _state_of_first_save(directory)
        if state is None:
            raise checkpoint_state.StateError(
                "{} is missing, although there are checkpoints".format(path)
            )
    outside = _first_outside(state, directory)
    if outside:
        moved = checkpoint_state.brought_along(state, directory)
        prefix = os.path.join(directory, (moved or state).newest)
        if files.exists(prefix + ".index"):
            # A copied model directory has such a file, too.
            _check_has_step(prefix, directory)
        if moved is None:
            raise checkpoint_state.StateError(
                "{}: names {!r}, which is not in {}".format(path, outside, directory)
            )
        state = moved
    prefix = os.path.join(directory, state.newest)
    if not files.exists(prefix + ".index"):
        raise checkpoint_state.StateError(
            "{}: names {}, which does not exist".format(path, prefix)
        )
    return state


def _state_of_first_save(directory):
    """The `State` of a run that was killed before it wrote its first one, or None.

    There is one checkpoint then, and it is whole.
    """
    steps = {_OF_A_RUN.match(name).group(1) for name in run_files(directory)}
    newest = _newest_whole(directory) if len(steps) == 1 else None
    return newest and checkpoint_state.State(newest, [newest])


def _first_outside(state, directory):
    """Returns the first path of a state that is not in the directory, or None.

    A saver deletes old checkpoints of those it keeps: they must be its own.
    """
    for named in [state.newest] + state.kept:
        if not checkpoint_state.is_inside(named, directory):
            return named
    return None


def run_files(directory):
    """Returns the sorted names of the checkpoint files of a run in a directory."""
    names = files.list_directory(directory)
    return sorted(filter(_OF_A_RUN.match, names))


def _how_to_resume(directory):
    """Says how to resume training in a directory from its newest usable checkpoint."""
    path = os.path.join(directory, checkpoint_state.FILE)
    newest = _newest_whole(directory)
    if newest:
        return (
            "the newest whole checkpoint is {0}: to resume from it, make {1} a file "
            'with this one line: model_checkpoint_path: "{0}"; or choose another '
            "--output_dir".format(newest, path)
        )
    if run_files(directory):
        return (
            "no checkpoint is whole: choose another --output_dir, or remove {}-* and "
            "{} to start over".format(os.path.join(directory, _RUN_PREFIX), path)
        )
    return "choose another --output_dir, or remove {} to start over".format(path)


def _newest_whole(directory):
    """Returns the name of the newest checkpoint that a run can resume from, or None."""
    steps = {int(_OF_A_RUN.match(name).group(1)) for name in run_files(directory)}
    for step in sorted(steps, reverse=True):
        name = "{}-{}".format(_RUN_PREFIX, step)
        try:
            _check_resumable(os.path.join(directory, name), directory)
        except UserError:
            continue
        return name
    return None


def resume_step(latest, directory):
    """Checks that a run can resume from its newest checkpoint.

    The `checkpoint` file of a directory that was moved or copied is corrected:
    Estimator would not find its checkpoints, and train from step 0.

    Args:
      latest: path prefix from `latest_checkpoint`.
      directory: the run's --output_dir.

    Returns:
      Its step.

    Raises:
      UserError: the checkpoint is damaged, has NaN, or has no step; the message
        names the newest one that is whole.
    """
    try:
        step = _check_resumable(latest, directory)
        _correct_state(directory)
        return step
    except UserError as error:
        if _newest_whole(directory) is None:
            raise
        raise UserError("{}; {}".format(error, _how_to_resume(directory))) from error


def _correct_state(directory):
    """Writes the `checkpoint` file if it is missing or names another directory's."""
    written = checkpoint_state.read(directory)
    if written is None:
        checkpoint_state.write(_run_state(directory), directory)
        return
    outside = _first_outside(written, directory)
    if outside is None:
        return
    state = _run_state(directory)
    _LOGGER.warning(
        "%s names %s; it now names %s, which is beside it",
        os.path.join(directory, checkpoint_state.FILE),
        outside,
        state.newest,
    )
    checkpoint_state.write(state, directory)


def _check_resumable(checkpoint, directory):
    """Returns the step; raises `UserError` if a run cannot resume from a checkpoint."""
    _check_has_step(checkpoint, directory)
    check_readable(checkpoint, "--output_dir")
    return read_step(checkpoint, "--output_dir")


def _check_has_step(checkpoint, directory):
    """Raises `UserError` for a checkpoint that is a model but not of a run."""
    if STEP not in read_variables(checkpoint, "--output_dir"):
        raise UserError(
            "--output_dir {}: {} has no global_step: it is a model to start from, not "
            "a run to resume; name it with --model_dir or --init_checkpoint and choose "
            "another --output_dir".format(directory, checkpoint)
        )
