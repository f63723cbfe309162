"""Several seeds: mean, standard deviation, and which is kept."""

import pytest

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.tasks import trials


def trial(seed, dev, loss, **others):
    return trials.Trial(seed, "", (dev, -loss), dict(others, dev=dev))


def test_mean_and_sample_deviation_by_hand():
    found = [trial(1, 0.5, 1.0, test=0.4), trial(2, 0.7, 1.0, test=0.4)]
    summary = trials.summarize("accuracy", found + [trial(3, 0.6, 1.0, test=0.7)])
    # Deviations -0.1, 0.1, 0: 0.02 / 2, of which the root; test: -0.1 -0.1 0.2.
    assert summary["splits"]["dev"]["mean"] == pytest.approx(0.6)
    assert summary["splits"]["dev"]["standard_deviation"] == pytest.approx(0.1)
    assert summary["splits"]["test"]["mean"] == pytest.approx(0.5)
    deviation = summary["splits"]["test"]["standard_deviation"]
    assert deviation == pytest.approx(0.03**0.5)
    assert summary["splits"]["dev"]["by_seed"] == {"1": 0.5, "2": 0.7, "3": 0.6}
    assert summary["best_seed"] == 2
    assert "dev: accuracy 0.6000 ± 0.1000 of 3 trials" in trials.format_summary(summary)


def test_the_lower_loss_breaks_a_tie_then_the_first_seed():
    found = [trial(1, 0.5, 2.0), trial(2, 0.5, 1.0), trial(3, 0.5, 1.0)]
    assert trials.summarize("accuracy", found)["best_seed"] == 2


def test_one_trial_has_no_deviation():
    summary = trials.summarize("accuracy", [trial(1, 0.5, 1.0)])
    assert summary["splits"]["dev"]["standard_deviation"] is None
    assert "±" not in trials.format_summary(summary)


@pytest.mark.parametrize("name", ["training.json", "best"])
def test_a_directory_of_another_training_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="--num_trials: .*no trial"):
        trials.check_directory(str(tmp_path))


def test_trials_whose_summary_was_removed_go_on(tmp_path):
    """As the message of a damaged one advises."""
    (tmp_path / "best").mkdir()
    (tmp_path / trials.TRIALS_FILE).write_text("{")
    with pytest.raises(UserError, match="remove it, and run the same command again"):
        trials.read(str(tmp_path))
    (tmp_path / trials.TRIALS_FILE).unlink()
    (tmp_path / "seed_7").mkdir()
    (tmp_path / "seed_7" / "training.json").write_text("{}")
    trials.check_directory(str(tmp_path))


class Killed(BaseException):
    pass


def test_a_kill_leaves_the_best_model_of_the_summary_or_none(tmp_path, monkeypatch):
    names = ["checkpoint", "decision.json", "labels.json", "model.ckpt-1.index"]
    for seed in (1, 2):
        folder = tmp_path / "seed_{}".format(seed) / "best"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text("of seed {}".format(seed))
    found = [trial(1, 0.5, 1.0), trial(2, 0.7, 1.0)]
    left = None

    def counted(function):
        def write(*args):
            nonlocal left
            if left == 0:
                raise Killed
            left = left and left - 1
            return function(*args)

        return write

    for name in ("rename", "remove", "remove_directory"):
        monkeypatch.setattr(files, name, counted(getattr(files, name)))
    best_dir = tmp_path / "best"

    def contents():
        return {path.name: path.read_text() for path in best_dir.iterdir()}

    for kill in range(7):
        trials.save(str(tmp_path), "accuracy", found[:1])
        assert contents() == dict.fromkeys(names, "of seed 1")
        left = kill
        with pytest.raises(Killed):
            trials.save(str(tmp_path), "accuracy", found)
        left = None
        if (best_dir / "labels.json").exists():
            seed = trials.read(str(tmp_path))["best_seed"]
            assert contents() == dict.fromkeys(names, "of seed {}".format(seed))
    trials.save(str(tmp_path), "accuracy", found)
    assert contents() == dict.fromkeys(names, "of seed 2")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_trial_without_its_scores_is_to_be_removed(tmp_path, content):
    if content:
        (tmp_path / "best").mkdir()
        (tmp_path / "best" / "eval_results.json").write_text(content)
    advice = "; remove {}, and run the same command again".format(tmp_path)
    with pytest.raises(UserError) as error:
        trials.read_dev_scores(str(tmp_path))
    assert str(error.value).endswith(advice)
