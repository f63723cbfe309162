"""Scores of a classifier's predictions, in NumPy."""

import numpy as np

from albert_zh.base.console import printable

# Most classes whose confusions are a matrix: of 10,000 it would have 10**8 numbers.
MATRIX_CLASSES = 100
# How many pairs of classes that were taken for each other are kept where there are
# more classes.
_CONFUSIONS_KEPT = 1000
# Most classes, and pairs of them, that a report shows.
_CLASSES_SHOWN = 20
_CONFUSIONS_SHOWN = 10
_LABEL_CHARACTERS = 30


def count_pairs(label_ids, predicted_ids, num_labels):
    """Counts the pairs of true class and predicted class that occur.

    Args:
      label_ids: int [num_examples].
      predicted_ids: int [num_examples].
      num_labels: number of classes.

    Returns:
      Three int64 arrays [n]: true class, predicted class, number of examples.
    """
    cells = np.asarray(label_ids, np.int64) * num_labels + np.asarray(predicted_ids)
    cells, counts = np.unique(cells, return_counts=True)
    return cells // num_labels, cells % num_labels, counts


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
      `confusion_matrix` (rows are true classes, in the order of `labels`). In place
      of the matrix, more than `MATRIX_CLASSES` classes have `confusions`, the most
      frequent of them first: [true label, predicted label, num_examples].
    """
    label_ids = np.asarray(label_ids)
    predicted_ids = np.argmax(log_probabilities, axis=1)
    num_labels = len(labels)
    hits = np.bincount(label_ids[label_ids == predicted_ids], minlength=num_labels)
    num_true = np.bincount(label_ids, minlength=num_labels)
    num_predicted = np.bincount(predicted_ids, minlength=num_labels)
    precision = _ratio(hits, num_predicted)
    recall = _ratio(hits, num_true)
    f1 = _ratio(2 * hits, num_predicted + num_true)
    true_class = np.arange(len(label_ids)), label_ids
    headline = (lambda values: values[1]) if len(labels) == 2 else np.mean
    return {
        **_confusions(label_ids, predicted_ids, labels),
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
        "per_class": _per_class(labels, precision, recall, f1, num_true),
    }


def _per_class(labels, precision, recall, f1, num_true):
    """Dict label -> its scores; all but `labels` are arrays [num_labels]."""
    return {
        label: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "num_examples": int(num_true[i]),
        }
        for i, label in enumerate(labels)
    }


def _confusions(label_ids, predicted_ids, labels):
    """The entry of `score`, a dict, that says which classes were taken for which."""
    true, predicted, counts = count_pairs(label_ids, predicted_ids, len(labels))
    if len(labels) <= MATRIX_CLASSES:
        matrix = np.zeros([len(labels)] * 2, np.int64)
        matrix[true, predicted] = counts
        return {"confusion_matrix": matrix.tolist()}
    order = np.argsort(-counts, kind="stable")
    order = order[true[order] != predicted[order]][:_CONFUSIONS_KEPT]
    return {
        "confusions": [
            [labels[true[i]], labels[predicted[i]], int(counts[i])] for i in order
        ]
    }


def summary(scores):
    """Returns the numbers among the scores, without those of each class."""
    return {k: v for k, v in scores.items() if isinstance(v, (int, float))}


def format_report(name, scores):
    """The scores of one split as lines of text.

    A few classes are shown with their confusion matrix; of many, those with the most
    wrong examples, and which they were taken for.
    """
    lines = [
        "{}: {} examples, accuracy {:.4f}, loss {:.4f}, macro F1 {:.4f}".format(
            name,
            scores["num_examples"],
            scores["accuracy"],
            scores["loss"],
            scores["macro_f1"],
        )
    ]
    labels = scores["labels"]
    if len(labels) <= _CLASSES_SHOWN:
        lines += _class_rows(scores, labels, scores["confusion_matrix"])
    else:
        missed = sorted(labels, key=lambda label: _num_missed(scores, label))
        lines.append(
            "  the {} of {} classes with the most wrong examples; eval_results.json "
            "has all".format(_CLASSES_SHOWN, len(labels))
        )
        lines += _class_rows(scores, missed[: -_CLASSES_SHOWN - 1 : -1])
        lines += _confusion_rows(scores)
    return "\n".join(lines) + "\n"


def _num_missed(scores, label):
    values = scores["per_class"][label]
    return round(values["num_examples"] * (1 - values["recall"]))


def _class_rows(scores, labels, matrix=None):
    """Lines of a table with a row for each of these labels."""
    shown = [_shorten(label) for label in labels]
    width = max(len("class"), *map(len, shown)) + 2
    heading = "  {:<{w}}{:>10}{:>10}{:>10}{:>10}".format(
        "class", "precision", "recall", "F1", "examples", w=width
    )
    rows = [heading + ("   predicted as " + " ".join(shown) if matrix else "")]
    for i, label in enumerate(labels):
        row = "  {:<{w}}{precision:>10.4f}{recall:>10.4f}{f1:>10.4f}".format(
            shown[i], w=width, **scores["per_class"][label]
        )
        row += "{:>10}".format(scores["per_class"][label]["num_examples"])
        rows.append(row + ("   " + " ".join(map(str, matrix[i])) if matrix else ""))
    return rows


def _confusion_rows(scores):
    """Lines that say which classes were taken for which the most often."""
    pairs = scores.get("confusions")
    if pairs is None:
        pairs = [
            [true, predicted, count]
            for true, row in zip(scores["labels"], scores["confusion_matrix"])
            for predicted, count in zip(scores["labels"], row)
            if count and true != predicted
        ]
        pairs.sort(key=lambda pair: -pair[2])
    if not pairs:
        return []
    return ["  the most frequent confusions"] + [
        "  {:>8} of {} taken for {}".format(count, _shorten(true), _shorten(predicted))
        for true, predicted, count in pairs[:_CONFUSIONS_SHOWN]
    ]


def _shorten(label):
    """A label as a short piece of one line."""
    shown = printable(label)
    if len(shown) > _LABEL_CHARACTERS:
        shown = shown[: _LABEL_CHARACTERS - 3] + "..."
    return shown


def _ratio(numerator, denominator):
    return numerator / np.maximum(denominator, 1)


# Candidates for a threshold.
_THRESHOLDS = np.arange(1, 100) / 100


def score_labels(is_true, probabilities, threshold, labels):
    """Scores of examples that have any number of labels each.

    A ratio whose denominator is 0 is 0; so is F1 of a label that neither occurs nor is
    predicted.

    Args:
      is_true: bool [num_examples, len(labels)].
      probabilities: float of this shape.
      threshold: the least probability of a label that is predicted.
      labels: names of the classes.

    Returns:
      Dict ready for JSON: `labels`, `num_examples`, `threshold`, `micro_f1` (of all
      decisions together), `macro_f1` (mean over the labels), `micro_precision`,
      `micro_recall`, `accuracy` (share of examples whose labels are all right), `loss`
      (mean binary cross-entropy in nats) and `per_class` as that of `score`.
    """
    is_true, probabilities = np.asarray(is_true), np.asarray(probabilities, np.float64)
    hits, num_predicted, num_true = _count_labels(is_true, probabilities, threshold)
    f1 = _ratio(2 * hits, num_predicted + num_true)
    precision, recall = _ratio(hits, num_predicted), _ratio(hits, num_true)
    totals = hits.sum(), num_predicted.sum(), num_true.sum()
    true_class = np.where(is_true, probabilities, 1 - probabilities)
    tiny = np.finfo(np.float32).tiny  # a probability of 0 in float32
    return {
        "labels": list(labels),
        "num_examples": len(is_true),
        "threshold": float(threshold),
        "micro_f1": float(_ratio(2 * totals[0], totals[1] + totals[2])),
        "macro_f1": float(np.mean(f1)),
        "micro_precision": float(_ratio(totals[0], totals[1])),
        "micro_recall": float(_ratio(totals[0], totals[2])),
        "accuracy": float(
            np.mean(((probabilities >= threshold) == is_true).all(axis=1))
        ),
        "loss": float(-np.mean(np.log(np.maximum(true_class, tiny)))),
        "per_class": _per_class(labels, precision, recall, f1, num_true),
    }


def best_threshold(is_true, probabilities, average="micro"):
    """The threshold, in hundredths, of the highest F1; of several, the nearest to 0.5.

    Args:
      is_true, probabilities: as those of `score_labels`.
      average: "micro" or "macro".

    Returns:
      float.
    """

    def f1(threshold):
        hits, num_predicted, num_true = _count_labels(is_true, probabilities, threshold)
        if average == "micro":
            return _ratio(2 * hits.sum(), num_predicted.sum() + num_true.sum())
        return np.mean(_ratio(2 * hits, num_predicted + num_true))

    return float(max(_THRESHOLDS, key=lambda t: (f1(t), -abs(t - 0.5))))


def _count_labels(is_true, probabilities, threshold):
    """Returns three int [num_labels]: true positives, predicted, true."""
    is_predicted = probabilities >= threshold
    return (is_true & is_predicted).sum(0), is_predicted.sum(0), is_true.sum(0)


def format_labels_report(name, scores, headline):
    """The scores of `score_labels` as lines of text, with those of the first labels."""
    lines = ["{}: {} examples, {}".format(name, scores["num_examples"], headline)]
    shown = scores["labels"][:_CLASSES_SHOWN]
    if len(shown) < len(scores["labels"]):
        text = "  the first {} of {} labels; eval_results.json has all"
        lines.append(text.format(len(shown), len(scores["labels"])))
    return "\n".join(lines + _class_rows(scores, shown)) + "\n"


def score_numbers(true, predicted):
    """Scores of predicted numbers.

    Args:
      true, predicted: float [num_examples].

    Returns:
      Dict ready for JSON: `num_examples`, `pearson`, `spearman` and `loss`, the mean
      squared error. A correlation with a constant is 0.
    """
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    return {
        "num_examples": len(true),
        "pearson": pearson(true, predicted),
        "spearman": pearson(average_ranks(true), average_ranks(predicted)),
        "loss": float(np.mean((true - predicted) ** 2)),
    }


def pearson(a, b):
    """Pearson's correlation of two float [n]; 0 where one is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    a, b = a - np.mean(a), b - np.mean(b)
    value = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(value, -1, 1))


def average_ranks(values):
    """Ranks from 1 on, float [n]; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[places]
