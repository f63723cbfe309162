"""What stands in the label column: one class, several classes, or a number."""

import abc
import json
import math
import re

from albert_zh.base import name_lists
from albert_zh.models.settings import is_label
from albert_zh.tasks.registry import clean_label

# What files to be predicted have where labelled ones have the label.
_PLACEHOLDERS = ("", "?", "-", "-1", "0", "none", "null", "nan", "unknown", "未知")


# Squared errors are float32, which ends at 3.4e38.
_MAX_NUMBER = 1e18

# Seldom within a name; or digits with spaces between them, one for each class.
_OTHER_SEPARATOR = re.compile(r"[，；;|]|^[01]( [01])+$")


class LabelForm(abc.ABC):
    """How a label column is read."""

    @abc.abstractmethod
    def parse(self, value, labels):
        """The label of an example.

        Args:
          value: text of a cell, or what JSON has.
          labels: sequence of the labels allowed, None for any.

        Returns:
          The label as `reading.Example` has it; it may be none of `labels`.

        Raises:
          ValueError: says what is wrong.
        """

    @abc.abstractmethod
    def unknown(self, label, labels):
        """Returns a name in a parsed label that is none of `labels`, or None."""

    def is_placeholder(self, value):
        """Whether a file without labels may have this in their place."""
        return clean_label(str(value)).lower() in _PLACEHOLDERS


class OneClass(LabelForm):
    """The name of a class; JSON may have an integer, or true or false. It is a str."""

    def parse(self, value, labels):
        if not isinstance(value, (str, int)):
            problem = "label is {:.100}; expected text or an integer"
            raise ValueError(problem.format(repr(value)))
        if isinstance(value, bool) and not (labels and str(value) in labels):
            value = json.dumps(value)
        label = _known(str(value), labels)
        if not label:
            raise ValueError("label is empty")
        if not is_label(label):
            problem = "label {!r} holds a control character, such as a line end"
            raise ValueError(problem.format(label))
        return label

    def unknown(self, label, labels):
        return None if label in labels else label


class SeveralClasses(LabelForm):
    """Names of classes: a JSON list, or a cell that is a line of CSV. It may be empty.

    A label is a tuple of str, without repetitions.
    """

    def parse(self, value, labels):
        if isinstance(value, str):
            value = _split_names(value, labels)
        elif not isinstance(value, (list, tuple)):
            problem = "label is {:.100}; expected a list of names, or names and commas"
            raise ValueError(problem.format(repr(value)))
        names = [OneClass().parse(name, labels) for name in value]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError("label {!r} stands there twice".format(min(repeated)))
        return tuple(names)

    def unknown(self, label, labels):
        return next((name for name in label if name not in labels), None)


class Number(LabelForm):
    """A number of at most `_MAX_NUMBER`, also below 0. A label is a float."""

    def parse(self, value, labels):
        try:
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise ValueError
            text = clean_label(str(value))
            # Python reads 1_5 as 15.
            number = math.nan if "_" in text else float(text)
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            problem = "label is {:.100}; expected a number"
            raise ValueError(problem.format(repr(value)))
        if abs(number) > _MAX_NUMBER:
            problem = "label is {:.100}; expected a number from -1e18 to 1e18"
            raise ValueError(problem.format(repr(value)))
        return number

    def unknown(self, label, labels):
        return None


FORMS = {
    "classification": OneClass(),
    "multi_label": SeveralClasses(),
    "regression": Number(),
}


def _split_names(text, labels):
    """Names in a cell. Where any are allowed, it may not have other separators."""
    names = name_lists.split(text) if text.strip() else ()
    for name in names:
        if labels is None and '"' not in text and _OTHER_SEPARATOR.search(name):
            problem = (
                "label {!r} seems to be several; put ',' between names, and quotation "
                "marks around one that has other separators, or give all with --labels"
            )
            raise ValueError(problem.format(name))
    return names


def _known(text, labels):
    """A label without invisible characters; one of `labels` stays as it is."""
    text = text.strip()
    return text if labels and text in labels else clean_label(text)
