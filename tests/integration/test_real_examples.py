"""Every kind of task learns a few real examples by heart: no token shifts."""

import itertools
import json

import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_classifier
import run_multiple_choice
import run_ner
import run_squad

pytestmark = [
    pytest.mark.once,
    pytest.mark.real_data,
    pytest.mark.skipif(
        not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
    ),
]

NUMBER = 6


def first_lines(path, number=NUMBER):
    with path.open(encoding="utf-8") as lines:
        return list(itertools.islice(lines, number))


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def copied(*names):
    """A task whose file is a table or has one object a line."""

    def make(data, folder):
        source = data.joinpath(*names)
        path = folder / source.name
        path.write_text("".join(first_lines(source)), encoding="utf-8")
        return path

    return make


def types_of_entities(data, folder):
    """Several labels of a text: the types of CLUENER's entities in it."""
    rows = map(json.loads, first_lines(data / "cluener" / "train.json"))
    found = [{"text": row["text"], "label": sorted(row["label"])} for row in rows]
    return write_lines(folder / "types.jsonl", found)


def questions_of_c3(data, folder):
    texts = json.loads((data / "tasks" / "c3" / "c3-d-train.json").read_text("utf-8"))
    path = folder / "c3.json"
    path.write_text(json.dumps(texts[: NUMBER // 2]))
    return path


def blanks_of_chid(data, folder):
    """FewCLUE's ChID, one blank a line, in the form of CLUE's."""
    lines, answers = [], {}
    source = data / "tasks" / "fewclue" / "chid" / "test_public.json"
    for number, row in enumerate(map(json.loads, first_lines(source))):
        tag = "#idiom{:06}#".format(number)
        answers[tag] = row["answer"]
        content = [row["content"].replace("#idiom#", tag)]
        lines.append({"content": content, "candidates": row["candidates"]})
    (folder / "chid_answer.json").write_text(json.dumps(answers))
    return write_lines(folder / "chid.json", lines)


def questions_of_cmrc(data, folder):
    source = data / "cmrc2018" / "cmrc2018_trial.json"
    content = json.loads(source.read_text("utf-8"))
    path = folder / "cmrc.json"
    path.write_text(json.dumps(dict(content, data=content["data"][1:2])))
    return path


@pytest.mark.parametrize(
    "command, make, metric, flags",
    [
        (run_classifier, copied("lcqmc", "dev.tsv"), "accuracy", "--task_name=lcqmc"),
        (
            run_classifier,
            copied("chnsenticorp", "dev.tsv"),
            "accuracy",
            "--task_name=chnsenticorp",
        ),
        (
            run_classifier,
            copied("tasks", "stsb", "dev.txt"),
            "pearson",
            "--task_name=stsb --num_train_epochs=120",
        ),
        (run_classifier, types_of_entities, "micro_f1", "--task_name=multi_label"),
        (
            run_ner,
            copied("cluener", "train.json"),
            "f1",
            "--task_name=cluener --num_train_epochs=60",
        ),
        (
            run_ner,
            copied("cluener", "train.json"),
            "f1",
            "--task_name=cluener --decoder=crf --crf_learning_rate=1e-2",
        ),
        (run_multiple_choice, questions_of_c3, "accuracy", "--task_name=c3"),
        (run_multiple_choice, blanks_of_chid, "accuracy", "--task_name=chid"),
        (
            run_squad,
            questions_of_cmrc,
            "f1",
            "--task_name=cmrc2018 --max_seq_length=336 " "--num_train_epochs=70",
        ),
    ],
    ids="pair single number labels softmax crf c3 chid cmrc".split(),
)
def test_it_is_learned_by_heart(
    command, make, metric, flags, real_data, repository, tmp_path
):
    path = make(real_data, tmp_path)
    task_runs.run(
        command,
        "--do_train",
        "--do_eval",
        "--train_file={}".format(path),
        "--test_file={}".format(path),
        "--model_dir={}".format(repository / "resources" / "albert_tiny_open"),
        "--output_dir={}".format(tmp_path / "out"),
        "--max_seq_length=64",
        "--train_batch_size=3",
        "--learning_rate=5e-4",
        "--num_train_epochs=40",
        *flags.split(),
    )
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert results["test"][metric] > 0.95
