"""Extraction of downloaded archives, which are not trusted.

Names, types and lengths in an archive may be malicious. So names are checked before
anything is written, links and devices are refused, and the size limit counts the
decompressed bytes. The numbers of members and folders, the depth of folders and the
time are limited, too.
"""

import contextlib
import gzip
import logging
import os
import re
import stat
import struct
import time
import zipfile
import zlib
from typing import NamedTuple

from albert_zh.base import files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError
from albert_zh.downloads import tar_reader

_LOGGER = logging.getLogger(__name__)

# The largest published archive, of albert_xxlarge, has about 1 GB.
MAX_TOTAL_BYTES = 8 * 2**30
# Checkpoints are hardly compressible, text five- to tenfold, zip bombs a thousandfold.
MAX_RATIO = 100
# Below this size the ratio is not checked.
ALWAYS_ALLOWED_BYTES = 2**20
# Published archives have up to 20 files in up to 3 folders.
MAX_MEMBERS = 10000
MAX_FOLDERS = 1000
MAX_DEPTH = 32
# 8 GB at 5 MB/s, the speed of a slow network disk.
MAX_SECONDS = 1800

_CHUNK_BYTES = 2**16
_SHOWN_CHARACTERS = 200
# Room for names of 1 kB; an entry has 46 more bytes
_MAX_ZIP_DIRECTORY_BYTES = MAX_MEMBERS * 2**10
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    # Invalid gzip content, or offsets outside of the file
    OSError,
    # Invalid lengths and encodings
    ValueError,
    # Compression methods unknown to zipfile
    NotImplementedError,
)


def extract(archive, directory, max_total_bytes=MAX_TOTAL_BYTES):
    """Extracts a .zip or .tar.gz file, told by its content, into an empty directory.

    Files get default permissions and the current time. Files that macOS adds to
    archives (`__MACOSX`, `._*`, `.DS_Store`) are left out.

    Args:
      archive: path of the archive.
      directory: path of an existing, empty directory.
      max_total_bytes: int, limit of the decompressed size.

    Returns:
      Path of the directory that has the content: `directory`, or its only folder if
      the archive has everything in one folder.

    Raises:
      UnusableArchive: the archive is damaged or too large, or a member is a link, a
        device, a duplicate, or outside of `directory`.
      UserError: the archive cannot be read, `directory` cannot be written to, or the
        extraction takes longer than `MAX_SECONDS`.
    """
    files.require_regular(archive)
    with files.reading(archive):
        size = os.path.getsize(archive)
        with open(archive, "rb") as file:
            magic = file.read(2)
    extract_members = {b"PK": _extract_zip, b"\x1f\x8b": _extract_tar}.get(magic)
    if extract_members is None:
        raise UnusableArchive("{}: neither a .zip nor a .tar.gz file".format(archive))
    limit = min(max_total_bytes, max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * size))
    extraction = _Extraction(archive, directory, limit)
    try:
        extract_members(extraction)
    except _DAMAGE as error:
        raise UnusableArchive(
            "{}: damaged or incomplete ({})".format(archive, printable(error))
        ) from error
    return extraction.finish()


class UnusableArchive(UserError):
    """The archive itself is at fault; another copy may be usable."""


