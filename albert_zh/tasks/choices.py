"""Questions with choices, and texts with blanks, out of their files, strictly.

Every question becomes an example or stops the run with its place in the file.
"""

import logging
import os
import re
from typing import List, NamedTuple, Optional, Tuple, Union

from albert_zh.base import files, json_files, name_lists
from albert_zh.base.errors import UserError
from albert_zh.tasks import reading, rows, text_lines
from albert_zh.tasks.registry import Task, clean_label

_LOGGER = logging.getLogger(__name__)

# ChID's mark of a blank.
TAG = re.compile(r"#idiom\d+#")
# Of other blank marks, which name no answer.
_UNNUMBERED_TAG = "#idiom#"

_C3_ADVICE = "expected C3's [[[context, ...], [question, ...], id], ...]"
_ANSWERS_ADVICE = 'expected ChID\'s {"#idiom000000#": index, ...}'
_QUESTION_ADVICE = 'expected {"context": ..., "question": ..., "choices": [...]}'
_C3_QUESTION_ADVICE = 'expected {"question": ..., "choice": [...], "answer": ...}'
_CHID_ADVICE = 'expected {"content": [...], "candidates": [...]}'


class Question(NamedTuple):
    """A question about a text, with choices.

    Attributes:
      identifier: int or str; its own, else its number in the file or files, from 0 on.
      context: the text.
      question: the question.
      choices: its possible answers, at least two.
      answer: index of the right one; None where it is not known.
    """

    identifier: Union[int, str]
    context: str
    question: str
    choices: Tuple[str, ...]
    answer: Optional[int]

    @property
    def label(self):
        """`answer`, under the name all examples have it."""
        return self.answer


class Blank(NamedTuple):
    """A blank in a text.

    Attributes:
      tag: its name, such as #idiom000000#.
      before: the text before it; other blanks are their tags.
      after: the text after it.
      answer: index of the right candidate; None where it is not known.
    """

    tag: str
    before: str
    after: str
    answer: Optional[int]


class Cloze(NamedTuple):
    """Blanks to fill out of the same candidates, each of which is used once at most.

    Attributes:
      choices: the candidates.
      blanks: of all the texts, at least one and no more than there are candidates.
    """

    choices: Tuple[str, ...]
    blanks: Tuple[Blank, ...]

    @property
    def label(self):
        """The answer of its first blank; all or no blanks have one."""
        return self.blanks[0].answer


class ChoiceReader(NamedTuple):
    """Reads the files of a task of choices, for `splits.TaskData`.

    Attributes:
      task: a `registry.Task` with a `file_form`.
    """

    task: Task

    def read_examples(
        self, path, labels=None, placeholders_allowed=False, is_training=False
    ):
        """Reads a file, or several separated by commas for a task that has several.

        Args:
          path: local or remote, UTF-8.
          labels, placeholders_allowed, is_training: not used.

        Returns:
          A `reading.ExampleFile` of `Question`s or `Cloze`s.

        Raises:
          UserError: names the place of the first question that cannot be used.
        """
        del labels, placeholders_allowed  # part of the interface
        return self._read(path, True)

    def _read(self, path, with_answers):
        """Returns the `reading.ExampleFile`; without answers none of them is read."""
        paths = files.split_inputs(path) if self.task.split_files else [path]
        found, is_labelled = [], None
        for one_path in paths:
            read = READERS[self.task.file_form]
            for place, example in read(one_path, self.task, with_answers):
                has_label = example.label is not None
                if is_labelled is None:
                    is_labelled = has_label
                if has_label != is_labelled:
                    words = ("an", "without") if has_label else ("no", "with")
                    raise _error(place, "{} answer among others {} one", *words)
                found.append((place, example))
        if not found:
            raise UserError("{}: no questions; expected at least one".format(path))
        return reading.ExampleFile(path, _numbered(found, not with_answers))

    def read_texts(self, path, labels=None):
        """Reads a file to predict; what stands in place of answers is not read."""
        return self._read(path, False)

    def no_labels(self, path):
        """Returns the `UserError` of a file that should have answers, and has none."""
        where = "with the questions"
        if self.task.file_form == "chid":
            where = "in " + ", ".join(map(path_of_answers, files.split_inputs(path)))
        return UserError("{}: no answers; expected them {}".format(path, where))


