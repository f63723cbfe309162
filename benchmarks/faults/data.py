"""Data generation: folders and links in the way, input and parts that change, kills.

Needs strace, which counts system calls.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.data import corpus, instances, masking, output_names, text_tools
from albert_zh.data import shards as sharding
from albert_zh.data.run import Plan, generate
from albert_zh.engines import LocalEngine
from benchmarks.faults.common import (
    REPOSITORY,
    Fault,
    not_done,
    not_refused,
    run,
    run_command,
)

SCRIPT = "create_pretraining_data.py"
NUM_OUTPUTS = 3
NUM_KILLS = 8
# A run makes some 25 renames, 45 fsync, 25 removals, 80 writes.
_RENAMES, _FOLDERS = "rename,renameat,renameat2", "mkdir,mkdirat"
KILLED_AT = (_RENAMES, "fsync", "unlink,unlinkat,rmdir", _FOLDERS)
FULL_AT = ("write", _RENAMES, _FOLDERS, "fsync")
MAX_CALLS = 200
SUMMARY = "out.tfrecord.summary.json"
PRECIOUS = "ten years of work"
# Short ones, of which nothing is learned: a few shards, done in half a second.
_TEXT = "".join(
    "今天天气很好{}。\n我们去公园玩。\n他喜欢读书。\n\n".format("啊" * (number % 9))
    for number in range(120)
)
_SHARD_BYTES = 3000


def _prepare(work, text=_TEXT):
    """Makes a fresh folder with the input and the vocabulary; returns it."""
    place = work / "place"
    shutil.rmtree(str(place), ignore_errors=True)
    place.mkdir()
    (work / "in.txt").write_text(text, encoding="utf-8")
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(_TEXT))]
    vocabulary = "\n".join(entry for entry in entries if entry.strip())
    (work / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    (work / "precious").write_text(PRECIOUS, encoding="utf-8")
    return place


def _is_lost(path):
    """Says that somebody's file is lost; None where it is not."""
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8") == PRECIOUS:
            return None
    return "{} is lost".format(path.name)


# ---- the command, as a user runs it


def _flags(work, **changed):
    given = dict(
        input_file=work / "in.txt",
        vocab_file=work / "vocab.txt",
        output_file="out.tfrecord",
        num_output_files=NUM_OUTPUTS,
        max_seq_length=32,
        max_predictions_per_seq=5,
        dupe_factor=2,
        non_chinese=True,
        shard_bytes=_SHARD_BYTES,
    )
    given.update(changed)
    return ["--{}={}".format(*item) for item in given.items() if item[1] is not None]


def _paths_that_collide(work):
    place = _prepare(work)
    (place / "linked").symlink_to(place)
    (place / "in_link").symlink_to(work / "in.txt")
    os.link(str(work / "in.txt"), str(place / "hard"))
    before = sorted(os.listdir(str(place)))
    for flags in (
        dict(output_file="a,a.summary.json"),
        dict(output_file="a,a.work/b"),
        dict(output_file="a,linked/a"),
        dict(output_file="in_link"),
        dict(output_file="hard"),
        dict(output_file="a", report="a.work/pictures"),
    ):
        done = run(SCRIPT, *_flags(work, num_output_files=None, **flags), cwd=place)
        problem = not_refused(done, "cannot write to")
        if not problem and sorted(os.listdir(str(place))) != before:
            problem = "something was made"
        yield str(flags), problem


def _pipes(work):
    place = _prepare(work)
    os.mkfifo(str(work / "pipe"))
    for flag in ("input_file", "vocab_file"):
        for path in (work / "pipe", "/dev/zero"):
            flags = _flags(work, **{flag: path})
            done = run(SCRIPT, *flags, cwd=place, timeout=60)
            yield "{}={}".format(flag, path), not_refused(done, "no ordinary file")


def _kills(work):
    """kill -9 at random moments, with input blanked or a part cut in between."""
    expected = _undisturbed_command(work)
    place = _prepare(work)
    rng, text = random.Random(0), (work / "in.txt").read_bytes()
    for number in range(NUM_KILLS):
        process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / SCRIPT), *_flags(work, num_workers=2)],
            cwd=str(place),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wanted = _num_files(place) + rng.randint(1, 15)
        while process.poll() is None and _num_files(place) < wanted:
            time.sleep(0.002)
        if number % 2:
            (work / "in.txt").write_bytes(b"\n" * len(text))
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (work / "in.txt").write_bytes(text)
        for part in sorted(place.rglob("*.part"))[:1]:
            part.write_bytes(part.read_bytes()[:-1])
        wrong = [n for n, d in _digests(place).items() if d != expected[n]]
        yield "kill {}".format(number), wrong and "wrong: {}".format(wrong)
    yield "resumed at last", _unlike_when_resumed(work, place, expected)


