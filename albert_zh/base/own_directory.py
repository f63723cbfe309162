"""A directory that a command makes anew at every run, and only where it is its own.

A mark, a file, tells which directories a command has made. What it has not made there
is never removed.
"""

import contextlib
import os

from albert_zh.base import files, locks
from albert_zh.base.errors import UserError

# Held while a command works there, as by a training in its own directory.
LOCK = ".lock"


@contextlib.contextmanager
def renewed(directory, mark, maker, is_own):
    """Creates the directory, or empties an earlier run's, and locks it.

    Args:
      directory: str, the value of --output_dir.
      mark: str, name of the file that marks the directories of this command.
      maker: str, what the command calls itself in messages.
      is_own: function of a path in the directory and the list of all of them, relative
        and with slashes; returns whether the command has left that file.

    Raises:
      UserError: it holds something else, is no directory, cannot be emptied, or the
        command or a training runs there.
    """
    _check(directory, mark, maker, is_own)
    message = "--output_dir {}: another process works there; wait for its end"
    message = message.format(directory)
    with locks.hold(os.path.join(directory, LOCK), message):
        _empty(directory, mark, message)
        yield


def _check(directory, mark, maker, is_own):
    """Raises `UserError` for a directory of somebody else's, or creates it."""
    if os.path.islink(directory) or (
        os.path.lexists(directory) and not os.path.isdir(directory)
    ):
        raise UserError(
            "--output_dir {} is a file or a link; name a directory".format(directory)
        )
    with files.writing(directory):
        files.make_directory(directory)
    paths = _paths_in(directory)
    marker = os.path.join(directory, mark)
    is_marked = os.path.isfile(marker) and not os.path.islink(marker)
    foreign = [path for path in paths if not (is_marked and is_own(path, paths))]
    if foreign:
        raise UserError(
            "--output_dir {} holds {!r}, which no {} has made; name a new "
            "directory".format(directory, foreign[0], maker)
        )


def _paths_in(directory):
    """Returns the sorted relative paths of all files and links in a directory."""
    found = []
    for folder, folders, names in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in names + links:
            found.append(os.path.relpath(os.path.join(folder, name), directory))
    return sorted(path.replace(os.sep, "/") for path in found)


def _empty(directory, mark, message):
    """Removes what earlier runs left, unless a training runs there; adds the mark."""
    names = set(os.listdir(directory)) - {LOCK}
    for name in sorted(names):
        lock = os.path.join(directory, name, LOCK)
        if os.path.isfile(lock):
            with locks.hold(lock, message):
                pass
    # The mark goes last: what is left when this is interrupted is still the command's.
    for name in sorted(names, key=mark.__eq__):
        path = os.path.join(directory, name)
        if os.path.isdir(path) and not os.path.islink(path):
            files.remove_directory(path)
        else:
            files.remove(path)
    files.write_text("", os.path.join(directory, mark))
