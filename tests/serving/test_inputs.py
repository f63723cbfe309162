"""Batches of windows: none is lost, and little of what is computed is padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.serving import inputs
from albert_zh.tasks import features

LENGTHS = st.lists(st.lists(st.integers(1, 128), min_size=1, max_size=4), max_size=90)


def window(number, lengths):
    """A window of sequences of these lengths, all of whose tokens are `number`."""
    total = sum(lengths)
    return features.Features(
        [number] * total, [0] * total, {features.SEQUENCE_LENGTHS: lengths}
    )


@given(LENGTHS)
def test_every_window_is_in_one_batch_of_bounded_padding(lengths):
    windows = [window(i + 1, each) for i, each in enumerate(lengths)]
    seen = []
    for places, batch in inputs.batches(windows, most_tokens=128):
        seen += places
        ids = batch["input_ids"]
        rows, length = ids.shape
        most = rows // len(places)
        assert len(places) == 1 or (ids.size <= 8192 and len(places) <= 64)
        for number, place in enumerate(places):
            own = ids[number * most : (number + 1) * most]
            assert sorted(np.count_nonzero(own, 1)) == sorted(
                lengths[place] + [0] * (most - len(lengths[place]))
            )
            assert set(own.flat) <= {0, place + 1}
        # Lengths are multiples of 4 up to 64, of 16 beyond.
        needed = sum(max(lengths[place]) for place in places)
        assert length * len(places) - needed <= 64 + 15 * len(places)
    assert sorted(seen) == list(range(len(windows)))


def test_windows_of_like_length_are_one_batch():
    windows = [window(1, [17 + i % 4]) for i in range(64)]
    assert [len(places) for places, _ in inputs.batches(windows, 128)] == [64]


def test_a_long_window_does_not_lengthen_the_short_ones():
    windows = [window(1, [length]) for length in [8] * 30 + [100] * 2]
    shapes = [batch["input_ids"].shape for _, batch in inputs.batches(windows, 128)]
    assert shapes == [(30, 8), (2, 112)]
