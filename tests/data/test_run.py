"""Runs of data generation that are disturbed: nothing is lost or wrong in silence."""

import gzip
import json
import os
import resource
import unicodedata

import generation_runs as runs
import pytest

import create_pretraining_data
from albert_zh import command_line
from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.data import shards as sharding
from albert_zh.data import text_tools, work_directory

NUM_OUTPUTS = 3
SUMMARY = "out.tfrecord.summary.json"


@pytest.fixture(scope="module")
def corpus_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    runs.write_corpus(directory)
    return directory


@pytest.fixture
def place(corpus_dir, tmp_path, monkeypatch):
    """An empty working directory, beside which is the input, in.txt."""
    directory = tmp_path / "place"
    directory.mkdir()
    (tmp_path / "in.txt").write_bytes((corpus_dir / "a.txt").read_bytes())
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def run(place, corpus_dir, capsys):
    """Function that runs the command in this process.

    It returns None where the command succeeds, else its last line of error, of which
    there is only one.
    """

    def call(*more, **changed):
        # Without a segmenter, which takes as long to load as the rest.
        changed = dict(
            dict(
                input_file="../in.txt",
                num_output_files=NUM_OUTPUTS,
                non_chinese=True,
                shard_bytes=20000,
            ),
            **changed,
        )
        parser = create_pretraining_data.build_parser()
        flags = runs.flags(corpus_dir, **changed) + list(more)
        try:
            command_line.run(create_pretraining_data.main, parser, flags)
        except SystemExit as exit:
            assert exit.code == 2
            errors = capsys.readouterr().err.strip().split("\n")
            assert ": error: " in errors[-1]
            return errors[-1]
        return None

    return call


@pytest.fixture
def undisturbed(run, place):
    """The digests of the output of a run that nothing disturbs."""
    assert run() is None
    digests = runs.digests(place)
    for path in place.iterdir():
        path.unlink()
    return digests


@pytest.fixture
def stop(monkeypatch):
    """Function that stops the next run before its shard or output of a number.

    `stop(name, number, do)`: `name` of a task of `sharding`; `do()` is called in
    place of the task, and then the run ends as by Ctrl-C.
    """

    def prepare(name, number, do=lambda: None):
        task, calls = getattr(sharding, name), []

        def stopping(*arguments):
            calls.append(None)
            if len(calls) > number:
                do()
                monkeypatch.setattr(sharding, name, task)
                raise KeyboardInterrupt
            return task(*arguments)

        monkeypatch.setattr(sharding, name, stopping)

    return prepare


def _interrupted(run, *more, **changed):
    with pytest.raises((SystemExit, AssertionError)):
        run(*more, **changed)


def _names(directory):
    return sorted(path.name for path in directory.iterdir())


def _run_directory(place):
    (path,) = map(os.path.dirname, place.rglob("manifest.json"))
    return place / path


# ---- what --overwrite removes


@pytest.mark.parametrize(
    "listed", ["../precious", "/absolute", "precious", "linked/precious", "../in.txt"]
)
def test_only_own_output_files_are_overwritten(run, place, tmp_path, listed):
    assert run() is None
    made = runs.digests(place)
    for path in (tmp_path / "precious", place / "precious"):
        path.write_text("ten years")
    (place / "linked").symlink_to(tmp_path)
    if listed == "/absolute":
        listed = str(tmp_path / "precious")
    summary = json.loads((place / SUMMARY).read_text())
    summary["output_files"][listed] = 1
    (place / SUMMARY).write_text(json.dumps(summary))
    error = run("--overwrite", random_seed=1)
    assert "lists {!r}, which is no output file".format(listed) in error
    assert "by hand" in error
    for path in (tmp_path / "precious", place / "precious"):
        assert path.read_text() == "ten years"
    assert (tmp_path / "in.txt").exists()
    assert runs.digests(place) == made and (place / SUMMARY).exists()


