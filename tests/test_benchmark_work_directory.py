"""A benchmark empties no folder but those that benchmarks made."""

import argparse

import pytest

from benchmarks.work_directory import work_directory


def test_only_new_empty_and_own_folders_are_taken(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (tmp_path / "new" / "folder", empty):
        (work_directory(str(path)) / "records").mkdir()
        assert (work_directory(str(path)) / "records").exists()
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(argparse.ArgumentTypeError, match="somebody else's"):
        work_directory(str(tmp_path))
