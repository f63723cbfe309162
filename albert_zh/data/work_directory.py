"""The working directory of data generation: who owns it, what may be removed.

It is named after the output, so that something else may have that name already. A
mark in it says that a run made it. Only files with names that a run uses are removed;
any other file is left alone, and the directory is then not used.

  .made_by_create_pretraining_data   the mark
  lock                               held by the active run
  0123456789abcdef/                  the directory of one run; see `run`
"""

import contextlib
import logging
import os
import re

from albert_zh.base import files, locks
from albert_zh.base.errors import UserError

_LOGGER = logging.getLogger(__name__)

MARK = ".made_by_create_pretraining_data"
_LOCK = "lock"
MANIFEST = "manifest.json"

_RUN = re.compile("[0-9a-f]{16}")
# Everything in a run's directory except temporary files, output files among them.
_RUN_FILE = re.compile(
    r"manifest\.json|shard-\d{5,}\.json|shard-\d{5,}-of-\d{5,}\.part|"
    r"output-\d{5,}\.json|text-\d{5,}\.txt"
)


_MARK_FILE = re.compile(r"(shard|output)-\d{5,}\.json")


@contextlib.contextmanager
def hold(root):
    """Makes or reopens the working directory and keeps other runs out of it.

    At the end of the block it is removed unless it has a run to resume, which is one
    with a manifest.

    Args:
      root: its path.

    Raises:
      UserError: the path is taken by something else, or another run is active.
    """
    _require_own(root)
    with files.writing(root):
        files.make_directory(root)
    message = (
        "{}: in use by another run; wait for it, or give another "
        "--output_file".format(root)
    )
    try:
        with locks.hold(os.path.join(root, _LOCK), message):
            _require_own(root)
            mark = os.path.join(root, MARK)
            files.remove_leftovers(mark)
            files.write_text("", mark)
            with files.writing(root):
                files.sync_directory(os.path.dirname(root))
            try:
                yield
            finally:
                _tidy(root)
    finally:
        # Another run may have started to use it.
        with contextlib.suppress(UserError):
            if not _list(root):
                files.remove_empty_directory(root)


def _tidy(root):
    """Removes what no run can resume; only logs errors, to hide no earlier one."""
    try:
        manifests = [os.path.join(run, MANIFEST) for run in runs(root)]
        if not any(map(files.exists, manifests)):
            clear(root)
        if not set(_list(root)) - {MARK, _LOCK}:
            files.remove(os.path.join(root, MARK))
    except UserError as error:
        _LOGGER.warning("%s", error)


def runs(root):
    """Returns the paths of the directories of runs in the working directory."""
    return [os.path.join(root, name) for name in _list(root) if _RUN.fullmatch(name)]


def make_run(path):
    """Makes the directory of a run, where absent."""
    with files.writing(path):
        files.make_directory(path)
        files.sync_directory(os.path.dirname(path))


def has_marks(run):
    """Whether a run's directory has the mark of anything that is done."""
    return any(_MARK_FILE.fullmatch(name) for name in _list(run))


def clear(root):
    """Removes all runs of a working directory, except files of other names."""
    for run in runs(root):
        # The manifest first: without it a half-removed run is not resumed.
        files.remove(os.path.join(run, MANIFEST))
        for name in _list(run):
            if _is_run_file(name):
                files.remove(os.path.join(run, name))
        if _list(run):
            _LOGGER.warning("%s has files of other programs and is kept", run)
        else:
            files.remove_empty_directory(run)


def remove_temporary(run):
    """Removes the temporary files of killed processes from a run's directory."""
    names = [name for name in _list(run) if files.whole_name(name) is not None]
    for name in names:
        files.remove(os.path.join(run, name))


def _require_own(root):
    """Raises `UserError` if the path has anything that no run made."""
    if not files.lexists(root):
        return
    if files.is_link(root) or not files.is_directory(root):
        raise UserError(
            "{} is needed as working directory, but is something else; move it away, "
            "or give another --output_file".format(root)
        )
    foreign = _foreign(root)
    if foreign is not None:
        raise UserError(
            "{} has {!r}, which no run of this version made; move or remove it, or "
            "give another --output_file".format(root, foreign)
        )


def _foreign(root):
    """Returns the name of one entry that no run made, or None."""
    names = _list(root)
    is_marked = MARK in names and not files.is_link(os.path.join(root, MARK))
    for name in names:
        path = os.path.join(root, name)
        if name == _LOCK:
            # Without a mark, the run was killed early or has just started.
            is_own = is_marked or (not files.is_link(path) and files.size(path) == 0)
        elif _RUN.fullmatch(name) and is_marked:
            is_own = not files.is_link(path) and files.is_directory(path)
            strange = is_own and [n for n in _list(path) if not _is_run_file(n)]
            if strange:
                return os.path.join(name, strange[0])
        else:
            is_own = (is_marked and name == MARK) or files.whole_name(name) == MARK
        if not is_own:
            return name
    return None


def _is_run_file(name):
    return bool(_RUN_FILE.fullmatch(name)) or files.whole_name(name) is not None


def _list(path):
    with files.reading(path):
        return files.list_directory(path) if files.exists(path) else []
