"""The variables of a model's graph, and whether a checkpoint can initialize them."""

import functools
import json

import modeling
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import architecture, checkpoints

PRETRAINING_HEADS = ("masked_lm", "sentence_order")


def trainable_variables(config, add_heads):
    """Builds a model in a graph of its own and returns the list of its variables.

    Args:
      config: `modeling.AlbertConfig`.
      add_heads: function of the `modeling.AlbertModel` that builds its heads.
    """
    with tf.Graph().as_default():
        # Nothing is computed, and gradients written by hand take time to register.
        model = modeling.AlbertModel(
            config, False, tf.zeros([1, 1], tf.int32), plain_gradients=True
        )
        add_heads(model)
        return tf.trainable_variables()


def variable_shapes(config, heads=()):
    """Returns the dict variable's name -> list of int, its shape.

    Args:
      config: `modeling.AlbertConfig`.
      heads: as `pretraining_heads` takes them.
    """
    heads = tuple(head for head in PRETRAINING_HEADS if head in heads)
    settings = json.dumps(config.to_dict(), sort_keys=True)
    return {name: list(shape) for name, shape in _variable_shapes(settings, heads)}


@functools.lru_cache(maxsize=64)
def _variable_shapes(settings, heads):
    """`variable_shapes`, of a config as JSON, as pairs: a graph takes long to build."""
    config = modeling.AlbertConfig.from_dict(json.loads(settings))
    variables = trainable_variables(config, pretraining_heads(config, heads))
    return tuple((v.op.name, tuple(v.shape.as_list())) for v in variables)


def missing_variables(config, names):
    """Returns the sorted names of a config's encoder variables that are not in `names`.

    The pooler may be absent: not every head uses it.
    """
    return sorted(
        name
        for name in set(variable_shapes(config)) - set(names)
        if not name.startswith("bert/pooler/")
    )


def pretraining_heads(config, heads=PRETRAINING_HEADS):
    """Returns a function of the `modeling.AlbertModel` that builds its heads.

    Args:
      config: `modeling.AlbertConfig`.
      heads: which of `PRETRAINING_HEADS` to build; other names are ignored.
    """

    def add_heads(model):
        token = tf.zeros([1, 1], tf.int32)
        if "masked_lm" in heads:
            modeling.get_masked_lm_output(config, model, token, token, [[1.0]])
        if "sentence_order" in heads:
            modeling.get_sentence_order_output(config, model, token)

    return add_heads


def check_init_checkpoint(checkpoint, config, add_heads, allow_missing=False):
    """Makes sure, before the work, that a model can start from a checkpoint.

    Args:
      checkpoint: path prefix.
      config: `modeling.AlbertConfig`.
      add_heads: as `trainable_variables` takes it.
      allow_missing: as `checkpoints.plan_restore` takes it.

    Raises:
      UserError: the checkpoint is missing or damaged, is of another model, or lacks
        variables.
    """
    # First: the graph of a config that does not belong here may be very large.
    architecture.check(checkpoint, config)
    variables = trainable_variables(config, add_heads)
    checkpoints.plan_restore(checkpoint, variables, allow_missing)
    checkpoints.check_readable(checkpoint)
