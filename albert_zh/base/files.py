"""Local and remote files, written so that they appear whole or not at all.

Paths with "://" (`gs://...`, `hdfs://...`) go through TensorFlow's file layer, which
supports these file systems. TensorFlow is imported only for them, because that takes
seconds and 400 MB.
"""

import collections
import contextlib
import functools
import glob as local_glob
import logging
import os
import re
import shutil
import stat
import tempfile
import uuid
from typing import NamedTuple

from albert_zh.base.errors import UserError

_LOGGER = logging.getLogger(__name__)

_EXPECTED_OUTPUTS = (
    "expected distinct file names separated by commas, none of them an input file or "
    "inside another one"
)
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}\.partial", re.DOTALL)


def is_remote(path):
    """Whether a path needs TensorFlow's file layer."""
    return "://" in str(path)


def open_file(path, mode="rb"):
    """Opens a file; text is UTF-8 on every system.

    A new local file ("x" or "xb") is never made through a symbolic link.
    """
    if is_remote(path):
        return _gfile().GFile(path, mode.replace("x", "w"))
    return open(path, mode, encoding=None if "b" in mode else "utf-8")


def open_input(path):
    """Opens an ordinary file to read bytes; refuses pipes and devices, which may block.

    Raises:
      UserError: it is no ordinary file.
    """
    if is_remote(path):
        return open_file(path)
    # O_NONBLOCK: opening a pipe must not wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _require_regular_mode(path, os.fstat(file.fileno()).st_mode)
    except UserError:
        file.close()
        raise
    return file


def glob_characters(path):
    """Returns the list of characters of a path with a meaning in TensorFlow's globs."""
    special = "*?[]" if os.sep == "\\" else "*?[]\\"
    return [character for character in str(path) if character in special]


def exists(path):
    """Whether there is a file or directory.

    Raises:
      UserError: this cannot be told, as its directory may not be searched.
    """
    if is_remote(path):
        return _gfile().exists(path)
    try:
        os.stat(path)
    except PermissionError as error:
        raise _cannot_read(path, error) from error
    except (OSError, ValueError):  # no path at all, such as one with NUL
        return False
    return True


def lexists(path):
    """Like `exists`, but also true for a broken symbolic link."""
    return _gfile().exists(path) if is_remote(path) else os.path.lexists(path)


def is_link(path):
    """Whether a path is a symbolic link."""
    return not is_remote(path) and os.path.islink(path)


def is_regular(path):
    """Whether a path is an ordinary file, not a pipe or a device."""
    return (
        exists(path) and not is_directory(path)
        if is_remote(path)
        else os.path.isfile(path)
    )


def is_directory(path):
    """Whether a path is a directory."""
    return _gfile().isdir(path) if is_remote(path) else os.path.isdir(path)


def size(path):
    """Returns the size of a file in bytes."""
    return _gfile().stat(path).length if is_remote(path) else os.path.getsize(path)


class Stamp(NamedTuple):
    """Size in bytes and time of the last write in ns, to notice that a file changed."""

    size: int
    written: int


def stamp(path):
    """Returns the `Stamp` of a file.

    Raises:
      UserError: it cannot be examined.
    """
    with reading(path):
        if is_remote(path):
            status = _gfile().stat(path)
            return Stamp(status.length, status.mtime_nsec)
        status = os.stat(path)
        return Stamp(status.st_size, status.st_mtime_ns)


def list_directory(path):
    """Returns the sorted names of the entries of a directory.

    Raises:
      UserError: it cannot be read.
    """
    with reading(path):
        names = _gfile().listdir(path) if is_remote(path) else os.listdir(path)
    return sorted(name.rstrip("/") for name in names)


def glob(pattern):
    """Returns the sorted files, not directories, that a name or glob matches.

    A name that exists is used as it is, even if it has glob characters. So is the
    longest directory at the start of a glob that would otherwise match nothing.
    """
    if is_remote(pattern):
        gfile = _gfile()
        found = [pattern] if gfile.exists(pattern) else sorted(gfile.glob(pattern))
        return [path for path in found if not gfile.isdir(path)]
    if os.path.exists(pattern):
        found = [pattern]
    else:
        found = local_glob.glob(pattern) or local_glob.glob(_literal_folder(pattern))
    return sorted(path for path in found if not os.path.isdir(path))


def _literal_folder(pattern):
    """Escapes the longest existing directory at the start of a glob."""
    folder = os.path.dirname(pattern)
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return local_glob.escape(folder) + pattern[len(folder) :]


