"""Tasks in this process or on worker processes of this machine."""

import collections
import contextlib
import logging
import multiprocessing.connection
import pickle
import signal
import sys
import time
import traceback
import types

from albert_zh.base import children
from albert_zh.base.errors import UserError
from albert_zh.engines.common import (
    ERROR,
    PROGRESS,
    RESULT,
    USER_ERROR,
    Engine,
    ignore,
)

_LOGGER = logging.getLogger(__name__)

_MAX_DEATHS = 2  # of workers on one task: the second is hardly an accident
_END_SECONDS = 5  # for a worker to clean up before it is killed
_REPORT_SECONDS = 0.1  # between two progress messages of a worker


class LocalEngine(Engine):
    """Runs tasks in this process or on worker processes of this machine."""

    def __init__(self, num_workers):
        """Starts no process yet; every run has its own workers.

        Args:
          num_workers: int, processes to use; with 1, tasks run in this process.

        Raises:
          UserError: `num_workers` is below 1.
        """
        if num_workers < 1:
            raise UserError(
                "expected at least 1 worker, received {}".format(num_workers)
            )
        self._num_workers = num_workers

    def run(self, function, tasks, progress=None):
        """Runs `function` on every task.

        A worker that dies (killed, out of memory) is replaced and its task restarted;
        the others are not affected. On failure and on Ctrl-C all other workers get a
        `KeyboardInterrupt`, and have ended when this returns.

        Args:
          function: picklable function of (task, report), from a module that workers
            can import; they do not load the script that was started. It may call
            `report(amount)` with the bytes processed since the last call, and its
            result must be picklable.
          tasks: picklable tasks; `str(task)` names one in messages.
          progress: function called in this process with the reported amounts, and
            with negative amounts when a lost worker's share must be repeated.

        Returns:
          List of the function's results, in the order of the tasks.

        Raises:
          UserError: as raised by the function; or workers died twice on one task.
          RuntimeError: the function raised another exception in a worker; the message
            has its traceback. With one worker that exception itself is raised.
        """
        tasks = list(tasks)
        progress = progress or ignore
        num_workers = min(self._num_workers, len(tasks))
        if num_workers <= 1:
            return [function(task, progress) for task in tasks]
        return _LocalRun(function, tasks, progress).execute(num_workers)


class _LocalRun:
    """One run on worker processes: waiting tasks, active workers, results."""

    def __init__(self, function, tasks, progress):
        self._function = pickle.dumps(function)
        self._tasks = tasks
        self._progress = progress
        self._waiting = iter(range(len(tasks)))
        self._deaths = collections.Counter()  # by task
        self._results = [None] * len(tasks)
        self._workers = []

    def execute(self, num_workers):
        try:
            # All are started first, because sending waits until a worker is up.
            for _ in range(num_workers):
                self._workers.append(_Worker())
            for worker in list(self._workers):
                worker.send(self._function)
                self._give_next_task(worker)
            while self._workers:
                for worker in self._ready_workers():
                    self._attend(worker)
        finally:
            for worker in self._workers:
                worker.process.terminate()
            _end(self._workers)
        return self._results

    def _ready_workers(self):
        """Waits for messages or deaths, and returns the workers concerned."""
        owners = {}
        for worker in self._workers:
            owners[worker.connection] = owners[worker.process.sentinel] = worker
        return {owners[item] for item in multiprocessing.connection.wait(list(owners))}

    def _attend(self, worker):
        """Handles one message of a worker, or its death."""
        message = worker.receive()
        if message is None:
            self._replace(worker)
            return
        kind, content = message
        if kind == PROGRESS:
            worker.reported += content
            self._progress(content)
        elif kind == RESULT:
            self._results[worker.index] = content
            self._give_next_task(worker)
        elif kind == USER_ERROR:
            raise UserError(content)
        else:
            raise RuntimeError(
                "task {} failed in a worker process\n{}".format(
                    self._tasks[worker.index], content
                )
            )

    def _give_next_task(self, worker):
        """Gives a worker the next task, or ends it if there is none."""
        index = next(self._waiting, None)
        if index is None:
            _end([worker])
            self._workers.remove(worker)
        else:
            self._give(worker, index)

    def _give(self, worker, index):
        worker.index, worker.reported = index, 0
        worker.send(pickle.dumps(self._tasks[index]))

    def _replace(self, worker):
        """Gives a dead worker's task to a new one, unless it died twice."""
        _end([worker])
        self._workers.remove(worker)
        if worker.reported:
            self._progress(-worker.reported)
        task = self._tasks[worker.index]
        how = children.describe_exit(worker.process.exitcode)
        self._deaths[worker.index] += 1
        if self._deaths[worker.index] == _MAX_DEATHS:
            raise UserError(
                "task {}: its worker process died {} times, the last time by {}; most "
                "likely memory ran out: use fewer workers or smaller shards".format(
                    task, _MAX_DEATHS, how
                )
            )
        _LOGGER.warning("task %s: its worker died by %s; retrying", task, how)
        successor = _Worker()
        self._workers.append(successor)
        successor.send(self._function)
        self._give(successor, worker.index)