def read_places(path, task):
    """Reads a file to predict, one example at a time.

    Args:
      path: local or remote, UTF-8.
      task: a `registry.Task`, with a `file_form`.

    Yields:
      (place, `Question` or `Cloze` without answers); the place is for messages.

    Raises:
      UserError: names the place of the first question that cannot be used.
    """
    return READERS[task.file_form](path, task, False)


def from_command_line(task, texts):
    """Makes questions of what the command line gives.

    Args:
      task: a `registry.Task`.
      texts: list of [context, question, choices as a line of CSV], of --text.

    Returns:
      `reading.ExampleFile`, None without any question.

    Raises:
      UserError: a text is empty, or the choices cannot be used.
    """
    if texts and task.kind != "multiple_choice":
        raise UserError(
            "--text: not for {}, whose blanks share their candidates; give a file with "
            "--predict_file".format(task.name)
        )
    if not texts:
        return None
    examples = []
    for number, given in enumerate(texts):
        given = [reading.command_line_text("--text", text) for text in given]
        context = _text("--text", "CONTEXT", given[0])
        question = _text("--text", "QUESTION", given[1])
        try:
            names = name_lists.split(given[2])
        except ValueError as error:
            raise _error("--text: CHOICES", "{}", error) from error
        choices = _choices("--text", "CHOICES", list(names), task)
        examples.append(Question(number, context, question, choices, None))
    return reading.ExampleFile("the command line", examples)


def _error(place, problem, *values):
    """The `UserError` of a place, such as "dev.json:3"; "" names none."""
    problem = problem.format(*values)
    return UserError("{}: {}".format(place, problem) if place else problem)


def _numbered(found, needs_ids):
    """Returns examples; questions without an identifier have their numbers.

    Args:
      found: list of (place, example).
      needs_ids: whether predictions are written with identifiers, which must differ.

    Raises:
      UserError: an identifier is repeated, or a tag in several files; those of one
        file differ.
    """
    if not isinstance(found[0][1], Question):
        if needs_ids:
            _check_tags(found)
        return [example for _, example in found]
    numbered = []
    for number, (_, example) in enumerate(found):
        if example.identifier is None:
            example = example._replace(identifier=number)
        numbered.append(example)
    if needs_ids:
        _check_identifiers(found, numbered)
    return numbered


def _check_identifiers(found, numbered):
    """Raises `UserError` where predictions cannot be written with an identifier.

    It is no number and no text, or two of the questions found have the same.
    """
    seen = set()
    for (place, example), question in zip(found, numbered):
        unfit = text_lines.id_problem(question.identifier)
        if unfit:
            raise _error(place, "{}", unfit)
        problem = (
            "a second question of the id {!r}: predictions could not be told apart; "
            "without any id, questions are numbered"
        )
        if example.identifier is None:
            problem = (
                "no id, and its number, {}, is the id of another question; expected "
                "an id for all questions, or for none"
            )
        if question.identifier in seen:
            raise _error(place, problem, question.identifier)
        seen.add(question.identifier)


def _check_tags(found):
    seen = set()
    for place, example in found:
        for blank in example.blanks:
            if blank.tag in seen:
                problem = "a second blank of the tag {}: predictions could not be told "
                raise _error(place, problem + "apart", blank.tag)
            seen.add(blank.tag)


def _require(place, record, names, advice):
    """Raises `UserError` where an object lacks one of these keys."""
    for name in names:
        if name not in record:
            raise _error(place, "no {}; {}", name, advice)


def _text(place, name, value):
    """Returns a text that is not blank; `UserError` for everything else."""
    problem = text_lines.text_problem(name, value)
    if problem:
        raise _error(place, "{}", problem)
    return value


