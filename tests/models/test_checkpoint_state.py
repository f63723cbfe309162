"""Which paths in a `checkpoint` file a run may delete."""

import pytest

from albert_zh.models import checkpoint_state


@pytest.mark.parametrize("name", ["run[12]", "run*", "run?"])
def test_a_path_that_is_a_pattern_is_not_inside(tmp_path, name):
    """TensorFlow's saver would take "run[12]/model.ckpt-1" for "run1/model.ckpt-1"."""
    directory = tmp_path / name
    directory.mkdir()
    assert checkpoint_state.is_inside("model.ckpt-1", str(directory))
    assert not checkpoint_state.is_inside("model.ckpt-[1]", str(directory))
    assert not checkpoint_state.is_inside(str(directory / "a-1"), str(directory))
    assert checkpoint_state.is_inside(str(tmp_path / "a-1"), str(tmp_path))
