"""The working directory of data generation: whose it is, and what may be removed.

It is called after the output, so something else may have that name already. A file in
it says that a run has made it. What is removed is told by its name: a file that no run
makes is never touched, and keeps a run from using the directory.

  .made_by_create_pretraining_data   the mark
  lock                               held by the run that is at work
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
# Everything in a run's directory but temporary files, and output files, which are
# made there under temporary names.
_RUN_FILE = re.compile(
    r"manifest\.json|shard-\d{5,}\.json|shard-\d{5,}-of-\d{5,}\.part|"
    r"output-\d{5,}\.json"
)


@contextlib.contextmanager
def hold(root):
    """Makes the working directory or takes it over, and keeps other runs out of it.

    It is removed at the end if there is no run in it, one that has its manifest, to go
    on with.

    Args:
      root: its path.

    Raises:
      UserError: no run has made what is there, or another run is at work.
    """
    _require_own(root)
    with files.writing(root):
        files.make_directory(root)
    message = (
        "{}: another run is at work there; wait for it, or give another "
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
        # Another run may be making itself at home in it.
        with contextlib.suppress(UserError):
            if not _list(root):
                files.remove_empty_directory(root)


def _tidy(root):
    """Removes what is of no use to anybody; a failure hides no other one."""
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


def clear(root):
    """Removes all runs of a working directory, files of other names excepted."""
    for run in runs(root):
        # First what makes it a run to go on with: the rest may be interrupted.
        files.remove(os.path.join(run, MANIFEST))
        for name in _list(run):
            if _is_run_file(name):
                files.remove(os.path.join(run, name))
        if _list(run):
            _LOGGER.warning("%s holds files of others and is kept", run)
        else:
            files.remove_empty_directory(run)


def remove_temporary(run):
    """Removes what killed processes have left half-written in a run's directory."""
    names = [name for name in _list(run) if files.whole_name(name) is not None]
    for name in names:
        files.remove(os.path.join(run, name))


def _require_own(root):
    """Raises `UserError` where what is there is not a run's own, or holds more."""
    if not files.lexists(root):
        return
    if files.is_link(root) or not files.is_directory(root):
        raise UserError(
            "{} is needed as a directory to work in, and is something else; move it "
            "away, or give another --output_file".format(root)
        )
    foreign = _foreign(root)
    if foreign is not None:
        raise UserError(
            "{} holds {!r}, which no run of this version has made; move it away if it "
            "is needed and remove it if not, or give another --output_file".format(
                root, foreign
            )
        )


def _foreign(root):
    """Returns the name of something in the directory that no run has made, or None."""
    names = _list(root)
    is_marked = MARK in names and not files.is_link(os.path.join(root, MARK))
    for name in names:
        path = os.path.join(root, name)
        if name == _LOCK:
            # A run was killed, or is only beginning.
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
