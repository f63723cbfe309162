"""BERT's published scripts, unchanged, on this repository's modules.

They are fetched from PyPI (`bert-tensorflow` 1.0.1 is google-research/bert).
"""

import ast
import inspect
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
import optimization
import tokenization
from albert_zh.models import checkpoints

PACKAGE = "bert-tensorflow==1.0.1"
CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 200)]
CONFIG = {
    "vocab_size": 205,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "embedding_size": 8,
    "num_hidden_groups": 1,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Directory of BERT's scripts."""
    folder = tmp_path_factory.mktemp("bert")
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d"]
        + [str(folder), PACKAGE],
        capture_output=True,
        encoding="utf-8",
    )
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        reason = (fetched.stderr.strip().splitlines() or ["no output"])[-1]
        pytest.skip("{} cannot be fetched: {}".format(PACKAGE, reason))
    with zipfile.ZipFile(str(wheels[0])) as wheel:
        wheel.extractall(str(folder))
    return folder / "bert"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Directory with a tiny model, a task's files and a SQuAD file."""
    folder = tmp_path_factory.mktemp("files")
    vocabulary = "\n".join(list(tokenization.SPECIAL_TOKENS) + CHARACTERS) + "\n"
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    random = np.random.RandomState(0)
    with tf.Graph().as_default():
        config = modeling.AlbertConfig.from_dict(CONFIG)
        modeling.AlbertModel(config, False, tf.zeros([1, 4], tf.int32))
        tensors = {
            variable.op.name: random.normal(0, 0.1, variable.shape.as_list())
            for variable in tf.trainable_variables()
        }
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    checkpoints.write_tensors(tensors, str(folder / "model.ckpt"))
    rows = ["label\tid\tid\ttext_a\ttext_b"]
    for number in range(16):
        texts = ["".join(random.choice(CHARACTERS, 6)) for _ in range(2)]
        rows.append("\t".join([str(number % 2), "1", "2"] + texts))
    for split in ("train", "dev", "test"):
        path = folder / (split + ".tsv")
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "input.txt").write_text("丁七 ||| 万丈\n", encoding="utf-8")
    context = " ".join(CHARACTERS[:40])
    questions = [
        {
            "id": str(place),
            "question": CHARACTERS[place],
            "answers": [{"text": context[2 * place], "answer_start": 2 * place}],
        }
        for place in range(4)
    ]
    paragraph = {"context": context, "qas": questions}
    squad = {"version": "1", "data": [{"title": "", "paragraphs": [paragraph]}]}
    (folder / "squad.json").write_text(json.dumps(squad))
    return folder


