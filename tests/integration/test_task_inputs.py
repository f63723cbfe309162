"""`run_classifier.py` given what people give it: labels, texts, directories, files."""

import functools
import json
import os
import re
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_classifier
from albert_zh import command_line
from albert_zh.models import checkpoints
from albert_zh.tasks import model_files
from albert_zh.tasks.registry import get_task

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
    ),
]

CHARACTERS = "天地人山水火土金木石日月星云风雨花草鸟鱼好坏"
CONFIG = {
    "vocab_size": 5 + len(CHARACTERS),
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "ln_type": "postln",
}
# A comma, a quotation mark; both texts of a class begin alike.
LABELS = ("a,b", 'c"d')


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Directory of vocab.txt, config.json, train.tsv and dev.tsv."""
    directory = tmp_path_factory.mktemp("project")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    text = "\n".join(specials + list(CHARACTERS))
    (directory / "vocab.txt").write_bytes(text.encode("utf-8"))
    (directory / "config.json").write_text(json.dumps(CONFIG))
    rows = [
        "{}{}\t{}\n".format("好坏"[i % 2], c, LABELS[i % 2])
        for i, c in enumerate(CHARACTERS[:20])
    ]
    (directory / "train.tsv").write_bytes("".join(rows).encode("utf-8"))
    (directory / "dev.tsv").write_bytes("".join(rows[:8]).encode("utf-8"))
    return directory


run = functools.partial(task_runs.run, run_classifier)
refused = functools.partial(task_runs.refused, run_classifier)


def training_flags(project, output_dir, *flags):
    return [
        "--task_name=single",
        "--do_train",
        "--vocab_file={}".format(project / "vocab.txt"),
        "--bert_config_file={}".format(project / "config.json"),
        "--train_file={}".format(project / "train.tsv"),
        "--dev_file={}".format(project / "dev.tsv"),
        "--max_seq_length=8",
        "--train_batch_size=10",
        "--num_train_epochs=2",
        "--output_dir={}".format(output_dir),
    ] + list(flags)


@pytest.fixture(scope="module")
def trained(project):
    output_dir = project / "trained"
    run(*training_flags(project, output_dir, "--do_eval"))
    return output_dir


def test_labels_with_commas_can_be_given(project, trained, tmp_path, capsys):
    saved = json.loads((trained / "labels.json").read_text("utf-8"))
    assert tuple(saved["labels"]) == LABELS
    flags = ["--model_dir", trained, "--text", "好天"]
    run("--task_name=single", '--labels="a,b","c""d"', *flags)
    output = capsys.readouterr().out
    assert output.startswith(("a,b  0.", 'c"d  0.'))
    for labels in ("a,b", 'a,b,c"d', '"c""d","a,b"'):
        line = refused(capsys, "--task_name=single", "--labels", labels, *flags)
        assert "holds a different model: its labels is " in line


def test_a_text_may_begin_with_a_minus_sign(trained, capsys):
    texts = ["-5度冷吗", "--天", "-", "--no-such"]
    flags = [flag for text in texts for flag in ("--text", text)]
    run("--model_dir", trained, *flags, "--predict_batch_size", "2")
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[2] for line in shown[:-1]] == texts
    line = refused(
        capsys, "--model_dir", trained, "--text", "--predict_batch_size", "2"
    )
    assert "--text: expected 1 argument" in line


def test_a_model_directory_knows_its_task(trained, project, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(str(trained / "best"), str(moved))
    for flags in (["--model_dir", moved], ["--output_dir", moved]):
        run(*flags, "--text", "好天")
        assert "天" in capsys.readouterr().out
    line = refused(capsys, "--text", "好", "--model_dir", project)
    assert "--task_name is missing" in line
    line = refused(capsys, "--model_dir", moved, "--do_eval", "--dev_file=x.tsv")
    assert "--output_dir is missing" in line


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_model_directory_that_cannot_be_written_to_serves(
    trained, project, tmp_path, monkeypatch, capsys
):
    moved = tmp_path / "moved"
    shutil.copytree(str(trained / "best"), str(moved))
    before = {p.name: p.stat().st_mtime_ns for p in moved.iterdir()}
    for path in [*moved.iterdir(), moved]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    run("--output_dir", moved, "--text", "好天")
    results = tmp_path / "results"
    run(
        "--model_dir",
        moved,
        "--output_dir",
        results,
        "--do_predict",
        "--predict_file",
        project / "dev.tsv",
    )
    assert len((results / "predictions.tsv").read_text("utf-8").splitlines()) == 8
    # The superuser may write all the same: nothing must have been.
    assert before == {p.name: p.stat().st_mtime_ns for p in moved.iterdir()}


def test_a_changed_dev_file_does_not_resume(project, tmp_path, capsys):
    output_dir, dev = tmp_path / "out", tmp_path / "dev.tsv"
    flags = training_flags(project, output_dir)
    shutil.copy(str(project / "dev.tsv"), str(dev))
    run(*flags, "--dev_file", dev)  # the last one counts
    copy = tmp_path / "copy.tsv"
    dev.rename(copy)
    run(*flags, "--dev_file", copy)  # same content
    content = copy.read_bytes().split(b"\n", 1)[1]
    dev.write_bytes(content)
    line = refused(capsys, *flags, "--dev_file", dev)
    assert "another --dev_file: it began with 8 examples" in line
    # As the message says.
    run("--do_eval", "--dev_file", dev, "--output_dir", output_dir)
    results = json.loads((output_dir / "eval_results.json").read_text("utf-8"))
    assert results["dev"]["num_examples"] == 7
    # A training of an earlier version has no note of it.
    settings = json.loads((output_dir / "training.json").read_text("utf-8"))
    del settings["--dev_file"]
    (output_dir / "training.json").write_text(json.dumps(settings))
    run(*flags, "--dev_file", dev)
    assert "another --dev_file" in refused(capsys, *flags, "--dev_file", copy)


def test_a_project_can_be_moved(project, trained, tmp_path, caplog):
    """What a training began with is known by content, not by path."""
    before = tmp_path / "before"
    before.mkdir()
    shutil.copytree(str(trained / "best"), str(before / "model"))
    for name in ("train.tsv", "dev.tsv"):
        shutil.copy(str(project / name), str(before / name))

    def flags(root):
        return [
            "--task_name=single",
            "--do_train",
            "--model_dir={}".format(root / "model"),
            "--train_file={}".format(root / "train.tsv"),
            "--dev_file={}".format(root / "dev.tsv"),
            "--max_seq_length=8",
            "--num_train_epochs=1",
            "--output_dir={}".format(root / "out"),
        ]

    run(*flags(before))
    settings = (before / "out" / "training.json").read_text("utf-8")
    assert str(tmp_path) not in settings
    before.rename(tmp_path / "after")
    with caplog.at_level("INFO"):
        run(*flags(tmp_path / "after"))
    assert "training is complete" in caplog.text
    # Earlier versions noted the path.
    settings = json.loads(settings)
    best = tf.train.latest_checkpoint(str(tmp_path / "after" / "model"))
    settings["--init_checkpoint"] = best
    (tmp_path / "after" / "out" / "training.json").write_text(json.dumps(settings))
    run(*flags(tmp_path / "after"))


def test_a_head_of_single_texts_is_none_of_pairs(trained, caplog):
    given = model_files.load(str(trained / "best"))
    checkpoint = tf.train.latest_checkpoint(str(trained / "best"))
    assert model_files.has_head_of(checkpoint, given)
    pair = given._replace(task=get_task("pair"))
    with caplog.at_level("INFO"):
        assert not model_files.has_head_of(checkpoint, pair)
    assert "is a model for single: its head starts anew for pair" in caplog.text


@pytest.mark.parametrize("labels, is_kept", [(LABELS, True), (LABELS[::-1], False)])
def test_a_head_of_other_labels_starts_anew(
    project, trained, tmp_path, caplog, labels, is_kept
):
    best = tf.train.latest_checkpoint(str(trained / "best"))
    flags = training_flags(project, tmp_path, "--init_checkpoint", best)
    given = command_line.name_lists.join(labels)
    with caplog.at_level("INFO"):
        run(*flags, "--learning_rate=1e-9", "--labels", given)
    assert ("its head starts anew" in caplog.text) != is_kept
    after = checkpoints.read_tensors(tf.train.latest_checkpoint(str(tmp_path)))
    before = checkpoints.read_tensors(best)
    name = "bert/embeddings/word_embeddings"
    np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    same = np.allclose(after["output_weights"], before["output_weights"], atol=1e-6)
    assert same == is_kept


def test_another_vocabulary_of_the_same_size_is_refused(
    project, trained, tmp_path, capsys
):
    tokens = (project / "vocab.txt").read_text("utf-8").split("\n")
    tokens[6], tokens[7] = tokens[7], tokens[6]
    vocab = tmp_path / "vocab.txt"
    vocab.write_bytes("\n".join(tokens).encode("utf-8"))
    best = tf.train.latest_checkpoint(str(trained / "best"))
    flags = training_flags(project, tmp_path / "out", "--init_checkpoint", best)
    line = refused(capsys, *flags, "--vocab_file", vocab)
    assert "vocab.txt:7: '人'" in line and "beside the checkpoint, has '地'" in line


def test_another_casing_than_the_models_is_said(project, trained, tmp_path, caplog):
    flags = training_flags(project, tmp_path, "--model_dir", trained / "best")
    run(*flags[:2], *flags[4:], "--do_lower_case=false")
    assert "but the model was trained with True" in caplog.text


def test_a_scored_dev_file_is_not_scored_again(project, tmp_path, caplog):
    with caplog.at_level("INFO"):
        run(*training_flags(project, tmp_path, "--do_eval"))
    assert len(re.findall("dev: 8 examples", caplog.text)) == 1
    results = [
        json.loads((directory / "eval_results.json").read_text("utf-8"))["dev"]
        for directory in (tmp_path, tmp_path / "best")
    ]
    assert results[0] == results[1]


def test_columns_of_any_name(project, trained, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes('编号,正文,类\n1,好天,"a,b"\n2,坏地,"c""d"\n'.encode())
    run(
        "--model_dir",
        trained,
        "--output_dir",
        tmp_path,
        "--do_predict",
        "--do_eval",
        "--predict_file",
        path,
        "--dev_file",
        path,
        "--text_a_column=正文",
        "--label_column=类",
    )
    lines = (tmp_path / "predictions.tsv").read_text("utf-8").splitlines()
    assert lines[0] == 'label\ta,b\tc"d' and len(lines) == 3
    results = json.loads((tmp_path / "eval_results.json").read_text("utf-8"))
    assert results["dev"]["num_examples"] == 2


def call(repository, directory, *flags, **environment):
    """A process of the command in an encoding that has no Chinese characters."""
    return subprocess.run(
        [sys.executable, str(repository / "run_classifier.py"), *map(str, flags)],
        cwd=str(directory),
        env=dict(os.environ, PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", **environment),
        capture_output=True,
        timeout=600,
    )


def test_no_encoding_loses_a_verdict(repository, trained, tmp_path):
    help_text = call(repository, tmp_path, "--help", LC_ALL="C")
    assert help_text.returncode == 0 and b"--text_a_column" in help_text.stdout
    flags = "--model_dir", trained, "--text", "好天"
    for environment in (
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C.UTF-8"},
        {"PYTHONIOENCODING": "gbk:strict", "LC_ALL": "C.UTF-8"},
    ):
        result = call(repository, tmp_path, *flags, **environment)
        assert result.returncode == 0, result.stderr
        assert re.match(rb"(a,b|c\"d)  \d\.\d{4}  ", result.stdout)
        assert b"Traceback" not in result.stderr


_PREDICT = """
import resource, sys
import run_classifier
from albert_zh import command_line
command_line.run(run_classifier.main, run_classifier.build_parser(), sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_rows_predicted(repository, trained, tmp_path):
    """1,500 bytes a row, were all examples kept: 150 MB more."""

    def peak_kilobytes(num_rows):
        (tmp_path / "x.tsv").write_bytes("好天\n坏地\n".encode() * (num_rows // 2))
        flags = "--model_dir", trained, "--output_dir", tmp_path, "--do_predict"
        result = subprocess.run(
            [
                sys.executable,
                "-c",
                _PREDICT,
                *map(str, flags),
                "--predict_file=x.tsv",
                "--predict_batch_size=1000",
            ],
            cwd=str(tmp_path),
            env=dict(os.environ, PYTHONPATH=str(repository), PYTHONIOENCODING="utf-8"),
            capture_output=True,
            encoding="utf-8",
            timeout=600,
        )
        assert result.returncode == 0, result.stderr
        lines = (tmp_path / "predictions.tsv").read_text("utf-8").splitlines()
        assert len(lines) == num_rows and lines[0::2] == [lines[0]] * (num_rows // 2)
        return int(result.stdout.rsplit("peak", 1)[1])

    # Among 10,000 rows is the bound on what is in memory.
    assert peak_kilobytes(100000) < peak_kilobytes(1000) + 60 * 1024
