"""convert_checkpoint.py: exact round trips, refusals, damaged input."""

import json
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import convert_checkpoint
import inspect_checkpoint
import modeling
from albert_zh import command_line
from albert_zh.base import locks
from albert_zh.base.errors import UserError
from albert_zh.interop import (
    checkpoint_format,
    conversion,
    heads,
    tokenizer_files,
    weights_files,
)
from albert_zh.interop.model import Options
from albert_zh.models import checkpoints, model_graph
from albert_zh.models import directory as model_directory
from albert_zh.tasks import kinds, model_files, registry
from benchmarks import head_to_head

SMALL = dict(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=12,
)
GOOGLE = dict(SMALL, embedding_size=4, num_hidden_groups=2, inner_group_num=2)
ALBERT_ZH = dict(SMALL, embedding_size=4, ln_type="postln")
HEADS = head_to_head.HEADS
LABELS = {
    "task_name": "pair",
    "labels": ["差", "好", "中"],
    "do_lower_case": True,
    "normalize_punctuation": False,
    "max_seq_length": 12,
}


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """Function: the directory of a config's model with random weights, made once."""
    folder = tmp_path_factory.mktemp("random")
    made = {}

    def find(config, heads):
        key = config.to_json_string(), heads
        if key not in made:
            made[key] = str(folder / str(len(made)))
            head_to_head.write_random_model(made[key], config, heads)
        return made[key]

    return find


@pytest.fixture
def write(tmp_path, random_model):
    """Function: writes a model directory with a vocabulary; returns its path."""

    def write_model(settings, heads=HEADS, name="source", entries=None, labels=None):
        directory = tmp_path / name
        config = modeling.AlbertConfig(**settings)
        shutil.copytree(random_model(config, heads), str(directory))
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        entries = config.vocab_size if entries is None else entries
        tokens += [chr(0x4E00 + index) for index in range(entries - len(tokens))]
        text = "".join(token + "\n" for token in tokens)
        (directory / "vocab.txt").write_text(text, encoding="utf-8")
        if labels:
            (directory / "labels.json").write_text(json.dumps(labels))
        return str(directory)

    return write_model


def convert(source_format, target_format, source, name="target", **options):
    target = str(pathlib.Path(source).parent / name)
    options = Options(**options)
    conversion.convert(source_format, target_format, source, target, options)
    return target


def weights(directory):
    prefix = model_directory.find(directory).checkpoint
    tensors = checkpoints.read_tensors(prefix)
    tensors.pop("global_step", None)
    return tensors


def assert_same_model(directory, other):
    ours, theirs = weights(directory), weights(other)
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in ("albert_config.json", "vocab.txt"):
        first, second = (pathlib.Path(path, name) for path in (directory, other))
        assert first.read_bytes() == second.read_bytes()


# --- What comes back ---------------------------------------------------------


FINE_TUNED = [("classifier",), ("multiple_choice",), ("tagger",), ("span",)]


@pytest.mark.parametrize("heads", [(), HEADS, ("masked_lm",)] + FINE_TUNED)
@pytest.mark.parametrize("settings,dialect", [(GOOGLE, "google"), (SMALL, "bert")])
def test_round_trip_through_hugging_face_changes_no_bit(
    write, settings, dialect, heads
):
    source = write(settings, heads)
    there = convert(dialect, "huggingface", source, "there")
    assert_same_model(source, convert("huggingface", dialect, there, "back"))


@pytest.mark.parametrize("heads", [HEADS, ("classifier",)])
def test_round_trip_through_albert_pytorch_changes_no_bit(write, heads):
    pytest.importorskip("torch")
    source = write(ALBERT_ZH, heads)
    there = convert("albert_zh", "albert_pytorch", source, "there")
    assert_same_model(source, convert("albert_pytorch", "albert_zh", there, "back"))


