"""Words aligned with tokens by position, for every script and tokenizer."""

import itertools
import re
import sys
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import tokenization
from albert_zh.base.errors import UserError
from albert_zh.data import segmentation

CHARACTERS = "使用语言模型来预测下一个词的概率中华人民共和国北京大学，。！3.14%+-"
LATIN = ["iphone", "ca", "##fe", "re", "##sum", "##e", "a", "c", "##b", "http", "www"]
TEXTS = st.text(st.sampled_from(CHARACTERS + "ab cé#/:"), max_size=40)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + LATIN
    tokens += sorted(set(CHARACTERS) - set(tokens)) + ["14", "6", ":", "/", "#"]
    path.write_text("\n".join(tokens), encoding="utf-8")
    return tokenization.FullTokenizer(str(path))


@pytest.fixture(scope="module")
def jieba():
    return segmentation.load_segmenter("jieba")


@pytest.fixture(scope="module")
def rjieba():
    pytest.importorskip("rjieba")
    return segmentation.load_segmenter("rjieba")


def _words(boundaries, tokenizer, sentences):
    """Returns the words of the sentences, lists of tokens."""
    tokens = tokenizer.encode_sentences(sentences)
    starts = boundaries(sentences, tokens)
    assert starts.dtype == np.bool_ and starts.shape == tokens.ids.shape
    words = []
    for text, start in zip(tokenizer.convert_ids_to_tokens(tokens.ids), starts):
        if start:
            words.append([])
        words[-1].append(text)
    return words


def _tokens(begins_word, counts):
    """`SentenceTokens` of one character each."""
    places = np.arange(len(begins_word))
    return tokenization.SentenceTokens(
        ids=places.astype(np.int32),
        starts=places,
        ends=places + 1,
        begins_word=np.array(begins_word, np.bool_),
        counts=np.array(counts, np.int64),
    )


def test_jieba_keeps_every_character(jieba):
    text = " 使用 iPhone6\u3000预测…ひらがな 3.14%\tcafé\ufffd𠀀--"
    assert "".join(jieba(text)) == text


@hypothesis.given(text=st.one_of(TEXTS, st.text(max_size=20)))
def test_rjieba_keeps_every_character(rjieba, text):
    assert "".join(rjieba(text)) == text


@pytest.mark.real_data
def test_segmenters_agree_on_chinese(real_data, jieba, rjieba):
    path = real_data / "niutrans_modern" / "modern_zh.txt"
    lines = path.read_text(encoding="utf-8").splitlines()[::100]
    assert len(lines) > 500
    for line in lines:
        assert "".join(rjieba(line)) == line
        for text in re.findall("[\u4e00-\u9fff]+", line):
            assert rjieba(text) == jieba(text)


def test_jieba_is_silent_and_private(capfd):
    import jieba

    frequencies = dict(jieba.dt.FREQ)
    segment = segmentation.load_segmenter("jieba")
    assert segment("中华人民共和国") == ["中华人民共和国"]
    assert jieba.dt.FREQ == frequencies
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_segmenter_says_its_version():
    assert segmentation.segmenter_version("jieba") == "jieba 0.42.1"


def test_rjieba_says_its_version(rjieba):
    version = segmentation.segmenter_version("rjieba")
    assert re.match(r"rjieba \d+\.\d+", version)


