"""Initial weights of pretraining, where they are not all random."""

import zlib

import numpy as np
import tensorflow.compat.v1 as tf

CHOICES = ("random", "local_attention")

# Sinusoids as in arXiv:1706.03762, section 3.5, whose wavelengths grow up to that of
# 1000: the tables have 512 positions.
_LONGEST = 1000.0
# Standard deviation of the positions to that of the words.
_POSITIONS_TO_WORDS = 2.0


def custom_getter(config, choice, seed):
    """Returns the `custom_getter` of a variable scope that a model is built in.

    "local_attention" begins with position embeddings that are sinusoids, and with equal
    query and key kernels (after arXiv:2305.09828, whose scheme sets their product to
    the identity). A token then attends to itself and to its neighbours most. A small
    model that begins without this takes long to find that the order of tokens matters.

    Args:
      config: `AlbertConfig`.
      choice: one of `CHOICES`.
      seed: int, of the equal kernels.

    Returns:
      function, or None for "random".
    """
    if choice == "random":
        return None
    initializer_range = config.initializer_range

    def get(getter, name, *args, **kwargs):
        if name.endswith("/position_embeddings"):
            kwargs["initializer"] = _sinusoids(_POSITIONS_TO_WORDS * initializer_range)
        elif name.endswith(("/self/query/kernel", "/self/key/kernel")):
            layer = name.rsplit("/", 2)[0]
            kwargs["initializer"] = tf.truncated_normal_initializer(
                stddev=initializer_range,
                seed=(seed + zlib.crc32(layer.encode("utf-8"))) % 2**31,
            )
        return getter(name, *args, **kwargs)

    return get


def _sinusoids(standard_deviation):
    """Returns an initializer of position tables [P, E]."""

    def initialize(shape, dtype=tf.float32, partition_info=None):
        del partition_info
        num_positions, width = tf.TensorShape(shape).as_list()
        frequencies = _LONGEST ** -(np.arange((width + 1) // 2) / ((width + 1) // 2))
        angles = np.arange(num_positions)[:, np.newaxis] * frequencies
        table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]
        return tf.constant(table / table.std() * standard_deviation, dtype)

    return initialize
