"""Pretraining: masked language model and sentence order in one model function."""

import tensorflow.compat.v1 as tf

import modeling
from albert_zh import checkpoints, estimators


def model_fn_builder(
    config, output_dir, init_checkpoint, schedule, batch_size, use_tpu
):
    """Returns a model function for `TPUEstimator`.

    Args:
      config: `AlbertConfig`.
      output_dir: the estimator's directory.
      init_checkpoint: path prefix of the checkpoint to start from, or None.
      schedule: `estimators.Schedule`.
      batch_size: int, sequences a training step, for the progress display.
      use_tpu: bool.

    Returns:
      function (features, labels, mode, params) -> TPUEstimatorSpec. features are
      int32 input_ids, input_mask, segment_ids [B, S]; masked_lm_positions,
      masked_lm_ids [B, P]; next_sentence_labels [B, 1]; float32
      masked_lm_weights [B, P].
    """

    def model_fn(features, labels, mode, params):
        del labels, params  # part of the interface; all is in `features`
        training = mode == tf.estimator.ModeKeys.TRAIN
        model = modeling.AlbertModel(
            config,
            training,
            features["input_ids"],
            features["input_mask"],
            features["segment_ids"],
            use_one_hot_embeddings=use_tpu,
        )
        mlm = modeling.get_masked_lm_output(
            config,
            model,
            features["masked_lm_positions"],
            features["masked_lm_ids"],
            features["masked_lm_weights"],
        )
        sop = modeling.get_sentence_order_output(
            config, model, features["next_sentence_labels"]
        )
        loss = mlm[0] + sop[0]
        if not training:
            return tf.estimator.tpu.TPUEstimatorSpec(
                mode,
                loss=loss,
                eval_metrics=(_metrics, _metric_tensors(features, mlm, sop)),
                scaffold_fn=estimators.start_variables(
                    output_dir, init_checkpoint, use_tpu
                ),
            )
        curves = {
            "masked_lm_loss": mlm[0],
            "sentence_order_loss": sop[0],
            "masked_lm_accuracy": _accuracy(
                mlm[2], features["masked_lm_ids"], features["masked_lm_weights"]
            ),
            "sentence_order_accuracy": _accuracy(
                sop[2], features["next_sentence_labels"], None
            ),
        }
        return estimators.training_spec(
            loss, curves, schedule, batch_size, output_dir, init_checkpoint, use_tpu
        )

    return model_fn


def check_checkpoint(config, checkpoint):
    """Holds a checkpoint against the pretraining graph of a config.

    Raises:
      UserError: it is missing or damaged, or does not fit.
    """
    checkpoints.check_readable(checkpoint)
    with tf.Graph().as_default():
        token = tf.zeros([1, 1], tf.int32)
        model = modeling.AlbertModel(config, False, token)
        modeling.get_masked_lm_output(config, model, token, token, tf.ones([1, 1]))
        modeling.get_sentence_order_output(config, model, token)
        checkpoints.plan_restore(checkpoint, tf.trainable_variables())


def _accuracy(logits, labels, weights):
    """Weighted share of rows of [n, classes] logits whose largest is the label's."""
    right = tf.equal(_predictions(logits), tf.reshape(labels, [-1]))
    right = tf.cast(right, tf.float32)
    if weights is None:
        return tf.reduce_mean(right)
    weights = tf.reshape(weights, [-1])
    return tf.div_no_nan(tf.reduce_sum(weights * right), tf.reduce_sum(weights))


def _predictions(logits):
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def _metric_tensors(features, mlm, sop):
    """What `_metrics` needs of one batch, every tensor with a batch dimension."""
    shape = modeling.get_shape_list(features["masked_lm_ids"])
    return [
        tf.reshape(mlm[1], shape),
        tf.reshape(_predictions(mlm[2]), shape),
        features["masked_lm_ids"],
        features["masked_lm_weights"],
        sop[1],
        _predictions(sop[2]),
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
