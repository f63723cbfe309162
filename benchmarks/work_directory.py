"""The folder that a benchmark works in, of which it removes what earlier runs left."""

import argparse
import pathlib

_MARK = ".made-by-benchmarks"


def work_directory(name):
    """Type of a flag `--work`: makes the folder, or takes one that a benchmark made.

    Args:
      name: str, the flag's value.

    Returns:
      `pathlib.Path`.

    Raises:
      argparse.ArgumentTypeError: the folder holds something that no benchmark made.
    """
    path = pathlib.Path(name)
    if path.exists() and any(path.iterdir()) and not (path / _MARK).exists():
        raise argparse.ArgumentTypeError(
            "{} holds files of somebody else's; name a new folder".format(path)
        )
    path.mkdir(parents=True, exist_ok=True)
    (path / _MARK).touch()
    return path
