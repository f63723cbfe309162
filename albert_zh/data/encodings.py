"""Recognizes what a file is that is no UTF-8 text: its encoding, or another format."""

import codecs
import re

# The commonest characters of Chinese text, simplified and traditional, and its marks.
# They are about half of any text; what another encoding makes of the same bytes has
# few of them.
_COMMON = frozenset(
    "的一是不了在人有我他这中大来上个国到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里"
    "后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动"
    "两长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几"
    "很业最间新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五"
    "這個們為說時來會學對過後還發沒無開經頭見長現點種聲話問機給幾業間電門東關聽氣軍產兩從將與樣裡進實當"
    "動國，。、：；！？（）《》「」“”…"
)
_LEAST_COMMON_SHARE = 0.15
_LEAST_CHARACTERS = 8  # of a sample from which an encoding can be told

# The names of `--encoding`. The larger of several that read the same bytes: GB18030
# has GBK and GB2312.
_CANDIDATES = ("gb18030", "big5", "cp950", "big5hkscs", "utf-16-le", "utf-16-be")

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_HIGH_BYTE = re.compile(rb"[\x80-\xff]")

GZIP_MAGIC = b"\x1f\x8b"

# First bytes -> what the file is.
_FORMATS = (
    (b"PK\x03\x04", "a zip archive or an Office document"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ\x00", "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"%PDF-", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3\x00", "an SQLite database"),
)


def other_format(sample):
    """Says what a file is that is no text, or returns None.

    Args:
      sample: bytes, the start of the file.
    """
    if sample[257:262] == b"ustar":
        return "a tar archive"
    for magic, name in _FORMATS:
        if sample.startswith(magic):
            return name
    return None


def is_utf8(sample):
    """Whether a text is UTF-8, or was, but for damaged bytes.

    Args:
      sample: bytes, the start of a file; may end inside a character.
    """
    if sample.startswith(tuple(bom for bom, _ in _BOMS)):
        return False
    if sample.count(b"\x00") * 5 > len(sample):  # ASCII in UTF-16 has every second
        return False
    if _decoded(sample, "utf-8") is not None:
        return True
    num_high = len(_HIGH_BYTE.findall(sample))
    valid = sample.decode("utf-8", "ignore").encode("utf-8")
    is_mostly_valid = len(_HIGH_BYTE.findall(valid)) * 2 >= num_high
    # By chance, some of GB18030 is valid UTF-8.
    return (is_mostly_valid or num_high < _LEAST_CHARACTERS) and guess(sample) is None


def is_surely_utf8(sample):
    """Whether a text is UTF-8 and has enough of it to be nothing else by chance.

    Args:
      sample: bytes, as in `is_utf8`.
    """
    text = _decoded(sample, "utf-8") or ""
    return sum(char > "\x7f" for char in text) >= _LEAST_CHARACTERS


def guess(sample):
    """Guesses the encoding of text that is no UTF-8.

    Args:
      sample: bytes, the start of a file; may end inside a character.

    Returns:
      str, a name that `codecs` knows, or None.
    """
    for bom, name in _BOMS:
        if sample.startswith(bom):
            return name
    scores = [(_score(sample, name), name) for name in _CANDIDATES]
    best, name = max(scores, key=lambda score: score[0])
    return name if best >= _LEAST_COMMON_SHARE else _guess_ascii(sample)


def _decoded(sample, encoding):
    """Returns the text of a sample, None where the bytes do not fit."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return None


def _score(sample, encoding):
    """Returns the share of common characters, 0 where the bytes do not fit."""
    foreign = [char for char in _decoded(sample, encoding) or "" if char > "\x7f"]
    if len(foreign) < _LEAST_CHARACTERS:
        return 0.0
    return sum(char in _COMMON for char in foreign) / len(foreign)


def _guess_ascii(sample):
    """Guesses UTF-16 from the zero bytes of ASCII characters."""
    halves = [sample[place::2].count(b"\x00") for place in (0, 1)]
    if sum(halves) * 5 <= len(sample):
        return None
    return "utf-16-be" if halves[0] > halves[1] else "utf-16-le"
