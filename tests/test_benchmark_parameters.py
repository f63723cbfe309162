"""The table of what sizes and sharing cost: its rows, and one of them measured."""

import json

import pytest
import tensorflow.compat.v1 as tf

import modeling
from benchmarks import parameters

pytestmark = pytest.mark.once

SCRIPT = "benchmarks/parameters.py"
# Encoder, and with both heads, at the tiny size: as in docs/checkpoints.md.
TINY_ENCODER, TINY = 4175152, 4295186


def encoder_parameters(config):
    """Count of the albert_zh and bert dialects by the equations, not by the graph."""
    h, e, i = config.hidden_size, config.embedding_size, config.intermediate_size
    attention = 4 * (h * h + h) + 2 * h
    ffn = (h * i + i) + (i * h + h) + 2 * h
    copies = {
        "all": (1, 1),
        "attention": (1, config.num_hidden_layers),
        "ffn": (config.num_hidden_layers, 1),
        "none": (config.num_hidden_layers, config.num_hidden_layers),
    }[config.cross_layer_sharing]
    projection = e * h if config.dialect == "albert_zh" else 0
    embeddings = config.vocab_size * e + projection + (2 + 512) * h + 2 * h
    pooler = h * h + h
    return embeddings + copies[0] * attention + copies[1] * ffn + pooler


@pytest.mark.parametrize("name", sorted(set(parameters.ROWS) - {"small"}))
def test_rows_are_the_models_they_are_called(name):
    config = parameters.load_config(name)
    with tf.Graph().as_default():
        modeling.AlbertModel(config, False, tf.zeros([1, 1], tf.int32))
        count = modeling.count_parameters(tf.trainable_variables())
    assert count == encoder_parameters(config)


def test_one_row_is_measured(run_command, tmp_path):
    flags = ["--rows=tiny", "--length=16", "--steps=2", "--output=rows.json"]
    result = run_command(SCRIPT, *flags)
    assert result.returncode == 0, result.stderr
    header, rule, line = result.stdout.strip().splitlines()[-3:]
    assert header.count("|") == rule.count("|") == line.count("|")
    assert line.startswith("| tiny | 4 | 312 | 128 | all | 4,175,152 | 4,295,186 |")
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["encoder_parameters"], row["parameters"]) == (TINY_ENCODER, TINY)
    # Four bytes a parameter; the index and the names are the rest.
    assert 0 <= row["checkpoint_megabytes"] - 4 * TINY / 1e6 < 0.1
    # LAMB's two slots and a gradient each are another three copies of the model.
    forward_ms, forward_mb = row["forward"]
    training_ms, training_mb = row["training"]
    assert forward_ms > 0 and training_ms > 0
    assert training_mb - forward_mb > 2 * row["checkpoint_megabytes"]


def test_a_row_that_does_not_exist_is_one_line(run_command, assert_user_error):
    assert_user_error(run_command(SCRIPT, "--rows=tiny,huge"), "huge", "bert_base")
