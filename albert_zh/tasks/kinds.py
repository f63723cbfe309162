"""Which class of `kind.Kind` a task is of."""

from albert_zh.tasks.classification import Classification
from albert_zh.tasks.span_extraction import SpanExtraction

KINDS = {
    "classification": Classification,
    "span_extraction": SpanExtraction,
}


def kind_of(task):
    """Returns the class of a `registry.Task`, a subclass of `kind.Kind`."""
    return KINDS[task.kind]
