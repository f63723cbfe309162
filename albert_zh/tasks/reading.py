"""Examples out of TSV, CSV and JSON-lines files, strictly.

Every row becomes an example or stops the run with `file:line`; only labels the
user asks to ignore are left out, and they are counted.
"""

import csv
import json
import os
from typing import List, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.models.settings import is_label
from albert_zh.tasks.registry import ALL_EXTENSIONS

# Names public Chinese data sets (LCQMC, BQ, ChnSentiCorp, CLUE) give their columns.
HEADER_NAMES = {
    "text_a": (
        "text_a text text1 sentence sentence1 sentence_a q1 question1 query query1 "
        "premise content review 文本 文本1 句子1 问题1 内容"
    ).split(),
    "text_b": (
        "text_b text2 sentence2 sentence_b q2 question2 query2 hypothesis "
        "文本2 句子2 问题2"
    ).split(),
    "label": "label labels gold_label 标签 类别".split(),
}

# SNLI and OCNLI mark rows whose annotators disagreed with it.
NO_CONSENSUS = "-"

# Above it, a label set as large as half the rows is taken for a column of texts.
_MANY_LABELS = 20

# They have no header row: keys name their columns.
_JSON_EXTENSIONS = (".json", ".jsonl")


class Example(NamedTuple):
    """One text or text pair; `text_b` and `label` are None where there is none."""

    text_a: str
    text_b: Optional[str]
    label: Optional[str]


class ExampleFile(NamedTuple):
    """What one file, or the command line, holds.

    Attributes:
      path: where it was read.
      examples: in the order of the file.
      has_header: whether its first row names the columns.
      num_ignored: rows left out because the user ignores their label.
    """

    path: str
    examples: List[Example]
    has_header: bool
    num_ignored: int

    @property
    def has_labels(self):
        """Whether the rows carry labels (all or none do)."""
        return self.examples[0].label is not None


def from_command_line(task, texts, text_pairs):
    """Makes examples of texts that the command line gives.

    Args:
      task: a `registry.Task`.
      texts: list of single texts, of --text.
      text_pairs: list of pairs of texts, of --text_pair.

    Returns:
      `ExampleFile`, None without any text.

    Raises:
      UserError: the task takes the other kind, or a text is empty.
    """
    if texts if task.is_pair else text_pairs:
        right = "--text_pair A B" if task.is_pair else "--text A"
        raise UserError("--task_name={} takes {}".format(task.name, right))
    rows = text_pairs if task.is_pair else [(text, None) for text in texts]
    given = [text for row in rows for text in row if text is not None]
    if not all(text.strip() for text in given):
        flag = "--text_pair" if task.is_pair else "--text"
        raise UserError("{}: a text is empty; give one to judge".format(flag))
    examples = [Example(text_a, text_b, None) for text_a, text_b in rows]
    return ExampleFile("the command line", examples, False, 0) if rows else None


def read_examples(path, task, labels=None, ignored_labels=()):
    """Reads a file by its extension: .tsv and .txt, .csv, .json and .jsonl.

    TSV is split at tabs only, quotes are ordinary characters. Columns are named
    by a header row (or JSON keys, see `HEADER_NAMES`), or else stand in the order
    of `task.columns`, of which a file without labels lacks the label.

    Args:
      path: local or remote file, UTF-8, with or without a byte order mark.
      task: a `registry.Task`.
      labels: sequence of the labels allowed, None for any.
      ignored_labels: labels whose rows are left out and counted.

    Returns:
      An `ExampleFile`.

    Raises:
      UserError: names `path:line` of the first row that cannot be used.
    """
    rows, has_header = _read_rows(path, task)
    examples, num_ignored, labelled = [], 0, None
    for line, row in rows:
        if labelled is None:
            labelled = "label" in row
        if labelled != ("label" in row):
            problem = "a row {} a label among rows {} one".format(
                *("without", "with") if labelled else ("with", "without")
            )
            raise _row_error(path, line, problem)
        label = _checked_label(path, line, row["label"]) if labelled else None
        if labelled and label in ignored_labels:
            num_ignored += 1
            continue
        if labelled and labels is not None and label not in labels:
            problem = (
                "unknown label {!r}; expected one of {} "
                "(--ignore_labels={} leaves such rows out)"
            ).format(label, ", ".join(labels), label)
            raise _row_error(path, line, problem)
        examples.append(Example(row["text_a"], row.get("text_b"), label))
    if not examples:
        raise UserError("{}: no examples; expected at least one row".format(path))
    return ExampleFile(path, examples, has_header, num_ignored)


