"""Scores of a classifier's predictions, in NumPy."""

import numpy as np


def confusion_matrix(label_ids, predicted_ids, num_labels):
    """Counts of (true class, predicted class).

    Args:
      label_ids: int [num_examples].
      predicted_ids: int [num_examples].
      num_labels: number of classes.

    Returns:
      int64 [num_labels, num_labels], rows are true classes.
    """
    cells = np.asarray(label_ids) * num_labels + np.asarray(predicted_ids)
    counts = np.bincount(cells, minlength=num_labels * num_labels)
    return counts.reshape(num_labels, num_labels)


def score(label_ids, log_probabilities, labels):
    """Accuracy, loss, and precision, recall and F1 per class and macro-averaged.

    A ratio whose denominator is 0 (precision of a class never predicted, recall
    of a class without examples) is 0. Macro averages are over all `labels`.

    Args:
      label_ids: int [num_examples].
      log_probabilities: float [num_examples, len(labels)], natural logarithm.
      labels: names of the classes.

    Returns:
      Dict ready for JSON: `labels`, `num_examples`, `accuracy`, `loss` (mean
      cross-entropy in nats), `precision`, `recall`, `f1` (of the second class where
      there are two, else the macro averages), `macro_precision`, `macro_recall`,
      `macro_f1`, `per_class` (label -> precision, recall, f1, num_examples) and
      `confusion_matrix` (rows are true classes, in the order of `labels`).
    """
    label_ids = np.asarray(label_ids)
    predicted_ids = np.argmax(log_probabilities, axis=1)
    counts = confusion_matrix(label_ids, predicted_ids, len(labels))
    hits = np.diag(counts)
    precision = _ratio(hits, counts.sum(axis=0))
    recall = _ratio(hits, counts.sum(axis=1))
    f1 = _ratio(2 * hits, counts.sum(axis=0) + counts.sum(axis=1))
    true_class = np.arange(len(label_ids)), label_ids
    headline = (lambda values: values[1]) if len(labels) == 2 else np.mean
    return {
        "labels": list(labels),
        "num_examples": len(label_ids),
        "accuracy": float(np.mean(predicted_ids == label_ids)),
        "loss": float(-np.mean(log_probabilities[true_class], dtype=np.float64)),
        "precision": float(headline(precision)),
        "recall": float(headline(recall)),
        "f1": float(headline(f1)),
        "macro_precision": float(np.mean(precision)),
        "macro_recall": float(np.mean(recall)),
        "macro_f1": float(np.mean(f1)),
        "per_class": {
            label: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "num_examples": int(counts[i].sum()),
            }
            for i, label in enumerate(labels)
        },
        "confusion_matrix": counts.tolist(),
    }


def format_report(name, scores):
    """The scores of one split as lines of text, confusion matrix included."""
    labels = scores["labels"]
    width = max(len("class"), *map(len, labels)) + 2
    lines = [
        "{}: {} examples, accuracy {:.4f}, loss {:.4f}, macro F1 {:.4f}".format(
            name,
            scores["num_examples"],
            scores["accuracy"],
            scores["loss"],
            scores["macro_f1"],
        ),
        "  {:<{w}}{:>10}{:>10}{:>10}{:>10}   predicted as {}".format(
            "class", "precision", "recall", "F1", "examples", " ".join(labels), w=width
        ),
    ]
    for label, row in zip(labels, scores["confusion_matrix"]):
        values = scores["per_class"][label]
        lines.append(
            "  {:<{w}}{:>10.4f}{:>10.4f}{:>10.4f}{:>10}   {}".format(
                label,
                values["precision"],
                values["recall"],
                values["f1"],
                values["num_examples"],
                " ".join(map(str, row)),
                w=width,
            )
        )
    return "\n".join(lines) + "\n"


def _ratio(numerator, denominator):
    return numerator / np.maximum(denominator, 1)
