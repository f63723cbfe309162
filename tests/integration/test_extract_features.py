"""`extract_features.py`: BERT's form, vectors of lines, whitening, neighbours."""

import argparse
import json
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import albert_zh
import export_model
import extract_features
import modeling
from albert_zh.models import checkpoints
from albert_zh.training import numerics
from tests import served_models
from tests.task_runs import refused, run

LINES = ["今天天气很好", " 怎么开户 ||| 如何办理 ", "", "a", "北京上海" * 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with models, called encoder and lcqmc, and with lines.txt."""
    folder = tmp_path_factory.mktemp("features")
    for name in ("encoder", "lcqmc"):
        served_models.write_model(folder / name, name)
    (folder / "lines.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return folder


def extract(folder, *flags, model="encoder"):
    run(
        extract_features,
        "--model_dir={}".format(folder / model),
        "--input_file={}".format(folder / "lines.txt"),
        "--max_seq_length=16",
        *flags,
    )


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_form_and_the_numbers_are_those_of_berts_script(folder):
    path = folder / "out.jsonl"
    flags = "--layers=-1,0", "--batch_size=2", "--use_tpu=False"
    extract(folder, "--output_file={}".format(path), *flags)
    records = read(path)
    assert [record["linex_index"] for record in records] == [0, 1, 2, 3, 4]
    tokens = [[f["token"] for f in record["features"]] for record in records]
    assert tokens[0] == ["[CLS]", *LINES[0], "[SEP]"]
    assert tokens[1] == ["[CLS]", *"怎么开户", "[SEP]", *"如何办理", "[SEP]"]
    assert tokens[2] == ["[CLS]", "[SEP]"]
    assert len(tokens[4]) == 16
    layers = _layers(folder / "encoder", tokens[1], segments=[0] * 6 + [1] * 5)
    for place, number in ((0, -1), (1, 0)):
        held = [f["layers"][place] for f in records[1]["features"]]
        assert {layer["index"] for layer in held} == {number}
        values = [layer["values"] for layer in held]
        np.testing.assert_allclose(values, layers[number], atol=1e-5)


def _layers(directory, tokens, segments):
    config = modeling.AlbertConfig.from_json_file(str(directory / "albert_config.json"))
    ids = [served_models.WORDS.index(token) for token in tokens]
    with tf.Graph().as_default(), tf.Session() as session:
        model = modeling.AlbertModel(
            config, False, tf.constant([ids]), token_type_ids=tf.constant([segments])
        )
        checkpoint = str(directory / "model.ckpt-1")
        checkpoints.restore(checkpoint, tf.trainable_variables())
        session.run(tf.global_variables_initializer())
        return [layer[0] for layer in session.run(model.get_all_encoder_layers())]


@pytest.mark.parametrize("pooling", ["cls", "mean", "first_last_mean"])
def test_a_vector_for_each_line(pooling, folder):
    path = folder / (pooling + ".npy")
    flags = "--pooling={}".format(pooling), "--batch_size=1"
    extract(folder, *flags, "--output_file={}".format(path))
    found = np.load(str(path))
    assert found.shape == (5, 16) and found.dtype == np.float32
    lines = folder / (pooling + ".json")
    extract(folder, *flags, "--output_file={}".format(lines))
    values = [record["values"] for record in read(lines)]
    np.testing.assert_allclose(values, found, atol=1e-6)
    with albert_zh.load(str(folder / "encoder"), pooling=pooling) as predictor:
        expected = [predictor(t)["vector"] for t in (LINES[0], "a")]
        expected.append(predictor(("怎么开户", "如何办理"))["vector"])
    np.testing.assert_allclose(found[[0, 3, 1]], expected, atol=1e-6)


def test_flags_may_name_the_files(folder):
    named, found = folder / "named.npy", folder / "found.npy"
    flags = ["--pooling=mean", "--input_file={}".format(folder / "lines.txt")]
    run(
        extract_features,
        *flags,
        "--output_file={}".format(named),
        "--bert_config_file={}".format(folder / "encoder" / "albert_config.json"),
        "--vocab_file={}".format(folder / "encoder" / "vocab.txt"),
        "--init_checkpoint={}".format(folder / "encoder" / "model.ckpt-1"),
        "--max_seq_length=16",
    )
    extract(folder, "--pooling=mean", "--output_file={}".format(found))
    np.testing.assert_array_equal(np.load(str(named)), np.load(str(found)))


def test_an_exported_encoder_gives_the_same(folder):
    given = "--model_dir={}".format(folder / "encoder"), "--format=onnx"
    run(export_model, *given, "--output_dir={}".format(folder / "onnx"))
    for flags in (["--layers=-1,0"], ["--pooling=first_last_mean"]):
        records = []
        for model in ("encoder", "onnx"):
            path = folder / (model + ".jsonl")
            extract(folder, *flags, "--output_file={}".format(path), model=model)
            records.append(read(path))
        values = [list(_numbers(each)) for each in records]
        assert len(values[0]) > 50
        np.testing.assert_allclose(values[0], values[1], atol=1e-5)


def _numbers(value):
    """Yields the numbers in lists and dicts, in order."""
    if isinstance(value, (int, float)):
        yield value
    elif not isinstance(value, str):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def test_a_fine_tuned_model_has_vectors_too(folder):
    path = folder / "tuned.npy"
    extract(folder, "--pooling=mean", "--output_file={}".format(path), model="lcqmc")
    assert np.load(str(path)).shape == (5, 16)


def test_a_whitening_is_fitted_once_and_used_again(folder, capsys):
    first, second = folder / "first.npy", folder / "second.npy"
    whitening = "--whitening_file={}".format(folder / "w.npz")
    flags = "--pooling=mean", whitening, "--search", "天气", "--top_k=2"
    capsys.readouterr()
    fit = "--whiten", "--whiten_size=3", "--output_file={}".format(first)
    extract(folder, *flags, *fit)
    fitted = capsys.readouterr().out.splitlines()[0]
    extract(folder, *flags, "--output_file={}".format(second))
    assert capsys.readouterr().out.splitlines()[0] == fitted
    np.testing.assert_array_equal(np.load(str(first)), np.load(str(second)))
    assert np.load(str(first)).shape == (5, 3)


def test_the_nearest_line_to_a_line_is_itself(folder, capsys):
    capsys.readouterr()
    queries = "--search", LINES[0], "--search", "怎么开户 ||| 如何办理"
    extract(folder, "--pooling=mean", *queries, "--top_k=9")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["query"] == first["nearest"][0]["text"] == LINES[0]
    assert [second["nearest"][0]["line"], len(second["nearest"])] == [2, 5]
    assert abs(second["nearest"][0]["cosine"] - 1) < 1e-6
    cosines = [line["cosine"] for line in first["nearest"]]
    assert cosines == sorted(cosines, reverse=True)


def test_an_index_that_is_not_installed_is_told_first(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    flags = ["--model_dir=none", "--input_file=none", "--pooling=mean", "--search", "a"]
    line = refused(extract_features, capsys, *flags, "--index=hnswlib")
    assert "--index=hnswlib needs the package hnswlib: run `pip install" in line


def test_neighbours_that_an_index_misses_are_left_out(capsys, monkeypatch):
    class Index:
        def search(self, queries, number):
            return np.array([[1, -1]]), np.array([[0.5, -1e38]])

    monkeypatch.setattr(extract_features.vectors, "build_index", lambda *_: Index())
    args = argparse.Namespace(index="faiss", top_k=2)
    held = np.ones((2, 3), np.float32)
    capsys.readouterr()
    extract_features._show_nearest(args, ["q"], held[:1], ["a", "b"], held)
    expected = [{"line": 2, "text": "b", "cosine": 0.5}]
    assert json.loads(capsys.readouterr().out)["nearest"] == expected


@pytest.mark.parametrize(
    "flags, words",
    [
        ([], "nothing to do: give --output_file or --search"),
        (["--output_file=a.npy"], "give --pooling"),
        (["--output_file=a", "--whiten"], "--whiten requires --pooling"),
        (["--output_file=a", "--search", "a"], "--search requires --pooling"),
        (["--output_file=a", "--layers=-3"], "-3; the model has 2 layers, -2 to 1"),
        (["--output_file=a", "--layers=x"], "--layers: expected integers such as"),
        (["--output_file=a", "--pooling=cls", "--layers=1"], "--layers: --pooling has"),
        (["--output_file=a", "--pooling=cls", "--top_k=1"], "--top_k requires"),
        (["--output_file=a", "--max_seq_length=65"], "max_position_embeddings 64"),
        (["--output_file=a", "--max_seq_length=4"], "--max_seq_length=4: expected at"),
        (["--output_file=a", "--use_tpu=True"], "--use_tpu: no vectors are computed"),
        (["--pooling=cls", "--search", ""], "--search: a text is empty"),
        (
            ["--pooling=cls", "--whiten", "--whiten_size=5", "--search", "a"],
            "--whiten_size=5: expected at most 4",
        ),
        (
            ["--pooling=cls", "--whitening_file=none.npz", "--output_file=a"],
            "none.npz",
        ),
    ],
)
def test_flags_that_cannot_be(flags, words, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(
        extract_features,
        capsys,
        "--model_dir={}".format(folder / "encoder"),
        "--input_file={}".format(folder / "lines.txt"),
        *flags,
    )
    assert words in line
    assert not list(tmp_path.iterdir())


def test_lines_joined_by_carriage_returns_are_refused(folder, tmp_path, capsys):
    """They would have one vector, and those after them another line's number."""
    path = tmp_path / "lines.txt"
    path.write_bytes("甲\r\n\r\n乙\r丙\n".encode())
    flags = ["--model_dir={}".format(folder / "encoder"), "--pooling=cls"]
    flags += ["--input_file={}".format(path), "--search", "甲"]
    assert "lines.txt:3: a carriage return within" in refused(
        extract_features, capsys, *flags
    )


@pytest.mark.parametrize(
    "flags", [["--output_file"], ["--output_file=a", "--whiten", "--whitening_file"]]
)
def test_a_file_that_cannot_be_written_wastes_no_work(
    flags, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(extract_features.extraction, "pooled_vectors")
    line = refused(
        extract_features,
        capsys,
        "--model_dir={}".format(folder / "encoder"),
        "--input_file={}".format(folder / "lines.txt"),
        "--pooling=mean",
        *flags[:-1],
        "{}={}".format(flags[-1], tmp_path / "none" / "a.npz"),
    )
    assert "cannot write" in line and "a.npz" in line
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_pooler_and_with_other_names(folder):
    """Vectors of tokens need no pooler; the norms are named as by TensorFlow 2."""
    given, other = folder / "encoder", folder / "other"
    tensors = checkpoints.read_tensors(str(given / "model.ckpt-1"))
    renamed = {
        name.replace("/LayerNorm/", "/layer_normalization_3/"): value
        for name, value in tensors.items()
        if "/pooler/" not in name
    }
    assert any("layer_normalization" in name for name in renamed)
    assert len(renamed) < len(tensors)
    other.mkdir()
    for name in ("albert_config.json", "vocab.txt"):
        (other / name).write_bytes((given / name).read_bytes())
    checkpoints.write_tensors(renamed, str(other / "model.ckpt-1"))
    found = []
    for model in ("encoder", "other"):
        path = folder / (model + "_vectors.npy")
        extract(folder, "--pooling=mean", "--output_file=" + str(path), model=model)
        found.append(np.load(str(path)))
    np.testing.assert_array_equal(*found)


def test_a_long_query_is_cut_and_said(folder, caplog):
    extract(folder, "--pooling=mean", "--search", "天" * 30, "--top_k=1")
    assert "--search: 1 of 1 texts cut to 16 tokens" in caplog.text


def test_vectors_are_float32_on_every_processor(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    found = []
    for flags in ("sse", "amx_bf16"):
        processor = tmp_path / flags
        processor.write_text("flags : {}\n".format(flags))
        monkeypatch.setattr(numerics, "_PROCESSOR_FILE", str(processor))
        path = tmp_path / (flags + ".npy")
        extract(folder, "--pooling=mean", "--output_file=" + str(path))
        found.append(np.load(str(path)))
    np.testing.assert_array_equal(*found)


def test_no_input_is_overwritten(folder, capsys):
    for path in (folder / "lines.txt", folder / "encoder" / "vocab.txt"):
        line = refused(
            extract_features,
            capsys,
            "--model_dir={}".format(folder / "encoder"),
            "--input_file={}".format(folder / "lines.txt"),
            "--output_file={}".format(path),
        )
        assert "is the input file" in line
