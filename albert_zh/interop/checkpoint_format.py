"""Model directories of TensorFlow: config, vocabulary, checkpoint, labels."""

import json
import os

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.interop.model import Model
from albert_zh.models import architecture, checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings

# The Chinese models' vocabulary is lower-cased.
_LOWER_CASE = True


def read(directory, flag="--input", keep_slots=False):
    """Reads a model directory.

    Args:
      directory: path.
      flag: the flag that named it, for messages.
      keep_slots: bool; whether the optimizer's state comes along.

    Returns:
      `Model`.

    Raises:
      UserError: a file is missing, damaged or does not belong to the others.
    """
    found = model_directory.find(directory)
    if not found.checkpoint or not found.config_file:
        raise UserError(
            "{}={}: no {} there".format(
                flag,
                directory,
                "config file" if found.checkpoint else "TensorFlow checkpoint",
            )
        )
    config = model_settings.read_config(found.config_file)
    architecture.check(found.checkpoint, config, flag)
    lower_case = model_directory.read_do_lower_case(found.directory)
    return Model(
        config,
        checkpoints.read_tensors(found.checkpoint, flag, keep_slots),
        vocabulary=model_directory.read_bytes(found.vocab_file),
        sentencepiece=model_directory.read_bytes(found.spm_model_file),
        do_lower_case=_LOWER_CASE if lower_case is None else lower_case,
        classifier=_read_classifier(found.directory, config),
    )


def _read_classifier(directory, config):
    """Returns the settings of a fine-tuned classifier, None for another model."""
    path = os.path.join(directory, model_directory.LABELS_FILE)
    if not files.exists(path):
        return None
    settings = model_settings.read_labels(path)
    model_settings.check_fit(path, settings, config)
    return settings


def write(model, directory):
    """Writes a model directory into an existing, empty folder.

    Raises:
      UserError: it cannot be written.
    """
    for name, content in (
        (model_directory.VOCAB_FILE, model.vocabulary),
        (model_directory.SPM_FILE, model.sentencepiece),
    ):
        if content is not None:
            with files.whole(os.path.join(directory, name)) as target:
                target.write(content)
    files.write_text(
        model.config.to_json_string(),
        os.path.join(directory, model_directory.CONFIG_FILE),
    )
    if model.vocabulary is not None or model.sentencepiece is not None:
        files.write_text(
            json.dumps({"do_lower_case": model.do_lower_case}) + "\n",
            os.path.join(directory, model_directory.TOKENIZER_FILE),
        )
    if "task_name" in (model.classifier or {}):
        files.write_text(
            json.dumps(model.classifier, ensure_ascii=False, indent=2) + "\n",
            os.path.join(directory, model_directory.LABELS_FILE),
        )
    checkpoints.write_tensors(model.tensors, os.path.join(directory, "model.ckpt"))
