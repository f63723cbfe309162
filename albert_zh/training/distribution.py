"""Training on several devices, by TensorFlow's own strategies.

Every replica computes the gradient of its share of the batch;
`optimization.mean_over_replicas` makes one of them.
"""

import json
import logging
import os
import re
import socket
import threading
import time
from typing import Any, List, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from albert_zh.base.errors import Stopped, UserError
from albert_zh.training import network

_LOGGER = logging.getLogger(__name__)

# Seconds to wait for the other workers where nothing else is said.
WORKER_TIMEOUT = 300
# Seconds between two attempts to reach a worker, and for one attempt.
_RETRY_SECONDS = 1.0
# Seconds between two looks at the workers while this one waits for them.
_WATCH_SECONDS = 5.0
# Seconds after which a step cannot end any more whose worker has: that worker may
# have finished the last one a little earlier.
_ENDED_SECONDS = 30.0
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class Cluster(NamedTuple):
    """The workers that train together.

    Attributes:
      addresses: list of "host:port", the chief's first.
      rank: int, which of them this process is.
    """

    addresses: List[str]
    rank: int


class Distribution(NamedTuple):
    """How a training step is distributed; the default is one device.

    Attributes:
      strategy: `tf.distribute.Strategy`, or None.
      cluster: `Cluster` where there are several workers, else None.
      worker_timeout: int, seconds to wait for the other workers.
    """

    strategy: Any = None
    cluster: Optional[Cluster] = None
    worker_timeout: int = WORKER_TIMEOUT

    @property
    def num_replicas(self):
        """Number of devices that share a batch."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def num_workers(self):
        """Number of processes that read input."""
        return len(self.cluster.addresses) if self.cluster else 1

    @property
    def rank(self):
        """Number of this process among the workers."""
        return self.cluster.rank if self.cluster else 0

    @property
    def is_chief(self):
        """Whether this process writes checkpoints and curves, and evaluates."""
        return self.rank == 0


ONE_DEVICE = Distribution()


def create(kind, use_tpu, worker_timeout=None, allow_open_ports=False):
    """Builds the `Distribution` that a command's flags ask for.

    Args:
      kind: "none", "mirrored" or "multi_worker", which reads the environment's
        TF_CONFIG.
      use_tpu: bool, whether the run is on TPU.
      worker_timeout: int, seconds to wait for the other workers; None for
        `WORKER_TIMEOUT`.
      allow_open_ports: bool, whether workers that are all on this machine may be
        reached from others, too.

    Raises:
      UserError: `kind` does not go with TPU or with TF_CONFIG, which is missing or
        wrong, or this worker's port is in use or would be open to the network.
    """
    if use_tpu:
        if kind != "none":
            raise UserError(
                "--distribution={} with --use_tpu: a TPU spreads the batch over its "
                "cores itself; leave one of them out".format(kind)
            )
        return ONE_DEVICE
    text = os.environ.get("TF_CONFIG")
    cluster = parse_tf_config(text) if text else None
    if kind == "multi_worker":
        if cluster is None:
            raise UserError(
                "--distribution=multi_worker: TF_CONFIG {}; expected {} or the like, "
                "or start the workers by launch_workers.py".format(
                    "has no cluster" if text else "is not set", _EXAMPLE
                )
            )
        _check_port(cluster.addresses[cluster.rank])
        _check_who_reaches(cluster, allow_open_ports)
        timeout = WORKER_TIMEOUT if worker_timeout is None else worker_timeout
        return Distribution(_multi_worker_strategy(), cluster, timeout)
    if cluster and len(cluster.addresses) > 1:
        raise UserError(
            "--distribution={}: TF_CONFIG names {} workers, which would all train the "
            "same model; give --distribution=multi_worker or unset TF_CONFIG".format(
                kind, len(cluster.addresses)
            )
        )
    leave_cluster()
    return Distribution(_mirrored_strategy()) if kind == "mirrored" else ONE_DEVICE


def leave_cluster():
    """Makes this process run alone from now on, by unsetting TF_CONFIG.

    Estimator takes every run for a worker's as long as it is set.
    """
    os.environ.pop("TF_CONFIG", None)


def _mirrored_strategy():
    strategy = tf.distribute.MirroredStrategy()
    _LOGGER.info(
        "--distribution=mirrored: %d replicas, on %s",
        strategy.num_replicas_in_sync,
        ", ".join(strategy.extended.worker_devices),
    )
    return strategy


def _multi_worker_strategy():
    # TensorFlow 2 would start a server for eager execution, on the port where
    # Estimator starts the one for its sessions.
    tf.disable_eager_execution()
    return tf.distribute.experimental.MultiWorkerMirroredStrategy()


def parse_tf_config(text):
    """Returns the `Cluster` of a TF_CONFIG, JSON of workers and this task.

    None where it has no cluster: some schedulers set such a one for a single process.

    Raises:
      UserError: it is no JSON, names others than workers, or no worker for this task.
    """
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _config_error("is not JSON ({})".format(error), text) from error
    if not isinstance(config, dict):
        raise _config_error("is not a JSON object", text)
    cluster = config.get("cluster")
    if not cluster:
        return None
    if not isinstance(cluster, dict):
        raise _config_error("has a cluster that is not a JSON object", text)
    others = sorted(set(cluster) - {"chief", "worker"})
    if others:
        raise _config_error(
            "names the job {!r}; only chief and worker train here".format(others[0]),
            text,
        )
    if not all(isinstance(addresses, list) for addresses in cluster.values()):
        raise _config_error("has no list of addresses for each job", text)
    chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
    if len(chiefs) > 1:
        raise _config_error("names {} chiefs, not one".format(len(chiefs)), text)
    addresses = chiefs + workers
    for address in addresses:
        _split_address(address, text)
    if len(set(addresses)) < len(addresses):
        raise _config_error("names an address twice", text)
    return Cluster(addresses, _rank_of(config.get("task"), cluster, text))


def _rank_of(task, cluster, text):
    """Returns the number of this process among the workers, the chief's being 0.

    Args:
      task: the JSON value "task" of TF_CONFIG `text`.
      cluster: dict of job to list of addresses.
      text: str, for the message.

    Raises:
      UserError: the task names no worker.
    """
    task = task if isinstance(task, dict) else {}
    kind, index = task.get("type"), task.get("index")
    if (
        not isinstance(kind, str)
        or kind not in cluster
        or not re.fullmatch("[0-9]{1,9}", str(index))
        or int(index) >= len(cluster[kind])
    ):
        raise _config_error(
            "names no worker for this task (type {!r}, index {!r})".format(kind, index),
            text,
        )
    num_before = len(cluster.get("chief", [])) if kind == "worker" else 0
    return num_before + int(index)


def _split_address(address, text):
    """Returns (host, port) of "host:port", where brackets enclose an IPv6 host."""
    parts = re.fullmatch(r"(\[[^\[\]]+\]|[^:\[\]]+):([0-9]{1,5})", str(address))
    if not (parts and 0 < int(parts.group(2)) < 65536):
        raise _config_error(
            "has the address {!r}, expected host:port".format(address), text
        )
    return parts.group(1).strip("[]"), int(parts.group(2))


def _config_error(problem, text):
    return UserError(
        "TF_CONFIG {}; received {}, expected the like of {}".format(
            problem, text if len(text) <= 200 else text[:200] + "...", _EXAMPLE
        )
    )


def _check_port(address):
    """Raises `UserError` where another process listens on this worker's port."""
    _, port = _split_address(address, address)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                "TF_CONFIG: this worker's address {} cannot be used ({}); end the "
                "process that has it or choose another port".format(
                    address, error.strerror
                )
            ) from error


