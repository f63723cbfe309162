"""The exceptions that end a command in one line."""

import contextlib


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one line that says what was received, what was expected and
    what to do; commands print it and nothing else.
    """


class Stopped(Exception):
    """A run was told to end, has saved what it did, and can go on later.

    The message is one line that says where it stands and how to go on; commands
    print it and exit with code 0.
    """


@contextlib.contextmanager
def as_user_error(*exception_types):
    """Turns exceptions of these types, raised inside the block, into `UserError`.

    For calls into modules that know nothing of commands (`modeling`,
    `tokenization`) and raise plain `ValueError` or `OSError` on bad input.
    """
    try:
        yield
    except exception_types as error:
        raise UserError(str(error)) from error