def test_a_summary_of_nothing_but_a_list_removes_nothing_foreign(run, place, tmp_path):
    (tmp_path / "precious").write_text("ten years")
    content = {"output_files": {"../precious": 1}, "manifest": {}}
    (place / SUMMARY).write_text(json.dumps(content))
    assert "lists '../precious'" in run("--overwrite")
    assert (tmp_path / "precious").read_text() == "ten years"
    (place / SUMMARY).unlink()
    assert run() is None


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_ordinary_file_is_not_overwritten(run, place, tmp_path, kind):
    assert run() is None
    first = place / "out-00000-of-00003.tfrecord"
    first.unlink()
    if kind == "link":
        (tmp_path / "precious").write_text("ten years")
        first.symlink_to(tmp_path / "precious")
        error = run("--overwrite")
        assert (tmp_path / "precious").read_text() == "ten years"
        assert "no ordinary file" in error
    else:
        first.mkdir()
        assert "is a folder" in run("--overwrite")
    assert len(list(place.glob("out-*"))) == NUM_OUTPUTS


def test_files_of_another_division_are_overwritten(run, place):
    assert run() is None
    assert run("--overwrite", num_output_files=None) is None
    assert _names(place) == ["out.tfrecord", SUMMARY]
    assert run("--overwrite", num_output_files=2) is None
    assert len(runs.digests(place)) == 2 and not (place / "out.tfrecord").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"output_files": 3}', "\udcff", "[" * 10**5]
)
def test_overwrite_leads_out_of_any_damage(run, place, undisturbed, stop, content):
    content = content.encode("utf-8", "surrogateescape")
    stop("make_bundle", 2)
    _interrupted(run)
    directory = _run_directory(place)
    for path in (directory / "manifest.json", place / SUMMARY):
        path.write_bytes(content)
        error = run()
        assert path.name in error and "damaged" in error and "--overwrite" in error
        assert run("--overwrite") is None
        assert runs.digests(place) == undisturbed
        assert not (place / "out.tfrecord.work").exists()


# ---- whose the working directory is


@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=["", "overwrite"])
@pytest.mark.parametrize("name", ["thesis.txt", "0123456789abcdef/manifest.json"])
def test_a_directory_that_no_run_has_made_is_left_alone(run, place, more, name):
    path = place / "out.tfrecord.work" / name
    path.parent.mkdir(parents=True)
    path.write_text("ten years")
    error = run(*more)
    assert "out.tfrecord.work has" in error and "another --output_file" in error
    assert path.read_text() == "ten years"
    assert _names(place) == ["out.tfrecord.work"]


@pytest.mark.parametrize("number", range(3))
def test_a_lock_that_is_a_link_is_not_followed(run, place, tmp_path, stop, number):
    (tmp_path / "precious").write_text("ten years")
    work = place / "out.tfrecord.work"
    if number:
        stop("make_bundle", number)
        _interrupted(run)
    else:
        work.mkdir()
    (work / "lock").symlink_to(tmp_path / "precious")
    assert "lock" in run("--overwrite")
    assert (tmp_path / "precious").read_text() == "ten years"


# ---- the input that a shard is made from


