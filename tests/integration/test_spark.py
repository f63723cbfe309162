"""Data generation on Spark: the local engine's bytes, also when an executor is lost."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import zipfile

import generation_runs as runs
import pytest
from spark_support import executors_below, require_spark

from benchmarks.faults import ports

pytestmark = pytest.mark.once

MASTER = "local-cluster[2,1,1024]"


@pytest.fixture(autouse=True)
def spark():
    require_spark()


def _spark_flags(corpus_dir, **flags):
    return runs.flags(corpus_dir, engine="spark", **flags)


def test_spark_makes_the_same_bytes(corpus_dir, undisturbed, tmp_path):
    flags = _spark_flags(corpus_dir, spark_master=MASTER)
    result = runs.run(tmp_path, *flags)
    assert result.returncode == 0, result.stderr
    assert runs.digests(tmp_path) == undisturbed
    assert not (tmp_path / "out.tfrecord.work").exists()


def test_a_lost_executor_leaves_neither_gap_nor_double(
    corpus_dir, undisturbed, tmp_path
):
    process = subprocess.Popen(
        runs.command(*_spark_flags(corpus_dir, spark_master=MASTER)),
        cwd=str(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    work = tmp_path / "out.tfrecord.work"
    runs.wait_for(process, lambda: len(list(work.rglob("shard-*.json"))) >= 3)
    killed = executors_below(process.pid)[:1]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert killed and "Lost executor" in errors
    assert runs.digests(tmp_path) == undisturbed
    assert not runs.leftovers(tmp_path)


def test_a_mistake_ends_the_job_in_one_line(corpus_dir, tmp_path, assert_user_error):
    (tmp_path / "bad.txt").write_bytes("我们。\n".encode() + b"\xff\n")
    flags = _spark_flags(
        corpus_dir, input_file=tmp_path / "bad.txt", spark_master="local[2]"
    )
    assert_user_error(runs.run(tmp_path, *flags), "bad.txt:2", "not valid UTF-8")


def test_spark_submit_with_an_archive(corpus_dir, undisturbed, tmp_path, repository):
    """As docs/data.md says: the command alone, and the repository as an archive."""
    import pyspark

    archive = tmp_path / "albert_zh.zip"
    with zipfile.ZipFile(str(archive), "w") as file:
        for path in [repository / "tokenization.py"] + sorted(
            (repository / "albert_zh").rglob("*.py")
        ):
            file.write(str(path), str(path.relative_to(repository)))
    (tmp_path / "work").mkdir()
    shutil.copy(str(repository / "create_pretraining_data.py"), str(tmp_path / "work"))
    submit = pathlib.Path(pyspark.__file__).parent / "bin" / "spark-submit"
    result = subprocess.run(
        [
            str(submit),
            "--master=" + MASTER,
            "--conf=spark.speculation=true",
            "--py-files={}".format(archive),
            "create_pretraining_data.py",
            *_spark_flags(corpus_dir),
        ],
        cwd=str(tmp_path / "work"),
        env=dict(os.environ, PYSPARK_PYTHON=sys.executable, PYTHONPATH=""),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert runs.digests(tmp_path / "work") == undisturbed


@pytest.mark.parametrize("master", ["local[2]", None])
def test_local_spark_opens_no_port_to_the_network(master):
    assert ports.not_on_loopback(master) is None


def test_without_java_one_line_says_what_to_install(
    corpus_dir, tmp_path, assert_user_error
):
    environment = dict(os.environ, PATH=str(tmp_path))
    environment.pop("JAVA_HOME", None)
    result = runs.run(
        tmp_path,
        *_spark_flags(corpus_dir, spark_master="local[2]"),
        env=environment,
    )
    assert_user_error(result, "Java 17", "openjdk-17-jre-headless")
