"""convert_checkpoint.py: what has no exact counterpart is refused."""

import json
import os
import pathlib

import numpy as np
import pytest

import modeling
from albert_zh.base.errors import UserError
from albert_zh.interop import conversion
from albert_zh.interop.model import DEFAULT_OPTIONS
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from tests.converted_models import (
    ALBERT_ZH,
    GOOGLE,
    SMALL,
    assert_same_model,
    convert,
    weights,
)


@pytest.mark.parametrize(
    "settings,source_format,target_format,words",
    [
        (ALBERT_ZH, "albert_zh", "google", "position and segment embeddings"),
        (ALBERT_ZH, "albert_zh", "huggingface", "no exact conversion"),
        (GOOGLE, "google", "albert_pytorch", "no exact conversion"),
        (SMALL, "bert", "google", "expected --to=bert or huggingface"),
        (GOOGLE, "albert_zh", "albert_pytorch", "give --from=google"),
        (
            dict(ALBERT_ZH, ln_type="preln"),
            "albert_zh",
            "albert_pytorch",
            "shares all with preln",
        ),
        (
            dict(
                SMALL,
                embedding_size=4,
                num_hidden_groups=1,
                cross_layer_sharing="attention",
            ),
            "google",
            "huggingface",
            "share only attention",
        ),
        (dict(SMALL, cross_layer_sharing="all"), "bert", "huggingface", "no layers"),
    ],
)
def test_what_has_no_exact_counterpart_is_refused(
    write, settings, source_format, target_format, words
):
    source = write(settings)
    with pytest.raises(UserError, match=words):
        convert(source_format, target_format, source)
    assert sorted(os.listdir(os.path.dirname(source))) == ["source"]


def test_groups_that_the_frameworks_number_differently_are_refused():
    """Some numbers of layers and groups round differently; they are found."""
    from albert_zh.interop import state_dict_format

    refused = []
    for layers in range(1, 49):
        for groups in range(1, layers + 1):
            settings = dict(GOOGLE, num_hidden_layers=layers, num_hidden_groups=groups)
            config = modeling.AlbertConfig(**settings)
            same = all(
                int(i / layers * groups) == int(i / (layers / groups))
                for i in range(layers)
            )
            try:
                state_dict_format.HUGGING_FACE["google"].check(config)
                assert same
            except UserError:
                assert not same
                refused.append((layers, groups))
    assert (18, 14) in refused
    assert not {(12, 1), (24, 1), (12, 12), (24, 4)} & set(refused)


@pytest.mark.parametrize(
    "key,value,words",
    [
        ("layer_norm_eps", 1e-5, "layer_norm_eps is 1e-05"),
        ("hidden_act", "silu", "hidden_act 'silu'"),
        ("model_type", "roberta", "model_type is 'roberta'"),
        ("hidden_size", None, "lacks hidden_size"),
        ("hidden_size", 16, "has shape"),
        ("vocab_size", 29, "has shape"),
    ],
)
def test_config_that_cannot_be_kept_is_refused(write, key, value, words):
    there = convert("google", "huggingface", write(GOOGLE), "there")
    path = pathlib.Path(there, "config.json")
    config = json.loads(path.read_text())
    config[key] = value
    if value is None:
        del config[key]
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=words):
        convert("huggingface", "google", there, "back")


def test_untied_output_table_is_refused(write):
    from safetensors import numpy as safetensors

    there = convert("google", "huggingface", write(GOOGLE), "there")
    path = os.path.join(there, "model.safetensors")
    state = safetensors.load_file(path)
    table = state["albert.embeddings.word_embeddings.weight"]
    state["predictions.decoder.weight"] = table.copy()
    safetensors.save_file(state, path)
    convert("huggingface", "google", there, "tied")
    state["predictions.decoder.weight"] = table + 1
    safetensors.save_file(state, path)
    with pytest.raises(UserError, match="predictions.decoder.weight differs"):
        convert("huggingface", "google", there, "untied")
    rest = convert("huggingface", "google", there, "untied", drop_masked_lm=True)
    names = set(weights(rest))
    assert "cls/seq_relationship/output_weights" in names
    assert not any(name.startswith("cls/predictions") for name in names)


