"""`best/` through kills: between any two writes it is a whole model of one epoch."""

import contextlib
import json
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.models import checkpoint_state, checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.tasks import best_model, fine_tuning, get_task, model_files
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

STEPS = 10, 20, 30
# Each is the best so far but for the last one.
F1 = {10: 0.5, 20: 0.7, 30: 0.6}
THRESHOLDS = {10: 0.3, 20: 0.6, 30: 0.4}


class Killed(BaseException):
    """Nothing is written after it."""


class Writes:
    """Counts what is written; kills at one write, or half-way through it.

    Attributes:
      left: number of writes until the kill; below 0 for none.
    """

    def __init__(self, monkeypatch):
        self.left, self.done, self._halves = -1, 0, False
        for module, name in (
            (files, "rename"),
            (files, "remove"),
            (checkpoints, "write_tensors"),
        ):
            function = getattr(module, name)
            monkeypatch.setattr(module, name, self._counted(function))

    def kill_at(self, number, halves):
        self.left, self._halves = number, halves

    def _counted(self, function):
        def write(*args, **kwargs):
            if self.left == 0:
                if self._halves and function.__name__ == "write_tensors":
                    prefix = function(*args, **kwargs)
                    tf.io.gfile.remove(prefix + ".index")
                raise Killed
            self.left -= 1
            self.done += 1
            return function(*args, **kwargs)

        return write


@pytest.fixture
def task_files(tmp_path):
    vocab_file = tmp_path / "vocab.txt"
    tokens = "[PAD] [UNK] [CLS] [SEP] [MASK]".split() + list("一二三四五六七八九十")
    tokens += ["[unused{}]".format(i) for i in range(CONFIG.vocab_size - len(tokens))]
    vocab_file.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return model_files.TaskFiles(
        CONFIG,
        get_task("multi_label"),
        ("a", "b"),
        str(vocab_file),
        None,
        True,
        False,
        8,
    )


def train(task_files, output_dir, f1, first=STEPS[0]):
    """What a run does of a training whose epochs end with these dev scores.

    The run begins, or resumes, with the checkpoint of the step `first`.
    """
    tuner = fine_tuning.FineTuner(task_files, str(output_dir))
    tuner._predict_all = lambda name, source, checkpoint: checkpoint

    def scores_of(checkpoint):
        step = step_of(checkpoint)
        return {"micro_f1": f1[step], "loss": 1.0, "threshold": THRESHOLDS[step]}

    tuner.kind.fit_decision = lambda _, checkpoint: {
        "threshold": scores_of(checkpoint)["threshold"]
    }
    tuner.kind.score = lambda _, checkpoint: scores_of(checkpoint)
    tuner.kind.headline = str
    source = fine_tuning._Source("dev", [], [], [], ())
    tuner._feature_file = lambda *_: contextlib.nullcontext(source)
    for epoch, step in enumerate(STEPS):
        if step < first:
            continue
        name = "model.ckpt-{}".format(step)
        checkpoint_state.write(checkpoint_state.State(name, [name]), str(output_dir))
        tuner._best.read_history(step)
        tuner._recover_best(None)
        tuner._score_epoch(source, epoch, step)


def step_of(checkpoint):
    return int(checkpoint.rsplit("-")[-1])


def check_usable(task_files, best_dir):
    """Weights and threshold of a model that somebody uses as it is are of one epoch."""
    if not (best_dir / "checkpoint").exists():  # half of the first one is refused
        names = checkpoints.run_files(str(best_dir)) if best_dir.is_dir() else []
        if not any(name.endswith(".index") for name in names):
            return
    checkpoint = model_directory.find_checkpoint(str(best_dir))
    assert model_files.load(str(best_dir)).labels == task_files.labels
    step = step_of(checkpoint)
    assert checkpoints.read_tensors(checkpoint)["w"] == step
    decision = model_directory.read_decision(str(best_dir))
    assert decision == {"threshold": THRESHOLDS[step]}


