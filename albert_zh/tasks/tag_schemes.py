"""Tags of characters to entities and back: BIO, BIOES, BMES.

A tag is "O", or a prefix and a type, such as "B-PER". B begins an entity, I and M
continue it, E ends it, S is a whole one.
"""

import re
from typing import List, NamedTuple, Optional, Tuple

OUTSIDE = "O"
# Also with an underscore, as some published files have it.
_TAG = re.compile(r"([BIMES])[-_](.+)", re.DOTALL)
_SCHEMES = {"BIO": "BI", "BIOES": "BIES", "BMES": "BMES"}


class Span(NamedTuple):
    """A run of items with a type: [start, end)."""

    start: int
    end: int
    type: str


class Reading(NamedTuple):
    """What the tags of a sequence say.

    Attributes:
      spans: list of `Span`, in their order.
      irregular: positions of tags that continue a span where there is none of their
        type, such as I after O.
      unended: positions of the last tags of spans that end without E or S, as all do
        in BIO, and none should in the other schemes.
    """

    spans: List[Span]
    irregular: List[int]
    unended: List[int]


def split_tag(tag) -> Tuple[str, Optional[str]]:
    """Splits a tag into prefix and type; "O" has none.

    Raises:
      ValueError: it is no tag of `_SCHEMES`.
    """
    if tag == OUTSIDE:
        return OUTSIDE, None
    match = _TAG.fullmatch(tag)
    if not match:
        raise ValueError(
            "{!r} is no tag; expected O, or one of B- I- M- E- S- before a type, as in "
            "B-PER".format(tag)
        )
    return match.group(1), match.group(2)


def check_scheme(prefixes):
    """Makes sure that prefixes are those of one scheme.

    Args:
      prefixes: iterable of them, of a whole file.

    Raises:
      ValueError: no scheme has them all.
    """
    used = set(prefixes) - {OUTSIDE}
    if not any(used <= set(letters) for letters in _SCHEMES.values()):
        raise ValueError(
            "the tags begin with {}; expected {}".format(
                ", ".join(sorted(used)),
                " or ".join("{} ({})".format(*item) for item in _SCHEMES.items()),
            )
        )


def read_spans(tags):
    """Reads the spans of a sequence of tags, whichever scheme they are of.

    As the CoNLL script conlleval: a span begins at B and S, and at any other tag whose
    type is not the one before; it ends at E and S, and before whatever begins or is O.

    Args:
      tags: list of (prefix, type).

    Returns:
      `Reading`.
    """
    spans, irregular, unended = [], [], []
    start, begun = None, None  # of the span that is open: its start, its type
    for i, (prefix, kind) in enumerate(tags + [(OUTSIDE, None)]):
        continues = prefix in "IME" and begun is not None and kind == begun
        if prefix in "IME" and not continues:
            irregular.append(i)
        if begun is not None and not continues:
            spans.append(Span(start, i, begun))
            unended.append(i - 1)
            begun = None
        if prefix != OUTSIDE and begun is None:
            start, begun = i, kind
        if prefix in "ES":
            spans.append(Span(start, i + 1, begun))
            begun = None
    return Reading(spans, irregular, unended)


def bio_names(types):
    """Returns the list of the names of the numbers of `bio_tags`."""
    return [OUTSIDE] + [prefix + name for name in types for prefix in ("B-", "I-")]


def bio_tags(spans, types, length):
    """Tags of spans in BIO as numbers: 0 is O, 2 k + 1 is B and 2 k + 2 is I of type k.

    Of spans that overlap, the longest are kept, the first where they are of one length.

    Args:
      spans: list of `Span`.
      types: list of the types.
      length: of the sequence.

    Returns:
      List of `length` int.
    """
    tags = [0] * length
    for span in sorted(spans, key=lambda span: (span.start - span.end, span)):
        if not any(tags[span.start : span.end]):
            begin = 2 * types.index(span.type) + 1
            tags[span.start] = begin
            tags[span.start + 1 : span.end] = [begin + 1] * (span.end - span.start - 1)
    return tags


def read_bio_tags(tags, types):
    """Reads the spans of what `bio_tags` returns, or of what a model predicts."""
    named = [
        ("BI"[(tag - 1) % 2], types[(tag - 1) // 2]) if tag else (OUTSIDE, None)
        for tag in tags
    ]
    return read_spans(named).spans
