"""Names on one line, such as labels in a flag: a line of CSV."""

import csv
import io


def split(text):
    """Splits a line at its commas; a name that has a comma stands in quotation marks.

    Args:
      text: str.

    Returns:
      Tuple of str, without white space around them.
    """
    try:
        (names,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (ValueError, csv.Error):  # quotation marks that are part of a name
        names = text.split(",")
    return tuple(name.strip() for name in names)


def join(names):
    """Returns the line, str, that `split` makes these names of."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()
