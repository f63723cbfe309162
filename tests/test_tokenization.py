"""Tests of `tokenization`: parity with `transformers`, offsets, files, options."""

import pickle
import re
import time
import unicodedata

import numpy as np
import pytest
import reference_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st

import tokenization
from tokenization import Token

# Letters of several scripts, alone and continuing, so that hard text seldom ends in
# [UNK]: an unknown word would hide how its characters were normalized.
_LETTERS = (
    [chr(code) for code in range(0x21, 0x7F)]
    + list("éßıσςабйだガ가각한ﬁ½①２ａＡ≠∑ñüşğ♥👍👨👩🏽्ाकि")
    + [chr(code) for code in (0x1100, 0x1161, 0x11A8, 0x301, 0x338, 0x302E, 0x93F)]
)
_WORDS = list("山水中国\u8c48𠀀𪜀、。，！⋯") + [
    "hello",
    "un",
    "##aff",
    "##able",
    "[UNK]x",
]
VOCABULARY = list(
    dict.fromkeys(
        list(tokenization.SPECIAL_TOKENS)
        + _WORDS
        + _LETTERS
        + ["##" + letter for letter in _LETTERS]
    )
)

# Every kind of trouble at once: property tests draw from these and from all of Unicode.
HARD_TEXTS = [
    "",
    " \t\r\n\u3000\u00a0\u1680\u2028\u2029\x85\x0b\x0c\x1c\u200a",
    "Hello, WORLD! unaffable un##able",
    "山水,中国hello山\u0301水\ufe0f",
    "e\u0301e\u0323\u0307 \u0301 a\u0301\u0323b \u00e9\u0301",
    "İstanbul ISTANBUL ΑΣ ΑΣΑ Straße ẞ ŉ",
    "=\u0338x <\u0338 ≠ ,\u0301,",
    "a\x00b\ufffdc\u200bd\u200de\u00adf\ue000g\u0378h\ud800i\udc00\U0010ffff",
    "👍🏽 👨\u200d👩\u200d👧 ♥\ufe0f🇨🇳",
    "ＡＢＣ１２３，（全角）ｱﾞ",
    "각한가 \u1100\u1161\u11a8 ガガ だた\u3099",
    "\uf900\uf901\U0002f800 𠀀𪜀𫝀𫠠\U0002ceb0\U00030000\U000323af\u9fff",
    "a" * 100 + " " + "a" * 101 + " " + "山" * 150 + "," + "é" * 101,
    "\u0f73\u0f75\u0344\u0f71\u0f72 क\u093e\u094d\u302e",
    "q\u0307\u0323 \U0001d15e\U0001d165 \u0c46\u0c56 \u09c7\u09be",
]

_TROUBLE = sorted(set("".join(HARD_TEXTS)))
_TEXTS = st.one_of(
    st.text(st.sampled_from(_TROUBLE), max_size=20),
    st.text(st.characters(), max_size=20),
    st.lists(st.sampled_from(HARD_TEXTS + ["hello", "中国"]), max_size=3).map("".join),
)


def _write_vocab(directory, entries, encoding="utf-8", end="\n"):
    path = directory / "vocab.txt"
    path.write_bytes("".join(entry + end for entry in entries).encode(encoding))
    return str(path)


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    return _write_vocab(tmp_path_factory.mktemp("vocab"), VOCABULARY)


@pytest.fixture(scope="module")
def tokenizers(vocab_file):
    """One tokenizer for each `do_lower_case`; they remember across examples."""
    return {
        lower: tokenization.FullTokenizer(vocab_file, lower) for lower in (True, False)
    }


@pytest.fixture(scope="module")
def references(vocab_file):
    transformers = pytest.importorskip("transformers")
    return {
        lower: transformers.BertTokenizer(vocab_file, do_lower_case=lower)
        for lower in (True, False)
    }


