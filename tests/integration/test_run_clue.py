"""`run_clue.py` as a user runs it, on one task of a few made-up rows."""

import json
import signal
import zipfile

import pytest
import tensorflow.compat.v1 as tf

import modeling
import run_clue
from albert_zh import command_line
from albert_zh.base import children
from albert_zh.base.errors import Stopped, UserError
from albert_zh.downloads import installation
from albert_zh.tasks import clue, kinds
from tests.small_models import CONFIG

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
    ),
]


@pytest.fixture
def folder(tmp_path):
    words = "天地人山水火土木"
    model = tmp_path / "model"
    model.mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(words)
    (model / "vocab.txt").write_bytes("\n".join(tokens).encode("utf-8"))
    config = dict(CONFIG.to_dict(), vocab_size=len(tokens))
    (model / "albert_config.json").write_text(json.dumps(config))
    with tf.Graph().as_default(), tf.Session() as session:
        encoder = modeling.AlbertConfig.from_dict(config)
        modeling.AlbertModel(encoder, False, tf.zeros([1, 4], tf.int32))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(model / "albert_model.ckpt"))
    fields = [{"abst": word, "keyword": list(words[:2])} for word in words]
    write_data(tmp_path / "data" / "csl", fields, ("0", "1"))
    return tmp_path


def write_data(folder, fields, labels):
    """Writes files of rows of these fields; test's have no labels."""
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        content = [dict(row, id=50 - i) for i, row in enumerate(fields)]
        if split != "test":
            for i, row in enumerate(content):
                row["label"] = labels[i % len(labels)]
        lines = [json.dumps(row) + "\n" for row in content]
        (folder / (split + ".json")).write_text("".join(lines))


