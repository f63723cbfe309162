"""The four core modules on the newest TensorFlow, which has no Estimator any more.

Not collected with the suite, whose commands need TensorFlow 1.15 or 2.15; run it as
`python -m pytest tests/smoke_newest_tensorflow.py`.
"""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
import optimization
import tokenization
from lamb_optimizer import LAMBOptimizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SEGMENTS = ("今天天气很好，", "我们去公园散步。")
SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 32,
}
DIALECTS = {
    "albert_zh": {"embedding_size": 8, "ln_type": "postln"},
    "google": {"embedding_size": 8, "num_hidden_groups": 1, "inner_group_num": 1},
    "bert": {},
}
LEARNING_RATE = 0.01
NUM_STEPS = 8
# Builders of one training step out of a loss.
TRAINERS = {
    "lamb": lambda loss: optimization.create_optimizer(
        loss, LEARNING_RATE, 10 * NUM_STEPS, 0, False
    ),
    "adamw": lambda loss: optimization.create_optimizer(
        loss, LEARNING_RATE, 10 * NUM_STEPS, 0, False, optimizer="adamw"
    ),
    "lamb_minimize": lambda loss: LAMBOptimizer(
        LEARNING_RATE,
        exclude_from_layer_adaptation=optimization.EXCLUDED_FROM_WEIGHT_DECAY,
    ).minimize(loss),
}


@pytest.fixture
def tokenizer(tmp_path):
    vocab_file = tmp_path / "vocab.txt"
    vocab = SPECIAL_TOKENS + sorted(set("".join(SEGMENTS)))
    vocab_file.write_text("\n".join(vocab) + "\n", encoding="utf-8")
    return tokenization.FullTokenizer(str(vocab_file))


def pretraining_loss(config, tokenizer):
    """MLM plus SOP loss of one pair of segments and the same pair swapped."""
    first, second = (tokenizer.tokenize(text) for text in SEGMENTS)
    rows = []
    for left, right in ((first, second), (second, first)):
        tokens = ["[CLS]"] + left + ["[SEP]"] + right + ["[SEP]"]
        rows.append(tokenizer.convert_tokens_to_ids(tokens))
    labels = np.array(rows, np.int32)
    positions = np.array([[1, 4], [2, 9]], np.int32)
    input_ids = labels.copy()
    np.put_along_axis(input_ids, positions, tokenizer.mask_id, axis=1)

    model = modeling.AlbertModel(config, True, tf.constant(input_ids))
    masked_lm_loss, _, logits = modeling.get_masked_lm_output(
        config,
        model,
        tf.constant(positions),
        tf.constant(np.take_along_axis(labels, positions, axis=1)),
        tf.ones(positions.shape),
    )
    assert logits.shape[-1] == config.vocab_size
    sentence_order_loss, _, _ = modeling.get_sentence_order_output(
        config, model, tf.constant([0, 1])
    )
    return masked_lm_loss + sentence_order_loss


@pytest.mark.parametrize("trainer", sorted(TRAINERS))
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_training_lowers_the_loss(dialect, trainer, tokenizer):
    config = modeling.AlbertConfig(**SIZES, **DIALECTS[dialect])
    assert config.dialect == dialect
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        loss = pretraining_loss(config, tokenizer)
        train_op = TRAINERS[trainer](loss)
        session.run(tf.global_variables_initializer())
        losses = [session.run([loss, train_op])[0] for _ in range(NUM_STEPS)]
    assert np.all(np.isfinite(losses)), losses
    assert losses[-1] < losses[0] - 0.1, losses
