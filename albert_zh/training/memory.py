"""Whether the activations of a batch can fit into this machine's memory."""

import contextlib
import os

import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError

# Share of the memory that activations may take in the batch that is advised.
_ADVISED_SHARE = 0.5
# Where the kernel says what a container may use: control groups 2 and 1. Without a
# limit, the first says "max", the second a number beyond any memory.
_CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def sequence_bytes(config, length, numerics):
    """Estimates what the activations of one sequence take in a training step.

    The estimate is that of arXiv:2205.05198, for 16-bit activations,
    doubled for float32. The logits and the weights are left out.

    Args:
      config: `AlbertConfig`.
      length: int, tokens.
      numerics: `modeling.Numerics`.

    Returns:
      float, bytes.
    """
    hidden_size, heads = config.hidden_size, config.num_attention_heads
    layer = length * hidden_size * (34 + 5 * heads * length / hidden_size)
    if tf.as_dtype(numerics.compute_dtype) == tf.float32:
        layer *= 2
    if not numerics.recompute:
        return config.num_hidden_layers * layer
    # One layer at a time, and the float32 input of each.
    return layer + config.num_hidden_layers * 4 * length * hidden_size


def _memory():
    """The bytes of memory of this machine, or of the container where that has fewer."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            with open(path) as source:
                limits.append(int(source.read()))
    return min(limits)


def check_batch(config, length, batch_size, numerics, memory=None):
    """Refuses a batch whose activations alone are larger than this machine's memory.

    Args:
      config: `AlbertConfig`.
      length: int, tokens of a sequence.
      batch_size: int, sequences computed at a time.
      numerics: `modeling.Numerics`.
      memory: int, bytes; by default those of this machine.

    Raises:
      UserError: says what to add so that it fits, or that nothing helps.
    """
    if memory is None:
        memory = _memory()
    one = sequence_bytes(config, length, numerics)
    if batch_size * one <= memory:
        return
    needs_recompute = one > memory and not numerics.recompute
    least = one
    if needs_recompute:
        least = sequence_bytes(config, length, numerics._replace(recompute=True))
    if least > memory:
        raise UserError(
            "a sequence of {} tokens takes about {:,.0f} GB{}, this machine has {:.0f} "
            "GB; give a smaller --max_seq_length, or a smaller model".format(
                length,
                least / 1e9,
                ", also with --recompute=layers" if needs_recompute else "",
                memory / 1e9,
            )
        )
    limit = max(1, int(_ADVISED_SHARE * memory / least))
    advised = max(n for n in range(1, limit + 1) if batch_size % n == 0)
    hints = ["--micro_batch_size={}".format(advised)] * (advised < batch_size)
    hints += ["--recompute=layers"] * needs_recompute
    raise UserError(
        "{} sequences of {} tokens at a time take about {:,.0f} GB, this machine has "
        "{:.0f} GB; add {}, which gives the same result".format(
            batch_size,
            length,
            batch_size * one / 1e9,
            memory / 1e9,
            " and ".join(hints),
        )
    )
