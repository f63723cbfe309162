"""convert_checkpoint.py: damaged and odd input, as the user sees it."""

import json
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest

import convert_checkpoint
import modeling
from albert_zh import command_line
from albert_zh.base import locks
from albert_zh.base.errors import UserError
from albert_zh.interop import (
    checkpoint_format,
    conversion,
    tokenizer_files,
    weights_files,
)
from benchmarks import head_to_head
from tests.converted_models import (
    ALBERT_ZH,
    GOOGLE,
    assert_same_model,
    convert,
    edit_json,
)


@pytest.fixture
def fails(capsys, tmp_path):
    """Function: the command ends in one line with these words and no output.

    In this process, as starting TensorFlow takes longer than the rest.
    """

    def check(source_format, target_format, source, words, *flags):
        arguments = ["--from=" + source_format, "--to=" + target_format]
        arguments += ["--input=" + source, "--output={}".format(tmp_path / "refused")]
        parser = convert_checkpoint.build_parser()
        with pytest.raises(SystemExit) as ended:
            command_line.run(convert_checkpoint.main, parser, arguments + list(flags))
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert ": error: " in line
        assert [word for word in words if word not in line] == []
        assert not list(tmp_path.glob("refused*"))

    return check


def test_truncated_safetensors(write, fails):
    there = convert("google", "huggingface", write(GOOGLE), "there")
    path = pathlib.Path(there, "model.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    fails("huggingface", "google", there, ["model.safetensors", "truncated"])


class _Attack:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickle_that_wants_to_run_code(write, fails, tmp_path):
    pytest.importorskip("torch")
    there = convert("google", "huggingface", write(GOOGLE), "there")
    os.remove(os.path.join(there, "model.safetensors"))
    trap = tmp_path / "trapped"
    with open(os.path.join(there, "pytorch_model.bin"), "wb") as target:
        pickle.dump({"albert.pooler.weight": _Attack(str(trap))}, target)
    fails("huggingface", "google", there, ["pytorch_model.bin", "refused"])
    assert not trap.exists()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A small classifier in Hugging Face's format, to be copied."""
    directory = tmp_path_factory.mktemp("template")
    config = modeling.AlbertConfig(**GOOGLE)
    head_to_head.write_random_model(str(directory / "tf"), config, ("classifier",))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [chr(0x4E00 + index) for index in range(config.vocab_size - len(tokens))]
    text = "".join(token + "\n" for token in tokens)
    (directory / "tf" / "vocab.txt").write_text(text, encoding="utf-8")
    return convert("google", "huggingface", str(directory / "tf"), "there")


@pytest.fixture
def hugging_face(template, tmp_path):
    """Function: a directory of Hugging Face's format with one file replaced."""

    def make(name, content):
        there = tmp_path / "there"
        shutil.copytree(template, str(there))
        if not name.startswith("vocab"):
            (there / "vocab.txt").unlink()
        if name.endswith((".bin", "index.json")):
            (there / "model.safetensors").unlink()
        (there / name).write_bytes(content)
        return str(there)

    return make


def test_old_torch_reads_no_pickle_from_elsewhere(hugging_face, fails, monkeypatch):
    torch = pytest.importorskip("torch")
    there = hugging_face("pytorch_model.bin", b"")
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    for version in ("2.9.1+cu128", "2.5.1", "1.13.1"):
        monkeypatch.setattr(torch, "__version__", version)
        words = ["pytorch_model.bin", version, "CVE-2025-32434", "2.10", "safetensors"]
        fails("huggingface", "google", there, words)
    for version in ("2.10.0", "2.13.0+cpu", "3.0.0a0"):
        weights_files._require_safe_torch(version, "")


def test_safetensors_are_preferred_to_a_pickle(write, monkeypatch):
    torch = pytest.importorskip("torch")
    there = convert("google", "huggingface", write(GOOGLE), "there")
    pathlib.Path(there, "pytorch_model.bin").write_bytes(b"not read")
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    convert("huggingface", "google", there, "back")


def test_old_torch_writes_and_checks_its_own_pickle(write, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "__version__", "1.13.1")
    there = convert("albert_zh", "albert_pytorch", write(ALBERT_ZH), "there")
    with pytest.raises(UserError, match="could run code"):
        convert("albert_pytorch", "albert_zh", there, "back")


def test_tensors_that_models_do_not_hold(hugging_face, fails, tmp_path):
    torch = pytest.importorskip("torch")
    for value in (
        torch.eye(3).to_sparse(),
        torch.zeros(1).expand(10**13),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, dtype=torch.bool),
    ):
        path = tmp_path / "odd.bin"
        torch.save({"albert.pooler.weight": value}, str(path))
        with pytest.raises(UserError, match="no ordinary tensor of real numbers"):
            weights_files._load_pickle(str(path), is_trusted=False)
    torch.save({7: torch.zeros(3)}, str(path))
    with pytest.raises(UserError, match="no state dict"):
        weights_files._load_pickle(str(path), is_trusted=False)


