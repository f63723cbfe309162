"""Restore reports, stripping of slots, and what a checkpoint may not be."""

import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints

TABLE = "bert/embeddings/word_embeddings"
KERNEL = "bert/encoder/layer_shared/dense/kernel"
POOLER = "bert/pooler/dense/kernel"
MASKED_LM = "cls/predictions/output_bias"
HEAD = "output_weights"


def save(prefix, shapes, step=None):
    """Writes a checkpoint with these variables, all ones; returns its prefix."""
    with tf.Graph().as_default(), tf.Session() as session:
        for name, shape in shapes.items():
            tf.get_variable(name, shape, initializer=tf.ones_initializer())
        if step is not None:
            tf.get_variable("global_step", initializer=np.int64(step))
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, str(prefix))


def variables(shapes):
    return [
        tf.get_variable(name, shape, initializer=tf.zeros_initializer())
        for name, shape in shapes.items()
    ]


def test_report_names_restored_missing_and_unused(tmp_path):
    prefix = save(
        tmp_path / "model.ckpt",
        {TABLE: [5, 2], KERNEL: [2, 2], "old/head": [3], TABLE + "/adam_m": [5, 2]},
        step=7,
    )
    with tf.Graph().as_default(), tf.Session() as session:
        graph = variables({TABLE: [5, 2], KERNEL: [2, 2], HEAD: [2, 2]})
        report = checkpoints.plan_restore(prefix, graph)
        assert report.restored == [TABLE, KERNEL]
        assert report.missing == [HEAD]
        assert report.unused == ["old/head"]
        assert report.parameters == 14
        text = str(report)
        assert "2 variables restored (14 parameters), 1 missing, 1 unused" in text
        assert HEAD in text and "old/head" in text and "adam_m" not in text
        assert checkpoints.restore(prefix, graph) is None
        session.run(tf.global_variables_initializer())
        values = session.run(graph)
    np.testing.assert_array_equal(values[0], np.ones([5, 2]))
    np.testing.assert_array_equal(values[2], np.zeros([2, 2]))


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize(
    "shapes,words",
    [
        ({TABLE: [5, 3]}, r"shape \[5, 2\], this config expects"),
        ({KERNEL + "_2": [2, 2]}, "kernel_2 is missing"),
        ({POOLER: [3, 3]}, r"pooler/dense/kernel has shape \[2, 2\]"),
        ({MASKED_LM: [6]}, r"output_bias has shape \[5\]"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(
    tmp_path, shapes, words, allow_missing
):
    prefix = save(
        tmp_path / "model.ckpt",
        {TABLE: [5, 2], KERNEL: [2, 2], POOLER: [2, 2], MASKED_LM: [5]},
    )
    with tf.Graph().as_default():
        with pytest.raises(UserError, match=words):
            checkpoints.plan_restore(prefix, variables(shapes), allow_missing)


def test_pooler_and_pretraining_heads_are_new_only_where_that_is_allowed(tmp_path):
    prefix = save(tmp_path / "model.ckpt", {TABLE: [5, 2]})
    shapes = {TABLE: [5, 2], POOLER: [2, 2], MASKED_LM: [5], HEAD: [2, 2]}
    with tf.Graph().as_default(), tf.Session() as session:
        graph = variables(shapes)
        words = (
            r"lacks bert/pooler \(1 variables\), cls/predictions \(1 var.*--allow_mis"
        )
        with pytest.raises(UserError, match=words):
            checkpoints.restore(prefix, graph)
        report = checkpoints.plan_restore(prefix, graph, allow_missing=True)
        assert report.missing == sorted([POOLER, MASKED_LM, HEAD])
        checkpoints.restore(prefix, graph, allow_missing=True)
        session.run(tf.global_variables_initializer())
        table, *others = session.run(graph)
    np.testing.assert_array_equal(table, np.ones([5, 2]))
    assert not any(other.any() for other in others)


def test_head_of_another_shape_starts_anew(tmp_path):
    prefix = save(tmp_path / "model.ckpt", {TABLE: [5, 2], HEAD: [3, 2]})
    with tf.Graph().as_default(), tf.Session() as session:
        graph = variables({TABLE: [5, 2], HEAD: [2, 2]})
        assert checkpoints.plan_restore(prefix, graph).missing == [HEAD]
        checkpoints.restore(prefix, graph)
        session.run(tf.global_variables_initializer())
        np.testing.assert_array_equal(session.run(graph[0]), np.ones([5, 2]))


def test_missing_checkpoint_names_flag_and_path(tmp_path):
    with pytest.raises(UserError, match="--init_checkpoint: no readable.*nothing"):
        checkpoints.read_shapes(str(tmp_path / "nothing"))


def test_stripped_checkpoint_has_the_model_and_the_step_only(tmp_path):
    prefix = save(
        tmp_path / "model.ckpt",
        {TABLE: [5, 2], TABLE + "/adam_m": [5, 2], TABLE + "/adam_v": [5, 2]},
        step=42,
    )
    (tmp_path / "best").mkdir()
    stripped = checkpoints.write_stripped(prefix, str(tmp_path / "best/model.ckpt"))
    assert stripped.endswith("model.ckpt-42")
    assert checkpoints.latest_checkpoint(str(tmp_path / "best")) == stripped
    assert checkpoints.read_shapes(stripped) == {TABLE: [5, 2], "global_step": []}
    np.testing.assert_array_equal(
        tf.train.load_variable(stripped, TABLE), np.ones([5, 2])
    )


def test_stripped_checkpoint_is_found_where_its_directory_moved(tmp_path):
    prefix = save(tmp_path / "model.ckpt", {TABLE: [5, 2]}, step=1)
    (tmp_path / "best").mkdir()
    checkpoints.write_stripped(prefix, str(tmp_path / "best/model.ckpt"))
    (tmp_path / "best").rename(tmp_path / "moved")
    latest = checkpoints.latest_checkpoint(str(tmp_path / "moved"))
    assert latest == str(tmp_path / "moved" / "model.ckpt-1")


def test_damaged_data_is_found_before_the_work(tmp_path):
    prefix = save(tmp_path / "model.ckpt", {TABLE: [500, 20]})
    checkpoints.check_readable(prefix)
    (data,) = tmp_path.glob("model.ckpt.data*")
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(UserError, match="model.ckpt is damaged"):
        checkpoints.check_readable(prefix)
    data.unlink()
    with pytest.raises(UserError, match="model.ckpt.data-00000-of-00001 is missing"):
        checkpoints.check_readable(prefix)


def test_every_shard_of_the_data_is_looked_for(tmp_path):
    prefix = str(tmp_path / "[1] model.ckpt")
    (tmp_path / "[1] model.ckpt.data-00002-of-00003").write_bytes(b"")
    (tmp_path / "[1] model.ckpt-5.index").write_bytes(b"")
    assert checkpoints.missing_files(prefix) == [
        prefix + ".index",
        prefix + ".data-00000-of-00003",
        prefix + ".data-00001-of-00003",
    ]


@pytest.mark.parametrize("step", [None, 0, 1234567890123])
def test_step_is_read(tmp_path, step):
    prefix = save(tmp_path / "model.ckpt", {TABLE: [5, 2]}, step=step)
    assert checkpoints.read_step(prefix) == step


def test_latest_checkpoint_of_an_empty_or_broken_directory(tmp_path):
    assert checkpoints.latest_checkpoint(str(tmp_path / "absent")) is None
    assert checkpoints.latest_checkpoint(str(tmp_path)) is None
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone-1"\n')
    with pytest.raises(UserError, match="which does not exist"):
        checkpoints.latest_checkpoint(str(tmp_path))


def write(prefix, tensors):
    """Writes tensors as they are; returns the prefix."""
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in tensors.items():
            tf.get_variable(name, initializer=value, use_resource=False)
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, str(prefix))


@pytest.mark.parametrize(
    "step, words",
    [
        (np.int64(-1), "its global_step is -1, expected"),
        (np.float32(5), r"float32 of shape \[\], expected"),
        (np.array([5, 6]), r"int64 of shape \[2\], expected"),
        (np.array("5"), r"string of shape \[\], expected"),
    ],
)
def test_a_step_that_is_none_is_one_line(tmp_path, step, words):
    prefix = write(tmp_path / "model.ckpt", {TABLE: np.ones(2), "global_step": step})
    for read in (checkpoints.read_step, checkpoints.read_tensors):
        with pytest.raises(UserError, match=words):
            read(prefix)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_none_name_their_variable(tmp_path, value, dtype):
    table = np.ones([50, 20], dtype)
    table[7, 7] = value
    prefix = write(tmp_path / "model.ckpt", {"a": np.arange(3), TABLE: table})
    # As they are for a reader that compares.
    assert not np.isfinite(checkpoints.read_tensors(prefix)[TABLE]).all()
    words = r"model.ckpt: {} holds NaN or infinity \(1 of 1,000 values\)".format(TABLE)
    with pytest.raises(UserError, match=words):
        checkpoints.check_readable(prefix)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.bool_])
