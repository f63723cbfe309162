"""`run_squad.py` end to end: it learns a few questions by heart."""

import functools
import json
import logging

import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_squad
from albert_zh.tasks.span_extraction import Settings

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

CONFIG = {
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
    "ln_type": "preln",
}
LENGTH = 40  # of a window: the sample's texts need about four


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def questions_of(document):
    for entry in document["data"]:
        for paragraph in entry["paragraphs"]:
            for question in paragraph["qas"]:
                yield paragraph["context"], question


@pytest.fixture(scope="module")
def sample(tmp_path_factory, repository):
    """Three texts with three questions each and one that they do not answer; a path."""
    document = read_json(repository / "resources" / "sample_squad" / "train.json")
    document["data"] = document["data"][4:7]
    asked = [entry["paragraphs"][0]["qas"] for entry in document["data"]]
    for number, (questions, others) in enumerate(zip(asked, asked[1:] + asked[:1])):
        question = dict(others[0], id="none_{}".format(number), answers=[])
        questions.append(dict(question, is_impossible=True))
    path = tmp_path_factory.mktemp("sample") / "train.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model_flags(tmp_path_factory, sample):
    folder = tmp_path_factory.mktemp("model")
    texts = [c + q["question"] for c, q in questions_of(read_json(sample))]
    characters = sorted(set("".join(texts).lower()))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + characters
    tokens += ["##" + character for character in characters if character.isalnum()]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(
        json.dumps(dict(CONFIG, vocab_size=len(tokens)))
    )
    return [
        "--vocab_file={}".format(folder / "vocab.txt"),
        "--bert_config_file={}".format(folder / "config.json"),
    ]


run = functools.partial(task_runs.run, run_squad)
refused = functools.partial(task_runs.refused, run_squad)


def training_flags(model_flags, train_file, output_dir):
    return model_flags + [
        "--task_name=squad",
        "--do_train",
        "--train_file={}".format(train_file),
        "--output_dir={}".format(output_dir),
        "--max_seq_length={}".format(LENGTH),
        "--max_query_length=16",
        "--doc_stride=20",
        "--train_batch_size=12",
        "--learning_rate=4e-3",
        "--seed=1",
        "--version_2_with_negative",
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sample, model_flags):
    """Output directory of a training that scores and predicts its own questions."""
    output_dir = tmp_path_factory.mktemp("trained")
    run(
        *training_flags(model_flags, sample, output_dir),
        "--num_train_epochs=30",
        "--test_file={}".format(sample),
        "--do_eval",
        "--do_predict",
        "--n_best_size=3",
    )
    return output_dir


def test_learns_a_few_questions_by_heart(trained):
    scores = read_json(trained / "eval_results.json")["test"]
    assert scores["num_examples"] == 12
    assert scores["exact_match"] > 0.95 and scores["f1"] > 0.95
    assert scores["unanswerable"] == {"num_examples": 3, "exact_match": 1, "f1": 1}


def test_predictions_are_cut_from_the_text(trained, sample):
    questions = list(questions_of(read_json(sample)))
    predictions = read_json(trained / "predictions.json")
    assert list(predictions) == [question["id"] for _, question in questions]
    assert sum(text == "" for text in predictions.values()) == 3
    assert "Pico" in predictions.values()  # though the vocabulary is lower-cased
    nbest = read_json(trained / "nbest_predictions.json")
    for context, question in questions:
        answers = nbest[question["id"]]
        assert len(answers) == 4  # with "no answer"
        assert answers[0]["text"] == predictions[question["id"]]
        for answer in answers:
            assert context[answer["start"] : answer["end"]] == answer["text"]


def test_a_fine_tuned_model_answers_a_text(trained, sample, capsys):
    context, question = list(questions_of(read_json(sample)))[4]
    flags = ["--model_dir", trained, "--text_pair", question["question"], context]
    # The threshold moves answers to "no answer".
    for more, expected in (
        ([], "Pico"),
        (["--null_score_diff_threshold=-1e6"], "(no answer)"),
    ):
        run(*flags, *more)
        shown = capsys.readouterr().out.splitlines()
        (line,) = (line for line in shown if question["question"] in line)
        answer, probability, _ = line.split("  ")
        assert answer == expected and 0 <= float(probability) <= 1


def test_what_concerns_the_use_may_be_given_anew(trained, sample, tmp_path):
    flags = ["--model_dir", trained, "--output_dir", tmp_path, "--do_predict"]
    flags += ["--predict_file", sample]
    run(*flags, "--n_best_size=2", "--doc_stride=5", "--max_answer_length=1")
    nbest = read_json(tmp_path / "nbest_predictions.json")
    assert {len(answers) for answers in nbest.values()} == {3}
    # A token of this vocabulary is a character.
    assert {len(a["text"]) for answers in nbest.values() for a in answers} == {0, 1}
    assert read_json(trained / "best" / "labels.json")["options"]["n_best_size"] == 3


