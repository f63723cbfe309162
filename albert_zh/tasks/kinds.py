"""Which class of `kind.Kind` a task is of."""

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


def kind_of(task):
    """Returns the class of a `registry.Task`, a subclass of `kind.Kind`."""
    return KINDS[task.kind]
