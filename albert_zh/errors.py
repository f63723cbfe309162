"""The one exception for a user's mistake."""


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that says what was received, what was expected and
    what to do; commands print it and nothing else.
    """
