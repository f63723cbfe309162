"""From an entry of the catalogue to the directory that commands read.

A directory appears under its name only when it is complete. `.download.json` in it
says what it is and has the checksum of every file, so that a second run can tell a
complete download from a damaged one.
"""

import contextlib
import json
import os
import shutil
import tempfile
from typing import Callable, NamedTuple, Optional

from albert_zh import archives, catalogue, downloads, files
from albert_zh.errors import UserError

RECEIPT_FILE = ".download.json"
_REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Origin(NamedTuple):
    """Where the files of an entry come from.

    Attributes:
      fetch: function (address, path, expected) that downloads, as `downloads.fetch`.
      base_url: mirror that stands in for the entry's base URL, or None.
      from_file: archive or file fetched by hand, for an entry of several files their
        folder; None to download.
    """

    fetch: Callable = downloads.fetch
    base_url: Optional[str] = None
    from_file: Optional[str] = None


def default_directory(entry):
    """Returns where an entry goes: the places the published commands expect."""
    if entry.kind == catalogue.VOCABULARY:
        return os.path.join(_REPOSITORY, "albert_config")
    parent = {catalogue.MODEL: "prev_trained_model", catalogue.TASK: "CLUEdatasets"}
    return os.path.join(parent[entry.kind], entry.name)


def install(entry, directory, origin):
    """Brings an entry into a directory.

    Args:
      entry: `catalogue.Entry`.
      directory: the model's or task's own directory, or the one for `vocab.txt`.
      origin: `Origin`.

    Returns:
      bool, False where everything was there already.

    Raises:
      UserError: the directory holds something else; or as `downloads.fetch`,
        `downloads.copy` and `archives.extract`.
    """
    directory = os.path.normpath(directory)
    _check_by_hand(entry, origin.from_file)
    if entry.kind == catalogue.VOCABULARY:
        return _install_file(entry, directory, origin)
    if _is_complete(entry, directory):
        return False
    parent = os.path.dirname(directory) or "."
    _make_directory(parent)
    if entry.is_archive:
        _install_archive(entry, directory, parent, origin)
    else:
        _install_files(entry, directory, parent, origin)
    return True


def _check_by_hand(entry, from_file):
    """Raises `UserError` where --from_file does not have what the entry needs."""
    if from_file is None:
        return
    wanted = ", ".join(file.name for file in entry.files)
    if len(entry.files) > 1:
        for file in entry.files:
            if not os.path.isfile(os.path.join(from_file, file.name)):
                raise UserError(
                    "--from_file={} holds no {}; expected a folder with {}".format(
                        from_file, file.name, wanted
                    )
                )
    elif not os.path.isfile(from_file):
        raise UserError(
            "--from_file={} is no file; expected a copy of {}".format(from_file, wanted)
        )


def _install_file(entry, directory, origin):
    """Installs an entry of one file with a known checksum."""
    (file,) = entry.files
    path = os.path.join(directory, file.name)
    if os.path.exists(path):
        advice = "the published file's; move it away or give another --output_dir"
        downloads.verify(path, downloads.Expected(file.checksum, advice))
        return False
    _make_directory(directory)
    expected = downloads.Expected(file.checksum, "the published file's")
    _obtain(entry, file, path, expected, origin)
    return True


def _install_archive(entry, directory, parent, origin):
    """Installs an archive's content, and records its checksum once it is usable.

    An archive that is downloaded now is deleted after that, or when it is unusable; one
    that was there before is used as it is and stays.
    """
    (file,) = entry.files
    checksums = downloads.Checksums(parent)
    expected = _expected(entry, file, checksums)
    archive = origin.from_file or os.path.join(parent, file.name)
    is_downloaded = not os.path.exists(archive)
    if is_downloaded:
        _obtain(entry, file, archive, expected, origin)
    else:
        downloads.verify(archive, expected)
    try:
        _unpack(entry, archive, directory, parent)
    except archives.UnusableArchive as error:
        if is_downloaded:
            os.remove(archive)
        elif not origin.from_file:
            raise UserError(
                "{}; delete it to have it downloaded".format(error)
            ) from error
        raise
    checksums.add({_key(entry, file): downloads.file_checksum(archive)})
    if is_downloaded:
        os.remove(archive)


