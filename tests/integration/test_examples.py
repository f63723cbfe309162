"""The projects under examples/, run as their users run them."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
import tokenization
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory

SIZES = dict(
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=64,
    hidden_dropout_prob=0.1,
    # So large that the vectors of different pairs differ.
    initializer_range=0.3,
)
DIALECTS = {
    "albert_zh": dict(SIZES, embedding_size=16, ln_type="postln"),
    "google": dict(SIZES, embedding_size=16, num_hidden_groups=1),
    "bert": SIZES,
}
NUM_PAIRS = 16


def run_example(repository, tmp_path, *flags):
    """Runs the example with nothing of the repository but its path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment.update(PYTHONPATH=str(repository), PYTHONIOENCODING="utf-8")
    script = repository / "examples" / "sentence_pairs" / "train_head.py"
    return subprocess.run(
        [sys.executable, str(script)] + [str(flag) for flag in flags],
        cwd=str(tmp_path),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )


@pytest.fixture
def train_file(repository, tmp_path):
    """So few pairs that a linear head on random vectors can learn them by heart."""
    pairs = repository / "resources" / "sample_pairs" / "train.txt"
    lines = pairs.read_bytes().splitlines(keepends=True)[:NUM_PAIRS]
    path = tmp_path / "train.tsv"
    path.write_bytes(b"".join(lines))
    return path


def write_model(directory, train_file, settings):
    """Writes a random model with the characters of the pairs as its vocabulary.

    Returns {variable: ndarray} of the checkpoint.
    """
    characters = sorted(set("".join(train_file.read_text(encoding="utf-8").split())))
    tokens = list(tokenization.SPECIAL_TOKENS) + characters
    config = modeling.AlbertConfig(len(tokens), **settings)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        ids = tf.zeros([1, 1], tf.int32)
        model = modeling.AlbertModel(config, False, ids)
        modeling.get_sentence_order_output(config, model, [0])
        session.run(tf.global_variables_initializer())
        tensors = session.run({v.op.name: v for v in tf.trainable_variables()})
    directory.mkdir()
    (directory / "albert_config.json").write_text(config.to_json_string())
    (directory / "vocab.txt").write_bytes("\n".join(tokens).encode("utf-8"))
    checkpoints.write_tensors(tensors, str(directory / "model.ckpt"))
    return tensors


def losses_of(result):
    assert result.returncode == 0, result.stderr
    return [float(x) for x in re.findall(r"step \d+: loss ([\d.]+)", result.stderr)]


def assert_refused(result, words):
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert words in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_the_head_learns_and_the_encoder_stays(
    dialect, repository, run_command, tmp_path, train_file
):
    model_dir, output_dir = tmp_path / "model", tmp_path / "out"
    tensors = write_model(model_dir, train_file, DIALECTS[dialect])
    flags = ["--train_file=train.tsv", "--learning_rate=0.02", "--num_train_steps=120"]
    model = ["--model_dir=model", "--output_dir=out"]
    losses = losses_of(run_example(repository, tmp_path, *model, *flags))
    assert losses[-1] < losses[0] / 2, losses

    files = model_directory.find(str(output_dir))
    config = modeling.AlbertConfig.from_json_file(files.config_file)
    assert config.dialect == dialect
    assert tokenization.FullTokenizer(files.vocab_file).vocab_size == config.vocab_size
    saved = checkpoints.read_tensors(files.checkpoint)
    encoder = {name for name in tensors if name.startswith("bert/")}
    assert set(saved) == encoder | {"output_weights", "output_bias"}
    for name in encoder:
        np.testing.assert_array_equal(saved[name], tensors[name], err_msg=name)

    # The output is a model directory again: training goes on where it ended.
    again = ["--model_dir=out", "--output_dir=again"]
    resumed = losses_of(run_example(repository, tmp_path, *again, *flags))
    assert resumed[0] < losses[0] / 2, (losses, resumed)

    # And one that the commands take, once it has its task.
    formats = ["--from=" + dialect, "--to=" + dialect, "--task_name=pair"]
    flags = [*formats, "--input=out", "--output=converted"]
    result = run_command("convert_checkpoint.py", *flags)
    assert result.returncode == 0, result.stderr
    assert "heads: classifier" in result.stdout


