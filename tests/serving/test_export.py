"""Exports: every kind of task in every format, verified, whole, checked by sums."""

import concurrent.futures
import json
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import albert_zh
import export_model
from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.serving import (
    encoder,
    export,
    exported,
    formats,
    predictor,
    verification,
)
from tests import export_models, served_models, task_runs
from tests.served_models import is_close

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

IS_TENSORFLOW_2 = not tf.__version__.startswith("1.")
ALL_FORMATS = [
    (name, precision)
    for name, held in sorted(formats.FORMATS.items())
    for precision in held.precisions
    if name != "tflite" or IS_TENSORFLOW_2
]
# Of a model whose matrices have the 1024 values that TensorFlow Lite quantises.
LARGER = {"hidden_size": 128, "intermediate_size": 512, "deviation": 0.08}
KINDS = sorted(served_models.TASKS)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A function of a key of `served_models.TASKS` that returns a model's directory."""
    made, folder = {}, tmp_path_factory.mktemp("models")

    def get(name):
        if name not in made:
            made[name] = served_models.write_model(folder / name, name)
        return made[name]

    return get


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_onnx_answers_as_tensorflow_does(models, tmp_path, name, precision):
    target = str(tmp_path / "onnx")
    report = export.export(models(name), target, "onnx", precision)
    assert report.size < report.checkpoint_size + 40000  # of the graph itself
    if precision == "int8":
        return
    assert report.found.difference < 1e-5
    instances = served_models.instances_of(name)
    with albert_zh.load(models(name)) as expected, albert_zh.load(
        target, backend="onnx"
    ) as found:
        assert found.kind_name == expected.kind_name
        assert is_close(found(instances), expected(instances), 1e-4)


@pytest.mark.parametrize("name", ["encoder", "lcqmc", "multiple_choice", "ner-span"])
@pytest.mark.parametrize(("format_name", "precision"), ALL_FORMATS)
def test_every_format_has_every_kind(models, tmp_path, name, format_name, precision):
    target = tmp_path / "export"
    report = export.export(models(name), str(target), format_name, precision)
    if precision == "float32":
        assert report.found.difference < 1e-5
    record = json.loads((target / "export.json").read_text())
    assert (record["format"], record["precision"]) == (format_name, precision)
    assert record["inputs"] == ["input_ids", "input_mask", "segment_ids"]
    assert set(record["sha256"]) == {
        str((os.path.join(folder, file))[len(str(target)) + 1 :])
        for folder, _, files in os.walk(str(target))
        for file in files
        if file != "export.json"
    }
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "format_name", [name for name, precision in ALL_FORMATS if precision == "int8"]
)
def test_int8_is_close_and_zeros_are_not(tmp_path, monkeypatch, format_name):
    source = served_models.write_model(tmp_path / "model", "encoder", **LARGER)
    target = tmp_path / "export"
    report = export.export(source, str(target), format_name, "int8")
    assert report.size < report.checkpoint_size / 2
    assert 0.001 < report.found.difference < 0.2

    held = formats.FORMATS[format_name]

    def write(kind, weights, precision, directory):
        shutil.copy(str(target / exported.MODEL_FILES[format_name]), directory)

    def open_zeros(directory, names):
        runtime = held.open(directory, names)
        outputs = runtime.run
        runtime.run = lambda features: {
            name: np.zeros_like(value) for name, value in outputs(features).items()
        }
        return runtime

    wrong = held._replace(write=write, open=open_zeros)
    monkeypatch.setitem(formats.FORMATS, format_name, wrong)
    with pytest.raises(UserError, match="differs from TensorFlow by 1 of an output"):
        export.export(source, str(tmp_path / "x"), format_name, "int8")


def test_a_saved_model_loads_in_a_session_of_tensorflow_1(models, tmp_path):
    target = str(tmp_path / "saved")
    export.export(models("lcqmc"), target, "saved_model", "float32")
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, ["serve"], target)
        (signature,) = loaded.signature_def.values()
        assert sorted(signature.inputs) == ["input_ids", "input_mask", "segment_ids"]
        assert sorted(signature.outputs) == ["logits", "probabilities"]
        for info in signature.inputs.values():
            assert [dim.size for dim in info.tensor_shape.dim] == [-1, -1]
            assert info.dtype == tf.int32.as_datatype_enum
        fed = {info.name: [[2, 7, 3]] for info in signature.inputs.values()}
        fed[signature.inputs["segment_ids"].name] = [[0, 0, 1]]
        logits, shares = session.run(
            [signature.outputs[n].name for n in ("logits", "probabilities")], fed
        )
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), shares, rtol=1e-5)


