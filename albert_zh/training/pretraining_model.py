"""The model function of pretraining: masked language model and sentence order."""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

import modeling
import optimization
from albert_zh.training import accumulation
from albert_zh.training import estimator as estimators


def model_fn_builder(
    config,
    start,
    schedule=None,
    use_tpu=False,
    micro_batch_size=None,
    numerics=modeling.FLOAT32,
    sop_weight=1.0,
    custom_getter=None,
):
    """Returns a model function for `TPUEstimator`.

    Args:
      config: `AlbertConfig`.
      start: `estimators.Start`.
      schedule: `estimators.Schedule` of training; None for evaluation only.
      use_tpu: bool.
      micro_batch_size: int, sequences that a device computes at a time in training;
        it divides the device's batch. None computes them all at once.
      numerics: `modeling.Numerics`.
      sop_weight: float, what the loss of sentence order is multiplied by.
      custom_getter: of the scope of the variables, see `tf.variable_scope`.

    Returns:
      function (features, labels, mode, params) -> TPUEstimatorSpec. features are
      int32 input_ids, input_mask, segment_ids [B, S]; masked_lm_positions,
      masked_lm_ids [B, P]; next_sentence_labels [B, 1]; float32
      masked_lm_weights [B, P].
    """

    def run_model(features, training):
        with tf.variable_scope(tf.get_variable_scope(), custom_getter=custom_getter):
            return _run_model(config, features, training, use_tpu, numerics)

    def training_spec(features):
        # Every device's share divides by the same, so that the mean of the shares is
        # the loss of the whole step's batch.
        totals = optimization.mean_over_replicas(_totals(features), use_tpu)
        totals = _Totals(*totals)

        def compute(part):
            outputs = run_model(part, training=True)
            return _share_of_loss(outputs, part, totals, sop_weight)

        if micro_batch_size is None:
            (loss, curves), gradients = compute(features), None
        else:
            loss, curves, gradients = accumulation.accumulate(
                compute, features, micro_batch_size
            )
        return estimators.training_spec(
            loss, curves, schedule, start, use_tpu, gradients, numerics.use_xla
        )

    def model_fn(features, labels, mode, params):
        del labels, params  # part of the interface; all is in `features`
        if mode == tf.estimator.ModeKeys.TRAIN:
            return training_spec(features)
        outputs = run_model(features, training=False)
        return tf.estimator.tpu.TPUEstimatorSpec(
            mode,
            loss=_share_of_loss(outputs, features, _totals(features), sop_weight)[0],
            eval_metrics=(_metrics, _metric_tensors(features, outputs)),
            scaffold_fn=estimators.start_variables(start, use_tpu),
        )

    return model_fn


class _Outputs(NamedTuple):
    """What the heads say of every prediction and every sequence.

    Attributes:
      mlm_losses, mlm_predictions: float32, int32 [B, P].
      sop_losses, sop_predictions: float32, int32 [B].
    """

    mlm_losses: tf.Tensor
    mlm_predictions: tf.Tensor
    sop_losses: tf.Tensor
    sop_predictions: tf.Tensor


def _run_model(config, features, training, use_tpu, numerics):
    """Builds the encoder and both heads; returns `_Outputs`."""
    model = modeling.AlbertModel(
        config,
        training,
        features["input_ids"],
        features["input_mask"],
        features["segment_ids"],
        use_one_hot_embeddings=use_tpu,
        needed_positions=features["masked_lm_positions"],
        # By name, as every micro-batch takes the same variables.
        scope="bert",
        **numerics._asdict(),
    )
    _, mlm_losses, mlm_logits = modeling.get_masked_lm_output(
        config,
        model,
        features["masked_lm_positions"],
        features["masked_lm_ids"],
        features["masked_lm_weights"],
    )
    _, sop_losses, sop_logits = modeling.get_sentence_order_output(
        config, model, features["next_sentence_labels"]
    )
    shape = modeling.get_shape_list(features["masked_lm_ids"])
    return _Outputs(
        tf.reshape(mlm_losses, shape),
        tf.reshape(_predictions(mlm_logits), shape),
        sop_losses,
        _predictions(sop_logits),
    )


class _Totals(NamedTuple):
    """What the sums over a batch are divided by: two float32 scalars.

    Attributes:
      mlm_weight: the sum of masked_lm_weights.
      sequences: the number of sequences.
    """

    mlm_weight: tf.Tensor
    sequences: tf.Tensor


def _totals(features):
    """Returns the `_Totals` of the batch that this device takes in one step."""
    sequences = modeling.get_shape_list(features["input_ids"])[0]
    return _Totals(
        tf.reduce_sum(features["masked_lm_weights"]), tf.cast(sequences, tf.float32)
    )


def _share_of_loss(outputs, features, totals, sop_weight=1.0):
    """The loss and the curves of a batch, or what a part of it adds to them.

    The loss is the weighted mean over all predictions (MLM) plus `sop_weight` times the
    mean over all sequences (SOP). The means divide by `totals`, so that the shares of
    the parts of a batch, and their gradients, add up to those of the batch.

    Args:
      outputs: `_Outputs`.
      features: dict of the same sequences' features.
      totals: `_Totals` of the whole batch.
      sop_weight: float.

    Returns:
      float32 scalar, and a dict of curve name to float32 scalar.
    """
    weights = features["masked_lm_weights"]
    labels = tf.reshape(features["next_sentence_labels"], [-1])
    mlm_right = tf.equal(outputs.mlm_predictions, features["masked_lm_ids"])
    sop_right = tf.equal(outputs.sop_predictions, labels)

    def mlm_mean(values):
        return tf.div_no_nan(tf.reduce_sum(weights * values), totals.mlm_weight)

    def sop_mean(values):
        return tf.reduce_sum(values) / totals.sequences

    curves = {
        "masked_lm_loss": mlm_mean(outputs.mlm_losses),
        "sentence_order_loss": sop_mean(outputs.sop_losses),
        "masked_lm_accuracy": mlm_mean(tf.cast(mlm_right, tf.float32)),
        "sentence_order_accuracy": sop_mean(tf.cast(sop_right, tf.float32)),
    }
    loss = curves["masked_lm_loss"] + sop_weight * curves["sentence_order_loss"]
    return loss, curves


def _predictions(logits):
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def _metric_tensors(features, outputs):
    """What `_metrics` needs of one batch, every tensor with a batch dimension."""
    return [
        outputs.mlm_losses,
        outputs.mlm_predictions,
        features["masked_lm_ids"],
        features["masked_lm_weights"],
        outputs.sop_losses,
        outputs.sop_predictions,
        features["next_sentence_labels"],
    ]


def _metrics(
    mlm_losses, mlm_predictions, mlm_ids, mlm_weights, sop_losses, sop_predictions, sop
):
    """Means over all predictions (MLM) and all sequences (SOP) of an evaluation."""
    return {
        "masked_lm_loss": tf.metrics.mean(mlm_losses, mlm_weights),
        "masked_lm_accuracy": tf.metrics.accuracy(
            mlm_ids, mlm_predictions, mlm_weights
        ),
        "sentence_order_loss": tf.metrics.mean(sop_losses),
        "sentence_order_accuracy": tf.metrics.accuracy(
            tf.reshape(sop, [-1]), sop_predictions
        ),
    }
