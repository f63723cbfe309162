"""Which class of `kind.Kind` a task is of, and which command takes it."""

from albert_zh.tasks.classification import Classification
from albert_zh.tasks.multi_label import MultiLabel
from albert_zh.tasks.multiple_choice import Cloze, MultipleChoice
from albert_zh.tasks.regression import Regression
from albert_zh.tasks.span_extraction import SpanExtraction
from albert_zh.tasks.tagging import Tagging

KINDS = {
    "classification": Classification,
    "cloze": Cloze,
    "multi_label": MultiLabel,
    "multiple_choice": MultipleChoice,
    "regression": Regression,
    "span_extraction": SpanExtraction,
    "tagging": Tagging,
}
# The command that fine-tunes each kind of task.
COMMANDS = {
    "classification": "run_classifier.py",
    "cloze": "run_multiple_choice.py",
    "multi_label": "run_classifier.py",
    "multiple_choice": "run_multiple_choice.py",
    "regression": "run_classifier.py",
    "span_extraction": "run_squad.py",
    "tagging": "run_ner.py",
}


def kind_of(task):
    """Returns the class of a `registry.Task`, a subclass of `kind.Kind`."""
    return KINDS[task.kind]
