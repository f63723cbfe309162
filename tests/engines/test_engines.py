"""Tests of `albert_zh.engines`: order, errors, and workers that are killed."""

import contextlib
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import uuid
import zipfile

import pytest
import spark_support
from spark_support import executors_below, process_status, require_spark

from albert_zh import engines
from albert_zh.base.errors import UserError
from albert_zh.engines import LocalEngine, SparkEngine
from albert_zh.engines import spark as spark_engine

WAIT_SECONDS = 120  # for something that must happen; far more than it takes
SCRIPT_ENVIRONMENT = dict(
    os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)), PYTHONUNBUFFERED="1"
)


def wait_until(condition):
    """Waits until `condition()` is true, and returns what it returned."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("waited {} s in vain".format(WAIT_SECONDS))


def wait_for(path):
    wait_until(path.exists)


def note(directory, task):
    """Leaves a file that says that `task` was begun once more, and by whom."""
    name = "begun-{}-{}".format(task, uuid.uuid4().hex)
    temporary = directory / ("new-" + name)
    temporary.write_text(str(os.getpid()))
    temporary.rename(directory / name)


def times_begun(directory, task):
    return len(list(directory.glob("begun-{}-*".format(task))))


def noted_pids(directory):
    return [int(path.read_text()) for path in directory.glob("begun-*")]


def has_ended(pid):
    # Where nobody reaps orphans, a dead one stays as a zombie.
    return (process_status(pid) or "Z")[0] in "ZX"


def all_have_ended(pids):
    return all(map(has_ended, pids))


# ---- functions that engines run


def square(task, report):
    report(task)
    return task * task


def square_and_pid(directory, task, report):
    """Waits for the other of two tasks, so that two workers are needed."""
    note(directory, task)
    wait_until(lambda: all(times_begun(directory, other) for other in range(2)))
    report(task + 1)
    return task * task, os.getpid(), os.getppid()


def report_many_times(task, report):
    for _ in range(1000):
        report(task)


def fail_on_two(error, task, report):
    if task == 2:
        raise error
    return task


def return_a_lambda(task, report):
    return lambda: task


def die_at_first(directory, task, report):
    """Task 0 kills its worker after reporting; task 1 goes on all the while."""
    note(directory, task)
    if task == 0 and times_begun(directory, 0) == 1:
        wait_until(lambda: times_begun(directory, 1))
        # Longer than amounts are held back in the worker.
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            report(1)
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 1:
        wait_until(lambda: times_begun(directory, 0) == 2)
    report(100)
    return os.getpid()


def die_always(directory, how, task, report):
    note(directory, task)
    if task == "shard-7":
        wait_until(lambda: times_begun(directory, "shard-6"))
        how()
    return task


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def work_for_ever(directory, task, report):
    try:
        note(directory, task)
        while True:
            report(1)
            time.sleep(0.01)
    finally:
        (directory / "cleaned-{}".format(task)).touch()


def fail_or_work_for_ever(directory, task, report):
    if task == 0:
        wait_until(lambda: times_begun(directory, 1))
        raise UserError("no good")
    work_for_ever(directory, task, report)


def square_after(directory, task, report):
    note(directory, task)
    wait_for(directory / "go")
    report(10)
    return task * task


def die_on_three(task, report):
    if task == 3:
        kill_self()
    return task


# ---- this process


@pytest.mark.parametrize("engine", [LocalEngine(1), LocalEngine(4)])
def test_nothing_to_do(engine):
    assert engine.run(square, []) == []


def test_one_worker_is_this_process(tmp_path):
    amounts = []
    (tmp_path / "begun-1-x").write_text("0")
    with LocalEngine(1) as engine:
        results = engine.run(
            functools.partial(square_and_pid, tmp_path), iter([0]), amounts.append
        )
    assert results == [(0, os.getpid(), os.getppid())]
    assert amounts == [1]
    assert not multiprocessing.active_children()


def test_there_are_no_more_workers_than_tasks():
    assert LocalEngine(8).run(return_a_lambda, [5])[0]() == 5


def test_one_worker_lets_exceptions_through():
    with pytest.raises(UserError, match="^no good$"):
        LocalEngine(1).run(
            functools.partial(fail_on_two, UserError("no good")), range(4)
        )
    with pytest.raises(KeyError):
        LocalEngine(1).run(functools.partial(fail_on_two, KeyError("x")), range(4))


def test_zero_workers_are_refused():
    with pytest.raises(UserError, match="received 0"):
        LocalEngine(0)


# ---- worker processes


def test_results_are_in_order_and_progress_is_complete():
    amounts = []
    results = LocalEngine(2).run(square, range(40), amounts.append)
    assert results == [task * task for task in range(40)]
    assert sum(amounts) == sum(range(40))
    assert not multiprocessing.active_children()


def test_two_workers_are_two_processes(tmp_path):
    results = LocalEngine(2).run(functools.partial(square_and_pid, tmp_path), [0, 1])
    pids = {pid for _, pid, _ in results}
    assert len(pids) == 2 and os.getpid() not in pids
    assert {parent for _, _, parent in results} == {os.getpid()}


def test_amounts_are_passed_on_in_fewer_parts():
    amounts = []
    LocalEngine(2).run(report_many_times, [3, 4], amounts.append)
    assert sum(amounts) == 7000
    assert len(amounts) < 1000


def test_a_user_error_is_the_same_here():
    with pytest.raises(UserError) as caught:
        LocalEngine(2).run(
            functools.partial(fail_on_two, UserError("shard 2: no good")), range(4)
        )
    assert str(caught.value) == "shard 2: no good"
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("error", [KeyError("lost"), EOFError("end"), OSError("disk")])
def test_another_exception_brings_its_traceback(error):
    with pytest.raises(RuntimeError) as caught:
        LocalEngine(2).run(functools.partial(fail_on_two, error), range(4))
    message = str(caught.value)
    assert message.startswith("task 2 failed")
    assert "in fail_on_two" in message
    assert message.strip().endswith("{}: {}".format(type(error).__name__, error))
    assert not multiprocessing.active_children()


def test_a_result_that_cannot_be_sent_is_an_error():
    with pytest.raises(RuntimeError, match="lambda"):
        LocalEngine(2).run(return_a_lambda, range(2))


def test_a_user_error_ends_the_tasks_of_other_workers(tmp_path):
    with pytest.raises(UserError, match="^no good$"):
        LocalEngine(2).run(
            functools.partial(fail_or_work_for_ever, tmp_path), range(10)
        )
    assert times_begun(tmp_path, 1) == 1
    assert (tmp_path / "cleaned-1").exists()
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_replaced(tmp_path):
    amounts = []
    pids = LocalEngine(2).run(
        functools.partial(die_at_first, tmp_path), range(5), amounts.append
    )
    assert [times_begun(tmp_path, task) for task in range(5)] == [2, 1, 1, 1, 1]
    assert set(pids) < set(noted_pids(tmp_path))
    assert min(amounts) < 0
    assert sum(amounts) == 500


@pytest.mark.parametrize(
    "how, named",
    [(kill_self, "SIGKILL"), (functools.partial(os._exit, 3), "exit code 3")],
)
def test_a_task_that_kills_two_workers_is_given_up(tmp_path, how, named):
    with pytest.raises(UserError) as caught:
        LocalEngine(2).run(
            functools.partial(die_always, tmp_path, how), ["shard-6", "shard-7"]
        )
    assert times_begun(tmp_path, "shard-7") == 2
    assert times_begun(tmp_path, "shard-6") == 1
    message = str(caught.value)
    assert "task shard-7" in message and named in message
    assert "fewer workers" in message and "\n" not in message
    assert not multiprocessing.active_children()


def test_an_interrupt_ends_the_workers(tmp_path):
    def interrupt(amount):
        if len(noted_pids(tmp_path)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalEngine(2).run(
            functools.partial(work_for_ever, tmp_path), range(2), interrupt
        )
    assert not multiprocessing.active_children()
    assert len(list(tmp_path.glob("cleaned-*"))) == 2


@contextlib.contextmanager
def running_command(directory):
    """Runs a command with two workers that work for ever, in a group of its own."""
    script = directory / "command.py"
    script.write_text(
        """
