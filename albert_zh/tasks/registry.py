"""The table of fine-tuning tasks.

A task is data: the columns of its files and its labels. To add one, add an entry
to `TASKS`; reading, features, training and scoring follow from the entry.
"""

import unicodedata
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from albert_zh.base import name_lists
from albert_zh.base.errors import UserError
from albert_zh.models.settings import is_label
from albert_zh.tasks import recipes

TABLE_EXTENSIONS = (".tsv", ".txt")
ALL_EXTENSIONS = (".tsv", ".txt", ".csv", ".json", ".jsonl")


# SNLI and OCNLI mark rows whose annotators disagreed with it.
NO_CONSENSUS = "-"


class Submission(NamedTuple):
    """A file that a judge reads.

    Attributes:
      file: its name.
      test_file: name of the file, in the data folder, whose predictions it holds.
    """

    file: str
    test_file: str = "test.json"


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
      file_names: dict split -> other names that its file has in published data folders.
      ignored_labels: labels whose rows are always left out of training and scoring.
      label_aliases: dict of another spelling of a label, in published files -> label.
      row_form: key of `row_forms.ROW_FORMS`, for files of JSON lines whose texts are
        made of several fields; None where each text is a field.
      file_form: key of `choices.READERS`, for files of questions with choices.
      label_range: the least and the largest label of a regression; None for any.
      fixed_columns: dict name of a column -> the only value it may have, where a file's
        header has that column.
      submissions: what judges read; the first is of the test file.
      archive: name of its data in `downloads.catalogue`, None where it is not there.
      split_files: dict split -> names of its files in a data folder, for a task whose
        files have names of their own: tuple of alternatives, of which the first one
        found counts, each a tuple of files that are read together. A flag takes
        several files separated by commas, too.
      most_choices: the most choices of a question.
      separator: what separates an id, the texts and the label in published text files
        of the task; files separated by tabs are read as those of other tasks.
    """

    name: str
    columns: Tuple[str, ...] = ()
    labels: Optional[Tuple[str, ...]] = None
    extensions: Tuple[str, ...] = ALL_EXTENSIONS
    kind: str = "classification"
    metric: str = "accuracy"
    file_names: Dict[str, Tuple[str, ...]] = {}
    ignored_labels: Tuple[str, ...] = ()
    label_aliases: Dict[str, str] = {}
    row_form: Optional[str] = None
    file_form: Optional[str] = None
    label_range: Optional[Tuple[float, float]] = None
    fixed_columns: Dict[str, str] = {}
    submissions: Tuple[Submission, ...] = ()
    archive: Optional[str] = None
    split_files: Mapping[str, Tuple[Tuple[str, ...], ...]] = {}
    most_choices: int = 0
    separator: Optional[str] = None

    @property
    def recipes(self):
        """Dict size of the model -> `recipes.Recipe`; empty without any."""
        return recipes.RECIPES.get(self.name, {})

    @property
    def published(self):
        """Dict size of the model -> `recipes.Published`; empty without any."""
        return recipes.PUBLISHED.get(self.name, {})

    def names_of(self, split):
        """Returns the list of the names that a split's file may have in a folder."""
        if self.split_files:
            return [" with ".join(names) for names in self.split_files.get(split, ())]
        names = [split + extension for extension in self.extensions]
        return names + list(self.file_names.get(split, ()))

    @property
    def text_columns(self):
        """`columns` without the label."""
        return tuple(column for column in self.columns if column != "label")

    @property
    def shape(self):
        """What two tasks have in common whose models read each other's rows."""
        return self.kind, self.text_columns

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

_PAIR = ("text_a", "text_b", "label")
_SINGLE = ("text_a", "label")
_NLI = ("contradiction", "entailment", "neutral")

# CLUE's tasks of classification, under CLUE's names, and other published ones.
_CLASSIFICATION = (
    Task(
        name="afqmc",
        columns=_PAIR,
        labels=("0", "1"),
        submissions=(Submission("afqmc_predict.json"),),
        archive="afqmc",
    ),
    Task(
        name="tnews",
        columns=_SINGLE,
        # 105 and 111 are not used.
        labels=tuple(str(n) for n in range(100, 117) if n not in (105, 111)),
        submissions=(
            Submission("tnews11_predict.json"),
            Submission("tnews10_predict.json", "test1.0.json"),
        ),
        archive="tnews",
    ),
    Task(
        name="iflytek",
        columns=_SINGLE,
        labels=tuple(map(str, range(119))),
        submissions=(Submission("iflytek_predict.json"),),
        archive="iflytek",
    ),
    Task(
        name="cmnli",
        columns=_PAIR,
        labels=_NLI,
        ignored_labels=(NO_CONSENSUS,),
        submissions=(Submission("cmnli_predict.json"),),
        archive="cmnli",
    ),
    Task(
        name="ocnli",
        columns=_PAIR,
        labels=_NLI,
        file_names={"train": ("train.50k.json",)},
        ignored_labels=(NO_CONSENSUS,),
        submissions=(Submission("ocnli_50k_predict.json"),),
        archive="ocnli",
    ),
    Task(
        name="cluewsc2020",
        columns=_SINGLE,
        labels=("false", "true"),
        row_form="marked_spans",
        submissions=(
            Submission("cluewsc11_predict.json"),
            Submission("cluewsc10_predict.json", "test1.0.json"),
        ),
        archive="wsc",
    ),
    Task(
        name="csl",
        columns=_PAIR,
        labels=("0", "1"),
        file_names={"dev": ("val.json",)},
        row_form="keywords",
        submissions=(Submission("csl_predict.json"),),
        archive="csl",
    ),
    Task(name="chnsenticorp", columns=_SINGLE, labels=("0", "1")),
    Task(
        name="xnli",
        columns=_PAIR,
        labels=_NLI,
        # MultiNLI's translation, the training data, spells it so.
        label_aliases={"contradictory": "contradiction"},
        file_names={
            "train": ("multinli.train.zh.tsv",),
            "dev": ("xnli.dev.tsv",),
            "test": ("xnli.test.tsv",),
        },
        # The dev and test files published have 15 languages.
        fixed_columns={"language": "zh"},
    ),
)

