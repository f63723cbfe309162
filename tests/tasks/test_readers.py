"""What holds for the readers of all kinds of task."""

import json

import pytest

from albert_zh.base.errors import UserError
from albert_zh.tasks import get_task
from albert_zh.tasks.readers import reader_of

_QUESTION = '"context": "甲", "question": "乙", "choices": ["a", "b"]'
_SQUAD = '{"data": [{"paragraphs": [{"context": "天晴。", "qas": [%s]}]}]}'
# Task, content of a file, place of the object with a key twice, that key.
_REPEATS = [
    ("single", '{"text": "甲", "label": "1", "label": "0"}', ":1: ", "label"),
    ("pair", '{"q1": "甲", "q1": "乙", "q2": "丙", "label": "0"}', ":1: ", "q1"),
    ("stsb", '{"q1": "甲", "q2": "丙", "label": 0, "label": 1}', ":1: ", "label"),
    ("multi_label", '{"text": "甲", "label": [], "label": []}', ":1: ", "label"),
    ("csl", '{"abst": "甲", "abst": "乙", "keyword": ["丙"]}', ":1: ", "abst"),
    (
        "ner",
        '{"text": "甲", "label": {"P": {}, "P": {}}}',
        ":1: not JSON (label: ",
        "P",
    ),
    ("multiple_choice", "{%s, %s}" % (_QUESTION, _QUESTION), ":1: ", "context"),
    (
        "chid",
        '{"content": ["甲#idiom1#乙"], "candidates": [], "candidates": ["一", "二"]}',
        ":1: ",
        "candidates",
    ),
    (
        "c3",
        '[[["甲"], [{"question": "乙", "choice": ["a", "b"], "choice": []}]]]',
        ": damaged ([0][1][0]: ",
        "choice",
    ),
    (
        "cmrc2018",
        _SQUAD % '{"id": "1", "question": "天气？", "answers": [], "answers": []}',
        ": data[0].paragraphs[0].qas[0]: ",
        "answers",
    ),
]


@pytest.mark.parametrize("name, content, place, key", _REPEATS)
def test_a_key_twice_is_refused(tmp_path, name, content, place, key):
    path, task = tmp_path / "x.json", get_task(name)
    path.write_text(content + "\n", encoding="utf-8")
    reader = reader_of(task)
    for read in (reader.read_examples, reader.read_texts):
        with pytest.raises(UserError) as caught:
            read(str(path), task.labels)
        message = str(caught.value)
        assert message.startswith(str(path) + place) and "\n" not in message
        assert "it holds the key {!r} twice".format(key) in message


def test_an_answer_twice_is_refused(tmp_path):
    line = {"content": ["甲#idiom1#乙"], "candidates": ["一", "二"]}
    (tmp_path / "x.json").write_text(json.dumps(line))
    answers = tmp_path / "x_answer.json"
    answers.write_text('{"#idiom1#": 0, "#idiom1#": 1}')
    with pytest.raises(UserError) as caught:
        reader_of(get_task("chid")).read_examples(str(tmp_path / "x.json"))
    assert str(caught.value).startswith(
        "{}: damaged (it holds the key '#idiom1#' twice)".format(answers)
    )
