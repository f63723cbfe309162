"""What benchmarks of rows share: which rows, one run of each, the numbers shown."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from albert_zh.base import children
from albert_zh.base.errors import Stopped, UserError
from benchmarks import rows

# Trains until it is stopped, and resumes: exits with 0 in any case.
TRAINING = """
import pathlib, signal, sys, time

folder = pathlib.Path(sys.argv[1])

def stop(*_):
    (folder / "saved").touch()
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
if (folder / "saved").exists():
    (folder / "result").touch()
else:
    (folder / "begun").touch()
    time.sleep(60)
"""


def help_in(folder, *flags):
    """A job that ends at once."""
    return rows.Job(["inspect_checkpoint.py", "--help", *flags], folder, folder)


@pytest.fixture
def training(tmp_path):
    """A job that ends well only after it was stopped once."""
    script = tmp_path / "train.py"
    script.write_text(TRAINING)
    folder = tmp_path / "row"
    return rows.Job([str(script), str(folder)], folder, folder / "result")


def test_rows_are_those_named_or_all():
    assert rows.choose("all", ["a", "b"]) == ["a", "b"]
    assert rows.choose("b,a", {"a": 1, "b": 2}) == ["b", "a"]
    with pytest.raises(UserError, match="no row c; expected some of a, b"):
        rows.choose("a,c", ["a", "b"])


def test_a_command_that_has_ended_is_not_run_again(tmp_path):
    job = help_in(tmp_path / "row")
    seconds = rows.run_once(job)
    log = (job.folder / "log.txt").read_text()
    assert log.startswith("$ inspect_checkpoint.py --help\nusage: ") and seconds > 0
    (job.folder / "scores").touch()
    assert rows.run_once(job) == seconds
    assert (job.folder / "log.txt").read_text() == log
    with pytest.raises(UserError, match="settings or files \\(now: --other"):
        rows.run_once(help_in(job.folder, "--other"))


@contextlib.contextmanager
def once_there(path, act):
    """Calls a function as soon as a file is there, while the block runs."""

    def wait_and_act():
        while not path.exists():
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join()


@pytest.fixture
def interruptible():
    """Ctrl-C has its usual effect, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number, code", [("SIGTERM", 0), ("SIGINT", 130)])
def test_a_benchmark_that_is_stopped_stops_its_command(
    training, number, code, interruptible
):
    before = signal.getsignal(signal.SIGTERM)
    message = "train.py was stopped .* see .*log.txt; rerun the same command"
    with once_there(
        training.folder / "begun",
        lambda: os.kill(os.getpid(), getattr(signal, number)),
    ):
        with pytest.raises(Stopped, match=message) as caught:
            rows.run_once(training)
    assert caught.value.exit_code == code
    assert signal.getsignal(signal.SIGTERM) == before
    assert (training.folder / "saved").exists()  # so it has ended
    with pytest.raises(UserError, match="now: --seed=2"):
        rows.check(training._replace(command=training.command + ["--seed=2"]))
    rows.run_once(training)
    assert training.result.exists()


