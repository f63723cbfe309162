"""The loop: which steps make up which epoch, and when it ends early."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.base.errors import UserError
from albert_zh.tasks import fine_tuning, kinds
from albert_zh.tasks.registry import TASKS


@given(
    num_examples=st.integers(1, 500),
    batch_size=st.integers(1, 64),
    num_epochs=st.floats(0.1, 4.0),
)
def test_epochs_cover_the_steps_without_gap(num_examples, batch_size, num_epochs):
    plan = fine_tuning.EpochPlan(num_examples, batch_size, num_epochs, False)
    per_epoch = math.ceil(num_examples / batch_size)
    assert plan.epochs[0][0] == 0
    assert plan.epochs[-1][1] == plan.num_steps >= 1
    assert abs(plan.num_steps - per_epoch * num_epochs) < 1
    for (_, end), (next_first, _) in zip(plan.epochs, plan.epochs[1:]):
        assert end == next_first
    assert all(end - first == per_epoch for first, end in plan.epochs[:-1])
    assert 0 < plan.epochs[-1][1] - plan.epochs[-1][0] <= per_epoch


def test_whole_epochs_are_whole():
    plan = fine_tuning.EpochPlan(200, 16, 3.0, full_batches_only=False)
    assert plan.epochs == [(0, 13), (13, 26), (26, 39)]


def test_a_tpu_takes_full_batches_only():
    plan = fine_tuning.EpochPlan(200, 16, 2.0, full_batches_only=True)
    assert plan.epochs == [(0, 12), (12, 24)]
    with pytest.raises(UserError, match="--train_batch_size=256.*200"):
        fine_tuning.EpochPlan(200, 256, 2.0, full_batches_only=True)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_submission_is_no_file_that_every_prediction_replaces(name):
    task = TASKS[name]
    submissions = {submission.file for submission in task.submissions}
    assert not submissions.intersection(kinds.kind_of(task).prediction_files)


@pytest.mark.parametrize(
    "ranks, expected",
    [([1], 0), ([1, 2, 3], 0), ([3, 2, 1], 2), ([1, 3, 3, 2], 2), ([2, 2], 1)],
)
def test_epochs_since_the_best(ranks, expected):
    assert fine_tuning.epochs_since_best(iter(ranks)) == expected
