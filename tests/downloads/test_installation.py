"""Installation of what was downloaded: whole, or not at all."""

import io
import json
import os
import zipfile

import pytest
from fault_server import Answer, FaultServer

from albert_zh.base import locks
from albert_zh.base.errors import UserError
from albert_zh.downloads import catalogue, installation
from albert_zh.downloads import fetch as downloads

ARCHIVE = catalogue.find("afqmc")
SEVERAL = catalogue.find("albert_tiny_zh_google", "huggingface")
STAGING = "albert_chinese_tiny.partial"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached directly, whatever the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def zipped(**contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer:
        for name, content in contents.items():
            writer.writestr(name, content)
    return buffer.getvalue()


class Installer:
    """Installs from a server that has every file of two entries."""

    def __init__(self, server, directory):
        self.server = server
        self.parent = directory / "parent"
        self.parent.mkdir()
        self.target = self.parent / "target"
        server.answers["/afqmc_public.zip"] = [Answer(zipped(train=b"x" * 1000))]
        for file in SEVERAL.files:
            server.answers["/" + file.path] = [Answer(file.name.encode())]

    def __call__(self, entry, **options):
        def fetch(*args):
            downloads.fetch(*args, retries=0, **options)

        origin = installation.Origin(fetch, self.server.url)
        return installation.install(entry, str(self.target), origin)

    def names(self):
        return sorted(path.name for path in self.parent.iterdir())

    def requested(self):
        return [path.split("/")[-1] for path in self.server.paths()]


@pytest.fixture
def install(tmp_path):
    with FaultServer() as server:
        yield Installer(server, tmp_path)


def interrupt(install):
    """Leaves a download of several files of which the last one is missing."""
    answers = install.server.answers.pop("/" + SEVERAL.files[-1].path)
    with pytest.raises(UserError, match="404"):
        install(SEVERAL)
    install.server.answers["/" + SEVERAL.files[-1].path] = answers
    del install.server.requests[:]


def test_files_of_an_earlier_run_are_not_asked_for_again(install):
    interrupt(install)
    assert install.names() == [STAGING]
    assert install(SEVERAL)
    assert install.requested() == ["vocab.txt"]
    assert install.names() == ["checksums.json", "target"]
    assert not install(SEVERAL)


def test_a_file_of_an_earlier_run_that_changed_is_fetched_again(install):
    interrupt(install)
    weights = install.parent / STAGING / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:5])
    assert install(SEVERAL)
    assert install.requested() == ["pytorch_model.bin", "vocab.txt"]
    assert (install.target / "pytorch_model.bin").read_bytes() == b"pytorch_model.bin"


@pytest.mark.parametrize("kind", ["folder", "link", "file", "other download"])
def test_what_only_has_the_name_of_an_unfinished_download_stays(
    kind, install, tmp_path
):
    staging, mine = install.parent / STAGING, tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("mine")
    if kind == "folder":
        mine.rename(staging)
    elif kind == "link":
        staging.symlink_to(mine)
    elif kind == "file":
        staging.write_text("mine")
    else:
        mine.rename(staging)
        receipt = {"name": "ocnli", "source": "clue", "files": {}}
        (staging / installation.RECEIPT_FILE).write_text(json.dumps(receipt))
    with pytest.raises(UserError, match=STAGING + " is in the way"):
        install(SEVERAL)
    assert install.server.requests == []
    held = staging if kind == "file" else staging / "config.json"
    assert held.read_text() == "mine"


def test_a_strange_file_among_those_of_a_download_stays(install):
    interrupt(install)
    (install.parent / STAGING / "notes").write_text("mine")
    with pytest.raises(UserError, match="has 'notes'"):
        install(SEVERAL)
    assert (install.parent / STAGING / "notes").read_text() == "mine"
    (install.parent / STAGING / "notes").unlink()
    assert install(SEVERAL)


def test_an_unfinished_download_is_not_taken_for_a_complete_one(install):
    interrupt(install)
    (install.parent / STAGING).rename(install.target)
    with pytest.raises(UserError, match="is an unfinished download"):
        install(SEVERAL)


@pytest.mark.parametrize("lock", [".target.lock", ".afqmc_public.zip.download.lock"])
def test_two_downloads_at_a_time_are_kept_apart(lock, install):
    with locks.hold(str(install.parent / lock), ""):
        with pytest.raises(UserError, match="another process is downloading"):
            install(ARCHIVE)
    assert install.server.requests == []
    assert install(ARCHIVE)
    assert install.names() == ["checksums.json", "target"]


def test_leftovers_of_a_killed_run_are_removed(install):
    killed = install.parent / ".target.{}.partial".format("0f" * 16)
    killed.mkdir()
    (killed / "half").write_text("half")
    for name in (".target.partial", ".target.0f.partial", "target.partial"):
        (install.parent / name).mkdir()
    assert install(ARCHIVE)
    assert install.names() == [
        ".target.0f.partial",
        ".target.partial",
        "checksums.json",
        "target",
        "target.partial",
    ]


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "C:/x", "..\\x", ".."]
)
def test_a_receipt_that_names_what_is_outside_is_refused(name, install):
    assert install(ARCHIVE)
    path = install.target / installation.RECEIPT_FILE
    receipt = json.loads(path.read_text())
    receipt["files"][name] = "sha256:00"
    path.write_text(json.dumps(receipt))
    with pytest.raises(UserError, match="outside of the directory"):
        install(ARCHIVE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100000,
        "1" * 5000,
        "NaN",
        '{"name": "afqmc", "source": "clue", "files": []}',
        '{"name": "afqmc", "source": "clue", "files": {"a": "crc32:00"}}',
        '{"name": "\\ud800", "source": "clue", "files": {}}',
        '{"name": 7, "source": "clue", "files": {}}',
    ],
    ids=lambda text: text[:60],
)
def test_a_damaged_receipt_is_one_line(text, install):
    install.target.mkdir()
    (install.target / installation.RECEIPT_FILE).write_text(text)
    with pytest.raises(UserError, match="download.json: damaged") as caught:
        install(ARCHIVE)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_a_receipt_that_is_a_pipe_is_one_line(install):
    install.target.mkdir()
    os.mkfifo(str(install.target / installation.RECEIPT_FILE))
    with pytest.raises(UserError, match="no ordinary file"):
        install(ARCHIVE)


def test_more_than_the_catalogue_expects_is_refused(install):
    # 1.2 MB are stated.
    big = Answer(b"PK", announced=10**7)
    install.server.answers["/afqmc_public.zip"].insert(0, big)
    with pytest.raises(UserError, match="announces 10,000,000 bytes"):
        install(ARCHIVE)
    assert install.names() == []
    assert install(ARCHIVE)


def test_a_full_disk_while_extracting_leaves_nothing_half_made(install):
    resource = pytest.importorskip("resource")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("large", bytes(200000))
    install.server.answers["/afqmc_public.zip"] = [Answer(buffer.getvalue())]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, limits[1]))
    try:
        with pytest.raises(UserError, match="member 'large' cannot be written"):
            install(ARCHIVE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert install.names() == ["afqmc_public.zip"]
    assert install(ARCHIVE)
    assert (install.target / "large").read_bytes() == bytes(200000)
    assert len(install.server.requests) == 1
