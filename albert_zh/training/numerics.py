"""In which precision, and with which compiler, a run computes on its device."""

import logging
import os

import modeling
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf

_LOGGER = logging.getLogger(__name__)

# Where the processor's flags are, and those that mean products of bfloat16.
_PROCESSOR_FILE = "/proc/cpuinfo"
_PROCESSOR_FLAGS = {"avx512_bf16", "amx_bf16"}
# oneDNN makes them for TensorFlow, unless users' environment switches it off
# (TF_ENABLE_ONEDNN_OPTS) or keeps it to instructions without them (ONEDNN_MAX_CPU_ISA).
_SWITCHED_OFF = {"0", "false"}
_ISAS_WITHOUT_BFLOAT16 = {
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
}
# NVIDIA's compute capability from which there are products of bfloat16.
_GPU_CAPABILITY = (8, 0)


def choose(
    precision=None, use_xla=None, use_tpu=False, static_shapes=False, recompute=False
):
    """Chooses how the model computes, and says so in the log.

    Args:
      precision: "float32" or "bfloat16"; None takes bfloat16 where the device has
        products of it, else float32.
      use_xla: bool; whether XLA compiles the element-wise parts; None does so where
        it pays: on the processor, with TensorFlow 2 and bfloat16.
      use_tpu: bool.
      static_shapes: bool; whether every batch has the same shape: XLA compiles every
        new shape anew.
      recompute: bool; compute layers again in the backward pass, to save memory.

    Returns:
      `modeling.Numerics`. bfloat16 falls back to float32 where this TensorFlow has no
      kernels for it.

    Raises:
      UserError: `use_xla` on TPU.
    """
    if use_tpu and use_xla:
        raise UserError(
            "--xla with --use_tpu: a TPU's whole step is compiled by XLA in any case; "
            "leave --xla out"
        )
    has_kernels = use_tpu or _major_version() >= 2
    if precision == "bfloat16" and not has_kernels:
        _LOGGER.warning(
            "--precision=bfloat16: TensorFlow %s has no fast kernels for it; computing "
            "in float32",
            tf.__version__,
        )
        precision = "float32"
    if precision is None:
        is_fast = use_tpu or has_kernels and _device_multiplies_bfloat16()
        precision = "bfloat16" if is_fast else "float32"
    if use_xla is None:
        use_xla = (
            static_shapes
            and precision == "bfloat16"
            and not use_tpu
            and not tf.config.experimental.list_physical_devices("GPU")
        )
    _LOGGER.info(
        "computing in %s%s%s",
        precision,
        ", element-wise parts by XLA" if use_xla else "",
        ", layers again in the backward pass" if recompute else "",
    )
    return modeling.Numerics(tf.as_dtype(precision), use_xla, recompute=recompute)


def _major_version():
    return int(tf.__version__.split(".")[0])


def _device_multiplies_bfloat16():
    """Whether the GPU, or else the processor, has products of bfloat16."""
    gpus = tf.config.experimental.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= _GPU_CAPABILITY
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in _SWITCHED_OFF:
        return False
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _ISAS_WITHOUT_BFLOAT16:
        return False
    try:
        with open(_PROCESSOR_FILE) as source:
            flags = next((line for line in source if line.startswith("flags")), "")
    except OSError:
        return False
    return bool(_PROCESSOR_FLAGS & set(flags.split()))
