"""Several labels and numbers through `run_classifier.py`: learned, kept, applied."""

import functools
import json

import numpy as np
import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_classifier
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

WORDS = "天地人山水火土木金石日月"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, a file of labels and one of numbers."""
    folder = tmp_path_factory.mktemp("labels")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(WORDS)
    (folder / "vocab.txt").write_bytes("\n".join(tokens).encode("utf-8"))
    config = dict(CONFIG.to_dict(), vocab_size=len(tokens), initializer_range=0.2)
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config.update(hidden_size=32, intermediate_size=64)
    (folder / "albert_config.json").write_text(json.dumps(config))
    # The first word decides.
    labels = {"山": "山", "水": "水", "火": "山,水", "土": ""}
    texts = [mark + word for mark in labels for word in WORDS] * 4
    rows = ["{}\t{}\n".format(text, labels[text[0]]) for text in texts]
    (folder / "labels.tsv").write_bytes("".join(rows).encode("utf-8"))
    rows = ["{}\t天地\t{}\n".format(t, "山水火土".index(t[0])) for t in texts]
    (folder / "numbers.tsv").write_bytes("".join(rows).encode("utf-8"))
    return folder


run = functools.partial(task_runs.run, run_classifier)
refused = functools.partial(task_runs.refused, run_classifier)


def training_flags(folder, task, name, output_dir, epochs=24):
    path = folder / name
    return [
        "--task_name=" + task,
        "--do_train",
        "--train_file={}".format(path),
        "--dev_file={}".format(path),
        "--bert_config_file={}".format(folder / "albert_config.json"),
        "--vocab_file={}".format(folder / "vocab.txt"),
        "--output_dir={}".format(output_dir),
        "--max_seq_length=8",
        "--train_batch_size=16",
        "--learning_rate=1e-3",
        "--num_train_epochs={}".format(epochs),
    ]


def scores_of(output_dir):
    return json.loads((output_dir / "eval_results.json").read_text())["dev"]


def test_several_labels_are_learned_and_the_threshold_is_kept(folder, tmp_path, capsys):
    output_dir = tmp_path / "out"
    run(*training_flags(folder, "multi_label", "labels.tsv", output_dir), "--do_eval")
    scores = scores_of(output_dir)
    assert scores["micro_f1"] > 0.95
    decision = json.loads((output_dir / "best" / "decision.json").read_text())
    assert scores["threshold"] == decision["threshold"]
    # Moved, it is what later runs use.
    (output_dir / "best" / "decision.json").write_text('{"threshold": 0.0}')
    predict = ["--predict_file={}".format(folder / "labels.tsv"), "--do_predict"]
    evaluate = ["--do_eval", "--dev_file={}".format(folder / "labels.tsv")]
    run("--output_dir={}".format(output_dir), "--text=山水", *(predict + evaluate))
    assert scores_of(output_dir)["micro_recall"] == 1
    lines = (output_dir / "predictions.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 192
    assert all(line.startswith("山,水\t") for line in lines)
    assert "山,水  山水" in capsys.readouterr().out


def test_numbers_are_learned(folder, tmp_path, capsys):
    output_dir = tmp_path / "out"
    run(*training_flags(folder, "stsb", "numbers.tsv", output_dir), "--do_eval")
    scores = scores_of(output_dir)
    assert scores["pearson"] > 0.95
    assert scores["loss"] < 0.1
    assert not (output_dir / "best" / "decision.json").exists()
    run(
        "--output_dir={}".format(output_dir),
        "--do_predict",
        "--predict_file={}".format(folder / "numbers.tsv"),
    )
    lines = (output_dir / "predictions.tsv").read_text().split()
    true = [
        row.split("\t")[2] for row in (folder / "numbers.tsv").open("r", -1, "utf8")
    ]
    differences = np.array(lines, float) - np.array(true, float)
    assert np.mean(differences**2) == pytest.approx(scores["loss"], abs=1e-4)
    flags = training_flags(folder, "stsb", "numbers.tsv", output_dir)
    line = refused(capsys, *flags, "--metric=spearman")
    assert "began with the task's own, received spearman" in line


def test_metric_decides_which_epoch_is_the_best(folder, tmp_path):
    flags = training_flags(folder, "stsb", "numbers.tsv", tmp_path / "out", 3)
    run(*flags, "--metric=loss")
    history = json.loads((tmp_path / "out" / "dev_scores.json").read_text())
    best = json.loads((tmp_path / "out" / "best" / "eval_results.json").read_text())
    assert best["dev"]["loss"] == min(entry["loss"] for entry in history)


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--metric=accuracy"], "--metric=accuracy: expected one of pearson, spearman"),
        (["--label_smoothing=0.1"], "--label_smoothing: rows of stsb do not"),
        (["--class_weights=balanced"], "--class_weights: rows of stsb do not"),
        (["--ignore_labels=3"], "--ignore_labels: rows of stsb do not have one label"),
        (["--freeze=encoder", "--layerwise_decay=0.9"], "remove one of the two"),
        (["--labels=1,2"], "--labels=1,2: stsb predicts numbers"),
        (["--init_checkpoint="], "--init_checkpoint: expected a value"),
        (["--teacher_model_dir="], "--teacher_model_dir: expected a value"),
    ],
)
def test_flags_that_do_not_go_with_the_kind(folder, tmp_path, capsys, flags, message):
    given = training_flags(folder, "stsb", "numbers.tsv", tmp_path / "out")
    assert message in refused(capsys, *given, *flags)


def test_weights_of_0_leave_nothing_to_train_on(folder, tmp_path, capsys):
    (tmp_path / "rows.tsv").write_bytes("山天\t1\n土天\t0\n".encode())
    given = training_flags(folder, "single", tmp_path / "rows.tsv", tmp_path / "out")
    for labels, weights in (("0,1", "0,0"), ("0,1,2", "0,0,3")):
        flags = ["--labels=" + labels, "--class_weights=" + weights]
        assert "rows.tsv would weigh 0" in refused(capsys, *given, *flags)


@pytest.mark.parametrize("task", ["single", "regression_single"])
def test_single_texts_have_no_second_column(folder, tmp_path, capsys, task):
    given = training_flags(folder, task, "numbers.tsv", tmp_path / "out")
    line = refused(capsys, *given, "--text_a_column=1", "--text_b_column=2")
    assert "--text_b_column=2: {} has one text a row; remove".format(task) in line


def test_advice_on_a_label_that_only_dev_has_works(folder, tmp_path, capsys):
    """Rows of several labels cannot be left out by one."""
    dev = tmp_path / "dev.tsv"
    dev.write_bytes("山天\t山,火\n土天\t\n".encode())
    given = training_flags(folder, "multi_label", "labels.tsv", tmp_path / "out", 0.1)
    given.append("--dev_file={}".format(dev))
    line = refused(capsys, *given)
    assert "dev.tsv:1: unknown label '火'; expected one of 山, 水" in line
    assert "--labels" in line and "--ignore_labels" not in line
    run(*given, "--labels=山,水,火")
