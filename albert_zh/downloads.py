"""HTTP downloads that survive bad networks, and the record of their checksums.

An unfinished download lies beside its target as NAME.partial; NAME.partial.json says
of what. The next attempt, also of a later run, asks for the rest only where the server
can promise that the file is still the same (If-Range).
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
from typing import NamedTuple

import requests
import tqdm

from albert_zh import files
from albert_zh.errors import UserError

_LOGGER = logging.getLogger(__name__)

CONNECT_SECONDS = 10
STALL_SECONDS = 30  # without a byte
RETRIES = 4

# Answers that the next attempt may change; every other above 399 is final.
_PASSING_STATUSES = frozenset([408, 416, 425, 429, 500, 502, 503, 504])
_CHUNK_BYTES = 2**15  # an interruption loses up to this much
_LOG_SECONDS = 30  # between two progress lines where there is no terminal
_ADVICE = (
    "fetch it by other means and give it with --from_file, or name a mirror with "
    "--base_url"
)
_BROKE_OFF = "the connection broke off"


class Expected(NamedTuple):
    """A checksum that a file must have.

    Attributes:
      checksum: "sha256:..." or "md5:...".
      origin: where it is from, and what to do if it is wrong; ends the message.
    """

    checksum: str
    origin: str


class _PassingFault(Exception):
    """An attempt failed in a way that the next need not."""


def fetch(
    address,
    path,
    expected=None,
    retries=RETRIES,
    stall_seconds=STALL_SECONDS,
    sleep=time.sleep,
):
    """Downloads one file, which appears under its name when it is complete.

    Args:
      address: str, http or https.
      path: path of the file to write; its directory exists.
      expected: `Expected`, None for any content.
      retries: int, attempts after a failed one, counted anew when some bring more
        of the file than any before.
      stall_seconds: float, how long to wait for a byte.
      sleep: function of seconds that waits between attempts.

    Raises:
      UserError: the address cannot be reached or does not have the file (what came
        of it is kept for the next run), or the file has another checksum.
    """
    partial = _Partial(path, address)
    furthest, failures = partial.size(), 0
    with requests.Session() as session:
        while True:
            try:
                _attempt(session, address, partial, stall_seconds)
                break
            except _PassingFault as fault:
                failures = 1 if partial.size() > furthest else failures + 1
                furthest = max(furthest, partial.size())
                if failures > retries:
                    raise UserError(
                        "{}: {}{}; {}".format(
                            address, fault, partial.description(), _ADVICE
                        )
                    ) from fault
                seconds = 2 ** (failures - 1)
                _LOGGER.info("%s: %s; next try in %d s", address, fault, seconds)
            sleep(seconds)
    partial.complete(expected)


def copy(source, path, expected=None):
    """Copies a file that was fetched by hand; it appears whole or not at all.

    Args:
      source: path of the file.
      path: path of the copy.
      expected: as of `fetch`.

    Raises:
      UserError: the file cannot be read or copied, or has another checksum.
    """
    verify(source, expected)
    temporary = path + ".partial"
    with _writing(path):
        shutil.copyfile(source, temporary)
        os.replace(temporary, path)


def file_checksum(path, algorithm="sha256"):
    """Returns a file's checksum as "algorithm:hexadecimal digits".

    Raises:
      UserError: it cannot be read.
    """
    digest = hashlib.new(algorithm)
    try:
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(2**20), b""):
                digest.update(chunk)
    except OSError as error:
        raise UserError("{}: {}".format(path, error.strerror)) from error
    return "{}:{}".format(algorithm, digest.hexdigest())


def verify(path, expected):
    """Compares a file with its `Expected` checksum, if there is one.

    Raises:
      UserError: they differ, or the file cannot be read.
    """
    if expected is None:
        return
    received = file_checksum(path, expected.checksum.split(":")[0])
    if received != expected.checksum:
        raise UserError(
            "{}: its checksum is {}, expected {} ({})".format(
                path, received, expected.checksum, expected.origin
            )
        )


class Checksums:
    """The checksums of earlier downloads, a JSON file of address -> "sha256:..."."""

    FILE_NAME = "checksums.json"

    def __init__(self, directory):
        """Names the record; it need not exist.

        Args:
          directory: where the downloads go.
        """
        self.path = os.path.join(directory, self.FILE_NAME)

    def read(self):
        """Returns the dict address -> checksum.

        Raises:
          UserError: the file is damaged.
        """
        if not os.path.exists(self.path):
            return {}
        try:
            with open(self.path, encoding="utf-8") as file:
                recorded = json.load(file)
            if not all(re.match(r"\w+:\w+$", value) for value in recorded.values()):
                raise ValueError("a value is no checksum")
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise UserError(
                "{}: damaged ({}); delete it to record the checksums anew".format(
                    self.path, error
                )
            ) from error
        return recorded

    def add(self, checksums):
        """Records the checksums of a dict, and keeps the others."""
        text = json.dumps(dict(self.read(), **checksums), indent=2, sort_keys=True)
        files.write_text(text + "\n", self.path)


@contextlib.contextmanager
def _writing(path):
    """Turns a failure to write into a `UserError` that names the file."""
    try:
        yield
    # They are OSErrors, too.
    except requests.exceptions.RequestException:
        raise
    except OSError as error:
        raise UserError(
            "cannot write {}: {}".format(path, error.strerror or error)
        ) from error


class _Partial:
    """What there is of a file so far."""

    def __init__(self, path, address):
        self.path = path + ".partial"
        self._target = path
        self._address = address
        self._notes_path = path + ".partial.json"
        self._validator = self._read_validator()

    def size(self):
        """Number of bytes."""
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0

    def description(self):
        """Says where it is, to follow a message; empty where there is nothing."""
        if not self.size():
            return ""
        return " ({:,} bytes are kept in {} and the same command goes on there)".format(
            self.size(), self.path
        )

    def request_headers(self):
        """Headers that ask for the rest, where there is a part to go on from."""
        if not self._validator or not self.size():
            return {}
        return {
            "Range": "bytes={}-".format(self.size()),
            "If-Range": self._validator,
        }

    def begin(self, response):
        """Makes ready for what a response brings: the rest, or the whole.

        Returns:
          int, the size of the whole file; None where the server does not say.

        Raises:
          _PassingFault: it is neither; the part is given up.
        """
        validator = _validator(response)
        if response.status_code == 206:
            place = re.match(
                r"bytes (\d+)-\d+/(\d+|\*)$", response.headers.get("Content-Range", "")
            )
            if not place or int(place.group(1)) != self.size():
                self.discard()
                raise _PassingFault("the server sent another range than asked for")
            if validator and validator != self._validator:
                self.discard()
                raise _PassingFault("the file has changed on the server")
            return None if place.group(2) == "*" else int(place.group(2))
        self._start_over(validator)
        length = response.headers.get("Content-Length", "")
        # The length of a compressed answer is not the file's.
        if "Content-Encoding" in response.headers or not length.isdigit():
            return None
        return int(length)

    def _start_over(self, validator):
        self.discard()
        self._validator = validator
        notes = {"address": self._address, "validator": validator}
        files.write_text(json.dumps(notes) + "\n", self._notes_path)

    def discard(self):
        """Deletes what there is."""
        for path in (self.path, self._notes_path):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    def _read_validator(self):
        """What the server called this version of the file; None if another file's."""
        try:
            with open(self._notes_path, encoding="utf-8") as file:
                notes = json.load(file)
            return notes["validator"] if notes["address"] == self._address else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def complete(self, expected):
        """Gives the file its name.

        Raises:
          UserError: it has another checksum than expected; it is deleted.
        """
        try:
            verify(self.path, expected)
        except UserError as error:
            self.discard()
            raise UserError("{}: {}".format(self._address, error)) from error
        with _writing(self._target):
            os.replace(self.path, self._target)
        self.discard()


