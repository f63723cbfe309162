"""Rows of TSV, CSV and JSON-lines files.

Files are read line by line. Blank lines at their end are no rows.
"""

import csv
import functools
import itertools
import logging
import os

from albert_zh.base import json_files
from albert_zh.base.errors import UserError
from albert_zh.tasks import row_forms
from albert_zh.tasks.columns import (
    FOUND_COLUMNS,
    check_distinct,
    check_text_columns,
    clean_name,
    find_layout,
    given_columns,
    is_header,
    name_columns,
    names_all,
    text_names,
    with_found,
    without_label,
)
from albert_zh.tasks.registry import ALL_EXTENSIONS
from albert_zh.tasks.text_lines import (
    id_problem,
    is_blank,
    read_lines,
    row_error,
    text_problem,
    without_blank_end,
    without_returns,
)

_LOGGER = logging.getLogger(__name__)

# They have no header row: keys name their columns.
JSON_EXTENSIONS = (".json", ".jsonl")

# Python's own limit is 131,072 characters a cell, below the length of some texts.
_MAX_CELL_CHARACTERS = 2**31 - 1
# In place of NUL, which Python's CSV reader refuses before 3.11: no character of text.
_NUL = "\ufdd0"


def is_json(path):
    """Whether a path is that of a file of JSON lines."""
    return path.lower().endswith(JSON_EXTENSIONS)


def open_rows(path, task, columns, is_test=False, needs_ids=False):
    """Opens a file by its extension: .tsv and .txt, .csv, .json and .jsonl.

    Args:
      path: local or remote file, UTF-8.
      task: a `registry.Task`.
      columns: `Columns`.
      is_test: whether the file is one to test on or to predict: it may lack the column
        that `columns.label` gives.
      needs_ids: whether predictions are written with ids, of tasks whose predictions
        have them: the rows' ids must differ.

    Returns:
      An iterator of (line, dict column -> value), and whether the first row names the
      columns. A value of a text column is a text that is not blank; JSON may have any
      type of label.

    Raises:
      UserError: also from the iterator; names `path:line` of the first wrong row.
    """
    extension = os.path.splitext(path)[1].lower()
    if extension not in ALL_EXTENSIONS:
        raise UserError(
            "{}: unknown extension {!r}; expected one of {}".format(
                path, extension, " ".join(ALL_EXTENSIONS)
            )
        )
    if extension in JSON_EXTENSIONS:
        lines = json_lines(path)
        found = _json_rows(path, lines, task, columns, is_test, needs_ids)
        return found, False
    table, has_id = _open_table(path, task.separator)
    first_line, first_cells = next(table, (1, None))
    if first_cells is None:
        raise no_examples(path)
    if is_test and columns.label is not None:
        task, columns = without_label(path, first_cells, task, columns)
    layout = find_layout(path, first_line, first_cells, task, columns, has_id)
    if layout.has_header:
        _log_header(path, layout, task, columns)
    first = [] if layout.has_header else [(first_line, first_cells)]
    return _table_rows(path, first, table, layout, task), layout.has_header


def _log_header(path, layout, task, columns):
    """Logs what a row that names the columns does that no flag asks for."""
    if columns.text_a is not None or columns.text_b is not None:
        return
    names = layout.first_row[1]
    _log_unread(path, names, dict(layout.positions).values(), task)
    if len(names) == 1 and clean_name(names[0]) != "text_a":
        text = "{}:1: {!r} is taken for the name of the column; if it is a text, begin "
        text += "the file with a row that says text_a"
        _log_once(_LOGGER.info, text.format(path, names[0]))


def _log_unread(path, names, read, task):
    """Logs the columns of texts that are not read.

    Args:
      path: the file.
      names: list of str, of all columns.
      read: collection of the positions of those that are read.
      task: a `registry.Task`.
    """
    unread = ", ".join(names[i] for i in text_names(names) if i not in read)
    if unread:
        read = ", ".join(names[i] for i in sorted(read))
        text = "{}: not read: {}; the task {} reads {}"
        _log_once(_LOGGER.warning, text.format(path, unread, task.name, read))


@functools.lru_cache(maxsize=None)
def _log_once(log, message):
    """Logs what is found again each time that a file is opened."""
    log(message)