def walk(directory):
    """Returns the sorted files in and below a directory, except hidden ones.

    Hidden are files and directories whose names begin with "." or "_", as side files
    of macOS and marks of Hadoop's jobs do.
    """
    found, waiting, seen = [], [directory], set()
    while waiting:
        folder = waiting.pop()
        real = real_path(folder)
        if real in seen:  # links may lead around in a circle
            continue
        seen.add(real)
        for name in list_directory(folder):
            path = os.path.join(folder, name)
            if not name.startswith((".", "_")):
                (waiting if is_directory(path) else found).append(path)
    return sorted(found)


def output_files(names, input_files):
    """Returns the output files of comma-separated names, and creates their folders.

    Args:
      names: str, file names separated by commas.
      input_files: every file that the command reads, including vocabulary or model.

    Raises:
      UserError: as `split_names`, `require_separate` and `make_folders`.
    """
    paths = split_names(names)
    require_separate(names, paths, input_files)
    make_folders(paths)
    return paths


def split_names(names):
    """Returns the list of comma-separated names of output files.

    Raises:
      UserError: there is none.
    """
    paths = [name.strip() for name in names.split(",") if name.strip()]
    if not paths:
        raise UserError("cannot write to {!r}; {}".format(names, _EXPECTED_OUTPUTS))
    return paths


def split_inputs(names, is_there=None):
    """Returns the list of comma-separated names of input files.

    A comma belongs to a name if only then there is such a file.

    Args:
      names: str.
      is_there: function of a name, whether it can be read; default: it is a file.
    """
    is_there = is_there or (lambda name: exists(name) and not is_directory(name))
    whole = names.strip()
    if whole and is_there(whole):
        return [whole]
    parts, found = names.split(","), []
    while parts:
        prefixes = [",".join(parts[: i + 1]).strip() for i in range(len(parts))]
        number = next((i for i, name in enumerate(prefixes) if is_there(name)), 0)
        found.append(prefixes[number])
        del parts[: number + 1]
    return [name for name in found if name]


def require_separate(names, outputs, inputs, directories=()):
    """Checks that a command's outputs and inputs do not overlap.

    Links are resolved: paths that lead to one file through a linked folder, a symbolic
    or a hard link are the same. Nothing is created.

    Args:
      names: str, the value of --output_file, for messages.
      outputs: list of paths of files to write.
      inputs: list of paths of files to read.
      directories: list of folders that must have no outputs or inputs.

    Raises:
      UserError: an output is an input or another output, or an output or input is
        inside of an output or one of the directories, or is one of them.
    """

    def refuse(path, relation, other):
        raise UserError(
            "cannot write to {!r}: {} is {} {}; {}".format(
                names, path, relation, other, _EXPECTED_OUTPUTS
            )
        )

    real_folder = functools.lru_cache(maxsize=None)(os.path.realpath)
    taken = {}  # key of a file -> (relation, path), for the message
    for path in inputs:
        for key in _keys(path, real_folder):
            taken[key] = ("the input file", path)
    folders = {_real(path, real_folder): path for path in directories}
    for path in outputs:
        for key in _keys(path, real_folder):
            if key in taken:
                refuse(path, *taken[key])
        for key in _keys(path, real_folder):
            taken[key] = ("the same file as", path)
    for path in directories:
        if _real(path, real_folder) in taken:
            refuse(path, *taken[_real(path, real_folder)])
    folders.update((_real(path, real_folder), path) for path in outputs)
    for path in list(outputs) + list(inputs):
        for parent in _parents(_real(path, real_folder)):
            if parent in folders:
                refuse(path, "inside", folders[parent])


def _keys(path, real_folder):
    """Returns the keys of a file: its resolved path and, if it exists, its inode."""
    keys = {_real(path, real_folder)}
    if not is_remote(path) and os.path.isfile(path):
        status = os.stat(path)
        keys.add((status.st_dev, status.st_ino))
    return keys


def real_path(path):
    """Returns a path, or a remote one as it is, without links."""
    return path if is_remote(path) else os.path.realpath(path)


def _real(path, real_folder):
    """Returns a path without links; `real_folder` caches the folder's."""
    if is_remote(path):
        return str(path)
    if os.path.islink(path):
        return os.path.realpath(path)
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(real_folder(folder), name)


def _parents(path):
    """Yields all parent folders of a path."""
    parent = os.path.dirname(path)
    while parent != path:
        yield parent
        path, parent = parent, os.path.dirname(parent)