def test_fine_tuned_model_keeps_its_task(write):
    source = write(GOOGLE, ("classifier",), labels=LABELS)
    there = convert("google", "huggingface", source, "there")
    config = json.loads(pathlib.Path(there, "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "差", "1": "好", "2": "中"}
    assert config["architectures"] == ["AlbertForSequenceClassification"]
    back = convert("huggingface", "google", there, "back")
    assert json.loads(pathlib.Path(back, "labels.json").read_text("utf-8")) == LABELS


CLASSES = {
    "multiple_choice": ("ForMultipleChoice", dict(LABELS, task_name="c3", labels=[])),
    "tagger": (
        "ForTokenClassification",
        dict(LABELS, task_name="ner", labels=["X"], options={"decoder": "softmax"}),
    ),
    "span": ("ForQuestionAnswering", dict(LABELS, task_name="squad", labels=[])),
    "multi_label": (
        "ForSequenceClassification",
        dict(LABELS, task_name="multi_label_pair"),
    ),
    "regression": (
        "ForSequenceClassification",
        dict(LABELS, task_name="stsb", labels=[]),
    ),
}
KINDS = {name: task.kind for name, task in registry.TASKS.items()}
# Heads of the same variables as another one's.
SAME = {"multi_label": "classifier", "regression": "multiple_choice"}


@pytest.mark.parametrize("head", sorted(CLASSES))
@pytest.mark.parametrize("settings,dialect", [(GOOGLE, "google"), (SMALL, "bert")])
def test_every_head_keeps_its_task(write, tmp_path, settings, dialect, head):
    suffix, labels = CLASSES[head]
    source = write(settings, (SAME.get(head, head),), labels=labels)
    decision = {"threshold": 0.3} if head == "multi_label" else {}
    model_directory.write_decision(decision, source)
    there = convert(dialect, "huggingface", source, "there", kinds=KINDS)
    config = json.loads(pathlib.Path(there, "config.json").read_text("utf-8"))
    assert config["architectures"][0].endswith(suffix)
    names = {"tagger": ["O", "B-X", "I-X"], "regression": ["LABEL_0"]}
    names["multi_label"] = labels["labels"]
    shown = config.get("id2label", {})
    assert list(shown.values()) == names.get(head, [])
    problem = {"multi_label": "multi_label_classification", "regression": "regression"}
    assert config.get("problem_type") == problem.get(head)
    back = convert("huggingface", dialect, there, "back", kinds=KINDS)
    assert_same_model(source, back)
    assert json.loads(pathlib.Path(back, "labels.json").read_text("utf-8")) == labels
    assert model_directory.read_decision(back) == decision
    assert_same_model(source, convert(dialect, dialect, source, "copy", kinds=KINDS))
    assert model_directory.read_decision(str(tmp_path / "copy")) == decision


@pytest.mark.parametrize("task,labels", [("multi_label", 3), ("regression", 1)])
def test_transformers_computes_the_same_of_heads_that_look_alike(
    write, run_command, task, labels
):
    """As a user converts it: the logits, and what the library takes them to be."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    head = ("classifier",) if labels > 1 else ("multiple_choice",)
    names = LABELS["labels"][:labels] if labels > 1 else []
    settings = dict(LABELS, task_name=task, labels=names)
    sizes = dict(GOOGLE, inner_group_num=1)  # all that transformers runs
    source = write(sizes, head, labels=settings)
    there = str(pathlib.Path(source).parent / "there")
    flags = ["--from=google", "--to=huggingface", "--input=" + source]
    result = run_command("convert_checkpoint.py", *flags, "--output=" + there)
    assert result.returncode == 0, result.stderr
    assert "heads: {}".format(task) in result.stdout
    model = transformers.AutoModelForSequenceClassification.from_pretrained(there)
    assert model.config.num_labels == labels
    inputs = head_to_head.make_inputs(GOOGLE["vocab_size"], length=8)
    expected = head_to_head.run_here(source, inputs, head, labels)[head[0]]
    found = head_to_head.run_transformers(there, inputs, ("classifier",))["classifier"]
    np.testing.assert_allclose(
        np.reshape(found, np.shape(expected)), expected, atol=1e-4
    )
    back = str(pathlib.Path(source).parent / "back")
    flags = ["--from=huggingface", "--to=google", "--input=" + there]
    assert (
        run_command("convert_checkpoint.py", *flags, "--output=" + back).returncode == 0
    )
    assert_same_model(source, back)


def test_a_head_is_what_transformers_says_it_is(write, caplog):
    """A single row is a number's unless it scores choices; a task may tell, too."""
    source = write(GOOGLE, ("multiple_choice",))
    there = convert("google", "huggingface", source, "there")
    change = {"architectures": ["AlbertForSequenceClassification"]}
    edit_json(there + "/config.json", **change)
    task = {"task_name": "regression", "normalize_punctuation": False}
    back = convert("huggingface", "google", there, task=task, kind="regression")
    assert_same_model(source, back)
    with pytest.raises(UserError, match="is a regression; give --task_name=regression"):
        convert("huggingface", "google", there, "never", task=task, kind="cloze")
    edit_json(there + "/config.json", problem_type="multi_label_classification")
    convert("huggingface", "google", there, "dropped")
    assert "not converted: classifier.weight" in caplog.text
    many = write(GOOGLE, ("classifier",), "many")
    task = dict(task, task_name="multi_label", labels=["甲", "乙", "丙"])
    told = convert("google", "huggingface", many, "told", task=task, kind="multi_label")
    config = json.loads(pathlib.Path(told, "config.json").read_text("utf-8"))
    assert config["problem_type"] == "multi_label_classification"
    with pytest.raises(UserError, match="head of the model is a classifier; give"):
        convert("google", "google", many, "never", task=task, kind="regression")


def test_the_heads_are_those_of_the_kinds_of_task():
    """What run_ner.py and the others save has the names that are looked for."""
    config = modeling.AlbertConfig(**GOOGLE)
    found = set()
    for name, task in registry.TASKS.items():
        given = model_files.TaskFiles(
            *(config, task, ("X", "Y"), None, None, True, False, 12),
            {"decoder": "softmax"},
        )
        variables = kinds.kind_of(task).head(given)
        (head,) = (n for n, head in heads.HEADS.items() if task.kind in head.kinds)
        assert tuple(v.name for v in variables) == heads.HEADS[head].variables, name
        assert variables[0].shape[0] == heads.num_rows(head, ("X", "Y")), name
        found.add(head)
    assert found == set(heads.HEADS)


@pytest.mark.parametrize("decoder", ["crf", "span"])
def test_other_decoders_are_copied_but_have_no_counterpart_elsewhere(write, decoder):
    labels = dict(CLASSES["tagger"][1], options={"decoder": decoder})
    source = write(GOOGLE, (), labels=labels)
    given = model_files.TaskFiles(
        *(modeling.AlbertConfig(**GOOGLE), registry.get_task("ner"), ("X",)),
        *(None, None, True, False, 12, {"decoder": decoder}),
    )
    prefix = model_directory.find(source).checkpoint
    tensors = dict(checkpoints.read_tensors(prefix))
    for variable in kinds.kind_of(given.task).head(given):
        tensors[variable.name] = np.ones(variable.shape, np.float32)
    checkpoints.write_tensors(tensors, os.path.join(source, "model.ckpt"))
    copy = convert("google", "google", source, "copy", kinds=KINDS)
    assert_same_model(source, copy)
    assert json.loads(pathlib.Path(copy, "labels.json").read_text("utf-8")) == labels
    words = "has ner/.*; train with run_ner.py --decoder=softmax for one"
    with pytest.raises(UserError, match=words):
        convert("google", "huggingface", source, "never", kinds=KINDS)


def test_a_head_from_elsewhere_gets_its_task(write):
    """And the pooler that transformers' taggers lack, of zeros: nothing reads it."""
    source = write(GOOGLE, ("tagger",), labels=CLASSES["tagger"][1])
    there = convert("google", "huggingface", source, "there")
    path = there + "/model.safetensors"
    safetensors = pytest.importorskip("safetensors.numpy")
    state = safetensors.load_file(path)
    state = {name: value for name, value in state.items() if "pooler" not in name}
    safetensors.save_file(state, path)
    tags = {"0": "O", "1": "B-人", "2": "I-人"}
    edit_json(there + "/config.json", id2label=tags, task_specific_params=None)
    task = {"task_name": "ner", "normalize_punctuation": False}
    back = convert("huggingface", "google", there, task=task, kind="tagging")
    found = json.loads(pathlib.Path(back, "labels.json").read_text("utf-8"))
    assert found["labels"] == ["人"] and found["options"] == {"decoder": "softmax"}
    assert not weights(back)["bert/pooler/dense/kernel"].any()
    edit_json(there + "/config.json", id2label={"0": "B-X", "1": "I-X", "2": "O"})
    with pytest.raises(UserError, match="tags of id2label are B-X, I-X, O; expected O"):
        convert("huggingface", "google", there, "never")


@pytest.mark.parametrize(
    "head, options, words",
    [
        ("span", {"kind": "classification"}, "head of the model is a span; give --ta"),
        ("span", {"labels": ["a", "b"]}, "--labels: a span has none"),
        ("multiple_choice", {"kind": "tagging"}, "give --task_name=multiple_choice"),
        ("tagger", {"labels": ["X", "Y"]}, "--labels=X,Y: the tagger has 3 classes"),
    ],
)
def test_tasks_that_do_not_fit_the_head(write, head, options, words):
    source = write(GOOGLE, (head,))
    task = {"task_name": "x", "normalize_punctuation": False}
    if "labels" in options:
        task["labels"] = options["labels"]
    with pytest.raises(UserError, match=words):
        convert("google", "google", source, task=task, kind=options.get("kind"))


def test_a_model_of_two_heads_is_refused(write):
    source = write(GOOGLE, ("tagger", "span"))
    with pytest.raises(UserError, match="has the heads tagger, span; expected one"):
        convert("google", "huggingface", source)


def edit_json(path, **changes):
    settings = json.loads(pathlib.Path(path).read_text("utf-8"))
    settings.update(changes)
    pathlib.Path(path).write_text(json.dumps(settings), "utf-8")


def test_classifier_from_elsewhere_gets_its_task_and_predicts(
    write, run_command, tmp_path
):
    source = write(GOOGLE, ("classifier",))
    there = convert("google", "huggingface", source, "there")
    edit_json(there + "/config.json", id2label={"0": "no", "1": "yes", "2": "so"})
    with pytest.raises(UserError, match="no,yes,so, can only be kept with a task"):
        convert("huggingface", "google", there, "back")
    command = ["--from=huggingface", "--to=google", "--input=" + there]
    command += ["--output=" + str(tmp_path / "back"), "--task_name=pair"]
    assert run_command("convert_checkpoint.py", *command).returncode == 0
    (tmp_path / "pairs.tsv").write_text("一二\t三\n丁\t七\n", "utf-8")
    result = run_command(
        "run_classifier.py",
        "--task_name=pair",
        "--do_predict",
        "--predict_file=pairs.tsv",
        "--model_dir=" + str(tmp_path / "back"),
        "--output_dir=predicted",
    )
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "predicted" / "predictions.tsv").read_text("utf-8")
    assert sum(label in lines for label in ("no", "yes", "so")) >= 1
    assert len(lines.strip().split("\n")) >= 2


def test_labels_are_those_that_hugging_face_shows(write):
    """A later training there may have renamed the classes."""
    source = write(GOOGLE, ("classifier",), labels=LABELS)
    there = convert("google", "huggingface", source, "there")
    edit_json(there + "/config.json", id2label={"0": "x", "1": "y", "2": "z"})
    back = convert("huggingface", "google", there, "back")
    labels = json.loads(pathlib.Path(back, "labels.json").read_text("utf-8"))
    assert labels == dict(LABELS, labels=["x", "y", "z"])


def test_casing_survives(write):
    source = write(GOOGLE)
    there = convert("google", "huggingface", source, "there")
    edit_json(there + "/tokenizer_config.json", do_lower_case=False)
    back = convert("huggingface", "google", there, "back")
    assert model_directory.read_do_lower_case(back) is False
    again = convert("google", "huggingface", back, "again")
    settings = json.loads(pathlib.Path(again, "tokenizer_config.json").read_text())
    assert settings["do_lower_case"] is False


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["AlbertForMultipleChoice"]},
        {"architectures": ["AlbertForSomethingElse"]},
        {"problem_type": "regression"},
    ],
)
def test_heads_that_only_look_alike_stay_behind(write, caplog, changes):
    source = write(GOOGLE, ("classifier",))
    there = convert("google", "huggingface", source, "there")
    edit_json(there + "/config.json", **changes)
    back = convert("huggingface", "google", there, "back")
    assert "not converted: classifier.weight" in caplog.text
    assert set(weights(source)) - set(weights(back)) == {
        "output_weights",
        "output_bias",
    }


