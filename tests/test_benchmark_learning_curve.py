"""The benchmark of a learning curve: its flags, its commands and its picture."""

import json

import pytest

import create_pretraining_data
import run_classifier
import run_pretraining
from albert_zh.base.errors import UserError
from benchmarks import learning_curve, rows

RESULTS = {
    "dev": {"accuracy": 0.5},
    "test": {"accuracy": 0.6},
    "masked_lm_loss": 4.0,
    "masked_lm_accuracy": 0.25,
    "sentence_order_accuracy": 0.75,
}


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have run, each with its results in place."""
    found = []

    def run(job):
        found.append(job.command)
        job.result.parent.mkdir(parents=True, exist_ok=True)
        job.result.write_text(json.dumps(RESULTS))

    monkeypatch.setattr(rows, "run", run)
    return found


@pytest.fixture
def arguments(tmp_path):
    """Function that parses the flags of a benchmark of the models of these numbers."""
    pytest.importorskip("matplotlib")
    for number in (1000, 2000):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("albert_config.json", "vocab.txt", "model.ckpt-5.index"):
            (folder / name).write_text("{}")
        (folder / "model.ckpt-5.data-00000-of-00001").write_text("")
    (tmp_path / "data").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "data" / (split + ".tsv")).write_text("")
    (tmp_path / "text").write_text("")

    def parse(*numbers, output_file=tmp_path / "curve.png"):
        flags = ["--model={}={}".format(n, tmp_path / str(n)) for n in numbers]
        flags += ["--held_out={}".format(tmp_path / "text")]
        flags += ["--task=lcqmc={}".format(tmp_path / "data")]
        flags += ["--work={}".format(tmp_path / "work")]
        flags += ["--output_file={}".format(output_file)]
        return learning_curve.build_parser().parse_args(flags)

    return parse


def test_every_point_is_scored_once_and_drawn(tmp_path, arguments, commands, capsys):
    learning_curve.main(arguments(2000, 1000))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out.rstrip().split("\n")[-3:]
    assert table == [
        "| 0 |  |  |  | 50.0% | 60.0% |",
        "| 1,000 | 4.000 | 25.0% | 75.0% | 50.0% | 60.0% |",
        "| 2,000 | 4.000 | 25.0% | 75.0% | 50.0% | 60.0% |",
    ]
    scratch, _, scores, trained = commands[:4]
    assert run_pretraining.build_parser().parse_args(scores[1:]).do_eval
    parser = run_classifier.build_parser()
    assert parser.parse_args(scratch[1:]).init_checkpoint is None
    config_file = tmp_path / "2000" / "albert_config.json"
    assert "--albert_config_file={}".format(config_file) in scratch
    checkpoint = parser.parse_args(trained[1:]).init_checkpoint
    assert checkpoint == str(tmp_path / "1000" / "model.ckpt-5")
    # The records of the held-out text serve both models; nothing is done again.
    assert len(commands) == 6
    learning_curve.main(arguments(2000, 1000))
    assert len(commands) == 6


def test_dev_is_drawn_where_no_test_file_has_labels(arguments, commands, monkeypatch):
    drawn = []
    monkeypatch.setattr(learning_curve, "draw", lambda *args: drawn.extend(args))
    monkeypatch.delitem(RESULTS, "test")
    learning_curve.main(arguments(1000))
    assert drawn[:2] == [[(0, None, 0.5), (1000, 0.25, 0.5)], "lcqmc dev"]


def test_scores_of_another_text_are_not_shown(tmp_path, arguments, commands):
    learning_curve.main(arguments(1000))
    (tmp_path / "text").write_text("another")
    with pytest.raises(UserError, match="held_out: .* another .*text"):
        learning_curve.main(arguments(1000))


def test_a_cased_model_is_scored_and_fine_tuned_as_such(tmp_path, arguments, commands):
    settings = tmp_path / "1000" / "tokenizer_settings.json"
    settings.write_text('{"do_lower_case": false, "normalize_punctuation": true}')
    with pytest.raises(UserError, match="/1000 and .*/2000 differ in do_lower_case or"):
        learning_curve.main(arguments(1000, 2000))
    assert not commands
    learning_curve.main(arguments(1000))
    scratch, records, _, trained = commands
    for command, parser in (
        (scratch, run_classifier.build_parser()),
        (trained, run_classifier.build_parser()),
        (records, create_pretraining_data.build_parser()),
    ):
        args = parser.parse_args(command[1:])
        assert (args.do_lower_case, args.normalize_punctuation) == (False, True)


def test_the_picture_is_checked_before_the_work(tmp_path, arguments, commands):
    for path, message in (
        (tmp_path / "1000", "it is a folder"),
        (tmp_path / "text" / "curve.png", "cannot write "),
        (tmp_path / "text", "text is the input file"),
        (tmp_path / "data" / "dev.tsv", "dev.tsv is the input file"),
    ):
        with pytest.raises(UserError, match=message):
            learning_curve.main(arguments(1000, output_file=path))
    assert not commands


def test_inputs_are_checked_before_the_work(tmp_path, arguments, commands):
    with pytest.raises(UserError, match="--model=1000=...: given twice"):
        learning_curve.main(arguments(1000, 1000))
    (tmp_path / "2000" / "vocab.txt").write_text("other")
    with pytest.raises(UserError, match="differ; expected models of one vocabulary"):
        learning_curve.main(arguments(1000, 2000))
    (tmp_path / "1000" / "vocab.txt").unlink()
    with pytest.raises(UserError, match="1000 holds no vocabulary"):
        learning_curve.main(arguments(1000))
    (tmp_path / "data" / "dev.tsv").unlink()
    with pytest.raises(UserError, match="expected one file dev"):
        learning_curve.main(arguments(2000))
    (tmp_path / "text").unlink()
    with pytest.raises(UserError, match="no input file matches .*text"):
        learning_curve.main(arguments(2000))
    assert not commands


@pytest.mark.parametrize("value", ["one", "0=one", "x=one", "5="])
def test_a_model_has_its_sequences(value):
    with pytest.raises(SystemExit):
        learning_curve.build_parser().parse_args(["--model=" + value])