def make_folders(paths):
    """Creates the folders of files to write, if absent.

    Raises:
      UserError: a folder cannot be created, or a path is itself a folder, a pipe or
        a device.
    """
    for path in paths:
        if os.path.basename(path):
            with writing(path):
                make_directory(os.path.dirname(path))
    for path in paths:
        if not os.path.basename(path) or is_directory(path):
            raise UserError("cannot write to {!r}: it is a folder".format(path))
        if not is_remote(path) and os.path.exists(path) and not is_regular(path):
            raise UserError(
                "cannot write to {!r}: it is a pipe or a device; expected the name of "
                "a file".format(path)
            )


def absolute(path):
    """Returns a path that is valid in every working directory."""
    return path if is_remote(path) else os.path.abspath(path)


def make_directory(path):
    """Creates a directory and its parents, if absent."""
    if is_remote(path):
        _gfile().makedirs(path)
    else:
        os.makedirs(path or ".", exist_ok=True)


def rename(source, target):
    """Renames a file, replacing an existing one: atomic on a local disk."""
    if is_remote(target):
        _gfile().rename(source, target, overwrite=True)
    else:
        os.replace(source, target)


def remove(path):
    """Removes a file or a symbolic link, if there is one.

    Raises:
      UserError: it cannot be removed.
    """
    with removing(path):
        if is_remote(path):
            if exists(path):
                _gfile().remove(path)
        elif os.path.lexists(path):
            os.remove(path)


def remove_directory(path):
    """Removes a directory with its content, if there is one.

    Raises:
      UserError: it cannot be removed.
    """
    if not exists(path):
        return
    with removing(path):
        if is_remote(path):
            _gfile().rmtree(path)
        else:
            shutil.rmtree(path)


def remove_empty_directory(path):
    """Removes an empty directory.

    Raises:
      UserError: it cannot be removed, is not empty, or does not exist.
    """
    with removing(path):
        if not is_remote(path):
            os.rmdir(path)
        elif not list_directory(path):
            _gfile().rmtree(path)


def make_temporary_directory():
    """Creates a local directory of a random name, which the caller removes.

    Returns:
      Its path.

    Raises:
      UserError: there is no place for it.
    """
    # mkdtemp also fails if it finds no usable parent directory.
    with writing("a temporary directory (TMPDIR names where)"):
        return tempfile.mkdtemp(prefix="albert_zh.")


@contextlib.contextmanager
def _removed_on_error(path):
    """Removes a file after an error in the block, and raises that error."""
    try:
        yield
    except BaseException:
        try:
            remove(path)
        except UserError as error:
            _LOGGER.warning("%s", error)
        raise


@contextlib.contextmanager
def whole(path, mode="wb", directory=None, syncs_name=True):
    """Opens a new file that gets its name when the block ends without an error.

    It is written under a random temporary name, so that concurrent writers of one file
    do not disturb each other and no prepared symbolic link is followed. Its content is
    on the disk before it gets its name.

    Args:
      path: the file.
      mode: "wb" or "w".
      directory: directory of the temporary file, on the same disk; None for that of
        the file, where a killed process leaves it (see `remove_leftovers`).
      syncs_name: whether the name is on the disk, too, after the block; if not, the
        caller calls `sync_directory`, once for many files.

    Yields:
      The open file.

    Raises:
      UserError: it cannot be written; names the file.
    """
    beside, name = os.path.split(path)
    temporary = os.path.join(
        beside if directory is None else directory, _temporary_name(name)
    )
    with _removed_on_error(temporary), writing(path):
        with open_file(temporary, mode.replace("w", "x")) as file:
            yield file
            _flush_to_disk(file, temporary)
        rename(temporary, path)
        if syncs_name:
            sync_directory(beside)


def whole_name(name):
    """Returns the final name of a temporary file of `whole`.

    Args:
      name: str, name of any file, without its directory.

    Returns:
      str; None if it is no name of a temporary file.
    """
    match = _TEMPORARY.fullmatch(name)
    return match and match.group(1)


@contextlib.contextmanager
def directory_beside(path):
    """Creates an empty directory beside `path`, to fill and rename to it.

    It has a random name. When the block ends it is removed with its content, unless
    `rename_directory` has renamed it.

    Args:
      path: the final path, local; its parent exists.

    Yields:
      Path of the new directory.

    Raises:
      UserError: it cannot be created or removed.
    """
    beside, name = os.path.split(os.path.normpath(path))
    temporary = os.path.join(beside, _temporary_name(name))
    with writing(path):
        os.mkdir(temporary)
    try:
        yield temporary
    finally:
        remove_directory(temporary)


