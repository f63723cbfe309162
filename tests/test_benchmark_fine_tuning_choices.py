"""The benchmark of fine-tuning's choices: files it cuts, differences it shows."""

import json
import pathlib

import pytest

import run_classifier
from albert_zh.base.errors import UserError
from benchmarks import fine_tuning_choices as choices
from benchmarks import rows, task_files

MODEL = rows.REPOSITORY / "resources" / "albert_tiny_open"


def test_every_row_has_flags_that_exist_and_a_row_to_compare_with():
    parser = run_classifier.build_parser()
    required = ["--task_name=lcqmc", "--output_dir=out"]
    for flags, other in choices.ROWS.values():
        parser.parse_args(required + flags)
        assert other is None or other in choices.ROWS


@pytest.mark.parametrize(
    "name, header, examples",
    [
        ("train.tsv", "text_a\ttext_b\tlabel\n", ["a\tb\t0\n", "c\td\t1\n"]),
        ("train.txt", "", ["a\tb\t0\n", "c\td\t1\n"]),
        # A quoted text may have lines of its own.
        ("train.csv", "text_a,text_b,label\n", ['"a\na",b,0\n', "c,d,1\n"]),
    ],
)
def test_first_rows_are_copied(tmp_path, name, header, examples):
    path, folder = tmp_path / name, tmp_path / "cut"
    path.write_text(header + "".join(examples))
    assert task_files.first_rows("pair", path, None, folder) == path
    for limit in (1, 2, 9):
        cut = task_files.first_rows("pair", path, limit, folder)
        assert cut.read_text() == header + "".join(examples[:limit])


def test_first_rows_are_those_of_the_file_as_it_is(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.json").write_text(
            '{"sentence": "%s", "label": "0"}\n' % name
        )
        path = tmp_path / name / "train.json"
        cut = task_files.first_rows("single", path, 2, tmp_path / "cut")
        assert cut.read_text() == path.read_text()


def test_files_of_a_task_are_found_or_named(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("")
    assert sorted(task_files.find("lcqmc", tmp_path)) == ["dev", "train"]
    (tmp_path / "dev.json").write_text("")
    with pytest.raises(UserError, match="dev.*, found .*dev.json, .*dev.tsv"):
        task_files.find("lcqmc", tmp_path)
    with pytest.raises(UserError, match="train.*, found none"):
        task_files.find("lcqmc", tmp_path / "none")
    with pytest.raises(UserError, match="--task=stsb: expected one of ") as caught:
        task_files.find("stsb", tmp_path)
    assert str(caught.value).count(" lcqmc,") == 1


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
    title, _, *lines = choices.table("dev", found).split("\n")
    assert title == "| row | flags | dev | difference | seconds |"
    assert lines == [
        "| none |  | 70.0% ± 10.0 |  | 9 |",
        "| dropout | `--dropout=0.1` | 71.0% ± 10.0 | beside `none` +1.0% ± 0.0 | 9 |",
        "| r_drop | `--dropout=0.1 --r_drop=1` | 71.0% ± 10.5 | "
        "beside `dropout` +0.0% ± 1.0 | 9 |",
    ]


@pytest.fixture
def arguments(tmp_path):
    """Function that parses the flags of a benchmark, by default of one task."""
    (tmp_path / "data").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "data" / (split + ".tsv")).write_text("a\tb\t0\n")

    def parse(*tasks, model_dir=MODEL):
        flags = ["--work={}".format(tmp_path / "work")]
        flags += ["--model_dir={}".format(model_dir), "--num_trials=2"]
        flags.append("--flags=--num_train_epochs=2 --learning_rate=2e-4")
        for name in tasks:
            flags.append("--task={}={}".format(name, tmp_path / "data"))
        return choices.build_parser().parse_args(flags)

    return parse


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have run, each with the scores of dev in place."""
    found = []

    def run(job):
        found.append(job.command)
        run_classifier.build_parser().parse_args(job.command[1:])
        job.result.parent.mkdir()
        splits = {"dev": {"by_seed": {"1": 0.5, "2": 0.7}}}
        job.result.write_text(json.dumps({"splits": splits}))

    monkeypatch.setattr(rows, "run", run)
    return found


def test_dev_gives_the_score_where_no_test_file_has_labels(
    arguments, commands, tmp_path, capsys
):
    choices.main(arguments("ocnli"))
    assert len(commands) == len(choices.ROWS)
    for command in commands:
        assert {"--num_train_epochs=2", "--learning_rate=2e-4"} <= set(command)
    assert "--test_file={}".format(tmp_path / "data" / "test.tsv") in commands[0]
    table = capsys.readouterr().out
    assert "ocnli\n| row | flags | dev | difference | seconds |" in table
    assert "| none |  | 60.0% ± 14.1 |  | 0 |" in table
    (tmp_path / "data" / "test.tsv").unlink()
    with pytest.raises(UserError, match="no --test_file"):
        choices.main(arguments("ocnli"))
    choices.main(arguments("afqmc"))
    assert len(commands) == 2 * len(choices.ROWS)


def test_inputs_are_checked_before_the_work(arguments, commands, tmp_path):
    with pytest.raises(UserError, match="none: no such directory; expected a model's"):
        choices.main(arguments("lcqmc", model_dir=tmp_path / "none"))
    with pytest.raises(UserError, match="--task=pair=...: given twice; give the other"):
        choices.main(arguments("pair", "lcqmc", "pair"))
    (tmp_path / "data" / "dev.tsv").unlink()
    with pytest.raises(UserError, match="expected one file dev"):
        choices.main(arguments("lcqmc"))
    assert not commands