def with_header(header):
    """A safetensors file of 16 bytes of data."""
    return len(header).to_bytes(8, "little") + header + bytes(16)


def tensor(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(**tensors):
    return json.dumps(tensors).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        (2**63).to_bytes(8, "little") + b"{}",
        (10**6).to_bytes(8, "little") + b"{}",
        with_header(b"[" * 100000),
        with_header(b'{"a": \xff}'),
        with_header(header(a=tensor(offsets=(0, 17)))),
        with_header(header(a=tensor(offsets=(16, 0)))),
        with_header(header(a=tensor(offsets=(0, 2**70)))),
        with_header(header(a=tensor(shape=(5,)))),
        with_header(header(a=tensor(shape=(-4,)))),
        with_header(header(a=tensor(shape=(2**40, 2**40)))),
        with_header(header(a=tensor("F31"))),
        with_header(header(a=tensor("BOOL", (16,)))),
        with_header(header(a=tensor(), b=tensor())),
        with_header(header(a=tensor(shape=(2,), offsets=(8, 16)))),
        with_header(header(a={"dtype": "F32"})),
        with_header(header(a=7)),
    ],
    ids=lambda content: repr(content[8:60]),
)
def test_safetensors_with_a_wrong_header(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="model.safetensors: ") as caught:
        weights_files.read_state(str(tmp_path), "--input")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


ODD_JSON = ["", "[]", "{", "null", "NaN", "[" * 100000, "1" * 5000, '"\\ud800"']


@pytest.mark.parametrize(
    "name,text",
    [("config.json", text) for text in ODD_JSON]
    + [("tokenizer_config.json", text) for text in ODD_JSON]
    + [("tokenizer.json", text) for text in ODD_JSON]
    + [("model.safetensors.index.json", text) for text in ODD_JSON]
    + [
        ("tokenizer_config.json", '{"do_lower_case": "no"}'),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": 0.5}}}'),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": ["a"]}}'),
        ("tokenizer.json", '{"model": {"type": "WordPiece"}}'),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a\\nb": 0}}}'),
        ("tokenizer.json", '{"model": 7, "normalizer": []}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": 7}}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": ".."}}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../../x\\u001b"}}'),
    ],
)
def test_odd_json(name, text, hugging_face, fails):
    there = hugging_face(name, text.encode())
    fails("huggingface", "google", there, [name])


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "8"},
        {"hidden_size": 2**40},
        {"num_hidden_layers": 10**6},
        {"num_attention_heads": 0},
        {"vocab_size": True},
        {"hidden_act": ["gelu"]},
        {"hidden_dropout_prob": "none"},
        {"architectures": [7]},
        {"architectures": "AlbertModel"},
        {"id2label": {"0": {}, "1": "b"}},
        {"id2label": ["a", "b"]},
        {"task_specific_params": {"albert_zh": {"labels": "ab"}}},
        {"task_specific_params": {"albert_zh": [1]}},
        {"task_specific_params": {"albert_zh": {"max_seq_length": 32.5}}},
        {"problem_type": []},
    ],
    ids=str,
)
def test_odd_settings_in_a_config(changes, template, tmp_path, fails):
    there = shutil.copytree(template, str(tmp_path / "there"))
    edit_json(there + "/config.json", **changes)
    fails("huggingface", "google", there, list(changes))


