"""The formats of exports: what writes a model, and what runs it again.

A runtime is an object with

    run(features)   dict of `inputs.NAMES` -> int32 [B, T] -> dict name -> array
    close()         frees what it holds
"""

import contextlib
import os
import shutil
import sys
import warnings
from typing import Callable, List, NamedTuple, Tuple

from albert_zh.base.errors import UserError
from albert_zh.base.lazy import saved_model_protos
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.serving import (
    encoder,
    exported,
    graphs,
    inputs,
    onnx_backend,
    onnx_model,
    packages,
    quantization,
)

SIGNATURE = "serving_default"


class Format(NamedTuple):
    """A format.

    Attributes:
      write: function (kind, weights, precision, directory) that writes the model's
        files.
      open: function (directory, output names) -> a runtime.
      precisions: tuple of those it has.
      output_names: function of a `graphs.ExportGraph` -> the list of the names of those
        of its outputs that the model has, sorted.
      check: function that raises `UserError` where this interpreter cannot export it.
    """

    write: Callable[..., None]
    open: Callable[..., object]
    precisions: Tuple[str, ...]
    output_names: Callable[[graphs.ExportGraph], List[str]]
    check: Callable[[], None] = lambda: None


# --- ONNX ---


def _all_outputs(graph):
    return sorted(graph.outputs)


def _write_onnx(kind, weights, precision, directory):
    files = kind.files
    model = onnx_model.build(
        files.config, weights, onnx_model.head_of(files), precision
    )
    path = os.path.join(directory, exported.MODEL_FILES["onnx"])
    if precision == "int8":
        quantization.quantize(model, path)
        return
    packages.require("onnx", "--format=onnx").save(model, path)


class _OnnxRuntime:
    def __init__(self, directory, names):
        path = os.path.join(directory, exported.MODEL_FILES["onnx"])
        self._session = onnx_backend.open_session(path)
        self._fed = [tensor.name for tensor in self._session.get_inputs()]
        self._fed += [t.name for t in self._session.get_overridable_initializers()]
        held = {output.name for output in self._session.get_outputs()}
        self._names = [name for name in names if name in held]

    def run(self, features):
        fed = {name: features[name] for name in self._fed if name in features}
        return dict(zip(self._names, self._session.run(self._names, fed)))

    def close(self):
        self._session = None


def _check_onnx():
    for name in ("onnx", "onnxruntime"):
        packages.require(name, "--format=onnx")


# --- TensorFlow ---


def _main_outputs(graph):
    """Without those of single layers, and without what reads an optional input."""
    return sorted(
        name
        for name in graph.outputs
        if name != encoder.MASK_LOGITS and not encoder.is_layer_name(name)
    )


def _write_saved_model(kind, weights, precision, directory):
    del precision
    graph = graphs.ExportGraph(kind, weights)
    with contextlib.closing(graph), graph.session.graph.as_default():
        outputs = {name: graph.outputs[name] for name in _main_outputs(graph)}
        signature = tf.saved_model.predict_signature_def(graph.inputs, outputs)
        # The builder creates the directory.
        target = os.path.join(directory, "model")
        builder = tf.saved_model.Builder(target)
        builder.add_meta_graph_and_variables(
            graph.session,
            [tf.saved_model.SERVING],
            {SIGNATURE: signature},
            strip_default_attrs=True,
        )
        builder.save()
    _drop_unknown_attributes(os.path.join(target, "saved_model.pb"))
    for name in os.listdir(target):
        os.rename(os.path.join(target, name), os.path.join(directory, name))
    os.rmdir(target)


def _drop_unknown_attributes(path):
    """Removes from a saved model's nodes what TensorFlow 1.15 refuses to load.

    TensorFlow 2 strips attributes of their default values, but not this one, which it
    sets itself and which is for messages alone.
    """
    with open(path, "rb") as file:
        model = saved_model_protos.SavedModel.FromString(file.read())
    for meta_graph in model.meta_graphs:
        graph = meta_graph.graph_def
        for nodes in [graph.node] + [each.node_def for each in graph.library.function]:
            for node in nodes:
                node.attr.pop("debug_name", None)
        # The operations' definitions as well, which are compared with the program's.
        for op in meta_graph.meta_info_def.stripped_op_list.op:
            kept = [attr for attr in op.attr if attr.name != "debug_name"]
            del op.attr[:]
            op.attr.extend(kept)
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


class _SessionRuntime:
    """Runs a graph in a session."""

    def __init__(self, session, fed, fetched):
        self._session, self._fed, self._fetched = session, fed, fetched

    def run(self, features):
        fed = {tensor: features[name] for name, tensor in self._fed.items()}
        return self._session.run(self._fetched, fed)

    def close(self):
        self._session.close()


