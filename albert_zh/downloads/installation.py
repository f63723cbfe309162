"""Installs an entry of the catalogue in a directory that commands read.

A directory appears under its name only when it is complete. Its `.download.json` names
the entry and has the checksum of every file, so that a second run can tell a complete
download from a damaged one.
"""

import contextlib
import json
import logging
import os
import re
from typing import Callable, NamedTuple, Optional, Tuple

from albert_zh.base import files, json_files, locks
from albert_zh.base.errors import UserError
from albert_zh.downloads import archives, catalogue
from albert_zh.downloads import fetch as downloads

RECEIPT_FILE = ".download.json"
_RECEIPT_SCHEMA = {
    "type": "object",
    "required": ["name", "source", "files"],
    "properties": {
        "name": {"type": "string"},
        "source": {"type": "string"},
        "files": {
            "type": "object",
            "additionalProperties": downloads.CHECKSUM_SCHEMA,
        },
    },
}
_SIZE_SCHEMA = {
    "type": "object",
    "required": ["hidden_size"],
    "properties": {"hidden_size": {"type": "integer"}},
}
_LOGGER = logging.getLogger(__name__)
_REPOSITORY = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)


class Origin(NamedTuple):
    """Where the files of an entry come from.

    Attributes:
      fetch: function (address, path, expected, max_bytes) that downloads, as
        `downloads.fetch`.
      base_url: mirror to use in place of the entry's base URL, or None.
      from_file: archive or file downloaded by hand, or the folder of several files;
        None to download.
      others: entries of the same file at other publishers, tried if the first fails.
    """

    fetch: Callable = downloads.fetch
    base_url: Optional[str] = None
    from_file: Optional[str] = None
    others: Tuple[catalogue.Entry, ...] = ()


def default_directory(entry):
    """Returns the directory where the published commands expect an entry."""
    if entry.kind == catalogue.VOCABULARY:
        return os.path.join(_REPOSITORY, "albert_config")
    parent = {catalogue.MODEL: "prev_trained_model", catalogue.TASK: "CLUEdatasets"}
    return os.path.join(parent[entry.kind], entry.name)


def install(entry, directory, origin):
    """Installs an entry in a directory.

    Args:
      entry: `catalogue.Entry`.
      directory: the model's or task's own directory, or the one for `vocab.txt`.
      origin: `Origin`.

    Returns:
      bool, False if everything was installed already.

    Raises:
      UserError: the directory has something else, or another process is installing;
        or as `downloads.fetch`, `downloads.copy` and `archives.extract`.
    """
    directory = os.path.normpath(directory)
    _check_by_hand(entry, origin.from_file)
    # Without a lock: a complete download may be in a read-only place.
    if _is_installed(entry, directory):
        return False
    parent = directory
    if entry.kind != catalogue.VOCABULARY:
        parent = os.path.dirname(directory) or "."
    with files.writing(parent):
        files.make_directory(parent)
    with _locked(entry, directory, parent):
        if _is_installed(entry, directory):
            return False
        # Safe now: the lock is held.
        files.remove_leftovers(directory)
        if entry.kind == catalogue.VOCABULARY:
            _install_file(entry, directory, origin)
        elif entry.is_archive:
            _install_archive(entry, directory, parent, origin)
        else:
            _install_files(entry, directory, parent, origin)
    return True


@contextlib.contextmanager
def _locked(entry, directory, parent):
    """Locks the directory and the download against other processes."""
    message = "another process is downloading {} to {}; wait for it"
    target = ".{}.lock".format(os.path.basename(directory))
    download = ".{}.download.lock".format(entry.published_names[0])
    with locks.hold(
        os.path.join(parent, target), message.format("something", directory)
    ), locks.hold(os.path.join(parent, download), message.format(entry.name, parent)):
        yield


def _is_installed(entry, directory):
    """Whether an entry is installed already, and undamaged.

    Raises:
      UserError: something else is in its place.
    """
    if entry.kind != catalogue.VOCABULARY:
        return _is_complete(entry, directory)
    (file,) = entry.files
    path = os.path.join(directory, file.name)
    if not os.path.lexists(path):
        return False
    advice = "the published file's; move it away or give another --output_dir"
    downloads.verify(path, downloads.Expected(file.checksum, advice))
    return True