def _disturb(path, content):
    """Gives a file another content, and the time it had."""
    status = os.stat(str(path))
    path.write_bytes(content)
    os.utime(str(path), ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("how", ["blank", "cut", "empty", "one byte"])
@pytest.mark.parametrize("number", [0, 2])
def test_input_that_is_changed_and_restored(
    run, place, tmp_path, undisturbed, monkeypatch, how, number
):
    text = (tmp_path / "in.txt").read_bytes()
    other = {
        "blank": b"\n" * len(text),
        "cut": text[: len(text) // 2],
        "empty": b"",
        "one byte": text[:-2].replace("师".encode(), "生".encode()) + text[-2:],
    }[how]
    assert other != text
    make_bundle, calls = sharding.make_bundle, []

    def disturbed(*arguments):
        calls.append(None)
        if len(calls) > number:
            _disturb(tmp_path / "in.txt", other)
        return make_bundle(*arguments)

    monkeypatch.setattr(sharding, "make_bundle", disturbed)
    assert "in.txt has changed during the run" in run()
    assert not runs.digests(place)
    monkeypatch.undo()
    monkeypatch.chdir(place)
    _disturb(tmp_path / "in.txt", text)
    assert run() is None
    assert runs.digests(place) == undisturbed


def test_a_shard_of_other_input_is_made_again(run, place, undisturbed, stop):
    """As it would be left by a version that did not look what it read."""
    stop("make_bundle", 3)
    _interrupted(run)
    directory = _run_directory(place)
    mark = directory / "shard-00001.json"
    content = json.loads(mark.read_text())
    content["input_crc32c"][0] ^= 1
    content["counts"]["documents"] = 0
    mark.write_text(json.dumps(content))
    old = directory / "shard-00002.json"
    content = json.loads(old.read_text())
    del content["input_crc32c"], content["part_crc32c"]
    old.write_text(json.dumps(content))
    assert run() is None
    assert runs.digests(place) == undisturbed
    assert json.loads((place / SUMMARY).read_text())["documents"] > 100


# ---- parts and output files that are not whole


def _damage(path, how):
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {
                "cut": content[:-1],
                "empty": b"",
                "longer": content + b"\n",
                "other": content[:-1] + bytes([content[-1] ^ 1]),
            }[how]
        )


@pytest.mark.parametrize("how", ["gone", "cut", "empty", "longer", "other"])
@pytest.mark.parametrize("task", ["make_bundle", "merge_output"])
def test_a_part_that_is_not_whole_is_made_again(
    run, place, undisturbed, stop, task, how
):
    stop(task, 2)
    _interrupted(run)
    # Of the last output file, which has not been put together in either case.
    _damage(_run_directory(place) / "shard-00001-of-00002.part", how)
    assert run() is None
    assert runs.digests(place) == undisturbed


def test_a_part_that_is_damaged_meanwhile_ends_the_run(run, place, undisturbed, stop):
    stop("merge_output", 0)
    _interrupted(run)
    part = _run_directory(place) / "shard-00001-of-00002.part"
    stop("merge_output", 1, lambda: _damage(part, "cut"))
    _interrupted(run)
    assert run() is None
    assert runs.digests(place) == undisturbed


@pytest.mark.parametrize("how", ["cut", "empty", "longer", "other"])
def test_an_output_file_that_is_not_whole_is_named(run, place, undisturbed, stop, how):
    stop("merge_output", 2)
    _interrupted(run)
    first = place / "out-00000-of-00003.tfrecord"
    _damage(first, how)
    assert "out-00000-of-00003.tfrecord has changed since it was made" in run()
    first.unlink()
    assert run() is None
    assert runs.digests(place) == undisturbed
    # Of a run that is complete:
    _damage(first, how)
    assert "out-00000-of-00003.tfrecord has changed since it was made" in run()
    assert run("--overwrite") is None
    assert runs.digests(place) == undisturbed


def test_a_summary_without_checksums_is_still_understood(
    run, place, undisturbed, caplog
):
    assert run() is None
    summary = json.loads((place / SUMMARY).read_text())
    del summary["output_crc32c"]
    (place / SUMMARY).write_text(json.dumps(summary))
    caplog.set_level("INFO")
    assert run() is None
    assert "an earlier version of the same command made them" in caplog.text


def test_a_file_that_comes_in_the_way_is_not_replaced(run, place, undisturbed, stop):
    stop("merge_output", 1)
    _interrupted(run)
    second = place / "out-00001-of-00003.tfrecord"
    second.write_text("ten years")
    error = run()
    assert (
        "out-00001-of-00003.tfrecord exists already and is not from this run" in error
    )
    assert second.read_text() == "ten years"
    second.unlink()
    assert run() is None
    assert runs.digests(place) == undisturbed


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "{}",
        '{"counts": NaN}',
        '{"counts": {}, "histograms": {}, "part_bytes": [1, 2, 3]}',
        "counts",
        "histograms",
        "part_bytes",
        "part_crc32c",
    ],
)
def test_damaged_marks_are_made_again(run, place, undisturbed, stop, content):
    stop("merge_output", 2)
    _interrupted(run)
    directory = _run_directory(place)
    mark = directory / "shard-00001.json"
    if content.isidentifier() and content != "null":
        damaged = json.loads(mark.read_text())
        damaged[content] = {"documents": 10**400}
        content = json.dumps(damaged)
    mark.write_text(content)
    (directory / "output-00001.json").write_text(content)
    # Its file is there, and is the one that is made again.
    assert run() is None
    assert runs.digests(place) == undisturbed


