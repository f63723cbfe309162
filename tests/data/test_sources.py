"""Corpora as people have them: other line ends, encodings, gzip, JSON lines, names.

Every one gives the records of the same text in plain UTF-8, or a message whose advice
leads there.
"""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

import build_vocab
import create_pretraining_data
import tokenization
from albert_zh import command_line
from albert_zh.base.errors import UserError
from albert_zh.data import corpus, encodings, sources

DOCUMENTS = [
    ["春天的河边长满了青草。", "孩子们在岸上放风筝。", "风很大，线绷得很紧。"],
    ["银行今天公布了新的利率。", "贷款的人需要重新计算。", "柜台前排起了长队。"],
]
PLAIN = "\n\n".join("\n".join(lines) for lines in DOCUMENTS) + "\n"
TRADITIONAL = (
    "春天的河邊長滿了青草。\n孩子們在岸上放風箏。\n\n銀行今天公布了新的利率。\n"
    "貸款的人需要重新計算。\n"
)
LONG_DOCUMENT = "\n".join(["我们研究语言的模型。"] * 3)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory with a vocabulary."""
    monkeypatch.chdir(tmp_path)
    characters = sorted(set(PLAIN + TRADITIONAL + LONG_DOCUMENT) - {"\n"})
    entries = list(tokenization.SPECIAL_TOKENS) + characters
    (tmp_path / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    return tmp_path


@pytest.fixture
def generate(place, capsys):
    """Function that makes records of a file; returns the summary or the error."""

    def run(name, *more):
        flags = ["--input_file=" + str(name), "--output_file=out.tfrecord"]
        flags += ["--vocab_file=vocab.txt", "--max_seq_length=24", "--dupe_factor=2"]
        flags += ["--non_chinese"]
        parser = create_pretraining_data.build_parser()
        for old in place.glob("out.tfrecord*"):
            old.unlink()
        try:
            command_line.run(
                create_pretraining_data.main, parser, flags + [str(m) for m in more]
            )
        except SystemExit as exit:
            assert exit.code == 2
            error = capsys.readouterr().err.strip().split("\n")[-1]
            assert ": error: " in error
            assert not list(place.glob("out.tfrecord*"))
            return error
        summary = json.loads((place / "out.tfrecord.summary.json").read_text())
        summary["sha256"] = hashlib.sha256(
            (place / "out.tfrecord").read_bytes()
        ).hexdigest()
        return summary

    return run


@pytest.fixture
def expected(generate, place):
    """SHA-256 of the records of `PLAIN`."""
    (place / "plain.txt").write_bytes(PLAIN.encode())
    summary = generate("plain.txt")
    assert (summary["documents"], summary["sentences"]) == (2, 6)
    assert summary["warnings"] == []
    return summary["sha256"]


# ---- what a blank line is, and a line

INVISIBLE = {
    "zero-width space": "\u200b",
    "zero-width non-joiner": "\u200c",
    "left-to-right mark": "\u200e",
    "word joiner": "\u2060",
    "soft hyphen": "\u00ad",
    "NUL": "\0",
    "Ctrl-Z": "\x1a",
    "backspace": "\b",
    "replacement character": "\ufffd",
    "private use": "\ue000",
    "unassigned": "\u0378",
    "lone accent": "\u0301",
    "several": " \u200b\u3000\ufeff\0 ",
}
WHITE = {
    "empty": "",
    "space": " \t",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "byte order mark": "\ufeff",
    "two byte order marks": "\ufeff\ufeff",
    "vertical tab, form feed": "\x0b\x0c",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "next line": "\x85",
    "file separator": "\x1c",
}


@pytest.mark.parametrize("name", sorted(INVISIBLE) + sorted(WHITE))
def test_a_line_without_a_token_is_blank(generate, place, expected, name):
    blank = dict(INVISIBLE, **WHITE)[name]
    text = PLAIN.replace("\n\n", "\n{}\n".format(blank))
    (place / "in.txt").write_bytes(text.encode())
    summary = generate("in.txt")
    assert summary["sha256"] == expected
    assert summary["sentences_without_tokens"] == int(name in INVISIBLE)
    assert len(summary["warnings"]) == int(name in INVISIBLE)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"], ids=ascii)
def test_line_ends(generate, place, expected, end):
    (place / "in.txt").write_bytes(PLAIN.replace("\n", end).encode())
    assert generate("in.txt")["sha256"] == expected


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"], ids=ascii)
def test_a_file_with_other_separators_only_is_warned_of(generate, place, separator):
    """They are white space inside a line, as for BERT and other tools."""
    (place / "in.txt").write_bytes(PLAIN.replace("\n", separator).encode())
    (warning,) = generate("in.txt")["warnings"]
    assert "no blank line between documents" in warning


def test_byte_order_marks_in_the_middle_of_joined_files(generate, place, expected):
    first, second = PLAIN.encode("utf-8").split(b"\n\n")
    bom = b"\xef\xbb\xbf"
    (place / "in.txt").write_bytes(bom + first + b"\n\n" + bom + second)
    assert generate("in.txt")["sha256"] == expected


@given(text=st.text(st.sampled_from("a\r\n好"), max_size=12), cut=st.integers(0, 12))
def test_lines_are_the_same_wherever_blocks_end(text, cut):
    for whole in (text, text.encode()):
        lines, rest = corpus.split_lines(whole)
        first, some = corpus.split_lines(whole[:cut])
        more, last = corpus.split_lines(some + whole[cut:])
        assert (first + more, last) == (lines, rest)
        assert whole[:0].join(lines) + rest == whole


# ---- encodings and compression

ENCODINGS = ["gb18030", "gbk", "gb2312", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_is_named_and_read(generate, place, expected, encoding):
    (place / "in.txt").write_bytes(PLAIN.encode(encoding))
    for more in ((), ("--encoding_errors=replace",)):
        error = generate("in.txt", *more)
        assert "in.txt: not UTF-8, it looks like" in error
    (advice,) = re.findall("--encoding=[a-z0-9-]+", error)
    for flag in (advice, "--encoding=" + encoding):
        summary = generate("in.txt", flag)
        assert summary["sha256"] == expected and summary["unk_share"] == 0
    # Packed, too.
    (place / "in.txt").write_bytes(gzip.compress(PLAIN.encode(encoding)))
    assert advice in generate("in.txt")
    assert generate("in.txt", advice)["sha256"] == expected


@pytest.mark.parametrize("encoding", ["big5", "cp950", "big5hkscs"])
def test_traditional_chinese(generate, place, encoding):
    (place / "plain.txt").write_bytes(TRADITIONAL.encode())
    plain = generate("plain.txt")
    assert plain["unk_share"] == 0
    (place / "in.txt").write_bytes(TRADITIONAL.encode(encoding))
    (advice,) = re.findall("--encoding=[a-z0-9-]+", generate("in.txt"))
    assert generate("in.txt", advice)["sha256"] == plain["sha256"]


@pytest.mark.parametrize("encoding", ENCODINGS + ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
def test_line_ends_in_any_encoding(generate, place, expected, encoding, end):
    text = PLAIN.replace("\n", end)
    (place / "in.txt").write_bytes(text.encode(encoding))
    summary = generate("in.txt", "--encoding=" + encoding)
    assert summary["sha256"] == expected


def test_utf8_is_not_read_as_something_else(generate, place):
    (place / "in.txt").write_bytes(PLAIN.encode())
    error = generate("in.txt", "--encoding=gb18030")
    assert "it is UTF-8, not gb18030; leave out --encoding" in error


@pytest.mark.parametrize("name", ["no-such", "hex", "rot13", "idna", "\0"])
def test_an_unknown_encoding_is_refused(generate, place, name):
    (place / "in.txt").write_bytes(PLAIN.encode())
    error = generate("in.txt", "--encoding=" + name)
    assert "no encoding of text" in error
    for advised in ("utf-8", "gb18030", "big5", "utf-16"):
        assert advised in error and sources.encoding_name(advised)


@pytest.mark.parametrize("encoding", ["shift_jis", "euc_kr", "cp1251"])
def test_what_is_not_recognized_must_be_named(generate, place, encoding):
    text = {
        "shift_jis": "これは日本語のテキストです。\n今日は天気がいいですね。\n",
        "euc_kr": "한국어 텍스트입니다.\n오늘은 날씨가 좋네요.\n",
        "cp1251": "Привет, мир.\nЭто русский текст.\n",
    }[encoding]
    (place / "in.txt").write_bytes((text + "\n" + text).encode(encoding))
    assert "not UTF-8 text; give its encoding" in generate("in.txt")
    assert generate("in.txt", "--encoding=" + encoding)["sentences"] == 4


@pytest.mark.parametrize(
    "encoding, bad",
    [("utf-8", b"\xff"), ("gb18030", b"\xff"), ("big5", b"\xff"), ("utf-16", None)],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_bytes_in_any_encoding(generate, place, encoding, bad, packed):
    lines = TRADITIONAL.split("\n")
    data = TRADITIONAL.encode(encoding)
    if encoding == "utf-16":
        broken = (
            data[: 2 * (len("\n".join(lines[:2])) + 2)]
            + b"\x00\xd8"
            + ("\n" + "\n".join(lines[2:])).encode("utf-16-le")
        )
        line = 3
    else:
        broken = ("\n".join(lines[:2]) + "\n").encode(encoding) + bad
        broken += ("\n".join([""] + lines[2:])).encode(encoding)
        line = 3
    (place / "in.txt").write_bytes(gzip.compress(broken) if packed else broken)
    given = () if encoding == "utf-8" else ("--encoding=" + encoding,)
    error = generate("in.txt", *given)
    assert "in.txt:{}: not valid".format(line) in error or packed
    assert "--encoding_errors=replace" in error
    summary = generate("in.txt", "--encoding_errors=replace", *given)
    assert 1 <= summary["replaced_undecodable_bytes"] <= 2
    assert summary["sentences"] == 4


def test_gzip(generate, place, expected):
    data = PLAIN.encode()
    half = len(data) // 2
    for content in (
        gzip.compress(data),
        gzip.compress(data[:half]) + gzip.compress(data[half:]),  # two members
        gzip.compress(b"") + gzip.compress(data) + b"\0" * 512,
    ):
        # Whatever the name.
        for name in ("in.txt.gz", "in.txt"):
            (place / name).write_bytes(content)
            assert generate(name)["sha256"] == expected


def test_damaged_gzip_is_named(generate, place):
    data = gzip.compress(PLAIN.encode() * 50)
    for cut in range(2, len(data), 7):
        (place / "in.gz").write_bytes(data[:cut])
        assert "in.gz: truncated gzip" in generate("in.gz")
    wrong = bytearray(data)
    wrong[len(data) // 2] ^= 255
    (place / "in.gz").write_bytes(wrong)
    assert "in.gz" in generate("in.gz")
    (place / "in.gz").write_bytes(data[:-8] + bytes(8))
    assert "in.gz: damaged gzip" in generate("in.gz")


def _tar(content):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _zip(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "make, name",
    [
        (_tar, "a tar archive"),
        (lambda content: gzip.compress(_tar(content)), "a tar archive"),
        (_zip, "a zip archive"),
        (lambda content: b"%PDF-1.4\n" + content, "a PDF"),
        (lambda content: b"PAR1" + content, "a Parquet file"),
    ],
)
def test_other_formats_are_named(generate, place, make, name):
    (place / "in.txt").write_bytes(make(PLAIN.encode()))
    error = generate("in.txt")
    assert "in.txt is {}".format(name) in error and "unpack or export it" in error


def test_guesses_on_real_text_of_any_length(repository):
    text = (repository / "resources" / "sample_corpus.txt").read_text(encoding="utf-8")
    wrong = tried = 0
    for begin in range(0, len(text) - 2000, 997):
        for length in (30, 200, 2000):
            for encoding in ("gb18030", "utf-16-le", "utf-16-be", "utf-8"):
                sample = text[begin : begin + length].encode(encoding)[:-1]
                guess = None if encodings.is_utf8(sample) else True
                guess = guess and encodings.guess(sample)
                tried += 1
                wrong += guess != (None if encoding == "utf-8" else encoding)
    assert tried > 100 and wrong == 0


# ---- JSON lines


def _json_lines(**more):
    return [
        json.dumps(dict({"id": number, "text": "\n".join(lines)}, **more))
        for number, lines in enumerate(DOCUMENTS)
    ]


def test_json_lines_are_recognized_and_read(generate, place, expected):
    (place / "in.jsonl").write_text("\n".join(_json_lines(title="标题")))
    error = generate("in.jsonl")
    assert "in.jsonl looks like JSON lines with the fields 'text', 'title'" in error
    assert generate("in.jsonl", "--text_field=text")["sha256"] == expected
    summary = generate("in.jsonl", "--text_field=")
    assert summary["sentences"] == 2
    summary = generate("in.jsonl", "--text_field=title,text")
    assert (summary["documents"], summary["sentences"]) == (2, 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: "\ufeff" + "\n".join(lines),
        lambda lines: "\n\n".join(lines) + "\n\n",
        lambda lines: "\r\n".join(lines),
        lambda lines: "\n\ufeff".join(lines),
        lambda lines: "\n".join(lines).replace("\\n", "\\r\\n\\u200b\\n\\n"),
        lambda lines: "\n".join(
            json.dumps({"text": document + [None, ""]}, ensure_ascii=False)
            for document in DOCUMENTS
        ),
        lambda lines: "\n".join(lines + ['{"text": null}', '{"text": ""}']),
        lambda lines: "\n".join(lines).replace('"id": 0', '"id": ' + "1" * 200),
    ],
)
def test_json_lines_as_people_have_them(generate, place, expected, change):
    data = change(_json_lines()).encode()
    for content in (data, gzip.compress(data), data.decode().encode("utf-16")):
        (place / "in.jsonl").write_bytes(content)
        more = ["--encoding=utf-16"] if content[:2] == b"\xff\xfe" else []
        summary = generate("in.jsonl", "--text_field=text", *more)
        assert summary["sha256"] == expected


@pytest.mark.parametrize(
    "line, problem",
    [
        ("{", "not JSON"),
        ("[1]", "no JSON object"),
        ("好的", "not JSON"),
        ("{}", "no field 'text' among none"),
        ('{"content": "好"}', "no field 'text' among 'content'"),
        ('{"text": 3}', "field 'text' is no text"),
        ('{"text": {"a": "b"}}', "field 'text' is no text"),
        ('{"text": ["a", 1]}', "field 'text' is no text"),
        ("[" * 100000, "not JSON"),
        ('{"text": "好", "text": "不好"}', "it holds the key 'text' twice"),
        ('{"text": %s}' % ("1" * 5000), "in.jsonl:3: "),
    ],
    ids=lambda value: value[:12],
)
def test_a_bad_json_line_is_named(generate, place, line, problem):
    (place / "in.jsonl").write_text("\n".join(_json_lines() + [line]))
    error = generate("in.jsonl", "--text_field=text")
    assert "in.jsonl:3: " in error and problem in error
    assert "--text_field" in error


def test_half_a_surrogate_pair_is_replaced(generate, place):
    (place / "in.jsonl").write_text('{"text": "\\ud83d好的。\\n我们。"}')
    assert generate("in.jsonl", "--text_field=text")["sentences"] == 2


def test_a_json_array_is_recognized(generate, place, expected):
    (place / "in.json").write_text("[" + ",\n".join(_json_lines()) + "]")
    error = generate("in.json")
    assert "in.json looks like a JSON array; write one object per line" in error
    objects = json.loads((place / "in.json").read_text())
    (place / "in.json").write_text("\n".join(map(json.dumps, objects)))
    assert generate("in.json", "--text_field=text")["sha256"] == expected


# ---- names


def test_names_with_commas_brackets_and_spaces(generate, place, expected):
    folder = place / "新 语料[1]"
    folder.mkdir()
    for name in ("新闻,第1批.txt", "a[2].txt", "b.txt", "c*.txt"):
        (folder / name).write_bytes(PLAIN.encode())
        assert generate("新 语料[1]/" + name)["sha256"] == expected
    names = "新 语料[1]/新闻,第1批.txt, 新 语料[1]/b.txt,新 语料[1]/a[2].txt"
    assert generate(names)["documents"] == 6
    assert generate("新 语料[1]/*.txt")["documents"] == 8
    assert generate("新 语料[1]/[ab]*.txt,新 语料[1]/新闻,第?批.txt")["documents"] == 6
    assert "no input file matches 'x'" in generate("新 语料[1]/b.txt,x,y.txt")


def test_a_directory_is_all_files_in_it(generate, place, expected):
    (place / "wiki" / "AA").mkdir(parents=True)
    (place / "wiki" / "BB").mkdir()
    first, second = PLAIN.split("\n\n")
    (place / "wiki" / "AA" / "wiki_00").write_text(first + "\n", encoding="utf-8")
    (place / "wiki" / "BB" / "wiki_00").write_text("\n" + second, encoding="utf-8")
    (place / "wiki" / "AA" / "._wiki_00").write_bytes(b"\0\xff")
    (place / "wiki" / "_SUCCESS").write_bytes(b"")
    (place / "wiki" / "BB" / "round").symlink_to(place / "wiki")
    summary = generate("wiki")
    assert (summary["documents"], summary["sentences"]) == (2, 6)
    assert [entry["path"] for entry in summary["manifest"]["input"]] == [
        "wiki/AA/wiki_00",
        "wiki/BB/wiki_00",
    ]
    (place / "empty").mkdir()
    assert "no input file matches 'empty'" in generate("empty")


def test_a_directory_of_records_is_not_guessed_at(place):
    (place / "records").mkdir()
    with pytest.raises(UserError, match=r"expected files, for .*records/\*\.tfrecord"):
        corpus.expand_input_files("records")
    # As it says:
    (place / "records" / "a.tfrecord").write_bytes(b"")
    (place / "records" / "a.tfrecord.summary.json").write_bytes(b"")
    found = corpus.expand_input_files("records/*.tfrecord")
    assert found == ["records/a.tfrecord"]


def test_a_pipe_or_device_is_neither_input_nor_output(generate, place):
    (place / "in.txt").write_bytes(PLAIN.encode())
    os.mkfifo("pipe")
    for name in ("pipe", "/dev/null", "/dev/stdin"):
        assert "no ordinary file" in generate(name)
        assert "a pipe or a device" in generate("in.txt", "--output_file=" + name)
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


# ---- corpora without documents


def test_a_corpus_without_blank_lines_is_said(generate, place, caplog):
    lines = [sentence for document in DOCUMENTS for sentence in document]
    (place / "in.txt").write_text("\n".join(lines), encoding="utf-8")
    summary = generate("in.txt")
    assert "no blank line at the start of any input file" in caplog.text
    (warning,) = summary["warnings"]
    assert warning.startswith("no blank line between documents: each file is read as")
    # What it says to do:
    (command,) = re.findall("`(.*)`", warning)
    command = command.replace("OLD", "in.txt").replace("NEW", "new.txt")
    subprocess.run(command, shell=True, check=True, cwd=str(place))
    caplog.clear()
    summary = generate("new.txt")
    assert summary["documents"] == len(lines) and not summary["warnings"]
    assert "no blank line" not in caplog.text


# ---- the vocabulary's command


def _vocabulary(place, name, *more):
    flags = ["--input_file=" + str(name), "--output_file=new_vocab.txt"]
    flags += ["--vocab_size=225", "--min_count=1"] + list(more)
    command_line.run(build_vocab.main, build_vocab.build_parser(), flags)
    return (place / "new_vocab.txt").read_bytes()


def test_build_vocab_reads_the_same_forms(place, capsys):
    (place / "plain.txt").write_bytes(PLAIN.encode())
    expected = _vocabulary(place, "plain.txt")
    (place / "in.jsonl").write_text("\n".join(_json_lines()))
    (place / "gbk.txt.gz").write_bytes(gzip.compress(PLAIN.encode("gbk")))
    (place / "dir").mkdir()
    (place / "dir" / "a").write_bytes(PLAIN.replace("\n", "\r").encode())
    for name, advice in (
        ("in.jsonl", "--text_field=text"),
        ("gbk.txt.gz", "--encoding=gb18030"),
        ("dir", None),
    ):
        if advice:
            with pytest.raises(SystemExit):
                _vocabulary(place, name)
            assert advice.split("=")[0] in capsys.readouterr().err
        assert _vocabulary(place, name, *([advice] if advice else [])) == expected
    (place / "blank.txt").write_text("\u200b\n\n\0\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        _vocabulary(place, "blank.txt")
    assert "no sentence in blank.txt" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        _vocabulary(place, "plain.txt", "--vocab_size=1000000000")
    assert "expected at most" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        _vocabulary(place, "plain.txt", "--output_file=/dev/null")
    assert "a pipe or a device" in capsys.readouterr().err
    assert not os.path.isfile("/dev/null")


def test_what_a_killed_build_vocab_left_is_removed(place):
    (place / "plain.txt").write_bytes(PLAIN.encode())
    (place / ".new_vocab.txt.{}.partial".format("0" * 32)).write_text("half")
    _vocabulary(place, "plain.txt")
    assert sorted(os.listdir()) == ["new_vocab.txt", "plain.txt", "vocab.txt"]


def test_a_divided_document_can_be_avoided_as_the_warning_says(generate, place):
    lines = [sentence for document in DOCUMENTS for sentence in document] * 5
    (place / "in.txt").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    (warning,) = generate("in.txt", "--shard_bytes=300")["warnings"]
    assert "divided because of their length: put blank lines between" in warning
    (place / "in.txt").write_text("\n\n".join(lines) + "\n\n", encoding="utf-8")
    assert generate("in.txt", "--shard_bytes=300")["warnings"] == []


def test_a_line_that_is_too_long_is_named_in_every_form(place, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_LINE_BYTES", 100)
    data = "短。\n\n" + "长" * 34 + "\n短。\n"
    has_tokens = tokenization.BasicTokenizer().has_tokens
    for form, content in (
        (sources.Form(), data.encode()),
        (sources.Form(), gzip.compress(data.encode())),
        (sources.Form("gb18030"), data.encode("gb18030")),
        (
            sources.Form(text_fields=("a",)),
            "\n\n{}\n".format(json.dumps({"a": data}, ensure_ascii=False)).encode(),
        ),
    ):
        (place / "in.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"in\.txt:3: line of more than"):
            with sources.as_plain(form, ["in.txt"], has_tokens) as paths:
                list(corpus.read_documents(paths, "strict", has_tokens))