def test_variables_that_are_no_part_of_the_model_stay_behind(write, caplog):
    source = write(GOOGLE)
    prefix = model_directory.find(source).checkpoint
    tensors = dict(checkpoints.read_tensors(prefix), **{"crf/trans": np.ones([3, 3])})
    checkpoints.write_tensors(tensors, os.path.join(source, "model.ckpt"))
    there = convert("google", "huggingface", source, "there")
    assert "not converted: crf/trans" in caplog.text
    back = convert("huggingface", "google", there, "back")
    assert set(tensors) - set(weights(back)) == {"crf/trans", "global_step"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_not_passed_on(write, value):
    source = write(GOOGLE)
    prefix = model_directory.find(source).checkpoint
    tensors = checkpoints.read_tensors(prefix)
    tensors["bert/pooler/dense/bias"][0] = value
    checkpoints.write_tensors(tensors, os.path.join(source, "model.ckpt"))
    for target_format in ("google", "huggingface"):
        with pytest.raises(UserError, match="pooler/dense/bias holds NaN or infinity"):
            convert("google", target_format, source, "there")


def test_no_projection_becomes_the_identity_and_back(write):
    """With E = H TensorFlow has no projection, Hugging Face always has one."""
    source = write(dict(GOOGLE, embedding_size=8))
    there = convert("google", "huggingface", source, "there")
    assert_same_model(source, convert("huggingface", "google", there, "back"))


def test_layers_without_sharing_become_groups(write):
    source = write(
        dict(SMALL, embedding_size=4, num_hidden_groups=1, cross_layer_sharing="none")
    )
    there = convert("google", "huggingface", source, "there")
    back = convert("huggingface", "google", there, "back")
    config = json.loads(pathlib.Path(back, "albert_config.json").read_text())
    assert config["num_hidden_groups"] == SMALL["num_hidden_layers"]
    inputs = head_to_head.make_inputs(30, length=12)
    ours, theirs = (
        head_to_head.run_here(directory, inputs, HEADS) for directory in (source, back)
    )
    np.testing.assert_array_equal(ours["sequence"], theirs["sequence"])


def test_half_precision_rounds_and_nothing_else(write):
    source = write(GOOGLE)
    there = convert("google", "huggingface", source, "there", dtype="float16")
    size = os.path.getsize(os.path.join(there, "model.safetensors"))
    back = convert("huggingface", "google", there, "back")
    ours, theirs = weights(source), weights(back)
    assert size < 2.5 * sum(value.size for value in ours.values()) + 10000
    for name, value in ours.items():
        np.testing.assert_array_equal(value.astype(np.float16), theirs[name])


def test_slots_are_stripped_unless_kept(write):
    source = write(GOOGLE)
    prefix = model_directory.find(source).checkpoint
    tensors = checkpoints.read_tensors(prefix)
    table = "bert/embeddings/word_embeddings"
    tensors[table + "/adam_m"] = np.full([30, 4], 2.0, np.float32)
    checkpoints.write_tensors(tensors, os.path.join(source, "model.ckpt"))
    stripped = convert("google", "google", source, "stripped")
    shapes = checkpoints.read_shapes(model_directory.find(stripped).checkpoint)
    assert table in shapes and table + "/adam_m" not in shapes
    kept = convert("google", "google", source, "kept", keep_slots=True)
    value = tf.train.load_variable(
        model_directory.find(kept).checkpoint, table + "/adam_m"
    )
    np.testing.assert_array_equal(value, np.full([30, 4], 2.0))
    step = tf.train.load_variable(model_directory.find(kept).checkpoint, "global_step")
    assert step == 7


def test_old_names_and_the_bare_encoder_are_understood(write):
    """Before 2019 LayerNorm had gamma and beta; a bare encoder has no prefix."""
    from safetensors import numpy as safetensors

    source = write(GOOGLE, ())
    there = convert("google", "huggingface", source, "there")
    path = os.path.join(there, "model.safetensors")
    state = {}
    for name, value in safetensors.load_file(path).items():
        if "LayerNorm" in name:
            name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        state[name[len("albert.") :]] = value
    state["embeddings.position_ids"] = np.arange(12)[np.newaxis]
    safetensors.save_file(state, path)
    assert_same_model(source, convert("huggingface", "google", there, "back"))


def test_vocabulary_is_taken_out_of_a_tokenizer_json(write):
    source = write(GOOGLE)
    there = pathlib.Path(convert("google", "huggingface", source, "there"))
    tokens = (there / "vocab.txt").read_text("utf-8").split("\n")[:-1]
    vocab = {token: index for index, token in reversed(list(enumerate(tokens)))}
    (there / "vocab.txt").unlink()
    content = {"model": {"type": "WordPiece", "vocab": vocab}}
    (there / "tokenizer.json").write_text(json.dumps(content))
    assert_same_model(source, convert("huggingface", "google", str(there), "back"))


@pytest.mark.parametrize(
    "options,file_name",
    [
        ({"safe_serialization": False}, "pytorch_model.bin"),
        ({"max_shard_size": "2KB"}, "model.safetensors.index.json"),
        (
            {"safe_serialization": False, "max_shard_size": "2KB"},
            "pytorch_model.bin.index.json",
        ),
    ],
)
def test_every_weights_file_of_transformers_is_read(tmp_path, options, file_name):
    transformers = pytest.importorskip("transformers")
    model = transformers.AlbertForPreTraining(transformers.AlbertConfig(**GOOGLE))
    model.save_pretrained(str(tmp_path / "single"))
    model.save_pretrained(str(tmp_path / "other"), **options)
    assert (tmp_path / "other" / file_name).exists()
    single = convert("huggingface", "google", str(tmp_path / "single"), "from_single")
    other = convert("huggingface", "google", str(tmp_path / "other"), "from_other")
    ours, theirs = weights(single), weights(other)
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_bfloat16_weights_are_read_as_they_are(tmp_path):
    transformers = pytest.importorskip("transformers")
    import torch

    model = transformers.AlbertModel(transformers.AlbertConfig(**GOOGLE)).bfloat16()
    model.save_pretrained(str(tmp_path / "half"))
    with open(str(tmp_path / "half" / "model.safetensors"), "rb") as source:
        assert b'"BF16"' in source.read(10000)
    back = convert("huggingface", "google", str(tmp_path / "half"), "back")
    table = weights(back)["bert/embeddings/word_embeddings"]
    expected = model.embeddings.word_embeddings.weight.detach().to(torch.float32)
    np.testing.assert_array_equal(table, expected.numpy())


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_checkpoints_of_another_float_follow_their_hint(write, dtype):
    source = write(GOOGLE)
    values = {
        name: value.astype(dtype.as_numpy_dtype)
        for name, value in weights(source).items()
    }
    prefix = checkpoints.write_tensors(values, os.path.join(source, "model.ckpt"))
    config = modeling.AlbertConfig(**GOOGLE)
    words = "{}, expected float32; .*--from=google --to=google ".format(dtype.name)
    with pytest.raises(UserError, match=words):
        model_graph.check_init_checkpoint(prefix, config, lambda model: None)
    assert (
        "expected float32"
        in dict(inspect_checkpoint.report(prefix, checkpoints.read_shapes(prefix)))[
            "config beside it"
        ]
    )
    copy = convert("google", "google", source)
    for name, value in weights(copy).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, values[name].astype(np.float32))
    prefix = model_directory.find(copy).checkpoint
    model_graph.check_init_checkpoint(prefix, config, lambda model: None)