class _Extraction:
    """One extraction: checks, counts and writes the members.

    Attributes:
      archive: path of the archive.
      member: name of the current member, as in the archive.
    """

    def __init__(self, archive, directory, limit):
        self.archive = archive
        self.member = ""
        self._directory = directory
        self._limit = limit
        self._num_bytes = 0
        self._num_members = 0
        self._num_left_out = 0
        self._names = set()
        self._folders = set()
        self._end = time.monotonic() + MAX_SECONDS

    def refuse(self, reason):
        """Raises `UnusableArchive` about the current member."""
        raise UnusableArchive(
            "{}: member {} {}".format(self.archive, self._shown_name(), reason)
        )

    def _shown_name(self):
        name = self.member
        if len(name) > _SHOWN_CHARACTERS:
            name = name[:_SHOWN_CHARACTERS] + "..."
        return repr(name)

    def check_time(self):
        """Raises `UserError` if the extraction has taken too long.

        Call it between any two pieces of work, which must not exceed a chunk.
        """
        if time.monotonic() > self._end:
            raise UserError(
                "{}: not extracted within {} s; extract it on a faster disk, or do not "
                "trust it".format(self.archive, MAX_SECONDS)
            )

    def spend(self, num_bytes):
        """Counts decompressed bytes.

        Raises:
          UnusableArchive: the limit is exceeded.
          UserError: as `check_time`.
        """
        self.check_time()
        self._num_bytes += num_bytes
        if self._num_bytes > self._limit:
            self.refuse(
                "makes the content larger than {:,} bytes, the limit for an archive "
                "of this size; do not trust it".format(self._limit)
            )

    def begin(self, member):
        """Makes `member` the current one.

        Raises:
          UnusableArchive: there are too many members.
          UserError: as `check_time`.
        """
        self.check_time()
        self.member = member
        self._num_members += 1
        if self._num_members > MAX_MEMBERS:
            self.refuse("is one too many after {}".format(MAX_MEMBERS))

    def write(self, is_directory, is_file, num_bytes, source):
        """Writes the current member.

        Args:
          is_directory: bool.
          is_file: bool, whether it is an ordinary file.
          num_bytes: int, its length according to the archive.
          source: function without arguments that opens it for reading.

        Raises:
          UnusableArchive: the member is refused.
        """
        parts = self._check_name()
        if not is_directory and not is_file:
            self.refuse("is a link or a device; expected files and folders")
        if _is_macos_metadata(parts):
            self._num_left_out += 1
            return
        path = os.path.join(self._directory, *parts)
        self._count_folders(parts if is_directory else parts[:-1])
        if is_directory:
            with self._on_disk():
                os.makedirs(path, exist_ok=True)
            return
        # Some systems ignore case.
        key = "/".join(parts).lower()
        if key in self._names:
            self.refuse("is a duplicate")
        self._names.add(key)
        with self._on_disk():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            writer = open(path, "xb")
        with writer, contextlib.closing(source()) as reader:
            for chunk in iter(lambda: reader.read(_CHUNK_BYTES), b""):
                with self._on_disk():
                    writer.write(chunk)
            with self._on_disk():
                writer.flush()
            if writer.tell() != num_bytes:
                self.refuse("is damaged: its length is not the one in the archive")

    @contextlib.contextmanager
    def _on_disk(self):
        """Turns errors of writing, not of reading, into `UserError`."""
        try:
            yield
        except (OSError, UnicodeEncodeError) as error:
            raise UserError(
                "{}: member {} cannot be written: {}".format(
                    self.archive,
                    self._shown_name(),
                    getattr(error, "strerror", None) or error,
                )
            ) from error

    def _check_name(self):
        """Returns the parts of the member's path; refuses one outside the directory."""
        parts = [part for part in self.member.split("/") if part not in ("", ".")]
        if (
            self.member.startswith("/")
            or ".." in parts
            or re.search(r"[\\\0]|^[A-Za-z]:", self.member)
        ):
            self.refuse("would be outside of the target; do not trust it")
        if len(parts) > MAX_DEPTH:
            self.refuse("is more than {} folders deep".format(MAX_DEPTH))
        return parts

    def _count_folders(self, parts):
        """Counts a folder and its parents; refuses too many."""
        self._folders.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        if len(self._folders) > MAX_FOLDERS:
            self.refuse("is in one folder too many after {}".format(MAX_FOLDERS))

    def finish(self):
        """Returns the directory with the content, as `extract` does."""
        if self._num_left_out:
            _LOGGER.info("left out %d files that macOS added", self._num_left_out)
        if not self._names:
            raise UnusableArchive("{}: has no file".format(self.archive))
        names = os.listdir(self._directory)
        inner = os.path.join(self._directory, names[0])
        return inner if len(names) == 1 and os.path.isdir(inner) else self._directory


def _is_macos_metadata(parts):
    return bool(parts) and (
        parts[0] == "__MACOSX" or parts[-1].startswith("._") or parts[-1] == ".DS_Store"
    )