def read_texts(path, task):
    """Reads a file as `read_examples` does, without looking at its labels."""
    rows, has_header = _read_rows(path, task)
    examples = [Example(row["text_a"], row.get("text_b"), None) for _, row in rows]
    if not examples:
        raise UserError("{}: no examples; expected at least one row".format(path))
    return ExampleFile(path, examples, has_header, 0)


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
    found = {example.label for example in data.examples}
    _check_first_label(data, len(found))
    if NO_CONSENSUS in found:
        raise UserError(
            "{}: label {!r} marks rows whose annotators disagreed; leave them out "
            "with --ignore_labels={} or keep it as a class through --labels".format(
                data.path, NO_CONSENSUS, NO_CONSENSUS
            )
        )
    if len(found) < 2:
        raise UserError(
            "{}: the only label is {!r}; expected at least two".format(
                data.path, found.pop()
            )
        )
    num_rows = len(data.examples)
    if len(found) > max(_MANY_LABELS, num_rows // 2):
        raise UserError(
            "{}: {} labels in {} rows, for instance {!r}; where the label is not the "
            "last column, name the columns in a header row".format(
                data.path, len(found), num_rows, min(found)
            )
        )
    if all(_is_integer(label) for label in found):
        # "1" and "01" are two labels of one value: the text decides between them.
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def _check_first_label(data, num_labels):
    """Raises `UserError` where the first label looks like the name of a column."""
    if data.has_header or data.path.lower().endswith(_JSON_EXTENSIONS):
        return
    first = data.examples[0].label
    num_found = sum(example.label == first for example in data.examples)
    # Where no label at all occurs twice, the first is no exception.
    if num_found == 1 and len(data.examples) > num_labels:
        raise UserError(
            "{}: label {!r} occurs in the first row only; if that row names columns, "
            "call the last one label; if it is an example, give all classes with "
            "--labels".format(data.path, first)
        )


def _is_integer(text):
    return text.lstrip("+-").isdecimal()


def _read_lines(path):
    """List of (line number, text without its line end) of a UTF-8 file."""
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise UserError("{}: no such file".format(path))
    with tf.io.gfile.GFile(path, "rb") as source:
        content = source.read()
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    pieces = content.split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    if not pieces:
        raise UserError("{}: the file is empty".format(path))
    lines = []
    for number, piece in enumerate(pieces, start=1):
        try:
            text = piece.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _row_error(path, number, "not UTF-8 ({})".format(error)) from error
        lines.append((number, text[:-1] if text.endswith("\r") else text))
    return lines


def _row_error(path, line, problem):
    return UserError("{}:{}: {}".format(path, line, problem))


def _split_tsv(lines):
    for number, text in lines:
        yield number, text.split("\t")


def _split_csv(path, lines):
    """Yields (first line, cells); a quoted cell may span lines."""
    reader = csv.reader((text + "\n" for _, text in lines), strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _row_error(path, first_line, "not CSV ({})".format(error)) from error
        yield first_line, cells


def _name_columns(names):
    """Dict column -> position of the names known in `HEADER_NAMES`."""
    names = [name.strip().lower() for name in names]
    return {
        column: names.index(name)
        for column, aliases in HEADER_NAMES.items()
        for name in reversed(aliases)
        if name in names
    }


def _is_header(cells, task):
    """Whether a first row names columns: its label column or all its texts'."""
    named = _name_columns(cells)
    return "label" in named or all(column in named for column in task.text_columns)


def _read_rows(path, task):
    """Returns an iterator of (line, dict column -> text), and whether a header led."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in ALL_EXTENSIONS:
        raise UserError(
            "{}: unknown extension {!r}; expected one of {}".format(
                path, extension, " ".join(ALL_EXTENSIONS)
            )
        )
    lines = _read_lines(path)
    if extension in _JSON_EXTENSIONS:
        return _json_rows(path, lines, task), False
    table = list(_split_csv(path, lines) if extension == ".csv" else _split_tsv(lines))
    has_header = _is_header(table[0][1], task)
    return _table_rows(path, table, has_header, task), has_header


def _table_rows(path, table, has_header, task):
    """Yields (line, dict column -> cell) of a table."""
    first_line, first_cells = table[0]
    width = len(first_cells)
    positions = {column: i for i, column in enumerate(task.columns)}
    named = _name_columns(first_cells)
    # A header that names only the label, where it stands by default, is enough.
    if has_header and (
        named.get("label") != positions["label"] or width != len(task.columns)
    ):
        positions = named
        _check_text_columns(path, first_line, named, first_cells, task)
    elif width == len(task.text_columns):
        positions = {column: i for i, column in enumerate(task.text_columns)}
    elif width != len(task.columns):
        problem = "{} columns, expected {} ({})".format(
            width, len(task.columns), ", ".join(task.columns)
        )
        raise _row_error(path, first_line, problem)
    for line, cells in table[1:] if has_header else table:
        if len(cells) != width:
            problem = "{} columns, expected {} as in line {}".format(
                len(cells), width, first_line
            )
            raise _row_error(path, line, problem)
        row = {column: cells[i] for column, i in positions.items()}
        _check_texts(path, line, row, task)
        yield line, row


def _check_text_columns(path, line, named, names, task):
    for column in task.text_columns:
        if column not in named:
            problem = "no {} among the columns {}; expected one called {}".format(
                column, ", ".join(names), ", ".join(HEADER_NAMES[column])
            )
            raise _row_error(path, line, problem)


def _json_rows(path, lines, task):
    """Yields (line, dict column -> value) of a file of one JSON object a line."""
    for line, text in lines:
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise _row_error(path, line, "not JSON ({})".format(error)) from error
        except RecursionError as error:
            raise _row_error(path, line, "not JSON (nested too deeply)") from error
        if not isinstance(record, dict):
            raise _row_error(path, line, "expected one JSON object a line")
        keys = list(record)
        named = _name_columns(keys)
        _check_text_columns(path, line, named, keys, task)
        row = {column: record[keys[i]] for column, i in named.items()}
        _check_texts(path, line, row, task)
        yield line, row


def _check_texts(path, line, row, task):
    for column in task.text_columns:
        if not isinstance(row[column], str):
            problem = "{} is {!r}; expected text".format(column, row[column])
            raise _row_error(path, line, problem)
        if not row[column].strip():
            raise _row_error(path, line, "{} is empty".format(column))


def _checked_label(path, line, value):
    """The label as text; JSON may give it as an integer."""
    if not isinstance(value, (str, int)):
        problem = "label is {!r}; expected text or an integer".format(value)
        raise _row_error(path, line, problem)
    label = str(value).strip()
    if not label:
        raise _row_error(path, line, "label is empty")
    if not is_label(label):
        problem = "label {!r} holds a control character, such as a line end"
        raise _row_error(path, line, problem.format(label))
    return label
