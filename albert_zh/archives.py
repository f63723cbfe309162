"""Extraction of downloaded archives, which are not trusted.

Whatever an archive says of itself (names, types, lengths) is what its maker wanted it
to say. So names are checked before anything is written, links and devices are refused,
and the limit on the size counts the bytes that really come out of the decompressor.
"""

import contextlib
import gzip
import logging
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib

from albert_zh.errors import UserError

_LOGGER = logging.getLogger(__name__)

# The largest published archive, of albert_xxlarge, holds about 1 GB.
MAX_TOTAL_BYTES = 8 * 2**30
# Checkpoints hardly shrink, text does five- to tenfold, a zip bomb a thousandfold.
MAX_RATIO = 100
# Below this the ratio says nothing.
ALWAYS_ALLOWED_BYTES = 2**20
MAX_MEMBERS = 10000

_CHUNK_BYTES = 2**16
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    # Wrong content of a gzip file, or offsets outside of the file
    OSError,
    # Lengths and encodings that cannot be
    ValueError,
    # Ways of compression that zipfile does not know
    NotImplementedError,
)


def extract(archive, directory, max_total_bytes=MAX_TOTAL_BYTES):
    """Extracts a .zip or .tar.gz file, told by its content, into an empty directory.

    Files get default permissions and the present time. What macOS adds to archives
    (`__MACOSX`, `._*`, `.DS_Store`) is left out.

    Args:
      archive: path of the archive.
      directory: path of an existing, empty directory.
      max_total_bytes: int, more than this in all is refused.

    Returns:
      Path of the directory that holds the content: `directory`, or the one folder in
      it where the archive has everything in one folder.

    Raises:
      UnusableArchive: the archive is damaged, too large, or has a member that is a
        link, a device, there twice, or would lie outside of `directory`.
      UserError: it cannot be read, or `directory` not be written to.
    """
    try:
        size = os.path.getsize(archive)
        with open(archive, "rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise UserError("{}: {}".format(archive, error.strerror)) from error
    extract_members = {b"PK": _extract_zip, b"\x1f\x8b": _extract_tar}.get(magic)
    if extract_members is None:
        raise UnusableArchive("{}: neither a .zip nor a .tar.gz file".format(archive))
    limit = min(max_total_bytes, max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * size))
    extraction = _Extraction(archive, directory, limit)
    try:
        extract_members(extraction)
    # It is a ValueError, too.
    except UserError:
        raise
    except _DAMAGE as error:
        raise UnusableArchive(
            "{}: damaged or incomplete ({})".format(archive, error)
        ) from error
    return extraction.finish()


class UnusableArchive(UserError):
    """The archive itself is at fault; another copy of it may be better."""


class _Extraction:
    """One extraction: checks and writes the members, and counts what comes.

    Attributes:
      archive: path of the archive.
      member: name of the member at work, as the archive has it.
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

    def refuse(self, reason):
        """Raises `UnusableArchive` about the member at work."""
        raise UnusableArchive(
            "{}: member {!r} {}".format(self.archive, self.member, reason)
        )

    def spend(self, num_bytes):
        """Counts decompressed bytes.

        Raises:
          UnusableArchive: they are too many.
        """
        self._num_bytes += num_bytes
        if self._num_bytes > self._limit:
            self.refuse(
                "makes the content larger than {:,} bytes, the limit for an archive "
                "of this size; do not trust it".format(self._limit)
            )

    def begin(self, member):
        """Makes `member` the one at work.

        Raises:
          UnusableArchive: there are too many.
        """
        self.member = member
        self._num_members += 1
        if self._num_members > MAX_MEMBERS:
            self.refuse("is one too many after {}".format(MAX_MEMBERS))

    def write(self, is_directory, is_file, num_bytes, source):
        """Writes the member at work.

        Args:
          is_directory: bool.
          is_file: bool, whether it is an ordinary file.
          num_bytes: its length as the archive has it.
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
        if is_directory:
            with self._on_disk():
                os.makedirs(path, exist_ok=True)
            return
        # Names that differ only by case are one file on some systems.
        key = "/".join(parts).lower()
        if key in self._names:
            self.refuse("is there twice")
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
                self.refuse("is damaged: it has another length than the archive says")

    @contextlib.contextmanager
    def _on_disk(self):
        """Tells failures to write from failures to read."""
        try:
            yield
        except OSError as error:
            raise UserError(
                "{}: member {!r} cannot be written: {}".format(
                    self.archive, self.member, error.strerror
                )
            ) from error

    def _check_name(self):
        """Returns the parts of the member's path, which stays inside the directory."""
        parts = [part for part in self.member.split("/") if part not in ("", ".")]
        if (
            self.member.startswith("/")
            or ".." in parts
            or re.search(r"[\\\0]|^[A-Za-z]:", self.member)
        ):
            self.refuse("would lie outside of the target; do not trust it")
        return parts

    def finish(self):
        """Returns where the content lies, as `extract` does."""
        if self._num_left_out:
            _LOGGER.info("left out %d files that macOS added", self._num_left_out)
        if not self._names:
            raise UnusableArchive("{}: holds no file".format(self.archive))
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


def _extract_zip(extraction):
    with zipfile.ZipFile(extraction.archive) as reader:
        _check_count(extraction.archive, len(reader.infolist()))
        for info in reader.infolist():
            extraction.begin(info.filename)
            if info.flag_bits & 1:
                extraction.refuse("is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                extraction.refuse("is compressed in an unusual way")
            # The upper half holds the Unix mode; zero where another system wrote it.
            mode = info.external_attr >> 16
            extraction.write(
                info.filename.endswith("/"),
                stat.S_IFMT(mode) in (0, stat.S_IFREG),
                info.file_size,
                lambda info=info: _CountedStream(reader.open(info), extraction),
            )


def _check_count(archive, num_members):
    """Raises where a .zip has lost members, which zipfile does not notice."""
    with open(archive, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        # The last record has 22 bytes and a comment of less than 64 kB.
        file.seek(max(0, size - 22 - 2**16))
        tail = file.read()
    (declared,) = struct.unpack_from("<H", tail, tail.rindex(b"PK\5\6") + 10)
    # The largest number stands for those that have no room here.
    if declared not in (num_members, 2**16 - 1):
        raise zipfile.BadZipFile("{} members of {} found".format(num_members, declared))


def _extract_tar(extraction):
    with gzip.open(extraction.archive) as decompressed:
        # Counted before tarfile sees them, as headers can be bombs, too.
        counted = _CountedStream(decompressed, extraction)
        with tarfile.open(fileobj=counted, mode="r|") as reader:
            for info in reader:
                extraction.begin(info.name)
                extraction.write(
                    info.isdir(),
                    # The holes of a sparse file are not in the stream that is counted.
                    info.isreg() and not info.issparse(),
                    info.size,
                    lambda info=info: reader.extractfile(info),
                )
        # gzip's own checksum comes last.
        while counted.read(_CHUNK_BYTES):
            pass
