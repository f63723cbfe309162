"""TF_CONFIG, checks before distributed training, and the watch over its workers."""

import contextlib
import json
import os
import signal
import socket
import threading

import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import Stopped, UserError
from albert_zh.training import distribution, network
from albert_zh.training.distribution import Cluster
from albert_zh.training.preemption import StopHook

WAIT_SECONDS = 60


def config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


WORKERS = {"worker": ["a:1", "b:2"]}
WITH_CHIEF = {"chief": ["c:3"], "worker": ["a:1", "[::1]:2"]}


@pytest.mark.parametrize(
    "text, expected",
    [
        (config(WORKERS), Cluster(["a:1", "b:2"], 0)),
        (config(WORKERS, index="1"), Cluster(["a:1", "b:2"], 1)),
        (config(WITH_CHIEF, "chief"), Cluster(["c:3", "a:1", "[::1]:2"], 0)),
        (config(WITH_CHIEF, index=1), Cluster(["c:3", "a:1", "[::1]:2"], 2)),
    ],
)
def test_cluster_is_read_with_the_chief_first(text, expected):
    assert distribution.parse_tf_config(text) == expected


@pytest.mark.parametrize(
    "text, words",
    [
        ("{'cluster'", "is not JSON"),
        ("[]", "is not a JSON object"),
        (config(["a:1"]), "has a cluster that is not a JSON object"),
        (config({"ps": ["a:1"], "worker": ["b:2"]}), "names the job 'ps'"),
        (config({"worker": "a:1"}), "has no list of addr"),
        (config({"worker": ["a"]}), "has the address 'a', expected host:port"),
        (config({"worker": ["a:99999"]}), "has the address 'a:99999'"),
        (config({"worker": ["a:²"]}), "has the address 'a:²'"),
        (config({"worker": ["::1:22"]}), "has the address '::1:22'"),
        (config({"worker": ["a:1", "a:1"]}), "names an address twice"),
        (config({"chief": ["a:1", "b:2"]}, "chief"), "names 2 chiefs"),
        (
            config(WORKERS, index=2),
            "names no worker for this task .type 'worker', index 2",
        ),
        (config(WORKERS, index=-1), "names no worker for this task"),
        (config(WORKERS, index="²"), "names no worker for this task"),
        (config(WORKERS, index="9" * 5000), "names no worker for this task"),
        (config(WORKERS, index=True), "names no worker for this task"),
        (config(WORKERS, kind=[]), "names no worker for this task .type \\[\\]"),
        (config(WORKERS, index=None), "names no worker for this task"),
        (config(WORKERS, "chief"), "names no worker for this task .type 'chief'"),
        ('{"cluster": {"worker": ["a:1"]}}', "names no worker for this task"),
    ],
)
def test_wrong_tf_config_is_one_line(text, words):
    with pytest.raises(UserError, match="TF_CONFIG " + words) as caught:
        distribution.parse_tf_config(text)
    assert "\n" not in str(caught.value)


def test_tpu_takes_no_distribution():
    with pytest.raises(UserError, match="--distribution=mirrored with --use_tpu"):
        distribution.create("mirrored", True, 1)
    assert distribution.create("none", True, 1) == distribution.ONE_DEVICE


@pytest.mark.parametrize("kind", ["none", "mirrored"])
def test_several_workers_are_not_taken_for_one(kind, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config(WORKERS))
    with pytest.raises(UserError, match="names 2 workers"):
        distribution.create(kind, False, 1)


def test_multi_worker_needs_tf_config_and_its_port(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match="TF_CONFIG is not set"):
        distribution.create("multi_worker", False, 1)
    with listener() as address:
        monkeypatch.setenv("TF_CONFIG", config({"worker": [address, "b:2"]}))
        with pytest.raises(UserError, match="{} cannot be used".format(address)):
            distribution.create("multi_worker", False, 1)


LOOPBACK = ["127.0.0.1:23456", "[::1]:23457", "localhost:23458"]


@pytest.mark.parametrize("addresses", [LOOPBACK, LOOPBACK[:1]])
def test_local_workers_on_open_ports_are_refused(monkeypatch, addresses):
    monkeypatch.setenv("TF_CONFIG", config({"worker": addresses}))
    monkeypatch.setattr(network, "open_interfaces", lambda: ["eth0", "wlan0"])
    words = "127.0.0.1:23456, on eth0, wlan0 as well.*launch_workers.py.*--allow_open"
    with pytest.raises(UserError, match=words):
        distribution.create("multi_worker", False, 1)


def check_warning(monkeypatch, caplog, addresses, interfaces, allow_open_ports):
    """The warnings of a worker that is let through."""
    monkeypatch.setenv("TF_CONFIG", config({"worker": addresses}))
    monkeypatch.setattr(network, "open_interfaces", lambda: interfaces)
    monkeypatch.setattr(distribution, "_multi_worker_strategy", lambda: "strategy")
    created = distribution.create("multi_worker", False, 1, allow_open_ports)
    assert created.strategy == "strategy"
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "addresses, allow", [(LOOPBACK, True), (["host0:23456", "host1:23457"], False)]
)
def test_open_ports_are_told(monkeypatch, caplog, addresses, allow):
    (warning,) = check_warning(monkeypatch, caplog, addresses, ["eth0"], allow)
    assert "port 23456 of this machine is open by eth0" in warning
    assert "can read and write files as this user" in warning
    assert "docs/security.md" in warning


