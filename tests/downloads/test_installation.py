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


# --- The vocabulary from any of its sources ----------------------------------


VOCABULARY = catalogue.find("vocab")


def install_vocabulary(directory, failing, others=None):
    """Installs it where sources fail; returns the addresses that were tried."""
    tried = []

    def fetch(address, path, expected, max_bytes):
        tried.append(address)
        if len(tried) <= failing:
            raise UserError("{}: closed".format(address))
        with open(path, "w") as file:
            file.write("vocabulary")

    others = catalogue.others(VOCABULARY) if others is None else others
    origin = installation.Origin(fetch, others=others)
    try:
        installation.install(VOCABULARY, str(directory), origin)
    except UserError as error:
        return tried, str(error)
    return tried, None


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_vocabulary_comes_from_the_first_source_that_has_it(tmp_path, failing):
    tried, error = install_vocabulary(tmp_path, failing)
    assert error is None and len(tried) == failing + 1
    assert (tmp_path / "vocab.txt").read_text() == "vocabulary"
    assert len({address.split("/")[2] for address in tried}) == len(tried)


def test_a_vocabulary_that_no_source_has_is_one_line(tmp_path):
    tried, error = install_vocabulary(tmp_path, 3)
    assert len(tried) == 3
    assert error == "none of 3 sources has vocab; the last: {}: closed".format(tried[2])
    assert os.listdir(str(tmp_path)) == []
    tried, error = install_vocabulary(tmp_path, 1, others=())
    assert len(tried) == 1 and error == tried[0] + ": closed"


# --- Files given by hand that are another model's ----------------------------


def write_model(folder, size):
    """Writes a checkpoint with the shapes of a published size."""
    np = pytest.importorskip("numpy")
    from albert_zh.models import checkpoints

    width = 4 if size == "albert_zh" else 8
    layer = "bert/encoder/transformer/group_0/inner_group_0/"
    layer = "bert/encoder/layer_shared/" if size == "albert_zh" else layer
    shapes = {
        "bert/embeddings/word_embeddings": [7, 4],
        "bert/embeddings/position_embeddings": [5, width],
        "bert/embeddings/token_type_embeddings": [2, width],
        layer + "attention/self/query/kernel": [312, 312],
        layer + "intermediate/dense/kernel": [312, 16],
    }
    if size == "albert_zh":
        shapes["bert/embeddings/word_embeddings_2"] = [4, 312]
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    folder.mkdir()
    checkpoints.write_tensors(tensors, str(folder / "model.ckpt"))
    (folder / "checkpoint").unlink()


@pytest.mark.parametrize("held", ["albert_zh", "google"])
@pytest.mark.parametrize(
    "name,is_right",
    [("albert_tiny_zh", {"albert_zh"}), ("albert_tiny_zh_google", {"google"})]
    + [("albert_base_zh", set()), ("albert_small_zh_google", set())],
)
def test_another_models_archive_is_refused(tmp_path, held, name, is_right):
    write_model(tmp_path / "model", held)
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(str(archive), "w") as writer:
        for path in (tmp_path / "model").iterdir():
            writer.write(str(path), path.name)
    entry = catalogue.find(name)
    origin = installation.Origin(from_file=str(archive))
    target = tmp_path / "out" / "target"
    if held in is_right:
        assert installation.install(entry, str(target), origin)
        return
    with pytest.raises(UserError, match="a.zip: it holds a model of hidden_size 312"):
        installation.install(entry, str(target), origin)
    assert not target.exists()
    assert not (tmp_path / "out" / "checksums.json").exists()


@pytest.mark.parametrize("hidden_size,is_right", [(312, True), (768, False)])
def test_another_models_folder_is_refused(tmp_path, hidden_size, is_right):
    for file in SEVERAL.files:
        (tmp_path / file.name).write_text("x")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": hidden_size}))
    origin = installation.Origin(from_file=str(tmp_path))
    target = tmp_path / "out" / "target"
    if is_right:
        assert installation.install(SEVERAL, str(target), origin)
        return
    with pytest.raises(UserError, match="hidden_size 768 .* has 312"):
        installation.install(SEVERAL, str(target), origin)
    assert not target.exists()