def test_a_head_of_other_classes_starts_anew(repository, tmp_path, train_file):
    model_dir = tmp_path / "model"
    tensors = write_model(model_dir, train_file, DIALECTS["albert_zh"])
    for path in model_dir.glob("model.ckpt*"):
        path.unlink()
    head = {"output_weights": np.ones([3, 64], np.float32)}
    head["output_bias"] = np.ones([3], np.float32)
    checkpoints.write_tensors(dict(tensors, **head), str(model_dir / "model.ckpt"))
    flags = ["--model_dir=model", "--train_file=train.tsv", "--output_dir=out"]
    losses_of(run_example(repository, tmp_path, *flags, "--num_train_steps=1"))
    saved = model_directory.find(str(tmp_path / "out")).checkpoint
    assert checkpoints.read_shapes(saved)["output_weights"] == [2, 64]


@pytest.mark.once
@pytest.mark.parametrize(
    "last_row, flag, words",
    [
        ("天\t地\n", "--seed=1", "train.tsv:{}: expected text_a".format(NUM_PAIRS + 1)),
        ("", "--max_seq_length=65", "max_position_embeddings 64"),
        ("", "--model_dir=nowhere", "nowhere: no such directory"),
        ("", "--max_seq_length=3", "--max_seq_length=3: expected 4 or more"),
        ("", "--batch_size=0", "--batch_size=0: expected 1 or more"),
        ("", "--num_train_steps=0", "--num_train_steps=0: expected 1 or more"),
        ("", "--output_dir=model", "--output_dir=model: not empty"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    last_row, flag, words, repository, tmp_path, train_file
):
    write_model(tmp_path / "model", train_file, DIALECTS["albert_zh"])
    with train_file.open("ab") as file:
        file.write(last_row.encode("utf-8"))
    flags = ["--model_dir=model", "--train_file=train.tsv", "--output_dir=out", flag]
    result = run_example(repository, tmp_path, *flags)
    assert_refused(result, words)
    assert not (tmp_path / "out").exists()


def damage_config(model_dir):
    path = model_dir / "albert_config.json"
    path.write_text(json.dumps(dict(json.loads(path.read_text()), hidden_size=32)))


def damage_data(model_dir):
    (path,) = model_dir.glob("model.ckpt*.data*")
    path.write_bytes(path.read_bytes()[:100])


def remove_pooler(model_dir):
    tensors = checkpoints.read_tensors(model_directory.find_checkpoint(str(model_dir)))
    for path in model_dir.glob("model.ckpt*"):
        path.unlink()
    kept = {name: value for name, value in tensors.items() if "pooler" not in name}
    checkpoints.write_tensors(kept, str(model_dir / "model.ckpt"))


def lengthen_vocabulary(model_dir):
    with (model_dir / "vocab.txt").open("a") as file:
        file.write("\nmore")


def shorten_vocabulary(model_dir):
    path = model_dir / "vocab.txt"
    path.write_bytes(path.read_bytes().rsplit(b"\n", 1)[0])


@pytest.mark.once
@pytest.mark.parametrize(
    "damage, words",
    [
        (damage_config, "hidden_size is 64, not the config's 32"),
        (damage_data, "is damaged"),
        (remove_pooler, "lacks bert/pooler/dense/bias:0, bert/pooler/dense/kernel:0"),
        (lengthen_vocabulary, "the model's embedding table only"),
        (shorten_vocabulary, "give the vocabulary the model was trained with"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(
    damage, words, repository, tmp_path, train_file
):
    write_model(tmp_path / "model", train_file, DIALECTS["albert_zh"])
    damage(tmp_path / "model")
    flags = ["--model_dir=model", "--train_file=train.tsv", "--output_dir=out"]
    assert_refused(run_example(repository, tmp_path, *flags), words)
    assert not (tmp_path / "out").exists()
