"""An exported model's directory: its files, and `export.json`, which describes them.

Beside the model it holds the config, the vocabulary, `labels.json` and `decision.json`
of the model directory it was made from, so that it predicts alone. Checksums tell a
file that was changed: a vocabulary of another order gives wrong answers in silence.
"""

import os
import shlex
from typing import Any, Dict, NamedTuple

from albert_zh.base import checksums, files, json_files
from albert_zh.base.errors import UserError

EXPORT_FILE = "export.json"
# The file of the model in each format; a SavedModel has others beside it.
MODEL_FILES = {
    "onnx": "model.onnx",
    "saved_model": "saved_model.pb",
    "frozen_graph": "model.pb",
    "tflite": "model.tflite",
}

_TEXT = {"type": "string"}
_SCHEMA = {
    "type": "object",
    "properties": {
        "format": {"enum": sorted(MODEL_FILES)},
        "precision": _TEXT,
        "head": _TEXT,
        "inputs": {"type": "array", "items": _TEXT},
        "outputs": {"type": "array", "items": _TEXT},
        "sha256": {"type": "object", "additionalProperties": _TEXT},
    },
    "required": ["format", "precision", "head", "inputs", "outputs", "sha256"],
}
_ADVICE = "export the model again"


class Export(NamedTuple):
    """What `export.json` says.

    Attributes:
      directory: path.
      format: key of `MODEL_FILES`.
      precision: one of `onnx_graph.PRECISIONS`.
      head: `onnx_model.Head.name`.
      inputs, outputs: lists of names.
      sha256: dict path below the directory -> checksum of the file.
      details: dict ready for JSON, for people: versions, the verification.
    """

    directory: str
    format: str
    precision: str
    head: str
    inputs: Any
    outputs: Any
    sha256: Dict[str, str] = {}
    details: Dict[str, Any] = {}

    @property
    def model_file(self):
        """Path of the model."""
        return os.path.join(self.directory, MODEL_FILES[self.format])


def is_export(directory):
    """Whether a directory holds an exported model, of any format."""
    return files.exists(os.path.join(directory, EXPORT_FILE))


def write(export):
    """Writes the `export.json` of a directory that has all other files."""
    record = export._asdict()
    del record["directory"]
    paths = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(export.directory)
        for name in sorted(names)
    ]
    record["sha256"] = {
        os.path.relpath(path, export.directory): checksums.hex_digest(path)
        for path in paths
    }
    json_files.write(record, os.path.join(export.directory, EXPORT_FILE))


def read(directory, wanted):
    """Reads an exported directory and checks its files.

    Args:
      directory: path.
      wanted: the format it must have.

    Returns:
      `Export`.

    Raises:
      UserError: it has no export of this format, or a file is missing or was changed.
    """
    path = os.path.join(directory, EXPORT_FILE)
    if not is_export(directory):
        raise UserError(
            "{}: no exported model (no {}); write one: python3 export_model.py "
            "--model_dir={} --format={} --output_dir=NEW_DIRECTORY".format(
                directory, EXPORT_FILE, shlex.quote(directory), wanted
            )
        )
    record = json_files.read(path, _SCHEMA, _ADVICE)
    if record["format"] != wanted:
        raise UserError(
            "{}: exported as {}, expected {}; export the model with "
            "export_model.py --format={}".format(
                directory, record["format"], wanted, wanted
            )
        )
    known = {name: record[name] for name in Export._fields if name in record}
    export = Export(directory, **known)
    _check(export)
    return export


def _check(export):
    """Raises `UserError` where a file is not the one that was exported."""
    if MODEL_FILES[export.format] not in export.sha256:
        raise UserError(
            "{}: damaged; {}".format(
                os.path.join(export.directory, EXPORT_FILE), _ADVICE
            )
        )
    for name, expected in sorted(export.sha256.items()):
        path = os.path.join(export.directory, name)
        if not files.exists(path):
            raise UserError("{}: missing; {}".format(path, _ADVICE))
        if checksums.hex_digest(path) != expected:
            raise UserError(
                "{}: changed since the export, whose model would give wrong answers "
                "with it; {}".format(path, _ADVICE)
            )