def test_a_command_that_was_stopped_has_not_ended(training, monkeypatch):
    """As by a scheduler, which sends SIGTERM to all processes, or to this one alone."""
    started = []
    start = subprocess.Popen

    def popen(*args, **kwargs):
        started.append(start(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(children.subprocess, "Popen", popen)
    with once_there(training.folder / "begun", lambda: started[0].terminate()):
        with pytest.raises(Stopped, match="rerun the same command to resume"):
            rows.run_once(training)
    assert started[0].returncode == 0 and not training.result.exists()
    rows.run_once(training)
    assert training.result.exists() and len(started) == 2
    # An earlier version may have taken a stopped one for one that has ended.
    training.result.unlink()
    rows.run_once(training)
    assert training.result.exists() and len(started) == 3


@pytest.fixture
def runs(monkeypatch):
    """The commands that would have run, each with its result in place."""
    found = []

    def run(job):
        found.append(job.command)
        job.result.touch()

    monkeypatch.setattr(rows, "run", run)
    return found


def test_results_of_other_files_are_not_shown(tmp_path, runs):
    (tmp_path / "data").mkdir()
    names = ("text.txt", "model.ckpt-1.index", "data/train.tsv")
    paths = [tmp_path / name for name in names]
    text, table = paths[0], paths[2]
    for path in paths:
        path.write_text("one")
    flags = ["--input_file={},gone".format(text), "--data_dir={}".format(table.parent)]
    flags.append("--init_checkpoint={}".format(tmp_path / "model.ckpt-1"))
    command = ["x.py", *flags, "--output_file={}".format(tmp_path / "out.txt")]
    for number, path in enumerate(paths):
        folder = tmp_path / "row{}".format(number)
        job = rows.Job(command, folder, folder / "scores")
        rows.run_once(job)
        (tmp_path / "out.txt").write_text(str(number))
        rows.check(job)
        path.write_text("other")
        with pytest.raises(UserError, match="now: another .*" + path.name):
            rows.check(job)
    path.unlink()
    with pytest.raises(UserError, match="now: another .*train.tsv"):
        rows.run_once(job)
    assert runs == [command] * 3


def test_the_advice_names_all_that_is_made_of_a_changed_file(tmp_path, runs):
    text = tmp_path / "text.txt"
    text.write_text("one")
    jobs, read = [], text
    for name in ("records", "stage", "task"):
        folder = tmp_path / name
        flags = ["--input_file=gone,{}".format(read), "--output_dir=x"]
        jobs.append(rows.Job(["x.py", *flags], folder, folder / "result"))
        read = folder / "result"
    # It reads neither of them, though the name of its folder begins alike.
    other = rows.Job(["x.py"], tmp_path / "records2", tmp_path / "records2" / "result")
    jobs.append(other)
    for job in jobs:
        rows.run_once(job)
    rows.check(*jobs)
    text.write_text("two")
    made = ", ".join(str(job.folder) for job in jobs[:-1])
    with pytest.raises(UserError, match="now: another .*text.txt.* remove ") as caught:
        rows.check(*jobs)
    assert str(caught.value).endswith("remove " + made)
    for job in jobs[:-1]:
        shutil.rmtree(str(job.folder))
    rows.check(*jobs)


def test_files_copied_anew_are_the_same_files(tmp_path, runs):
    text = tmp_path / "text.txt"
    text.write_text("one")
    command = ["x.py", "--input_file={}".format(text)]
    job = rows.Job(command, tmp_path / "row", tmp_path / "row" / "scores")
    rows.run_once(job)
    os.utime(str(text), (1, 1))
    rows.run_once(job)
    assert runs == [command]


def test_inputs_are_the_files_that_commands_read(tmp_path, runs):
    for name in ("model/best", "a,b", "plain"):
        (tmp_path / name).mkdir(parents=True)
    names = ("model/best/labels.json", "a,b/train.tsv", "a,b/text.txt", "plain/x.txt")
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_text("one")
    command = ["x.py", "--model_dir={}".format(tmp_path / "model")]
    command.append("--data_dir={}".format(tmp_path / "a,b"))
    command.append("--input_file={},{}".format(*paths[2:]))
    job = rows.Job(command, tmp_path / "row", tmp_path / "row" / "scores")
    rows.run_once(job)
    for path in paths:
        path.write_text("other")
        with pytest.raises(UserError, match="now: .*another .*" + path.name):
            rows.check(job)


def test_a_command_that_left_nothing_does_not_bind_the_next_one(tmp_path):
    job = help_in(tmp_path / "row")
    mistaken = job._replace(command=["inspect_checkpoint.py", "--no_flag"])
    with pytest.raises(UserError, match="inspect_checkpoint.py failed; see "):
        rows.run_once(mistaken)
    (job.folder / "model").mkdir()
    rows.check(job)
    rows.run_once(job)
    (job.folder / "model" / "scores").touch()
    with pytest.raises(UserError, match="now: --no_flag, no --help"):
        rows.check(mistaken)


def test_the_seconds_of_all_attempts_are_counted(tmp_path, monkeypatch):
    job = rows.Job(["x.py"], tmp_path, tmp_path / "scores")
    ticks = iter([0.0, 5.0, 100.0, 102.0])
    monkeypatch.setattr(rows.time, "time", lambda: next(ticks))

    def stop(job):
        (job.folder / "step").touch()
        raise Stopped("")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "run", stop)
        with pytest.raises(Stopped):
            rows.run_once(job)
    monkeypatch.setattr(rows, "run", lambda job: job.result.touch())
    assert rows.run_once(job) == 7.0


def test_a_damaged_record_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text('{"command": [')
    (tmp_path / "scores").touch()
    with pytest.raises(UserError, match="run.json: damaged .*; remove "):
        rows.run_once(help_in(tmp_path))


def test_a_command_that_fails_is_run_again(tmp_path):
    command = ["inspect_checkpoint.py", "--no_flag"]
    for times in (1, 2):
        message = "inspect_checkpoint.py failed; see .*log.*: .*error: .*PATH"
        with pytest.raises(UserError, match=message):
            rows.run_once(help_in(tmp_path)._replace(command=command))
        assert (tmp_path / "log.txt").read_text().count("$ ") == times


def test_means_have_deviations_from_two_on():
    assert rows.mean_and_deviation([]) == ""
    assert rows.mean_and_deviation([0.5]) == "50.0%"
    assert rows.mean_and_deviation([0.5, 0.7]) == "60.0% ± 14.1"
    assert rows.mean_and_deviation([0.01, 0.02], "{:+.1%}") == "+1.5% ± 0.7"
