"""Optimizer, schedule and objective of a pretraining run, beside its checkpoints.

LAMB and AdamW have variables of the same names and shapes, and no checkpoint shows the
other settings.
"""

import logging
import os

import optimization
from albert_zh.base import console, files, json_files
from albert_zh.base.errors import UserError

FILE = "optimizer.json"
_SCHEMA = {
    "type": "object",
    "properties": {
        "optimizer": {"enum": list(optimization.OPTIMIZERS)},
        # Without them, of a run of an earlier version.
        "settings": {
            "type": "object",
            "additionalProperties": {"type": ["number", "string"]},
        },
    },
    "required": ["optimizer"],
}

_LOGGER = logging.getLogger(__name__)


def check(output_dir, optimizer, settings):
    """Refuses to resume a run with another optimizer, and warns of other settings.

    Args:
      output_dir: directory of a run's checkpoints.
      optimizer: one of `optimization.OPTIMIZERS`.
      settings: dict of name -> number or text.

    Raises:
      UserError: it is another one, or the file is damaged.
    """
    path = os.path.join(output_dir, FILE)
    if not files.exists(path):
        return  # a run of an earlier version
    advice = "remove it to resume with --optimizer={}".format(optimizer)
    record = json_files.read(path, _SCHEMA, advice)
    held = record["optimizer"]
    if held != optimizer:
        raise UserError(
            "--optimizer={}: the run in {} trains with {}, whose moments and learning "
            "rate do not fit; give --optimizer={}, or train in another --output_dir "
            "from its checkpoint (--init_checkpoint)".format(
                optimizer, output_dir, held, held
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


def write(output_dir, optimizer, settings):
    """Records what `check` compares; raises `UserError` if it cannot be written."""
    record = {"optimizer": optimizer, "settings": settings}
    json_files.write(record, os.path.join(output_dir, FILE))
