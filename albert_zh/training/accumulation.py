"""Gradients of a large batch on a small device, summed over micro-batches in a loop."""

import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError


def count_micro_batches(batch_size, micro_batch_size, num_devices=1):
    """Returns how many micro-batches each device works through in one step.

    Args:
      batch_size: int, sequences a step, over all devices.
      micro_batch_size: int, sequences that a device computes at a time.
      num_devices: int, how many devices share the batch equally.

    Raises:
      UserError: the batch cannot be divided so.
    """
    if batch_size % (micro_batch_size * num_devices):
        devices = " on each of {} devices".format(num_devices) * (num_devices > 1)
        raise UserError(
            "--train_batch_size {} is not divisible into micro-batches of "
            "--micro_batch_size {}{}".format(batch_size, micro_batch_size, devices)
        )
    return batch_size // (micro_batch_size * num_devices)


def accumulate(compute, features, micro_batch_size):
    """Sums what `compute` returns, and its gradients, over micro-batches.

    The batch is a sum of its parts only if `compute` divides by totals of the whole
    batch, never by those of the part it is given. One part at a time is in memory;
    the gradients add up in float32, dense.

    Args:
      compute: function of a dict of features that builds the model, with variables
        under fixed names, and returns its part of the loss, a float32 scalar, and
        a dict of name to float32 scalar, which add up likewise.
      features: dict of name to tensor [B, ...] of static shape.
      micro_batch_size: int that divides B.

    Returns:
      loss: float32 scalar.
      curves: dict of name to float32 scalar.
      gradients: list parallel to `tf.trainable_variables()` of tensors of their
        shapes, or None where the loss does not depend on a variable.
    """
    parts = {
        name: tf.reshape(value, [-1, micro_batch_size] + value.shape.as_list()[1:])
        for name, value in features.items()
    }
    num_parts = next(iter(parts.values())).shape.as_list()[0]

    def compute_part(index):
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            return compute({name: tf.gather(parts[name], index) for name in parts})

    # Only for the variables, which a loop needs to exist before it, and the names of
    # the curves; nothing runs this.
    _, curves = compute_part(0)
    variables = tf.trainable_variables()
    independent = set()

    def add_part(index, sums, gradient_sums):
        part = compute_part(index)
        gradients = tf.gradients(part[0], variables)
        independent.update(i for i, g in enumerate(gradients) if g is None)
        gradient_sums = [
            total if gradient is None else total + gradient
            for total, gradient in zip(gradient_sums, gradients)
        ]
        return index + 1, tf.nest.map_structure(tf.add, sums, part), gradient_sums

    zeros = (tf.zeros([]), {name: tf.zeros([]) for name in curves})
    _, (loss, curves), gradients = tf.while_loop(
        lambda index, *_: index < num_parts,
        add_part,
        (tf.constant(0), zeros, [tf.zeros(v.shape, tf.float32) for v in variables]),
        # One part's activations at a time
        parallel_iterations=1,
        back_prop=False,
    )
    gradients = [None if i in independent else g for i, g in enumerate(gradients)]
    return loss, curves, gradients
