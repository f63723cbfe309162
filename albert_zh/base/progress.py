"""Progress in bytes: a bar on a terminal, log lines elsewhere."""

import datetime
import logging
import time

import tqdm

_LOGGER = logging.getLogger(__name__)

_LOG_SECONDS = 30  # between two progress lines where there is no terminal


class ByteProgress:
    """Shows how much of an input is done, the speed and the time left.

    Args:
      num_bytes: bytes of the whole job.
      done: bytes done before this run, which say nothing about its speed.
    """

    def __init__(self, num_bytes, done=0):
        self._bar = tqdm.tqdm(
            total=num_bytes, initial=done, unit="B", unit_scale=True, disable=None
        )
        self._num_bytes = num_bytes
        self._initial = self._done = done
        self._start = self._logged = time.time()

    def __enter__(self):
        return self

    def __exit__(self, *unused_exception):
        self._bar.close()

    def update(self, num_bytes):
        """Adds bytes that have been done; a negative number takes some back."""
        self._done += num_bytes
        self._bar.update(num_bytes)
        now = time.time()
        if self._bar.disable and now - self._logged >= _LOG_SECONDS:
            self._logged = now
            self._log(now - self._start)

    def _log(self, seconds):
        rate = (self._done - self._initial) / seconds
        left = (self._num_bytes - self._done) / rate if rate > 0 else 0
        _LOGGER.info(
            "%.1f of %.1f MB done  %.2f MB/s  %s left",
            self._done / 1e6,
            self._num_bytes / 1e6,
            rate / 1e6,
            datetime.timedelta(seconds=int(left)),
        )


def show(documents, num_bytes):
    """Passes `corpus.Document`s on and shows how much of `num_bytes` is done."""
    with ByteProgress(num_bytes) as progress:
        for document in documents:
            yield document
            progress.update(document.num_bytes)
