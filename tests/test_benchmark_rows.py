"""What benchmarks of rows share: which rows, one run of each, the numbers shown."""

import pytest

from albert_zh.base.errors import UserError
from benchmarks import rows

HELP = ["inspect_checkpoint.py", "--help"]


def test_rows_are_those_named_or_all():
    assert rows.choose("all", ["a", "b"]) == ["a", "b"]
    assert rows.choose("b,a", {"a": 1, "b": 2}) == ["b", "a"]
    with pytest.raises(UserError, match="no row c; expected some of a, b"):
        rows.choose("a,c", ["a", "b"])


def test_a_command_that_has_ended_is_not_run_again(tmp_path):
    folder = tmp_path / "row"
    seconds = rows.run_once(HELP, folder)
    log = (folder / "log.txt").read_text()
    assert log.startswith("$ inspect_checkpoint.py --help\nusage: ") and seconds > 0
    assert rows.run_once(HELP, folder) == seconds
    assert (folder / "log.txt").read_text() == log
    with pytest.raises(UserError, match="holds the results of `inspect_checkpoint.py"):
        rows.run_once(HELP + ["--other"], folder)


def test_a_command_that_fails_is_run_again(tmp_path):
    for times in (1, 2):
        with pytest.raises(UserError, match="inspect_checkpoint.py failed; see .*log"):
            rows.run_once(["inspect_checkpoint.py", "--no_flag"], tmp_path)
        assert (tmp_path / "log.txt").read_text().count("$ ") == times


def test_means_have_deviations_from_two_on():
    assert rows.mean_and_deviation([]) == ""
    assert rows.mean_and_deviation([0.5]) == "50.0%"
    assert rows.mean_and_deviation([0.5, 0.7]) == "60.0% ± 14.1"
    assert rows.mean_and_deviation([0.01, 0.02], "{:+.1%}") == "+1.5% ± 0.7"
