"""Locks that keep two runs out of one directory on one machine."""

import contextlib
import logging
import os
import stat

from albert_zh.base import files
from albert_zh.base.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LOGGER = logging.getLogger(__name__)

# Descriptors of the locks that this process holds.
_HELD = set()


def _leave_locks():
    """Closes a forked copy's locks, which would otherwise outlive their owner."""
    for number in _HELD:
        os.close(number)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)


@contextlib.contextmanager
def hold(path, message, is_patient=False):
    """Holds a lock file during the block, and removes it afterwards.

    The operating system releases the lock when the process ends for any reason.
    File systems without locks (some network file systems, remote paths, Windows) are
    not locked.

    Args:
      path: the lock file; its directory exists.
      message: error message if another process holds the lock.
      is_patient: bool; wait for that process instead, for locks that are held for
        moments only.

    Raises:
      UserError: another process holds the lock, the path is something else, or it
        cannot be created.
    """
    if files.is_remote(path) or fcntl is None:
        yield
        return
    with contextlib.closing(_take(path, message, is_patient)) as opened:
        try:
            yield
        finally:
            # Before the release, so that no other process can lock the removed file.
            if _is_named(opened.number, path):
                with files.removing(path):
                    os.unlink(path)


class _Descriptor:
    """An open file descriptor."""

    def __init__(self, number):
        self.number = number
        _HELD.add(number)

    def close(self):
        # In a copy of the owner it is closed already.
        if self.number in _HELD:
            _HELD.remove(self.number)
            os.close(self.number)


def _take(path, message, is_patient):
    """Opens and locks the file; returns its `_Descriptor`."""
    while True:
        with files.writing(path):
            opened = _Descriptor(
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            )
        try:
            _lock(opened.number, path, message, is_patient)
            if _is_named(opened.number, path):
                return opened
        except BaseException:
            opened.close()
            raise
        # The holder has just removed it.
        opened.close()


def _lock(number, path, message, is_patient):
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode):
        raise UserError("{}: not a file; expected the lock of a run".format(path))
    if status.st_size:
        # Locks are empty, and removed after use.
        raise UserError(
            "{}: not empty, so not the lock of a run; move it elsewhere".format(path)
        )
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if is_patient else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise UserError(message) from error
    except OSError as error:
        _LOGGER.warning("%s cannot be locked (%s)", path, error.strerror)


def _is_named(number, path):
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(number), os.lstat(path))
    except FileNotFoundError:
        return False