@pytest.mark.parametrize("allow", [False, True])
def test_ports_that_only_this_machine_reaches_need_no_word(monkeypatch, caplog, allow):
    assert not check_warning(monkeypatch, caplog, LOOPBACK, [], allow)


def test_ports_of_a_real_cluster_need_no_flag(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config({"worker": LOOPBACK[:1] + ["host1:23457"]}))
    with pytest.raises(UserError, match="--allow_open_ports is for workers that"):
        distribution.create("multi_worker", False, 1, True)


NO_CLUSTERS = [
    "{}",
    '{"task": {"type": "worker", "index": 0}}',
    config({}),
    config(None),
]


@pytest.mark.parametrize("text", NO_CLUSTERS)
def test_tf_config_without_a_cluster_counts_as_none(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    words = "--distribution=multi_worker: TF_CONFIG has no cluster; expected"
    with pytest.raises(UserError, match=words):
        distribution.create("multi_worker", False, 1)
    assert distribution.create("none", False, 1) == distribution.ONE_DEVICE
    tf.estimator.RunConfig()
    monkeypatch.setenv("TF_CONFIG", text)
    mirrored = distribution.create("mirrored", False, 1)
    assert mirrored.strategy and not mirrored.cluster


def test_batch_that_devices_cannot_share_is_refused():
    distribution.check_divisible(64, 4)
    with pytest.raises(UserError, match="--train_batch_size 66 .* the 4 .* is: 68"):
        distribution.check_divisible(66, 4)


def test_every_worker_needs_a_file():
    workers = distribution.Distribution(cluster=Cluster(["a:1", "b:2"], 1))
    distribution.check_enough_files(["x", "y"], workers)
    distribution.check_enough_files(["x"], distribution.ONE_DEVICE)
    with pytest.raises(UserError, match="1 input files for 2 workers"):
        distribution.check_enough_files(["x"], workers)


def test_one_device_is_left_as_it_is(monkeypatch):
    # Some schedulers set TF_CONFIG for a single process as well.
    monkeypatch.setenv("TF_CONFIG", config({"worker": ["a:1"]}))
    assert distribution.create("none", False, 1) == distribution.ONE_DEVICE
    # Estimator would demand a chief of it.
    tf.estimator.RunConfig()


@contextlib.contextmanager
def listener():
    """Yields the address of a port that accepts connections."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)
        yield "127.0.0.1:{}".format(server.getsockname()[1])


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:{}".format(probe.getsockname()[1])


def test_worker_that_does_not_start_is_named(monkeypatch):
    monkeypatch.setattr(distribution, "_RETRY_SECONDS", 0.01)
    with listener() as address:
        missing = free_address()
        cluster = Cluster([address, missing, "127.0.0.1:1"], 2)
        hook = distribution.WorkersHook(cluster, timeout=1)
        words = "worker 1 does not answer at {} within --worker_timeout=1".format(
            missing
        )
        with pytest.raises(UserError, match=words):
            hook.begin()


def test_waiting_for_a_worker_ends_with_sigterm(monkeypatch):
    monkeypatch.setattr(distribution, "_RETRY_SECONDS", 0.01)
    cluster = Cluster([free_address(), "127.0.0.1:1"], 1)
    answers = iter([False, False, True])
    hook = distribution.WorkersHook(
        cluster, timeout=600, is_stop_requested=lambda: next(answers)
    )
    with pytest.raises(Stopped, match="stopped while worker 0 at 127.0.0.1"):
        hook.begin()


def test_sigterm_ends_the_wait_of_a_training(monkeypatch):
    cluster = Cluster([free_address(), "127.0.0.1:1"], 1)
    workers = distribution.Distribution(cluster=cluster, worker_timeout=600)

    def train_and_evaluate(_, training, __):
        os.kill(os.getpid(), signal.SIGTERM)
        for hook in training.hooks:
            hook.begin()

    monkeypatch.setattr(tf.estimator, "train_and_evaluate", train_and_evaluate)
    with StopHook() as sigterm, pytest.raises(Stopped, match="did not answer"):
        distribution.train_workers(None, lambda: None, 1, workers, sigterm)


def watch(monkeypatch, timeout):
    """A started hook of rank 1, its listening worker 0, and what it says when lost."""
    monkeypatch.setattr(distribution, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(distribution, "_ENDED_SECONDS", 0.1)
    messages, is_lost = [], threading.Event()

    def end_process(message):
        messages.append(message)
        is_lost.set()

    stack = contextlib.ExitStack()
    address = stack.enter_context(listener())
    cluster = Cluster([address, "127.0.0.1:1"], 1)
    hook = distribution.WorkersHook(cluster, timeout, end_process)
    hook.begin()
    return hook, stack, is_lost, messages


def test_worker_lost_within_a_step_ends_the_process(monkeypatch):
    hook, worker, is_lost, messages = watch(monkeypatch, timeout=60)
    hook.before_run(None)
    worker.close()
    assert is_lost.wait(WAIT_SECONDS)
    hook.stop()
    assert "worker 0 at 127.0.0.1:" in messages[0]
    assert "has ended; rerun the same command on every worker" in messages[0]


def test_worker_that_ends_between_steps_is_let_go(monkeypatch):
    hook, worker, is_lost, _ = watch(monkeypatch, timeout=60)
    hook.before_run(None)
    hook.after_run(None, None)
    worker.close()
    assert not is_lost.wait(0.5)
    hook.stop()