def _names_special_token(text):
    """Such text is plain here, but not for `transformers`."""
    visible = "".join(
        char for char in text if not unicodedata.category(char).startswith("C")
    )
    return any(token in visible for token in tokenization.SPECIAL_TOKENS)


def _hard_text_examples(test):
    for text in HARD_TEXTS:
        test = example(text=text)(test)
    return test


@_hard_text_examples
@given(text=_TEXTS)
@pytest.mark.parametrize("lower", [True, False])
def test_tokens_equal_transformers(tokenizers, references, lower, text):
    if not _names_special_token(text):
        assert tokenizers[lower].tokenize(text) == references[lower].tokenize(text)


@_hard_text_examples
@given(text=_TEXTS)
@pytest.mark.parametrize("lower", [True, False])
def test_tokens_equal_the_plain_reference(tokenizers, lower, text):
    """Also on Python 3.7, which has another Unicode version and no `transformers`."""
    expected = reference_tokenizer.tokenize(text, tokenizers[lower].vocab, lower)
    assert tokenizers[lower].tokenize(text) == expected
    assert tokenizers[lower].has_tokens(text) == bool(expected)


@pytest.mark.parametrize("lower", [True, False])
def test_has_tokens_is_right_for_every_character(tokenizers, lower):
    for code in range(0x110000):
        expected = bool(tokenizers[lower].tokenize(chr(code)))
        assert tokenizers[lower].has_tokens(chr(code)) == expected, hex(code)


