"""Fine-tuning of the encoder on classification tasks: train, evaluate, predict."""

import contextlib
import json
import logging
import math
import os
from typing import List, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
import optimization
from albert_zh import checkpoints, estimators
from albert_zh.errors import UserError
from albert_zh.tasks import features, metrics, model_files

_LOGGER = logging.getLogger(__name__)

BEST_DIRECTORY = "best"
EVAL_RESULTS = "eval_results"
# Dev scores after every epoch: what "best" is chosen from, also after a restart.
EPOCH_SCORES_FILE = "dev_scores.json"

# BERT's and ALBERT's scripts keep 0.9 of the pooled output, whatever dropout the
# encoder's config asks for (it asks for none in the published tiny and xxlarge).
CLASSIFIER_DROPOUT = 0.1


class Training(NamedTuple):
    """How to fine-tune.

    Attributes:
      batch_size: examples per step, over all devices.
      learning_rate: peak of the schedule.
      num_epochs: passes over the training set, may be fractional.
      warmup_proportion: share of the steps with linear warm-up.
      optimizer: one of `optimization.OPTIMIZERS`.
      init_checkpoint: pretrained checkpoint to start from, None for random weights.
    """

    batch_size: int
    learning_rate: float
    num_epochs: float
    warmup_proportion: float
    optimizer: str
    init_checkpoint: Optional[str]


class _Records(NamedTuple):
    """A record file in use: `positions[i]` is the example its record i stands for."""

    path: str
    num_examples: int
    positions: np.ndarray


def classification_logits(pooled_output, num_labels, is_training):
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


def model_fn_builder(config, num_labels, use_tpu, training=None, num_train_steps=0):
    """Builds the Estimator's `model_fn`.

    Args:
      config: the encoder's `modeling.AlbertConfig`.
      num_labels: number of classes.
      use_tpu: whether the graph is for TPU.
      training: a `Training`; None for a model that only predicts.
      num_train_steps: length of the learning-rate schedule.

    Returns:
      `model_fn(features, labels, mode, params)` for `features` as
      `features.training_input_fn` yields them; `labels` is not looked at. It
      predicts `log_probabilities` float32 [B, num_labels] and `is_real_example`.
    """

    def model_fn(features, labels, mode, params):
        del labels, params
        is_training = mode == tf.estimator.ModeKeys.TRAIN
        model = modeling.AlbertModel(
            config,
            is_training,
            features["input_ids"],
            features["input_mask"],
            features["segment_ids"],
            use_one_hot_embeddings=use_tpu,
        )
        logits = classification_logits(
            model.get_pooled_output(), num_labels, is_training
        )
        if not is_training:
            return tf.estimator.tpu.TPUEstimatorSpec(
                mode,
                predictions={
                    "log_probabilities": tf.nn.log_softmax(logits),
                    "is_real_example": features["is_real_example"],
                },
            )
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=features["label_ids"], logits=logits
            )
        )
        operation = optimization.create_training_operation(
            loss,
            training.learning_rate,
            num_train_steps,
            int(num_train_steps * training.warmup_proportion),
            use_tpu,
            optimizer=training.optimizer,
        )
        return tf.estimator.tpu.TPUEstimatorSpec(
            mode, loss=loss, train_op=operation.train_op
        )

    return model_fn
