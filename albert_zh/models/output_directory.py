"""The --output_dir of a training: who trains there, and which model it holds."""

import contextlib
import os
import re

from albert_zh.base import files, locks
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings

# Held by the process that trains in an --output_dir.
LOCK_FILE = ".lock"
# What TensorFlow leaves when a run dies, or the disk is full, while it writes; what
# `files.whole` leaves then has names of its own.
_LEFTOVER = re.compile(
    r"(graph\.pbtxt|checkpoint)\.tmp[0-9a-f]{32}|model\.ckpt-\d+_temp(_[0-9a-f]{32})?"
)


@contextlib.contextmanager
def hold(output_dir):
    """Locks an --output_dir against other trainings while the block runs.

    The directory is created if absent, and removed again if it is still empty. What a
    run that died has left half-written in it is removed.

    Raises:
      UserError: another process trains there, the directory cannot be made, or its
        name is a pattern.
    """
    _check_no_pattern(output_dir)
    made = _absent_directories(output_dir)
    _make(output_dir)
    lock = os.path.join(output_dir, LOCK_FILE)
    message = (
        "--output_dir {}: another process trains there (it holds {}); wait for its end "
        "or choose another --output_dir".format(output_dir, lock)
    )
    try:
        with locks.hold(lock, message):
            remove_leftovers(output_dir)
            yield
    finally:
        for directory in made:
            # Those with anything in them stay.
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def remove_leftovers(directory):
    """Removes what a run that died has left half-written in a directory it wrote to."""
    for name in files.list_directory(directory):
        if _LEFTOVER.fullmatch(name) or files.whole_name(name):
            path = os.path.join(directory, name)
            is_directory = files.is_directory(path)
            (files.remove_directory if is_directory else files.remove)(path)


def _check_no_pattern(output_dir):
    """Raises `UserError` for a name that TensorFlow's saver takes for a pattern.

    The saver deletes old checkpoints by pattern: "run[12]" matches "run1" and "run2".
    """
    found = files.glob_characters(output_dir)
    if found:
        raise UserError(
            "--output_dir {}: TensorFlow takes {} for a pattern and would delete the "
            "checkpoints of other directories; choose a name without it".format(
                output_dir, found[0]
            )
        )


def _absent_directories(path):
    """Returns the local directories that creating a path creates, innermost first."""
    if files.is_remote(path):
        return []
    absent, path = [], os.path.abspath(path)
    while not os.path.lexists(path):
        absent.append(path)
        path = os.path.dirname(path)
    return absent


def _make(output_dir):
    try:
        tf.io.gfile.makedirs(output_dir)
    except tf.errors.OpError as error:
        raise UserError(
            "--output_dir {}: cannot be made ({})".format(output_dir, error.message)
        ) from error


def check(output_dir, config):
    """Checks that `prepare` can be called; writes nothing.

    Raises:
      UserError: the directory holds a model of another config.
    """
    path = os.path.join(output_dir, model_directory.CONFIG_FILE)
    if tf.io.gfile.exists(path):
        check_same_config(output_dir, path, config)


def prepare(output_dir, config):
    """Creates the directory and saves the model's config in it.

    Raises:
      UserError: the directory holds a model of another config, or cannot be made.
    """
    check(output_dir, config)
    _make(output_dir)
    path = os.path.join(output_dir, model_directory.CONFIG_FILE)
    text = config.to_json_string()
    if tf.io.gfile.exists(path):
        if files.read_bytes(path) == text.encode("utf-8"):
            return  # the directory may be one that cannot be written to
    files.write_text(text, path)


def check_same_config(directory, config_file, config, flag="--output_dir"):
    """Compares a config with the one of a directory.

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
