"""Multiple choice: one of a question's choices, or one candidate for each blank."""

import contextlib
import json
import os
from typing import NamedTuple

import numpy as np

from albert_zh.base import files, json_files
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks import choice_features, distillation_losses, kind
from albert_zh.tasks.assignment import best_assignment
from albert_zh.tasks.features import SEQUENCE_LENGTHS, Field, sequence_lengths

PREDICTIONS_FILE = "predictions.jsonl"
BLANKS_FILE = "predictions.json"

# Logit of an absent choice.
_ABSENT = -1e9


class MultipleChoice(kind.Kind):
    """One of the choices of a question. Examples are `choices.Question`s.

    A prediction is float32 [num_choices], natural logarithms of probabilities.
    """

    tie_breakers = ("loss",)
    prediction_files = (PREDICTIONS_FILE,)
    metrics = ("accuracy", "loss")

    @property
    def target_fields(self):
        """See `kind.Kind`."""
        return Field("label_ids"), sequence_lengths(self.files.task.most_choices)

    @classmethod
    def head(cls, files):
        """See `kind.Kind`; a score of each sequence, as in BERT's published heads."""
        return (
            kind.Variable("output_weights", (1, files.config.hidden_size)),
            kind.Variable("output_bias", (1,), is_bias=True),
        )

    def build_features(self, example):
        return [
            choice_features.question_features(
                self.tokenizer, example, self.files.max_seq_length
            )
        ]

    def outputs(self, model, drop=None):
        weights, bias = kind.create_variables(self.head(self.files))
        pooled = model.get_pooled_output()  # [B*C, H]
        if drop:
            pooled = drop(pooled)
        scores = tf.matmul(pooled, weights, transpose_b=True) + bias
        return {"scores": tf.squeeze(scores, axis=1)}

    def losses(self, outputs, features, objective):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=features["label_ids"], logits=_logits(outputs, features)
        )

    @property
    def teacher_fields(self):
        """See `kind.Kind`."""
        most = self.files.task.most_choices
        field = Field("teacher_logits", True, np.float32, most_values=most)
        return (field,)

    def teacher_outputs(self, outputs, features):
        return {"teacher_logits": _logits(outputs, features)}

    def num_teacher_rows(self, window):
        return len(window.targets[SEQUENCE_LENGTHS])

    def soft_losses(self, outputs, features, temperature):
        teacher, student = features["teacher_logits"], _logits(outputs, features)
        is_present = features[SEQUENCE_LENGTHS] > 0
        return distillation_losses.softmax_loss(
            teacher, student, temperature, is_present
        )

    def predictions(self, outputs, features):
        logits = _logits(outputs, features)
        return {"log_probabilities": tf.nn.log_softmax(logits)}

    def decode(self, example, windows, predicted):
        return predicted[0]["log_probabilities"][: len(example.choices)]

    def score(self, examples, predictions):
        answers = [example.answer for example in examples]
        chosen = [prediction.argmax() for prediction in predictions]
        log_likelihoods = [
            prediction[answer] for prediction, answer in zip(predictions, answers)
        ]
        return _scores(len(examples), answers, chosen, log_likelihoods)

    def write_predictions(self, output_dir, data, predictions):
        """Writes one JSON object for each question, in the order of the data.

        It has what a judge reads, the text of the choice and the probabilities of all.
        """
        path = os.path.join(output_dir, PREDICTIONS_FILE)
        with files.whole(path) as target:
            for question, prediction in predictions:
                record = _choice(question, prediction)
                probabilities = np.exp(prediction).tolist()
                record["answer"] = question.choices[record["label"]]
                record["probabilities"] = [round(p, 6) for p in probabilities]
                target.write(_json_line(record))
        return path

    @contextlib.contextmanager
    def open_submission(self, path, data):
        """A line of JSON for each question: `id` and `label`, an index."""
        with files.whole(path) as target:

            def add(question, prediction):
                target.write(_json_line(_choice(question, prediction)))

            yield add

    def headline(self, scores):
        return "accuracy {:.4f}, loss {:.4f}".format(scores["accuracy"], scores["loss"])


class ClozePrediction(NamedTuple):
    """What is predicted for the blanks of a `choices.Cloze`.

    Attributes:
      indices: int64 [num_blanks], candidates, all different.
      log_probabilities: float32 [num_blanks, num_choices], of the model, which looks at
        each blank alone.
    """

    indices: np.ndarray
    log_probabilities: np.ndarray


class Cloze(MultipleChoice):
    """One candidate for each blank, all different. Examples are `choices.Cloze`s.

    Their blanks are windows. The candidates are those whose probabilities have the
    largest product.
    """

    prediction_files = (BLANKS_FILE,)

    def build_features(self, example):
        length = self.files.max_seq_length
        return [
            choice_features.blank_features(
                self.tokenizer, example.choices, blank, length
            )
            for blank in example.blanks
        ]

    def decode(self, example, windows, predicted):
        rows = [row["log_probabilities"][: len(example.choices)] for row in predicted]
        return ClozePrediction(best_assignment(rows), np.stack(rows))

    def score(self, examples, predictions):
        answers, chosen, log_likelihoods = [], [], []
        for example, prediction in zip(examples, predictions):
            right = [blank.answer for blank in example.blanks]
            answers += right
            chosen += prediction.indices.tolist()
            rows = np.arange(len(right))
            log_likelihoods += prediction.log_probabilities[rows, right].tolist()
        scores = _scores(len(examples), answers, chosen, log_likelihoods)
        return dict(scores, num_blanks=len(answers))

    def write_predictions(self, output_dir, data, predictions):
        """Writes what a judge reads."""
        path = os.path.join(output_dir, BLANKS_FILE)
        with self.open_submission(path, data) as add:
            for example, prediction in predictions:
                add(example, prediction)
        return path

    @contextlib.contextmanager
    def open_submission(self, path, data):
        """One object: the tags of all blanks with the indices of their candidates."""
        indices = {}

        def add(example, prediction):
            tags = [blank.tag for blank in example.blanks]
            indices.update(zip(tags, prediction.indices.tolist()))

        yield add
        json_files.write(indices, path)

    def headline(self, scores):
        text = "accuracy {:.4f} of {} blanks, loss {:.4f}"
        return text.format(scores["accuracy"], scores["num_blanks"], scores["loss"])


def _choice(question, prediction):
    """What a judge reads of a question: `id` and `label`, the index of the choice."""
    return {"id": question.identifier, "label": int(prediction.argmax())}


def _json_line(record):
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")


def _logits(outputs, features):
    """The scores of each question's choices, float32 [B, C]; absent ones are low."""
    lengths = features[SEQUENCE_LENGTHS]
    scores = tf.reshape(outputs["scores"], tf.shape(lengths))
    return tf.where(lengths > 0, scores, tf.fill(tf.shape(lengths), _ABSENT))


def _scores(num_examples, answers, chosen, log_likelihoods):
    """Accuracy and loss, the mean of the negative logarithms of the likelihoods."""
    return {
        "num_examples": num_examples,
        "accuracy": float(np.mean(np.equal(answers, chosen))),
        "loss": float(-np.mean(log_likelihoods, dtype=np.float64)),
    }
