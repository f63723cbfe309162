"""SQuAD files: what is read, corrected, counted and refused."""

import copy
import json
import logging

import pytest

from albert_zh.base.errors import UserError
from albert_zh.tasks import get_task, squad_files
from albert_zh.tasks.splits import TaskData

CONTEXT = "山上有ABC寺，寺里有钟。\n山下有河，河边有树。"


def document(*answers, **changes):
    """A file of one question with these (text, start); `changes` of the question."""
    question = {"id": "Q1", "question": "山上有什么？"}
    question["answers"] = [{"text": t, "answer_start": s} for t, s in answers]
    question.update(changes)
    return {"data": [{"paragraphs": [{"context": CONTEXT, "qas": [question]}]}]}


def write(folder, content, name="train.json"):
    path = folder / name
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(content)
    return str(path)


def read(folder, content, is_training=True, **settings):
    return squad_files.SquadReader(**settings).read_examples(
        write(folder, content), None, is_training=is_training
    )


def cut(question):
    start, end = question.span
    return question.context[start:end]


@pytest.mark.parametrize(
    "answers, start, is_corrected",
    [
        ([("ABC寺", 3)], 3, False),
        ([("寺", 6)], 6, False),  # the occurrence that the offset means
        ([("寺", 8)], 8, False),
        ([("ABC寺", 2)], 3, True),
        ([("ABC寺", 0)], 3, True),
        ([("ABC寺", 6)], 3, True),
        ([("寺", 9)], 8, True),  # the nearest
        ([(" ABC寺\n", 2)], 3, False),  # outer white space is not of the answer
        ([(" ABC寺", 3)], 3, True),
        ([("ABC寺", -1)], 3, True),  # it stands there only once
        ([("没有", -1), ("ABC寺", 3)], 3, False),  # as in CMRC 2018
        ([("钟", 11), ("ABC寺", 3)], 11, False),  # the first
        ([("", 0), ("ABC寺", 3)], 3, False),
    ],
)
def test_answers_are_found_in_the_context(
    tmp_path, caplog, answers, start, is_corrected
):
    caplog.set_level(logging.INFO)
    (question,) = read(tmp_path, document(*answers)).examples
    assert question.span[0] == start
    assert cut(question) == CONTEXT[start:][: len(cut(question))]
    assert cut(question) in [text.strip() for text, _ in answers]
    assert ("1 answers had a wrong or no offset" in caplog.text) == is_corrected
    assert ("stand nowhere" in caplog.text) == (answers[0][0] == "没有")


def test_an_absent_offset_is_an_unknown_one(tmp_path):
    content = document(answers=[{"text": "ABC寺"}])
    assert cut(read(tmp_path, content).examples[0]) == "ABC寺"


def question_of(content):
    return content["data"][0]["paragraphs"][0]["qas"][0]


