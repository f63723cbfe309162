"""The benchmark of a learning curve: its flags, its commands and its picture."""

import json

import pytest

import run_classifier
import run_pretraining
from benchmarks import learning_curve, rows


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have run, each with its results in place."""
    found = []
    results = {"dev": {"accuracy": 0.5}, "test": {"accuracy": 0.6}}
    results.update(masked_lm_loss=4.0, masked_lm_accuracy=0.25)
    results.update(sentence_order_accuracy=0.75)

    def run(command, folder):
        found.append(command)
        flags = [flag for flag in command if flag.startswith("--output_dir=")]
        for flag in flags:
            directory = folder / flag.rpartition("/")[2]
            directory.mkdir(parents=True)
            (directory / "eval_results.json").write_text(json.dumps(results))

    monkeypatch.setattr(rows, "run", run)
    return found


def test_every_point_is_scored_once_and_drawn(tmp_path, commands, capsys):
    pytest.importorskip("matplotlib")
    for name in ("one", "data"):
        (tmp_path / name).mkdir()
    for name in ("albert_config.json", "vocab.txt", "model.ckpt-5.index"):
        (tmp_path / "one" / name).write_text("{}")
    (tmp_path / "one" / "model.ckpt-5.data-00000-of-00001").write_text("")
    for split in ("train", "dev", "test"):
        (tmp_path / "data" / (split + ".tsv")).write_text("")
    flags = ["--model=1000={}".format(tmp_path / "one"), "--held_out=text"]
    flags += ["--task=lcqmc={}".format(tmp_path / "data")]
    flags += ["--work={}".format(tmp_path / "work")]
    flags += ["--output_file={}".format(tmp_path / "curve.png")]
    args = learning_curve.build_parser().parse_args(flags)
    learning_curve.main(args)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out.rstrip().split("\n")[-2:]
    assert table == [
        "| 0 | | | | 50.0% | 60.0% |",
        "| 1,000 | 4.000 | 25.0% | 75.0% | 50.0% | 60.0% |",
    ]
    scratch, _, scores, trained = commands
    assert run_pretraining.build_parser().parse_args(scores[1:]).do_eval
    parser = run_classifier.build_parser()
    assert parser.parse_args(scratch[1:]).init_checkpoint is None
    checkpoint = parser.parse_args(trained[1:]).init_checkpoint
    assert checkpoint == str(tmp_path / "one" / "model.ckpt-5")


@pytest.mark.parametrize("value", ["one", "0=one", "x=one", "5="])
def test_a_model_has_its_sequences(value):
    with pytest.raises(SystemExit):
        learning_curve.build_parser().parse_args(["--model=" + value])
