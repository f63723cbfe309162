"""What benchmarks share whose rows are commands of the repository."""

import functools
import pathlib
import re
import signal
import statistics
import sys
import time
from typing import List, NamedTuple

from albert_zh.base import checksums, children, files, json_files
from albert_zh.base.errors import Stopped, UserError
from albert_zh.command_line import EXIT_INTERRUPTED
from albert_zh.models import directory as model_directory

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# What `run` and `run_once` write into a job's folder.
LOG_FILE = "log.txt"
_RECORD = "run.json"
_SCHEMA = {
    "type": "object",
    "properties": {
        "command": {"type": "array", "items": {"type": "string"}},
        "inputs": {"type": "object", "additionalProperties": {"type": "string"}},
        "seconds": {"type": "number"},
        "has_ended": {"type": "boolean"},
    },
    "required": ["command", "inputs", "seconds", "has_ended"],
}
# Ends of the flags that name what a command reads.
_INPUT_FLAGS = ("_file", "_dir", "_checkpoint")


class Job(NamedTuple):
    """A command that is run once.

    Attributes:
      command: list of str: a script of the repository and its flags.
      folder: `pathlib.Path` of all that it writes; made where it is missing.
      result: `pathlib.Path`, a file that is there once the command has ended.
    """

    command: List[str]
    folder: pathlib.Path
    result: pathlib.Path


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


def run(job):
    """Runs the command of a job, its output into `log.txt` of its folder.

    SIGTERM and Ctrl-C are passed on: a command that trains saves its step and ends.

    Args:
      job: `Job`.

    Raises:
      UserError: the command failed.
      Stopped: it, or this process, was told to stop.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    script, flags = job.command[0], job.command[1:]
    with open(job.folder / LOG_FILE, "a") as log:
        log.write("$ {}\n".format(" ".join(job.command)))
        log.flush()
        line = [sys.executable, str(REPOSITORY / script)] + flags
        code = children.run_to_end(line, log)
    code = EXIT_INTERRUPTED if code == -signal.SIGINT else code
    # A training that SIGTERM has stopped exits with 0, too.
    if code == 0 and job.result.exists():
        return
    if code not in (0, -signal.SIGTERM, EXIT_INTERRUPTED):
        last_line = pathlib.Path(log.name).read_text(encoding="utf-8").splitlines()[-1]
        raise UserError(
            "{} failed; see {}, which ends with: {}".format(script, log.name, last_line)
        )
    raise Stopped(
        "{} was stopped before its end; see {}; rerun the same command to "
        "resume".format(script, log.name),
        max(code, 0),
    )


def run_once(job):
    """`run`, unless the command has ended, with its result.

    Returns:
      The seconds it took, all its attempts together.

    Raises:
      UserError: the command failed, or as `check`.
      Stopped: as `run`.
    """
    check(job)
    begun = _read(job.folder)
    if begun is None:
        begun = {"command": job.command, "inputs": _inputs(job.command)}
        begun.update(seconds=0.0, has_ended=False)
        _write(begun, job.folder)
    if not (begun["has_ended"] and job.result.exists()):
        began = time.time()
        begun["has_ended"] = False
        try:
            run(job)
            begun["has_ended"] = True
        finally:
            begun["seconds"] += time.time() - began
            _write(begun, job.folder)
    return begun["seconds"]


def check(*jobs):
    """Checks that folders hold nothing, or these commands' with the same input files.

    Args:
      *jobs: `Job`s in the order in which they are run.

    Raises:
      UserError: one is of another command, or an input file has changed since; says
        what differs, and which folders to remove: those, and what is made from them.
    """
    removed, first = [], None
    for job in jobs:
        differ = _differences(job)
        first = first or (differ and (job.folder, differ))
        is_made_of_them = any(
            re.search("[=,]{}(/|,|$)".format(re.escape(folder)), argument)
            for folder in removed
            for argument in job.command
        )
        if differ or (is_made_of_them and _read(job.folder)):
            removed.append(str(job.folder))
    if first:
        folder, differ = first
        raise UserError(
            "{}: it holds the results of other settings or files (now: {}); give "
            "another --work or remove {}".format(
                folder, ", ".join(differ), ", ".join(removed)
            )
        )


def _differences(job):
    """What a folder's command did not have, or read: a list of texts, [] if nothing."""
    begun = _read(job.folder)
    if begun is None:
        return []
    then, now = begun["command"], job.command
    differ = [each for each in now if each not in then]
    differ += ["no " + each for each in then if each not in now]
    if not differ:
        then, now = begun["inputs"], _inputs(job.command)
        paths = sorted(set(then) | set(now))
        differ = [
            "another " + path for path in paths if then.get(path) != now.get(path)
        ]
    return differ


def _read(folder):
    """What `run_once` has written there; None where the command has left nothing.

    A mistaken flag ends a command before its work, and must not bind the next one.
    """
    path = folder / _RECORD
    left = {each.name for each in folder.rglob("*") if each.is_file()}
    if not path.exists() or left <= {LOG_FILE, _RECORD}:
        return None
    return json_files.read(str(path), _SCHEMA, "remove " + str(folder))


def _write(begun, folder):
    folder.mkdir(parents=True, exist_ok=True)
    json_files.write(begun, str(folder / _RECORD))


def _inputs(command):
    """SHA-256 of each file that a command reads: dict path -> hexadecimal digits."""
    found = {}
    for argument in command[1:]:
        flag, _, value = argument.partition("=")
        if flag.startswith("--output") or not flag.endswith(_INPUT_FLAGS):
            continue
        for name in files.split_inputs(value, _files_of):
            for each in _files_of(name):
                found[str(each)] = _sha256(str(each), files.stamp(str(each)))
    return found


# Rows share their files, and a corpus is read in a second at best.
@functools.lru_cache(maxsize=None)
def _sha256(path, unused_stamp):
    return checksums.hex_digest(path)


def _files_of(name):
    """The files of an argument: a file, a directory, or the prefix of a checkpoint.

    Of the directory of a fine-tuned model, commands read `best/`.
    """
    path = pathlib.Path(name)
    if path.is_dir():
        path = pathlib.Path(model_directory.resolve(name))
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
