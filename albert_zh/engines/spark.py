"""Tasks on Apache Spark."""

import atexit
import concurrent.futures
import contextlib
import functools
import logging
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import uuid
import zipfile

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.engines.common import PROGRESS, USER_ERROR, Engine, ignore

_POLL_SECONDS = 0.2  # between two looks at a job
_LOOPBACK = "127.0.0.1"
_MORE_ABOVE = "Spark may have said more above"


class SparkEngine(Engine):
    """Runs tasks on Apache Spark, pyspark 3.5 or 4.0.

    The executors get this package, but its dependencies must be installed for their
    Python. With local[N] that is the Python of this process, otherwise the one that
    PYSPARK_PYTHON or Spark's configuration names.

    With local[N] Spark's ports are reachable from this machine only, unless its
    configuration or SPARK_LOCAL_IP says otherwise.
    """

    def __init__(self, master=None):
        """Starts or joins a Spark session.

        Under `spark-submit` its configuration applies. An existing session is used,
        and not stopped at the end.

        Args:
          master: str, Spark's master URL; None for the one in Spark's configuration.

        Raises:
          UserError: pyspark or Java is missing or too old, or the session cannot be
            started.
        """
        _check_installation()
        import pyspark
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.appName("albert_zh")
        builder = builder.config("spark.ui.showConsoleProgress", "false")
        if master is not None:
            builder = builder.master(master)
        # No public function tells this: the active session is per thread.
        self._is_owner = pyspark.SparkContext._active_spark_context is None
        self._session = None
        # Executors that join later fetch modules from it. An existing session may
        # outlive this engine, so the directory then stays until the process ends.
        self._directory = files.make_temporary_directory()
        atexit.register(shutil.rmtree, self._directory, ignore_errors=True)
        with self._starting(
            "start Spark with {}".format(
                "its own configuration" if master is None else "master " + master
            ),
            "a master is local[N], spark://HOST:PORT, yarn or k8s://HOST:PORT, and "
            + _MORE_ABOVE,
        ):
            with _same_interrupt_handler():
                if self._is_owner:
                    for item in _settings_of_loopback(master).items():
                        builder = builder.config(*item)
                self._session = builder.getOrCreate()
            self._context = self._session.sparkContext
        if self._is_owner:
            self._configure_session()
        with self._starting("pack modules for Spark's executors", "make room for them"):
            own_files = pack_own_modules(self._directory)
        for file in own_files:
            with self._starting("send modules to Spark's executors", _MORE_ABOVE):
                self._ship(file)

    def _configure_session(self):
        """Sets log levels and the executors' Python of this engine's own session."""
        # Not ERROR: Spark only warns if it gets no executors.
        self._context.setLogLevel("WARN")
        # At INFO the connection to Java logs the end of every thread.
        logging.getLogger("py4j").setLevel(logging.WARNING)
        is_local = self._context.master.startswith("local")
        if is_local and not os.environ.get("PYSPARK_PYTHON"):
            self._context.pythonExec = sys.executable

    @contextlib.contextmanager
    def _starting(self, purpose, advice):
        """Closes this engine and raises `UserError` when the block fails."""
        try:
            yield
        except Exception as error:
            reason = _java_message(error).split("\n")[0]
            self.close()
            raise UserError(
                "cannot {}: {}; {}".format(purpose, reason, advice)
            ) from error

    def _ship(self, file):
        """Makes a module or a zip file of modules importable in the executors."""
        # Spark adds its copy to sys.path of this process, too.
        path = list(sys.path)
        try:
            self._context.addPyFile(file)
        finally:
            sys.path[:] = path

    def close(self):
        """Stops the session if this engine started it."""
        if self._is_owner:
            if self._session is not None:
                self._session.stop()
                self._session = None
            shutil.rmtree(self._directory, ignore_errors=True)

    def run(self, function, tasks, progress=None):
        """Runs `function` on every task; see `LocalEngine.run`.

        Every task is one partition. Spark handles lost executors, retries and
        speculation. When this raises, Spark has been told to end the other tasks, but
        they may run for some more seconds.

        Args:
          function: as in `LocalEngine.run`, from a module that executors can import.
          tasks: picklable tasks.
          progress: function called with the amount that a task reported, in bytes,
            once when the task is complete.

        Returns:
          List of the function's results, in the order of the tasks.

        Raises:
          UserError: as raised by the function, which ends the job; or Spark lost a
            task's executors or workers too often.
          RuntimeError: the function raised another exception in every one of Spark's
            attempts; the message has the executor's traceback.
        """
        from pyspark import InheritableThread

        tasks = list(tasks)
        if not tasks:
            return []
        group = "albert_zh-" + uuid.uuid4().hex
        outcomes = self._context.accumulator([], _Concatenation())
        rdd = self._context.parallelize(tasks, len(tasks)).map(
            functools.partial(_run_on_executor, function, outcomes)
        )
        future = concurrent.futures.Future()

        def collect():
            try:
                # Per thread: other jobs of the session keep their groups.
                self._context.setJobGroup(group, "{} tasks".format(len(tasks)))
                future.set_result(rdd.collect())
            except Exception as error:
                future.set_exception(error)

        thread = InheritableThread(target=collect)
        thread.daemon = True
        thread.start()
        try:
            _follow(future, outcomes, progress or ignore)
        except BaseException:
            self._cancel(group, future)
            raise
        if future.exception() is not None:
            raise _job_error(future.exception(), tasks) from future.exception()
        return future.result()

    def _cancel(self, group, future):
        """Ends a job."""
        # Repeated, because the other thread may not have started the job yet.
        while not future.done():
            # If Java is dead, the thread fails as well.
            with contextlib.suppress(Exception):
                self._context.cancelJobGroup(group)
            concurrent.futures.wait([future], _POLL_SECONDS)


