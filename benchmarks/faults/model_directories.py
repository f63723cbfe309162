"""Files of model and training directories that are damaged or do not fit."""

import json
import logging
import subprocess
import sys

from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.data import record_format
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.tasks import model_files, training_settings
from albert_zh.training import input_position
from benchmarks.faults.common import REPOSITORY, Fault, not_refused, run

_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("天地人山水火土木")
_CONFIG = {
    "vocab_size": len(_TOKENS),
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}
_LABELS = {
    "task_name": "pair",
    "labels": ["0", "1"],
    "do_lower_case": True,
    "normalize_punctuation": False,
    "max_seq_length": 12,
}
_DEEP = "[" * 100000 + "]" * 100000
# Texts that are in no file of settings.
_TEXTS = ["", " ", "{", "null", "5", '"text"', "[]", "[[]]", "NaN", _DEEP, '{"a": NaN}']
_TEXTS += ["1" + "0" * 5000, '{"a": "\\ud800"}', "\ufeff{", '{"labels": ' + _DEEP + "}"]
# Values of another type than a setting's, or beyond what it may be.
_VALUES = [None, [], {}, "", "no", -5, 0, 32.5, 10**30, 1e308, [None], {"a": []}]


def _write(path, value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return str(path)


def _not_one_line(path, function, *arguments):
    """Says how a function does not refuse a file in one line that names it."""
    try:
        function(*arguments)
    except UserError as error:
        message = str(error)
        is_line = console.printable(message) == message and len(message) < 1500
        if path in message and is_line:
            return None
        return "{!r}".format(message[:200])
    except Exception as error:  # whatever else is what must not be
        return "{!r}"[:200].format(error)
    return "taken"


def _labels(work):
    _write(work / "albert_config.json", _CONFIG)
    path = work / "labels.json"
    for text in _TEXTS:
        verdict = _not_one_line(_write(path, text), model_files.load, str(work))
        yield "labels.json: {:.20}".format(text), verdict
    for name in sorted(_LABELS):
        for value in _VALUES:
            wrong = _write(path, dict(_LABELS, **{name: value}))
            verdict = _not_one_line(wrong, model_files.load, str(work))
            yield "{}: {:.20}".format(name, str(value)), verdict
    for labels in (["a"], ["a", "a"], ["a", ""], ["a", "b\n"], ["a", "\x1b[1m"]):
        wrong = _write(path, dict(_LABELS, labels=labels))
        yield (
            "labels {}".format(labels),
            _not_one_line(wrong, model_files.load, str(work)),
        )
    wrong = _write(path, dict(_LABELS, max_seq_length=17))
    yield "max_seq_length 17", _not_one_line(wrong, model_files.load, str(work))


def _casing(work):
    for name in ("labels.json", "tokenizer_settings.json", "tokenizer_config.json"):
        path = work / name
        texts = _TEXTS + [json.dumps({"do_lower_case": value}) for value in _VALUES]
        for text in texts:
            verdict = _not_one_line(
                _write(path, text), model_directory.read_do_lower_case, str(work)
            )
            yield "{}: {:.30}".format(name, text), verdict
        path.unlink()


def _configs(work):
    path = work / "albert_config.json"
    for text in _TEXTS:
        wrong = _write(path, text)
        verdict = _not_one_line(wrong, model_settings.read_config, wrong)
        yield "config: {:.20}".format(text), verdict
    for name in sorted(_CONFIG) + ["hidden_act", "ln_type", "cross_layer_sharing"]:
        for value in [[], {}, "no", -5, 32.5, 10**30, [None]]:
            wrong = _write(path, dict(_CONFIG, **{name: value}))
            verdict = _not_one_line(wrong, model_settings.read_config, wrong)
            yield "{}: {}".format(name, value), verdict


def _trainings(work):
    path = work / "training.json"
    settings = {
        "--init_checkpoint": None,
        "--train_file": "2 examples",
        "--max_seq_length": 12,
        "--train_batch_size": 2,
        "--learning_rate": 0.1,
        "--optimizer": "adamw",
        "--warmup_proportion": 0.1,
        "--seed": 1,
        "--num_train_epochs": 1.0,
    }
    texts = list(_TEXTS)
    for name in sorted(settings):
        texts += [json.dumps(dict(settings, **{name: value})) for value in ([], {})]
        texts.append(json.dumps({k: v for k, v in settings.items() if k != name}))
    for text in texts:
        verdict = _not_one_line(
            _write(path, text),
            training_settings.check_same_training,
            str(work),
            settings,
        )
        yield "training.json: {:.30}".format(text), verdict


def _positions(work):
    records = str(work / "a.tfrecord")
    record_format.write_records([b"record"] * 5, records)
    right = {"batch_sizes": [[0, 2]], "files": [], "order": {}}
    texts = list(_TEXTS)
    for name in sorted(right):
        texts += [json.dumps(dict(right, **{name: value})) for value in _VALUES[3:]]
    for sizes in ([[1, 2]], [[0, 0]], [[0, 2], [0, 3]], [[0, 10**40]], [[0, "2"]]):
        texts.append(json.dumps(dict(right, batch_sizes=sizes)))
    path = work / input_position.STATE_FILE
    logging.disable(logging.WARNING)  # that there is no such file, as is right
    for text in texts:
        arguments = (str(work), 3, 2, [records], {})
        wrong = _write(path, text)
        problem = _not_one_line(wrong, input_position.resume, *arguments)
        path.unlink()
        # As the message advises.
        if not problem and input_position.resume(*arguments).num_seen != 6:
            problem = "the advice does not help"
        yield "input_position.json: {:.30}".format(text), problem


_MAKE_MODEL = """
import sys
import numpy as np
import tensorflow.compat.v1 as tf
import modeling
from albert_zh.models import checkpoints
config = modeling.AlbertConfig.from_json_file(sys.argv[1] + "/albert_config.json")
with tf.Graph().as_default(), tf.Session() as session:
    modeling.AlbertModel(config, False, tf.zeros([1, 1], tf.int32))
    session.run(tf.global_variables_initializer())
    tensors = {v.op.name: session.run(v) for v in tf.global_variables()}
tensors["output_weights"] = np.zeros([2, config.hidden_size], np.float32)
tensors["output_bias"] = np.zeros([2], np.float32)
checkpoints.write_tensors(tensors, sys.argv[1] + "/model.ckpt")
"""


def _commands(work):
    model = work / "model"
    model.mkdir()
    _write(model / "albert_config.json", _CONFIG)
    command = [sys.executable, "-c", _MAKE_MODEL, str(model)]
    subprocess.run(command, cwd=str(REPOSITORY), check=True, capture_output=True)
    vocabulary = "".join(token + "\n" for token in _TOKENS)
    changes = {
        "vocabulary too short": (vocabulary[:-2], _LABELS, "append 1 lines"),
        "length -5": (vocabulary, dict(_LABELS, max_seq_length=-5), "labels.json"),
        "length 32.5": (vocabulary, dict(_LABELS, max_seq_length=32.5), "labels.json"),
        "casing": (vocabulary, dict(_LABELS, do_lower_case="no"), "labels.json"),
        "three labels": (
            vocabulary,
            dict(_LABELS, labels=["a", "b", "c"]),
            "output_weights",
        ),
    }
    for name, (tokens, labels, words) in sorted(changes.items()):
        _write(model / "vocab.txt", tokens)
        _write(model / "labels.json", labels)
        done = run(
            "run_classifier.py",
            "--task_name=pair",
            "--output_dir={}".format(model),
            "--text_pair",
            "天",
            "地",
        )
        yield "prediction: " + name, not_refused(done, words)
        if name == "three labels":
            words = "3 labels"
        done = run(
            "convert_checkpoint.py",
            "--from=bert",
            "--to=bert",
            "--input={}".format(model),
            "--output={}".format(work / "converted"),
        )
        problem = not_refused(done, words)
        if not problem and (work / "converted").exists():
            problem = "something was written"
        yield "conversion: " + name, problem


FAULTS = [
    Fault("labels.json damaged, or with settings that cannot be", _labels),
    Fault("a casing that is neither true nor false", _casing),
    Fault("a config that is damaged or describes no model", _configs),
    Fault("training.json damaged", _trainings),
    Fault("input_position.json damaged", _positions),
    Fault("commands given a model whose files do not fit", _commands),
]
