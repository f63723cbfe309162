"""Epochs of fine-tuning: which steps make up which, and their seeds."""

import numpy as np

from albert_zh.base.errors import UserError

# Every epoch is scored, and its scores are kept.
_MAX_EPOCHS = 10000


class EpochPlan:
    """Which steps make up which epoch.

    Attributes:
      num_steps: of the whole training.
      epochs: list of (first step, step after the last) of each epoch.
    """

    def __init__(self, num_examples, batch_size, num_epochs, full_batches_only):
        """Divides the steps.

        Args:
          num_examples: size of the training set.
          batch_size: examples per step.
          num_epochs: may be fractional; the last epoch is then cut short.
          full_batches_only: whether a last partial batch is left out (TPU).

        Raises:
          UserError: no full batch where only full ones are taken, or too many epochs.
        """
        if num_epochs > _MAX_EPOCHS:
            raise UserError(
                "--num_train_epochs={:g}: expected at most {:,}".format(
                    num_epochs, _MAX_EPOCHS
                )
            )
        if full_batches_only and num_examples < batch_size:
            raise UserError(
                "--train_batch_size={} is more than the {} training examples; a TPU "
                "takes full batches only".format(batch_size, num_examples)
            )
        per_epoch = (
            num_examples // batch_size
            if full_batches_only
            else -(-num_examples // batch_size)
        )
        self.num_steps = max(1, int(round(per_epoch * num_epochs)))
        self.epochs = [
            (first, min(first + per_epoch, self.num_steps))
            for first in range(0, self.num_steps, per_epoch)
        ]


def epoch_seed(seed, epoch):
    """The seed of an epoch's order; also of dropout, in a process that begins there."""
    return np.random.RandomState([seed, epoch]).randint(2**31 - 1)