def _validator(response):
    """What names this version of a file in If-Range; None if nothing does."""
    if "Content-Encoding" in response.headers:
        return None
    tag = response.headers.get("ETag", "")
    # Weak tags also stand for files that are only equivalent.
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _attempt(session, address, partial, stall_seconds):
    """Receives what is missing of a file.

    Raises:
      _PassingFault: it broke off, stalled, or the server cannot answer now.
      UserError: another attempt would not help.
    """
    headers = dict(partial.request_headers(), **{"Accept-Encoding": "identity"})
    try:
        with session.get(
            address,
            headers=headers,
            stream=True,
            timeout=(CONNECT_SECONDS, stall_seconds),
        ) as response:
            _check_answer(response, address, partial)
            total = partial.begin(response)
            _receive(response, partial, total)
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
    ) as error:
        raise _PassingFault(_reason(error, stall_seconds)) from error
    except requests.exceptions.RequestException as error:
        raise UserError("{}: {}".format(address, error)) from error


def _check_answer(response, address, partial):
    """Raises where a response does not bring the file."""
    status = "the server answered {} {}".format(response.status_code, response.reason)
    if response.status_code in _PASSING_STATUSES:
        # The range that was asked for is not there: the file has become shorter.
        if response.status_code == 416:
            partial.discard()
        raise _PassingFault(status)
    if response.status_code not in (200, 206):
        raise UserError("{}: {}; {}".format(address, status, _ADVICE))
    if address.startswith("https:") and not response.url.startswith("https:"):
        raise UserError(
            "{}: redirected to {}, which is not encrypted".format(address, response.url)
        )
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UserError(
            "{}: a web page came instead of the file; {}".format(address, _ADVICE)
        )


def _receive(response, partial, total):
    """Appends a response's body to the part, and shows how far it is.

    Raises:
      _PassingFault: the body is not as long as announced.
    """
    logged = time.time()
    with _writing(partial.path), open(partial.path, "ab") as file, tqdm.tqdm(
        total=total,
        initial=partial.size(),
        unit="B",
        unit_scale=True,
        disable=None,
    ) as bar:
        for chunk in response.iter_content(_CHUNK_BYTES):
            file.write(chunk)
            bar.update(len(chunk))
            if bar.disable and time.time() - logged >= _LOG_SECONDS:
                logged = time.time()
                _LOGGER.info("%.1f MB of %s", file.tell() / 1e6, partial.path)
    if total is not None and partial.size() != total:
        raise _PassingFault(_BROKE_OFF)


def _reason(error, stall_seconds):
    """What went wrong at the bottom of a chain of network errors."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection within {} s".format(CONNECT_SECONDS)
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return _BROKE_OFF
    cause = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, socket.timeout):
        return "nothing came for {:g} s".format(stall_seconds)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
