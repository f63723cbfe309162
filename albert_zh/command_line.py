"""What every command shares: start-up check, parser, logging, one-line errors.

A command imports this module first. It needs nothing but the standard library, and from
then on an interpreter that lacks a package is told so in one line, not by a traceback.
"""

import argparse
import os
import re
import sys

from albert_zh.base import console, name_lists
from albert_zh.base.errors import Stopped, UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# The largest float32, and the smallest that has all of its digits.
_MAX_FLOAT32 = 2.0**128 - 2.0**104
_MIN_FLOAT32 = 2.0**-126

# Modules that are not called as their packages are.
_PACKAGES = {"google_crc32c": "google-crc32c"}
# Their newest versions are too new; requirements.txt has the right ones.
_NEED_THEIR_VERSION = ("tensorflow", "google")

_LOCAL_SCHEME = "file://"
# No argument can hold it.
_TEXT_MARK = "\0"

# What is wrong with a flag's value "".
_EMPTY = "expected a value; was it that of an unset variable?"
# Flags for which "" is a value.
_MAY_BE_EMPTY = frozenset(["text_field"])

# A byte of an argument that is no text in the locale's encoding.
_SURROGATE = re.compile("[\ud800-\udfff]")

# The C++ side of TensorFlow 2.15 logs every start at ERROR level (cuDNN, cuBLAS
# "factories"); real errors arrive as exceptions. The environment still wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _explain(kind, error, traceback):
    """A `sys.excepthook` that shows one line where an import ends a command.

    It found no package, or Ctrl-C came: TensorFlow takes seconds to import.

    Raises:
      SystemExit: with code 2 or 130 in these cases.
    """
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("{}: interrupted\n".format(os.path.basename(sys.argv[0])))
        sys.exit(EXIT_INTERRUPTED)
    if not issubclass(kind, ModuleNotFoundError) or not error.name:
        sys.__excepthook__(kind, error, traceback)
        return
    name = error.name.split(".")[0]
    # Predictions with ONNX Runtime need few packages: not all for the lack of one.
    advice = "`pip install {}` for this one, or ".format(_PACKAGES.get(name, name))
    sys.stderr.write(
        "{}: error: Python {}.{} ({}) has no {}; run {}`pip install -r "
        "requirements.txt` with Python 3.7 or 3.9-3.11\n".format(
            os.path.basename(sys.argv[0]),
            *sys.version_info[:2],
            sys.executable,
            name,
            "" if name in _NEED_THEIR_VERSION else advice,
        )
    )
    sys.exit(EXIT_USER_ERROR)


sys.excepthook = _explain


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but for flags that have none."""

    def _get_help_string(self, action):
        if action.default is None:
            return action.help
        return super()._get_help_string(action)


class ArgumentParser(argparse.ArgumentParser):
    """An `argparse` parser with absl-style booleans and one-line errors.

    Flags are spelled as in the published scripts (`--do_train=True`,
    `--do_train`), are never abbreviated, and show their defaults in `--help`.
    """

    def __init__(self, description):
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        self._text_flags = {}
        self._passed_on = None

    def error(self, message):
        message = console.printable_lines(message)
        self.exit(EXIT_USER_ERROR, "{}: error: {}\n".format(self.prog, message))

    @property
    def flags(self):
        """The frozenset of the flags there are, with their dashes."""
        return frozenset(self._option_string_actions)

    def add_bool(self, name, default, help):
        """Adds a flag taken as `--name`, `--name=true` or `--name=False`."""
        self.add_argument(
            name, type=_boolean, nargs="?", const=True, default=default, help=help
        )

    def add_texts(self, name, number, help):
        """Adds a flag that takes texts, which may begin with a minus sign.

        Args:
          name: of the flag, which may be given repeatedly.
          number: of texts that belong together; the value is a list of lists of them.
          help: as `argparse` takes it.
        """
        self._text_flags[name] = number
        self.add_argument(
            name,
            nargs=number,
            action="append",
            type=lambda text: text.replace(_TEXT_MARK, ""),
            default=[],
            help=help,
        )

    def add_passed_on(self, name, help):
        """Takes what follows `--`, the flags of other commands, as a list of str.

        Args:
          name: in the namespace.
          help: what becomes of them.
        """
        self._passed_on = name
        self.epilog = "-- FLAG ...: " + help

    def _split_passed_on(self, args):
        """Returns the arguments before `--` and those after it, as lists."""
        if self._passed_on is None or "--" not in args:
            return args, []
        place = args.index("--")
        return args[:place], args[place + 1 :]

    def _mark_texts(self, args):
        """Marks the texts among the arguments, so that none is taken for a flag."""
        marked, num_texts = [], 0
        for arg in args:
            is_flag = arg.split("=")[0] in self._option_string_actions
            marked.append(_TEXT_MARK + arg if num_texts > 0 and not is_flag else arg)
            num_texts = self._text_flags.get(arg, 0) if is_flag else num_texts - 1
        return marked

    def parse_args(self, args=None, namespace=None):
        """Parses like `argparse`.

        Returns:
          Namespace; its `given` is the frozenset of the flags that the user gave, by
          their names in the namespace.
        """
        args = sys.argv[1:] if args is None else args
        args, passed_on = self._split_passed_on(args)
        args = self._mark_texts(args)
        parsed = super().parse_args(args, namespace)
        for action in self._actions:
            problem = _path_problem(action, getattr(parsed, action.dest, None))
            if problem and action.option_strings:
                self.error("{}: {}".format(action.option_strings[0], problem))
        defaults = {action: action.default for action in self._actions}
        for action in defaults:
            action.default = argparse.SUPPRESS
        try:
            parsed.given = frozenset(vars(super().parse_args(args)))
        finally:
            for action, default in defaults.items():
                action.default = default
        if self._passed_on is not None:
            setattr(parsed, self._passed_on, passed_on)
        return parsed


def _path_problem(action, value):
    """What is wrong with a flag's value if it is a path, or None."""
    if value == "" and (action.required or action.dest.startswith("output")):
        return "expected a value"
    for path in value.split(",") if isinstance(value, str) else ():
        # As remote, local files would go without locks and other protections.
        if path.strip().startswith(_LOCAL_SCHEME):
            return "{}: give local paths without {}".format(path.strip(), _LOCAL_SCHEME)
    return None


