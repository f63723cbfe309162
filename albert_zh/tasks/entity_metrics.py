"""Scores of predicted entities: micro F1 of exact spans, CLUENER's macro F1."""

import collections

from albert_zh.base.console import printable

_COUNTS = ("true", "predicted", "found")


def score(texts, true, predicted, types):
    """Precision, recall and F1 of entities.

    The micro average, over all entities, counts one as found where start, end and
    type are right: the usual score of MSRA's, Resume's and CLUENER's data.

    `macro_f1` is what CLUENER's official script computes: for each type, it compares
    the sets of the strings of the entities of a text, whatever their places, and takes
    the mean of the types' F1. Of a type without anything found it is 0 (where the
    script divides by 0).

    Args:
      texts: list of str.
      true, predicted: list of the entities of each text, any with `start`, `end` and
        `type`.
      types: list of the types, over which the mean is taken.

    Returns:
      Dict ready for JSON: `num_examples`, `num_entities` (true ones), `precision`,
      `recall`, `f1`, `macro_f1` and `per_type`, dict type -> precision, recall, f1,
      num_entities.
    """
    exact = collections.Counter()  # (type, one of _COUNTS) -> number
    strings = collections.Counter()
    for text, these, those in zip(texts, true, predicted):
        _count(exact, _keys(these), _keys(those))
        _count(strings, _strings(text, these), _strings(text, those))
    totals = {count: sum(exact[kind, count] for kind in types) for count in _COUNTS}
    per_type = {}
    for kind in types:
        counts = {count: exact[kind, count] for count in _COUNTS}
        per_type[kind] = dict(_ratios(**counts), num_entities=counts["true"])
    macro = [
        _ratios(**{count: strings[kind, count] for count in _COUNTS})["f1"]
        for kind in types
    ]
    return dict(
        _ratios(**totals),
        num_examples=len(texts),
        num_entities=totals["true"],
        macro_f1=sum(macro) / len(macro),
        per_type=per_type,
    )


def _keys(entities):
    return {(entity.type, entity.start, entity.end) for entity in entities}


def _strings(text, entities):
    return {(entity.type, text[entity.start : entity.end]) for entity in entities}


def _count(counts, true, predicted):
    """Adds two sets of tuples that begin with a type to the counts."""
    for name, items in zip(_COUNTS, (true, predicted, true & predicted)):
        counts.update((item[0], name) for item in items)


def _ratios(true, predicted, found):
    """Dict of precision, recall and F1, 0 where the denominator is 0."""
    return {
        "precision": found / max(predicted, 1),
        "recall": found / max(true, 1),
        "f1": 2 * found / max(true + predicted, 1),
    }


def format_report(name, scores):
    """The scores of one split as lines of text."""
    lines = [
        "{}: {} texts, {} entities, F1 {:.4f}, macro F1 by strings (CLUENER) "
        "{:.4f}".format(
            name,
            scores["num_examples"],
            scores["num_entities"],
            scores["f1"],
            scores["macro_f1"],
        )
    ]
    # A type may be called all, too.
    rows = [("all", scores)] + list(scores["per_type"].items())
    width = max(len("type"), *(len(printable(kind)) for kind, _ in rows)) + 2
    lines.append(
        "  {:<{w}}{:>10}{:>10}{:>10}{:>10}".format(
            "type", "precision", "recall", "F1", "entities", w=width
        )
    )
    for kind, values in rows:
        row = "  {:<{w}}{precision:>10.4f}{recall:>10.4f}{f1:>10.4f}{num_entities:>10}"
        lines.append(row.format(printable(kind), w=width, **values))
    return "\n".join(lines) + "\n"
