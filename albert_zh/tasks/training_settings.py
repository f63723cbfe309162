"""What a training was started with: only the same settings resume it.

The settings are in `training.json` beside the training's checkpoints; `best/`, which
is a model and no training, has none.
"""

import hashlib
import json
import logging
import os

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.tasks import model_files, recipes
from albert_zh.tasks.objective import Objective
from albert_zh.tasks.registry import get_task

_LOGGER = logging.getLogger(__name__)

_ADVICE = "train into another --output_dir"
# A finished training may be given more epochs; a change is only reported.
_NUM_EPOCHS = "--num_train_epochs"
_UNREADABLE = "a checkpoint that cannot be read"
# Earlier versions did not note it.
_DEV_FILE = "--dev_file"
# What it is where --metric is not given, as in earlier versions.
_METRIC = "--metric"
_OWN_METRIC = "the task's own"
# The published settings that were taken; earlier versions had none.
_RECIPE = "recipe"
# Nor this.
_HEAD_RATE = "learning rate of the head"
# Flags of settings that are noted under other names.
_FLAGS_OF = {
    _HEAD_RATE: "--crf_learning_rate",
    "--adversarial_epsilon": "--adversarial or --adversarial_epsilon",
}
_RATES = ("layerwise_decay", "freeze")
_TEACHER = "--teacher_model_dir"
# What `describe` returns.
_SCHEMA = {
    "type": "object",
    "properties": {
        "--init_checkpoint": {"type": ["string", "null"]},
        "--train_file": {"type": "string"},
        _DEV_FILE: {"type": ["string", "null"]},
        "--max_seq_length": {"type": "integer"},
        "--train_batch_size": {"type": "integer"},
        "--learning_rate": {"type": "number"},
        _HEAD_RATE: {"type": "number"},
        _TEACHER: {"type": "string"},
        "--optimizer": {"type": "string"},
        "--warmup_proportion": {"type": "number"},
        "--seed": {"type": "integer"},
        _NUM_EPOCHS: {"type": "number"},
        _METRIC: {"type": "string"},
        _RECIPE: {
            "type": ["object", "null"],
            "properties": {
                "size": {"type": "string"},
                "source": {"type": "string"},
                "settings": {
                    "type": "object",
                    "properties": {
                        name: {"type": "number", "minimum": 0}
                        for name in recipes.SETTINGS
                    },
                    "additionalProperties": False,
                },
            },
            "required": ["settings", "size", "source"],
        },
    },
}
_SCHEMA["required"] = sorted(
    set(_SCHEMA["properties"]) - {_DEV_FILE, _HEAD_RATE, _METRIC, _RECIPE, _TEACHER}
)


def describe(training, train_data, dev_data, task_files):
    """The settings that decide which weights a training ends with.

    Files are known by their content, so that a project can be moved.

    Args:
      training: a `fine_tuning.Training`.
      train_data: the `reading.ExampleFile` trained on.
      dev_data: the one that the best epoch is chosen with, or None.
      task_files: `model_files.TaskFiles`.

    Returns:
      Dict flag -> value, as JSON keeps it.
    """
    return {
        "--init_checkpoint": _describe_checkpoint(training.init_checkpoint),
        "--train_file": describe_examples(train_data),
        _DEV_FILE: dev_data and describe_examples(dev_data),
        "--max_seq_length": task_files.max_seq_length,
        "--train_batch_size": training.batch_size,
        "--learning_rate": training.learning_rate,
        "--optimizer": training.optimizer,
        "--warmup_proportion": training.warmup_proportion,
        "--seed": training.seed,
        _NUM_EPOCHS: training.num_epochs,
        _METRIC: _describe_metric(task_files.task),
        _RECIPE: training.recipe,
        **_describe_objective(training.objective),
        **_describe_rates(training),
        **({_TEACHER: training.teacher.identity} if training.teacher else {}),
    }


def _describe_metric(task):
    return _OWN_METRIC if task.metric == get_task(task.name).metric else task.metric


def read_recipe(output_dir):
    """What a training that began in a directory took from a published recipe.

    Returns:
      (whether one began there, dict with `size`, `source` and `settings`, or None).

    Raises:
      UserError: the file of its settings is damaged.
    """
    path = os.path.join(output_dir, model_files.TRAINING_FILE)
    has_begun = tf.io.gfile.exists(path) and checkpoints.latest_checkpoint(output_dir)
    if not has_begun:
        return False, None
    return True, json_files.read(path, _SCHEMA, _ADVICE).get(_RECIPE)


