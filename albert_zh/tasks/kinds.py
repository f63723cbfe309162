"""Which class of `kind.Kind` a task is of."""

from albert_zh.tasks.classification import Classification

KINDS = {
    "classification": Classification,
}


def kind_of(task):
    """Returns the class of a `registry.Task`, a subclass of `kind.Kind`."""
    return KINDS[task.kind]
