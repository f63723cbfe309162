"""Files of other tools with wrong types, odd sizes and damage: one line, or read."""

import json
import shutil
import struct

import numpy as np
import pytest
from damaged_json import contents

import modeling
from albert_zh.base.errors import UserError
from albert_zh.interop import state_dict_format, weights_files
from albert_zh.interop.model import Model
from albert_zh.models import model_graph

CONFIG = modeling.AlbertConfig(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=12,
    embedding_size=4,
    num_hidden_groups=1,
)
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENS += [chr(0x4E00 + number) for number in range(25)]
# In a config.json beside what `write` writes.
MORE_CONFIG = {
    "id2label": {"0": "a", "1": "b"},
    "problem_type": None,
    "task_specific_params": {
        "albert_zh": {
            "task_name": "pair",
            "labels": ["a", "b"],
            "max_seq_length": 8,
            "do_lower_case": True,
            "normalize_punctuation": False,
        }
    },
}
FILES = {
    "tokenizer_config.json": {
        "do_lower_case": True,
        "tokenizer_class": "BertTokenizer",
        "added_tokens_decoder": {"0": {"content": "[PAD]"}},
        "strip_accents": None,
    },
    "tokenizer.json": {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "[PAD]"}],
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "model": {
            "type": "WordPiece",
            "vocab": {token: number for number, token in enumerate(TOKENS[:7])},
        },
    },
    "model.safetensors.index.json": {
        "metadata": {"total_size": 1},
        "weight_map": {"albert.pooler.weight": "a.safetensors"},
    },
    "added_tokens.json": {"新": 30},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Directory of a Hugging Face model."""
    pytest.importorskip("safetensors")
    random = np.random.RandomState(0)
    heads = model_graph.pretraining_heads(CONFIG)
    tensors = {
        variable.op.name: random.normal(size=variable.shape.as_list())
        for variable in model_graph.trainable_variables(CONFIG, heads)
    }
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    directory = tmp_path_factory.mktemp("model")
    vocabulary = "".join(token + "\n" for token in TOKENS).encode("utf-8")
    content = Model(CONFIG, tensors, vocabulary=vocabulary)
    state_dict_format.write(state_dict_format.HUGGING_FACE, content, str(directory))
    return directory


def read(directory):
    """Reads a model; returns whether it could be read."""
    try:
        state_dict_format.read(state_dict_format.HUGGING_FACE, str(directory))
    except UserError as error:
        line = str(error)
        assert "\n" not in line and line.isprintable()
        assert str(directory) in line or "label" in line or "must be" in line
        return False
    return True


@pytest.mark.parametrize("name", ["config.json"] + list(FILES))
def test_json_of_other_tools(model, tmp_path, name):
    directory = tmp_path / "model"
    shutil.copytree(str(model), str(directory))
    if name == "config.json":
        right = dict(json.loads((model / name).read_text()), **MORE_CONFIG)
    else:
        right = FILES[name]
    if name.startswith("model."):
        (directory / "model.safetensors").rename(directory / "a.safetensors")
    if name == "tokenizer.json":
        (directory / "vocab.txt").unlink()
    (directory / name).write_text(json.dumps(right))
    assert read(directory)
    results = []
    for _, content in contents(right):
        (directory / name).write_bytes(content)
        results.append(read(directory))
    assert len(results) >= 38 and results.count(False) >= 0.5 * len(results)


HEADER = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def test_safetensors_with_an_odd_header(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    tried = 0
    for _, header in [("right", json.dumps(HEADER).encode())] + list(contents(HEADER)):
        for size in (len(header), 0, 1, 2**31, 2**63, 2**64 - 1):
            path.write_bytes(struct.pack("<Q", size) + header + bytes(24))
            tried += 1
            try:
                state = weights_files.read_state(str(tmp_path))
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert all(isinstance(value, np.ndarray) for value in state.values())
    assert tried > 800


def test_safetensors_with_a_flipped_or_missing_byte(model, tmp_path):
    content = bytearray((model / "model.safetensors").read_bytes())
    path = tmp_path / "model.safetensors"
    random = np.random.RandomState(0)
    for place in random.randint(0, 600, size=200):
        changed = content[:]
        changed[place] ^= 1 << random.randint(8)
        for damaged in (changed, content[:place]):
            path.write_bytes(damaged)
            try:
                weights_files.read_state(str(tmp_path))
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)