class _FunctionRuntime:
    """Runs a signature of `tf.saved_model.load`, of TensorFlow 2."""

    def __init__(self, directory):
        with _silence():  # it misses a fingerprint, which only TensorFlow 2 writes
            self._loaded = tf.compat.v2.saved_model.load(directory)
        self._function = self._loaded.signatures[SIGNATURE]

    def run(self, features):
        fed = {name: tf.constant(features[name], tf.int32) for name in inputs.NAMES}
        return {name: out.numpy() for name, out in self._function(**fed).items()}

    def close(self):
        self._loaded = self._function = None


def _open_saved_model(directory, names):
    del names  # the signature has them
    if _is_tensorflow_2() and tf.executing_eagerly():
        return _FunctionRuntime(directory)
    with tf.Graph().as_default() as graph:
        session = tf.Session(graph=graph)
        loaded = tf.saved_model.load(session, [tf.saved_model.SERVING], directory)
    signature = loaded.signature_def[SIGNATURE]
    return _SessionRuntime(
        session,
        {name: info.name for name, info in signature.inputs.items()},
        {name: info.name for name, info in signature.outputs.items()},
    )


def _write_frozen_graph(kind, weights, precision, directory):
    del precision
    graph = graphs.ExportGraph(kind, weights)
    with contextlib.closing(graph), graph.session.graph.as_default():
        names = _main_outputs(graph)
        frozen = tf.graph_util.convert_variables_to_constants(
            graph.session, graph.session.graph.as_graph_def(), names
        )
    path = os.path.join(directory, exported.MODEL_FILES["frozen_graph"])
    with open(path, "wb") as file:
        file.write(frozen.SerializeToString())


def _open_frozen_graph(directory, names):
    path = os.path.join(directory, exported.MODEL_FILES["frozen_graph"])
    with open(path, "rb") as file:
        definition = tf.GraphDef.FromString(file.read())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    return _SessionRuntime(
        tf.Session(graph=graph),
        {name: name + ":0" for name in inputs.NAMES},
        {name: name + ":0" for name in names},
    )


# --- TensorFlow Lite ---


def _write_tflite(kind, weights, precision, directory):
    saved_model = os.path.join(directory, "saved_model")
    os.mkdir(saved_model)
    _write_saved_model(kind, weights, "float32", saved_model)
    converter = tf.compat.v2.lite.TFLiteConverter.from_saved_model(
        saved_model, signature_keys=[SIGNATURE]
    )
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with _silence():
        content = converter.convert()
    shutil.rmtree(saved_model)
    path = os.path.join(directory, exported.MODEL_FILES["tflite"])
    with open(path, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def _silence():
    """Drops what this process prints in the block, also that of C++ code."""
    sys.stdout.flush()
    sys.stderr.flush()
    held = [os.dup(number) for number in (1, 2)]
    try:
        with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            yield
    finally:
        for number, copy in zip((1, 2), held):
            os.dup2(copy, number)
            os.close(copy)


class _LiteRuntime:
    def __init__(self, directory, names):
        del names  # the signature has them
        path = os.path.join(directory, exported.MODEL_FILES["tflite"])
        with _silence():  # it tells of its delegate
            self._interpreter = tf.lite.Interpreter(model_path=path)
        self._run = self._interpreter.get_signature_runner(SIGNATURE)

    def run(self, features):
        return self._run(**{name: features[name] for name in inputs.NAMES})

    def close(self):
        self._interpreter = self._run = None


def _check_tflite():
    if not _is_tensorflow_2():
        raise UserError(
            "--format=tflite: TensorFlow {} writes models whose inputs are bound by "
            "order, not by name; export with TensorFlow 2.15 (Python 3.9-3.11)".format(
                tf.__version__
            )
        )


def _is_tensorflow_2():
    return not tf.__version__.startswith("1.")


FORMATS = {
    "onnx": Format(
        _write_onnx,
        _OnnxRuntime,
        ("float32", "float16", "int8"),
        _all_outputs,
        _check_onnx,
    ),
    "saved_model": Format(
        _write_saved_model, _open_saved_model, ("float32",), _main_outputs
    ),
    "frozen_graph": Format(
        _write_frozen_graph, _open_frozen_graph, ("float32",), _main_outputs
    ),
    "tflite": Format(
        _write_tflite,
        _LiteRuntime,
        ("float32", "float16", "int8"),
        _main_outputs,
        _check_tflite,
    ),
}
