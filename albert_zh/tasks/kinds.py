"""Which class of `kind.Kind` a task is of."""

from albert_zh.tasks.classification import Classification
from albert_zh.tasks.multiple_choice import Cloze, MultipleChoice

KINDS = {
    "classification": Classification,
    "multiple_choice": MultipleChoice,
    "cloze": Cloze,
}


def kind_of(task):
    """Returns the class of a `registry.Task`, a subclass of `kind.Kind`."""
    return KINDS[task.kind]
