"""Questions out of files in SQuAD's JSON form, strictly.

    {"data": [{"paragraphs": [{"context": "...", "qas": [
        {"id": "...", "question": "...", "answers": [
            {"text": "...", "answer_start": 17}]}]}]}]}

Fields beside these are not read, but for `is_impossible` of SQuAD 2. Offsets count
characters (code points) of `context`.
"""

import collections
import json
import logging
from typing import NamedTuple, Optional, Tuple

from albert_zh.base import files, json_files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError
from albert_zh.tasks import answer_metrics, reading, text_lines

_LOGGER = logging.getLogger(__name__)

# An offset may be wrong by so many characters: annotators counted a line end or a byte
# order mark, or removed outer white space from the answer.
MAX_OFFSET_ERROR = 3

# The fields that are read; "?" marks those that may be absent.
_ANSWER = {"text": str, "answer_start?": int}
_QUESTION = {"id": str, "question": str, "answers?": [_ANSWER], "is_impossible?": bool}
_FORM = {"data": [{"paragraphs": [{"context": str, "qas": [_QUESTION]}]}]}
_TYPES = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class Question(NamedTuple):
    """One question about a text.

    Attributes:
      id: the key of its prediction.
      question: str.
      context: the text that answers are cut from.
      answers: texts that are right; () where the question has no answer; None where the
        file does not say.
      span: half-open span of characters of `context`, the answer to train on; None
        where there is none, or where the question is not to train on.
    """

    id: str
    question: str
    context: str
    answers: Optional[Tuple[str, ...]] = None
    span: Optional[Tuple[int, int]] = None

    @property
    def label(self):
        """`answers`, under the name all examples have it."""
        return self.answers


def from_command_line(pairs):
    """Makes questions of texts that the command line gives.

    Args:
      pairs: list of [question, context], of --text_pair.

    Returns:
      `reading.ExampleFile`, None without any.

    Raises:
      UserError: a text is empty.
    """
    examples = [
        Question(str(i), *(reading.command_line_text("--text_pair", t) for t in pair))
        for i, pair in enumerate(pairs)
    ]
    return reading.ExampleFile("the command line", examples) if examples else None


class SquadReader(NamedTuple):
    """Reads files of SQuAD's form, for `splits.TaskData`.

    Attributes:
      with_negative: whether a question without any answer is one to train on.
      skip_unanswerable: whether to train without the questions whose answers cannot be
        cut from their context; they are counted.
    """

    with_negative: bool = False
    skip_unanswerable: bool = False

    def read_examples(
        self, path, labels, placeholders_allowed=False, is_training=False
    ):
        """Reads a file to train on, or to score.

        To train, the first answer that stands in the context is taken. Where the
        context has another text at its offset, but the answer within
        `MAX_OFFSET_ERROR` characters, or only once where the offset is -1 or missing,
        the offset is corrected, and counted. An offset in the middle between two
        occurrences is refused: neither CMRC 2018's files nor DRCD's have one. To score,
        offsets are not read, and all questions count; how many have no answer that can
        be cut from their context is logged.

        Args:
          path: local or remote file.
          labels: not used; this kind of task has none.
          placeholders_allowed: whether to read a file as one without answers if none of
            them stands in its context and no offset is given, as in test files whose
            answers are held back.
          is_training: whether the questions need an answer to train on.

        Returns:
          `reading.ExampleFile`.

        Raises:
          UserError: names the file and the field, or the question, that cannot be used.
        """
        del labels
        found = list(_questions(path))
        _check_all_or_none(path, found)
        has_answers = any(question.answers for _, question, _ in found)
        if placeholders_allowed and all(_is_placeholder(*item) for item in found):
            has_answers = False
        if not has_answers:
            found = [(place, _unlabelled(q), []) for place, q, _ in found]
        data = reading.ExampleFile(path, [question for _, question, _ in found])
        if is_training and data.has_labels:
            return data._replace(examples=self._to_train_on(path, found))
        _report_unreachable(data)
        return data

    def read_texts(self, path, labels, needs_ids=True):
        """Reads a file to predict.

        Args:
          path: as `read_examples` takes it.
          labels: not used.
          needs_ids: whether predictions are written with ids, which must differ.

        Returns:
          `reading.ExampleFile` without answers.

        Raises:
          UserError: as of `read_examples`.
        """
        del labels
        questions = [_unlabelled(q) for _, q, _ in _questions(path, needs_ids)]
        return reading.ExampleFile(path, questions)

    def no_labels(self, path):
        """Returns the `UserError` of a file that should have answers, and has none."""
        return UserError(
            "{}: no question has an answer; expected a field answers, a list of "
            "objects with text and answer_start".format(path),
            " (a file without answers can be given as --predict_file)",
        )

    def _to_train_on(self, path, found):
        """Returns the list of the questions of a file with their spans."""
        counts = collections.Counter()
        examples, unusable = [], []
        for place, question, starts in found:
            span = _locate_first(path, place, question, starts, counts)
            if span or (self.with_negative and not question.answers):
                examples.append(question._replace(span=span))
            else:
                unusable.append(question)
        for what, number in sorted(counts.items()):
            _LOGGER.warning("%s: %d answers %s", path, number, what)
        if unusable:
            self._report_unusable(path, unusable)
        if not examples:
            raise UserError(
                "{}: none of its {} questions has an answer to train on".format(
                    path, len(found)
                )
            )
        return examples

    def _report_unusable(self, path, unusable):
        """Logs how many questions are left out, or raises `UserError`."""
        text = (
            "{}: {} questions have no answer that stands in their context, the first "
            "is {!r}".format(path, len(unusable), printable(unusable[0].id))
        )
        if self.skip_unanswerable:
            _LOGGER.warning("%s; they are left out", text)
            return
        advice = "--skip_unanswerable trains without them"
        if not self.with_negative and not all(q.answers for q in unusable):
            advice += ", --version_2_with_negative learns which have none"
        raise UserError("{}; {}".format(text, advice))