def _check_by_hand(entry, from_file):
    """Raises `UserError` if --from_file lacks a file of the entry."""
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
    """Installs an entry of one file with a known checksum, from any of its sources."""
    sources = (entry,) + origin.others
    for number, source in enumerate(sources, 1):
        (file,) = source.files
        path = os.path.join(directory, file.name)
        expected = downloads.Expected(file.checksum, "the published file's")
        try:
            _obtain(source, file, path, expected, origin)
            return
        except UserError as error:
            if len(sources) == 1:
                raise
            if number == len(sources):
                raise UserError(
                    "none of {} sources has {}; the last: {}".format(
                        number, entry.name, error
                    )
                ) from error
            _LOGGER.warning("%s; trying the next source", error)


def _install_archive(entry, directory, parent, origin):
    """Installs an archive's content, and records its checksum if it is usable.

    A newly downloaded archive is deleted afterwards, usable or not. An archive that
    was there before is kept.
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
        with files.directory_beside(directory) as staging:
            content = archives.extract(archive, staging)
            if not is_downloaded:
                _check_model(entry, content, archive)
            _publish(entry, content, directory)
    except archives.UnusableArchive as error:
        if is_downloaded:
            _remove(archive)
        elif not origin.from_file:
            raise UserError(
                "{}; delete it to download it again".format(error)
            ) from error
        raise
    checksums.add({_key(entry, file): downloads.file_checksum(archive)})
    if is_downloaded:
        _remove(archive)


def _check_model(entry, content, source):
    """Raises `UserError` if files given by hand are a model of another size or layout.

    Args:
      entry: `catalogue.Entry`.
      content: directory of the files.
      source: where they are from, for the message.
    """
    if entry.size is None:
        return
    path = os.path.join(_REPOSITORY, "albert_config", entry.size.config)
    wanted = json_files.read(path, _SIZE_SCHEMA, "restore it")["hidden_size"]
    held = _find_model(content)
    if held not in (None, (entry.size.dialect, wanted)):
        raise UserError(
            "{}: it holds a model of hidden_size {} in the {} layout, {} has {} in the "
            "{} layout; give the file of {}".format(
                source,
                held[1],
                held[0],
                entry.name,
                wanted,
                entry.size.dialect,
                entry.address,
            )
        )


def _find_model(directory):
    """Returns (dialect, hidden size) of the model in a directory, or None."""
    for folder, _, names in sorted(os.walk(directory)):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith(".index"):
                # TensorFlow is loaded for models only.
                from albert_zh.models import architecture, checkpoints

                with contextlib.suppress(UserError):
                    shapes = checkpoints.read_shapes(path[: -len(".index")], path)
                    found = architecture.infer(shapes)
                    return found.dialect, found.hidden_size
            if name == "config.json":
                with contextlib.suppress(UserError):
                    return "google", json_files.read(path, _SIZE_SCHEMA, "")[
                        "hidden_size"
                    ]
    return None


def _remove(path):
    with files.removing(path):
        os.remove(path)


def _install_files(entry, directory, parent, origin):
    """Installs several files as one directory; keeps files of an earlier run."""
    checksums = downloads.Checksums(parent)
    if origin.from_file:
        with files.directory_beside(directory) as staging:
            received = _fill(entry, staging, checksums, origin, {})
            _check_model(entry, staging, origin.from_file)
            _publish(entry, staging, directory)
    else:
        # Not named after `directory`, which may have been used for another entry.
        staging = os.path.join(parent, entry.published_names[0] + ".partial")
        held = _take_staging(entry, staging)
        received = _fill(entry, staging, checksums, origin, held)
        _publish(entry, staging, directory)
    checksums.add({_key(entry, file): received[file.name] for file in entry.files})


def _take_staging(entry, staging):
    """Makes the directory of an unfinished download, or reopens an earlier run's.

    Its receipt identifies it, and has the checksums of the files received so far.

    Returns:
      dict name -> checksum of the files in it.

    Raises:
      UserError: the path is taken by something that no run made.
    """
    if not os.path.lexists(staging):
        with files.directory_beside(staging) as new:
            _write_receipt(entry, new, {})
            files.rename_directory(new, staging)
        return {}
    receipt = None
    if os.path.isdir(staging) and not os.path.islink(staging):
        for file in entry.files:
            files.remove_leftovers(os.path.join(staging, file.name + ".partial.json"))
        files.remove_leftovers(os.path.join(staging, RECEIPT_FILE))
        receipt = _read_receipt(staging)
    if receipt is None or (receipt["name"], receipt["source"]) != _identity(entry):
        raise UserError(
            "{} is in the way: it has no {} of a download of {}; move it away".format(
                staging, RECEIPT_FILE, entry.name
            )
        )
    return receipt["files"]


def _fill(entry, staging, checksums, origin, held):
    """Downloads or copies the missing files of an entry into a directory.

    Args:
      entry: `catalogue.Entry`.
      staging: the directory.
      checksums: `downloads.Checksums`.
      origin: `Origin`.
      held: dict name -> checksum of the files received; other files are replaced.

    Returns:
      dict name -> checksum of all files.

    Raises:
      UserError: the directory has another file, too.
    """
    received = {}
    for file in entry.files:
        path = os.path.join(staging, file.name)
        expected = _expected(entry, file, checksums)
        if file.name in held and _has_checksum(path, held[file.name]):
            downloads.verify(path, expected)
        else:
            _obtain(entry, file, path, expected, origin)
        received[file.name] = downloads.file_checksum(path)
        _write_receipt(entry, staging, received)
    strange = set(os.listdir(staging)) - set(received) - {RECEIPT_FILE}
    if strange:
        raise UserError(
            "{} has {!r}, which is not from this download; move it away".format(
                staging, min(strange)
            )
        )
    return received


def _obtain(entry, file, path, expected, origin):
    """Downloads or copies one file of an entry."""
    files.remove_leftovers(path)
    if origin.from_file:
        source = origin.from_file
        if len(entry.files) > 1:
            source = os.path.join(source, file.name)
        downloads.copy(source, path, expected)
        return
    base_url = (origin.base_url or entry.base_url).rstrip("/")
    address = "{}/{}".format(base_url, file.path)
    origin.fetch(address, path, expected, entry.max_bytes)


def _key(entry, file):
    """Returns a file's key in the recorded checksums, the same for all mirrors."""
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
        "recorded in {} at the first download; if the publisher has replaced the file, "
        "delete that entry".format(checksums.path),
    )


