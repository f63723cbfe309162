"""Batches of concurrent callers: who gets what, and what one caller does to others."""

import concurrent.futures
import threading
import time

import pytest

from albert_zh.base.errors import UserError
from albert_zh.serving import batching

TIMEOUT_SECONDS = 30


class Doubler:
    """A model that doubles numbers, and waits for a gate before each batch.

    Attributes:
      batches: list of the lists it was given.
      gate: `threading.Event`; closed, it holds all batches.
      started: `threading.Semaphore`, released once for each batch that begins.
    """

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)

    def prepare(self, instance):
        if not isinstance(instance, int):
            raise UserError("expected a number, received {!r}".format(instance))
        return instance

    def run(self, numbers):
        self.batches.append(numbers)
        self.started.release()
        assert self.gate.wait(TIMEOUT_SECONDS)
        if 13 in numbers:
            raise RuntimeError("13")
        return [2 * number for number in numbers]


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def start(doubler):
    """Function that starts a batcher of one worker with other settings."""
    batchers = []

    def start_batcher(**settings):
        settings = dict({"num_workers": 1, "max_latency_ms": 0}, **settings)
        model = batching.Model(doubler.prepare, doubler.run)
        batchers.append(batching.Batcher(model, batching.Settings(**settings)))
        return batchers[-1]

    yield start_batcher
    doubler.gate.set()
    for batcher in batchers:
        batcher.close()


def hold(doubler, batcher):
    """Lets the worker begin a batch that stays held; returns its future."""
    doubler.gate.clear()
    future = batcher.submit([0])
    assert doubler.started.acquire(timeout=TIMEOUT_SECONDS)
    return future


def result(future):
    return future.result(TIMEOUT_SECONDS)


def test_each_caller_gets_its_own_answers(doubler, start):
    batcher = start()
    first = hold(doubler, batcher)
    futures = [batcher.submit([i, 100 + i]) for i in range(1, 6)]
    doubler.gate.set()
    assert result(first) == [0]
    expected = [[2 * i, 200 + 2 * i] for i in range(1, 6)]
    assert [result(future) for future in futures] == expected
    # What came while the first one ran went as one batch.
    assert list(map(len, doubler.batches)) == [1, 10]
    assert batcher.num_pending == 0


def test_large_requests_are_split(doubler, start):
    batcher = start(max_batch_size=4)
    assert result(batcher.submit(list(range(10)))) == list(range(0, 20, 2))
    assert list(map(len, doubler.batches)) == [4, 4, 2]


def test_bad_instances_fail_their_own_request_only(doubler, start):
    batcher = start()
    hold(doubler, batcher)
    good, bad = batcher.submit([1]), batcher.submit([1, 2, 3, "4"])
    doubler.gate.set()
    with pytest.raises(UserError, match=r"^instances\[3\]: expected a number"):
        result(bad)
    assert result(good) == [2]
    # The other instances of the bad request were not run.
    assert doubler.batches[-1] == [1]


def test_a_failing_model_fails_its_own_request_only(doubler, start):
    batcher = start()
    hold(doubler, batcher)
    futures = [batcher.submit([number]) for number in (1, 13, 2)]
    doubler.gate.set()
    assert result(futures[0]) == [2]
    assert result(futures[2]) == [4]
    with pytest.raises(RuntimeError, match="13"):
        result(futures[1])
    # And the worker goes on.
    assert result(batcher.submit([5])) == [10]
    assert batcher.num_pending == 0


def test_cancelled_requests_are_not_run(doubler, start):
    batcher = start()
    running = hold(doubler, batcher)
    cancelled, kept = batcher.submit([1]), batcher.submit([2])
    assert cancelled.cancel()
    # One that is cancelled while it runs is dropped without harm.
    assert running.cancel()
    doubler.gate.set()
    assert result(kept) == [4]
    assert doubler.batches[1:] == [[2]]
    assert batcher.num_pending == 0


def test_the_queue_is_bounded(doubler, start):
    batcher = start(max_queue=3)
    first = hold(doubler, batcher)
    second = batcher.submit([1, 2])
    with pytest.raises(batching.QueueFull):
        batcher.submit([3])
    doubler.gate.set()
    assert result(first) == [0]
    assert result(second) == [2, 4]
    # Who has an answer finds room again.
    assert result(batcher.submit([4, 5, 6])) == [8, 10, 12]


def test_close_answers_what_was_accepted(doubler, start):
    batcher = start(max_latency_ms=60000)
    futures = [hold(doubler, batcher), batcher.submit([1]), batcher.submit([2])]
    closer = threading.Thread(target=batcher.close)
    closer.start()
    while True:
        try:
            futures.append(batcher.submit([3]))
        except batching.Closed:
            break
    doubler.gate.set()
    expected = [[0], [2], [4]] + [[6]] * (len(futures) - 3)
    assert [result(future) for future in futures] == expected
    closer.join(TIMEOUT_SECONDS)
    assert not closer.is_alive()


def test_close_waits_no_longer_than_its_deadline(doubler, start):
    batcher = start(num_workers=2)
    future = hold(doubler, batcher)
    batcher.close(time.monotonic() + 0.01)
    assert not future.done() and batcher.num_pending == 1
    doubler.gate.set()
    assert result(future) == [0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_batcher_knows_that_a_thread_has_died(doubler):
    def observe(num_instances, seconds):
        raise SystemExit  # which threads do not show

    model = batching.Model(doubler.prepare, doubler.run, observe)
    with batching.Batcher(model, batching.Settings()) as batcher:
        assert batcher.is_working
        batcher.submit([1])
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while batcher.is_working:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_a_lone_caller_does_not_wait_for_others(doubler, start):
    batcher = start(max_latency_ms=60000)
    for number in range(3):
        assert result(batcher.submit([number])) == [2 * number]


def test_a_batch_is_full_before_its_time(doubler, start):
    batcher = start(max_latency_ms=60000, max_batch_size=2)
    hold(doubler, batcher)
    futures = [batcher.submit([number]) for number in range(4)]
    doubler.gate.set()
    assert [result(future) for future in futures] == [[0], [2], [4], [6]]


def test_after_company_a_request_waits_no_longer_than_its_time(doubler, start):
    batcher = start(max_latency_ms=20)
    hold(doubler, batcher)
    futures = [batcher.submit([number]) for number in range(4)]
    doubler.gate.set()
    assert [result(future) for future in futures] == [[0], [2], [4], [6]]
    assert result(batcher.submit([7])) == [14]


def test_many_threads_get_every_answer_once(doubler, start):
    batcher = start(num_workers=2, max_latency_ms=1, max_batch_size=16)

    def ask(caller):
        numbers = [100000 + 1000 * caller + i for i in range(50)]
        return [result(batcher.submit([n, n + 500])) for n in numbers] == [
            [2 * n, 2 * n + 1000] for n in numbers
        ]

    with concurrent.futures.ThreadPoolExecutor(32) as callers:
        assert all(callers.map(ask, range(32)))
    assert sum(map(len, doubler.batches)) == 32 * 50 * 2
    assert batcher.num_pending == 0
