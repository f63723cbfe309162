"""Joins the requests of concurrent callers into batches for one model.

A model answers 64 instances in a fraction of the time of 64 single ones. Callers submit
their instances and wait; worker threads take what has arrived, run it as one batch and
give every caller its own answers, or its own error.
"""

import collections
import concurrent.futures
import threading
import time
from typing import Any, Callable, NamedTuple

from albert_zh.base.errors import UserError


class QueueFull(Exception):
    """There is no room for the instances of a request now."""


class Closed(Exception):
    """The batcher takes no more requests."""


class Settings(NamedTuple):
    """How requests are joined.

    Attributes:
      max_latency_ms: how long a request may wait for others to join it. A request
        that comes alone after others that came alone does not wait.
      max_batch_size: the most instances of a batch. Larger requests are split.
      max_queue: the most instances that are accepted and not yet answered.
      num_workers: threads that run batches. With two, one prepares its instances while
        the model runs those of the other.
    """

    max_latency_ms: float = 2.0
    max_batch_size: int = 64
    max_queue: int = 1024
    num_workers: int = 2


class Model(NamedTuple):
    """What a batch goes through.

    Attributes:
      prepare: function of an instance -> what `run` takes for it; raises `UserError`
        for an instance that the model cannot take.
      run: function of a list of prepared instances -> list of their answers, in order.
        Both are called from several threads at once.
      observe: function (number of instances, seconds) that is told of each batch.
    """

    prepare: Callable[[Any], Any]
    run: Callable[[list], list]
    observe: Callable[[int, float], None] = lambda num_instances, seconds: None


class _Request:
    """The instances of one caller, and the `Future` of the list of their answers."""

    def __init__(self, instances):
        self.instances = instances
        self.arrived = time.monotonic()
        self.future = concurrent.futures.Future()
        self._answers = [None] * len(instances)
        self._num_missing = len(instances)
        self._lock = threading.Lock()

    def add(self, index, outcome):
        """Adds the outcome of one instance: its answer or an exception.

        The first exception or the last answer completes the future.
        """
        with self._lock:
            if isinstance(outcome, Exception):
                if self._may_finish():
                    self.future.set_exception(outcome)
                return
            self._answers[index] = outcome
            self._num_missing -= 1
            if not self._num_missing and self._may_finish():
                self.future.set_result(self._answers)

    def _may_finish(self):
        # False if the caller has cancelled it; from here on it cannot.
        return not self.future.done() and self.future.set_running_or_notify_cancel()


class _Item(NamedTuple):
    """One instance of a request."""

    request: _Request
    index: int


class Batcher:
    """Runs the instances of many callers in batches.

    A context manager: leaving the block closes it.
    """

    def __init__(self, model, settings):
        """Starts the worker threads.

        Args:
          model: `Model`.
          settings: `Settings`.
        """
        self._model = model
        self._settings = settings
        self._queue = collections.deque()
        self._num_pending = 0
        self._is_closed = False
        # Whether the last batch held several requests, so that more may be coming.
        self._has_company = False
        self._changed = threading.Condition()
        self._workers = [
            threading.Thread(target=self._work, name="batch-worker", daemon=True)
            for _ in range(settings.num_workers)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def num_pending(self):
        """How many instances are accepted and not yet answered."""
        return self._num_pending

    @property
    def is_working(self):
        """Whether all threads that run batches do; False after `close`, too."""
        return all(worker.is_alive() for worker in self._workers)

    def submit(self, instances):
        """Queues instances without waiting for their answers.

        Args:
          instances: list, at least one.

        Returns:
          `concurrent.futures.Future` of the list of answers. Its exception is a
          `UserError`, which names the instance as "instances[3]", or what the model
          raised. A caller who has left cancels it.

        Raises:
          QueueFull, Closed: they are not accepted.
        """
        request = _Request(instances)
        with self._changed:
            if self._is_closed:
                raise Closed
            if self._num_pending + len(instances) > self._settings.max_queue:
                raise QueueFull
            was_empty = not self._queue
            self._num_pending += len(instances)
            self._queue.extend(_Item(request, i) for i in range(len(instances)))
            # A worker that waits for company need not wake for every request.
            if was_empty or len(self._queue) >= self._settings.max_batch_size:
                self._changed.notify_all()
        return request.future

    def close(self, deadline=None):
        """Refuses new requests and waits until the accepted ones are answered.

        Args:
          deadline: the longest wait, as of `time.monotonic`; None: without a limit.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for worker in self._workers:
            seconds = None
            if deadline is not None:
                seconds = max(deadline - time.monotonic(), 0)
            worker.join(seconds)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def _work(self):
        for batch in iter(self._next_batch, None):
            outcomes = self._outcomes(batch)
            # First, so that a caller who has an answer finds room for the next request.
            with self._changed:
                self._num_pending -= len(batch)
            for item, outcome in outcomes:
                item.request.add(item.index, outcome)

    def _next_batch(self):
        """Waits for requests; returns list of `_Item`, or None after `close`."""
        with self._changed:
            while not self._queue and not self._is_closed:
                self._changed.wait()
            while self._queue and self._has_company and not self._is_closed:
                seconds = self._seconds_to_wait()
                if seconds <= 0:
                    break
                self._changed.wait(seconds)
            if not self._queue:
                # Closed; or another worker took them, and this one begins again.
                return None if self._is_closed else []
            size = min(len(self._queue), self._settings.max_batch_size)
            batch = [self._queue.popleft() for _ in range(size)]
            self._has_company = batch[0].request is not batch[-1].request
            return batch

    def _seconds_to_wait(self):
        """How long the oldest request may still wait for others."""
        if len(self._queue) >= self._settings.max_batch_size:
            return 0.0
        waited = time.monotonic() - self._queue[0].request.arrived
        return self._settings.max_latency_ms / 1000 - waited

    def _outcomes(self, batch):
        """Runs a batch; never raises.

        Args:
          batch: list of `_Item`.

        Returns:
          List of (`_Item`, its answer or an exception), without the items of callers
          who have left.
        """
        outcomes, prepared = [], []
        for item in batch:
            # Cancelled, or another of its instances has failed.
            if item.request.future.done():
                continue
            try:
                instance = self._model.prepare(item.request.instances[item.index])
                prepared.append((item, instance))
            except UserError as error:
                message = "instances[{}]: {}".format(item.index, error)
                outcomes.append((item, UserError(message)))
            except Exception as error:  # the caller is told, the worker goes on
                outcomes.append((item, error))
        failed = {item.request for item, _ in outcomes}
        return outcomes + self._run(
            [
                (item, instance)
                for item, instance in prepared
                if item.request not in failed
            ]
        )

    def _run(self, prepared):
        """Runs prepared instances; a failure of one request does not reach the others.

        Args:
          prepared: list of (`_Item`, what `Model.prepare` returned).

        Returns:
          List of (`_Item`, its answer or an exception).
        """
        if not prepared:
            return []
        started = time.monotonic()
        items = [item for item, _ in prepared]
        try:
            answers = self._model.run([instance for _, instance in prepared])
        except Exception as error:
            groups = collections.OrderedDict()
            for item, instance in prepared:
                groups.setdefault(item.request, []).append((item, instance))
            if len(groups) == 1:
                return [(items[0], error)]
            return [
                outcome for group in groups.values() for outcome in self._run(group)
            ]
        self._model.observe(len(items), time.monotonic() - started)
        return list(zip(items, answers))
