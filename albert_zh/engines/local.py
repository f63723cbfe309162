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

_MAX_DEATHS = 2  # of workers on one task; the second death is hardly an accident
_END_SECONDS = 5  # for a worker to clean up before it is killed
_REPORT_SECONDS = 0.1  # between two messages of a worker about its progress


class LocalEngine(Engine):
    """Runs tasks in this process or on worker processes of this machine."""

    def __init__(self, num_workers):
        """Starts nothing yet; every run has its own workers.

        Args:
          num_workers: int, processes to use; 1 stays in this process.

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

        A worker that dies (killed, out of memory) is replaced and its task begun
        anew; the others go on undisturbed. On failure and on Ctrl-C the function is
        left by a `KeyboardInterrupt` in all other workers, and they have ended when
        this returns.

        Args:
          function: picklable function of (task, report), from a module that workers
            can import: not from the script that was started, which they do not load.
            It may call `report(amount)` with the amount of work done since the last
            call, in bytes, and returns something picklable.
          tasks: picklable tasks; `str(task)` names one in messages.
          progress: function that is called here with such amounts, and with negative
            ones where a lost worker's share is to be done again.

        Returns:
          List of what the function returned, in the order of the tasks.

        Raises:
          UserError: as raised by the function; or workers died twice on one task.
          RuntimeError: the function raised something else in a worker, whose
            traceback is in the message. Without workers that exception is raised.
        """
        tasks = list(tasks)
        progress = progress or ignore
        num_workers = min(self._num_workers, len(tasks))
        if num_workers <= 1:
            return [function(task, progress) for task in tasks]
        return _LocalRun(function, tasks, progress).execute(num_workers)


class _LocalRun:
    """One run on worker processes: what waits, who works on what, the results."""

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
            # All are started before one is sent anything, for which it must be up.
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
        """Waits until workers have sent something or died, and returns them."""
        owners = {}
        for worker in self._workers:
            owners[worker.connection] = owners[worker.process.sentinel] = worker
        return {owners[item] for item in multiprocessing.connection.wait(list(owners))}

    def _attend(self, worker):
        """Acts on one message of a worker, or on its death."""
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
        """Gives a worker the next task; without one it ends now, not with the last."""
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
        """Has a new worker do a dead one's task, if it is the first on it that died."""
        _end([worker])
        self._workers.remove(worker)
        if worker.reported:
            self._progress(-worker.reported)
        task, how = self._tasks[worker.index], _describe_exit(worker.process.exitcode)
        self._deaths[worker.index] += 1
        if self._deaths[worker.index] == _MAX_DEATHS:
            raise UserError(
                "task {}: its worker process died {} times, at last by {}; most likely "
                "memory ran out, use fewer workers or smaller shards".format(
                    task, _MAX_DEATHS, how
                )
            )
        _LOGGER.warning("task %s: its worker died by %s, trying once more", task, how)
        successor = _Worker()
        self._workers.append(successor)
        successor.send(self._function)
        self._give(successor, worker.index)


class _Worker:
    """A worker process, as seen by its parent.

    Attributes:
      process: `multiprocessing.Process`.
      connection: this end of its connection.
      index: int, position of the task that it works on.
      reported: amount that it has reported for this task.
    """

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self.connection, others_end = context.Pipe()
        self.process = context.Process(target=_work, args=(others_end,), daemon=True)
        self.index, self.reported = None, 0
        with _without_main_module():
            self.process.start()
        # While it is open here, the worker's death does not close the connection.
        others_end.close()

    def send(self, pickled):
        """Sends pickled content; `receive` tells whether the worker is still there."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(pickled)

    def receive(self):
        """Returns the next message, a pair; None where the worker has died."""
        try:
            # A process that is gone may have left messages, or its children, which
            # hold the connection open.
            message = self.connection.recv_bytes() if self.connection.poll() else None
        except (EOFError, OSError):
            message = None
        return message and pickle.loads(message)


@contextlib.contextmanager
def _without_main_module():
    """Keeps processes started in the block from loading the command's own script.

    multiprocessing would import it into every worker, and with it TensorFlow: seconds
    of start and hundreds of megabytes each, for functions that are not in there.
    """
    main_module = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main_module


def _end(workers):
    """Waits until workers have ended, which they do when nobody listens any more."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + _END_SECONDS
    for worker in workers:
        worker.process.join(max(0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _describe_exit(code):
    """Says how a process ended; a negative code is a signal's number."""
    if code >= 0:
        return "exit code {}".format(code)
    with contextlib.suppress(ValueError):
        return "signal {}".format(signal.Signals(-code).name)
    return "signal {}".format(-code)


def _work(connection):
    """Runs in a worker process: receives the function, then task after task."""
    # Ctrl-C reaches the whole group; the parent decides what comes of it, and ends
    # this process by SIGTERM, which leaves the function's clean-up its chance.
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
        return  # the parent needs nothing more, or is dead
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)


def _send_to_parent(connection, message):
    try:
        connection.send_bytes(message)
    except OSError:
        # The parent is dead. Unlike an OSError this passes the function's handlers.
        sys.exit(1)


class _Reporter:
    """The `report` of a worker: passes amounts on, but not every single one."""

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
