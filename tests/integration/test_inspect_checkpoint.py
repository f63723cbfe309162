"""`inspect_checkpoint.py` on small checkpoints and on the published tiny's index."""

import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inspect_checkpoint
import modeling
from albert_zh import command_line
from albert_zh.models import checkpoints

CONFIG = {
    "vocab_size": 1234,
    "embedding_size": 6,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 10,
    "cross_layer_sharing": "attention",
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """Directory with a config and a checkpoint of encoder, SOP head, slot, step."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "albert_config.json").write_text(json.dumps(CONFIG))
    config = modeling.AlbertConfig.from_dict(CONFIG)
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.zeros([1, 2], tf.int32)
        model = modeling.AlbertModel(config, False, ids)
        modeling.get_sentence_order_output(config, model, tf.zeros([1], tf.int32))
        tf.get_variable("bert/pooler/dense/bias/adam_m", [8])
        tf.get_variable("bert/pooler/dense/bias/adam_v", [8])
        tf.get_variable("global_step", initializer=tf.constant(98765, tf.int64))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / "model.ckpt"))
    return folder


def inspect(capsys, *flags):
    """Dict title -> text of the report."""
    parser = inspect_checkpoint.build_parser()
    command_line.run(inspect_checkpoint.main, parser, [str(flag) for flag in flags])
    lines = capsys.readouterr().out.splitlines()
    return {line[:26].strip(): line[26:] for line in lines}


@pytest.mark.parametrize(
    "name", ["", "model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001"]
)
def test_report_tells_what_the_checkpoint_holds(model_dir, capsys, name):
    report = inspect(capsys, model_dir / name)
    files = model_dir.glob("model.ckpt.[di]*")
    num_bytes = sum(path.stat().st_size for path in files)
    encoder = (
        # Tables and projection; LayerNorm; pooler.
        (1234 * 6 + 6 * 8 + 2 * 8 + 10 * 8 + 2 * 8)
        + (8 * 8 + 8)
        # One attention half, three feed-forward halves.
        + (4 * (8 * 8 + 8) + 2 * 8)
        + 3 * (8 * 16 + 16 + 16 * 8 + 8 + 2 * 8)
    )
    assert report == {
        "checkpoint": str(model_dir / "model.ckpt"),
        "dialect": "albert_zh",
        "vocab_size": "1,234",
        "embedding_size": "6",
        "hidden_size": "8",
        "intermediate_size": "16",
        "max_position_embeddings": "10",
        "type_vocab_size": "2",
        "cross_layer_sharing": "attention",
        "num_hidden_layers": "3",
        "encoder parameters": "{:,}".format(encoder),
        "parameters with heads": "{:,}".format(encoder + 2 * 8 + 2),
        "pooler": "yes",
        "heads": "sentence_order",
        "optimizer slots": "2",
        "other variables": "none",
        "global step": "98,765",
        "size on disk": "{:,} bytes (0.0 MB)".format(num_bytes),
        "config beside it": "albert_config.json fits",
        "fits of albert_config/": "none",
    }


def test_a_file_that_is_no_config_is_passed_over(
    model_dir, tmp_path, capsys, monkeypatch
):
    (tmp_path / "own.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (tmp_path / "broken.json").write_text("{")
    monkeypatch.setattr(inspect_checkpoint, "CONFIG_FILES", str(tmp_path / "*.json"))
    assert inspect(capsys, model_dir)["fits of albert_config/"] == "own.json"


def test_variables_of_no_known_part_are_not_the_models(model_dir, tmp_path, capsys):
    tensors = checkpoints.read_tensors(str(model_dir / "model.ckpt"))
    others = {
        "crf/trans": np.zeros([9, 9], np.float32),
        "bert/pooler/dense/bias/SomeOptimizer": np.zeros([8], np.float32),
    }
    prefix = checkpoints.write_tensors(
        dict(tensors, **others), str(tmp_path / "model.ckpt")
    )
    expected = inspect(capsys, model_dir)
    report = inspect(capsys, prefix)
    for title in ("encoder parameters", "parameters with heads", "heads"):
        assert report[title] == expected[title]
    assert report["other variables"] == (
        "2: bert/pooler/dense/bias/SomeOptimizer, crf/trans"
    )
    others.update({"crf/" + name: np.zeros([1], np.float32) for name in "ab"})
    prefix = checkpoints.write_tensors(
        dict(tensors, **others), str(tmp_path / "more.ckpt")
    )
    assert inspect(capsys, prefix)["other variables"] == (
        "4: bert/pooler/dense/bias/SomeOptimizer, crf/a, crf/b, ..."
    )


def test_several_checkpoints_name_no_flag_that_is_not_there(tmp_path, capsys):
    for name in ("a.ckpt.index", "b.ckpt.index"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SystemExit):
        inspect(capsys, tmp_path)
    line = capsys.readouterr().err
    assert "name one in the `checkpoint` file" in line and "--init" not in line


def test_a_config_of_another_model_is_told_by_its_differences(
    model_dir, tmp_path, capsys
):
    for path in model_dir.glob("model.ckpt.*"):
        (tmp_path / path.name).symlink_to(path)
    config = dict(CONFIG, hidden_size=12, cross_layer_sharing="none")
    (tmp_path / "albert_config.json").write_text(json.dumps(config))
    fit = inspect(capsys, tmp_path)["config beside it"]
    assert fit == (
        "albert_config.json does not fit: hidden_size is 8 here, 12 there; "
        "cross_layer_sharing is attention here, none there"
    )
    (tmp_path / "albert_config.json").write_text("{")
    assert "albert_config.json: " in inspect(capsys, tmp_path)["config beside it"]
    (tmp_path / "albert_config.json").unlink()
    assert inspect(capsys, tmp_path)["config beside it"] == "none"


def test_variables_are_listed(model_dir, run_command):
    result = run_command("inspect_checkpoint.py", model_dir, "--variables")
    assert result.returncode == 0, result.stderr
    listed = [line.split("\t") for line in result.stdout.splitlines() if "\t" in line]
    shapes = tf.train.list_variables(str(model_dir / "model.ckpt"))
    assert dict(listed) == {
        name: ", ".join(map(str, shape)) or "none" for name, shape in shapes
    }


def test_groups_may_be_layers_without_sharing(tmp_path, capsys):
    config = modeling.AlbertConfig(9, 8, 4, 2, 16, num_hidden_groups=2)
    with tf.Graph().as_default(), tf.Session() as session:
        modeling.AlbertModel(config, False, tf.zeros([1, 2], tf.int32))
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    report = inspect(capsys, prefix)
    assert report["num_hidden_groups"] == "2 (or as many layers without sharing)"
    assert report["num_hidden_layers"] == "not visible where layers are shared"
    assert report["global step"] == "none" and report["heads"] == "none"


@pytest.mark.parametrize(
    "what", ["nothing.ckpt", "empty", "foreign.ckpt", "index.ckpt"]
)
def test_what_cannot_be_inspected_is_one_line(tmp_path, capsys, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "index.ckpt.index").write_bytes(b"no index")
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("x", [2], initializer=tf.zeros_initializer())
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "foreign.ckpt"))
    with pytest.raises(SystemExit) as caught:
        inspect(capsys, tmp_path / what)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert what in line


def test_the_published_tiny_is_told_from_its_index(real_data, capsys):
    report = inspect(capsys, real_data / "albert_tiny_zh_meta")
    assert report["dialect"] == "albert_zh"
    assert report["parameters with heads"] == "4,295,186"
    assert report["heads"] == "masked_lm, sentence_order"
    assert report["config beside it"] == "albert_config_tiny.json fits"
    assert report["fits of albert_config/"] == "albert_config_tiny.json"
    assert "albert_model.ckpt.data-00000-of-00001 is missing" in report["size on disk"]
