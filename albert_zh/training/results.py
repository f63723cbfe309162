"""What a run leaves for its user: evaluation results and TensorBoard curves."""

import json
import math
import os

import tensorflow.compat.v1 as tf
import tensorflow.compat.v2 as tf2

import optimization
from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError

# What `write_results` writes.
FILES = ("eval_results.json", "eval_results.txt")
# Steps between two points of the TensorBoard curves.
SUMMARY_STEPS = 50


def write_results(output_dir, results):
    """Writes results, a nested dict of numbers, as eval_results.json and .txt.

    Raises:
      UserError: a number is NaN or infinite, or a file cannot be written.
    """
    check_finite(results)
    text = json.dumps(results, indent=2, sort_keys=True)
    lines = "\n".join("{} = {}".format(*item) for item in _flatten(results))
    # Last the one that `read_step` reads: then the other is there, too.
    for name, content in zip(reversed(FILES), (lines, text)):
        files.write_text(content + "\n", os.path.join(output_dir, name))


def check_finite(results):
    """Raises `UserError` where a number of nested results is NaN or infinite."""
    for name, value in _flatten(results):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                "{} is {}: the weights are damaged or their training diverged; take "
                "an earlier checkpoint, or train again with a lower "
                "--learning_rate".format(name, value)
            )


def read_step(output_dir):
    """Returns the step of the checkpoint that results are of; None where not known."""
    path = os.path.join(output_dir, FILES[0])
    if not files.exists(path):
        return None
    schema = {"type": "object", "properties": {"step": {"type": "integer"}}}
    advice = "remove it, and run the same command again"
    return json_files.read(path, schema, advice).get("step")


def _flatten(results, prefix=""):
    for key in sorted(results):
        if isinstance(results[key], dict):
            yield from _flatten(results[key], prefix + key + "_")
        else:
            yield prefix + key, results[key]


def summary_host_call(output_dir, scalars):
    """Builds the host call that writes TensorBoard curves, on every device.

    Args:
      output_dir: directory of the event files.
      scalars: dict curve name -> scalar tensor.

    Returns:
      (function, tensors) for `TPUEstimatorSpec(host_call=...)`.
    """
    names = sorted(scalars)

    def write(step, *values):
        # A killed run loses what is not flushed.
        writer = tf2.summary.create_file_writer(output_dir, flush_millis=10000)
        step = step[0]
        with writer.as_default(), tf2.summary.record_if(
            tf.equal(step % SUMMARY_STEPS, 0)
        ):
            for name, value in zip(names, values):
                # One value per TPU shard
                tf2.summary.scalar(name, tf.reduce_mean(value), step=step)
            return tf.summary.all_v2_summary_ops()

    tensors = [tf.reshape(tf.train.get_global_step(), [1])]
    tensors += [tf.reshape(tf.cast(scalars[name], tf.float32), [1]) for name in names]
    return write, tensors


def mean_curves(curves):
    """Means of scalars over the replicas, in one reduction; dict by name."""
    names = sorted(curves)
    values = tf.stack([tf.cast(curves[name], tf.float32) for name in names])
    (means,) = optimization.mean_over_replicas([values])
    return dict(zip(names, tf.unstack(means)))
