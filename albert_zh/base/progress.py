"""Progress of long work: a bar on a terminal, a log line every 30 s elsewhere."""

import datetime
import logging
import time

import tqdm

_LOGGER = logging.getLogger(__name__)

_LOG_SECONDS = 30  # between two log lines


class Progress:
    """Shows how much of a job is done, its speed and the time left.

    This class decides when and where to show it; a subclass words the log line.

    Args:
      total: size of the whole job in units; None if unknown.
      done: units done before this run; they do not count towards its speed.
      unit: name of the unit, for the bar.
      unit_scale: bool; whether the bar shows thousands of units as k, M, G.

    Attributes:
      total: as above.
      done: units done so far.
      rate: units per second of this run up to the last update.
    """

    def __init__(self, total, done=0, unit="it", unit_scale=False):
        self.total = total
        self.done = done
        self.rate = 0.0
        self._initial = done
        self._start = self._logged = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total, initial=done, unit=unit, unit_scale=unit_scale, disable=None
        )

    def __enter__(self):
        return self

    def __exit__(self, *unused_exception):
        self.close()

    def close(self):
        """Ends the bar; it stays on the terminal."""
        self._bar.close()

    def update(self, number):
        """Counts units that have been done; a negative number takes some back."""
        now = time.monotonic()
        self.done += number
        if now > self._start:
            self.rate = (self.done - self._initial) / (now - self._start)
        if not self._bar.disable:
            self._bar.set_postfix(self.measures(), refresh=False)
            self._bar.update(number)
        elif now - self._logged >= _LOG_SECONDS:
            self._logged = now
            self.log()

    def time_left(self):
        """Returns the `datetime.timedelta` left at this rate; 0 if it is unknown."""
        is_known = self.total is not None and self.rate > 0
        seconds = (self.total - self.done) / self.rate if is_known else 0
        return datetime.timedelta(seconds=int(seconds))

    def log(self):
        """Logs a line now."""
        _LOGGER.info("%s", self.line())

    def line(self):
        """Returns the log line."""
        raise NotImplementedError

    def measures(self):
        """Returns a dict name -> text of what the bar shows besides."""
        return {}


class ByteProgress(Progress):
    """Progress in bytes.

    Args:
      num_bytes: bytes of the whole job; None if unknown.
      done: bytes done before this run.
      name: what the bytes are of; opens the log line.
    """

    def __init__(self, num_bytes, done=0, name=None):
        super().__init__(num_bytes, done, unit="B", unit_scale=True)
        self._name = name

    def line(self):
        """Returns the log line."""
        line = "{}: ".format(self._name) if self._name else ""
        line += "{:.1f}".format(self.done / 1e6)
        if self.total is not None:
            line += " of {:.1f}".format(self.total / 1e6)
        line += " MB done  {:.2f} MB/s".format(self.rate / 1e6)
        if self.total is not None:
            line += "  {} left".format(self.time_left())
        return line


class ExampleProgress(Progress):
    """Progress in examples.

    Args:
      num_examples: int, of the whole job.
      name: what is done with them; opens the log line.
    """

    def __init__(self, num_examples, name):
        super().__init__(num_examples, unit="example")
        self._name = name

    def line(self):
        """Returns the log line."""
        return "{}: {} of {} examples done  {:.1f} examples/s  {} left".format(
            self._name, self.done, self.total, self.rate, self.time_left()
        )


def show(documents, num_bytes):
    """Passes `corpus.Document`s on and shows how much of `num_bytes` is done."""
    with ByteProgress(num_bytes) as progress:
        for document in documents:
            yield document
            progress.update(document.num_bytes)
