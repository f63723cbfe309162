"""`--teacher_model_dir`: a student of any kind learns from a fine-tuned model."""

import json
import logging
import re

import numpy as np
import pytest
import task_runs
import tensorflow.compat.v1 as tf

import run_classifier
import run_multiple_choice
import run_ner
import run_squad
from albert_zh.models import checkpoints
from albert_zh.tasks import distillation, kind
from albert_zh.training import progress_hook
from tests.small_models import CONFIG

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
    ),
]

WORDS = "天地人山水火土木金石日月"
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# The dialect of the teachers; the students' is albert_zh.
GOOGLE = {
    "vocab_size": len(SPECIALS + list(WORDS)) + 3,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of two models, and data of all kinds."""
    folder = tmp_path_factory.mktemp("distillation")
    tokens = SPECIALS + list(WORDS)
    write(folder / "vocab.txt", "\n".join(tokens))
    others = SPECIALS + list("甲乙丙" + WORDS[::-1])
    write(folder / "google_vocab.txt", "\n".join(others))
    write(folder / "google.json", json.dumps(GOOGLE))
    config = dict(CONFIG.to_dict(), vocab_size=len(tokens), initializer_range=0.2)
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config.update(hidden_size=32, intermediate_size=64, max_position_embeddings=40)
    write(folder / "albert_zh.json", json.dumps(config))
    # The first word decides.
    texts = [mark + word for mark in "山水" for word in WORDS] * 4
    rows = [(text, "no" if text[0] == "山" else "yes") for text in texts]
    write_rows(folder / "right.tsv", rows)
    wrong = {"no": "yes", "yes": "no"}
    write_rows(folder / "wrong.tsv", [(text, wrong[label]) for text, label in rows])
    labels = [(text, "a,b" if text[0] == "山" else "") for text in texts]
    write_rows(folder / "labels.tsv", labels)
    pairs = [(text, "天", "3" if text[0] == "山" else "0") for text in texts]
    write_rows(folder / "numbers.tsv", pairs)
    _write_other_kinds(folder)
    return folder


def _write_other_kinds(folder):
    questions = [
        {
            "context": first + second,
            "question": "天",
            "choices": [first, second, "月"][: 2 + number % 2],
            "answer": first,
        }
        for number, (first, second) in enumerate(zip(WORDS, WORDS[1:]))
    ]
    write(folder / "choices.jsonl", "\n".join(map(json.dumps, questions)))
    tags = "\n".join("{} B-X\n{} O\n".format(a, b) for a, b in zip(WORDS, WORDS[1:]))
    write(folder / "tags.txt", tags)
    answer = {"text": "水", "answer_start": 1}
    asked = [
        {"id": str(number), "question": word, "answers": [answer]}
        for number, word in enumerate(WORDS)
    ]
    paragraphs = [{"context": "山水火土" * 2, "qas": asked}]
    write(folder / "squad.json", json.dumps({"data": [{"paragraphs": paragraphs}]}))


def write(path, text):
    path.write_bytes(text.encode("utf-8"))


def write_rows(path, rows):
    write(path, "".join("\t".join(row) + "\n" for row in rows))


def flags_of(folder, output_dir, task, name, *flags, **models):
    """Flags of a training of two epochs; a later flag wins."""
    model = models.get("model", "albert_zh")
    vocabulary = models.get(
        "vocabulary", "google_vocab.txt" if model == "google" else "vocab.txt"
    )
    path = folder / name
    return (
        "--task_name=" + task,
        "--do_train",
        "--train_file={}".format(path),
        "--dev_file={}".format(path),
        "--bert_config_file={}".format(folder / (model + ".json")),
        "--vocab_file={}".format(folder / vocabulary),
        "--output_dir={}".format(output_dir),
        "--max_seq_length=16",
        "--train_batch_size=16",
        "--learning_rate=2e-3",
        "--num_train_epochs=2",
        "--precision=float32",
    ) + flags


def run(command, *args, **models):
    task_runs.run(command, *flags_of(*args, **models))


@pytest.fixture(scope="module")
def teacher(folder, tmp_path_factory):
    """A classifier of another dialect, vocabulary and order of the labels."""
    output_dir = tmp_path_factory.mktemp("teacher")
    flags = ["--labels=yes,no", "--num_train_epochs=8", "--do_eval"]
    args = folder, output_dir, "single", "right.tsv"
    run(run_classifier, *args, *flags, model="google")
    assert scores_of(output_dir)["accuracy"] > 0.95
    return output_dir


def scores_of(output_dir):
    return json.loads((output_dir / "eval_results.json").read_text())["dev"]


def weights_of(output_dir):
    reader = tf.train.load_checkpoint(checkpoints.latest_checkpoint(str(output_dir)))
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names}


def are_same(first, second):
    """Whether two trainings ended with the same weights and slots."""
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    return all((value == second[name]).all() for name, value in first.items())


def student_flags(folder, output_dir, *flags):
    """Of a student whose labels are all wrong; the best epoch is chosen well."""
    flags = ("--dev_file={}".format(folder / "right.tsv"),) + flags
    return flags_of(folder, output_dir, "single", "wrong.tsv", *flags)


def teach(folder, output_dir, teacher, *flags):
    flags = ("--teacher_model_dir={}".format(teacher),) + flags
    task_runs.run(run_classifier, *student_flags(folder, output_dir, *flags))


@pytest.fixture(scope="module")
def taught(folder, teacher, tmp_path_factory):
    """The output directory of a student that nothing disturbs."""
    output_dir = tmp_path_factory.mktemp("taught")
    teach(folder, output_dir, teacher)
    return output_dir


def test_a_student_follows_a_teacher_of_another_dialect_and_vocabulary(
    folder, teacher, tmp_path
):
    flags = ["--distill_alpha=1", "--num_train_epochs=8", "--do_eval"]
    teach(folder, tmp_path, teacher, *flags)
    assert scores_of(tmp_path)["accuracy"] > 0.95
    names = [
        json.loads((directory / "best" / "labels.json").read_text())["labels"]
        for directory in (teacher, tmp_path)
    ]
    assert names == [["yes", "no"], ["no", "yes"]]


def test_alpha_0_is_the_training_without_a_teacher(folder, teacher, taught, tmp_path):
    teach(folder, tmp_path / "with", teacher, "--distill_alpha=0")
    flags = student_flags(folder, tmp_path / "without")
    task_runs.run(run_classifier, *flags)
    assert are_same(tmp_path / "with", tmp_path / "without")
    assert not are_same(taught, tmp_path / "without")
    task_runs.run(run_classifier, *flags, "--num_train_epochs=3")  # it is the same


def test_a_killed_run_ends_as_one_that_was_not(
    folder, teacher, taught, tmp_path, monkeypatch, caplog
):
    def killed(self, run_context, run_values):
        if int(run_values.results["step"]) >= 8:
            raise KeyboardInterrupt

    flag = "--save_checkpoints_steps=3"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(progress_hook.ProgressHook, "after_run", killed)
        teach(folder, tmp_path, teacher, flag)
    with caplog.at_level(logging.INFO):
        teach(folder, tmp_path, teacher, flag)
    assert "resuming after step" in caplog.text
    assert "computing the logits" not in caplog.text
    assert are_same(taught, tmp_path)


def test_seeds_share_the_logits_and_another_teacher_is_refused(
    folder, teacher, tmp_path, caplog, capsys
):
    output_dir = tmp_path / "trials"
    with caplog.at_level(logging.INFO):
        teach(folder, output_dir, teacher, "--num_trials=2", "--num_train_epochs=1")
    assert caplog.text.count("computing the logits") == 1
    assert (output_dir / distillation.LOGITS_FILE).exists()
    flags = student_flags(folder, output_dir, "--num_trials=2", "--num_train_epochs=1")
    line = task_runs.refused(run_classifier, capsys, *flags)
    assert "--teacher_model_dir" in line and "received None" in line
    # The student of one seed as the teacher of another.
    other = "--teacher_model_dir={}".format(output_dir / "seed_12345")
    line = task_runs.refused(run_classifier, capsys, *flags, other)
    assert "holds a training with another --teacher_model_dir" in line


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:100],
        lambda content: content[:-900] + b"x" * 900,
        lambda content: b"",
    ],
    ids=["cut", "overwritten", "empty"],
)
def test_a_damaged_file_of_logits_is_computed_again(
    folder, teacher, taught, tmp_path, change, caplog
):
    content = (taught / distillation.LOGITS_FILE).read_bytes()
    (tmp_path / distillation.LOGITS_FILE).write_bytes(change(content))
    with caplog.at_level(logging.INFO):
        teach(folder, tmp_path, teacher)
    assert "is damaged" in caplog.text and "computing the logits" in caplog.text
    assert are_same(taught, tmp_path)


KINDS = {
    "multi_label": (run_classifier, "labels.tsv", []),
    "regression": (run_classifier, "numbers.tsv", []),
    "multiple_choice": (run_multiple_choice, "choices.jsonl", []),
    "ner": (run_ner, "tags.txt", []),
    "squad": (run_squad, "squad.json", ["--max_query_length=4"]),
}


@pytest.mark.once
@pytest.mark.parametrize("task", sorted(KINDS))
def test_a_student_that_is_its_teacher_loses_nothing(
    folder, tmp_path, task, caplog, monkeypatch
):
    """The logits of each window, choice and token stand where the student has its."""
    monkeypatch.setattr(kind, "HEAD_DROPOUT", 0.0)
    command, name, flags = KINDS[task]
    flags = flags + ["--num_train_epochs=1"]
    run(command, folder, tmp_path / "teacher", task, name, *flags)
    teacher = tmp_path / "teacher"
    start = checkpoints.latest_checkpoint(str(teacher / "best"))
    flags += ["--init_checkpoint={}".format(start)]
    flags += ["--teacher_model_dir={}".format(teacher), "--distill_alpha=1"]
    flags += ["--learning_rate=1e-9", "--train_batch_size=5"]
    with caplog.at_level(logging.INFO):
        run(command, folder, tmp_path / "student", task, name, *flags)
    losses = re.findall(r"step \d+/\d+ +loss ([\d.e-]+)", caplog.text)
    assert losses and max(map(float, losses)) < 1e-3
    with np.load(str(tmp_path / "student" / distillation.LOGITS_FILE)) as held:
        names = [each for each in held.files if each.startswith("teacher_")]
        assert all(len(np.unique(held[n])) > 5 for n in names if "sizes" not in n)


@pytest.fixture(scope="module")
def teachers(folder, teacher, tmp_path_factory):
    """Output directories by task: of teachers that some students cannot have."""
    made = tmp_path_factory.mktemp("teachers")
    flags = ["--num_train_epochs=1"]
    for decoder in ("softmax", "crf"):
        flag = "--decoder=" + decoder
        run(run_ner, folder, made / decoder, "ner", "tags.txt", flag, *flags)
    (made / "empty").mkdir()
    return {
        "single": teacher,
        "softmax": made / "softmax",
        "crf": made / "crf",
        "empty": made / "empty",
        "absent": made / "absent",
    }


@pytest.mark.parametrize(
    "command,task,name,held,flags,message",
    [
        (run_classifier, "single", "right.tsv", "absent", [], "no such directory"),
        (
            run_classifier,
            "single",
            "right.tsv",
            "empty",
            [],
            "holds no fine-tuned",
        ),
        (
            run_classifier,
            "single",
            "right.tsv",
            "softmax",
            [],
            "a model for ner",
        ),
        (run_classifier, "pair", "numbers.tsv", "single", [], "cannot teach pair"),
        (
            run_classifier,
            "single",
            "right.tsv",
            "single",
            ["--labels=no,yes,maybe"],
            "its labels are yes,no, those of the model to train no,yes,maybe; give a "
            "teacher of the same labels, or --labels=yes,no",
        ),
        (
            run_classifier,
            "regression",
            "numbers.tsv",
            "single",
            [],
            "a model for single, which cannot teach regression",
        ),
        (run_ner, "ner", "tags.txt", "softmax", ["--decoder=crf"], "--decoder=softmax"),
        (
            run_ner,
            "ner",
            "tags.txt",
            "softmax",
            ["--decoder=span"],
            "--decoder=span",
        ),
        (run_ner, "ner", "tags.txt", "crf", [], "the scores of --decoder=crf are not"),
        (
            run_ner,
            "ner",
            "tags.txt",
            "softmax",
            ["--max_seq_length=12"],
            "its max_seq_length is 16, that of the model to train 12",
        ),
        (
            run_ner,
            "ner",
            "tags.txt",
            "softmax",
            ["--do_lower_case=False"],
            "its do_lower_case is True, that of the model to train False",
        ),
        (run_ner, "ner", "tags.txt", "softmax", ["google"], "its vocabulary is a file"),
        (
            run_classifier,
            "single",
            "right.tsv",
            "single",
            ["--distill_alpha=1.5"],
            "--distill_alpha: expected 0 to 1, received 1.5",
        ),
    ],
)
def test_what_no_student_can_learn_from_is_refused_first(
    folder,
    teachers,
    tmp_path,
    capsys,
    command,
    task,
    name,
    held,
    flags,
    message,
):
    models = {}
    if flags == ["google"]:
        flags, models = [], {"model": "google"}
    flags = flags + ["--teacher_model_dir={}".format(teachers[held])]
    given = flags_of(folder, tmp_path / "out", task, name, *flags, **models)
    line = task_runs.refused(command, capsys, *given)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_flags_that_nothing_reads_are_refused(folder, teacher, tmp_path, capsys):
    given = flags_of(folder, tmp_path, "single", "right.tsv", "--distill_alpha=0.3")
    line = task_runs.refused(run_classifier, capsys, *given)
    assert "--distill_alpha requires --teacher_model_dir" in line
    flags = ["--output_dir={}".format(tmp_path), "--model_dir={}".format(teacher)]
    flags += ["--text=山", "--teacher_model_dir={}".format(teacher)]
    line = task_runs.refused(run_classifier, capsys, *flags)
    assert "--teacher_model_dir requires --do_train" in line
    flags = ["--teacher_model_dir={}".format(teacher), "--distill_alpha=0"]
    flags.append("--distill_temperature=9")
    given = flags_of(folder, tmp_path / "out", "single", "right.tsv", *flags)
    line = task_runs.refused(run_classifier, capsys, *given)
    assert "--distill_temperature: --distill_alpha=0 leaves nothing" in line
    flags = ["--teacher_model_dir={}".format(teacher), "--distill_alpha=1"]
    for flag in ("--label_smoothing=0.1", "--class_weights=balanced"):
        out = tmp_path / "out"
        given = flags_of(folder, out, "single", "right.tsv", *flags, flag)
        line = task_runs.refused(run_classifier, capsys, *given)
        assert flag.split("=")[0] + ": --distill_alpha=1 leaves nothing" in line
    numbers = tmp_path / "numbers"
    run(run_classifier, folder, numbers, "regression", "numbers.tsv")
    flags = ["--teacher_model_dir={}".format(numbers), "--distill_temperature=3"]
    out = tmp_path / "out"
    given = flags_of(folder, out, "regression", "numbers.tsv", *flags)
    line = task_runs.refused(run_classifier, capsys, *given)
    assert "--distill_temperature: not for regression" in line
