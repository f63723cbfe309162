"""Instances and answers: plain dicts, as a program or a request holds them.

An instance is a dict of texts, an answer a dict of JSON types. Each kind of task has a
`Form` that turns the one into an example of its `kind.Kind`, and the Kind's prediction
into the other.
"""

import abc

import numpy as np

from albert_zh.base.errors import UserError
from albert_zh.tasks import (
    choice_features,
    choices,
    reading,
    squad_files,
    tagged_texts,
    text_lines,
)

# A text that is to be cut, with the most tokens.
LONGER = "longer than the {} tokens that the model takes; shorten it"


class Form(abc.ABC):
    """How instances of a kind of task look, and how its answers do.

    Attributes:
      fields: tuple of the keys of an instance, in the order in which texts alone are
        taken.
      may_cut: bool, whether a text, or a part of an instance, may be too long, so that
        it is cut or refused; else windows hold all of it.
    """

    fields = ()
    may_cut = True

    def __init__(self, kind):
        """`kind` is the `kind.Kind` of the model."""
        self._kind = kind

    def example(self, instance):
        """Makes an example of an instance.

        Args:
          instance: dict; or a str for the only field, or a list or tuple of str for
            all fields.

        Returns:
          What the kind takes.

        Raises:
          UserError: one line that says what is wrong with the instance.
        """
        record = self._record(instance)
        for name in record:
            if name not in self.fields:
                problem = "unknown field {:.50}; {}"
                raise UserError(problem.format(repr(name), self._expected(record)))
        for name in self._needed(record):
            if name not in record:
                raise UserError("no {}; {}".format(name, self._expected(record)))
        return self._example(record)

    def takes_texts(self, number):
        """Whether this number of texts alone can be an instance."""
        return len(self.fields) == number

    def too_long(self, example, windows):
        """Says that a part of an example stands in none of its windows, or None.

        Args:
          example: the example.
          windows: list of its `features.Features`.
        """
        del example
        is_cut = any(window.is_truncated for window in windows)
        return LONGER.format(self._kind.files.max_seq_length) if is_cut else None

    def tokens(self, text):
        """Divides a text as the model does.

        Returns:
          List of (token, start, end), such as `tokenization.Token`.
        """
        return self._kind.tokenizer.tokenize_with_offsets(text)

    def _record(self, instance):
        """Returns an instance as a dict."""
        if isinstance(instance, dict):
            return instance
        fields = self._needed({})
        texts = [instance] if isinstance(instance, str) else instance
        is_texts = isinstance(texts, (list, tuple)) and len(texts) == len(fields)
        if is_texts and all(isinstance(text, str) for text in texts):
            return dict(zip(fields, texts))
        problem = "an instance is {:.100}; {}"
        raise UserError(problem.format(repr(instance), self._expected({})))

    def _needed(self, record):
        """The fields that an instance must have, given those it has."""
        del record
        return self.fields

    def _expected(self, record):
        names = ('"{}": ...'.format(name) for name in self._needed(record))
        return "expected {" + ", ".join(names) + "}"

    @abc.abstractmethod
    def _example(self, record):
        """`example` of a dict that has all needed fields and no unknown one."""

    @abc.abstractmethod
    def answer(self, example, prediction):
        """Makes an answer.

        Args:
          example: the example.
          prediction: what the kind's `decode` made of the outputs for it.

        Returns:
          Dict of JSON types.
        """


def _text(record, name):
    """A text of an instance; `UserError` for everything else."""
    problem = text_lines.text_problem(name, record[name])
    if problem:
        raise UserError(problem)
    return record[name]


class TextForm(Form):
    """A text, or a pair of texts; the answer is a label."""

    def __init__(self, kind):
        super().__init__(kind)
        is_pair = kind.files.task.is_pair
        self.fields = ("text_a", "text_b") if is_pair else ("text",)

    def _example(self, record):
        texts = [_text(record, name) for name in self.fields]
        return reading.Example(texts[0], texts[1] if len(texts) > 1 else None, None)

    def _probabilities(self, values):
        return dict(zip(self._kind.files.labels, np.asarray(values, float).tolist()))

    def answer(self, example, prediction):
        return {
            "label": self._kind.files.labels[int(prediction.argmax())],
            "probabilities": self._probabilities(np.exp(prediction)),
        }


class MultiLabelForm(TextForm):
    """The answer is the labels that reach the model's threshold."""

    def answer(self, example, prediction):
        chosen = np.flatnonzero(prediction >= self._kind.threshold)
        return {
            "labels": [self._kind.files.labels[i] for i in chosen],
            "probabilities": self._probabilities(prediction),
        }


