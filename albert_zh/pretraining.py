"""Pretraining: masked language model and sentence order in one model function."""

import logging
import os

import tensorflow.compat.v1 as tf

import modeling
from albert_zh import architecture, checkpoints, estimators
from albert_zh.errors import UserError

_LOGGER = logging.getLogger(__name__)


def model_fn_builder(
    config,
    output_dir,
    init_checkpoint,
    schedule,
    batch_size,
    use_tpu,
    allow_missing=False,
):
    """Returns a model function for `TPUEstimator`.

    Args:
      config: `AlbertConfig`.
      output_dir: the estimator's directory.
      init_checkpoint: path prefix of the checkpoint to start from, or None.
      schedule: `estimators.Schedule`.
      batch_size: int, sequences a training step, for the progress display.
      use_tpu: bool.
      allow_missing: bool; whether `init_checkpoint` may lack pooler and heads.

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
                    output_dir, init_checkpoint, use_tpu, allow_missing
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
            loss,
            curves,
            schedule,
            batch_size,
            output_dir,
            init_checkpoint,
            use_tpu,
            allow_missing,
        )

    return model_fn


def check_start(config, output_dir, init_checkpoint, do_train, allow_missing=False):
    """Checks the checkpoints that a run would start from.

    Args:
      config: `AlbertConfig`.
      output_dir: the estimator's directory; a checkpoint in it goes first.
      init_checkpoint: path prefix, or None.
      do_train: bool; whether the run trains, not only evaluates.
      allow_missing: as `check_checkpoint` takes it for `init_checkpoint`.

    Returns:
      Path prefix of the newest checkpoint in `output_dir`, or None.

    Raises:
      UserError: one of them is missing, damaged or does not fit, `output_dir`'s has
        no step, or an evaluation has none, or two different ones.
    """
    latest = checkpoints.latest_checkpoint(output_dir)
    if latest:
        _check_step(latest, output_dir)
        checkpoints.check_readable(latest, "--output_dir")
    if init_checkpoint:
        check_checkpoint(config, init_checkpoint, allow_missing)
    if latest and init_checkpoint:
        if do_train:
            _LOGGER.info("%s is not read again: the run goes on", init_checkpoint)
        elif os.path.abspath(latest) != os.path.abspath(init_checkpoint):
            raise UserError(
                "--output_dir {} holds {}, which would be evaluated in place of {}; "
                "give another directory".format(output_dir, latest, init_checkpoint)
            )
    if not (latest or init_checkpoint or do_train):
        raise UserError(
            "--do_eval without --do_train: --output_dir {} has no checkpoint and "
            "neither --init_checkpoint nor --model_dir is given".format(output_dir)
        )
    return latest


def _check_step(latest, output_dir):
    """Raises `UserError` where no run can go on from the newest checkpoint."""
    if checkpoints.STEP not in checkpoints.read_shapes(latest, "--output_dir"):
        raise UserError(
            "--output_dir {}: {} has no global_step: it is a model to start from, no "
            "run to go on with; name it with --model_dir or --init_checkpoint and "
            "choose another --output_dir".format(output_dir, latest)
        )


def check_checkpoint(config, checkpoint, allow_missing=False):
    """Holds a checkpoint against the pretraining graph of a config.

    Args:
      config: `AlbertConfig`.
      checkpoint: path prefix.
      allow_missing: bool; whether it may lack the pooler and the heads.

    Raises:
      UserError: it is missing or damaged, is of another model, or lacks variables.
    """
    architecture.check(checkpoint, config)
    with tf.Graph().as_default():
        token = tf.zeros([1, 1], tf.int32)
        model = modeling.AlbertModel(config, False, token)
        modeling.get_masked_lm_output(config, model, token, token, tf.ones([1, 1]))
        modeling.get_sentence_order_output(config, model, token)
        checkpoints.plan_restore(checkpoint, tf.trainable_variables(), allow_missing)
    checkpoints.check_readable(checkpoint)


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
