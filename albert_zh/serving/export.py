"""Exports a model directory: writes, verifies, and only then gives it its name."""

import contextlib
import logging
import os
from typing import NamedTuple

import numpy as np

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.serving import (
    encoder,
    exported,
    graphs,
    inputs,
    onnx_model,
    predictor,
    verification,
)
from albert_zh.serving.formats import FORMATS
from albert_zh.tasks import model_files
from albert_zh.tasks.readers import reader_of

_LOGGER = logging.getLogger(__name__)


class Source(NamedTuple):
    """A model to export.

    Attributes:
      directory: path.
      checkpoint: path prefix.
      kind: `kind.Kind` or `encoder.Encoder`.
      weights: dict variable name -> float32 array.
      data: labelled `reading.ExampleFile` to compare predictions on, or None.
    """

    directory: str
    checkpoint: str
    kind: object
    weights: dict
    data: object


class Report(NamedTuple):
    """What was exported.

    Attributes:
      format, precision: as asked for.
      size: bytes of the model's files.
      checkpoint_size: bytes of the checkpoint's.
      found: `verification.Verification`.
    """

    format: str
    precision: str
    size: int
    checkpoint_size: int
    found: verification.Verification


def export(
    model_dir, output_dir, format_name, precision, dev_file=None, as_encoder=False
):
    """Exports a model.

    Args:
      model_dir: directory of a model, or of its training.
      output_dir: directory to write, absent or empty.
      format_name: key of `formats.FORMATS`.
      precision: one of `onnx_graph.PRECISIONS`.
      dev_file: labelled file to compare predictions on, or None.
      as_encoder: whether to export the encoder alone of a fine-tuned model.

    Returns:
      `Report`.

    Raises:
      UserError: the model cannot be used or exported so, or the export differs from
        it; nothing is written then.
    """
    _check_precision(format_name, precision)
    _check_output_dir(output_dir)
    FORMATS[format_name].check()
    source = read_source(model_dir, dev_file, as_encoder)
    output_dir = os.path.realpath(output_dir)
    with files.writing(output_dir):
        files.make_directory(os.path.dirname(output_dir))
    with files.directory_beside(output_dir) as directory:
        with files.writing(output_dir):
            FORMATS[format_name].write(
                source.kind, source.weights, precision, directory
            )
        size = _size_of(directory)
        _LOGGER.info("written as %s; comparing it with TensorFlow", format_name)
        found, outputs = _verify(source, format_name, directory)
        verification.check(found, precision, "--model_dir=" + model_dir)
        copy_files(source, directory)
        exported.write(
            exported.Export(
                directory,
                format_name,
                precision,
                onnx_model.head_of(source.kind.files).name,
                list(inputs.NAMES),
                outputs,
                details=_details(found),
            )
        )
        files.rename_directory(directory, output_dir)
    checkpoint_size = sum(map(files.size, checkpoints.find_files(source.checkpoint)))
    return Report(format_name, precision, size, checkpoint_size, found)


def _check_precision(format_name, precision):
    known = FORMATS[format_name].precisions
    if precision not in known:
        others = [name for name in FORMATS if precision in FORMATS[name].precisions]
        raise UserError(
            "--precision={}: {} has {} only; expected --format={}".format(
                precision, format_name, ", ".join(known), " or ".join(sorted(others))
            )
        )


def _check_output_dir(output_dir):
    """Raises `UserError` where a directory cannot be written as a whole."""
    if files.is_remote(output_dir):
        raise UserError(
            "--output_dir={}: expected a local directory; copy it from there".format(
                output_dir
            )
        )
    if not files.lexists(output_dir):
        return
    if not files.is_directory(output_dir) or files.is_link(output_dir):
        raise UserError("--output_dir={} is no directory".format(output_dir))
    if files.list_directory(output_dir):
        raise UserError(
            "--output_dir={} is not empty; choose a new directory".format(output_dir)
        )


