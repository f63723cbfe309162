"""The files of a task in a folder, cut to their first rows."""

import pathlib

from albert_zh.base.errors import UserError
from albert_zh.tasks import registry
from benchmarks import rows


def task_argument(text):
    """Type of a flag `--task=TASK_NAME=DATA_DIR`.

    Args:
      text: str, the flag's value.

    Returns:
      (str, `pathlib.Path`).

    Raises:
      ValueError: one of them is missing.
    """
    name, _, folder = text.partition("=")
    if not folder:
        raise ValueError
    return name, pathlib.Path(folder)


def check_names(tasks):
    """Checks that no task is named twice: its results have their place by its name.

    Args:
      tasks: list of what `task_argument` returns.

    Raises:
      UserError: one is.
    """
    names = [name for name, _ in tasks]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                "--task={}=...: given twice; give the other data with another "
                "--work".format(name)
            )


def find(name, folder):
    """Finds the files of a task that is scored by its accuracy.

    Args:
      name: of the task.
      folder: `pathlib.Path`.

    Returns:
      Dict of "train", "dev" and "test" -> `pathlib.Path`; without "test" where there
      is none.

    Raises:
      UserError: there is no such task or folder, no file of training or dev, or
        several of a split.
    """
    task = registry.TASKS.get(name)
    if task is None or task.kind != "classification":
        known = registry.TASKS.values()
        names = [each.name for each in known if each.kind == "classification"]
        raise UserError(
            "--task={}: expected one of {}".format(name, ", ".join(sorted(names)))
        )
    found = {}
    for split in ("train", "dev", "test"):
        paths = sorted(folder.glob(split + ".*"))
        if len(paths) > 1 or (not paths and split != "test"):
            raise UserError(
                "--task={}={}: expected one file {}.*, found {}".format(
                    name, folder, split, ", ".join(map(str, paths)) or "none"
                )
            )
        found.update((split, path) for path in paths)
    return found


def first_rows(path, limit, folder):
    """Copies the first rows of a file of one example a line.

    Args:
      path: `pathlib.Path`.
      limit: int, rows besides the first line, which may be a header; None for all.
      folder: `pathlib.Path` for the copy, made where it is missing.

    Returns:
      `pathlib.Path`, of the copy, or of the file itself where `limit` is None.
    """
    if limit is None:
        return path
    cut = folder / "{}_{}{}".format(path.stem, limit, path.suffix)
    with path.open("rb") as lines:
        rows.write(b"".join(next(lines, b"") for _ in range(limit + 1)), cut)
    return cut
