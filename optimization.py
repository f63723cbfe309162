"""Training operations: learning-rate schedule, gradient clipping, AdamW, LAMB."""

import collections
import logging

import tensorflow.compat.v1 as tf

from lamb_optimizer import LAMBOptimizer

# LayerNorm parameters and biases neither decay nor adapt (arXiv:1904.00962,
# section 4; BERT's training code).
EXCLUDED_FROM_WEIGHT_DECAY = ("LayerNorm", "layer_norm", "bias")

OPTIMIZERS = ("lamb", "adamw")

_LOGGER = logging.getLogger(__name__)

# Shape of the rate after the warm-up -> (share of all steps up to which the rate stays
# at its peak, share of the peak that it falls to in a straight line by the last step).
# "linear" is BERT's, which counts the decay from step 0, through the warm-up.
_SCHEDULES = {
    "linear": None,
    "one_cycle": (0.0, 0.0),
    "tenth": (0.0, 0.1),
    "trapezoid": (0.8, 0.0),
}
SCHEDULES = tuple(_SCHEDULES)

TrainingOperation = collections.namedtuple(
    "TrainingOperation", ["train_op", "learning_rate", "gradient_norm"]
)


class AdamWeightDecayOptimizer(LAMBOptimizer):
    """Adam with decoupled weight decay (arXiv:1711.05101): LAMB at trust ratio 1.

    As in BERT's training code the moments are not bias-corrected by default.
    """

    def __init__(
        self,
        learning_rate,
        weight_decay_rate=0.0,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        exclude_from_weight_decay=None,
        bias_correction=False,
        use_xla=False,
        use_locking=False,
        name="AdamWeightDecayOptimizer",
        rate_multipliers=(),
    ):
        """Creates the optimizer; the arguments are `LAMBOptimizer`'s."""
        super().__init__(
            learning_rate,
            weight_decay_rate=weight_decay_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=[".*"],
            bias_correction=bias_correction,
            use_xla=use_xla,
            use_locking=use_locking,
            name=name,
            rate_multipliers=rate_multipliers,
        )


def learning_rate_schedule(
    init_lr,
    global_step,
    num_train_steps,
    num_warmup_steps,
    decay_power=1.0,
    schedule="linear",
):
    """Linear warm-up, then a decay.

    The rate at step t is init_lr t / warm-up while t < warm-up. Afterwards:

      linear: init_lr (1 - t / T)^power, as published. The decay counts from step 0, so
        the peak is a little below `init_lr`.
      one_cycle: from init_lr in a straight line to 0 at T; with a warm-up of T/2 a
        triangle, as in arXiv:2212.14034.
      tenth: from init_lr in a straight line to init_lr / 10 at T.
      trapezoid: init_lr up to 0.8 T, then in a straight line to 0. A run that is to go
        on longer than planned has lost nothing before 0.8 T.

    Args:
      init_lr: float, the peak rate.
      global_step: int scalar tensor, t.
      num_train_steps: int, T.
      num_warmup_steps: int, 0 for none.
      decay_power: float, 1.0 for a straight line; "linear" alone reads it.
      schedule: one of `SCHEDULES`.

    Returns:
      float32 scalar tensor.

    Raises:
      ValueError: an unknown schedule.
    """
    _check_choice("schedule", schedule, SCHEDULES)
    if schedule == "linear":
        learning_rate = tf.train.polynomial_decay(
            tf.constant(init_lr, tf.float32),
            global_step,
            num_train_steps,
            end_learning_rate=0.0,
            power=decay_power,
        )
    else:
        hold, end = _SCHEDULES[schedule]
        begin = max(int(hold * num_train_steps), num_warmup_steps)
        learning_rate = tf.train.polynomial_decay(
            tf.constant(init_lr, tf.float32),
            tf.maximum(tf.cast(global_step, tf.float32) - begin, 0.0),
            max(num_train_steps - begin, 1),
            end_learning_rate=end * init_lr,
        )
    if not num_warmup_steps:
        return learning_rate
    step = tf.cast(global_step, tf.float32)
    warmup = init_lr * step / tf.constant(num_warmup_steps, tf.float32)
    return tf.where(step < num_warmup_steps, warmup, learning_rate)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(
            "{} must be one of {}, received {!r}".format(
                name, ", ".join(choices), value
            )
        )


