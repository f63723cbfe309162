"""The losses against a teacher, of every kind of task, against plain NumPy."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.tasks import distillation_losses
from albert_zh.tasks.classification import Classification
from albert_zh.tasks.multi_label import MultiLabel
from albert_zh.tasks.multiple_choice import MultipleChoice
from albert_zh.tasks.regression import Regression
from albert_zh.tasks.span_extraction import SpanExtraction
from albert_zh.tasks.tagging import Tagging

TEMPERATURES = (1.0, 2.0, 5.0)
random = np.random.RandomState(0)


def logits(*shape):
    return random.normal(0, 3, shape).astype(np.float32)


def divergence(p, q):
    """KL(p || q) of two lists of probabilities."""
    return sum(a * np.log(a / b) for a, b in zip(p, q))


def softmax(values, temperature):
    powers = np.exp(np.array(values, np.float64) / temperature)
    return powers / powers.sum()


def softened(teacher, student, temperature):
    """Hinton's loss of one distribution."""
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * divergence(p, q)


def run(kind, outputs, features, temperature):
    """The values of `soft_losses` of a kind that needs no files for them."""
    with tf.Graph().as_default(), tf.Session() as session:
        losses = kind.__new__(kind).soft_losses(
            {name: tf.constant(value) for name, value in outputs.items()},
            {name: tf.constant(value) for name, value in features.items()},
            temperature,
        )
        return session.run(losses)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_classification(temperature):
    teacher, student = logits(4, 3), logits(4, 3)
    features = {"teacher_logits": teacher}
    found = run(Classification, {"logits": student}, features, temperature)
    expected = [softened(t, s, temperature) for t, s in zip(teacher, student)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_multi_label(temperature):
    teacher, student = logits(4, 3), logits(4, 3)
    features = {"teacher_logits": teacher}
    found = run(MultiLabel, {"logits": student}, features, temperature)
    # Of each class: that it applies, and that it does not.
    expected = [
        np.mean([softened([t, 0], [s, 0], temperature) for t, s in zip(*rows)])
        for rows in zip(teacher, student)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_regression():
    features = {"teacher_logits": np.array([[1.5], [2.0]], np.float32)}
    outputs = {"logits": np.array([[1.0], [-1.0]], np.float32)}
    assert run(Regression, outputs, features, 0.0).tolist() == [0.25, 9.0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_multiple_choice_compares_the_choices_there_are(temperature):
    lengths = np.array([[4, 4, 3], [4, 4, 0]], np.int32)
    teacher, student = logits(2, 3), logits(2, 3)
    teacher[1, 2] = 0  # as records are padded
    features = {"teacher_logits": teacher, "sequence_lengths": lengths}
    outputs = {"scores": student.ravel()}
    found = run(MultipleChoice, outputs, features, temperature)
    expected = [
        softened(teacher[0], student[0], temperature),
        softened(teacher[1, :2], student[1, :2], temperature),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_span_extraction_compares_the_text_and_cls(temperature):
    # [CLS] question [SEP] text text [SEP] padding; the last text's [SEP] counts, too
    segments = np.array([[0, 0, 0, 1, 1, 1, 0]], np.int32)
    candidates = [0, 3, 4, 5]
    outputs, features, expected = {}, {"segment_ids": segments}, 0
    for name in ("start", "end"):
        teacher, student = logits(1, 7), logits(1, 7)
        features["teacher_{}_logits".format(name)] = teacher
        outputs[name + "_logits"] = student
        rows = teacher[0, candidates], student[0, candidates]
        expected += softened(*rows, temperature) / 2
    found = run(SpanExtraction, outputs, features, temperature)
    np.testing.assert_allclose(found, [expected], rtol=1e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_tagging_takes_the_mean_over_the_tokens(temperature):
    # [CLS] and [SEP] are no tokens of the text; the second text has one token.
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
    teacher, student = logits(2, 4, 3), logits(2, 4, 3)
    features = {"teacher_logits": teacher.reshape(2, 12), "input_mask": mask}
    found = run(Tagging, {"logits": student}, features, temperature)
    rows = [
        [softened(t, s, temperature) for t, s in zip(teacher[i], student[i])]
        for i in range(2)
    ]
    np.testing.assert_allclose(found, [np.mean(rows[0][:3]), rows[1][0]], rtol=1e-4)


def test_tagging_in_a_batch_padded_beyond_its_longest_text():
    """With XLA, whose batches have few lengths; the teacher's rows do not."""
    mask = np.array([[1, 1, 1, 1, 1]], np.int32)
    teacher, student = logits(1, 4, 3), logits(1, 4, 3)
    features = {"teacher_logits": teacher.reshape(1, 12), "input_mask": mask}
    exact = run(Tagging, {"logits": student}, features, 2.0)
    padded = np.concatenate([student, logits(1, 3, 3)], 1)
    features["input_mask"] = np.pad(mask, [(0, 0), (0, 3)], "constant")
    found = run(Tagging, {"logits": padded}, features, 2.0)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_the_gradient_is_the_difference_of_the_probabilities():
    """Times T: where T is large, it does not depend on T, as published."""
    teacher, student, temperature = logits(1, 3), logits(1, 3), 4.0
    with tf.Graph().as_default(), tf.Session() as session:
        held = tf.constant(student)
        loss = distillation_losses.softmax_loss(tf.constant(teacher), held, temperature)
        (gradient,) = session.run(tf.gradients(loss, held))
    difference = softmax(student[0], temperature) - softmax(teacher[0], temperature)
    np.testing.assert_allclose(gradient[0], temperature * difference, rtol=1e-4)


def test_what_a_teacher_rules_out_gives_no_nan():
    teacher = np.array([[1e4, -1e4, 0.0]], np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        for function in (
            distillation_losses.softmax_loss,
            distillation_losses.sigmoid_loss,
        ):
            student = tf.constant(-teacher)
            loss = function(tf.constant(teacher), student, 1.0)
            values = session.run([loss] + tf.gradients(loss, student))
            assert all(np.isfinite(value).all() for value in values)