import functools, pathlib, signal, sys
from albert_zh.engines import LocalEngine
from test_engines import work_for_ever

signal.signal(signal.SIGINT, signal.default_int_handler)
directory = pathlib.Path(sys.argv[1])
with open(str(directory / "loaded"), "a") as file:
    file.write("once\\n")
if __name__ == "__main__":
    LocalEngine(2).run(functools.partial(work_for_ever, directory), range(2))
"""
    )
    process = subprocess.Popen(
        [sys.executable, str(script), str(directory)],
        env=SCRIPT_ENVIRONMENT,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(noted_pids(directory)) == 2 or process.poll())
        assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    with running_command(tmp_path) as process:
        pids = noted_pids(tmp_path)
        assert not any(map(has_ended, pids))
        process.kill()
        wait_until(lambda: all_have_ended(pids))
        assert len(list(tmp_path.glob("cleaned-*"))) == 2
        # Workers do not load the script itself.
        assert (tmp_path / "loaded").read_text() == "once\n"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
def test_control_c_on_a_terminal_ends_all_without_noise(tmp_path):
    with running_command(tmp_path) as process:
        pids = noted_pids(tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(WAIT_SECONDS)
        assert all_have_ended(pids)
        assert len(list(tmp_path.glob("cleaned-*"))) == 2
        assert process.stderr.read().count("Traceback") == 1


def test_importing_engines_loads_no_heavy_package():
    code = (
        "import sys, albert_zh.engines\n"
        "print({'tensorflow', 'pyspark', 'numpy'} & set(sys.modules))"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", code], env=SCRIPT_ENVIRONMENT
    )
    assert output == b"set()\n"


# ---- Spark: what it needs


def test_own_modules_are_packed(tmp_path):
    (path,) = engines.pack_own_modules(str(tmp_path))
    names = zipfile.ZipFile(path).namelist()
    expected = {
        "tokenization.py",
        "albert_zh/__init__.py",
        "albert_zh/engines/spark.py",
    }
    assert expected < set(names)
    assert not [name for name in names if not name.endswith(".py")]

    code = (
        "import sys; sys.path.insert(0, {!r})\n"
        "from albert_zh import engines\n"
        "assert '.zip' in engines.__file__, engines.__file__\n"
        "assert engines.pack_own_modules('nowhere') == []"
    ).format(path)
    subprocess.run([sys.executable, "-c", code], cwd=str(tmp_path), check=True)


@pytest.mark.skipif(sys.version_info >= (3, 8), reason="this Python is new enough")
def test_spark_needs_a_newer_python():
    with pytest.raises(UserError, match="Python 3.8 or newer"):
        SparkEngine("local[2]")


needs_newer_python = pytest.mark.skipif(
    sys.version_info < (3, 8), reason="Spark needs Python 3.8"
)


@needs_newer_python
def test_spark_needs_pyspark(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(UserError, match="pip install 'pyspark>=3.5,<4.1'"):
        SparkEngine("local[2]")


@pytest.fixture
def path_without_java(monkeypatch, tmp_path):
    """A directory that is the whole PATH, without Java anywhere."""
    pytest.importorskip("pyspark")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@needs_newer_python
def test_spark_needs_java(monkeypatch, path_without_java):
    with pytest.raises(UserError, match="on the PATH.*openjdk-17.*JAVA_HOME") as caught:
        SparkEngine("local[2]")
    assert "\n" not in str(caught.value)

    monkeypatch.setenv("JAVA_HOME", str(path_without_java))
    with pytest.raises(UserError, match="JAVA_HOME=.* has no bin/java"):
        SparkEngine("local[2]")


@needs_newer_python
def test_spark_needs_a_newer_java(path_without_java):
    java = path_without_java / "java"
    java.write_text("#!/bin/sh\necho 'java version \"1.7.0_80\"' >&2\n")
    java.chmod(0o755)
    with pytest.raises(UserError, match="java is Java 7; install Java 17"):
        SparkEngine("local[2]")


# ---- Spark: a cluster of two executors


# Executors import this file for its functions.
MODULES = [__file__, spark_support.__file__]


@pytest.fixture(scope="module")
def spark():
    require_spark()
    import pyspark

    with SparkEngine("local-cluster[2,1,1024]") as engine:
        context = pyspark.SparkContext.getOrCreate()
        for module in MODULES:
            context.addPyFile(module)
        application = context.applicationId
        yield engine
    # This kind of master keeps its executors' logs inside the installed package.
    work = pathlib.Path(pyspark.__file__).parent / "work"
    shutil.rmtree(str(work / application), ignore_errors=True)


def test_spark_uses_all_executors(spark, tmp_path):
    amounts = []
    results = spark.run(
        functools.partial(square_and_pid, tmp_path), range(6), amounts.append
    )
    assert [square for square, _, _ in results] == [task * task for task in range(6)]
    assert len({executor for _, _, executor in results}) == 2
    assert sum(amounts) == sum(range(1, 7))


def test_spark_has_nothing_to_do(spark):
    assert spark.run(square, []) == []


def test_spark_gives_a_user_error_and_ends_other_tasks(spark, tmp_path):
    with pytest.raises(UserError, match="^no good$"):
        spark.run(functools.partial(fail_or_work_for_ever, tmp_path), range(10))
    wait_until(lambda: all_have_ended(noted_pids(tmp_path)))
    assert spark.run(square, range(3)) == [0, 1, 4]


def test_spark_gives_other_exceptions_with_their_traceback(spark):
    with pytest.raises(RuntimeError) as caught:
        spark.run(functools.partial(fail_on_two, KeyError("lost")), range(4))
    message = str(caught.value)
    assert message.startswith("task 2 failed on Spark: KeyError: 'lost'\nTraceback")
    assert "in fail_on_two" in message
    assert "\tat " not in message


def test_spark_is_interrupted(spark):
    def interrupt(amount):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spark.run(square, range(1, 50), interrupt)
    assert spark.run(square, range(3)) == [0, 1, 4]


def test_a_session_of_others_is_joined_and_left_running(spark):
    handler = signal.getsignal(signal.SIGINT)
    path = list(sys.path)
    with SparkEngine() as guest:
        assert guest.run(square, range(3)) == [0, 1, 4]
    assert signal.getsignal(signal.SIGINT) is handler
    assert sys.path == path
    assert spark.run(square, range(3)) == [0, 1, 4]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
def test_a_killed_executor_is_replaced(spark, tmp_path):
    killed = []

    def kill_one():
        try:
            wait_until(lambda: len(noted_pids(tmp_path)) == 2)
            before = executors_below(os.getpid())
            killed.append(before[0])
            os.kill(before[0], signal.SIGKILL)
            wait_until(
                lambda: len(set(executors_below(os.getpid())) - set(before)) == 1
            )
        finally:
            (tmp_path / "go").touch()

    thread = threading.Thread(target=kill_one)
    thread.start()
    amounts = []
    results = spark.run(
        functools.partial(square_after, tmp_path), range(8), amounts.append
    )
    thread.join()
    assert len(killed) == 1 and has_ended(killed[0])
    assert results == [task * task for task in range(8)]
    assert sum(amounts) == 80
    assert sorted(times_begun(tmp_path, task) for task in range(8)) == [1] * 7 + [2]


# ---- Spark: in one process, from start to end

_LOCAL_SPARK = """
import json, os, signal
import pyspark
from albert_zh.engines import SparkEngine
from albert_zh.base.errors import UserError
from test_engines import die_on_three, square