def create_training_operation(
    loss,
    init_lr,
    num_train_steps,
    num_warmup_steps,
    use_tpu,
    optimizer="lamb",
    weight_decay_rate=0.01,
    clip_norm=1.0,
    decay_power=1.0,
    bias_correction=False,
    gradients=None,
    use_xla=False,
    schedule="linear",
    rate_multipliers=(),
):
    """Builds the operation of one training step, for all trainable variables.

    On several replicas (TPU shards, or those of a `tf.distribute` strategy) the
    gradients are averaged first, then clipped by the norm of the average.

    Args:
      loss: float32 scalar tensor, whose mean over the replicas is minimized.
      init_lr: float, the peak learning rate.
      num_train_steps: int, the step at which the schedule ends.
      num_warmup_steps: int, steps of linear warm-up.
      use_tpu: bool, whether the graph is built for TPU shards.
      optimizer: "lamb" or "adamw".
      weight_decay_rate: float, for all but LayerNorm and biases.
      clip_norm: float, largest global norm of the gradients; None turns clipping off.
      decay_power: float, power of the polynomial decay.
      bias_correction: bool, divide the moments by 1 - beta^t.
      gradients: list parallel to `tf.trainable_variables()`, if the caller has
        computed the gradients of `loss` already; None derives them here.
      use_xla: bool, let XLA compile the element-wise work on large variables.
      schedule: one of `SCHEDULES`; see `learning_rate_schedule`.
      rate_multipliers: list of (regular expression, float), as `LAMBOptimizer` takes
        it; variables that none finds learn at the schedule's rate. Where it is 0,
        neither gradients nor moments are computed.

    Returns:
      `TrainingOperation`: train_op, which also increments the global step;
      learning_rate and gradient_norm (before clipping), float32 scalar tensors.

    Raises:
      ValueError: an unknown optimizer or schedule.
    """
    classes = {"lamb": LAMBOptimizer, "adamw": AdamWeightDecayOptimizer}
    _check_choice("optimizer", optimizer, OPTIMIZERS)
    global_step = tf.train.get_or_create_global_step()
    learning_rate = learning_rate_schedule(
        init_lr, global_step, num_train_steps, num_warmup_steps, decay_power, schedule
    )
    rule = classes[optimizer](
        learning_rate,
        weight_decay_rate=weight_decay_rate,
        exclude_from_weight_decay=EXCLUDED_FROM_WEIGHT_DECAY,
        bias_correction=bias_correction,
        use_xla=use_xla,
        rate_multipliers=rate_multipliers,
    )
    variables = tf.trainable_variables()
    if gradients is None:
        # A frozen variable has no part in the norm of the gradients either.
        variables = [v for v in variables if rule.rate_multiplier(v) != 0]
        gradients = tf.gradients(loss, variables)
    # Dense: the norm of an embedding's `IndexedSlices` would square the rows of a
    # repeated token before they are summed.
    gradients = [
        None if gradient is None else tf.convert_to_tensor(gradient)
        for gradient in gradients
    ]
    gradients = mean_over_replicas(gradients, use_tpu)
    gradient_norm = tf.global_norm(gradients)
    if clip_norm is not None:
        gradients, _ = tf.clip_by_global_norm(
            gradients, clip_norm, use_norm=gradient_norm
        )
    train_op = rule.apply_aggregated_gradients(zip(gradients, variables), global_step)
    return TrainingOperation(train_op, learning_rate, gradient_norm)


def mean_over_replicas(tensors, use_tpu=False):
    """Averages tensors over the replicas of a training step.

    Call it in a model function. Every replica gets the same means; a single device
    gets its own tensors back.

    Args:
      tensors: list of float tensors and None.
      use_tpu: bool; True if the replicas are TPU shards, False if they are those of
        the current `tf.distribute` strategy (or there is only one).

    Returns:
      list parallel to `tensors`, None where they are None.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    if use_tpu:
        means = [_mean_over_shards(tensor) for tensor in given]
    elif given and tf.distribute.has_strategy():
        # Not the replica's `all_reduce`: it is differentiable, and therefore looks up
        # the variables of all replicas, which fails here.
        replica = tf.distribute.get_replica_context()
        means = replica.merge_call(_reduce_to_means, args=given)
    else:
        means = given
    means = iter(means)
    return [None if tensor is None else next(means) for tensor in tensors]


def _reduce_to_means(strategy, *tensors):
    """Averages over the replicas; each argument is a tensor or a per-replica value."""
    return strategy.extended.batch_reduce_to(
        tf.distribute.ReduceOp.MEAN,
        [(t, t.device if isinstance(t, tf.Tensor) else t) for t in tensors],
    )


def _mean_over_shards(tensor):
    # compat.v1 exports the reduction but not the shard count.
    from tensorflow.python.tpu import tpu_function

    shards = tpu_function.get_tpu_context().number_of_shards or 1
    return tf.tpu.cross_replica_sum(tensor / shards)


def create_optimizer(
    loss,
    init_lr,
    num_train_steps,
    num_warmup_steps,
    use_tpu,
    optimizer=None,
    **settings,
):
    """Returns the training operation alone, with BERT's and ALBERT's signature.

    `settings` are further keyword arguments of `create_training_operation`. The
    default optimizer is LAMB; `optimizer="adamw"` is what BERT's function of this name
    trains with. Without `optimizer`, a warning says so.
    """
    if optimizer is None:
        _LOGGER.warning(
            "create_optimizer trains with LAMB, BERT's code with AdamW: pass "
            'optimizer="adamw" for AdamW, optimizer="lamb" to confirm LAMB'
        )
    return create_training_operation(
        loss,
        init_lr,
        num_train_steps,
        num_warmup_steps,
        use_tpu,
        optimizer=optimizer or "lamb",
        **settings,
    ).train_op