def test_parts_are_on_the_disk_before_their_mark(run, place, monkeypatch):
    events = []
    sync, rename = os.fsync, files.rename

    def note_sync(descriptor):
        path = os.readlink("/proc/self/fd/{}".format(descriptor))
        events.append(("sync", os.path.basename(path)))
        sync(descriptor)

    def note_rename(source, target):
        events.append(("rename", os.path.basename(source), os.path.basename(target)))
        rename(source, target)

    monkeypatch.setattr(files.os, "fsync", note_sync)
    monkeypatch.setattr(files, "rename", note_rename)
    assert run() is None
    renamed = [event for event in events if event[0] == "rename"]
    parts = [event for event in renamed if event[2].endswith(".part")]
    marks = [event for event in renamed if event[2].startswith("shard-0000")]
    marks = [event for event in marks if event[2].endswith(".json")]
    assert len(parts) == len(marks) * NUM_OUTPUTS > 0
    for event in renamed:
        assert events.index(("sync", event[1])) < events.index(event)
    for mark in marks:
        before = events[: events.index(mark)]
        own = [event for event in parts if event[2].startswith(mark[2][:11] + "-of")]
        last = max(map(before.index, own))
        synced = [event[1] for event in before[last:] if event[0] == "sync"]
        assert any(len(name) == 16 for name in synced)  # the run's directory


# ---- what killed runs and full disks leave


def test_half_written_files_of_killed_runs_are_removed(run, place, undisturbed, stop):
    stop("merge_output", 1)
    _interrupted(run)
    partial = ".{}." + "0123456789abcdef" * 2 + ".partial"
    directory = _run_directory(place)
    for where, name in (
        (directory, "out-00001-of-00003.tfrecord"),
        (directory, "shard-00001.json"),
        (place, "out-00001-of-00003.tfrecord"),
        (place, SUMMARY),
        (place / "out.tfrecord.work", work_directory.MARK),
    ):
        (where / partial.format(name)).write_bytes(b"")
    mine = place / partial.format("mine")
    mine.write_bytes(b"")
    stop("merge_output", 1)
    _interrupted(run)
    assert runs.leftovers(place) == [mine.name]
    (place / partial.format(SUMMARY)).write_bytes(b"")
    (directory / partial.format("out.tfrecord")).write_bytes(b"")
    assert run("--overwrite") is None
    assert runs.leftovers(place) == [mine.name]
    assert runs.digests(place) == undisturbed
    assert not (place / "out.tfrecord.work").exists()


@pytest.mark.parametrize("name", ["manifest.json", "shard-00000-of-00000.part"])
def test_a_full_disk_is_a_failure_to_write(run, place, name):
    """A limit on the size of files stands for the full disk."""
    limit = {"manifest.json": 10, "shard-00000-of-00000.part": 2000}[name]
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        error = run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "cannot write" in error and name in error and "File too large" in error
    assert _names(place) == []


# ---- paths that collide, and what is no file


@pytest.mark.parametrize(
    "output_file",
    [
        "a,a.summary.json",
        "a,a.work/b",
        "a,a.work",
        "a,a/b",
        "a,linked/a",
        "a.summary.json/x,b,b.work/../b",
        "../in.txt",
        "linked/../../in.txt",
        "in_link",
        "hard",
        "hard,a",
        "vocab_link",
    ],
)
def test_paths_that_collide_are_refused_before_the_work(
    run, place, tmp_path, corpus_dir, output_file
):
    (place / "linked").symlink_to(place)
    (place / "in_link").symlink_to(tmp_path / "in.txt")
    (place / "vocab_link").symlink_to(corpus_dir / "vocab.txt")
    os.link(str(tmp_path / "in.txt"), str(place / "hard"))
    before = _names(place)
    error = run(output_file=output_file, num_output_files=None)
    assert "cannot write to {!r}".format(output_file) in error
    assert _names(place) == before


