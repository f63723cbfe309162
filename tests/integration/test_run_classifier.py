"""`run_classifier.py` end to end, with a model of two layers on 800 easy pairs."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_classifier
from albert_zh.base import locks
from albert_zh.models import checkpoints
from albert_zh.training import progress_hook

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

CHARACTERS = "天地人山水火土木金石日月星云风雨花草鸟鱼"
MARKS = {
    "0": "坏",
    "1": "好",
}  # the character that text_b begins with decides the label
CONFIG = {
    "vocab_size": 27,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
    "ln_type": "postln",
}


def make_rows(num_rows, seed):
    generator = np.random.RandomState(seed)
    rows = []
    for i in range(num_rows):
        text_a, text_b = (
            "".join(generator.choice(list(CHARACTERS), generator.randint(1, 12)))
            for _ in range(2)
        )
        label = str(i * 2 // num_rows)  # sorted by label: a weak shuffle would show
        rows.append((text_a, MARKS[label] + text_b, label))
    return rows


def write_rows(path, rows, header=""):
    text = header + "".join("\t".join(row) + "\n" for row in rows)
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "train.txt", make_rows(800, seed=1))
    write_rows(folder / "dev.txt", make_rows(50, seed=2), "text_a\ttext_b\tlabel\n")
    write_rows(folder / "test.tsv", make_rows(30, seed=3))
    return folder


@pytest.fixture(scope="module")
def model_flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = specials + list(CHARACTERS) + list(MARKS.values())
    (folder / "vocab.txt").write_bytes("\n".join(tokens).encode("utf-8"))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return [
        "--vocab_file={}".format(folder / "vocab.txt"),
        "--bert_config_file={}".format(folder / "config.json"),
        "--max_seq_length=24",
    ]


def run(*flags):
    task_runs.run(run_classifier, "--task_name=lcqmc_pair", *flags)


def training_flags(data_dir, model_flags, output_dir, num_epochs):
    return model_flags + [
        "--do_train=true",
        "--data_dir={}".format(data_dir),
        "--output_dir={}".format(output_dir),
        "--train_batch_size=16",
        "--learning_rate=1e-3",
        "--num_train_epochs={}".format(num_epochs),
        "--seed=1",
    ]


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir, model_flags):
    """Output directory of a training with evaluation of dev and test."""
    output_dir = tmp_path_factory.mktemp("trained")
    (output_dir / "train.tfrecord").write_bytes(b"the user's own")
    run(*training_flags(data_dir, model_flags, output_dir, 2), "--do_eval=true")
    return output_dir


def refused(capsys, *flags):
    return task_runs.refused(run_classifier, capsys, "--task_name=lcqmc_pair", *flags)


def predict(output_dir, path):
    """Lines of the predictions file, split into cells."""
    run("--do_predict", "--output_dir", output_dir, "--predict_file", path)
    text = (output_dir / "predictions.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


def test_learns_and_writes_into_the_output_directory_only(trained, data_dir):
    results = read_json(trained / "eval_results.json")
    assert results["dev"]["accuracy"] > 0.95
    assert results["test"]["accuracy"] > 0.95
    assert results["dev"]["num_examples"] == 50
    assert np.sum(results["test"]["confusion_matrix"]) == 30
    assert "dev_accuracy = " in (trained / "eval_results.txt").read_text()
    assert sorted(path.name for path in data_dir.iterdir()) == (
        ["dev.txt", "test.tsv", "train.txt"]
    )
    assert [path.name for path in trained.rglob("*.tfrecord*")] == ["train.tfrecord"]
    assert (trained / "train.tfrecord").read_bytes() == b"the user's own"


def test_best_is_a_complete_directory_of_the_best_epoch(trained):
    best_dir = trained / "best"
    checkpoint = tf.train.latest_checkpoint(str(best_dir))
    names = [name for name, _ in tf.train.list_variables(checkpoint)]
    assert "output_weights" in names and "output_bias" in names
    assert not [name for name in names if name.endswith(("_m", "_v"))]
    assert len(list(best_dir.glob("model.ckpt-*.index"))) == 1
    assert read_json(best_dir / "labels.json")["labels"] == ["0", "1"]
    history = read_json(trained / "dev_scores.json")
    assert [entry["step"] for entry in history] == [50, 100]
    assert not any(isinstance(v, (dict, list)) for e in history for v in e.values())
    best = max(history, key=lambda entry: (entry["accuracy"], -entry["loss"]))
    assert checkpoint.endswith("model.ckpt-{}".format(best["step"]))
    results = read_json(trained / "eval_results.json")
    assert results["dev"]["accuracy"] == best["accuracy"]
    assert results["dev"]["loss"] == pytest.approx(best["loss"], abs=1e-6)


def test_predictions_stand_beside_their_input(trained, tmp_path):
    rows = make_rows(30, seed=3)
    texts = [row[:2] for row in rows]
    lines = predict(trained, write_rows(tmp_path / "a.tsv", texts))
    assert len(lines) == 30
    probabilities = np.array([line[1:] for line in lines], float)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert [line[0] for line in lines] == [str(i) for i in probabilities.argmax(1)]
    accuracy = np.mean([line[0] == row[2] for line, row in zip(lines, rows)])
    results = read_json(trained / "eval_results.json")
    assert accuracy == pytest.approx(results["test"]["accuracy"])

    # best/ is complete wherever it lies.
    moved = tmp_path / "moved"
    shutil.copytree(str(trained / "best"), str(moved))
    header = "label\ttext_a\ttext_b\n"
    labelled = [("?",) + pair for pair in reversed(texts)]
    backwards = predict(moved, write_rows(tmp_path / "b.tsv", labelled, header))
    assert backwards[0] == ["label", "0", "1"]
    np.testing.assert_allclose(
        np.array([line[1:] for line in backwards[:0:-1]], float),
        probabilities,
        atol=2e-6,
    )


def test_texts_on_the_command_line(trained, run_command):
    result = run_command(
        "run_classifier.py",
        "--task_name=lcqmc",
        "--output_dir={}".format(trained),
        "--text_pair",
        "天地",
        "好人",
        "--text_pair",
        "天地",
        "坏人",
    )
    assert result.returncode == 0, result.stderr
    first, second, last = result.stdout.splitlines()
    assert first.startswith("1  0.") and first.endswith("天地  |  好人")
    assert second.startswith("0  0.") and second.endswith("天地  |  坏人")
    assert str(trained / "best") in last


def test_a_finished_training_says_so(trained, data_dir, model_flags, caplog):
    history_file = trained / "dev_scores.json"
    history = read_json(history_file)
    history_file.write_text(json.dumps(history[:1]))
    flags = training_flags(data_dir, model_flags, trained, 2)
    run(*flags)  # killed before the last epoch was scored: that is made up for
    assert read_json(history_file) == history
    with caplog.at_level("INFO"):
        run(*flags)
    words = "training is complete: {} is at step 100 of 100".format(trained)
    assert words in caplog.text
    assert read_json(history_file) == history
    assert "--init_checkpoint" not in caplog.text


def test_a_seed_fixes_an_epochs_scores_and_a_killed_run_goes_on_at_its_step(
    trained, data_dir, model_flags, tmp_path, monkeypatch, caplog
):
    flags = training_flags(data_dir, model_flags, tmp_path / "out", 2)
    flags.append("--save_checkpoints_steps=5")

    def killed(self, run_context, run_values):
        if int(run_values.results["step"]) >= 56:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress_hook.ProgressHook, "after_run", killed)
        with pytest.raises(SystemExit):
            run(*flags)
    first_epoch = read_json(tmp_path / "out" / "dev_scores.json")
    assert first_epoch == read_json(trained / "dev_scores.json")[:1]

    with caplog.at_level("INFO"):
        run(*flags)
    assert "resuming after step 55 of 100" in caplog.text
    history = read_json(tmp_path / "out" / "dev_scores.json")
    assert history == read_json(trained / "dev_scores.json")
    assert [entry["step"] for entry in history] == [50, 100]


def test_sigterm_ends_a_training_that_goes_on_at_the_next_step(
    data_dir, model_flags, tmp_path, monkeypatch, capsys, caplog
):
    flags = training_flags(data_dir, model_flags, tmp_path / "out", 2)

    def terminated(self, run_context, run_values):
        if int(run_values.results["step"]) == 53:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(progress_hook.ProgressHook, "after_run", terminated)
        with pytest.raises(SystemExit) as end:
            run(*flags)
    assert not end.value.code
    output = capsys.readouterr().out
    step = int(re.search("^stopped by SIGTERM at step (.*) of 100, ", output).group(1))
    assert 54 <= step <= 55  # the hook may be shown the step before the update
    with caplog.at_level("INFO"):
        run(*flags)
    assert "resuming after step {} of 100".format(step) in caplog.text
    history = read_json(tmp_path / "out" / "dev_scores.json")
    assert [entry["step"] for entry in history] == [50, 100]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--init_checkpoint={out}/model.ckpt-50"], "--init_checkpoint: it began with"),
        (["--train_file={data}/test.tsv"], "--train_file: it began with 800 examples"),
        (["--train_batch_size=8"], "--train_batch_size: it began with 16, received 8"),
        (["--learning_rate=0.1"], "--learning_rate: it began with 0.001, received 0.1"),
        (["--seed=7", "--num_train_epochs=9"], "--seed: it began with 1, received 7"),
    ],
)
def test_a_training_under_other_settings_is_refused(
    trained, data_dir, model_flags, capsys, flags, words
):
    flags = [flag.format(out=trained, data=data_dir) for flag in flags]
    line = refused(capsys, *training_flags(data_dir, model_flags, trained, 2), *flags)
    assert words in line and "choose another --output_dir" in line


def test_another_number_of_epochs_is_reported(trained, data_dir, model_flags, caplog):
    with caplog.at_level("INFO"):
        run(*training_flags(data_dir, model_flags, trained, 1))
    assert "--num_train_epochs=1.0: this training began with 2.0" in caplog.text
    assert "training is complete" in caplog.text


def test_fewer_epochs_than_trained_need_a_scored_one(
    trained, data_dir, model_flags, tmp_path, capsys
):
    """A run killed before its first score leaves such a directory."""
    output_dir = tmp_path / "out"
    shutil.copytree(str(trained), str(output_dir))
    shutil.rmtree(str(output_dir / "best"))
    (output_dir / "dev_scores.json").unlink()
    flags = training_flags(data_dir, model_flags, output_dir, 0.5)
    assert "at step 100, past the 25 of so few epochs" in refused(capsys, *flags)
    run(*training_flags(data_dir, model_flags, output_dir, 2))
    history = read_json(output_dir / "dev_scores.json")
    assert [entry["step"] for entry in history] == [100]
    assert (output_dir / "best" / "model.ckpt-100.index").exists()


def test_best_is_no_training_to_go_on_with(trained, data_dir, model_flags, capsys):
    flags = training_flags(data_dir, model_flags, trained / "best", 2)
    assert "holds a model but no training.json" in refused(capsys, *flags)


@pytest.mark.parametrize("name", ["vocab.txt", "albert_config.json"])
@pytest.mark.parametrize("folder", ["", "best"])
def test_files_of_others_are_not_overwritten(
    data_dir, model_flags, tmp_path, capsys, name, folder
):
    path = tmp_path / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}\n")
    line = refused(capsys, *training_flags(data_dir, model_flags, tmp_path, 1))
    assert "{} is no classifier's".format(path) in line
    assert path.read_text() == "{}\n"
    assert not (tmp_path / "labels.json").exists()


@pytest.mark.parametrize("kind", ["copy", "same model", "link"])
def test_a_best_model_of_another_training_is_not_overwritten(
    trained, data_dir, model_flags, tmp_path, capsys, kind
):
    """Also where only `best/` was kept, or leads out of the directory."""
    output_dir, kept = tmp_path / "out", tmp_path / "kept"
    shutil.copytree(str(trained / "best"), str(kept))
    if kind == "copy":  # of a model of other labels
        text = (kept / "labels.json").read_text("utf-8")
        (kept / "labels.json").write_text(text.replace('"0"', '"no"'))
    output_dir.mkdir()
    if kind == "link":
        (output_dir / "best").symlink_to(kept)
    else:
        kept.rename(output_dir / "best")
    files = {p.name: p.read_bytes() for p in (output_dir / "best").iterdir()}
    line = refused(capsys, *training_flags(data_dir, model_flags, output_dir, 1))
    assert "best is a link" in line or "a model of another training" in line
    assert files == {p.name: p.read_bytes() for p in (output_dir / "best").iterdir()}


def test_only_older_checkpoints_of_its_own_are_removed_from_best(
    trained, data_dir, model_flags, tmp_path
):
    output_dir = tmp_path / "out"
    shutil.copytree(str(trained), str(output_dir))
    (output_dir / "best" / "model.ckpt-old.zip").write_bytes(b"mine")
    (output_dir / "best" / "model.ckpt-7.index").write_bytes(b"")
    (output_dir / "dev_scores.json").unlink()  # so that the best is saved again
    run(*training_flags(data_dir, model_flags, output_dir, 2))
    names = {path.name for path in (output_dir / "best").glob("model.ckpt-*")}
    assert "model.ckpt-old.zip" in names and "model.ckpt-7.index" not in names


def test_predictions_do_not_overwrite_what_is_predicted(trained, tmp_path, capsys):
    output_dir = tmp_path / "model"
    shutil.copytree(str(trained / "best"), str(output_dir))
    path = write_rows(output_dir / "predictions.tsv", make_rows(5, seed=3))
    content = path.read_bytes()
    flags = "--do_predict", "--output_dir", output_dir, "--predict_file", path
    assert "is the input file" in refused(capsys, *flags)
    assert path.read_bytes() == content


def test_a_directory_of_another_model_is_refused(
    trained, data_dir, model_flags, capsys, tmp_path
):
    vocab = tmp_path / "vocab.txt"
    tokens = (trained / "vocab.txt").read_text("utf-8").replace("天", "一")
    vocab.write_text(tokens, encoding="utf-8")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dict(CONFIG, num_hidden_layers=3)))
    train = training_flags(data_dir, model_flags, trained, 2)
    predict_single = "--output_dir", trained, "--task_name=single", "--text", "天"
    for line in (
        refused(capsys, *train, "--bert_config_file={}".format(config)),
        refused(capsys, *train, "--vocab_file={}".format(vocab)),
        refused(capsys, *train, "--do_lower_case=false"),
        refused(capsys, *train, "--dropout=0.1"),
        refused(capsys, *predict_single),
    ):
        assert "holds a different model" in line


def test_single_texts_with_found_labels_from_a_checkpoint(
    trained, model_flags, tmp_path, caplog
):
    path = tmp_path / "x.jsonl"
    rows = [
        {"sentence": row[1], "label": 10 if row[2] == "1" else 9}
        for row in make_rows(40, seed=4)
    ]
    rows.append({"sentence": "天", "label": "-"})
    path.write_text("\n".join(map(json.dumps, rows)))
    init_checkpoint = tf.train.latest_checkpoint(str(trained / "best"))
    with caplog.at_level("INFO"):
        run(
            *model_flags,
            "--task_name=single",
            "--do_train",
            "--do_eval",
            "--ignore_labels=-",
            "--train_file={}".format(path),
            "--dev_file={}".format(path),
            "--num_train_epochs=0.5",
            "--learning_rate=1e-9",
            "--init_checkpoint={}".format(init_checkpoint),
            "--output_dir={}".format(tmp_path / "out"),
        )
    assert "1 rows ignored by label" in caplog.text
    assert "0 missing" in caplog.text
    scores = read_json(tmp_path / "out" / "eval_results.json")["dev"]
    assert scores["labels"] == ["9", "10"]
    assert scores["num_examples"] == 40
    best = tf.train.latest_checkpoint(str(tmp_path / "out" / "best"))
    name = "bert/embeddings/word_embeddings"
    np.testing.assert_allclose(
        tf.train.load_variable(best, name),
        tf.train.load_variable(init_checkpoint, name),
        atol=1e-7,
    )


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--do_train=false"], "--do_train, --do_eval, --do_predict"),
        (["--task_name=qqp"], "--task_name=qqp: unknown task"),
        (["--task_name=single", "--text_pair", "a", "b"], "takes --text A"),
        (["--labels=a,b"], "--labels=a,b: the labels of lcqmc_pair are 0,1"),
        (["--data_dir=nowhere"], "--data_dir=nowhere: no such folder"),
        (["--train_file=nowhere.tsv"], "nowhere.tsv: no such file"),
        (["--max_seq_length=64"], "max_position_embeddings 32"),
        (["--max_seq_length=2"], "--max_seq_length=2"),
        (["--learning_rate=0"], "--learning_rate: expected more than 0, up to 3.4e38"),
        (["--learning_rate=inf"], "--learning_rate: expected more than 0"),
        (["--num_train_epochs=-1"], "--num_train_epochs: expected more than 0"),
        (["--num_train_epochs=inf"], "--num_train_epochs: expected more than 0"),
        (["--num_train_epochs=1e30"], "--num_train_epochs=1e+30: expected at most"),
        (["--warmup_proportion=1"], "--warmup_proportion: expected 0 to below 1"),
        (["--text_pair", "", ""], "--text_pair: a text is empty"),
        (["--text_pair", "a", " "], "--text_pair: a text is empty"),
        (["--predict_file=missing"], "--predict_file requires --do_predict"),
        (["--tpu_name=a"], "--tpu_name requires --use_tpu"),
        (["--init_checkpoint=nowhere"], "--init_checkpoint"),
        (["--vocab_file=nowhere"], "--vocab_file=nowhere: no such file; `python3 down"),
        (["--bert_config_file=nowhere"], "--albert_config_file=nowhere: no such file"),
        (["--use_tpu"], "--tpu_name"),
        (
            ["--use_tpu", "--tpu_name=grpc://a:1", "--eval_batch_size=9"],
            "--eval_batch_size 9 is not divisible by the 8 devices",
        ),
        (["--dropout=1"], "--dropout: expected 0 to below 1, received 1"),
        (["--do_train=false", "--do_eval"], "--learning_rate requires --do_train"),
    ],
)
def test_wrong_flags_are_one_line(
    data_dir, model_flags, tmp_path, capsys, flags, words
):
    output_dir = tmp_path / "out"
    train = training_flags(data_dir, model_flags, output_dir, 1)
    assert words in refused(capsys, *train, *flags)
    assert not output_dir.exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--do_eval"], "holds no fine-tuned model"),
        (
            ["--do_predict", "--test_file=a", "--predict_file=b"],
            "--test_file=a: without --do_eval, --predict_file=b alone is read",
        ),
        (["--do_eval", "--ignore_labels="], "--ignore_labels: expected a value; was"),
        (["--do_eval", "--dropout=0"], "--dropout requires --do_train"),
        (["--do_predict", "--dev_file=a"], "--dev_file requires --do_train or --do_ev"),
        (["--text_pair", "a", "b", "--seed=1"], "--seed requires --do_train"),
    ],
)
def test_wrong_flags_without_training_are_one_line(
    data_dir, tmp_path, capsys, flags, words
):
    output_dir = tmp_path / "out"
    where = ["--output_dir={}".format(output_dir)]
    if "--text_pair" not in flags:
        where.append("--data_dir={}".format(data_dir))
    assert words in refused(capsys, *where, *flags)
    assert not output_dir.exists()


@pytest.mark.parametrize(
    "vocab, words",
    [
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n天\n", "[MASK]"),
        # One doubled token is taken, as in published vocabularies.
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n天\n天\n天\n", "2 of 8 lines"),
        (
            "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
            + "".join("x{}\n".format(i) for i in range(60)),
            "65",
        ),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_one_line(
    data_dir, model_flags, tmp_path, capsys, vocab, words
):
    path = tmp_path / "vocab.txt"
    path.write_text(vocab, encoding="utf-8")
    flags = training_flags(data_dir, model_flags, tmp_path / "out", 1)
    line = refused(capsys, *flags, "--vocab_file={}".format(path))
    assert words in line and "vocab" in line
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_one_line(
    trained, data_dir, model_flags, tmp_path, capsys
):
    best = tf.train.latest_checkpoint(str(trained / "best"))
    prefix = str(tmp_path / "model.ckpt")
    # The index without its data.
    shutil.copy(best + ".index", prefix + ".index")
    flags = training_flags(data_dir, model_flags, tmp_path / "out", 1)
    line = refused(capsys, *flags, "--init_checkpoint={}".format(prefix))
    assert "model.ckpt.data-00000-of-00001 is missing" in line
    assert not (tmp_path / "out").exists()


def test_a_directory_given_as_a_checkpoint_is_checked_as_one(
    trained, data_dir, model_flags, tmp_path, capsys
):
    vocab = tmp_path / "vocab.txt"
    tokens = (trained / "vocab.txt").read_text("utf-8").split("\n")
    tokens[-3:-1] = tokens[-2], tokens[-3]
    vocab.write_text("\n".join(tokens), encoding="utf-8")
    flags = training_flags(data_dir, model_flags, tmp_path / "out", 1)
    flags.append("--vocab_file={}".format(vocab))
    best = str(trained / "best")
    for checkpoint in (best, best + "/", tf.train.latest_checkpoint(best)):
        line = refused(capsys, *flags, "--init_checkpoint={}".format(checkpoint))
        assert "give the vocabulary that the checkpoint was trained with" in line


def test_a_checkpoint_of_another_size_is_one_line(
    trained, data_dir, model_flags, tmp_path, capsys
):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dict(CONFIG, hidden_size=16)))
    checkpoint = tf.train.latest_checkpoint(str(trained / "best"))
    flags = training_flags(data_dir, model_flags, tmp_path / "out", 1)
    flags += ["--bert_config_file", config, "--init_checkpoint", checkpoint]
    line = refused(capsys, *flags)
    assert checkpoint in line and "hidden_size is 32, not the config's 16" in line
    assert not (tmp_path / "out").exists()


def test_a_bad_row_stops_before_training(data_dir, model_flags, tmp_path, capsys):
    dev = write_rows(tmp_path / "dev.tsv", [("天", "地", "1"), ("天", "地", "2")])
    flags = training_flags(data_dir, model_flags, tmp_path / "out", 1)
    line = refused(capsys, "--dev_file", dev, *flags)
    assert "dev.tsv:2" in line and "unknown label '2'; expected one of 0, 1" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"max_seq_length": -5}, "labels.json: damaged (max_seq_length: -5 is less"),
        ({"max_seq_length": 32.5}, "labels.json: damaged (max_seq_length: 32.5"),
        ({"max_seq_length": 33}, "max_seq_length 33 is above max_position_embeddings"),
        ({"do_lower_case": "no"}, "labels.json: damaged (do_lower_case: 'no' is not"),
        ({"labels": ["0", "0"]}, "labels.json: damaged (labels"),
        (None, "vocab.txt has 26 entries, the model's embedding table 27 rows"),
    ],
)
def test_a_model_whose_files_do_not_fit_does_not_predict(
    trained, tmp_path, capsys, change, words
):
    moved = tmp_path / "moved"
    shutil.copytree(str(trained / "best"), str(moved))
    if change is None:
        tokens = (moved / "vocab.txt").read_text("utf-8").split("\n")
        (moved / "vocab.txt").write_text("\n".join(tokens[:-1]), encoding="utf-8")
    else:
        settings = dict(read_json(moved / "labels.json"), **change)
        (moved / "labels.json").write_text(json.dumps(settings))
    flags = ["--output_dir", tmp_path / "out", "--text_pair", "天", "地"]
    assert words in refused(capsys, *flags, "--model_dir", moved)


def test_a_model_without_a_vocabulary_says_so(trained, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(str(trained / "best"), str(moved))
    (moved / "vocab.txt").unlink()
    line = refused(capsys, "--output_dir", moved, "--text_pair", "天", "地")
    assert "moved holds neither vocab.txt nor spm.model" in line


@pytest.mark.parametrize("name", ["training.json", "dev_scores.json"])
@pytest.mark.parametrize(
    "content", ["{", "null", "[{}]", "5", '[{"step": 1, "accuracy": 1, "loss": NaN}]']
)
def test_a_damaged_file_of_a_training_says_how_to_go_on(
    trained, data_dir, model_flags, tmp_path, capsys, name, content
):
    output_dir = tmp_path / "out"
    shutil.copytree(str(trained), str(output_dir))
    (output_dir / name).write_text(content)
    flags = training_flags(data_dir, model_flags, output_dir, 2)
    line = refused(capsys, *flags)
    assert name + ": damaged (" in line and "train into another --output_dir" in line


def test_without_dev_scores_the_training_goes_on(
    trained, data_dir, model_flags, tmp_path
):
    """As the message about damaged ones says."""
    output_dir = tmp_path / "out"
    shutil.copytree(str(trained), str(output_dir))
    (output_dir / "dev_scores.json").unlink()
    run(*training_flags(data_dir, model_flags, output_dir, 2))
    assert [e["step"] for e in read_json(output_dir / "dev_scores.json")] == [100]


def test_predictions_of_nan_are_refused(trained, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(str(trained / "best"), str(moved))
    prefix = tf.train.latest_checkpoint(str(moved))
    tensors = checkpoints.read_tensors(prefix)
    tensors["output_bias"] = tensors["output_bias"] * np.nan
    checkpoints.write_tensors(tensors, str(moved / "model.ckpt"))
    flags = ["--output_dir", moved, "--text_pair", "天", "地"]
    assert "output_bias holds NaN or infinity (2 of 2 values)" in refused(
        capsys, *flags
    )


def test_one_process_predicts_into_a_directory(trained, data_dir, tmp_path, capsys):
    left = tmp_path / ".predictions.tsv.{}.partial".format("0" * 32)
    left.write_text("of a killed run")
    flags = ["--do_predict", "--predict_file", data_dir / "test.tsv"]
    flags += ["--output_dir", tmp_path, "--model_dir", trained]
    lock = str(tmp_path / ".predictions.lock")
    with locks.hold(lock, ""):
        assert "another process writes predictions there" in refused(capsys, *flags)
    assert left.exists()
    run(*flags)
    assert (tmp_path / "predictions.tsv").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_refused_prediction_leaves_no_directory(trained, tmp_path, capsys):
    path = tmp_path / "empty.tsv"
    path.write_text("")
    flags = ["--output_dir", tmp_path / "out", "--model_dir", trained]
    for mode in (["--do_predict", "--predict_file"], ["--do_eval", "--test_file"]):
        assert str(path) in refused(capsys, *flags, *mode, path)
        assert not (tmp_path / "out").exists()


def test_results_that_cannot_be_written_are_one_line(
    trained, data_dir, tmp_path, capsys
):
    output_dir = tmp_path / "out"
    (output_dir / "predictions.tsv").mkdir(parents=True)
    (output_dir / "eval_results.txt").mkdir()
    flags = ["--output_dir", output_dir, "--model_dir", trained]
    predict_file = data_dir / "test.tsv"
    line = refused(capsys, "--do_predict", "--predict_file", predict_file, *flags)
    assert "cannot write {}".format(output_dir / "predictions.tsv") in line
    line = refused(capsys, "--do_eval", "--dev_file", data_dir / "dev.txt", *flags)
    assert "cannot write {}".format(output_dir / "eval_results.txt") in line
    assert sorted(path.name for path in output_dir.iterdir()) == (
        ["albert_config.json", "eval_results.txt", "predictions.tsv"]
    )
