"""The encoder and its heads against the published implementations' numbers."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling

HERE = pathlib.Path(__file__).parent
CONFIGS = HERE.parent / "albert_config"
GOLDEN_GRAPHS = [
    "albert_zh_postln",
    "albert_zh_preln",
    "google_groups1",
    "google_groups2_inner2",
    "bert",
]
# Published sizes: table of variables -> the config file that must give them.
SHIPPED = {
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


def build(config, features, is_training=False, **settings):
    """Builds model and heads; returns a dict of the tensors the goldens name."""
    model = modeling.AlbertModel(
        config,
        is_training,
        features["input_ids"],
        features["input_mask"],
        features["segment_ids"],
        **settings,
    )
    mlm_loss, mlm_example_loss, mlm_logits = modeling.get_masked_lm_output(
        config,
        model,
        features["masked_lm_positions"],
        features["masked_lm_ids"],
        features["masked_lm_weights"],
    )
    sop_loss, sop_example_loss, sop_logits = modeling.get_sentence_order_output(
        config, model, features["next_sentence_labels"]
    )
    return {
        "embedding_output": model.get_embedding_output(),
        "sequence_output": model.get_sequence_output(),
        "pooled_output": model.get_pooled_output(),
        "masked_lm_loss": mlm_loss,
        "masked_lm_example_loss": mlm_example_loss,
        "masked_lm_log_probs": tf.nn.log_softmax(mlm_logits),
        "sop_loss": sop_loss,
        "sop_example_loss": sop_example_loss,
        "sop_log_probs": tf.nn.log_softmax(sop_logits),
    }


def published_gradient_norm(config, loss):
    """Global norm of the gradients, in the google dialect as its code takes it.

    That code gathers segment embeddings, and `tf.global_norm` squares the rows of
    the resulting `IndexedSlices` before summing those of one segment: a slip in
    its norm that the golden number contains. Here the gradient of each looked-up
    row stands for the summed one.
    """
    targets = {v.name: v for v in tf.trainable_variables()}
    if config.dialect == "google":
        targets["bert/embeddings/token_type_embeddings:0"] = (
            tf.get_default_graph().get_tensor_by_name("bert/embeddings/segments:0")
        )
    return tf.global_norm(tf.gradients(loss, list(targets.values())))


def arrays(golden, prefix):
    """The arrays of a golden file whose key starts with `prefix`, without it."""
    return {
        key[len(prefix) :]: golden[key]
        for key in golden.files
        if key.startswith(prefix)
    }


def load_weights(session, weights):
    variables = {v.name[: -len(":0")]: v for v in tf.trainable_variables()}
    assert set(variables) == set(weights)
    for name, value in weights.items():
        variables[name].load(value, session)


def run_golden(golden, **settings):
    config = modeling.AlbertConfig.from_dict(json.loads(str(golden["config"])))
    with tf.Graph().as_default(), tf.Session() as session:
        features = {k: tf.constant(v) for k, v in arrays(golden, "input/").items()}
        tensors = build(config, features, **settings)
        tensors["grad_norm"] = published_gradient_norm(
            config, tensors["masked_lm_loss"] + tensors["sop_loss"]
        )
        session.run(tf.global_variables_initializer())
        load_weights(session, arrays(golden, "weight/"))
        return session.run(tensors)


@pytest.mark.parametrize("name", GOLDEN_GRAPHS)
@pytest.mark.parametrize("one_hot", [False, True])
def test_graph_equals_published_implementation(name, one_hot):
    golden = np.load(HERE / "golden" / (name + ".npz"))
    results = run_golden(golden, use_one_hot_embeddings=one_hot)
    expected = arrays(golden, "output/")
    assert set(results) == set(expected)
    norm = expected.pop("grad_norm")
    assert results.pop("grad_norm") == pytest.approx(norm, rel=1e-4)
    for key, value in expected.items():
        np.testing.assert_allclose(results[key], value, rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", GOLDEN_GRAPHS)
def test_bfloat16_products_stay_near_float32(name):
    golden = np.load(HERE / "golden" / (name + ".npz"))
    results = run_golden(golden, compute_dtype=tf.bfloat16)
    # Without a projection there is no product before the encoder.
    del results["embedding_output"]
    for key, result in results.items():
        expected = golden["output/" + key]
        assert result.dtype == np.float32
        difference = np.linalg.norm(result - expected)
        # A product of factors rounded to 8 bits is off by up to 2^-8 = 0.4 %, at
        # random; the roundings of four layers and the heads measure 1.6 % at most.
        assert 0 < difference < 0.02 * np.linalg.norm(expected), key


def read_variable_table(name):
    """Returns {variable: shape} and {comment: count} of a published table."""
    shapes, counts = {}, {}
    for line in (HERE / "variables" / (name + ".tsv")).read_text().splitlines():
        variable, value = line.split("\t")
        if variable.startswith("#"):
            counts[variable.strip("# ")] = int(value)
        else:
            shapes[variable] = [int(size) for size in value.split(",")]
    return shapes, counts


def built_variables(config):
    """Builds the pretraining graph of `config`; returns its variables."""
    with tf.Graph().as_default():
        ids = tf.zeros([1, 8], tf.int32)
        features = {"input_ids": ids, "input_mask": ids, "segment_ids": ids}
        for key in ("masked_lm_positions", "masked_lm_ids"):
            features[key] = tf.zeros([1, 2], tf.int32)
        features["masked_lm_weights"] = tf.ones([1, 2])
        features["next_sentence_labels"] = tf.zeros([1, 1], tf.int32)
        build(config, features)
        return tf.trainable_variables()


@pytest.mark.parametrize("table", sorted(SHIPPED))
def test_shipped_config_builds_published_variables(table):
    shapes, counts = read_variable_table(table)
    config = modeling.AlbertConfig.from_json_file(str(CONFIGS / SHIPPED[table]))
    variables = built_variables(config)
    assert {v.name[:-2]: v.shape.as_list() for v in variables} == shapes
    encoder = [v for v in variables if v.name.startswith("bert/")]
    assert modeling.count_parameters(encoder) == counts["encoder_parameters"]
    assert modeling.count_parameters(variables) == counts["with_pretraining_heads"]


def test_every_shipped_config_is_checked():
    shipped = {path.name for path in CONFIGS.glob("*.json")}
    assert shipped == set(SHIPPED.values()) | {"albert_config_nano.json"}


def test_factorized_embedding_saves_what_the_paper_says():
    # arXiv:1909.11942, section 3.1: O(V H) against O(V E + E H).
    sizes = {}
    for dialect, keys in (
        ("bert", {}),
        ("albert_zh", {"embedding_size": 128, "ln_type": "postln"}),
        ("google", {"embedding_size": 128, "num_hidden_groups": 1}),
    ):
        config = modeling.AlbertConfig(
            30000,
            hidden_size=4096,
            num_hidden_layers=1,
            num_attention_heads=64,
            intermediate_size=8,
            **keys,
        )
        assert config.dialect == dialect
        parts = ("word_embeddings", "embedding_hidden_mapping_in")
        tables = [
            variable
            for variable in built_variables(config)
            if any(part in variable.name for part in parts)
        ]
        sizes[dialect] = modeling.count_parameters(tables)
    # 30000 x 4096; 30000 x 128 + 128 x 4096; the same and google's bias of 4096.
    assert sizes == {"bert": 122880000, "albert_zh": 4364288, "google": 4368384}


@pytest.mark.parametrize("sharing,parameters", [("none", 125976576), ("all", 10498048)])
@pytest.mark.parametrize("dialect", ["albert_zh", "google", "bert"])
def test_sharing_gives_published_layer_parameters(sharing, parameters, dialect):
    keys = {
        "albert_zh": {"ln_type": "postln", "embedding_size": 128},
        "google": {"num_hidden_groups": 1, "embedding_size": 128},
        "bert": {},
    }[dialect]
    config = modeling.AlbertConfig(
        100,
        hidden_size=1024,
        num_attention_heads=16,
        intermediate_size=3072,
        cross_layer_sharing=sharing,
        **keys,
    )
    assert config.dialect == dialect
    layers = [v for v in built_variables(config) if "/layer_" in v.name.lower()]
    if dialect == "google":
        layers = [v for v in built_variables(config) if "/transformer/" in v.name]
    assert modeling.count_parameters(layers) == parameters


@pytest.mark.parametrize("dialect", ["albert_zh", "google"])
def test_sharing_one_half_shares_that_half_only(dialect):
    keys = {"albert_zh": {"ln_type": "preln"}, "google": {"inner_group_num": 1}}
    sizes = {}
    for sharing in modeling.SHARING:
        config = modeling.AlbertConfig(
            50,
            hidden_size=8,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=16,
            embedding_size=4,
            cross_layer_sharing=sharing,
            **keys[dialect],
        )
        layers = [
            v
            for v in built_variables(config)
            if v.name.startswith("bert/encoder/") and "mapping_in" not in v.name
        ]
        sizes[sharing] = modeling.count_parameters(layers)
    attention = 4 * (8 * 8 + 8) + 2 * 8
    ffn = 8 * 16 + 16 + 16 * 8 + 8 + 2 * 8
    assert sizes == {
        "all": attention + ffn,
        "attention": attention + 3 * ffn,
        "ffn": 3 * attention + ffn,
        "none": 3 * (attention + ffn),
    }


def micro_config(**changes):
    settings = {
        "vocab_size": 50,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 12,
        "embedding_size": 4,
        "ln_type": "postln",
    }
    settings.update(changes)
    return settings


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"num_attention_heads": 3}, "hidden_size 8 is not divisible"),
        ({"embeding_size": 4}, "unknown config key embeding_size"),
        ({"ln_type": "sandwich"}, "ln_type must be one of postln, preln"),
        ({"cross_layer_sharing": "some"}, "cross_layer_sharing must be one of"),
        ({"hidden_act": "swish"}, "hidden_act must be"),
        ({"num_hidden_groups": 2, "ln_type": "preln"}, "exclude each other"),
        ({"hidden_size": "8"}, "hidden_size must be a positive integer"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob must be a number in"),
        ({"hidden_dropout_prob": "0.1"}, "must be a number in .* received '0.1'"),
        ({"initializer_range": "x"}, "initializer_range must be a number in"),
        ({"embedding_size": 0}, "embedding_size must be a positive integer"),
        ({"embedding_size": None, "ln_type": "preln"}, "needs embedding_size"),
        ({"layers_to_keep": [0, 2]}, r"layers_to_keep is \[0, 2\], but .* only \[\]"),
        ({"use_relative_position": True}, "use_relative_position is True"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05, but .* only 1e-12"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        ({"is_decoder": 0}, "is_decoder is 0"),
        ({"model_type": "electra"}, "model_type is 'electra', .* 'albert' or 'bert'"),
    ],
)
def test_config_errors_name_the_key(changes, words):
    with pytest.raises(ValueError, match=words):
        modeling.AlbertConfig.from_dict(micro_config(**changes))


def test_config_file_errors_name_the_file(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(ValueError, match="no such config file"):
        modeling.AlbertConfig.from_json_file(str(path))
    for content in (b"{", b"[]", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="config.json: "):
            modeling.AlbertConfig.from_json_file(str(path))
    with pytest.raises(ValueError, match=str(tmp_path)):
        modeling.AlbertConfig.from_json_file(str(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        micro_config(cross_layer_sharing="ffn"),
        micro_config(ln_type=None, num_hidden_groups=2, inner_group_num=2),
        micro_config(ln_type=None, embedding_size=None),
        micro_config(ln_type=None),
    ],
)
def test_config_round_trip(settings):
    config = modeling.AlbertConfig.from_dict(settings)
    again = modeling.AlbertConfig.from_dict(json.loads(config.to_json_string()))
    assert again.__dict__ == config.__dict__


@pytest.mark.parametrize(
    "keys,dialect",
    [
        ({}, "bert"),
        ({"embedding_size": 4}, "albert_zh"),
        ({"embedding_size": 4, "ln_type": "preln"}, "albert_zh"),
        ({"embedding_size": 4, "num_hidden_groups": 1}, "google"),
        ({"inner_group_num": 1}, "google"),
    ],
)
def test_dialect_follows_from_keys(keys, dialect):
    base = micro_config()
    del base["embedding_size"], base["ln_type"]
    base.update(keys)
    assert modeling.AlbertConfig.from_dict(base).dialect == dialect


# Keys that published config files carry beside the sizes.
PUBLISHED_KEYS = {
    "Google's ALBERT": {
        "layers_to_keep": [],
        "net_structure_type": 0,
        "network_structure_type": 0,
        "gap_size": 0,
        "num_memory_blocks": 0,
        "down_scale_factor": 1,
    },
    "Google's Chinese BERT": {"directionality": "bidi", "pooler_fc_size": 768},
    "hfl's RoBERTa": {
        "architectures": ["BertForMaskedLM"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-12,
        "model_type": "bert",
        "output_past": True,
        "pad_token_id": 0,
    },
    "ckiplab's ALBERT": {
        "classifier_dropout_prob": 0.1,
        "hidden_act": "gelu_new",
        "language": "zh",
        "model_type": "albert",
        "tokenizer_class": "BertTokenizerFast",
    },
    "transformers 2": {
        "finetuning_task": None,
        "num_labels": 2,
        "output_attentions": False,
        "pruned_heads": {},
        "torchscript": False,
        "use_bfloat16": False,
    },
    "transformers 2, all keys": {
        "do_sample": False,
        "eos_token_ids": 0,
        "length_penalty": 1.0,
        "max_length": 20,
        "num_beams": 1,
        "num_return_sequences": 1,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    },
    "transformers 5": {
        "_name_or_path": "model",
        "dtype": "float32",
        "id2label": {"0": "a"},
        "position_embedding_type": "absolute",
        "transformers_version": "5.0.0",
        "tie_word_embeddings": True,
        "use_cache": True,
    },
    "a note": {"_comment": "trained in May"},
}


@pytest.mark.parametrize("keys", PUBLISHED_KEYS.values(), ids=list(PUBLISHED_KEYS))
def test_published_keys_do_not_change_the_config(keys):
    expected = modeling.AlbertConfig.from_dict(micro_config())
    config = modeling.AlbertConfig.from_dict(micro_config(**keys))
    assert config.__dict__ == expected.__dict__


@pytest.mark.parametrize(
    "keys,dialect",
    [({"embedding_size": None}, "bert"), ({"inner_group_num": 1}, "google")],
)
def test_every_dialect_may_name_its_post_ln(keys, dialect):
    # roberta_zh's and albert_pytorch's config files do.
    config = modeling.AlbertConfig.from_dict(micro_config(ln_type="postln", **keys))
    assert (config.dialect, config.ln_type) == (dialect, "postln")


def test_config_file_may_have_a_byte_order_mark(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(micro_config()), encoding="utf-8-sig")
    assert modeling.AlbertConfig.from_json_file(str(path)).hidden_size == 8


def test_padding_does_not_change_the_tokens_before_it():
    config = modeling.AlbertConfig.from_dict(micro_config())
    random = np.random.RandomState(0)
    ids = random.randint(1, 50, size=(3, 6)).astype(np.int32)
    padded = np.concatenate([ids, np.zeros((3, 4), np.int32)], axis=1)
    mask = (np.arange(10) < 6).astype(np.int32)[np.newaxis].repeat(3, axis=0)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        with tf.variable_scope("both", reuse=tf.AUTO_REUSE):
            short = modeling.AlbertModel(config, False, tf.constant(ids))
        with tf.variable_scope("both", reuse=True):
            long = modeling.AlbertModel(
                config, False, tf.constant(padded), tf.constant(mask), scope="bert"
            )
        session.run(tf.global_variables_initializer())
        expected, actual = session.run(
            [short.get_sequence_output(), long.get_sequence_output()]
        )
    np.testing.assert_allclose(actual[:, :6], expected, atol=1e-6)


def test_length_above_positions_is_refused():
    config = modeling.AlbertConfig.from_dict(micro_config())
    with tf.Graph().as_default():
        with pytest.raises(ValueError, match="13 is above max_position_embeddings 12"):
            modeling.AlbertModel(config, False, tf.zeros([1, 13], tf.int32))


def test_dynamic_shapes_give_the_static_numbers():
    config = modeling.AlbertConfig.from_dict(micro_config())
    ids = np.arange(10).reshape(2, 5)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        placeholder = tf.placeholder(tf.int32, [None, None])
        model = modeling.AlbertModel(config, False, placeholder)
        with tf.variable_scope("", reuse=True):
            static = modeling.AlbertModel(
                config, False, tf.constant(ids, tf.int32), scope="bert"
            )
        session.run(tf.global_variables_initializer())
        a, b = session.run(
            [model.get_sequence_output(), static.get_sequence_output()],
            {placeholder: ids},
        )
    assert a.shape == (2, 5, 8)
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_dropout_acts_in_training_only():
    config = modeling.AlbertConfig.from_dict(micro_config(hidden_dropout_prob=0.5))
    outputs = {}
    for is_training in (False, True):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(1)
            model = modeling.AlbertModel(
                config, is_training, tf.zeros([1, 4], tf.int32)
            )
            session.run(tf.global_variables_initializer())
            outputs[is_training] = [
                session.run(model.get_sequence_output()) for _ in range(2)
            ]
    np.testing.assert_array_equal(*outputs[False])
    assert np.abs(outputs[True][0] - outputs[True][1]).max() > 1e-3


def test_gather_indexes_picks_rows_of_each_sequence():
    sequence = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    positions = np.array([[4, 0], [1, 1]], np.int32)
    with tf.Graph().as_default(), tf.Session() as session:
        picked = session.run(
            modeling.gather_indexes(tf.constant(sequence), tf.constant(positions))
        )
    expected = sequence[[[0], [1]], positions].reshape(4, 3)
    np.testing.assert_array_equal(picked, expected)


def test_every_key_of_todays_transformers_is_known():
    transformers = pytest.importorskip("transformers")
    for written in (transformers.AlbertConfig(), transformers.BertConfig()):
        settings = written.to_dict()
        settings.pop("inner_group_num", None)
        settings.pop("num_hidden_groups", None)
        config = modeling.AlbertConfig.from_dict(settings)
        assert config.hidden_size == settings["hidden_size"]


def test_activations_are_called_as_in_published_code():
    assert modeling.get_activation("GELU") is modeling.gelu
    assert modeling.get_activation("linear") is None
    assert modeling.get_activation("") is None and modeling.get_activation(None) is None
    assert modeling.AlbertConfig(10, hidden_act="ReLU").hidden_act == "relu"


def test_layer_norm_matches_numpy():
    x = np.random.RandomState(0).normal(2.0, 3.0, size=(4, 7)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        y = modeling.layer_norm(tf.constant(x))
        session.run(tf.global_variables_initializer())
        result = session.run(y)
    expected = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_assignment_map_restores_by_name(tmp_path):
    config = modeling.AlbertConfig.from_dict(micro_config())
    prefix = str(tmp_path / "model.ckpt")
    ids = np.arange(8).reshape(2, 4)
    results = []
    for is_first in (True, False):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(1 if is_first else 2)
            model = modeling.BertModel(config, False, tf.constant(ids))
            if not is_first:
                mapping, names = modeling.get_assignment_map_from_checkpoint(
                    tf.trainable_variables(), prefix
                )
                assert len(mapping) == len(tf.trainable_variables())
                assert set(mapping) | {n + ":0" for n in mapping} == set(names)
                tf.train.init_from_checkpoint(prefix, mapping)
            session.run(tf.global_variables_initializer())
            if is_first:
                tf.train.Saver().save(session, prefix)
            results.append(session.run(model.get_pooled_output()))
    np.testing.assert_allclose(*results, atol=1e-6)