@pytest.mark.parametrize(
    "run",
    [
        "a" + "\u0301\u0323" * 20000,
        "\u0301\u0323\u0327\u0334" * 10000,
        "\u0334\u0301" * 20000,
        "\u0344" * 40000,
        "\u0301" * 40000,
        "\u1100\u1161\u11a8" * 13000,
        "e\u0301\u0323" * 13000,
    ],
    ids=lambda run: ascii(run[:4]),
)
@pytest.mark.parametrize("lower", [True, False])
def test_the_time_for_a_run_of_marks_is_in_proportion_to_it(tokenizers, lower, run):
    def seconds(text):
        started = time.process_time()
        tokenizers[lower].tokenize(text)
        return time.process_time() - started

    # Quadratic, ten times the text took a hundred times as long: 6 s.
    least = min(seconds(run[: len(run) // 10]) for _ in range(3))
    assert seconds(run) < 30 * least + 0.5
    some = run[:200]
    expected = reference_tokenizer.tokenize(some, tokenizers[lower].vocab, lower)
    assert tokenizers[lower].tokenize(some) == expected


@pytest.mark.parametrize("lower", [True, False])
def test_every_code_point_below_surrogates_equals_transformers(
    tokenizers, references, lower
):
    for first in range(0, 0xD800, 512):
        codes = range(first, first + 512)
        text = " ".join("a{}b {}\u0301".format(chr(c), chr(c)) for c in codes)
        assert tokenizers[lower].tokenize(text) == references[lower].tokenize(text)


def _normalized(text, lower):
    """What a token's source reads like, by the definition in one piece."""
    kept = "".join(
        char
        for char in text
        if char != "\ufffd" and unicodedata.category(char)[0] != "C"
    )
    if not lower:
        return unicodedata.normalize("NFC", kept)
    kept = "".join(char.lower() for char in kept)
    decomposed = unicodedata.normalize("NFD", kept)
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn")


def _without_mark(token):
    return token[2:] if token.startswith("##") and len(token) > 2 else token


@_hard_text_examples
@given(text=_TEXTS)
@pytest.mark.parametrize("lower", [True, False])
def test_offsets_are_ordered_and_point_at_the_source(tokenizers, lower, text):
    tokens = tokenizers[lower].tokenize_with_offsets(text)
    assert [token.text for token in tokens] == tokenizers[lower].tokenize(text)
    groups = []  # tokens that share a stretch of the source
    for token in tokens:
        assert 0 <= token.start < token.end <= len(text)
        if groups and token.start < groups[-1][-1].end:
            assert token.start >= groups[-1][-1].start
            assert token.end >= groups[-1][-1].end
            groups[-1].append(token)
        else:
            groups.append([token])
    for group in groups:
        source = _normalized(text[group[0].start : group[-1].end], lower)
        pieces = "".join(_without_mark(token.text) for token in group)
        if all(token.text != "[UNK]" for token in group):
            assert pieces == source
        else:
            assert source


@given(text=st.text(st.sampled_from("山水ab, \u3000.1"), max_size=30))
def test_plain_characters_share_no_span(tokenizers, text):
    position = 0
    for token in tokenizers[True].tokenize_with_offsets(text):
        assert token.start >= position
        assert text[token.start : token.end] == _without_mark(token.text)
        assert not text[position : token.start].strip()
        position = token.end
    assert not text[position:].strip()


@pytest.mark.parametrize(
    "lower, text, expected",
    [
        (True, "Unaffable", [("un", 0, 2), ("##aff", 2, 5), ("##able", 5, 9)]),
        (True, "山水Hello", [("山", 0, 1), ("水", 1, 2), ("hello", 2, 7)]),
        (True, "Ée\u0301", [("e", 0, 1), ("##e", 1, 3)]),
        (False, "ée\u0301", [("é", 0, 1), ("##é", 1, 3)]),
        (True, "a\x00\u200bb", [("a", 0, 1), ("##b", 3, 4)]),
        (True, "İ", [("i", 0, 1)]),
        (True, "ΑΣ", [("[UNK]", 0, 2)]),
        (True, "Σ", [("σ", 0, 1)]),
        (True, "ß", [("ß", 0, 1)]),
        (True, " 龘 zzé? ", [("[UNK]", 1, 2), ("z", 3, 4), ("##z", 4, 5)]),
        (True, "각", [("\u1100", 0, 1), ("##\u1161", 0, 1), ("##\u11a8", 0, 1)]),
        (False, "\u1100\u1161", [("가", 0, 2)]),
        (False, "=\u0338", [("≠", 0, 2)]),
        (True, "=\u0338", [("=", 0, 2)]),
        (True, "\u0301山", [("山", 1, 2)]),
        (True, "\uf900\uf901", [("\u8c48", 0, 1), ("[UNK]", 1, 2)]),
        (True, "a" * 101, [("[UNK]", 0, 101)]),
        (True, "[MASK]", [("[", 0, 1), ("m", 1, 2), ("##a", 2, 3)]),
        (True, "a\ud800b", [("a", 0, 1), ("##b", 2, 3)]),
        (True, "👨\u200d👩", [("👨", 0, 1), ("##👩", 2, 3)]),
    ],
)
def test_hard_cases_by_hand(tokenizers, lower, text, expected):
    tokens = tokenizers[lower].tokenize_with_offsets(text)
    assert tokens[: len(expected)] == [Token(*token) for token in expected]


def test_long_runs_are_bounded_in_memory_and_right(tokenizers, monkeypatch):
    monkeypatch.setattr(tokenization, "_MAX_REMEMBERED_RUNS", 4)
    tokenizer = tokenization.BasicTokenizer()
    words = ["w{}".format(number) for number in range(50)] * 2
    assert tokenizer.tokenize(" ".join(words)) == words
    assert len(tokenizer._scanner._runs) <= 4
    run = "ab," * 20000
    tokens = tokenizers[True].tokenize_with_offsets(run)
    assert tokens[-1] == Token(",", 59999, 60000)
    assert len(tokens) == 60000


def test_caches_are_bounded_by_what_they_hold(monkeypatch):
    """Of marks, each is a piece; of all characters, there are a million."""
    monkeypatch.setattr(tokenization, "_MAX_REMEMBERED_PIECES", 100)
    monkeypatch.setattr(tokenization, "_MAX_REMEMBERED_CHARS", 8)
    tokenizer = tokenization.BasicTokenizer()
    for number in range(500):
        run = "!" * (number % 64) + str(number)
        assert len(tokenizer.tokenize(run)) == number % 64 + 1
        char = chr(ord("一") + number)
        assert tokenizer.tokenize(char) == [char]
        scanner = tokenizer._scanner
        assert 1 <= sum(map(len, scanner._runs.values())) <= 100
        assert 1 <= len(scanner._alone) <= 8


def test_basic_tokenizer_keeps_words_whole():
    text = "Ｈéllo, 山x"
    assert tokenization.BasicTokenizer().tokenize(text) == ["ｈello", ",", "山", "x"]
    cased = tokenization.BasicTokenizer(do_lower_case=False)
    assert cased.tokenize_with_offsets(text)[0] == Token("Ｈéllo", 0, 5)


def test_wordpiece_tokenizer_takes_the_longest_match():
    vocab = {"un": 0, "##aff": 1, "##able": 2, "##a": 3, "<?>": 4}
    tokenizer = tokenization.WordpieceTokenizer(vocab, "<?>", 9)
    assert tokenizer.tokenize(" unaffable  unaaff uno unaffablea ") == (
        ["un", "##aff", "##able"] + ["un", "##a", "##aff"] + ["<?>", "<?>"]
    )


def test_small_functions():
    assert tokenization.convert_to_unicode("山".encode() + b"\xff") == "山"
    assert tokenization.printable_text("山") == "山"
    with pytest.raises(ValueError, match="received int"):
        tokenization.convert_to_unicode(3)
    assert tokenization.whitespace_tokenize(" a\u3000b ") == ["a", "b"]
    inside = [0x4E00, 0x9FFF, 0x3400, 0x20000, 0x2A700, 0x2CEAF, 0xF900, 0x2FA1F]
    outside = [0x41, 0x3042, 0xAC00, 0x4DC0, 0x2A6E0, 0x2CEB0, 0x30000, 0x3002]
    assert all(map(tokenization.is_chinese_char, inside))
    assert not any(map(tokenization.is_chinese_char, outside))


def test_ids_and_special_tokens(tokenizers):
    tokenizer = tokenizers[True]
    ids = tokenizer.convert_tokens_to_ids(VOCABULARY)
    assert ids == list(range(tokenizer.vocab_size))
    assert tokenizer.convert_ids_to_tokens(ids) == VOCABULARY
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id) == (0, 1, 2)
    assert (tokenizer.sep_id, tokenizer.mask_id) == (3, 4)
    assert tokenizer.tokenize("山水".encode()) == ["山", "水"]
    with pytest.raises(ValueError, match="'nowhere'"):
        tokenizer.convert_tokens_to_ids(["山", "nowhere"])
    with pytest.raises(ValueError, match="id {}".format(len(VOCABULARY))):
        tokenizer.convert_ids_to_tokens([0, len(VOCABULARY)])


def test_a_tokenizer_can_be_sent_to_another_process(tokenizers):
    copy = pickle.loads(pickle.dumps(tokenizers[True]))
    text = HARD_TEXTS[3]
    expected = tokenizers[True].tokenize_with_offsets(text)
    assert copy.tokenize_with_offsets(text) == expected


def test_punctuation_is_left_alone_by_default(tokenizers):
    tokens = tokenizers[True].tokenize("“‘山’”……——")
    assert tokens == ["[UNK]", "[UNK]", "山"] + ["[UNK]"] * 6


def test_normalized_punctuation_keeps_offsets(vocab_file):
    tokenizer = tokenization.FullTokenizer(vocab_file, normalize_punctuation=True)
    tokens = tokenizer.tokenize_with_offsets("“a’山…—–")
    texts = ['"', "a", "'", "山", "⋯", "-", "[UNK]"]
    assert tokens == [Token(text, i, i + 1) for i, text in enumerate(texts)]


def test_normalized_punctuation_writes_what_the_vocabulary_has(tmp_path):
    entries = list(tokenization.SPECIAL_TOKENS) + ["“", '"', "..."]
    vocab_file = _write_vocab(tmp_path, entries)
    tokenizer = tokenization.FullTokenizer(vocab_file, normalize_punctuation=True)
    tokens = tokenizer.tokenize_with_offsets("“”…—")
    texts = ["“", '"', "...", "[UNK]"]
    assert tokens == [Token(text, i, i + 1) for i, text in enumerate(texts)]


def test_load_vocab_tolerates_bom_crlf_and_white_space(tmp_path):
    entries = list(tokenization.SPECIAL_TOKENS) + ["山", "\u2028", "##\u2028"]
    spaced = [entry + " \t" for entry in entries] + ["", ""]
    vocab_file = _write_vocab(tmp_path, spaced, "utf-8-sig", "\r\n")
    vocab = tokenization.load_vocab(vocab_file)
    assert list(vocab.items()) == [(entry, i) for i, entry in enumerate(entries)]


@pytest.mark.parametrize("odd,name", [("", "[, line 6]"), ("山", "[山, line 6]")])
def test_one_blank_or_double_line_keeps_all_ids(tmp_path, caplog, odd, name):
    entries = list(tokenization.SPECIAL_TOKENS) + [odd, "山", "水"]
    tokenizer = tokenization.FullTokenizer(_write_vocab(tmp_path, entries))
    assert tokenizer.vocab_size == 8
    # As in BERT, the last line of a token counts.
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize("山水")) == [6, 7]
    assert tokenizer.convert_ids_to_tokens([5]) == [name]
    assert tokenizer.tokenize(name).count(name) == 0
    assert tokenizer.encode_sentences(["山水"]).ids.tolist() == [6, 7]
    assert "txt:6: token" in caplog.text


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda lines: lines + ["山", "水"] * 2,
            "txt:6: token '山' .* line 8, too; 2",
        ),
        (
            lambda lines: lines + ["", "", "a"],
            "txt:6: token '' is an empty line; 2",
        ),
        (lambda lines: lines[1:4], r"txt: no \[PAD\] \[MASK\] among its 3 entries"),
        (lambda lines: [], r"txt: no .* among its 0 entries"),
    ],
)
def test_load_vocab_names_file_and_line(tmp_path, change, message):
    lines = change(list(tokenization.SPECIAL_TOKENS))
    with pytest.raises(ValueError, match=message) as error:
        tokenization.load_vocab(_write_vocab(tmp_path, lines))
    assert "\n" not in str(error.value)


