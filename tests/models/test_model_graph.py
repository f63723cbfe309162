"""The variables of a model's graph, and whether a checkpoint can initialize them."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints, model_graph
from tests.small_models import CONFIG

MLM, SOP = "cls/predictions/output_bias", "cls/seq_relationship/output_weights"


def variables_with(heads):
    add_heads = model_graph.pretraining_heads(CONFIG, heads)
    return model_graph.trainable_variables(CONFIG, add_heads)


@pytest.mark.parametrize("heads", [(), ("masked_lm",), ("sentence_order", "other")])
def test_a_graph_has_the_heads_that_are_asked_for(heads):
    found = {variable.op.name for variable in variables_with(heads)}
    assert "bert/pooler/dense/kernel" in found
    assert (MLM in found) == ("masked_lm" in heads)
    assert (SOP in found) == ("sentence_order" in heads)


def test_the_graph_of_the_caller_stays_as_it_is():
    with tf.Graph().as_default() as graph:
        model_graph.trainable_variables(
            CONFIG, lambda model: tf.get_variable("head", [2])
        )
        assert not graph.get_operations()


def test_a_checkpoint_without_a_head_is_refused_unless_that_is_allowed(tmp_path):
    variables = variables_with(model_graph.PRETRAINING_HEADS)
    tensors = {v.op.name: np.zeros(v.shape.as_list(), np.float32) for v in variables}
    tensors.pop(MLM)
    prefix = checkpoints.write_tensors(tensors, str(tmp_path / "model.ckpt"))
    add_heads = model_graph.pretraining_heads(CONFIG)
    with pytest.raises(UserError, match=r"lacks cls/predictions \(1 variables\)"):
        model_graph.check_init_checkpoint(prefix, CONFIG, add_heads)
    model_graph.check_init_checkpoint(prefix, CONFIG, add_heads, True)
