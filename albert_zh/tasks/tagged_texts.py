"""Texts with entities, out of files of tagged characters and of CLUENER's JSON lines.

A file of tags has a character and its tag in each line, with a tab or a space between
them, and an empty line after each text; Weibo NER's characters have their place in the
word behind them, which is left out. Texts keep every character of the file: an
offset is a number of characters (code points) of the text.
"""

import functools
import logging
import re
from typing import Any, List, NamedTuple, Optional, Tuple

from albert_zh.base.errors import UserError
from albert_zh.models.settings import is_label
from albert_zh.tasks import reading, rows, tag_schemes, text_lines
from albert_zh.tasks.registry import Task, clean_label, get_task
from albert_zh.tasks.tag_schemes import Span

_LOGGER = logging.getLogger(__name__)

# Any one character, also a space or a tab, before its tag.
_ROW = re.compile(r"(.)[ \t](\S+)[ \t]*", re.DOTALL)
# A character and its place in its word, as Weibo NER has them.
_PLACED = re.compile(r"(.)([0-9]{1,3})", re.DOTALL)
# Between two such characters there was a space, or words are not those of the text.
_OF_A_WORD = re.compile("[A-Za-z0-9]")


class TaggedText(NamedTuple):
    """A text.

    Attributes:
      text: str.
      entities: tuple of `Span` in characters of the text, sorted; None where they are
        not known.
      id: what the file calls it, or its number from 0 on.
    """

    text: str
    entities: Optional[Tuple[Span, ...]] = None
    id: Any = 0

    @property
    def label(self):
        """`entities`, under the name all examples have it."""
        return self.entities


class TagReader(NamedTuple):
    """Reads the files of a tagging task, for `splits.TaskData`.

    Attributes:
      task: a `registry.Task`.
    """

    task: Task

    def read_examples(
        self, path, labels, placeholders_allowed=False, is_training=False
    ):
        """Reads a file to train on, or to score.

        Args:
          path: local or remote file, UTF-8; JSON lines exactly if it ends in .json or
            .jsonl.
          labels: the types allowed, None for any.
          is_training: not used.
          placeholders_allowed: whether a file without any entity is read as one
            whose entities are not known.

        Returns:
          `reading.ExampleFile` of `TaggedText`s.

        Raises:
          UserError: names `path:line` of the first line that cannot be used.
        """
        examples, irregular = [], _Irregular([], [])
        for lines, example in _texts(path, irregular):
            for number, span in zip(lines, example.entities or ()):
                if labels is not None and span.type not in labels:
                    raise self._unknown_type(path, number, span.type, labels)
            examples.append(example)
        irregular.warn(path)
        if placeholders_allowed and not any(example.entities for example in examples):
            examples = [example._replace(entities=None) for example in examples]
        return reading.ExampleFile(path, examples)

    def read_texts(self, path, labels, needs_ids=True):
        """Checks a file to predict; entities in it are checked, but not used.

        Args:
          path: as `read_examples` takes it.
          labels: not used; the file may have other types.
          needs_ids: whether predictions are written with ids, which must differ.

        Returns:
          `reading.TextFile`.

        Raises:
          UserError: names `path:line` of the first line that cannot be used.
        """
        del labels
        number = sum(1 for _ in _texts(path, _Irregular([], []), needs_ids))
        return reading.TextFile(path, number, functools.partial(_untagged, path))

    def no_labels(self, path):
        """Returns the `UserError` of a file that should have entities, and has none."""
        expected = "a character and its tag in each line, such as B-PER or O"
        if rows.is_json(path):
            expected = '"label", as in {}'.format(_JSON_EXAMPLE)
        return UserError("{}:1: no entities; expected {}".format(path, expected))

    def _unknown_type(self, path, line, kind, labels):
        if get_task(self.task.name).labels:
            advice = " (--task_name=ner takes any)"
        else:
            advice = (
                " (name all of them with --labels when training; a file whose entities "
                "do not count can be given as --predict_file)"
            )
        problem = "unknown type of entity {:.100}; expected one of {}"
        problem = problem.format(repr(kind), ", ".join(labels))
        return text_lines.row_error(path, line, problem, advice)


_JSON_EXAMPLE = '{"text": "他在北京", "label": {"address": {"北京": [[2, 3]]}}}'


def find_types(data):
    """The types of the entities of a training file, sorted.

    Args:
      data: labelled `reading.ExampleFile`.

    Raises:
      UserError: it has no entity.
    """
    found = {span.type for example in data.examples for span in example.entities}
    if not found:
        raise UserError(
            "{}: no text has an entity; expected at least one".format(data.path)
        )
    return tuple(sorted(found))


