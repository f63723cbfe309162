"""HTTP downloads that survive bad networks and servers, and record their checksums.

An unfinished download lies beside its target as NAME.partial; NAME.partial.json says
of what. The next attempt, also of a later run, asks for the rest only where the server
can promise that the file is still the same (If-Range).

A server is not trusted: it decides neither how much is written nor how long that may
take, and no answer leads from an encrypted connection to a plain one.
"""

import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import stat
import time
import urllib.parse
import zlib
from typing import NamedTuple

import requests
import urllib3

from albert_zh.base import files, json_files, locks, progress
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError
from albert_zh.downloads import watched_http

_LOGGER = logging.getLogger(__name__)

CONNECT_SECONDS = 10
STALL_SECONDS = 30  # without a byte
RETRIES = 4
# The largest published file has about 1 GB.
MAX_BYTES = 4 * 2**30
# 1 GB at 12 kB/s
LONGEST_SECONDS = 24 * 3600

# Answers that the next attempt may change; every other above 399 is final.
_PASSING_STATUSES = frozenset([408, 416, 425, 429, 500, 502, 503, 504])
_MAX_REDIRECTS = 10
_CHUNK_BYTES = 2**15  # an interruption loses up to this much
# An attempt is too slow that brings no chunk in this many times the seconds for one
# byte: by default, 32 kB in a minute.
_SLOW_FACTOR = 2
# Attempts that bring less do not count as progress.
_PROGRESS_BYTES = 2**14
_ADVICE = (
    "fetch it by other means and give it with --from_file, or name a mirror with "
    "--base_url"
)
_BROKE_OFF = "the connection broke off"
_PLAIN, _GZIP = "identity", "gzip"

# Checksums as they are recorded. Of other algorithms none is known here.
CHECKSUM_SCHEMA = {"type": "string", "pattern": r"^(sha256|md5):[0-9a-f]+\Z"}
_CHECKSUMS_SCHEMA = {"type": "object", "additionalProperties": CHECKSUM_SCHEMA}
# What may be sent back to a server as its own name for a version of a file.
_VALIDATOR_PATTERN = r"^[ -~]{1,1000}\Z"
_NOTES_SCHEMA = {
    "type": "object",
    "required": ["address", "validator"],
    "properties": {
        "address": {"type": "string"},
        "validator": {"type": ["string", "null"], "pattern": _VALIDATOR_PATTERN},
    },
}


class Expected(NamedTuple):
    """A checksum that a file must have.

    Attributes:
      checksum: "sha256:..." or "md5:...".
      origin: where it is from, and what to do if it is wrong; ends the message.
    """

    checksum: str
    origin: str


class _Limits(NamedTuple):
    """What a server may ask of this machine.

    Attributes:
      stall_seconds: float, how long to wait for a byte.
      max_bytes: int, of the whole file.
      end: float, `time.monotonic()` at which the download is given up.
    """

    stall_seconds: float
    max_bytes: int
    end: float


class _PassingFault(Exception):
    """An attempt failed in a way that the next need not."""


def fetch(
    address,
    path,
    expected=None,
    max_bytes=MAX_BYTES,
    retries=RETRIES,
    stall_seconds=STALL_SECONDS,
    longest_seconds=LONGEST_SECONDS,
    sleep=time.sleep,
):
    """Downloads one file, which appears under its name when it is complete.

    Only one process may do so at a time.

    Args:
      address: str, http or https.
      path: path of the file to write; its directory exists.
      expected: `Expected`, None for any content.
      max_bytes: int, a larger file is refused.
      retries: int, attempts after a failed one, counted anew when some bring more
        of the file than any before.
      stall_seconds: float, how long to wait for a byte, and half of how long for
        32 kB.
      longest_seconds: float, the longest time in all.
      sleep: function of seconds that waits between attempts.

    Raises:
      UserError: the address cannot be reached or does not have the file (what came
        of it is kept for the next run), it is too large, too slow or without room
        here, or the file has another checksum.
    """
    limits = _Limits(stall_seconds, max_bytes, time.monotonic() + longest_seconds)
    partial = _Partial(path, address)
    furthest, failures = partial.size(), 0
    while True:
        try:
            _attempt(address, partial, limits)
            break
        except _PassingFault as fault:
            is_progress = partial.size() >= furthest + _PROGRESS_BYTES
            failures = 1 if is_progress else failures + 1
            furthest = max(furthest, partial.size())
            if failures > retries:
                raise UserError(
                    "{}: {}{}; {}".format(
                        address, fault, partial.description(), _ADVICE
                    )
                ) from fault
            seconds = 2 ** (failures - 1)
            _LOGGER.info("%s: %s; next try in %d s", address, fault, seconds)
        finally:
            partial.close()
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
    files.require_regular(source)
    verify(source, expected)
    with files.reading(source), open(source, "rb") as reader:
        with files.whole(path) as writer:
            digest = _copy_and_hash(reader, writer, source, expected)
            if expected and digest != expected.checksum:
                raise UserError("{}: changed while it was copied".format(source))


