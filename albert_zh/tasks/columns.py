"""Columns of tables and keys of JSON objects, found by name, by flags or by place."""

import itertools
import re
from typing import List, NamedTuple, Optional, Tuple

from albert_zh.base.errors import UserError
from albert_zh.tasks.label_forms import FORMS
from albert_zh.tasks.registry import clean_label
from albert_zh.tasks.text_lines import row_error

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


class Columns(NamedTuple):
    """Which columns to read: names, or numbers from 1 on; None to find a column."""

    text_a: Optional[str] = None
    text_b: Optional[str] = None
    label: Optional[str] = None


FOUND_COLUMNS = Columns()


class Layout(NamedTuple):
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


def find_layout(path, line, cells, task, columns, has_id):
    """Finds the columns of a table by its first row and by the flags given."""
    width = len(cells)
    if any(columns):
        positions, has_header = _flagged_positions(path, line, cells, task, columns)
    else:
        has_header = is_header(cells, task)
        positions = {column: i for i, column in enumerate(task.columns)}
        named = name_columns(cells, task)
        # A header that names only the label, where it stands by default, is enough.
        is_named = all(column in named for column in task.text_columns)
        is_default = named.get("label") == positions.get("label") and width == len(
            task.columns
        )
        if has_header and (is_named or not is_default):
            positions = named
            check_text_columns(path, line, named, cells, task)
            _check_named_once(path, line, cells, positions)
        elif not has_header:
            _check_no_header(path, line, cells, task)
            positions = _default_positions(path, line, cells, task, has_id)
    return Layout(tuple(positions.items()), width, has_header, (line, cells))


def name_columns(names, task):
    """Dict column of the task -> position of the name that `HEADER_NAMES` has."""
    names = [clean_name(name) for name in names]
    return {
        column: names.index(name)
        for column in task.columns
        for name in reversed(HEADER_NAMES[column])
        if name in names
    }


def clean_name(cell):
    return clean_label(cell).lower()


def is_header(cells, task):
    """Whether a first row names columns: its label column or all its texts'."""
    named = name_columns(cells, task)
    return "label" in named or all(column in named for column in task.text_columns)


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


def _check_named_once(path, line, cells, named):
    """Raises `UserError` where a name that was looked for stands twice.

    Args:
      path, line, cells: of the row that names the columns.
      named: dict column -> position, found by name.
    """
    names = [clean_name(cell) for cell in cells]
    for column, position in named.items():
        numbers = [i for i, name in enumerate(names, 1) if name == names[position]]
        if len(numbers) > 1:
            problem = "the columns {} are called {!r}; rename one"
            advice = ", or give the number of that to read with --{}_column"
            problem = problem.format(" and ".join(map(str, numbers)), cells[position])
            raise row_error(path, line, problem, advice.format(column))


def text_names(names):
    """Returns the list of the positions of names that texts usually have."""
    known = HEADER_NAMES["text_a"] + HEADER_NAMES["text_b"]
    return [i for i, name in enumerate(names) if clean_name(name) in known]


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
        problem = "{} seem to name columns; begin the file with a row that names them"
        advice = ", or name those of the texts with " + flags
        raise row_error(path, line, problem.format(", ".join(cells)), advice)
    if len(cells) == 1:
        _check_separator(path, line, cells[0])


def _check_separator(path, line, cell):
    """Refuses a cell alone in the first row that another separator would split."""
    for separator in "\t,;|":
        names = cell.split(separator)
        num_known = len(_KNOWN_NAMES.intersection(map(clean_name, names)))
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
    names = [clean_name(cell) for cell in cells]
    are_alike = all(map(_NAME_LIKE.fullmatch, names))
    return len(names) > 1 and are_alike and bool(_KNOWN_NAMES.intersection(names))


def _flagged_positions(path, line, cells, task, columns):
    """Returns a dict column -> position, and whether the first row names columns."""
    names = [clean_name(cell) for cell in cells]
    given = given_columns(columns, task)
    positions = {column: _position(given[column], names) for column in given}
    for column, position in positions.items():
        if position is None:
            raise UserError(
                "--{}_column={}: the first row of {} has {} columns: {}; expected one "
                "of these names, or a number".format(
                    column, given[column], path, len(cells), ", ".join(cells)
                )
            )
    check_distinct(path, given, positions)
    has_names = not all(clean_name(name).isdecimal() for name in given.values())
    has_header = has_names or is_header(cells, task)
    if has_header:
        positions = with_found(positions, name_columns(cells, task))
        numbers = [c for c, name in given.items() if clean_name(name).isdecimal()]
        found = {c: p for c, p in positions.items() if c not in numbers}
        _check_named_once(path, line, cells, found)
    for column in task.text_columns:
        if column not in positions:
            raise UserError(
                "{}: no {} among the columns {}; name it with --{}_column".format(
                    path, column, ", ".join(cells), column
                )
            )
    return positions, has_header


def without_label(path, cells, task, columns):
    """Returns a task and `Columns` without a label whose column is not there."""
    if _position(columns.label, [clean_name(cell) for cell in cells]) is not None:
        return task, columns
    texts = task._replace(columns=task.text_columns)
    numbers = [
        clean_name(given).isdecimal()
        for given in given_columns(columns, texts).values()
    ]
    # A label's name tells of a header, which the numbers of texts do not find.
    is_name = not clean_name(columns.label).isdecimal()
    if is_name and numbers and all(numbers) and not is_header(cells, texts):
        problem = (
            "--label_column={}: not in the first row of {}: {}; if that row names "
            "columns, give those of the texts by name, too, else remove the flag"
        )
        raise UserError(problem.format(columns.label, path, ", ".join(cells)))
    return texts, columns._replace(label=None)


def given_columns(columns, task):
    """Dict column of the task -> what a flag says of it."""
    return {
        column: given
        for column, given in columns._asdict().items()
        if given is not None and column in task.columns
    }


def check_distinct(path, given, places):
    """Raises `UserError` where two flags give one place, a position or a key."""
    for first, second in itertools.combinations(given, 2):
        if places[first] == places[second]:
            problem = (
                "--{}_column={} and --{}_column={} are one column of {}; expected two"
            )
            raise UserError(
                problem.format(first, given[first], second, given[second], path)
            )


def with_found(places, found):
    """Adds places found by their names to those that flags give, which win."""
    taken = set(places.values())
    others = {column: place for column, place in found.items() if place not in taken}
    return dict(others, **places)


def _position(given, names):
    """Position of the column that a flag gives by name or number; None without one.

    Digits are always a number: as a name, they could stand in a row of data.
    """
    given = clean_name(given)
    if given.isdecimal():
        number = int(given[:9])  # more digits are beyond any table
        return number - 1 if 0 < number <= len(names) else None
    return names.index(given) if given in names else None


def names_all(cells, layout, task):
    """Whether a row of texts and label has a known name of each in its place."""
    positions = dict(layout.positions)
    return len(positions) == len(task.columns) and all(
        len(cells[i]) <= 20 and clean_name(cells[i]) in HEADER_NAMES[column]
        for column, i in positions.items()
    )


def check_text_columns(path, line, named, names, task):
    for column in task.text_columns:
        if column not in named:
            problem = "no {} among the columns {}; call it {}"
            known = ", ".join(HEADER_NAMES[column])
            problem = problem.format(column, ", ".join(names), known)
            advice = ", or name it with --{}_column".format(column)
            raise row_error(path, line, problem, advice)
