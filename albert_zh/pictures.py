"""Pictures by matplotlib, which is optional and loaded only here."""

from albert_zh import files
from albert_zh.errors import UserError

_DOTS_PER_INCH = 120


def require_matplotlib(purpose):
    """Raises `UserError` where no pictures can be drawn.

    Args:
      purpose: the flag or command that wants one, for the message.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            "{} needs matplotlib: run `pip install matplotlib`".format(purpose)
        ) from error


def new_figure(width, height):
    """Returns an empty `matplotlib.figure.Figure`, which needs no screen.

    Args:
      width: in inches of 120 dots.
      height: likewise.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def save(figure, path):
    """Writes a figure as a PNG that appears whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    with files.whole(path) as file:
        figure.savefig(file, format="png")
