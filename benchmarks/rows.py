"""What benchmarks share whose rows are commands of the repository."""

import pathlib
import statistics
import subprocess
import sys
import time

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# What `run_once` writes into its folder.
_RECORD = "run.json"
_SCHEMA = {
    "type": "object",
    "properties": {
        "command": {"type": "array", "items": {"type": "string"}},
        "inputs": {"type": "object"},
        "seconds": {"type": "number"},
        "has_ended": {"type": "boolean"},
    },
    "required": ["command", "inputs", "seconds", "has_ended"],
}
# Ends of the flags that name what a command reads.
_INPUT_FLAGS = ("_file", "_dir", "_checkpoint")


def choose(text, known, flag="--rows"):
    """Returns the rows that a flag names.

    Args:
      text: str, names separated by commas, or "all".
      known: names of all rows.
      flag: str, for the message.

    Returns:
      List of str.

    Raises:
      UserError: there is no such row.
    """
    names = list(known) if text == "all" else text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            "{}: no row {}; expected some of {}".format(
                flag, ", ".join(unknown), ", ".join(known)
            )
        )
    return names


def run(command, folder):
    """Runs a command of the repository, its output into `log.txt` of a folder.

    Args:
      command: list of str: a script of the repository and its flags.
      folder: `pathlib.Path`, made where it is missing.

    Raises:
      UserError: the command failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, str(REPOSITORY / command[0])] + command[1:]
    with open(folder / "log.txt", "a") as log:
        log.write("$ {}\n".format(" ".join(command)))
        log.flush()
        if subprocess.call(line, stdout=log, stderr=log):
            raise UserError("{} failed; see {}".format(command[0], log.name))


def run_once(command, folder):
    """`run`, unless that command has ended in the folder.

    Returns:
      The seconds it took, all its attempts together.

    Raises:
      UserError: the command failed, or as `check`.
    """
    check(command, folder)
    begun = _read(folder)
    if begun is None:
        begun = {"command": command, "inputs": _inputs(command), "seconds": 0.0}
        begun["has_ended"] = False
        _write(begun, folder)
    if not begun["has_ended"]:
        began = time.time()
        try:
            run(command, folder)
            begun["has_ended"] = True
        finally:
            begun["seconds"] += time.time() - began
            _write(begun, folder)
    return begun["seconds"]


def check(command, folder):
    """Checks that a folder is empty, or of this command with the same input files.

    Raises:
      UserError: it is of another command, or an input file has changed since; says
        what differs.
    """
    begun = _read(folder)
    if begun is None:
        return
    then, now = begun["command"], command
    differ = [each for each in now if each not in then]
    differ += ["no " + each for each in then if each not in now]
    if not differ:
        then, now = begun["inputs"], _inputs(command)
        paths = sorted(set(then) | set(now))
        differ = [
            "another " + path for path in paths if then.get(path) != now.get(path)
        ]
    if differ:
        raise UserError(
            "{}: it holds the results of other settings or files (now: {}); give "
            "another --work or remove it".format(folder, ", ".join(differ))
        )


def write(content, path):
    """Writes a file, unless it holds that: `check` goes by the time of writing.

    Args:
      content: bytes.
      path: `pathlib.Path`, whose folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.exists() and path.read_bytes() == content):
        path.write_bytes(content)


def _read(folder):
    """What `run_once` has written there, None if nothing."""
    path = folder / _RECORD
    if not path.exists():
        return None
    return json_files.read(str(path), _SCHEMA, "remove " + str(folder))


def _write(begun, folder):
    folder.mkdir(parents=True, exist_ok=True)
    json_files.write(begun, str(folder / _RECORD))


def _inputs(command):
    """Size and time of each file that a command reads: dict path -> [int, int]."""
    found = {}
    for argument in command[1:]:
        flag, _, value = argument.partition("=")
        if flag.startswith("--output") or not flag.endswith(_INPUT_FLAGS):
            continue
        for path in value.split(","):
            for each in _files_of(pathlib.Path(path)):
                found[str(each)] = list(files.stamp(str(each)))
    return found


def _files_of(path):
    """The files of an argument: a file, a directory, or the prefix of a checkpoint."""
    if path.is_dir():
        return [each for each in path.glob("[!.]*") if each.is_file()]
    index = path.with_name(path.name + ".index")
    return [each for each in (path, index) if each.is_file()]


def mean_and_deviation(shares, form="{:.1%}"):
    """Returns mean and standard deviation (of a sample) in percent, as text.

    Args:
      shares: list of float; with one there is no deviation, with none no text.
      form: format of the mean.
    """
    if not shares:
        return ""
    text = form.format(statistics.mean(shares))
    if len(shares) > 1:
        text += " ± {:.1f}".format(100 * statistics.stdev(shares))
    return text
