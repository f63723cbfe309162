"""Files that appear whole or not at all, local ones and those of TensorFlow."""

import contextlib
import errno
import os
import pathlib
import resource
import subprocess
import sys
import uuid

import pytest

from albert_zh.base import files
from albert_zh.base.errors import UserError


@pytest.fixture(params=["", "file://"], ids=["local", "remote"])
def place(request, tmp_path):
    """Function of a name to a path in `tmp_path`."""
    return lambda name: "{}{}/{}".format(request.param, tmp_path, name)


def _names(directory):
    return sorted(path.name for path in directory.iterdir())


@contextlib.contextmanager
def _file_size_limit(num_bytes):
    """Makes the system refuse to write more to a file, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_what_may_not_be_examined_is_told(monkeypatch):
    def deny(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    for name, examine in (("stat", files.exists), ("listdir", files.list_directory)):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, name, deny)
            with pytest.raises(UserError, match="cannot read a/b: Permission denied"):
                examine("a/b")
    assert not files.exists("a\0b")


def test_files_are_examined_and_opened(tmp_path, place):
    (tmp_path / "a").write_bytes("文字\n".encode())
    assert files.exists(place("a")) and files.exists(place(""))
    assert not files.exists(place("b"))
    assert files.size(place("a")) == 7
    with files.open_file(place("a")) as file:
        assert file.read(3) == "文".encode()
        file.seek(3)
        assert file.read(100) == "字\n".encode()
        assert file.read(100) == b""
    with files.open_file(place("a"), "r") as file:
        assert list(file) == ["文字\n"]
    with files.open_file(place("b"), "w") as file:
        file.write("字")
    assert (tmp_path / "b").read_bytes() == "字".encode()


def test_a_name_or_glob_stands_for_files(tmp_path, place):
    for name in ("b.txt", "a.txt", "[a].txt", "c.tsv"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.txt").mkdir()
    texts = ["[a].txt", "a.txt", "b.txt"]
    assert files.glob(place("*.txt")) == [place(name) for name in texts]
    assert files.glob(place("[ab].txt")) == [place("a.txt"), place("b.txt")]
    assert files.glob(place("[a].txt")) == [place("[a].txt")]
    assert files.glob(place("b.txt")) == [place("b.txt")]
    assert files.glob(place("folder.txt")) == []
    assert files.glob(place("missing")) == []


def test_files_are_renamed_and_removed(tmp_path, place):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    files.rename(place("a"), place("b"))
    assert _names(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"new"
    files.remove(place("b"))
    files.remove(place("b"))
    assert _names(tmp_path) == []


def test_directories_are_made_and_removed(tmp_path, place):
    for _ in range(2):
        files.make_directory(place("a/b"))
    (tmp_path / "a" / "b" / "c").write_bytes(b"")
    files.remove_directory(place("a"))
    files.remove_directory(place("a"))
    assert _names(tmp_path) == []


def test_the_working_directory_is_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    files.make_directory("")
    files.write_text("text", "a")
    assert files.absolute("a") == str(tmp_path / "a")
    assert files.absolute("gs://bucket/a") == "gs://bucket/a"
    assert files.read_bytes("a") == b"text"


def test_a_file_appears_when_it_is_whole(tmp_path, place):
    (tmp_path / "old").write_bytes(b"old")
    with files.whole(place("new")) as new, files.whole(place("old")) as old:
        new.write(b"1")
        old.write(b"2")
        assert not (tmp_path / "new").exists()
        assert (tmp_path / "old").read_bytes() == b"old"
    assert _names(tmp_path) == ["new", "old"]
    assert (tmp_path / "new").read_bytes() == b"1"
    assert (tmp_path / "old").read_bytes() == b"2"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UserError])
def test_an_error_leaves_what_was_there(tmp_path, place, error):
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        with pytest.raises(error, match="mine"), files.whole(place(name)) as file:
            file.write(b"x" * 100000)
            raise error("mine")
    assert _names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_a_failing_removal_does_not_hide_the_error(tmp_path, monkeypatch, caplog):
    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.os, "remove", refuse)
    with pytest.raises(KeyError, match="mine"):
        with files.whole(str(tmp_path / "a")):
            raise KeyError("mine")
    assert "cannot remove" in caplog.text and "Read-only" in caplog.text


@pytest.mark.parametrize("num_bytes", [2000, 100000], ids=["at close", "at write"])
def test_a_full_disk_is_a_user_error(tmp_path, place, num_bytes):
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        with pytest.raises(UserError, match="File too large") as error:
            with _file_size_limit(1000), files.whole(place(name)) as file:
                for _ in range(num_bytes // 1000):
                    file.write(b"x" * 1000)
        assert str(error.value).startswith("cannot write {}: ".format(place(name)))
        assert "\n" not in str(error.value)
    assert _names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["missing/a", "file/a", "directory"])
def test_an_unwritable_place_is_a_user_error(tmp_path, place, name):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    with pytest.raises(UserError) as error:
        files.write_text("text", place(name))
    assert str(error.value).startswith("cannot write {}: ".format(place(name)))
    assert "\n" not in str(error.value)
    assert _names(tmp_path) == ["directory", "file"]
    assert _names(tmp_path / "directory") == []


# Writes half a file, says so, and waits for a line before the rest.
_WRITER = """
import sys
from albert_zh.base import files

