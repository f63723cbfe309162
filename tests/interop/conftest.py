"""Model directories that the conversion tests begin with."""

import json
import shutil

import pytest

import modeling
from benchmarks import head_to_head
from tests.converted_models import HEADS


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """Function: the directory of a config's model with random weights, made once."""
    folder = tmp_path_factory.mktemp("random")
    made = {}

    def find(config, heads):
        key = config.to_json_string(), heads
        if key not in made:
            made[key] = str(folder / str(len(made)))
            head_to_head.write_random_model(made[key], config, heads)
        return made[key]

    return find


@pytest.fixture
def write(tmp_path, random_model):
    """Function: writes a model directory with a vocabulary; returns its path."""

    def write_model(settings, heads=HEADS, name="source", entries=None, labels=None):
        directory = tmp_path / name
        config = modeling.AlbertConfig(**settings)
        shutil.copytree(random_model(config, heads), str(directory))
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        entries = config.vocab_size if entries is None else entries
        tokens += [chr(0x4E00 + index) for index in range(entries - len(tokens))]
        text = "".join(token + "\n" for token in tokens)
        (directory / "vocab.txt").write_text(text, encoding="utf-8")
        if labels:
            (directory / "labels.json").write_text(json.dumps(labels))
        return str(directory)

    return write_model