def has_saved(output_dir):
    """Whether a training in a directory has saved a checkpoint."""
    path = os.path.join(output_dir, model_files.TRAINING_FILE)
    best_dir = os.path.join(output_dir, model_directory.BEST_DIRECTORY)
    return files.exists(path) and bool(
        files.exists(best_dir) or checkpoints.latest_checkpoint(output_dir)
    )


def began_with(output_dir, checkpoint):
    """Whether the training in a directory, if there is one, began with a checkpoint.

    One that has saved nothing yet can begin with another.

    Args:
      output_dir: directory of the training.
      checkpoint: path prefix.

    Raises:
      UserError: the file of the training's settings is damaged.
    """
    if not has_saved(output_dir):
        return True
    path = os.path.join(output_dir, model_files.TRAINING_FILE)
    held = json_files.read(path, _SCHEMA, _ADVICE)["--init_checkpoint"]
    now = _describe_checkpoint(checkpoint)
    return held in (now, _former_name(checkpoint)) or now == _UNREADABLE


def _describe_objective(objective):
    """What is set of an `objective.Objective`; earlier versions knew none of it."""
    return {
        "--" + name: list(value) if isinstance(value, tuple) else value
        for name, value in objective._asdict().items()
        if value
    }


def _describe_rates(training):
    """What is set of the learning rates; earlier versions knew none of it."""
    rates = {}
    if training.head_learning_rate is not None:
        rates[_HEAD_RATE] = training.head_learning_rate
    if training.layerwise_decay != 1:
        rates["--layerwise_decay"] = training.layerwise_decay
    if training.freeze != "none":
        rates["--freeze"] = training.freeze
    return rates


def describe_examples(data):
    """What is noted of a file's examples: their number and a checksum, as text.

    Args:
      data: `reading.ExampleFile`.
    """
    digest = hashlib.sha256()
    for example in data.examples:
        digest.update(json.dumps(example).encode("utf-8") + b"\n")
    return "{} examples with SHA-256 {}".format(len(data.examples), digest.hexdigest())


def _describe_checkpoint(checkpoint):
    if not checkpoint:
        return None
    try:
        return "a checkpoint with SHA-256 " + checkpoints.fingerprint(checkpoint)
    except UserError:  # a training that is resumed does not read it again
        return _UNREADABLE


def save(output_dir, settings, is_new):
    """Writes what `describe` returns into the directory of the training.

    Of a training that is resumed, only a dev file given for the first time is noted.
    """
    path = os.path.join(output_dir, model_files.TRAINING_FILE)
    if not is_new:
        saved = json_files.read(path, _SCHEMA, _ADVICE)
        if saved.get(_DEV_FILE) == settings[_DEV_FILE]:
            return
        settings = dict(saved, **{_DEV_FILE: settings[_DEV_FILE]})
    json_files.write(settings, path)


def _former_name(checkpoint):
    """What earlier versions noted of a checkpoint."""
    if checkpoint and not files.is_remote(checkpoint):
        return os.path.abspath(checkpoint)
    return checkpoint


def check_same_training(output_dir, settings, init_checkpoint):
    """Refuses to resume a training under other settings than it began with.

    Args:
      output_dir: directory that holds a classifier's checkpoint.
      settings: what `describe` returns now.
      init_checkpoint: path of the checkpoint in it, or None.

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
    saved = json_files.read(path, _SCHEMA, _ADVICE)
    # Of these, what is not set is not noted.
    left = {_TEACHER: None, _HEAD_RATE: None}
    left.update(("--" + name, None) for name in Objective._fields + _RATES)
    for flag, value in dict(left, **settings).items():
        if flag in (_NUM_EPOCHS, _RECIPE) or saved.get(flag) == value:
            continue
        if flag == _DEV_FILE and saved.get(flag) is None:
            continue  # no epoch was scored on another one
        if flag == _METRIC and saved.get(flag, _OWN_METRIC) == value:
            continue
        if flag == "--init_checkpoint" and saved[flag] is not None:
            if value == _UNREADABLE or saved[flag] == _former_name(init_checkpoint):
                continue
        advice = "repeat that or choose another --output_dir"
        if flag == _DEV_FILE:
            advice += ", or score the finished model without --do_train"
        raise UserError(
            "--output_dir={} holds a training with another {}: it began with {}, "
            "received {}; {}".format(
                output_dir,
                _FLAGS_OF.get(flag, flag),
                saved.get(flag, _OWN_METRIC if flag == _METRIC else None),
                value,
                advice,
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
