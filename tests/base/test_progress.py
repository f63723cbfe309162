"""Progress: log lines without a terminal, a bar on one."""

import io
import sys
import types

import pytest

from albert_zh.base import progress
from albert_zh.data import corpus


@pytest.fixture
def clock(monkeypatch):
    """An object whose `now`, in seconds, is the time."""
    clock = types.SimpleNamespace(now=1000.0)
    fake = types.SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(progress, "time", fake)
    return clock


def test_lines_are_logged_now_and_then(clock, caplog):
    caplog.set_level("INFO")
    with progress.ByteProgress(10e6, done=2e6) as shown:
        clock.now += 20
        shown.update(3e6)
        assert not caplog.messages
        clock.now += 20
        shown.update(1e6)
        # 4 MB in 40 seconds; what was done before does not count.
        line = "6.0 of 10.0 MB done  0.10 MB/s  0:00:40 left"
        assert caplog.messages == [line]
        clock.now += 20
        shown.update(1e6)
        assert len(caplog.messages) == 1


def test_bytes_can_be_taken_back(clock, caplog):
    caplog.set_level("INFO")
    with progress.ByteProgress(10e6) as shown:
        shown.update(4e6)
        clock.now += 40
        shown.update(-4e6)
    assert caplog.messages == ["0.0 of 10.0 MB done  0.00 MB/s  0:00:00 left"]


def test_a_job_of_unknown_size_has_no_time_left(clock, caplog):
    caplog.set_level("INFO")
    with progress.ByteProgress(None, name="a file") as shown:
        clock.now += 40
        shown.update(4e6)
    assert caplog.messages == ["a file: 4.0 MB done  0.10 MB/s"]


def test_a_terminal_shows_a_bar(clock, caplog, monkeypatch):
    caplog.set_level("INFO")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.ByteProgress(10e6, done=2e6) as shown:
        clock.now += 100
        shown.update(8e6)
    assert "100%" in terminal.getvalue()
    assert "10.0M/10.0M" in terminal.getvalue()
    assert not caplog.messages


def test_documents_are_passed_on_and_counted_when_they_are_done(clock, caplog):
    caplog.set_level("INFO")
    documents = [
        corpus.Document([sentence], int(num_bytes), 0, False)
        for sentence, num_bytes in (("一", 1e6), ("二", 3e6))
    ]
    received = []
    for document in progress.show(iter(documents), 4e6):
        assert len(caplog.messages) == len(received)
        received.append(document)
        clock.now += 30
    assert received == documents
    done = [line.split(" MB done")[0] for line in caplog.messages]
    assert done == ["1.0 of 4.0", "4.0 of 4.0"]
