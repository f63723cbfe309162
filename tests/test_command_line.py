"""Flags that every command takes the same way, and interpreters without packages."""

import argparse
import importlib
import os
import pickle
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import create_pretraining_data
import run_classifier
import run_multiple_choice
import run_ner
import run_pretraining
import run_squad
from albert_zh import command_line, flags, task_command
from albert_zh.base.errors import UserError

COMMANDS = [
    "build_vocab",
    "convert_checkpoint",
    "create_pretraining_data",
    "download_model",
    "inspect_checkpoint",
    "launch_workers",
    "plot_training",
    "run_classifier",
    "run_clue",
    "run_demo",
    "run_pretraining",
]


def _bare_python(repository, script, *arguments):
    """Runs a command in an interpreter that finds no installed package."""
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-S", str(repository / script)] + list(arguments),
        capture_output=True,
        encoding="utf-8",
        env=environment,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bare_interpreter_is_one_line(repository, command):
    done = _bare_python(repository, command + ".py", "--help")
    if command == "launch_workers":
        assert done.returncode == 0 and "usage:" in done.stdout
        return
    assert done.returncode == command_line.EXIT_USER_ERROR
    lines = done.stderr.strip().split("\n")
    assert len(lines) == 1
    assert lines[0].startswith("{}.py: error: Python ".format(command))
    assert "pip install -r requirements.txt" in lines[0]


def test_downloads_and_workers_need_no_tensorflow(repository):
    script = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import download_model, launch_workers, build_vocab\n"
        "download_model.build_parser(); launch_workers.build_parser()"
    )
    command = [sys.executable, "-c", script]
    assert subprocess.call(command, cwd=str(repository)) == 0


def _without(modules, script, repository):
    """Runs a script in a process that cannot import some modules."""
    blocked = "import sys; sys.modules.update(dict.fromkeys({!r}))\n".format(modules)
    return subprocess.run(
        [sys.executable, "-c", blocked + script],
        capture_output=True,
        encoding="utf-8",
        cwd=str(repository),
    )


@pytest.mark.parametrize("name", ["predict", "extract_features"])
def test_a_prediction_of_an_onnx_export_needs_few_packages(name, repository):
    """The documents tell to install onnxruntime and jsonschema, which brings NumPy."""
    others = "tensorflow six jieba sentencepiece tqdm requests tokenizers safetensors"
    blocked = others.split() + ["google", "google_crc32c", "onnx"]
    script = (
        "import {0}; {0}.build_parser()\n".format(name)
        + "from albert_zh.serving import onnx_backend, predictor"
    )
    done = _without(blocked, script, repository)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_package_that_is_missing_is_named_with_its_command(repository):
    done = _without(["jsonschema"], "import predict", repository)
    assert done.returncode == command_line.EXIT_USER_ERROR
    assert "has no jsonschema; run `pip install jsonschema`" in done.stderr
    assert len(done.stderr.strip().split("\n")) == 1
    # The newest TensorFlow is not the one to install.
    script = "from albert_zh import command_line; import tensorflow"
    done = _without(["tensorflow"], script, repository)
    assert "has no tensorflow; run `pip install -r requirements.txt`" in done.stderr
    assert "pip install tensorflow" not in done.stderr


def _parser():
    parser = command_line.ArgumentParser("a command")
    parser.add_argument("--size", type=command_line.positive_int, default=3)
    parser.add_argument("--text", action="append", default=[])
    parser.add_bool("--do_train", False, "train")
    parser.add_bool("--do_eval", False, "evaluate")
    parser.add_argument("--kind", choices=("a", "b"), default="a")
    return parser


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        ([], set()),
        (["--size=3"], {"size"}),
        (["--text", "a", "--text", "b", "--do_train"], {"text", "do_train"}),
        (["--do_train=false"], {"do_train"}),
    ],
)
def test_a_parser_knows_what_was_given(argv, given):
    parser = _parser()
    for _ in range(2):  # the second time, defaults must be there still
        args = parser.parse_args(argv)
        assert args.given == given
        assert args.size == 3 and args.kind == "a"