def test_half_precision_without_room_is_refused(write):
    source = write(GOOGLE)
    prefix = model_directory.find(source).checkpoint
    tensors = checkpoints.read_tensors(prefix)
    tensors["bert/pooler/dense/bias"][0] = 1e6
    checkpoints.write_tensors(tensors, os.path.join(source, "model.ckpt"))
    with pytest.raises(UserError, match="albert.pooler.bias has 1e.06"):
        convert("google", "huggingface", source, dtype="float16")


def test_a_neighbour_is_not_touched(write, tmp_path):
    """Unfinished output has a name of its own."""
    (tmp_path / "target.partial").mkdir()
    (tmp_path / "target.partial" / "mine").write_text("precious")
    target = convert("google", "huggingface", write(GOOGLE))
    assert (tmp_path / "target.partial" / "mine").read_text() == "precious"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"source", "target", "target.partial"}
    assert os.stat(target).st_mode == os.stat(str(tmp_path / "source")).st_mode


def test_pooler_of_a_classifier_may_not_be_missing(write):
    source = write(GOOGLE, ("classifier",))
    tensors = weights(source)
    for name in ("bert/pooler/dense/kernel", "bert/pooler/dense/bias"):
        del tensors[name]
    tensors["global_step"] = np.int64(7)
    checkpoints.write_tensors(tensors, os.path.join(source, "model.ckpt"))
    with pytest.raises(UserError, match="pooler/dense/bias is missing$"):
        convert("google", "huggingface", source, allow_missing=True)