class RegressionForm(TextForm):
    """The answer is a number."""

    def answer(self, example, prediction):
        return {"value": prediction}


class TaggingForm(Form):
    """A text; the answer is its entities, with offsets in the text."""

    fields = ("text",)
    may_cut = False

    def _example(self, record):
        return tagged_texts.TaggedText(_text(record, "text"))

    def tokens(self, text):
        """See `Form`; a character each, those of all windows."""
        found = []
        for window in self._kind.build_features(tagged_texts.TaggedText(text)):
            begin, positions = window.origin
            new = slice(len(found) - begin, None)
            ids = window.input_ids[1:-1][new]  # without [CLS] and [SEP]
            tokens = self._kind.tokenizer.convert_ids_to_tokens(ids)
            found += [(t, at, at + 1) for t, at in zip(tokens, positions[new])]
        return found

    def answer(self, example, prediction):
        return {"entities": [dict(entity._asdict()) for entity in prediction]}


class SpanForm(Form):
    """A question about a text; the answer is a part of the text, with its offsets."""

    fields = ("question", "context")

    def too_long(self, example, windows):
        """See `Form`: of the question; the text may be of any length."""
        del windows
        tokens = self._kind.tokenizer.tokenize(example.question)
        most = self._kind.settings.max_query_length
        return "question is " + LONGER.format(most) if len(tokens) > most else None

    def _example(self, record):
        return squad_files.Question("", *(_text(record, name) for name in self.fields))

    def answer(self, example, prediction):
        best = [_span(answer) for answer in prediction.answers]
        chosen = next(span for span in best if span["text"] == prediction.text)
        answer = {"answer": chosen.pop("text"), **chosen}
        return dict(answer, n_best=[_span(answer) for answer in prediction.answers])


def _span(answer):
    """The dict of a `span_extraction.Answer`; that of no answer has no offsets."""
    return {
        "text": answer.text,
        "start": answer.start if answer.text else None,
        "end": answer.end if answer.text else None,
        "probability": answer.probability,
    }


class ChoiceForm(Form):
    """A question with choices; the answer is one of the choices."""

    fields = ("context", "question", "choices")

    def _example(self, record):
        return choices.question_of("", record, self._kind.files.task)

    def answer(self, example, prediction):
        chosen = int(prediction.argmax())
        return {
            "choice": chosen,
            "text": example.choices[chosen],
            "probabilities": np.exp(prediction).astype(float).tolist(),
        }


class ClozeForm(Form):
    """Texts with blanks and candidates for them; the answer has one for each blank."""

    fields = ("content", "candidates")

    def takes_texts(self, number):
        return False

    def too_long(self, example, windows):
        """See `Form`: of a candidate; a blank is judged by the text around it."""
        most = choice_features.most_candidate_tokens(self._kind.files.max_seq_length)
        lengths = map(len, map(self._kind.tokenizer.tokenize, example.choices))
        is_cut = any(window.is_truncated for window in windows) and max(lengths) > most
        return "a candidate is " + LONGER.format(most) if is_cut else None

    def _example(self, record):
        return choices.cloze_of("", record, self._kind.files.task, seen=set())

    def answer(self, example, prediction):
        blanks = []
        for blank, chosen, values in zip(example.blanks, *prediction):
            probabilities = np.exp(values).astype(float).tolist()
            blanks.append(
                {
                    "tag": blank.tag,
                    "choice": int(chosen),
                    "text": example.choices[int(chosen)],
                    "probabilities": probabilities,
                }
            )
        return {"blanks": blanks}


class VectorForm(Form):
    """A text, or a pair of texts; the answer is a vector."""

    fields = ("text", "text_a", "text_b")

    def takes_texts(self, number):
        return number in (1, 2)

    def _needed(self, record):
        return ("text_a", "text_b") if "text_a" in record else ("text",)

    def _record(self, instance):
        if isinstance(instance, (list, tuple)) and len(instance) == 2:
            instance = dict(zip(("text_a", "text_b"), instance))
        return super()._record(instance)

    def _example(self, record):
        needed = self._needed(record)
        if len(record) > len(needed):
            raise UserError("text and text_a cannot be together; give text or a pair")
        texts = [_text(record, name) for name in needed]
        return reading.Example(texts[0], texts[1] if len(texts) > 1 else None, None)

    def answer(self, example, prediction):
        return {"vector": prediction.astype(float).tolist()}


FORMS = {
    "classification": TextForm,
    "cloze": ClozeForm,
    "encoder": VectorForm,
    "multi_label": MultiLabelForm,
    "multiple_choice": ChoiceForm,
    "regression": RegressionForm,
    "span_extraction": SpanForm,
    "tagging": TaggingForm,
}
