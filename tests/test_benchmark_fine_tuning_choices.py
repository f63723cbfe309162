"""The benchmark of fine-tuning's choices: files it cuts, differences it shows."""

import pathlib

import pytest

import run_classifier
from albert_zh.base.errors import UserError
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


def test_first_rows_are_those_of_the_file_as_it_is(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.tsv").write_text(name + "\n")
        path = tmp_path / name / "train.tsv"
        cut = task_files.first_rows(path, 2, tmp_path / "cut")
        assert cut.read_text() == name + "\n"


def test_files_of_a_task_are_found_or_named(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("")
    assert sorted(task_files.find("lcqmc", tmp_path)) == ["dev", "train"]
    with pytest.raises(UserError, match="expected one file test.*, found none"):
        task_files.find("lcqmc", tmp_path, required=("test",))
    (tmp_path / "dev.json").write_text("")
    with pytest.raises(UserError, match="dev.*, found .*dev.json, .*dev.tsv"):
        task_files.find("lcqmc", tmp_path)
    with pytest.raises(UserError, match="train.*, found none"):
        task_files.find("lcqmc", tmp_path / "none")
    with pytest.raises(UserError, match="--task=stsb: expected one of .*lcqmc"):
        task_files.find("stsb", tmp_path)


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
