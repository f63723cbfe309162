"""Data generation as users run it: workers, resumption, faults, the same bytes."""

import fcntl
import json
import os
import random
import resource
import signal
import subprocess

import generation_runs as runs
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.data import input_pipeline

pytestmark = pytest.mark.once

NUM_KILLS = 10


@pytest.mark.parametrize("num_workers", [2, 3])
def test_workers_make_the_same_bytes(corpus_dir, undisturbed, tmp_path, num_workers):
    result = runs.run(tmp_path, *runs.flags(corpus_dir, num_workers=num_workers))
    assert result.returncode == 0, result.stderr
    assert runs.digests(tmp_path) == undisturbed
    names = sorted(undisturbed) + ["out.tfrecord.summary.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_records_are_spread_over_the_files(corpus_dir, tmp_path):
    """All files have nearly as many records, which are all there are."""
    result = runs.run(tmp_path, *runs.flags(corpus_dir))
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "out.tfrecord.summary.json").read_text())
    sizes = []
    for path in sorted(tmp_path.glob("*.tfrecord")):
        examples = [
            input_pipeline.decode_example(record)
            for record in tf.io.tf_record_iterator(str(path))
        ]
        sizes.append(len(examples))
    assert sum(sizes) == summary["instances"]
    assert max(sizes) - min(sizes) <= 20  # shards


def _num_files(directory):
    return len(list(directory.rglob("*")))


def test_killed_runs_go_on_to_the_same_bytes(corpus_dir, undisturbed, tmp_path):
    """Ten times kill -9, parent and workers, at random moments."""
    rng = random.Random(0)
    work = tmp_path / "out.tfrecord.work"
    killed = 0
    for _ in range(NUM_KILLS):
        # A shard makes four files; a moment before the first file is one, too.
        number = _num_files(work) + rng.randint(0, 12)
        process = runs.start(tmp_path, *runs.flags(corpus_dir, num_workers=2))
        runs.wait_for(process, lambda: _num_files(work) >= number)  # noqa: B023
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        for name, digest in runs.digests(tmp_path).items():
            assert undisturbed[name] == digest  # whole, or not there
    assert killed >= NUM_KILLS // 2
    result = runs.run(tmp_path, *runs.flags(corpus_dir, num_workers=2))
    assert result.returncode == 0, result.stderr
    assert runs.digests(tmp_path) == undisturbed
    assert not work.exists() and not runs.leftovers(tmp_path)


def _begin(directory, *flags):
    """Runs the command until a shard is done, then kills it."""
    process = runs.start(directory, *flags)
    work = directory / "out.tfrecord.work"
    runs.wait_for(process, lambda: list(work.rglob("shard-*.json")))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_run_goes_on_only_as_it_was_begun(
    corpus_dir, tmp_path, run_command, assert_user_error
):
    text = tmp_path / "text.txt"
    text.write_bytes((corpus_dir / "a.txt").read_bytes())
    flags = dict(input_file=text, num_output_files=None)
    _begin(tmp_path, *runs.flags(corpus_dir, **flags))

    def run(**more):
        return run_command(
            "create_pretraining_data.py", *runs.flags(corpus_dir, **dict(flags, **more))
        )

    assert_user_error(run(ngram=3), "out.tfrecord.work", "ngram 2, not 3")
    content = bytearray(text.read_bytes())
    content[-30] ^= 1
    text.write_bytes(content)
    assert_user_error(run(), "other content in", "text.txt", "sha256")
    text.write_bytes(content + b"a")
    assert_user_error(run(), "other content in", "text.txt", "bytes")
    # Nothing was lost meanwhile.
    text.write_bytes((corpus_dir / "a.txt").read_bytes())
    result = run()
    assert result.returncode == 0 and "resuming" in result.stderr

    result = run()
    assert result.returncode == 0 and "made by the same command" in result.stderr
    assert_user_error(run(random_seed=7), "is from a run with random_seed 12345, not 7")
    before = runs.digest(tmp_path / "out.tfrecord")
    assert run(random_seed=7, overwrite=True).returncode == 0
    assert runs.digest(tmp_path / "out.tfrecord") != before
    (tmp_path / "out.tfrecord").write_bytes(b"")
    assert_user_error(run(random_seed=7), "out.tfrecord has changed since it was made")


def test_other_output_files_are_another_run(corpus_dir, tmp_path, assert_user_error):
    """Otherwise a pattern for training would find the records of both."""
    small = dict(shard_bytes=10**6, dupe_factor=1)
    assert runs.run(tmp_path, *runs.flags(corpus_dir, **small)).returncode == 0
    fewer = runs.flags(corpus_dir, num_output_files=2, **small)
    result = runs.run(tmp_path, *fewer)
    assert_user_error(result, "out.tfrecord.summary.json", "output", "--overwrite")
    assert runs.run(tmp_path, *fewer, "--overwrite").returncode == 0
    names = ["out-0000{}-of-00002.tfrecord".format(number) for number in range(2)]
    assert sorted(runs.digests(tmp_path)) == names
    # A folder may be moved.
    moved = tmp_path.parent / (tmp_path.name + "_moved")
    tmp_path.rename(moved)
    result = runs.run(moved, *fewer)
    assert result.returncode == 0 and "made by the same command" in result.stderr