def _copy_and_hash(reader, writer, source, expected):
    """Copies an open file; returns the checksum of what was copied."""
    algorithm = expected.checksum.split(":")[0] if expected else "sha256"
    digest = hashlib.new(algorithm)
    while True:
        with files.reading(source):
            chunk = reader.read(2**20)
        if not chunk:
            return "{}:{}".format(algorithm, digest.hexdigest())
        digest.update(chunk)
        writer.write(chunk)


def file_checksum(path, algorithm="sha256"):
    """Returns a file's checksum as "algorithm:hexadecimal digits".

    Raises:
      UserError: it cannot be read, or is no ordinary file.
    """
    files.require_regular(path)
    digest = hashlib.new(algorithm)
    with files.reading(path), open(path, "rb") as file:
        for chunk in iter(lambda: file.read(2**20), b""):
            digest.update(chunk)
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
        if not os.path.lexists(self.path):
            return {}
        files.require_regular(self.path)
        advice = "delete it to record the checksums anew"
        return json_files.read(self.path, _CHECKSUMS_SCHEMA, advice)

    def add(self, checksums):
        """Records the checksums of a dict, and keeps the others.

        Raises:
          UserError: the file is damaged or cannot be written.
        """
        lock = os.path.join(os.path.dirname(self.path), "." + self.FILE_NAME + ".lock")
        # Downloads of other things into the same directory write to it, too.
        with locks.hold(lock, "", is_patient=True):
            files.remove_leftovers(self.path)
            text = json.dumps(dict(self.read(), **checksums), indent=2, sort_keys=True)
            files.write_text(text + "\n", self.path)


