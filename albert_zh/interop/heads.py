"""The heads of fine-tuned models: their variables, and transformers' classes for them.

A model has at most one of them.
"""

from typing import NamedTuple

from albert_zh.base.errors import UserError


class Head(NamedTuple):
    """One head.

    Attributes:
      scope: its variables are this and `weights` [rows, H], `bias` [rows].
      class_suffix: of transformers' class, after "Albert" or "Bert".
      kinds: kinds of task that it is for.
      reads_pooler: whether it reads the pooler; else it reads all tokens.
      example: how --task_name makes a model of it that predicts.
    """

    scope: str
    class_suffix: str
    kinds: tuple
    reads_pooler: bool
    example: str

    @property
    def variables(self):
        """(name of the weights, name of the bias)."""
        return self.scope + "weights", self.scope + "bias"


# The first ones have the same names: a single row scores a choice.
HEADS = {
    "classifier": Head(
        "output_",
        "ForSequenceClassification",
        ("classification",),
        True,
        "--task_name=pair (two texts) or --task_name=single",
    ),
    "multiple_choice": Head(
        "output_",
        "ForMultipleChoice",
        ("multiple_choice", "cloze"),
        True,
        "--task_name=multiple_choice",
    ),
    "tagger": Head(
        "cls/ner/output_",
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
# Other decoders of taggers have more variables, and no counterpart elsewhere.
TAGGER_SCOPE = "cls/ner/"


def find(tensors, source):
    """Returns the name of the head of a fine-tuned model, None where it has none.

    Args:
      tensors: dict variable name -> ndarray.
      source: where they are from, for the message.

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
    if found == ["classifier"] and tensors["output_weights"].shape[:1] == (1,):
        return "multiple_choice"
    return found[0] if found else None


def num_rows(head, labels):
    """Rows of a head's weights for the labels of its task."""
    if head == "tagger":
        return 2 * len(labels) + 1
    return {"multiple_choice": 1, "span": 2}.get(head, len(labels))


def default_labels(head, rows):
    """Returns the labels of a head whose task has none of its own: numbers."""
    number = {"classifier": rows, "tagger": (rows - 1) // 2}.get(head, 0)
    return [str(index) for index in range(number)]


def class_names(head, labels):
    """What transformers calls the rows, None where they have no names.

    A tagger's are tags in BIO: O, then B and I of each type.
    """
    if head == "tagger":
        return ["O"] + [tag + label for label in labels for tag in ("B-", "I-")]
    return list(labels) if head == "classifier" else None


def labels_of(head, names):
    """Returns the labels whose `class_names` these are.

    Returns:
      List; None for a tagger whose tags are others, or in another order.
    """
    if head != "tagger":
        return list(names) if head == "classifier" else []
    labels = [name[2:] for name in names[1::2]]
    return labels if class_names(head, labels) == list(names) else None
