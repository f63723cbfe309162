"""What names and shapes tell: held against the graphs that `modeling` builds."""

import hypothesis
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import strategies

import modeling
from albert_zh.base.errors import UserError
from albert_zh.models import architecture, checkpoints
from albert_zh.models.model_graph import variable_shapes

PUBLISHED = {
    "albert_zh_tiny": "albert_config_tiny.json",
    "albert_zh_base": "albert_config_base.json",
    "albert_zh_large": "albert_config_large.json",
    "albert_zh_xlarge": "albert_config_xlarge.json",
    "albert_zh_xxlarge": "albert_config_xxlarge.json",
    "google_tiny_zh": "albert_config_tiny_google.json",
    "google_small_zh": "albert_config_small_google.json",
    "google_base_zh": "albert_config_base_google.json",
    "google_large_zh": "albert_config_large_google.json",
    "google_xlarge_zh": "albert_config_xlarge_google.json",
    "google_xxlarge_zh": "albert_config_xxlarge_google.json",
    "bert_base_zh": "bert_config_base.json",
}


def read_published(path):
    """Shapes, and the two counts that the file's comments give."""
    shapes, counts = {}, []
    for line in path.read_text().splitlines():
        name, value = line.split("\t") if "\t" in line else line.rsplit(" ", 1)
        if name.startswith("#"):
            counts.append(int(value))
        else:
            shapes[name] = [int(size) for size in value.split(",")]
    return shapes, counts


@strategies.composite
def configs(draw):
    """Small configs of every dialect and sharing."""
    settings = {
        "vocab_size": draw(strategies.sampled_from([11, 12])),
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 10,
        "max_position_embeddings": 7,
        "num_hidden_layers": draw(strategies.integers(1, 4)),
        "cross_layer_sharing": draw(strategies.sampled_from(modeling.SHARING)),
    }
    dialect = draw(strategies.sampled_from(["albert_zh", "google", "bert"]))
    if dialect != "bert":
        settings["embedding_size"] = draw(strategies.sampled_from([6, 8]))
    if dialect == "google":
        settings["inner_group_num"] = draw(strategies.integers(1, 2))
        if settings["cross_layer_sharing"] == "all":
            most = settings["num_hidden_layers"]
            settings["num_hidden_groups"] = draw(strategies.integers(1, most))
    return modeling.AlbertConfig(**settings)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_models_fit_their_config_and_no_other(repository, name):
    shapes, counts = read_published(repository / "tests/variables" / (name + ".tsv"))
    found = architecture.infer(shapes)
    assert [found.encoder_parameters, found.parameters] == counts
    assert found.scope == "bert" and found.has_pooler and found.slots == 0
    assert found.heads == ("masked_lm", "sentence_order")
    fitting = [
        path.name
        for path in (repository / "albert_config").glob("*.json")
        if not architecture.differences(
            found, modeling.AlbertConfig.from_json_file(str(path))
        )
    ]
    assert fitting == [PUBLISHED[name]]


@hypothesis.given(configs(), configs())
@hypothesis.settings(max_examples=15)
def test_a_config_fits_exactly_where_it_builds_the_same_variables(config, other):
    shapes = variable_shapes(config)
    found = architecture.infer(shapes)
    assert architecture.differences(found, config) == []
    fits = architecture.differences(found, other) == []
    assert fits == (shapes == variable_shapes(other))


def test_differences_name_setting_and_both_values(repository):
    path = repository / "tests" / "variables" / "google_tiny_zh.tsv"
    found = architecture.infer(read_published(path)[0])
    config = modeling.AlbertConfig(
        **dict(
            vocab_size=21127,
            hidden_size=312,
            embedding_size=128,
            intermediate_size=1248,
            ln_type="preln",
        )
    )
    assert architecture.differences(found, config) == [
        ("dialect", "google", "albert_zh"),
        ("vocab_size", 21128, 21127),
    ]


@pytest.mark.parametrize(
    "sharing, dialect, expected",
    [
        ("none", {"embedding_size": 4}, ("none", 3, 1)),
        ("attention", {"embedding_size": 4}, ("attention", 3, 1)),
        ("ffn", {}, ("ffn", 3, 1)),
        ("all", {}, ("all", None, 1)),
        ("attention", {"num_hidden_groups": 1}, ("attention", 3, 1)),
        ("ffn", {"num_hidden_groups": 1}, ("ffn", 3, 1)),
        # Nothing shared looks like as many groups.
        ("none", {"num_hidden_groups": 1}, ("all", None, 3)),
        ("all", {"num_hidden_groups": 2}, ("all", None, 2)),
    ],
)
def test_sharing_shows_in_the_names(sharing, dialect, expected):
    config = modeling.AlbertConfig(
        9, 8, 3, 2, 16, cross_layer_sharing=sharing, **dialect
    )
    found = architecture.infer(variable_shapes(config))
    assert expected == (
        found.cross_layer_sharing,
        found.num_hidden_layers,
        found.num_hidden_groups,
    )


def test_heads_pooler_and_slots_are_told_apart():
    config = modeling.AlbertConfig(9, 8, 1, 2, 16)
    shapes = variable_shapes(config)
    encoder = architecture.infer(shapes)
    assert encoder.heads == () and encoder.encoder_parameters == encoder.parameters
    shapes = {n: s for n, s in shapes.items() if "/pooler/" not in n}
    shapes.update({name + "/adam_m": shape for name, shape in shapes.items()})
    shapes.update({"output_weights": [3, 8], "output_bias": [3], "global_step": []})
    found = architecture.infer(shapes)
    assert not found.has_pooler
    assert found.heads == ("classifier",)
    assert found.slots == (len(shapes) - 3) // 2
    assert found.encoder_parameters == encoder.parameters - 8 * 8 - 8
    assert found.parameters == found.encoder_parameters + 3 * 8 + 3


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda name: "x/" + name.replace("word", "char"), "0 of its"),
        (lambda name: name.replace("query", "q"), "self/query/kernel"),
        (lambda name: name.replace("position", "place"), "position_embeddings"),
    ],
)
def test_what_is_no_encoder_is_refused(change, words):
    shapes = variable_shapes(modeling.AlbertConfig(9, 8, 1, 2, 16))
    renamed = {change(name): shape for name, shape in shapes.items()}
    with pytest.raises(UserError, match="old.ckpt: .*" + words):
        architecture.infer(renamed, "old.ckpt")


def test_two_encoders_are_refused():
    shapes = variable_shapes(modeling.AlbertConfig(9, 8, 1, 2, 16))
    shapes.update({"teacher/" + name: shape for name, shape in shapes.items()})
    with pytest.raises(UserError, match="2 of its .* expected one"):
        architecture.infer(shapes)


def test_an_encoder_in_another_scope_is_named(tmp_path):
    config = modeling.AlbertConfig(9, 8, 1, 2, 16)
    with tf.Graph().as_default(), tf.Session() as session:
        modeling.AlbertModel(config, False, tf.zeros([1, 2], tf.int32), scope="mine")
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    assert architecture.infer(checkpoints.read_shapes(prefix)).scope == "mine"
    with pytest.raises(UserError, match="variable scope mine, expected bert"):
        architecture.check(prefix, config)
