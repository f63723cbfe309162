"""`run_ner.py` end to end: it learns a few texts by heart, and predicts them."""

import functools
import json

import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_classifier
import run_multiple_choice
import run_ner
import run_squad
from albert_zh.models import checkpoints

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

CONFIG = {
    "embedding_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
    "ln_type": "postln",
}
# An entity within another, at odd places; a text of several windows.
NESTED = [
    {
        "text": "\u200b甲\u3000市 医院在A1路",
        "label": {
            "organization": {"甲\u3000市 医院": [[1, 6]]},
            "address": {"甲\u3000市": [[1, 3]], "A1路": [[8, 10]]},
        },
        "id": 0,
    },
    {
        "text": "他说，" * 8 + "乙村不远",
        "label": {"address": {"乙村": [[24, 25]]}},
        "id": 1,
    },
]


run = functools.partial(task_runs.run, run_ner)
refused = functools.partial(task_runs.refused, run_ner)


@pytest.fixture(scope="module")
def data(tmp_path_factory, repository):
    """Directory with test.json, train.json (its texts 24 times), the model's files."""
    folder = tmp_path_factory.mktemp("data")
    sample = (repository / "resources/sample_ner/train.json").read_text("utf-8")
    records = NESTED + [
        dict(json.loads(line), id=number)
        for number, line in enumerate(sample.splitlines()[:8], start=2)
    ]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (folder / "test.json").write_text("\n".join(lines), encoding="utf-8")
    # Epochs cost more than steps do.
    (folder / "train.json").write_text("\n".join(lines * 24), encoding="utf-8")
    characters = sorted({c for r in records for c in r["text"].lower() if c.strip()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + characters
    (folder / "vocab.txt").write_bytes("\n".join(tokens).encode("utf-8"))
    config = dict(CONFIG, vocab_size=len(tokens))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def training_flags(data, output_dir):
    return [
        "--task_name=cluener",
        "--do_train",
        "--train_file={}".format(data / "train.json"),
        "--vocab_file={}".format(data / "vocab.txt"),
        "--bert_config_file={}".format(data / "config.json"),
        "--output_dir={}".format(output_dir),
        "--max_seq_length=22",
        "--train_batch_size=4",
        "--seed=1",
    ]


def read_lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("decoder", ["softmax", "crf", "span"])
def test_learns_by_heart_what_it_predicts(data, tmp_path, decoder, caplog, capsys):
    flags = ["--decoder=" + decoder, "--learning_rate=2e-3", "--num_train_epochs=6"]
    if decoder == "crf":
        flags.append("--crf_learning_rate=1e-2")
    test = data / "test.json"
    with caplog.at_level("INFO"):
        run(
            *training_flags(data, tmp_path / "out"),
            *flags + ["--do_eval", "--do_predict", "--test_file={}".format(test)],
        )
    scores = json.loads((tmp_path / "out" / "eval_results.json").read_text("utf-8"))
    assert scores["test"]["f1"] > 0.95
    assert scores["test"]["num_examples"] == 10
    lost = "test: 1 of them have entities that cannot be predicted" in caplog.text
    assert lost == (decoder != "span")
    predicted = read_lines(tmp_path / "out" / "predictions.json")
    given = read_lines(test)
    assert [line["id"] for line in predicted] == list(range(10))
    if decoder == "span":
        assert predicted[0]["label"] == NESTED[0]["label"]
    capsys.readouterr()
    run("--model_dir", tmp_path / "out", "--text", given[1]["text"], "--text", "-\t他")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == given[1]["text"]
    assert shown[1].split() == ["24", "26", "address", "乙村"]
    assert shown[2] == "-\\t他"


@pytest.mark.once
def test_training_goes_on_from_a_fine_tuned_model_as_it_is(data, tmp_path, caplog):
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    brief = ["--num_train_epochs=0.05", "--task_name=ner"]  # without a recipe
    run(*training_flags(data, first), *brief, "--decoder=span")
    flags = ["--do_train", "--train_file={}".format(data / "train.json"), *brief]
    flags += ["--model_dir", first]
    with caplog.at_level("INFO"):
        run(*flags, "--output_dir", again)
    assert "--decoder=span --max_seq_length=22" in caplog.text
    labels = [(path / "labels.json").read_text("utf-8") for path in (first, again)]
    assert labels[0] == labels[1]
    assert ", 0 missing, 0 unused" in caplog.text  # its head, too
    # Flags win.
    run(*flags, "--output_dir", other, "--decoder=softmax", "--max_seq_length=20")
    settings = json.loads((other / "labels.json").read_text("utf-8"))
    assert settings["options"] == {"decoder": "softmax"}
    assert settings["max_seq_length"] == 20


@pytest.mark.once
@pytest.mark.parametrize(
    "flags, rate",
    [
        ([], None),
        (["--decoder=crf"], 1e-3),
        (["--decoder=crf", "--crf_learning_rate=1e-2"], 1e-2),
    ],
)
def test_the_recipe_has_a_rate_for_the_crf_alone(data, tmp_path, caplog, flags, rate):
    flags = [*training_flags(data, tmp_path / "out"), *flags]
    with caplog.at_level("INFO"):
        run(*flags, "--num_train_epochs=0.05")
        run(*flags, "--num_train_epochs=0.1")
    training = json.loads((tmp_path / "out" / "training.json").read_text("utf-8"))
    assert training.get("learning rate of the head") == rate
    is_taken = "--crf_learning_rate=0.001" in caplog.text
    assert is_taken == ("crf_learning_rate" in training["recipe"]["settings"])
    assert is_taken == (rate == 1e-3)
    assert "recipe of cluener for size tiny: " in caplog.text


def test_the_decoder_is_the_model_s(data, tmp_path, capsys):
    flags = training_flags(data, tmp_path / "out")
    run(*flags, "--num_train_epochs=0.05", "--decoder=crf", "--crf_learning_rate=1e-2")
    labels = json.loads((tmp_path / "out" / "best" / "labels.json").read_text("utf-8"))
    assert labels["options"] == {"decoder": "crf"}
    assert labels["labels"][:2] == ["address", "book"] and len(labels["labels"]) == 10
    names = checkpoints.read_shapes(
        checkpoints.latest_checkpoint(str(tmp_path / "out" / "best")), "--model_dir"
    )
    assert names["ner/transitions"] == [21, 21]
    line = refused(capsys, *flags, "--num_train_epochs=0.05")
    assert "its decoder is crf, received softmax" in line
    line = refused(
        capsys,
        *flags,
        "--num_train_epochs=0.05",
        "--decoder=crf",
        "--crf_learning_rate=1",
    )
    assert "another --crf_learning_rate: it began with 0.01, received 1.0" in line
    # Another decoder starts its head anew.
    other = ["--output_dir={}".format(tmp_path / "span"), "--decoder=span"]
    start = ["--model_dir={}".format(tmp_path / "out"), "--num_train_epochs=0.05"]
    run(*[flag for flag in flags if "output_dir" not in flag] + other + start)
    # A classifier's command refuses the model.
    line = refused(
        capsys, "--task_name=lcqmc", "--do_eval", "--output_dir", tmp_path / "out"
    )
    assert (
        "a task of run_classifier.py, not of this command; expected one of cl" in line
    )
    # Other commands name what they were given, and the command to run.
    for command, flags in (
        (run_classifier, ["--text=a", "--labels=a,b"]),
        (run_squad, ["--text_pair", "a", "b"]),
        (run_multiple_choice, ["--text", "a", "b", "c,d"]),
    ):
        model = "--model_dir={}".format(tmp_path / "out")
        line = task_runs.refused(command, capsys, model, *flags)
        words = (
            model + " holds a model for cluener, a task of run_ner.py; run that, or "
        )
        assert words + "give another --model_dir" in line


@pytest.mark.parametrize("decoder", ["crf", "span"])
def test_a_model_without_its_task_says_how_to_mend_it(
    data, tmp_path, capsys, run_command, decoder
):
    flags = ["--decoder=" + decoder, "--num_train_epochs=0.05"]
    run(*training_flags(data, tmp_path / "out"), *flags, "--precision=float32")
    best, labels = tmp_path / "out" / "best", tmp_path / "labels.json"
    (best / "labels.json").rename(labels)
    text = ["--text", "甲", "--model_dir"]
    line = refused(capsys, *text, tmp_path / "out")
    words = "without its task (no {}); copy that file from where".format(
        best / "labels.json"
    )
    assert words in line
    command = line.partition("python3 ")[2].replace("DIRECTORY", str(tmp_path / "new"))
    assert bool(command) == (decoder == "crf")
    if command:
        result = run_command(*command.split())
        assert result.returncode == 0, result.stderr
        run(*text, tmp_path / "new")
        new = json.loads((tmp_path / "new" / "labels.json").read_text("utf-8"))
        assert new["options"] == {"decoder": "crf"}
    line = task_runs.refused(
        run_squad,
        capsys,
        *("--task_name=squad", "--model_dir", best, "--text_pair", "a", "b"),
    )
    assert "it is none for squad, but for a task of run_ner.py" in line
    labels.rename(best / "labels.json")
    run(*text, best)


def test_r_drop_is_for_scores_of_tags(data, tmp_path, capsys):
    flags = training_flags(data, tmp_path / "out") + ["--num_train_epochs=0.05"]
    for decoder in ("crf", "span"):
        line = refused(capsys, *flags, "--r_drop=1", "--decoder=" + decoder)
        assert "--r_drop: the scores of --decoder={} are not".format(decoder) in line
        assert not (tmp_path / "out").exists()
    run(*flags, "--r_drop=1")
    assert (tmp_path / "out" / "best" / "checkpoint").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--metric=loss"], "--metric=loss: expected one of f1, macro_f1 for cluener"),
        (["--allow_missing"], "--allow_missing requires --init_checkpoint or --model_"),
        (["--labels="], "--labels: expected a value; was it that of an unset variable"),
        (["--crf_learning_rate=1"], "--crf_learning_rate requires --decoder=crf"),
        (["--decoder=beam"], "--decoder: invalid choice: 'beam'"),
        (["--do_train=False", "--decoder=crf"], "--decoder requires --do_train"),
        (["--labels=name"], "--labels=name: the labels of cluener are address"),
        (["--test_file={data}/other.txt", "--do_eval"], "other.txt:1: unknown type"),
        (["--train_file={data}/bad.txt"], "bad.txt:2: 3 columns, expected 2"),
        (["--train_file={data}/none.json"], "none.json:1: no entities; expected"),
    ],
)
def test_refused_before_any_work(data, tmp_path, capsys, flags, words):
    (data / "other.txt").write_text("甲 B-PER\n", encoding="utf-8")
    (data / "bad.txt").write_text("甲 B-PER\n乙 n O\n", encoding="utf-8")
    (data / "none.json").write_text('{"text": "甲"}\n', encoding="utf-8")
    flags = [flag.format(data=data) for flag in flags]
    line = refused(capsys, *training_flags(data, tmp_path / "out"), "--do_eval", *flags)
    assert words in line
    assert not (tmp_path / "out").exists()
