"""Predicts with an exported ONNX model; needs NumPy and ONNX Runtime alone."""

from albert_zh.base.errors import UserError
from albert_zh.serving import encoder, exported, inputs, packages, predictions

_PURPOSE = "an ONNX model"
# What `encoder.Encoder.decode` reads.
_OF_ENCODERS = (encoder.FIRST_LAYER, encoder.LAST_LAYER)


class OnnxBackend:
    """A model that is loaded once; `run` may be called by several threads at once.

    Attributes:
      export: the `exported.Export`.
    """

    def __init__(self, directory, head, num_threads=None):
        """Loads the model.

        Args:
          directory: of an export with --format=onnx.
          head: `onnx_model.Head.name` that it must have.
          num_threads: threads of one `run`; None for one per core.

        Raises:
          UserError: there is no such export, one of its files was changed, or the
            package onnxruntime is missing.
        """
        self.export = exported.read(directory, "onnx")
        if self.export.head != head:
            raise UserError(
                "{}: exported as {}, not as {}; export the model again{}".format(
                    directory,
                    self.export.head,
                    head,
                    " with --encoder" if head == encoder.TASK.kind else "",
                )
            )
        self._session = open_session(self.export.model_file, num_threads)

    @property
    def output_names(self):
        """Names of the model's outputs."""
        return tuple(output.name for output in self._session.get_outputs())

    def run(self, arrays, names=None):
        """Computes outputs.

        Args:
          arrays: dict of `inputs.assemble`; for a bare encoder with an MLM head,
            `masked_lm_positions` [P] besides.
          names: the outputs wanted of a bare encoder; None for those that its `decode`
            may read. Those of a task are what `kind.Kind.decode` reads.

        Returns:
          Dict name -> array.
        """
        known = inputs.NAMES + (encoder.MASK_POSITIONS,)
        fed = {name: arrays[name] for name in known if name in arrays}
        head = self.export.head
        wanted = list(predictions.NEEDED.get(head) or names or _OF_ENCODERS)
        outputs = dict(zip(wanted, self._session.run(wanted, fed)))
        return predictions.of_outputs(head, outputs, arrays)

    def close(self):
        """Frees the model."""
        self._session = None


def open_session(path, num_threads=None):
    """Opens a model in ONNX Runtime.

    Args:
      path: of the .onnx file.
      num_threads: as `OnnxBackend` takes it.

    Returns:
      `onnxruntime.InferenceSession`.

    Raises:
      UserError: the package is missing, or cannot load the file.
    """
    onnxruntime = packages.require("onnxruntime", _PURPOSE)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if num_threads:
        options.intra_op_num_threads = num_threads
    # Threads that wait in a busy loop take the cores from one another: with several
    # sessions or clients a run took 20 times as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its own classes differ between versions
        reason = str(error).split("\n")[0]
        raise UserError("{}: cannot be loaded ({})".format(path, reason)) from error
