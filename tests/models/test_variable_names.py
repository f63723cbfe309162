"""Checkpoints with the names of Keras, of TensorFlow Hub, and of another scope."""

import json
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import convert_checkpoint
import inspect_checkpoint
import modeling
import tokenization
from albert_zh import command_line
from albert_zh.base.errors import UserError
from albert_zh.models import architecture, checkpoints, model_graph

SETTINGS = dict(
    vocab_size=20,
    embedding_size=4,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=8,
    num_hidden_groups=2,
)
CONFIG = modeling.AlbertConfig(**SETTINGS)


def keras(name):
    """Norms are counted over the model, layers are in the path."""

    def norm(match):
        group, second = int(match.group(1)), match.group(2)
        count = 1 + 2 * group + (1 if second else 0)
        return "group_{0}/layer_{0}/inner_group_0/layer_normalization_{1}/".format(
            group, count
        )

    name = re.sub(r"group_(\d+)/inner_group_0/LayerNorm(_1)?/", norm, name)
    name = name.replace("transform/LayerNorm/", "transform/layer_normalization_9/")
    return name.replace("embeddings/LayerNorm/", "embeddings/layer_normalization/")


def hub(name):
    return re.sub(r"/group_(\d+)/", r"/group_\1_11/layer_11/", name)


def module(name):
    return name if name == "global_step" else "module/" + name


def albert(name):
    return name.replace("bert/", "albert/", 1)


def tensors():
    """{name: value} of a model with its pretraining heads and one slot."""
    random = np.random.RandomState(0)
    heads = model_graph.pretraining_heads(CONFIG)
    values = {
        variable.op.name: random.normal(size=variable.shape.as_list())
        for variable in model_graph.trainable_variables(CONFIG, heads)
    }
    norm = "bert/embeddings/LayerNorm/beta"
    values[norm + "/adam_m"] = values[norm]
    values = {name: value.astype(np.float32) for name, value in values.items()}
    return dict(values, global_step=np.int64(5))


def write(folder, rename):
    folder.mkdir()
    (folder / "albert_config.json").write_text(json.dumps(SETTINGS))
    entries = list(tokenization.SPECIAL_TOKENS) + list("一二三四五六七八九十甲乙丙丁戊")
    (folder / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    renamed = {rename(name): value for name, value in tensors().items()}
    assert len(renamed) == len(tensors())
    return checkpoints.write_tensors(renamed, str(folder / "model.ckpt"))


@pytest.mark.parametrize("rename", [keras, hub, module])
def test_names_of_other_releases_load(tmp_path, rename, capsys):
    expected = tensors()
    prefix = write(tmp_path / "model", rename)
    renamed = modeling.usual_names(rename(name) for name in expected)
    assert set(renamed.values()) == set(expected)
    with tf.Graph().as_default(), tf.Session() as session:
        model = modeling.AlbertModel(CONFIG, False, tf.zeros([1, 2], tf.int32))
        model_graph.pretraining_heads(CONFIG)(model)
        variables = tf.trainable_variables()
        architecture.check(prefix, CONFIG)
        checkpoints.restore(prefix, variables)
        session.run(tf.global_variables_initializer())
        for variable, value in zip(variables, session.run(variables)):
            np.testing.assert_array_equal(value, expected[variable.op.name])
    with tf.Graph().as_default():
        modeling.AlbertModel(CONFIG, False, tf.zeros([1, 2], tf.int32))
        variables = tf.trainable_variables()
        mapping, names = modeling.get_assignment_map_from_checkpoint(variables, prefix)
        assert {v.name for v in variables} < set(names)
        assert set(mapping) == {rename(v.op.name) for v in variables}
        tf.train.init_from_checkpoint(prefix, mapping)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for variable, value in zip(variables, session.run(variables)):
                np.testing.assert_array_equal(value, expected[variable.op.name])
    held = checkpoints.read_tensors(prefix, keep_training_state=True)
    assert set(held) == set(expected)
    parser = inspect_checkpoint.build_parser()
    command_line.run(inspect_checkpoint.main, parser, [str(tmp_path / "model")])
    report = capsys.readouterr().out
    assert re.search("config beside it +albert_config.json fits", report)
    assert re.search("other variables +none", report)
    assert re.search("optimizer slots +1", report)


def test_another_scope_is_named_and_its_hint_works(tmp_path, capsys):
    prefix = write(tmp_path / "model", albert)
    with pytest.raises(UserError, match="in the variable scope albert") as raised:
        architecture.check(prefix, CONFIG)
    parser = inspect_checkpoint.build_parser()
    command_line.run(inspect_checkpoint.main, parser, [str(tmp_path / "model")])
    assert "does not fit: its encoder is in the variable" in capsys.readouterr().out
    flags = re.search("convert_checkpoint.py (--from.*?)`", str(raised.value)).group(1)
    flags = flags.split() + ["--input=" + str(tmp_path / "model")]
    flags.append("--output=" + str(tmp_path / "usual"))
    command_line.run(convert_checkpoint.main, convert_checkpoint.build_parser(), flags)
    (index,) = (tmp_path / "usual").glob("*.index")
    prefix = str(index)[: -len(".index")]
    architecture.check(prefix, CONFIG)
    held, expected = checkpoints.read_tensors(prefix), tensors()
    for name in set(expected) - {"bert/embeddings/LayerNorm/beta/adam_m"}:
        if name != "global_step":
            np.testing.assert_array_equal(held[name], expected[name])


def test_missing_variable_is_said_as_loading_says_it(tmp_path, capsys):
    write(tmp_path / "model", lambda name: name.replace("LayerNorm_1", "other"))
    parser = inspect_checkpoint.build_parser()
    command_line.run(inspect_checkpoint.main, parser, [str(tmp_path / "model")])
    assert re.search("does not fit: lacks 4: .*LayerNorm_1", capsys.readouterr().out)


def test_a_name_that_is_taken_is_not_given_twice():
    names = ["a/layer_normalization/beta", "a/LayerNorm/beta", "a/kernel"]
    assert modeling.usual_names(names) == {name: name for name in names}
