"""Reading documents: boundaries, encodings, errors with file and line, streaming."""

import io
import itertools
import os
import re
from typing import NamedTuple
from unittest import mock

import hypothesis
import pytest
from hypothesis import strategies as st

import tokenization
from albert_zh.base import checksums, files
from albert_zh.base.errors import UserError
from albert_zh.data import corpus
from albert_zh.data import shards as sharding

BOM = b"\xef\xbb\xbf"
TOKENIZER = tokenization.BasicTokenizer()

LINES = st.lists(
    st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=6), max_size=30
)
_FULL_LINES = st.sampled_from(
    [b"a", "好".encode(), "\u3000句 \r".encode(), b"x\xe4\xbd", BOM + b"y"]
    + [b"long" * 12, "好的".encode() * 40, b"a\rb", b"a\r\rb"]
)
_BLANK_LINES = st.sampled_from(
    [b"", b" ", b"\t\r", "\u3000\u2028 \x85".encode(), b"\r", b"\0", BOM, b"\xff"]
    + ["\u200b \u00ad\ufeff".encode()]
)
FILES = st.builds(
    lambda start, lines, newline, end: start + newline.join(lines) + end,
    start=st.sampled_from([b"", BOM]),
    lines=st.one_of(
        st.lists(st.one_of(_FULL_LINES, _BLANK_LINES), max_size=30),
        st.lists(_FULL_LINES, max_size=30),
    ),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r", b"\r\r\n"]),
    end=st.sampled_from([b"", b"\n", b"\n\n \n"]),
)