def _is_complete(entry, directory):
    """Whether the directory is an undamaged download of this entry.

    Raises:
      UserError: it is something else, and not empty.
    """
    if not os.path.lexists(directory):
        return False
    problem = "holds something else"
    if os.path.isdir(directory):
        with files.reading(directory):
            if not os.listdir(directory):
                return False
        receipt = _read_receipt(directory)
        if receipt and (receipt["name"], receipt["source"]) == _identity(entry):
            problem = _find_damage(entry, directory, receipt["files"])
            if problem is None:
                return True
    raise UserError(
        "--output_dir={} {}; delete it or give another one".format(directory, problem)
    )


def _identity(entry):
    """Returns the (name, source) of an entry in its receipt."""
    return entry.name, entry.source


def _find_damage(entry, directory, checksums):
    """Describes what is wrong with the files of a receipt, or returns None."""
    expected = set() if entry.is_archive else {file.name for file in entry.files}
    if not checksums or expected - set(checksums):
        return "is an unfinished download"
    for name, checksum in sorted(checksums.items()):
        if not _has_checksum(os.path.join(directory, name), checksum):
            return "has lost or changed {!r}".format(name)
    return None


def _read_receipt(directory):
    """Returns the content of `.download.json`, or None if there is none.

    Raises:
      UserError: it is damaged, or names files outside of the directory.
    """
    path = os.path.join(directory, RECEIPT_FILE)
    if not os.path.lexists(path):
        return None
    files.require_regular(path)
    advice = "delete {} or give another --output_dir".format(directory)
    receipt = json_files.read(path, _RECEIPT_SCHEMA, advice)
    for name in receipt["files"]:
        # Backslashes and drives lead outside on Windows.
        if re.match(r"/|[A-Za-z]:|.*\\", name) or ".." in name.split("/"):
            raise UserError(
                "{}: names {!r}, which is outside of the directory; {}".format(
                    path, name, advice
                )
            )
    return receipt


def _write_receipt(entry, directory, checksums):
    name, source = _identity(entry)
    receipt = {"name": name, "source": source, "files": checksums}
    files.write_text(
        json.dumps(receipt, ensure_ascii=False, indent=2, sort_keys=True) + "\n",
        os.path.join(directory, RECEIPT_FILE),
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
            if relative != RECEIPT_FILE:
                checksums[relative] = downloads.file_checksum(path)
    _write_receipt(entry, content, checksums)
    files.rename_directory(content, directory)
