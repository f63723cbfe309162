"""What the engines share."""

# Kinds of message about a task: an amount of progress, its result, the text of its
# `UserError`, the traceback of another exception.
PROGRESS, RESULT, USER_ERROR, ERROR = range(4)


class Engine:
    """Base class of engines: the end of a `with` block calls `close()`."""

    def close(self):
        """Releases the engine's resources; may be called again."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def ignore(amount):
    """Stands in for a progress function."""
