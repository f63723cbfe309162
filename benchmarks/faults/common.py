"""What the modules of faults share: the form of a fault, commands, verdicts."""

import os
import pathlib
import subprocess
import sys
from typing import Callable, Iterator, NamedTuple, Optional, Tuple

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
USER_ERROR = 2
TIMEOUT_SECONDS = 300

# A verdict on one attempt: its name, and None where all was right or what was wrong.
Verdict = Tuple[str, Optional[str]]


class Fault(NamedTuple):
    """One kind of fault.

    Attributes:
      kind: one line: what is done to whom.
      tries: function of an empty working directory (`pathlib.Path`) that makes all
        attempts and yields a `Verdict` for each.
    """

    kind: str
    tries: Callable[[pathlib.Path], Iterator[Verdict]]


def run(script, *flags, cwd=None, timeout=TIMEOUT_SECONDS):
    """Runs a command of the repository.

    Args:
      script: its file, "run_pretraining.py".
      *flags: made strings.
      cwd: working directory, the repository by default.
      timeout: seconds after which it is killed.

    Returns:
      `subprocess.CompletedProcess` with text output; its code is None where time
      ran out.
    """
    command = [sys.executable, str(REPOSITORY / script)] + list(map(str, flags))
    return run_command(command, cwd or REPOSITORY, timeout)


def run_command(command, cwd, timeout=TIMEOUT_SECONDS):
    """Like `run`, for any command, a list of strings."""
    try:
        return subprocess.run(
            command,
            cwd=str(cwd),
            env=dict(os.environ, PYTHONIOENCODING="utf-8"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        return subprocess.CompletedProcess(command, None, str(expired.output), "")


_LIMITED = (
    "import resource, runpy, sys; limit = int(sys.argv[1]); sys.argv = sys.argv[2:]; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def run_with_little_room(max_bytes, script, *flags):
    """Like `run`, but no file can become larger than so many bytes.

    That stands in for a full disk, which needs rights to make one.
    """
    command = [sys.executable, "-c", _LIMITED, str(max_bytes), str(REPOSITORY / script)]
    return subprocess.run(
        command + list(map(str, flags)),
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def not_refused(done, *expected):
    """Says why a command did not refuse its input as it should.

    Args:
      done: `subprocess.CompletedProcess`.
      *expected: texts that the error must have in it.

    Returns:
      None where it ended with code 2, no traceback and one line of error that has
      all of `expected` in it; else what was wrong.
    """
    if done.returncode is None:
        return "no end within the time limit"
    if "Traceback" in done.stderr:
        return "traceback: " + done.stderr.strip().split("\n")[-1]
    if done.returncode != USER_ERROR:
        return "exit code {}".format(done.returncode)
    last = done.stderr.strip().split("\n")[-1]
    if ".py: error: " not in last:
        return "the last line is no error: " + last
    missing = [text for text in expected if text not in last]
    return "{!r} is not in: {}".format(missing[0], last) if missing else None


def not_done(done):
    """Says why a command did not succeed; None where it did."""
    if done.returncode == 0 and "Traceback" not in done.stderr:
        return None
    return "exit code {}: {}".format(
        done.returncode, (done.stderr.strip().split("\n") or [""])[-1]
    )
