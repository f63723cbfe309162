"""Instances out of files and out of standard input, and their answers, in order."""

import os

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.serving import encoder
from albert_zh.serving.predictor import TooLong
from albert_zh.tasks import choices, reading, rows, squad_files, tagged_texts
from albert_zh.tasks.features import chunked

# Answered together; between two writes of answers.
_CHUNK = 1024
_BLOCK_BYTES = 2**20
_STANDARD_INPUT = "standard input"


def answers_of_file(predictor, path):
    """Answers the rows of a file.

    All rows are checked before the first one is answered.

    Args:
      predictor: `predictor.Predictor`.
      path: local or remote file, in a form that the task's command reads; or, for
        questions about texts, JSON lines of instances, in a file that ends in .jsonl.

    Yields:
      Lists of answers, in the order of the file.

    Raises:
      UserError: names the place of the first row that cannot be used, or there is
        none.
    """
    files.require_regular(path)  # it is read twice
    number = sum(1 for _ in _prepared(predictor, _items(predictor, path)))
    if not number:
        raise UserError("{}: no rows to judge".format(path))
    for chunk in chunked(_prepared(predictor, _items(predictor, path)), _CHUNK):
        yield predictor.answer(chunk)


def answers_of_input(predictor, descriptor=0):
    """Answers JSON lines as they arrive.

    Args:
      predictor: `predictor.Predictor`.
      descriptor: int, the open file, of one JSON value a line: an instance, as
        `Predictor.prepare` takes it.

    Yields:
      Lists of answers, in the order of the lines: for all that has arrived.

    Raises:
      UserError: names the first line that cannot be used; those before it are
        answered. Or nothing can be read, as from a directory.
    """
    for lines in _line_groups(descriptor):
        for chunk in chunked(lines, _CHUNK):
            prepared, problem = [], None
            try:
                prepared.extend(_prepared(predictor, map(_parse, chunk)))
            except UserError as error:
                problem = error
            yield predictor.answer(prepared)
            if problem:
                raise problem


def _prepared(predictor, items):
    """Yields the `Prepared` of (place, instance or example)."""
    for place, item in items:
        is_example = hasattr(item, "_fields")
        prepare = predictor.prepare_example if is_example else predictor.prepare
        try:
            yield prepare(item)
        except TooLong as error:
            hint = "{}: {}, or give --truncate to cut it"
            raise UserError(hint.format(place, error)) from error
        except UserError as error:
            raise UserError("{}: {}".format(place, error)) from error


def _items(predictor, path):
    """Yields (place, instance or example) of a file."""
    kind, task = predictor.kind_name, predictor.files.task
    if kind in ("multiple_choice", "cloze"):
        return choices.read_places(path, task)
    if kind == "tagging":
        return _with_place(path, tagged_texts.TagReader(task))
    if kind == "span_extraction":
        if path.lower().endswith(".jsonl"):
            return _json_instances(path, predictor.fields)
        return _with_place(path, squad_files.SquadReader())
    return _table_instances(path, task, predictor.labels)


def _with_place(path, reader):
    """Yields (place, example) of a file; answers are told apart by their order."""
    data = reader.read_texts(path, None, needs_ids=False)
    for examples in data.chunks(_CHUNK):
        for example in examples:
            yield "{}: id {!r}".format(path, example.id), example


def _table_instances(path, task, labels):
    """Yields (place, instance) of the rows of a table or of JSON lines."""
    if task is encoder.TASK:
        found = rows.texts_or_pairs(path, encoder.TASK, encoder.PAIR_TASK)
    else:
        table, _ = reading.text_rows(path, task, labels)
        found = ((n, [row[name] for name in task.text_columns]) for n, row in table)
    for line, texts in found:
        yield "{}:{}".format(path, line), texts if len(texts) > 1 else texts[0]


def _json_instances(path, fields):
    """Yields (place, instance) of JSON lines; other keys than `fields` are not read."""
    for line, record in rows.json_lines(path):
        instance = {name: record[name] for name in fields if name in record}
        yield "{}:{}".format(path, line), instance


def _parse(numbered):
    """(line number, its bytes) -> (place, instance)."""
    number, line = numbered
    place = "{}:{}".format(_STANDARD_INPUT, number)
    try:
        return place, json_files.parse(line, {})
    except ValueError as error:
        raise UserError("{}: not JSON ({})".format(place, error)) from error


def _line_groups(descriptor):
    """Yields lists of (line number, bytes): the lines whole since the last list.

    Blank lines at the end are left out.
    """
    rest, number, blank = b"", 0, []
    while True:
        with files.reading(_STANDARD_INPUT):
            block = os.read(descriptor, _BLOCK_BYTES)
        pieces = (rest + block).split(b"\n")
        rest = pieces.pop() if block else b""
        lines = []
        for piece in pieces:
            number += 1
            blank.append((number, piece))
            if piece.strip():
                lines += blank
                blank = []
        if lines:
            yield lines
        if not block:
            return
