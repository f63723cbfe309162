"""Predictions from an exported model's outputs: NumPy computes what the graphs do."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.serving import predictions
from albert_zh.tasks import kinds
from albert_zh.tasks.features import SEQUENCE_LENGTHS
from tests import export_models

LENGTH, CHOICES = 9, 3
# Head -> shapes of what `kind.Kind.outputs` returns, without the batch.
OUTPUTS = {
    "classification": {"logits": [3]},
    "multiple_choice": {"scores": []},
    "cloze": {"scores": []},
    "span_extraction": {"start_logits": [LENGTH], "end_logits": [LENGTH]},
    "tagging_softmax": {"logits": [LENGTH - 1, 5]},
    "tagging_crf": {"logits": [LENGTH - 1, 5]},
    "tagging_span": {"scores": [2, LENGTH - 1, LENGTH - 1]},
}


def draw(head, seed):
    """Returns the outputs and the features of six rows, one without any token."""
    random = np.random.RandomState(seed)
    lengths = np.array([LENGTH, 2, 3, 5, 8, LENGTH])
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    features = {"input_ids": mask, "input_mask": mask, "segment_ids": mask}
    if "scores" in OUTPUTS[head] and not OUTPUTS[head]["scores"]:
        features[SEQUENCE_LENGTHS] = np.array([[4, 3, 0], [2, 2, 2]], np.int32)
    outputs = {
        name: 3 * random.standard_normal([len(mask)] + shape).astype(np.float32)
        for name, shape in OUTPUTS[head].items()
    }
    if head == "tagging_crf":
        outputs["transitions"] = random.standard_normal([5, 5]).astype(np.float32)
    return outputs, features


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("head", sorted(OUTPUTS))
def test_they_are_those_of_the_graph(tmp_path, head, seed):
    outputs, features = draw(head, seed)
    kind = export_models.build_kind(tmp_path, "albert_zh", head)
    assert kinds.kind_of(kind.files.task) is type(kind)
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = [
            {name: tf.constant(value) for name, value in values.items()}
            for values in (outputs, features)
        ]
        expected = session.run(kind.predictions(*tensors))
    found = predictions.of_outputs(head, outputs, features)
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        if head == "tagging_span":  # equal scores may come in any order
            is_run = expected["scores"] > -1e8
            found[name], values = found[name][is_run], values[is_run]
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)