def _questions(path, needs_ids=False):
    """Yields (place in the file, `Question`, list of its answers' offsets) in order.

    Args:
      path: the file.
      needs_ids: whether predictions are written, whose keys the ids are.

    Raises:
      UserError: the file is not of SQuAD's form, or a text is empty, or an id to
        predict for occurs twice, or there is no question.
    """
    places = {}
    for number, entry in enumerate(_read(path)["data"]):
        for i, paragraph in enumerate(entry["paragraphs"]):
            where = "data[{}].paragraphs[{}]".format(number, i)
            _require_text(path, where, paragraph, "context")
            for j, item in enumerate(paragraph["qas"]):
                place = "{}.qas[{}]".format(where, j)
                _require_text(path, place, item, "id")
                question_id = item["id"].strip()
                if needs_ids and question_id in places:
                    raise UserError(
                        "{}: {}.id: {!r} is the id of {}, too; ids must differ".format(
                            path, place, question_id, places[question_id]
                        )
                    )
                places[question_id] = place
                yield (place,) + _question(question_id, item, paragraph["context"])
    if not places:
        raise UserError("{}: no questions".format(path))


def _read(path):
    try:
        value = json_files.parse(files.read_bytes(path), {})
        _check_form(value, _FORM, "")
    except ValueError as error:
        raise UserError(
            "{}: {}; expected JSON of SQuAD's form".format(path, error)
        ) from error
    return value


def _check_form(value, form, place):
    """Raises ValueError, with the place, where a JSON value is not of a form.

    A JSON Schema would say the same, and take a minute for SQuAD's training file.
    """
    kind = form if isinstance(form, type) else type(form)
    if type(value) is not kind:
        raise ValueError(
            "{}expected {}, received {}".format(
                place and place + ": ", _TYPES[kind], _shown(value)
            )
        )
    if kind is list:
        for i, item in enumerate(value):
            _check_form(item, form[0], "{}[{}]".format(place, i))
    elif kind is dict:
        for name, inner in form.items():
            key = name.rstrip("?")
            if key in value:
                _check_form(value[key], inner, (place + "." + key).lstrip("."))
            elif key == name:
                raise ValueError("{}no field {}".format(place and place + ": ", key))