@pytest.mark.once
def test_table_and_submission_and_where_it_stopped(folder, run_command):
    flags = ["--model_dir=model", "--data_dir=data", "--output_dir=out"]
    flags += ["--download=False", "--", "--num_train_epochs=1"]
    result = run_command("run_clue.py", *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    training = folder / "out" / "csl" / "seed_12345" / "training.json"
    assert json.loads(training.read_text())["--num_train_epochs"] == 1
    assert "left out: afqmc: none of the folders" in result.stderr
    assert "recipe of csl for size tiny" in result.stderr
    table = (folder / "out" / "results.md").read_text(encoding="utf-8")
    assert table in result.stdout
    assert "| csl | accuracy |" in table and "| 74.36 | 74.56 |" in table
    with zipfile.ZipFile(str(folder / "out" / "submission.zip")) as archive:
        assert archive.namelist() == ["csl_predict.json"]
        lines = archive.read("csl_predict.json").splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(50, 42, -1))
    result = run_command("run_clue.py", *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "csl is complete" in result.stderr

    # A run of another task keeps it, in table and submission.
    pairs = [{"sentence1": word, "sentence2": "天"} for word in "天地人山"]
    write_data(folder / "data" / "afqmc", pairs, ("0", "1"))
    result = run_command("run_clue.py", "--tasks=afqmc", *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "csl is complete and stays as it is; its seeds: 12345" in result.stderr
    both = (folder / "out" / "results.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in both[2:]] == ["afqmc", "csl"]
    assert both[3] == table.splitlines()[2]
    with zipfile.ZipFile(str(folder / "out" / "submission.zip")) as archive:
        assert archive.namelist() == ["afqmc_predict.json", "csl_predict.json"]

    train_file = folder / "data" / "csl" / "train.json"
    train_text = train_file.read_text()
    train_file.write_text(train_text.replace('"0"', '"1"'))
    result = run_command("run_clue.py", *flags, cwd=folder)
    assert result.returncode == command_line.EXIT_USER_ERROR
    task_error, error = result.stderr.strip().splitlines()[-2:]
    assert "holds a training with another --train_file" in task_error
    assert error.endswith("py ended with exit code 2; its last line says why")
    assert (folder / "out" / "csl" / "csl_predict.json").exists()
    train_file.write_text(train_text)
    result = run_command("run_clue.py", *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "csl is complete: " in result.stderr


def test_results_of_another_model_are_not_taken_for_this_ones(
    folder, run_command, assert_user_error
):
    trial = folder / "out" / "csl" / "seed_12345"
    (trial / "best").mkdir(parents=True)
    settings = {
        "--init_checkpoint": "a checkpoint with SHA-256 " + 64 * "0",
        "--train_file": "8 examples",
        "--max_seq_length": 8,
        "--train_batch_size": 4,
        "--learning_rate": 1e-5,
        "--optimizer": "adamw",
        "--warmup_proportion": 0.1,
        "--seed": 12345,
        "--num_train_epochs": 5,
    }
    (trial / "training.json").write_text(json.dumps(settings))
    scores = {"by_seed": {"12345": 0.5}, "mean": 0.5, "standard_deviation": None}
    summary = {"metric": "accuracy", "best_seed": 12345, "splits": {"dev": scores}}
    (folder / "out" / "csl" / "trials.json").write_text(json.dumps(summary))
    (folder / "out" / "csl" / "csl_predict.json").write_text("")
    flags = ["--model_dir=model", "--data_dir=data", "--output_dir=out"]
    result = run_command("run_clue.py", *flags, "--download=False", cwd=folder)
    text = "--model_dir=model: out/csl/seed_12345 began with another model"
    assert_user_error(result, text, "--output_dir")
    assert not (folder / "out" / "results.md").exists()


def test_what_cannot_run_is_said_at_once(folder, run_command, assert_user_error):
    flags = ["--model_dir=model", "--data_dir=data", "--output_dir=out"]
    flags += ["--download=False", "--tasks=csl,ocnli"]
    result = run_command("run_clue.py", *flags, cwd=folder)
    assert_user_error(result, "ocnli: none of the folders data/ocnli", "download_model")
    assert not (folder / "out").exists()


@pytest.fixture
def csl(folder):
    """The `clue.Run` of the folder's task, and flags of a run."""
    tasks = clue.choose_tasks(("csl",))
    ((run,), _) = clue.plan(tasks, str(folder / "data"), str(folder / "out"))
    flags = ["--model_dir={}".format(folder / "model"), "--output_dir=out"]
    return run, run_clue.build_parser().parse_args(flags + ["--seed=1"])


def test_a_kill_leaves_no_submission_of_fewer_trials(folder, csl, monkeypatch):
    """Killed after the new trials are scored, and before they are applied."""
    run, args = csl
    output = folder / "out" / "csl"
    output.mkdir(parents=True)

    def write_scores():
        scores = {"by_seed": {"1": 0.5}, "mean": 0.5, "standard_deviation": None}
        summary = {"metric": "accuracy", "best_seed": 1, "splits": {"dev": scores}}
        (output / "trials.json").write_text(json.dumps(summary))
        return -signal.SIGINT

    monkeypatch.setattr(children, "run_to_end", lambda line: write_scores())
    (output / "csl_predict.json").write_text("of seed 0")
    with pytest.raises(Stopped):
        run_clue._fine_tune(run, args)
    assert not run.is_complete(run.describe([1], {}))


@pytest.mark.parametrize(
    "tasks,passed,message",
    [
        ("csl", "--num_train_epochs=0", "run_classifier.py: error: argument --num_tr"),
        ("csl,cmrc2018", "--label_smoothing=0.1", "run_squad.py: error: unrecognized"),
        ("csl", "--seed=3", "error: --seed: not for all tasks alike; remove it"),
        ("csl", "--do_train=False", "error: --do_train: not for all tasks"),
        ("csl", "--vocab_file=a", "error: --vocab_file: not for all tasks"),
        ("cluener", "--text=a", "error: --text: not for all tasks"),
        ("csl", "--adversarial_epsilon=2", "--adversarial_epsilon requires --advers"),
        ("csl", "--max_seq_length=1", "--max_seq_length=1: expected at least"),
        ("csl", "a", "error: unrecognized arguments: a"),
        ("csl,cmrc2018", "--metric=loss", "--metric=loss: expected one of exact_match"),
        ("stsb,csl", "--label_smoothing=0.1", "--label_smoothing: rows of stsb"),
        ("csl", "--labels=a,b", "--labels=a,b: the labels of csl are 0,1"),
        ("csl,tnews", "--text_b_column=b", "--text_b_column=b: tnews has one text"),
    ],
)
def test_wrong_flags_of_the_tasks_are_said_before_any_runs(
    folder, capsys, tasks, passed, message
):
    flags = ["--model_dir={}".format(folder), "--output_dir=out", "--tasks=" + tasks]
    with pytest.raises(SystemExit) as caught:
        run_clue.main(run_clue.build_parser().parse_args(flags + ["--", passed]))
    assert caught.value.code == command_line.EXIT_USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "flags after -- for " in line and message in line
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "passed,message",
    [
        ("--class_weights=1,2", "tnews: --class_weights: 2 numbers for the labels 100"),
        ("--max_seq_length=99", "tnews: --max_seq_length 99 is above max_position"),
        ("--teacher_model_dir=none", "tnews: --teacher_model_dir=none: no such dir"),
        ("--num_train_epochs=1", "tnews: {}:2: "),
    ],
)
def test_what_a_later_task_cannot_run_with_is_said_before_the_first_runs(
    folder, monkeypatch, passed, message
):
    monkeypatch.setattr(run_clue, "_fine_tune", None)
    data = folder / "data" / "tnews"
    data.mkdir()
    for split in ("train", "dev", "test"):
        lines = [json.dumps({"sentence": "天", "label": "100"}) + "\n"] * 2
        (data / (split + ".json")).write_text("".join(lines))
    train_file = data / "train.json"
    if "{}" in message:
        train_file.write_text(lines[0] + json.dumps({"sentence": "天"}) + "\n")
    flags = ["--model_dir={}".format(folder / "model"), "--tasks=csl,tnews"]
    flags += ["--data_dir={}".format(folder / "data")]
    flags += ["--output_dir={}".format(folder / "out"), "--download=False", "--"]
    with pytest.raises(UserError) as caught:
        run_clue.main(run_clue.build_parser().parse_args(flags + [passed]))
    assert str(caught.value).startswith(message.format(train_file))
    assert not (folder / "out").exists()


@pytest.mark.parametrize("flag", ["--tasks=", "--data_dir="])
def test_an_unset_variable_does_not_stand_for_all_tasks(
    folder, run_command, assert_user_error, flag
):
    flags = ["--model_dir=model", "--output_dir=out", "--download=False"]
    result = run_command("run_clue.py", *flags, flag, cwd=folder)
    assert_user_error(result, flag[:-1] + ": expected a value; was it that of an unset")


def test_flags_of_the_result_are_told_from_those_of_a_run(csl):
    run, args = csl
    args.passed = ["--eval_batch_size=8", "--xla", "--num_train_epochs", "2"]
    flags = run_clue._check_passed([run.task], args)
    assert flags == {"csl": {"--num_train_epochs": "2.0"}}


def test_sigterm_outside_of_training_is_no_error(folder, csl, monkeypatch):
    """Such as while the command of a task imports TensorFlow."""
    run, args = csl
    script = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM)"
    (folder / "stopped.py").write_text(script + "; time.sleep(60)")
    monkeypatch.setattr(run_clue, "_FOLDER", str(folder))
    monkeypatch.setitem(kinds.COMMANDS, "classification", "stopped.py")
    with pytest.raises(Stopped, match="csl: stopped; rerun") as stopped:
        run_clue._fine_tune(run, args)
    assert stopped.value.exit_code == 0


def test_a_task_that_was_killed_is_said_to_be(folder, csl, monkeypatch):
    run, args = csl
    (folder / "killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(run_clue, "_FOLDER", str(folder))
    monkeypatch.setitem(kinds.COMMANDS, "classification", "killed.py")
    words = r"csl: killed.py ended with signal 9 \(SIGKILL\); .* lacks memory"
    with pytest.raises(UserError, match=words):
        run_clue._fine_tune(run, args)


def test_what_is_missing_is_downloaded_as_long_as_that_works(
    tmp_path, monkeypatch, caplog
):
    """A folder of the user's is left alone; the first failure is the last attempt."""
    asked = []

    def install(entry, directory, origin):
        asked.append((entry.name, directory))
        if entry.name == "cmnli":
            raise UserError("cannot be reached")

    monkeypatch.setattr(installation, "install", install)
    (tmp_path / "wsc").mkdir()
    names = ("afqmc", "lcqmc", "cluewsc2020", "cmnli", "ocnli")
    run_clue._download(clue.choose_tasks(names), str(tmp_path))
    folders = [str(tmp_path / name) for name in ("afqmc", "cmnli")]
    assert asked == list(zip(("afqmc", "cmnli"), folders))
    command = "`python3 download_model.py cmnli --output_dir={}` fails: ".format(
        folders[1]
    )
    assert command + "cannot be reached; no more data are downloaded" in caplog.text


def test_a_model_is_all_that_is_needed():
    args = run_clue.build_parser().parse_args(["--model_dir=model"])
    assert (args.output_dir, args.data_dir) == ("clue", "CLUEdatasets")
