"""The benchmark of pretraining: what it refuses, what it keeps, what it shows."""

import pytest

import optimization
from albert_zh.base.errors import UserError
from benchmarks import pretraining_quality as quality


def arguments(tmp_path, *flags, **files):
    text = tmp_path / "corpus.txt"
    text.write_text("一句话。\n", encoding="utf-8")
    required = ["--corpus=" + str(text), "--held_out=" + str(text)]
    parser = quality.build_parser()
    args = parser.parse_args(required + ["--work=" + str(tmp_path / "work"), *flags])
    args.corpus = [str(text)]
    return args


@pytest.mark.parametrize("name", quality.ROWS)
def test_a_row_changes_settings_that_exist(name):
    recipe = quality.Recipe(**quality.ROWS[name])
    assert recipe.optimizer in optimization.OPTIMIZERS
    assert recipe.lr_schedule in optimization.SCHEDULES
    assert sum(stage.share for stage in recipe.stages) == pytest.approx(1.0)
    assert name == "base" or recipe != quality.Recipe()


def test_a_row_is_not_gone_on_with_under_other_settings(tmp_path):
    quality.Run("base", arguments(tmp_path, "--sequences=1000"))._save()
    quality.Run("base", arguments(tmp_path, "--sequences=1000")).check()
    args = arguments(tmp_path, "--sequences=2000")
    with pytest.raises(UserError, match="was begun with sequences=1000, now it is 20"):
        quality.Run("base", args).check()
    args = arguments(tmp_path, "--sequences=1000", "--train_rows=5")
    with pytest.raises(UserError, match="was begun with train_rows=None, now it is 5"):
        quality.Run("base", args).check()


def test_a_budget_of_no_two_steps_is_refused(tmp_path):
    args = arguments(tmp_path, "--sequences=255")
    with pytest.raises(UserError, match="--sequences=255 are less than two steps"):
        quality.Run("base", args).check()
    quality.Run("scratch", args).check()  # is not pretrained


def test_longer_sequences_count_more(tmp_path):
    run = quality.Run("length_128_last", arguments(tmp_path, "--sequences=64000"))
    # Halves of 64,000 x 64 tokens, the last one at half as many sequences; 32 a step.
    stages = [(stage.length, steps) for stage, steps in run._stages()]
    assert stages == [(64, 1000), (64, 500), (128, 250)]


def test_a_corpus_too_small_for_the_vocabulary_is_refused(tmp_path):
    args = arguments(tmp_path)
    (args.work / "vocab_8192.txt").write_text("[PAD]\n" + "[unused1]\n" * 9)
    with pytest.raises(UserError, match="too small for a vocabulary of 10: it gives 1"):
        quality.Run("base", args)._vocab_file()


def test_unknown_rows_and_missing_vocabularies_are_named(tmp_path):
    with pytest.raises(UserError, match="no row lam; expected some of scratch, base"):
        quality.main(arguments(tmp_path, "--rows=base,lam"))
    args = arguments(tmp_path, "--rows=vocabulary_given")
    args.corpus = args.corpus[0]
    with pytest.raises(UserError, match="requires --vocab_file"):
        quality.main(args)


def test_the_table_has_means_and_deviations(tmp_path):
    args = arguments(tmp_path, "--rows=base", "--task=lcqmc=" + str(tmp_path))
    run = quality.Run("base", args)
    run.state["tasks"]["lcqmc"] = [
        {"dev": 0.5, "test": 0.6},
        {"dev": 0.7, "test": 0.6},
    ]
    row = quality.table([run], args.task).split("\n")[2]
    assert row == "| base | 100,000 |  |  |  | 0 | 60.0% ± 14.1 | 60.0% ± 0.0 |"
