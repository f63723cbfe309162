"""Classification of single texts and of pairs: features, head, scores."""

import collections
import contextlib
import json
import os

import numpy as np

from albert_zh.base import files
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks import distillation_losses, kind, metrics, reading, rows
from albert_zh.tasks.features import Field, pair_features

PREDICTIONS_FILE = "predictions.tsv"


class Classification(kind.Kind):
    """One label for each text or pair of texts.

    A prediction is float32 [num_labels], natural logarithms of probabilities.
    """

    target_fields = (Field("label_ids"),)
    tie_breakers = ("loss",)
    min_labels = 2
    prediction_files = (PREDICTIONS_FILE,)
    metrics = ("accuracy", "f1", "macro_f1", "loss")

    find_labels = staticmethod(reading.find_labels)

    @classmethod
    def head(cls, files):
        """See `kind.Kind`; BERT's published classifiers have the same names."""
        num_outputs = cls.num_outputs(files)
        return (
            kind.Variable("output_weights", (num_outputs, files.config.hidden_size)),
            kind.Variable("output_bias", (num_outputs,), is_bias=True),
        )

    @classmethod
    def num_outputs(cls, files):
        """Returns the number of outputs of the head for a `model_files.TaskFiles`."""
        return len(files.labels)

    def build_features(self, example):
        features = pair_features(
            self.tokenizer, example.text_a, example.text_b, self.files.max_seq_length
        )
        if example.label is None:
            return [features]
        return [features._replace(targets=self.targets(example.label))]

    def targets(self, label):
        """Returns the dict of the targets of a label."""
        return {"label_ids": self.files.labels.index(label)}

    def outputs(self, model, drop=None):
        weights, bias = kind.create_variables(self.head(self.files))
        pooled = model.get_pooled_output()
        if drop:
            pooled = drop(pooled)
        return {"logits": tf.matmul(pooled, weights, transpose_b=True) + bias}

    def losses(self, outputs, features, objective):
        log_probabilities = tf.nn.log_softmax(outputs["logits"])
        num_labels, smoothing = len(self.files.labels), objective.label_smoothing
        targets = tf.one_hot(features["label_ids"], num_labels)
        targets = (1 - smoothing) * targets + smoothing / num_labels
        losses = -tf.reduce_sum(targets * log_probabilities, axis=-1)
        if objective.class_weights:
            weights = tf.constant(objective.class_weights, tf.float32)
            losses *= tf.gather(weights, features["label_ids"])
        return losses

    @property
    def teacher_fields(self):
        """See `kind.Kind`."""
        size = self.num_outputs(self.files)
        return (Field("teacher_logits", dtype=np.float32, size=size),)

    @classmethod
    def class_names(cls, files):
        return files.labels

    def teacher_outputs(self, outputs, features):
        return {"teacher_logits": outputs["logits"]}

    def soft_losses(self, outputs, features, temperature):
        teacher, student = features["teacher_logits"], outputs["logits"]
        return distillation_losses.softmax_loss(teacher, student, temperature)

    def predictions(self, outputs, features):
        return {"log_probabilities": tf.nn.log_softmax(outputs["logits"])}

    def decode(self, example, windows, predicted):
        return predicted[0]["log_probabilities"]

    def score(self, examples, predictions):
        label_ids = [self.files.labels.index(example.label) for example in examples]
        return metrics.score(label_ids, np.stack(predictions), self.files.labels)

    def write_predictions(self, output_dir, data, predictions):
        """Writes `predictions.tsv`, one line for each line of the data.

        It has a header row exactly if the data has one, so that line numbers match.
        """
        path = os.path.join(output_dir, PREDICTIONS_FILE)
        with files.whole(path) as target:
            if data.has_header:
                target.write(self.format_header().encode("utf-8"))
            for _, prediction in predictions:
                target.write(self.format_row(prediction).encode("utf-8"))
        return path

    @contextlib.contextmanager
    def open_submission(self, path, data):
        """As CLUE's judge reads it: one JSON object a line, of which only label counts.

        `id` is that of the line of the data, else the line's number from 0 on.
        """
        ids = rows.read_ids(data.path)
        with files.whole(path) as target:

            def add(example, prediction):
                label = self.files.labels[int(np.argmax(prediction))]
                text = json.dumps({"id": next(ids), "label": label}, ensure_ascii=False)
                target.write((text + "\n").encode("utf-8"))

            yield add

    def format_header(self):
        """The line that names the columns of `format_row`."""
        return format_header(self.files.labels)

    def format_row(self, prediction):
        """A line of `predictions.tsv`: the label, the probability of each class."""
        return format_prediction(self.files.labels, np.exp(prediction))

    def show(self, prediction):
        """A prediction for people, without a line end."""
        label = self.files.labels[prediction.argmax()]
        return "{}  {:.4f}".format(label, np.exp(prediction.max()))

    def headline(self, scores):
        return "accuracy {:.4f}, loss {:.4f}, F1 {:.4f}".format(
            scores["accuracy"], scores["loss"], scores["f1"]
        )

    def report(self, name, scores):
        return metrics.format_report(name, scores)


def balanced_weights(examples, labels):
    """Weights under which all classes count alike: N / (number of classes * N_class).

    Args:
      examples: list of labelled `reading.Example`.
      labels: names of the classes.

    Returns:
      Tuple of float, whose mean over the examples is 1 if every class occurs; 0 for a
      class without examples.
    """
    counts = collections.Counter(example.label for example in examples)
    return tuple(
        len(examples) / (len(labels) * counts[label]) if counts[label] else 0.0
        for label in labels
    )


def format_header(labels):
    """The line that names the columns of `format_prediction`."""
    return "\t".join(("label",) + tuple(labels)) + "\n"


def format_prediction(labels, probabilities):
    """A prediction as a line of TSV: the label, then the probability of each class.

    Args:
      labels: names of the classes.
      probabilities: float [len(labels)].
    """
    values = ["{:.6f}".format(value) for value in probabilities]
    return "\t".join([labels[int(np.argmax(probabilities))]] + values) + "\n"