@pytest.mark.parametrize(
    "flags",
    [
        dict(report="out.tfrecord.work"),
        dict(report="out.tfrecord.work/pictures"),
        dict(report="a", output_file="out.tfrecord,a/ngram_lengths.png"),
        dict(report="out.tfrecord"),
        dict(report="..", input_file="../ngram_lengths.png"),
        dict(input_file="../in.txt,out.tfrecord.work/in.txt"),
    ],
)
def test_a_report_collides_with_nothing(run, place, tmp_path, flags):
    (tmp_path / "ngram_lengths.png").write_text("我们。\n", encoding="utf-8")
    if "work/in" in flags.get("input_file", ""):
        (place / "out.tfrecord.work").mkdir()
        (place / "out.tfrecord.work" / "in.txt").write_text("我们。\n", "utf-8")
    before = _names(place)
    assert "cannot write to" in run(num_output_files=None, **flags)
    assert _names(place) == before


@pytest.mark.parametrize("name", ["out.tfrecord.summary.json", "out.tfrecord"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(run, place, name):
    (place / name).mkdir()
    assert "it is a folder" in run(num_output_files=None)
    assert _names(place) == [name]


@pytest.mark.parametrize("flag", ["input_file", "vocab_file"])
def test_a_pipe_is_refused_before_it_is_read(run, place, tmp_path, flag):
    os.mkfifo(str(tmp_path / "pipe"))
    assert "no ordinary file" in run(**{flag: "../pipe"})
    assert _names(place) == []


# ---- many small files, converted files


def _small_files(place, number, text):
    folder = place.parent / "small"
    folder.mkdir()
    documents = text.split("\n\n")
    for count in range(number):
        some = documents[count % len(documents) : count % len(documents) + 2]
        name = folder / "{:04d}.txt".format(count)
        name.write_text("\n\n".join(some) + "\n", encoding="utf-8")
    return folder


def test_small_files_share_their_temporary_files(run, place, tmp_path, monkeypatch):
    text = (tmp_path / "in.txt").read_text(encoding="utf-8")
    _small_files(place, 120, text)
    flags = dict(
        input_file="../small", num_output_files=4, shard_bytes=2**20, dupe_factor=1
    )
    most = []
    make_bundle = sharding.make_bundle

    def counting(job, bundle, report):
        made = make_bundle(job, bundle, report)
        most.append(sum(len(files) for _, _, files in os.walk(str(place))))
        return made

    monkeypatch.setattr(sharding, "make_bundle", counting)
    assert run(**flags) is None
    together = runs.digests(place)
    assert len(together) == 4
    assert max(most) <= 4 + 5 and len(most) == 1
    # Each for itself, as one bundle a shard:
    monkeypatch.setattr(sharding, "_MAX_BUNDLED", 1)
    assert run("--overwrite", **flags) is None
    assert runs.digests(place) == together
    assert len(most) == 1 + 120
    # And as any number of them.
    monkeypatch.setattr(sharding, "_MAX_BUNDLED", 7)
    assert run("--overwrite", **flags) is None
    assert runs.digests(place) == together


def test_a_full_disk_while_converting_names_the_text(run, place, tmp_path):
    """A limit on the size of files stands for the full disk."""
    (tmp_path / "in.gz").write_bytes(gzip.compress((tmp_path / "in.txt").read_bytes()))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, old[1]))
    try:
        error = run(input_file="../in.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "cannot write" in error and "text-00000.txt: File too large" in error
    assert run(input_file="../in.gz") is None


@pytest.mark.parametrize("task", ["convert", "make_bundle", "merge_output"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_run_of_converted_and_small_files_is_resumed(
    run, place, tmp_path, stop, task, number
):
    text = (tmp_path / "in.txt").read_text(encoding="utf-8")
    half = text.index("\n\n", len(text) // 2) + 2
    for name, content in (("a.gz", text[:half]), ("b", text[half:])):
        data = content.encode("gb18030")
        (tmp_path / name).write_bytes(gzip.compress(data) if "gz" in name else data)
    _small_files(place, 30, text)
    for path in (tmp_path / "small").iterdir():
        path.write_bytes(path.read_bytes().decode().encode("gb18030"))
    flags = dict(input_file="../a.gz,../b,../small", encoding="gb18030")
    assert run(**flags) is None
    expected = runs.digests(place)
    for path in place.iterdir():
        path.unlink()
    stop(task, number)
    _interrupted(run, **flags)
    # As kill -9 leaves it:
    for directory in list((place / "out.tfrecord.work").glob("?" * 16)):
        partial = ".text-00001.txt." + "0123456789abcdef" * 2 + ".partial"
        (directory / partial).write_bytes(b"half")
        (directory / "text-00000.txt").write_bytes(b"half")
    assert run(**flags) is None
    assert runs.digests(place) == expected
    assert not (place / "out.tfrecord.work").exists() and not runs.leftovers(place)


def test_converted_files_give_the_bytes_of_plain_ones(run, place, tmp_path):
    text = (tmp_path / "in.txt").read_bytes()
    assert run() is None
    expected = runs.digests(place)
    (tmp_path / "in.gz").write_bytes(gzip.compress(text))
    (tmp_path / "wide.txt").write_bytes(text.decode().encode("utf-16"))
    documents = text.decode().split("\n\n")
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"text": document}) + "\n" for document in documents)
    )
    for changed in (
        {"input_file": "../in.gz"},
        {"input_file": "../wide.txt", "encoding": "utf-16"},
        {"input_file": "../in.jsonl", "text_field": "text"},
    ):
        assert "is from a run with" in run(**changed)
        assert run("--overwrite", **changed) is None
        # The last document of a JSON file ends with a blank line.
        if "text_field" not in changed:
            assert runs.digests(place) == expected


