"""Which optimizer a pretraining run uses: recorded beside its checkpoints.

LAMB and AdamW have variables of the same names and shapes, so that a checkpoint does
not show a change.
"""

import os

import optimization
from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError

FILE = "optimizer.json"
_SCHEMA = {
    "type": "object",
    "properties": {"optimizer": {"enum": list(optimization.OPTIMIZERS)}},
    "required": ["optimizer"],
}


def check(output_dir, optimizer):
    """Refuses to resume a run with another optimizer than it began with.

    Args:
      output_dir: directory of a run's checkpoints.
      optimizer: one of `optimization.OPTIMIZERS`.

    Raises:
      UserError: it is another one, or the file is damaged.
    """
    path = os.path.join(output_dir, FILE)
    if not files.exists(path):
        return  # a run of an earlier version
    advice = "remove it to resume with --optimizer={}".format(optimizer)
    held = json_files.read(path, _SCHEMA, advice)["optimizer"]
    if held != optimizer:
        raise UserError(
            "--optimizer={}: the run in {} trains with {}, whose moments and learning "
            "rate do not fit; give --optimizer={}, or train in another --output_dir "
            "from its checkpoint (--init_checkpoint)".format(
                optimizer, output_dir, held, held
            )
        )


def write(output_dir, optimizer):
    """Records the optimizer of a run; raises `UserError` if it cannot be written."""
    json_files.write({"optimizer": optimizer}, os.path.join(output_dir, FILE))