def _unpack(entry, archive, directory, parent):
    """Extracts an archive beside its target and renames the whole."""
    staging = tempfile.mkdtemp(prefix=".{}.".format(entry.name), dir=parent)
    try:
        # A directory of default permissions, which mkdtemp does not make.
        content = os.path.join(staging, "content")
        os.mkdir(content)
        _publish(entry, archives.extract(archive, content), directory)
    finally:
        shutil.rmtree(staging)


def _install_files(entry, directory, parent, origin):
    """Installs several files as one directory; those of an earlier run stay."""
    checksums = downloads.Checksums(parent)
    # Not named after `directory`, where another entry may have been begun.
    staging = os.path.join(parent, entry.published_names[0] + ".partial")
    _make_directory(staging)
    for file in entry.files:
        path = os.path.join(staging, file.name)
        expected = _expected(entry, file, checksums)
        if os.path.exists(path) and not origin.from_file:
            downloads.verify(path, expected)
        else:
            _obtain(entry, file, path, expected, origin)
    received = {
        _key(entry, file): downloads.file_checksum(os.path.join(staging, file.name))
        for file in entry.files
    }
    _publish(entry, staging, directory)
    checksums.add(received)


def _obtain(entry, file, path, expected, origin):
    """Downloads or copies one file of an entry."""
    if origin.from_file:
        source = origin.from_file
        if len(entry.files) > 1:
            source = os.path.join(source, file.name)
        downloads.copy(source, path, expected)
        return
    base_url = (origin.base_url or entry.base_url).rstrip("/")
    origin.fetch("{}/{}".format(base_url, file.path), path, expected)


def _key(entry, file):
    """What a file is called in the record, wherever it was fetched from."""
    return "{}/{}".format(entry.base_url, file.path)


def _expected(entry, file, checksums):
    """Returns the `downloads.Expected` of a file, or None."""
    if file.checksum:
        return downloads.Expected(file.checksum, "the published file's")
    recorded = checksums.read().get(_key(entry, file))
    if recorded is None:
        return None
    return downloads.Expected(
        recorded,
        "recorded in {} when it was first fetched; if its publisher has replaced it, "
        "delete that entry".format(checksums.path),
    )


def _is_complete(entry, directory):
    """Whether the directory is this entry's download, undamaged.

    Raises:
      UserError: it is something else, and not empty.
    """
    if not os.path.lexists(directory):
        return False
    if os.path.isdir(directory) and not os.listdir(directory):
        return False
    problem = "holds something else"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with open(os.path.join(directory, RECEIPT_FILE), encoding="utf-8") as file:
            receipt = json.load(file)
        if (receipt["name"], receipt["source"]) == (entry.name, entry.source):
            damaged = [
                name
                for name, checksum in sorted(receipt["files"].items())
                if not _has_checksum(os.path.join(directory, name), checksum)
            ]
            if not damaged:
                return True
            problem = "has lost or changed {}".format(damaged[0])
    raise UserError(
        "--output_dir={} {}; delete it or give another one".format(directory, problem)
    )


def _has_checksum(path, checksum):
    return os.path.isfile(path) and downloads.file_checksum(path) == checksum


def _publish(entry, content, directory):
    """Writes the receipt and gives the complete content its name."""
    checksums = {}
    for folder, _, names in os.walk(content):
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, content).replace(os.sep, "/")
            checksums[relative] = downloads.file_checksum(path)
    receipt = {"name": entry.name, "source": entry.source, "files": checksums}
    files.write_text(
        json.dumps(receipt, ensure_ascii=False, indent=2, sort_keys=True) + "\n",
        os.path.join(content, RECEIPT_FILE),
    )
    try:
        if os.path.isdir(directory):
            os.rmdir(directory)  # empty, as was checked
        os.rename(content, directory)
    except OSError as error:
        raise UserError(
            "--output_dir={}: {}".format(directory, error.strerror)
        ) from error


def _make_directory(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError("cannot make {}: {}".format(path, error.strerror)) from error