def error(function, *arguments):
    try:
        function(*arguments)
    except UserError as error:
        return str(error)

bad_masters = "nonsense", "local[x]"
seen = {"bad masters": [error(SparkEngine, master) for master in bad_masters]}
handler = signal.getsignal(signal.SIGINT)
with SparkEngine("local[2]") as engine:
    seen["results"] = engine.run(square, range(5))
    seen["death"] = error(engine.run, die_on_three, range(5))
    directory = engine._directory
    os.stat(directory)
seen["stopped"] = pyspark.SparkContext._active_spark_context is None
seen["left"] = os.path.exists(directory)
seen["same handler"] = signal.getsignal(signal.SIGINT) is handler
print(json.dumps(seen))
"""


def test_spark_in_one_process(tmp_path):
    require_spark()
    result = subprocess.run(
        [sys.executable, "-c", _LOCAL_SPARK],
        env=SCRIPT_ENVIRONMENT,
        cwd=str(tmp_path),
        capture_output=True,
        encoding="utf-8",
        timeout=WAIT_SECONDS,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    for name in ("nonsense", "local[x]"):
        message = seen["bad masters"].pop(0)
        assert "with master " + name in message and "local[N]" in message
        assert "\n" not in message
    assert seen["results"] == [0, 1, 4, 9, 16]
    assert seen["death"].startswith("task 3 failed on Spark: ")
    assert "memory" in seen["death"]
    assert "\n" not in seen["death"]
    assert seen["stopped"] and not seen["left"] and seen["same handler"]


class _SparkConf(dict):
    """What Spark is configured to, as its `SparkConf` tells."""

    contains = dict.__contains__


ON_LOOPBACK = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}
WITHOUT_PAGES = {"spark.ui.enabled": "false"}


@pytest.mark.parametrize(
    "master, configured, address, expected",
    [
        ("local[2]", {}, None, ON_LOOPBACK),
        (None, {"spark.master": "local[*]"}, None, ON_LOOPBACK),
        (None, {"spark.master": "yarn"}, None, {}),
        (None, {}, None, {}),
        ("spark://host:7077", {"spark.master": "local[*]"}, None, {}),
        ("local[2]", {}, "10.0.0.1", WITHOUT_PAGES),
        ("local[2]", {"spark.driver.host": "host0"}, None, WITHOUT_PAGES),
        ("local[2]", {"spark.driver.bindAddress": "0.0.0.0"}, None, WITHOUT_PAGES),
        (
            "local[2]",
            {"spark.ui.enabled": "true"},
            None,
            {k: v for k, v in ON_LOOPBACK.items() if k not in WITHOUT_PAGES},
        ),
    ],
)
def test_local_spark_is_kept_to_loopback_unless_told_otherwise(
    monkeypatch, master, configured, address, expected
):
    seen = []
    java = types.SimpleNamespace(
        _ensure_initialized=lambda: seen.append(os.environ.get("SPARK_LOCAL_IP"))
    )
    pyspark = types.SimpleNamespace(
        SparkConf=lambda: _SparkConf(configured), SparkContext=java
    )
    monkeypatch.setitem(sys.modules, "pyspark", pyspark)
    monkeypatch.delenv("SPARK_LOCAL_IP", raising=False)
    if address:
        monkeypatch.setenv("SPARK_LOCAL_IP", address)
    assert spark_engine._settings_of_loopback(master) == expected
    is_local = (master or "").startswith("local")
    assert seen == [address or ("127.0.0.1" if is_local else None)]
    assert os.environ.get("SPARK_LOCAL_IP") == address
