"""The table of fine-tuning tasks.

A task is data: the columns of its files and its labels. To add one, add an entry
to `TASKS`; reading, features, training and scoring follow from the entry.
"""

import unicodedata
from typing import Mapping, NamedTuple, Optional, Tuple

from albert_zh.base import name_lists
from albert_zh.base.errors import UserError
from albert_zh.models.settings import is_label

TABLE_EXTENSIONS = (".tsv", ".txt")
ALL_EXTENSIONS = (".tsv", ".txt", ".csv", ".json", ".jsonl")


class Task(NamedTuple):
    """One task.

    Attributes:
      name: the name a model directory remembers.
      kind: key of `kinds.KINDS`.
      columns: order of `text_a`, `text_b` and `label` in a file without a header;
        a task without `text_b` classifies single texts; () where files are no tables.
      labels: the label set in the order of the model's classes; None where it is
        found in the training data.
      extensions: of the files `train`, `dev` and `test` in a data folder.
      metric: the score that decides which epoch is the best.
      split_files: dict split -> names of its files in a data folder, for a task whose
        files have names of their own: tuple of alternatives, of which the first one
        found counts, each a tuple of files that are read together. A flag takes
        several files separated by commas, too.
    """

    name: str
    columns: Tuple[str, ...] = ()
    labels: Optional[Tuple[str, ...]] = None
    extensions: Tuple[str, ...] = ALL_EXTENSIONS
    kind: str = "classification"
    metric: str = "accuracy"
    split_files: Mapping[str, Tuple[Tuple[str, ...], ...]] = {}

    @property
    def text_columns(self):
        """`columns` without the label."""
        return tuple(column for column in self.columns if column != "label")

    @property
    def is_pair(self):
        """Whether it classifies pairs of texts."""
        return "text_b" in self.columns


_LCQMC = Task(
    name="lcqmc",
    columns=("text_a", "text_b", "label"),
    labels=("0", "1"),
    extensions=TABLE_EXTENSIONS,
)

# Files of tags are often called .bmes, .bio, or .char.bmes.
_TAG_EXTENSIONS = (
    *(".json", ".jsonl", ".txt", ".tsv", ".bio", ".bioes", ".bmes"),
    *(".char.bio", ".char.bioes", ".char.bmes"),
)


def _tagging(name, *types):
    """Returns a task of entities in texts, whose types are found without any given."""
    return Task(
        name=name,
        kind="tagging",
        labels=types or None,
        extensions=_TAG_EXTENSIONS,
        metric="f1",
    )


_TAGGING = (
    _tagging("ner"),
    _tagging(
        "cluener",
        *("address", "book", "company", "game", "government", "movie", "name"),
        *("organization", "position", "scene"),
    ),
    _tagging("msra_ner", "LOC", "ORG", "PER"),
    _tagging("resume_ner", "CONT", "EDU", "LOC", "NAME", "ORG", "PRO", "RACE", "TITLE"),
)

# `lcqmc_pair` is the name the published ALBERT scripts use.
TASKS = {
    "lcqmc": _LCQMC,
    "lcqmc_pair": _LCQMC,
    "pair": Task(name="pair", columns=("text_a", "text_b", "label")),
    "single": Task(name="single", columns=("text_a", "label")),
}
TASKS.update((task.name, task) for task in _TAGGING)


class _VisibleCharacters(dict):
    """A table of `str.translate` that removes format characters; fills itself."""

    def __missing__(self, code):
        is_invisible = unicodedata.category(chr(code)) == "Cf"
        self[code] = None if is_invisible else code
        return self[code]


_VISIBLE = _VisibleCharacters()


def clean_label(text):
    """A label as it is compared: without invisible characters and outer white space.

    As in texts, whose tokens have none of them. A zero-width space or a byte order mark
    would else make another class of a name that looks the same.
    """
    return text.translate(_VISIBLE).strip()


def get_task(name, labels=None):
    """Looks a task up.

    Args:
      name: a key of `TASKS`, in any case.
      labels: the label set the user gives, for a task that has none of its own.

    Returns:
      The `Task`, with these labels if given.

    Raises:
      UserError: no such task, or labels it cannot have.
    """
    task = TASKS.get(name.lower())
    if task is None:
        raise UserError(
            "--task_name={}: unknown task; expected one of {}".format(
                name, ", ".join(sorted(TASKS))
            )
        )
    if labels is None:
        return task
    if task.labels:
        raise UserError(
            "--labels={}: the labels of {} are {}; for others: --task_name={}".format(
                name_lists.join(labels),
                name,
                name_lists.join(task.labels),
                " or ".join(_open_tasks(task.kind)),
            )
        )
    labels = tuple(map(clean_label, labels))
    are_names = all(is_label(label) for label in labels)
    fewest, number = (1, "one") if task.kind == "tagging" else (2, "two")
    if len(labels) < fewest or len(set(labels)) < len(labels) or not are_names:
        raise UserError(
            "--labels={}: expected {} or more different names, separated by "
            "commas, a name with a comma in quotation marks".format(
                name_lists.join(labels), number
            )
        )
    return task._replace(labels=labels)


def _open_tasks(kind):
    """Returns the names of the tasks of a kind that have no labels of their own."""
    return sorted(
        name for name, task in TASKS.items() if task.kind == kind and not task.labels
    )