def _texts(place, name, values):
    """Returns a list of texts, checked."""
    if not isinstance(values, list):
        problem = "{} is {:.100}; expected a list of texts"
        raise _error(place, problem, name, repr(values))
    return [
        _text(place, "{}: text {} of {}".format(name, number, len(values)), value)
        for number, value in enumerate(values, start=1)
    ]


def _choices(place, name, values, task, may_repeat=False):
    """Returns a tuple of choices, checked."""
    choices = _texts(place, name, values)
    if not 2 <= len(choices) <= task.most_choices:
        problem = "{} has {}; expected 2 to {}"
        raise _error(place, problem, name, len(choices), task.most_choices)
    repeated = _repeated(choices)
    if repeated is not None and not may_repeat:
        raise _error(place, "{} has {!r} twice", name, repeated)
    return tuple(choices)


def _repeated(choices):
    """Returns the first choice that occurs again later on, or looks as one, or None."""
    cleaned = _cleaned(choices)
    pairs = zip(choices, cleaned)
    return next((text for text, clean in pairs if cleaned.count(clean) > 1), None)


def _answer(place, value, choices):
    """Returns the index of an answer given as a choice's text, None for None."""
    if value is None:
        return None
    if isinstance(value, str) and text_lines.is_blank(value):
        problem = "answer is empty; where answers are not known, leave the field out"
        raise _error(place, problem)
    answer = _text(place, "answer", value)
    for text, known in ((answer, choices), (clean_label(answer), _cleaned(choices))):
        if text in known:
            return known.index(text)
    raise _error(
        place, "answer {!r} is none of the choices {}", answer, name_lists.join(choices)
    )


def _cleaned(choices):
    return [clean_label(choice) for choice in choices]


