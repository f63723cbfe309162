"""What a training was started with: only the same settings resume it.

The settings are in `training.json` beside the training's checkpoints; `best/`, which
is a model and no training, has none.
"""

import hashlib
import json
import logging
import os

import tensorflow.compat.v1 as tf

from albert_zh.base import json_files
from albert_zh.base.errors import UserError
from albert_zh.tasks import model_files

_LOGGER = logging.getLogger(__name__)

# A finished training may be given more epochs; a change is only reported.
_NUM_EPOCHS = "--num_train_epochs"
# What `describe` returns.
_SCHEMA = {
    "type": "object",
    "properties": {
        "--init_checkpoint": {"type": ["string", "null"]},
        "--train_file": {"type": "string"},
        "--max_seq_length": {"type": "integer"},
        "--train_batch_size": {"type": "integer"},
        "--learning_rate": {"type": "number"},
        "--optimizer": {"type": "string"},
        "--warmup_proportion": {"type": "number"},
        "--seed": {"type": "integer"},
        _NUM_EPOCHS: {"type": "number"},
    },
}
_SCHEMA["required"] = sorted(_SCHEMA["properties"])


def describe(training, train_data, max_seq_length):
    """The settings that decide which weights a training ends with.

    Args:
      training: a `classification.Training`.
      train_data: the `reading.ExampleFile` trained on.
      max_seq_length: tokens a sequence is truncated to.

    Returns:
      Dict flag -> value, as JSON keeps it.
    """
    init_checkpoint = training.init_checkpoint
    if init_checkpoint and "://" not in init_checkpoint:
        init_checkpoint = os.path.abspath(init_checkpoint)
    return {
        "--init_checkpoint": init_checkpoint,
        "--train_file": _describe_examples(train_data.examples),
        "--max_seq_length": max_seq_length,
        "--train_batch_size": training.batch_size,
        "--learning_rate": training.learning_rate,
        "--optimizer": training.optimizer,
        "--warmup_proportion": training.warmup_proportion,
        "--seed": training.seed,
        _NUM_EPOCHS: training.num_epochs,
    }


def _describe_examples(examples):
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(example).encode("utf-8") + b"\n")
    return "{} examples with SHA-256 {}".format(len(examples), digest.hexdigest())


def save(output_dir, settings):
    """Writes what `describe` returns into the directory of the training."""
    json_files.write(settings, os.path.join(output_dir, model_files.TRAINING_FILE))


def check_same_training(output_dir, settings):
    """Refuses to resume a training under other settings than it began with.

    Args:
      output_dir: directory that holds a classifier's checkpoint.
      settings: what `describe` returns now.

    Raises:
      UserError: names the first difference, or there are no settings to compare.
    """
    path = os.path.join(output_dir, model_files.TRAINING_FILE)
    if not tf.io.gfile.exists(path):
        raise UserError(
            "--output_dir={} holds a model but no {}, so its training cannot be "
            "resumed; choose another --output_dir (and start from this model with "
            "--init_checkpoint)".format(output_dir, model_files.TRAINING_FILE)
        )
    saved = json_files.read(path, _SCHEMA, "train into another --output_dir")
    for flag, value in settings.items():
        if flag == _NUM_EPOCHS or saved.get(flag) == value:
            continue
        raise UserError(
            "--output_dir={} holds a training with another {}: it began with {}, "
            "received {}; repeat that or choose another --output_dir".format(
                output_dir, flag, saved.get(flag), value
            )
        )
    if saved.get(_NUM_EPOCHS) != settings[_NUM_EPOCHS]:
        _LOGGER.info(
            "%s=%s: this training began with %s; steps still to come follow the "
            "learning rate schedule of the new number",
            _NUM_EPOCHS,
            settings[_NUM_EPOCHS],
            saved.get(_NUM_EPOCHS),
        )