READERS = {"do_train": ("size", "text"), "do_eval": ("text",), "kind=b": ("do_eval",)}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--size=3"], "--size requires --do_train; add it or remove --size"),
        (["--size=3", "--do_train=false"], "--size requires --do_train"),
        (["--text=a"], "--text requires --do_train or --do_eval"),
        (["--do_eval", "--text=a"], "--do_eval requires --kind=b"),
    ],
)
def test_a_flag_that_nobody_reads_is_refused(argv, message):
    with pytest.raises(UserError, match=message):
        flags.check_read(_parser().parse_args(argv), READERS)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--do_train", "--size=3", "--text=a"],
        ["--do_eval", "--text=a", "--kind=b"],
        ["--kind=b"],
    ],
)
def test_a_flag_that_a_mode_reads_is_taken(argv):
    assert flags.check_read(_parser().parse_args(argv), READERS) is None


TABLES = {
    create_pretraining_data: create_pretraining_data._READERS,
    run_pretraining: run_pretraining._READERS,
}
TABLES.update(
    (command, task_command.readers_of(command.COMMAND))
    for command in (run_classifier, run_multiple_choice, run_ner, run_squad)
)


@pytest.mark.parametrize("command", TABLES, ids=lambda command: command.__name__)
def test_every_flag_and_mode_of_a_table_exists(command):
    known = {action.dest for action in command.build_parser()._actions}
    for mode, names in TABLES[command].items():
        assert mode.split("=")[0] in known
        assert set(names) <= known
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "command", [run_classifier, run_multiple_choice, run_ner, run_squad]
)
def test_flags_that_are_not_passed_on_or_do_not_decide_exist(command):
    known = {action.dest for action in command.build_parser()._actions}
    assert known.issuperset(task_command._OF_ONE_TASK)
    assert known.issuperset(task_command._OF_ONE_RUN)


def test_flags_after_two_dashes_are_passed_on():
    parser = command_line.ArgumentParser("test")
    parser.add_argument("--a")
    assert parser.parse_args(["--a=1"]).a == "1"
    with pytest.raises(SystemExit):
        parser.parse_args(["--a=1", "--", "--b"])
    parser.add_passed_on("others", "for others")
    assert parser.parse_args(["--a=1"]).others == []
    args = parser.parse_args(["--a=1", "--", "--a=2", "--", "c"])
    assert (args.a, args.others) == ("1", ["--a=2", "--", "c"])
    assert args.given == {"a"}
    assert "-- FLAG ...: for others" in parser.format_help()


FLOAT32 = np.finfo(np.float32)


@hypothesis.given(st.floats())
@hypothesis.example(float("inf"))
@hypothesis.example(float("nan"))
@hypothesis.example(1e39)
@hypothesis.example(-1e39)
@hypothesis.example(float(FLOAT32.max))
@hypothesis.example(float(FLOAT32.tiny))
@hypothesis.example(1e-46)
@hypothesis.example(0.0)
def test_numbers_are_those_that_float32_holds(value):
    text = repr(value)
    for kind, least in (
        (command_line.positive_number, FLOAT32.tiny),
        (command_line.non_negative_number, 0),
        (command_line.finite_number, -FLOAT32.max),
    ):
        if least <= value <= FLOAT32.max:
            assert kind(text) == value
        else:
            with pytest.raises(
                argparse.ArgumentTypeError, match="up to 3.4e38 .float32.*, rec"
            ):
                kind(text)


@hypothesis.given(st.floats())
def test_factors_are_between_their_bounds(value):
    factor, text = command_line.number_between(0.5, 4), repr(value)
    if 0.5 <= value <= 4:
        assert factor(text) == value
    else:
        with pytest.raises(argparse.ArgumentTypeError, match="expected 0.5 to 4, rec"):
            factor(text)


@hypothesis.given(st.floats())
def test_shares_are_below_one(value):
    text = repr(value)
    if 0 <= value < 1:
        assert command_line.share(text) == value
    else:
        with pytest.raises(argparse.ArgumentTypeError, match="0 to below 1"):
            command_line.share(text)