def test_load_vocab_names_the_line_that_is_not_utf8(tmp_path):
    lines = list(tokenization.SPECIAL_TOKENS) + ["的"]
    with pytest.raises(ValueError, match="txt:6: byte 0xb5 is not UTF-8"):
        tokenization.load_vocab(_write_vocab(tmp_path, lines, "gb18030"))


def test_unreadable_files_are_named(tmp_path):
    missing = str(tmp_path / "missing")
    for path in (missing, str(tmp_path)):
        with pytest.raises(OSError, match=re.escape(path)):
            tokenization.load_vocab(path)
    with pytest.raises(OSError, match=re.escape(missing)):
        tokenization.FullTokenizer(None, spm_model_file=missing)
    with pytest.raises(ValueError, match="vocab_file or spm_model_file"):
        tokenization.FullTokenizer(None)


_ENGLISH = [
    "the quick brown fox jumps over the lazy dog in 1,998 and 9,9 or 2,000,000",
    'hello world 12,345 naive cafe 1999, yes "quoted" (brackets) - dash',
    "a large model of language and a small model of language 3,14",
]


@pytest.fixture(scope="module")
def spm_model_file(tmp_path_factory, train_sentencepiece):
    return train_sentencepiece(
        tmp_path_factory.mktemp("spm"),
        _ENGLISH * 30,
        vocab_size=90,
        user_defined_symbols="(,),-",
    )


