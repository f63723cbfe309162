"""Which class of `kind.Kind` a task is of."""

from albert_zh.tasks.classification import Classification
from albert_zh.tasks.multi_label import MultiLabel
from albert_zh.tasks.regression import Regression

KINDS = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "regression": Regression,
}


def kind_of(task):
    """Returns the class of a `registry.Task`, a subclass of `kind.Kind`."""
    return KINDS[task.kind]
