"""Batches that this machine cannot hold are refused with advice that works."""

import re

import pytest
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.base.errors import UserError
from albert_zh.training import memory
from tests.small_models import CONFIG

BASE = modeling.AlbertConfig(
    vocab_size=100,
    embedding_size=128,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
    ln_type="postln",
)
RECOMPUTING = modeling.Numerics(recompute=True)


def test_the_estimate_is_near_what_was_measured():
    """albert_base, length 512: 552 MB a sequence, 133 MB with recomputed layers."""
    assert 0.5 < memory.sequence_bytes(BASE, 512, modeling.FLOAT32) / 552e6 < 2
    assert 0.5 < memory.sequence_bytes(BASE, 512, RECOMPUTING) / 133e6 < 2
    half = memory.sequence_bytes(BASE, 512, modeling.Numerics(tf.bfloat16))
    assert half == memory.sequence_bytes(BASE, 512, modeling.FLOAT32) / 2


@pytest.mark.parametrize("numerics", [modeling.FLOAT32, RECOMPUTING])
def test_the_advised_micro_batch_fits_and_divides_the_batch(numerics):
    with pytest.raises(UserError, match="96 sequences of 512 tokens") as caught:
        memory.check_batch(BASE, 512, 96, numerics, memory=4e9)
    advised = int(re.search("--micro_batch_size=([0-9]+)", str(caught.value)).group(1))
    assert 96 % advised == 0 and advised > 1
    memory.check_batch(BASE, 512, advised, numerics, memory=4e9)


def test_where_no_sequence_fits_the_layers_are_to_be_recomputed():
    with pytest.raises(UserError, match="--micro_batch_size=1 and --recompute=lay"):
        memory.check_batch(BASE, 512, 4, modeling.FLOAT32, memory=3e8)
    memory.check_batch(BASE, 512, 1, RECOMPUTING, memory=3e8)
    with pytest.raises(UserError, match="GB; add --recompute=layers, which gives"):
        memory.check_batch(BASE, 512, 1, modeling.FLOAT32, memory=3e8)


@pytest.mark.parametrize("numerics", [modeling.FLOAT32, RECOMPUTING])
def test_where_not_even_that_helps_nothing_is_advised(numerics):
    with pytest.raises(UserError, match="give a smaller --max_seq_length, or a small"):
        memory.check_batch(BASE, 512, 4, numerics, memory=1e7)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.9, 1.5, 20.0])
def test_what_is_advised_works_at_once(share):
    """With memory for so many sequences of all layers."""
    size = share * memory.sequence_bytes(BASE, 512, modeling.FLOAT32)
    with pytest.raises(UserError) as caught:
        memory.check_batch(BASE, 512, 96, modeling.FLOAT32, memory=size)
    advice = str(caught.value)
    if "add" in advice:
        micro = re.search("--micro_batch_size=([0-9]+)", advice)
        recompute = "--recompute=layers" in advice
        numerics = modeling.Numerics(recompute=recompute)
        memory.check_batch(BASE, 512, int(micro.group(1)), numerics, memory=size)
    else:
        with pytest.raises(UserError):
            memory.check_batch(BASE, 512, 1, RECOMPUTING, memory=size)


def test_a_container_s_limit_counts(tmp_path, monkeypatch):
    limit, unlimited = tmp_path / "limit", tmp_path / "unlimited"
    limit.write_text("300000000\n")
    unlimited.write_text("max\n")
    paths = [str(unlimited), str(tmp_path / "absent"), str(limit)]
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", paths[:2])
    memory.check_batch(BASE, 512, 1, modeling.FLOAT32)
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", paths)
    with pytest.raises(UserError, match="--recompute=layers"):
        memory.check_batch(BASE, 512, 1, modeling.FLOAT32)


def test_the_limit_is_the_memory_itself():
    needed = 4096 * memory.sequence_bytes(CONFIG, 8, modeling.FLOAT32)
    memory.check_batch(CONFIG, 8, 4096, modeling.FLOAT32, memory=needed)
    with pytest.raises(UserError, match="--micro_batch_size=1024"):
        memory.check_batch(CONFIG, 8, 4096, modeling.FLOAT32, memory=needed - 1)
