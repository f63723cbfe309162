"""Columns of task files: found by name, by place or by flags, or said not to be."""

import json
import logging

import pytest

from albert_zh.base.errors import UserError
from albert_zh.tasks import get_task, reading
from albert_zh.tasks.columns import Columns
from albert_zh.tasks.reading import Example
from tests.row_files import write

PAIR, SINGLE = get_task("pair"), get_task("single")
PAIRS = [Example("天气如何", "天气怎样", "1"), Example("怎么还款", "如何办卡", "0")]

COLUMNS = "编号\t甲方\t乙方\t结果\n7\t天气如何\t天气怎样\t1\n8\t怎么还款\t如何办卡\t0\n"


@pytest.mark.parametrize(
    "content, columns, header",
    [
        (COLUMNS, Columns("甲方", "乙方", "结果"), True),
        (COLUMNS.split("\n", 1)[1], Columns("2", "3", "4"), False),
        (COLUMNS.replace("结果", "label"), Columns("甲方", "乙方"), True),
        (COLUMNS.replace("结果", "label"), Columns("2", "3"), True),
    ],
)
def test_columns_named_by_flags(tmp_path, content, columns, header):
    path = write(tmp_path, "x.tsv", content)
    data = reading.read_examples(path, PAIR, columns=columns)
    assert data.examples == PAIRS and data.has_header == header
    texts = reading.read_texts(path, PAIR, ("0", "1"), columns)
    assert sum(texts.chunks(5), []) == [e._replace(label=None) for e in PAIRS]


@pytest.mark.parametrize(
    "name, content, columns",
    [
        ("x.tsv", "好\t1\n坏\t0\n", Columns("1", None, "2")),
        ("x.tsv", "好\t1\n坏\t0\n", Columns(" 1", None, "2 ")),
        ("x.csv", "2,好,1\n1,坏,0\n", Columns("2", None, "3")),
        ("x.csv", "3,2,label\n7,好,1\n8,坏,0\n", Columns("2", None, "3")),
    ],
)
def test_digits_are_a_columns_number_though_the_first_row_holds_them(
    tmp_path, name, content, columns
):
    path = write(tmp_path, name, content)
    data = reading.read_examples(path, SINGLE, columns=columns)
    assert data.examples == [Example("好", None, "1"), Example("坏", None, "0")]


def test_json_keys_named_by_flags(tmp_path):
    record = {"text": "别的", "甲方": "天气如何", "乙方": "天气怎样", "结果": 1}
    path = write(tmp_path, "x.json", json.dumps(record) + "\n")
    columns = Columns("甲方", "乙方", "结果")
    data = reading.read_examples(path, PAIR, columns=columns)
    assert data.examples == PAIRS[:1]
    with pytest.raises(UserError, match="x.json:1: --label_column=无: no such key"):
        reading.read_examples(path, PAIR, columns=columns._replace(label="无"))


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.tsv", "label\ttitle\tcontent\n1\t标题\t正文\n"),
        ("x.json", '{"content": "正文", "title": "标题", "label": 1}\n'),
        ("x.json", '{"content": "正文", "title": 7, "label": 1}\n'),
    ],
)
@pytest.mark.parametrize("columns", [Columns(), Columns(text_a="content")])
def test_a_task_of_single_texts_reads_no_second_text(tmp_path, name, content, columns):
    path = write(tmp_path, name, content)
    data = reading.read_examples(path, SINGLE, columns=columns)
    assert data.examples == [Example("正文", None, "1")]
    (texts,) = reading.read_texts(path, SINGLE, columns=columns).chunks(5)
    assert texts == [Example("正文", None, None)]


def test_texts_that_are_not_read_are_said_once(tmp_path, caplog):
    content = "sentence1\tsentence2\tlabel\n甲\t乙\t1\n"
    path = write(tmp_path, "x.tsv", content)
    reading.read_examples(path, PAIR)
    reading.read_examples(path, SINGLE, columns=Columns(text_a="sentence1"))
    assert not caplog.text
    data = reading.read_texts(path, SINGLE)
    list(data.chunks(5))
    (record,) = caplog.records
    expected = "{}: not read: sentence2; the task single reads sentence1, label"
    assert record.message == expected.format(path)
    path = write(tmp_path, "x.json", '{"text": "甲", "sentence": "乙", "label": 1}\n')
    reading.read_examples(path, SINGLE)
    expected = "x.json: not read: sentence; the task single reads text, label"
    assert expected in caplog.text


