"""Rows of TSV, CSV and JSON-lines files: lines, columns, headers.

Files are read line by line. Blank lines at their end are no rows.
"""

import csv
import itertools
import os
import re
import unicodedata
from typing import List, NamedTuple, Optional, Tuple

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.tasks import row_forms
from albert_zh.tasks.label_forms import FORMS
from albert_zh.tasks.registry import ALL_EXTENSIONS, clean_label

# Names public Chinese data sets (LCQMC, BQ, ChnSentiCorp, CLUE) give their columns.
HEADER_NAMES = {
    "text_a": (
        "text_a text text1 sentence sentence1 sentence_a q1 question1 query query1 "
        "premise content review 文本 文本1 句子1 问题1 内容"
    ).split(),
    "text_b": (
        "text_b text2 sentence2 sentence_b q2 question2 query2 hypothesis hypo title "
        "文本2 句子2 问题2"
    ).split(),
    "label": "label labels gold_label 标签 类别".split(),
}
_KNOWN_NAMES = frozenset(sum(HEADER_NAMES.values(), []))
# How people name columns; a text in English may look so, too.
_NAME_LIKE = re.compile(r"[a-z_][a-z0-9_ ]{0,29}", re.IGNORECASE)

# They have no header row: keys name their columns.
JSON_EXTENSIONS = (".json", ".jsonl")

_BLOCK_BYTES = 2**20
_BOM = "\ufeff"
# Python's own limit is 131,072 characters a cell, below the length of some texts.
_MAX_CELL_CHARACTERS = 2**31 - 1


class Columns(NamedTuple):
    """Which columns to read: names, or numbers from 1 on; None to find a column."""

    text_a: Optional[str] = None
    text_b: Optional[str] = None
    label: Optional[str] = None


FOUND_COLUMNS = Columns()


def is_blank(text):
    """Whether nothing in a text can be seen: white space and invisible characters."""
    # Categories C: control and format characters, such as a zero-width space.
    return all(
        char.isspace() or char == "\ufffd" or unicodedata.category(char)[0] == "C"
        for char in text
    )


def text_problem(name, value):
    """Says what is wrong with a value that should be a text to judge, or None.

    Args:
      name: what the value is called.
      value: anything.
    """
    if not isinstance(value, str):
        return "{} is {:.100}; expected text".format(name, repr(value))
    if is_blank(value):
        return "{} is empty".format(name)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "{} holds half a surrogate pair".format(name)
    return None


def id_problem(value):
    """Says what is wrong with an `id`, which predictions are written with, or None."""
    if isinstance(value, str):
        return text_problem("id", value)
    if isinstance(value, bool) or not isinstance(value, int):
        return "id is {:.100}; expected a number or text".format(repr(value))
    return None


def read_lines(path, keeps_marks=False):
    """Yields (line number, text without its line end) of a UTF-8 file.

    LF and CRLF end a line; in a file without any LF, CR does.

    Args:
      path: local or remote file.
      keeps_marks: whether U+FEFF at the beginning of a line other than the first is a
        character of the text; else it is a byte order mark of files joined.

    Raises:
      UserError: no such file, a folder, an empty file, or one that is not UTF-8.
    """
    if not files.exists(path):
        raise UserError("{}: no such file".format(path))
    files.require_no_directory(path)
    number, rest = 0, b""
    with files.reading(path), files.open_input(path) as source:
        line_end = _line_end(source)
        block = source.read(_BLOCK_BYTES)
        if not block:
            raise UserError("{}: the file is empty".format(path))
        while block:
            pieces = block.split(line_end)
            if len(pieces) > 1:
                for piece in [rest + pieces[0]] + pieces[1:-1]:
                    number += 1
                    yield number, _line_text(path, number, piece, keeps_marks)
                rest = pieces[-1]
            else:
                rest += block
            block = source.read(_BLOCK_BYTES)
    if rest:
        yield number + 1, _line_text(path, number + 1, rest, keeps_marks)


def _line_end(source):
    """CR for a file that has it and no LF, else LF; the file is at its beginning."""
    line_end = b"\n"
    for block in iter(lambda: source.read(_BLOCK_BYTES), b""):
        if b"\n" in block:
            line_end = b"\n"
            break
        if b"\r" in block:
            line_end = b"\r"
    source.seek(0)
    return line_end


def _line_text(path, number, piece, keeps_marks):
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = (
            "not UTF-8 ({}); convert the file, such as from GBK with `iconv -f GB18030 "
            "-t UTF-8`, from Excel's Unicode text with `iconv -f UTF-16 -t UTF-8`"
        )
        raise row_error(path, number, problem.format(error)) from error
    if text.endswith("\r"):
        text = text[:-1]
    # The second of two joined files may begin with one, too.
    return text if keeps_marks and number > 1 else text.lstrip(_BOM)


