"""Checkpoints made to do harm, and directories of runs that somebody spoiled."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.base import children
from albert_zh.base.errors import UserError
from albert_zh.data import record_format
from albert_zh.models import checkpoints
from benchmarks import crafted_checkpoints
from benchmarks.faults.common import REPOSITORY, Fault, not_done, not_refused, run

_TABLE = "bert/embeddings/word_embeddings"
_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("天地人山水火土木")
_LENGTH = 8
_CONFIG = {
    "vocab_size": len(_TOKENS),
    "embedding_size": 4,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": _LENGTH,
    "ln_type": "postln",
}


def _in_a_copy(function, *arguments):
    """Says what is wrong with a call that must end well or in one line.

    Whatever ends TensorFlow's process must not end the campaign's.
    """

    def work(sign_of_life):
        try:
            function(*arguments)
        except UserError as error:
            return "several lines" if "\n" in str(error) else None
        return None

    try:
        return children.call(work)
    except children.Died as died:
        return "the process died: {}".format(died)


def _read(prefix):
    checkpoints.read_variables(prefix)
    checkpoints.check_readable(prefix)
    checkpoints.read_step(prefix)


def _model(work, **changes):
    """Writes a model's directory; returns its checkpoint's prefix."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "albert_config.json").write_text(json.dumps(_CONFIG), encoding="utf-8")
    (work / "vocab.txt").write_text("\n".join(_TOKENS), encoding="utf-8")
    config = modeling.AlbertConfig.from_dict(_CONFIG)
    with tf.Graph().as_default():
        token = tf.zeros([1, 1], tf.int32)
        model = modeling.AlbertModel(config, False, token)
        modeling.get_masked_lm_output(config, model, token, token, tf.ones([1, 1]))
        modeling.get_sentence_order_output(config, model, token)
        tensors = {
            re.sub(":0$", "", variable.name): np.ones(
                variable.shape.as_list(), np.float32
            )
            for variable in tf.trainable_variables()
        }
    for name, change in changes.items():
        tensors[_TABLE if name == "table" else name] = change
    return checkpoints.write_tensors(tensors, str(work / "model.ckpt"))


def _crafted_indexes(work):
    prefix = _model(work)
    pairs = crafted_checkpoints.read_pairs(prefix + ".index")
    names = [_TABLE, "global_step", "cls/predictions/output_bias"]
    for what, data in crafted_checkpoints.crafted(pairs, names):
        with open(prefix + ".index", "wb") as target:
            target.write(data)
        yield what, _in_a_copy(_read, prefix)


def _random_bytes(work):
    """Sound checksums around entries with random bytes changed."""
    prefix = _model(work)
    pairs = crafted_checkpoints.read_pairs(prefix + ".index")
    random = np.random.RandomState(0)
    for number in range(150):
        changed = list(pairs)
        place = random.randint(len(pairs))
        key, value = (bytearray(part) for part in changed[place])
        for _ in range(random.randint(1, 4)):
            if value:
                value[random.randint(len(value))] = random.randint(256)
        changed[place] = (bytes(key), bytes(value))
        crafted_checkpoints.write(changed, prefix + ".index")
        yield "random {}".format(number), _in_a_copy(_read, prefix)


def _damaged_data(work):
    prefix = _model(work)
    path = prefix + ".data-00000-of-00001"
    with open(path, "rb") as source:
        whole = source.read()
    for number in range(40):
        size = number * len(whole) // 40
        for what, data in (
            ("{} bytes".format(size), whole[:size]),
            ("byte {}".format(size), _flipped(whole, size)),
        ):
            with open(path, "wb") as target:
                target.write(data)
            problem = None
            try:
                checkpoints.check_readable(prefix)
                problem = "taken for whole"
            except UserError as error:
                problem = "several lines" if "\n" in str(error) else None
            yield what, problem


def _flipped(data, place):
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def _values(work):
    """NaN, infinity, other types and steps that are none, by whole commands."""
    output = work / "out"
    flags = _flags(work, output)
    for number, (what, change, expected) in enumerate(
        (
            ("NaN", {"table": _table(np.nan)}, _TABLE),
            ("infinity", {"table": _table(-np.inf)}, _TABLE),
            ("float64", {"table": _table(1, np.float64)}, "expected float32"),
            ("float16", {"table": _table(1, np.float16)}, "expected float32"),
            ("int64", {"table": _table(1, np.int64)}, "expected float32"),
            ("bool", {"table": _table(1, np.bool_)}, "expected float32"),
        )
    ):
        prefix = _model(work / str(number), **change)
        done = run("run_pretraining.py", "--init_checkpoint=" + prefix, *flags)
        problem = not_refused(done, prefix, expected)
        yield what, problem or ("it left a directory" if output.exists() else None)
        if number < 2:
            done = run(
                "convert_checkpoint.py",
                "--from=albert_zh",
                "--to=albert_zh",
                "--input={}".format(work / str(number)),
                "--output={}".format(output),
            )
            yield what + " converted", not_refused(done, expected)