# ---- what a run is told by


def test_another_unicode_or_segmenter_is_another_run(run, place, stop, monkeypatch):
    stop("make_bundle", 2)
    _interrupted(run)
    for other, words in (
        (text_tools.Versions("6.0.0", ""), "unicode {}, not 6.0.0"),
        (
            text_tools.Versions(unicodedata.unidata_version, "jieba 0.1"),
            "segmenter , not jieba 0.1",
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(text_tools, "installed_versions", lambda name: other)  # noqa: B023
            error = run()
        assert "was started with" in error
        assert words.format(unicodedata.unidata_version) in error
    assert run() is None


def test_a_worker_with_other_versions_is_refused():
    settings = text_tools.TextSettings(b"", versions=text_tools.Versions("1.0", ""))
    with pytest.raises(UserError, match="a worker's Python has Unicode .* and segm"):
        text_tools.load(settings)


@pytest.mark.parametrize("task", ["make_bundle", "merge_output"])
def test_a_project_that_moves_is_resumed(
    run, place, tmp_path, corpus_dir, undisturbed, stop, monkeypatch, task
):
    """With absolute paths, which are those of another machine now."""

    def flags(root):
        return dict(
            input_file=root / "in.txt",
            output_file=root / "place" / "out.tfrecord",
            vocab_file=root / "vocab.txt",
        )

    (tmp_path / "old").mkdir()
    for name in ("in.txt", "place"):
        (tmp_path / name).rename(tmp_path / "old" / name)
    (tmp_path / "old" / "vocab.txt").write_bytes(
        (corpus_dir / "vocab.txt").read_bytes()
    )
    made = []
    make_bundle = sharding.make_bundle
    stop(task, 2)
    _interrupted(run, **flags(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.setattr(
        sharding, "make_bundle", lambda *a: made.append(a[1]) or make_bundle(*a)
    )
    assert run(**flags(tmp_path / "new")) is None
    assert runs.digests(tmp_path / "new" / "place") == undisturbed
    total = -(-(tmp_path / "new" / "in.txt").stat().st_size // 20000)
    assert len(made) == (total - 2 if task == "make_bundle" else 0)
    # A finished one, too.
    (tmp_path / "new").rename(tmp_path / "newer")
    assert run(**flags(tmp_path / "newer")) is None
    assert len(made) == (total - 2 if task == "make_bundle" else 0)


# ---- sizes nobody meant


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_seq_length", 10**6),
        ("max_seq_length", 10**12),
        ("max_seq_length", 2**15 + 1),
        ("max_predictions_per_seq", 10**9),
        ("ngram", 10**9),
        ("dupe_factor", 10**9),
        ("num_output_files", 10**9),
        ("shard_bytes", 10**12),
        ("random_seed", 10**12),
    ],
)
def test_sizes_nobody_meant_are_refused_at_once(run, place, name, value):
    error = run(**{name: value})
    assert name in error and str(value) in error and "expected" in error
    assert not list(place.iterdir())
