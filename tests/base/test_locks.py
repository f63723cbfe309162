"""Locks: one holder, who may die in any way; nobody else's file is touched."""

import multiprocessing
import os
import signal

import pytest

from albert_zh.base import locks
from albert_zh.base.errors import UserError

_MESSAGE = "somebody is at work"


def _hold(path, connection):
    with locks.hold(path, _MESSAGE):
        connection.send("held")
        connection.recv()
    connection.send("released")


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock: (process, connection, path)."""
    path = str(tmp_path / "lock")
    connection, others_end = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_hold, args=(path, others_end), daemon=True)
    process.start()
    assert connection.recv() == "held"
    yield process, connection, path
    process.kill()
    process.join()


def test_one_process_holds_a_lock(holder):
    _, connection, path = holder
    with pytest.raises(UserError, match=_MESSAGE), locks.hold(path, _MESSAGE):
        raise AssertionError("two hold it")
    connection.send("end")
    assert connection.recv() == "released"
    assert not os.path.exists(path)
    with locks.hold(path, _MESSAGE):
        assert os.path.exists(path)


def test_a_lock_ends_with_its_holder(holder):
    process, _, path = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert os.path.exists(path)
    with locks.hold(path, _MESSAGE):
        pass
    assert not os.path.exists(path)


def test_a_lock_is_let_go_after_an_error(tmp_path):
    path = str(tmp_path / "lock")
    with pytest.raises(KeyError), locks.hold(path, _MESSAGE):
        raise KeyError
    with locks.hold(path, _MESSAGE):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_somebody_removed_or_replaced_is_left_alone(tmp_path):
    path = tmp_path / "lock"
    with locks.hold(str(path), _MESSAGE):
        path.unlink()
    assert not path.exists()
    with locks.hold(str(path), _MESSAGE):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


@pytest.mark.parametrize("kind", ["file", "directory", "dangling"])
def test_links_are_not_followed(tmp_path, kind):
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("precious")
    elif kind == "directory":
        target.mkdir()
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(UserError), locks.hold(str(tmp_path / "lock"), _MESSAGE):
        raise AssertionError("a link is no lock")
    assert kind != "file" or target.read_text() == "precious"
    assert kind != "dangling" or not target.exists()


def test_a_pipe_is_no_lock(tmp_path):
    path = str(tmp_path / "lock")
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a file"), locks.hold(path, _MESSAGE):
        raise AssertionError("a pipe is no lock")


def test_a_file_with_content_is_no_lock(tmp_path):
    path = tmp_path / ".lock"
    path.write_text("precious")
    with pytest.raises(UserError, match="not empty"), locks.hold(str(path), _MESSAGE):
        raise AssertionError("somebody's file is no lock")
    assert path.read_text() == "precious"


def _hold_with_a_copy(path, connection):
    with locks.hold(path, _MESSAGE):
        if os.fork() == 0:
            # Sent by the copy itself: what it does at its start is done by now.
            connection.send(os.getpid())
            signal.pause()
        connection.recv()


def test_a_copy_of_the_holder_does_not_hold(tmp_path):
    path = str(tmp_path / "lock")
    connection, others_end = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_hold_with_a_copy, args=(path, others_end), daemon=True
    )
    process.start()
    copy = connection.recv()
    try:
        process.kill()
        process.join()
        with locks.hold(path, _MESSAGE):
            assert os.path.exists("/proc/{}".format(copy)), "the copy has ended"
    finally:
        os.kill(copy, signal.SIGKILL)


def test_remote_paths_have_no_lock(tmp_path):
    with locks.hold("file://{}/lock".format(tmp_path), _MESSAGE):
        assert list(tmp_path.iterdir()) == []


def test_a_patient_one_waits_for_the_holder(holder):
    _, connection, path = holder
    # Ends with the message below, as soon as somebody waits or shortly before.
    connection.send("end")
    with locks.hold(path, _MESSAGE, is_patient=True):
        assert connection.recv() == "released"
    assert not os.path.exists(path)