def test_float64_beyond_float32_is_refused(write):
    source = write(GOOGLE)
    values = {name: value.astype(np.float64) for name, value in weights(source).items()}
    values["bert/pooler/dense/bias"][0] = 1e300
    checkpoints.write_tensors(values, os.path.join(source, "model.ckpt"))
    with pytest.raises(UserError, match="bert/pooler/dense/bias holds NaN or infin"):
        convert("google", "google", source)


# --- What is refused ---------------------------------------------------------


@pytest.mark.parametrize(
    "settings,source_format,target_format,words",
    [
        (ALBERT_ZH, "albert_zh", "google", "position and segment embeddings"),
        (ALBERT_ZH, "albert_zh", "huggingface", "no exact conversion"),
        (GOOGLE, "google", "albert_pytorch", "no exact conversion"),
        (SMALL, "bert", "google", "no exact conversion"),
        (GOOGLE, "albert_zh", "albert_pytorch", "give --from=google"),
        (
            dict(ALBERT_ZH, ln_type="preln"),
            "albert_zh",
            "albert_pytorch",
            "shares all with preln",
        ),
        (
            dict(
                SMALL,
                embedding_size=4,
                num_hidden_groups=1,
                cross_layer_sharing="attention",
            ),
            "google",
            "huggingface",
            "share only attention",
        ),
        (dict(SMALL, cross_layer_sharing="all"), "bert", "huggingface", "no layers"),
    ],
)
def test_what_has_no_exact_counterpart_is_refused(
    write, settings, source_format, target_format, words
):
    source = write(settings)
    with pytest.raises(UserError, match=words):
        convert(source_format, target_format, source)
    assert sorted(os.listdir(os.path.dirname(source))) == ["source"]


