"""`run_multiple_choice.py` end to end: it learns a few questions of each task."""

import functools
import json
import re

import numpy as np
import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_multiple_choice
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

SAMPLE = REPOSITORY / "resources" / "sample_choices"
CONFIG = {
    "embedding_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
    "ln_type": "postln",
}
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"]
IDIOMS = "画蛇添足 大摇大摆 卷土重来 岂有此理 雪中送炭 草木皆兵".split()


def sample():
    text = (SAMPLE / "train.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def model_flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    characters = set("".join(map(str, sample())) + "".join(IDIOMS))
    vocabulary = SPECIALS + sorted(char for char in characters if not char.isspace())
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    config = dict(CONFIG, vocab_size=len(vocabulary))
    (folder / "config.json").write_text(json.dumps(config))
    return [
        "--vocab_file={}".format(folder / "vocab.txt"),
        "--bert_config_file={}".format(folder / "config.json"),
        "--do_lower_case=False",
        "--max_seq_length=40",
        "--learning_rate=1e-3",
        "--train_batch_size=8",
    ]


run = functools.partial(task_runs.run, run_multiple_choice)
refused = functools.partial(task_runs.refused, run_multiple_choice)


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model_flags):
    """Output directory of a model that knows the sample questions."""
    output_dir = tmp_path_factory.mktemp("open")
    run(
        *model_flags,
        "--task_name=multiple_choice",
        "--do_train",
        "--do_eval",
        "--do_predict",
        "--num_train_epochs=40",
        "--train_file={}".format(SAMPLE / "train.jsonl"),
        "--dev_file={}".format(SAMPLE / "train.jsonl"),
        "--predict_file={}".format(SAMPLE / "train.jsonl"),
        "--output_dir={}".format(output_dir),
    )
    return output_dir


def accuracy(output_dir):
    results = json.loads((output_dir / "eval_results.json").read_text("utf-8"))
    return results["dev"]["accuracy"]


def test_it_learns_the_sample_questions(trained):
    assert accuracy(trained) > 0.95
    predicted, questions = read_lines(trained / "predictions.jsonl"), sample()
    assert [line["id"] for line in predicted] == list(range(len(questions)))
    right = [p["answer"] == q["answer"] for p, q in zip(predicted, questions)]
    assert np.mean(right) == accuracy(trained)
    for line, question in zip(predicted, questions):
        assert len(line["probabilities"]) == len(question["choices"])
        assert question["choices"][line["label"]] == line["answer"]


def test_it_answers_questions_of_the_command_line(trained, capsys):
    question = sample()[0]
    choices = ",".join(question["choices"])
    run(
        "--model_dir={}".format(trained),
        "--text",
        question["context"],
        question["question"],
        choices,
    )
    shown = capsys.readouterr().out.splitlines()[0]
    pattern = r"{answer}  [01]\.\d{{4}}  {question}"
    assert re.fullmatch(pattern.format(**question), shown)


def c3_items(questions):
    return [
        [[q["context"]], [dict(q, choice=q["choices"][:4])], str(number)]
        for number, q in enumerate(questions)
    ]


def test_it_learns_c3_from_both_files(tmp_path, model_flags):
    questions = sample()[:16]
    halves = {"d": questions[:8], "m": questions[8:]}
    for genre, half in halves.items():
        # Few epochs, as each is scored.
        for split, items in (("train", half * 8), ("dev", half)):
            write(tmp_path / "{}-{}.json".format(genre, split), c3_items(items))
    without_answers = [
        {"question": q["question"], "choice": q["choices"], "id": 100 + number}
        for number, q in enumerate(questions)
    ]
    items = [[[q["context"]], [r], ""] for q, r in zip(questions, without_answers)]
    write(tmp_path / "test1.1.json", items)
    run(
        *model_flags,
        "--task_name=c3",
        "--do_train",
        "--do_eval",
        "--do_predict",
        "--num_train_epochs=16",
        "--data_dir={}".format(tmp_path),
        "--output_dir={}".format(tmp_path / "out"),
    )
    assert accuracy(tmp_path / "out") > 0.95
    lines = read_lines(tmp_path / "out" / "c311_predict.json")
    assert [line["id"] for line in lines] == list(range(100, 116))
    assert all(set(line) == {"id", "label"} for line in lines)
    answers = [q["choices"].index(q["answer"]) for q in questions]
    assert np.mean([line["label"] for line in lines] == np.array(answers)) > 0.95


@pytest.mark.once
def test_it_learns_chid(tmp_path, model_flags):
    generator = np.random.RandomState(0)
    contexts = sorted({question["context"] for question in sample()})[:6]
    lines, answers = [], {}
    for number, context in enumerate(contexts):
        candidates = generator.permutation(IDIOMS)[:4].tolist()
        tags = ["#idiom{:06d}#".format(2 * number + i) for i in range(2)]
        right = generator.permutation(4)[:2].tolist()
        answers.update(zip(tags, right))
        content = [context[:20] + tags[0] + context[20:], tags[1] + context[-10:]]
        lines.append({"content": content, "candidates": candidates})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for split in ("train", "dev", "test1.1"):
        (tmp_path / (split + ".json")).write_text(text)
        if split != "test1.1":
            write(tmp_path / (split + "_answer.json"), answers)
    run(
        *model_flags,
        "--task_name=chid",
        "--do_train",
        "--do_eval",
        "--do_predict",
        "--train_batch_size=4",
        "--num_train_epochs=50",
        "--data_dir={}".format(tmp_path),
        "--output_dir={}".format(tmp_path / "out"),
    )
    assert accuracy(tmp_path / "out") > 0.95
    path = tmp_path / "out" / "chid11_predict.json"
    predicted = json.loads(path.read_text("utf-8"))
    assert list(predicted) == list(answers)
    hits = [predicted[tag] == answer for tag, answer in answers.items()]
    assert np.mean(hits) == accuracy(tmp_path / "out")


def test_what_cannot_be_done_is_said_before_any_work(
    tmp_path, trained, model_flags, capsys
):
    output = "--output_dir={}".format(tmp_path / "out")
    train = ["--do_train", output] + model_flags
    question = dict(sample()[0], answer="不在其中")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(question) + "\n")
    unlabelled = tmp_path / "train.json"
    unlabelled.write_text('{"content": ["#idiom1#"], "candidates": ["一", "二"]}\n')
    for flags, message in (
        (["--task_name=lcqmc"] + train, "not of this command; .*c3, chid, mul"),
        (
            ["--task_name=multiple_choice", "--train_file={}".format(bad)] + train,
            "bad.jsonl:1: answer '不在其中' is none of the choices 给花浇水,",
        ),
        (
            ["--task_name=c3", "--data_dir={}".format(tmp_path)] + train,
            "no train file: .* holds none of d-train.json with m-train.json, c3-d-",
        ),
        (
            ["--task_name=chid", "--data_dir={}".format(tmp_path)] + train,
            "train.json: no answers; expected them in .*train_answer.json",
        ),
        (
            ["--task_name=c3", "--do_eval", "--model_dir={}".format(trained), output],
            "its task is multiple_choice, received c3|no dev file",
        ),
        (
            ["--model_dir={}".format(trained), "--text", "天", "问", "雨"],
            "--text: CHOICES has 1; expected 2 to 26",
        ),
    ):
        assert re.search(message, refused(capsys, *flags))
    assert not (tmp_path / "out").exists()
