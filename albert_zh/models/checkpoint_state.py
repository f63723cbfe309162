"""The `checkpoint` file of a directory, which names the newest checkpoint in it."""

import ntpath
import os
import re
from typing import List, NamedTuple

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import protobuf_text as text_format
from albert_zh.base.lazy import tensorflow as tf

FILE = "checkpoint"
_MAX_BYTES = 1 << 24
# Of any system: /home/x, C:/x, //server/x, gs://x.
_ABSOLUTE = re.compile("/|[A-Za-z]:/|[a-z0-9]+://")


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
    state = _empty_proto(directory)
    try:
        text_format.Parse(content.decode("utf-8"), state)
    except (text_format.ParseError, ValueError) as error:
        raise StateError("{}: is damaged".format(path)) from error
    if not state.model_checkpoint_path:
        raise StateError("{}: names no checkpoint".format(path))
    state = State(
        _with_slashes(state.model_checkpoint_path),
        [_with_slashes(named) for named in state.all_model_checkpoint_paths],
    )
    if not all(named.isprintable() for named in [state.newest] + state.kept):
        raise StateError("{}: names a checkpoint with control characters".format(path))
    return state


def _empty_proto(directory):
    """Returns TensorFlow's `CheckpointState` of a directory, without anything in it."""
    # Named twice: without the list TensorFlow logs a line.
    proto = tf.train.generate_checkpoint_state_proto(directory, "none", ["none"])
    proto.Clear()
    return proto


def _with_slashes(named):
    """Returns a path with the slashes of this system, if it was written on Windows."""
    is_foreign = os.sep == "/" and "/" not in named and ntpath.dirname(named)
    return named.replace("\\", "/") if is_foreign else named


def brought_along(state, directory):
    """Returns the `State` of a run whose directory was moved or copied.

    Args:
      state: `State` with paths to the old place.
      directory: the new one.

    Returns:
      `State` with the names of those checkpoints that are in the directory, or None
      if the newest is not, or the old paths are not of one other directory.
    """
    paths = [state.newest] + state.kept
    parents = {os.path.dirname(named) for named in paths}
    names = [os.path.basename(named) for named in paths]
    present = [
        is_inside(name, directory)
        and files.exists(os.path.join(directory, name + ".index"))
        for name in names
    ]
    # A relative path, or several directories, are no saver's doing.
    if len(parents) > 1 or not _ABSOLUTE.match(paths[0]) or not present[0]:
        return None
    return State(names[0], [n for n, there in zip(names[1:], present[1:]) if there])


def write(state, directory):
    """Writes a `State`, with names relative to the directory.

    Raises:
      UserError: it cannot be written.
    """
    # TensorFlow's function takes names as relative to the working directory where the
    # directory is a relative path.
    proto = _empty_proto(directory)
    proto.model_checkpoint_path = state.newest
    kept = [named for named in state.kept if named != state.newest]
    proto.all_model_checkpoint_paths.extend(kept + [state.newest])
    files.write_text(text_format.MessageToString(proto), os.path.join(directory, FILE))


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
