"""Work in other processes: a copy of this one, which a crash may end, or a command."""

import contextlib
import faulthandler
import json
import logging
import os
import signal
import subprocess

from albert_zh.base.errors import UserError

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None

_LOGGER = logging.getLogger(__name__)

# The longest time between two signs of life.
LIMIT_SECONDS = 300


class Died(Exception):
    """The copy ended without a result; the message says how: "signal 6 (...)"."""


def call(work):
    """Calls a function in a copy of this process.

    A copy (fork) costs milliseconds; a new Python that imports TensorFlow, seconds.
    The copy has no other threads: work that waits for one runs into the time limit.
    If no copy is possible (on Windows, or at a limit of memory or processes), the
    function is called in this process.

    Args:
      work: function of one argument, a function that it must call as a sign of life
        at least every `LIMIT_SECONDS`. Its output is discarded.

    Returns:
      The result of the function, a JSON value.

    Raises:
      UserError: the function raised it.
      Died: the copy was ended by a signal or another error.
    """
    if fcntl is None:
        return work(lambda: None)
    receiver, sender = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(receiver)
        os.close(sender)
        _LOGGER.warning("cannot fork (%s); working in this process", error.strerror)
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
    """Returns the bytes written by the copy and its status from `os.waitpid`."""
    try:
        with open(receiver, "rb") as answers:
            answer = answers.read()
        return answer, os.waitpid(child, 0)[1]
    except BaseException:
        # Such as Ctrl-C, possibly after the copy has ended.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise


def run_to_end(line, output=None):
    """Runs a command to its end, also where this process is told to stop.

    SIGTERM and Ctrl-C are passed on to it as SIGTERM. It must be called in the main
    thread.

    Args:
      line: list of str, the program and its arguments.
      output: file for all its output; None for that of this process.

    Returns:
      Its exit code, negative for a signal's number; that of the signal which told this
      process to stop, whatever became of the command.
    """
    stopped = []
    child = subprocess.Popen(line, stdout=output, stderr=output)

    def stop(*_):
        stopped.append(-signal.SIGTERM)
        child.terminate()

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        # A terminal sends Ctrl-C to both, `kill -INT` to this process alone. A second
        # one is not caught.
        stopped.append(-signal.SIGINT)
        child.terminate()
        code = child.wait()
    finally:
        child.kill()  # does nothing once it has ended
        signal.signal(signal.SIGTERM, previous)
    return stopped[0] if stopped else code


def describe_exit(code):
    """Describes the end of a process; a negative code is the number of a signal."""
    if code >= 0:
        return "exit code {}".format(code)
    name = ""
    with contextlib.suppress(ValueError):  # a signal that Python has no name for
        name = " ({})".format(signal.Signals(-code).name)
    return "signal {}{}".format(-code, name)


def _describe(status):
    """Describes the end of a process with a status from `os.waitpid`."""
    if not os.WIFSIGNALED(status):
        return describe_exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if number == signal.SIGALRM:
        return "no progress in {} seconds".format(LIMIT_SECONDS)
    return describe_exit(-number)


def _work_and_exit(work, sender):
    """Runs in the copy: does the work, answers, and ends without any cleanup."""
    code = 1
    try:
        # If a standard stream was closed, the pipe may have its number.
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
        # Not sys.exit: buffers and exit handlers belong to the original.
        os._exit(code)


def _leave_the_original():
    """Detaches the copy from the terminal and from the original's signal handlers."""
    # Users need not see the report of a crash.
    faulthandler.disable()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _sign_of_life():
    # The system ends the process when the alarm is due, even inside TensorFlow.
    signal.alarm(LIMIT_SECONDS)
