"""The files of a task in a folder, cut to their first rows."""

import pathlib


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
    folder.mkdir(parents=True, exist_ok=True)
    cut = folder / "{}_{}{}".format(path.stem, limit, path.suffix)
    if not cut.exists():
        with path.open("rb") as lines:
            cut.write_bytes(b"".join(next(lines, b"") for _ in range(limit + 1)))
    return cut
