"""Classification into any number of classes at once: sigmoid heads, a threshold."""

import numpy as np

from albert_zh.base import name_lists
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks import distillation_losses, metrics, reading
from albert_zh.tasks.classification import Classification
from albert_zh.tasks.features import Field

# Where there was no dev file to choose one on.
_DEFAULT_THRESHOLD = 0.5


class MultiLabel(Classification):
    """Any number of labels for each text or pair of texts.

    A prediction is float64 [num_labels], the probability of each class. Those that
    reach the threshold, which is chosen on dev, are the labels predicted.
    """

    metrics = ("micro_f1", "macro_f1", "accuracy", "loss")

    find_labels = staticmethod(reading.find_all_labels)

    def __init__(self, files):
        super().__init__(files)
        self.target_fields = (
            Field("label_ids", dtype=np.float32, size=len(files.labels)),
        )

    @property
    def threshold(self):
        """The least probability of a class that is predicted."""
        return self.decision.get("threshold", _DEFAULT_THRESHOLD)

    def targets(self, label):
        return {"label_ids": [float(name in label) for name in self.files.labels]}

    def losses(self, outputs, features, objective):
        entropies = tf.nn.sigmoid_cross_entropy_with_logits(
            labels=features["label_ids"], logits=outputs["logits"]
        )
        return tf.reduce_mean(entropies, axis=1)

    def soft_losses(self, outputs, features, temperature):
        teacher, student = features["teacher_logits"], outputs["logits"]
        return distillation_losses.sigmoid_loss(teacher, student, temperature)

    def predictions(self, outputs, features):
        return {"probabilities": tf.nn.sigmoid(outputs["logits"])}

    def decode(self, example, windows, predicted):
        # A threshold is a float64: compared with float32, it would be rounded.
        return predicted[0]["probabilities"].astype(np.float64)

    def _arrays(self, examples, predictions):
        """Returns bool and float [N, num_labels], the true labels and probabilities."""
        rows = [self.targets(example.label)["label_ids"] for example in examples]
        return np.array(rows, bool), np.stack(predictions)

    def fit_decision(self, examples, predictions):
        """The threshold of the highest F1: the macro average if that is the metric."""
        average = "macro" if self.files.task.metric == "macro_f1" else "micro"
        arrays = self._arrays(examples, predictions)
        return {"threshold": metrics.best_threshold(*arrays, average)}

    def score(self, examples, predictions):
        arrays = self._arrays(examples, predictions)
        return metrics.score_labels(*arrays, self.threshold, self.files.labels)

    def _names(self, prediction):
        """The labels predicted, as a line of CSV."""
        chosen = np.flatnonzero(prediction >= self.threshold)
        return name_lists.join([self.files.labels[i] for i in chosen])

    def format_row(self, prediction):
        """A line of `predictions.tsv`: the labels, the probability of each class."""
        values = ["{:.6f}".format(value) for value in prediction]
        return "\t".join([self._names(prediction)] + values) + "\n"

    def show(self, prediction):
        return self._names(prediction) or "(no label)"

    def headline(self, scores):
        return "micro F1 {:.4f}, macro F1 {:.4f}, threshold {:.2f}, loss {:.4f}".format(
            scores["micro_f1"], scores["macro_f1"], scores["threshold"], scores["loss"]
        )

    def report(self, name, scores):
        return metrics.format_labels_report(name, scores, self.headline(scores))