@pytest.fixture(scope="module")
def spm_tokenizer(spm_model_file):
    return tokenization.FullTokenizer(None, spm_model_file=spm_model_file)


_SPM_TROUBLE = (
    "abco1239,,,``''\u00e9e\u0301\u200b\u3000中İßﬁ½\u1100\u1161①\t\x01Q\u00a8[(-"
)
_SPM_TEXTS = st.one_of(
    st.text(st.sampled_from(_SPM_TROUBLE), max_size=25), st.text(max_size=15)
)


@given(text=_SPM_TEXTS)
def test_sentencepiece_equals_transformers(spm_tokenizer, spm_model_file, text):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AlbertTokenizer(spm_model_file)
    # `transformers` lower-cases character by character, ALBERT does not.
    if "Σ" not in text and not _names_special_token(text):
        assert spm_tokenizer.tokenize(text) == reference.tokenize(text)


@given(text=_SPM_TEXTS)
def test_sentencepiece_offsets_are_ordered(spm_tokenizer, text):
    previous = Token("", 0, 0)
    for token in spm_tokenizer.tokenize_with_offsets(text):
        assert previous.start <= token.start <= token.end <= len(text)
        assert previous.end <= token.end
        assert (token.end > token.start) == bool(token.text.strip("\u2581"))
        previous = token