# In place of NUL, which Python's CSV reader refuses before 3.11: no character of text.
_NUL = "\ufdd0"


def row_error(path, line, problem):
    """Returns the `UserError` of a row."""
    return UserError("{}:{}: {}".format(path, line, problem))


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


def _without_blank_end(rows, is_blank_row):
    """Passes rows on, without the blank ones at the end."""
    held = []
    for item in rows:
        held.append(item)
        if not is_blank_row(item[1]):
            yield from held
            held = []


def open_rows(path, task, columns, is_test=False, is_predicted=False):
    """Opens a file by its extension: .tsv and .txt, .csv, .json and .jsonl.

    Args:
      path: local or remote file, UTF-8.
      task: a `registry.Task`.
      columns: `Columns`.
      is_test: whether the file is one to test on or to predict: it may lack the column
        that `columns.label` gives.
      is_predicted: whether predictions are written: ids, of tasks whose predictions
        have them, differ.

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
        found = _json_rows(path, lines, task, columns, is_test, is_predicted)
        return found, False
    table, has_id = _open_table(path, task.separator)
    first_line, first_cells = next(table, (1, None))
    if first_cells is None:
        raise no_examples(path)
    if is_test and columns.label is not None:
        task, columns = _without_label(path, first_cells, task, columns)
    layout = _layout(path, first_line, first_cells, task, columns, has_id)
    first = [] if layout.has_header else [(first_line, first_cells)]
    return _table_rows(path, first, table, layout, task), layout.has_header


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
            (number, _without_returns(path, number, text).split(between))
            for number, text in lines
        )
    table = _without_blank_end(table, lambda cells: all(map(is_blank, cells)))
    return table, is_published


def _without_returns(path, number, text):
    """Returns the text of a line, which may end with CR.

    Raises:
      UserError: it has CR elsewhere: line ends of two kinds, that join rows.
    """
    if "\r" in text.rstrip("\r"):
        problem = (
            "a carriage return within the line, as from files of different line ends "
            "joined; convert them with `tr -s '\\r' '\\n'`"
        )
        raise row_error(path, number, problem)
    return text


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
    if path.lower().endswith(JSON_EXTENSIONS):
        for line, record in json_lines(path):
            task = pair if "text_b" in _name_columns(list(record), pair) else single
            for _, row in _json_rows(path, [(line, record)], task, FOUND_COLUMNS):
                yield line, [row[column] for column in task.text_columns]
        return
    task = single
    if os.path.splitext(path)[1].lower() in ALL_EXTENSIONS:
        table, _ = _open_table(path, single.separator)
        line, cells = next(table, (1, []))
        if len(cells) > 1:
            if not (_is_header(cells, single) or _is_header(cells, pair)):
                problem = (
                    "{} columns, and no row that names them; begin the file with one, "
                    "such as text_a and text_b for pairs, or text_a and label"
                )
                raise row_error(path, line, problem.format(len(cells)))
            task = pair if "text_b" in _name_columns(cells, pair) else single
    for line, row in open_rows(path, task, FOUND_COLUMNS)[0]:
        yield line, [row[column] for column in task.text_columns]


class _Layout(NamedTuple):
    """Where the columns of a table are.

    Attributes:
      positions: tuple of (column, position from 0 on).
      width: number of columns.
      has_header: whether the first row names them.
      first_row: (line, cells) of it.
    """

    positions: Tuple[Tuple[str, int], ...]
    width: int
    has_header: bool
    first_row: Tuple[int, List[str]]


def _name_columns(names, task):
    """Dict column of the task -> position of the name that `HEADER_NAMES` has."""
    names = [_name(name) for name in names]
    return {
        column: names.index(name)
        for column in task.columns
        for name in reversed(HEADER_NAMES[column])
        if name in names
    }


def _name(cell):
    return clean_label(cell).lower()


def _is_header(cells, task):
    """Whether a first row names columns: its label column or all its texts'."""
    named = _name_columns(cells, task)
    return "label" in named or all(column in named for column in task.text_columns)


