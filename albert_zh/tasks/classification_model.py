"""The classification head and the model function of fine-tuning."""

import tensorflow.compat.v1 as tf

import modeling

# BERT's and ALBERT's scripts keep 0.9 of the pooled output, whatever dropout the
# encoder's config asks for (it asks for none in the published tiny and xxlarge).
CLASSIFIER_DROPOUT = 0.1
# The variables of the head.
HEAD = ("output_weights", "output_bias")


def logits_of(pooled_output, num_labels, is_training):
    """The classification head of BERT (arXiv:1810.04805, section 4.1).

    Creates the variables `output_weights` [num_labels, H] and `output_bias`
    [num_labels], the names published checkpoints use.

    Args:
      pooled_output: float32 [B, H].
      num_labels: number of classes.
      is_training: whether dropout applies.

    Returns:
      float32 [B, num_labels].
    """
    hidden_size = modeling.get_shape_list(pooled_output)[-1]
    weights = tf.get_variable(
        "output_weights",
        [num_labels, hidden_size],
        initializer=modeling.create_initializer(),
    )
    bias = tf.get_variable(
        "output_bias", [num_labels], initializer=tf.zeros_initializer()
    )
    if is_training:
        pooled_output = modeling.dropout(pooled_output, CLASSIFIER_DROPOUT)
    return tf.matmul(pooled_output, weights, transpose_b=True) + bias


def model_fn_builder(config, num_labels, use_tpu, numerics, training_spec=None):
    """Builds the Estimator's `model_fn`.

    Args:
      config: the encoder's `modeling.AlbertConfig`.
      num_labels: number of classes.
      use_tpu: whether the graph is for TPU.
      numerics: `modeling.Numerics`.
      training_spec: function of the mean loss that returns the `TPUEstimatorSpec`
        of a training step; None for a model that only predicts.

    Returns:
      `model_fn(features, labels, mode, params)` for `features` as
      `features.training_input_fn` yields them. It predicts `log_probabilities`
      float32 [B, num_labels] and `is_real_example` int32 [B].
    """

    def model_fn(features, labels, mode, params):
        del labels, params  # part of the interface; all is in `features`
        is_training = mode == tf.estimator.ModeKeys.TRAIN
        batch_size = modeling.get_shape_list(features["input_ids"])[0]
        model = modeling.AlbertModel(
            config,
            is_training,
            features["input_ids"],
            features["input_mask"],
            features["segment_ids"],
            use_one_hot_embeddings=use_tpu,
            # The first token's output is all that is read.
            needed_positions=tf.zeros([batch_size, 0], tf.int32),
            **numerics._asdict(),
        )
        logits = logits_of(model.get_pooled_output(), num_labels, is_training)
        if is_training:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=features["label_ids"], logits=logits
            )
            return training_spec(tf.reduce_mean(losses))
        return tf.estimator.tpu.TPUEstimatorSpec(
            mode,
            predictions={
                "log_probabilities": tf.nn.log_softmax(logits),
                "is_real_example": features["is_real_example"],
            },
        )

    return model_fn
