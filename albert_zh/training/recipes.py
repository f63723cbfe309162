"""Settings of pretraining that belong together, by name."""

import logging
import math
from typing import NamedTuple

from albert_zh.base.errors import UserError

_LOGGER = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """What `run_pretraining.py --recipe` sets; fields are flags, but for the warm-up.

    Attributes:
      optimizer, lr_schedule: names.
      train_batch_size: int, sequences.
      learning_rate: float, the peak for this optimizer and batch.
      num_train_steps: int.
      warmup_share: float, share of the steps; sets num_warmup_steps.
      initial_weights: one of `initial_weights.CHOICES`, where no checkpoint is given.
      source: str, where the numbers come from.
    """

    optimizer: str
    lr_schedule: str
    train_batch_size: int
    learning_rate: float
    num_train_steps: int
    warmup_share: float
    initial_weights: str
    source: str


RECIPES = {
    # The defaults of the flags.
    "published": Recipe(
        optimizer="lamb",
        lr_schedule="linear",
        train_batch_size=4096,
        learning_rate=0.00176,
        num_train_steps=125000,
        warmup_share=0.1,
        initial_weights="random",
        source="albert_zh's published command",
    ),
    # Some hundred thousand sequences; of albert_tiny, hours on two cores.
    "small_budget": Recipe(
        optimizer="adamw",
        lr_schedule="trapezoid",
        train_batch_size=32,
        learning_rate=0.0005,
        num_train_steps=10000,
        warmup_share=0.05,
        initial_weights="local_attention",
        source='"Small budgets" in docs/pretraining_en.md',
    ),
}


def apply(args):
    """Sets the flags of `args.recipe`, if any, that the command line does not give.

    Args:
      args: Namespace of `command_line.ArgumentParser.parse_args`; it is changed.

    Raises:
      UserError: another optimizer is given without a rate for it.
    """
    if args.recipe is None:
        return
    recipe = RECIPES[args.recipe]
    if args.optimizer != recipe.optimizer and "optimizer" in args.given:
        if "learning_rate" not in args.given:
            raise UserError(
                "--recipe={}: its rate of {} is for {}; give --learning_rate for "
                "--optimizer={}".format(
                    args.recipe, recipe.learning_rate, recipe.optimizer, args.optimizer
                )
            )
    values = recipe._asdict()
    del values["source"]
    share = values.pop("warmup_share")
    steps = args.num_train_steps
    if "num_train_steps" not in args.given:
        steps = recipe.num_train_steps
    values["num_warmup_steps"] = math.ceil(share * steps)
    if args.model_dir or args.init_checkpoint:
        del values["initial_weights"]
    values = {name: value for name, value in values.items() if name not in args.given}
    for flag, value in values.items():
        setattr(args, flag, value)
    _LOGGER.info(
        "--recipe=%s sets %s (%s)",
        args.recipe,
        " ".join("--{}={}".format(*item) for item in values.items()) or "nothing",
        recipe.source,
    )