def test_other_settings_are_refused(trained, sample, model_flags, tmp_path, capsys):
    again = training_flags(model_flags, sample, trained)
    again += ["--num_train_epochs=30", "--n_best_size=3"]
    model = ["--model_dir", trained]
    predict = model + ["--output_dir", tmp_path, "--do_predict"]
    for flags, words in (
        (again + ["--doc_stride=9"], ["its doc_stride is 20, received 9"]),
        (
            model + ["--text_pair", "a", "b", "--version_2_with_negative=False"],
            ["version_2"],
        ),
        (
            predict + ["--predict_file", sample, "--doc_stride=40"],
            ["--doc_stride=40", "at most 21", "--max_seq_length=40"],
        ),
        (
            predict + ["--predict_file", sample, "--max_query_length=30"],
            ["--max_query_length=30", "smaller --max_query_length", "would skip some"],
        ),
        (again + ["--metric=loss"], ["--metric=loss: expected one of exact_match, f1"]),
        (model + ["--text_pair", "a", " "], ["--text_pair: a text is empty"]),
        (
            model + ["--text_pair", "a", "b", "--skip_unanswerable"],
            ["--skip_unanswerable requires --do_train"],
        ),
        (model + ["--text_pair", "a", "b", "--task_name=pair"], ["--task_name=pair"]),
    ):
        line = refused(capsys, *flags)
        assert not [word for word in words if word not in line], line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, shift, words",
    [
        ("45公里", 0, ["1 questions have no answer", "--skip_unanswerable"]),
        (None, 20, ["correct the offset"]),
    ],
)
def test_bad_training_files_leave_no_trace(
    sample, model_flags, tmp_path, capsys, text, shift, words
):
    document = read_json(sample)
    _, question = next(questions_of(document))
    (answer,) = question["answers"]
    answer["text"] = text or answer["text"]
    answer["answer_start"] += shift
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    output_dir = tmp_path / "out"
    line = refused(capsys, *training_flags(model_flags, path, output_dir))
    for word in words + [str(path), question["id"]]:
        assert word in line
    assert not output_dir.exists()


def test_r_drop_needs_dropout(sample, model_flags, tmp_path, capsys):
    """The head of this kind drops nothing, and the config asks for none."""
    flags = training_flags(model_flags, sample, tmp_path / "out") + ["--r_drop=1"]
    line = refused(capsys, *flags)
    assert "--r_drop: the model has no dropout" in line
    assert not (tmp_path / "out").exists()
    assert "add --dropout=0.1" in line
    run(*flags, "--dropout=0.1", "--num_train_epochs=0.1")


def test_windows_are_for_the_length_of_the_recipe(sample, model_flags, tmp_path):
    document = read_json(sample)
    for entry in document["data"]:
        del entry["paragraphs"][0]["qas"][1:]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    flags = ["--task_name=cmrc2018", "--do_train", "--num_train_epochs=0.1"]
    flags += ["--train_file", path, "--output_dir", tmp_path / "out"]
    run(*model_flags, *flags)
    found = read_json(tmp_path / "out" / "labels.json")
    # The recipe's 512, as far as the model reads; not the 128 of other tasks.
    length = CONFIG["max_position_embeddings"]
    assert found["max_seq_length"] == length
    assert found["options"] == Settings.for_length(length, {})._asdict()


@pytest.mark.once
@pytest.mark.parametrize(
    "flags, is_kept",
    [
        (["--task_name=squad"], True),
        (["--task_name=squad", "--max_seq_length=30"], False),
        (["--task_name=cmrc2018"], False),  # whose recipe has another length
    ],
)
def test_training_on_keeps_the_settings_of_a_model(
    trained, sample, tmp_path, flags, is_kept
):
    """Files are read as it needs them: these have questions without an answer."""
    flags = [*flags, "--do_train", "--num_train_epochs=0.1", "--train_file", sample]
    run(*flags, "--model_dir", trained, "--output_dir", tmp_path / "out")
    held, found = (read_json(p / "labels.json") for p in (trained, tmp_path / "out"))
    if not is_kept:
        length = found["max_seq_length"]
        assert length != held["max_seq_length"]
        given = {"n_best_size": 3, "version_2_with_negative": True}
        held["options"] = Settings.for_length(length, given)._asdict()
    assert found["options"] == held["options"]
    assert (found == held) == is_kept


def test_cut_questions_are_counted(trained, sample, tmp_path, caplog):
    document = read_json(sample)
    _, question = next(questions_of(document))
    question["question"] *= 5
    path = tmp_path / "long.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    caplog.set_level(logging.INFO)
    flags = ["--do_predict", "--predict_file", path, "--output_dir", tmp_path / "out"]
    run("--model_dir", trained, *flags)
    assert "predict: 1 of them have a question cut to 16 tokens" in caplog.text
    assert len(read_json(tmp_path / "out" / "predictions.json")) == 12
