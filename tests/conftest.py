"""What the tests share: paths, the real data, commands run as a user runs them."""

import json
import os
import pathlib
import subprocess
import sys

import hypothesis
import pytest

from tests.command_process import CommandProcess

# Set before any test imports TensorFlow: its C++ side logs hardware notes at
# INFO, and a GPU would make the same test give different numbers.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# The suite runs in two processes: threads of one would only hold up the other's.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Small models take longer to compile than to train: in bfloat16, the default where the
# processor has products of it, XLA compiles parts of every training. So float32 is the
# default here, also of commands; what bfloat16 and XLA compute has tests of its own.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
# The references' tokenizers warn of threads when a later test makes a copy of the
# process.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
COMMAND_TIMEOUT_SECONDS = 600

# No deadline: a first call builds a graph. Under CI the examples are the same
# every time, so that a red run can be repeated. ALBERT_ZH_EXAMPLES=20000 searches
# longer than there is time for in every run.
hypothesis.settings.register_profile(
    "albert_zh",
    deadline=None,
    max_examples=int(os.environ.get("ALBERT_ZH_EXAMPLES", 50)),
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("albert_zh")


def pytest_collection_modifyitems(items):
    """Marks every test that asks for the fixture `real_data` as `real_data`."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real_data")


def pytest_make_parametrize_id(config, val, argname):
    """Calls bytes by their parameter's name: archives have the time of day in them.

    The suite's two processes must collect the same names.
    """
    del config  # part of the interface
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="module", autouse=True)
def _release_graphs():
    """Lets go of the graphs of a module's tests: gigabytes in a whole run.

    TensorFlow registers the gradient of every call of a `tf.custom_gradient` for good,
    and that refers to the call's graph.
    """
    yield
    ops = sys.modules.get(
        "tensorflow.python.framework.ops",
        sys.modules.get("tensorflow_core.python.framework.ops"),
    )
    gradients = ops._gradient_registry._registry if ops else {}
    for name in [name for name in gradients if name.startswith("CustomGradient-")]:
        del gradients[name]


@pytest.fixture(scope="session")
def repository():
    """`pathlib.Path` of the repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data():
    """`pathlib.Path` of the real data; skips where ALBERT_ZH_DATA names none."""
    directory = os.environ.get("ALBERT_ZH_DATA")
    if not directory:
        pytest.skip("ALBERT_ZH_DATA is not set")
    if not os.path.isdir(directory):
        pytest.skip("ALBERT_ZH_DATA={} is no directory".format(directory))
    return pathlib.Path(directory)


@pytest.fixture(scope="session")
def command_process():
    """The `CommandProcess` of this test process, with the environment it began with."""
    process = CommandProcess(_command_environment())
    yield process
    process.close()


@pytest.fixture
def run_command(tmp_path, command_process):
    """Function that runs one of the repository's commands in its own process.

    `run_command(script, *flags, cwd=None, timeout=600)` runs `script`, a path
    relative to the repository's root, with `flags` (each made a string) in the
    directory `cwd` (default: the test's `tmp_path`) and without standard input.
    It returns the `subprocess.CompletedProcess`, its `stdout` and `stderr`
    decoded from UTF-8, whatever the exit code.
    """

    def run(script, *flags, cwd=None, timeout=COMMAND_TIMEOUT_SECONDS):
        arguments = [str(REPOSITORY / script)] + [str(flag) for flag in flags]
        directory = str(cwd or tmp_path)
        # What TensorFlow reads at its import may be among what a test has changed.
        if command_process.environment == _command_environment():
            return command_process.run(arguments, directory, timeout)
        return subprocess.run(
            [sys.executable] + arguments,
            cwd=directory,
            env=_command_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run


def _command_environment():
    environment = dict(os.environ, PYTHONIOENCODING="utf-8")
    # Its value is the test that runs.
    environment.pop("PYTEST_CURRENT_TEST", None)
    return environment


@pytest.fixture(scope="session")
def assert_user_error():
    """Function that asserts a command ended in one line about a user's mistake.

    `assert_user_error(result, *words)`: `result` of `run_command` has exit code
    2, no traceback, exactly one line of error, which is the last one of standard
    error and holds every one of `words`.
    """

    def check(result, *words):
        output = result.stdout + result.stderr
        assert result.returncode == 2, output
        assert "Traceback" not in output, output
        lines = result.stderr.strip().splitlines()
        assert sum(": error: " in line for line in lines) == 1, result.stderr
        assert ": error: " in lines[-1], result.stderr
        missing = [word for word in words if str(word) not in lines[-1]]
        assert not missing, "{} not in: {}".format(missing, lines[-1])

    return check


_TRAIN_SENTENCEPIECE = """
import json, sys, sentencepiece
sentencepiece.SentencePieceTrainer.train(**json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="session")
def train_sentencepiece():
    """Function that trains a SentencePiece model like ALBERT's.

    `train_sentencepiece(directory, lines, vocab_size, **options)` returns the path
    of the model file in `directory`. The trainer runs in a process of its own: it
    does not survive beside TensorFlow 1.15.
    """
    pytest.importorskip("sentencepiece")

    def train(directory, lines, vocab_size, **options):
        (directory / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
        settings = {
            "input": str(directory / "lines.txt"),
            "model_prefix": str(directory / "spiece"),
            "vocab_size": vocab_size,
            "hard_vocab_limit": False,
            "control_symbols": "[CLS],[SEP],[MASK]",
            "bos_id": -1,
            "eos_id": -1,
            "pad_id": 0,
            "unk_id": 1,
            "minloglevel": 2,
        }
        settings.update(options)
        subprocess.run(
            [sys.executable, "-c", _TRAIN_SENTENCEPIECE, json.dumps(settings)],
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return str(directory / "spiece.model")

    return train


@pytest.fixture
def private_network():
    """A `network.PrivateNetwork`; skips where this system has none or forbids it."""
    from albert_zh.training import network

    try:
        private = network.PrivateNetwork()
    except OSError as error:
        pytest.skip("no private network can be made here: {}".format(error))
    yield private
    private.close()
