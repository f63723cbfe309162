"""Index files of checkpoints: as TensorFlow reads them, and made to do harm."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.models import bundles, checkpoints
from benchmarks import crafted_checkpoints

NAMES = ["bert/embeddings/word_embeddings", "global_step"]
TENSORS = {
    NAMES[0]: np.ones([5, 2], np.float32),
    "a": np.zeros([0, 3], np.float16),
    "b": np.array(True),
    "c": np.arange(3, dtype=np.int32),
    NAMES[1]: np.int64(7),
}


@pytest.fixture
def prefix(tmp_path):
    return checkpoints.write_tensors(TENSORS, str(tmp_path / "model.ckpt"))


def test_an_index_says_what_tensorflow_reads(prefix):
    index = bundles.read_index(prefix + ".index")
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    assert {n: list(t.shape) for n, t in index.tensors.items()} == shapes
    types = reader.get_variable_to_dtype_map()
    assert {n: t.dtype for n, t in index.tensors.items()} == types
    assert index.num_shards == 1
    with open(prefix + ".data-00000-of-00001", "rb") as source:
        data = source.read()
    for name, value in TENSORS.items():
        tensor = index.tensors[name]
        held = data[tensor.offset : tensor.offset + tensor.size]
        assert held == np.asarray(value).tobytes()


def test_an_index_of_many_blocks_and_shared_beginnings(tmp_path):
    names = ["bert/encoder/layer_{}/".format(n) + "x" * 900 for n in range(400)]
    tensors = {name: np.float32(1) for name in names}
    prefix = checkpoints.write_tensors(tensors, str(tmp_path / "model.ckpt"))
    assert list(bundles.read_index(prefix + ".index").tensors) == sorted(
        names + ["global_step"]
    )
    checkpoints.check_readable(prefix)


def test_no_crafted_index_ends_the_process(prefix):
    pairs = crafted_checkpoints.read_pairs(prefix + ".index")
    crafted_checkpoints.write(pairs, prefix + ".index")
    assert checkpoints.read_step(prefix) == 7
    passed, number = [], 0
    for what, data in crafted_checkpoints.crafted(pairs, NAMES):
        number += 1
        with open(prefix + ".index", "wb") as target:
            target.write(data)
        try:
            checkpoints.check_readable(prefix)
            checkpoints.read_step(prefix)
        except UserError as error:
            assert prefix in str(error) and "\n" not in str(error), what
        else:
            passed.append(what)
    assert number >= 144
    # Text is not read; a step of another type of as many bytes, and none, may be; and
    # one of these is as it was.
    assert passed == [
        NAMES[0] + ": dtype 7",
        "global_step: dtype 23",
        "global_step: shape []",
        "nothing but a header",
    ]


def test_a_step_beyond_64_bits_is_one_line(tmp_path):
    """As uint64 the bytes of -1 are the largest number; int64 has no such one."""
    tensors = {"global_step": np.int64(-1)}
    prefix = checkpoints.write_tensors(tensors, str(tmp_path / "model.ckpt"))
    pairs = crafted_checkpoints.read_pairs(prefix + ".index")
    crafted = dict(crafted_checkpoints.crafted(pairs, ["global_step"]))
    with open(prefix + ".index", "wb") as target:
        target.write(crafted["global_step: dtype 23"])
    with pytest.raises(UserError, match="global_step is 18446744073709551615, expec"):
        checkpoints.read_step(prefix)


def test_what_tensorflow_dies_of_is_one_line(prefix, monkeypatch):
    """Where the strict reading lets something pass, the copy dies alone."""

    def die(name):
        __import__("os").abort()

    monkeypatch.setattr(tf.train, "load_checkpoint", die)
    for read in (checkpoints.check_readable, checkpoints.read_step):
        with pytest.raises(UserError, match="TensorFlow cannot read it .signal 6"):
            read(prefix)


def test_a_tensor_as_large_as_its_sparse_file_is_one_line(tmp_path):
    """The memory for it is not there."""
    prefix = checkpoints.write_tensors(TENSORS, str(tmp_path / "model.ckpt"))
    pairs = crafted_checkpoints.read_pairs(prefix + ".index")
    crafted = dict(crafted_checkpoints.crafted(pairs, NAMES[:1]))
    with open(prefix + ".index", "wb") as target:
        target.write(crafted[NAMES[0] + ": shape [1099511627776] and its size"])
    with open(prefix + ".data-00000-of-00001", "r+b") as data:
        data.truncate(5 * 2**40)
    with pytest.raises(UserError, match="is damaged"):
        checkpoints.check_readable(prefix)


@pytest.mark.parametrize("size", [2**24 + 1, 2**40])
def test_an_index_larger_than_any_is_not_read(prefix, size):
    with open(prefix + ".index", "r+b") as index:
        index.truncate(size)
    with pytest.raises(UserError, match="more than any valid index"):
        checkpoints.read_shapes(prefix)