def _check_who_reaches(cluster, allow_open_ports):
    """Sees to it that this worker's port is open to others only where that is wanted.

    TensorFlow listens on all interfaces, whatever address it is given.

    Raises:
      UserError: all workers are on this machine, but others could reach them; or
        the flag is given for workers that are not.
    """
    own = cluster.addresses[cluster.rank]
    hosts = [_split_address(address, address)[0] for address in cluster.addresses]
    is_local = all(map(network.is_loopback, hosts))
    interfaces = network.open_interfaces()
    if allow_open_ports and not is_local:
        raise UserError(
            "--allow_open_ports is for workers that are all on this machine, but "
            "TF_CONFIG names others, whose ports are open anyway; leave the flag out"
        )
    if is_local and interfaces and not allow_open_ports:
        raise UserError(
            "TF_CONFIG: TensorFlow would open the port of this worker, {}, on {} as "
            "well, without authentication; start the workers by launch_workers.py, "
            "which gives them a private network, or give --allow_open_ports".format(
                own, ", ".join(interfaces)
            )
        )
    if interfaces:
        _LOGGER.warning(
            "port %d of this machine is open by %s: whoever reaches it can read and "
            "write files as this user, without authentication or encryption; see "
            "docs/security.md for what to put around it",
            _split_address(own, own)[1],
            ", ".join(interfaces),
        )


def is_first_replica():
    """Whether a model function is called for the first device of a strategy."""
    replica = tf.distribute.get_replica_context()
    number = tf.convert_to_tensor(replica.replica_id_in_sync_group)
    return tf.get_static_value(number) == 0


