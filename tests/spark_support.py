"""What tests of Spark share: whether it can run, and its executors' processes."""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import sys

import pytest


def require_spark():
    """Skips the test where Spark cannot run; under CI, where it should, that fails."""
    if not (3, 9) <= sys.version_info < (3, 12):
        pytest.skip("pyspark is installed for Python 3.9 to 3.11")
    missing = []
    if importlib.util.find_spec("pyspark") is None:
        missing.append("pyspark")
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        missing.append("Java")
    if missing and os.environ.get("CI"):
        pytest.fail("Spark cannot be tested without {}".format(" and ".join(missing)))
    if missing:
        pytest.skip("Spark needs {}".format(" and ".join(missing)))


def process_status(pid):
    """Returns (state letter, parent's pid) of a process, None if there is none."""
    try:
        status = pathlib.Path("/proc/{}/stat".format(pid)).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = status.rpartition(")")[2].split()[:2]
    return state, int(parent)


def executors_below(ancestor):
    """Returns the pids of the executors that descend from a process."""
    pids = [int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*")]
    parents = {
        pid: status[1] for pid, status in zip(pids, map(process_status, pids)) if status
    }

    def descends(pid):
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    def is_executor(pid):
        with contextlib.suppress(OSError):
            line = pathlib.Path("/proc/{}/cmdline".format(pid)).read_bytes()
            return b"CoarseGrainedExecutorBackend" in line
        return False

    return [pid for pid in parents if descends(pid) and is_executor(pid)]