def _at_counted_calls(work, system_calls, injection):
    """Disturbs the first call of a system call, then the second and so on.

    Args:
      work: the working directory.
      system_calls: comma-separated names of calls that count as one, several times.
      injection: what strace does to the call, "signal=KILL".

    Yields:
      (what was disturbed, the `CompletedProcess`, what is wrong after the command has
      resumed); without end, so that the caller can go on until nothing is disturbed.
    """
    expected = _undisturbed_command(work)
    for names in system_calls:
        for number in range(1, MAX_CALLS):
            place = _prepare(work)
            command = ["strace", "-f", "-qq", "-o", str(work / "trace")]
            command += ["-e", "trace=" + names]
            inject = "inject={}:{}:when={}".format(names, injection, number)
            command += ["-e", inject, sys.executable, str(REPOSITORY / SCRIPT)]
            done = run_command(command + _flags(work), cwd=place)
            trace = (work / "trace").read_text(errors="replace")
            if "(INJECTED)" not in trace and "killed by SIGKILL" not in trace:
                break
            problem = _unlike_when_resumed(work, place, expected)
            yield "{} {}".format(names.split(",")[0], number), done, problem


def _undisturbed_command(work):
    place = _prepare(work)
    problem = not_done(run(SCRIPT, *_flags(work), cwd=place))
    if problem:
        raise RuntimeError(problem)
    return _digests(place)


def _unlike_when_resumed(work, place, expected):
    """Says how the same command, given again, ends unlike an undisturbed one."""
    problem = not_done(run(SCRIPT, *_flags(work), cwd=place))
    if problem:
        return "resumed: " + problem
    if _digests(place) != expected:
        return "other records"
    is_left = list(place.rglob(".*")) or (place / "out.tfrecord.work").exists()
    return "something is left" if is_left else None


def _counted_kills(work):
    """kill -9 at every rename, fsync, removal and new folder of a run."""
    for name, _, problem in _at_counted_calls(work, KILLED_AT, "signal=KILL"):
        yield name, problem


def _counted_full_disks(work):
    """ENOSPC from every write, rename, new folder and fsync of a run."""
    for name, done, problem in _at_counted_calls(work, FULL_AT, "error=ENOSPC"):
        refused = not_refused(done, "No space left on device")
        yield name, problem or (refused if not_done(done) else None)


def _num_files(place):
    return sum(len(names) for _, _, names in os.walk(str(place)))


# ---- the library, in this process


def _plan(place):
    outputs = output_names.Outputs(
        name=str(place / "out.tfrecord"),
        records=tuple(
            str(place / "out-{:05d}-of-{:05d}.tfrecord".format(number, NUM_OUTPUTS))
            for number in range(NUM_OUTPUTS)
        ),
    )
    vocabulary = (place.parent / "vocab.txt").read_bytes()
    job = sharding.Job(
        settings=instances.Settings(32, 0.1, 2, masking.MaskSettings(0.15, 5)),
        text=text_tools.TextSettings(vocabulary),
        random_seed=1,
        output_files=outputs.records,
        work_directory=outputs.work_directory,
    )
    return Plan(
        job=job,
        input_files=corpus.expand_input_files(str(place.parent / "in.txt")),
        shard_bytes=_SHARD_BYTES,
        settings={"random_seed": 1},
        outputs=outputs,
    )


def _generate(place, overwrite=False):
    """Makes the records; returns the message of the `UserError` or None."""
    text_tools.load.cache_clear()
    try:
        generate(_plan(place), LocalEngine(1), overwrite)
    except UserError as error:
        return "several lines" if "\n" in str(error) else str(error)
    return None


class _Stop(BaseException):
    """Ends a run as a signal does."""