def test_a_variable_of_another_type_is_one_line(tmp_path, dtype):
    prefix = write(tmp_path / "model.ckpt", {TABLE: np.ones([5, 2], dtype)})
    words = "{} is {}, expected float32".format(TABLE, np.dtype(dtype).name)
    with tf.Graph().as_default(), pytest.raises(UserError, match=words):
        checkpoints.restore(prefix, variables({TABLE: [5, 2]}))


def test_a_directory_stands_for_the_checkpoint_that_it_names(tmp_path):
    save(tmp_path / "model.ckpt", {TABLE: [5, 2]}, step=3)
    directory = str(tmp_path)
    assert checkpoints.read_step(directory) == 3
    checkpoints.check_readable(directory)
    with tf.Graph().as_default(), tf.Session() as session:
        (table,) = graph = variables({TABLE: [5, 2]})
        checkpoints.restore(directory, graph)
        session.run(tf.global_variables_initializer())
        np.testing.assert_array_equal(session.run(table), np.ones([5, 2]))


@pytest.mark.skipif(sys.platform == "darwin", reason="it has UTF-8 names only")
def test_a_path_that_tensorflow_does_not_take_is_one_line(tmp_path):
    save(tmp_path / "model.ckpt", {TABLE: [5, 2]})
    directory = os.fsdecode(os.fsencode(str(tmp_path / "model")) + b"\xff")
    os.mkdir(directory)
    for path in tmp_path.glob("model.ckpt*"):
        shutil.copy(str(path), directory)
    with pytest.raises(UserError, match=r"udcff/model.ckpt' is not UTF-8; rename it"):
        checkpoints.check_readable(os.path.join(directory, "model.ckpt"))