def _settings_of_loopback(master):
    """Starts Java; returns the settings that restrict a local Spark to loopback.

    By default Spark binds its ports, which accept tasks from anyone, to the address
    of this machine, and its web pages to all addresses.

    Args:
      master: as in `SparkEngine`.

    Returns:
      dict name -> value; empty if Spark also runs on other machines or the user has
      chosen the addresses.
    """
    from pyspark import SparkConf, SparkContext

    with _local_address_in_environment(master):
        # Not public, but Spark's configuration files are read by Java only.
        SparkContext._ensure_initialized()
    configured = SparkConf()
    if not (master or configured.get("spark.master", "")).startswith("local"):
        return {}
    settings = {"spark.ui.enabled": "false"}
    addresses = ["spark.driver.host", "spark.driver.bindAddress"]
    is_chosen = "SPARK_LOCAL_IP" in os.environ
    if not is_chosen and not any(map(configured.contains, addresses)):
        settings.update(dict.fromkeys(addresses, _LOOPBACK))
    return {k: v for k, v in settings.items() if not configured.contains(k)}


@contextlib.contextmanager
def _local_address_in_environment(master):
    """Makes a Java that starts in the block bind its other ports to loopback, too.

    No setting covers the ports of local-cluster's master and workers.
    """
    if not (master or "").startswith("local") or "SPARK_LOCAL_IP" in os.environ:
        yield
        return
    os.environ["SPARK_LOCAL_IP"] = _LOOPBACK
    try:
        yield
    finally:
        del os.environ["SPARK_LOCAL_IP"]


class _Concatenation:
    """Spark's `AccumulatorParam` for lists, without importing pyspark."""

    def zero(self, value):
        return []

    def addInPlace(self, value, further):
        value.extend(further)
        return value


def _run_on_executor(function, outcomes, task):
    """Runs one task on an executor and reports to the driver through `outcomes`.

    After a `UserError` the task succeeds for Spark: Spark would retry a failed task
    and not deliver its outcome.
    """
    total = 0

    def report(amount):
        nonlocal total
        total += amount

    try:
        result = function(task, report)
    except UserError as error:
        outcomes.add([(USER_ERROR, str(error))])
        return None
    outcomes.add([(PROGRESS, total)])
    return result


def _follow(future, outcomes, progress):
    """Waits for the end of a job, and passes on what its tasks add to `outcomes`.

    Raises:
      UserError: a task raised it.
    """
    num_seen = 0
    is_done = False
    while not is_done:
        concurrent.futures.wait([future], _POLL_SECONDS)
        is_done = future.done()
        unseen = outcomes.value[num_seen:]
        num_seen += len(unseen)
        for kind, content in unseen:
            if kind == USER_ERROR:
                raise UserError(content)
            if content:
                progress(content)