def test_a_saved_model_has_no_attribute_that_tensorflow_1_lacks(models, tmp_path):
    """Written by TensorFlow 2.15 it has debug_name of variables, of itself."""
    target = tmp_path / "saved"
    export.export(models("lcqmc"), str(target), "saved_model", "float32")
    assert b"debug_name" not in (target / "saved_model.pb").read_bytes()


@pytest.mark.skipif(not IS_TENSORFLOW_2, reason="TensorFlow 2 has such models")
def test_a_lite_model_binds_its_inputs_by_name(models, tmp_path):
    target = tmp_path / "lite"
    export.export(models("lcqmc"), str(target), "tflite", "float32")
    interpreter = tf.lite.Interpreter(str(target / "model.tflite"))
    (signature,) = interpreter.get_signature_list().values()
    assert sorted(signature["inputs"]) == ["input_ids", "input_mask", "segment_ids"]
    runner = interpreter.get_signature_runner()
    for details in runner.get_input_details().values():
        assert details["dtype"] == np.int32


@pytest.mark.skipif(IS_TENSORFLOW_2, reason="TensorFlow 1.15 has no signatures")
def test_tensorflow_1_writes_no_lite_model(models, tmp_path):
    with pytest.raises(UserError, match="export with TensorFlow 2.15"):
        export.export(models("lcqmc"), str(tmp_path / "x"), "tflite", "float32")


@pytest.mark.parametrize("shares_cores", [False, True])
def test_an_onnx_model_answers_many_threads(models, tmp_path, shares_cores):
    target = str(tmp_path / "onnx")
    export.export(models("single"), target, "onnx", "float32")
    instances = served_models.instances_of("single") * 5
    # By itself with ONNX Runtime.
    with albert_zh.load(target, shares_cores=shares_cores) as model:
        expected = [model(instance) for instance in instances]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert is_close(list(pool.map(model, instances)), expected, 1e-4)


def test_a_wrong_mask_head_is_refused(models, tmp_path, monkeypatch):
    held, bias = formats.FORMATS["onnx"], "cls/predictions/output_bias"

    def write(kind, weights, precision, directory):
        held.write(
            kind, dict(weights, **{bias: weights[bias] + 1}), precision, directory
        )

    monkeypatch.setitem(formats.FORMATS, "onnx", held._replace(write=write))
    with pytest.raises(UserError, match="differs from TensorFlow"):
        export.export(models("encoder"), str(tmp_path / "x"), "onnx", "float32")


def test_an_output_that_is_missing_is_refused(models, tmp_path, monkeypatch):
    held = formats.FORMATS["onnx"]

    def write(kind, weights, precision, directory):
        held.write(kind, weights, precision, directory)
        path = os.path.join(directory, "model.onnx")
        model = onnx.load(path)
        del model.graph.output[-1]
        onnx.save(model, path)

    monkeypatch.setitem(formats.FORMATS, "onnx", held._replace(write=write))
    with pytest.raises(UserError, match="differs from TensorFlow by inf"):
        export.export(models("lcqmc"), str(tmp_path / "x"), "onnx", "float32")


def write_dev_file(path):
    rows = "text_a\ttext_b\tlabel\n"
    for i, text in enumerate(
        ["怎么开户", "如何办理", "今天天气", "银行卡在哪里", "北京"]
    ):
        rows += "{}\t{}好\t{}\n".format(text, text[:2], i % 2)
    path.write_text(rows, encoding="utf-8")
    return str(path)


