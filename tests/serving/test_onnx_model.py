"""ONNX models: the same outputs as TensorFlow's, weights stored once."""

import collections

import numpy as np
import pytest

from albert_zh.base.errors import UserError
from albert_zh.serving import graphs, onnx_graph, onnx_model
from tests import export_models

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SHAPES = [(1, 3), (2, 5), (3, 16), (5, 40)]


def open_session(model):
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def run(session, features):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, features)))


def build(tmp_path, dialect, head, precision="float32"):
    """Returns the kind, the weights and the ONNX model."""
    kind = export_models.build_kind(tmp_path, dialect, head)
    weights = export_models.random_weights(kind)
    head = onnx_model.head_of(kind.files)
    return kind, weights, onnx_model.build(kind.files.config, weights, head, precision)


# Every dialect with heads that read the first token, and all; every head once.
CASES = [
    (dialect, head)
    for dialect in export_models.DIALECTS
    for head in ("classification", "tagging_softmax")
] + [("albert_zh", head) for head in export_models.HEADS]
CASES += [("google", "encoder"), ("bert", "encoder")]


@pytest.mark.parametrize(("dialect", "head"), sorted(set(CASES)))
def test_the_outputs_are_tensorflows(tmp_path, dialect, head):
    kind, weights, model = build(tmp_path, dialect, head)
    reference = graphs.ExportGraph(kind, weights)
    session = open_session(model)
    for batch, length in SHAPES:
        features = export_models.random_features(batch, length)
        if head == "encoder":
            features["masked_lm_positions"] = np.array([0, length - 1], np.int32)
        expected, found = reference.run(features), run(session, features)
        assert sorted(found) == sorted(expected)
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_allclose(
                found[name], values, rtol=1e-5, atol=1e-5, err_msg=name
            )
    reference.close()


def test_padding_changes_nothing(tmp_path):
    _, _, model = build(tmp_path, "albert_zh", "classification")
    session = open_session(model)
    short = export_models.random_features(1, 7)
    padded = {name: np.pad(ids, [(0, 0), (0, 9)]) for name, ids in short.items()}
    np.testing.assert_allclose(
        run(session, padded)["logits"], run(session, short)["logits"], atol=1e-6
    )


def test_the_positions_of_an_encoder_need_not_be_given(tmp_path):
    _, _, model = build(tmp_path, "albert_zh", "encoder")
    outputs = run(open_session(model), export_models.random_features(2, 5))
    assert outputs["masked_lm_logits"].shape == (0, len(export_models.WORDS))


def test_an_encoder_without_a_pooler_has_no_pooled_output(tmp_path):
    kind = export_models.build_kind(tmp_path, "bert", "encoder")
    weights = export_models.random_weights(kind)
    weights = {name: w for name, w in weights.items() if "pooler" not in name}
    outputs = onnx_model.build(kind.files.config, weights).graph.output
    assert "pooled_output" not in [output.name for output in outputs]


@pytest.mark.parametrize("dialect", sorted(export_models.DIALECTS))
def test_every_weight_is_stored_once(tmp_path, dialect):
    _, weights, model = build(tmp_path, dialect, "classification")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert len(stored) == len(model.graph.initializer)
    for name, array in weights.items():
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored[name]), array)
    numbers = sum(array.size for array in weights.values())
    held = sum(int(np.prod(tensor.dims)) for tensor in stored.values())
    assert held < numbers + 100  # shapes and constants


def test_inputs_have_dynamic_sizes_and_the_opset_is_stated(tmp_path):
    _, _, model = build(tmp_path, "albert_zh", "classification")
    (opset,) = model.opset_import
    assert (opset.domain, opset.version) == ("", onnx_graph.OPSET)
    for tensor in model.graph.input:
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.INT32
        dims = [dim.dim_param for dim in tensor.type.tensor_type.shape.dim]
        assert dims == ["batch", "length"]


@pytest.mark.parametrize(
    "dialect, attentions",
    # Google's first layer follows a product, not a LayerNorm.
    [("albert_zh", 3), ("google", 2), ("bert", 3)],
)
def test_onnx_runtime_fuses_what_it_can(tmp_path, dialect, attentions):
    _, _, model = build(tmp_path, dialect, "tagging_softmax")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    fused = onnx.load(options.optimized_model_filepath)
    counts = collections.Counter(node.op_type for node in fused.graph.node)
    layers = 3
    assert counts["FastGelu"] + counts["BiasGelu"] == layers
    norms = counts["SkipLayerNormalization"] + counts["LayerNormalization"]
    assert norms == 2 * layers + 1  # of the embeddings
    if not onnxruntime.__version__.startswith("1.10."):
        assert counts["SkipLayerNormalization"] == 2 * layers
    assert counts["Attention"] == attentions
    assert counts["Softmax"] == layers - attentions
    assert not counts["ReduceMean"] and not counts["Tanh"] and not counts["Sqrt"]


@pytest.mark.parametrize("head", sorted(export_models.HEADS))
def test_float16_halves_the_matrices(tmp_path, head):
    kind, weights, model = build(tmp_path, "albert_zh", head, "float16")
    whole = build(tmp_path, "albert_zh", head)[2]
    assert model.ByteSize() < 0.7 * whole.ByteSize()
    features = export_models.random_features(3, 16)
    expected = run(open_session(whole), features)
    for name, values in run(open_session(model), features).items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name], atol=0.05, rtol=0.05)


def test_a_weight_beyond_float16_is_refused(tmp_path):
    kind = export_models.build_kind(tmp_path, "albert_zh", "encoder")
    weights = export_models.random_weights(kind)
    weights["bert/pooler/dense/kernel"][0, 0] = 1e6
    with pytest.raises(UserError, match="bert/pooler/dense/kernel has 1e.06, more"):
        onnx_model.build(kind.files.config, weights, precision="float16")


def test_rows_are_quantized_each_by_itself():
    table = np.array([[1, -2, 0.5], [0, 0, 0], [1e-3, 5e-4, 0]], np.float32)
    rows, scales = onnx_graph.quantize_rows(table)
    assert rows.dtype == np.int8 and scales.shape == (3, 1)
    np.testing.assert_allclose(rows * scales, table, rtol=0, atol=scales.max() / 2)
    np.testing.assert_allclose(rows[2] * scales[2], table[2], atol=1e-5)
