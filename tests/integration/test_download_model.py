"""Tests of the command `download_model.py` against a server on loopback."""

import io
import json
import random
import socket
import tarfile
import zipfile

import pytest
import tensorflow.compat.v1 as tf
from fault_server import Answer, FaultServer

import modeling
from albert_zh.downloads import catalogue, installation
from albert_zh.models import architecture, checkpoints
from albert_zh.models import directory as model_directory

pytestmark = pytest.mark.once

# Of albert_tiny's hidden size, by which files fetched by hand are told.
CONFIG = {
    "embedding_size": 4,
    "hidden_size": 312,
    "intermediate_size": 16,
    "ln_type": "postln",
    "max_position_embeddings": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 6,
}
VOCAB = "".join(token + "\n" for token in "[PAD] [UNK] [CLS] [SEP] [MASK] 山".split())
FOLDER = "voidful/albert_chinese_tiny/resolve/main/"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached directly, whatever the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def server():
    with FaultServer() as fault_server:
        yield fault_server


@pytest.fixture
def download(server, run_command):
    """Function that runs the command with the server as mirror, without waiting."""

    def run(*flags):
        return run_command(
            "download_model.py", "--base_url=" + server.url, "--retries=0", *flags
        )

    return run


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    """{name: bytes} of a model, under the names albert_zh's archives have."""
    directory = tmp_path_factory.mktemp("model")
    (directory / "albert_config_tiny.json").write_text(json.dumps(CONFIG))
    (directory / "vocab.txt").write_text(VOCAB, encoding="utf-8")
    with tf.Graph().as_default(), tf.Session() as session:
        modeling.AlbertModel(
            modeling.AlbertConfig.from_dict(CONFIG), False, tf.zeros([1, 4], tf.int32)
        )
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(save_relative_paths=True)
        saver.save(session, str(directory / "albert_model.ckpt"))
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    return buffer.getvalue()


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as writer:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def contents(directory):
    """{path: bytes} of a directory without its receipt."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != installation.RECEIPT_FILE
    }


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def check_usable(directory):
    """Asserts that a directory is a model whose parts go together."""
    files = model_directory.find(str(directory))
    config = modeling.AlbertConfig.from_json_file(files.config_file)
    shapes = checkpoints.read_shapes(files.checkpoint)
    assert architecture.differences(architecture.infer(shapes), config) == []
    model_directory.check_vocabulary_of(files, config)
    assert set(checkpoints.read_tensors(files.checkpoint)) == set(shapes)


def test_list_shows_the_catalogue(run_command):
    result = run_command("download_model.py", "--list")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == catalogue.table()


def test_an_archive_becomes_a_usable_model(
    server, download, model_files, tmp_path, assert_user_error
):
    server.answers["/albert_tiny.zip"] = [Answer(zipped(model_files))]
    result = download("albert_tiny_zh")
    assert result.returncode == 0, result.stderr
    parent = tmp_path / "prev_trained_model"
    directory = parent / "albert_tiny_zh"
    assert result.stdout.splitlines()[-1].endswith(
        "saved to " + str(directory.relative_to(tmp_path))
    )
    assert contents(directory) == model_files
    assert directory.stat().st_mode & 0o777 == parent.stat().st_mode & 0o777
    assert names(parent) == ["albert_tiny_zh", "checksums.json"]
    check_usable(directory)

    again = download("albert_tiny_zh")
    assert again.returncode == 0 and "complete and undamaged" in again.stderr
    assert server.paths() == ["/albert_tiny.zip"]

    (directory / "vocab.txt").write_text("changed")
    assert_user_error(
        download("albert_tiny_zh"), "--output_dir=", "vocab.txt", "delete it"
    )
    assert (directory / "vocab.txt").read_text() == "changed"
    assert server.paths() == ["/albert_tiny.zip"]


def test_googles_archives_keep_their_names_without_their_folder(
    server, download, model_files, tmp_path
):
    renamed = {}
    for name, content in model_files.items():
        if name == "checkpoint":
            continue
        name = name.replace("albert_model.ckpt", "model.ckpt-best")
        name = {"albert_config_tiny.json": "albert_config.json"}.get(name, name)
        name = {"vocab.txt": "vocab_chinese.txt"}.get(name, name)
        renamed[name] = content
    archive = tarred({"albert_base/" + name: data for name, data in renamed.items()})
    server.answers["/albert_base_zh.tar.gz"] = [Answer(archive)]
    result = download("albert_base_zh_google", "--output_dir=models/google")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "models" / "google") == renamed
    check_usable(tmp_path / "models" / "google")


def test_a_task_becomes_its_files(server, download, tmp_path):
    files = {"train.json": b"{}\n", "dev.json": b"{}\n", "__MACOSX/._dev.json": b"x"}
    server.answers["/tnews_public.zip"] = [Answer(zipped(files))]
    result = download("tnews")
    assert result.returncode == 0, result.stderr
    del files["__MACOSX/._dev.json"]
    assert contents(tmp_path / "CLUEdatasets" / "tnews") == files


def test_hugging_face_models_are_several_files_in_one_directory(
    server, download, tmp_path, assert_user_error
):
    files = {"config.json": b"{}", "pytorch_model.bin": b"w" * 70000, "vocab.txt": b"x"}
    for name, content in files.items():
        server.answers["/" + FOLDER + name] = [Answer(content)]
    weights = server.answers["/" + FOLDER + "pytorch_model.bin"]
    weights.insert(0, weights[0]._replace(cut=40000))
    flags = ["albert_tiny_zh_google", "--source=huggingface", "--output_dir=hf/tiny"]
    assert_user_error(download(*flags), FOLDER + "pytorch_model.bin", "--from_file")
    assert names(tmp_path / "hf") == ["albert_chinese_tiny.partial"]

    result = download(*flags)
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "hf" / "tiny") == files
    assert names(tmp_path / "hf") == ["checksums.json", "tiny"]
    assert [path.split("/")[-1] for path in server.paths()] == [
        "config.json",
        "pytorch_model.bin",
        "pytorch_model.bin",
        "vocab.txt",
    ]
    assert "Range" in server.requests[2][1]
    assert (
        "convert_checkpoint.py --from=huggingface --to=google --input=hf/tiny "
        "--output=" in result.stdout
    )


def test_files_of_an_interrupted_download_do_not_get_into_another(
    server, download, tmp_path, assert_user_error
):
    server.answers["/" + FOLDER + "config.json"] = [Answer(b"{}")]
    assert_user_error(download("albert_chinese_tiny", "--output_dir=hf"), "404")
    expected = {}
    for name in ("config.json", "pytorch_model.bin", "vocab.txt"):
        expected[name] = ("base " + name).encode("ascii")
        path = "/" + FOLDER.replace("tiny", "base") + name
        server.answers[path] = [Answer(expected[name])]
    result = download("albert_chinese_base", "--output_dir=hf")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "hf") == expected


def test_an_interrupted_download_goes_on(server, download, tmp_path, assert_user_error):
    files = {"train.json": random.Random(1).getrandbits(800000).to_bytes(100000, "big")}
    whole = Answer(zipped(files))
    server.answers["/afqmc_public.zip"] = [whole._replace(cut=80000), whole]
    assert_user_error(download("afqmc"), "bytes are kept in", "afqmc_public.zip")
    parent = tmp_path / "CLUEdatasets"
    assert names(parent) == [
        "afqmc_public.zip.partial",
        "afqmc_public.zip.partial.json",
    ]
    result = download("afqmc")
    assert result.returncode == 0, result.stderr
    assert "Range" in server.requests[1][1]
    assert contents(parent / "afqmc") == files
    assert names(parent) == ["afqmc", "checksums.json"]


def test_a_server_that_stalls_is_given_up(server, download, assert_user_error):
    server.answers["/albert_tiny.zip"] = [Answer(b"PK" * 1000, stall=10)]
    result = download("albert_tiny_zh", "--timeout=0.2")
    assert_user_error(result, "/albert_tiny.zip: received nothing for 0.2 s")


def test_a_file_that_changed_since_its_first_download_is_refused(
    server, download, tmp_path, assert_user_error
):
    server.answers["/afqmc_public.zip"] = [
        Answer(zipped({"train.json": b"1"})),
        Answer(zipped({"train.json": b"2"})),
    ]
    assert download("afqmc", "--output_dir=data/first").returncode == 0
    result = download("afqmc", "--output_dir=data/second")
    assert_user_error(result, "checksum", "data/checksums.json", "delete that entry")
    assert names(tmp_path / "data") == ["checksums.json", "first"]
    # The record is of the published file, whatever mirror it came from.
    recorded = json.loads((tmp_path / "data" / "checksums.json").read_text())
    assert list(recorded) == [catalogue.find("afqmc").address]

    (tmp_path / "data" / "checksums.json").unlink()
    assert download("afqmc", "--output_dir=data/second").returncode == 0
    assert contents(tmp_path / "data" / "second") == {"train.json": b"2"}


def test_a_known_checksum_is_enforced_from_the_first_download(
    server, download, run_command, tmp_path, assert_user_error
):
    archive = zipped({"train.json": b"1"})
    server.answers["/csl_public.zip"] = [Answer(archive)]
    assert_user_error(download("csl"), "checksum", "the published file's")
    (tmp_path / "csl.zip").write_bytes(archive)
    result = run_command("download_model.py", "csl", "--from_file=csl.zip")
    assert_user_error(result, "csl.zip: its checksum", "the published file's")
    assert list((tmp_path / "CLUEdatasets").iterdir()) == []


@pytest.mark.parametrize(
    "archive, words",
    [
        (zipped({"good": b"1", "../../evil": b"2"}), ["'../../evil'", "outside"]),
        (zipped({"zeros": bytes(5 * 2**20)}), ["'zeros'", "larger than"]),
        (zipped({"good": b"1"})[:-30], ["damaged"]),
        (b"some page of a proxy", ["neither"]),
    ],
)
def test_an_unusable_archive_leaves_nothing_behind(
    archive, words, server, download, tmp_path, assert_user_error
):
    server.answers["/albert_tiny.zip"] = [Answer(archive)]
    assert_user_error(download("albert_tiny_zh"), "albert_tiny.zip", *words)
    assert names(tmp_path) == ["prev_trained_model"]
    assert names(tmp_path / "prev_trained_model") == []

    server.answers["/albert_tiny.zip"] = [Answer(zipped({"good": b"1"}))]
    assert download("albert_tiny_zh").returncode == 0


def test_a_link_in_a_tar_is_refused(server, download, tmp_path, assert_user_error):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as writer:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        writer.addfile(info)
    server.answers["/albert_base_zh.tar.gz"] = [Answer(buffer.getvalue())]
    assert_user_error(download("albert_base_zh_google"), "'link'", "is a link")
    assert names(tmp_path / "prev_trained_model") == []


def test_where_the_network_is_closed_a_file_fetched_by_hand_does(
    run_command, model_files, tmp_path, assert_user_error
):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base_url = "http://127.0.0.1:{}/mirror/".format(unused.getsockname()[1])
        result = run_command(
            "download_model.py",
            "albert_tiny_zh",
            "--base_url=" + base_url,
            "--retries=0",
        )
    assert_user_error(result, base_url + "albert_tiny.zip: ", "--from_file")

    by_hand = tmp_path / "fetched.zip"
    archive = zipped(model_files)
    by_hand.write_bytes(archive)
    result = run_command(
        "download_model.py", "albert_tiny_zh", "--from_file=fetched.zip"
    )
    assert result.returncode == 0, result.stderr
    check_usable(tmp_path / "prev_trained_model" / "albert_tiny_zh")
    assert by_hand.read_bytes() == archive

    by_hand.write_bytes(zipped({"other": b"1"}))
    result = run_command(
        "download_model.py",
        "albert_tiny_zh",
        "--from_file=fetched.zip",
        "--output_dir=prev_trained_model/second",
    )
    assert_user_error(result, "fetched.zip", "checksum", "delete that entry")
    assert by_hand.exists()


def test_hugging_face_files_fetched_by_hand(run_command, tmp_path, assert_user_error):
    folder = tmp_path / "by_hand"
    folder.mkdir()
    # Left by a download that was interrupted
    (tmp_path / "albert_chinese_tiny.partial").mkdir()
    (tmp_path / "albert_chinese_tiny.partial" / "config.json").write_text("stale")
    flags = ["albert_chinese_tiny", "--from_file=by_hand", "--output_dir=tiny"]
    for name in ("config.json", "vocab.txt"):
        (folder / name).write_text(name)
    result = run_command("download_model.py", *flags)
    assert_user_error(result, "--from_file=by_hand", "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_text("weights")
    assert run_command("download_model.py", *flags).returncode == 0
    assert contents(tmp_path / "tiny") == contents(folder)


def test_an_archive_that_is_there_is_used_and_kept(
    server, download, tmp_path, assert_user_error
):
    parent = tmp_path / "prev_trained_model"
    parent.mkdir()
    archive = parent / "albert_tiny.zip"
    archive.write_bytes(b"unfinished")
    assert_user_error(download("albert_tiny_zh"), str(archive.name), "delete it")
    assert archive.read_bytes() == b"unfinished"
    archive.write_bytes(zipped({"good": b"1"}))
    assert download("albert_tiny_zh").returncode == 0
    assert names(parent) == ["albert_tiny.zip", "albert_tiny_zh", "checksums.json"]
    assert server.requests == []


@pytest.mark.parametrize("kind", ["file", "directory", "other download"])
def test_what_is_in_the_way_stays(kind, server, download, tmp_path, assert_user_error):
    server.answers["/afqmc_public.zip"] = [Answer(zipped({"train.json": b"1"}))]
    server.answers["/ocnli_public.zip"] = [Answer(zipped({"train.json": b"2"}))]
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind == "directory":
        target.mkdir()
        (target / "mine").write_text("mine")
    else:
        assert download("ocnli", "--output_dir=target").returncode == 0
    before = target.read_bytes() if kind == "file" else contents(target)
    result = download("afqmc", "--output_dir=target")
    assert_user_error(result, "--output_dir=target", "something else")
    after = target.read_bytes() if kind == "file" else contents(target)
    assert after == before
    assert "/afqmc_public.zip" not in server.paths()


def test_an_empty_directory_is_filled(server, download, tmp_path):
    server.answers["/afqmc_public.zip"] = [Answer(zipped({"train.json": b"1"}))]
    (tmp_path / "target").mkdir()
    assert download("afqmc", "--output_dir=target/").returncode == 0
    assert contents(tmp_path / "target") == {"train.json": b"1"}


def test_a_wrong_vocabulary_is_refused(server, download, tmp_path, assert_user_error):
    path = "bert-base-chinese/resolve/main/vocab.txt"
    server.answers["/" + path] = [Answer(VOCAB.encode("utf-8"))]
    result = download("vocab", "--output_dir=config")
    assert_user_error(result, path, catalogue.VOCABULARY_CHECKSUM)
    assert names(tmp_path / "config") == []

    (tmp_path / "config" / "vocab.txt").write_text(VOCAB, encoding="utf-8")
    result = download("vocab", "--output_dir=config")
    assert_user_error(result, "vocab.txt", catalogue.VOCABULARY_CHECKSUM, "move it")
    assert (tmp_path / "config" / "vocab.txt").read_text("utf-8") == VOCAB


def test_the_vocabulary_comes_once(server, download, real_data, tmp_path):
    content = (real_data / "bert_zh_vocab" / "vocab.txt").read_bytes()
    server.answers["/models/bert_base_zh/vocab.txt"] = [Answer(content)]
    flags = ["vocab", "--source=keras_nlp", "--output_dir=config"]
    for times in ("first", "second"):
        result = download(*flags)
        assert result.returncode == 0, result.stderr
        assert ("complete and undamaged" in result.stderr) == (times == "second")
    assert len(server.requests) == 1
    assert (tmp_path / "config" / "vocab.txt").read_bytes() == content
    assert names(tmp_path / "config") == ["vocab.txt"]


def test_default_places_are_those_of_the_published_commands(repository):
    places = {
        "albert_tiny_zh": "prev_trained_model/albert_tiny_zh",
        "cmnli": "CLUEdatasets/cmnli",
        "vocab": str(repository / "albert_config"),
    }
    for name, place in places.items():
        entry = catalogue.find(name)
        assert installation.default_directory(entry) == place


@pytest.mark.parametrize(
    "flags, words",
    [
        ([], ["NAME", "--list"]),
        (["--list", "vocab"], ["--list"]),
        (["--list", "--source=google"], ["--source: has no effect with --list"]),
        (["--list", "--retries=1"], ["--retries: has no effect with --list"]),
        (["vocab", "--from_file=a.zip", "--timeout=9"], ["--timeout", "--from_file"]),
        (["albert_tny_zh"], ["'albert_tny_zh'", "albert_tiny_zh"]),
        (["../albert_tiny_zh"], ["is a path"]),
        (["vocab", "--source=nowhere"], ["nowhere"]),
        (["afqmc", "--base_url=ftp://host"], ["--base_url=ftp://host", "http"]),
        (["afqmc", "--base_url=http://h", "--from_file=x"], ["exclude"]),
        (["afqmc", "--from_file=missing.zip"], ["--from_file=missing.zip"]),
        (["vocab", "--from_file=missing.txt"], ["--from_file=missing.txt"]),
        (["afqmc", "--timeout=0"], ["--timeout"]),
        (["afqmc", "--timeout=nan"], ["--timeout"]),
        (["afqmc", "--retries=-1"], ["--retries"]),
        (["afqmc", "--output_dir=/dev/null/x", "--from_file=a.zip"], ["/dev/null"]),
    ],
)
def test_mistakes_are_one_line(flags, words, run_command, tmp_path, assert_user_error):
    (tmp_path / "a.zip").write_bytes(zipped({"good": b"1"}))
    assert_user_error(run_command("download_model.py", *flags), *words)
    assert names(tmp_path) == ["a.zip"]
