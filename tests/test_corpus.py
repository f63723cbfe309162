"""Reading documents: boundaries, encodings, errors with file and line, streaming."""

import collections
import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from albert_zh import corpus
from albert_zh.errors import UserError

LINES = st.lists(
    st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=6), max_size=30
)


def _write(directory, name, data):
    path = directory / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    return str(path)


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


@hypothesis.given(lines=LINES, newline=st.sampled_from(["\n", "\r\n"]))
def test_every_non_blank_line_is_a_sentence(tmp_path_factory, lines, newline):
    data = newline.join(lines).encode("utf-8")
    path = _write(tmp_path_factory.mktemp("corpus"), "a.txt", data)
    expected = [line.strip() for line in lines]
    if lines and lines[0].startswith("\ufeff"):
        expected[0] = lines[0][1:].strip()
    expected = [line for line in expected if line]
    if not expected:
        with pytest.raises(UserError, match="no sentence"):
            _sentences(path)
        return
    documents = list(corpus.read_documents([path]))
    assert list(itertools.chain(*(d.sentences for d in documents))) == expected
    assert all(document.sentences for document in documents)
    assert sum(document.num_bytes for document in documents) <= len(data)


def test_first_line_and_bytes_are_reported(tmp_path):
    path = _write(tmp_path, "a.txt", "\n一\n\n\n二\n三\n")
    documents = list(corpus.read_documents([path]))
    assert [document.first_line for document in documents] == [2, 5]
    assert [document.path for document in documents] == [path, path]
    assert [document.num_bytes for document in documents] == [6, 9]


def test_a_long_document_is_divided(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(corpus, "MAX_DOCUMENT_CHARACTERS", 5)
    path = _write(tmp_path, "a.txt", "一二\n三四\n五六\n七七七七七七七\n八\n")
    assert _sentences(path) == [["一二", "三四"], ["五六"], ["七" * 7], ["八"]]
    assert "a.txt:3: more than 5 characters" in caplog.text


def test_documents_are_streamed(tmp_path, monkeypatch):
    read = collections.Counter()

    class CountingFile:
        def __init__(self, path):
            self._file = open(path, "rb")

        def __enter__(self):
            return self

        def __exit__(self, *unused_exception):
            self._file.close()

        def __iter__(self):
            for line in self._file:
                read["lines"] += 1
                yield line

    monkeypatch.setattr(corpus, "_open", CountingFile)
    path = _write(tmp_path, "a.txt", "句\n\n" * 1000)
    documents = corpus.read_documents([path])
    for _ in range(10):
        next(documents)
    assert read["lines"] == 20


def test_invalid_utf8_names_file_and_line(tmp_path):
    path = _write(tmp_path, "bad.txt", "好\n".encode() + b"ab\xff\n")
    with pytest.raises(UserError, match=r"bad\.txt:2: .*byte 0xff at column 3"):
        _sentences(path)


def test_utf16_is_recognized(tmp_path):
    path = _write(tmp_path, "wide.txt", "好的\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"wide\.txt:1: .*UTF-16"):
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


def test_unreadable_files_are_user_errors(tmp_path):
    missing = str(tmp_path / "missing.txt")
    with pytest.raises(UserError, match=r"missing\.txt: No such file"):
        _sentences(missing)
    with pytest.raises(UserError, match=r"missing\.txt: No such file"):
        corpus.total_bytes([missing])


def test_empty_input_is_a_user_error(tmp_path, caplog):
    empty = _write(tmp_path, "empty.txt", "")
    full = _write(tmp_path, "full.txt", "句\n")
    with pytest.raises(UserError, match=r"empty: .*empty\.txt"):
        corpus.total_bytes([empty])
    caplog.clear()
    assert corpus.total_bytes([empty, full]) == 4
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


def test_a_pattern_without_a_match_is_a_user_error(tmp_path):
    existing = _write(tmp_path, "a.txt", "x")
    for pattern in ("*.tsv", "missing.txt", ""):
        name = str(tmp_path / pattern)
        with pytest.raises(UserError, match="no input file matches"):
            corpus.expand_input_files(existing + "," + name)
    with pytest.raises(UserError, match="no input file given"):
        corpus.expand_input_files(" , ")


def test_remote_paths_go_through_tensorflow(tmp_path):
    path = _write(tmp_path, "a.txt", "一\n\n二\n")
    url = "file://" + path
    assert corpus.expand_input_files("file://" + str(tmp_path) + "/*.txt") in (
        [url],
        [path],
    )
    assert corpus.total_bytes([url]) == 9
    assert _sentences(url) == [["一"], ["二"]]
    with pytest.raises(UserError, match="missing"):
        _sentences("file://" + str(tmp_path / "missing"))


def test_progress_passes_documents_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(corpus, "_LOG_SECONDS", 0)
    path = _write(tmp_path, "a.txt", "一\n\n二\n")
    documents = list(corpus.read_documents([path]))
    with caplog.at_level("INFO"):
        assert list(corpus.show_progress(iter(documents), 9)) == documents
    assert caplog.text.count("MB done") == 2