@contextlib.contextmanager
def _stopped_before(task, number, do=None):
    """Within the block, ends a run before a task's call of a number.

    Args:
      task: name of a function of `sharding`.
      number: int, from 0.
      do: function without arguments called instead, after which the run goes on.
    """
    original, calls = getattr(sharding, task), []

    def stopping(*arguments):
        calls.append(None)
        if len(calls) == number + 1:
            if do is None:
                raise _Stop
            do()
        return original(*arguments)

    setattr(sharding, task, stopping)
    try:
        with contextlib.suppress(_Stop):
            yield
    finally:
        setattr(sharding, task, original)


def _digests(place):
    return {path.name: path.read_bytes() for path in place.glob("out*.tfrecord")}


def _undisturbed(work):
    place = _prepare(work)
    assert _generate(place) is None
    return _digests(place)


def _unlike(place, expected, error=None):
    """Says where a run did not make what it should; None where it did."""
    if error:
        return error
    if _digests(place) != expected:
        return "other records"
    left = [path.name for path in place.rglob("*") if path.name.endswith(".partial")]
    return "left: {}".format(left) if left else None


def _listed_files(work):
    """--overwrite of a run whose summary lists what is somebody else's."""
    for name in ("../precious", str(work / "precious"), "mine", "linked/precious"):
        place = _prepare(work)
        assert _generate(place) is None
        (place / "mine").write_text(PRECIOUS, encoding="utf-8")
        (place / "linked").symlink_to(work)
        summary = json.loads((place / SUMMARY).read_text(encoding="utf-8"))
        for whole in (True, False):
            listed = dict(summary["output_files"], **{name: 1})
            content = dict(summary, output_files=listed)
            content = content if whole else {"output_files": listed, "manifest": {}}
            (place / SUMMARY).write_text(json.dumps(content), encoding="utf-8")
            error = _generate(place, overwrite=True)
            problem = _is_lost(work / "precious") or _is_lost(place / "mine")
            if not problem and "which is no output file" not in str(error):
                problem = error or "not refused"
            yield "{} {}".format(name, whole), problem


def _foreign_folders(work):
    for name in ("thesis", "lock", "0123456789abcdef/thesis", "a/b/c"):
        for is_marked in (False, True):
            for overwrite in (False, True):
                place = _prepare(work)
                if is_marked:
                    with _stopped_before("make_bundle", 1):
                        _generate(place)
                path = place / "out.tfrecord.work" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(PRECIOUS, encoding="utf-8")
                error = _generate(place, overwrite)
                is_own = is_marked and name == "lock"
                problem = None if is_own else _is_lost(path)
                if not problem and not is_own and not error:
                    problem = "not refused"
                yield "{} {} {}".format(name, is_marked, overwrite), problem


def _links(work):
    """Links under every name that a run writes, foreseeable or not."""
    names = ["out-00000-of-00003.tfrecord", SUMMARY, "out.tfrecord.work"]
    names += ["out.tfrecord.work/lock", "out.tfrecord.work/" + "0" * 16]
    for name in names:
        for is_marked in (False, True):
            for overwrite in (False, True):
                place = _prepare(work)
                if is_marked:
                    with _stopped_before("make_bundle", 1):
                        _generate(place)
                link = place / name
                link.parent.mkdir(exist_ok=True)
                if link.is_dir():
                    shutil.rmtree(str(link))
                link.symlink_to(work / "precious")
                _generate(place, overwrite)
                yield (
                    "{} {} {}".format(name, is_marked, overwrite),
                    _is_lost(work / "precious"),
                )


def _changed_input(work):
    """Another content, and the old time, before a shard; restored after the run."""
    expected, text = _undisturbed(work), _TEXT.encode("utf-8")
    middle = len(text) // 2
    changes = {
        "blank": b"\n" * len(text),
        "cut": text[:middle],
        "empty": b"",
        "longer": text * 2,
        "one byte": text[:middle] + b"\n" + text[middle + 1 :],
    }
    for name, content in changes.items():
        for number in (0, 1, 3):
            place = _prepare(work)
            path = work / "in.txt"
            status = os.stat(str(path))

            def disturb(path=path, content=content, status=status):
                path.write_bytes(content)
                times = (status.st_atime_ns, status.st_mtime_ns)
                os.utime(str(path), ns=times)

            with _stopped_before("make_bundle", number, disturb):
                error = _generate(place)
            problem = None if "has changed" in str(error) else error or "not refused"
            path.write_bytes(text)
            problem = problem or _unlike(place, expected, _generate(place))
            yield "{} before shard {}".format(name, number), problem