def _boolean(text):
    values = {"true": True, "t": True, "1": True, "yes": True}
    values.update({"false": False, "f": False, "0": False, "no": False})
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(
            "expected true or false, received {!r}".format(text)
        )
    return values[text.lower()]


def _check_not_empty(args):
    """Raises `UserError` where a flag was given the value "".

    Args:
      args: Namespace of `ArgumentParser.parse_args`.
    """
    for name in sorted(args.given - _MAY_BE_EMPTY):
        if getattr(args, name) == "":
            raise UserError("--{}: {}".format(name, _EMPTY))


def names(text):
    """An `argparse` type: a tuple of names separated by commas, as in CSV."""
    if not text.strip():
        raise argparse.ArgumentTypeError(_EMPTY)
    try:
        return name_lists.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def share(text):
    """An `argparse` type: a number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("expected 0 to below 1, received " + text)
    return value


def _float32(text, expected, least=-_MAX_FLOAT32):
    """The number of a text.

    Args:
      text: str.
      expected: str, for the message.
      least: float, the smallest number.

    Raises:
      argparse.ArgumentTypeError: it is smaller, infinite or too large for float32,
        which models compute in.
    """
    value = float(text)
    if not least <= value <= _MAX_FLOAT32:
        raise argparse.ArgumentTypeError(
            "expected {} up to 3.4e38 (float32), received {}".format(expected, text)
        )
    return value


def positive_number(text):
    """An `argparse` type: a number above 0 that float32 can hold with all digits."""
    return _float32(text, "more than 0,", _MIN_FLOAT32)


def finite_number(text):
    """An `argparse` type: a number that float32 can hold."""
    return _float32(text, "-3.4e38")


def non_negative_number(text):
    """An `argparse` type: a number, 0 or above, that float32 can hold."""
    return _float32(text, "0", 0.0)


def number_between(least, most):
    """Returns an `argparse` type: a number from `least` to `most`.

    For factors of losses and logits, of which greater ones overflow when multiplied.
    """

    def number(text):
        value = float(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                "expected {:g} to {:g}, received {}".format(least, most, text)
            )
        return value

    return number


def positive_int(text):
    """An `argparse` type: an integer from 1 to 2**31 - 1."""
    value = int(text)
    if not 0 < value < 2**31:
        raise argparse.ArgumentTypeError("expected 1 to 2**31 - 1, received " + text)
    return value


def non_negative_int(text):
    """An `argparse` type: an integer from 0 to 2**31 - 1, as seeds and steps are."""
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError("expected 0 to 2**31 - 1, received " + text)
    return value


def run(main, parser, argv=None):
    """Parses the flags and calls `main(args)`; a `UserError` ends in one line.

    Args:
      main: function of one argument, the parsed `argparse.Namespace`.
      parser: the command's `ArgumentParser`.
      argv: list of arguments, `sys.argv[1:]` when None.

    Raises:
      SystemExit: with code 2 for a user's mistake, 130 after Ctrl-C, 0 where SIGTERM
        has stopped a run in good order.
    """
    console.set_up()
    args = parser.parse_args(argv)
    try:
        _check_not_empty(args)
        main(args)
    except UserError as error:
        message = error.for_flags(parser.flags)
        parser.error(" ".join(message.split("\n")))
    except UnicodeEncodeError as error:
        if not _SURROGATE.search(error.object):
            raise
        # Of a path: Python takes any, TensorFlow does not.
        parser.error("{!r} is not UTF-8; rename it".format(error.object))
    except Stopped as stopped:
        console.show("{}\n".format(stopped))
        parser.exit(stopped.exit_code)
    except KeyboardInterrupt:
        parser.exit(EXIT_INTERRUPTED, "{}: interrupted\n".format(parser.prog))