def test_gaps_in_a_tokenizer_json_are_refused(write):
    there = pathlib.Path(convert("google", "huggingface", write(GOOGLE), "there"))
    (there / "vocab.txt").unlink()
    content = {"model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "一": 2}}}
    (there / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="tokenizer.json: the ids .* not 0 to 1"):
        convert("huggingface", "google", str(there), "back")


@pytest.fixture
def write_hugging_face(write):
    """Function: writes a Hugging Face model with these vocabulary entries."""

    def write_model(entries, settings=GOOGLE):
        settings = dict(settings, vocab_size=entries)
        dialect = "google" if "embedding_size" in settings else "bert"
        return pathlib.Path(convert(dialect, "huggingface", write(settings), "there"))

    return write_model


def test_token_that_a_tool_stripped_to_nothing_comes_back(write_hugging_face):
    """U+2028 of BERT's vocabulary is "" in the tokenizer.json of transformers 5."""
    there = write_hugging_face(30)
    tokens = (there / "vocab.txt").read_text("utf-8").splitlines()
    (there / "vocab.txt").unlink()
    tokens[7], tokens[9] = "", "##"
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    content = {"model": {"type": "WordPiece", "vocab": vocab}}
    (there / "tokenizer.json").write_text(json.dumps(content))
    back = convert("huggingface", "google", str(there), "back")
    lines = pathlib.Path(back, "vocab.txt").read_bytes().decode("utf-8").split("\n")
    tokens[7], tokens[9] = "\u2028", "##\u2028"
    assert lines[:-1] == tokens


# Where tools write the tokens that were added to a vocabulary.
ADDED = {
    "added_tokens.json": {"新冠": 30, "[e1]": 31},
    "tokenizer.json": {
        "added_tokens": [
            {"id": 0, "content": "[PAD]", "special": True},
            {"id": 30, "content": "新冠", "special": False},
            {"id": 31, "content": "[e1]", "special": True},
        ]
    },
    "tokenizer_config.json": {
        "added_tokens_decoder": {
            "0": {"content": "[PAD]"},
            "30": {"content": "新冠"},
            "31": {"content": "[e1]"},
        }
    },
}


@pytest.mark.parametrize("name", list(ADDED))
def test_added_tokens_are_named_and_get_their_ids(write_hugging_face, caplog, name):
    there = write_hugging_face(32)
    tokens = (there / "vocab.txt").read_text("utf-8").splitlines()[:30]
    (there / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    (there / name).write_text(json.dumps(ADDED[name]))
    back = convert("huggingface", "google", str(there), "back")
    lines = pathlib.Path(back, "vocab.txt").read_text("utf-8").splitlines()
    assert lines == tokens + ["新冠", "[e1]"]
    assert "2 added tokens, ids 30 to 31: 新冠, [e1]" in caplog.text


def test_a_table_larger_than_the_vocabulary(write_hugging_face, caplog):
    """As `resize_token_embeddings(pad_to_multiple_of=...)` leaves it."""
    there = write_hugging_face(30)
    tokens = (there / "vocab.txt").read_text("utf-8").splitlines()[:28]
    (there / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    words = r"append the lines \[unused28\] to \[unused29\]"
    with pytest.raises(UserError, match=words):
        convert("huggingface", "google", str(there), "refused")
    full = tokens + ["[unused28]", "[unused29]"]
    (there / "vocab.txt").write_text("\n".join(full) + "\n", encoding="utf-8")
    followed = convert("huggingface", "google", str(there), "followed")
    # A tokenizer.json has no line to append.
    (there / "vocab.txt").unlink()
    vocabulary = {token: number for number, token in enumerate(tokens)}
    content = {"model": {"type": "WordPiece", "vocab": vocabulary}}
    (there / "tokenizer.json").write_text(json.dumps(content))
    padded = convert("huggingface", "google", str(there), "padded")
    assert "the other rows are named [unused28] to [unused29]" in caplog.text
    assert_same_model(followed, padded)


def test_gap_before_an_added_token_is_refused(write_hugging_face):
    there = write_hugging_face(30)
    (there / "added_tokens.json").write_text(json.dumps({"新冠": 31}))
    with pytest.raises(UserError, match="30 entries, but the added token 新冠 .* 31"):
        convert("huggingface", "google", str(there), "back")


@pytest.mark.parametrize("settings,dialect", [(GOOGLE, "google"), (SMALL, "bert")])
def test_model_type_is_told_from_the_tensors(write_hugging_face, settings, dialect):
    there = write_hugging_face(30, settings)
    config = json.loads((there / "config.json").read_text())
    del config["model_type"]
    (there / "config.json").write_text(json.dumps(config))
    back = convert("huggingface", dialect, str(there), "back")
    source = str(there.parent / "source")
    assert_same_model(source, back)


@pytest.mark.parametrize(
    "index,words",
    [
        ({"weight_map": ["a"]}, "damaged .weight_map"),
        ({"weight_map": {"a": "model-1.safetensors"}}, "model-1.* does not exist"),
    ],
)
def test_damaged_index_of_parts_is_refused(write, index, words):
    there = pathlib.Path(convert("google", "huggingface", write(GOOGLE), "there"))
    (there / "model.safetensors").unlink()
    (there / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=words):
        convert("huggingface", "google", str(there), "back")


def test_a_remote_output_is_refused(write, tmp_path, monkeypatch):
    """It would become a local folder called gs:."""
    source = write(GOOGLE)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="--output=gs://b/m: expected a local direct"):
        conversion.convert("google", "google", source, "gs://b/m", DEFAULT_OPTIONS)
    assert sorted(tmp_path.iterdir()) == before


def test_missing_pooler_is_refused_unless_allowed(write, caplog):
    from safetensors import numpy as safetensors

    there = convert("google", "huggingface", write(GOOGLE), "there")
    path = os.path.join(there, "model.safetensors")
    state = safetensors.load_file(path)
    state = {name: value for name, value in state.items() if "pooler" not in name}
    state["adapter.weight"] = np.zeros([2, 8], np.float32)
    safetensors.save_file(state, path)
    with pytest.raises(UserError, match="pooler.* is missing; --allow_missing"):
        convert("huggingface", "google", there, "back")
    back = convert("huggingface", "google", there, "back", allow_missing=True)
    assert "bert/pooler/dense/kernel is missing" in caplog.text
    assert "not converted: adapter.weight" in caplog.text
    assert not any("pooler" in name for name in weights(back))
