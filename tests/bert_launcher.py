"""Runs a script of BERT's with this repository's modules: `launcher.py SCRIPT FLAGS`.

The script says `from bert import modeling`; the package `bert` is made of this
repository's modules. On TensorFlow 2, which has no `tf.contrib`, `tensorflow` is its
`compat.v1` with the names of `tf.contrib` that the scripts use.
"""

import pathlib
import runpy
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import tensorflow
import tensorflow.compat.v1 as tf

import modeling
import optimization
import tokenization


def contrib():
    """Returns the parts of `tf.contrib` that BERT's scripts use."""
    return types.SimpleNamespace(
        tpu=tf.estimator.tpu,
        data=tf.data.experimental,
        cluster_resolver=tf.distribute.cluster_resolver,
        layers=types.SimpleNamespace(layer_norm=layer_norm),
    )


def layer_norm(inputs, begin_norm_axis, begin_params_axis, scope):
    """`tf.contrib.layers.layer_norm`, as BERT's modeling.py calls it."""
    assert begin_norm_axis == begin_params_axis == -1
    with tf.variable_scope(scope, default_name="LayerNorm"):
        size = inputs.shape.as_list()[-1]
        beta = tf.get_variable("beta", [size], initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", [size], initializer=tf.ones_initializer())
    mean, variance = tf.nn.moments(inputs, [-1], keepdims=True)
    return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, 1e-12)


def install():
    """Makes `import tensorflow` and `import bert` give what BERT's scripts expect."""
    if tensorflow.__version__.startswith("2."):
        tf.disable_v2_behavior()
        tf.contrib = contrib()
        # BERT's code gives dropout the probability to keep.
        sys.modules["tensorflow"] = tf
    bert = types.ModuleType("bert")
    for module in (modeling, optimization, tokenization):
        setattr(bert, module.__name__, module)
        sys.modules["bert." + module.__name__] = module
    sys.modules["bert"] = bert


if __name__ == "__main__":
    install()
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_path(script, run_name="__main__")
