"""Checksums of files, and input that is held against them while it is read."""

import hashlib

import google_crc32c
import pytest

from albert_zh.base import checksums
from albert_zh.base.checksums import Checksum, Expected
from albert_zh.base.errors import UserError


def ignore(num_bytes):
    """Stands in for a progress function."""


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 8)
    monkeypatch.setattr(checksums, "_COPY_BYTES", 16)


def test_a_checksum_is_that_of_all_bytes_in_a_row(tmp_path, small_blocks):
    data = bytes(range(100))
    whole = Checksum(100, google_crc32c.value(data))
    assert checksums.NOTHING.extended(data[:33]).extended(data[33:]) == whole
    (tmp_path / "a").write_bytes(data)
    reported = []
    assert checksums.of_file(str(tmp_path / "a"), reported.append) == whole
    assert sum(reported) == 100


@pytest.mark.parametrize("size", [0, 7, 8, 16, 17, 40])
def test_a_fingerprint_has_every_block(tmp_path, small_blocks, size):
    data = bytes(range(size))
    (tmp_path / "a").write_bytes(data)
    sha256, content = checksums.fingerprint(str(tmp_path / "a"), ignore)
    assert sha256 == hashlib.sha256(data).hexdigest()
    blocks = [data[begin : begin + 8] for begin in range(0, size, 8)]
    assert content == (size, 0, tuple(map(google_crc32c.value, blocks)))


def test_a_range_has_the_blocks_that_it_touches():
    content = checksums.Content(2**20 * 5 + 1, 0, (0, 1, 2, 3, 4, 5))
    assert content.range(-1, 1).checksums == (0,)
    assert content.range(2**20 - 1, 2**20 + 1).checksums == (0, 1)
    assert content.range(2**20, 2**21).checksums == (1,)
    part = content.range(2**21, 2**30)
    assert part == (content.size, 2, (2, 3, 4, 5))
    assert part.range(2**20 * 3, 2**20 * 4) == (content.size, 3, (3,))


def test_known_content_is_read_as_it_is(tmp_path, small_blocks):
    data = bytes(range(50))
    path = str(tmp_path / "a")
    (tmp_path / "a").write_bytes(data)
    _, content = checksums.fingerprint(path, ignore)
    with content.range(9, 40).open(path) as file:
        file.seek(9)
        read = b""
        while len(read) < 30:
            read += file.read(5)
    assert read == data[9 : 9 + len(read)]
    with content.open(path) as file:
        assert b"".join(iter(lambda: file.read(100), b"")) == data
        file.seek(100)
        assert file.read(1) == b""


@pytest.mark.parametrize(
    "changed",
    [b"", b" " * 50, bytes(range(49)), bytes(range(20)) + b"x" + bytes(range(21, 50))],
    ids=["empty", "blank", "cut", "one byte"],
)
def test_other_content_is_never_given_out(tmp_path, small_blocks, changed):
    path = str(tmp_path / "a")
    (tmp_path / "a").write_bytes(bytes(range(50)))
    _, content = checksums.fingerprint(path, ignore)
    (tmp_path / "a").write_bytes(changed)
    read = b""
    with pytest.raises(UserError, match="a has changed during the run"):
        with content.open(path) as file:
            for _ in range(50):
                read += file.read(3)
    assert read == bytes(range(len(read)))


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_digest_is_that_of_the_whole_file(tmp_path, small_blocks, algorithm):
    data = bytes(range(100))
    (tmp_path / "a").write_bytes(data)
    expected = hashlib.new(algorithm, data).hexdigest()
    assert checksums.hex_digest(str(tmp_path / "a"), algorithm) == expected


def test_expected_files_are_found_wrong(tmp_path):
    paths = [str(tmp_path / name) for name in "abc"]
    for path in paths:
        with open(path, "wb") as file:
            file.write(b"content")
    right = checksums.of_file(paths[0], ignore)
    expected = Expected(tuple(paths), (right,) * 3)
    assert "a and others" in str(expected)
    reported = []
    assert checksums.are_as_expected(expected, reported.append)
    assert sum(reported) == 21
    for content in (b"conten", b"contens", b"", None):
        (tmp_path / "c").unlink()
        if content is not None:
            (tmp_path / "c").write_bytes(content)
        assert not checksums.are_as_expected(expected, ignore)
        (tmp_path / "c").write_bytes(b"")