def check_divisible(batch_size, num_replicas, flag="--train_batch_size"):
    """Raises `UserError` for a batch that replicas cannot share evenly."""
    if batch_size % num_replicas:
        raise UserError(
            "{} {} is not divisible by the {} devices of all workers; the next that "
            "is: {}".format(
                flag,
                batch_size,
                num_replicas,
                -(-batch_size // num_replicas) * num_replicas,
            )
        )


def check_enough_files(files, distribution):
    """Raises `UserError` where a worker would get no input file."""
    if len(files) < distribution.num_workers:
        raise UserError(
            "{} input files for {} workers; expected at least one for each (write "
            "records to several files)".format(len(files), distribution.num_workers)
        )


def train_workers(estimator, input_fn, max_steps, distribution, sigterm):
    """Trains as one of several workers, by Estimator's way for them.

    Args:
      estimator: `tf.estimator.Estimator` of the distribution's strategy.
      input_fn: the input function.
      max_steps: int, the global step to reach.
      distribution: `Distribution` with a `Cluster`.
      sigterm: `preemption.StopHook`, in force.

    Raises:
      UserError: another worker does not answer in time, or was lost.
      Stopped: SIGTERM or Ctrl-C arrived while this one waited for another.
    """
    workers = WorkersHook(
        distribution.cluster,
        distribution.worker_timeout,
        is_stop_requested=lambda: sigterm.is_requested,
    )
    training = tf.estimator.TrainSpec(
        input_fn, max_steps=max_steps, hooks=[workers, sigterm]
    )
    # Without a task for it in TF_CONFIG nothing is evaluated.
    evaluation = tf.estimator.EvalSpec(input_fn)
    try:
        tf.estimator.train_and_evaluate(estimator, training, evaluation)
    except tf.errors.OpError as error:
        if not workers.lost:
            raise
        raise UserError(workers.lost) from error
    finally:
        workers.stop()
        _release_server()


def _release_server():
    """Lets go of the server that Estimator started.

    At the interpreter's end TensorFlow 1.15 no longer can.
    """
    from tensorflow.python.distribute import distribute_coordinator

    vars(distribute_coordinator._thread_local).pop("server", None)


class WorkersHook(tf.train.SessionRunHook):
    """Waits for the other workers, then sees that none is lost.

    TensorFlow waits without bound, and does not say for whom, both for a worker that
    does not start and, in the middle of a step, for one that ended. A worker that
    ended cannot rejoin: all have to begin again from the last checkpoint.
    """

    def __init__(
        self, cluster, timeout, end_process=None, is_stop_requested=lambda: False
    ):
        """Creates the hook.

        Args:
          cluster: `Cluster`.
          timeout: int, seconds that a worker may be out of reach.
          end_process: function of the message where a worker is lost; ends the
            process when None, as nothing else ends the step that waits for it.
          is_stop_requested: function; whether to give up waiting for the start.
        """
        self._others = {
            address: rank
            for rank, address in enumerate(cluster.addresses)
            if rank != cluster.rank
        }
        self._timeout = timeout
        self._end_process = end_process or _end_process
        self._is_stop_requested = is_stop_requested
        self._is_waiting = True  # for a session or a step, that is, for the others
        self._num_steps = 0
        self._stopped = threading.Event()
        self.lost = None  # the message, once a worker seems to be lost

    def begin(self):
        deadline = time.monotonic() + self._timeout
        for address, rank in self._others.items():
            is_announced = False
            while _failure(address):
                if not is_announced:
                    _LOGGER.info("waiting for worker %d at %s", rank, address)
                    is_announced = True
                if self._is_stop_requested():
                    raise Stopped(
                        "stopped while worker {} at {} did not answer, "
                        "before any step; rerun the same command to resume".format(
                            rank, address
                        )
                    )
                if time.monotonic() >= deadline:
                    raise UserError(
                        "worker {} does not answer at {} within --worker_timeout={} "
                        "seconds; start every worker of TF_CONFIG, and see that this "
                        "machine reaches that address".format(
                            rank, address, self._timeout
                        )
                    )
                time.sleep(_RETRY_SECONDS)
        threading.Thread(target=self._watch, daemon=True).start()

    def before_run(self, run_context):
        self._is_waiting = True

    def after_run(self, run_context, run_values):
        self._is_waiting = False
        self._num_steps += 1
        self.lost = None

    def stop(self):
        """Ends the watch."""
        self._stopped.set()

    def _watch(self):
        gone = {}  # address: (seconds, whether its process has ended)
        num_steps = self._num_steps
        while not self._stopped.wait(_WATCH_SECONDS):
            if self._num_steps > num_steps or not self._is_waiting:
                num_steps = self._num_steps
                gone.clear()
                continue
            for address, rank in self._others.items():
                failure = _failure(address)
                if failure:
                    since, ended = gone.get(address, (time.monotonic(), False))
                    refused = isinstance(failure, ConnectionRefusedError)
                    gone[address] = since, ended or refused
                elif address in gone and not gone[address][1]:
                    del gone[address]
                if address in gone:
                    self._judge(address, rank, *gone[address])

    def _judge(self, address, rank, since, ended):
        """Ends this process if a worker has been gone for long enough."""
        self.lost = (
            "worker {} at {} {}; rerun the same command on every worker to resume from "
            "the last checkpoint".format(
                rank, address, "has ended" if ended else "is out of reach"
            )
        )
        bound = min(self._timeout, _ENDED_SECONDS) if ended else self._timeout
        if time.monotonic() - since >= bound:
            self._end_process(self.lost)


def _end_process(message):
    _LOGGER.error("%s", message)
    logging.shutdown()
    os._exit(1)


def _failure(address):
    """The `OSError` of an attempt to connect to "host:port", None if it succeeds."""
    try:
        socket.create_connection(
            _split_address(address, address), _RETRY_SECONDS
        ).close()
    except OSError as error:
        return error
    return None
