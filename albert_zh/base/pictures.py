"""Pictures with matplotlib, which is optional and imported only here."""

import logging
import warnings

from albert_zh.base import files
from albert_zh.base.errors import UserError

_LOGGER = logging.getLogger(__name__)

_DOTS_PER_INCH = 120
# matplotlib knows only the first font of a collection, such as Noto's Japanese one,
# which also has the Chinese characters.
_CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "SimHei",
    "Microsoft YaHei",
    "PingFang SC",
    "PingFang HK",
)
# Comes with matplotlib.
_FALLBACK_FONT = "DejaVu Sans"


def require_matplotlib(purpose):
    """Raises `UserError` if matplotlib is missing.

    Args:
      purpose: the flag or command that needs it, for the message.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            "{} needs matplotlib: run `pip install matplotlib`".format(purpose)
        ) from error


def new_figure(width, height):
    """Returns an empty `matplotlib.figure.Figure` that needs no screen.

    Args:
      width, height: inches of 120 dots.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _choose_fonts()
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def save(figure, path):
    """Writes a figure as a PNG that appears whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    _advise_on_fonts(figure)
    with files.whole(path) as file:
        figure.savefig(file, format="png")


def _choose_fonts():
    """Makes matplotlib use a font with Chinese characters, if there is one."""
    import matplotlib
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    chinese = [name for name in _CHINESE_FONTS if name in installed]
    # Up to version 3.5 matplotlib uses only the first.
    matplotlib.rcParams["font.family"] = chinese[:1] + [_FALLBACK_FONT]
    # Some Chinese fonts lack the Unicode minus.
    matplotlib.rcParams["axes.unicode_minus"] = False
    # `_advise_on_fonts` warns in one line.
    warnings.filterwarnings("ignore", "Glyph .* missing from")


def _advise_on_fonts(figure):
    """Warns of characters in a figure that no font has, and says what to do."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.text import Text

    known = set()
    for name in matplotlib.rcParams["font.family"]:
        known.update(font_manager.get_font(font_manager.findfont(name)).get_charmap())
    characters = set("".join(text.get_text() for text in figure.findobj(Text)))
    missing = sorted(c for c in characters if c.isprintable() and ord(c) not in known)
    if missing:
        _LOGGER.warning(
            "no font for %s: the picture shows boxes; install one such as %s and "
            "delete matplotlib's list of fonts, %s/fontlist*.json",
            "".join(missing),
            _CHINESE_FONTS[0],
            matplotlib.get_cachedir(),
        )
