"""Names of the files that data generation writes, made from its first output file.

out.tfrecord                      the records, in one file, or
out-00000-of-00128.tfrecord       divided into many
out.tfrecord.summary.json         the summary, written at the end
out.tfrecord.work                 the working directory, removed at the end
"""

import os
import re
from typing import NamedTuple, Tuple

from albert_zh.base import files
from albert_zh.base.errors import UserError

SUMMARY_ENDING = ".summary.json"
MAX_OUTPUT_FILES = 99999  # their numbers have five digits


class Outputs(NamedTuple):
    """Where a run writes.

    Attributes:
      name: the first of --output_file; the other names are made from it.
      records: paths of the record files.
    """

    name: str
    records: Tuple[str, ...]

    @property
    def summary_file(self):
        """Path of the summary."""
        return self.name + SUMMARY_ENDING

    @property
    def work_directory(self):
        """Path of the working directory."""
        return self.name + ".work"

    def of_earlier_runs(self):
        """Returns the list of the paths that an earlier run may have left.

        Files without its summary or its directory may be somebody's text.
        """
        own = [self.summary_file, self.work_directory]
        return own + list(self.records) if any(map(files.exists, own)) else []


def prepare(names, outputs, input_files, more_files=()):
    """Makes the folders that a run writes into.

    Args:
      names: str, --output_file, for messages.
      outputs: `Outputs`.
      input_files: list of paths that the run reads.
      more_files: list of further paths that the command writes.

    Raises:
      UserError: outputs and inputs overlap.
    """
    written = list(outputs.records) + [outputs.summary_file] + list(more_files)
    directories = [outputs.work_directory]
    files.require_separate(names, written, input_files, directories)
    files.make_folders(written)


def choose(names, num_files):
    """Chooses where a run writes.

    Args:
      names: str, --output_file: paths separated by commas.
      num_files: int, into how many files one path is divided; None for as many
        files as there are names.

    Returns:
      `Outputs`.

    Raises:
      UserError: the names cannot be used.
    """
    paths = files.split_names(names)
    if num_files is None:
        return Outputs(paths[0], tuple(paths))
    if len(paths) != 1:
        raise UserError(
            "--num_output_files divides one --output_file, received {!r}".format(names)
        )
    if num_files > MAX_OUTPUT_FILES:
        raise UserError(
            "--num_output_files {}: expected at most {}".format(
                num_files, MAX_OUTPUT_FILES
            )
        )
    return Outputs(paths[0], tuple(divided(paths[0], num_files)))


def divided(name, num_files):
    """Returns the names of the files that one file is divided into."""
    stem, extension = _parts(name)
    return [
        "{}-{:05d}-of-{:05d}{}".format(stem, number, num_files, extension)
        for number in range(num_files)
    ]


def is_of(name, other):
    """Whether a name is that of an output file or of one that `divided` makes of it.

    Args:
      name: name of the output file, without directory.
      other: str, any name; one with a directory is not.
    """
    stem, extension = _parts(name)
    pattern = "{}-[0-9]{{5}}-of-[0-9]{{5}}{}".format(*map(re.escape, (stem, extension)))
    return other == name or re.fullmatch(pattern, other) is not None


def _parts(name):
    stem, extension = os.path.splitext(name)
    return stem, extension or ".tfrecord"
