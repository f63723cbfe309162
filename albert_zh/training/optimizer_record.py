"""Optimizer, schedule and objective of a pretraining run, beside its checkpoints.

LAMB and AdamW have variables of the same names and shapes, and no checkpoint shows the
other settings.
"""

import logging
import os

import optimization
from albert_zh.base import console, files, json_files
from albert_zh.base.errors import UserError
from albert_zh.training import recipes

FILE = "optimizer.json"
_SCHEMA = {
    "type": "object",
    "properties": {
        "optimizer": {"enum": list(optimization.OPTIMIZERS)},
        # Without these, of a run of an earlier version.
        "recipe": {"enum": [None, *recipes.RECIPES]},
        "settings": {
            "type": "object",
            "additionalProperties": {"type": ["number", "string"]},
        },
    },
    "required": ["optimizer"],
}

_LOGGER = logging.getLogger(__name__)


def check(output_dir, optimizer, settings, recipe=None):
    """Refuses to resume a run with another optimizer, and warns of other settings.

    Args:
      output_dir: directory of a run's checkpoints.
      optimizer: one of `optimization.OPTIMIZERS`.
      settings: dict of name -> number or text.
      recipe: name of the recipe that is given, or None.

    Returns:
      The name of the recipe that the run is of, or None.

    Raises:
      UserError: the optimizer is another one, or so is the recipe, where the run has
        one and one is given; or the file is damaged.
    """
    path = os.path.join(output_dir, FILE)
    if not files.exists(path):
        return recipe  # a run of an earlier version
    advice = "remove it to resume with --optimizer={}".format(optimizer)
    record = json_files.read(path, _SCHEMA, advice)
    held, began_with = record["optimizer"], record.get("recipe")
    is_other_recipe = recipe and began_with and recipe != began_with
    if optimizer != held or is_other_recipe:
        raise UserError(
            "{}: the run in {} trains with {}{}{}; {}, or train in another "
            "--output_dir from its checkpoint (--init_checkpoint)".format(
                "--recipe=" + recipe if recipe else "--optimizer=" + optimizer,
                output_dir,
                held,
                " by --recipe=" + began_with if began_with else "",
                ""
                if optimizer == held
                else ", whose moments and learning rate do not fit",
                _advice(held, began_with, recipe),
            )
        )
    before = record.get("settings", {})
    changes = [
        "{}={} (was {})".format(name, settings[name], before[name])
        for name in sorted(set(settings) & set(before))
        if settings[name] != before[name]
    ]
    if changes:
        _LOGGER.warning(
            "the run in %s is resumed with %s",
            console.printable(output_dir),
            console.printable(", ".join(changes)),
        )
    return began_with or recipe


def _advice(optimizer, began_with, recipe):
    """How a run of this optimizer, which began with a recipe or None, is resumed."""
    if recipe and not began_with:
        text = "leave --recipe away and give --optimizer={} and the run's other flags"
        return text.format(optimizer)
    if began_with is None:
        return "give --optimizer={}".format(optimizer)
    # A flag wins over what its recipe sets.
    is_set = recipes.RECIPES[began_with].optimizer == optimizer
    flag = "" if is_set else " --optimizer={}".format(optimizer)
    return "give --recipe={}{}".format(began_with, flag)


def write(output_dir, optimizer, settings, recipe=None):
    """Records what `check` compares; raises `UserError` if it cannot be written."""
    record = {"optimizer": optimizer, "settings": settings, "recipe": recipe}
    json_files.write(record, os.path.join(output_dir, FILE))
