"""The exceptions that end a command in one line."""

import contextlib
import re


class UserError(Exception):
    """The user's input cannot be used.

    The message is one line that says what was received, what was expected and
    what to do. Commands print only this line.

    Attributes:
      advice: str, the end of the message, which names flags; "" for none.
        `command_line.run` leaves it out in commands that lack one of these flags.
    """

    def __init__(self, message, advice=""):
        super().__init__(message + advice)
        self.advice = advice

    def for_flags(self, flags):
        """Returns the message for a command that has these flags, such as "--text"."""
        if flags.issuperset(re.findall(r"--\w+", self.advice)):
            return str(self)
        return str(self)[: -len(self.advice)]


class Stopped(Exception):
    """A run was told to stop, has saved its state, and can be resumed.

    The message is one line that says where it stopped and how to resume. Commands
    print it and exit with `exit_code`.
    """

    def __init__(self, message, exit_code=0):
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def as_user_error(*exception_types):
    """Turns exceptions of these types, raised in the block, into `UserError`.

    For calls of the core modules (`modeling`, `tokenization`), which raise plain
    `ValueError` or `OSError` on bad input.
    """
    try:
        yield
    except exception_types as error:
        raise UserError(str(error)) from error