def test_groups_that_the_frameworks_number_differently_are_refused():
    """Some numbers of layers and groups round differently; they are found."""
    from albert_zh.interop import state_dict_format

    refused = []
    for layers in range(1, 49):
        for groups in range(1, layers + 1):
            settings = dict(GOOGLE, num_hidden_layers=layers, num_hidden_groups=groups)
            config = modeling.AlbertConfig(**settings)
            same = all(
                int(i / layers * groups) == int(i / (layers / groups))
                for i in range(layers)
            )
            try:
                state_dict_format.HUGGING_FACE["google"].check(config)
                assert same
            except UserError:
                assert not same
                refused.append((layers, groups))
    assert (18, 14) in refused
    assert not {(12, 1), (24, 1), (12, 12), (24, 4)} & set(refused)


@pytest.mark.parametrize(
    "key,value,words",
    [
        ("layer_norm_eps", 1e-5, "layer_norm_eps is 1e-05"),
        ("hidden_act", "silu", "hidden_act 'silu'"),
        ("model_type", "roberta", "model_type is 'roberta'"),
        ("hidden_size", None, "lacks hidden_size"),
        ("hidden_size", 16, "has shape"),
        ("vocab_size", 29, "has shape"),
    ],
)
def test_config_that_cannot_be_kept_is_refused(write, key, value, words):
    there = convert("google", "huggingface", write(GOOGLE), "there")
    path = pathlib.Path(there, "config.json")
    config = json.loads(path.read_text())
    config[key] = value
    if value is None:
        del config[key]
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=words):
        convert("huggingface", "google", there, "back")


def test_untied_output_table_is_refused(write):
    from safetensors import numpy as safetensors

    there = convert("google", "huggingface", write(GOOGLE), "there")
    path = os.path.join(there, "model.safetensors")
    state = safetensors.load_file(path)
    table = state["albert.embeddings.word_embeddings.weight"]
    state["predictions.decoder.weight"] = table.copy()
    safetensors.save_file(state, path)
    convert("huggingface", "google", there, "tied")
    state["predictions.decoder.weight"] = table + 1
    safetensors.save_file(state, path)
    with pytest.raises(UserError, match="predictions.decoder.weight differs"):
        convert("huggingface", "google", there, "untied")
    rest = convert("huggingface", "google", there, "untied", drop_masked_lm=True)
    names = set(weights(rest))
    assert "cls/seq_relationship/output_weights" in names
    assert not any(name.startswith("cls/predictions") for name in names)


def test_half_precision_without_room_is_refused(write):
    source = write(GOOGLE)
    prefix = model_directory.find(source).checkpoint
    tensors = checkpoints.read_tensors(prefix)
    tensors["bert/pooler/dense/bias"][0] = 1e6
    checkpoints.write_tensors(tensors, os.path.join(source, "model.ckpt"))
    with pytest.raises(UserError, match="albert.pooler.bias has 1e.06"):
        convert("google", "huggingface", source, dtype="float16")


def test_a_neighbour_is_not_touched(write, tmp_path):
    """Unfinished output has a name of its own."""
    (tmp_path / "target.partial").mkdir()
    (tmp_path / "target.partial" / "mine").write_text("precious")
    target = convert("google", "huggingface", write(GOOGLE))
    assert (tmp_path / "target.partial" / "mine").read_text() == "precious"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"source", "target", "target.partial"}
    assert os.stat(target).st_mode == os.stat(str(tmp_path / "source")).st_mode


def test_pooler_of_a_classifier_may_not_be_missing(write):
    source = write(GOOGLE, ("classifier",))
    tensors = weights(source)
    for name in ("bert/pooler/dense/kernel", "bert/pooler/dense/bias"):
        del tensors[name]
    tensors["global_step"] = np.int64(7)
    checkpoints.write_tensors(tensors, os.path.join(source, "model.ckpt"))
    with pytest.raises(UserError, match="pooler/dense/bias is missing$"):
        convert("google", "huggingface", source, allow_missing=True)


