"""Matrices of an ONNX model as int8, by ONNX Runtime's quantiser."""

import inspect
import logging
import os
import pathlib

from albert_zh.serving import packages


def quantize(model, path):
    """Writes a model whose products of weights compute in int8.

    Weights are quantised by column. Inputs of products are quantised as they come, with
    a scale for each batch. Products of a head, which are no `MatMul` of a stored
    matrix, stay float32.

    Args:
      model: `onnx.ModelProto`.
      path: the .onnx file to write.

    Raises:
      UserError: the package onnx or onnxruntime is missing.
    """
    onnx = packages.require("onnx", "--precision=int8")
    quantization = packages.require("onnxruntime.quantization", "--precision=int8")
    source = path + ".float32"
    onnx.save(model, source)
    options = {
        "op_types_to_quantize": ["MatMul"],
        "per_channel": True,
        # Weights of 7 bits: without VNNI, x86 adds two products in 16 bits, which
        # saturates with 8: logits were ten times as wrong.
        "reduce_range": True,
        "weight_type": quantization.QuantType.QInt8,
        # Not those of two activations, which attention has.
        "extra_options": {"MatMulConstBOnly": True},
    }
    quantize_dynamic = quantization.quantize_dynamic
    if "optimize_model" in inspect.signature(quantize_dynamic).parameters:
        options["optimize_model"] = False  # ONNX Runtime 1.10 would fuse first
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # advice on models that were traced
    try:
        quantize_dynamic(pathlib.Path(source), pathlib.Path(path), **options)
    finally:
        logging.getLogger().setLevel(level)
        os.remove(source)