def _damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "other":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif how != "gone":
        path.write_bytes(
            {"cut": content[:-1], "empty": b"", "longer": content * 2}[how]
        )


def _damaged_parts(work):
    """A part or a mark that is damaged between two runs, or while parts are merged."""
    expected = _undisturbed(work)
    for how in ("gone", "cut", "empty", "longer", "other"):
        for name in ("shard-00001-of-00002.part", "shard-00002.json"):
            for task, number in (("make_bundle", 3), ("merge_output", 2)):
                place = _prepare(work)
                with _stopped_before(task, number):
                    _generate(place)
                (path,) = place.rglob(name)
                _damage(path, how)
                error = _generate(place)
                yield (
                    "{} {} {}".format(name, how, task),
                    _unlike(place, expected, error),
                )
        place = _prepare(work)

        def disturb(place=place, how=how):
            (path,) = place.rglob("shard-00001-of-00002.part")
            _damage(path, how)

        with _stopped_before("merge_output", 1, disturb):
            error = _generate(place)
        # Bytes beyond the last section of a part are not read.
        is_named = error and "part" in error
        problem = None if is_named else _unlike(place, expected, error)
        problem = problem or _unlike(place, expected, _generate(place))
        yield "while merging {}".format(how), problem


def _damaged_outputs(work):
    """An output file that is damaged after it was complete, or before all are."""
    expected = _undisturbed(work)
    for how in ("cut", "empty", "longer", "other"):
        for number in (1, None):
            place = _prepare(work)
            with _stopped_before("merge_output", NUM_OUTPUTS if number is None else 1):
                _generate(place)
            _damage(place / "out-00000-of-00003.tfrecord", how)
            error = _generate(place)
            is_named = "has changed since it was made" in str(error)
            problem = None if is_named else error or "taken for whole"
            error = _generate(place, overwrite=True)
            yield (
                "{} {}".format(how, number),
                problem or _unlike(place, expected, error),
            )


def _damaged_json(work):
    """The manifest or the summary is no longer what it was; --overwrite leads out."""
    expected = _undisturbed(work)
    contents = [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 10**5, b'{"input": 1e999}']
    contents += [b'{"input": [3], "output": []}', b'{"output_files": 7}', b"NaN"]
    for content in contents:
        for name in ("manifest.json", SUMMARY):
            place = _prepare(work)
            with _stopped_before("make_bundle", 2 if name != SUMMARY else 10**6):
                _generate(place)
            (path,) = place.rglob(name)
            path.write_bytes(content)
            error = _generate(place)
            problem = None if name in str(error) else error or "taken for whole"
            error = _generate(place, overwrite=True)
            yield (
                "{} {!r:.30}".format(name, content),
                problem or _unlike(place, expected, error),
            )


def _full_disks(work):
    """The disk is full at a random write."""
    expected = _undisturbed(work)
    write, rng = files.open_file, np.random.RandomState(0)
    for number in rng.randint(0, 40, 12):
        place, calls = _prepare(work), []

        def full(path, mode="rb", number=number, calls=calls):
            calls.append(None)
            if "x" in mode and len(calls) > number:
                raise OSError(28, "No space left on device")
            return write(path, mode)

        files.open_file = full
        try:
            error = _generate(place)
        finally:
            files.open_file = write
        problem = None
        if error and not error.startswith("cannot write"):
            problem = error
        yield (
            "write {}".format(number),
            problem or _unlike(place, expected, error and _generate(place)),
        )


FAULTS = [
    Fault("--overwrite of files of others that the summary lists", _listed_files),
    Fault("a working directory or files in it that no run made", _foreign_folders),
    Fault("symbolic links under names that a run writes", _links),
    Fault("input changed while shards are made, then restored", _changed_input),
    Fault("parts and marks damaged before they are merged", _damaged_parts),
    Fault("output files damaged", _damaged_outputs),
    Fault("manifest or summary damaged", _damaged_json),
    Fault("no room on the disk", _full_disks),
    Fault("output paths that collide", _paths_that_collide),
    Fault("pipes and devices in the place of files", _pipes),
    Fault("kill -9, with input blanked and parts cut meanwhile", _kills),
    Fault("kill -9 at counted system calls, and resumed", _counted_kills),
    Fault("no room at counted system calls, and resumed", _counted_full_disks),
]