def test_gaps_in_a_tokenizer_json_are_refused(write):
    there = pathlib.Path(convert("google", "huggingface", write(GOOGLE), "there"))
    (there / "vocab.txt").unlink()
    content = {"model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "一": 2}}}
    (there / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="tokenizer.json: the ids .* not 0 to 1"):
        convert("huggingface", "google", str(there), "back")


@pytest.fixture
def write_hugging_face(write):
    """Function: writes a Hugging Face model with these vocabulary entries."""

    def write_model(entries, settings=GOOGLE):
        settings = dict(settings, vocab_size=entries)
        dialect = "google" if "embedding_size" in settings else "bert"
        return pathlib.Path(convert(dialect, "huggingface", write(settings), "there"))

    return write_model


def test_token_that_a_tool_stripped_to_nothing_comes_back(write_hugging_face):
    """U+2028 of BERT's vocabulary is "" in the tokenizer.json of transformers 5."""
    there = write_hugging_face(30)
    tokens = (there / "vocab.txt").read_text("utf-8").splitlines()
    (there / "vocab.txt").unlink()
    tokens[7], tokens[9] = "", "##"
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    content = {"model": {"type": "WordPiece", "vocab": vocab}}
    (there / "tokenizer.json").write_text(json.dumps(content))
    back = convert("huggingface", "google", str(there), "back")
    lines = pathlib.Path(back, "vocab.txt").read_bytes().decode("utf-8").split("\n")
    tokens[7], tokens[9] = "\u2028", "##\u2028"
    assert lines[:-1] == tokens


# Where tools write the tokens that were added to a vocabulary.
ADDED = {
    "added_tokens.json": {"新冠": 30, "[e1]": 31},
    "tokenizer.json": {
        "added_tokens": [
            {"id": 0, "content": "[PAD]", "special": True},
            {"id": 30, "content": "新冠", "special": False},
            {"id": 31, "content": "[e1]", "special": True},
        ]
    },
    "tokenizer_config.json": {
        "added_tokens_decoder": {
            "0": {"content": "[PAD]"},
            "30": {"content": "新冠"},
            "31": {"content": "[e1]"},
        }
    },
}


@pytest.mark.parametrize("name", list(ADDED))
def test_added_tokens_are_named_and_get_their_ids(write_hugging_face, caplog, name):
    there = write_hugging_face(32)
    tokens = (there / "vocab.txt").read_text("utf-8").splitlines()[:30]
    (there / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    (there / name).write_text(json.dumps(ADDED[name]))
    back = convert("huggingface", "google", str(there), "back")
    lines = pathlib.Path(back, "vocab.txt").read_text("utf-8").splitlines()
    assert lines == tokens + ["新冠", "[e1]"]
    assert "2 added tokens, ids 30 to 31: 新冠, [e1]" in caplog.text


def test_a_table_larger_than_the_vocabulary(write_hugging_face, caplog):
    """As `resize_token_embeddings(pad_to_multiple_of=...)` leaves it."""
    there = write_hugging_face(30)
    tokens = (there / "vocab.txt").read_text("utf-8").splitlines()[:28]
    (there / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    words = r"append the lines \[unused28\] to \[unused29\]"
    with pytest.raises(UserError, match=words):
        convert("huggingface", "google", str(there), "refused")
    full = tokens + ["[unused28]", "[unused29]"]
    (there / "vocab.txt").write_text("\n".join(full) + "\n", encoding="utf-8")
    followed = convert("huggingface", "google", str(there), "followed")
    # A tokenizer.json has no line to append.
    (there / "vocab.txt").unlink()
    vocabulary = {token: number for number, token in enumerate(tokens)}
    content = {"model": {"type": "WordPiece", "vocab": vocabulary}}
    (there / "tokenizer.json").write_text(json.dumps(content))
    padded = convert("huggingface", "google", str(there), "padded")
    assert "the other rows are named [unused28] to [unused29]" in caplog.text
    assert_same_model(followed, padded)


def test_gap_before_an_added_token_is_refused(write_hugging_face):
    there = write_hugging_face(30)
    (there / "added_tokens.json").write_text(json.dumps({"新冠": 31}))
    with pytest.raises(UserError, match="30 entries, but the added token 新冠 .* 31"):
        convert("huggingface", "google", str(there), "back")


@pytest.mark.parametrize("settings,dialect", [(GOOGLE, "google"), (SMALL, "bert")])
def test_model_type_is_told_from_the_tensors(write_hugging_face, settings, dialect):
    there = write_hugging_face(30, settings)
    config = json.loads((there / "config.json").read_text())
    del config["model_type"]
    (there / "config.json").write_text(json.dumps(config))
    back = convert("huggingface", dialect, str(there), "back")
    source = str(there.parent / "source")
    assert_same_model(source, back)


@pytest.mark.parametrize(
    "index,words",
    [
        ({"weight_map": ["a"]}, "damaged .weight_map"),
        ({"weight_map": {"a": "model-1.safetensors"}}, "model-1.* does not exist"),
    ],
)
def test_damaged_index_of_parts_is_refused(write, index, words):
    there = pathlib.Path(convert("google", "huggingface", write(GOOGLE), "there"))
    (there / "model.safetensors").unlink()
    (there / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=words):
        convert("huggingface", "google", str(there), "back")


def test_missing_pooler_is_refused_unless_allowed(write, caplog):
    from safetensors import numpy as safetensors

    there = convert("google", "huggingface", write(GOOGLE), "there")
    path = os.path.join(there, "model.safetensors")
    state = safetensors.load_file(path)
    state = {name: value for name, value in state.items() if "pooler" not in name}
    state["adapter.weight"] = np.zeros([2, 8], np.float32)
    safetensors.save_file(state, path)
    with pytest.raises(UserError, match="pooler.* is missing; --allow_missing"):
        convert("huggingface", "google", there, "back")
    back = convert("huggingface", "google", there, "back", allow_missing=True)
    assert "bert/pooler/dense/kernel is missing" in caplog.text
    assert "not converted: adapter.weight" in caplog.text
    assert not any("pooler" in name for name in weights(back))


# --- Bad input, as the user sees it -------------------------------------------


@pytest.fixture
def fails(capsys, tmp_path):
    """Function: the command ends in one line with these words and no output.

    In this process, as starting TensorFlow takes longer than the rest.
    """

    def check(source_format, target_format, source, words, *flags):
        arguments = ["--from=" + source_format, "--to=" + target_format]
        arguments += ["--input=" + source, "--output={}".format(tmp_path / "refused")]
        parser = convert_checkpoint.build_parser()
        with pytest.raises(SystemExit) as ended:
            command_line.run(convert_checkpoint.main, parser, arguments + list(flags))
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert ": error: " in line
        assert [word for word in words if word not in line] == []
        assert not list(tmp_path.glob("refused*"))

    return check


def test_truncated_safetensors(write, fails):
    there = convert("google", "huggingface", write(GOOGLE), "there")
    path = pathlib.Path(there, "model.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    fails("huggingface", "google", there, ["model.safetensors", "truncated"])


class _Attack:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickle_that_wants_to_run_code(write, fails, tmp_path):
    pytest.importorskip("torch")
    there = convert("google", "huggingface", write(GOOGLE), "there")
    os.remove(os.path.join(there, "model.safetensors"))
    trap = tmp_path / "trapped"
    with open(os.path.join(there, "pytorch_model.bin"), "wb") as target:
        pickle.dump({"albert.pooler.weight": _Attack(str(trap))}, target)
    fails("huggingface", "google", there, ["pytorch_model.bin", "refused"])
    assert not trap.exists()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A small classifier in Hugging Face's format, to be copied."""
    directory = tmp_path_factory.mktemp("template")
    config = modeling.AlbertConfig(**GOOGLE)
    head_to_head.write_random_model(str(directory / "tf"), config, ("classifier",))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [chr(0x4E00 + index) for index in range(config.vocab_size - len(tokens))]
    text = "".join(token + "\n" for token in tokens)
    (directory / "tf" / "vocab.txt").write_text(text, encoding="utf-8")
    return convert("google", "huggingface", str(directory / "tf"), "there")


@pytest.fixture
def hugging_face(template, tmp_path):
    """Function: a directory of Hugging Face's format with one file replaced."""

    def make(name, content):
        there = tmp_path / "there"
        shutil.copytree(template, str(there))
        if not name.startswith("vocab"):
            (there / "vocab.txt").unlink()
        if name.endswith((".bin", "index.json")):
            (there / "model.safetensors").unlink()
        (there / name).write_bytes(content)
        return str(there)

    return make


def test_old_torch_reads_no_pickle_from_elsewhere(hugging_face, fails, monkeypatch):
    torch = pytest.importorskip("torch")
    there = hugging_face("pytorch_model.bin", b"")
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    for version in ("2.9.1+cu128", "2.5.1", "1.13.1"):
        monkeypatch.setattr(torch, "__version__", version)
        words = ["pytorch_model.bin", version, "CVE-2025-32434", "2.10", "safetensors"]
        fails("huggingface", "google", there, words)
    for version in ("2.10.0", "2.13.0+cpu", "3.0.0a0"):
        weights_files._require_safe_torch(version, "")


def test_safetensors_are_preferred_to_a_pickle(write, monkeypatch):
    torch = pytest.importorskip("torch")
    there = convert("google", "huggingface", write(GOOGLE), "there")
    pathlib.Path(there, "pytorch_model.bin").write_bytes(b"not read")
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    convert("huggingface", "google", there, "back")


def test_old_torch_writes_and_checks_its_own_pickle(write, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "__version__", "1.13.1")
    there = convert("albert_zh", "albert_pytorch", write(ALBERT_ZH), "there")
    with pytest.raises(UserError, match="could run code"):
        convert("albert_pytorch", "albert_zh", there, "back")


def test_tensors_that_models_do_not_hold(hugging_face, fails, tmp_path):
    torch = pytest.importorskip("torch")
    for value in (
        torch.eye(3).to_sparse(),
        torch.zeros(1).expand(10**13),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, dtype=torch.bool),
    ):
        path = tmp_path / "odd.bin"
        torch.save({"albert.pooler.weight": value}, str(path))
        with pytest.raises(UserError, match="no ordinary tensor of real numbers"):
            weights_files._load_pickle(str(path), is_trusted=False)
    torch.save({7: torch.zeros(3)}, str(path))
    with pytest.raises(UserError, match="no state dict"):
        weights_files._load_pickle(str(path), is_trusted=False)


def with_header(header):
    """A safetensors file of 16 bytes of data."""
    return len(header).to_bytes(8, "little") + header + bytes(16)


def tensor(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(**tensors):
    return json.dumps(tensors).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        (2**63).to_bytes(8, "little") + b"{}",
        (10**6).to_bytes(8, "little") + b"{}",
        with_header(b"[" * 100000),
        with_header(b'{"a": \xff}'),
        with_header(header(a=tensor(offsets=(0, 17)))),
        with_header(header(a=tensor(offsets=(16, 0)))),
        with_header(header(a=tensor(offsets=(0, 2**70)))),
        with_header(header(a=tensor(shape=(5,)))),
        with_header(header(a=tensor(shape=(-4,)))),
        with_header(header(a=tensor(shape=(2**40, 2**40)))),
        with_header(header(a=tensor("F31"))),
        with_header(header(a=tensor("BOOL", (16,)))),
        with_header(header(a=tensor(), b=tensor())),
        with_header(header(a=tensor(shape=(2,), offsets=(8, 16)))),
        with_header(header(a={"dtype": "F32"})),
        with_header(header(a=7)),
    ],
    ids=lambda content: repr(content[8:60]),
)
def test_safetensors_with_a_wrong_header(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="model.safetensors: ") as caught:
        weights_files.read_state(str(tmp_path), "--input")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


ODD_JSON = ["", "[]", "{", "null", "NaN", "[" * 100000, "1" * 5000, '"\\ud800"']


@pytest.mark.parametrize(
    "name,text",
    [("config.json", text) for text in ODD_JSON]
    + [("tokenizer_config.json", text) for text in ODD_JSON]
    + [("tokenizer.json", text) for text in ODD_JSON]
    + [("model.safetensors.index.json", text) for text in ODD_JSON]
    + [
        ("tokenizer_config.json", '{"do_lower_case": "no"}'),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": 0.5}}}'),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": ["a"]}}'),
        ("tokenizer.json", '{"model": {"type": "WordPiece"}}'),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a\\nb": 0}}}'),
        ("tokenizer.json", '{"model": 7, "normalizer": []}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": 7}}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": ".."}}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../../x\\u001b"}}'),
    ],
)
def test_odd_json(name, text, hugging_face, fails):
    there = hugging_face(name, text.encode())
    fails("huggingface", "google", there, [name])


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "8"},
        {"hidden_size": 2**40},
        {"num_hidden_layers": 10**6},
        {"num_attention_heads": 0},
        {"vocab_size": True},
        {"hidden_act": ["gelu"]},
        {"hidden_dropout_prob": "none"},
        {"architectures": [7]},
        {"architectures": "AlbertModel"},
        {"id2label": {"0": {}, "1": "b"}},
        {"id2label": ["a", "b"]},
        {"task_specific_params": {"albert_zh": {"labels": "ab"}}},
        {"task_specific_params": {"albert_zh": [1]}},
        {"task_specific_params": {"albert_zh": {"max_seq_length": 32.5}}},
        {"problem_type": []},
    ],
    ids=str,
)
def test_odd_settings_in_a_config(changes, template, tmp_path, fails):
    there = shutil.copytree(template, str(tmp_path / "there"))
    edit_json(there + "/config.json", **changes)
    fails("huggingface", "google", there, list(changes))


