"""Names on one line, such as labels in a flag: a line of CSV."""

import csv
import io


def split(text):
    """Splits a line at its commas; a name that has a comma stands in quotation marks.

    Args:
      text: str.

    Returns:
      Tuple of str, without white space around them.

    Raises:
      ValueError: quotation marks that do not surround a whole name.
    """
    try:
        (names,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (ValueError, csv.Error) as error:
        problem = (
            "{!r} is no line of CSV ({}); quotation marks stand around a whole name, "
            "those within it are doubled"
        )
        raise ValueError(problem.format(text, error)) from error
    return tuple(name.strip() for name in names)


def join(names):
    """Returns the line, str, that `split` makes these names of."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()
