"""Pretraining on several devices equals one device with the whole batch.

The batch is all records, so that their order within it does not matter. The two files
have different numbers of predictions: a mean of the workers' means would be wrong.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import run_pretraining
from albert_zh.base.errors import UserError
from albert_zh.data import record_format
from albert_zh.models import checkpoints
from benchmarks.faults import ports

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
TIMEOUT_SECONDS = 300
LENGTH, PREDICTIONS, VOCABULARY, BATCH = 16, 3, 40, 16
TOLERANCE = 1e-5
# Workers add gradients up in another order than one process does, and fifty steps let
# the difference grow with the value.
RELATIVE_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with two record files and a config."""
    path = tmp_path_factory.mktemp("distributed")
    random = np.random.RandomState(0)
    for number in range(2):
        records = [_record(random, PREDICTIONS - 2 * number) for _ in range(BATCH // 2)]
        record_format.write_records(
            records, str(path / "part{}.tfrecord".format(number))
        )
    config = {
        "vocab_size": VOCABULARY,
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": LENGTH,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "ln_type": "postln",
    }
    (path / "config.json").write_text(json.dumps(config))
    return path


def _record(random, num_predictions):
    weights = np.zeros(PREDICTIONS)
    weights[:num_predictions] = 1
    return record_format.encode_example(
        {
            "input_ids": random.randint(5, VOCABULARY, LENGTH),
            "input_mask": np.ones(LENGTH, np.int64),
            "segment_ids": np.repeat([0, 1], LENGTH // 2),
            "masked_lm_positions": np.sort(random.choice(LENGTH, PREDICTIONS, False)),
            "masked_lm_ids": random.randint(5, VOCABULARY, PREDICTIONS),
            "masked_lm_weights": weights,
            "next_sentence_labels": random.randint(2, size=1),
        }
    )


def flags(folder, output_dir, **changes):
    values = {
        "input_file": str(folder / "part*.tfrecord"),
        "albert_config_file": str(folder / "config.json"),
        "output_dir": str(output_dir),
        "do_train": True,
        "max_seq_length": LENGTH,
        "max_predictions_per_seq": PREDICTIONS,
        "train_batch_size": BATCH,
        "num_train_steps": 100000,
        "num_warmup_steps": 2,
        "learning_rate": 0.01,
        "precision": "float32",
        "save_checkpoints_steps": 10,
        "keep_checkpoint_max": 100000,
    }
    values.update(changes)
    return ["--{}={}".format(name, value) for name, value in values.items()]


def run(*arguments, **changes):
    """Runs the command in this process."""
    argv = flags(*arguments, **changes)
    run_pretraining.main(run_pretraining.build_parser().parse_args(argv))


@pytest.fixture(scope="module")
def init_checkpoint(folder):
    run(folder, folder / "init", num_train_steps=3)
    return checkpoints.latest_checkpoint(str(folder / "init"))


def launch(log, *arguments, **changes):
    """Starts two workers; their output goes to the path `log`."""
    command = ["launch_workers.py", "--num_workers=2"]
    command += ["--allow_open_ports"] * (not ports.has_private_networks())
    command += ["run_pretraining.py"]
    with open(str(log), "wb") as output:
        return subprocess.Popen(
            [sys.executable]
            + command
            + flags(*arguments, distribution="multi_worker", **changes),
            cwd=str(REPOSITORY),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_until(condition, process, log):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def finish(process, log):
    """Waits for a launcher, ends it if it takes too long; returns its exit code."""
    try:
        return process.wait(TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(log.read_text())
    finally:
        if process.poll() is None:
            end(process, log)


def end(process, log):
    """Ends a launcher, which then ends its workers; by force if it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        # They have sessions of their own and outlive it.
        for pid in worker_pids(log):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def worker_pids(log):
    """The workers' processes by rank, as a launcher names them in its log."""
    return [int(pid) for pid in re.findall(r"is process (\d+)", log.read_text())]


def assert_equal(actual, expected, names=None):
    """Compares two checkpoints, the optimizer's slots included."""
    expected = checkpoints.read_tensors(expected, keep_training_state=True)
    actual = checkpoints.read_tensors(actual, keep_training_state=True)
    assert names or set(actual) == set(expected)
    for name in names or expected:
        np.testing.assert_allclose(
            actual[name],
            expected[name],
            rtol=RELATIVE_TOLERANCE,
            atol=TOLERANCE,
            err_msg=name,
        )


@pytest.fixture(scope="module")
def killed(folder, init_checkpoint):
    """What is left of two workers of which one was killed.

    Returns:
      Output folder, log, and what `ports.not_private` said as they trained.
    """
    output, log = folder / "workers", folder / "killed.log"
    process = launch(log, folder, output, init_checkpoint=init_checkpoint)
    try:
        saved = output / "model.ckpt-20.index"
        wait_until(saved.exists, process, log)
        problem = ports.not_private(worker_pids(log))
        os.kill(worker_pids(log)[1], signal.SIGKILL)
        code = finish(process, log)
    finally:
        if process.poll() is None:
            end(process, log)
    assert code == 128 + signal.SIGKILL
    assert "worker 1 ended with code -9; ending all" in log.read_text()
    return output, log.read_text(), problem


@pytest.mark.once
def test_nobody_else_reaches_workers_that_train(killed, private_network):
    assert killed[2] is None


def test_workers_start_from_the_initial_checkpoint(killed, init_checkpoint):
    output, log, _ = killed
    report = "{}: .* 0 missing, 0 unused".format(init_checkpoint)
    assert len(re.findall(report, log)) == 2
    start = str(output / "model.ckpt-0")
    names = [name for name in checkpoints.read_tensors(start) if name != "global_step"]
    assert len(names) > 20
    assert_equal(start, init_checkpoint, names)


def test_killed_workers_go_on_and_equal_one_with_the_doubled_batch(
    folder, killed, tmp_path
):
    output, log = killed[0], tmp_path / "log"
    shutil.copytree(str(output), str(tmp_path / "one"))
    step = int(checkpoints.latest_checkpoint(str(output)).split("-")[-1])
    goal = {"num_train_steps": step + 50, "do_eval": True}  # one point of the curves
    process = launch(log, folder, output, **goal)
    assert finish(process, log) == 0, log.read_text()
    assert "resuming from {}-{}".format(output / "model.ckpt", step) in log.read_text()

    run(folder, tmp_path / "one", **goal)
    name = "model.ckpt-{}".format(step + 50)
    assert_equal(str(output / name), str(tmp_path / "one" / name))
    results = [
        json.loads((path / "eval_results.json").read_text())
        for path in (output, tmp_path / "one")
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    # Only the chief writes curves, and they are those of the whole batch.
    assert _last_curves(output) == pytest.approx(_last_curves(tmp_path / "one"), 1e-4)
    assert not list(output.glob("tmp*"))


def test_sigterm_saves_the_same_step_on_all_workers(folder, tmp_path):
    output, log = tmp_path / "out", tmp_path / "log"
    process = launch(log, folder, output)
    try:
        saved = output / "model.ckpt-10.index"
        wait_until(saved.exists, process, log)
        process.send_signal(signal.SIGTERM)
        assert finish(process, log) == 0, log.read_text()
    finally:
        if process.poll() is None:
            end(process, log)
    text = log.read_text()
    steps = re.findall(r"worker (\d)\] stopped by SIGTERM at step (\d+)", text)
    assert sorted(rank for rank, _ in steps) == ["0", "1"], text
    assert len({step for _, step in steps}) == 1
    assert checkpoints.latest_checkpoint(str(output)).endswith("-" + steps[0][1])


def _points(path):
    """dict tag -> pairs of step and value, of one event file."""
    points = {}
    for event in tf.train.summary_iterator(str(path)):
        for value in event.summary.value:
            number = tf.make_ndarray(value.tensor)
            points.setdefault(value.tag, []).append((event.step, float(number)))
    return points


def _last_curves(output_dir):
    """dict tag -> value of the last point of the TensorBoard curves."""
    # One file for each of the two starts: no worker but the chief writes any.
    _, second = sorted(output_dir.glob("events*.v2"), key=os.path.getmtime)
    points = _points(second)
    assert {"loss", "masked_lm_accuracy", "gradient_norm"} <= set(points)
    assert all(len(dict(values)) == len(values) for values in points.values())
    return {tag: max(values)[1] for tag, values in points.items()}


def check_mirrored(folder, init_checkpoint, output):
    """Trains on two logical CPUs by micro-batches, in a process of its own.

    (`test_optimization.check_mirrored_replicas` says why.)
    """
    import modeling
    from albert_zh.data import input_pipeline
    from albert_zh.training import distribution as distributions
    from albert_zh.training import estimator as estimators
    from albert_zh.training import pretraining_model

    if hasattr(tf.config, "set_logical_device_configuration"):
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
    distribution = distributions.Distribution(
        tf.distribute.MirroredStrategy(
            ["/cpu:0", "/cpu:1"],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    )
    model_fn = pretraining_model.model_fn_builder(
        modeling.AlbertConfig.from_json_file(os.path.join(folder, "config.json")),
        estimators.Start(output, init_checkpoint),
        estimators.Schedule("lamb", 0.01, 20, 2, BATCH),
        micro_batch_size=4,
    )
    estimator = estimators.build_distributed_estimator(
        model_fn, output, distribution, BATCH
    )
    estimator.config.session_config.device_count["CPU"] = 2
    files = [os.path.join(folder, "part{}.tfrecord".format(i)) for i in range(2)]
    input_fn = input_pipeline.input_fn_builder(
        files, LENGTH, PREDICTIONS, VOCABULARY, True, seed=1
    )
    estimators.train(estimator, estimators.Input(input_fn, files), 20, distribution)


def test_mirrored_replicas_equal_one_device(folder, init_checkpoint, tmp_path):
    run(folder, tmp_path / "one", num_train_steps=20, init_checkpoint=init_checkpoint)
    arguments = [str(folder), init_checkpoint, str(tmp_path / "mirrored")]
    check = (
        "import sys, test_distributed_training as t; t.check_mirrored(*sys.argv[1:])"
    )
    result = subprocess.run(
        [sys.executable, "-c", check] + arguments,
        cwd=os.path.dirname(__file__),
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
    )
    assert result.returncode == 0, result.stdout
    name = "model.ckpt-20"
    assert_equal(str(tmp_path / "mirrored" / name), str(tmp_path / "one" / name))


def test_mirrored_on_one_device_trains_and_evaluates(folder, tmp_path):
    run(folder, tmp_path, num_train_steps=3, distribution="mirrored", do_eval=True)
    results = json.loads((tmp_path / "eval_results.json").read_text())
    assert results["global_step"] == 3


TWO_WORKERS = json.dumps(
    {
        "cluster": {"worker": ["127.0.0.1:0001", "127.0.0.1:0002"]},
        "task": {"type": "worker", "index": 0},
    }
)


@pytest.mark.parametrize(
    "tf_config, changes, words",
    [
        (None, {"distribution": "multi_worker"}, "TF_CONFIG is not set"),
        ("{", {"distribution": "multi_worker"}, "TF_CONFIG is not JSON"),
        (TWO_WORKERS, {}, "--distribution=none: TF_CONFIG names 2 workers"),
        (None, {"distribution": "mirrored", "use_tpu": True}, "with --use_tpu"),
        (None, {"allow_open_ports": True}, "requires --distribution=multi_worker"),
    ],
)
def test_bad_flags_stop_before_the_work(
    folder, tmp_path, monkeypatch, tf_config, changes, words
):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if tf_config:
        monkeypatch.setenv("TF_CONFIG", tf_config)
    with pytest.raises(UserError, match=words):
        tpu = {"tpu_name": "grpc://x:1"} if "use_tpu" in changes else {}
        run(folder, tmp_path / "out", **tpu, **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"train_batch_size": 15}, "--train_batch_size 15 is not divisible by the 2"),
        ({"input_file": "part0.tfrecord"}, "1 input files for 2 workers"),
        ({}, "worker 1 does not answer at 127.0.0.1:"),
    ],
)
def test_a_worker_s_run_stops_with_one_line(
    folder, tmp_path, run_command, assert_user_error, monkeypatch, changes, words
):
    addresses = _free_addresses(2)
    config = {
        "cluster": {"worker": addresses},
        "task": {"type": "worker", "index": 0},
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    arguments = flags(
        folder,
        tmp_path / "out",
        distribution="multi_worker",
        worker_timeout=1,
        allow_open_ports=True,  # they open none
        **changes,
    )
    result = run_command("run_pretraining.py", *arguments, cwd=folder)
    assert_user_error(result, words)
    assert not list((tmp_path).glob("out/model.ckpt*"))


def _free_addresses(number):
    from albert_zh.training import launcher

    return launcher._free_addresses(number)
