"""Records as text, distributions as pictures."""

import sys

import numpy as np
import pytest
from test_instances import make_records, random_text

import tokenization
from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.data import instances, masking, preview, record_format

LENGTH = 12


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    tokens = list(tokenization.SPECIAL_TOKENS) + list("使用语言模型是我[]") + ["##s"]
    path.write_text("\n".join(tokens), encoding="utf-8")
    return tokenization.FullTokenizer(str(path))


@pytest.fixture
def show(tmp_path, tokenizer, capsys):
    """Function that writes records to a file and returns what is shown of them.

    A record is a dict: "tokens", str that spaces divide, the second [SEP] its last;
    "swapped", bool; "masked", dict of position to original token, or "lengths", the
    words' lengths at their first positions.
    """

    def show(records, number):
        path = str(tmp_path / "a.tfrecord")
        serialized = [_serialize(record, tokenizer) for record in records]
        record_format.write_records(serialized, path)
        preview.show_records(path, tokenizer, number)
        return capsys.readouterr().out.replace(path, "FILE")

    return show


def _serialize(record, tokenizer):
    tokens = record["tokens"].split()
    padding = [0] * (LENGTH - len(tokens))
    second_begin = tokens.index("[SEP]") + 1
    features = {
        "input_ids": tokenizer.convert_tokens_to_ids(tokens) + padding,
        "input_mask": [1] * len(tokens) + padding,
        "segment_ids": [int(i >= second_begin) for i in range(len(tokens))] + padding,
        "next_sentence_labels": [int(record["swapped"])],
    }
    if "lengths" in record:
        features["word_lengths"] = record["lengths"] + padding
    else:
        masked = record["masked"]
        padding = [0] * (4 - len(masked))
        features["masked_lm_positions"] = sorted(masked) + padding
        originals = [masked[position] for position in sorted(masked)]
        features["masked_lm_ids"] = tokenizer.convert_tokens_to_ids(originals) + padding
        features["masked_lm_weights"] = [1.0] * len(masked) + [0.0] * len(padding)
    return record_format.encode_example(features)


STATIC = [
    {
        "tokens": "[CLS] 使 [MASK] [SEP] 语 言 我 型 [SEP]",
        "swapped": False,
        "masked": {2: "用", 5: "言", 6: "模"},
    },
    {"tokens": "[CLS] 语 [SEP] 使 ##s [SEP]", "swapped": True, "masked": {}},
]


def test_static_records_show_what_was_masked(show):
    expected = """\
record 0 of FILE
  segment A [CLS] 使 [用->MASK] [SEP]
  segment B 语 [言->言] [模->我] 型 [SEP]
  order     as in the text
  tokens    9 of 12
  masked    3: 用 言 模
record 1 of FILE
  segment A [CLS] 语 [SEP]
  segment B 使 ##s [SEP]
  order     swapped: B comes first
  tokens    6 of 12
"""
    assert show(STATIC, 2) == expected
    # More than there are.
    assert show(STATIC, 9) == expected


def test_only_the_first_records_are_shown(show):
    shown = show(STATIC, 1)
    assert shown.startswith("record 0 of FILE\n")
    assert "record 1" not in shown


def test_dynamic_records_show_their_words(show):
    record = {
        "tokens": "[CLS] 使 用 语 言 [SEP] 模 型 [SEP]",
        "swapped": True,
        "lengths": [0, 2, 0, 1, 1, 0, 2, 0, 0],
    }
    assert show([record], 1) == (
        "record 0 of FILE\n"
        "  segment A [CLS] /使 用 /语 /言 [SEP]\n"
        "  segment B /模 型 [SEP]\n"
        "  order     swapped: B comes first\n"
        "  tokens    9 of 12\n"
    )


def test_brackets_are_shown(show):
    record = {
        "tokens": "[CLS] [ ] [SEP] [UNK] [SEP]",
        "swapped": False,
        "masked": {1: "是", 2: "[", 4: "[UNK]"},
    }
    lines = show([record], 1).splitlines()
    assert lines[1] == "  segment A [CLS] [是->[] [[->]] [SEP]"
    assert lines[2] == "  segment B [[UNK]->UNK] [SEP]"


def test_every_distribution_of_a_summary_has_a_picture(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    settings = instances.Settings(64, 0.1, 2, masking.MaskSettings(0.15, 10, 3))
    text = random_text(0)
    _, _, statistics = make_records(text, settings)
    statistics.add_text(text, 0, 1)
    distributions = statistics.summary()["distributions"]
    directory = tmp_path / "new" / "pictures"
    paths = preview.draw_distributions(distributions, str(directory))
    assert paths == [str(directory / (name + ".png")) for name in distributions]
    assert sorted(directory.iterdir()) == sorted(
        directory / (name + ".png") for name in distributions
    )
    pictures = [image.imread(path) for path in paths]
    assert len(pictures) == 4
    assert {picture.shape[:2] for picture in pictures} == {(480, 720)}
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_bars_are_as_high_as_the_counts(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    distribution = {"ngram_lengths": {"1": 600, "3": 200}}
    (path,) = preview.draw_distributions(distribution, str(tmp_path))
    picture = image.imread(path)
    is_colored = picture[..., :3].max(axis=-1) - picture[..., :3].min(axis=-1) > 0.3
    heights = is_colored.sum(axis=0)
    first, second = np.flatnonzero(heights)[[5, -5]]
    assert heights[first] == pytest.approx(3 * heights[second], rel=0.05)
    assert heights[(first + second) // 2] == 0


def test_an_empty_distribution_has_a_picture_too(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    (path,) = preview.draw_distributions({"ngram_lengths": {}}, str(tmp_path))
    assert image.imread(path).shape[:2] == (480, 720)


def test_pictures_need_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    expected = "--report needs matplotlib: run `pip install matplotlib`"
    directory = str(tmp_path / "pictures")
    with pytest.raises(UserError, match=expected):
        preview.draw_distributions({"ngram_lengths": {"1": 2}}, directory)
    assert not files.exists(directory)
