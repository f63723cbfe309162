"""What a student loses to its teacher: graph code of distillation (arXiv:1503.02531).

Logits are divided by a temperature T, which shows more of what the teacher thinks of
the wrong classes. Its square keeps the size of the gradients, which fall with 1 / T^2.
"""

from albert_zh.base.lazy import tensorflow as tf

# Logit of what cannot be chosen: exp of it is 0 in float32, whatever the temperature.
_NEVER = -1e9


def softmax_loss(teacher, student, temperature, is_candidate=None):
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), in nats.

    Args:
      teacher: float32 [..., n], logits.
      student: float32, of the same shape.
      temperature: float, T.
      is_candidate: bool, of the same shape: what can be chosen; None for all.

    Returns:
      float32 [...].
    """
    if is_candidate is not None:
        never = tf.fill(tf.shape(student), _NEVER)
        teacher = tf.where(is_candidate, teacher, never)
        student = tf.where(is_candidate, student, never)
    p = tf.nn.log_softmax(teacher / temperature)
    q = tf.nn.log_softmax(student / temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(p) * (p - q), axis=-1)


def sigmoid_loss(teacher, student, temperature):
    """The mean over classes of T^2 * KL of two probabilities of each, in nats.

    Args:
      teacher: float32 [B, n], logits.
      student: float32, of the same shape.
      temperature: float, T.

    Returns:
      float32 [B].
    """
    teacher, student = teacher / temperature, student / temperature
    p = tf.nn.sigmoid(teacher)
    yes = tf.nn.softplus(-student) - tf.nn.softplus(-teacher)
    no = tf.nn.softplus(student) - tf.nn.softplus(teacher)
    return temperature**2 * tf.reduce_mean(p * yes + (1 - p) * no, axis=1)