def _write(directory, name, data):
    path = directory / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    return str(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """Function that writes a file, always the same one, and returns its path."""
    directory = tmp_path_factory.mktemp("corpus")
    return lambda data: _write(directory, "scratch.txt", data)


class Reads:
    """Stands in for `files.open_input`: notes what is read, as (position, bytes)."""

    def __init__(self):
        self.ranges = []

    def open_input(self, path):
        reads = self

        class NotingFile(io.FileIO):
            def read(self, size):
                position = self.tell()
                block = super().read(size)
                reads.ranges.append((position, len(block)))
                return block

        return NotingFile(path)

    @property
    def num_bytes(self):
        return sum(length for _, length in self.ranges)


@pytest.fixture
def reads(monkeypatch):
    noted = Reads()
    monkeypatch.setattr(files, "open_input", noted.open_input)
    return noted


def _sentences(*paths, **kwargs):
    return [document.sentences for document in corpus.read_documents(paths, **kwargs)]


@pytest.mark.parametrize(
    "data",
    [
        "一\n二\n\n三\n",
        "\ufeff一\n二\n\n三",
        "一\r\n二\r\n\r\n三\r\n",
        "\n\n 一 \n二\t\n\n \u3000\n\n三\n\n\n",
    ],
    ids=["plain", "bom", "crlf", "white space"],
)
def test_blank_lines_separate_documents(tmp_path, data):
    assert _sentences(_write(tmp_path, "a.txt", data)) == [["一", "二"], ["三"]]


def test_a_file_ends_its_last_document(tmp_path):
    paths = [_write(tmp_path, "a.txt", "一\n二"), _write(tmp_path, "b.txt", "三\n")]
    assert _sentences(*paths) == [["一", "二"], ["三"]]


@hypothesis.given(lines=LINES, newline=st.sampled_from(["\n", "\r\n", "\r"]))
def test_every_line_with_a_token_is_a_sentence(scratch, lines, newline):
    data = newline.join(lines).encode("utf-8")
    path = scratch(data)
    expected = [line.strip().lstrip("\ufeff").strip() for line in lines]
    expected = [line for line in expected if TOKENIZER.tokenize(line)]

    def read():
        return list(corpus.read_documents([path], "strict", TOKENIZER.has_tokens))

    if not expected:
        with pytest.raises(UserError, match="no sentence"):
            read()
        return
    documents = read()
    assert list(itertools.chain(*(d.sentences for d in documents))) == expected
    assert all(document.sentences for document in documents)
    assert sum(document.num_bytes for document in documents) <= len(data)


def test_bytes_are_reported(tmp_path):
    path = _write(tmp_path, "a.txt", "\n一\n\n\n二\n三\n")
    documents = list(corpus.read_documents([path]))
    assert [document.num_bytes for document in documents] == [6, 9]
    assert not any(document.is_cut for document in documents)


def test_a_long_document_is_divided(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_DOCUMENT_CHARACTERS", 5)
    path = _write(tmp_path, "a.txt", "一二\n三四\n五六\n七七七七七七七\n\n八\n")
    documents = list(corpus.read_documents([path]))
    assert [(document.sentences, document.is_cut) for document in documents] == [
        (["一二", "三四"], True),
        (["五六"], True),
        (["七" * 5], True),
        (["七" * 2], False),
        (["八"], False),
    ]


def test_documents_are_streamed(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(corpus, "_BLOCK_BYTES", 50)
    path = _write(tmp_path, "a.txt", "句\n\n" * 1000)
    documents = corpus.read_documents([path])
    for _ in range(10):
        next(documents)
    assert reads.num_bytes == 50


class _Line(NamedTuple):
    """A line of a file: its bytes, from `begin` to `end`, and its sentence or ""."""

    begin: int
    end: int
    sentence: str


def _lines(data):
    """Splits bytes into lines: the definition that ranges are held to."""
    lines = []
    for match in re.finditer(rb"[^\r\n]*(?:\r*\n|\r+\Z|\r)|[^\r\n]+", data):
        text = match.group()
        sentence = text.decode("utf-8", "replace").strip().lstrip("\ufeff").strip()
        if not TOKENIZER.tokenize(sentence):
            sentence = ""
        lines.append(_Line(match.start(), match.end(), sentence))
    return lines


def _stretches(lines):
    """Groups lines into documents, lists of `_Line`."""
    groups = itertools.groupby(lines, lambda line: bool(line.sentence))
    return [list(group) for is_full, group in groups if is_full]


def _boundary(path, offset, limit, content=None):
    return corpus.document_boundary(path, offset, limit, content, TOKENIZER.has_tokens)


def _read_range(path, begin, end, encoding_errors="replace", content=None):
    return list(
        corpus.read_range(
            path, begin, end, encoding_errors, content, TOKENIZER.has_tokens
        )
    )


def _borders(path, size, shard_bytes):
    """Yields (shard, begin, end, is_inside), as data generation finds them."""
    _, content = checksums.fingerprint(path, lambda num_bytes: None)
    assert content.size == size
    for shard in sharding.plan_shards([path], [content], shard_bytes):
        begin, is_inside = _boundary(path, shard.begin, shard.end)
        limit = 2 * shard.end - shard.begin
        end, _ = _boundary(path, shard.end, limit)
        # The checksums that the shard has of its blocks are enough, and change nothing.
        for known in (content, shard.content):
            assert (begin, is_inside) == _boundary(path, shard.begin, shard.end, known)
            assert end == _boundary(path, shard.end, limit, known)[0]
            documents = _read_range(path, begin, end, content=known)
            assert documents == _read_range(path, begin, end)
        yield shard, begin, end, is_inside


@hypothesis.given(
    data=FILES.filter(bool), shard_bytes=st.integers(1, 80), block=st.integers(1, 50)
)
@hypothesis.settings(max_examples=300)
def test_ranges_partition_a_file(scratch, data, shard_bytes, block):
    path = scratch(data)
    with mock.patch.object(corpus, "_BLOCK_BYTES", block), mock.patch.object(
        checksums, "BLOCK_BYTES", 2 * block
    ):
        borders = list(_borders(path, len(data), shard_bytes))
        received = [
            [document.sentences for document in _read_range(path, begin, end)]
            for _, begin, end, _ in borders
        ]
    begins = [begin for _, begin, _, _ in borders]
    ends = [end for _, _, end, _ in borders]
    assert [0] + ends == begins + [len(data)]
    assert begins == sorted(begins)

    # Each range holds whole lines, and the documents that they are by themselves.
    lines = _lines(data)
    assert set(begins) <= {line.begin for line in lines} | {len(data)}
    expected = []
    for begin, end in zip(begins, ends):
        inside = [line for line in lines if begin <= line.begin < end]
        stretches = _stretches(inside)
        expected.append([[line.sentence for line in group] for group in stretches])
    assert received == expected

    # A document is divided only where it fills a whole shard.
    extents = [(group[0].begin, group[-1].end) for group in _stretches(lines)]
    for shard, begin, _, is_inside in borders:
        for document_begin, document_end in extents:
            if document_begin < begin < document_end:
                assert is_inside
                assert document_begin < shard.begin
                assert document_end >= shard.end


@pytest.mark.parametrize("shard_bytes", [1, 7, 50, 400])
def test_a_shard_has_the_checksums_of_all_that_is_read_for_it(
    tmp_path, monkeypatch, shard_bytes
):
    """Lines of any length up to the greatest, few of them blank."""
    monkeypatch.setattr(corpus, "_BLOCK_BYTES", 8)
    monkeypatch.setattr(corpus, "MAX_LINE_BYTES", 40)
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 8)
    lines = [b"a" * (number % 41) for number in range(0, 1000, 3)]
    data = b"\n".join(lines)
    borders = list(_borders(_write(tmp_path, "a.txt", data), len(data), shard_bytes))
    assert borders[-1][2] == len(data)
    known = max(len(border[0].content.checksums) for border in borders)
    assert known <= (2 * shard_bytes + 40) // 8 + 5


@pytest.mark.parametrize(
    "offset, limit, expected",
    [
        (0, 5, (0, False)),
        (1, 9, (9, False)),
        (8, 16, (9, False)),  # a blank line begins at the offset
        (10, 18, (18, True)),
        (10, 32, (18, True)),
        (10, 33, (33, False)),  # one begins just before the limit
        (27, 28, (27, True)),
        (33, 99, (36, False)),
        (36, 99, (36, False)),
        (99, 200, (36, False)),
    ],
)
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_borders_by_hand(tmp_path, prefix, offset, limit, expected):
    data = b"one\ntwo\n\n" + b"three...\nfour....\nfive\n" + b"\nsix"
    path = prefix + _write(tmp_path, "a.txt", data)
    assert corpus.document_boundary(path, offset, limit) == expected


@pytest.mark.parametrize("offset", [30000, 59990, 119000])
def test_a_border_is_found_without_reading_what_lies_before(
    tmp_path, monkeypatch, reads, offset
):
    block = 64
    monkeypatch.setattr(corpus, "_BLOCK_BYTES", block)
    document = b"a sentence of it\n" * 6 + b"\n"
    path = _write(tmp_path, "a.txt", document * (120000 // len(document)))
    position, is_inside = corpus.document_boundary(path, offset, offset + 5000)
    assert not is_inside and offset <= position <= offset + len(document)
    assert min(reads.ranges)[0] == offset - 1
    assert reads.num_bytes <= position - offset + 2 * block


def test_a_border_in_a_file_without_blank_lines_is_not_looked_for_without_end(
    tmp_path, monkeypatch, reads
):
    block = 64
    monkeypatch.setattr(corpus, "_BLOCK_BYTES", block)
    path = _write(tmp_path, "a.txt", b"a sentence\n" * 10000)
    assert corpus.document_boundary(path, 50001, 52000) == (50006, True)
    assert min(reads.ranges)[0] == 50000
    assert reads.num_bytes <= 2000 + 2 * block


def test_a_range_is_read_without_what_surrounds_it(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(corpus, "_BLOCK_BYTES", 64)
    path = _write(tmp_path, "a.txt", b"a sentence\n" * 1000)
    documents = list(corpus.read_range(path, 1100, 2200))
    assert [len(document.sentences) for document in documents] == [100]
    assert sum(document.num_bytes for document in documents) == 1100
    assert min(reads.ranges)[0] == 1100
    assert reads.num_bytes == 1100


def test_a_file_without_line_ends_is_not_read_whole(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(corpus, "_BLOCK_BYTES", 32)
    monkeypatch.setattr(corpus, "MAX_LINE_BYTES", 100)
    path = _write(tmp_path, "a.txt", b"a" * 100000)
    for read in (_sentences, lambda path: corpus.document_boundary(path, 5000, 9000)):
        del reads.ranges[:]
        with pytest.raises(UserError, match=r"a\.txt:1: line of more than"):
            read(path)
        # Once more, to count the lines before it.
        assert sum(length for begin, length in reads.ranges if begin >= 4999) <= 132
        assert sum(length for begin, length in reads.ranges if begin < 4999) <= 5000


@pytest.mark.parametrize("block", [7, 100, 101, 1000])
def test_a_line_may_have_so_many_bytes_and_no_more(tmp_path, monkeypatch, block):
    monkeypatch.setattr(corpus, "_BLOCK_BYTES", block)
    monkeypatch.setattr(corpus, "MAX_LINE_BYTES", 100)
    longest = _write(tmp_path, "longest.txt", "一\n\n" + "b" * 100 + "\n三\n")
    assert _sentences(longest) == [["一"], ["b" * 100, "三"]]
    longer = _write(tmp_path, "longer.txt", "一\n\n" + "b" * 101 + "\n三\n")
    with pytest.raises(UserError, match=r"longer\.txt:3: line of more than") as error:
        _sentences(longer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("prefix", ["", "file://"])
@pytest.mark.parametrize("shard_bytes", [1, 13, 100, 100000])
@pytest.mark.parametrize("line_number", [1, 2, 3, 57, 100])
def test_errors_in_any_range_name_the_line(tmp_path, prefix, shard_bytes, line_number):
    lines = [b"first", b"", "好的".encode(), b"fourth"] * 25
    lines[line_number - 1] = "好".encode() + b"\xe4\xbd!"
    data = b"\n".join(lines)
    path = prefix + _write(tmp_path, "bad.txt", data)
    with pytest.raises(UserError) as error:
        for _, begin, end, _ in _borders(path, len(data), shard_bytes):
            list(corpus.read_range(path, begin, end))
    expected = "{}:{}: not valid UTF-8 (byte 0xe4 at column 4)".format(
        path, line_number
    )
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


def test_invalid_utf8_names_file_and_line(tmp_path):
    path = _write(tmp_path, "bad.txt", "好\n".encode() + b"ab\xff\n")
    with pytest.raises(UserError, match=r"bad\.txt:2: .*byte 0xff at column 3"):
        _sentences(path)


def test_replaced_bytes_are_counted(tmp_path):
    data = "好\ufffd\n".encode() + b"a\xff\xe4\xbd\n\n" + b"\x80b\n"
    path = _write(tmp_path, "bad.txt", data)
    documents = list(corpus.read_documents([path], encoding_errors="replace"))
    assert [document.num_replaced_bytes for document in documents] == [3, 1]
    assert documents[0].sentences[0] == "好\ufffd"
    assert documents[0].sentences[1].startswith("a\ufffd")
    with pytest.raises(ValueError, match="encoding_errors"):
        _sentences(path, encoding_errors="ignore")


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_unreadable_files_are_user_errors(tmp_path, prefix):
    missing = prefix + str(tmp_path / "missing.txt")
    for read in (
        _sentences,
        lambda path: corpus.file_sizes([path]),
        lambda path: corpus.document_boundary(path, 5, 10),
    ):
        with pytest.raises(UserError, match=r"missing\.txt: .*No such file") as error:
            read(missing)
        assert str(error.value).startswith("cannot read " + missing)
        assert "\n" not in str(error.value)


def test_empty_input_is_a_user_error(tmp_path, caplog):
    empty = _write(tmp_path, "empty.txt", "")
    full = _write(tmp_path, "full.txt", "句\n")
    with pytest.raises(UserError, match=r"empty: .*empty\.txt"):
        corpus.file_sizes([empty])
    caplog.clear()
    assert corpus.file_sizes([empty, full]) == [0, 4]
    assert "empty.txt is empty" in caplog.text
    assert _sentences(empty, full) == [["句"]]
    blank = _write(tmp_path, "blank.txt", "\n \r\n")
    with pytest.raises(UserError, match=r"no sentence in .*blank\.txt"):
        _sentences(blank)


def test_globs_and_lists_are_expanded(tmp_path, caplog):
    b, a, c = (_write(tmp_path, name, "x") for name in ("b.txt", "a.txt", "c[1].txt"))
    (tmp_path / "folder.txt").mkdir()
    pattern = str(tmp_path / "?.txt")
    assert corpus.expand_input_files(pattern) == [a, b]
    assert corpus.expand_input_files(" {} , {}".format(c, b)) == [c, b]
    assert corpus.expand_input_files(str(tmp_path / "*.txt")) == [a, b, c]
    assert corpus.expand_input_files(b + "," + pattern) == [b, a]
    assert "more than once" in caplog.text


def test_a_file_under_two_names_is_read_once(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path, "a.txt", "x")
    (tmp_path / "link.txt").symlink_to(path)
    found = corpus.expand_input_files("./a.txt,a.txt,*.txt,.", takes_directories=True)
    assert found == ["./a.txt"]
    assert "5 input files are named more than once" in caplog.text


@pytest.mark.parametrize("pattern", ["", "/*"])
def test_the_command_s_own_files_are_no_text(tmp_path, caplog, pattern):
    text = _write(tmp_path, "a.txt", "x")
    vocabulary = _write(tmp_path, "vocab.txt", "[UNK]")
    (tmp_path / "work").mkdir()
    _write(tmp_path / "work", "part.txt", "x")
    no_text = [vocabulary, str(tmp_path / "work")]
    everything = str(tmp_path) + pattern
    assert corpus.expand_input_files(everything, True, no_text) == [text]
    assert "not read as text: " + vocabulary in caplog.text
    with pytest.raises(UserError, match="no text file is left of"):
        corpus.expand_input_files(everything, True, no_text + [text])
    # What is named is meant.
    assert corpus.expand_input_files(vocabulary, True, no_text) == [vocabulary]


def test_a_pipe_or_device_is_no_input(tmp_path):
    os.mkfifo(str(tmp_path / "pipe.txt"))
    for pattern in (str(tmp_path / "*.txt"), "/dev/zero"):
        with pytest.raises(UserError, match="no ordinary file"):
            corpus.expand_input_files(pattern)


def test_a_file_that_has_become_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(str(tmp_path / "pipe.txt"))
    with pytest.raises(UserError, match="no ordinary file"):
        _sentences(str(tmp_path / "pipe.txt"))


def test_a_pattern_without_a_match_is_a_user_error(tmp_path):
    existing = _write(tmp_path, "a.txt", "x")
    for pattern in ("*.tsv", "missing.txt"):
        name = str(tmp_path / pattern)
        with pytest.raises(UserError, match="no input file matches"):
            corpus.expand_input_files(existing + "," + name)
    with pytest.raises(UserError, match="no input file given"):
        corpus.expand_input_files(" , ")


def test_remote_paths_go_through_tensorflow(tmp_path):
    path = _write(tmp_path, "a.txt", "一\n\n二\n")
    url = "file://" + path
    pattern = "file://" + str(tmp_path) + "/*.txt"
    assert corpus.expand_input_files(pattern) == [url]
    assert corpus.file_sizes([url]) == [9]
    assert _sentences(url) == [["一"], ["二"]]


@pytest.mark.parametrize("shard_bytes", [1, 20, 64, 300])
def test_remote_ranges_are_those_of_local_files(tmp_path, shard_bytes):
    data = "\ufeff一二三\r\n四五\n\n六\n \n七八九\n".encode() * 6
    path = _write(tmp_path, "a.txt", data)

    def read(path):
        borders = [border[1:] for border in _borders(path, len(data), shard_bytes)]
        documents = [
            list(corpus.read_range(path, begin, end)) for begin, end, _ in borders
        ]
        return borders, documents

    assert read("file://" + path) == read(path)


def test_ctrl_c_while_a_file_is_closed_is_not_lost(tmp_path):
    path = _write(tmp_path, "text.txt", b"one\n\ntwo\n\nthree\n")
    content = mock.Mock(size=os.path.getsize(path))
    content.open.return_value = _InterruptedAtClose(path)
    with pytest.raises(KeyboardInterrupt):
        corpus.document_boundary(path, 2, 12, content)


class _InterruptedAtClose(io.FileIO):
    def __exit__(self, *error):
        super().__exit__(*error)
        raise KeyboardInterrupt
