"""Archives that are sound, damaged, and malicious."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albert_zh.base.errors import UserError
from albert_zh.downloads import archives

FORMATS = ("zip", "tar.gz")
FILES = {"config.json": b"{}\n", "model.ckpt.index": bytes(range(256)) * 300}
SETTINGS = settings(max_examples=60, suppress_health_check=list(HealthCheck))

LINKS = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
}


def make_zip(members):
    """Returns a .zip of a list of (name or ZipInfo, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in members:
            writer.writestr(name, content)
    return buffer.getvalue()


def make_tar(members, format=tarfile.GNU_FORMAT):
    """Returns a .tar.gz of a list of (name or TarInfo, content); "x/" is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=format) as writer:
        for name, content in members:
            info = name
            if isinstance(name, str):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                if name.endswith("/"):
                    info.type = tarfile.DIRTYPE
            writer.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make(format, members):
    return {"zip": make_zip, "tar.gz": make_tar}[format](members)


class Sandbox:
    """A folder with an archive and an empty target beside it."""

    def __init__(self, directory):
        self._directory = directory
        self.archive = directory / "archive"
        self.target = directory / "target"
        self.target.mkdir()

    def extract(self, content, **options):
        """Extracts `content`; returns {path: bytes} of what lies in the result."""
        self.archive.write_bytes(content)
        try:
            root = archives.extract(str(self.archive), str(self.target), **options)
        finally:
            outside = [path.name for path in self._directory.iterdir()]
            assert sorted(outside) == ["archive", "target"]
            links = [p for p in self.target.rglob("*") if p.is_symlink()]
            assert not links
        return {
            os.path.relpath(str(path), root): path.read_bytes()
            for path in self.target.rglob("*")
            if path.is_file()
        }

    def refuse(self, content, **options):
        """Extracts `content`, which fails; returns the message."""
        with pytest.raises(archives.UnusableArchive) as caught:
            self.extract(content, **options)
        message = str(caught.value)
        assert message.startswith(str(self.archive) + ": ") and "\n" not in message
        return message

    def num_bytes(self):
        """What was written into the target."""
        return sum(p.stat().st_size for p in self.target.rglob("*") if p.is_file())


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("folder", ["", "albert_tiny/", "./", "./albert_tiny/"])
def test_a_single_top_level_folder_is_left_out(format, folder, sandbox):
    members = [(folder + name, content) for name, content in FILES.items()]
    if folder:
        members.insert(0, (folder, b""))
    assert sandbox.extract(make(format, members)) == FILES


@pytest.mark.parametrize("format", FORMATS)
def test_two_top_level_folders_stay(format, sandbox):
    members = {"a/x": b"1", "b/x": b"2", "b/c/x": b"3"}
    assert sandbox.extract(make(format, members.items())) == members


NAMES = st.text("abcXYZ.-_ 中文", min_size=1, max_size=8).filter(
    lambda name: name.strip(".") and not name.startswith("._") and name != "__MACOSX"
)


@SETTINGS
@given(
    format=st.sampled_from(FORMATS),
    tree=st.dictionaries(
        st.tuples(NAMES, NAMES), st.binary(max_size=200), min_size=1, max_size=6
    ),
)
def test_content_is_what_was_packed(format, tree, tmp_path_factory):
    members = {"{}/{}".format(*parts): content for parts, content in tree.items()}
    sandbox = Sandbox(tmp_path_factory.mktemp("tree"))
    archive = make(format, members.items())
    if len({name.lower() for name in members}) < len(members):
        assert "is a duplicate" in sandbox.refuse(archive)
        return
    extracted = sandbox.extract(archive)
    if len({folder for folder, _ in tree}) == 1:
        members = {name.split("/")[1]: content for name, content in members.items()}
    assert extracted == members


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "a/..",
        "/evil",
        "//evil",
        "..\\evil",
        "a\\..\\..\\evil",
        "C:/evil",
        "c:evil",
    ],
)
def test_a_path_out_of_the_target_is_refused(format, name, sandbox):
    message = sandbox.refuse(make(format, [("good", b"1"), (name, b"2")]))
    assert repr(name) in message and "outside" in message
    assert [path.name for path in sandbox.target.iterdir()] == ["good"]


@pytest.mark.parametrize("type", LINKS.values(), ids=list(LINKS))
@pytest.mark.parametrize("link", ["/etc/passwd", "../../evil", "good"])
def test_links_and_devices_in_a_tar_are_refused(type, link, sandbox):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = type, link
    message = sandbox.refuse(make_tar([("good", b"1"), (info, b"")]))
    assert "'link' is a link or a device" in message


def test_writing_through_a_link_is_refused(sandbox):
    info = tarfile.TarInfo("door")
    info.type, info.linkname = tarfile.SYMTYPE, ".."
    assert "'door'" in sandbox.refuse(make_tar([(info, b""), ("door/evil", b"1")]))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(mode, sandbox):
    info = zipfile.ZipInfo("link")
    info.create_system = 3  # Unix
    info.external_attr = (mode | 0o777) << 16
    assert "'link' is a link" in sandbox.refuse(make_zip([(info, b"/etc/passwd")]))


def test_a_sparse_file_is_refused(sandbox):
    # One data block at 2**40 bytes: four numbers of the old GNU header say so.
    info = tarfile.TarInfo("sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (2**32, 512)
    header[483:495] = b"%011o\0" % (2**32 + 512)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = gzip.compress(bytes(header) + b"x" * 512 + bytes(10240))
    assert "'sparse'" in sandbox.refuse(content)
    assert sandbox.num_bytes() == 0


@pytest.mark.parametrize("format", FORMATS)
def test_a_bomb_is_stopped_at_the_limit(format, sandbox):
    archive = make(format, [("zeros", bytes(2 * archives.ALWAYS_ALLOWED_BYTES))])
    assert len(archive) < archives.ALWAYS_ALLOWED_BYTES / archives.MAX_RATIO
    message = sandbox.refuse(archive)
    assert "'zeros'" in message
    assert "{:,}".format(archives.ALWAYS_ALLOWED_BYTES) in message
    assert sandbox.num_bytes() <= archives.ALWAYS_ALLOWED_BYTES


@pytest.mark.parametrize("format", FORMATS)
def test_a_bomb_of_many_members_is_stopped_at_the_limit(format, sandbox):
    size = archives.ALWAYS_ALLOWED_BYTES // 4
    archive = make(format, [(str(number), bytes(size)) for number in range(8)])
    assert "'4'" in sandbox.refuse(archive) or format == "tar.gz"
    assert sandbox.num_bytes() <= archives.ALWAYS_ALLOWED_BYTES


def test_members_that_share_their_data_are_stopped_at_the_limit(sandbox):
    size = archives.ALWAYS_ALLOWED_BYTES // 4
    members = [("0", bytes(size))] + [(number, b"") for number in "1234"]
    archive = bytearray(make_zip(members))
    # Every entry of the directory becomes a copy of the first, under its own name.
    start = archive.index(b"PK\1\2")
    for number in range(1, 5):
        entry = archive.index(b"PK\1\2", start + 47 * number)
        archive[entry : entry + 46] = archive[start : start + 46]
    sandbox.refuse(bytes(archive))
    assert sandbox.num_bytes() <= archives.ALWAYS_ALLOWED_BYTES


@pytest.mark.parametrize("declared", [1, 10**6, 2**31])
def test_a_zip_that_lies_about_its_length_is_refused(declared, sandbox):
    content = bytes(range(256)) * 1000
    archive = bytearray(make_zip([("file", content)]))
    entry = archive.index(b"PK\1\2")
    assert struct.unpack_from("<I", archive, entry + 24) == (len(content),)
    struct.pack_into("<I", archive, entry + 24, declared)
    assert "damaged" in sandbox.refuse(bytes(archive))
    assert sandbox.num_bytes() <= len(content)


def test_a_zip_that_has_lost_a_member_is_refused(sandbox):
    archive = bytearray(make_zip([("first", b"1"), ("second", b"2")]))
    entry = archive.index(b"PK\1\2")
    # The comment of the first entry swallows the second one.
    struct.pack_into("<H", archive, entry + 32, 46 + len("second"))
    assert "1 members of 2" in sandbox.refuse(bytes(archive))


def test_a_header_that_is_a_bomb_is_stopped_at_the_limit(sandbox):
    info = tarfile.TarInfo("file")
    info.pax_headers = {"comment": "0" * (2 * archives.ALWAYS_ALLOWED_BYTES)}
    sandbox.refuse(make_tar([(info, b"")], tarfile.PAX_FORMAT))
    assert sandbox.num_bytes() == 0


@pytest.mark.parametrize("format", FORMATS)
def test_total_size_has_a_limit_whatever_the_ratio(format, sandbox):
    archive = make(format, [("file", os.urandom(40000))])
    assert "20,000 bytes" in sandbox.refuse(archive, max_total_bytes=20000)
    assert sandbox.num_bytes() <= 20000


@pytest.mark.parametrize("format", FORMATS)
def test_number_of_members_has_a_limit(format, sandbox, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    members = [(str(number), b"") for number in range(6)]
    expected = {"zip": "lists 6 members", "tar.gz": "'5' is one too many after 5"}
    assert expected[format] in sandbox.refuse(make(format, members))
    assert len(list(sandbox.target.iterdir())) == {"zip": 0, "tar.gz": 5}[format]


@pytest.mark.parametrize("format", FORMATS)
def test_depth_of_folders_has_a_limit(format, sandbox):
    deep = "d/" * (archives.MAX_DEPTH - 1) + "file"
    assert sandbox.extract(make(format, [(deep, b"1"), ("x", b"2")]))[deep] == b"1"
    deeper = "d/" * 1800 + "file"
    assert "folders deep" in sandbox.refuse(make(format, [(deeper, b"1")]))


@pytest.mark.parametrize("format", FORMATS)
def test_number_of_folders_has_a_limit(format, sandbox, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FOLDERS", 7)
    members = [("{0}/{0}/{0}/file".format(number), b"") for number in range(3)]
    message = sandbox.refuse(make(format, members))
    assert "'2/2/2/file' is in one folder too many after 7" in message
    assert len([p for p in sandbox.target.rglob("*") if p.is_dir()]) == 6


@pytest.mark.parametrize("format", FORMATS)
def test_time_has_a_limit(format, sandbox, monkeypatch):
    monkeypatch.setattr(archives, "MAX_SECONDS", -1)
    with pytest.raises(UserError, match="not extracted within") as caught:
        sandbox.extract(make(format, FILES.items()))
    # The archive itself may be sound.
    assert not isinstance(caught.value, archives.UnusableArchive)


def test_a_list_of_members_too_long_for_memory_is_not_read(sandbox, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_ZIP_DIRECTORY_BYTES", 100)
    assert "in 134 bytes" in sandbox.refuse(make("zip", [("0" * 41, b""), ("1", b"")]))


def test_zip64_is_refused(sandbox):
    archive = make("zip", FILES.items())
    archive = archive[:-22] + b"PK\6\7" + bytes(16) + archive[-22:]
    assert "Zip64" in sandbox.refuse(archive)


def test_members_that_overlap_are_refused(sandbox):
    # The data of the first has the whole second one in it, stored.
    inner = make_zip([("second", b"2" * 50)])
    end = inner.index(b"PK\1\2")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as writer:
        writer.writestr("first", inner[:end])
    outer = bytearray(buffer.getvalue())
    entry = bytearray(inner[end:-22])
    struct.pack_into("<I", entry, 42, outer.index(b"PK\3\4", 1))
    outer[-22:-22] = entry
    struct.pack_into("<HHI", outer, len(outer) - 14, 2, 2, len(entry) + 46 + 5)
    assert "'first' overlaps" in sandbox.refuse(bytes(outer))
    assert sandbox.num_bytes() == 0


TAR_END = bytes(1024)


def tar_block(name, content, type=tarfile.REGTYPE):
    """Header and content of a member, as they are in a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.size = type, len(content)
    padding = bytes(-len(content) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + padding


def pax_archive(header, type=tarfile.XHDTYPE):
    """A .tar.gz of a pax header, given as its bytes, and one file."""
    return gzip.compress(
        tar_block("pax", header, type) + tar_block("file", b"1") + TAR_END
    )


@pytest.mark.parametrize(
    "header",
    [
        # Python's tarfile tries every digit as a beginning (CVE-2024-6232).
        b"1" * 900000,
        b"1" * 60000,
        # It waits at a record of length 0 for ever (CVE-2019-20907).
        b"0 a=1\n",
        b"7 a=1\n",
        b"6 a=12",
        b"6 a:1\n",
        b" 6 a=1\n",
        b"-6 a=1\n",
        b"99999 path=x\n",
        b"17 size=12345678\n",
        "13 size=１2\n".encode(),
        b"10 size=-1\n",
        b"12 path=\xff\xfe\n",
        b"22 GNU.sparse.major=1\n",
    ],
    ids=lambda header: repr(header[:20]),
)
def test_a_pax_header_that_is_none_is_refused(header, sandbox):
    sandbox.refuse(pax_archive(header))
    assert sandbox.num_bytes() == 0


def test_a_pax_header_for_all_members_may_say_nothing_of_them(sandbox):
    for record, is_right in ((b"13 comment=x\n", True), (b"9 path=x\n", False)):
        archive = pax_archive(record, tarfile.XGLTYPE)
        if is_right:
            assert sandbox.extract(archive) == {"file": b"1"}
        else:
            assert "all members" in sandbox.refuse(archive)


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_long_and_foreign_names_in_every_format(format, sandbox):
    names = ["中文/词表.txt", "d" * 60 + "/" + "e" * 60 + "/" + "f" * 30, "x"]
    archive = make_tar([(name, name.encode()) for name in names], format)
    assert sandbox.extract(archive) == {name: name.encode() for name in names}


def test_a_tar_that_lost_its_end_is_refused(sandbox):
    content = tar_block("first", b"1")
    for lost in (content, content[:-1], content[:700], content + content[:100]):
        assert "ends too early" in sandbox.refuse(gzip.compress(lost))
        for path in sandbox.target.iterdir():
            path.unlink()


def test_a_name_that_is_no_utf_8_is_refused(sandbox):
    header = bytearray(tar_block("n@me", b""))
    header[1] = 0xFF
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    assert "utf-8" in sandbox.refuse(gzip.compress(bytes(header) + TAR_END))
    archive = bytearray(make_zip([("n中me", b"")]))
    for place in (archive.index("中".encode()), archive.rindex("中".encode())):
        archive[place] = 0xFF
    assert "utf-8" in sandbox.refuse(bytes(archive))


def test_a_pipe_is_no_archive(sandbox):
    os.mkfifo(str(sandbox.archive))
    with pytest.raises(UserError, match="no ordinary file"):
        archives.extract(str(sandbox.archive), str(sandbox.target))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("second", ["a/file", "./a/file", "a//file", "A/FILE"])
def test_a_member_that_is_there_twice_is_refused(format, second, sandbox):
    message = sandbox.refuse(make(format, [("a/file", b"1"), (second, b"2")]))
    assert repr(second) in message and "duplicate" in message
    assert (sandbox.target / "a" / "file").read_bytes() == b"1"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_that_is_also_a_folder_is_an_error(format, names, sandbox):
    with pytest.raises(UserError, match="member {!r}".format(names[1])):
        sandbox.extract(make(format, [(name, b"1") for name in names]))


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_of_macos_is_left_out(format, sandbox):
    members = list(FILES.items())
    for name in ("__MACOSX/._config.json", "._config.json", ".DS_Store"):
        members.append((name, b"x"))
    assert sandbox.extract(make(format, members)) == FILES
    evil = make(format, [("__MACOSX/../../evil", b"1")])
    assert "outside" in sandbox.refuse(evil)


def test_modes_of_a_tar_are_not_taken_over(sandbox):
    info = tarfile.TarInfo("program")
    info.mode, info.mtime, info.uid = 0o4777, 0, 12345
    sandbox.extract(make_tar([(info, b"")]))
    mode = (sandbox.target / "program").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_IXUSR | stat.S_IWOTH)


def test_encrypted_and_unusual_zips_are_refused(sandbox):
    archive = bytearray(make_zip([("secret", b"1")]))
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        archive[archive.index(header) + flags] |= 1
    assert "'secret' is encrypted" in sandbox.refuse(bytes(archive))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as writer:
        writer.writestr("odd", b"1")
    assert "'odd' has an unsupported compression" in sandbox.refuse(buffer.getvalue())


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "neither"),
        (b"<html>Log in</html>", "neither"),
        (b"PK", "damaged"),
        (b"\x1f\x8b", "damaged"),
        (b"\x1f\x8bnot gzip at all", "damaged"),
        (gzip.compress(b"not a tar file" * 100), "damaged"),
        (make_zip([]), "has no file"),
        (make_tar([]), "has no file"),
        (make_zip([("folder/", b"")]), "has no file"),
    ],
    # Not by the bytes: compressed ones hold the time.
    ids=[
        "empty",
        "page",
        "zip cut",
        "gzip cut",
        "gzip wrong",
        "gzip of text",
        "empty zip",
        "empty tar",
        "folder only",
    ],
)
def test_what_is_no_archive_is_said(content, words, sandbox):
    assert words in sandbox.refuse(content)


def test_a_missing_archive_is_said(tmp_path):
    with pytest.raises(UserError, match="missing.zip: No such file"):
        archives.extract(str(tmp_path / "missing.zip"), str(tmp_path))


SOUND = {format: make(format, FILES.items()) for format in FORMATS}


@SETTINGS
@given(format=st.sampled_from(FORMATS), data=st.data())
def test_an_archive_that_was_cut_is_refused(format, data, tmp_path_factory):
    end = data.draw(st.integers(0, len(SOUND[format]) - 1))
    Sandbox(tmp_path_factory.mktemp("cut")).refuse(SOUND[format][:end])


@SETTINGS
@given(format=st.sampled_from(FORMATS), data=st.data())
def test_a_flipped_bit_gives_the_content_or_an_error(format, data, tmp_path_factory):
    archive = bytearray(SOUND[format])
    place = data.draw(st.integers(0, len(archive) - 1))
    archive[place] ^= 1 << data.draw(st.integers(0, 7))
    sandbox = Sandbox(tmp_path_factory.mktemp("flipped"))
    try:
        extracted = sandbox.extract(bytes(archive))
    except archives.UnusableArchive:
        return
    assert extracted == FILES
