"""Small models of every dialect, and how the conversion tests convert them."""

import json
import pathlib

import numpy as np

from albert_zh.interop import conversion
from albert_zh.interop.model import Options
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from benchmarks import head_to_head

SMALL = dict(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=12,
)
GOOGLE = dict(SMALL, embedding_size=4, num_hidden_groups=2, inner_group_num=2)
ALBERT_ZH = dict(SMALL, embedding_size=4, ln_type="postln")
HEADS = head_to_head.HEADS
LABELS = {
    "task_name": "pair",
    "labels": ["差", "好", "中"],
    "do_lower_case": True,
    "normalize_punctuation": False,
    "max_seq_length": 12,
}


def convert(source_format, target_format, source, name="target", **options):
    target = str(pathlib.Path(source).parent / name)
    options = Options(**options)
    conversion.convert(source_format, target_format, source, target, options)
    return target


def weights(directory):
    prefix = model_directory.find(directory).checkpoint
    tensors = checkpoints.read_tensors(prefix)
    tensors.pop("global_step", None)
    return tensors


def assert_same_model(directory, other):
    ours, theirs = weights(directory), weights(other)
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in ("albert_config.json", "vocab.txt"):
        first, second = (pathlib.Path(path, name) for path in (directory, other))
        assert first.read_bytes() == second.read_bytes()


def edit_json(path, **changes):
    settings = json.loads(pathlib.Path(path).read_text("utf-8"))
    settings.update(changes)
    pathlib.Path(path).write_text(json.dumps(settings), "utf-8")