@pytest.mark.parametrize(
    "settings,source_format,target_format",
    [
        (GOOGLE, "google", "huggingface"),
        (GOOGLE, "google", "google"),
        (ALBERT_ZH, "albert_zh", "albert_pytorch"),
    ],
)
def test_a_full_disk_leaves_nothing(
    settings, source_format, target_format, write, fails
):
    resource = pytest.importorskip("resource")
    if target_format == "albert_pytorch":
        pytest.importorskip("torch")
    source = write(settings)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        fails(source_format, target_format, source, ["cannot write"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(os.path.dirname(source))) == ["source"]
    convert(source_format, target_format, source)


def test_two_conversions_to_one_output_are_kept_apart(write, tmp_path):
    source = write(GOOGLE)
    with locks.hold(str(tmp_path / ".target.lock"), ""):
        with pytest.raises(UserError, match="in use by another process"):
            convert("google", "google", source)
    killed = tmp_path / ".target.{}.partial".format("0f" * 16)
    killed.mkdir()
    convert("google", "google", source)
    assert sorted(os.listdir(str(tmp_path))) == ["source", "target"]


def test_truncated_pickle(write, fails):
    pytest.importorskip("torch")
    there = convert("albert_zh", "albert_pytorch", write(ALBERT_ZH), "there")
    path = pathlib.Path(there, "pytorch_model.bin")
    path.write_bytes(path.read_bytes()[:3000])
    fails("albert_pytorch", "albert_zh", there, ["pytorch_model.bin", "truncated"])


def test_vocabulary_one_line_short(write, fails):
    source = write(GOOGLE, entries=29)
    fails("google", "huggingface", source, ["29 entries", "30 rows"])


def test_config_of_another_size(write, fails):
    source = write(GOOGLE)
    path = pathlib.Path(source, "albert_config.json")
    settings = dict(json.loads(path.read_text()), hidden_size=16)
    path.write_text(json.dumps(settings))
    fails("google", "huggingface", source, ["hidden_size is 8, not the config's 16"])


def test_no_weights_at_all(write, fails):
    source = write(GOOGLE)
    for path in pathlib.Path(source).glob("*ckpt*"):
        path.unlink()
    pathlib.Path(source, "checkpoint").unlink()
    fails("google", "huggingface", source, ["--input", "no TensorFlow checkpoint"])
    there = pathlib.Path(source).parent / "empty"
    there.mkdir()
    fails("huggingface", "google", str(there), ["cannot read", "config.json"])
    (there / "config.json").write_text("{}")
    fails("huggingface", "google", str(there), ["no model.safetensors"])


def test_options_that_do_not_fit(write, fails):
    source = write(GOOGLE)
    fails("google", "huggingface", source, ["--keep_slots"], "--keep_slots")
    fails("google", "google", source, ["--dtype=float16"], "--dtype=float16")
    fails("google", "google", source, ["--task_name"], "--task_name=pair")
    fails("google", "google", source, ["--labels requires"], "--labels=a,b")
    task = ["--task_name=pair", "--max_seq_length=13"]
    classifier = write(GOOGLE, ("classifier",), "classifier")
    fails("google", "google", classifier, ["13", "12 positions"], *task)


def test_output_that_cannot_be_written_is_named_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for output in ("file", "file/below"):
        with pytest.raises(UserError, match="--output=.*file"):
            convert("google", "google", str(tmp_path / "absent"), output)


def test_existing_output_is_left_alone(write, run_command, assert_user_error):
    source = write(GOOGLE)
    result = run_command(
        "convert_checkpoint.py",
        "--from=google",
        "--to=google",
        "--input=" + source,
        "--output=" + source,
    )
    assert_user_error(result, "--output", "exists already")
    assert_same_model(source, convert("google", "google", source, "copy"))


def test_damaged_output_is_noticed(write, monkeypatch):
    """The comparison after writing is real: a writer that errs is caught."""
    source = write(GOOGLE)

    def err(model, directory, options):
        tensors = dict(model.tensors)
        name = "bert/pooler/dense/bias"
        tensors[name] = np.nextafter(tensors[name], np.float32(9))
        checkpoint_format.write(model._replace(tensors=tensors), directory)

    formats = dict(conversion.FORMATS)
    formats["google"] = formats["google"]._replace(write=err)
    monkeypatch.setattr(conversion, "FORMATS", formats)
    with pytest.raises(RuntimeError, match="bert/pooler/dense/bias differs"):
        convert("google", "google", source)
    assert sorted(os.listdir(os.path.dirname(source))) == ["source"]


@pytest.mark.parametrize(
    "name, settings",
    [
        ("tokenizer_config.json", {"do_lower_case": "no"}),
        ("tokenizer_config.json", {"do_lower_case": 1}),
        ("tokenizer_config.json", []),
        ("tokenizer.json", {"normalizer": {"lowercase": "no"}}),
        ("tokenizer.json", {"normalizer": []}),
        ("tokenizer.json", {"model": {"type": "WordPiece"}}),
        ("tokenizer.json", {"model": {"type": "WordPiece", "vocab": {"a": "0"}}}),
    ],
)
def test_a_tokenizers_files_are_held_against_a_schema(tmp_path, name, settings):
    (tmp_path / name).write_text(json.dumps(settings))
    with pytest.raises(UserError, match="{}: damaged".format(name)):
        tokenizer_files.read(str(tmp_path))
