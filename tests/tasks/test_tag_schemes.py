"""Tags and spans, in BIO, BIOES and BMES."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.tasks import tag_schemes
from albert_zh.tasks.tag_schemes import Span

TYPES = ("LOC", "PER")


def read(text):
    """The spans as text, such as "0-2PER", of tags separated by spaces."""
    tags = [tag_schemes.split_tag(tag) for tag in text.split()]
    found = tag_schemes.read_spans(tags)
    return " ".join("{}-{}{}".format(*span) for span in found.spans), found.irregular


@pytest.mark.parametrize(
    "tags, spans, irregular",
    [
        ("O O", "", []),
        ("B-PER I-PER O B-LOC", "0-2PER 3-4LOC", []),
        ("B-PER I-PER B-PER I-PER", "0-2PER 2-4PER", []),
        ("O I-PER I-PER O", "1-3PER", [1]),
        ("B-PER I-LOC I-LOC", "0-1PER 1-3LOC", [1]),
        ("O B-PER", "1-2PER", []),
        ("B-PER M-PER E-PER S-LOC", "0-3PER 3-4LOC", []),
        ("B-PER E-PER B-PER E-PER", "0-2PER 2-4PER", []),
        ("B-PER E-PER M-PER E-PER", "0-2PER 2-4PER", [2]),
        ("B-PER E-PER E-PER", "0-2PER 2-3PER", [2]),
        ("S-PER S-PER", "0-1PER 1-2PER", []),
        ("S-PER I-PER", "0-1PER 1-2PER", [1]),
        ("B-PER I-PER E-PER", "0-3PER", []),
        ("B-PER M-PER O", "0-2PER", []),
        ("B_PER I_PER", "0-2PER", []),
        ("B-a-b I-a-b", "0-2a-b", []),
    ],
)
def test_spans_of_tags(tags, spans, irregular):
    assert read(tags) == (spans, irregular)


@pytest.mark.parametrize(
    "tags, unended",
    [
        ("B-PER O S-PER", [0]),
        ("B-PER M-PER B-PER E-PER", [1]),
        ("B-PER I-LOC E-LOC", [0]),
        ("O B-PER I-PER", [2]),
        ("S-PER B-PER E-PER", []),
    ],
)
def test_spans_that_end_without_e_or_s(tags, unended):
    tags = [tag_schemes.split_tag(tag) for tag in tags.split()]
    assert tag_schemes.read_spans(tags).unended == unended


@pytest.mark.parametrize("tag", ["", "B", "B-", "X-PER", "b-PER", "o", "PER", "U-PER"])
def test_what_is_no_tag(tag):
    with pytest.raises(ValueError, match="is no tag; expected O, or one of B-"):
        tag_schemes.split_tag(tag)


def test_schemes_are_not_mixed():
    for prefixes in ("", "O", "B", "I", "BIO", "BIES", "BMESO"):
        tag_schemes.check_scheme(prefixes)
    with pytest.raises(ValueError, match="begin with B, I, M; expected BIO .BI."):
        tag_schemes.check_scheme("BIM")


@st.composite
def flat_spans(draw):
    """A list of spans without overlap, and a length that has room for them."""
    spans, place = [], 0
    for _ in range(draw(st.integers(0, 5))):
        start = place + draw(st.integers(0, 2))
        place = start + draw(st.integers(1, 4))
        spans.append(Span(start, place, draw(st.sampled_from(TYPES))))
    return spans, place + draw(st.integers(0, 2))


@given(flat_spans())
def test_every_scheme_keeps_flat_spans(drawn):
    spans, length = drawn
    numbers = tag_schemes.bio_tags(spans, TYPES, length)
    assert len(numbers) == length
    assert tag_schemes.read_bio_tags(numbers, TYPES) == spans
    for first, inside, last, whole in ("BIIB", "BIES", "BMES"):
        tags = [("O", None)] * length
        for start, end, kind in spans:
            prefixes = first + inside * (end - start - 2) + last
            prefixes = whole if end - start == 1 else prefixes
            tags[start:end] = [(prefix, kind) for prefix in prefixes]
        read = tag_schemes.read_spans(tags)
        assert (read.spans, read.irregular) == (spans, [])
        # Those of a character or more that end without E or S: all of BIO, else none.
        assert len(read.unended) == (len(spans) if last == "I" else 0)


@given(st.lists(st.integers(0, 4), max_size=12))
def test_any_prediction_is_spans_in_order_without_overlap(numbers):
    spans = tag_schemes.read_bio_tags(numbers, TYPES)
    for span, following in zip(spans, spans[1:]):
        assert span.end <= following.start
    covered = {i for span in spans for i in range(span.start, span.end)}
    assert covered == {i for i, number in enumerate(numbers) if number}


def test_of_overlapping_spans_the_longest_are_kept():
    spans = [Span(0, 5, "LOC"), Span(1, 2, "PER"), Span(4, 6, "PER"), Span(6, 7, "LOC")]
    numbers = tag_schemes.bio_tags(spans, TYPES, 7)
    assert tag_schemes.read_bio_tags(numbers, TYPES) == [spans[0], spans[3]]