class _CountedStream:
    """A stream whose bytes count towards the limit of an extraction."""

    def __init__(self, stream, extraction):
        self._stream = stream
        self._extraction = extraction
        self.close = stream.close

    def read(self, size):
        data = self._stream.read(size)
        self._extraction.spend(len(data))
        return data


class _TimedFile:
    """A file whose reads check the time of an extraction."""

    def __init__(self, file, extraction):
        self._file = file
        self._extraction = extraction
        self.seek = file.seek

    def read(self, size):
        self._extraction.check_time()
        return self._file.read(size)


def _extract_zip(extraction):
    end = _read_zip_end(extraction.archive)
    _check_zip_end(extraction.archive, end)
    with zipfile.ZipFile(extraction.archive) as reader:
        infos = reader.infolist()
        if len(infos) != end.num_members:
            # zipfile does not check this.
            raise zipfile.BadZipFile(
                "{} members of {} found".format(len(infos), end.num_members)
            )
        _check_places(extraction, infos, reader.start_dir)
        for info in infos:
            extraction.begin(info.filename)
            if info.flag_bits & 1:
                extraction.refuse("is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                extraction.refuse("has an unsupported compression method")
            # The upper half is the Unix mode; zero if written on another system.
            mode = info.external_attr >> 16
            extraction.write(
                info.filename.endswith("/"),
                stat.S_IFMT(mode) in (0, stat.S_IFREG),
                info.file_size,
                lambda info=info: _CountedStream(reader.open(info), extraction),
            )


class _ZipEnd(NamedTuple):
    """Fields of the last record of a .zip, about the list of its members."""

    num_members: int
    num_bytes: int
    is_zip64: bool


def _read_zip_end(archive):
    """Returns the `_ZipEnd` of an archive, found as zipfile does."""
    with open(archive, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        # The last record has 22 bytes and a comment of less than 64 kB; in Zip64 a
        # pointer of 20 bytes precedes it.
        file.seek(max(0, size - 42 - 2**16))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0:
        raise zipfile.BadZipFile("its end is missing")
    num_members, num_bytes = struct.unpack_from("<HI", tail, end + 10)
    pointer = tail[max(0, end - 20) : end]
    return _ZipEnd(num_members, num_bytes, pointer.startswith(b"PK\6\7"))


def _check_zip_end(archive, end):
    """Refuses a .zip whose list of members is too long, before zipfile reads it.

    Zip64, for archives above 4 GB or 65,534 members, is refused: no published archive
    is that large.
    """
    if (
        end.is_zip64
        or end.num_members > MAX_MEMBERS
        or end.num_bytes > _MAX_ZIP_DIRECTORY_BYTES
    ):
        raise UnusableArchive(
            "{}: lists {:,} members{} in {:,} bytes; expected at most {:,} in {:,} "
            "bytes".format(
                archive,
                end.num_members,
                " or more (Zip64)" if end.is_zip64 else "",
                end.num_bytes,
                MAX_MEMBERS,
                _MAX_ZIP_DIRECTORY_BYTES,
            )
        )


def _check_places(extraction, infos, directory_start):
    """Refuses members of a .zip that overlap, as zipfile does since CVE-2024-0450."""
    infos = sorted(infos, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in infos[1:]] + [directory_start]
    for info, end in zip(infos, ends):
        # A header of at least 30 bytes precedes the data.
        if info.header_offset + 30 + info.compress_size > end:
            extraction.member = info.filename
            extraction.refuse("overlaps with another one; do not trust it")


def _extract_tar(extraction):
    # Bytes are counted before the tar reader gets them: headers can be bombs, too.
    with open(extraction.archive, "rb") as file, gzip.GzipFile(
        fileobj=_TimedFile(file, extraction)
    ) as decompressed:
        counted = _CountedStream(decompressed, extraction)
        for member, content in tar_reader.members(counted):
            extraction.begin(member.name)
            extraction.write(
                member.is_directory,
                member.is_file,
                member.size,
                lambda content=content: content,
            )
        # gzip's own checksum comes last.
        while counted.read(_CHUNK_BYTES):
            pass