@pytest.mark.parametrize(
    "text", ["", "the fox", "  Hello,\tWORLD  9,9 ", "a \u2581 b", "dog in 1,998, or"]
)
def test_sentencepiece_pieces_are_the_source(spm_tokenizer, text):
    for token in spm_tokenizer.tokenize_with_offsets(text):
        source = text[token.start : token.end].lower()
        assert token.text.replace("\u2581", "") == source.replace("\u2581", "")


def _sources(tokenizer, text):
    return [
        text[token.start : token.end]
        for token in tokenizer.tokenize_with_offsets(text)
        if token.end > token.start
    ]


def test_sentencepiece_normalization_maps_back(spm_tokenizer):
    text = "``Cafe\u0301''\u3000 ﬁ"
    tokens = spm_tokenizer.tokenize_with_offsets(text)
    assert "".join(token.text for token in tokens).count('"') == 2
    sources = _sources(spm_tokenizer, text)
    assert sources[0] == "``"
    assert "''" in sources
    assert sources[-2:] == ["ﬁ", "ﬁ"]
    assert "".join(sources[:-1]) == "``Cafe\u0301''ﬁ"


def test_sentencepiece_splits_a_comma_off_a_number(tmp_path, train_sentencepiece):
    sentencepiece = pytest.importorskip("sentencepiece")
    model_file = train_sentencepiece(
        tmp_path,
        _ENGLISH * 30,
        model_type="bpe",
        user_defined_symbols="(,),-",
        vocab_size=300,
        split_by_unicode_script=False,
        split_by_number=False,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=model_file)
    text = "1999, x999, 345, y45,"
    assert "\u25811999," in processor.EncodeAsPieces(text)
    tokenizer = tokenization.FullTokenizer(None, spm_model_file=model_file)
    pieces = tokenizer.tokenize(text)
    assert pieces.count(",") == 4
    assert not any(piece.endswith(",") for piece in pieces if piece != ",")
    assert "".join(pieces) == "\u2581" + text.replace(" ", "\u2581")
    assert "".join(_sources(tokenizer, text)) == text.replace(" ", "")


def test_sentencepiece_ids(spm_tokenizer):
    specials = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    ids = [getattr(spm_tokenizer, name + "_id") for name in ("pad", "unk", "cls")]
    ids += [spm_tokenizer.sep_id, spm_tokenizer.mask_id]
    assert spm_tokenizer.convert_ids_to_tokens(ids) == specials
    assert len(set(ids)) == 5
    everything = list(range(spm_tokenizer.vocab_size))
    tokens = spm_tokenizer.convert_ids_to_tokens(everything)
    assert spm_tokenizer.convert_tokens_to_ids(tokens) == everything
    tokens = spm_tokenizer.tokenize("中国")
    assert spm_tokenizer.convert_tokens_to_ids(tokens)[-1] == spm_tokenizer.unk_id


