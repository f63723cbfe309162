"""What a step of fine-tuning minimizes: the mean loss, and what may be added to it."""

from typing import NamedTuple, Tuple

import modeling
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks.kind import HeadDropout

SCOPE = "bert"
_WORD_TABLE = SCOPE + "/embeddings/word_embeddings"


class Objective(NamedTuple):
    """How the loss differs from the plain mean; the defaults are the plain mean.

    Attributes:
      label_smoothing: float in [0, 1), of classification alone; this share of a
        label's probability goes to all classes alike (arXiv:1512.00567, section 7).
      class_weights: tuple of float, one for each label: factor of its examples' losses;
        () for none; of classification alone.
      adversarial_epsilon: float; adds the loss with the word embeddings moved by this
        distance along their gradient, the fast gradient method (arXiv:1605.07725).
      r_drop: float; weight of the divergence between two passes with different dropout
        (arXiv:2106.14448), the mean of `kind.Kind.soft_losses` in both directions. The
        loss is then the mean of both passes.
      distill_alpha: float in [0, 1]; the losses are alpha * `kind.Kind.soft_losses` +
        (1 - alpha) * `kind.Kind.losses`, the latter with what is above.
      distill_temperature: float; of the soft losses; 0 where they have none.
    """

    label_smoothing: float = 0.0
    class_weights: Tuple[float, ...] = ()
    adversarial_epsilon: float = 0.0
    r_drop: float = 0.0
    distill_alpha: float = 0.0
    distill_temperature: float = 0.0


PLAIN = Objective()


def training_loss(kind, features, objective, seed, **encoder):
    """The scalar loss of a batch.

    Args:
      kind: `kind.Kind`.
      features: dict name -> tensor, as `features.training_input_fn` yields them.
      objective: `Objective`.
      seed: int, of the dropout in front of the head.
      **encoder: keyword arguments of `run_encoder`.

    Returns:
      float32 scalar tensor.
    """

    drop = HeadDropout(seed)

    def loss(shift=None):
        outputs = _outputs(kind, features, shift, drop, encoder)
        losses = _losses(kind, outputs, features, objective)
        if objective.r_drop:
            second = _outputs(kind, features, shift, drop, encoder)
            losses = (losses + _losses(kind, second, features, objective)) / 2
            losses += objective.r_drop * divergence(kind, outputs, second, features)
        return tf.reduce_mean(losses)

    plain = loss()
    if not objective.adversarial_epsilon:
        return plain
    (table,) = (v for v in tf.trainable_variables() if v.op.name == _WORD_TABLE)
    gradient = tf.convert_to_tensor(tf.gradients(plain, table)[0])
    # Where the gradient is 0, so is the shift.
    norm = tf.maximum(tf.norm(gradient), 1e-12)
    shift = objective.adversarial_epsilon * gradient / norm
    return plain + loss(tf.stop_gradient(shift))


def _losses(kind, outputs, features, objective):
    """float32 [B], of one pass: against the labels, and against a teacher."""
    losses, alpha = kind.losses(outputs, features, objective), objective.distill_alpha
    if not alpha:
        return losses
    soft = kind.soft_losses(outputs, features, objective.distill_temperature)
    return alpha * soft + (1 - alpha) * losses


def divergence(kind, outputs, others, features):
    """How much two passes over a batch differ: each is once in the teacher's place.

    Args:
      kind: `kind.Kind`.
      outputs, others: dicts of what `kind.outputs` returns.
      features: dict name -> tensor.

    Returns:
      float32 [B], the mean of both directions.
    """

    def distance(teacher, student):
        given = dict(features, **kind.teacher_outputs(teacher, features))
        return kind.soft_losses(student, given, temperature=1.0)

    return (distance(outputs, others) + distance(others, outputs)) / 2


def _outputs(kind, features, shift, drop, encoder):
    """The head's outputs in training, with `shift` added to the word embeddings.

    Further calls share the variables of the first.
    """

    def shifted(getter, name, *args, **kwargs):
        variable = getter(name, *args, **kwargs)
        is_shifted = shift is not None and name == _WORD_TABLE
        return variable + shift if is_shifted else variable

    scope = tf.get_variable_scope()
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE, custom_getter=shifted):
        model = run_encoder(kind, features, is_training=True, **encoder)
        return kind.outputs(model, drop)


def run_encoder(kind, features, is_training, use_tpu, numerics):
    """Applies the encoder to a batch.

    Args:
      kind: `kind.Kind`.
      features: dict name -> tensor.
      is_training: bool, whether dropout applies.
      use_tpu: bool, whether the graph is for TPU.
      numerics: `modeling.Numerics`.

    Returns:
      `modeling.AlbertModel`.
    """
    batch_size = modeling.get_shape_list(features["input_ids"])[0]
    none = tf.zeros([batch_size, 0], tf.int32)
    return modeling.AlbertModel(
        kind.files.config,
        is_training,
        features["input_ids"],
        features["input_mask"],
        features["segment_ids"],
        use_one_hot_embeddings=use_tpu,
        scope=SCOPE,
        # None: all positions. The first token's output is there in any case.
        needed_positions=None if kind.reads_sequence else none,
        **numerics._asdict(),
    )
