"""What fine-tuning minimizes, against plain NumPy and finite steps."""

import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.tasks import (
    classification,
    get_task,
    kind,
    model_files,
    multi_label,
    multiple_choice,
    regression,
    span_extraction,
    tagging,
)
from albert_zh.tasks.objective import PLAIN, Objective, divergence, training_loss
from albert_zh.tasks.reading import Example
from tests.small_models import CONFIG

LABELS = ("0", "1", "2")
LABEL_IDS = [2, 0]
FEATURES = {
    "input_ids": [[2, 5, 3, 0], [2, 6, 7, 3]],
    "input_mask": [[1, 1, 1, 0], [1, 1, 1, 1]],
    "segment_ids": [[0, 0, 0, 0], [0, 0, 1, 1]],
    "label_ids": LABEL_IDS,
}
WORD_TABLE = "bert/embeddings/word_embeddings"

Values = collections.namedtuple("Values", ["loss", "gradient", "num_variables"])


@pytest.fixture
def build_classifier(tmp_path, monkeypatch):
    """Function of the share that the head drops; the encoder drops nothing."""
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", encoding="utf-8")
    config = CONFIG.to_dict()
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = modeling.AlbertConfig.from_dict(config)

    def build(dropout=0.0):
        monkeypatch.setattr(kind, "HEAD_DROPOUT", dropout)
        task = get_task("single")
        files = model_files.TaskFiles(
            config, task, LABELS, str(path), None, True, False, 8
        )
        return classification.Classification(files)

    return build


