"""convert_checkpoint.py: what comes back is what went in."""

import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inspect_checkpoint
import modeling
from albert_zh.base.errors import UserError
from albert_zh.interop import heads
from albert_zh.models import checkpoints, model_graph
from albert_zh.models import directory as model_directory
from albert_zh.tasks import kinds, model_files, registry
from benchmarks import head_to_head
from tests.converted_models import (
    ALBERT_ZH,
    GOOGLE,
    HEADS,
    LABELS,
    SMALL,
    assert_same_model,
    convert,
    edit_json,
    weights,
)

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
    if decoder == "crf":  # which the variables tell
        os.remove(os.path.join(source, "labels.json"))
        task = {"task_name": "ner", "normalize_punctuation": False}
        told = convert("google", "google", source, "told", task=task, kind="tagging")
        found = json.loads(pathlib.Path(told, "labels.json").read_text("utf-8"))
        assert found["options"] == {"decoder": "crf"}
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


def test_labels_in_another_order_are_refused_and_the_hint_works(write, caplog):
    """A task of CLUE has an order of its own; the rows of the model have theirs."""
    labels = dict(LABELS, task_name="pair", labels=["x", "y", "z"])
    source = write(GOOGLE, ("classifier",), labels=labels)
    there = convert("google", "huggingface", source, "there")
    other = {"task_name": "cmnli", "labels": ["z", "x", "y"]}
    with pytest.raises(UserError, match="order of its rows x,y,z; .*--labels=x,y,z"):
        convert("huggingface", "google", there, "never", task=other)
    own = {"task_name": "pair", "labels": ["x", "y", "z"]}
    back = convert("huggingface", "google", there, task=own)
    written = json.loads(pathlib.Path(back, "labels.json").read_text("utf-8"))
    assert written["labels"] == ["x", "y", "z"]
    new = {"task_name": "pair", "labels": ["0", "1", "2"]}
    convert("huggingface", "google", there, "renamed", task=new)
    assert "labels: x becomes 0, y becomes 1, z becomes 2" in caplog.text


def test_the_mapping_of_punctuation_survives(write):
    source = write(GOOGLE)
    model_directory.write_tokenizer_settings(source, False, True)
    copy = convert("google", "google", source)
    assert model_directory.read_normalize_punctuation(copy) is True
    assert model_directory.read_do_lower_case(copy) is False
    labels = dict(LABELS, normalize_punctuation=True)
    source = write(GOOGLE, ("classifier",), "classifier", labels=labels)
    task = {"task_name": "pair", "labels": labels["labels"], "max_seq_length": 8}
    shorter = convert("google", "google", source, "shorter", task=task)
    written = json.loads(pathlib.Path(shorter, "labels.json").read_text("utf-8"))
    assert written["normalize_punctuation"] is True
    assert written["max_seq_length"] == 8


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
