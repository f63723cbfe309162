"""The names of what a run of data generation writes, after its first output file.

out.tfrecord                      the records, or, divided into many files,
out-00000-of-00128.tfrecord       the first of them
out.tfrecord.summary.json         what was made, at the end
out.tfrecord.work                 the working directory, until then
"""

import os
import re

MAX_OUTPUT_FILES = 99999  # their numbers have five digits


def summary_file(name):
    """Returns the path of the summary, for the first of --output_file."""
    return name + ".summary.json"


def work_directory(name):
    """Returns the path of the working directory, for the first of --output_file."""
    return name + ".work"


def divided(name, num_files):
    """Returns the list of names of the files that take the place of one."""
    stem, extension = _parts(name)
    return [
        "{}-{:05d}-of-{:05d}{}".format(stem, number, num_files, extension)
        for number in range(num_files)
    ]


def is_of(name, other):
    """Whether an output file may be one of those that `divided` makes, or the one.

    Args:
      name: name of the one file, without directory.
      other: str, anything; with a directory it is none.
    """
    stem, extension = _parts(name)
    pattern = "{}-[0-9]{{5}}-of-[0-9]{{5}}{}".format(*map(re.escape, (stem, extension)))
    return other == name or re.fullmatch(pattern, other) is not None


def _parts(name):
    stem, extension = os.path.splitext(name)
    return stem, extension or ".tfrecord"
