"""Pretraining killed at counted system calls or on a full disk, and then resumed.

Needs strace, which counts the calls.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from albert_zh.data import record_format
from albert_zh.models import checkpoints
from benchmarks.faults.common import (
    REPOSITORY,
    USER_ERROR,
    Fault,
    not_done,
    not_refused,
    run,
    run_with_little_room,
)

SCRIPT = "run_pretraining.py"
LENGTH, PREDICTIONS, VOCABULARY, NUM_RECORDS = 16, 4, 40, 64
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
    "num_hidden_groups": 1,
}
# The renames of a run are its checkpoints and everything that is written whole.
KILLED_AT_RENAMES = (1, 2, 3, 4, 6, 8, 10, 12, 14)
# Bytes beyond which no file can grow.
ROOMS = (100, 1000, 3000, 20000, 60000, 200000)


def _prepare(work):
    """Writes config, vocabulary and records; returns the command's flags."""
    (work / "config.json").write_text(json.dumps(CONFIG))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += ["t{}".format(number) for number in range(len(tokens), VOCABULARY)]
    (work / "vocab.txt").write_text("\n".join(tokens) + "\n")
    random = np.random.RandomState(0)
    contents = []
    for _ in range(NUM_RECORDS):
        ids = random.randint(5, VOCABULARY, LENGTH)
        ids[[0, 7, LENGTH - 1]] = 2, 3, 3
        features = {
            "input_ids": ids,
            "input_mask": np.ones(LENGTH, np.int64),
            "segment_ids": np.arange(LENGTH) > 7,
            "word_lengths": ids > 3,
            "next_sentence_labels": [random.randint(2)],
        }
        contents.append(record_format.encode_example(features))
    record_format.write_records(contents, str(work / "a.tfrecord"))
    return {
        "do_train": True,
        "input_file": work / "a.tfrecord",
        "albert_config_file": work / "config.json",
        "vocab_file": work / "vocab.txt",
        "max_seq_length": LENGTH,
        "max_predictions_per_seq": PREDICTIONS,
        "train_batch_size": 8,
        "num_train_steps": 12,
        "num_warmup_steps": 2,
        "save_checkpoints_steps": 3,
        "keep_checkpoint_max": 2,
    }


def _flags(settings, output_dir):
    settings = dict(settings, output_dir=output_dir)
    return ["--{}={}".format(*item) for item in settings.items()]


def _weights(output_dir):
    """The variables of the last checkpoint, the optimizer's included."""
    reader = tf.train.load_checkpoint(checkpoints.latest_checkpoint(str(output_dir)))
    return {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }


def _difference(settings, output_dir, expected):
    """Resumes the run; says how it ends unlike the undisturbed one, or None."""
    problem = not_done(run(SCRIPT, *_flags(settings, output_dir)))
    if problem:
        return "resumed: " + problem
    for name, value in _weights(output_dir).items():
        if not np.array_equal(value, expected[name]):
            return "{} differs".format(name)
    left = [
        path.name
        for pattern in ("*temp*", "graph.pbtxt.tmp*", ".*.partial")
        for path in output_dir.glob(pattern)
    ]
    return "{} is left".format(left[0]) if left else None


def _undisturbed(work):
    settings = _prepare(work)
    problem = not_done(run(SCRIPT, *_flags(settings, work / "undisturbed")))
    if problem:
        raise RuntimeError(problem)
    return settings, _weights(work / "undisturbed")


def _kills(work):
    """kill -9 at the Nth rename."""
    if shutil.which("strace") is None:
        raise RuntimeError("strace is not installed")
    settings, expected = _undisturbed(work)
    for number in KILLED_AT_RENAMES:
        output_dir = work / "killed_{}".format(number)
        calls = "rename,renameat,renameat2"
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + calls]
        command += ["-e", "inject={}:signal=KILL:when={}".format(calls, number)]
        command += [sys.executable, str(REPOSITORY / SCRIPT)]
        done = subprocess.run(
            command + _flags(settings, output_dir),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        problem = None if done.returncode else "was not killed"
        yield (
            "kill at rename {}".format(number),
            problem or _difference(settings, output_dir, expected),
        )


def _full_disks(work):
    """No file can grow beyond so many bytes; then there is room again."""
    settings, expected = _undisturbed(work)
    for room in ROOMS:
        output_dir = work / "room_{}".format(room)
        done = run_with_little_room(room, SCRIPT, *_flags(settings, output_dir))
        problem = None
        if done.returncode == USER_ERROR or room < max(ROOMS):
            problem = not_refused(done, "File too large")
        yield (
            "room for {} bytes".format(room),
            problem or _difference(settings, output_dir, expected),
        )


FAULTS = (
    Fault("pretraining killed at counted renames, and resumed", _kills),
    Fault("pretraining on a full disk, and resumed with room", _full_disks),
)