def _shown(value):
    """The beginning of a JSON value as one short piece of text."""
    text = json.dumps(value, ensure_ascii=False)
    return printable(text if len(text) <= 40 else text[:37] + "...")


def _require_text(path, place, values, name):
    if text_lines.is_blank(values[name]):
        raise UserError("{}: {}.{} is empty".format(path, place, name))


def _question(question_id, item, context):
    """Returns a `Question` and the list of the offsets of its answers."""
    if "answers" not in item:
        answers = () if item.get("is_impossible") else None
        return Question(question_id, item["question"], context, answers), []
    # An empty text says that there is no answer, and so do SQuAD 2's "plausible" ones.
    answers = [
        (answer["text"], answer.get("answer_start", -1))
        for answer in item["answers"]
        if not text_lines.is_blank(answer["text"]) and not item.get("is_impossible")
    ]
    texts = tuple(text for text, _ in answers)
    question = Question(question_id, item["question"], context, texts)
    return question, [start for _, start in answers]


def _unlabelled(question):
    return question._replace(answers=None)


def _check_all_or_none(path, found):
    """Raises `UserError` where some questions have the field answers, and some not."""
    with_answers, without = (
        [place for place, question, _ in found if (question.answers is None) == missing]
        for missing in (False, True)
    )
    if with_answers and without:
        raise UserError(
            "{}: {} has no answers, while {} has; a question that has none in its "
            "context needs an empty list".format(path, without[0], with_answers[0])
        )


def _report_unreachable(data):
    """Logs how many questions of a `reading.ExampleFile` no prediction can answer."""
    unreachable = [
        question.id
        for question in data.examples
        if not answer_metrics.can_match(question.answers, question.context)
    ]
    if unreachable:
        _LOGGER.warning(
            "%s: %d of %d questions have no answer that stands in their context, the "
            "first is %r; scored, they are never an exact match",
            data.path,
            len(unreachable),
            len(data.examples),
            printable(unreachable[0]),
        )


def _is_placeholder(place, question, starts):
    """Whether what stands for the answers of a question cannot be one."""
    del place
    return not any(
        start >= 0 or answer in question.context
        for answer, start in zip(question.answers or (), starts)
    )


def _locate_first(path, place, question, starts, counts):
    """The span of the first answer that stands in the context, or None.

    All answers are looked at: a wrong offset among them is a fault of the file.

    Args:
      path, place: of the question, for messages.
      question: `Question`.
      starts: list of the offsets of its answers.
      counts: `Counter` of what is to be told of answers; updated.

    Raises:
      UserError: the offset of an answer points elsewhere.
    """
    spans = []
    for number, (answer, start) in enumerate(zip(question.answers, starts)):
        text = answer.strip()
        start += len(answer) - len(answer.lstrip()) if start >= 0 else 0
        places = _occurrences(question.context, text)
        if not places:
            counts["stand nowhere in their context"] += 1
            continue
        found = _choose(places, start)
        if found is None:
            raise UserError(
                "{}: {}.answers[{}] (id {!r}): the context has {!r} at {}, not at "
                "answer_start {}; correct the offset".format(
                    path,
                    place,
                    number,
                    printable(question.id),
                    printable(text[:40]),
                    ", ".join(map(str, places[:5])),
                    starts[number],
                )
            )
        if found != start:
            counts["had a wrong or no offset, which was corrected"] += 1
        spans.append((found, found + len(text)))
    return spans[0] if spans else None


def _occurrences(context, text):
    """Returns the offsets of all occurrences of a text, also of overlapping ones."""
    places, start = [], context.find(text)
    while start >= 0:
        places.append(start)
        start = context.find(text, start + 1)
    return places


def _choose(places, start):
    """Returns which occurrence an offset means; None if that is none, or not clear."""
    if start < 0:  # unknown
        return places[0] if len(places) == 1 else None
    least = min(abs(place - start) for place in places)
    nearest = [place for place in places if abs(place - start) == least]
    is_one = len(nearest) == 1 and least <= MAX_OFFSET_ERROR
    return nearest[0] if is_one else None