with files.whole(sys.argv[1]) as file:
    file.write(b"theirs, ")
    file.flush()
    print("begun", flush=True)
    sys.stdin.readline()
    file.write(b"whole")
"""


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path, repository):
    target = tmp_path / "target"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(target)],
        cwd=str(repository),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    ) as writer:
        assert writer.stdout.readline() == "begun\n"
        with files.whole(str(target)) as file:
            file.write(b"ours")
        assert target.read_bytes() == b"ours"
        writer.communicate("go on\n")
    assert writer.returncode == 0
    assert target.read_bytes() == b"theirs, whole"
    assert _names(tmp_path) == ["target"]


def test_writers_of_one_file_within_a_process_do_not_disturb_each_other(tmp_path):
    target = tmp_path / "target"
    with files.whole(str(target)) as file:
        file.write(b"first")
        with files.whole(str(target)) as other_file:
            other_file.write(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"


def test_a_symbolic_link_under_the_temporary_name_is_not_followed(
    tmp_path, monkeypatch
):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    known = uuid.UUID(int=7)
    monkeypatch.setattr(files.uuid, "uuid4", lambda: known)
    (tmp_path / ".target.{}.partial".format(known.hex)).symlink_to(victim)
    with pytest.raises(UserError, match="cannot write .*File exists"):
        files.write_text("text", str(tmp_path / "target"))
    assert victim.read_bytes() == b"precious"


def test_content_and_name_are_on_the_disk_when_a_file_is_there(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync

    def note(descriptor):
        path = pathlib.Path(os.readlink("/proc/self/fd/{}".format(descriptor)))
        synced.append((path.is_dir(), (tmp_path / "target").exists()))
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", note)
    files.write_text("text", str(tmp_path / "target"))
    assert synced == [(False, False), (True, True)]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    leftover = ".a.tsv.{}.partial".format("0123456789abcdef" * 2)
    others = ["a.tsv", ".a.tsv.partial", ".a.tsv.mine.partial", ".b" + leftover[2:]]
    for name in [leftover] + others:
        (tmp_path / name).write_bytes(b"")
    assert files.remove_leftovers(str(tmp_path / "a.tsv")) == 1
    assert _names(tmp_path) == sorted(others)
    assert files.remove_leftovers(str(tmp_path / "nowhere" / "a.tsv")) == 0
    for name in "ab":
        (tmp_path / (".{}.{}.partial".format(name, "0" * 32))).write_bytes(b"")
    assert files.remove_leftovers(*(str(tmp_path / name) for name in "abc")) == 2
    assert files.whole_name(".a.{}.partial".format("0" * 32)) == "a"
    assert files.whole_name(".a.partial") is None


def test_a_pipe_or_device_is_no_ordinary_file(tmp_path):
    os.mkfifo(str(tmp_path / "pipe"))
    (tmp_path / "file").write_bytes(b"")
    files.require_regular(str(tmp_path / "file"))
    for path in (str(tmp_path / "pipe"), "/dev/null"):
        with pytest.raises(UserError, match="no ordinary file"):
            files.require_regular(path)
        # Nobody writes to the pipe, which nobody waits for.
        with pytest.raises(UserError, match="no ordinary file"):
            files.open_input(path)
    with files.open_input(str(tmp_path / "file")) as file:
        assert file.read(1) == b""


def test_a_temporary_directory_is_made_where_tmpdir_says(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    assert os.path.dirname(files.make_temporary_directory()) == str(tmp_path)
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="cannot write"):
        files.make_temporary_directory()


def test_bytes_are_read_and_copied(tmp_path, place):
    (tmp_path / "a").write_bytes(b"\xff\n")
    (tmp_path / "a").chmod(0o444)
    assert files.read_bytes(place("a")) == b"\xff\n"
    files.copy(place("a"), place("b"))
    assert (tmp_path / "b").read_bytes() == b"\xff\n"
    assert (tmp_path / "b").stat().st_mode & 0o200
    with pytest.raises(UserError, match="cannot read"):
        files.copy(place("missing"), place("c"))
    assert _names(tmp_path) == ["a", "b"]


def test_no_place_at_all_for_temporary_files_is_a_user_error(monkeypatch):
    def fail():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(files.tempfile, "gettempdir", fail)
    with pytest.raises(UserError, match="No usable"):
        files.make_temporary_directory()


def test_text_is_utf8(tmp_path, place):
    files.write_text("文字\n一\n", place("a"))
    assert (tmp_path / "a").read_bytes() == "文字\n一\n".encode()
    files.write_text("字", place("a"))
    assert (tmp_path / "a").read_bytes() == "字".encode()
    assert _names(tmp_path) == ["a"]


def test_a_failure_to_read_names_the_file(place):
    with pytest.raises(UserError, match="No such file") as error:
        files.read_bytes(place("missing"))
    assert str(error.value).startswith("cannot read {}: ".format(place("missing")))
    assert "\n" not in str(error.value)


def test_other_errors_are_left_alone(place):
    for context in (files.reading, files.writing):
        with pytest.raises(KeyError, match="mine"), context(place("a")):
            raise KeyError("mine")


@pytest.mark.parametrize(
    "names", ["", " , ", "a,b,a", "in.txt", "./in.txt,b", "b/../in.txt", "a,./a"]
)
def test_unusable_output_names_are_refused(names):
    with pytest.raises(UserError, match="expected distinct file names") as error:
        files.output_files(names, ["in.txt"])
    assert repr(names) in str(error.value)


def test_one_file_under_two_paths_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in.txt").write_bytes(b"")
    (tmp_path / "linked").symlink_to("folder")
    (tmp_path / "in_link").symlink_to("folder/in.txt")
    os.link("folder/in.txt", "hard")
    for names in (
        "linked/in.txt",
        "in_link",
        "hard",
        "folder/a,linked/a",
        "folder/new/../in.txt",
    ):
        with pytest.raises(UserError, match="is (the input file|the same file as)"):
            files.output_files(names, ["folder/in.txt"])
    assert _names(tmp_path) == ["folder", "hard", "in_link", "linked"]


def test_an_output_file_within_another_path_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for names in ("a,a/b", "a/b,a", "b/c/d,b"):
        with pytest.raises(UserError, match="is inside"):
            files.output_files(names, [])
    for outputs, inputs in (
        (["a", "work/b"], []),
        (["a"], ["work/in"]),
        (["work"], []),
        (["a"], ["work"]),
    ):
        with pytest.raises(UserError, match="is (inside|the same file|the input)"):
            files.require_separate("a", outputs, inputs, ["work"])
    files.require_separate("a", ["a", "works/b"], ["wor"], ["work"])
    assert _names(tmp_path) == []


def test_output_names_are_split(tmp_path):
    inputs = [os.path.join(str(tmp_path), "a"), "gs://bucket/c"]
    names = " a ,b,, gs://bucket/a"
    assert files.output_files(names, inputs) == ["a", "b", "gs://bucket/a"]
    with pytest.raises(UserError, match="none of them an input file"):
        files.output_files("a,gs://bucket/c", inputs)


@pytest.mark.parametrize(
    "module",
    ["data.corpus", "base.progress", "data.record_format", "data.segmentation"],
)
def test_local_files_need_no_tensorflow(tmp_path, repository, module):
    script = (
        "import sys; import albert_zh.{}; from albert_zh.base import files;"
        "files.write_text('x', 'a');"
        "assert files.glob('*') == ['a']; assert files.size('a') == 1;"
        "sys.exit('tensorflow' in sys.modules)".format(module)
    )
    environment = dict(os.environ, PYTHONPATH=str(repository))
    command = [sys.executable, "-c", script]
    assert subprocess.call(command, cwd=str(tmp_path), env=environment) == 0


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "target"
    with pytest.raises(KeyError), files.directory_beside(str(target)) as made:
        pathlib.Path(made, "half").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    target.mkdir()
    with files.directory_beside(str(target)) as made:
        pathlib.Path(made, "file").write_text("1")
        files.rename_directory(made, str(target))
    assert (target / "file").read_text() == "1"
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_does_not_replace_what_is_there(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(UserError, match="cannot write .*target"):
        with files.directory_beside(str(target)) as made:
            files.rename_directory(made, str(target))
    assert (target / "mine").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]


def test_directories_that_killed_processes_left_are_removed(tmp_path):
    left = tmp_path / ".target.{}.partial".format("0a" * 16)
    left.mkdir()
    (left / "half").write_text("half")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    (tmp_path / ".target.{}.partial".format("0b" * 16)).symlink_to(mine)
    assert files.remove_leftovers(str(tmp_path / "target")) == 2
    assert list(tmp_path.iterdir()) == [mine]
    assert (mine / "file").read_text() == "mine"
