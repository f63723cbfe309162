"""What the engines share."""

# What a message about a task holds: an amount of progress, its result, the text of
# its `UserError`, the traceback of another exception.
PROGRESS, RESULT, USER_ERROR, ERROR = range(4)


class Engine:
    """What engines share: a `with` block ends by `close()`."""

    def close(self):
        """Gives up what the engine holds; it can be called again."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def ignore(amount):
    """Stands in for a progress function."""