class _Worker:
    """The parent's side of a worker process.

    Attributes:
      process: `multiprocessing.Process`.
      connection: the parent's end of the connection.
      index: int, index of the current task.
      reported: bytes reported for this task.
    """

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self.connection, others_end = context.Pipe()
        self.process = context.Process(target=_work, args=(others_end,), daemon=True)
        self.index, self.reported = None, 0
        with _without_main_module():
            self.process.start()
        # Open here, it would keep the connection alive after the worker's death.
        others_end.close()

    def send(self, pickled):
        """Sends pickled content; `receive` tells whether the worker is alive."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(pickled)

    def receive(self):
        """Returns the next message, a pair; None if the worker has died."""
        try:
            # A dead worker may have left messages, or children that keep the
            # connection open.
            message = self.connection.recv_bytes() if self.connection.poll() else None
        except (EOFError, OSError):
            message = None
        return message and pickle.loads(message)


@contextlib.contextmanager
def _without_main_module():
    """Keeps processes started in the block from importing the command's script.

    multiprocessing would import it, and TensorFlow with it, into every worker, which
    costs seconds and hundreds of megabytes. No function that runs there needs it.
    """
    main_module = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main_module


def _end(workers):
    """Closes the connections of workers, which ends them, and waits for their end."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + _END_SECONDS
    for worker in workers:
        worker.process.join(max(0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _work(connection):
    """Runs in a worker process: receives the function, then task after task."""
    # Ctrl-C reaches the whole group, but the parent handles it. It ends this process
    # by SIGTERM, which lets the function clean up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reporter = _Reporter(connection)
    try:
        pickled_function, function = connection.recv_bytes(), None
        while True:
            pickled_task = connection.recv_bytes()
            try:
                if function is None:
                    function = pickle.loads(pickled_function)
                result = function(pickle.loads(pickled_task), reporter)
                message = pickle.dumps((RESULT, result))
            except UserError as error:
                message = pickle.dumps((USER_ERROR, str(error)))
            except Exception:
                message = pickle.dumps((ERROR, traceback.format_exc()))
            reporter.flush()
            _send_to_parent(connection, message)
    except (EOFError, OSError):
        return  # the parent is done or dead
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)


def _send_to_parent(connection, message):
    try:
        connection.send_bytes(message)
    except OSError:
        # The parent is dead. The function's handlers do not catch this exception.
        sys.exit(1)


class _Reporter:
    """The `report` of a worker: sends accumulated amounts from time to time."""

    def __init__(self, connection):
        self._connection = connection
        self._amount = 0
        self._sent = time.monotonic()

    def __call__(self, amount):
        self._amount += amount
        if time.monotonic() - self._sent >= _REPORT_SECONDS:
            self.flush()

    def flush(self):
        self._sent = time.monotonic()
        if self._amount:
            amount, self._amount = self._amount, 0
            _send_to_parent(self._connection, pickle.dumps((PROGRESS, amount)))