def test_a_pipe_for_a_file_is_one_line(tmp_path):
    prefix = save(tmp_path / "model.ckpt", {TABLE: [5, 2]})
    for path in tmp_path.glob("model.ckpt.[di]*"):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(str(path))
        with pytest.raises(UserError, match="no ordinary file"):
            checkpoints.check_readable(prefix)
        path.unlink()
        path.write_bytes(content)


def test_a_checkpoint_is_tried_again_when_its_files_change(tmp_path):
    prefix = save(tmp_path / "model.ckpt", {TABLE: [5, 2]})
    checkpoints.check_readable(prefix)
    (data,) = tmp_path.glob("model.ckpt.data*")
    damaged = bytearray(data.read_bytes())
    damaged[3] ^= 0xFF
    data.write_bytes(bytes(damaged))
    with pytest.raises(UserError, match="is damaged"):
        checkpoints.check_readable(prefix)


def test_a_killed_first_save_is_still_a_beginning(tmp_path):
    (tmp_path / "model.ckpt-0_temp_0123").mkdir()
    (tmp_path / "model.ckpt-0.index.tempstate0123").write_bytes(b"")
    (tmp_path / "albert_model.ckpt.index").write_bytes(b"")
    assert checkpoints.latest_checkpoint(str(tmp_path)) is None
    (tmp_path / "model.ckpt-0.index").write_bytes(b"")
    with pytest.raises(UserError, match="checkpoint is missing, although"):
        checkpoints.latest_checkpoint(str(tmp_path))


def test_a_run_killed_before_its_first_state_goes_on_from_its_checkpoint(tmp_path):
    prefix = save(tmp_path / "model.ckpt-3", {TABLE: [5, 2]}, step=3)
    (tmp_path / "checkpoint").unlink()
    directory = str(tmp_path)
    assert checkpoints.latest_checkpoint(directory) == prefix
    assert checkpoints.resume_step(prefix, directory) == 3
    # Estimator finds it, too.
    assert tf.train.latest_checkpoint(directory) == prefix
    # Which of two would be a guess.
    save(tmp_path / "model.ckpt-4", {TABLE: [5, 2]}, step=4)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(UserError, match="checkpoint is missing, although"):
        checkpoints.latest_checkpoint(directory)


@pytest.mark.parametrize(
    "name,expected",
    [
        ("bert/pooler/dense/kernel/adam_m", True),
        ("bert/pooler/dense/kernel/adam_v", True),
        ("global_step", True),
        ("beta_1_power", True),
        ("bert/pooler/dense/kernel", False),
        ("output_bias", False),
    ],
)
def test_training_state_is_told_from_the_model(name, expected):
    assert checkpoints.is_training_state(name) == expected


@pytest.mark.real_data
def test_graph_takes_every_variable_of_the_released_albert_tiny_zh(real_data):
    """Names and shapes of the released index equal those of the graph built here."""
    import modeling

    folder = real_data / "albert_tiny_zh_meta"
    config = modeling.AlbertConfig.from_json_file(
        str(folder / "albert_config_tiny.json")
    )
    with tf.Graph().as_default():
        ids = tf.zeros([1, 8], tf.int32)
        model = modeling.AlbertModel(config, False, ids)
        modeling.get_masked_lm_output(config, model, ids, ids, tf.ones([1, 8]))
        modeling.get_sentence_order_output(config, model, tf.zeros([1], tf.int32))
        report = checkpoints.plan_restore(
            str(folder / "albert_model.ckpt"), tf.trainable_variables()
        )
    assert (report.missing, report.unused) == ([], [])
    assert len(report.restored) == 31
    assert report.parameters == 4295186
