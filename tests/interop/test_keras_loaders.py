"""Model directories in the Keras loaders: the same outputs to 1e-4, tiny's sizes."""

import os

import numpy as np
import pytest

import modeling
from albert_zh.models import checkpoints
from benchmarks import head_to_head, keras_loaders

TOLERANCE = 1e-4
OUTPUTS = {
    keras_loaders.run_bert4keras: {"sequence", "pooled", "masked_lm", "sentence_order"},
    # It has an encoder and nothing above it.
    keras_loaders.run_bert_for_tf2: {"sequence"},
}


def require(run):
    if not keras_loaders.is_installed(run):
        pytest.skip("the Keras loaders install on Python 3.7 only")


@pytest.mark.parametrize("case", keras_loaders.CASES, ids=lambda case: case.name)
def test_outputs_are_equal(case, tmp_path):
    require(case.run)
    result = keras_loaders.compare(case, str(tmp_path))
    assert set(result.differences) == OUTPUTS[case.run]
    assert max(result.differences.values()) < TOLERANCE, result.differences
    assert result.parameters > 4e6


@pytest.mark.parametrize(
    "settings", [head_to_head.GOOGLE, head_to_head.TINY], ids=["google", "bert"]
)
def test_bert4keras_writes_a_checkpoint_that_is_read_here(settings, tmp_path):
    """What it loads and saves again is, name by name, what was here: to the bit."""
    require(keras_loaders.run_bert4keras)
    source = str(tmp_path / "source")
    config = modeling.AlbertConfig(**settings)
    expected = head_to_head.write_random_model(source, config, head_to_head.HEADS)
    prefix = os.path.join(str(tmp_path), "saved", "model.ckpt")
    os.mkdir(os.path.dirname(prefix))
    keras_loaders.in_own_process(
        str(tmp_path), keras_loaders.save_with_bert4keras, source, prefix
    )
    saved = checkpoints.read_tensors(prefix)
    del expected["global_step"]
    assert set(saved) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(saved[name], value, err_msg=name)
