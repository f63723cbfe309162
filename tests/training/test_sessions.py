"""Epochs on one graph: order, resuming, SIGTERM, checkpoints; predictions; memory."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import Stopped, UserError
from albert_zh.models import checkpoints
from albert_zh.training import estimator as estimators
from albert_zh.training import sessions

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

NUM_EXAMPLES = 10
BATCH_SIZE = 4
STEPS_PER_EPOCH = 3
CPU = estimators.Device()


class Recorded:
    """A model of one weight that notes its batches, and how often it is built."""

    def __init__(self, output_dir, loss_factor=1.0):
        self.batches = []
        self.num_built = 0
        self._output_dir = str(output_dir)
        self._loss_factor = loss_factor

    def _note(self, batch):
        self.batches.append(batch.tolist())
        return np.int64(0)

    def model_fn(self, features, labels, mode, params):
        self.num_built += 1
        weight = tf.get_variable("weight", [], initializer=tf.zeros_initializer())
        values = tf.cast(features, tf.float32)
        if mode == tf.estimator.ModeKeys.PREDICT:
            predictions = {"product": values * weight}
            return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=predictions)
        noted = tf.py_func(self._note, [features], tf.int64)
        loss = tf.reduce_mean((values - weight) ** 2) * self._loss_factor
        step = tf.train.get_global_step()
        train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, step)
        return tf.estimator.tpu.TPUEstimatorSpec(
            mode, loss=loss, train_op=tf.group(train, noted)
        )

    def train(
        self,
        first_epoch,
        num_epochs,
        after_epoch=lambda epoch: None,
        device=CPU,
    ):
        job = sessions.Job(
            self.model_fn,
            lambda batch_size, seed, skip: (
                tf.data.Dataset.range(NUM_EXAMPLES)
                .shuffle(NUM_EXAMPLES, seed=seed)
                .batch(batch_size)
                .skip(skip)
            ),
            "numbers",
            self._output_dir,
            BATCH_SIZE,
            num_train_steps=num_epochs * STEPS_PER_EPOCH,
            seed=first_epoch,  # must not decide about the order
            saving=estimators.Saving(keep_checkpoint_max=2),
        )
        with sessions.open_trainer(job, device) as trainer:
            for epoch in range(first_epoch, num_epochs):
                trainer.train(epoch, 0, (epoch + 1) * STEPS_PER_EPOCH)
                after_epoch(epoch)
                trainer.check_stop((epoch + 1) * STEPS_PER_EPOCH)


@pytest.fixture
def whole(tmp_path):
    """Three epochs in one go."""
    recorded = Recorded(tmp_path / "whole")
    recorded.train(0, 3)
    return recorded


def test_each_epoch_is_another_permutation_on_the_same_graph(whole, tmp_path):
    assert whole.num_built == 1
    epochs = [sum(whole.batches[i : i + 3], []) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(NUM_EXAMPLES)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    names = sorted(
        path.name for path in (tmp_path / "whole").glob("model.ckpt-*.index")
    )
    assert names == ["model.ckpt-6.index", "model.ckpt-9.index"]


def test_a_resumed_training_ends_as_an_uninterrupted_one(whole, tmp_path):
    resumed = Recorded(tmp_path / "resumed")
    resumed.train(0, 1)
    resumed.train(1, 3)
    assert resumed.batches == whole.batches
    weights = [
        checkpoints.read_tensors(str(tmp_path / name / "model.ckpt-9"))["weight"]
        for name in ("whole", "resumed")
    ]
    assert weights[0] == weights[1] != 0


def test_every_epoch_ends_with_its_checkpoint(tmp_path):
    recorded, latest = Recorded(tmp_path), []
    recorded.train(0, 2, lambda _: latest.append(tf.train.latest_checkpoint(tmp_path)))
    assert [os.path.basename(path) for path in latest] == [
        "model.ckpt-3",
        "model.ckpt-6",
    ]


def test_sigterm_between_two_epochs_ends_the_training(whole, tmp_path):
    stopped = Recorded(tmp_path / "stopped")
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 3 of 9, "):
        stopped.train(0, 3, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    stopped.train(1, 3)
    assert stopped.batches == whole.batches


def test_a_loss_of_nan_is_one_line(tmp_path):
    with pytest.raises(UserError, match="the loss became NaN"):
        Recorded(tmp_path, loss_factor=float("nan")).train(0, 1)


def test_too_little_memory_is_one_line():
    message = "OOM when allocating tensor with shape[64,512]\nmore"
    with pytest.raises(UserError, match=r"shape\[64,512\]\); give a smaller batch"):
        with estimators.one_line_errors([]):
            raise tf.errors.ResourceExhaustedError(None, None, message)


def test_predictions_take_any_checkpoint_file_and_batch_size(whole, tmp_path):
    whole.num_built = 0
    predictor = sessions.Predictor(
        whole.model_fn,
        lambda path, batch_size: (
            tf.data.Dataset.from_tensor_slices(tf.strings.bytes_split(path))
            .map(lambda character: tf.strings.to_number(character, tf.int64))
            .batch(batch_size)
        ),
        str(tmp_path),
        CPU,
    )
    for step, digits, batch_size in ((9, "12345", 2), (6, "789", 3), (9, "1", 4)):
        checkpoint = str(tmp_path / "whole" / "model.ckpt-{}".format(step))
        weight = checkpoints.read_tensors(checkpoint)["weight"]
        batches = list(predictor.predict(digits, checkpoint, batch_size))
        assert [len(batch["product"]) for batch in batches][:1] == [
            min(batch_size, len(digits))
        ]
        values = np.concatenate([batch["product"] for batch in batches])
        np.testing.assert_allclose(values, [int(d) * weight for d in digits], rtol=1e-6)
    assert whole.num_built == 1


@pytest.fixture
def tpu(monkeypatch):
    """A `Device` that is called a TPU, but whose estimators compute here."""
    build = estimators.build_estimator

    def build_here(model_fn, output_dir, device, *arguments):
        return build(model_fn, output_dir, device._replace(use_tpu=False), *arguments)

    monkeypatch.setattr(estimators, "build_estimator", build_here)
    return estimators.Device(use_tpu=True)


def test_on_a_tpu_every_epoch_is_an_estimators(tpu, tmp_path):
    recorded = Recorded(tmp_path)
    recorded.train(0, 2, device=tpu)
    assert recorded.num_built == 2
    for epoch in (recorded.batches[:3], recorded.batches[3:]):
        assert sorted(sum(epoch, [])) == list(range(NUM_EXAMPLES))
    latest = tf.train.latest_checkpoint(str(tmp_path))
    assert latest == str(tmp_path / "model.ckpt-6")
    predictor = sessions.Predictor(
        recorded.model_fn,
        lambda path, batch_size: tf.data.Dataset.range(int(path)).batch(batch_size),
        str(tmp_path),
        tpu,
    )
    batches = list(predictor.predict("5", latest, 2))
    assert [len(batch["product"]) for batch in batches] == [2, 2, 1]


def test_sigterm_on_a_tpu_ends_the_training(tpu, tmp_path):
    stopped = Recorded(tmp_path)
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 3 of 6, "):
        stopped.train(0, 2, lambda _: os.kill(os.getpid(), signal.SIGTERM), device=tpu)


_FINE_TUNE = """
import json, os, resource, sys
import run_classifier
from albert_zh import command_line
command_line.run(run_classifier.main, run_classifier.build_parser(), sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_epochs(tmp_path, repository):
    """A graph an epoch, and one a scoring, took 20 MB an epoch of this model."""
    characters = [chr(0x4E00 + i) for i in range(20)]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_bytes("\n".join(specials + characters).encode())
    (tmp_path / "config.json").write_text(
        '{"vocab_size": 25, "embedding_size": 8, "hidden_size": 16,'
        '"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,'
        '"max_position_embeddings": 16, "ln_type": "postln"}'
    )
    rows = ["{}\t{}\n".format(c, i % 2) for i, c in enumerate(characters)]
    (tmp_path / "data.tsv").write_bytes("".join(rows).encode("utf-8"))
    flags = (
        "--task_name=single --do_train --do_eval --vocab_file=vocab.txt "
        "--bert_config_file=config.json --train_file=data.tsv --dev_file=data.tsv "
        "--max_seq_length=8 --output_dir={0} --num_train_epochs={0}"
    )

    def peak_kilobytes(num_epochs):
        result = subprocess.run(
            [sys.executable, "-c", _FINE_TUNE] + flags.format(num_epochs).split(),
            cwd=str(tmp_path),
            env=dict(os.environ, PYTHONPATH=str(repository), PYTHONIOENCODING="utf-8"),
            capture_output=True,
            encoding="utf-8",
            timeout=600,
        )
        assert result.returncode == 0, result.stderr
        return int(result.stdout.rsplit("peak", 1)[1])

    # 20 epochs more: 400 MB, were graphs kept.
    assert peak_kilobytes(22) < peak_kilobytes(2) + 60 * 1024
