"""What benchmarks share whose rows are commands of the repository."""

import json
import pathlib
import statistics
import subprocess
import sys
import time

from albert_zh.base import json_files
from albert_zh.base.errors import UserError

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


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
    """`run`, unless the folder holds the end of that command.

    Returns:
      The seconds it took; of one that was interrupted and resumed, those of the end.

    Raises:
      UserError: the command failed, or the folder holds the end of another one.
    """
    done = folder / "done.json"
    if not done.exists():
        began = time.time()
        run(command, folder)
        ended = {"command": command, "seconds": time.time() - began}
        json_files.write(ended, str(done))
    ended = json.loads(done.read_text(encoding="utf-8"))
    if ended["command"] != command:
        raise UserError(
            "{}: it holds the results of `{}`; give another --work or remove it".format(
                folder, " ".join(ended["command"])
            )
        )
    return ended["seconds"]


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
