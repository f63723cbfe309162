"""Work in a copy of the process: what it says, and that nothing of it comes back."""

import os
import signal

import pytest

from albert_zh.base import children
from albert_zh.base.errors import UserError


@pytest.mark.parametrize("value", [None, 7, "天气", [1, {"a": None}]])
def test_what_the_work_returns_is_returned(value):
    assert children.call(lambda sign_of_life: value) == value


def test_the_work_is_done_in_another_process():
    seen = []

    def work(sign_of_life):
        seen.append(1)
        return os.getpid()

    assert children.call(work) != os.getpid()
    assert not seen


def test_a_users_mistake_is_raised_here():
    def work(sign_of_life):
        raise UserError("no such\nfile")

    with pytest.raises(UserError, match="^no such\nfile$"):
        children.call(work)


def _abort(sign_of_life):
    os.write(2, b"Check failed")
    os.abort()


def _fail(sign_of_life):
    raise ZeroDivisionError


def _loop(sign_of_life):
    while True:
        pass


@pytest.mark.parametrize(
    "work, words",
    [
        (_abort, "^signal 6 .SIGABRT.$"),
        (lambda sign_of_life: os.kill(os.getpid(), signal.SIGKILL), "^signal 9"),
        (lambda sign_of_life: os._exit(0), "^exit code 0$"),
        (_fail, "^exit code 1$"),
        (_loop, "^no progress in 1 seconds$"),
    ],
)
def test_a_copy_that_dies_is_told_and_says_nothing_else(
    monkeypatch, capfd, work, words
):
    copies, fork = [], os.fork

    def recorded_fork():
        copies.append(fork())
        return copies[-1]

    monkeypatch.setattr(os, "fork", recorded_fork)
    monkeypatch.setattr(children, "LIMIT_SECONDS", 1)
    with pytest.raises(children.Died, match=words):
        children.call(work)
    assert capfd.readouterr() == ("", "")
    (copy,) = copies
    with pytest.raises(ChildProcessError):  # it has been waited for
        os.waitpid(copy, os.WNOHANG)


def test_signals_to_a_copy_are_not_handled_as_here(tmp_path):
    handled = tmp_path / "handled"
    before = signal.signal(signal.SIGTERM, lambda *_: handled.touch())
    try:
        with pytest.raises(children.Died, match="SIGTERM"):
            children.call(lambda alive: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not handled.exists()


def test_without_room_for_a_copy_the_work_is_done_here(monkeypatch, caplog):
    def fork():
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", fork)
    assert children.call(lambda sign_of_life: (sign_of_life(), os.getpid())[1]) == (
        os.getpid()
    )
    assert "Cannot allocate memory" in caplog.text
