"""Examples out of TSV, CSV and JSON-lines files, strictly.

Every row becomes an example or stops the run with `file:line`; only rows with labels
that the task or the user ignores are left out, and they are counted.
"""

import collections
import functools
import logging
import os
import re
import shlex
from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Tuple

from albert_zh.base import name_lists
from albert_zh.base.errors import UserError
from albert_zh.tasks import rows, text_lines
from albert_zh.tasks.columns import FOUND_COLUMNS, Columns
from albert_zh.tasks.features import chunked
from albert_zh.tasks.label_forms import FORMS
from albert_zh.tasks.registry import NO_CONSENSUS, Task, clean_label

_LOGGER = logging.getLogger(__name__)

_WITHOUT_LABELS = " (a file without labels can be given as --predict_file)"

# Above it, a label set as large as half the rows is taken for a column of texts.
_MANY_LABELS = 20


class Example(NamedTuple):
    """One text or text pair; `text_b` and `label` are None where there is none.

    `label` is what `label_forms.FORMS` makes of it: a str, a tuple of str, a float.
    """

    text_a: str
    text_b: Optional[str]
    label: Any


class ExampleFile(NamedTuple):
    """What one file, or the command line, holds.

    Attributes:
      path: where it was read.
      examples: in the order of the file; `label` of each is None where it has none.
      has_header: whether its first row names the columns.
      num_ignored: rows left out because the task or the user ignores their label.
    """

    path: str
    examples: List[Any]
    has_header: bool = False
    num_ignored: int = 0

    @property
    def num_examples(self):
        """The number of examples."""
        return len(self.examples)

    @property
    def has_labels(self):
        """Whether the examples carry labels (all or none do)."""
        return self.examples[0].label is not None

    def chunks(self, size):
        """Yields the examples in lists of `size`; the last may be shorter."""
        return chunked(self.examples, size)


class TextFile(NamedTuple):
    """A file of texts to predict, checked but not held in memory.

    Attributes:
      path: the file.
      num_examples: its number of examples.
      read: function that reads it again: iterable of examples without labels.
      has_header: whether its first row names the columns.
    """

    path: str
    num_examples: int
    read: Callable[[], Iterable[Any]]
    has_header: bool = False

    def chunks(self, size):
        """Reads the file again; yields the examples in lists of `size`.

        Raises:
          UserError: the file has changed.
        """
        num_read = 0
        for chunk in chunked(self.read(), size):
            num_read += len(chunk)
            yield chunk
        if num_read != self.num_examples:
            raise UserError(
                "{}: {} rows, {} when it was checked; leave the file as it is while "
                "it is read".format(self.path, num_read, self.num_examples)
            )


def _read_again(path, task, columns):
    """Yields the `Example`s of a file, without labels."""
    found, _ = rows.open_rows(path, task, columns, is_test=True)
    for _, row in found:
        yield _example(row)


def _example(row, label=None):
    return Example(row["text_a"], row.get("text_b"), label)


def from_command_line(task, texts, text_pairs):
    """Makes examples of texts that the command line gives.

    Args:
      task: a `registry.Task`.
      texts: list of lists of a single text, of --text.
      text_pairs: list of lists of two texts, of --text_pair.

    Returns:
      `ExampleFile`, None without any text.

    Raises:
      UserError: the task takes the other kind, or a text is empty.
    """
    if texts if task.is_pair else text_pairs:
        right = "--text_pair A B" if task.is_pair else "--text A"
        raise UserError("--task_name={} takes {}".format(task.name, right))
    flag = "--text_pair" if task.is_pair else "--text"
    given = [
        [command_line_text(flag, text) for text in row]
        for row in (text_pairs if task.is_pair else texts)
    ]
    examples = [Example(*(row + [None] * (3 - len(row)))) for row in given]
    return ExampleFile("the command line", examples) if given else None


