"""What the heads of all kinds share: dropout that a resumed training draws again."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.tasks import kind

SHAPE = 400, 50


def draw(seed, step, number=1):
    """Masks of a training of this seed at this step: float32 [number, 400, 50]."""
    with tf.Graph().as_default(), tf.Session() as session:
        global_step = tf.train.create_global_step()
        drop = kind.HeadDropout(seed)
        masks = [drop(tf.ones(SHAPE)) for _ in range(number)]
        session.run(tf.global_variables_initializer())
        session.run(global_step.assign(step))
        return np.array(session.run(masks))


def share_equal(one, other):
    return np.mean(one == other)


def test_a_tenth_is_dropped_and_the_rest_scaled():
    (mask,) = draw(1, 0)
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.9)}
    # 20,000 draws: the standard error of the share is 0.0021.
    assert np.mean(mask == 0) == pytest.approx(kind.HEAD_DROPOUT, abs=0.01)
    for axis in (0, 1):
        assert (
            np.std(np.mean(mask == 0, axis=axis)) < 0.06
        )  # no row or column stands out


def test_the_seed_and_the_step_decide():
    (mask,) = draw(7, 100)
    np.testing.assert_array_equal(draw(7, 100)[0], mask)
    # Independent masks agree in 0.9² + 0.1² of their places.
    for seed, step in ((7, 101), (8, 100), (7, 2**31 - 1), (2**40, 100)):
        assert share_equal(draw(seed, step)[0], mask) == pytest.approx(0.82, abs=0.02)


def test_two_passes_of_one_step_draw_two_masks():
    one, two = draw(1, 3, number=2)
    assert share_equal(one, two) == pytest.approx(0.82, abs=0.02)


def test_what_is_dropped_has_no_gradient():
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.ones(SHAPE)
        y = kind.HeadDropout(1)(x)
        (gradient,) = tf.gradients(y, x)
        session.run(tf.global_variables_initializer())
        values = session.run([y, gradient])
    np.testing.assert_array_equal(*values)
