"""Pretraining that is stopped, or killed, and goes on as if undisturbed."""

import json
import logging
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import run_pretraining
from albert_zh import command_line
from albert_zh.data import record_format
from albert_zh.models import checkpoints

LENGTH, PREDICTIONS, VOCABULARY = 16, 4, 40
# Many steps, so that a process is still far from the end when its first checkpoint is
# seen.
NUM_STEPS, SAVE_STEPS = 400, 20
BATCH = 8
SIZES = [17, 40]  # an epoch is no whole number of batches
# For the process to reach its first checkpoint.
TIMEOUT_SECONDS = 300

CONFIG = {
    "vocab_size": VOCABULARY,
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": LENGTH,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "ln_type": "postln",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of a config, a vocabulary and records, which are masked in training."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += ["t{}".format(number) for number in range(len(tokens), VOCABULARY)]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    random = np.random.RandomState(0)
    for number, size in enumerate(SIZES):
        path = str(folder / "{}.tfrecord".format(number))
        record_format.write_records([_record(random) for _ in range(size)], path)
    return folder


def _record(random):
    ids = random.randint(5, VOCABULARY, LENGTH)
    ids[[0, 7, LENGTH - 1]] = 2, 3, 3
    return record_format.encode_example(
        {
            "input_ids": ids,
            "input_mask": np.ones(LENGTH, np.int64),
            "segment_ids": np.arange(LENGTH) > 7,
            "word_lengths": ids > 3,
            "next_sentence_labels": [random.randint(2)],
        }
    )


def _flags(data, output_dir, **flags):
    values = {
        "input_file": data / "*.tfrecord",
        "albert_config_file": data / "config.json",
        "vocab_file": data / "vocab.txt",
        "output_dir": output_dir,
        "do_train": True,
        "max_seq_length": LENGTH,
        "max_predictions_per_seq": PREDICTIONS,
        "train_batch_size": BATCH,
        "num_train_steps": NUM_STEPS,
        "num_warmup_steps": 10,
        "learning_rate": 0.01,
        "save_checkpoints_steps": SAVE_STEPS,
        "keep_checkpoint_max": 100,
        "shuffle_buffer_size": 20,
    }
    values.update(flags)
    return ["--{}={}".format(name, value) for name, value in values.items()]


def run(data, output_dir, **flags):
    """Runs the command in this process."""
    argv = _flags(data, output_dir, **flags)
    command_line.run(run_pretraining.main, run_pretraining.build_parser(), argv)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """Output directory of a run that nothing disturbs."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    run(data, output_dir)
    return output_dir


def _run_until_saved(repository, data, output_dir, signal_number, **flags):
    """Starts the command, sends a signal when a checkpoint is there; code, stdout."""
    process = subprocess.Popen(
        [sys.executable, str(repository / "run_pretraining.py")]
        + _flags(data, output_dir, **flags),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    # Names the checkpoints that are complete.
    saved, name = output_dir / "checkpoint", "model.ckpt-{}".format(SAVE_STEPS)
    end = time.monotonic() + TIMEOUT_SECONDS
    try:
        while not (saved.exists() and name in saved.read_text()):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal_number)
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        process.kill()
        process.wait()
    return process.returncode, output


def _last_step(output_dir):
    return checkpoints.read_step(checkpoints.latest_checkpoint(str(output_dir)))


def _losses(output_dir):
    """Returns the loss curve, {step: loss}."""
    losses = {}
    for path in output_dir.glob("events.out.tfevents*.v2"):
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "loss":
                    losses[event.step] = float(tf.make_ndarray(value.tensor))
    return losses


def _assert_same_end(output_dir, undisturbed):
    """Checks weights and optimizer slots of the last step."""
    prefixes = [
        checkpoints.latest_checkpoint(str(d)) for d in (output_dir, undisturbed)
    ]
    actual, expected = (tf.train.load_checkpoint(prefix) for prefix in prefixes)
    shapes = expected.get_variable_to_shape_map()
    assert actual.get_variable_to_shape_map() == shapes
    for name in shapes:
        np.testing.assert_allclose(
            actual.get_tensor(name), expected.get_tensor(name), 1e-6, 1e-8, err_msg=name
        )


def test_a_run_ended_by_sigterm_goes_on_to_the_same_weights(
    repository, data, undisturbed, tmp_path, caplog
):
    code, output = _run_until_saved(
        repository, data, tmp_path, signal.SIGTERM, do_eval=True
    )
    assert code == 0
    message = (
        "stopped by SIGTERM at step (.*) of {}, .* rerun the same command to resume\n"
    )
    step = int(re.fullmatch(message.format(NUM_STEPS), output).group(1))
    assert SAVE_STEPS <= step < NUM_STEPS
    assert _last_step(tmp_path) == step
    assert not (tmp_path / "eval_results.json").exists()
    with caplog.at_level("INFO"):
        run(data, tmp_path, do_eval=True)
    assert "resuming from {}-{}".format(tmp_path / "model.ckpt", step) in caplog.text
    assert "resumes after {} records".format(step * BATCH) in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    _assert_same_end(tmp_path, undisturbed)
    assert _losses(tmp_path) == pytest.approx(_losses(undisturbed), rel=1e-6)
    assert (tmp_path / "eval_results.json").exists()


def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_weights(
    repository, data, undisturbed, tmp_path, caplog
):
    code, _ = _run_until_saved(repository, data, tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    step = _last_step(tmp_path)
    assert 0 < step < NUM_STEPS and step % SAVE_STEPS == 0
    with caplog.at_level("INFO"):
        run(data, tmp_path)
    assert "resumes after {} records".format(step * BATCH) in caplog.text
    _assert_same_end(tmp_path, undisturbed)
    last_points = {s: loss for s, loss in _losses(tmp_path).items() if s >= step}
    expected = {s: loss for s, loss in _losses(undisturbed).items() if s >= step}
    assert last_points == pytest.approx(expected, rel=1e-6)


@pytest.mark.once
@pytest.mark.parametrize("room", [3000, 60000])
def test_a_full_disk_is_one_line_and_the_run_goes_on(
    data, tmp_path, run_command, assert_user_error, room
):
    """Files cannot grow beyond `room`: that stands in for a full disk."""
    flags = _flags(data, tmp_path / "out", num_train_steps=4, num_warmup_steps=1)
    limited = tmp_path / "limited.py"
    limited.write_text(
        "import os, resource, runpy, sys\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, ({}, hard))\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n".format(room)
    )
    result = run_command(limited, run_pretraining.__file__, *flags)
    assert_user_error(result, "cannot write", "File too large")
    assert not [path.name for path in (tmp_path / "out").glob("model.ckpt*.index")]
    for output_dir in ("out", "undisturbed"):
        flags = _flags(
            data, tmp_path / output_dir, num_train_steps=4, num_warmup_steps=1
        )
        assert run_command(run_pretraining.__file__, *flags).returncode == 0
    last = [
        checkpoints.latest_checkpoint(str(tmp_path / name))
        for name in ("out", "undisturbed")
    ]
    left, right = (tf.train.load_checkpoint(path) for path in last)
    for name in left.get_variable_to_shape_map():
        np.testing.assert_array_equal(left.get_tensor(name), right.get_tensor(name))
    assert not list((tmp_path / "out").glob("*temp*"))
    assert not list((tmp_path / "out").glob("graph.pbtxt.tmp*"))