class _Partial:
    """What there is of a file so far.

    Its name can be foreseen, as a later run must find it. So it is never opened
    through a link, and gone on with only where it is an ordinary file of this user
    that has no other name.
    """

    def __init__(self, path, address):
        self.path = path + ".partial"
        self._target = path
        self._address = address
        self._notes_path = path + ".partial.json"
        self._file = None
        if os.path.lexists(self.path) and not os.path.lexists(self._notes_path):
            raise UserError(
                "{} is in the way: no {} beside it, so it is no download of this "
                "command; move it away".format(self.path, self._notes_path)
            )
        self._validator = self._read_validator()

    def size(self):
        """Number of bytes that can be gone on with."""
        return os.path.getsize(self.path) if _is_own(self.path) else 0

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

    def begin(self, response, max_bytes):
        """Makes ready for what a response brings: the rest, or the whole.

        Args:
          response: `requests.Response`.
          max_bytes: int, of the whole file.

        Returns:
          int, the size of the whole file; None where the server does not say.

        Raises:
          _PassingFault: it is neither; the part is given up.
          UserError: a length that is none, or too large, or there is no room.
        """
        validator = _validator(response)
        if response.status_code == 206:
            place = re.fullmatch(
                r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)",
                response.headers.get("Content-Range", ""),
            )
            if not place or int(place.group(1)) != self.size():
                self.discard()
                raise _PassingFault("the server sent another range than asked for")
            if validator and validator != self._validator:
                self.discard()
                raise _PassingFault("the file has changed on the server")
            total = None if place.group(2) == "*" else int(place.group(2))
            self._check_size(total, max_bytes)
            self._go_on()
            return total
        # The length of a compressed answer is not the file's.
        length = _content_length(response)
        total = length if _encoding(response) == _PLAIN else None
        self._check_size(total, max_bytes)
        self._start_over(validator)
        return total

    def _check_size(self, total, max_bytes):
        """Refuses a file that is too large, or for which there is no room."""
        if total is None:
            return
        if total > max_bytes:
            raise UserError(
                "the server announces {:,} bytes; expected at most {:,}".format(
                    total, max_bytes
                )
            )
        directory = os.path.dirname(self.path) or "."
        with files.writing(self.path):
            free = shutil.disk_usage(directory).free
        missing = total - self.size()
        if missing > free:
            raise UserError(
                "no room in {}: {:,} bytes are to come, {:,} are free; make "
                "room{}".format(directory, missing, free, self.description())
            )

    def _start_over(self, validator):
        self.discard()
        self._validator = validator
        notes = {"address": self._address, "validator": validator}
        files.remove_leftovers(self._notes_path)
        files.write_text(json.dumps(notes) + "\n", self._notes_path)
        with files.writing(self.path):
            # A new file: not one that a link leads to.
            self._file = open(self.path, "xb", buffering=0)

    def _go_on(self):
        with files.writing(self.path):
            # No link, should it have become one since.
            flags = os.O_WRONLY | os.O_APPEND
            flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(self.path, flags), "ab", buffering=0)

    def append(self, chunk):
        """Writes more of it.

        Raises:
          UserError: there is no room; what has been written stays.
        """
        rest = memoryview(chunk)
        with files.writing(self.path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def close(self):
        """Ends an attempt; what there is stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self):
        """Deletes what there is."""
        self.close()
        for path in (self.path, self._notes_path):
            if os.path.lexists(path):
                with files.removing(path):
                    os.remove(path)

    def _read_validator(self):
        """What the server called this version of the file; None if another file's."""
        if not _is_own(self._notes_path):
            return None
        try:
            notes = json_files.read(self._notes_path, _NOTES_SCHEMA, "delete it")
        except UserError as error:
            _LOGGER.warning("%s; starting over", error)
            return None
        return notes["validator"] if notes["address"] == self._address else None

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
        with files.writing(self._target):
            files.rename_to_disk(self.path, self._target)
        self.discard()


def _is_own(path):
    """Whether a path is an ordinary file of this user, and its only name."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    is_users = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and is_users


def _validator(response):
    """What names this version of a file in If-Range; None if nothing does."""
    if _encoding(response) != _PLAIN:
        return None
    tag = response.headers.get("ETag", "")
    # Weak tags also stand for files that are only equivalent.
    name = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    return name if re.match(_VALIDATOR_PATTERN, name) else None


def _content_length(response):
    """The announced length of a whole file; None where there is none.

    Raises:
      UserError: it is no number.
    """
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    # 18 digits are more than any file has bytes.
    if not re.fullmatch("[0-9]{1,18}", length):
        raise UserError(
            "the server announces a length of {!r}, which is no number of "
            "bytes".format(length[:40])
        )
    return int(length)


def _attempt(address, partial, limits):
    """Receives what is missing of a file.

    Raises:
      _PassingFault: it broke off, stalled, or the server cannot answer now.
      UserError: another attempt would not help.
    """
    headers = dict(partial.request_headers(), **{"Accept-Encoding": "identity"})
    timeout = (min(CONNECT_SECONDS, limits.stall_seconds), limits.stall_seconds)
    slow_seconds = _SLOW_FACTOR * limits.stall_seconds
    with watched_http.Watch(slow_seconds, _CHUNK_BYTES) as watch:
        fault = None
        try:
            with _request(watch.session, address, headers, timeout) as response:
                _check_answer(response, address, partial)
                total = partial.begin(response, limits.max_bytes)
                _receive(response, partial, total, limits, watch)
        except UserError as error:
            raise UserError("{}: {}".format(address, error)) from error
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
            urllib3.exceptions.ProtocolError,
            urllib3.exceptions.TimeoutError,
            urllib3.exceptions.SSLError,
        ) as error:
            fault = _reason(error, limits.stall_seconds)
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            # Addresses and numbers that cannot be
            ValueError,
        ) as error:
            raise UserError("{}: {}".format(address, printable(error))) from error
        if watch.has_fired:
            fault = "less than {:,} bytes came in {:g} s".format(
                _CHUNK_BYTES, slow_seconds
            )
    if fault is None and total is not None and partial.size() != total:
        fault = _BROKE_OFF
    if fault:
        raise _PassingFault(fault)


def _request(session, address, headers, timeout):
    """Asks for a file, and follows redirects as far as they stay encrypted.

    Returns:
      `requests.Response`, its content not yet read.

    Raises:
      UserError: a redirect leads nowhere, to a plain connection or round in circles.
    """
    for _ in range(_MAX_REDIRECTS + 1):
        response = session.get(
            address,
            headers=headers,
            stream=True,
            timeout=timeout,
            allow_redirects=False,
        )
        location = session.get_redirect_target(response)
        if location is None:
            return response
        response.close()
        target = urllib.parse.urljoin(address, location)
        schemes = [urllib.parse.urlsplit(each).scheme for each in (address, target)]
        if schemes[1] not in ("http", "https"):
            raise UserError(
                "redirected to {}; expected http or https".format(_shorten(target))
            )
        if schemes == ["https", "http"]:
            raise UserError(
                "redirected to {}, which is not encrypted; {}".format(
                    _shorten(target), _ADVICE
                )
            )
        address = target
    raise UserError("redirected more than {} times".format(_MAX_REDIRECTS))


def _shorten(text):
    """What a server said, fit for a message."""
    text = printable(text)
    return text if len(text) <= 200 else text[:200] + "..."


def _check_answer(response, address, partial):
    """Raises where a response does not bring the file."""
    status = "the server answered {} {}".format(
        response.status_code, _shorten(response.reason)
    )
    if response.status_code in _PASSING_STATUSES:
        # The range that was asked for is not there: the file has become shorter.
        if response.status_code == 416:
            partial.discard()
        raise _PassingFault(status)
    if response.status_code not in (200, 206):
        raise UserError("{}; {}".format(status, _ADVICE))
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UserError("a web page came instead of the file; {}".format(_ADVICE))
    if _encoding(response) not in (_PLAIN, _GZIP):
        raise UserError(
            "the server encoded its answer as {}, unasked; {}".format(
                _shorten(_encoding(response)), _ADVICE
            )
        )


def _encoding(response):
    """How an answer is encoded: `_PLAIN`, as asked for, or what servers send anyway."""
    encoding = response.headers.get("Content-Encoding", _PLAIN).strip().lower()
    return {"x-gzip": _GZIP}.get(encoding, encoding)


def _content(response):
    """Yields the content of an answer in chunks of at most `_CHUNK_BYTES`.

    Not as `requests` does it, where one chunk may become a thousand times as large.

    Raises:
      _PassingFault: compressed content ends too early.
      ValueError: it is damaged.
    """
    chunks = response.raw.stream(_CHUNK_BYTES, decode_content=False)
    if _encoding(response) == _PLAIN:
        yield from chunks
        return
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for chunk in chunks:
        while chunk and not decompressor.eof:
            try:
                yield decompressor.decompress(chunk, _CHUNK_BYTES)
            except zlib.error as error:
                raise ValueError(str(error)) from error
            chunk = decompressor.unconsumed_tail
    if not decompressor.eof:
        raise _PassingFault(_BROKE_OFF)


def _receive(response, partial, total, limits, watch):
    """Appends a response's body to the part, and shows how far it is.

    Raises:
      UserError: it is too long, or takes too long.
    """
    with progress.ByteProgress(total, partial.size(), partial.path) as shown:
        for chunk in _content(response):
            if shown.done + len(chunk) > limits.max_bytes:
                partial.discard()
                raise UserError(
                    "more than the expected {:,} bytes came".format(limits.max_bytes)
                )
            partial.append(chunk)
            watch.count(len(chunk))
            shown.update(len(chunk))
            if time.monotonic() > limits.end:
                raise UserError(
                    "not complete in time{}; {}".format(partial.description(), _ADVICE)
                )


def _reason(error, stall_seconds):
    """What went wrong at the bottom of a chain of network errors."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection within {:g} s".format(min(CONNECT_SECONDS, stall_seconds))
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return _BROKE_OFF
    cause = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, socket.timeout):
        return "nothing came for {:g} s".format(stall_seconds)
    return _shorten(
        getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    )