def _assert_encoded(tokenizer, sentences, begins_word):
    """Checks `encode_sentences` by `tokenize_with_offsets`, sentence by sentence."""
    tokens, starts, ends, counts = [], [], [], []
    offset = 0
    for sentence in sentences:
        found = tokenizer.tokenize_with_offsets(sentence)
        tokens += [token.text for token in found]
        starts += [offset + token.start for token in found]
        ends += [offset + token.end for token in found]
        counts.append(len(found))
        offset += len(sentence)
    encoded = tokenizer.encode_sentences(sentences)
    assert [column.dtype for column in encoded] == [
        np.int32,
        np.int64,
        np.int64,
        np.bool_,
        np.int64,
    ]
    assert [column.tolist() for column in encoded] == [
        tokenizer.convert_tokens_to_ids(tokens),
        starts,
        ends,
        list(map(begins_word, tokens)),
        counts,
    ]


@example(sentences=[])
@example(sentences=["", ""])
@example(sentences=HARD_TEXTS)
@given(sentences=st.lists(_TEXTS, max_size=4))
@pytest.mark.parametrize("lower", [True, False])
def test_sentences_are_encoded_one_by_one(tokenizers, lower, sentences):
    _assert_encoded(
        tokenizers[lower], sentences, lambda token: not token.startswith("##")
    )


@example(sentences=[])
@example(sentences=["", " "])
@example(sentences=["the中国fox 中国", "中", "。the。", "\u2581"])
@given(sentences=st.lists(_SPM_TEXTS, max_size=4))
def test_sentences_are_encoded_one_by_one_by_sentencepiece(spm_tokenizer, sentences):
    def begins_word(piece):
        is_punctuation = not any(char.isalnum() for char in piece)
        return piece.startswith("\u2581") or is_punctuation

    _assert_encoded(spm_tokenizer, sentences, begins_word)


def test_an_unknown_piece_begins_a_word_as_its_text_says(spm_tokenizer):
    sentences = ["the中。", "the。", "中"]
    encoded = spm_tokenizer.encode_sentences(sentences)
    unknown = encoded.ids == spm_tokenizer.unk_id
    sources = [
        "".join(sentences)[start:end]
        for start, end in zip(encoded.starts[unknown], encoded.ends[unknown])
    ]
    assert sources == ["中。", "。", "中"]
    assert encoded.begins_word[unknown].tolist() == [False, True, False]


def test_sentencepiece_errors(
    tmp_path, spm_model_file, vocab_file, train_sentencepiece
):
    with pytest.raises(ValueError, match="normalize_punctuation"):
        tokenization.FullTokenizer(None, True, spm_model_file, True)
    with pytest.raises(ValueError, match="vocab.txt: not a SentencePiece model"):
        tokenization.FullTokenizer(None, spm_model_file=vocab_file)
    (tmp_path / "plain").mkdir()
    model_file = train_sentencepiece(
        tmp_path / "plain", _ENGLISH * 30, vocab_size=90, control_symbols="[CLS]"
    )
    with pytest.raises(ValueError, match=r"no \[SEP\] \[MASK\] among"):
        tokenization.FullTokenizer(None, spm_model_file=model_file)
    (tmp_path / "bytes").mkdir()
    model_file = train_sentencepiece(
        tmp_path / "bytes", _ENGLISH * 30, vocab_size=400, byte_fallback=True
    )
    with pytest.raises(ValueError, match="byte_fallback=false"):
        tokenization.FullTokenizer(None, spm_model_file=model_file)


@pytest.mark.real_data
def test_real_vocabulary_loads_and_knows_the_substitutes(real_data):
    vocab_file = str(real_data / "bert_zh_vocab" / "vocab.txt")
    tokenizer = tokenization.FullTokenizer(vocab_file, normalize_punctuation=True)
    assert tokenizer.vocab_size == 21128
    assert (tokenizer.pad_id, tokenizer.mask_id) == (0, 103)
    assert tokenizer.tokenize("“”‘’…—") == ['"', '"', "'", "'", "⋯", "-"]


