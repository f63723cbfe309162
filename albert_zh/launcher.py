"""Workers of one training run as processes of this machine."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from albert_zh.errors import UserError

_LOGGER = logging.getLogger(__name__)

# Seconds that a worker has to end by itself once another one has failed. It waits
# for that one inside TensorFlow, so most probably it cannot.
GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.2
_HOST = "127.0.0.1"


def check_command(command):
    """Raises `UserError` unless `command`, a list, begins with a Python script."""
    if not command or not os.path.isfile(command[0]):
        raise UserError(
            "expected a script to start, such as run_pretraining.py, and its flags "
            "after --num_workers; received {!r}".format(" ".join(command))
        )


def run_workers(command, num_workers):
    """Runs a command as several workers that train together; returns the exit code.

    Each finds the others in TF_CONFIG; the first is the chief. Their standard output
    and error are written to this process's standard output, line by line. If one
    fails, the others are ended: by SIGTERM, then by force. SIGINT, SIGTERM and
    SIGHUP are passed on to all workers.

    Args:
      command: list of str, program and arguments.
      num_workers: int.

    Returns:
      0 if every worker succeeded; else the code of the first that failed, 128 plus
      the number of the signal that ended it.
    """
    workers, received = [], []
    previous = {
        # Only noted, since it may come before all workers have been started.
        number: signal.signal(number, lambda given, _: received.append(given))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # As nohup has it
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        addresses = _free_addresses(num_workers)
        for rank in range(num_workers):
            workers.append(_Worker(command, addresses, rank))
        return _wait(workers, received)
    finally:
        for worker in workers:
            worker.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Worker:
    """One process and the thread that shows its output."""

    def __init__(self, command, addresses, rank):
        task = {"type": "worker", "index": rank}
        config = {"cluster": {"worker": addresses}, "task": task}
        self.rank = rank
        self.process = subprocess.Popen(
            command,
            env=dict(os.environ, TF_CONFIG=json.dumps(config), PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C comes by way of this process alone.
            start_new_session=True,
        )
        _LOGGER.info("worker %d is process %d", rank, self.process.pid)
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def _show(self):
        prefix = "[worker {}] ".format(self.rank).encode()
        with self.process.stdout:  # which ends a worker that nobody reads
            try:
                for line in self.process.stdout:
                    sys.stdout.buffer.write(prefix + line.rstrip(b"\n") + b"\n")
                    sys.stdout.buffer.flush()
            except BrokenPipeError:
                pass

    def kill(self):
        """Ends the process, if it still runs, and shows the rest of its output."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._thread.join()


def _free_addresses(number):
    """Returns addresses on which nobody listens."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for opened in sockets:
            opened.bind((_HOST, 0))
        return ["{}:{}".format(*opened.getsockname()) for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def _signal_all(workers, number):
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.send_signal(number)


def _wait(workers, received):
    """Waits for all workers, or for the first that fails; returns the exit code.

    Args:
      workers: list of `_Worker`.
      received: list of int, to which the handler adds signals to pass on.
    """
    running = list(workers)
    while running:
        while received:
            _signal_all(running, received.pop(0))
        for worker in list(running):
            code = worker.process.poll()
            if code is not None:
                running.remove(worker)
            if code:
                _end_others(worker, running)
                return code if code > 0 else 128 - code
        time.sleep(_POLL_SECONDS)
    return 0


def _end_others(failed, running):
    _LOGGER.error(
        "worker %d ended with code %d; ending all. The same command goes on from the "
        "last checkpoint",
        failed.rank,
        failed.process.returncode,
    )
    _signal_all(running, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(
        worker.process.poll() is None for worker in running
    ):
        time.sleep(_POLL_SECONDS)
