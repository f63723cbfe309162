"""What reads the data files of each kind of task."""

from albert_zh.tasks.choices import ChoiceReader
from albert_zh.tasks.reading import TableReader
from albert_zh.tasks.squad_files import SquadReader
from albert_zh.tasks.tagged_texts import TagReader

_READERS = {
    "classification": TableReader,
    "cloze": ChoiceReader,
    "multi_label": TableReader,
    "multiple_choice": ChoiceReader,
    "regression": TableReader,
    "span_extraction": lambda task: SquadReader(),
    "tagging": TagReader,
}


def reader_of(task):
    """Returns the reader of a `registry.Task`, as `splits.TaskData` takes it."""
    return _READERS[task.kind](task)
