"""Workers of one training run as processes of this machine.

A worker's port lets everybody who reaches it read and write files as this user, and
TensorFlow opens it on all interfaces, whatever address it is given. So the workers
get a private network (`network.PrivateNetwork`), which nobody else reaches.
"""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from albert_zh.base.errors import UserError
from albert_zh.training import network

_LOGGER = logging.getLogger(__name__)

# Seconds that a worker has to end by itself once another one has failed. It waits
# for that one inside TensorFlow, so most probably it cannot.
GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.2
_HOST = "127.0.0.1"
_ALLOW_OPEN_PORTS = "--allow_open_ports"


def check_command(command):
    """Raises `UserError` unless `command`, a list, is a Python script and its flags."""
    if not command or not os.path.isfile(command[0]):
        raise UserError(
            "expected a script to start, such as run_pretraining.py, and its flags "
            "after --num_workers; received {!r}".format(" ".join(command))
        )
    if any(flag.split("=")[0] == _ALLOW_OPEN_PORTS for flag in command):
        raise UserError(
            "{} after {}: give it before, as launch_workers.py makes the workers' "
            "network".format(_ALLOW_OPEN_PORTS, command[0])
        )


def run_workers(command, num_workers, allow_open_ports=False):
    """Runs a command as several workers that train together; returns the exit code.

    Each finds the others in TF_CONFIG; the first is the chief. Their standard output
    and error are written to this process's standard output, line by line. If one
    fails, the others are ended: by SIGTERM, then by force. SIGINT, SIGTERM and
    SIGHUP are passed on to all workers.

    Their network is a private one, in which they reach nobody but each other.

    Args:
      command: list of str, the path of a program and its arguments.
      num_workers: int.
      allow_open_ports: bool, whether to start them in this machine's network, where
        others may reach their ports; the command is told by a flag of that name.

    Returns:
      0 if every worker succeeded; else the code of the first that failed, 128 plus
      the number of the signal that ended it.

    Raises:
      UserError: their ports would be open, or they would lack a network they need.
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
        with contextlib.ExitStack() as stack:
            if allow_open_ports:
                command, start = command + [_ALLOW_OPEN_PORTS], subprocess.Popen
            else:
                start = _start_on_loopback(command, stack)
            addresses = _free_addresses(num_workers)
            for rank in range(num_workers):
                workers.append(_Worker(start, command, addresses, rank))
            return _wait(workers, received)
    finally:
        for worker in workers:
            worker.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start_on_loopback(command, stack):
    """Returns the function that starts workers which others do not reach.

    Args:
      command: list of str, what is to be started.
      stack: `contextlib.ExitStack` that closes their network.

    Returns:
      A function like `subprocess.Popen`.

    Raises:
      UserError: there is none, or the command names remote files.
    """
    try:
        private = stack.enter_context(contextlib.closing(network.PrivateNetwork()))
    except OSError as error:
        names = network.open_interfaces()
        if not names:
            return subprocess.Popen
        raise UserError(
            "cannot make a private network for the workers ({}), and their ports would "
            "be open to everybody who reaches this machine by {}, who could read and "
            "write files as you; give {} before {} to accept that".format(
                error, ", ".join(names), _ALLOW_OPEN_PORTS, command[1]
            )
        ) from error
    remote = [argument for argument in command if _is_remote(argument)]
    if remote:
        raise UserError(
            "{}: the workers' private network leads nowhere but to each other; copy "
            "those files to this machine, or give {} before {}, which opens the "
            "workers' ports to the network".format(
                remote[0], _ALLOW_OPEN_PORTS, command[1]
            )
        )
    return private.start


def _is_remote(argument):
    """Whether an argument names files of another machine, as in "gs://"."""
    return bool(set(re.findall(r"([A-Za-z][\w+.-]*)://", argument)) - {"file"})


class _Worker:
    """One process and the thread that shows its output."""

    def __init__(self, start, command, addresses, rank):
        task = {"type": "worker", "index": rank}
        config = {"cluster": {"worker": addresses}, "task": task}
        self.rank = rank
        self.process = start(
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
        "worker %d ended with code %d; ending all. Rerun the same command to resume "
        "from the last checkpoint",
        failed.rank,
        failed.process.returncode,
    )
    _signal_all(running, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(
        worker.process.poll() is None for worker in running
    ):
        time.sleep(_POLL_SECONDS)