@hypothesis.given(st.integers())
def test_integers_fit_32_bits(value):
    for kind, least in (
        (command_line.positive_int, 1),
        (command_line.non_negative_int, 0),
    ):
        if least <= value < 2**31:
            assert kind(str(value)) == value
        else:
            with pytest.raises(argparse.ArgumentTypeError, match="expected"):
                kind(str(value))


@pytest.mark.parametrize(
    "statement, exit_code, words",
    [
        ("import missing_package.inner", 2, "has no missing_package;"),
        # As Ctrl-C does while a command imports TensorFlow.
        ("raise KeyboardInterrupt", 130, "command.py: interrupted"),
    ],
)
def test_what_ends_an_import_ends_a_command_in_one_line(
    tmp_path, repository, statement, exit_code, words
):
    script = tmp_path / "command.py"
    script.write_text("from albert_zh import command_line\n" + statement)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=dict(os.environ, PYTHONPATH=str(repository)),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == exit_code
    assert done.stderr.count("\n") == 1 and words in done.stderr


def test_a_path_that_tensorflow_does_not_take_is_one_line(capsys):
    parser = command_line.ArgumentParser("a command")
    parser.add_argument("--output_dir")

    def main(args):
        args.output_dir.encode("utf-8")

    with pytest.raises(SystemExit):
        command_line.run(main, parser, ["--output_dir=/tmp/\udcff"])
    assert "error: '/tmp/\\udcff' is not UTF-8; rename it" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(tmp_path, repository):
    script = tmp_path / "command.py"
    script.write_text("from albert_zh import command_line\nraise KeyError('mine')\n")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=dict(os.environ, PYTHONPATH=str(repository)),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "KeyError: 'mine'" in done.stderr


@pytest.mark.parametrize(
    "command, flags, name",
    [
        (
            "export_model",
            ["--model_dir=a", "--output_dir=b", "--dev_file="],
            "dev_file",
        ),
        ("extract_features", ["--whitening_file="], "whitening_file"),
        ("serve", ["--host="], "host"),
        ("download_model", ["--base_url="], "base_url"),
        ("plot_training", ["--run_dir=a", "--output_file="], "output_file"),
    ],
)
def test_a_flag_of_an_unset_variable_is_refused(command, flags, name, capsys):
    module = importlib.import_module(command)
    required = {
        "export_model": ["--model_dir=a", "--output_dir=b", "--format=onnx"],
        "extract_features": ["--input_file=a", "--model_dir=b"],
        "serve": ["--model_dir=a"],
        "download_model": ["albert_tiny_zh"],
    }
    argv = flags + required.get(command, [])
    with pytest.raises(SystemExit) as ended:
        command_line.run(module.main, module.build_parser(), argv)
    assert ended.value.code == 2
    assert "--{}: expected a value".format(name) in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--input_file=a,file:///b"], "--input_file: file:///b: give local paths"),
        (["--input_file=a", "--output_file=file://b"], "--output_file: file://b: "),
        (["--input_file="], "--input_file: expected a value"),
        (["--input_file=a", "--output_file="], "--output_file: expected a value"),
    ],
)
def test_paths_are_neither_empty_nor_local_files_in_disguise(argv, words, capsys):
    parser = command_line.ArgumentParser("test")
    parser.add_argument("--input_file", required=True)
    parser.add_argument("--output_file")
    parser.add_argument("--text", action="append")
    with pytest.raises(SystemExit):
        parser.parse_args(argv)
    assert words in capsys.readouterr().err
    right = ["--input_file=a,gs://b", "--output_file=c", "--text=file://d", "--text="]
    assert parser.parse_args(right).text == ["file://d", ""]


@pytest.mark.parametrize("advice", ["; give --text", "; give --text or --texts", ""])
def test_advice_names_flags_of_the_command(capsys, advice):
    parser = command_line.ArgumentParser("...")
    parser.add_argument("--text")

    def main(args):
        raise pickle.loads(pickle.dumps(UserError("no text", advice)))

    with pytest.raises(SystemExit):
        command_line.run(main, parser, [])
    kept = "" if "--texts" in advice else advice
    assert capsys.readouterr().err.endswith("error: no text" + kept + "\n")
    assert str(UserError("no text", advice)) == "no text" + advice
