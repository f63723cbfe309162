"""Words aligned with tokens by position, for every script and tokenizer."""

import collections
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import tokenization
from albert_zh import segmentation

Token = collections.namedtuple("Token", "text start end")

CHARACTERS = "使用语言模型来预测下一个词的概率中华人民共和国北京大学，。！3.14%+-"
LATIN = ["iphone", "ca", "##fe", "re", "##sum", "##e", "a", "c", "##b", "http", "www"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + LATIN
    tokens += sorted(set(CHARACTERS) - set(tokens)) + ["14", "6", ":", "/", "#"]
    path.write_text("\n".join(tokens), encoding="utf-8")
    return tokenization.FullTokenizer(str(path))


@pytest.fixture(scope="module")
def jieba():
    return segmentation.load_jieba()


def _words(tokens, starts):
    """Groups the tokens' texts by the marks."""
    words = []
    for token, start in zip(tokens, starts):
        if start:
            words.append([])
        words[-1].append(token.text)
    return words


def test_jieba_keeps_every_character(jieba):
    text = " 使用 iPhone6\u3000预测…ひらがな 3.14%\tcafé\ufffd𠀀--"
    assert "".join(jieba(text)) == text


def test_jieba_is_silent_and_private(capfd):
    import jieba

    frequencies = dict(jieba.dt.FREQ)
    segment = segmentation.load_jieba()
    assert segment("中华人民共和国") == ["中华人民共和国"]
    assert jieba.dt.FREQ == frequencies
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_words_of_any_length_stay_together(tokenizer, jieba):
    text = "中华人民共和国的北京大学，使用iPhone6。"
    tokens = tokenizer.tokenize_with_offsets(text)
    starts = segmentation.WordBoundaries(jieba)(text, tokens)
    assert starts.dtype == np.bool_
    words = ["".join(word) for word in _words(tokens, starts)]
    assert words[:5] == ["中华人民共和国", "的", "北京大学", "，", "使用"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("café résumé", [["ca", "##fe"], ["re", "##sum", "##e"]]),
        ("3.14%", [["3", ".", "14", "%"]]),
        ("c++", [["c", "+", "+"]]),
        ("使 用", [["使"], ["用"]]),
        ("使用", [["使", "用"]]),
    ],
)
def test_latin_and_numbers(tokenizer, jieba, text, expected):
    tokens = tokenizer.tokenize_with_offsets(text)
    assert _words(tokens, segmentation.WordBoundaries(jieba)(text, tokens)) == expected


@hypothesis.given(
    text=st.text(st.sampled_from(CHARACTERS + "ab cé#/:"), max_size=40),
    data=st.data(),
)
def test_marks_agree_with_an_oracle(tokenizer, text, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(text) - 1, 1)))))
    words = [text[a:b] for a, b in zip([0] + cuts, cuts + [len(text)]) if a < b]
    tokens = tokenizer.tokenize_with_offsets(text)
    starts = segmentation.WordBoundaries(lambda _: words)(text, tokens)
    assert starts.shape == (len(tokens),)
    inner_cuts = set(itertools.accumulate(map(len, words[:-1])))
    for previous, token, start in zip(tokens, tokens[1:], starts[1:]):
        boundary = any(previous.end <= cut <= token.start for cut in inner_cuts)
        assert start == (boundary and not token.text.startswith("##"))


def test_tokens_across_words_and_from_one_character():
    words = ["ab", "cd", "e"]
    tokens = [
        Token("a", 0, 1),
        Token("bc", 1, 3),
        Token("d", 3, 4),
        Token(".", 4, 5),
        Token(".", 4, 5),
        Token("▁", 5, 5),
    ]
    starts = segmentation.align(words, tokens)
    assert starts.tolist() == [True, False, False, True, False, False]


def test_without_a_segmenter_wordpiece_marks_the_words():
    texts = ["un", "##aff", "##able", ",", "word"]
    tokens = [Token(text, i, i + 1) for i, text in enumerate(texts)]
    starts = segmentation.WordBoundaries()("unused", tokens)
    assert starts.tolist() == [True, False, False, True, True]


def test_without_a_segmenter_sentencepiece_marks_the_words():
    texts = ["pre", "▁un", "able", ",", "▁", "9", "##x"]
    tokens = [Token(text, i, i + 1) for i, text in enumerate(texts)]
    starts = segmentation.WordBoundaries(sentencepiece=True)("unused", tokens)
    assert starts.tolist() == [True, True, False, True, True, False, False]


def test_no_tokens_have_no_words(jieba):
    for segment in (None, jieba):
        starts = segmentation.WordBoundaries(segment)("", [])
        assert starts.shape == (0,) and starts.dtype == np.bool_
