"""Every state file of this repository, damaged in every way: one line, or no harm.

The table is made from one right content per file: whole-file damages, and every field
and entry replaced by values of other types and sizes, or removed.
"""

import json
import os

import numpy as np
import pytest
from damaged_json import WHOLE, contents

from albert_zh.base import json_files
from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline, record_format, run
from albert_zh.downloads import fetch, installation
from albert_zh.models import checkpoint_state, checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.tasks import best_model, metrics, training_settings, trials
from albert_zh.training import input_position, optimizer_record

SHA256 = "sha256:" + 64 * "0"
MANIFEST = {
    "input": [{"path": "a.txt", "bytes": 10, "sha256": 64 * "0"}],
    "output": ["a.tfrecord"],
}
TRAINING = {
    "--init_checkpoint": None,
    "--train_file": "2 examples",
    "--max_seq_length": 32,
    "--train_batch_size": 8,
    "--learning_rate": 1e-4,
    "--optimizer": "adamw",
    "--warmup_proportion": 0.1,
    "--seed": 0,
    "--num_train_epochs": 3,
    "recipe": {
        "size": "tiny",
        "source": "https://a",
        "settings": {"learning_rate": 1e-4, "train_batch_size": 8},
    },
}
LABELS = {
    "task_name": "pair",
    "labels": ["0", "1"],
    "do_lower_case": True,
    "normalize_punctuation": False,
    "max_seq_length": 32,
}
CONFIG = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "embedding_size": 4,
    "num_hidden_groups": 1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
}
SUMMARY = {
    "output_files": {"a.tfrecord": 10},
    "output_crc32c": {"a.tfrecord": 1},
    "manifest": MANIFEST,
    "warnings": ["none"],
    "distributions": {"sequence_lengths": {"32": 4}},
}
POSITION = {
    "batch_sizes": [[0, 8]],
    "files": [{"name": "a.tfrecord", "size": 10, "written": 5, "records": 1}],
    "order": {"--seed": 0},
}


def read_scores(path):
    """As fine-tuning reads its history, and uses it."""
    names = ("accuracy", "loss")
    for entry in best_model.read_scores(path, names):
        [metrics.summary(entry)[name] for name in names]


def resume(path):
    """Resumes at step 4 with one record file."""
    folder = os.path.dirname(path)
    records = os.path.join(folder, "b.tfrecord")
    record_format.write_records([b"record"], records)
    position = input_position.resume(folder, 4, 8, [records], {"--seed": 0})
    assert isinstance(position, input_pipeline.Position)


def reader(schema):
    return lambda path: json_files.read(path, schema, "delete it")


# Name of the file, a right content, and how it is read.
FILES = {
    "labels.json": (LABELS, model_settings.read_labels),
    "tokenizer_settings.json": (
        {"do_lower_case": True},
        lambda path: model_settings.read_tokenizer_setting(
            path, "do_lower_case", False
        ),
    ),
    "albert_config.json": (CONFIG, model_settings.read_config),
    "input_position.json": (POSITION, resume),
    "optimizer.json": (
        {"optimizer": "lamb", "settings": {"--sop_weight": 1.0}},
        lambda path: optimizer_record.check(
            os.path.dirname(path), "lamb", {"--sop_weight": 0.5}
        ),
    ),
    "training.json": (
        TRAINING,
        lambda path: training_settings.check_same_training(
            os.path.dirname(path), TRAINING, None
        ),
    ),
    "dev_scores.json": (
        [{"step": 4, "accuracy": 0.5, "loss": 0.7, "f1": 0.4}],
        read_scores,
    ),
    "decision.json": ({"threshold": 0.4}, reader(model_directory.DECISION_SCHEMA)),
    "trials.json": (
        trials.summarize("accuracy", [trials.Trial(1, "", (0.5,), {"dev": 0.5})]),
        lambda path: trials.format_summary(trials.read(os.path.dirname(path))),
    ),
    "checksums.json": (
        {"https://a/b.zip": SHA256},
        lambda path: fetch.Checksums(os.path.dirname(path)).read(),
    ),
    ".download.json": (
        {"name": "m", "source": "https://a", "files": {"vocab.txt": SHA256}},
        lambda path: installation._read_receipt(os.path.dirname(path)),
    ),
    "a.summary.json": (SUMMARY, reader(run._SUMMARY_SCHEMA)),
    "manifest.json": (MANIFEST, reader(run._MANIFEST_SCHEMA)),
    "output.mark": ({"size": 10, "crc32c": 1}, reader(run._CHECKSUM_SCHEMA)),
}


@pytest.mark.parametrize("name", list(FILES))
def test_a_damaged_state_file_is_one_line(tmp_path, name):
    right, read = FILES[name]
    path = tmp_path / name
    path.write_text(json.dumps(right))
    read(str(path))
    tried = refused = 0
    for damage, content in contents(right):
        path.write_bytes(content)
        tried += 1
        try:
            read(str(path))
        except UserError as error:
            refused += 1
            line = str(error)
            assert "\n" not in line and line.isprintable(), damage
            # The file, and what to do.
            assert name in line or str(tmp_path) in line, (damage, line)
            assert ";" in line or name == "albert_config.json", (damage, line)
        if damage in WHOLE and damage != "{}":
            is_right = damage == "[]" and name == "dev_scores.json"
            assert is_right or refused, damage
    # The table has 1,401 contents; what is not refused is another right content.
    assert tried >= 38 and refused >= 0.75 * tried


STATES = {
    "empty": b"",
    "blank": b"\n\n",
    "binary": bytes(range(256)),
    "zeros": bytes(64),
    "UTF-16": 'model_checkpoint_path: "model.ckpt-4"'.encode("utf-16"),
    "JSON": b'{"model_checkpoint_path": "model.ckpt-4"}',
    "cut": b'model_checkpoint_path: "model.ck',
    "no quotes": b"model_checkpoint_path: model.ckpt-4",
    "a number": b"model_checkpoint_path: 4",
    "no name": b'model_checkpoint_path: ""',
    "twice": 2 * b'model_checkpoint_path: "model.ckpt-4"\n',
    "another key": b'checkpoint: "model.ckpt-4"',
    "control characters": b'model_checkpoint_path: "model.ckpt-4\\n\\033[31m"',
    "a pattern": b'model_checkpoint_path: "model.ckpt-*"',
    "a parent": b'model_checkpoint_path: "../model.ckpt-4"',
    "an absent one": b'model_checkpoint_path: "model.ckpt-5"',
    "a time that is none": b'model_checkpoint_path: "model.ckpt-4"\n'
    b"last_preserved_timestamp: x",
    "nested": b'model_checkpoint_path { model_checkpoint_path: "model.ckpt-4" }',
}


@pytest.mark.parametrize("content", STATES.values(), ids=list(STATES))
def test_an_unreadable_checkpoint_file_is_a_stop(tmp_path, content):
    """TensorFlow ignores it, and a training would begin anew."""
    tensors = {"x": np.ones(2, np.float32), "global_step": np.int64(4)}
    checkpoints.write_tensors(tensors, str(tmp_path / "model.ckpt"))
    path = tmp_path / checkpoint_state.FILE
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        checkpoints.latest_checkpoint(str(tmp_path))
    line = str(error.value)
    assert "\n" not in line and str(path) in line
    # The hint works.
    path.write_text('model_checkpoint_path: "model.ckpt-4"')
    assert 'model_checkpoint_path: "model.ckpt-4"' in line
    latest = checkpoints.latest_checkpoint(str(tmp_path))
    assert checkpoints.resume_step(latest, str(tmp_path)) == 4
