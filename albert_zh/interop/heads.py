"""The heads of fine-tuned models: their variables, and transformers' classes for them.

A model has at most one of them.
"""

from typing import NamedTuple, Optional

from albert_zh.base.errors import UserError


class Head(NamedTuple):
    """One head.

    Attributes:
      scope: its variables are this and `weights` [rows, H], `bias` [rows].
      class_suffix: of transformers' class, after "Albert" or "Bert".
      kinds: kinds of task that it is for.
      problem_type: transformers' word for what its outputs are, None for the default.
      reads_pooler: whether it reads the pooler; else it reads all tokens.
      example: how --task_name makes a model of it that predicts.
    """

    scope: str
    class_suffix: str
    kinds: tuple
    reads_pooler: bool
    example: str
    problem_type: Optional[str] = None

    @property
    def variables(self):
        """(name of the weights, name of the bias)."""
        return self.scope + "weights", self.scope + "bias"


# The first ones have the same names. Where nothing tells, a single row scores a choice.
HEADS = {
    "classifier": Head(
        "output_",
        "ForSequenceClassification",
        ("classification",),
        True,
        "--task_name=pair (two texts) or --task_name=single",
    ),
    "multi_label": Head(
        "output_",
        "ForSequenceClassification",
        ("multi_label",),
        True,
        "--task_name=multi_label or --task_name=multi_label_pair (two texts)",
        "multi_label_classification",
    ),
    "regression": Head(
        "output_",
        "ForSequenceClassification",
        ("regression",),
        True,
        "--task_name=regression (two texts) or --task_name=regression_single",
        "regression",
    ),
    "multiple_choice": Head(
        "output_",
        "ForMultipleChoice",
        ("multiple_choice", "cloze"),
        True,
        "--task_name=multiple_choice",
    ),
    "tagger": Head(
        "ner/output_",
        "ForTokenClassification",
        ("tagging",),
        False,
        "--task_name=ner --labels=TYPE,...",
    ),
    "span": Head(
        "cls/squad/output_",
        "ForQuestionAnswering",
        ("span_extraction",),
        False,
        "--task_name=squad",
    ),
}
# Those that look like others: the kind of task, or transformers' word, tells.
BY_PROBLEM_TYPE = {
    head.problem_type: name for name, head in HEADS.items() if head.problem_type
}
# Whose rows are the labels, and whose tasks have none.
_OF_LABELS = ("classifier", "multi_label")
WITHOUT_LABELS = ("multiple_choice", "regression", "span")
# Other decoders of taggers have more variables, and no counterpart elsewhere.
TAGGER_SCOPE = "ner/"
CRF_TRANSITIONS = TAGGER_SCOPE + "transitions"


def of_kind(kind):
    """The head that only the kind of task, str or None, tells from others, or None."""
    return kind if kind in BY_PROBLEM_TYPE.values() else None


def find(tensors, source, told=None):
    """Returns the name of the head of a fine-tuned model, None where it has none.

    Args:
      tensors: dict variable name -> ndarray.
      source: where they are from, for the message.
      told: which head it is that looks like a classifier; None where that is not known.

    Raises:
      UserError: it has several.
    """
    found = [
        name
        for name in ("classifier", "tagger", "span")
        if HEADS[name].variables[0] in tensors
    ]
    if len(found) > 1:
        raise UserError(
            "{}: it has the heads {}; expected one".format(source, ", ".join(found))
        )
    if found != ["classifier"]:
        return found[0] if found else None
    has_one_row = tensors["output_weights"].shape[:1] == (1,)
    if told and has_one_row == (told == "regression"):
        return told
    return "multiple_choice" if has_one_row else "classifier"


def num_rows(head, labels):
    """Rows of a head's weights for the labels of its task."""
    if head == "tagger":
        return 2 * len(labels) + 1
    rows = {"multiple_choice": 1, "regression": 1, "span": 2}
    return rows.get(head, len(labels))


def default_labels(head, rows):
    """Returns the labels of a head whose task has none of its own: numbers."""
    if head in WITHOUT_LABELS:
        return []
    number = (rows - 1) // 2 if head == "tagger" else rows
    return [str(index) for index in range(number)]


def class_names(head, labels):
    """What transformers calls the rows, None where they have no names.

    A tagger's are tags in BIO: O, then B and I of each type.
    """
    if head == "tagger":
        return ["O"] + [tag + label for label in labels for tag in ("B-", "I-")]
    return list(labels) if head in _OF_LABELS else None


def labels_of(head, names):
    """Returns the labels whose `class_names` these are.

    Returns:
      List; None for a tagger whose tags are others, or in another order.
    """
    if head != "tagger":
        return list(names) if head in _OF_LABELS else []
    labels = [name[2:] for name in names[1::2]]
    return labels if class_names(head, labels) == list(names) else None
