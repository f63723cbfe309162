"""`--num_trials`: each seed in its own directory, resumable; the best is kept."""

import json
import logging

import numpy as np
import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_classifier
from albert_zh.models import checkpoints
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

WORDS = "天地人山水火土木金石日月"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(WORDS)
    (folder / "vocab.txt").write_bytes("\n".join(tokens).encode("utf-8"))
    config = dict(CONFIG.to_dict(), vocab_size=len(tokens), initializer_range=0.5)
    (folder / "albert_config.json").write_text(json.dumps(config))
    for split in ("train", "dev", "test"):
        rows = ["{}\t{}\n".format(a, i % 2) for i, a in enumerate(WORDS)]
        (folder / (split + ".tsv")).write_bytes("".join(rows).encode("utf-8"))
    return folder


def training_flags(folder, output_dir):
    return [
        "--task_name=single",
        "--do_train",
        "--bert_config_file={}".format(folder / "albert_config.json"),
        "--vocab_file={}".format(folder / "vocab.txt"),
        "--output_dir={}".format(output_dir),
        "--max_seq_length=8",
        "--num_train_epochs=1",
    ]


def run(folder, output_dir, *flags):
    task_runs.run(run_classifier, *training_flags(folder, output_dir), *flags)


def read_json(*parts):
    return json.loads(parts[0].joinpath(*parts[1:]).read_text())


@pytest.mark.once
def test_seeds_are_trained_one_after_the_other_and_resumed(
    folder, tmp_path, caplog, capsys
):
    flags = ["--data_dir={}".format(folder), "--seed=5", "--do_eval"]
    run(folder, tmp_path, *flags, "--num_trials=1")
    first = read_json(tmp_path, "trials.json")
    assert first["splits"]["dev"]["standard_deviation"] is None
    for place in ("teacher_logits.npz", "seed_5/best/labels.json"):  # of a killed run
        path = tmp_path / place
        path = path.with_name(".{}.{}.partial".format(path.name, "0f" * 16))
        path.write_text("half")
    with caplog.at_level(logging.INFO):
        run(folder, tmp_path, *flags, "--num_trials=2", "--do_predict")
    assert not list(tmp_path.rglob("*.partial"))
    assert caplog.text.count("training is complete") == 1
    summary = read_json(tmp_path, "trials.json")
    assert sorted(summary["splits"]["test"]["by_seed"]) == ["5", "6"]
    for seed in (5, 6):
        directory = tmp_path / "seed_{}".format(seed)
        assert read_json(directory, "training.json")["--seed"] == seed
        scores = read_json(directory, "eval_results.json")
        for split in ("dev", "test"):
            found = summary["splits"][split]["by_seed"][str(seed)]
            assert found == scores[split]["accuracy"]
    best = "seed_{}".format(summary["best_seed"])
    for name in ("eval_results.json", "best/labels.json", "best/checkpoint"):
        assert (tmp_path / name).read_text() == (tmp_path / best / name).read_text()
    assert len((tmp_path / "predictions.tsv").read_text().splitlines()) == 12
    assert "of 2 trials (seed 5: " in capsys.readouterr().out


@pytest.mark.once
def test_a_training_ends_where_no_epoch_is_better(folder, tmp_path):
    """At a rate of next to nothing every epoch scores alike: the first is the best."""
    flags = ["--data_dir={}".format(folder), "--num_train_epochs=6"]
    flags += ["--learning_rate=1e-12", "--do_eval"]
    for patience, num_epochs in ((2, 3), (2, 3), (3, 4)):  # the same again; resumed
        run(folder, tmp_path, *flags, "--early_stopping={}".format(patience))
        epochs = read_json(tmp_path, "dev_scores.json")
        assert [entry["epoch"] for entry in epochs] == list(range(1, num_epochs + 1))
        assert len({entry["accuracy"] for entry in epochs}) == 1
        best = read_json(tmp_path, "best", "eval_results.json")
        assert best["step"] == epochs[0]["step"]


def test_a_trial_of_other_settings_is_found_before_the_first_trains(
    folder, tmp_path, capsys
):
    flags = ["--data_dir={}".format(folder), "--num_train_epochs=0.1"]
    run(folder, tmp_path, *flags, "--num_trials=1", "--seed=6")
    others = training_flags(folder, tmp_path) + flags
    others += ["--num_trials=2", "--seed=5", "--learning_rate=1e-4"]
    line = task_runs.refused(run_classifier, capsys, *others)
    assert "seed_6 holds a training with another --learning_rate" in line
    assert not (tmp_path / "seed_5").exists()


def test_trials_take_no_directory_of_a_model(folder, tmp_path, capsys):
    prefix = tmp_path / "model.ckpt"
    checkpoints.write_tensors({"global_step": np.int64(1)}, str(prefix))
    before = sorted(tmp_path.iterdir())
    flags = training_flags(folder, tmp_path) + ["--data_dir={}".format(folder)]
    line = task_runs.refused(run_classifier, capsys, *flags, "--num_trials=2")
    assert "holds a model of its own, {}-1".format(prefix) in line
    assert sorted(tmp_path.iterdir()) == before


def test_seeds_end_where_the_flag_does(folder, tmp_path, capsys):
    flags = training_flags(folder, tmp_path / "out") + ["--data_dir", folder]
    flags += ["--seed=2147483647", "--num_trials=2"]
    line = task_runs.refused(run_classifier, capsys, *flags)
    assert "--num_trials=2: the seeds from --seed=2147483647 on would pass" in line


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--num_trials=2"], "--num_trials compares epochs or trainings on dev"),
        (["--metric=accuracy"], "--metric compares"),
        (["--early_stopping=2"], "--early_stopping compares"),
        (["--num_trials=2", "--do_train=false", "--do_eval"], "requires --do_train"),
    ],
)
def test_what_compares_needs_training_and_dev(folder, tmp_path, capsys, flags, message):
    given = training_flags(folder, tmp_path / "out")
    given.append("--train_file={}".format(folder / "train.tsv"))
    line = task_runs.refused(run_classifier, capsys, *given, *flags)
    assert message in line
    assert not (tmp_path / "out").exists()