PLACE = "data[0].paragraphs[0]"
REFUSED = [
    # Content, what the message says
    (b"", ["Expecting value: line 1 column 1"]),
    (b'{"data": [', ["line 1"]),
    (b"\xff{}", ["not UTF-8"]),
    ([], ["expected an object, received []"]),
    ({}, ["no field data"]),
    ({"data": {}}, ["data: expected a list, received {}"]),
    ({"data": []}, ["no questions"]),
    ({"data": [3]}, ["data[0]: expected an object, received 3"]),
    ({"data": [{}]}, ["data[0]: no field paragraphs"]),
    ({"data": [{"paragraphs": None}]}, ["data[0].paragraphs: expected a list"]),
    ({"data": [{"paragraphs": ["x"]}]}, [PLACE + ": expected an object"]),
    ({"data": [{"paragraphs": [{"qas": []}]}]}, [PLACE + ": no field context"]),
    ({"data": [{"paragraphs": [{"context": "x"}]}]}, [PLACE + ": no field qas"]),
    (
        {"data": [{"paragraphs": [{"context": 5, "qas": []}]}]},
        [PLACE + ".context: expected a string, received 5"],
    ),
    (
        {"data": [{"paragraphs": [{"context": " \u200b", "qas": []}]}]},
        [PLACE + ".context is empty"],
    ),
    (document(id=7), [PLACE + ".qas[0].id: expected a string, received 7"]),
    (document(id=" "), [PLACE + ".qas[0].id is empty"]),
    (document(question=None), [PLACE + ".qas[0].question: expected a string"]),
    (document(answers={}), [PLACE + ".qas[0].answers: expected a list"]),
    (document(answers=["x"]), [".qas[0].answers[0]: expected an object"]),
    (document(answers=[{}]), [".qas[0].answers[0]: no field text"]),
    (document((5, 3)), [".answers[0].text: expected a string, received 5"]),
    (document(("ABC寺", "3")), [".answers[0].answer_start: expected an integer"]),
    (document(("ABC寺", True)), [".answers[0].answer_start: expected an integer"]),
    (document(("ABC寺", 3.0)), [".answers[0].answer_start: expected an integer"]),
    (document(("ABC寺", 3), is_impossible=0), ["is_impossible: expected true or"]),
    # Offsets that point elsewhere
    (document(("ABC寺", 9)), ["id 'Q1'", "'ABC寺' at 3", "not at answer_start 9"]),
    (document(("山", -1)), ["id 'Q1'", "at 0, 14", "not at answer_start -1"]),
    (document(("寺", 7)), ["id 'Q1'", "'寺' at 6, 8", "not at answer_start 7"]),
    (document(("ABC寺", 3), ("钟", 0)), ["answers[1] (id 'Q1')", "at 11"]),
    # Answers that are missing
    (document(("没有", 3)), ["1 questions", "'Q1'", "--skip_unanswerable"]),
    (document(), ["no question has an answer"]),
]


@pytest.mark.parametrize("content, words", REFUSED)
def test_a_bad_file_is_one_line(tmp_path, content, words):
    data = TaskData(
        get_task("squad"),
        None,
        {"train": write(tmp_path, content)},
        squad_files.SquadReader(),
    )
    with pytest.raises(UserError) as caught:
        data.read_labelled("train", None)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(str(tmp_path / "train.json"))
    assert not [word for word in words if word not in line], line


def test_ids_must_differ(tmp_path):
    content = document(("ABC寺", 3))
    content["data"].append(copy.deepcopy(content["data"][0]))
    question = content["data"][1]["paragraphs"][0]["qas"][0]
    question["id"] = " Q1"
    # Nothing is written of a file to train on, such as two that were joined.
    assert read(tmp_path, content).num_examples == 2
    with pytest.raises(UserError) as caught:
        squad_files.SquadReader().read_texts(write(tmp_path, content), None)
    assert "data[1].paragraphs[0].qas[0].id: 'Q1' is the id of data[0]" in str(
        caught.value
    )


def two_questions(**second):
    content = document(("ABC寺", 3))
    qas = content["data"][0]["paragraphs"][0]["qas"]
    qas.append(dict({"id": "Q2", "question": "？"}, **second))
    return content


def test_answers_of_some_questions_only_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"qas\[1\] has no answers, while .*qas\[0\]"):
        read(tmp_path, two_questions())


LOST = {"answers": [{"text": "没有", "answer_start": 3}]}
UNANSWERABLE = {"answers": [], "is_impossible": True}


@pytest.mark.parametrize(
    "second, settings, num_read",
    [
        (LOST, {}, None),
        (LOST, {"with_negative": True}, None),
        (LOST, {"skip_unanswerable": True}, 1),
        (LOST, {"skip_unanswerable": True, "with_negative": True}, 1),
        (UNANSWERABLE, {}, None),
        (UNANSWERABLE, {"skip_unanswerable": True}, 1),
        (UNANSWERABLE, {"with_negative": True}, 2),
        (UNANSWERABLE, {"skip_unanswerable": True, "with_negative": True}, 2),
        ({"is_impossible": True}, {"with_negative": True}, 2),
        # SQuAD 2 has "plausible" answers of questions without one.
        (
            {"answers": [{"text": "钟", "answer_start": 11}], "is_impossible": True},
            {"with_negative": True},
            2,
        ),
    ],
)
def test_questions_without_an_answer_to_train_on(
    tmp_path, caplog, second, settings, num_read
):
    if num_read is None:
        with pytest.raises(UserError) as caught:
            read(tmp_path, two_questions(**second), **settings)
        line = str(caught.value)
        assert "1 questions" in line and "'Q2'" in line
        assert "--skip_unanswerable" in line
        # The other hint stands only where it helps.
        helps = second is UNANSWERABLE
        assert ("--version_2_with_negative" in line) == helps
        return
    examples = read(tmp_path, two_questions(**second), **settings).examples
    assert len(examples) == num_read
    assert ("1 questions" in caplog.text) == (num_read == 1)
    if num_read == 2:
        assert examples[1].answers == () and examples[1].span is None


