"""LAMB, the layer-wise adaptive optimizer for large batches (arXiv:1904.00962)."""

import contextlib
import re

import tensorflow.compat.v1 as tf

# For variables with fewer elements, starting an XLA kernel costs more than it saves.
_LARGE_VARIABLE = 50000


class LAMBOptimizer(tf.train.Optimizer):
    """LAMB (arXiv:1904.00962, algorithm 2) with decoupled weight decay.

    For each variable x with gradient g, at learning rate lr:

      m = beta_1 m + (1 - beta_1) g
      v = beta_2 v + (1 - beta_2) g^2
      u = m / (sqrt(v) + epsilon) + weight_decay_rate x
      x = x - lr r u        with r = |x| / |u|, or 1 where either norm is 0

    The paper also divides m and v by 1 - beta^t. The published BERT and ALBERT code
    does not, and its recipes are tuned without, so `bias_correction` is off by
    default.

    A sparse gradient (`tf.IndexedSlices`) acts like the dense one: rows without a
    gradient still decay and keep their momentum. The trust ratio needs the norm of
    the whole variable anyway.

    The slots are named `adam_m` and `adam_v` as in published checkpoints.
    """

    def __init__(
        self,
        learning_rate,
        weight_decay_rate=0.0,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        exclude_from_weight_decay=None,
        exclude_from_layer_adaptation=None,
        bias_correction=False,
        use_xla=False,
        use_locking=False,
        name="LAMBOptimizer",
        rate_multipliers=(),
    ):
        """Creates the optimizer.

        Args:
          learning_rate: float, scalar tensor, or function returning one of them.
          weight_decay_rate: float, the decoupled decay (arXiv:1711.05101).
          beta_1: float, decay of the first moment per step.
          beta_2: float, decay of the second moment per step.
          epsilon: float, added to the root of the second moment.
          exclude_from_weight_decay: list of regular expressions; variables whose
            name one of them finds (`re.search`) do not decay.
          exclude_from_layer_adaptation: list of regular expressions; these variables
            have r = 1. None means the same list as `exclude_from_weight_decay`.
          bias_correction: bool, divide the moments by 1 - beta^t.
          use_xla: bool, let XLA compile the element-wise work on large variables.
          use_locking: bool, as in every `tf.train.Optimizer`.
          name: name of the operations.
          rate_multipliers: list of (regular expression, float); a variable learns at
            the rate times the number of the first expression that finds its name.
        """
        super().__init__(use_locking, name)
        self._learning_rate = learning_rate
        self._weight_decay_rate = weight_decay_rate
        self._beta_1 = beta_1
        self._beta_2 = beta_2
        self._epsilon = epsilon
        self._exclude_from_weight_decay = exclude_from_weight_decay or []
        self._exclude_from_layer_adaptation = (
            self._exclude_from_weight_decay
            if exclude_from_layer_adaptation is None
            else exclude_from_layer_adaptation
        )
        self._bias_correction = bias_correction
        self._use_xla = use_xla
        self._rate_multipliers = rate_multipliers
        self._learning_rate_tensor = None

    def minimize(self, loss, global_step=None, *arguments, **settings):
        """As in every `tf.train.Optimizer`: `global_step`, if given, is incremented."""
        update_op = super().minimize(loss, None, *arguments, **settings)
        if global_step is None:
            return update_op
        with tf.control_dependencies([update_op]):
            return tf.group(global_step.assign_add(1))

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        """Applies gradients.

        Args:
          grads_and_vars: iterable of (gradient, variable); gradients may be sparse or
            None.
          global_step: not incremented, as in BERT's and ALBERT's published code, whose
            callers do that themselves.
          name: name of the operation.

        Returns:
          The operation.
        """
        del global_step
        return super().apply_gradients(grads_and_vars, name=name)

    def apply_aggregated_gradients(self, grads_and_vars, global_step=None):
        """Applies gradients that are the same on every replica already.

        Under a `tf.distribute` strategy `apply_gradients` would sum them over the
        replicas first, and so send all of them over the network once more.

        Args:
          grads_and_vars: iterable of (gradient, variable); gradients are dense or
            None.
          global_step: variable to increment, or None.

        Returns:
          The operation.
        """
        grads_and_vars = [pair for pair in grads_and_vars if pair[0] is not None]
        if not tf.distribute.has_strategy():
            return super().apply_gradients(grads_and_vars, global_step)
        return tf.distribute.get_replica_context().merge_call(
            self._update_replicas, args=(grads_and_vars, global_step)
        )

    def rate_multiplier(self, variable):
        """The number that the learning rate of a variable is multiplied by, a float."""
        for pattern, multiplier in self._rate_multipliers:
            if _matches([pattern], _base_name(variable)):
                return multiplier
        return 1.0

    def _update_replicas(self, strategy, grads_and_vars, global_step):
        """Lets every replica update its copies of all variables."""
        with tf.init_scope():
            self._create_slots([variable for _, variable in grads_and_vars])
        self._prepare()

        updates = []
        for gradient, variable in grads_and_vars:
            updates += self._update_copies(strategy, gradient, variable)
        update_op = self._finish(updates, self.get_name())
        if global_step is None:
            return update_op
        with tf.control_dependencies([update_op]):
            return strategy.extended.update(
                global_step, lambda step: step.assign_add(1).op
            )

    def _update_copies(self, strategy, gradient, variable):
        """Operations that update each replica's copy by that replica's gradient."""
        gradients = strategy.experimental_local_results(gradient)
        copies = strategy.experimental_local_results(variable)

        def update(copy):
            # By index: TensorFlow 1.15 passes a replica its own value only of tensors
            # that it has reduced itself.
            index = [other is copy for other in copies].index(True)
            return self._update(gradients[index], copy)

        return strategy.extended.update(variable, update, group=False)

    def _prepare(self):
        self._learning_rate_tensor = tf.convert_to_tensor(
            self._call_if_callable(self._learning_rate), name="learning_rate"
        )

    def _create_slots(self, var_list):
        for variable in var_list:
            self._zeros_slot(variable, "m", "adam_m")
            self._zeros_slot(variable, "v", "adam_v")
        if self._bias_correction:
            first = min(var_list, key=lambda variable: variable.name)
            for name, beta in self._powers():
                self._create_non_slot_variable(beta, name, colocate_with=first)

    def _powers(self):
        return (("beta_1_power", self._beta_1), ("beta_2_power", self._beta_2))

    def _power(self, name):
        """The variable that holds beta^t, t = 1 at the first step."""
        with tf.init_scope():
            graph = None if tf.executing_eagerly() else tf.get_default_graph()
            return self._get_non_slot_variable(name, graph=graph)

    def _finish(self, update_ops, name_scope):
        if not self._bias_correction:
            return super()._finish(update_ops, name_scope)
        with tf.control_dependencies(update_ops):
            steps = [
                self._power(name).assign(self._power(name) * beta)
                for name, beta in self._powers()
            ]
        return tf.group(*update_ops + steps, name=name_scope)

    def _update(self, grad, variable):
        """One step of one variable from its dense gradient, float of its shape."""
        m, v = self.get_slot(variable, "m"), self.get_slot(variable, "v")
        with self._compiled(variable):
            next_m = self._beta_1 * m + (1.0 - self._beta_1) * grad
            next_v = self._beta_2 * v + (1.0 - self._beta_2) * tf.square(grad)
            update = self._direction(next_m, next_v, variable)
        rate = tf.cast(self._learning_rate_tensor, variable.dtype.base_dtype)
        rate *= self.rate_multiplier(variable)
        if not _matches(self._exclude_from_layer_adaptation, _base_name(variable)):
            rate *= _trust_ratio(variable, update)
        return tf.group(
            variable.assign_sub(rate * update, use_locking=self._use_locking),
            m.assign(next_m, use_locking=self._use_locking),
            v.assign(next_v, use_locking=self._use_locking),
        )

    def _direction(self, m, v, variable):
        """u in the class docstring, from the new moments m and v."""
        if self._bias_correction:
            dtype = variable.dtype.base_dtype
            m = m / (1.0 - tf.cast(self._power("beta_1_power"), dtype))
            v = v / (1.0 - tf.cast(self._power("beta_2_power"), dtype))
        update = m / (tf.sqrt(v) + self._epsilon)
        if self._weight_decay_rate and not _matches(
            self._exclude_from_weight_decay, _base_name(variable)
        ):
            update += self._weight_decay_rate * variable
        return update

    def _compiled(self, variable):
        """A context whose operations XLA compiles into one kernel, if worth it."""
        if not self._use_xla or variable.shape.num_elements() < _LARGE_VARIABLE:
            return contextlib.nullcontext()
        return tf.xla.experimental.jit_scope(compile_ops=True)

    def _apply_dense(self, grad, var):
        return self._update(grad, var)

    def _resource_apply_dense(self, grad, handle):
        return self._update(grad, handle)

    def _apply_sparse(self, grad, var):
        return self._resource_apply_sparse(grad.values, var, grad.indices)

    def _resource_apply_sparse(self, grad, handle, indices):
        dense = tf.math.unsorted_segment_sum(grad, indices, tf.shape(handle)[0])
        return self._update(dense, handle)


def _trust_ratio(variable, update):
    """|variable| / |update|, or 1 where either of them is 0: a scalar."""
    # Unlike `tf.norm`, `l2_loss` does not store the squares.
    variable_norm, update_norm = (
        tf.sqrt(2.0 * tf.nn.l2_loss(tensor)) for tensor in (variable, update)
    )
    ratio = tf.div_no_nan(variable_norm, update_norm)
    return tf.where(ratio > 0, ratio, tf.ones_like(ratio))


def _base_name(variable):
    """The variable's name without ":0" and without a replica's suffix."""
    return re.sub(r"(/replica_\d+)?:\d+$", "", variable.name)


def _matches(patterns, name):
    return any(re.search(pattern, name) for pattern in patterns)
