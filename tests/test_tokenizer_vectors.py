"""Test vectors for tokenizers in other languages: resources/tokenizer_vectors.json.

    PYTHONPATH=. python tests/test_tokenizer_vectors.py

writes the file. It holds a small vocabulary, texts that show each rule of
docs/serving_en.md with their tokens and offsets, and inputs of a model. All texts were
written for it.
"""

import json
import pathlib
import re
import string
import unicodedata

import tokenization
from albert_zh.tasks import characters, features

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PATH = REPOSITORY / "resources" / "tokenizer_vectors.json"

VOCABULARY = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "..."]
    + list("""!"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~。，！？、《》「」·￥～""")
    + list(string.digits + string.ascii_lowercase)
    + ["##" + char for char in string.digits + string.ascii_lowercase]
    + list("今天气不错出门走吧我们在北京大学读书花呗怎么还款了的豈")
    + "un ##aff ##able al ##bert 2019 年 don ist か ##な 𠮷 ｕｎ ##￥ ##＝".split()
    + "α ##σ ς ##ς ﬁ ##ﬁ ǆ е у A ##B Á İ \u1112 \u1100".split()
    + ["##" + chr(c) for c in (0x1161, 0x11AB, 0x1100, 0x116E, 0x11A8)]
    + ["\u2028"]
)

# Rule -> texts that show it, lower-cased.
TEXTS = {
    "ideograph": [
        "今天天气不错",
        "我们Albert在北京大学",
        "𠮷大学",
        "\uf900气",
        "かな今か",
    ],
    "whitespace": [
        "",
        " \t\r\n",
        "今\u3000天 气\u00a0不\u2003错\u2028出\u2029门",
        "un\taffable\nal",
    ],
    "dropped": [
        "今\u0000天\ufffd气\ufeff",
        "un\u200baff\u00adable",
        "al\u0007bert\u000b\u000c\u0085",
        "今\ue000天\u200e气",
    ],
    "lower case": ["ALBERT", "Ｕｎ", "ΑΣΣ", "İst", "ǅ"],
    "accents": ["ÀLBÉRT", "A\u0301l", "ﬁn", "a\u0323\u0307b", "\u0301a", "ё", "ӯ"],
    "composition": ["한국", "\u1112\u1161\u11ab국", "が", "か\u3099"],
    "punctuation": [
        "今天，天气不错。",
        "don't!",
        "a_b-c@d.e",
        "《花呗》·「还款」～￥",
        "1+1=2",
        "a＝b",
        "#花呗#",
    ],
    "longest match": [
        "unaffable",
        "albert",
        "2019年",
        "2019",
        "20190",
        "unaffableness",
    ],
    "unknown": ["今鑫天", "unaffablé鑫", "albertΩ", "a" * 100, "a" * 101, "😀天"],
    "special tokens": ["[MASK]天", "[CLS][SEP]", "[unk]"],
}
CASED_TEXTS = ["ALBERT", "A\u0301B", "ÀB", "Albert", "İ", "I\u0307"]
PUNCTUATION_TEXTS = ["“今天”", "don’t", "天——气……", "他说‘走吧’"]
PAIRS = [("花呗怎么还款", "怎么还花呗"), ("今天天气不错", None), ("", "unaffable")]
CUT_PAIRS = [("花呗怎么还款", "怎么还花呗了吗"), ("今天", "天气不错，出门走走吧")]
CHARACTER_TEXTS = ["我们在 2019年\u200b读Un书", "한国A😀"]


def build():
    """Returns the content of the file."""
    lower = make_tokenizer()
    return {
        "about": "Test vectors of the tokenizer; the rules: docs/serving_en.md. "
        "Offsets count code points. Written by tests/test_tokenizer_vectors.py.",
        "vocabulary": VOCABULARY,
        "lower_case": [
            dict(rule=rule, **tokenize(lower, text))
            for rule, texts in TEXTS.items()
            for text in texts
        ],
        "cased": [
            tokenize(make_tokenizer(do_lower_case=False), text) for text in CASED_TEXTS
        ],
        "normalize_punctuation": [
            tokenize(make_tokenizer(normalize_punctuation=True), text)
            for text in PUNCTUATION_TEXTS
        ],
        "inputs": [inputs(lower, pair, 32) for pair in PAIRS],
        "cut_inputs": [inputs(lower, pair, 12) for pair in CUT_PAIRS],
        "characters": [by_character(lower, text) for text in CHARACTER_TEXTS],
    }


def make_tokenizer(**options):
    content = "\n".join(VOCABULARY) + "\n"
    return tokenization.FullTokenizer.from_bytes(content.encode("utf-8"), **options)


def tokenize(tokenizer, text):
    tokens = tokenizer.tokenize_with_offsets(text)
    texts = [token.text for token in tokens]
    return {
        "text": text,
        "tokens": texts,
        "ids": tokenizer.convert_tokens_to_ids(texts),
        "starts": [token.start for token in tokens],
        "ends": [token.end for token in tokens],
    }


def inputs(tokenizer, pair, max_seq_length):
    made = features.pair_features(tokenizer, pair[0], pair[1], max_seq_length)
    return {
        "text_a": pair[0],
        "text_b": pair[1],
        "max_seq_length": max_seq_length,
        "input_ids": made.input_ids,
        "input_mask": [1] * len(made.input_ids),
        "segment_ids": made.segment_ids,
    }


def by_character(tokenizer, text):
    (window,) = characters.Encoder(tokenizer, 64).encode(text)
    return {
        "text": text,
        "input_ids": window.input_ids,
        "positions": list(window.origin.positions),
    }


def to_json(content):
    """Returns the content as JSON: a line for each case, what is invisible escaped."""
    parts = []
    for name, value in content.items():
        is_cases = isinstance(value, list) and isinstance(value[0], dict)
        lines = [json.dumps(item, ensure_ascii=False) for item in value if is_cases]
        shown = "[\n  {}\n ]".format(",\n  ".join(lines))
        parts.append(
            "{}: {}".format(
                json.dumps(name),
                shown if is_cases else json.dumps(value, ensure_ascii=False),
            )
        )
    text = "{\n " + ",\n ".join(parts) + "\n}\n"
    return re.sub(r"[^\n]", lambda match: _visible(match.group()), text)


def _visible(char):
    is_plain = char == unicodedata.normalize("NFC", char) != "\ufffd"
    if char == " " or (is_plain and unicodedata.category(char)[0] not in "CZM"):
        return char
    return json.dumps(char)[1:-1]


def test_the_file_has_what_the_tokenizer_does():
    assert json.loads(PATH.read_text(encoding="utf-8")) == build()
    assert PATH.read_text(encoding="utf-8") == to_json(build())


def test_the_vocabulary_has_each_token_once():
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_most_texts_show_more_than_unknown_tokens():
    cases = build()["lower_case"]
    assert sum("[UNK]" in case["tokens"] for case in cases) < len(cases) / 3
    assert {case["rule"] for case in cases} == set(TEXTS)


if __name__ == "__main__":
    PATH.write_text(to_json(build()), encoding="utf-8")