def _table(value, dtype=np.float32):
    table = np.ones([len(_TOKENS), _CONFIG["embedding_size"]], dtype)
    table[2, 2] = value
    return table


def _crafted_commands(work):
    """Index files that end TensorFlow, given to whole commands."""
    model = work / "model"
    prefix = _model(model)
    pairs = crafted_checkpoints.read_pairs(prefix + ".index")
    crafted = dict(crafted_checkpoints.crafted(pairs, [_TABLE]))
    for what in ("shape [-1]", "dtype 20", "slice 0 -1"):
        with open(prefix + ".index", "wb") as target:
            target.write(crafted["{}: {}".format(_TABLE, what)])
        for name, arguments in (
            ("inspect_checkpoint.py", [model]),
            (
                "run_pretraining.py",
                ["--model_dir={}".format(model)] + _flags(work, work / "out"),
            ),
            (
                "convert_checkpoint.py",
                ["--from=albert_zh", "--to=albert_zh"]
                + ["--input={}".format(model), "--output={}".format(work / "new")],
            ),
        ):
            yield "{} {}".format(name, what), not_refused(run(name, *arguments))


def _flags(work, output_dir, num_steps=2):
    """The flags of a small pretraining, whose records are made where absent."""
    records = work / "a.tfrecord"
    if not records.exists():
        features = {
            "input_ids": np.arange(5, 5 + _LENGTH),
            "input_mask": np.ones(_LENGTH, np.int64),
            "segment_ids": np.arange(_LENGTH) > 4,
            "masked_lm_positions": [1, 2],
            "masked_lm_ids": [6, 7],
            "masked_lm_weights": np.ones(2),
            "next_sentence_labels": [0],
        }
        record = record_format.encode_example(features)
        record_format.write_records([record] * 8, str(records))
        (work / "config.json").write_text(json.dumps(_CONFIG), encoding="utf-8")
    flags = {
        "input_file": records,
        "output_dir": output_dir,
        "albert_config_file": work / "config.json",
        "do_train": True,
        "max_seq_length": _LENGTH,
        "max_predictions_per_seq": 2,
        "train_batch_size": 4,
        "num_train_steps": num_steps,
        "num_warmup_steps": 1,
        "save_checkpoints_steps": 1,
    }
    return ["--{}={}".format(*flag) for flag in flags.items()]


