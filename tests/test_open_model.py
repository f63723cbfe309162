"""The model in `resources/albert_tiny_open`: whole, of use, and readable elsewhere."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

import albert_zh
import modeling
import tokenization
from albert_zh.models import architecture, checkpoints, directory
from benchmarks import head_to_head, keras_loaders

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
MODEL = REPOSITORY / "resources" / "albert_tiny_open"
CARDS = ("docs/model_card.md", "docs/model_card_en.md")
MAX_BYTES = 12e6
# The character that belongs in the place of [MASK].
SENTENCES = (
    ("今天天[MASK]很好。", "气"),
    ("我们要好好学[MASK]。", "习"),
    ("他在医[MASK]工作，是一名医生。", "院"),
    ("请问这个问[MASK]怎么解决？", "题"),
    ("中国的首都是北[MASK]。", "京"),
    ("我觉得自己压力很[MASK]。", "大"),
    ("这件事情让我感到非[MASK]难过。", "常"),
    ("你可[MASK]告诉我发生了什么吗？", "以"),
    ("因为下雨，所[MASK]我们没有出门。", "以"),
    ("老师和学[MASK]一起在教室里上课。", "生"),
)
# How many of them the model fills in right, as its card says.
NUM_RIGHT = 4
# The largest share of [UNK] that the vocabulary is allowed on real text.
MAX_UNKNOWN = 0.005


@pytest.fixture(scope="module")
def found():
    return directory.find(str(MODEL))


def unknown_share(texts):
    tokenizer = tokenization.FullTokenizer(str(MODEL / "vocab.txt"))
    tokens = [token for text in texts for token in tokenizer.tokenize(text)]
    assert len(tokens) > 10000
    return tokens.count("[UNK]") / len(tokens)


@pytest.mark.parametrize("card", CARDS)
def test_the_card_names_the_checksums(card):
    text = (REPOSITORY / card).read_text(encoding="utf-8")
    for name in ("model.ckpt-8000.data-00000-of-00001", "vocab.txt"):
        checksum = hashlib.sha256((MODEL / name).read_bytes()).hexdigest()
        assert "{}  {}".format(checksum, name) in text


def test_it_is_small_and_has_weights_and_heads_only(found):
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= MAX_BYTES
    shapes = checkpoints.read_shapes(found.checkpoint)
    slots = [name for name in shapes if checkpoints.is_training_state(name)]
    assert slots == ["global_step"]
    config = modeling.AlbertConfig.from_json_file(found.config_file)
    built = architecture.infer(shapes)
    assert (config.dialect, built.dialect) == ("google", "google")
    assert not architecture.differences(built, config)


def test_it_fills_in_simple_sentences():
    predictor = albert_zh.load(str(MODEL))
    right = 0
    for text, expected in SENTENCES:
        ((best,),) = predictor.fill_mask(text, top_k=1)
        right += best["token"] == expected
    assert right == NUM_RIGHT


def test_transformers_computes_the_same(run_command, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    there = str(tmp_path / "there")
    flags = ["--from=google", "--to=huggingface", "--input={}".format(MODEL)]
    result = run_command("convert_checkpoint.py", *flags, "--output=" + there)
    assert result.returncode == 0, result.stderr
    config = json.loads((MODEL / "albert_config.json").read_text())
    inputs = head_to_head.make_inputs(config["vocab_size"], length=32)
    heads = ("masked_lm", "sentence_order")
    expected = head_to_head.run_here(str(MODEL), inputs, heads)
    found = head_to_head.run_transformers(there, inputs, heads)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)


def test_bert4keras_computes_the_same(tmp_path):
    run = keras_loaders.run_bert4keras
    if not keras_loaders.is_installed(run):
        pytest.skip("bert4keras installs on Python 3.7 only")
    found = keras_loaders.compare_model(run, str(MODEL), 8192, str(tmp_path))
    assert set(found) == {"sequence", "pooled", "masked_lm", "sentence_order"}
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize(
    "name,read",
    [
        ("lcqmc/test.tsv", lambda line: "".join(line.split("\t")[:2])),
        ("cluener/dev.json", lambda line: json.loads(line)["text"]),
        ("open_corpus/heldout.txt", str),
    ],
)
def test_its_vocabulary_knows_the_characters_of_real_text(real_data, name, read):
    lines = (real_data / name).read_text(encoding="utf-8").splitlines()
    assert unknown_share(read(line) for line in lines if line) < MAX_UNKNOWN
