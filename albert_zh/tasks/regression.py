"""Regression: a number for each text or pair of texts, such as their similarity."""

import numpy as np

from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks import kind, metrics
from albert_zh.tasks.classification import Classification
from albert_zh.tasks.features import Field


class Regression(Classification):
    """A number for each text or pair of texts. A prediction is a float."""

    target_fields = (Field("label_value", dtype=np.float32),)
    min_labels = 0
    metrics = ("pearson", "spearman", "loss")
    has_temperature = False

    @classmethod
    def find_labels(cls, data):
        return ()

    @classmethod
    def num_outputs(cls, files):
        return 1

    def targets(self, label):
        return {"label_value": label}

    def losses(self, outputs, features, objective):
        values = tf.squeeze(outputs["logits"], axis=1)
        return tf.math.squared_difference(values, features["label_value"])

    def soft_losses(self, outputs, features, temperature):
        """See `kind.Kind`; the squared difference, which has no temperature."""
        difference = outputs["logits"] - features["teacher_logits"]
        return tf.squeeze(tf.square(difference), axis=1)

    def predictions(self, outputs, features):
        return {"value": tf.squeeze(outputs["logits"], axis=1)}

    def decode(self, example, windows, predicted):
        return float(predicted[0]["value"])

    def score(self, examples, predictions):
        return metrics.score_numbers([e.label for e in examples], predictions)

    def format_header(self):
        return "label\n"

    def format_row(self, prediction):
        """A line of `predictions.tsv`: the number."""
        return "{:.6f}\n".format(prediction)

    def show(self, prediction):
        return "{:.4f}".format(prediction)

    def headline(self, scores):
        return "Pearson {:.4f}, Spearman {:.4f}, mean squared error {:.4f}".format(
            scores["pearson"], scores["spearman"], scores["loss"]
        )

    def report(self, name, scores):
        return kind.Kind.report(self, name, scores)