def test_nothing_left_to_train_on_is_refused(tmp_path):
    with pytest.raises(UserError, match="none of its 1 questions"):
        read(tmp_path, document(("没有", 0)), skip_unanswerable=True)


def test_scoring_keeps_all_answers_and_reads_no_offset(tmp_path):
    content = document(("没有", -1), (" ABC寺", 9), ("", 0))
    (question,) = read(tmp_path, content, is_training=False).examples
    assert question.answers == ("没有", " ABC寺") and question.span is None


@pytest.mark.parametrize(
    "answers, is_told",
    [
        ([("没有", -1)], True),
        ([("没有", -1), ("abc寺。", -1)], False),  # but for case and marks
        ([("ABC寺", 3)], False),
    ],
)
def test_answers_that_cannot_be_right_are_told_and_scored(
    tmp_path, caplog, answers, is_told
):
    content = two_questions(
        answers=[{"text": text, "answer_start": start} for text, start in answers]
    )
    assert len(read(tmp_path, content, is_training=False).examples) == 2
    words = "1 of 2 questions have no answer that stands in their context, the first "
    assert (words + "is 'Q2'" in caplog.text) == is_told


def test_predicting_needs_no_answers(tmp_path):
    content = document(("ABC寺", 3))
    del question_of(content)["answers"]
    reader = squad_files.SquadReader()
    path = write(tmp_path, content)
    assert reader.read_texts(path, None).num_examples == 1
    assert not reader.read_examples(path, None).has_labels
    data = reader.read_texts(write(tmp_path, document(("ABC寺", 9))), None)
    assert data.examples[0].answers is None
    assert [len(chunk) for chunk in data.chunks(5)] == [1]


def test_a_test_file_with_placeholders_has_no_answers(tmp_path):
    """As CMRC 2018's, whose answers are called FAKE_ANSWER_1."""
    path = write(tmp_path, document(("FAKE_ANSWER_1", -1)))
    reader = squad_files.SquadReader()
    assert not reader.read_examples(path, None, placeholders_allowed=True).has_labels
    assert reader.read_examples(path, None).has_labels
    path = write(tmp_path, document(("ABC寺", 3)))
    assert reader.read_examples(path, None, placeholders_allowed=True).has_labels


def test_a_byte_order_mark_is_no_text(tmp_path):
    content = b"\xef\xbb\xbf" + json.dumps(document(("ABC寺", 3))).encode()
    assert read(tmp_path, content).num_examples == 1


def test_texts_of_the_command_line(tmp_path):
    data = squad_files.from_command_line([["问？", CONTEXT], ["-？", "钟"]])
    assert [(q.question, q.context) for q in data.examples] == [
        ("问？", CONTEXT),
        ("-？", "钟"),
    ]
    assert squad_files.from_command_line([]) is None
    with pytest.raises(UserError, match="--text_pair: a text is empty"):
        squad_files.from_command_line([["问？", " "]])


@pytest.mark.parametrize(
    "name, num_questions, num_corrected, num_lost",
    [
        ("cmrc2018/cmrc2018_trial.json", 1002, 5, 0),
        ("cmrc2018/cmrc2018_dev.json", 3219, 7, 193),
        ("tasks/drcd/DRCD_dev.json", 3524, 0, 0),
    ],
)
def test_real_files(real_data, caplog, name, num_questions, num_corrected, num_lost):
    reader = squad_files.SquadReader()
    path = str(real_data / name)
    data = reader.read_examples(path, None, is_training=True)
    assert data.num_examples == num_questions
    for question in data.examples:
        assert cut(question) in [answer.strip() for answer in question.answers]
    for number, words in (
        (num_corrected, "answers had a wrong"),
        (num_lost, "answers stand nowhere"),
    ):
        assert ("{} {}".format(number, words) in caplog.text) == bool(number)