def run(script, folder, *flags):
    """Runs a script with our modules; returns what it printed."""
    launcher = os.path.join(os.path.dirname(__file__), "..", "bert_launcher.py")
    shared = "--vocab_file=vocab.txt --bert_config_file=config.json"
    shared += " --init_checkpoint=model.ckpt-0"
    result = subprocess.run(
        [sys.executable, launcher, str(script)] + shared.split() + list(flags),
        cwd=str(folder),
        env=dict(os.environ, PYTHONIOENCODING="utf-8"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_run_classifier_trains_evaluates_and_predicts(bert, folder):
    flags = (
        "--task_name=mrpc --do_train --do_eval --do_predict --data_dir=. "
        "--max_seq_length=32 --train_batch_size=8 --num_train_epochs=2 "
        "--output_dir=classifier"
    )
    output = run(bert / "run_classifier.py", folder, *flags.split())
    assert "create_optimizer trains with LAMB" in output
    assert output.count("*INIT_FROM_CKPT*") >= 3 * 24
    results = (folder / "classifier" / "eval_results.txt").read_text()
    assert "global_step = 4" in results
    predictions = np.loadtxt(str(folder / "classifier" / "test_results.tsv"))
    np.testing.assert_allclose(predictions.sum(axis=1), np.ones(16), rtol=1e-4)


def test_run_squad_trains_and_predicts(bert, folder):
    flags = (
        "--do_train --do_predict --train_file=squad.json --predict_file=squad.json "
        "--max_seq_length=64 --max_query_length=8 --train_batch_size=2 "
        "--num_train_epochs=1 --output_dir=squad"
    )
    run(bert / "run_squad.py", folder, *flags.split())
    answers = json.loads((folder / "squad" / "predictions.json").read_text())
    assert sorted(answers) == ["0", "1", "2", "3"]
    text = set(" " + "".join(CHARACTERS))
    assert all(set(answer) <= text for answer in answers.values())


def test_extract_features_gives_our_vectors(bert, folder):
    flags = "--input_file=input.txt --output_file=vectors.jsonl --max_seq_length=16"
    run(bert / "extract_features.py", folder, "--layers=-1,-2", *flags.split())
    line = json.loads((folder / "vectors.jsonl").read_text().splitlines()[0])
    tokens = [feature["token"] for feature in line["features"]]
    assert tokens == ["[CLS]", "丁", "七", "[SEP]", "万", "丈", "[SEP]"]
    vocabulary = tokenization.load_vocab(str(folder / "vocab.txt"))
    config = modeling.AlbertConfig.from_dict(CONFIG)
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.constant([[vocabulary[token] for token in tokens]])
        segments = tf.constant([[0] * 4 + [1] * 3])
        model = modeling.AlbertModel(config, False, ids, token_type_ids=segments)
        checkpoints.restore(str(folder / "model.ckpt-0"), tf.trainable_variables())
        session.run(tf.global_variables_initializer())
        layers = session.run(model.all_encoder_layers)
    for place, layer in ((0, layers[-1]), (1, layers[-2])):
        held = [feature["layers"][place]["values"] for feature in line["features"]]
        np.testing.assert_allclose(held, layer[0], atol=1e-5)


OURS = {
    "modeling": modeling,
    "tokenization": tokenization,
    "optimization": optimization,
}


@pytest.mark.parametrize("name", list(OURS))
def test_every_public_name_takes_the_same_arguments(bert, name):
    tree = ast.parse((bert / (name + ".py")).read_text("utf-8"))
    compared = 0
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        compared += 1
        ours = getattr(OURS[name], node.name)
        if isinstance(node, ast.FunctionDef):
            _check_arguments(node, ours)
            continue
        for method in node.body:
            if not isinstance(method, ast.FunctionDef):
                continue
            if method.name == "__init__" or not method.name.startswith("_"):
                _check_arguments(method, getattr(ours, method.name))
    assert compared >= 2


# Positional in every call there is.
RENAMED = {"json_object": "settings", "activation_string": "name"}


def _check_arguments(theirs, ours):
    """Their arguments are ours, in the same order; ours may have more."""
    wanted = [RENAMED.get(argument.arg, argument.arg) for argument in theirs.args.args]
    # A bound method has no `self`.
    wanted = [name for name in wanted if name not in ("self", "cls")]
    held = inspect.signature(ours).parameters
    names = [RENAMED.get(name, name) for name in held]
    assert [name for name in names if name in wanted] == wanted, theirs.name
    for name, parameter in held.items():
        if RENAMED.get(name, name) not in wanted + ["self"]:
            is_option = parameter.default is not parameter.empty
            assert is_option or parameter.kind == parameter.VAR_KEYWORD, name


COMPARE = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
import bert_launcher
bert_launcher.install()
import numpy as np
import tensorflow as tf
import modeling
spec = importlib.util.spec_from_file_location("theirs", sys.argv[2])
theirs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(theirs)

def results(m):
    random = np.random.RandomState(0)
    ids = tf.constant(random.randint(0, 30, [3, 5]))
    mask = tf.constant([[1] * 5, [1] * 3 + [0] * 2, [1] * 4 + [0]])
    x, table = m.embedding_lookup(ids, 30, 8)
    one_hot, _ = m.embedding_lookup(
        ids, 30, 8, word_embedding_name="other", use_one_hot_embeddings=True
    )
    x = m.embedding_postprocessor(
        x, True, ids % 2, 2, max_position_embeddings=7, dropout_prob=0.0
    )
    attention = m.create_attention_mask_from_input_mask(ids, mask)
    layers = m.transformer_model(
        x, attention, 8, 2, 2, 16, m.get_activation("gelu"), 0.0, 0.0,
        do_return_all_layers=True,
    )
    with tf.variable_scope("alone"):
        head = m.attention_layer(x, layers[0][:, :4], None, 2, 3, tf.tanh)
    matrix = m.reshape_to_matrix(head)
    back = m.reshape_from_matrix(matrix, m.get_shape_list(head))
    normal = m.layer_norm_and_dropout(m.layer_norm(head), None)
    m.assert_rank(head, [2, 3])
    return [table, one_hot, x, attention, head, matrix, back, normal] + layers

outputs = []
for m in (theirs, modeling):
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = results(m)
        random = np.random.RandomState(1)
        names = sorted(v.name for v in tf.global_variables())
        by_name = {v.name: v for v in tf.global_variables()}
        for name in names:
            by_name[name].load(random.normal(0, 1, by_name[name].shape), session)
        outputs.append((names, session.run(tensors)))
assert outputs[0][0] == outputs[1][0], outputs
for a, b in zip(outputs[0][1], outputs[1][1]):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
print(len(outputs[0][0]), "variables,", len(outputs[0][1]), "results equal")
"""


def test_building_blocks_compute_what_theirs_do(bert):
    tests = os.path.join(os.path.dirname(__file__), "..")
    result = subprocess.run(
        [sys.executable, "-c", COMPARE, tests, str(bert / "modeling.py")],
        capture_output=True,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr
    assert "results equal" in result.stdout
