"""The benchmark of real tasks: its commands are ones that the scripts take."""

import importlib
import pathlib

import pytest

from albert_zh.base.errors import UserError
from benchmarks import tasks


@pytest.mark.parametrize("name", tasks.ROWS)
def test_a_row_is_a_command_that_its_script_takes(name):
    script, *flags = tasks.command(name, pathlib.Path("DATA"), "MODEL")
    parser = importlib.import_module(script[: -len(".py")]).build_parser()
    args = parser.parse_args(flags + ["--output_dir=out"])
    assert args.do_train and args.do_eval and args.model_dir == "MODEL"


def test_scores_are_those_that_a_task_has():
    assert tasks.scores({"loss": 1.0, "f1": 0.25, "exact_match": 0.5}) == (
        "exact_match 0.5000, f1 0.2500"
    )
    assert tasks.scores({"f1": 0.25, "accuracy": 0.5}) == "accuracy 0.5000"
    assert tasks.scores({"f1": 0.25, "precision": 0.5}) == "f1 0.2500"
    assert tasks.scores({}) == ""


def test_an_unknown_row_is_named(tmp_path):
    flags = ["--data=.", "--model_dir=m", "--work={}".format(tmp_path / "w")]
    args = tasks.build_parser().parse_args(flags + ["--rows=c3,cmrc"])
    with pytest.raises(UserError, match="no row cmrc; expected some of cluener soft"):
        tasks.main(args)