def _layout(path, line, cells, task, columns, has_id):
    """Finds the columns of a table by its first row and by the flags given."""
    width = len(cells)
    if any(columns):
        positions, has_header = _flagged_positions(path, cells, task, columns)
    else:
        has_header = _is_header(cells, task)
        positions = {column: i for i, column in enumerate(task.columns)}
        named = _name_columns(cells, task)
        # A header that names only the label, where it stands by default, is enough.
        is_named = all(column in named for column in task.text_columns)
        is_default = named.get("label") == positions.get("label") and width == len(
            task.columns
        )
        if has_header and (is_named or not is_default):
            positions = named
            _check_text_columns(path, line, named, cells, task)
        elif not has_header:
            _check_no_header(path, line, cells, task)
            positions = _default_positions(path, line, cells, task, has_id)
    return _Layout(tuple(positions.items()), width, has_header, (line, cells))


def _default_positions(path, line, cells, task, has_id):
    """Returns a dict column -> position of a table without a header row."""
    width, first = len(cells), ("id",) if has_id else ()
    # A number at the end is a label, so what stands first is no id.
    lacks_id = has_id and width == len(task.columns) and _is_number(cells[-1])
    for columns in (first + task.columns, first + task.text_columns):
        if width == len(columns) and not lacks_id:
            return {
                column: columns.index(column) for column in columns if column != "id"
            }
    problem = "{} columns, expected {} ({})".format(
        width, len(first + task.columns), ", ".join(first + task.columns)
    )
    if width == 1:
        problem += ", separated by commas in .csv, by tabs in .tsv and .txt"
    raise row_error(path, line, problem)


def _is_number(cell):
    try:
        FORMS["regression"].parse(cell, None)
    except ValueError:
        return False
    return True


def _check_no_header(path, line, cells, task):
    """Refuses a first row that seems to name columns, one of which is known."""
    if _seem_names(cells):
        flags = " and ".join("--{}_column".format(c) for c in task.text_columns)
        problem = "{} seem to name columns; name those of the texts with {}, or {}"
        start = "begin the file with a row that names them"
        raise row_error(path, line, problem.format(", ".join(cells), flags, start))
    if len(cells) == 1:
        _check_separator(path, line, cells[0])


def _check_separator(path, line, cell):
    """Refuses a cell alone in the first row that another separator would split."""
    for separator in "\t,;|":
        names = cell.split(separator)
        num_known = len(_KNOWN_NAMES.intersection(map(_name, names)))
        # Chinese texts have commas, and seldom tabs.
        is_tab = separator == "\t" and len(names) > 1
        if is_tab or num_known > 1 or _seem_names(names):
            problem = (
                "1 column, but {!r} in its first row seems to separate several; .csv "
                "has commas between them, .tsv and .txt tabs (if it belongs to a text, "
                "begin the file with a row that names the column, such as text_a)"
            )
            raise row_error(path, line, problem.format(separator))


def _seem_names(cells):
    """Whether several texts look like names of columns, one of which is known."""
    names = [_name(cell) for cell in cells]
    are_alike = all(map(_NAME_LIKE.fullmatch, names))
    return len(names) > 1 and are_alike and bool(_KNOWN_NAMES.intersection(names))


def _flagged_positions(path, cells, task, columns):
    """Returns a dict column -> position, and whether the first row names columns."""
    names = [_name(cell) for cell in cells]
    given = _given(columns, task)
    positions = {column: _position(given[column], names) for column in given}
    for column, position in positions.items():
        if position is None:
            raise UserError(
                "--{}_column={}: the first row of {} has {} columns: {}; expected one "
                "of these names, or a number".format(
                    column, given[column], path, len(cells), ", ".join(cells)
                )
            )
    _check_distinct(path, given, positions)
    has_names = not all(_name(name).isdecimal() for name in given.values())
    has_header = has_names or _is_header(cells, task)
    if has_header:
        positions = _with_found(positions, _name_columns(cells, task))
    for column in task.text_columns:
        if column not in positions:
            raise UserError(
                "{}: no {} among the columns {}; name it with --{}_column".format(
                    path, column, ", ".join(cells), column
                )
            )
    return positions, has_header


def _without_label(path, cells, task, columns):
    """Returns a task and `Columns` without a label whose column is not there."""
    if _position(columns.label, [_name(cell) for cell in cells]) is not None:
        return task, columns
    texts = task._replace(columns=task.text_columns)
    numbers = [_name(given).isdecimal() for given in _given(columns, texts).values()]
    # A label's name tells of a header, which the numbers of texts do not find.
    is_name = not _name(columns.label).isdecimal()
    if is_name and numbers and all(numbers) and not _is_header(cells, texts):
        problem = (
            "--label_column={}: not in the first row of {}: {}; if that row names "
            "columns, give those of the texts by name, too, else remove the flag"
        )
        raise UserError(problem.format(columns.label, path, ", ".join(cells)))
    return texts, columns._replace(label=None)