def from_command_line(task, texts):
    """Makes a `reading.ExampleFile` of the texts of --text, None without any.

    Raises:
      UserError: a text is empty.
    """
    data = reading.from_command_line(task, texts, [])
    if data is None:
        return None
    examples = [
        TaggedText(example.text_a, id=number)
        for number, example in enumerate(data.examples)
    ]
    return reading.ExampleFile(data.path, examples)


class _Irregular(NamedTuple):
    """Tags that do not keep to their scheme: lists of (line, tag).

    Attributes:
      continuing: those that continue no entity of their type.
      unended: those that end an entity where an E or S should.
    """

    continuing: List[Tuple[int, str]]
    unended: List[Tuple[int, str]]

    def warn(self, path):
        """Logs the first tag of either list, and how many there are."""
        for found, problem in (
            (self.continuing, "continues no entity of its type, and begins one"),
            (self.unended, "ends an entity, where E or S should"),
        ):
            if found:
                text = "%s:%d: %s %s; %d such tags in the file"
                _LOGGER.warning(text, path, *found[0], problem, len(found))


def _untagged(path):
    """Yields the `TaggedText`s of a file, without entities."""
    for _, text in _texts(path, _Irregular([], [])):
        yield text._replace(entities=None)


def _texts(path, irregular, needs_ids=False):
    """Yields (lines, `TaggedText`) of a file.

    Args:
      path: the file.
      irregular: `_Irregular`, to which such tags are added.
      needs_ids: whether predictions are written with the ids.

    Yields:
      A list with the line of each entity, and the text.

    Raises:
      UserError: names `path:line` of the first line that cannot be used, or there is no
        text.
    """
    if rows.is_json(path):
        found = _json_texts(path, needs_ids)
    else:
        found = _column_texts(path, irregular)
    are_known = None
    for number, (line, lines, example) in enumerate(found):
        is_known = example.entities is not None
        if are_known is None:
            are_known = is_known
        if is_known != are_known:
            problem = "a text {} entities among texts {} any".format(
                *("without", "with") if are_known else ("with", "without")
            )
            raise text_lines.row_error(path, line, problem)
        if example.id is None:
            example = example._replace(id=number)
        yield lines, example
    if are_known is None:
        raise UserError("{}: no texts; expected at least one".format(path))


def _column_texts(path, irregular):
    """Yields (line, lines of the entities, `TaggedText`) of a file of tags."""
    prefixes, first, are_placed = set(), None, None
    for numbered in _blocks(path):
        tokens, tags = [], []
        for line, text in numbered:
            token, tag = _split_row(path, line, text)
            first = first or (line, tag is not None)
            if first[1] != (tag is not None):
                problem = "{} column{}, expected {} as in line {}".format(
                    *(2, "s", 1) if tag is not None else (1, "", 2), first[0]
                )
                raise text_lines.row_error(path, line, problem)
            tokens.append(token)
            if tag is not None:
                tags.append(_split_tag(path, line, tag, prefixes))
        first_line = numbered[0][0]
        are_placed = _are_placed(tokens) if are_placed is None else are_placed
        tokens = _checked(path, first_line, tokens, are_placed)
        if not first[1]:
            yield first_line, [], TaggedText("".join(tokens), id=None)
            continue
        read = tag_schemes.read_spans(tags)
        for found, positions in zip(irregular, (read.irregular, read.unended)):
            found += [(first_line + i, "-".join(tags[i])) for i in positions]
        lines = [first_line + span.start for span in read.spans]
        yield first_line, lines, _joined(tokens, read.spans)
    if not prefixes.intersection("ES"):  # of BIO
        irregular.unended.clear()


def _blocks(path):
    """Yields the texts of a file of tags, each a list of (line, content)."""
    block, blank = [], " \t"
    for line, text in text_lines.read_lines(path, keeps_marks=True):
        if line == 1:
            if not text.strip(blank):
                problem = "blank; expected the first character of a text; remove the "
                raise text_lines.row_error(
                    path, line, problem + "blank lines before it"
                )
            # Where lines have no tags, one may be of a space alone.
            blank = "" if len(text) == 1 else blank
        if text.strip(blank) if blank else text:
            block.append((line, text))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _split_row(path, line, text):
    """Returns the characters of a line, and their tag or None."""
    row = _ROW.fullmatch(text)
    if row:
        return row.groups()
    if len(text) == 1:
        return text, None
    cells = re.split("\t" if "\t" in text else " ", text.rstrip(" \t"))
    if len(cells) > 2:
        problem = "{} columns, expected 2: a character and its tag"
        raise text_lines.row_error(path, line, problem.format(len(cells)))
    if len(cells) == 1:
        problem = (
            "{!r} has no tag; expected a character and its tag; texts without tags can "
            'be given as JSON lines, {{"text": "..."}}, in a file that ends in .json'
        )
        raise text_lines.row_error(path, line, problem.format(text[:20]))
    if not cells[0]:
        problem = "no character before the tag {!r}".format(cells[1])
        raise text_lines.row_error(path, line, problem)
    return cells


