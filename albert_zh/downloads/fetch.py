"""HTTP downloads that survive bad networks and servers, and record checksums.

An unfinished download is beside its target as NAME.partial; NAME.partial.json has its
address. The next attempt, in this run or a later one, requests only the rest if the
server can tell that the file is still the same (If-Range).

Servers are not trusted: size and duration of a download are limited, and redirects
from an encrypted to a plain connection are refused.
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

from albert_zh.base import checksums, files, json_files, locks, progress
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError
from albert_zh.downloads import watched_http

_LOGGER = logging.getLogger(__name__)

CONNECT_SECONDS = 10
STALL_SECONDS = 30  # without a byte
RETRIES = 4
_LONGEST_WAIT = 60  # seconds between two attempts
# The largest published file has about 1 GB.
MAX_BYTES = 4 * 2**30
# 1 GB at 12 kB/s
LONGEST_SECONDS = 24 * 3600

# Statuses worth a retry; every other status above 399 is final.
_TEMPORARY_STATUSES = frozenset([408, 416, 425, 429, 500, 502, 503, 504])
_MAX_REDIRECTS = 10
_CHUNK_BYTES = 2**15  # an interruption loses up to this much
# An attempt is too slow if a chunk takes this many times the limit for one byte: by
# default, 32 kB in a minute.
_SLOW_FACTOR = 2
# Attempts that receive less do not count as progress.
_PROGRESS_BYTES = 2**14
_ADVICE = (
    "download it by other means and give it with --from_file, or name a mirror with "
    "--base_url"
)
_BROKE_OFF = "the connection broke off"
_PLAIN, _GZIP = "identity", "gzip"

# Recorded checksums; no other algorithms are in use.
CHECKSUM_SCHEMA = {"type": "string", "pattern": r"^(sha256|md5):[0-9a-f]+\Z"}
_CHECKSUMS_SCHEMA = {"type": "object", "additionalProperties": CHECKSUM_SCHEMA}
# Allowed names of a file's version, which are sent back to the server.
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
      origin: where the checksum is from, and what to do if it is wrong; ends messages.
    """

    checksum: str
    origin: str


class _Limits(NamedTuple):
    """Limits of a download.

    Attributes:
      stall_seconds: float, how long to wait for a byte.
      max_bytes: int, size of the whole file.
      end: float, value of `time.monotonic()` at which the download is aborted.
    """

    stall_seconds: float
    max_bytes: int
    end: float


class _TemporaryFault(Exception):
    """An attempt failed, and the next one may succeed."""


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

    Only one process at a time may download to a path.

    Args:
      address: str, http or https.
      path: path of the file to write; its directory exists.
      expected: `Expected`, None for any content.
      max_bytes: int, a larger file is refused.
      retries: int, attempts after a failed one; the count restarts after progress.
      stall_seconds: float, how long to wait for a byte; 32 kB may take twice as long.
      longest_seconds: float, the longest total time.
      sleep: function of seconds that waits between attempts.

    Raises:
      UserError: the address cannot be reached or does not have the file (the part
        received is kept for the next run); the file is too large, too slow, has no
        room here, or has another checksum.
    """
    limits = _Limits(stall_seconds, max_bytes, time.monotonic() + longest_seconds)
    partial = _Partial(path, address)
    furthest, failures = partial.size(), 0
    while True:
        try:
            _attempt(address, partial, limits)
            break
        except _TemporaryFault as fault:
            is_progress = partial.size() >= furthest + _PROGRESS_BYTES
            failures = 1 if is_progress else failures + 1
            furthest = max(furthest, partial.size())
            if failures > retries:
                raise UserError(
                    "{}: {}{}; {}".format(
                        address, fault, partial.description(), _ADVICE
                    )
                ) from fault
            seconds = min(2 ** (failures - 1), _LONGEST_WAIT)
            _LOGGER.info("%s: %s; next try in %d s", address, fault, seconds)
        finally:
            partial.close()
        sleep(seconds)
    partial.complete(expected)


def copy(source, path, expected=None):
    """Copies a file that was downloaded by hand; the copy appears whole or not at all.

    Args:
      source: path of the file.
      path: path of the copy.
      expected: as in `fetch`.

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
    """Copies an open file; returns the checksum of the copied bytes."""
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
    """Returns a file's checksum as `Expected` holds it; see `checksums.hex_digest`."""
    return "{}:{}".format(algorithm, checksums.hex_digest(path, algorithm))


