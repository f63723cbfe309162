"""The demo's own part: its directory, the split, what it does when a command fails."""

import os

import pytest

import run_demo
from albert_zh.base import locks
from albert_zh.base.errors import UserError
from albert_zh.data import corpus, work_directory


def renew(directory):
    with run_demo.renewed_output_dir(str(directory)):
        pass


def sentences(path):
    return [document.sentences for document in corpus.read_documents([str(path)])]


def test_split_holds_out_whole_documents_from_the_end(tmp_path):
    documents = [["文档{}第{}句。".format(d, s) for s in (1, 2)] for d in range(20)]
    source = tmp_path / "corpus.txt"
    text = "\n\n".join("\n".join(document) for document in documents)
    source.write_text(text, encoding="utf-8")

    run_demo.split_corpus(str(source), str(tmp_path))

    assert sentences(tmp_path / "train.txt") == documents[:18]
    assert sentences(tmp_path / "heldout.txt") == documents[18:]


def test_renews_a_directory_of_its_own(tmp_path):
    directory = tmp_path / "demo"
    renew(directory)
    for path in (
        "vocab.txt",
        "heldout.tfrecord.summary.json",
        "train.tfrecord.work/" + work_directory.MARK,
        "train.tfrecord.work/0123456789abcdef/part-00000",
        "pretrained/model.ckpt-12.data-00000-of-00001",
        "pretrained/eval/events.out.tfevents.1.host",
        "classifier/best/labels.json",
        "open_classifier/predictions.tsv",
        "classifier/.labels.json." + 32 * "0" + ".partial",
    ):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text("")
    renew(directory)
    assert [path.name for path in directory.iterdir()] == [run_demo.MARKER]


@pytest.mark.parametrize(
    "path",
    [
        "notes.txt",
        "pretrained/my_notes.txt",
        "classifier/best/thesis/checkpoint",
        "train.tfrecord.work/thesis.txt",  # without the mark
        "vocab.txt/thesis.txt",
    ],
)
def test_foreign_files_are_found_at_any_depth(tmp_path, path):
    renew(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("mine")
    with pytest.raises(UserError, match="no demo has made"):
        renew(tmp_path)
    assert (tmp_path / path).read_text() == "mine"


def test_a_running_demo_or_training_is_left_alone(tmp_path):
    renew(tmp_path)
    training = tmp_path / "pretrained"
    training.mkdir()
    for folder in (tmp_path, training):
        with locks.hold(str(folder / ".lock"), ""):
            with pytest.raises(UserError, match="another process works there"):
                renew(tmp_path)
    assert training.exists()
    renew(tmp_path)
    assert not training.exists()


def test_leaves_a_foreign_directory_alone(tmp_path):
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("十年心血", encoding="utf-8")
    with pytest.raises(UserError, match="no demo has made"):
        renew(tmp_path)
    assert thesis.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "linked mark", "link", "pipe"])
def test_removes_only_what_a_demo_has_made(tmp_path, kind):
    directory = tmp_path / "demo"
    renew(directory)
    (directory / "train.txt").write_text("", encoding="utf-8")
    precious = directory / "thesis"
    if kind == "folder":
        precious.mkdir()
        precious = precious / "thesis.txt"
    if kind == "linked mark":
        (directory / run_demo.MARKER).rename(tmp_path / "mark")
        (directory / run_demo.MARKER).symlink_to(tmp_path / "mark")
        precious = directory / "train.txt"
    if kind == "link":
        directory.rename(tmp_path / "real")
        directory.symlink_to(tmp_path / "real")
        precious = directory / "train.txt"
    if kind == "pipe":
        directory = tmp_path / "pipe"
        os.mkfifo(str(directory))
    precious.write_text("十年心血", encoding="utf-8")
    with pytest.raises(UserError, match="no demo has made|a file or a link"):
        renew(directory)
    assert precious.read_text(encoding="utf-8") == "十年心血"


def test_a_link_in_its_directory_is_not_followed(tmp_path):
    directory = tmp_path / "demo"
    renew(directory)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("十年心血", encoding="utf-8")
    (directory / "pretrained").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="no demo has made"):
        renew(directory)
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_stops_with_the_exit_code_of_a_command_that_fails(capfd):
    step = run_demo.Step("vocabulary", "run_demo.py", {"no_such_flag": 1})
    with pytest.raises(SystemExit) as stopped:
        run_demo.run_step(step)
    assert stopped.value.code == 2
    assert "$ python3 run_demo.py --no_such_flag=1\n" in capfd.readouterr().out


def test_every_text_pair_is_a_flag_of_its_own():
    step = run_demo.Step("", "run_classifier.py", {"text_pair": [["甲", "乙"]] * 2})
    assert run_demo.command_arguments(step) == [
        "run_classifier.py",
        *["--text_pair", "甲", "乙"] * 2,
    ]


@pytest.fixture
def steps_run(monkeypatch):
    """The titles of the steps that `run_demo.main` would have run."""
    titles = []

    def run_step(step):
        titles.append(step.title)
        return 0.0

    monkeypatch.setattr(run_demo, "run_step", run_step)
    monkeypatch.setattr(run_demo, "report", lambda *arguments: "")
    return titles


def run(directory, *flags):
    parser = run_demo.build_parser()
    run_demo.main(parser.parse_args(["--output_dir=" + str(directory), *flags]))


def test_other_pairs_are_judged_without_training_again(tmp_path, steps_run):
    run(tmp_path / "demo", "--text_pair", "一", "二")
    assert len(steps_run) == 7  # nothing was there yet
    run(tmp_path / "demo", "--text_pair", "一", "二")
    assert steps_run[7:] == ["verdicts"]
    run(tmp_path / "demo")
    assert len(steps_run) == 8 + 7  # the demo itself, again


def test_a_demo_of_other_settings_is_not_removed_for_a_pair(
    tmp_path, steps_run, monkeypatch
):
    """It may have taken hours."""
    pair = "--text_pair", "一", "二"
    run(tmp_path / "demo", "--seed=3", "--num_train_steps=9")
    with pytest.raises(UserError, match="made with --num_train_steps=9 --seed=3; add"):
        run(tmp_path / "demo", *pair)
    run(tmp_path / "demo", *pair, "--seed=3", "--num_train_steps=9")
    assert steps_run[7:] == ["verdicts"]
    monkeypatch.setattr(run_demo, "OPEN_MODEL", str(tmp_path / "model"))
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="another version; make it anew, without"):
        run(tmp_path / "demo", *pair, "--seed=3", "--num_train_steps=9")
    run(tmp_path / "demo")
    assert len(steps_run) == 8 + 7


def test_an_interrupted_demo_is_not_taken_for_a_complete_one(
    tmp_path, steps_run, monkeypatch
):
    monkeypatch.setattr(run_demo, "report", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path)
    monkeypatch.setattr(run_demo, "report", lambda *arguments: "")
    run(tmp_path, "--text_pair", "一", "二")
    assert len(steps_run) == 7 + 7