def _are_placed(tokens):
    """Whether the tokens of a text are characters with their places in words."""
    last = -1
    for token in tokens:
        placed = _PLACED.fullmatch(token)
        if not placed or int(placed.group(2)) not in (0, last + 1):
            return False
        last = int(placed.group(2))
    return True


def _checked(path, first_line, tokens, are_placed):
    """Returns tokens that make a text when they are joined.

    Args:
      path, first_line: of the first token.
      tokens: list of str.
      are_placed: whether their places in words are to be left out.

    Raises:
      UserError: a token has no place, or joining loses the space before it.
    """
    last = ""
    for line, token in enumerate(tokens, start=first_line):
        problem = None
        if token == "-DOCSTART-":
            problem = "{1} is no text; remove such lines"
        elif are_placed and not _PLACED.fullmatch(token):
            problem = "{1!r} has no place in its word, as those of the first text have"
        elif not are_placed and len(last + token) > 2:
            if all(map(_OF_A_WORD.match, (last[-1:], token))):
                problem = (
                    "{1!r} after {0!r}, words whose space is lost; give a character "
                    "and its tag in each line, also for each space"
                )
        if problem:
            raise text_lines.row_error(path, line, problem.format(last, token))
        last = token
    return [token[0] for token in tokens] if are_placed else tokens


def _split_tag(path, line, tag, prefixes):
    """Returns the (prefix, type) of a tag; adds the prefix to those of the file."""
    try:
        prefix, kind = tag_schemes.split_tag(tag)
    except ValueError as error:
        problem = "{}; where the tags are not known, leave their column out"
        raise text_lines.row_error(path, line, problem.format(error)) from error
    try:
        if prefix not in prefixes:
            prefixes.add(prefix)
            tag_schemes.check_scheme(prefixes)
    except ValueError as error:
        raise text_lines.row_error(path, line, str(error)) from error
    return prefix, None if kind is None else _clean_type(path, line, kind)


def _clean_type(path, line, kind):
    """Returns a type as labels are compared, so that those that look alike are one."""
    cleaned = clean_label(kind)
    if not is_label(cleaned):
        problem = "the type {!r} is empty or holds a control character".format(kind)
        raise text_lines.row_error(path, line, problem)
    return cleaned


def _joined(tokens, spans):
    """`TaggedText` of tokens, most of them one character, and spans of tokens."""
    starts = [0]
    for token in tokens:
        starts.append(starts[-1] + len(token))
    entities = [Span(starts[a], starts[b], kind) for a, b, kind in spans]
    return TaggedText("".join(tokens), tuple(sorted(entities)), None)


def _json_texts(path, needs_ids):
    """Yields (line, lines of the entities, `TaggedText`) of a file of JSON lines."""
    ids = rows.RowIds(path)
    for line, record in rows.json_lines(path):
        text = _json_text(path, line, record)
        entities = None
        if record.get("label") is not None:
            entities = tuple(_json_entities(path, line, text, record["label"]))
        if needs_ids:
            ids.check(line, record)
        text = TaggedText(text, entities, record.get("id"))
        yield line, [line] * len(entities or ()), text


def _json_text(path, line, record):
    text = record.get("text")
    problem = "no text" if text is None else text_lines.text_problem("text", text)
    if problem:
        raise text_lines.row_error(path, line, problem)
    return text


def _json_entities(path, line, text, label):
    """Returns the sorted list of `Span`s of CLUENER's {type: {entity: [[start, end]]}}.

    In the file, `end` is the last character.
    """
    spans = set()
    try:
        for kind, entities in label.items():
            kind = _clean_type(path, line, kind)
            for entity, places in entities.items():
                if not places:
                    problem = "entity {!r} has no place"
                    raise text_lines.row_error(path, line, problem.format(entity))
                for start, last in places:
                    if not all(type(place) is int for place in (start, last)):
                        raise TypeError
                    _check_entity(path, line, text, entity, (start, last))
                    spans.add(Span(start, last + 1, kind))
    except (AttributeError, TypeError, ValueError) as error:
        problem = "label is {:.100}; expected it as in {}"
        raise text_lines.row_error(
            path, line, problem.format(repr(label), _JSON_EXAMPLE)
        ) from error
    return sorted(spans)


def _check_entity(path, line, text, entity, place):
    start, last = place
    if not 0 <= start <= last < len(text):
        problem = "entity {!r} at {}, beyond the text of {} characters".format(
            entity, list(place), len(text)
        )
        raise text_lines.row_error(path, line, problem)
    if text[start : last + 1] != entity:
        problem = "entity {!r} at {}, where the text has {!r}".format(
            entity, list(place), text[start : last + 1]
        )
        raise text_lines.row_error(path, line, problem)