@pytest.mark.parametrize(
    "settings,source_format,target_format",
    [
        (GOOGLE, "google", "huggingface"),
        (GOOGLE, "google", "google"),
        (ALBERT_ZH, "albert_zh", "albert_pytorch"),
    ],
)
def test_a_full_disk_leaves_nothing(
    settings, source_format, target_format, write, fails
):
    resource = pytest.importorskip("resource")
    if target_format == "albert_pytorch":
        pytest.importorskip("torch")
    source = write(settings)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        fails(source_format, target_format, source, ["cannot write"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(os.path.dirname(source))) == ["source"]
    convert(source_format, target_format, source)


def test_two_conversions_to_one_output_are_kept_apart(write, tmp_path):
    source = write(GOOGLE)
    with locks.hold(str(tmp_path / ".target.lock"), ""):
        with pytest.raises(UserError, match="in use by another process"):
            convert("google", "google", source)
    killed = tmp_path / ".target.{}.partial".format("0f" * 16)
    killed.mkdir()
    convert("google", "google", source)
    assert sorted(os.listdir(str(tmp_path))) == ["source", "target"]


def test_truncated_pickle(write, fails):
    pytest.importorskip("torch")
    there = convert("albert_zh", "albert_pytorch", write(ALBERT_ZH), "there")
    path = pathlib.Path(there, "pytorch_model.bin")
    path.write_bytes(path.read_bytes()[:3000])
    fails("albert_pytorch", "albert_zh", there, ["pytorch_model.bin", "truncated"])


def test_vocabulary_one_line_short(write, fails):
    source = write(GOOGLE, entries=29)
    fails("google", "huggingface", source, ["29 entries", "30 rows"])


def test_config_of_another_size(write, fails):
    source = write(GOOGLE)
    path = pathlib.Path(source, "albert_config.json")
    settings = dict(json.loads(path.read_text()), hidden_size=16)
    path.write_text(json.dumps(settings))
    fails("google", "huggingface", source, ["hidden_size is 8, not the config's 16"])


def test_no_weights_at_all(write, fails):
    source = write(GOOGLE)
    for path in pathlib.Path(source).glob("*ckpt*"):
        path.unlink()
    pathlib.Path(source, "checkpoint").unlink()
    fails("google", "huggingface", source, ["--input", "no TensorFlow checkpoint"])
    there = pathlib.Path(source).parent / "empty"
    there.mkdir()
    fails("huggingface", "google", str(there), ["cannot read", "config.json"])
    (there / "config.json").write_text("{}")
    fails("huggingface", "google", str(there), ["no model.safetensors"])


def test_options_that_do_not_fit(write, fails):
    source = write(GOOGLE)
    fails("google", "huggingface", source, ["--keep_slots"], "--keep_slots")
    fails("google", "google", source, ["--dtype=float16"], "--dtype=float16")
    fails("google", "google", source, ["--task_name"], "--task_name=pair")
    fails("google", "google", source, ["--labels requires"], "--labels=a,b")
    task = ["--task_name=pair", "--max_seq_length=13"]
    classifier = write(GOOGLE, ("classifier",), "classifier")
    fails("google", "google", classifier, ["13", "12 positions"], *task)


def test_output_that_cannot_be_written_is_named_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for output in ("file", "file/below"):
        with pytest.raises(UserError, match="--output=.*file"):
            convert("google", "google", str(tmp_path / "absent"), output)


def test_existing_output_is_left_alone(write, run_command, assert_user_error):
    source = write(GOOGLE)
    result = run_command(
        "convert_checkpoint.py",
        "--from=google",
        "--to=google",
        "--input=" + source,
        "--output=" + source,
    )
    assert_user_error(result, "--output", "exists already")
    assert_same_model(source, convert("google", "google", source, "copy"))


def test_damaged_output_is_noticed(write, monkeypatch):
    """The comparison after writing is real: a writer that errs is caught."""
    source = write(GOOGLE)

    def err(model, directory, options):
        tensors = dict(model.tensors)
        name = "bert/pooler/dense/bias"
        tensors[name] = np.nextafter(tensors[name], np.float32(9))
        checkpoint_format.write(model._replace(tensors=tensors), directory)

    formats = dict(conversion.FORMATS)
    formats["google"] = formats["google"]._replace(write=err)
    monkeypatch.setattr(conversion, "FORMATS", formats)
    with pytest.raises(RuntimeError, match="bert/pooler/dense/bias differs"):
        convert("google", "google", source)
    assert sorted(os.listdir(os.path.dirname(source))) == ["source"]


@pytest.mark.parametrize(
    "name, settings",
    [
        ("tokenizer_config.json", {"do_lower_case": "no"}),
        ("tokenizer_config.json", {"do_lower_case": 1}),
        ("tokenizer_config.json", []),
        ("tokenizer.json", {"normalizer": {"lowercase": "no"}}),
        ("tokenizer.json", {"normalizer": []}),
        ("tokenizer.json", {"model": {"type": "WordPiece"}}),
        ("tokenizer.json", {"model": {"type": "WordPiece", "vocab": {"a": "0"}}}),
    ],
)
def test_a_tokenizers_files_are_held_against_a_schema(tmp_path, name, settings):
    (tmp_path / name).write_text(json.dumps(settings))
    with pytest.raises(UserError, match="{}: damaged".format(name)):
        tokenizer_files.read(str(tmp_path))