def _index(place, name, value, choices):
    """Returns an index of a choice, checked."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _error(place, "{} is {:.100}; expected an index", name, repr(value))
    if not 0 <= value < len(choices):
        problem = "{} is {}; expected an index from 0 to {}"
        raise _error(place, problem, name, value, len(choices) - 1)
    return value


def _read_c3(path, task, with_answers):
    """Yields (place, `Question`) of a file of C3."""
    num_repeated = 0
    for i, item in enumerate(json_files.read(path, {"type": "array"}, _C3_ADVICE)):
        place = "{}: item {}".format(path, i + 1)
        is_item = isinstance(item, list) and len(item) in (2, 3)
        if not is_item or not isinstance(item[1], list) or not item[1]:
            raise _error(place, _C3_ADVICE)
        lines = item[0]
        if not isinstance(lines, list) or not all(isinstance(x, str) for x in lines):
            problem = "context is {:.100}; expected a list of texts"
            raise _error(place, problem, repr(lines))
        context = _text(place, "context", "\n".join(lines))
        for j, record in enumerate(item[1]):
            place = "{}: item {}, question {}".format(path, i + 1, j + 1)
            question = _c3_question(place, context, record, task, with_answers)
            num_repeated += _repeated(question.choices) is not None
            yield place, question
    if num_repeated:
        _LOGGER.warning(
            "%s: questions that have the same choice twice: %d; the first one counts",
            path,
            num_repeated,
        )


def _c3_question(place, context, record, task, with_answers):
    if not isinstance(record, dict):
        raise _error(place, "{:.100} is no question", repr(record))
    _require(place, record, ("question", "choice"), _C3_QUESTION_ADVICE)
    # Six of the published questions have one.
    choices = _choices(place, "choice", record["choice"], task, may_repeat=True)
    return Question(
        record.get("id"),
        context,
        _text(place, "question", record["question"]),
        choices,
        _answer(place, record.get("answer"), choices) if with_answers else None,
    )


def _read_questions(path, task, with_answers):
    """Yields (place, `Question`) of a file of one question a line."""
    for line, record in rows.json_lines(path):
        place = "{}:{}".format(path, line)
        yield place, question_of(place, record, task, with_answers)


def question_of(place, record, task, with_answer=False):
    """Makes a question of a JSON object.

    Args:
      place: of the object, for messages; "" for none.
      record: dict with `context`, `question`, `choices` and maybe `id` and `answer`.
      task: a `registry.Task`.
      with_answer: whether `answer` is read.

    Returns:
      `Question`.

    Raises:
      UserError: a field is missing or wrong.
    """
    _require(place, record, ("context", "question", "choices"), _QUESTION_ADVICE)
    choices = _choices(place, "choices", record["choices"], task)
    answer = record.get("answer") if with_answer else None
    if isinstance(answer, (str, type(None))):
        answer = _answer(place, answer, choices)
    else:
        answer = _index(place, "answer", answer, choices)
    return Question(
        record.get("id"),
        _text(place, "context", record["context"]),
        _text(place, "question", record["question"]),
        choices,
        answer,
    )


def path_of_answers(path):
    """Path of the file with the answers to a file of ChID."""
    stem, extension = os.path.splitext(path)
    return stem + "_answer" + extension


def _read_chid(path, task, with_answers):
    """Yields (place, `Cloze`) of a file of ChID and of the answers beside it."""
    answer_path, answers = path_of_answers(path), None
    if with_answers and files.exists(answer_path):
        answers = json_files.read(answer_path, {"type": "object"}, _ANSWERS_ADVICE)
    seen = set()
    for line, record in rows.json_lines(path):
        place = "{}:{}".format(path, line)
        yield place, cloze_of(place, record, task, seen, answers, answer_path)
    if answers is not None and len(answers) > len(seen):
        raise _error(
            answer_path,
            "{} of its answers are for blanks that {} does not hold, such as {}",
            len(answers) - len(seen),
            path,
            next(tag for tag in answers if tag not in seen),
        )


def cloze_of(place, record, task, seen, answers=None, answer_path=None):
    """Makes a cloze of a JSON object.

    Args:
      place: of the object, for messages; "" for none.
      record: dict with `candidates` and `content`, the texts.
      task: a `registry.Task`.
      seen: set of the tags of blanks so far; those of this cloze are added.
      answers: dict tag -> index of the right candidate, None where not known.
      answer_path: where the answers are from, for messages.

    Returns:
      `Cloze`.

    Raises:
      UserError: a field is missing or wrong, or a tag is one of those seen.
    """
    _require(place, record, ("content", "candidates"), _CHID_ADVICE)
    choices = _choices(place, "candidates", record["candidates"], task)
    contents = _texts(place, "content", record["content"])
    blanks = []
    for content in contents:
        blanks += _blanks(place, content, choices, answers, answer_path)
    _check_blanks(place, blanks, contents, choices, seen)
    return Cloze(choices, tuple(blanks))


def _blanks(place, content, choices, answers, answer_path) -> List[Blank]:
    """Returns the blanks of one text."""
    blanks = []
    for match in TAG.finditer(content):
        tag, answer = match.group(), None
        if answers is not None:
            if tag not in answers:
                raise _error(place, "{} has no answer in {}", tag, answer_path)
            where = "{}: {}".format(place, answer_path)
            answer = _index(where, tag, answers[tag], choices)
        before, after = content[: match.start()], content[match.end() :]
        blanks.append(Blank(tag, before, after, answer))
    return blanks


def _check_blanks(place, blanks, contents, choices, seen):
    """Checks the blanks of a line; adds their tags to the set of those `seen`."""
    if not blanks:
        problem = "content has no blank, such as #idiom000000#"
        if any(_UNNUMBERED_TAG in content for content in contents):
            problem += "; {} has no number".format(_UNNUMBERED_TAG)
        raise _error(place, "{}", problem)
    if len(blanks) > len(choices):
        problem = "{} blanks for {} candidates, each of which is used once at most"
        raise _error(place, problem, len(blanks), len(choices))
    for blank in blanks:
        if blank.tag in seen:
            raise _error(place, "{} occurs twice", blank.tag)
        seen.add(blank.tag)


# `Task.file_form` -> function (path, task, with answers) that yields (place, example).
READERS = {"c3": _read_c3, "chid": _read_chid, "questions": _read_questions}
