"""The `checkpoint` file of a directory, which names the newest checkpoint in it."""

import os
from typing import List, NamedTuple

import tensorflow.compat.v1 as tf
from google.protobuf import text_format

from albert_zh.base import files
from albert_zh.base.errors import UserError

FILE = "checkpoint"
_MAX_BYTES = 1 << 24


class State(NamedTuple):
    """The content of a directory's `checkpoint` file.

    Attributes:
      newest: path prefix, relative to the directory or absolute.
      kept: path prefixes of all checkpoints that the saver manages; it deletes the
        oldest when there are too many.
    """

    newest: str
    kept: List[str]


class StateError(ValueError):
    """A `checkpoint` file is unusable; the message says why."""


def read(directory):
    """Returns the `State` of a directory, None if it has no `checkpoint` file.

    TensorFlow's own function treats an unreadable file as absent.

    Raises:
      StateError: the file cannot be used.
    """
    path = os.path.join(directory, FILE)
    # A broken link is an unreadable file, not an absent one.
    if not (files.exists(path) or os.path.islink(path)):
        return None
    try:
        files.require_regular(path)
        with files.reading(path), files.open_file(path) as source:
            content = source.read(_MAX_BYTES)
    except UserError as error:
        raise StateError(str(error)) from error
    state = tf.train.generate_checkpoint_state_proto(directory, "none")
    state.Clear()
    try:
        text_format.Parse(content.decode("utf-8"), state)
    except (text_format.ParseError, ValueError) as error:
        raise StateError("{}: is damaged".format(path)) from error
    if not state.model_checkpoint_path:
        raise StateError("{}: names no checkpoint".format(path))
    state = State(state.model_checkpoint_path, list(state.all_model_checkpoint_paths))
    if not all(named.isprintable() for named in [state.newest] + state.kept):
        raise StateError("{}: names a checkpoint with control characters".format(path))
    return state


def is_inside(named, directory):
    """Whether a path from a `checkpoint` file is directly in the directory.

    Paths with glob characters are not: a saver deletes by pattern.
    """
    parent, name = os.path.split(named)
    if files.glob_characters(named) or name in ("", ".", ".."):
        return False
    if not os.path.isabs(named):
        return not parent
    return (
        ".." not in parent.split(os.sep)
        and os.path.isdir(parent)
        and os.path.samefile(parent, directory)
    )