def _open_table(path, separator):
    """Opens a table.

    Args:
      path: the file.
      separator: of a published form, None without one. A text file whose first line has
        it, and no tab, is of that form.

    Returns:
      Iterator of (first line, cells), and whether it is of the published form, whose
      first column is an id.
    """
    lines, is_published = read_lines(path), False
    if path.lower().endswith(".csv"):
        table = _split_csv(path, lines)
    else:
        first = next(lines)
        is_published = (
            bool(separator) and separator in first[1] and "\t" not in first[1]
        )
        between = separator if is_published else "\t"
        lines = itertools.chain([first], lines)
        table = (
            (number, without_returns(path, number, text).split(between))
            for number, text in lines
        )
    table = without_blank_end(table, lambda cells: all(map(is_blank, cells)))
    return table, is_published


def _split_csv(path, lines):
    """Yields (first line, cells); a quoted cell may span lines."""
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    texts = (text.replace("\0", _NUL) + "\n" for _, text in lines)
    reader = csv.reader(texts, strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise row_error(path, first_line, "not CSV ({})".format(error)) from error
        yield first_line, [cell.replace(_NUL, "\0") for cell in cells]


def texts_or_pairs(path, single, pair):
    """Reads a file whose rows have a text each, or a pair of texts.

    Args:
      path: as `open_rows` takes it.
      single, pair: the two `registry.Task`s that it may be of. Objects of JSON may be
        of both in one file.

    Yields:
      (line, list of one text or two).

    Raises:
      UserError: as of `open_rows`; also for a table of several columns that no first
        row names: the second could be a text or a label.
    """
    if is_json(path):
        keys = {task.name: _Keys(path, may_change=True) for task in (single, pair)}
        for line, record in json_lines(path):
            task = pair if "text_b" in name_columns(list(record), pair) else single
            rows = [(line, record)]
            for _, row in _json_rows(path, rows, task, first_keys=keys[task.name]):
                yield line, [row[column] for column in task.text_columns]
        return
    task = single
    if os.path.splitext(path)[1].lower() in ALL_EXTENSIONS:
        table, _ = _open_table(path, single.separator)
        line, cells = next(table, (1, []))
        if len(cells) > 1:
            if not (is_header(cells, single) or is_header(cells, pair)):
                problem = (
                    "{} columns, and no row that names them; begin the file with one, "
                    "such as text_a and text_b for pairs, or text_a and label"
                )
                raise row_error(path, line, problem.format(len(cells)))
            task = pair if "text_b" in name_columns(cells, pair) else single
    for line, row in open_rows(path, task, FOUND_COLUMNS)[0]:
        yield line, [row[column] for column in task.text_columns]


def _table_rows(path, first, table, layout, task):
    """Yields (line, dict column -> cell) of the rows after the header, if any."""
    header_line, header = layout.first_row
    names = [clean_name(cell) for cell in header]
    for rows in (first, table):
        for line, cells in rows:
            if len(cells) != layout.width:
                problem = "{} columns, expected {} as in line {}".format(
                    len(cells), layout.width, header_line
                )
                raise row_error(path, line, problem)
            is_header = layout.has_header and all(
                clean_name(cell) == name for cell, name in zip(cells, names)
            )
            if is_header or names_all(cells, layout, task):
                problem = "names columns among the rows (of joined files?); remove it"
                raise row_error(path, line, problem)
            if layout.has_header:
                _check_fixed(path, line, names, cells, task)
            row = {column: cells[i] for column, i in layout.positions}
            _check_texts(path, line, row, task)
            yield line, row


def _check_fixed(path, line, names, cells, task):
    """Raises `UserError` where a column has another value than the task allows."""
    for name, value in task.fixed_columns.items():
        if name in names and cells[names.index(name)] != value:
            number = names.index(name) + 1
            problem = (
                "{} is {!r}, expected {!r} in all rows; keep those alone, such as {}"
            )
            how = "`awk -F'\\t' 'NR==1 || ${}==\"{}\"' FILE`".format(number, value)
            found = cells[number - 1]
            raise row_error(path, line, problem.format(name, found, value, how))


def json_lines(path):
    """Reads a file of one JSON object a line.

    Args:
      path: local or remote file, UTF-8. Blank lines at its end are left out.

    Yields:
      (line, dict).

    Raises:
      UserError: names `path:line` of the first line that is no JSON object.
    """
    for line, text in without_blank_end(read_lines(path), is_blank):
        record = _parse_json(path, line, text)
        if not isinstance(record, dict):
            raise row_error(path, line, "expected one JSON object a line")
        yield line, record


def _json_rows(
    path,
    lines,
    task,
    columns=FOUND_COLUMNS,
    is_test=False,
    needs_ids=False,
    first_keys=None,
):
    """Yields (line, dict column -> value) of the objects of `json_lines`."""
    ids, first_keys = RowIds(path), first_keys or _Keys(path)
    for line, record in lines:
        named = _json_columns(path, line, record, columns, task, is_test)
        named = first_keys.choose(line, record, named)
        if line == 1 and not (columns.text_a or columns.text_b or task.row_form):
            keys = list(record)
            read = [keys.index(key) for key in named.values()]
            _log_unread(path, keys, read, task)
        row = {column: record[key] for column, key in named.items()}
        if _is_of_form(columns, task):
            try:
                row.update(row_forms.ROW_FORMS[task.row_form](record))
            except ValueError as error:
                raise row_error(path, line, str(error)) from error
        _check_texts(path, line, row, task)
        if needs_ids and task.submissions:
            ids.check(line, record)
        yield line, row


class _Keys:
    """The keys under which a JSON file's columns were found first.

    Of an object with two keys that could name a column, that of the rows before is
    read, so that no row is of another text than its neighbours.
    """

    def __init__(self, path, may_change=False):
        self._path = path
        self._may_change = may_change  # whether a later row may lack the first key
        self._first = {}  # column -> (key, line)

    def choose(self, line, record, named):
        """Returns a dict column -> key of an object.

        Args:
          line: int, of the object.
          record: the object.
          named: dict column -> key, as found in this object alone.

        Raises:
          UserError: a column is called otherwise than in the rows before.
        """
        chosen = {}
        for column, key in named.items():
            first, first_line = self._first.setdefault(column, (key, line))
            chosen[column] = first if first in record else key
            is_other = clean_name(chosen[column]) != clean_name(first)
            if is_other and not self._may_change:
                problem = "{} is called {!r}, {!r} in line {}; give it one name"
                problem = problem.format(column, key, first, first_line)
                raise row_error(self._path, line, problem)
        return chosen


def _is_of_form(columns, task):
    """Whether texts are made as the task's `row_form` says; flags may name fields."""
    return task.row_form is not None and not (columns.text_a or columns.text_b)


def _json_columns(path, line, record, columns, task, is_test):
    """Returns a dict column -> key of a JSON object, of columns that are one field."""
    if is_test and columns.label not in (None, *record):
        task = task._replace(columns=task.text_columns)
    keys, given = list(record), given_columns(columns, task)
    for column, key in given.items():
        if key not in record:
            problem = "--{}_column={}: no such key among {}".format(
                column, key, ", ".join(keys)
            )
            raise row_error(path, line, problem)
    check_distinct(path, given, given)
    found = {column: keys[i] for column, i in name_columns(keys, task).items()}
    named = with_found(given, found)
    if _is_of_form(columns, task):
        return {column: key for column, key in named.items() if column == "label"}
    check_text_columns(path, line, named, keys, task)
    return named


def _parse_json(path, line, text):
    try:
        return json_files.loads(text)
    except ValueError as error:  # also a number of too many digits
        problem = "not JSON ({}); expected one JSON object a line"
        raise row_error(path, line, problem.format(error)) from error


class RowIds:
    """Checks the ids of a JSON file's rows, which predictions are written with."""

    def __init__(self, path):
        self._path = path
        self._have_ids = None
        self._seen = set()

    def check(self, line, record):
        """Raises `UserError` for an object whose `id` cannot be used.

        Not all rows have one, or two rows have the same.

        Args:
          line: int.
          record: dict, the object.
        """
        has_id, problem = "id" in record, None
        if self._have_ids is None:
            self._have_ids = has_id
        if has_id != self._have_ids:
            problem = "some rows have an id, others none"
        elif has_id:
            problem = id_problem(record["id"])
            if not problem and record["id"] in self._seen:
                problem = (
                    "a second row of the id {!r}: predictions could not be told apart; "
                    "without any id, rows are numbered".format(record["id"])
                )
        if problem:
            raise row_error(self._path, line, problem)
        if has_id:
            self._seen.add(record["id"])


def _check_texts(path, line, row, task):
    for column in task.text_columns:
        problem = text_problem(column, row[column])
        if problem:
            raise row_error(path, line, problem)


def read_ids(path):
    """Yields the `id` of each line of a JSON file, or its number from 0 on, for ever.

    In files of other forms all lines have numbers.

    Args:
      path: a file that `open_rows` has read.
    """
    number = 0
    if is_json(path):
        for number, (line, text) in enumerate(read_lines(path), start=1):
            if not is_blank(text):
                yield _parse_json(path, line, text).get("id", number - 1)
    yield from itertools.count(number)


def no_examples(path, num_ignored=0):
    """Returns the `UserError` of a file without a row that is used."""
    if num_ignored:
        return UserError(
            "{}: all {} rows carry ignored labels; expected at least one other "
            "row".format(path, num_ignored)
        )
    return UserError("{}: no examples; expected at least one row".format(path))
