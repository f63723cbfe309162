"""The one exception for a user's mistake."""

import contextlib


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that says what was received, what was expected and
    what to do; commands print it and nothing else.
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