def test_damaged_files_are_named_and_can_be_overwritten(
    corpus_dir, undisturbed, tmp_path, assert_user_error
):
    flags = runs.flags(corpus_dir)
    _begin(tmp_path, *flags)
    (manifest,) = (tmp_path / "out.tfrecord.work").rglob("manifest.json")
    content = manifest.read_text()
    for damaged in ("{}", content[:50]):
        manifest.write_text(damaged)
        assert_user_error(runs.run(tmp_path, *flags), "manifest.json: damaged")
    manifest.write_text(content)
    # A shard whose mark or part is gone is made again.
    marks = list(manifest.parent.glob("shard-*.json"))
    marks[0].write_text("")
    for part in manifest.parent.glob("shard-*-of-00001.part"):
        part.unlink()
    assert runs.run(tmp_path, *flags).returncode == 0
    assert runs.digests(tmp_path) == undisturbed

    summary = tmp_path / "out.tfrecord.summary.json"
    summary.write_text(summary.read_text()[:100])
    assert_user_error(runs.run(tmp_path, *flags), "summary.json: damaged")
    (tmp_path / "out-00001-of-00003.tfrecord").write_bytes(b"damaged")
    assert runs.run(tmp_path, *flags, "--overwrite").returncode == 0
    assert runs.digests(tmp_path) == undisturbed


def test_a_second_run_at_once_is_refused(corpus_dir, tmp_path, assert_user_error):
    """The same or another: both would write the same files."""
    work = tmp_path / "out.tfrecord.work"
    work.mkdir()
    with open(str(work / "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = runs.run(tmp_path, *runs.flags(corpus_dir), "--overwrite")
        assert_user_error(result, "out.tfrecord.work", "in use by another run")
    assert runs.run(tmp_path, *runs.flags(corpus_dir)).returncode == 0


def test_input_that_changes_during_the_run_is_refused(
    corpus_dir, tmp_path, assert_user_error
):
    text = tmp_path / "text.txt"
    text.write_bytes((corpus_dir / "a.txt").read_bytes())
    process = subprocess.Popen(
        runs.command(*runs.flags(corpus_dir, input_file=text)),
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    work = tmp_path / "out.tfrecord.work"
    runs.wait_for(process, lambda: list(work.rglob("manifest.json")))
    with open(str(text), "ab") as file:
        file.truncate(text.stat().st_size // 2)
    stdout, stderr = process.communicate()
    result = subprocess.CompletedProcess([], process.returncode, stdout, stderr)
    assert_user_error(result, "text.txt has changed during the run")
    assert not runs.digests(tmp_path) and not work.exists()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_ctrl_c_ends_in_one_line(corpus_dir, undisturbed, tmp_path, num_workers):
    flags = runs.flags(corpus_dir, num_workers=num_workers)
    process = subprocess.Popen(
        runs.command(*flags),
        cwd=str(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        # Where this runs in the background of a shell, Ctrl-C may be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    work = tmp_path / "out.tfrecord.work"
    runs.wait_for(process, lambda: list(work.rglob("shard-*.json")))
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert errors.endswith("create_pretraining_data.py: interrupted\n")
    assert not runs.leftovers(tmp_path)
    assert runs.run(tmp_path, *flags).returncode == 0
    assert runs.digests(tmp_path) == undisturbed


def test_a_full_disk_is_named_and_nothing_is_half_written(
    corpus_dir, undisturbed, tmp_path, assert_user_error
):
    """A limit on the size of files stands for the full disk."""
    limit = 60000  # bytes: more than any part, less than an output file
    result = runs.run(
        tmp_path,
        *runs.flags(corpus_dir),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert_user_error(result, "cannot write", "out-00000-of-00003.tfrecord")
    assert not runs.digests(tmp_path) and not runs.leftovers(tmp_path)
    result = runs.run(tmp_path, *runs.flags(corpus_dir))
    assert result.returncode == 0, result.stderr
    assert runs.digests(tmp_path) == undisturbed


def test_undecodable_bytes_late_in_a_file_are_named(
    corpus_dir, tmp_path, assert_user_error
):
    text = (corpus_dir / "a.txt").read_bytes()
    bad = text + b"good\n\xff\n" + text
    (tmp_path / "bad.txt").write_bytes(bad)
    line = text.count(b"\n") + 2
    flags = runs.flags(corpus_dir, input_file=tmp_path / "bad.txt", num_workers=2)
    result = runs.run(tmp_path, *flags)
    assert_user_error(result, "bad.txt:{}:".format(line), "not valid UTF-8")
    assert not runs.digests(tmp_path) and not runs.leftovers(tmp_path)
    # What the message says to do goes on with what is done.
    result = runs.run(tmp_path, *flags, "--encoding_errors=replace")
    assert result.returncode == 0 and "1 undecodable bytes" in result.stdout


def test_an_unreadable_file_among_many_is_named(
    corpus_dir, tmp_path, assert_user_error
):
    (tmp_path / "1.txt").write_text("我们。\n", encoding="utf-8")
    (tmp_path / "2.txt").symlink_to(tmp_path / "gone")
    flags = runs.flags(corpus_dir, input_file=tmp_path / "*.txt", num_output_files=None)
    assert_user_error(runs.run(tmp_path, *flags), "cannot read", "2.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.txt", "2.txt"]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_text_without_blank_lines_is_divided_and_said(
    corpus_dir, tmp_path, num_workers
):
    text = (corpus_dir / "a.txt").read_text(encoding="utf-8").replace("\n\n", "\n")
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    flags = runs.flags(
        corpus_dir,
        input_file=tmp_path / "long.txt",
        num_workers=num_workers,
        num_output_files=None,
    )
    result = runs.run(tmp_path, *flags)
    assert result.returncode == 0, result.stderr
    assert "documents were divided because of their length" in result.stdout
    summary = json.loads((tmp_path / "out.tfrecord.summary.json").read_text())
    assert summary["sentences"] == text.count("\n")
    assert 2 < summary["documents"] <= len(text.encode("utf-8")) / runs.SHARD_BYTES + 1
