"""Settings of pretraining that belong together, by name."""

import logging
from typing import NamedTuple

from albert_zh.base.errors import UserError
from albert_zh.data import masking
from albert_zh.models import checkpoints
from albert_zh.models import settings as model_settings

_LOGGER = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """What `run_pretraining.py --recipe` sets; all fields but the last are flags.

    Attributes:
      optimizer, lr_schedule: names.
      train_batch_size: int, sequences.
      learning_rate: float, the peak for this optimizer and batch.
      num_train_steps: int.
      num_warmup_steps: int; no share of the steps, so that a run that is resumed with
        more of them keeps its warm-up.
      initial_weights: one of `initial_weights.CHOICES`, of a run from random weights.
      masked_lm_prob: float, of records that do not hold their masks.
      source: str, where the numbers come from.
    """

    optimizer: str
    lr_schedule: str
    train_batch_size: int
    learning_rate: float
    num_train_steps: int
    num_warmup_steps: int
    initial_weights: str
    masked_lm_prob: float
    source: str


RECIPES = {
    # The defaults of the flags.
    "published": Recipe(
        optimizer="lamb",
        lr_schedule="linear",
        train_batch_size=4096,
        learning_rate=0.00176,
        num_train_steps=125000,
        num_warmup_steps=12500,
        initial_weights="random",
        masked_lm_prob=masking.MaskSettings().masked_lm_prob,
        source="albert_zh's published command",
    ),
    # Some hundred thousand sequences; of albert_tiny, hours on two cores.
    "small_budget": Recipe(
        optimizer="adamw",
        lr_schedule="trapezoid",
        train_batch_size=32,
        learning_rate=0.0005,
        num_train_steps=10000,
        num_warmup_steps=600,
        initial_weights="local_attention",
        masked_lm_prob=0.3,
        source='"Small budgets" in docs/pretraining_en.md',
    ),
}


def apply(args):
    """Sets the flags of `args.recipe`, if any, that the command line does not give.

    Args:
      args: Namespace of `command_line.ArgumentParser.parse_args`; it is changed.

    Raises:
      UserError: another optimizer or batch is given without a rate for it, or so few
        steps that the recipe's warm-up leaves none; or `args.output_dir` is damaged.
    """
    if args.recipe is None:
        return
    recipe = RECIPES[args.recipe]
    values = recipe._asdict()
    del values["source"]
    if _goes_on(args):
        del values["initial_weights"]
    _check(args, recipe)
    values = {name: value for name, value in values.items() if name not in args.given}
    for flag, value in values.items():
        setattr(args, flag, value)
    _LOGGER.info(
        "--recipe=%s sets %s (%s)",
        args.recipe,
        " ".join("--{}={}".format(*item) for item in values.items()) or "nothing",
        recipe.source,
    )


def warn_of_layers(args, config):
    """Logs where a small budget begins with more than one layer.

    Args:
      args: Namespace after `apply`.
      config: `modeling.AlbertConfig` of the model. Layers with weights of their own
        cannot go on from one layer.
    """
    if args.recipe != "small_budget" or _goes_on(args):
        return
    if config.num_hidden_layers > 1 and model_settings.shares_layers(config):
        _LOGGER.warning(
            "--recipe=small_budget: %d layers with new weights may only guess frequent "
            "tokens for 100,000 sequences; begin with --num_hidden_layers=1, see %s",
            config.num_hidden_layers,
            RECIPES["small_budget"].source,
        )


def _goes_on(args):
    """Whether training begins with weights that are there."""
    latest = checkpoints.latest_checkpoint(args.output_dir)
    return bool(args.model_dir or args.init_checkpoint or latest)


def _check(args, recipe):
    """Raises `UserError` for given flags that the rest of a recipe does not fit."""
    for flag in ("optimizer", "train_batch_size"):
        value, planned = getattr(args, flag), getattr(recipe, flag)
        if "learning_rate" not in args.given and flag in args.given:
            if value != planned:
                raise UserError(
                    "--recipe={0}: its rate of {1} is for --{2}={3}; give "
                    "--learning_rate for --{2}={4}".format(
                        args.recipe, recipe.learning_rate, flag, planned, value
                    )
                )
    if "num_train_steps" in args.given and "num_warmup_steps" not in args.given:
        if args.num_train_steps <= recipe.num_warmup_steps:
            raise UserError(
                "--recipe={}: its warm-up of {} steps leaves nothing of "
                "--num_train_steps={}; give more steps or --num_warmup_steps".format(
                    args.recipe, recipe.num_warmup_steps, args.num_train_steps
                )
            )
