"""Work done in a copy of this process, which may die of it without harm."""

import contextlib
import faulthandler
import json
import logging
import os
import signal

from albert_zh.base.errors import UserError

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None

_LOGGER = logging.getLogger(__name__)

# Seconds that the work may take between two signs of life.
LIMIT_SECONDS = 300


class Died(Exception):
    """The copy came to no result; the message says how it ended, "signal 6 (...)"."""


def call(work):
    """Calls a function in a copy of this process.

    A copy costs some milliseconds, a new Python that imports TensorFlow seconds. It
    has none of the threads of this process: work that waits for one of them does not
    end by itself, but by the time limit. Where there can be no copy (on Windows, or
    at a limit of memory or processes) the function is called here.

    Args:
      work: function of one argument, a function that it calls as a sign of life at
        least every `LIMIT_SECONDS`. What it prints is lost.

    Returns:
      What the function returns, a value of JSON's.

    Raises:
      UserError: the function raised it.
      Died: the copy was ended by a signal or any other error.
    """
    if fcntl is None:
        return work(lambda: None)
    receiver, sender = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(receiver)
        os.close(sender)
        _LOGGER.warning("no room for a copy of this process (%s)", error.strerror)
        return work(lambda: None)
    if child == 0:
        os.close(receiver)
        _work_and_exit(work, sender)
    os.close(sender)
    answer, status = _wait_for(child, receiver)
    if status or not answer:
        raise Died(_describe(status))
    result = json.loads(answer.decode("utf-8"))
    if "error" in result:
        raise UserError(result["error"])
    return result["value"]


def _wait_for(child, receiver):
    """Returns what the copy has written, bytes, and its status of `os.waitpid`."""
    try:
        with open(receiver, "rb") as answers:
            answer = answers.read()
        return answer, os.waitpid(child, 0)[1]
    except BaseException:
        # As Ctrl-C, maybe when the copy has just been waited for.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise


def _describe(status):
    """Says how a process ended that has this status of `os.waitpid`."""
    if not os.WIFSIGNALED(status):
        return "exit code {}".format(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if number == signal.SIGALRM:
        return "no progress in {} seconds".format(LIMIT_SECONDS)
    return "signal {} ({})".format(number, signal.Signals(number).name)


def _work_and_exit(work, sender):
    """The life of the copy; nothing of the original's ends with it."""
    code = 1
    try:
        # Where a standard stream was closed, the pipe may have got its number.
        sender = fcntl.fcntl(sender, fcntl.F_DUPFD, 3)
        _leave_the_original()
        _sign_of_life()
        try:
            answer = {"value": work(_sign_of_life)}
        except UserError as error:
            answer = {"error": str(error)}
        with open(sender, "wb") as answers:
            answers.write(json.dumps(answer).encode("utf-8"))
        code = 0
    finally:
        # Neither buffers nor threads of the original are the copy's to end.
        os._exit(code)


def _leave_the_original():
    """Takes from the copy what would reach the terminal or act for the original."""
    # The report of a crash is no line for the user.
    faulthandler.disable()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _sign_of_life():
    # The system ends a process whose alarm is due, also amid TensorFlow's code.
    signal.alarm(LIMIT_SECONDS)