def check_best(task_files, output_dir, f1_again):
    """`best/` is the best epoch of the record, alone and with its scores."""
    history = json.loads((output_dir / "dev_scores.json").read_text())
    assert [entry["step"] for entry in history] == list(STEPS)
    best = max(history, key=lambda entry: entry["micro_f1"])
    best_dir = output_dir / "best"
    check_usable(task_files, best_dir)
    assert checkpoints.named_step(str(best_dir)) == best["step"]
    names = checkpoints.run_files(str(best_dir))
    assert {name.split(".")[1] for name in names} == {"ckpt-%d" % best["step"]}
    held = json.loads((best_dir / "eval_results.json").read_text())
    assert held["step"] == best["step"]
    assert held["dev"]["micro_f1"] in (best["micro_f1"], f1_again[best["step"]])
    lines = (best_dir / "eval_results.txt").read_text().splitlines()
    assert "step = {}".format(best["step"]) in lines
    decision = json.loads((best_dir / "decision.json").read_text())
    assert decision == {"threshold": THRESHOLDS[best["step"]], "step": best["step"]}


@pytest.fixture
def output_dir(tmp_path):
    """A directory with the checkpoints of a training."""
    output_dir = tmp_path / "out"
    output_dir.mkdir()
    for step in STEPS:
        prefix = str(output_dir / "model.ckpt")
        checkpoints.write_tensors({"w": np.int64(step), "global_step": step}, prefix)
    return output_dir


@pytest.mark.parametrize("f1", [F1, {10: 0.5, 20: 0.7, 30: 0.8}])
def test_a_best_model_that_was_removed_is_written_again(task_files, output_dir, f1):
    train(task_files, output_dir, f1)
    shutil.rmtree(str(output_dir / "best"))
    train(task_files, output_dir, f1, first=STEPS[-1])
    check_best(task_files, output_dir, f1)


def test_the_best_model_stays_where_a_run_goes_on_from_before_it(
    task_files, output_dir
):
    """The first epoch's checkpoint is deleted, and the newest one was damaged."""
    f1 = {10: 0.6, 20: 0.5, 30: 0.7}
    train(task_files, output_dir, f1)
    for path in output_dir.glob("model.ckpt-10*"):
        path.unlink()
    tuner = fine_tuning.FineTuner(task_files, str(output_dir))
    tuner._best.read_history(20)
    assert tuner._best.find_removed() is None
    assert step_of(tuner._best.find_checkpoint()) == 30
    train(task_files, output_dir, f1, first=20)
    check_best(task_files, output_dir, f1)
    # A new training knows nothing of a deleted one.
    tuner._best.read_history(0)
    assert tuner._best.history == []


def test_a_best_model_that_is_gone_for_good_is_an_error(task_files, output_dir):
    train(task_files, output_dir, F1)
    shutil.copytree(str(output_dir / "best"), str(output_dir / "copy"))
    shutil.rmtree(str(output_dir / "best"))
    for path in output_dir.glob("model.ckpt-20.*"):
        path.unlink()
    with pytest.raises(UserError, match="ckpt-20 .* no longer in .*best; copy it"):
        train(task_files, output_dir, F1, first=STEPS[-1])
    with pytest.raises(UserError, match="holds no fine-tuned model; run with"):
        fine_tuning.FineTuner(task_files, str(output_dir)).write_scores({})
    # As the message says.
    shutil.copytree(str(output_dir / "copy"), str(output_dir / "best"))
    train(task_files, output_dir, F1, first=STEPS[-1])
    check_best(task_files, output_dir, F1)


# Scores of a resumed run may differ: it may have another precision.
@pytest.mark.parametrize(
    "halves, f1_again", [(False, F1), (True, {10: 0.5, 20: 0.4, 30: 0.45})]
)
def test_a_kill_between_any_two_writes(
    task_files, output_dir, monkeypatch, halves, f1_again
):
    (output_dir / "checkpoint").unlink()
    prepared = {path.name: path.read_bytes() for path in output_dir.iterdir()}
    writes = Writes(monkeypatch)
    train(task_files, output_dir, F1)
    check_best(task_files, output_dir, F1)
    number = writes.done
    assert number > 20
    for kill in range(number):
        for path in sorted(output_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        for name, content in prepared.items():
            (output_dir / name).write_bytes(content)
        writes.kill_at(kill, halves)
        with pytest.raises(Killed):
            train(task_files, output_dir, F1)
        check_usable(task_files, output_dir / "best")
        writes.kill_at(-1, False)
        resumed = checkpoints.named_step(str(output_dir)) or STEPS[0]
        train(task_files, output_dir, f1_again, resumed)
        check_best(task_files, output_dir, f1_again)


@pytest.mark.parametrize(
    "ranks, expected",
    [([1], 0), ([1, 2, 3], 0), ([3, 2, 1], 2), ([1, 3, 3, 2], 2), ([2, 2], 1)],
)
def test_epochs_since_the_best(ranks, expected):
    assert best_model.epochs_since_best(iter(ranks)) == expected
