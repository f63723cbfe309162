"""The working directory of data generation: only what a run has made is removed."""

import os

import pytest

from albert_zh.base.errors import UserError
from albert_zh.data import work_directory

RUN = "0123456789abcdef"
PARTIAL = ".out.tfrecord.{}.partial".format("0" * 32)


@pytest.fixture
def root(tmp_path):
    """Path of the working directory, which is not there yet."""
    return tmp_path / "out.tfrecord.work"


def _enter(root):
    with work_directory.hold(str(root)):
        return sorted(path.name for path in root.iterdir())


def _begin(root):
    """Leaves what a killed run has left; returns the run's directory."""
    with work_directory.hold(str(root)):
        run = root / RUN
        work_directory.make_run(str(run))
        for name in ("manifest.json", "shard-00000.json", PARTIAL):
            (run / name).write_text("{}")
        for name in ("shard-00000-of-00001.part", "output-00001.json"):
            (run / name).write_text("")
    return run


def test_it_is_made_marked_and_removed(root):
    assert _enter(root) == [work_directory.MARK, "lock"]
    assert not root.exists()


@pytest.mark.parametrize("left", [[], ["lock"]], ids=["empty", "lock"])
def test_what_a_run_killed_at_its_beginning_left_is_taken_over(root, left):
    root.mkdir()
    for name in left:
        (root / name).write_bytes(b"")
    _enter(root)
    assert not root.exists()


def test_an_unfinished_run_stays_until_it_is_cleared(root):
    run = _begin(root)
    with work_directory.hold(str(root)):
        assert work_directory.runs(str(root)) == [str(run)]
        work_directory.remove_temporary(str(run))
        assert not (run / PARTIAL).exists()
        assert (run / "manifest.json").exists()
    assert run.exists()
    with work_directory.hold(str(root)):
        work_directory.clear(str(root))
        assert not run.exists()
    assert not root.exists()


def _content(root):
    return sorted((p.relative_to(root), p.is_dir()) for p in root.rglob("*"))


@pytest.mark.parametrize(
    "name",
    ["thesis.txt", "lock", RUN + "/manifest.json", RUN + "/a/b", work_directory.MARK],
)
def test_a_directory_of_somebody_else_is_refused(root, name):
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("ten years")
    if name == work_directory.MARK:
        # A mark that leads elsewhere is none.
        (root / name).unlink()
        (root / name).symlink_to(root.parent)
    before = _content(root)
    with pytest.raises(UserError, match="which no run of this version made"):
        _enter(root)
    assert _content(root) == before


@pytest.mark.parametrize("name", ["thesis.txt", RUN + "/thesis.txt", RUN + "/a/b"])
def test_files_of_somebody_else_among_its_own_are_refused(root, name):
    _begin(root)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("ten years")
    with pytest.raises(UserError, match="which no run of this version made"):
        _enter(root)
    assert (root / name).read_text() == "ten years"


def test_files_that_come_in_meanwhile_are_kept(root, caplog):
    run = _begin(root)
    with work_directory.hold(str(root)):
        (run / "thesis.txt").write_text("ten years")
        work_directory.clear(str(root))
    assert [path.name for path in run.iterdir()] == ["thesis.txt"]
    assert "files of other programs" in caplog.text


def test_links_are_not_followed(root, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "manifest.json").write_text("ten years")
    root.symlink_to(precious)
    with pytest.raises(UserError, match="is something else"):
        _enter(root)
    root.unlink()
    _begin(root)
    (root / "f123456789abcdef").symlink_to(precious)
    with pytest.raises(UserError, match="which no run of this version made"):
        _enter(root)
    (root / "f123456789abcdef").unlink()
    (root / "lock").symlink_to(precious / "manifest.json")
    with pytest.raises(UserError, match="cannot write .*lock"):
        _enter(root)
    assert (precious / "manifest.json").read_text() == "ten years"


def test_a_linked_file_among_its_own_is_removed_and_not_its_target(root, tmp_path):
    run = _begin(root)
    (tmp_path / "precious").write_text("ten years")
    (run / "shard-00001.json").symlink_to(tmp_path / "precious")
    with work_directory.hold(str(root)):
        work_directory.clear(str(root))
    assert (tmp_path / "precious").read_text() == "ten years"
    assert sorted(os.listdir(str(tmp_path))) == ["precious"]


def test_a_file_of_that_name_is_refused(root):
    root.write_text("ten years")
    with pytest.raises(UserError, match="is something else"):
        _enter(root)
    assert root.read_text() == "ten years"
