"""`--model_dir` in every command, and what a model directory may not be."""

import json
import logging
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import create_pretraining_data
import modeling
import run_classifier
import run_pretraining
from albert_zh import command_line
from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline, masking, record_files, record_format
from albert_zh.models import checkpoints

CHARACTERS = "天地人山水火土木金石日月星云风雨花草鸟鱼。"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(CHARACTERS)
LENGTH, PREDICTIONS = 16, 3
CONFIG = {
    "vocab_size": len(TOKENS),
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": LENGTH,
    "num_hidden_groups": 1,
}
TABLE = "bert/embeddings/word_embeddings"


def write_model(directory, config=CONFIG, tokens=TOKENS):
    """Writes a pretrained model's directory, named as the published ones."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "albert_config_tiny.json").write_text(json.dumps(config))
    text = "".join(token + "\n" for token in tokens)
    (directory / "vocab.txt").write_text(text, encoding="utf-8")
    config = modeling.AlbertConfig.from_dict(config)
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.zeros([1, 2], tf.int32)
        model = modeling.AlbertModel(config, False, ids)
        modeling.get_masked_lm_output(config, model, ids, ids, tf.ones([1, 2]))
        modeling.get_sentence_order_output(config, model, tf.zeros([1], tf.int32))
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver()
        saver.save(
            session, str(directory / "albert_model.ckpt"), write_meta_graph=False
        )
    return directory


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture
def copied_dir(model_dir, tmp_path):
    """The model again, to be damaged."""
    shutil.copytree(str(model_dir), str(tmp_path / "copied"))
    return tmp_path / "copied"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Folder with corpus.txt, data.tfrecord and the pairs train.txt and dev.txt."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.RandomState(0)

    def sentence():
        return "".join(random.choice(list(CHARACTERS[:-1]), 6)) + "。"

    lines = [sentence() + "\n" + sentence() + "\n\n" for _ in range(20)]
    (folder / "corpus.txt").write_text("".join(lines), encoding="utf-8")
    pairs = ["{}\t{}\t{}\n".format(sentence(), sentence(), i % 2) for i in range(16)]
    for name in ("train", "dev"):
        (folder / (name + ".txt")).write_text("".join(pairs), encoding="utf-8")
    vocab_file = folder / "vocab.txt"
    vocab_file.write_text("\n".join(TOKENS), encoding="utf-8")
    make_records(folder, folder / "data.tfrecord", "--vocab_file", vocab_file)
    return folder


def run(command, *flags):
    parser = command.build_parser()
    command_line.run(command.main, parser, [str(flag) for flag in flags])


def make_records(data_dir, output_file, *flags):
    run(
        create_pretraining_data,
        "--input_file={}".format(data_dir / "corpus.txt"),
        "--output_file={}".format(output_file),
        "--max_seq_length={}".format(LENGTH),
        "--max_predictions_per_seq={}".format(PREDICTIONS),
        "--dupe_factor=2",
        *flags,
    )


SHORT_TRAINING = (
    "--train_batch_size=8",
    "--num_train_steps=2",
    "--num_warmup_steps=1",
    "--learning_rate=1e-9",
)
SHORT_EVALUATION = ("--eval_batch_size=8", "--max_eval_steps=2")


def pretrain(data_dir, output_dir, *flags):
    run(
        run_pretraining,
        "--input_file={}".format(data_dir / "data.tfrecord"),
        "--output_dir={}".format(output_dir),
        "--max_seq_length={}".format(LENGTH),
        "--max_predictions_per_seq={}".format(PREDICTIONS),
        *(SHORT_TRAINING if "--do_train" in flags else SHORT_EVALUATION),
        *flags,
    )


def classify(data_dir, output_dir, *flags):
    run(
        run_classifier,
        "--task_name=lcqmc_pair",
        "--output_dir={}".format(output_dir),
        *([] if "--text_pair" in flags else ["--data_dir={}".format(data_dir)]),
        *flags,
    )


FINE_TUNE = ("--do_train", "--num_train_epochs=1", "--max_seq_length=16")


def refused(capsys, function, *arguments):
    """The line that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        function(*arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def strip(directory, *words):
    """Rewrites a directory's checkpoint without the variables of these names."""
    prefix = str(directory / "albert_model.ckpt")
    tensors = checkpoints.read_tensors(prefix)
    for name in list(tensors):
        if any(word in name for word in words):
            del tensors[name]
    for path in directory.glob("albert_model.ckpt*"):
        path.unlink()
    checkpoints.write_tensors(tensors, prefix)


def test_records_are_those_of_the_vocabulary_file(model_dir, data_dir, tmp_path):
    make_records(data_dir, tmp_path / "a.tfrecord", "--model_dir", model_dir)
    expected = (data_dir / "data.tfrecord").read_bytes()
    assert (tmp_path / "a.tfrecord").read_bytes() == expected


def test_each_commands_output_is_the_next_ones_model(
    model_dir, data_dir, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    pretrained, classifier = tmp_path / "pretrained", tmp_path / "classifier"
    pretrain(data_dir, pretrained, "--do_train", "--model_dir", model_dir)
    assert "32 variables restored" in caplog.text
    assert "0 missing, 0 unused" in caplog.text
    assert (pretrained / "vocab.txt").read_bytes() == (
        (model_dir / "vocab.txt").read_bytes()
    )

    caplog.clear()
    classify(data_dir, classifier, *FINE_TUNE, "--model_dir", pretrained)
    assert "25 variables restored" in caplog.text
    assert "newly initialized: output_weights" in caplog.text
    latest = checkpoints.latest_checkpoint(str(classifier))
    np.testing.assert_allclose(
        tf.train.load_variable(latest, TABLE),
        tf.train.load_variable(str(model_dir / "albert_model.ckpt"), TABLE),
        atol=0.01,
    )

    # The fine-tuned model moves away, and its `checkpoint` file is lost.
    moved = tmp_path / "moved"
    shutil.copytree(str(classifier / "best"), str(moved))
    (moved / "checkpoint").unlink()
    before = sorted(path.name for path in moved.iterdir())
    for output_dir, flags in (
        (classifier, []),
        (tmp_path / "results_1", ["--model_dir", moved]),
        (tmp_path / "results_2", ["--model_dir", classifier]),
    ):
        predict_file = "--predict_file={}".format(data_dir / "dev.txt")
        classify(data_dir, output_dir, "--do_predict", predict_file, *flags)
        predictions = (output_dir / "predictions.tsv").read_text()
        assert predictions == (classifier / "predictions.tsv").read_text()
    assert sorted(path.name for path in moved.iterdir()) == before

    # Going on from it takes the encoder, and the head for as many classes.
    caplog.clear()
    classify(data_dir, tmp_path / "again", *FINE_TUNE, "--model_dir", classifier)
    assert str(classifier / "best" / "model.ckpt-1") in caplog.text
    assert "27 variables restored" in caplog.text


@pytest.mark.once
def test_a_fine_tuned_models_tokenizer_goes_on(model_dir, data_dir, tmp_path):
    cased, again = tmp_path / "cased", tmp_path / "again"
    flags = [*FINE_TUNE, "--do_lower_case=False", "--normalize_punctuation"]
    classify(data_dir, cased, *flags, "--model_dir", model_dir)
    classify(data_dir, again, *FINE_TUNE, "--model_dir", cased)
    assert (again / "labels.json").read_text() == (cased / "labels.json").read_text()
    other = [*FINE_TUNE, "--do_lower_case=True", "--model_dir", cased]
    classify(data_dir, tmp_path / "other", *other)
    settings = json.loads((tmp_path / "other" / "labels.json").read_text())
    assert settings["do_lower_case"] and settings["normalize_punctuation"]


@pytest.fixture
def cased_dir(copied_dir):
    """A model with some capital letters, whose tokenizer keeps them."""
    tokens = TOKENS[:-2] + ["A", "B"]
    (copied_dir / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    (copied_dir / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    return copied_dir


@pytest.mark.once
def test_the_casing_is_the_models_through_a_chain(
    cased_dir, model_dir, data_dir, tmp_path
):
    pretrained, classifier = tmp_path / "pretrained", tmp_path / "classifier"
    records = tmp_path / "cased.tfrecord"
    make_records(data_dir, records, "--model_dir", cased_dir)
    of_records = ["--do_train", "--input_file={}".format(records)]
    pretrain(data_dir, pretrained, *of_records, "--model_dir", cased_dir)
    classify(data_dir, classifier, *FINE_TUNE, "--model_dir", pretrained)
    settings = json.loads((classifier / "labels.json").read_text())
    assert settings["do_lower_case"] is False
    # What a fine-tuned model knows of it comes along as well.
    again = tmp_path / "again"
    flags = [*of_records, "--allow_missing", "--model_dir", classifier]
    pretrain(data_dir, again, *flags)
    classify(data_dir, tmp_path / "last", *FINE_TUNE, "--model_dir", again)
    settings = json.loads((tmp_path / "last" / "labels.json").read_text())
    assert settings["do_lower_case"] is False


def test_records_have_the_models_casing(cased_dir, data_dir, tmp_path):
    text = "A天B地。\nB人A山。\n\n" * 8
    (tmp_path / "corpus.txt").write_text(text, encoding="utf-8")
    summaries = {}
    for name, flags in {
        "model": ["--model_dir", cased_dir],
        "lower": ["--model_dir", cased_dir, "--do_lower_case"],
        "neither": ["--vocab_file", cased_dir / "vocab.txt"],
    }.items():
        path = tmp_path / (name + ".tfrecord")
        make_records(tmp_path, path, *flags)
        summaries[name] = json.loads(
            (tmp_path / (path.name + ".summary.json")).read_text()
        )
    casing = {name: s["manifest"]["do_lower_case"] for name, s in summaries.items()}
    assert casing == {"model": False, "lower": True, "neither": True}
    written = {
        name: (tmp_path / (name + ".tfrecord")).read_bytes() for name in summaries
    }
    assert written["lower"] == written["neither"] != written["model"]


def test_a_model_has_the_tokenizer_of_its_records(cased_dir, tmp_path):
    """Nobody else tells a model that is pretrained from nothing."""
    text = "A天B地。\nB人A山。\n\n" * 8
    (tmp_path / "corpus.txt").write_text(text, encoding="utf-8")
    forms = []
    for name, flag in (("cased", "--do_lower_case=false"), ("lower", "--overwrite")):
        path = tmp_path / (name + ".tfrecord")
        make_records(tmp_path, path, "--vocab_file", cased_dir / "vocab.txt", flag)
        forms.append(str(path))
    form = input_pipeline.Form(LENGTH, PREDICTIONS, len(TOKENS))
    masks = masking.MaskSettings()
    found = [record_files.find(path, form, masks) for path in forms]
    casings = [each.tokenizer_settings["do_lower_case"] for each in found]
    assert casings == [False, True]
    with pytest.raises(UserError, match="the records differ in do_lower_case"):
        record_files.find(",".join(forms), form, masks)
    (tmp_path / "cased.tfrecord.summary.json").unlink()
    assert record_files.find(forms[0], form, masks).tokenizer_settings == {}


def test_records_are_no_longer_than_the_model(model_dir, data_dir, tmp_path, capsys):
    flags = ["--model_dir", model_dir, "--max_seq_length={}".format(LENGTH + 1)]
    path = tmp_path / "a.tfrecord"
    line = refused(capsys, make_records, data_dir, path, *flags)
    assert "--max_seq_length 17 is above max_position_embeddings 16" in line
    assert not list(tmp_path.glob("a.tfrecord*"))


def test_a_run_does_not_go_on_from_a_checkpoint_without_step(
    copied_dir, data_dir, capsys
):
    before = sorted(path.name for path in copied_dir.iterdir())
    for flag in ("--do_train", "--do_eval"):
        flags = [flag, "--model_dir", copied_dir]
        line = refused(capsys, pretrain, data_dir, copied_dir, *flags)
        assert "albert_model.ckpt has no global_step" in line
        assert "choose another --output_dir" in line
    assert sorted(path.name for path in copied_dir.iterdir()) == before


def test_evaluation_in_the_models_own_directory(model_dir, data_dir, tmp_path):
    output_dir = tmp_path / "pretrained"
    pretrain(data_dir, output_dir, "--do_train", "--model_dir", model_dir)
    pretrain(data_dir, output_dir, "--do_eval", "--model_dir", output_dir)
    results = json.loads((output_dir / "eval_results.json").read_text())
    assert results["global_step"] == 2


def test_flags_win(model_dir, data_dir, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    other = write_model(tmp_path / "other")
    prefix = other / "albert_model.ckpt"
    flags = ["--model_dir", model_dir, "--init_checkpoint", prefix]
    pretrain(data_dir, tmp_path / "out", "--do_train", *flags)
    assert "--init_checkpoint: {}, not --model_dir's".format(prefix) in caplog.text
    latest = checkpoints.latest_checkpoint(str(tmp_path / "out"))
    np.testing.assert_allclose(
        tf.train.load_variable(latest, TABLE),
        tf.train.load_variable(str(prefix), TABLE),
        atol=1e-6,
    )


INDEX, DATA = "albert_model.ckpt.index", "albert_model.ckpt.data-00000-of-00001"
CONFIG_FILE = "albert_config_tiny.json"


@pytest.mark.parametrize("command", [pretrain, classify])
@pytest.mark.parametrize(
    "removed, written, words",
    [
        (
            ["checkpoint"],
            {"b.ckpt.index": "", "b.ckpt.data-00000-of-00001": ""},
            ["albert_model.ckpt, b.ckpt", "--init_checkpoint"],
        ),
        (
            [],
            {CONFIG_FILE: json.dumps(dict(CONFIG, hidden_size=32))},
            ["albert_model.ckpt", "hidden_size is 16, not the config's 32"],
        ),
        (
            [],
            {CONFIG_FILE: json.dumps(dict(CONFIG, num_hidden_groups=2))},
            ["num_hidden_groups is 1, not the config's 2"],
        ),
        ([CONFIG_FILE], {}, ["holds no config", "--albert_config_file"]),
        ([INDEX], {}, [INDEX + " is missing"]),
        ([DATA], {}, [DATA + " is missing"]),
        ([], {DATA: "short"}, ["albert_model.ckpt is damaged"]),
        (
            [],
            {"vocab.txt": "\n".join(TOKENS[:-1])},
            ["vocab.txt has 25 entries", "26 rows", "append [unused25]"],
        ),
        (
            [INDEX, DATA, "checkpoint"],
            {"model.safetensors": ""},
            ["convert_checkpoint.py --from=huggingface --to=google --input="],
        ),
        (
            [INDEX, DATA, "checkpoint"],
            {},
            ["holds no checkpoint", "--init_checkpoint"],
        ),
    ],
)
def test_a_directory_that_is_not_whole_is_one_line(
    copied_dir, data_dir, tmp_path, capsys, command, removed, written, words
):
    for name in removed:
        (copied_dir / name).unlink()
    for name, text in written.items():
        (copied_dir / name).write_text(text, encoding="utf-8")
    flags = FINE_TUNE if command is classify else ["--do_train"]
    arguments = [data_dir, tmp_path / "out", *flags, "--model_dir", copied_dir]
    line = refused(capsys, command, *arguments)
    assert not [word for word in words if word not in line], line
    assert not (tmp_path / "out").exists()


def test_records_need_the_models_own_vocabulary(copied_dir, data_dir, tmp_path, capsys):
    arguments = [data_dir, tmp_path / "a.tfrecord", "--model_dir", copied_dir]
    (copied_dir / "vocab.txt").write_text("\n".join(TOKENS[:-1]), encoding="utf-8")
    line = refused(capsys, make_records, *arguments)
    assert "25 entries" in line and "26 rows" in line
    (copied_dir / "vocab.txt").unlink()
    line = refused(capsys, make_records, *arguments)
    assert "holds no vocabulary" in line and "download_model.py vocab" in line
    assert not (tmp_path / "a.tfrecord").exists()


def test_a_checkpoints_vocabulary_is_whole_without_a_model_dir_too(
    model_dir, data_dir, tmp_path, capsys
):
    short = tmp_path / "short.txt"
    short.write_text("\n".join(TOKENS[:-1]), encoding="utf-8")
    flags = [*FINE_TUNE, "--vocab_file", short, "--albert_config_file"]
    flags.append(model_dir / "albert_config_tiny.json")
    checkpoint = ["--init_checkpoint", model_dir / "albert_model.ckpt"]
    # With random weights as well: the model that comes of them has to predict.
    for start in (checkpoint, []):
        line = refused(capsys, classify, data_dir, tmp_path / "out", *flags, *start)
        assert "short.txt has 25 entries" in line
        assert not (tmp_path / "out").exists()


def test_pretraining_without_heads_needs_leave(
    copied_dir, data_dir, tmp_path, capsys, caplog
):
    caplog.set_level(logging.INFO)
    strip(copied_dir, "cls/", "pooler")
    arguments = [data_dir, tmp_path / "out", "--do_train", "--model_dir", copied_dir]
    line = refused(capsys, pretrain, *arguments)
    for word in (
        "bert/pooler (2 variables)",
        "cls/predictions (5 variables)",
        "cls/seq_relationship (2 variables)",
        "--allow_missing",
    ):
        assert word in line
    assert not (tmp_path / "out").exists()

    pretrain(*arguments, "--allow_missing")
    assert "23 variables restored" in caplog.text
    new = [line for line in caplog.messages if "newly initialized: " in line]
    assert len(new) == 9
    assert "  newly initialized: cls/predictions/transform/dense/kernel" in new
    latest = checkpoints.latest_checkpoint(str(tmp_path / "out"))
    assert "cls/predictions/output_bias" in checkpoints.read_shapes(latest)


def test_fine_tuning_without_pooler_needs_leave(copied_dir, data_dir, tmp_path, capsys):
    strip(copied_dir, "cls/", "pooler")
    arguments = [data_dir, tmp_path / "out", *FINE_TUNE, "--model_dir", copied_dir]
    line = refused(capsys, classify, *arguments)
    assert "lacks bert/pooler (2 variables)" in line and "--allow_missing" in line
    assert not (tmp_path / "out").exists()
    classify(*arguments, "--allow_missing")
    assert (tmp_path / "out" / "best" / "labels.json").exists()


def test_nothing_starts_without_a_layer(copied_dir, data_dir, tmp_path, capsys):
    strip(copied_dir, "ffn_1/intermediate/output")
    flags = ["--do_train", "--allow_missing", "--model_dir", copied_dir]
    line = refused(capsys, pretrain, data_dir, tmp_path / "out", *flags)
    assert "ffn_1/intermediate/output/dense/bias is missing" in line
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def classifier(model_dir, data_dir, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("classifier")
    classify(data_dir, output_dir, *FINE_TUNE, "--model_dir", model_dir)
    return output_dir


TEXT = ("--text_pair", "天", "地")


def test_predicting_needs_a_fine_tuned_model(
    model_dir, classifier, data_dir, tmp_path, capsys
):
    out = tmp_path / "out"
    line = refused(capsys, classify, data_dir, out, *TEXT, "--model_dir", model_dir)
    assert "--model_dir={} holds no fine-tuned model".format(model_dir) in line
    line = refused(
        capsys, classify, data_dir, out, *TEXT, "--model_dir", tmp_path / "x"
    )
    assert "no such directory" in line
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(TOKENS + ["more"]), encoding="utf-8")
    flags = [*TEXT, "--model_dir", classifier, "--vocab_file", vocab]
    line = refused(capsys, classify, data_dir, out, *flags)
    assert "--model_dir={} holds a different model".format(classifier) in line
    assert not out.exists()


def write_without_step(directory, tensors):
    """Replaces a directory's checkpoint, as other projects write theirs."""
    for path in directory.glob("*model.ckpt*"):
        path.unlink()
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in tensors.items():
            if name != checkpoints.STEP:
                tf.get_variable(name, initializer=value)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(directory / "model.ckpt"))


def test_a_classifier_from_elsewhere_needs_its_task_and_step(
    classifier, data_dir, tmp_path, capsys
):
    moved, out = tmp_path / "moved", tmp_path / "out"
    shutil.copytree(str(classifier / "best"), str(moved))
    (prefix,) = moved.glob("model.ckpt-*.index")
    tensors = checkpoints.read_tensors(str(prefix)[: -len(".index")])
    write_without_step(moved, tensors)
    arguments = [data_dir, out, *TEXT, "--model_dir", moved]
    line = refused(capsys, classify, *arguments)
    assert "model.ckpt has no global_step" in line
    assert "convert_checkpoint.py --from=google --to=google" in line

    (moved / "labels.json").unlink()
    command = (
        "python3 convert_checkpoint.py --from=google --to=google "
        "--input={} --output=DIRECTORY --task_name=".format(moved)
    )
    line = refused(capsys, classify, *arguments)
    assert "holds a fine-tuned model, model.ckpt, without its task" in line
    assert line.endswith(command + "lcqmc")
    line = refused(capsys, classify, *arguments, "--task_name=pair")
    assert line.endswith(command + "pair --labels=NAME,NAME")
    line = refused(capsys, classify, *arguments, "--task_name=pair", "--labels=n,y")
    assert line.endswith(command + "pair --labels=n,y")
    assert not out.exists()


def test_results_do_not_replace_those_of_another_model(
    classifier, data_dir, tmp_path, capsys
):
    moved = shutil.copytree(str(classifier / "best"), str(tmp_path / "moved"))
    line = refused(capsys, classify, data_dir, classifier, *TEXT, "--model_dir", moved)
    assert "of its own" in line and "choose another --output_dir" in line
    best = classifier / "best"
    classify(data_dir, classifier, *TEXT, "--model_dir", best)


def test_a_damaged_fine_tuned_model_is_one_line(classifier, data_dir, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(str(classifier / "best"), str(moved))
    arguments = [data_dir, tmp_path / "out", *TEXT, "--model_dir", moved]

    config = dict(CONFIG, intermediate_size=64)
    config_text = (moved / "albert_config.json").read_text()
    (moved / "albert_config.json").write_text(json.dumps(config))
    words = "intermediate_size is 32, not the config's 64"
    assert words in refused(capsys, classify, *arguments)
    (moved / "albert_config.json").write_text(config_text)

    settings = json.loads((moved / "labels.json").read_text())
    settings.update(task_name="pair", labels=["0", "1", "2"])
    (moved / "labels.json").write_text(json.dumps(settings))
    line = refused(capsys, classify, *arguments, "--task_name=pair")
    assert "expected output_weights [3, 16] for the labels 0,1,2" in line
    shutil.copy(str(classifier / "best" / "labels.json"), str(moved))

    (data,) = moved.glob("model.ckpt-*.data*")
    data.write_bytes(b"")
    assert "is damaged" in refused(capsys, classify, *arguments)
    data.unlink()
    assert data.name + " is missing" in refused(capsys, classify, *arguments)
    assert not (tmp_path / "out").exists()


def test_names_and_shapes_of_the_published_tiny_restore_completely(
    real_data, tmp_path, caplog
):
    """All of it through --model_dir, and every value into its place."""
    caplog.set_level(logging.INFO)
    published = real_data / "albert_tiny_zh_meta"
    folder = tmp_path / "albert_tiny_zh"
    folder.mkdir()
    shutil.copy(str(published / "albert_config_tiny.json"), str(folder))
    shutil.copy(str(real_data / "bert_zh_vocab" / "vocab.txt"), str(folder))
    shapes = checkpoints.read_shapes(str(published / "albert_model.ckpt"))
    random = np.random.RandomState(0)
    tensors = {
        name: random.normal(0.0, 0.02, shape).astype(np.float32)
        for name, shape in sorted(shapes.items())
    }
    prefix = checkpoints.write_tensors(tensors, str(folder / "albert_model.ckpt"))
    words = "31 variables restored (4,295,186 parameters), 0 missing, 0 unused"

    example = {
        "input_ids": np.arange(100, 100 + LENGTH),
        "input_mask": np.ones(LENGTH, np.int64),
        "segment_ids": np.repeat([0, 1], LENGTH // 2),
        "masked_lm_positions": np.arange(PREDICTIONS),
        "masked_lm_ids": np.arange(PREDICTIONS),
        "masked_lm_weights": np.ones(PREDICTIONS),
        "next_sentence_labels": np.array([1]),
    }
    record = record_format.encode_example(example)
    record_format.write_records([record] * 8, str(tmp_path / "data.tfrecord"))
    pretrain(tmp_path, tmp_path / "out", "--do_eval", "--model_dir", folder)
    assert words in caplog.text

    config = modeling.AlbertConfig.from_json_file(
        str(folder / "albert_config_tiny.json")
    )
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.zeros([1, 4], tf.int32)
        model = modeling.AlbertModel(config, True, ids)
        modeling.get_masked_lm_output(config, model, ids, ids, tf.ones([1, 4]))
        modeling.get_sentence_order_output(config, model, tf.zeros([1], tf.int32))
        variables = tf.trainable_variables()
        caplog.clear()
        checkpoints.restore(prefix, variables)
        assert words in caplog.text
        session.run(tf.global_variables_initializer())
        values = session.run({v.op.name: v for v in variables})
    assert set(values) == set(tensors)
    for name, value in values.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)