@pytest.mark.parametrize(
    "content, task, columns",
    [
        ("query\tsentence\tlabel\n甲\t乙\t1\n", PAIR, Columns()),
        ("content\ttitle\n甲\t1\n", SINGLE, Columns(label="title")),
        ("content\ttitle\n甲\t1\n", SINGLE, Columns(label="2")),
        ("sentence\tlabel\n甲\t1\n", SINGLE, Columns()),
    ],
)
def test_texts_that_are_read_are_not_said_to_be_left_out(
    tmp_path, caplog, content, task, columns
):
    reading.read_examples(write(tmp_path, "x.tsv", content), task, columns=columns)
    assert not caplog.text


def test_a_key_that_is_the_label_is_not_said_to_be_left_out(tmp_path, caplog):
    path = write(tmp_path, "x.json", '{"content": "甲", "title": "1"}\n')
    reading.read_examples(path, SINGLE, columns=Columns(label="title"))
    assert not caplog.text


def test_a_form_of_its_own_reads_all_that_it_needs(tmp_path, caplog):
    row = {"id": 1, "abst": "甲", "keyword": ["乙"], "title": "丙", "label": "1"}
    path = write(tmp_path, "x.json", json.dumps(row) + "\n")
    reading.read_examples(path, get_task("csl"))
    assert not caplog.text


def test_a_first_text_that_is_a_name_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    texts = reading.read_texts(write(tmp_path, "x.tsv", "Review\n甲\n"), SINGLE)
    assert texts.num_examples == 1
    (record,) = caplog.records
    assert record.message.startswith("{}:1: 'Review' is taken for".format(texts.path))
    # As the message says.
    caplog.clear()
    path = write(tmp_path, "y.tsv", "text_a\nReview\n甲\n")
    (texts,) = reading.read_texts(path, SINGLE).chunks(5)
    assert [text.text_a for text in texts] == ["Review", "甲"]
    path = write(tmp_path, "z.tsv", "Review\n甲\n")
    reading.read_texts(path, SINGLE, columns=Columns(text_a="Review"))
    assert not caplog.records


TWICE = "text\tlabel\tText\n甲\t1\t乙\n"


@pytest.mark.parametrize(
    "content, task, columns, message",
    [
        (TWICE, SINGLE, Columns(), "1 and 3 are called 'text'; .*--text_a_column"),
        (TWICE, SINGLE, Columns("text"), "1 and 3 are called"),
        (TWICE, SINGLE, Columns(None, None, "label"), "1 and 3 are called"),
        ("q1\tq2\tlabel\tlabel\n甲\t乙\t1\t0\n", PAIR, Columns(), "3 and 4 .*--label_"),
        ("甲\t甲\t乙\n天\t地\t1\n", SINGLE, Columns("甲", None, "3"), "1 and 2"),
    ],
)
def test_a_name_that_stands_twice_names_no_column(
    tmp_path, content, task, columns, message
):
    path = write(tmp_path, "x.tsv", content)
    with pytest.raises(UserError, match="x.tsv:1: the columns " + message):
        reading.read_examples(path, task, columns=columns)


def test_a_name_that_stands_twice_may_be_left_out(tmp_path):
    path = write(tmp_path, "x.tsv", TWICE)
    # As the message says.
    data = reading.read_examples(path, SINGLE, columns=Columns(text_a="3"))
    assert data.examples == [Example("乙", None, "1")]
    path = write(tmp_path, "x.tsv", "text\tx\tx\tlabel\n甲\t乙\t丙\t1\n")
    assert reading.read_examples(path, SINGLE).examples == [Example("甲", None, "1")]
    path = write(tmp_path, "x.tsv", "x\tx\tlabel\n甲\t乙\t1\n")
    assert reading.read_examples(path, PAIR).examples == [Example("甲", "乙", "1")]