def test_the_command_prints_a_table(models, tmp_path, capsys):
    task_runs.run(
        export_model,
        "--model_dir=" + models("lcqmc"),
        "--output_dir={}".format(tmp_path / "new" / "onnx"),
        "--format=onnx",
        "--dev_file=" + write_dev_file(tmp_path / "dev.tsv"),
    )
    out = capsys.readouterr().out
    assert "onnx          float32" in out and "checkpoint    float32" in out
    assert "dev file: 5 examples, the same predictions for 100.00%, diff" in out
    assert "TensorFlow: accuracy" in out and "export: accuracy" in out
    assert out.splitlines()[-1] == "Model saved to {}".format(tmp_path / "new" / "onnx")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=saved_model", "--precision=int8"], "--format=onnx or tflite"),
        (["--format=onnx", "--output_dir={full}"], "is not empty"),
        (["--format=onnx", "--output_dir={file}"], "is no directory"),
        (["--format=onnx", "--model_dir={full}"], "holds no"),
        (["--format=onnx", "--output_dir=gs://x/y"], "expected a local directory"),
        (["--format=onnx", "--encoder", "--dev_file={file}"], "remove it"),
        (["--format=onnx", "--dev_file={file}.tsv"], "no such file"),
        (["--format=onnx", "--encoder", "--model_dir={pretrained}"], "--encoder: "),
    ],
)
def test_what_cannot_be_exported_is_one_line(models, tmp_path, capsys, flags, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    flags = [
        flag.format(
            full=tmp_path / "full",
            file=tmp_path / "full" / "file",
            pretrained=models("encoder"),
        )
        for flag in flags
    ]
    given = ["--model_dir=" + models("lcqmc"), "--output_dir={}".format(tmp_path / "o")]
    line = task_runs.refused(export_model, capsys, *(given + flags))
    assert message in line
    assert sorted(os.listdir(str(tmp_path))) == ["full"]


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("lcqmc", "d.tsv", "a\tb\t0\nb\tc\t2\n", "d.tsv:2: unknown label '2'"),
        ("lcqmc", "d.tsv", "a\tb\t2\nb\tc\t2\n", "d.tsv:1: unknown label '2'"),
        ("lcqmc", "d.tsv", "编号\t句子\t甲\n", "d.tsv:1: "),
        ("multi_label", "d.tsv", "a\t丁\n", "d.tsv:1: unknown label '丁'"),
        ("regression", "d.tsv", "a\tb\t1\nb\tc\tx\n", "d.tsv:2: label is 'x'"),
        ("regression", "d.tsv", "a\tb\t1\nb\tc\t1\n", "two different numbers"),
        ("ner-crf", "d.txt", "a B-ORG\n", "unknown type of entity 'ORG'"),
    ],
)
def test_what_is_wrong_with_a_dev_file(
    models, tmp_path, capsys, name, file, content, message
):
    (tmp_path / file).write_text(content, encoding="utf-8")
    flags = ["--model_dir=" + models(name), "--output_dir={}".format(tmp_path / "o")]
    flags += ["--format=frozen_graph", "--dev_file={}".format(tmp_path / file)]
    line = task_runs.refused(export_model, capsys, *flags)
    assert message in line
    # What it advises can be done with this command.
    flags = export_model.build_parser().flags
    assert flags.issuperset(re.findall(r"--\w+", line)), line


def test_a_wrong_export_is_refused_and_leaves_nothing(models, tmp_path, monkeypatch):
    held = formats.FORMATS["onnx"]

    def write(kind, weights, precision, directory):
        changed = dict(weights, output_weights=weights["output_weights"] * 1.01)
        held.write(kind, changed, precision, directory)

    monkeypatch.setitem(formats.FORMATS, "onnx", held._replace(write=write))
    with pytest.raises(UserError, match="differs from TensorFlow by .* nothing was"):
        export.export(models("lcqmc"), str(tmp_path / "x"), "onnx", "float32")
    assert not os.listdir(str(tmp_path))


def test_labels_that_agree_too_little_are_refused():
    found = verification.Verification(
        0.01, 1.0, 1.0, 8, agreement=0.985, dev_difference=0.1
    )
    with pytest.raises(UserError, match=r"agree on 98.50% of --dev_file, less than"):
        verification.check(found, "int8", "--model_dir=x")
    verification.check(found._replace(agreement=0.99), "int8", "--model_dir=x")
    nothing = found._replace(difference=float("nan"), agreement=None)
    with pytest.raises(UserError, match="differs"):
        verification.check(nothing, "int8", "--model_dir=x")


