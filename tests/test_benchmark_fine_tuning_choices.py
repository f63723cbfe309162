"""The benchmark of fine-tuning's choices: files it cuts, differences it shows."""

import pathlib

import pytest

import run_classifier
from benchmarks import fine_tuning_choices as choices
from benchmarks import task_files


def test_every_row_has_flags_that_exist_and_a_row_to_compare_with():
    parser = run_classifier.build_parser()
    required = ["--task_name=lcqmc", "--output_dir=out"]
    for flags, other in choices.ROWS.values():
        parser.parse_args(required + flags)
        assert other is None or other in choices.ROWS


def test_first_rows_are_copied_once(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes(b"header\none\ntwo\nthree\n")
    assert task_files.first_rows(path, None, tmp_path / "cut") == path
    cut = task_files.first_rows(path, 2, tmp_path / "cut")
    assert cut.read_bytes() == b"header\none\ntwo\n"
    assert task_files.first_rows(path, 9, tmp_path / "cut").read_bytes() == (
        path.read_bytes()
    )


def test_a_task_has_a_name_and_a_folder():
    assert task_files.task_argument("lcqmc=a/b") == ("lcqmc", pathlib.Path("a/b"))
    with pytest.raises(ValueError):
        task_files.task_argument("lcqmc")


def test_differences_are_those_of_equal_seeds():
    found = {
        "none": ([0.60, 0.70, 0.80], 9.0),
        "dropout": ([0.61, 0.71, 0.81], 9.0),
        "r_drop": ([0.60, 0.72, 0.81], 9.4),
    }
    assert choices.table(found).split("\n")[2:] == [
        "| none |  | 70.0% ± 10.0 |  | 9 |",
        "| dropout | `--dropout=0.1` | 71.0% ± 10.0 | beside `none` +1.0% ± 0.0 | 9 |",
        "| r_drop | `--dropout=0.1 --r_drop=1` | 71.0% ± 10.5 | "
        "beside `dropout` +0.0% ± 1.0 | 9 |",
    ]