@pytest.mark.parametrize(
    "columns, message",
    [
        (
            Columns("甲", "乙方", "结果"),
            "--text_a_column=甲: the first row .* 编号, ",
        ),
        (Columns("5", "乙方", "结果"), "--text_a_column=5: the first row of .* has 4"),
        (Columns(None, "乙方", "结果"), "name it with --text_a_column"),
    ],
)
def test_columns_that_are_not_there(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        reading.read_examples(write(tmp_path, "x.tsv", COLUMNS), PAIR, columns=columns)


@pytest.mark.parametrize(
    "columns, message",
    [
        (
            Columns("甲方", "甲方"),
            "--text_a_column=甲方 and --text_b_column=甲方 are one",
        ),
        (Columns("2", "甲方"), "--text_a_column=2 and --text_b_column=甲方 are one"),
        (
            Columns("2", "3", "乙方"),
            "--text_b_column=3 and --label_column=乙方 are one",
        ),
    ],
)
def test_two_flags_for_one_column_are_refused(tmp_path, columns, message):
    with pytest.raises(UserError, match=message + " column of .*x.tsv"):
        reading.read_examples(write(tmp_path, "x.tsv", COLUMNS), PAIR, columns=columns)


def test_two_flags_for_one_key_are_refused(tmp_path):
    path = write(tmp_path, "x.json", '{"甲方": "天气", "结果": 1}\n')
    message = "--text_a_column=甲方 and --label_column=甲方 are one column of .*x.json"
    with pytest.raises(UserError, match=message):
        reading.read_examples(path, SINGLE, columns=Columns("甲方", None, "甲方"))


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.tsv", "query\ttitle\tlabel\n甲\t乙\t1\n"),
        ("x.json", '{"query": "甲", "title": "乙", "label": 1}\n'),
    ],
)
def test_a_column_that_a_flag_takes_is_no_other_one(tmp_path, name, content):
    path = write(tmp_path, name, content)
    with pytest.raises(UserError, match="no text_b among .*--text_b_column"):
        reading.read_examples(path, PAIR, columns=Columns("title"))
    data = reading.read_examples(path, PAIR, columns=Columns("title", "query"))
    assert data.examples == [Example("乙", "甲", "1")]


@pytest.mark.parametrize(
    "name, content, columns",
    [
        ("x.tsv", "甲方\t乙方\n甲\t乙\n丙\t丁\n", Columns("甲方", "乙方", "结果")),
        (
            "x.tsv",
            "甲方\t乙方\tlabel\n甲\t乙\t1\n丙\t丁\t1\n",
            Columns("1", "乙方", "结果"),
        ),
        ("x.tsv", "q2\tq1\tlabel\n乙\t甲\t1\n丁\t丙\t0\n", Columns(None, None, "结果")),
        ("x.tsv", "甲\t乙\n丙\t丁\n", Columns(None, None, "结果")),
        ("x.tsv", "甲\t乙\n丙\t丁\n", Columns("1", "2", "3")),
        (
            "x.json",
            '{"q1": "甲", "q2": "乙"}\n{"q1": "丙", "q2": "丁", "label": 1}\n',
            Columns(None, None, "结果"),
        ),
    ],
)
def test_a_file_to_predict_or_to_test_may_lack_the_label(
    tmp_path, name, content, columns
):
    path = write(tmp_path, name, content)
    expected = [Example("甲", "乙", None), Example("丙", "丁", None)]
    assert list(reading.read_texts(path, PAIR, ("0", "1"), columns).chunks(9)) == [
        expected
    ]
    reader = reading.TableReader(PAIR, columns=columns)
    data = reader.read_examples(path, ("0", "1"), placeholders_allowed=True)
    assert data.examples == expected
    flag = "--label_column={}".format(columns.label)
    with pytest.raises(UserError, match=flag):
        reader.read_examples(path, ("0", "1"))


def test_a_first_row_without_the_label_that_may_name_columns(tmp_path):
    path = write(tmp_path, "x.tsv", "甲方\t乙方\n甲\t乙\n")
    with pytest.raises(
        UserError, match="--label_column=结果: not in .*: 甲方, 乙方; if"
    ):
        reading.read_texts(path, PAIR, ("0", "1"), Columns("1", "2", "结果"))
    # As the message says.
    for columns, number in (
        (Columns("甲方", "乙方", "结果"), 1),
        (Columns("1", "2"), 2),
    ):
        data = reading.read_texts(path, PAIR, ("0", "1"), columns)
        assert data.num_examples == number


@pytest.mark.parametrize("end", ["", "\tscore"])
def test_a_header_of_unknown_names_says_what_to_do(tmp_path, end):
    path = write(
        tmp_path,
        "x.tsv",
        "query\tpassage_text{}\n天气\t如何{}\n".format(end, end and "\t1"),
    )
    with pytest.raises(UserError, match="--text_a_column and --text_b_column"):
        reading.read_texts(path, PAIR, ("0", "1"))
    data = reading.read_texts(path, PAIR, ("0", "1"), Columns("query", "passage_text"))
    assert data.num_examples == 1
    data = reading.read_texts(
        write(tmp_path, "y.tsv", "text_a\ttext_b\nquery\tpassage\n"), PAIR, ("0", "1")
    )
    assert list(data.chunks(9)) == [[Example("query", "passage", None)]]
