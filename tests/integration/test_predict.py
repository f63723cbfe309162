"""`predict.py`: answers as JSON lines, of flags, files and standard input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import predict
from tests import served_models
from tests.task_runs import refused, run


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Dict name -> model directory."""
    folder = tmp_path_factory.mktemp("models")
    names = "lcqmc", "single", "multiple_choice", "ner-crf", "encoder"
    return {name: served_models.write_model(folder / name, name) for name in names}


def answers(capsys, *flags):
    """What the command writes, parsed."""
    capsys.readouterr()
    run(predict, *flags)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_texts_of_flags(directories, capsys):
    flags = "--text_pair", "-今天", "天气", "--text_pair", "a", "b"
    found = answers(capsys, "--model_dir", directories["lcqmc"], *flags)
    assert [list(answer) for answer in found] == [["label", "probabilities"]] * 2
    (found,) = answers(capsys, "--model_dir", directories["single"], "--text", "--今")
    assert abs(sum(found["probabilities"].values()) - 1) < 1e-6


def test_vectors_and_words_of_a_pretrained_model(directories, capsys):
    flags = "--model_dir", directories["encoder"]
    vectors = [
        answers(capsys, *flags, "--text", "今天", "--pooling", pooling)[0]["vector"]
        for pooling in ("cls", "mean")
    ]
    assert np.shape(vectors) == (2, 16)
    assert vectors[0] != vectors[1]
    (found,) = answers(capsys, *flags, "--fill_mask", "今[MASK]天[MASK]", "--top_k=2")
    assert [len(words) for words in found["masks"]] == [2, 2]


@pytest.mark.parametrize(
    "name, flags, words",
    [
        ("lcqmc", ["--text", "a"], "give --text_pair A B"),
        ("single", ["--text_pair", "a", "b"], "give --text A"),
        ("multiple_choice", ["--text", "a"], "with --input_file or on standard input"),
        ("single", ["--text", ""], "--text: a text is empty"),
        ("single", ["--text", "天" * 40], "or give --truncate to cut it"),
        ("single", ["--text", "a", "--input_file=x"], "--text and --input_file"),
        ("single", ["--text", "a", "--pooling=cls"], "pooling='cls': "),
        ("ner-crf", ["--text", "a", "--truncate"], "--truncate: "),
        ("single", ["--text", "a", "--top_k=2"], "--top_k requires --fill_mask"),
        ("single", ["--fill_mask", "[MASK]"], "no masked language model"),
        ("encoder", ["--fill_mask", "a"], "no [MASK]"),
        ("encoder", ["--fill_mask", "[MASK]", "--truncate"], "--truncate: has no"),
        ("encoder", ["--fill_mask", "[MASK]", "--pooling=cls"], "--pooling: has no"),
        ("single", ["--input_file=none.tsv"], "--input_file=none.tsv: no such file"),
        ("single", ["--input_file="], "--input_file: expected a value"),
    ],
)
def test_flags_that_have_no_answer(name, flags, words, directories, capsys):
    line = refused(predict, capsys, "--model_dir", directories[name], *flags)
    assert words in line


@pytest.mark.parametrize(
    "content, words",
    [
        ("a\tb\tx\nb\tc\ty\n", "column 3 should be the label, but 'x'"),
        ("text_a\t编号\t来源\tlabel\n", "no text_b among the columns"),
        ("text_a\ttext_b\ttext_b\n", "2 and 3 are called 'text_b'"),
    ],
)
def test_what_is_wrong_with_a_file(content, words, directories, tmp_path, capsys):
    (tmp_path / "rows.tsv").write_text(content, encoding="utf-8")
    flags = "--model_dir", directories["lcqmc"], "--input_file", tmp_path / "rows.tsv"
    line = refused(predict, capsys, *flags)
    assert words in line
    # What it advises can be done with this command.
    assert "--" not in line


def _command(directory, *flags):
    script = os.path.join(os.path.dirname(served_models.__file__), "..", "predict.py")
    return [sys.executable, script, "--model_dir", directory, *flags]


def test_standard_input_in_any_locale(directories):
    """Non-ASCII answers are escaped where the locale has no such characters."""
    lines = "".join(json.dumps(text) + "\n" for text in ("今天", "天气", "好"))
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            _command(directories["single"]),
            input=lines.encode(),
            stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONIOENCODING=encoding),
            check=True,
        )
        found = [json.loads(line) for line in done.stdout.decode(encoding).splitlines()]
        assert [answer["label"] in "正负中" for answer in found] == [True] * 3


def test_a_closed_standard_input_is_one_line(directories):
    done = subprocess.run(
        _command(directories["single"]),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.close(0),
    )
    assert done.returncode == 2
    assert b"standard input is closed" in done.stderr.splitlines()[-1]


def test_nobody_reads_any_more(directories):
    """A reader such as `head` may end first: no traceback, and no more work."""
    process = subprocess.Popen(
        _command(directories["single"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(b'"a"\n')
    process.stdin.flush()
    assert process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b'"a"\n')
    process.stdin.flush()
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.stdin.close()
