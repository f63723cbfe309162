"""JSON files, checked against a schema when they are read.

They may be damaged, truncated, edited or from another source, so that types are
checked before any value is used.
"""

import json
import math
import re

import jsonschema

from albert_zh.base import files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError

_SHOWN_CHARACTERS = 200
# Every integer of at most so many digits can be made a float.
_MAX_DIGITS = 300
# The escape of half a surrogate pair, and of a whole one.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

# JSON Schema accepts 1.0 as an integer; Python does not.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft7Validator,
    type_checker=jsonschema.Draft7Validator.TYPE_CHECKER.redefine(
        "integer",
        lambda checker, value: isinstance(value, int) and not isinstance(value, bool),
    ),
)


def read(path, schema, advice):
    """Reads a JSON file.

    Args:
      path: local or remote file, UTF-8, with or without a byte-order mark.
      schema: dict, JSON Schema draft 7.
      advice: str, what to do about a damaged file; ends the message.

    Returns:
      The value in the file.

    Raises:
      UserError: the file cannot be read, is not JSON or does not match the schema.
    """
    try:
        return parse(files.read_bytes(path), schema)
    except ValueError as error:
        raise UserError("{}: damaged ({}); {}".format(path, error, advice)) from error


def write(value, path):
    """Writes a JSON file that appears whole or not at all: UTF-8, indented.

    Raises:
      UserError: it cannot be written.
    """
    files.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", path)


def parse(content, schema):
    """Parses JSON from bytes.

    Args:
      content: bytes, UTF-8, with or without a byte-order mark.
      schema: dict, JSON Schema draft 7.

    Returns:
      The value.

    Raises:
      ValueError: it is not JSON, holds NaN, infinity, an integer of more than 300
        digits, half a surrogate pair or a key twice, is nested too deeply, or does not
        match the schema; says where.
    """
    try:
        text = content.decode("utf-8-sig")
        value = loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_moderate_integer,
        )
        if _SURROGATE.search(text):
            # An escaped half of a surrogate pair cannot be encoded in a file.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        check(value, schema)  # its messages show values, nested as deeply
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise ValueError("byte {} is not UTF-8".format(error.start)) from error
    return value


def loads(text, **hooks):
    """`json.loads` that does not drop the first value of a key given twice.

    Args:
      text: str.
      **hooks: as `json.loads` takes them.

    Returns:
      The value.

    Raises:
      ValueError: it is not JSON, holds a key twice, or is nested too deeply.
    """
    # The last one built: of nested objects, the inner ones are built first, so that no
    # other repeat can have dropped it from the value.
    repeat = None  # (object, key)

    def build(pairs):
        nonlocal repeat
        value = dict(pairs)
        if len(value) < len(pairs):
            repeat = value, _first_repeat(key for key, _ in pairs)
        return value

    try:
        value = json.loads(text, object_pairs_hook=build, **hooks)
        if repeat:
            problem = "it holds the key {:.100} twice".format(repr(repeat[1]))
            raise ValueError(_with_place(_path_to(value, repeat[0]), problem))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _first_repeat(keys):
    """Returns the first of the keys that is not the first of its kind."""
    seen = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


def _path_to(value, wanted):
    """Returns the list of keys that lead to an object within a value, or None."""
    if value is wanted:
        return []
    items = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        path = _path_to(item, wanted)
        if path is not None:
            return [key] + path
    return None


def check(value, schema):
    """Checks a value that JSON can hold.

    Args:
      value: the value.
      schema: dict, JSON Schema draft 7.

    Raises:
      ValueError: it does not match the schema; says where.
    """
    error = jsonschema.exceptions.best_match(_Validator(schema).iter_errors(value))
    if error is not None:
        raise ValueError(_describe(error))


def _refuse_constant(name):
    raise ValueError("it holds {}, which is no JSON".format(name))


def _moderate_integer(text):
    if len(text) > _MAX_DIGITS:
        raise ValueError("it holds an integer of {:,} digits".format(len(text)))
    return int(text)


def _finite_float(text):
    value = float(text)
    if math.isinf(value):
        raise ValueError("it holds {}, beyond the range of numbers".format(text[:20]))
    return value


def _describe(error):
    """Describes a `jsonschema.ValidationError` in one line, with its place."""
    message = error.message
    if len(message) > _SHOWN_CHARACTERS:
        message = "{} does not match {} {}".format(
            str(error.instance)[: _SHOWN_CHARACTERS // 2] + "...",
            error.validator,
            str(error.validator_value)[: _SHOWN_CHARACTERS // 2],
        )
    return _with_place(error.absolute_path, message)


def _with_place(path, message):
    """A message about the value that keys and indices lead to, in one line."""
    place = "".join(
        "[{}]".format(key) if isinstance(key, int) else "." + str(key) for key in path
    ).lstrip(".")
    return printable("{}: {}".format(place, message) if place else message)