def rename_directory(source, target):
    """Syncs a complete local directory to disk and gives it its final name.

    Args:
      source: the directory.
      target: the final path; absent or an empty directory.

    Raises:
      UserError: the target is not empty, or cannot be written.
    """
    with writing(target):
        for folder, _, names in os.walk(source):
            for name in names:
                _sync_file(os.path.join(folder, name))
            sync_directory(folder)
        if os.path.isdir(target):
            os.rmdir(target)  # fails if it is not empty
        os.rename(source, target)
        sync_directory(os.path.dirname(os.path.normpath(target)))


def _temporary_name(name):
    """Returns a random name that `whole_name` recognizes."""
    return ".{}.{}.partial".format(name, uuid.uuid4().hex)


def remove_leftovers(*paths):
    """Removes temporary files and directories that killed processes left behind.

    Call it only while no other process can be writing them.

    Args:
      *paths: their final paths, local or remote.

    Returns:
      int, the number removed.
    """
    names = collections.defaultdict(set)  # by directory, which is listed once
    for path in paths:
        beside, name = os.path.split(path)
        names[beside].add(name)
    leftovers = [
        os.path.join(beside, found)
        for beside in names
        if is_directory(beside or ".")
        for found in list_directory(beside or ".")
        if whole_name(found) in names[beside]
    ]
    for leftover in leftovers:
        if is_directory(leftover) and not os.path.islink(leftover):
            remove_directory(leftover)
        else:
            remove(leftover)
    return len(leftovers)


def _flush_to_disk(file, path):
    file.flush()
    if not is_remote(path):
        os.fsync(file.fileno())


def rename_to_disk(source, target):
    """Like `rename` for local files, but content and name survive a power failure."""
    _sync_file(source)
    os.replace(source, target)
    sync_directory(os.path.dirname(target))


def _sync_file(path):
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path):
    """Makes the names in a local directory survive a power failure."""
    if is_remote(path) or not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_no_directory(path):
    """Raises `UserError` for a directory, local or remote."""
    if is_directory(path):
        raise _folder_error(path)


def _folder_error(path):
    return UserError("cannot read {}: it is a folder; expected a file".format(path))


def require_regular(path):
    """Raises `UserError` for a local path that is no ordinary file.

    Reading a pipe or a device may block, and does not repeat the same bytes.
    """
    if is_remote(path):
        return
    with reading(path):
        mode = os.stat(path).st_mode
    _require_regular_mode(path, mode)


def _require_regular_mode(path, mode):
    if stat.S_ISDIR(mode):
        raise _folder_error(path)
    if not stat.S_ISREG(mode):
        raise UserError(
            "cannot read {}: it is no ordinary file (a pipe or a device?); expected a "
            "file that can be read more than once".format(path)
        )


def read_bytes(path):
    """Returns the content of a file, local or remote.

    Raises:
      UserError: it cannot be read, or is a pipe or a device.
    """
    with reading(path), open_input(path) as file:
        return file.read()


def write_bytes(content, path):
    """Writes a file that appears whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    with whole(path) as file:
        file.write(content)


def copy(source, target):
    """Copies a file's content; the copy appears whole, with default permissions.

    Raises:
      UserError: the source cannot be read or the target cannot be written.
    """
    write_bytes(read_bytes(source), target)


def write_text(text, path):
    """Writes a UTF-8 text file that appears whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    with whole(path, "w") as file:
        file.write(text)


@contextlib.contextmanager
def reading(path):
    """Turns a failure to read into a `UserError` that names the file."""
    try:
        yield
    except _errors(path) as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path, error):
    what = "directory" if os.path.isdir(path) else "file"
    return UserError(
        "cannot read {}: {}; expected a readable {}".format(path, _reason(error), what)
    )


@contextlib.contextmanager
def writing(path):
    """Turns a failure to write into a `UserError` that names the file."""
    try:
        yield
    except _errors(path) as error:
        raise cannot_write(path, _reason(error)) from error


def cannot_write(path, reason):
    """Returns the `UserError` for a failure to write; `reason` is a str."""
    return UserError(
        "cannot write {}: {}; expected a writable place with free space".format(
            path, reason
        )
    )


@contextlib.contextmanager
def removing(path):
    """Turns a failure to remove into a `UserError` that names the file or directory."""
    try:
        yield
    except _errors(path) as error:
        raise UserError(
            "cannot remove {}: {}; remove it by hand".format(path, _reason(error))
        ) from error


def _errors(path):
    if not is_remote(path):
        return OSError
    import tensorflow.compat.v1 as tf

    return (OSError, tf.errors.OpError)


def _reason(error):
    """Returns an error's message without number, path or operation."""
    reason = getattr(error, "strerror", None) or getattr(error, "message", None)
    return reason or str(error)


def _gfile():
    import tensorflow.compat.v1 as tf

    return tf.io.gfile
