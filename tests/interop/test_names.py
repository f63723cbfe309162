"""The tables of names: every variable has one parameter, and finds back."""

import pytest
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.interop import names
from benchmarks import head_to_head

SMALL = dict(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=12,
)
HEADS = head_to_head.HEADS + ("classifier",)
TABLES = [
    (
        names.HUGGING_FACE_ALBERT,
        dict(SMALL, embedding_size=4, num_hidden_groups=2, inner_group_num=2),
    ),
    (names.HUGGING_FACE_BERT, SMALL),
    (names.ALBERT_PYTORCH, dict(SMALL, embedding_size=4, ln_type="postln")),
]


def variable_names(config):
    with tf.Graph().as_default():
        inputs = head_to_head.make_inputs(config.vocab_size, 1, 4)
        head_to_head.build_outputs(config, inputs, HEADS)
        return [variable.op.name for variable in tf.trainable_variables()]


@pytest.mark.parametrize("table,settings", TABLES)
def test_every_variable_has_one_parameter_and_finds_back(table, settings):
    variables = variable_names(modeling.AlbertConfig(**settings))
    parameters = [table.to_pytorch(name) for name in variables]
    assert len(set(parameters)) == len(variables)
    for variable, (parameter, transposed) in zip(variables, parameters):
        assert table.to_tensorflow(parameter) == (variable, transposed)


@pytest.mark.parametrize("table,settings", TABLES[:2])
def test_parameters_are_those_of_transformers(table, settings):
    """The table's names and transformers' own are the same set, ties aside."""
    transformers = pytest.importorskip("transformers")
    kind = "Albert" if "embedding_size" in settings else "Bert"
    config = getattr(transformers, kind + "Config")(**settings)
    expected = set()
    for suffix in ("ForPreTraining", "ForSequenceClassification"):
        expected |= set(getattr(transformers, kind + suffix)(config).state_dict())
    variables = variable_names(modeling.AlbertConfig(**settings))
    found = {table.to_pytorch(name)[0] for name in variables}
    assert found | {tied.name for tied in table.tied} == {
        name for name in expected if not name.endswith("position_ids")
    }


def test_unknown_names_have_no_counterpart():
    for table, _ in TABLES:
        assert table.to_pytorch("bert/embeddings/word_embeddings/adam_m") is None
        assert table.to_tensorflow("adapter.weight") is None
        assert table.to_tensorflow("xalbert.pooler.weight") is None


def test_a_number_may_have_several_digits():
    scope = "bert/encoder/layer_{}/attention/self/query/kernel"
    name, transposed = names.HUGGING_FACE_BERT.to_pytorch(scope.format(11))
    assert name == "bert.encoder.layer.11.attention.self.query.weight"
    assert transposed
