"""Converts a model directory from one format to another, exactly or not at all."""

import functools
import logging
import os
import shutil
import tempfile
from typing import Callable, NamedTuple, Tuple

import numpy as np

import tokenization
from albert_zh import checkpoints, model_directory
from albert_zh.errors import UserError
from albert_zh.interop import checkpoint_format, model, state_dict_format

_LOGGER = logging.getLogger(__name__)


class Format(NamedTuple):
    """One format of model directories.

    Attributes:
      dialects: the dialects of `modeling` that it can hold.
      read: function of a directory, returns a `model.Model`.
      write: function (model, directory).
      is_tensorflow: bool.
    """

    dialects: Tuple[str, ...]
    read: Callable
    write: Callable
    is_tensorflow: bool


def _tensorflow(dialect):
    return Format((dialect,), checkpoint_format.read, checkpoint_format.write, True)


def _pytorch(layouts):
    return Format(
        tuple(layouts),
        functools.partial(state_dict_format.read, layouts),
        functools.partial(state_dict_format.write, layouts),
        False,
    )


FORMATS = {
    "albert_zh": _tensorflow("albert_zh"),
    "google": _tensorflow("google"),
    "bert": _tensorflow("bert"),
    "huggingface": _pytorch(state_dict_format.HUGGING_FACE),
    "albert_pytorch": _pytorch(state_dict_format.ALBERT_PYTORCH),
}

# Why a layout fits no other's directory, by the dialect of the source.
_REASONS = {
    "albert_zh": "position and segment embeddings are added after the projection "
    "to the hidden size, in Google's layout before it, in BERT's there is none",
    "google": "position and segment embeddings are added before the projection to "
    "the hidden size, in albert_zh's layout after it, in BERT's there is none",
    "bert": "its embeddings have the hidden size, without a projection",
}


def convert(
    source_format,
    target_format,
    source,
    target,
    keep_slots=False,
    dtype="float32",
    allow_missing=False,
    task=None,
):
    """Converts a model directory.

    The output is read back and compared before it appears under its name.

    Args:
      source_format: key of `FORMATS`.
      target_format: key of `FORMATS`.
      source: directory to read.
      target: directory to write; must not exist or be empty.
      keep_slots: bool; keep the optimizer's state (TensorFlow to TensorFlow).
      dtype: "float32" or "float16", of the weights in a PyTorch file.
      allow_missing: bool; go on without a pooler.
      task: dict, what `labels.json` is to hold of a classifier that comes from
        elsewhere ("task_name", "max_seq_length", ...); or None.

    Returns:
      The `model.Model` written.

    Raises:
      UserError: an input is missing, damaged or does not fit, no exact conversion
        exists, or the output is there already.
    """
    reader, writer = FORMATS[source_format], FORMATS[target_format]
    _check_options(reader, writer, target, keep_slots, dtype)
    options = {"keep_slots": keep_slots} if reader.is_tensorflow else {}
    content = reader.read(source, **options)
    _check_dialect(content.config.dialect, source_format, target_format, source)
    content = _with_task(content, task)
    for name in model.check(content, source, allow_missing):
        _LOGGER.warning("%s is missing; the output lacks it as well", name)
    for name in content.unused:
        _LOGGER.warning("not converted: %s", name)
    _check_vocabulary(content, source)
    options = {} if writer.is_tensorflow else {"dtype": dtype}
    _write_whole(content, writer, target, keep_slots, options)
    return content


def _check_options(reader, writer, target, keep_slots, dtype):
    if os.path.exists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise UserError("--output={}: exists already; give a new one".format(target))
    if keep_slots and not (reader.is_tensorflow and writer.is_tensorflow):
        raise UserError(
            "--keep_slots: PyTorch's optimizers store their state differently; it is "
            "for TensorFlow to TensorFlow only"
        )
    if dtype != "float32" and writer.is_tensorflow:
        raise UserError(
            "--dtype={}: TensorFlow restores a variable in the dtype that was saved "
            "only; it is for PyTorch's files".format(dtype)
        )


def _check_dialect(dialect, source_format, target_format, source):
    if dialect not in FORMATS[source_format].dialects:
        raise UserError(
            "--from={}: {} is of the {} layout; give --from={}".format(
                source_format, source, dialect, dialect
            )
        )
    if dialect not in FORMATS[target_format].dialects:
        raise UserError(
            "--from={} --to={}: no exact conversion exists from the {} layout: "
            "{}".format(source_format, target_format, dialect, _REASONS[dialect])
        )


def _with_task(content, task):
    """Adds what the user says of a classifier to what the source says."""
    if task is None:
        return content
    if "classifier" not in content.heads:
        raise UserError("--task_name: the model has no classification head")
    classes = range(len(content.tensors["output_bias"]))
    settings = {
        "labels": [str(index) for index in classes],
        "do_lower_case": content.do_lower_case,
    }
    settings.update(content.classifier or {})
    settings.update(task)
    return content._replace(classifier=settings)


def _check_vocabulary(content, source):
    """Refuses a vocabulary that has not one entry a row of the embedding table."""
    if content.vocabulary is None and content.sentencepiece is None:
        _LOGGER.warning("%s holds no vocabulary; the output has none either", source)
        return
    name = "the vocabulary of " + source
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "vocabulary")
        with open(path, "wb") as target:
            target.write(content.sentencepiece or content.vocabulary)
        try:
            tokenizer = tokenization.FullTokenizer(
                path, spm_model_file=path if content.sentencepiece else None
            )
        except (ValueError, ImportError) as error:
            raise UserError(str(error).replace(path, name)) from error
    model_directory.check_vocabulary(
        tokenizer.vocab_size, name, content.config, exact=True
    )


def _write_whole(content, writer, target, keep_slots, options):
    """Writes beside the target, reads back, compares, renames."""
    partial = target.rstrip("/") + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    try:
        writer.write(content, partial, **options)
        read_options = {"keep_slots": keep_slots} if writer.is_tensorflow else {}
        _compare(content, writer.read(partial, **read_options), options.get("dtype"))
        if os.path.isdir(target):
            os.rmdir(target)
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _compare(written, read, dtype):
    """Raises `RuntimeError` where the output is not what was to be written."""
    if set(written.tensors) - set(read.tensors) - {checkpoints.STEP}:
        raise RuntimeError("the output lacks tensors")
    for name, value in read.tensors.items():
        expected = written.tensors[name].astype(dtype or value.dtype)
        if not np.array_equal(expected, value):
            raise RuntimeError("the output's {} differs".format(name))
