"""Packages that are imported when they are first used.

A prediction that another back end computes needs no TensorFlow, neither its seconds to
import nor its memory. So whatever stands between an instance and its prediction writes

    from albert_zh.base.lazy import tensorflow as tf

and uses `tf` inside functions only: not for defaults, annotations or constants.
"""

import importlib


class LazyModule:
    """Stands for a module, and imports it when one of its names is first asked for."""

    def __init__(self, name):
        """Imports nothing; `name` is the module's dotted name."""
        self._name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self._name), attribute)


tensorflow = LazyModule("tensorflow.compat.v1")
google_crc32c = LazyModule("google_crc32c")
protobuf_message = LazyModule("google.protobuf.message")
protobuf_text = LazyModule("google.protobuf.text_format")
saved_model_protos = LazyModule("tensorflow.core.protobuf.saved_model_pb2")
bundle_protos = LazyModule("tensorflow.core.protobuf.tensor_bundle_pb2")
