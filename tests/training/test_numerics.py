"""Which precision and compiler are chosen for which device, and what is said of it."""

import importlib
import logging

import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.training import numerics


@pytest.fixture
def machine(monkeypatch, tmp_path, caplog):
    """Function that pretends to a machine: processor flags, GPUs, TensorFlow."""
    caplog.set_level(logging.INFO)
    for name in ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)

    def pretend(flags="", capability=None, version="2.15.0"):
        processor = tmp_path / "cpuinfo"
        processor.write_text("processor : 0\nflags\t\t: fpu sse {}\n".format(flags))
        monkeypatch.setattr(numerics, "_PROCESSOR_FILE", str(processor))
        # What `base.lazy` reads, in TensorFlow 1.15 not the object that `tf` is here.
        module = importlib.import_module("tensorflow.compat.v1")
        monkeypatch.setattr(module, "__version__", version)
        config = tf.config.experimental
        gpus = [] if capability is None else ["a GPU"]
        monkeypatch.setattr(config, "list_physical_devices", lambda kind: gpus)
        details = {} if capability is None else {"compute_capability": capability}
        monkeypatch.setattr(
            config, "get_device_details", lambda gpu: details, raising=False
        )

    return pretend


@pytest.mark.parametrize(
    "device, use_tpu, expected",
    [
        ({}, False, tf.float32),
        ({"flags": "avx512f avx512_bf16"}, False, tf.bfloat16),
        ({"flags": "amx_bf16"}, False, tf.bfloat16),
        ({"flags": "avx512_bf16", "version": "1.15.5"}, False, tf.float32),
        ({"flags": "avx512_bf16", "capability": (7, 5)}, False, tf.float32),
        ({"capability": (8, 0)}, False, tf.bfloat16),
        ({}, True, tf.bfloat16),
        ({"version": "1.15.5"}, True, tf.bfloat16),
    ],
)
def test_bfloat16_is_chosen_where_the_device_has_it(
    machine, caplog, device, use_tpu, expected
):
    machine(**device)
    assert numerics.choose(use_tpu=use_tpu).compute_dtype == expected
    assert "computing in " + expected.name in caplog.text


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("TF_ENABLE_ONEDNN_OPTS", "0", tf.float32),
        ("TF_ENABLE_ONEDNN_OPTS", "False", tf.float32),
        ("TF_ENABLE_ONEDNN_OPTS", "1", tf.bfloat16),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", tf.float32),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core_vnni", tf.float32),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", tf.bfloat16),
        ("ONEDNN_MAX_CPU_ISA", "DEFAULT", tf.bfloat16),
    ],
)
def test_the_environment_may_keep_tensorflow_from_bfloat16(
    machine, monkeypatch, name, value, expected
):
    machine(flags="avx512_bf16")
    monkeypatch.setenv(name, value)
    assert numerics.choose().compute_dtype == expected
    # A GPU computes without oneDNN.
    machine(capability=(8, 0))
    assert numerics.choose().compute_dtype == tf.bfloat16


def test_a_given_precision_is_taken(machine):
    machine(flags="avx512_bf16")
    assert numerics.choose("float32").compute_dtype == tf.float32
    machine()
    assert numerics.choose("bfloat16").compute_dtype == tf.bfloat16


def test_bfloat16_falls_back_with_one_line(machine, caplog):
    machine(flags="avx512_bf16", version="1.15.5")
    assert numerics.choose("bfloat16").compute_dtype == tf.float32
    (warning,) = (r for r in caplog.records if r.levelno >= logging.WARNING)
    assert "--precision=bfloat16: TensorFlow 1.15.5" in warning.getMessage()
    assert "\n" not in warning.getMessage()


def test_unknown_processors_compute_in_float32(machine, monkeypatch):
    machine(flags="avx512_bf16")
    monkeypatch.setattr(numerics, "_PROCESSOR_FILE", "no/such/file")
    assert numerics.choose().compute_dtype == tf.float32


@pytest.mark.parametrize(
    "device, given, expected",
    [
        ({"flags": "avx512_bf16"}, {}, True),
        ({"flags": "avx512_bf16"}, {"static_shapes": False}, False),
        ({"flags": "avx512_bf16"}, {"use_xla": False}, False),
        ({"flags": "avx512_bf16"}, {"static_shapes": False, "use_xla": True}, True),
        ({}, {}, False),
        ({"capability": (8, 0)}, {}, False),
        ({}, {"use_tpu": True}, False),
    ],
)
def test_xla_is_chosen_where_it_pays(machine, caplog, device, given, expected):
    machine(**device)
    assert numerics.choose(**dict({"static_shapes": True}, **given)).use_xla == expected
    assert ("by XLA" in caplog.text) == expected


def test_recomputing_is_said_and_handed_on(machine, caplog):
    machine()
    with caplog.at_level("INFO"):
        assert numerics.choose(recompute=True).recompute
        assert caplog.text.count("again in the backward pass") == 1
        assert not numerics.choose().recompute
    assert caplog.text.count("again in the backward pass") == 1


def test_xla_by_flag_is_refused_on_tpu(machine):
    machine()
    with pytest.raises(UserError, match="--xla with --use_tpu"):
        numerics.choose(use_xla=True, use_tpu=True)