def _job_error(error, tasks):
    """Returns the exception for a failed job: one line, or a Python traceback."""
    message = _java_message(error)
    index = re.search(r"Task (\d+) in stage", message)
    name = "task {}".format(tasks[int(index.group(1))]) if index else "a task"
    # Java's own stack follows; its lines begin with a tab.
    python_traceback = re.search(
        r"^.*?(Traceback \(most recent call last\):.*?)\s*(?:\n\tat |\Z)",
        message,
        re.DOTALL,
    )
    if python_traceback is None:
        return UserError(
            "{} failed on Spark: {}; see the executors' logs, and if memory ran out, "
            "raise spark.executor.memoryOverhead or use smaller shards".format(
                name, message.split("\n")[0]
            )
        )
    text = python_traceback.group(1)
    return RuntimeError(
        "{} failed on Spark: {}\n{}".format(name, text.splitlines()[-1], text)
    )


def _java_message(error):
    """Returns an exception's message, without the stack of the call into Java."""
    if hasattr(error, "java_exception"):
        # The class comes first, as in "java.io.FileNotFoundException: ".
        return re.sub(r"^(\w+\.)+\w+: ", "", error.java_exception.toString())
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _same_interrupt_handler():
    """Restores the handler of Ctrl-C after the block.

    pyspark's handler also cancels the jobs of other users of the session, and raises
    an AttributeError once the session has been stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def pack_own_modules(directory):
    """Writes the modules of this repository that tasks may import into a zip file.

    Args:
      directory: str, where to write it.

    Returns:
      List of str: the path of the file; empty if this package itself runs from a zip
      file, which `spark-submit --py-files` then gives to the executors, too.
    """
    root = pathlib.Path(os.path.abspath(__file__)).parent.parent.parent
    if not root.is_dir():
        return []
    # A unique name: Spark rejects a second file of the same name in a session.
    path = os.path.join(directory, "albert_zh-{}.zip".format(uuid.uuid4().hex))
    modules = [root / "tokenization.py"] + sorted((root / "albert_zh").rglob("*.py"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in modules:
            name = module.relative_to(root).as_posix()
            # Not `write`, which fails for files dated before 1980.
            archive.writestr(name, module.read_bytes())
    return [path]


def _check_installation():
    """Raises `UserError` if Python, pyspark or Java is missing or too old for Spark."""
    if sys.version_info < (3, 8):
        raise UserError(
            "Spark requires Python 3.8 or newer, this is Python {}.{}; use a newer "
            "Python, or --engine=local".format(*sys.version_info[:2])
        )
    try:
        import pyspark
    except ImportError as error:
        raise UserError(
            "{} has no pyspark; run pip install 'pyspark>=3.5,<4.1'".format(
                sys.executable
            )
        ) from error
    # Under spark-submit Java is running already.
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        _check_java(17 if int(pyspark.__version__.split(".")[0]) >= 4 else 8)


def _check_java(oldest):
    """Raises `UserError` if Spark's start script would find no usable Java.

    Args:
      oldest: int, the oldest version that Spark supports.
    """
    advice = (
        "install Java 17 (Debian's package openjdk-17-jre-headless), or set JAVA_HOME "
        "to where it is"
    )
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    if shutil.which(java) is None:
        raise UserError(
            "Spark requires Java, but {}; {}".format(
                "JAVA_HOME={} has no bin/java".format(home)
                if home
                else "there is no java on the PATH",
                advice,
            )
        )
    try:
        answer = subprocess.run(
            [java, "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ).stdout.decode("utf-8", "replace")
    except OSError as error:
        raise UserError(
            "cannot run {}: {}; {}".format(java, error.strerror, advice)
        ) from error
    # Java 8 reports 1.8. Spark itself deals with an unknown answer.
    version = re.search(r'version "(?:1\.)?(\d+)', answer)
    if version and int(version.group(1)) < oldest:
        raise UserError(
            "Spark requires Java {} or newer, but {} is Java {}; {}".format(
                oldest, shutil.which(java), version.group(1), advice
            )
        )