def verify(path, expected):
    """Checks a file against its `Expected` checksum, if there is one.

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
        """Does not read the file yet, which need not exist.

        Args:
          directory: the download directory.
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
        advice = "delete it to record the checksums again"
        return json_files.read(self.path, _CHECKSUMS_SCHEMA, advice)

    def add(self, received):
        """Adds a dict address -> checksum to the file.

        Raises:
          UserError: the file is damaged or cannot be written.
        """
        lock = os.path.join(os.path.dirname(self.path), "." + self.FILE_NAME + ".lock")
        # Other downloads into the same directory write to it, too.
        with locks.hold(lock, "", is_patient=True):
            files.remove_leftovers(self.path)
            text = json.dumps(dict(self.read(), **received), indent=2, sort_keys=True)
            files.write_text(text + "\n", self.path)


class _Partial:
    """The part of a file that has been received.

    Its name is predictable, because a later run must find it. So it is never opened
    through a link, and only resumed if it is an ordinary file of this user without
    another name.
    """

    def __init__(self, path, address):
        self.path = path + ".partial"
        self._target = path
        self._address = address
        self._notes_path = path + ".partial.json"
        self._file = None
        if os.path.lexists(self.path) and not os.path.lexists(self._notes_path):
            raise UserError(
                "{} is in the way: it is no download of this command, which would have "
                "{} beside it; move it away".format(self.path, self._notes_path)
            )
        self._validator = self._read_validator()

    def size(self):
        """Returns the number of bytes that can be resumed."""
        return os.path.getsize(self.path) if _is_own(self.path) else 0

    def description(self):
        """Says where the part is, as the end of a message; empty without a part."""
        if not self.size():
            return ""
        return " ({:,} bytes are kept in {}; rerun the command to resume)".format(
            self.size(), self.path
        )

    def request_headers(self):
        """Returns headers that request the rest, if there is a part to resume."""
        if not self._validator or not self.size():
            return {}
        return {
            "Range": "bytes={}-".format(self.size()),
            "If-Range": self._validator,
        }

    def begin(self, response, max_bytes):
        """Prepares for the content of a response: the rest, or the whole file.

        Args:
          response: `requests.Response`.
          max_bytes: int, limit for the whole file.

        Returns:
          int, the size of the whole file; None if the server does not say.

        Raises:
          _TemporaryFault: the content is neither; the part is deleted.
          UserError: the length is invalid or too large, or there is no room.
        """
        validator = _validator(response)
        if response.status_code == 206:
            place = re.fullmatch(
                r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)",
                response.headers.get("Content-Range", ""),
            )
            if not place or int(place.group(1)) != self.size():
                self.discard()
                raise _TemporaryFault("the server sent another range than requested")
            if validator and validator != self._validator:
                self.discard()
                raise _TemporaryFault("the file has changed on the server")
            total = None if place.group(2) == "*" else int(place.group(2))
            self._check_size(total, max_bytes)
            self._resume()
            return total
        # The length of a compressed response is not the file's.
        length = _content_length(response)
        total = length if _encoding(response) == _PLAIN else None
        self._check_size(total, max_bytes)
        self._start_over(validator)
        return total

    def _check_size(self, total, max_bytes):
        """Raises `UserError` if a file is too large or there is no room for it."""
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
                "no room in {}: {:,} bytes are needed, {:,} are free; free some "
                "space{}".format(directory, missing, free, self.description())
            )

    def _start_over(self, validator):
        self.discard()
        self._validator = validator
        notes = {"address": self._address, "validator": validator}
        files.remove_leftovers(self._notes_path)
        files.write_text(json.dumps(notes) + "\n", self._notes_path)
        with files.writing(self.path):
            # "x": never through a link.
            self._file = open(self.path, "xb", buffering=0)

    def _resume(self):
        with files.writing(self.path):
            # O_NOFOLLOW in case it has become a link since.
            flags = os.O_WRONLY | os.O_APPEND
            flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(self.path, flags), "ab", buffering=0)

    def append(self, chunk):
        """Writes the next bytes.

        Raises:
          UserError: there is no room; the part so far is kept.
        """
        rest = memoryview(chunk)
        with files.writing(self.path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def close(self):
        """Ends an attempt; the part is kept."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self):
        """Deletes the part."""
        self.close()
        for path in (self.path, self._notes_path):
            if os.path.lexists(path):
                with files.removing(path):
                    os.remove(path)

    def _read_validator(self):
        """Returns the server's name of this version; None if it is another file's."""
        if not _is_own(self._notes_path):
            return None
        try:
            notes = json_files.read(self._notes_path, _NOTES_SCHEMA, "delete it")
        except UserError as error:
            _LOGGER.warning("%s; starting over", error)
            return None
        return notes["validator"] if notes["address"] == self._address else None

    def complete(self, expected):
        """Gives the complete file its name.

        Raises:
          UserError: its checksum is not the expected one; the file is deleted.
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
    """Whether a path is an ordinary file of this user without another name."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    is_users = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and is_users


def _validator(response):
    """Returns the name of a file's version for If-Range, or None."""
    if _encoding(response) != _PLAIN:
        return None
    tag = response.headers.get("ETag", "")
    # Weak tags do not identify the exact bytes.
    name = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    return name if re.match(_VALIDATOR_PATTERN, name) else None


def _content_length(response):
    """Returns the announced length of a whole file, or None.

    Raises:
      UserError: it is no number.
    """
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    # No file has a size of more than 18 digits.
    if not re.fullmatch("[0-9]{1,18}", length):
        raise UserError(
            "the server announces a length of {!r}; expected a number of "
            "bytes".format(length[:40])
        )
    return int(length)


def _attempt(address, partial, limits):
    """Requests and receives the missing part of a file.

    Raises:
      _TemporaryFault: the connection broke or stalled, or the server is busy.
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
            # Invalid addresses and numbers
            ValueError,
        ) as error:
            raise UserError("{}: {}".format(address, printable(error))) from error
        if watch.has_fired:
            fault = "received less than {:,} bytes in {:g} s".format(
                _CHUNK_BYTES, slow_seconds
            )
    if fault is None and total is not None and partial.size() != total:
        fault = _BROKE_OFF
    if fault:
        raise _TemporaryFault(fault)


def _request(session, address, headers, timeout):
    """Requests a file; follows redirects unless they leave an encrypted connection.

    Returns:
      `requests.Response`, its content not yet read.

    Raises:
      UserError: a redirect is invalid, is not encrypted, or there are too many.
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
    """Makes a server's text printable and short."""
    text = printable(text)
    return text if len(text) <= 200 else text[:200] + "..."


def _check_answer(response, address, partial):
    """Raises if a response does not have the file."""
    status = "the server answered {} {}".format(
        response.status_code, _shorten(response.reason)
    )
    if response.status_code in _TEMPORARY_STATUSES:
        # Range not satisfiable: the file has become shorter.
        if response.status_code == 416:
            partial.discard()
        raise _TemporaryFault(status)
    if response.status_code not in (200, 206):
        raise UserError("{}; {}".format(status, _ADVICE))
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UserError("received a web page instead of the file; {}".format(_ADVICE))
    if _encoding(response) not in (_PLAIN, _GZIP):
        raise UserError(
            "the server used the encoding {} without being asked to; {}".format(
                _shorten(_encoding(response)), _ADVICE
            )
        )


def _encoding(response):
    """Returns the encoding of a response; servers may ignore Accept-Encoding."""
    encoding = response.headers.get("Content-Encoding", _PLAIN).strip().lower()
    return {"x-gzip": _GZIP}.get(encoding, encoding)


def _content(response):
    """Yields the content of a response in chunks of at most `_CHUNK_BYTES`.

    Not with `requests`, which may decompress one chunk to a thousand times its size.

    Raises:
      _TemporaryFault: compressed content ends too early.
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
        raise _TemporaryFault(_BROKE_OFF)


def _receive(response, partial, total, limits, watch):
    """Appends a response's body to the part, and shows the progress.

    Raises:
      UserError: it is too long, or takes too long.
    """
    with progress.ByteProgress(total, partial.size(), partial.path) as shown:
        for chunk in _content(response):
            if shown.done + len(chunk) > limits.max_bytes:
                partial.discard()
                raise UserError(
                    "received more than {:,} bytes, the limit for this file".format(
                        limits.max_bytes
                    )
                )
            partial.append(chunk)
            watch.count(len(chunk))
            shown.update(len(chunk))
            if time.monotonic() > limits.end:
                raise UserError(
                    "the download takes too long{}; {}".format(
                        partial.description(), _ADVICE
                    )
                )


def _reason(error, stall_seconds):
    """Returns the root cause in a chain of network errors."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection within {:g} s".format(min(CONNECT_SECONDS, stall_seconds))
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return _BROKE_OFF
    cause = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, socket.timeout):
        return "received nothing for {:g} s".format(stall_seconds)
    return _shorten(
        getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    )
