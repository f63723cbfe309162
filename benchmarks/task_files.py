"""The files of a task in a folder, cut to their first rows."""

import itertools
import pathlib

from albert_zh.base.errors import UserError
from albert_zh.tasks import registry, rows, text_lines
from albert_zh.tasks.columns import FOUND_COLUMNS


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
        names = {each.name for each in known if each.kind == "classification"}
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


def first_rows(name, path, limit, folder):
    """Copies the first rows of a file of a task, and the header if there is one.

    Args:
      name: of the task.
      path: `pathlib.Path`.
      limit: int, rows of the copy at most; None for all.
      folder: `pathlib.Path` for the copy, made where it is missing.

    Returns:
      `pathlib.Path`, of the copy, or of the file itself where `limit` is None.

    Raises:
      UserError: names `path:line` of a row that cannot be used.
    """
    if limit is None:
        return path
    task, columns = registry.TASKS[name], FOUND_COLUMNS
    found, _ = rows.open_rows(str(path), task, columns)
    end, _ = next(itertools.islice(found, limit, None), (None, None))
    lines = text_lines.read_lines(str(path))
    text = "".join(line + "\n" for _, line in itertools.islice(lines, end and end - 1))
    cut = folder / "{}_{}{}".format(path.stem, limit, path.suffix)
    folder.mkdir(parents=True, exist_ok=True)
    cut.write_text(text, encoding="utf-8")
    return cut
