"""The benchmark of pretraining: what it refuses, what it keeps, what it shows."""

import importlib
import json
import pathlib

import pytest

import optimization
from albert_zh.base.errors import UserError
from benchmarks import pretraining_quality as quality
from benchmarks import rows


def arguments(tmp_path, *flags):
    required = ["--work=" + str(tmp_path / "work")]
    for name in ("corpus", "held_out"):
        path = tmp_path / (name + ".txt")
        if not path.exists():
            path.write_text("一句话。{}\n".format(name), encoding="utf-8")
        required.append("--{}={}".format(name, path))
    return quality.build_parser().parse_args(required + list(flags))


@pytest.mark.parametrize("name", quality.ROWS)
def test_a_row_changes_settings_that_exist(name):
    recipe = quality.Recipe(**quality.ROWS[name])
    assert recipe.optimizer in optimization.OPTIMIZERS
    assert recipe.lr_schedule in optimization.SCHEDULES
    assert sum(stage.share for stage in recipe.stages) == pytest.approx(1.0)
    assert name == "base" or recipe != quality.Recipe()


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have run, each with its results in place."""
    found = []
    results = {"dev": {"accuracy": 0.5}, "masked_lm_loss": 4.0}
    results.update(masked_lm_accuracy=0.25, sentence_order_accuracy=0.75)

    def run(job):
        script = importlib.import_module(job.command[0][: -len(".py")])
        args = script.build_parser().parse_args(job.command[1:])
        found.append((job.command[0], args))
        job.result.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(results)
        if getattr(args, "vocab_size", None):
            content = "word\n" * args.vocab_size
        job.result.write_text(content)
        lines = "09:00:00 step {}/20  loss {}  sequences/s 9.9\n"
        log = lines.format(5, 6.5) + lines.format(10, 5.9)
        (job.folder / rows.LOG_FILE).write_text(log)

    monkeypatch.setattr(rows, "run", run)
    return found


@pytest.fixture
def task(tmp_path):
    """A flag `--task` of a folder without a test file."""
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "data" / (split + ".tsv")).write_text("")
    return "--task=lcqmc={}".format(tmp_path / "data")


def test_rows_of_other_records_share_none(tmp_path, commands, capsys):
    flags = ["--rows=base,ordinary_records,single_tokens", "--sequences=1000"]
    quality.main(arguments(tmp_path, *flags))
    making = [a for s, a in commands if s == "create_pretraining_data.py"]
    corpus = [a for a in making if "held_out" not in str(a.output_file)]
    found = {(a.overlap_prob, a.do_whole_word_mask): a.output_file for a in corpus}
    assert sorted(found) == [(0.0, True), (0.3, False), (0.3, True)]
    assert len(set(found.values())) == len(corpus) == 3


def test_a_row_is_pretrained_in_stages_and_scored(tmp_path, commands, task, capsys):
    flags = ["--rows=scratch,base", "--sequences=1000", "--seeds=2", task]
    quality.main(arguments(tmp_path, *flags))
    scripts = [script for script, _ in commands]
    assert scripts.count("build_vocab.py") == 1
    assert scripts.count("create_pretraining_data.py") == 2
    assert scripts.count("run_classifier.py") == 2 * 2
    training = [args for script, args in commands if script == "run_pretraining.py"]
    assert [args.num_train_steps for args in training[:3]] == [15, 7, 7]
    # As every stage begins at the first record, its order and masks are others.
    assert len({args.seed for args in training[:3]}) == 3
    assert [args.init_checkpoint for args in training[1:]] == [
        "{}/model.ckpt-{}".format(args.output_dir, args.num_train_steps)
        for args in training[:3]
    ]
    assert training[3].do_eval and not training[3].do_train
    for args in training:
        config = json.loads(pathlib.Path(args.albert_config_file).read_text())
        assert config["vocab_size"] == 8192
    table = capsys.readouterr().out.rstrip().split("\n")[-2:]
    # 29 steps of 32 are what ran, of 1,000.
    assert table[1] == (
        "| base | 928 | 4.000 | 25.0% | 75.0% | 320 (step 10: 5.90) | 0 "
        "| 50.0% ± 0.0 |  |"
    )
    assert table[0] == "| scratch | 0 |  |  |  |  | 0 | 50.0% ± 0.0 |  |"
    done = len(commands)
    quality.main(arguments(tmp_path, *flags))
    assert len(commands) == done


def test_where_a_row_leaves_the_plateau(tmp_path, commands, monkeypatch, capsys):
    """Of a loss with sentence order, what a guess costs is taken off."""
    flags = ["--rows=published", "--sequences=1000"]
    quality.main(arguments(tmp_path, *flags))
    assert "| 75.0% | 160 (step 5: 5.81) | 0 |" in capsys.readouterr().out
    monkeypatch.setattr(quality, "PLATEAU_LOSS", 1.0)
    quality.main(arguments(tmp_path, *flags))
    assert "| 75.0% | never | 0 |" in capsys.readouterr().out


def test_a_row_of_other_settings_or_files_is_refused(tmp_path, commands, task):
    flags = ["--rows=base", "--sequences=1000", task]
    quality.main(arguments(tmp_path, *flags))
    done = len(commands)
    with pytest.raises(UserError, match="stage_0: .*now: --num_train_steps=31"):
        quality.main(arguments(tmp_path, "--sequences=2000", *flags[::2]))
    (tmp_path / "data" / "dev.tsv").write_text("other")
    with pytest.raises(UserError, match="lcqmc_0: .*now: another .*dev.tsv"):
        quality.main(arguments(tmp_path, *flags))
    (tmp_path / "held_out.txt").write_text("另一句。\n", encoding="utf-8")
    with pytest.raises(UserError, match="held_out_8192.*now: another .*held_out.txt"):
        quality.main(arguments(tmp_path, *flags))
    (tmp_path / "corpus.txt").write_text("另一句。\n", encoding="utf-8")
    with pytest.raises(UserError, match="vocab_8192: .*now: another .*corpus.txt"):
        quality.main(arguments(tmp_path, *flags))
    assert len(commands) == done


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--held_out=/none"], "no input file matches '/none'"),
        (["--task=lcqmc=/none"], "--task=lcqmc=/none: expected one file train"),
        (["--task=none=/none"], "--task=none: expected one of "),
        (["--rows=vocabulary_given"], "vocabulary_given requires --vocab_file"),
        (["--rows=vocabulary_given", "--vocab_file=/none"], "/none: no such vocabular"),
        (["--vocab_file=/none"], "--vocab_file requires --rows=vocabulary_given; add"),
        (["--seeds=3"], "--seeds requires --task; add it or remove --seeds"),
        (["--train_rows=3"], "--train_rows requires --task"),
        (["--rows=scratch"], "--rows: scratch requires --task"),
        (
            ["--rows=scratch", "--task=lcqmc=/none", "--sequences=1000"],
            "--sequences requires a row that is pretrained",
        ),
        (["--task=pair=/none", "--task=pair=/other"], "--task=pair=...: given twice"),
    ],
)
def test_inputs_are_checked_before_the_work(tmp_path, commands, flags, message):
    with pytest.raises(UserError, match=message):
        quality.main(arguments(tmp_path, *flags))
    assert not commands


def test_held_out_text_is_none_of_the_corpus(tmp_path, commands):
    args = arguments(tmp_path, "--corpus={}/*.txt".format(tmp_path))
    message = "--held_out: .*held_out.txt is a file of --corpus, too .*/held_out.txt"
    with pytest.raises(UserError, match=message):
        quality.main(args)
    (tmp_path / "link").symlink_to(tmp_path / "corpus.txt")
    with pytest.raises(UserError, match="/link is a file of --corpus, too .*corpus.tx"):
        quality.main(arguments(tmp_path, "--held_out={}/link".format(tmp_path)))
    assert not commands


@pytest.mark.parametrize("name", quality.ROWS)
def test_a_budget_of_no_two_steps_is_refused(tmp_path, name):
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_text("[PAD]\n")

    def check(sequences):
        flags = ["--sequences={}".format(sequences)]
        flags.append("--vocab_file={}".format(vocab_file))
        quality.Run(name, arguments(tmp_path, *flags)).check()

    with pytest.raises(
        UserError, match="--sequences=1: fewer than two steps"
    ) as caught:
        check(1)
    least = int(str(caught.value).split()[-1])
    check(least)
    with pytest.raises(UserError, match="of {}; .* least {}".format(name, least)):
        check(least - 1)


def test_a_row_that_is_not_pretrained_has_any_budget(tmp_path):
    args = arguments(tmp_path, "--sequences=1")
    with pytest.raises(UserError, match="--sequences=1: fewer than two steps"):
        quality.Run("base", args).check()
    scratch = quality.Run("scratch", args)
    scratch.check()
    assert scratch.sequences == 0


def test_longer_sequences_count_more(tmp_path):
    run = quality.Run("length_64_128_512", arguments(tmp_path, "--sequences=64000"))
    # A half and two quarters of 64,000 x 64 tokens, 32 sequences a step.
    stages = [(stage.length, steps) for stage, steps in run._stages()]
    assert stages == [(64, 1000), (128, 250), (512, 62)]


def test_a_corpus_too_small_for_the_vocabulary_may_grow(tmp_path, monkeypatch):
    args = arguments(tmp_path)
    (job,) = quality.Run("base", args)._vocabulary()
    message = "build_vocab.py failed; .*log.txt, .*--vocab_size=8192: the text gives no"
    with pytest.raises(UserError, match=message):
        quality.main(args)
    assert not job.result.exists()
    (tmp_path / "corpus.txt").write_text("一句话。\n更多。\n", encoding="utf-8")
    monkeypatch.setattr(rows, "run", lambda job: job.result.write_text("[PAD]\n"))
    rows.run_once(job)


def test_unknown_rows_are_named(tmp_path):
    with pytest.raises(UserError, match="no row lam; expected some of scratch, base"):
        quality.main(arguments(tmp_path, "--rows=base,lam"))


def test_the_table_has_means_and_deviations(tmp_path):
    args = arguments(tmp_path, "--rows=base", "--task=lcqmc=" + str(tmp_path))
    run = quality.Run("base", args)
    run.tasks["lcqmc"] = [
        {"dev": 0.5, "test": 0.6},
        {"dev": 0.7, "test": 0.6},
    ]
    row = quality.table([run], args.task).split("\n")[2]
    assert row == "| base | 99,968 |  |  |  |  | 0 | 60.0% ± 14.1 | 60.0% ± 0.0 |"
