"""The benchmark of real tasks: its commands are ones that the scripts take."""

import importlib
import json
import pathlib
import shutil

import pytest

from albert_zh.base.errors import UserError
from benchmarks import rows, tasks

MODEL = rows.REPOSITORY / "resources" / "albert_tiny_open"


@pytest.mark.parametrize("start", tasks.STARTS)
@pytest.mark.parametrize("name", tasks.ROWS)
def test_a_row_is_a_command_that_its_script_takes(name, start):
    model = tasks.model_flags(str(MODEL), start, "MODEL")
    script, *flags = tasks.command(name, pathlib.Path("DATA"), model)
    parser = importlib.import_module(script[: -len(".py")]).build_parser()
    args = parser.parse_args(flags + ["--output_dir=out", "--num_trials=2"])
    assert args.do_train and args.do_eval
    expected = ("MODEL", None) if start == "model" else (None, "MODEL/vocab.txt")
    assert (args.model_dir, args.vocab_file) == expected


def test_trials_are_not_asked_of_a_row_without_a_dev_file(tmp_path):
    """Nor is a flag given that the command would refuse."""
    for _, path in tasks.ROWS["cmrc2018"].files:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    flags = ["--data={}".format(tmp_path), "--work={}".format(tmp_path / "work")]
    flags += ["--model_dir={}".format(MODEL), "--rows=cmrc2018"]
    args = tasks.build_parser().parse_args(flags)
    line = tasks.fine_tuning(args, "cmrc2018", "model").command
    assert not [flag for flag in line if flag.startswith("--num_trials")]
    args = tasks.build_parser().parse_args(flags + ["--num_trials=2"])
    with pytest.raises(UserError, match="cmrc2018 has no dev file, .* leave --num_tri"):
        tasks.main(args)


def test_flags_given_stand_in_place_of_a_rows():
    given = ["--learning_rate=2e-4", "--seed=7"]
    command = tasks.command(
        "cluener crf", pathlib.Path("DATA"), ["--model_dir=M"], given
    )
    assert command[-2:] == given
    assert [flag for flag in command if flag.startswith("--learning_rate")] == given[:1]
    assert "--decoder=crf" in command


def test_from_scratch_a_model_has_the_config_and_vocabulary_of_another(tmp_path):
    for name in ("albert_config_tiny.json", "vocab.txt"):
        (tmp_path / name).write_text("{}")
    assert tasks.model_flags(str(tmp_path), "scratch") == [
        "--albert_config_file={}".format(tmp_path / "albert_config_tiny.json"),
        "--vocab_file={}".format(tmp_path / "vocab.txt"),
    ]


@pytest.mark.parametrize("start", tasks.STARTS)
def test_both_starts_have_the_models_tokenizer(tmp_path, start):
    model = tmp_path / "model"
    shutil.copytree(str(MODEL), str(model))
    settings = {"do_lower_case": False, "normalize_punctuation": True}
    (model / "tokenizer_settings.json").write_text(json.dumps(settings))
    flags = ["--do_lower_case=False", "--normalize_punctuation=True"]
    assert tasks.model_flags(str(model), start)[-2:] == flags
    assert tasks.model_flags(str(model), start, "MODEL")[-2:] == flags


def test_a_model_to_start_from_has_all_its_files(tmp_path):
    with pytest.raises(UserError, match="none: no such directory"):
        tasks.model_flags(str(tmp_path / "none"), "model")
    for name in ("albert_config.json", "vocab.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="holds no checkpoint"):
        tasks.model_flags(str(tmp_path), "model")


def test_a_model_without_a_vocabulary_is_named_before_any_row(tmp_path):
    model, data = tmp_path / "model", tmp_path / "data"
    model.mkdir()
    (model / "albert_config_tiny.json").write_text("{}")
    with pytest.raises(UserError, match="model holds no vocabulary"):
        tasks.model_flags(str(model), "scratch")
    (model / "spiece.model").write_text("")
    assert tasks.model_flags(str(model), "scratch")[1:] == [
        "--spm_model_file={}".format(model / "spiece.model")
    ]
    flags = ["--data=" + str(data), "--model_dir=" + str(model), "--rows=c3"]
    args = tasks.build_parser().parse_args(flags + ["--work={}".format(tmp_path / "w")])
    with pytest.raises(UserError, match="--rows=c3: --data_dir=.*/tasks/c3: no such"):
        tasks.main(args)


def test_of_several_trials_there_are_mean_and_deviation(tmp_path):
    splits = {"dev": {"by_seed": {"1": 0.5, "2": 0.7}}}
    path = tmp_path / "trials.json"
    path.write_text(json.dumps({"splits": splits}))
    assert tasks.read_scores(path, 2) == ["60.0% ± 14.1", ""]


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
    with pytest.raises(UserError, match="no row cmrc; expected some of lcqmc, cluener"):
        tasks.main(args)
    args = tasks.build_parser().parse_args(flags + ["--start=nowhere"])
    with pytest.raises(UserError, match="--start: no row nowhere; expected some of sc"):
        tasks.main(args)