def _contents(directory):
    return {
        str(path): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


# What is made of a `checkpoint` file that names model.ckpt-2: bytes, or a function.
_STATES = (
    ("missing", os.unlink),
    ("empty", b""),
    ("not UTF-8", b"\xff\xfe\x00"),
    ("cut short", b'model_checkpoint_path: "model.ck'),
    ("names none", b'model_checkpoint_path: ""'),
    ("names one that is gone", b'model_checkpoint_path: "model.ckpt-9"'),
    ("control characters", b'model_checkpoint_path: "model.ckpt-2\\n"'),
    ("a directory", lambda path: (os.unlink(path), os.mkdir(path))),
    ("a pipe", lambda path: (os.unlink(path), os.mkfifo(path))),
    ("a link to nowhere", lambda path: (os.unlink(path), os.symlink("x", path))),
)
# What such a file has a saver keep, and delete in time.
_KEPT = (
    "{victim}/model.ckpt-2",
    "../victim/model.ckpt-2",
    "link/model.ckpt-2",
    "{directory}/../victim/model.ckpt-2",
    "{directory}/link/model.ckpt-2",
    "*",
    "model.ckpt-?",
    "best/model.ckpt-2",
    ".",
    "",
)


def _finished(work):
    """Directory of a run of 2 steps."""
    done = run("run_pretraining.py", *_flags(work, work / "finished"))
    if not_done(done):
        raise RuntimeError(done.stderr)
    return work / "finished"


def _states(work):
    """Library calls, and the hint followed; the whole command for the first."""
    finished = _finished(work)
    for number, (what, state) in enumerate(_STATES):
        directory = work / str(number)
        shutil.copytree(str(finished), str(directory))
        path = directory / "checkpoint"
        state(str(path)) if callable(state) else path.write_bytes(state)
        before = _contents(directory)
        if number == 0:
            flags = _flags(work, directory, num_steps=3)
            done = run("run_pretraining.py", *flags)
            problem = not_refused(done, "model.ckpt-2")
        else:
            problem = _in_a_copy(_refuse_to_go_on, directory)
        if _contents(directory) != before:
            problem = "files changed"
        yield what, problem
        problem = _follow_hint(directory)
        if number == 0 and not problem:
            problem = not_done(run("run_pretraining.py", *flags))
        yield what + ", hint followed", problem


def _refuse_to_go_on(directory):
    checkpoints.latest_checkpoint(str(directory))
    raise RuntimeError("a run would go on")


def _follow_hint(directory):
    """Does what the error says; None where a run goes on from there."""
    try:
        checkpoints.latest_checkpoint(str(directory))
        return "not refused"
    except UserError as error:
        found = re.search(r"make (\S+) a file with this one line: (.*); or", str(error))
    if not found:
        return "no hint"
    path, line = found.groups()
    if os.path.isdir(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)
    with open(path, "w") as target:
        target.write(line)
    latest = checkpoints.latest_checkpoint(str(directory))
    step = checkpoints.resume_step(latest, str(directory))
    return None if step == 2 else "it goes on from step {}".format(step)


def _kept(work):
    finished = _finished(work)
    victim = work / "victim"
    shutil.copytree(str(finished), str(victim))
    before = _contents(victim)
    for number, kept in enumerate(_KEPT):
        directory = work / str(number)
        shutil.copytree(str(finished), str(directory))
        (directory / "link").symlink_to(victim)
        named = kept.format(victim=victim, directory=directory)
        with (directory / "checkpoint").open("a") as state:
            state.write('all_model_checkpoint_paths: "{}"\n'.format(named))
        if number < 3:
            flags = _flags(work, directory, num_steps=4)
            done = run("run_pretraining.py", "--keep_checkpoint_max=1", *flags)
            problem = not_refused(done, "model.ckpt-2")
        else:
            problem = _in_a_copy(_refuse_to_go_on, directory)
        if _contents(victim) != before:
            problem = "files elsewhere are gone"
        yield kept, problem


def _damaged_newest(work):
    finished = _finished(work)
    for number, suffix in enumerate((".index", ".data-00000-of-00001")):
        for what, change in (
            ("cut", lambda data: data[: len(data) // 2]),
            ("flipped", lambda data: _flipped(data, len(data) // 2)),
            ("gone", None),
        ):
            directory = work / "{}{}".format(what, number)
            shutil.copytree(str(finished), str(directory))
            path = directory / ("model.ckpt-2" + suffix)
            path.write_bytes(change(path.read_bytes())) if change else path.unlink()
            try:
                latest = checkpoints.latest_checkpoint(str(directory))
                checkpoints.resume_step(latest, str(directory))
                problem = "a run would go on"
            except UserError as error:
                hint = 'model_checkpoint_path: "model.ckpt-1"'
                problem = None if hint in str(error) else str(error)
            yield what + " " + suffix, problem


def _two_trainings(work):
    """A second one while the first is stopped, and after it was killed."""
    for number in range(2):
        output_dir = work / str(number)
        flags = _flags(work, output_dir, num_steps=100000)
        first = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "run_pretraining.py")] + flags,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        try:
            # Its variables are there: it holds the directory.
            while not (output_dir / "checkpoint").exists():
                if first.poll() is not None:
                    raise RuntimeError(first.stderr.read())
                time.sleep(0.1)
            done = run("run_pretraining.py", *_flags(work, output_dir))
            yield "both at once", not_refused(done, "another process trains there")
        finally:
            first.kill()
            first.communicate()
        done = run("run_pretraining.py", *_flags(work, output_dir))
        yield "after the first was killed", not_done(done)


FAULTS = [
    Fault("an .index with valid checksums that no TensorFlow wrote", _crafted_indexes),
    Fault("random bytes in an .index, checksums made right", _random_bytes),
    Fault("such an .index given to whole commands", _crafted_commands),
    Fault("a .data file cut short or with a byte changed", _damaged_data),
    Fault("NaN, infinity and other types in a checkpoint to start from", _values),
    Fault("the `checkpoint` file of a run missing or spoiled", _states),
    Fault("a `checkpoint` file that lists what is not the run's", _kept),
    Fault("the newest checkpoint of a run damaged", _damaged_newest),
    Fault("two trainings in one directory", _two_trainings),
]
