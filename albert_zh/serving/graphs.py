"""The TensorFlow graph to export; its outputs are those of `onnx_model`."""

import numpy as np

import modeling
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.serving import encoder, inputs
from albert_zh.tasks import objective

_POOLER = "bert/pooler/dense/kernel"
_PROBABILITIES = {"classification": "softmax", "multi_label": "sigmoid"}


class ExportGraph:
    """A graph with its weights, in a session.

    Attributes:
      inputs: dict name -> int32 placeholder [None, None].
      outputs: dict name -> float32 tensor.
      session: `tf.Session`, open until `close`.
    """

    def __init__(self, kind, weights):
        """Builds the graph and sets its variables.

        Args:
          kind: `kind.Kind` or `encoder.Encoder`.
          weights: dict variable name -> array.
        """
        graph = tf.Graph()
        with graph.as_default():
            # TensorFlow 2 warns of the other ones when it loads a SavedModel.
            tf.get_variable_scope().set_use_resource(True)
            self.inputs = {
                name: tf.placeholder(tf.int32, [None, None], name)
                for name in inputs.NAMES
            }
            self._positions = tf.placeholder_with_default(
                np.zeros([0], np.int32), [None], encoder.MASK_POSITIONS
            )
            # An exported graph is imported: hand-written gradients are not found there.
            numerics = modeling.Numerics(plain_gradients=True)
            model = objective.run_encoder(kind, self.inputs, False, False, numerics)
            self.outputs = {
                name: tf.identity(tensor, name)
                for name, tensor in self._head_outputs(kind, model, weights).items()
            }
            variables = tf.global_variables()
        self.session = tf.Session(graph=graph)
        # An encoder may lack the pooler, which nothing reads.
        self.session.run(
            [variable.initializer for variable in variables],
            {
                v.initializer.inputs[1]: weights[v.op.name]
                for v in variables
                if v.op.name in weights
            },
        )

    def _head_outputs(self, kind, model, weights):
        """Dict name -> tensor of the head."""
        outputs = dict(kind.outputs(model))
        name = kind.files.task.kind
        if name == encoder.TASK.kind:
            return self._encoder_outputs(kind, model, outputs, weights)
        if name == "regression":
            return {"value": tf.squeeze(outputs["logits"], axis=1)}
        if name in _PROBABILITIES:
            function = getattr(tf.nn, _PROBABILITIES[name])
            outputs["probabilities"] = function(outputs["logits"])
        return outputs

    def _encoder_outputs(self, kind, model, outputs, weights):
        outputs.update(kind.vectors(outputs, self.inputs))
        outputs["sequence_output"] = model.get_sequence_output()
        if _POOLER in weights:
            outputs["pooled_output"] = model.get_pooled_output()
        if encoder.has_mask_head(weights):
            rows = self._positions[None]  # those of one long sequence
            logits = encoder.mask_logits(kind.files.config, model, rows)
            outputs[encoder.MASK_LOGITS] = logits
        return outputs

    def run(self, features):
        """Returns dict name -> array of the outputs for a dict of int32 arrays."""
        fed = {tensor: features[name] for name, tensor in self.inputs.items()}
        if encoder.MASK_POSITIONS in features:
            fed[self._positions] = features[encoder.MASK_POSITIONS]
        return self.session.run(self.outputs, fed)

    def close(self):
        """Frees the session."""
        self.session.close()
