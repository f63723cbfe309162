"""The kinds multiple choice and cloze: head, loss, decoding, scores, predictions."""

import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.tasks import (
    fine_tuning,
    get_task,
    kind,
    model_files,
    multiple_choice,
    reading,
)
from albert_zh.tasks.choices import Blank, Cloze, Question
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] 甲 乙 丙 丁 问".split()
# Two questions, of three choices and of two: the last row is an absent choice.
LENGTHS = [[4, 3, 2], [4, 4, 0]]
FEATURES = {
    "input_ids": [
        [2, 5, 6, 3],
        [2, 6, 3, 0],
        [2, 3, 0, 0],
        [2, 7, 8, 3],
        [2, 8, 7, 3],
        [0, 0, 0, 0],
    ],
    "input_mask": [[1] * n + [0] * (4 - n) for n in sum(LENGTHS, [])],
    "segment_ids": [[0] * 4] * 6,
    "sequence_lengths": LENGTHS,
    "label_ids": [2, 0],
    "is_real_example": [1, 1],
}


@pytest.fixture
def build_kind(tmp_path):
    """Function of a task's name that builds its kind."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")

    def build(name):
        task = get_task(name)
        config = dict(CONFIG.to_dict(), initializer_range=0.5)
        config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        config = modeling.AlbertConfig.from_dict(config)
        files = model_files.TaskFiles(
            config, task, (), str(path), None, True, False, max_seq_length=8
        )
        return fine_tuning.kinds.kind_of(task)(files)

    return build


class Encoder:
    """Stands in for `modeling.AlbertModel`."""

    def __init__(self, pooled):
        self._pooled = tf.convert_to_tensor(pooled)

    def get_pooled_output(self):
        return self._pooled


def test_head_scores_each_sequence_by_itself(build_kind):
    pooled = np.random.RandomState(0).normal(size=(6, 16)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        scores = build_kind("c3").outputs(Encoder(pooled))["scores"]
        weights, bias = tf.trainable_variables()
        assert [v.op.name for v in (weights, bias)] == ["output_weights", "output_bias"]
        session.run(tf.global_variables_initializer())
        session.run(bias.assign([2.0]))
        actual, matrix = session.run([scores, weights])
    assert matrix.shape == (1, 16)
    np.testing.assert_allclose(actual, pooled @ matrix[0] + 2, atol=1e-6)


def test_training_drops_a_tenth_of_the_pooled_output(build_kind):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        encoder = Encoder(tf.ones([2000, 16]))
        scores = build_kind("c3").outputs(encoder, kind.HeadDropout(1))["scores"]
        session.run(tf.global_variables_initializer())
        weights = tf.trainable_variables()[0]
        session.run(weights.assign(tf.fill([1, 16], 1 / 16)))
        kept = session.run(scores) * (1 - kind.HEAD_DROPOUT)
    # 32,000 draws: the standard error of the share is 0.0017.
    assert kept.mean() == pytest.approx(0.9, abs=0.01)


def run_model_fn(choice, mode, features):
    """Log-probabilities, or the mean loss without dropout; the seed is fixed."""
    model_fn = fine_tuning.model_fn_builder(
        choice, False, modeling.FLOAT32, training_spec=lambda loss: loss
    )
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        tensors = {name: tf.constant(value) for name, value in features.items()}
        result = model_fn(tensors, None, mode, {})
        session.run(tf.global_variables_initializer())
        if mode == tf.estimator.ModeKeys.TRAIN:
            return session.run(result)
        return session.run(result.predictions)["log_probabilities"]


def test_absent_choices_have_no_part_in_the_probabilities(build_kind):
    choice = build_kind("c3")
    both = run_model_fn(choice, tf.estimator.ModeKeys.PREDICT, FEATURES)
    assert both.shape == (2, 3) and np.isfinite(both).all()
    np.testing.assert_allclose(np.exp(both).sum(axis=1), 1, atol=1e-6)
    assert np.exp(both[1, 2]) == 0
    # The second question alone, in a batch as wide as its own choices.
    alone = {
        name: values[3:5] if len(values) == 6 else values[1:]
        for name, values in FEATURES.items()
    }
    alone["sequence_lengths"] = [[4, 4]]
    found = run_model_fn(choice, tf.estimator.ModeKeys.PREDICT, alone)
    np.testing.assert_allclose(found[0], both[1, :2], atol=1e-5)


def test_training_minimizes_the_mean_cross_entropy_of_its_predictions(
    monkeypatch, build_kind
):
    monkeypatch.setattr(kind, "HEAD_DROPOUT", 0.0)
    choice = build_kind("multiple_choice")
    log_probabilities = run_model_fn(choice, tf.estimator.ModeKeys.PREDICT, FEATURES)
    loss = run_model_fn(choice, tf.estimator.ModeKeys.TRAIN, FEATURES)
    expected = -np.mean(log_probabilities[[0, 1], FEATURES["label_ids"]])
    assert loss == pytest.approx(expected, abs=1e-5)


def log(*probabilities):
    return np.log(np.array(probabilities, np.float32))


def test_scores_of_questions(build_kind):
    """One of two right; the loss is the mean of ln 2 and of ln 4."""
    questions = [
        Question(0, "甲", "问", ("甲", "乙", "丙"), 0),
        Question(1, "甲", "问", ("甲", "乙"), 1),
    ]
    choice = build_kind("c3")
    rows = [log(0.5, 0.25, 0.25, 1e-9), log(0.75, 0.25, 1e-9, 1e-9)]
    predictions = [
        choice.decode(question, [None], [{"log_probabilities": row}])
        for question, row in zip(questions, rows)
    ]
    assert [len(prediction) for prediction in predictions] == [3, 2]
    scores = choice.score(questions, predictions)
    assert scores == {
        "num_examples": 2,
        "accuracy": 0.5,
        "loss": pytest.approx(1.5 * np.log(2)),
    }
    assert choice.rank(scores) == (0.5, -scores["loss"])
    assert choice.headline(scores) == "accuracy 0.5000, loss 1.0397"


CLOZE = Cloze(
    ("甲", "乙", "丙"),
    (Blank("#idiom1#", "问", "", 1), Blank("#idiom2#", "", "问", 0)),
)


def test_blanks_of_a_line_take_different_candidates(build_kind):
    """Both like the first; 0.5 * 0.4 is more than 0.3 * 0.5 and the other products."""
    cloze = build_kind("chid")
    rows = [log(0.5, 0.4, 0.1, 1e-9), log(0.5, 0.3, 0.2, 1e-9)]
    predicted = [{"log_probabilities": row} for row in rows]
    prediction = cloze.decode(CLOZE, [None] * 2, predicted)
    assert prediction.indices.tolist() == [1, 0]
    other = Cloze(CLOZE.choices, CLOZE.blanks[:1])
    alone = cloze.decode(other, [None], predicted[:1])
    assert alone.indices.tolist() == [0]
    scores = cloze.score([CLOZE, other], [prediction, alone])
    assert scores == {
        "num_examples": 2,
        "num_blanks": 3,
        "accuracy": pytest.approx(2 / 3),
        "loss": pytest.approx(-np.log([0.4, 0.5, 0.4]).mean()),
    }
    assert cloze.headline(scores).startswith("accuracy 0.6667 of 3 blanks, loss ")


def test_an_example_of_blanks_has_a_window_for_each(build_kind):
    windows = build_kind("chid").build_features(CLOZE)
    assert [w.targets["label_ids"] for w in windows] == [1, 0]
    # [CLS] 甲 [SEP] 问 [MASK] [SEP]
    assert windows[0].input_ids[:6].tolist() == [2, 5, 3, 9, 4, 3]
    assert windows[1].input_ids[:6].tolist() == [2, 5, 3, 4, 9, 3]


def test_what_is_written_for_judges_and_for_people(build_kind, tmp_path):
    questions = [Question(7, "甲", "问", ("甲", "乙"), None)]
    data = reading.ExampleFile("x", questions, False, 0)
    prediction = log(0.25, 0.75)

    def written(task_name, example, prediction):
        built, submission = build_kind(task_name), tmp_path / "submission.json"
        path = built.write_predictions(str(tmp_path), data, [(example, prediction)])
        assert os.path.dirname(path) == str(tmp_path)
        assert os.path.basename(path) in built.prediction_files
        with built.open_submission(str(submission), data) as add:
            add(example, prediction)
        with open(path, encoding="utf-8") as file:
            return file.read(), submission.read_text(encoding="utf-8")

    for name in ("c3", "multiple_choice"):
        own, submission = written(name, questions[0], prediction)
        assert own == (
            '{"id": 7, "label": 1, "answer": "乙", "probabilities": [0.25, 0.75]}\n'
        )
        assert submission == '{"id": 7, "label": 1}\n'
    prediction = multiple_choice.ClozePrediction(np.array([2, 0]), None)
    own, submission = written("chid", CLOZE, prediction)
    assert json.loads(own) == {"#idiom1#": 2, "#idiom2#": 0}
    assert own == submission