@pytest.mark.real_data
@pytest.mark.parametrize("lower", [True, False])
def test_real_text_equals_transformers(real_data, lower):
    transformers = pytest.importorskip("transformers")
    vocab_file = str(real_data / "bert_zh_vocab" / "vocab.txt")
    reference = transformers.BertTokenizer(vocab_file, do_lower_case=lower)
    tokenizer = tokenization.FullTokenizer(vocab_file, lower)
    corpus = real_data / "niutrans_modern" / "modern_zh.txt"
    lines = corpus.read_text(encoding="utf-8").splitlines()[::40] + HARD_TEXTS
    for line in lines:
        assert tokenizer.tokenize(line) == reference.tokenize(line)


def test_a_tokenizer_is_made_from_bytes(vocab_file, spm_model_file):
    for path, is_sentencepiece in ((vocab_file, False), (spm_model_file, True)):
        with open(path, "rb") as file:
            content = file.read()
        made = tokenization.FullTokenizer.from_bytes(content, is_sentencepiece)
        spm = path if is_sentencepiece else None
        loaded = tokenization.FullTokenizer(path, spm_model_file=spm)
        assert made.vocab == loaded.vocab
        assert made.tokenize("Ein Wort") == loaded.tokenize("Ein Wort")
    with pytest.raises(ValueError, match="the model's vocabulary: no .PAD."):
        tokenization.FullTokenizer.from_bytes(b"a", source="the model's vocabulary")
    with pytest.raises(ValueError, match="normalize_punctuation"):
        tokenization.FullTokenizer.from_bytes(
            content, is_sentencepiece=True, normalize_punctuation=True
        )


@pytest.mark.parametrize(
    "do_lower_case,checkpoint",
    [
        (False, "gs://bert/uncased_L-12_H-768_A-12/bert_model.ckpt"),
        (False, "models/chinese_L-12_H-768_A-12/bert_model.ckpt"),
        (False, "C:\\models\\chinese_L-12_H-768_A-12\\bert_model.ckpt"),
        (True, "models/multi_cased_L-12_H-768_A-12/bert_model.ckpt"),
    ],
)
def test_casing_of_a_published_model_is_checked(do_lower_case, checkpoint):
    right = not do_lower_case
    with pytest.raises(ValueError, match="give --do_lower_case={}".format(right)):
        tokenization.validate_case_matches_checkpoint(do_lower_case, checkpoint)
    tokenization.validate_case_matches_checkpoint(right, checkpoint)


@pytest.mark.parametrize("checkpoint", [None, "", "model.ckpt", "x/bert_model.ckpt"])
def test_casing_of_other_models_is_not_checked(checkpoint):
    for do_lower_case in (True, False):
        tokenization.validate_case_matches_checkpoint(do_lower_case, checkpoint)


def test_berts_functions_and_attributes(tmp_path):
    path = tmp_path / "vocab.txt"
    entries = list(tokenization.SPECIAL_TOKENS) + ["un", "##aff", "##able"]
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    tokenizer = tokenization.FullTokenizer(str(path))
    assert tokenizer.basic_tokenizer.tokenize("UNaffable!") == ["unaffable", "!"]
    pieces = tokenizer.wordpiece_tokenizer.tokenize("unaffable")
    assert pieces == ["un", "##aff", "##able"]
    ids = tokenization.convert_tokens_to_ids(tokenizer.vocab, pieces)
    assert ids == tokenization.convert_by_vocab(tokenizer.vocab, pieces) == [5, 6, 7]
    assert tokenization.convert_ids_to_tokens(tokenizer.inv_vocab, ids) == pieces
    with pytest.raises(ValueError, match="'x' is not in the vocabulary of 8 entries"):
        tokenization.convert_by_vocab(tokenizer.vocab, ["x"])
