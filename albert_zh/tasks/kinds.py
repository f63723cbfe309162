"""Which class of `kind.Kind` a task is of."""

from albert_zh.tasks.classification import Classification
from albert_zh.tasks.tagging import Tagging

KINDS = {
    "classification": Classification,
    "tagging": Tagging,
}


def kind_of(task):
    """Returns the class of a `registry.Task`, a subclass of `kind.Kind`."""
    return KINDS[task.kind]