@pytest.mark.parametrize("name", ["vocab.txt", "labels.json", "model.onnx"])
def test_a_changed_file_is_refused(models, tmp_path, name):
    target = tmp_path / "onnx"
    export.export(models("single"), str(target), "onnx", "float32")
    content = (target / name).read_bytes()
    changes = {
        "vocab.txt": content.replace("上\n么\n".encode(), "么\n上\n".encode()),
        "labels.json": content.replace("正".encode(), "真".encode()),
        "model.onnx": content[:-1],
    }
    assert changes[name] != content
    (target / name).write_bytes(changes[name])
    with pytest.raises(UserError, match=name + ": changed since the export"):
        albert_zh.load(str(target), backend="onnx")


def test_what_is_no_export_is_refused_with_the_command(models, tmp_path):
    with pytest.raises(UserError, match="export_model.py --model_dir="):
        albert_zh.load(models("single"), backend="onnx")
    target = tmp_path / "saved"
    export.export(models("single"), str(target), "saved_model", "float32")
    with pytest.raises(UserError, match="exported as saved_model, expected onnx"):
        albert_zh.load(str(target), backend="onnx")
    with pytest.raises(UserError, match="exported as saved_model, expected onnx"):
        albert_zh.load(str(target))
    with pytest.raises(UserError, match='no checkpoint; backend="onnx" loads it if'):
        albert_zh.load(str(target), backend="tensorflow")


def test_the_encoder_of_an_export_with_a_head_is_refused(models, tmp_path):
    target = str(tmp_path / "onnx")
    export.export(models("single"), target, "onnx", "float32")
    message = "exported as classification, not as encoder; .* export_model.py --encoder"
    with pytest.raises(UserError, match=message):
        albert_zh.load(target, backend="onnx", encoder=True)
    target = str(tmp_path / "encoder")
    export.export(models("single"), target, "onnx", "float32", as_encoder=True)
    with albert_zh.load(models("single"), encoder=True) as expected:
        with albert_zh.load(target, backend="onnx") as found:
            assert is_close(found("天气"), expected("天气"), 1e-4)


def test_an_exported_encoder_keeps_its_tokenizers_settings(tmp_path):
    kind = export_models.build_kind(tmp_path, "albert_zh", "encoder")
    for settings in ((True, False), (False, True)):
        lower, marks = settings
        task_files = kind.files._replace(
            do_lower_case=lower, normalize_punctuation=marks
        )
        held = encoder.Encoder(task_files)
        target = tmp_path / "{}".format(lower)
        target.mkdir()
        export.copy_files(export.Source(str(tmp_path), "", held, {}, None), str(target))
        found = predictor.read_files(str(target))
        assert (found.do_lower_case, found.normalize_punctuation) == settings


@pytest.mark.parametrize(("format_name", "precision"), ALL_FORMATS)
def test_an_encoder_without_a_pooler(models, tmp_path, format_name, precision):
    source = tmp_path / "model"
    shutil.copytree(models("encoder"), str(source))
    prefix = str(source / "model.ckpt-1")
    tensors = checkpoints.read_tensors(prefix)
    kept = {name: value for name, value in tensors.items() if "/pooler/" not in name}
    assert len(kept) < len(tensors)
    checkpoints.write_tensors(kept, prefix)
    target = str(tmp_path / "export")
    report = export.export(str(source), target, format_name, precision)
    assert report.found.difference < (1e-5 if precision == "float32" else 1)


def test_the_target_may_be_the_current_directory(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export.export(models("lcqmc"), ".", "frozen_graph", "float32")
    assert (tmp_path / "export.json").exists()


def test_an_exported_encoder_fills_masks(models, tmp_path):
    target = str(tmp_path / "onnx")
    export.export(models("encoder"), target, "onnx", "float32")
    text = "今天[MASK]气[MASK]好"
    with albert_zh.load(models("encoder")) as expected:
        with albert_zh.load(target, backend="onnx") as found:
            assert is_close(found.fill_mask(text), expected.fill_mask(text), 1e-4)


def test_a_multi_label_models_threshold_is_exported(models, tmp_path):
    source = models("multi_label")
    path = os.path.join(source, model_directory.DECISION_FILE)
    with open(path, "w") as file:
        json.dump({"threshold": 0.25}, file)
    target = str(tmp_path / "onnx")
    export.export(source, target, "onnx", "float32")
    os.remove(path)
    with albert_zh.load(target, backend="onnx") as model:
        assert model.kind.threshold == 0.25
    assert exported.read(target, "onnx").head == "multi_label"