def read_source(model_dir, dev_file=None, as_encoder=False):
    """Reads a model and checks it; returns its `Source`. Arguments as `export`'s."""
    directory = model_directory.resolve(model_dir)
    task_files = predictor.read_files(directory, as_encoder)
    checkpoint = model_directory.find_checkpoint(directory)
    if checkpoint is None:
        raise UserError("--model_dir={} holds no checkpoint".format(model_dir))
    predictor.check_checkpoint(directory, checkpoint, task_files, as_encoder)
    if as_encoder and not predictor.find_heads(checkpoint):
        message = "--encoder: {} is a pretrained model, without the head of a task; "
        raise UserError((message + "remove it").format(directory))
    kind = predictor.kind_of(task_files, directory)
    data = None
    if dev_file:
        data = _read_dev_file(dev_file, task_files)
    weights = checkpoints.read_tensors(checkpoint, "--model_dir")
    return Source(directory, checkpoint, kind, weights, data)


def _read_dev_file(path, task_files):
    task = task_files.task
    if task is encoder.TASK:
        raise UserError(
            "--dev_file: an encoder predicts no labels to compare; remove it"
        )
    reader = reader_of(task)
    data = reader.read_examples(path, task_files.labels or None)
    if not data.has_labels:
        raise reader.no_labels(path)
    return data


def _verify(source, format_name, directory):
    """Returns the `verification.Verification` and the names of the outputs, sorted."""
    head = onnx_model.head_of(source.kind.files).name
    with contextlib.closing(graphs.ExportGraph(source.kind, source.weights)) as graph:
        names = FORMATS[format_name].output_names(graph)
        with contextlib.closing(FORMATS[format_name].open(directory, names)) as runtime:
            compared = verification.Models(graph, runtime, names)
            found = verification.verify(source.kind, head, compared, source.data)
    return found, names


def _size_of(directory):
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(directory)
        for name in names
    )


def copy_files(source, directory):
    """Copies what a model predicts with, beside its weights."""
    task_files = source.kind.files
    if task_files.task is not encoder.TASK:
        model_files.save(directory, task_files)
        model_directory.write_decision(source.kind.decision, directory)
        return
    for content, name in (
        (task_files.vocab_file, model_directory.VOCAB_FILE),
        (task_files.spm_model_file, model_directory.SPM_FILE),
    ):
        model_directory.copy_file(content, os.path.join(directory, name))
    files.write_text(
        task_files.config.to_json_string(),
        os.path.join(directory, model_directory.CONFIG_FILE),
    )
    settings = {
        "do_lower_case": task_files.do_lower_case,
        "normalize_punctuation": task_files.normalize_punctuation,
    }
    json_files.write(settings, os.path.join(directory, model_directory.TOKENIZER_FILE))


def _details(found):
    """What `export.json` tells people of the verification; times are not kept."""
    kept = ("difference", "dev_difference", "agreement", "scores", "num_examples")
    details = {name: getattr(found, name) for name in kept}
    return {"tensorflow": tf.__version__, "numpy": np.__version__, "verified": details}


def format_report(report):
    """Returns a `Report` as lines of text."""
    found = report.found
    row = "{:<13} {:<9} {:>10} {:>11} {:>11}"
    lines = [
        row.format("format", "precision", "size", "difference", "latency"),
        row.format(
            "checkpoint",
            "float32",
            _megabytes(report.checkpoint_size),
            "",
            "{:.2f} ms".format(found.reference_latency),
        ),
        row.format(
            report.format,
            report.precision,
            _megabytes(report.size),
            "{:.2g}".format(found.difference),
            "{:.2f} ms".format(found.latency),
        ),
        "latency: a batch of one text of {} tokens, median".format(found.num_tokens),
    ]
    if found.agreement is not None:
        text = "dev file: {} examples, the same predictions for {:.2%}, "
        text += "difference {:.2g}"
        lines.append(
            text.format(found.num_examples, found.agreement, found.dev_difference)
        )
        lines += ["  {}: {}".format(*item) for item in sorted(found.scores.items())]
    return "\n".join(lines) + "\n"


def _megabytes(size):
    return "{:.2f} MB".format(size / 1e6)
