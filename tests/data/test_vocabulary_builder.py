"""Tests of `albert_zh.data.vocabulary_builder` and of the command `build_vocab.py`."""

import pytest

import tokenization
from albert_zh.base.errors import UserError
from albert_zh.data import vocabulary_builder

CORPUS = """\
山上有树，山下有水。
水里有鱼，树上有鸟。鱼在水里游。

Hello world, hello TensorFlow 2 and TensorFlow 1!
Привет мир и привет
罕
"""
NUM_SPECIALS = 104
SMALLEST = NUM_SPECIALS + 2 * 36


def _build(lines, vocab_size=300, min_count=1, do_lower_case=True):
    return vocabulary_builder.build_vocabulary(
        lambda: iter(lines), vocab_size, min_count, do_lower_case
    )


def test_command_writes_a_vocabulary_with_the_coverage_it_states(tmp_path, run_command):
    (tmp_path / "a.txt").write_text(CORPUS, encoding="utf-8")
    contents = []
    for name in ("vocab", "again"):
        output_file = "out/" + name
        result = run_command(
            "build_vocab.py",
            "--input_file=*.txt",
            "--output_file=" + output_file,
            "--min_count=2",
            "--vocab_size=215",
        )
        assert result.returncode == 0, result.stderr
        contents.append((tmp_path / output_file).read_bytes())
    assert contents[0] == contents[1]
    tokenizer = tokenization.FullTokenizer(str(tmp_path / output_file))
    tokens = tokenizer.tokenize(CORPUS)
    share = 1 - tokens.count("[UNK]") / len(tokens)
    assert 0.5 < share < 1
    unused = [token for token in tokenizer.vocab if token.startswith("[unused")]
    assert tokenizer.vocab_size == 215 and len(unused) > 99
    last_line = result.stdout.strip().splitlines()[-1]
    assert last_line == (
        "215 entries, {} of them [unused], cover {:.4%} of the corpus's tokens: "
        "{}".format(len(unused), share, output_file)
    )
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["again", "vocab"]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--input_file=missing*.txt"], ["missing*.txt"]),
        (
            ["--input_file=a.txt", "--vocab_size={}".format(SMALLEST)],
            ["vocab_size={};".format(SMALLEST)],
        ),
        (["--input_file=a.txt", "--output_file=a.txt"], ["'a.txt'", "input file"]),
        (["--input_file=a.txt", "--output_file=./a.txt"], ["'./a.txt'", "input file"]),
        (["--input_file=a.txt", "--output_file={}/a.txt"], ["/a.txt'", "input file"]),
        (["--input_file=a.txt", "--output_file=b,c"], ["--output_file=b,c"]),
        (["--input_file=latin1.txt"], ["latin1.txt:2", "UTF-8"]),
    ],
)
def test_command_ends_in_one_line(
    flags, words, tmp_path, run_command, assert_user_error
):
    (tmp_path / "a.txt").write_text(CORPUS, encoding="utf-8")
    (tmp_path / "latin1.txt").write_bytes(b"cafe\ncaf\xe9\n")
    flags = [flag.replace("{}", str(tmp_path)) for flag in flags]
    result = run_command("build_vocab.py", "--output_file=vocab", *flags)
    assert_user_error(result, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "latin1.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == CORPUS


@pytest.mark.parametrize(
    "text, flags, hints",
    [
        (CORPUS, [], ["more text", "a --min_count below 5"]),
        (CORPUS, ["--min_count=2"], ["a --min_count below 2", "--vocab_size=213"]),
        (CORPUS, ["--min_count=1"], ["more text", "--vocab_size=228"]),
        ("1 a\n", ["--min_count=1"], ["give more text"]),
    ],
    ids=["nothing is frequent", "little is", "little there is", "nothing to learn"],
)
def test_a_text_too_small_for_the_size_is_refused(
    text, flags, hints, tmp_path, run_command, assert_user_error
):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    flags = ["--input_file=a.txt", "--output_file=vocab", *flags]
    result = run_command("build_vocab.py", "--vocab_size=240", *flags)
    assert_user_error(result, "--vocab_size=240: the text gives no more than", *hints)
    assert not (tmp_path / "vocab").exists()
    if hints[-1].startswith("--vocab_size"):
        assert run_command("build_vocab.py", *flags, hints[-1]).returncode == 0
        assert (tmp_path / "vocab").read_text().count("[unused") == 99


@pytest.mark.parametrize("flag", ["--vocab_file", "--spm_model_file"])
def test_records_do_not_overwrite_the_vocabulary(
    flag, tmp_path, run_command, assert_user_error
):
    (tmp_path / "a.txt").write_text(CORPUS, encoding="utf-8")
    (tmp_path / "vocab").write_text("[PAD]\n")
    result = run_command(
        "create_pretraining_data.py",
        "--input_file=a.txt",
        "--output_file={}".format(tmp_path / "vocab"),
        flag + "=./vocab",
    )
    assert_user_error(result, "input file")
    assert (tmp_path / "vocab").read_text() == "[PAD]\n"


def test_special_tokens_are_where_berts_chinese_vocabulary_has_them():
    entries = _build(CORPUS.splitlines())
    places = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    places.update(("[unused{}]".format(place), place) for place in range(1, 100))
    assert {entry: entries.index(entry) for entry in places} == places
    assert len(places) == NUM_SPECIALS
    assert len(set(entries)) == len(entries)


def test_characters_come_by_frequency_then_code_point():
    entries = _build(["水水水水 山山山，，， 罕 树树", "人人"], min_count=2)
    assert entries[SMALLEST:] == ["水", "山", "，", "人", "树"]


def test_frequent_words_become_pieces():
    entries = _build(["playing 山 played plays playing, singing"] * 3, min_count=3)
    assert {"playing", "##ing"} <= set(entries)
    tokenizer = tokenization.WordpieceTokenizer(frozenset(entries))
    assert tokenizer.split_word("playing") == ["playing"]
    assert "[UNK]" not in tokenizer.split_word("zebra2000")
    assert set(_build(["playing"] * 3, min_count=4)) == set(_build(["1"]))


def test_letters_of_other_scripts_spell_their_words():
    entries = _build(["Привет мир", "かな"], min_count=1, vocab_size=1000)
    assert {"и", "##и", "##な", "привет"} <= set(entries)
    assert "##か" not in entries


# U+2B820 is in extension E; the trainer's library takes it for a letter.
@pytest.mark.parametrize("ideographs", ["山水鱼鸟", "\u3400\uf900\U0002b820\U0002b821"])
def test_an_ideograph_is_never_part_of_a_longer_piece(ideographs):
    entries = _build([ideographs, "a" + ideographs + "b"] * 9)
    assert set(ideographs.replace("\uf900", "")) <= set(entries)
    for entry in entries:
        if any(tokenization.is_chinese_char(ord(char)) for char in entry):
            assert len(entry) == 1


def test_ties_do_not_depend_on_the_order_of_lines():
    words = [first + second for first in "абвгдежз" for second in "ийклмноп"]
    lines = words + [chr(0x4E00 + index) for index in range(50)]
    # 50 ideographs and 2 * 8 letters, so that there is room for 10 of 64 words.
    vocab_size = SMALLEST + 50 + 2 * 8 + 8 + 10
    first = _build(lines, vocab_size)
    assert len(first) == vocab_size
    for _ in range(3):
        assert _build(lines[::-1], vocab_size) == first


def test_size_is_an_upper_bound_that_pieces_meet_first():
    lines = ["山山山 水水 hello"]
    for vocab_size in range(SMALLEST + 1, SMALLEST + 4):
        assert len(_build(lines, vocab_size)) == vocab_size
    assert _build(lines, SMALLEST + 1)[SMALLEST:] == ["山"]
    assert _build(lines, SMALLEST + 2)[SMALLEST:] == ["山", "水"]
    everything = _build(lines, 1000)
    assert len(everything) < 1000
    assert "hello" in everything
    with pytest.raises(UserError, match="vocab_size={};".format(SMALLEST)):
        _build(lines, SMALLEST)


def test_the_bound_holds_where_continuations_have_no_room():
    lines = ["яяя яю"]
    assert _build(lines, SMALLEST + 1)[SMALLEST:] == ["я"]


def test_capitals_are_entries_only_where_case_is_kept():
    assert "A" not in _build(["A山"])
    assert {"A", "##A", "a", "##a"} <= set(_build(["山"], do_lower_case=False))


@pytest.mark.parametrize("lines", [[], ["\x00\x01", "\ufffd"]])
def test_text_without_a_word_is_an_error(lines):
    with pytest.raises(UserError, match="expected text"):
        _build(lines)