def _given(columns, task):
    """Dict column of the task -> what a flag says of it."""
    return {
        column: given
        for column, given in columns._asdict().items()
        if given is not None and column in task.columns
    }


def _check_distinct(path, given, places):
    """Raises `UserError` where two flags give one place, a position or a key."""
    for first, second in itertools.combinations(given, 2):
        if places[first] == places[second]:
            problem = (
                "--{}_column={} and --{}_column={} are one column of {}; expected two"
            )
            raise UserError(
                problem.format(first, given[first], second, given[second], path)
            )


def _with_found(places, found):
    """Adds places found by their names to those that flags give, which win."""
    taken = set(places.values())
    others = {column: place for column, place in found.items() if place not in taken}
    return dict(others, **places)


def _position(given, names):
    """Position of the column that a flag gives by name or number; None without one.

    Digits are always a number: as a name, they could stand in a row of data.
    """
    given = _name(given)
    if given.isdecimal():
        number = int(given[:9])  # more digits are beyond any table
        return number - 1 if 0 < number <= len(names) else None
    return names.index(given) if given in names else None


def _table_rows(path, first, table, layout, task):
    """Yields (line, dict column -> cell) of the rows after the header, if any."""
    header_line, header = layout.first_row
    names = [_name(cell) for cell in header]
    for rows in (first, table):
        for line, cells in rows:
            if len(cells) != layout.width:
                problem = "{} columns, expected {} as in line {}".format(
                    len(cells), layout.width, header_line
                )
                raise row_error(path, line, problem)
            is_header = layout.has_header and all(
                _name(cell) == name for cell, name in zip(cells, names)
            )
            if is_header or _names_all(cells, layout, task):
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


def _names_all(cells, layout, task):
    """Whether a row of texts and label has a known name of each in its place."""
    positions = dict(layout.positions)
    return len(positions) == len(task.columns) and all(
        len(cells[i]) <= 20 and _name(cells[i]) in HEADER_NAMES[column]
        for column, i in positions.items()
    )


def _check_text_columns(path, line, named, names, task):
    for column in task.text_columns:
        if column not in named:
            problem = "no {0} among the columns {1}; name it with --{0}_column, or {2}"
            known = "call it " + ", ".join(HEADER_NAMES[column])
            problem = problem.format(column, ", ".join(names), known)
            raise row_error(path, line, problem)


def json_lines(path):
    """Reads a file of one JSON object a line.

    Args:
      path: local or remote file, UTF-8. Blank lines at its end are left out.

    Yields:
      (line, dict).

    Raises:
      UserError: names `path:line` of the first line that is no JSON object.
    """
    for line, text in _without_blank_end(read_lines(path), is_blank):
        record = _parse_json(path, line, text)
        if not isinstance(record, dict):
            raise row_error(path, line, "expected one JSON object a line")
        yield line, record


def _json_rows(path, lines, task, columns, is_test=False, is_predicted=False):
    """Yields (line, dict column -> value) of the objects of `json_lines`."""
    ids = RowIds(path)
    for line, record in lines:
        named = _json_columns(path, line, record, columns, task, is_test)
        row = {column: record[key] for column, key in named.items()}
        if _is_of_form(columns, task):
            try:
                row.update(row_forms.ROW_FORMS[task.row_form](record))
            except ValueError as error:
                raise row_error(path, line, str(error)) from error
        _check_texts(path, line, row, task)
        if is_predicted and task.submissions:
            ids.check(line, record)
        yield line, row


def _is_of_form(columns, task):
    """Whether texts are made as the task's `row_form` says; flags may name fields."""
    return task.row_form is not None and not (columns.text_a or columns.text_b)


def _json_columns(path, line, record, columns, task, is_test):
    """Returns a dict column -> key of a JSON object, of columns that are one field."""
    if is_test and columns.label not in (None, *record):
        task = task._replace(columns=task.text_columns)
    keys, given = list(record), _given(columns, task)
    for column, key in given.items():
        if key not in record:
            problem = "--{}_column={}: no such key among {}".format(
                column, key, ", ".join(keys)
            )
            raise row_error(path, line, problem)
    _check_distinct(path, given, given)
    found = {column: keys[i] for column, i in _name_columns(keys, task).items()}
    named = _with_found(given, found)
    if _is_of_form(columns, task):
        return {column: key for column, key in named.items() if column == "label"}
    _check_text_columns(path, line, named, keys, task)
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
    if path.lower().endswith(JSON_EXTENSIONS):
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