# Files of tags are often called .bmes, .bio, or .char.bmes.
_TAG_EXTENSIONS = (
    *(".json", ".jsonl", ".txt", ".tsv", ".bio", ".bioes", ".bmes"),
    *(".char.bio", ".char.bioes", ".char.bmes"),
)


def _tagging(name, *types, **settings):
    """Returns a task of entities in texts, whose types are found without any given."""
    return Task(
        name=name,
        **settings,
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
        submissions=(Submission("cluener_predict.json"),),
        archive="cluener",
    ),
    _tagging("msra_ner", "LOC", "ORG", "PER"),
    _tagging("resume_ner", "CONT", "EDU", "LOC", "NAME", "ORG", "PRO", "RACE", "TITLE"),
)


def _c3_files(split):
    """Dialogues and texts of mixed genre, as CLUE and as C3's authors name them."""
    names = "d-{}.json", "m-{}.json"
    own = tuple(name.format(split) for name in names)
    return own, tuple("c3-" + name for name in own)


_C3 = Task(
    name="c3",
    columns=(),
    kind="multiple_choice",
    file_form="c3",
    extensions=(".json",),
    split_files={
        "train": _c3_files("train"),
        "dev": _c3_files("dev"),
        "test": (("test1.1.json",), ("test1.0.json",)) + _c3_files("test"),
    },
    most_choices=4,
    submissions=(
        Submission("c311_predict.json", "test1.1.json"),
        Submission("c310_predict.json", "test1.0.json"),
    ),
    archive="c3",
)
_CHID = Task(
    name="chid",
    columns=(),
    kind="cloze",
    file_form="chid",
    extensions=(".json",),
    split_files={
        "train": (("train.json",),),
        "dev": (("dev.json",),),
        "test": (("test1.1.json",), ("test1.0.json",), ("test.json",)),
    },
    most_choices=10,
    submissions=(
        Submission("chid11_predict.json", "test1.1.json"),
        Submission("chid10_predict.json", "test1.0.json"),
    ),
    archive="chid",
)


def _question_task(name, **settings):
    """A task whose answers are cut from a text, ranked by exact match as CMRC 2018."""
    return Task(
        name,
        **settings,
        columns=(),
        extensions=(".json",),
        kind="span_extraction",
        metric="exact_match",
    )


# `lcqmc_pair` is the name the published ALBERT scripts use.
TASKS = {
    "lcqmc": _LCQMC,
    "lcqmc_pair": _LCQMC,
    "pair": Task(name="pair", columns=_PAIR),
    "single": Task(name="single", columns=_SINGLE),
    "c3": _C3,
    "chid": _CHID,
    # Most choices bounds what a TPU computes for each question.
    "multiple_choice": Task(
        name="multiple_choice",
        columns=(),
        kind="multiple_choice",
        file_form="questions",
        extensions=(".json", ".jsonl"),
        most_choices=26,
    ),
    "cmrc2018": _question_task(
        "cmrc2018",
        file_names={s: ("cmrc2018_{}.json".format(s),) for s in ("train", "dev")},
        submissions=(Submission("cmrc2018_predict.json"),),
        archive="cmrc2018",
    ),
    "drcd": _question_task(
        "drcd",
        file_names={
            "train": ("DRCD_training.json",),
            "dev": ("DRCD_dev.json",),
            "test": ("DRCD_test.json",),
        },
        archive="drcd",
    ),
    "squad": _question_task("squad"),
}
TASKS.update((task.name, task) for task in _CLASSIFICATION)

# Several classes for each text, and numbers.
_OTHER_LABELS = (
    Task(name="multi_label", columns=_SINGLE, kind="multi_label", metric="micro_f1"),
    Task(name="multi_label_pair", columns=_PAIR, kind="multi_label", metric="micro_f1"),
    Task(name="regression", columns=_PAIR, kind="regression", metric="pearson"),
    Task(
        name="regression_single", columns=_SINGLE, kind="regression", metric="pearson"
    ),
    # The names and the form of CNSD, the Chinese translation.
    Task(
        name="stsb",
        columns=_PAIR,
        kind="regression",
        metric="pearson",
        label_range=(0, 5),
        file_names={
            split: ("cnsd-sts-{}.txt".format(split),)
            for split in ("train", "dev", "test")
        },
        separator="||",
    ),
)
TASKS.update((task.name, task) for task in _OTHER_LABELS)
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
    if task.kind == "regression":
        raise UserError(
            "--labels={}: {} predicts numbers; remove it".format(
                name_lists.join(labels), name
            )
        )
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
