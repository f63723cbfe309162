"""What computes a model's outputs: here TensorFlow.

A back end is an object with

    output_names              tuple of the names of what it can compute
    run(inputs, names=None)   dict of `inputs.assemble` -> dict name -> ndarray: the
                              outputs of these names, or those that the kind decodes;
                              any number of threads may call it at once
    close()                   frees what it holds
"""

import threading

import modeling
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import checkpoints
from albert_zh.serving import encoder, inputs
from albert_zh.tasks import objective


class TensorFlowBackend:
    """One graph and one session, in which the model stays."""

    def __init__(self, kind, checkpoint, numerics=modeling.FLOAT32):
        """Builds the graph and restores the variables.

        Args:
          kind: `kind.Kind` or `encoder.Encoder`.
          checkpoint: path prefix of the model's checkpoint.
          numerics: `modeling.Numerics`.

        Raises:
          UserError: the checkpoint lacks a variable, or cannot be restored.
        """
        # No gradients are computed; hand-written ones take time to build.
        numerics = numerics._replace(plain_gradients=True)
        with tf.Graph().as_default() as graph:
            self._inputs = {
                name: tf.placeholder(tf.int32, [None, None], name)
                for name in inputs.names_of(kind)
            }
            model = objective.run_encoder(
                kind, self._inputs, is_training=False, use_tpu=False, numerics=numerics
            )
            outputs = kind.outputs(model)
            predictions = kind.predictions(outputs, self._inputs)
            self._outputs = dict(outputs, **predictions)
            self._default = tuple(predictions)
            if kind.files.task is encoder.TASK:
                self._add_mask_head(kind.files.config, model, checkpoint)
            held, absent = _sort_out(checkpoint, kind.files.task is encoder.TASK)
            saver = tf.train.Saver(held)
            initialize = tf.variables_initializer(absent)
            graph.finalize()
        self._session = tf.Session("", graph, tf.ConfigProto(allow_soft_placement=True))
        self._runs, self._lock = {}, threading.Lock()
        self._session.run(initialize)
        _restore(saver, self._session, checkpoint)

    def _add_mask_head(self, config, model, checkpoint):
        """Adds the output of the masked language model, if the checkpoint has one."""
        if not encoder.has_mask_head(checkpoints.read_variables(checkpoint)):
            return
        positions = tf.placeholder(tf.int32, [None, None], encoder.MASK_POSITIONS)
        self._inputs[encoder.MASK_POSITIONS] = positions
        logits = encoder.mask_logits(config, model, positions)
        self._outputs[encoder.MASK_LOGITS] = logits

    @property
    def output_names(self):
        """See above."""
        return tuple(self._outputs)

    def run(self, arrays, names=None):
        """Computes outputs.

        Args:
          arrays: dict name -> int32 array.
          names: sequence of the outputs' names; None for those that the kind decodes.

        Returns:
          Dict name -> ndarray.
        """
        names = tuple(self._default if names is None else names)
        fed = tuple(sorted(arrays))
        run = self._runs.get((names, fed))
        if run is None:
            # A callable saves `Session.run` its look-ups of names.
            with self._lock:
                run = self._session.make_callable(
                    [self._outputs[name] for name in names],
                    [self._inputs[name] for name in fed],
                )
                self._runs[names, fed] = run
        return dict(zip(names, run(*(arrays[name] for name in fed))))

    def close(self):
        """Closes the session."""
        self._session.close()


def _sort_out(checkpoint, is_encoder):
    """Looks the graph's variables up in a checkpoint.

    Args:
      checkpoint: path prefix.
      is_encoder: whether nothing is computed with the pooler, which some pretrained
        models lack.

    Returns:
      Dict of the name in the file to the variable, and list of the variables that are
      not in the file.

    Raises:
      UserError: one that is needed is not in the file.
    """
    tensors = checkpoints.read_variables(checkpoint)
    held, absent = {}, []
    for variable in tf.trainable_variables():
        name = variable.op.name
        if name in tensors:
            held[tensors[name].name] = variable
        elif is_encoder and "/pooler/" in name:
            absent.append(variable)
        else:
            raise UserError("{}: it has no variable {}".format(checkpoint, name))
    return held, absent


def _restore(saver, session, checkpoint):
    """Restores variables; raises `UserError` where the checkpoint is damaged."""
    # The saver says at the level INFO what it restores.
    verbosity = tf.logging.get_verbosity()
    tf.logging.set_verbosity(tf.logging.ERROR)
    try:
        with session.graph.as_default():
            saver.restore(session, checkpoint)
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            "{}: cannot be restored ({}); copy the model again".format(
                checkpoint, str(error).split("\n")[0]
            )
        ) from error
    finally:
        tf.logging.set_verbosity(verbosity)