def command_line_text(flag, text):
    """The text of an argument, which Python may have taken for another encoding.

    Args:
      flag: the flag that gives it, for messages.
      text: str, as the command line was parsed.

    Raises:
      UserError: it is empty, or not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # bytes that the locale's encoding does not have
        try:
            text = os.fsencode(text).decode("utf-8")
        except UnicodeError as error:
            raise UserError("{}: {!r} is not UTF-8".format(flag, text)) from error
    if text_lines.is_blank(text):
        raise UserError("{}: a text is empty; give one to judge".format(flag))
    return text


def read_examples(
    path,
    task,
    labels=None,
    ignored_labels=(),
    columns=FOUND_COLUMNS,
    placeholders_allowed=False,
):
    """Reads a file by its extension: .tsv and .txt, .csv, .json and .jsonl.

    TSV is split at tabs only, quotes are ordinary characters. Columns are named
    by a header row (or JSON keys, see `columns.HEADER_NAMES`), or else stand in the
    order of `task.columns`, of which a file without labels lacks the label.

    Args:
      path: local or remote file, UTF-8, with or without a byte order mark.
      task: a `registry.Task`.
      labels: sequence of the labels allowed, None for any.
      ignored_labels: labels whose rows are left out and counted.
      columns: `columns.Columns`.
      placeholders_allowed: whether a file with one and the same text in place of all
        labels is read as one without labels, where that text is not in `labels`; or
        with one and the same number, or nothing, in their place; or with ignored
        labels alone; or without the column that `columns.label` gives.

    Returns:
      An `ExampleFile`.

    Raises:
      UserError: names `path:line` of the first row that cannot be used.
    """
    found, has_header = rows.open_rows(path, task, columns, placeholders_allowed)
    form = FORMS[task.kind]
    examples, unknown, absent = [], None, None
    num_ignored = dict.fromkeys(_ignored(task, ignored_labels), 0)
    is_labelled = None
    for line, row in found:
        if is_labelled is None:
            is_labelled = "label" in row
        if is_labelled != ("label" in row):
            problem = "a row {} a label among rows {} one".format(
                *("without", "with") if is_labelled else ("with", "without")
            )
            raise text_lines.row_error(path, line, problem)
        label = None
        if is_labelled:
            try:
                label = form.parse(row["label"], labels)
            except ValueError as error:
                advice = _WITHOUT_LABELS if task.kind == "regression" else ""
                problem = text_lines.row_error(path, line, str(error), advice)
                if not (placeholders_allowed and form.is_placeholder(row["label"])):
                    raise problem from error
                absent = absent or problem
                examples.append(_example(row))
                continue
            label = task.label_aliases.get(label, label)
            if label in num_ignored:
                num_ignored[label] += 1
                continue
            name = _not_allowed(form, label, labels, task)
            if name is not None and unknown is None:
                unknown = line, name
        examples.append(_example(row, label))
    if is_labelled:
        _report_unused(path, ignored_labels, num_ignored)
    num_ignored = sum(num_ignored.values())
    if num_ignored and not examples and placeholders_allowed:
        # Such as CLUE's "-", which stands for no label in a whole test file, too.
        return ExampleFile(path, list(_read_again(path, task, columns)), has_header)
    if not examples:
        raise rows.no_examples(path, num_ignored)
    if absent and any(example.label is not None for example in examples):
        raise absent
    examples = _checked(path, task, labels, examples, unknown, placeholders_allowed)
    return ExampleFile(path, examples, has_header, num_ignored)


def _not_allowed(form, label, labels, task):
    """What of a parsed label is outside the model's labels or the task's range."""
    if task.label_range:
        least, most = task.label_range
        return None if least <= label <= most else label
    return None if labels is None else form.unknown(label, labels)


def _report_unused(path, ignored_labels, num_ignored):
    """Names labels to ignore that no row has: they may be misspelt."""
    for label in ignored_labels:
        if not num_ignored[clean_label(label)]:
            _LOGGER.warning("--ignore_labels=%s: no row of %s has it", label, path)


def _checked(path, task, labels, examples, unknown, placeholders_allowed):
    """Returns the examples of a file, without labels if those are placeholders.

    Args:
      path, task, labels, placeholders_allowed: as `read_examples` takes them.
      examples: list of `Example`, at least one.
      unknown: (line, name) of the first label that is not allowed, or None.

    Raises:
      UserError: a label is not allowed, or the labels are all one number.
    """
    first = examples[0].label
    is_constant = all(example.label == first for example in examples)
    # With one and the same number nothing correlates. One row alone may be a trial.
    is_number = task.kind == "regression" and first is not None and len(examples) > 1
    # Several classes may be none, but not in a whole file that is to be scored.
    is_placeholder = is_constant and (unknown or is_number or first == ())
    if is_placeholder and placeholders_allowed:
        return [example._replace(label=None) for example in examples]
    if unknown:
        raise _unknown_label(path, *unknown, labels, is_constant, task)
    if is_constant and is_number:
        problem = "{}: the only label is {}; expected at least two different numbers"
        raise UserError(problem.format(path, first), _WITHOUT_LABELS)
    if is_constant and first is not None and len(examples) > 1:
        effect = "if it stands for none, their score tells nothing"
        if not placeholders_allowed:
            effect = "nothing else can be learned from them"
        message = "%s: all %d rows have the label %s; %s"
        _LOGGER.warning(message, path, len(examples), first, effect)
    return examples


def _is_nothing(value):
    """Whether a label column has no label at all."""
    return value is None or (isinstance(value, str) and text_lines.is_blank(value))


class TableReader(NamedTuple):
    """Reads the files of a classification task, for `splits.TaskData`.

    Attributes:
      task: a `registry.Task`.
      ignored_labels: labels whose rows are left out of training and scoring, beside
        the task's own.
      columns: `columns.Columns` of all the files.
    """

    task: Task
    ignored_labels: Tuple[str, ...] = ()
    columns: Columns = FOUND_COLUMNS

    def read_examples(
        self, path, labels, placeholders_allowed=False, is_training=False
    ):
        """Reads a file to train on, or to score; see the function of this name."""
        del is_training  # such a file is read as one to score
        return read_examples(
            path,
            self.task,
            labels,
            self.ignored_labels,
            self.columns,
            placeholders_allowed,
        )

    def read_texts(self, path, labels):
        """Checks a file to predict; see the function of this name."""
        return read_texts(path, self.task, labels, self.columns, self.ignored_labels)

    def no_labels(self, path):
        """Returns the `UserError` of a file that should have labels, and has none."""
        columns = ", ".join(self.task.columns)
        expected = "the columns {}, or a header row that names them".format(columns)
        if rows.is_json(path):
            expected = "a field label in each line, or --label_column to name it"
        return UserError("{}:1: no label; expected {}".format(path, expected))


def _unknown_label(path, line, label, labels, is_everywhere, task):
    """The `UserError` of a label that is not allowed; says what can be done."""
    if task.label_range:
        problem = "label is {:g}; expected a number from {:g} to {:g}"
        advice = _WITHOUT_LABELS if is_everywhere else ""
        problem = problem.format(label, *task.label_range)
        return text_lines.row_error(path, line, problem, advice)
    name = shlex.quote(name_lists.join([label]))
    advice = " (--ignore_labels={} leaves such rows out)".format(name)
    if task.kind == "multi_label":
        advice = " (a training takes others with --labels, which names all)"
    if is_everywhere:
        advice = _WITHOUT_LABELS
    problem = "unknown label {:.100}; expected one of {}"
    problem = problem.format(repr(label), ", ".join(labels))
    return text_lines.row_error(path, line, problem, advice)


def read_texts(path, task, labels=None, columns=FOUND_COLUMNS, ignored_labels=()):
    """Checks a file to predict, row by row, without keeping it in memory.

    Args:
      path, task, ignored_labels, columns: as `read_examples` takes them.
      labels: the model's labels, see `text_rows`.

    Returns:
      A `TextFile`.

    Raises:
      UserError: a row cannot be used, or the column for the label holds something else.
    """
    found, has_header = text_rows(
        path, task, labels, columns, ignored_labels, needs_ids=True
    )
    num_examples = sum(1 for _ in found)
    if not num_examples:
        raise rows.no_examples(path)
    read = functools.partial(_read_again, path, task, columns)
    return TextFile(path, num_examples, read, has_header)


def text_rows(
    path, task, labels, columns=FOUND_COLUMNS, ignored_labels=(), needs_ids=False
):
    """Opens a file to predict, as `rows.open_rows` does.

    Args:
      path, task, ignored_labels, columns: as `read_examples` takes them.
      labels: the model's labels; None where they are not known. What a file has in a
        column for the label is not used, but something else in the place where labels
        stand by default shows that the columns are others.
      needs_ids: whether predictions are written with the rows' ids, as `rows.open_rows`
        takes it.

    Returns:
      As `rows.open_rows`; the iterator raises after its last row.
    """
    found, has_header = rows.open_rows(path, task, columns, True, needs_ids)
    is_named = has_header or rows.is_json(path) or columns.label is not None
    if labels is None or is_named:
        return found, has_header
    return _judged(path, found, task, labels, ignored_labels), has_header


def _judged(path, found, task, labels, ignored_labels):
    """Passes rows on; raises after them where the label column holds other things."""
    form, values, other, num_others = FORMS[task.kind], set(), None, 0
    known = (*labels, *_ignored(task, ignored_labels), *task.label_aliases)
    for line, row in found:
        yield line, row
        value = row.get("label")
        if _is_nothing(value):
            continue
        if not _fits(form, value, known):
            if form.is_placeholder(value):
                continue
            other = other or (line, value)
            num_others += 1
        if len(values) < 2:
            values.add(value)
    # One and the same text in all rows is a placeholder.
    if num_others == 1 or (other and len(values) > 1):
        raise _no_label_column(path, task, labels, *other)


def _ignored(task, ignored_labels):
    return task.ignored_labels + tuple(map(clean_label, ignored_labels))


def _fits(form, value, labels):
    """Whether a cell can be a label of a model with these labels."""
    try:
        return form.unknown(form.parse(value, labels), labels) is None
    except ValueError:
        return False


def _no_label_column(path, task, labels, line, value):
    flags = " and ".join("--{}_column".format(name) for name in task.text_columns)
    problem = (
        "column {} should be the label, but {!r} is no {}; begin the file with a row "
        "that names the columns"
    )
    advice = ", or give the number of each column of texts with " + flags
    number = task.columns.index("label") + 1
    expected = "label ({})".format(", ".join(labels)) if labels else "number"
    return text_lines.row_error(
        path, line, problem.format(number, value, expected), advice
    )


def find_labels(data):
    """The label set of a training file: sorted, by value where all are integers.

    Args:
      data: a labelled `ExampleFile`.

    Returns:
      Tuple of at least two labels.

    Raises:
      UserError: fewer than two labels, rows marked "-" (no consensus), a label
        column that seems to hold texts, or a first row that seems to name columns.
    """
    counts = collections.Counter(example.label for example in data.examples)
    _check_first_label(data, counts, data.examples[0].label)
    if NO_CONSENSUS in counts:
        raise UserError(
            "{}: label {!r} marks rows whose annotators disagreed; leave them out "
            "with --ignore_labels={} or keep it as a class through --labels".format(
                data.path, NO_CONSENSUS, NO_CONSENSUS
            )
        )
    if len(counts) < 2:
        raise UserError(
            "{}: the only label is {!r}; expected at least two".format(
                data.path, min(counts)
            )
        )
    _check_number_of_labels(data, counts)
    return _sorted_labels(counts)


def find_all_labels(data):
    """The label set of a training file whose examples have several labels, or none.

    Args, Returns: as `find_labels`.

    Raises:
      UserError: fewer than two labels, a label column that seems to hold texts, a first
        row that seems to name columns, or labels that seem to be made of others.
    """
    counts = collections.Counter(name for row in data.examples for name in row.label)
    first = data.examples[0].label
    _check_first_label(data, counts, first[0] if len(first) == 1 else None)
    if len(counts) < 2:
        raise UserError(
            "{}: {} in its rows; expected two or more different labels".format(
                data.path,
                "the only label is {!r}".format(min(counts)) if counts else "no label",
            )
        )
    _check_number_of_labels(data, counts)
    for name in sorted(counts):
        parts = re.split(r"[\s、/]+", name)
        if len(parts) > 1 and counts.keys() >= set(parts):
            problem = (
                "{}: label {!r} seems to be several; put ',' between names, or give "
                "all classes with --labels"
            )
            raise UserError(problem.format(data.path, name))
    return _sorted_labels(counts)


def _check_number_of_labels(data, labels):
    """Raises `UserError` where the label column seems to hold texts."""
    num_rows = len(data.examples)
    if len(labels) > max(_MANY_LABELS, num_rows // 2):
        raise UserError(
            "{}: {} labels in {} rows, for instance {!r}; name the label's column with "
            "--label_column, or give all classes with --labels".format(
                data.path, len(labels), num_rows, min(labels)
            )
        )


def _sorted_labels(found):
    if all(_is_integer(label) for label in found):
        # "1" and "01" are two labels of one value: the text decides between them.
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def _check_first_label(data, counts, first):
    """Raises `UserError` where the first row seems to name columns.

    Args:
      data: labelled `ExampleFile`.
      counts: `collections.Counter` of its labels.
      first: the label of its first row; None where it is not one label.
    """
    if data.has_header or rows.is_json(data.path):
        return
    # Where no label at all occurs twice, the first is no exception.
    if counts[first] == 1 and sum(counts.values()) > len(counts):
        raise UserError(
            "{}: label {!r} occurs in the first row only; if that row names columns, "
            "call the last one label; if it is an example, give all classes with "
            "--labels".format(data.path, first)
        )


def _is_integer(text):
    # No longer than `int` reads.
    return re.fullmatch(r"[+-]?\d{1,1000}", text) is not None