@pytest.mark.parametrize("name", segmentation.SEGMENTERS)
def test_a_missing_segmenter_is_a_user_error(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # makes its import fail
    for call in (segmentation.load_segmenter, segmentation.segmenter_version):
        with pytest.raises(UserError) as error:
            call(name)
        message = str(error.value)
        assert (
            "--segmenter={0} is not installed: run `pip install {0}`".format(name)
            in message
        )
        assert "\n" not in message
        assert ("or use jieba" in message) == (name == "rjieba")


def test_words_of_any_length_stay_together(tokenizer, jieba):
    boundaries = segmentation.WordBoundaries(jieba)
    sentences = ["中华人民共和国的北京大学，", "使用iPhone6。"]
    words = ["".join(word) for word in _words(boundaries, tokenizer, sentences)]
    assert words[:5] == ["中华人民共和国", "的", "北京大学", "，", "使用"]


@pytest.mark.parametrize(
    "sentences, expected",
    [
        (["café résumé"], [["ca", "##fe"], ["re", "##sum", "##e"]]),
        (["3.14%"], [["3", ".", "14", "%"]]),
        (["c++"], [["c", "+", "+"]]),
        (["使 用"], [["使"], ["用"]]),
        (["使用"], [["使", "用"]]),
        # No word goes on in the next sentence.
        (
            ["使", "用", "", " ", "北京", "大学"],
            [["使"], ["用"], ["北", "京"], ["大", "学"]],
        ),
    ],
)
def test_latin_numbers_and_sentences(tokenizer, jieba, sentences, expected):
    boundaries = segmentation.WordBoundaries(jieba)
    assert _words(boundaries, tokenizer, sentences) == expected


@hypothesis.given(sentences=st.lists(TEXTS, max_size=4), data=st.data())
def test_marks_agree_with_an_oracle(tokenizer, sentences, data):
    words = {}
    expected = []
    for text in sentences:
        if text not in words:
            cuts = sorted(data.draw(st.sets(st.integers(1, max(len(text) - 1, 1)))))
            ends = cuts + [len(text)]
            words[text] = [text[a:b] for a, b in zip([0] + cuts, ends) if a < b]
        inner_cuts = set(itertools.accumulate(map(len, words[text][:-1])))
        tokens = tokenizer.tokenize_with_offsets(text)
        expected += [True] * bool(tokens)
        for previous, token in zip(tokens, tokens[1:]):
            boundary = any(previous.end <= cut <= token.start for cut in inner_cuts)
            expected.append(boundary and not token.text.startswith("##"))
    tokens = tokenizer.encode_sentences(sentences)
    starts = segmentation.WordBoundaries(words.get)(sentences, tokens)
    assert starts.dtype == np.bool_
    assert starts.tolist() == expected


def test_tokens_across_words_and_from_one_character():
    # Of the words "ab", "cd", "e": a, bc, d, two from e, and an empty piece.
    starts = np.array([0, 1, 3, 4, 4, 5])
    ends = np.array([1, 3, 4, 5, 5, 5])
    marks = segmentation.align([2, 2, 1], starts, ends)
    assert marks.tolist() == [True, False, False, True, False, False]


def test_pieces_of_sentencepiece_are_joined_to_words_of_the_segmenter():
    # "一二三" of the words 一二 and 三, as the pieces 一, 二, 三.
    tokens = _tokens([True, False, False], [3])
    for sentencepiece, expected in ((True, [1, 0, 1]), (False, [1, 0, 0])):
        boundaries = segmentation.WordBoundaries(
            lambda text: ["一二", "三"], sentencepiece
        )
        assert boundaries(["一二三"], tokens).tolist() == expected


@pytest.mark.parametrize("sentencepiece", [False, True])
def test_without_a_segmenter_the_tokenizer_marks_the_words(sentencepiece):
    # The first token of a sentence begins a word, whatever its mark.
    begins_word = [False, False, True, False, True, False, False, True]
    tokens = _tokens(begins_word, [0, 3, 0, 1, 2, 2, 0])
    boundaries = segmentation.WordBoundaries(sentencepiece=sentencepiece)
    starts = boundaries(["unused"] * 7, tokens)
    assert starts.tolist() == [True, False, True, True, True, False, True, True]
    assert tokens.begins_word.tolist() == begins_word


@pytest.mark.parametrize("sentences", [[], [""], ["", " "]])
def test_no_tokens_have_no_words(tokenizer, jieba, sentences):
    tokens = tokenizer.encode_sentences(sentences)
    for segment in (None, jieba):
        starts = segmentation.WordBoundaries(segment)(sentences, tokens)
        assert starts.shape == (0,) and starts.dtype == np.bool_


def test_flags_choose_the_segmenter():
    assert segmentation.choose(None, whole_words=True, non_chinese=False) == "jieba"
    assert segmentation.choose("rjieba", True, False) == "rjieba"
    assert segmentation.choose(None, whole_words=True, non_chinese=True) == ""
    assert segmentation.choose(None, whole_words=False, non_chinese=False) is None
    with pytest.raises(UserError, match="--non_chinese has no effect"):
        segmentation.choose(None, whole_words=False, non_chinese=True)
    for whole_words, non_chinese in ((True, True), (False, False)):
        with pytest.raises(UserError, match="--segmenter has no effect"):
            segmentation.choose("jieba", whole_words, non_chinese)


def test_long_text_is_divided_where_words_end_anyway(monkeypatch):
    text = "我们研究语言的模型，" * 30 + "中国人民" * 60
    whole = segmentation.load_segmenter("jieba")(text)
    monkeypatch.setattr(segmentation, "MAX_SEGMENTED_CHARACTERS", 100)
    parts = list(segmentation.divided(text))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 100 and len(parts) < 9
    assert [p[-1] for p in parts[:3]] == ["，"] * 3
    segment = segmentation.load_segmenter("jieba")
    words = [word for part in parts for word in segment(part)]
    assert words[:200] == whole[:200]
    assert list(segmentation.divided("")) == [""]


def test_the_time_of_a_long_run_without_words_is_bounded(monkeypatch):
    """jieba takes 100 times as long for 10 times as much of it."""
    monkeypatch.setattr(segmentation, "MAX_SEGMENTED_CHARACTERS", 3000)
    find = segmentation.WordBoundaries(segmentation.load_segmenter("jieba"))
    tokenizer = tokenization.BasicTokenizer()

    def seconds(number):
        started = time.process_time()
        sentence = "的" * number
        spans = tokenizer.tokenize_with_offsets(sentence)
        tokens = tokenization.SentenceTokens(
            np.zeros(number, np.int32),
            np.array([token.start for token in spans]),
            np.array([token.end for token in spans]),
            np.ones(number, np.bool_),
            np.array([number]),
        )
        assert len(find([sentence], tokens)) == number
        return time.process_time() - started

    assert seconds(30000) < 30 * min(seconds(3000) for _ in range(3)) + 0.5
