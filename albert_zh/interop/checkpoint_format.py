"""TensorFlow model directories: config, vocabulary, checkpoint, labels."""

import os
import re

import numpy as np
import tensorflow.compat.v1 as tf

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.interop import heads
from albert_zh.interop.model import DEFAULT_OPTIONS, Model
from albert_zh.models import architecture, checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings

# The Chinese models' vocabulary is lower-cased.
_LOWER_CASE = True


def read(directory, options=DEFAULT_OPTIONS, is_trusted=False):
    """Reads a model directory.

    Args:
      directory: path.
      options: `Options`; with `keep_slots` the optimizer's state is read, too.
      is_trusted: unused; pickles of PyTorch need it.

    Returns:
      `Model`, its weights float32 whatever the checkpoint's type.

    Raises:
      UserError: a file is missing, damaged or does not fit the others.
    """
    found = model_directory.find(directory)
    if not found.checkpoint or not found.config_file:
        raise UserError(
            "--input={}: holds no {}".format(
                directory,
                "config file" if found.checkpoint else "TensorFlow checkpoint",
            )
        )
    config = model_settings.read_config(found.config_file)
    scope = architecture.check(
        found.checkpoint, config, "--input", scope=None, takes_any_float=True
    ).scope
    tensors = checkpoints.read_tensors(found.checkpoint, "--input", options.keep_slots)
    tensors = {name: _as_float32(value) for name, value in tensors.items()}
    lower_case = model_directory.read_do_lower_case(found.directory)
    task = _read_task(found.directory, config)
    kind = options.kinds.get((task or {}).get("task_name"))
    return Model(
        config,
        _in_scope(tensors, scope),
        vocabulary=_read(found.vocab_file),
        sentencepiece=_read(found.spm_model_file),
        do_lower_case=_LOWER_CASE if lower_case is None else lower_case,
        normalize_punctuation=model_directory.read_normalize_punctuation(
            found.directory
        ),
        task=task,
        told=heads.of_kind(kind or options.kind),
        decision=model_directory.read_decision(found.directory),
    )


def _as_float32(value):
    if not tf.as_dtype(value.dtype).is_floating:
        return value
    with np.errstate(over="ignore"):  # infinity is refused later
        return value.astype(np.float32)


def _in_scope(tensors, scope):
    """Returns the tensors with the encoder in the usual variable scope."""
    place = re.compile("{}/".format(re.escape(scope)))
    return {
        place.sub(architecture.SCOPE + "/", name, count=1)
        if place.match(name)
        else name: value
        for name, value in tensors.items()
    }


def _read(path):
    return files.read_bytes(path) if path else None


def _read_task(directory, config):
    """Returns the settings of a fine-tuned model, or None."""
    path = os.path.join(directory, model_directory.LABELS_FILE)
    if not files.exists(path):
        return None
    settings = model_settings.read_labels(path)
    model_settings.check_fit(path, settings, config)
    return settings


def write(model, directory, options=DEFAULT_OPTIONS):
    """Writes a model directory into an existing, empty folder.

    Args:
      model: `Model`.
      directory: path.
      options: unused; PyTorch's formats need it.

    Raises:
      UserError: it cannot be written.
    """
    for name, content in (
        (model_directory.VOCAB_FILE, model.vocabulary),
        (model_directory.SPM_FILE, model.sentencepiece),
    ):
        if content is not None:
            files.write_bytes(content, os.path.join(directory, name))
    files.write_text(
        model.config.to_json_string(),
        os.path.join(directory, model_directory.CONFIG_FILE),
    )
    if model.vocabulary is not None or model.sentencepiece is not None:
        model_directory.write_tokenizer_settings(
            directory, model.do_lower_case, model.normalize_punctuation
        )
    if "task_name" in (model.task or {}):
        json_files.write(
            model.task, os.path.join(directory, model_directory.LABELS_FILE)
        )
        model_directory.write_decision(model.decision, directory)
    checkpoints.write_tensors(model.tensors, os.path.join(directory, "model.ckpt"))
