"""Predicts with an exported ONNX model; needs NumPy and ONNX Runtime alone."""

import os
import threading

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
          shares_cores: bool, see `Sessions`.

        Raises:
          UserError: there is no such export, or it is of another kind; one of its
            files was changed; or the package onnxruntime is missing.
        """
        self.export = exported.read(directory, "onnx")
        self._check_head(onnx_model.head_of(kind.files).name)
        self._sessions = Sessions(self.export.model_file, shares_cores)
        self.output_names = self._sessions.output_names
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
                    " with export_model.py --encoder" if is_encoder else "",
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
        outputs = dict(zip(wanted, self._sessions.run(wanted, fed)))
        return predictions.of_outputs(self.export.head, outputs, arrays)

    def close(self):
        """Frees the model."""
        self._sessions = None


def _flat_rows(positions, length):
    """Positions in sequences [B, P] -> int32 [B * P], in all of the batch's tokens."""
    offsets = np.arange(len(positions))[:, None] * length
    return (positions + offsets).astype(np.int32).ravel()


class Sessions:
    """A model in ONNX Runtime, for one run and for several at the same time.

    Attributes:
      output_names: tuple of the names of all outputs.
    """

    def __init__(self, path, shares_cores=False):
        """Opens the model, twice where it shares the cores.

        Args:
          path: of the .onnx file.
          shares_cores: bool, whether others need the cores while it computes: no
            thread then waits in a busy loop, and two runs at the same time have
            together one thread for each core. With one for each run and core, the
            parts of a step wait for each other.

        Raises:
          UserError: see `open_session`.
        """
        self._alone = open_session(path, may_wait=not shares_cores)
        self._in_company = self._alone
        num_cores = _num_cores()
        if shares_cores and num_cores > 1:
            # The threads of a session count who runs it, of whom there are two.
            self._in_company = open_session(path, False, num_cores - 1)
        self.output_names = tuple(o.name for o in self._alone.get_outputs())
        self._lock = threading.Lock()
        self._num_running = 0

    def run(self, names, arrays):
        """Computes outputs; may be called by several threads at once.

        Args:
          names: list of str, of the outputs.
          arrays: dict name -> array, the inputs.

        Returns:
          List of arrays.
        """
        with self._lock:
            session = self._in_company if self._num_running else self._alone
            self._num_running += 1
        try:
            return session.run(names, arrays)
        finally:
            with self._lock:
                self._num_running -= 1


def _num_cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_session(path, may_wait=True, num_threads=0):
    """Opens a model in ONNX Runtime.

    Args:
      path: of the .onnx file.
      may_wait: bool, whether threads may wait in a busy loop for some microseconds.
      num_threads: int, how many compute; 0 for one on each core.

    Returns:
      `onnxruntime.InferenceSession`.

    Raises:
      UserError: the package is missing, or cannot load the file.
    """
    onnxruntime = packages.require("onnxruntime", _PURPOSE)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = num_threads
    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    may_wait = may_wait and version >= _BOUNDS_WAITING
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
