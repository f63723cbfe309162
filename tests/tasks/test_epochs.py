"""Which steps make up which epoch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.base.errors import UserError
from albert_zh.tasks import epochs


@given(
    num_examples=st.integers(1, 500),
    batch_size=st.integers(1, 64),
    num_epochs=st.floats(0.1, 4.0),
)
def test_epochs_cover_the_steps_without_gap(num_examples, batch_size, num_epochs):
    plan = epochs.EpochPlan(num_examples, batch_size, num_epochs, False)
    per_epoch = math.ceil(num_examples / batch_size)
    assert plan.epochs[0][0] == 0
    assert plan.epochs[-1][1] == plan.num_steps >= 1
    assert abs(plan.num_steps - per_epoch * num_epochs) < 1
    for (_, end), (next_first, _) in zip(plan.epochs, plan.epochs[1:]):
        assert end == next_first
    assert all(end - first == per_epoch for first, end in plan.epochs[:-1])
    assert 0 < plan.epochs[-1][1] - plan.epochs[-1][0] <= per_epoch


def test_whole_epochs_are_whole():
    plan = epochs.EpochPlan(200, 16, 3.0, full_batches_only=False)
    assert plan.epochs == [(0, 13), (13, 26), (26, 39)]


def test_a_tpu_takes_full_batches_only():
    plan = epochs.EpochPlan(200, 16, 2.0, full_batches_only=True)
    assert plan.epochs == [(0, 12), (12, 24)]
    with pytest.raises(UserError, match="--train_batch_size=256.*200"):
        epochs.EpochPlan(200, 256, 2.0, full_batches_only=True)
