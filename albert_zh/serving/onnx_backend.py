"""Predicts with an exported ONNX model; needs NumPy and ONNX Runtime alone."""

import numpy as np

from albert_zh.base.errors import UserError
from albert_zh.serving import (
    encoder,
    exported,
    inputs,
    onnx_model,
    packages,
    predictions,
)

_PURPOSE = "an ONNX model"
# How long a thread waits for the next step in a busy loop before it sleeps. An answer
# has dozens of steps; to sleep between them takes time, and to wait for milliseconds,
# as ONNX Runtime does by itself, takes the cores from other programs.
_WAITING_MICROSECONDS = 20
_BOUNDS_WAITING = (1, 27)  # the version that can


class OnnxBackend:
    """A model that is loaded once; `run` may be called by several threads at once.

    Attributes:
      export: the `exported.Export`.
      output_names: tuple of the names of all outputs.
    """

    def __init__(self, kind, directory, shares_cores=False):
        """Loads the model.

        Args:
          kind: `kind.Kind` or `encoder.Encoder`.
          directory: of an export with --format=onnx.
          shares_cores: see `open_session`.

        Raises:
          UserError: there is no such export, or it is of another kind; one of its
            files was changed; or the package onnxruntime is missing.
        """
        self.export = exported.read(directory, "onnx")
        self._check_head(onnx_model.head_of(kind.files).name)
        self._session = open_session(self.export.model_file, shares_cores)
        self.output_names = tuple(o.name for o in self._session.get_outputs())
        self._default = predictions.NEEDED.get(self.export.head)
        if kind.files.task is encoder.TASK:
            self._default = (kind.pooling,)

    def _check_head(self, head):
        """Raises `UserError` where the export has another head."""
        if self.export.head != head:
            is_encoder = head == encoder.TASK.kind
            raise UserError(
                "{}: exported as {}, not as {}; export the model again{}".format(
                    self.export.directory,
                    self.export.head,
                    head,
                    " with --encoder" if is_encoder else "",
                )
            )

    def run(self, arrays, names=None):
        """Computes what `kind.Kind.decode` reads.

        Args:
          arrays: dict of `inputs.assemble`; for a bare encoder with an MLM head,
            `masked_lm_positions` [B, P] besides.
          names: the outputs wanted of a bare encoder; None for those of `decode`.

        Returns:
          Dict name -> array.
        """
        fed = {name: arrays[name] for name in inputs.NAMES}
        if encoder.MASK_POSITIONS in arrays:
            fed[encoder.MASK_POSITIONS] = _flat_rows(
                arrays[encoder.MASK_POSITIONS], arrays["input_ids"].shape[1]
            )
        wanted = list(self._default if names is None else names)
        outputs = dict(zip(wanted, self._session.run(wanted, fed)))
        return predictions.of_outputs(self.export.head, outputs, arrays)

    def close(self):
        """Frees the model."""
        self._session = None


def _flat_rows(positions, length):
    """Positions in sequences [B, P] -> int32 [B * P], in all of the batch's tokens."""
    offsets = np.arange(len(positions))[:, None] * length
    return (positions + offsets).astype(np.int32).ravel()


def open_session(path, shares_cores=False):
    """Opens a model in ONNX Runtime.

    Args:
      path: of the .onnx file.
      shares_cores: bool, whether others need the cores while it computes: no thread
        then waits in a busy loop.

    Returns:
      `onnxruntime.InferenceSession`.

    Raises:
      UserError: the package is missing, or cannot load the file.
    """
    onnxruntime = packages.require("onnxruntime", _PURPOSE)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    may_wait = version >= _BOUNDS_WAITING and not shares_cores
    waiting = {
        "allow_spinning": str(int(may_wait)),
        "spin_duration_us": str(_WAITING_MICROSECONDS),
    }
    for name, value in waiting.items():
        options.add_session_config_entry("session.intra_op." + name, value)
    try:
        return onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its own classes differ between versions
        reason = str(error).split("\n")[0]
        raise UserError("{}: cannot be loaded ({})".format(path, reason)) from error
