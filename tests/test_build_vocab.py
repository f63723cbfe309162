"""Tests of `albert_zh.vocabulary` and of the command `create_vocab.py`."""

import collections
import string

import pytest

import tokenization
from albert_zh import vocabulary
from albert_zh.errors import UserError

CORPUS = """\
山上有树，山下有水。
水里有鱼，树上有鸟。鱼在水里游。

Hello world, hello TensorFlow 2 and TensorFlow 1!
Привет мир и привет
罕
"""
SMALLEST = 5 + 2 * 36


def test_command_writes_a_vocabulary_with_the_coverage_it_states(tmp_path, run_command):
    (tmp_path / "a.txt").write_text(CORPUS, encoding="utf-8")
    result = run_command(
        "create_vocab.py",
        "--input_file=*.txt",
        "--output_file=out/vocab",
        "--min_count=2",
    )
    assert result.returncode == 0, result.stderr
    vocab_file = tmp_path / "out" / "vocab"
    tokenizer = tokenization.FullTokenizer(str(vocab_file))
    tokens = tokenizer.tokenize(CORPUS)
    share = 1 - tokens.count("[UNK]") / len(tokens)
    assert 0.5 < share < 1
    last_line = result.stdout.strip().splitlines()[-1]
    assert last_line == "{} entries cover {:.4%} of the corpus's tokens: {}".format(
        tokenizer.vocab_size, share, "out/vocab"
    )
    assert [path.name for path in vocab_file.parent.iterdir()] == ["vocab"]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--input_file=missing*.txt"], ["missing*.txt"]),
        (["--input_file=a.txt", "--vocab_size=77"], ["vocab_size=77", "77:"]),
        (["--input_file=a.txt", "--output_file=a.txt"], ["--output_file=a.txt"]),
    ],
)
def test_command_ends_in_one_line(
    flags, words, tmp_path, run_command, assert_user_error
):
    (tmp_path / "a.txt").write_text(CORPUS, encoding="utf-8")
    result = run_command("create_vocab.py", "--output_file=vocab", *flags)
    assert_user_error(result, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == CORPUS


def test_order_is_specials_characters_letters_words():
    counts = collections.Counter(
        {"山": 3, "水": 5, "，": 3, "罕": 1, "hello": 2, "world": 9, "b": 7, "й": 2}
    )
    entries = vocabulary.build_vocabulary(counts, 200, 2, True)
    alphabet = string.digits + string.ascii_lowercase
    assert entries == (
        list(tokenization.SPECIAL_TOKENS)
        + ["水", "山", "，"]
        + list(alphabet)
        + ["##" + char for char in alphabet]
        + ["world", "hello", "й"]
    )


def test_order_does_not_depend_on_the_order_of_counting():
    pairs = [(chr(0x4E00 + index), 5) for index in range(50)]
    forward = vocabulary.build_vocabulary(dict(pairs), 200, 1, True)
    backward = vocabulary.build_vocabulary(dict(pairs[::-1]), 200, 1, True)
    assert forward == backward


def test_size_is_an_upper_bound_that_words_meet_first():
    counts = {"山": 3, "水": 2, "hello": 9}
    sizes = {}
    for vocab_size in range(SMALLEST + 1, SMALLEST + 5):
        entries = vocabulary.build_vocabulary(counts, vocab_size, 1, True)
        sizes[vocab_size - SMALLEST] = len(entries) - SMALLEST
        assert len(set(entries)) == len(entries)
    assert sizes == {1: 1, 2: 2, 3: 3, 4: 3}
    assert "水" not in vocabulary.build_vocabulary(counts, SMALLEST + 1, 1, True)
    assert "hello" not in vocabulary.build_vocabulary(counts, SMALLEST + 2, 1, True)
    with pytest.raises(UserError, match="vocab_size={}".format(SMALLEST)):
        vocabulary.build_vocabulary(counts, SMALLEST, 1, True)


def test_capitals_are_entries_only_where_case_is_kept():
    assert "A" not in vocabulary.build_vocabulary({"山": 1}, 200, 1, True)
    cased = vocabulary.build_vocabulary({"山": 1}, 200, 1, False)
    assert {"A", "##A", "a", "##a"} <= set(cased)


def test_ascii_words_are_never_unknown():
    counts = {"supercalifragilistic2000": 1, "山": 1}
    entries = vocabulary.build_vocabulary(counts, 200, 2, True)
    assert "山" not in entries
    assert vocabulary.coverage(counts, entries) == pytest.approx(24 / 25)


def test_text_without_a_word_is_an_error():
    with pytest.raises(UserError, match="expected text"):
        vocabulary.count_words([], True)