def evaluate(classifier, objective=PLAIN, shift=0.0):
    """`Values` with the weights of one seed, their word table moved by `shift`."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        features = {name: tf.constant(value) for name, value in FEATURES.items()}
        loss = training_loss(
            classifier,
            features,
            objective,
            seed=1,
            use_tpu=False,
            numerics=modeling.FLOAT32,
        )
        variables = tf.trainable_variables()
        (table,) = (v for v in variables if v.op.name == WORD_TABLE)
        gradient = tf.convert_to_tensor(tf.gradients(loss, table)[0])
        session.run(tf.global_variables_initializer())
        # Small initial weights hardly depend on the words.
        session.run([v.assign(10 * v) for v in variables if "LayerNorm" not in v.name])
        session.run(table.assign_add(tf.zeros_like(table) + shift))
        return Values(*session.run([loss, gradient]), len(variables))


def losses_of(logits, objective):
    """float32 [B], what `Classification.losses` gives for logits [B, 3]."""
    with tf.Graph().as_default(), tf.Session() as session:
        fixture = classification.Classification.__new__(classification.Classification)
        fixture.files = collections.namedtuple("Files", ["labels"])(LABELS)
        outputs = {"logits": tf.constant(logits)}
        return session.run(fixture.losses(outputs, {"label_ids": LABEL_IDS}, objective))


LOGITS = np.array([[0.1, -2.0, 1.5], [3.0, 0.2, 0.0]], np.float32)
LOG_PROBABILITIES = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))


def test_label_smoothing_spreads_a_share_over_all_classes():
    expected = []
    for row, label in zip(LOG_PROBABILITIES, LABEL_IDS):
        targets = np.full(3, 0.3 / 3)
        targets[label] += 0.7
        expected.append(-(targets * row).sum())
    actual = losses_of(LOGITS, Objective(label_smoothing=0.3))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_class_weights_are_factors_of_the_losses():
    actual = losses_of(LOGITS, Objective(class_weights=(0.5, 1.0, 4.0)))
    expected = [-4.0 * LOG_PROBABILITIES[0, 2], -0.5 * LOG_PROBABILITIES[1, 0]]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_balanced_weights_make_all_classes_count_alike():
    examples = [Example("text", None, label) for label in "0001"]
    weights = classification.balanced_weights(examples, ("0", "1", "2"))
    assert weights == pytest.approx((4 / 9, 4 / 3, 0))
    weights = classification.balanced_weights(examples, ("0", "1"))
    assert sum(weights[int(e.label)] for e in examples) == pytest.approx(4)
    assert 3 * weights[0] == pytest.approx(weights[1])


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_the_adversarial_loss_is_that_at_the_moved_embeddings(
    build_classifier, epsilon
):
    classifier = build_classifier()
    plain = evaluate(classifier)
    shift = epsilon * plain.gradient / np.linalg.norm(plain.gradient)
    moved = evaluate(classifier, shift=shift)
    assert moved.loss > plain.loss + 0.01
    both = evaluate(classifier, Objective(adversarial_epsilon=epsilon))
    assert both.loss == pytest.approx(plain.loss + moved.loss, rel=1e-5)
    # The shift is held fixed: both gradients add up.
    np.testing.assert_allclose(
        both.gradient, plain.gradient + moved.gradient, rtol=1e-4, atol=1e-5
    )
    assert both.num_variables == plain.num_variables


def test_r_drop_adds_nothing_where_nothing_is_dropped(build_classifier):
    classifier = build_classifier()
    plain, both = evaluate(classifier), evaluate(classifier, Objective(r_drop=5.0))
    assert both.loss == pytest.approx(plain.loss, rel=1e-5)
    assert both.num_variables == plain.num_variables


def test_r_drop_weighs_the_divergence_of_two_passes(build_classifier):
    classifier = build_classifier(dropout=0.5)
    # The dropout of one seed is the same: only the weight differs.
    zero, one, two = (
        evaluate(classifier, Objective(r_drop=weight)).loss
        for weight in (1e-6, 1.0, 2.0)
    )
    assert one > zero + 1e-3
    assert two - one == pytest.approx(one - zero, rel=1e-3)


P, Q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.6, 0.3])
BOTH_WAYS = ((P * np.log(P / Q)).sum() + (Q * np.log(Q / P)).sum()) / 2
# Of the first class alone: that it applies, and that it does not.
SIGMOID = (0.7 - 0.1) * (np.log(0.7 / 0.1) - np.log(0.3 / 0.9)) / 2


@pytest.mark.parametrize(
    "kind_class, name, shape, features, expected",
    [
        (classification.Classification, "logits", [1, 3], {}, BOTH_WAYS),
        (
            multiple_choice.MultipleChoice,
            "scores",
            [3],
            {"sequence_lengths": [[4, 4, 4]]},
            BOTH_WAYS,
        ),
        (  # [CLS] and [SEP] are no tokens of the text
            tagging.Tagging,
            "logits",
            [1, 1, 3],
            {"input_mask": [[1, 1, 1]]},
            BOTH_WAYS,
        ),
    ],
)
def test_the_divergence_is_the_mean_of_both_directions(
    kind_class, name, shape, features, expected
):
    def outputs(probabilities):
        return {name: np.float32(np.log(probabilities) + 3).reshape(shape)}

    found = divergence_of(kind_class, outputs(P), outputs(Q), features)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_the_divergence_of_other_outputs():
    logit_p, logit_q = np.log(0.7 / 0.3), np.log(0.1 / 0.9)
    pair = [{"logits": np.float32([[x, 1]])} for x in (logit_p, logit_q)]
    # The mean over the classes, of which the second does not differ.
    found = divergence_of(multi_label.MultiLabel, *pair, {})
    np.testing.assert_allclose(found, [SIGMOID / 2], rtol=1e-5)
    pair = [{"logits": np.float32([[x]])} for x in (1.5, -0.5)]
    assert divergence_of(regression.Regression, *pair, {}) == [4.0]
    # Of three candidates, [CLS] and the text, first and last token differ alike.
    rows = [np.float32(np.insert(np.log(each), 1, 9)[None]) for each in (P, Q)]
    pair = [{"start_logits": row, "end_logits": row} for row in rows]
    features = {"segment_ids": [[0, 0, 1, 1]]}
    found = divergence_of(span_extraction.SpanExtraction, *pair, features)
    np.testing.assert_allclose(found, [BOTH_WAYS], rtol=1e-5)


def divergence_of(kind_class, outputs, others, features):
    """float32 [B], of outputs and features that are NumPy arrays or lists."""
    with tf.Graph().as_default(), tf.Session() as session:
        given = [
            {name: tf.constant(value) for name, value in each.items()}
            for each in (outputs, others, features)
        ]
        return session.run(divergence(kind_class.__new__(kind_class), *given))
