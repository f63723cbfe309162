"""Task files as people have them: every row used, or one line that names the file."""

import csv
import io
import json
import os
import random
import re
import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albert_zh.base import name_lists
from albert_zh.base.errors import UserError
from albert_zh.tasks import get_task, readers, reading, rows, text_lines
from albert_zh.tasks.columns import Columns
from albert_zh.tasks.reading import Example
from albert_zh.tasks.registry import clean_label
from albert_zh.tasks.splits import TaskData
from tests.row_files import write

PAIR, SINGLE = get_task("pair"), get_task("single")
ROWS = "天气如何\t天气怎样\t1\n怎么还款\t如何办卡\t0\n"
LABEL_FIRST = ("1\t天气如何\t天气怎样\n", "0\t怎么还款\t如何办卡\n")
PAIRS = [Example("天气如何", "天气怎样", "1"), Example("怎么还款", "如何办卡", "0")]
BOM = "\ufeff"
INVISIBLE = "\u200b\u200c\u200d\u200e\u2060\u00ad\ufeff"


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.tsv", ROWS + "\n"),
        ("x.tsv", ROWS + " \n\u200b\n\u3000\n"),
        ("x.tsv", ROWS + "\t\t\n"),
        ("x.tsv", ROWS.replace("\n", "\r\n") + "\r\n\r\n"),
        ("x.tsv", ROWS.replace("\n", "\r")),
        ("x.tsv", BOM + ROWS),
        ("x.tsv", ROWS.replace("怎么", BOM + "怎么")),
        ("x.tsv", ROWS.replace("1\n", " 1\u200b\n").replace("0\n", "\u20600\u00ad\n")),
        ("x.tsv", BOM + "q1\tq2\tLabel\n" + ROWS),
        ("x.tsv", "label\tq1\tq2\n" + LABEL_FIRST[0] + BOM + LABEL_FIRST[1]),
        ("x.tsv", "query\ttitle\tlabel\n" + ROWS),
        ("x.csv", ROWS.replace("\t", ",") + "\n\n"),
        (
            "x.csv",
            "text_a,text_b,label,,\n"
            + ROWS.replace("\t", ",").replace("\n", ",,\n")
            + ",,,,\n",
        ),
        (
            "x.csv",
            ",text_a,text_b,label\n"
            + "".join(
                "7," + r + "\n" for r in ROWS.replace("\t", ",").split("\n") if r
            ),
        ),
        (
            "x.json",
            "".join(
                json.dumps(dict(zip(("q1", "q2", "label"), r.split("\t")))) + "\n"
                for r in ROWS.split("\n")
                if r
            )
            + "\n \n",
        ),
    ],
)
def test_files_read_as_the_plain_one(tmp_path, name, content):
    assert reading.read_examples(write(tmp_path, name, content), PAIR).examples == PAIRS


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.tsv", "text\tlabel\n甲\t1\ntext\tlabel\n乙\t0\n", ":3: names col"),
        ("x.tsv", "label\ttext\n1\t甲\n\ufefflabel\ttext\n0\t乙\n", ":3: names"),
        ("x.tsv", "甲\t1\n乙\t0\n内容\t标签\n丙\t1\n", ":3: names columns"),
        ("x.tsv", "甲\t1\n\u200b\t0\n", ":2: text_a is empty"),
        ("x.tsv", "甲\t1\n\n乙\t0\n", ":2: 1 columns"),
        ("x.tsv", "甲\t\u200b\n乙\t0\n", ":1: label is empty"),
        ("x.tsv", "甲\t1\u2028\x85x\n", ":1: label '1.*' holds a control character"),
        ("x.json", '{"text": "甲", "label": "a\\nb"}\n', ":1: label .* a control"),
        ("x.json", '{"text": "甲", "label": "\\ud800"}\n', ":1: label .* a control"),
        ("x.json", '{"text": "甲", "label": ' + "9" * 5000 + "}\n", ":1: "),
        ("x.json", '{"text": "甲", "label": 1.5}\n', ":1: label is 1.5; expected text"),
        (
            "x.json",
            '{"text": "甲\\udc00", "label": 1}\n',
            ":1: text_a holds half",
        ),
        ("x.json", '[{"text": "甲", "label": 1}]\n', ":1: expected one JSON object"),
        (
            "x.json",
            '[\n{"text": "甲", "label": 1}\n]\n',
            ":1: not JSON .*one JSON object",
        ),
        ("x.tsv", "甲\t1\n".encode("utf-16"), "iconv -f UTF-16"),
        ("x.tsv", "甲乙\t1\n".encode("gb18030"), "iconv -f GB18030"),
        ("x.csv", '甲,1\n"乙,0\n', ":2: not CSV"),
        ("x.tsv", "\n\n", "no examples"),
        ("x.tsv", "", "the file is empty"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    with pytest.raises(UserError, match="x{}.*{}".format(name[1:], message)):
        data = reading.read_examples(write(tmp_path, name, content), SINGLE)
        reading.find_labels(data)
        raise AssertionError(data)


@pytest.mark.parametrize(
    "value, message",
    [
        ('"a\\ud800"', "holds half a surrogate pair"),
        ('" "', "is empty"),
        ("1.5", "is 1.5; expected a number or text"),
        ("[1]", r"is \[1\]; expected a number or text"),
        ("null", "is None; expected a number or text"),
        ("true", "is True; expected a number or text"),
    ],
)
def test_a_judges_file_has_ids_that_can_be_written(tmp_path, value, message):
    line = '{"sentence1": "甲", "sentence2": "乙", "id": %s}\n'
    content = line % 0 + line % value
    path = write(tmp_path, "test.json", content)
    with pytest.raises(UserError, match="test.json:2: id " + message):
        reading.read_texts(path, get_task("afqmc"))
    # Of other tasks nothing is written with it.
    assert reading.read_texts(path, PAIR).num_examples == 2


def test_rows_of_a_judges_file_have_different_ids_or_none(tmp_path):
    afqmc, line = get_task("afqmc"), '{"sentence1": "甲", "sentence2": "乙"%s}\n'
    for first, second, message in (
        (', "id": 7', ', "id": 7', "a second row of the id 7: predictions could not"),
        ("", ', "id": 0', "some rows have an id, others none"),
        (', "id": 0', "", "some rows have an id, others none"),
    ):
        path = write(tmp_path, "test.json", line % first + line % second)
        with pytest.raises(UserError, match="test.json:2: " + message):
            reading.read_texts(path, afqmc, ("0", "1"))
        # Nothing is written of a file to train on, such as two that were joined, or
        # to score.
        assert reading.read_examples(path, afqmc).num_examples == 2
        test = reading.read_examples(path, afqmc, placeholders_allowed=True)
        assert test.num_examples == 2
    path = write(tmp_path, "test.json", line % "" * 2)
    assert reading.read_texts(path, afqmc, ("0", "1")).num_examples == 2


LONG = list(range(1000))


@pytest.mark.parametrize(
    "name, record",
    [
        ("single", {"text": LONG, "label": 1}),
        ("single", {"text": "甲", "label": LONG}),
        ("multi_label", {"text": "甲", "label": {"x": LONG}}),
        ("regression_single", {"text": "甲", "label": LONG}),
        ("csl", {"keyword": LONG, "abst": "甲", "label": 1}),
        ("csl", {"keyword": ["甲"], "abst": LONG, "label": 1}),
        ("ner", {"text": LONG}),
        ("ner", {"text": "甲", "id": LONG}),
        (
            "multiple_choice",
            {"context": "甲", "question": "乙", "choices": {"x": LONG}},
        ),
        ("chid", {"content": {"x": LONG}, "candidates": ["甲", "乙"]}),
        ("c3", [[LONG, [{}], "1"]]),
        ("c3", [[["甲"], [LONG], "1"]]),
    ],
)
def test_errors_show_the_beginning_of_a_long_value(tmp_path, name, record):
    task, path = get_task(name), write(tmp_path, "x.json", json.dumps(record) + "\n")
    with pytest.raises(UserError) as caught:
        reader = readers.reader_of(task)
        reader.read_examples(path, task.labels)
        reader.read_texts(path, task.labels)
    assert "[0, 1, 2, " in str(caught.value)
    assert len(str(caught.value)) < len(path) + 250


@pytest.mark.parametrize("name, separator", [("x.csv", ";"), ("x.tsv", ",")])
def test_another_separator_is_told(tmp_path, name, separator):
    path = write(tmp_path, name, ROWS.replace("\t", separator))
    with pytest.raises(UserError, match="1 columns, .*commas in .csv, by tabs in"):
        reading.read_examples(path, PAIR)


@pytest.mark.parametrize(
    "name, header, separator",
    [
        ("x.csv", "text\tlabel", "\t"),
        ("x.csv", "不错\t好评", "\t"),
        ("x.csv", "text;category", ";"),
        ("x.csv", "编号;内容;标签", ";"),
        ("x.tsv", "label,text", ","),
        ("x.txt", "id|sentence", "|"),
    ],
)
def test_another_separator_of_single_texts_is_told(tmp_path, name, header, separator):
    path = write(tmp_path, name, header + "\n很好" + separator + "1\n")
    for read in (reading.read_examples, reading.read_texts):
        with pytest.raises(UserError, match=name + ":1: 1 column, .*separate several"):
            read(path, SINGLE)
    # As the message says.
    data = reading.read_texts(write(tmp_path, name, "text_a\n" + header + "\n"), SINGLE)
    assert list(data.chunks(9)) == [[Example(header, None, None)]]


def test_a_text_that_holds_separators_is_a_text(tmp_path):
    content = "好看,内容也好;不错\nGreat content, would read again!\n"
    assert reading.read_texts(write(tmp_path, "x.tsv", content), SINGLE).num_examples


@pytest.mark.parametrize(
    "labels, classes",
    [
        (["--1", "1"], ("--1", "1")),
        (["+1", "-1", "0"], ("-1", "0", "+1")),
        (["²", "1"], ("1", "²")),
        (["①", "②"], ("①", "②")),
        (["１", "2"], ("１", "2")),
        (["9" * 5000, "1"], ("1", "9" * 5000)),
        (["1\u200b", "1", "0"], ("0", "1")),
        (["\ufeff科技", "科技 ", "体育\u3000"], ("体育", "科技")),
        (["a,b", "c"], ("a,b", "c")),
    ],
)
def test_classes_of_odd_labels(tmp_path, labels, classes):
    content = "".join("甲\t{}\n".format(label) * 2 for label in labels)
    data = reading.read_examples(write(tmp_path, "x.tsv", content), SINGLE)
    assert reading.find_labels(data) == classes


def test_json_booleans_are_labels_as_json_writes_them(tmp_path):
    content = '{"text": "甲", "label": true}\n{"text": "乙", "label": false}\n'
    path = write(tmp_path, "x.json", content)
    labels = [example.label for example in reading.read_examples(path, SINGLE).examples]
    assert labels == ["true", "false"]
    # A model that an earlier version trained has Python's names.
    data = reading.read_examples(path, SINGLE, ("False", "True"))
    assert [example.label for example in data.examples] == ["True", "False"]


def test_line_ends_are_those_of_the_whole_file(tmp_path):
    """Though the first line is longer than what is read at once."""
    long = "乙" * 400000
    path = write(tmp_path, "x.txt", "甲\r" + long + "\n丙\n丁\n")
    lines = [(1, "甲\r" + long), (2, "丙"), (3, "丁")]
    assert list(text_lines.read_lines(path)) == lines
    path = write(tmp_path, "x.txt", long + "\r丙\r丁\r")
    assert list(text_lines.read_lines(path)) == [(1, long)] + lines[1:]


def test_a_cell_may_be_longer_than_pythons_limit(tmp_path):
    text = "很长的文" * 40000
    path = write(tmp_path, "x.csv", "label,text_a\n1,{}\n0,短\n".format(text))
    assert reading.read_examples(path, SINGLE).examples[0].text_a == text


# Columns


@pytest.mark.parametrize("name", ["x.json", "x.tsv", "x.csv"])
@pytest.mark.parametrize("content", ["\n", "\n \n", BOM + "\n"])
def test_blank_lines_alone_are_no_examples(tmp_path, name, content):
    path = write(tmp_path, name, content)
    for read in (reading.read_examples, reading.read_texts):
        with pytest.raises(UserError, match="no examples; expected at least one row"):
            read(path, SINGLE)


@pytest.mark.parametrize(
    "content, is_refused",
    [
        ("1001\t手机降价了\n1002\t球队赢了\n", True),
        ("1001\t手机降价了\n", True),
        ("1001\t手机降价了\n1002\t?\n", True),
        ("1001\t手机降价了\n1002\t科技\n1003\t?\n", True),
        ("手机降价了\t?\n球队赢了\t\n", False),
        ("手机降价了\t待定\n球队赢了\t待定\n", False),
        ("手机降价了\t科技\u200b\n", False),
        ("text_a\tlabel\n手机降价了\t别的\n球队赢了\t其他\n", False),
    ],
)
def test_a_label_column_without_labels_shows_other_columns(
    tmp_path, content, is_refused
):
    path, labels = write(tmp_path, "x.tsv", content), ("体育", "科技")
    for task in (SINGLE, get_task("multi_label")):
        if not is_refused:
            assert reading.read_texts(path, task, labels).num_examples <= 2
            continue
        with pytest.raises(UserError, match="x.tsv:1: column 2 should be.*手机降价了"):
            reading.read_texts(path, task, labels)
    # As the message says.
    if is_refused:
        texts = reading.read_texts(path, SINGLE, labels, Columns(text_a="2"))
        assert next(texts.chunks(1))[0].text_a == "手机降价了"


def test_the_first_row_without_a_label_among_labels_is_named(tmp_path):
    path = write(tmp_path, "x.tsv", "1\t好评\n2\t很好吃\n3\t差\n")
    message = "x.tsv:2: column 2 should be the label, but '很好吃' is no label"
    with pytest.raises(UserError, match=message):
        reading.read_texts(path, SINGLE, ("好评", "差评"))
    named = write(tmp_path, "y.tsv", "id\ttext\n1\t好评\n2\t很好吃\n3\t差\n")
    (texts,) = reading.read_texts(named, SINGLE, ("好评", "差评")).chunks(9)
    assert [example.text_a for example in texts] == ["好评", "很好吃", "差"]


def test_other_spellings_and_ignored_labels_are_labels(tmp_path):
    path = write(tmp_path, "x.tsv", "甲\t乙\tneutral\n丙\t丁\tcontradictory\n")
    xnli = get_task("xnli")
    assert reading.read_texts(path, xnli, xnli.labels).num_examples == 2
    path = write(tmp_path, "x.tsv", "甲\t1\n乙\t不明\n")
    reader = reading.TableReader(SINGLE, ("不明",))
    assert reader.read_texts(path, ("0", "1")).num_examples == 2
    with pytest.raises(UserError, match="x.tsv:2: column 2 should be the label"):
        reading.read_texts(path, SINGLE, ("0", "1"))


def test_a_column_of_numbers_without_numbers_shows_other_columns(tmp_path):
    path = write(tmp_path, "x.tsv", "1\t甲\t乙\n2\t丙\t丁\n")
    message = "x.tsv:1: column 3 .* label, but '乙' is no number; .*--text_b_column"
    with pytest.raises(UserError, match=message):
        reading.read_texts(path, get_task("regression"), ())


def test_placeholders_in_a_test_file_are_no_labels(tmp_path):
    """CLUE's test files have -1 for every label."""
    write(tmp_path, "dev.tsv", "甲\t1\n")
    test = write(tmp_path, "test.tsv", "甲\t-1\n乙\t-1\n")
    data = TaskData(SINGLE, str(tmp_path), {}, reading.TableReader(SINGLE))
    assert list(data.read_for_scoring(("0", "1"))) == ["dev"]
    with pytest.raises(UserError, match="unknown label '-1'.*as --predict_file"):
        TaskData(
            SINGLE, None, {"dev": test}, reading.TableReader(SINGLE)
        ).read_for_scoring(("0", "1"))
    assert data._replace(named_files={"predict": test}).read_for_prediction(("0", "1"))
    with pytest.raises(UserError, match="all 2 rows carry ignored labels"):
        TaskData(
            SINGLE, None, {"dev": test}, reading.TableReader(SINGLE, ("-1",))
        ).read_labelled("dev", ("0", "1"))


def test_a_label_to_ignore_that_no_row_has_is_named(tmp_path, caplog):
    path = tmp_path / "train.tsv"
    path.write_text("一\tA\n二\t其他\n三\tB\n", encoding="utf-8")
    data = reading.read_examples(str(path), SINGLE, None, ("其他",))
    assert data.num_ignored == 1 and not caplog.text
    data = reading.read_examples(str(path), SINGLE, None, ("其它", "A"))
    assert data.num_ignored == 1
    assert caplog.text.count("--ignore_labels=其它: no row of") == 1
    assert "--ignore_labels=A" not in caplog.text


def test_a_test_file_of_ignored_labels_alone_has_none(tmp_path):
    """As CLUE's test files may have "-" in place of all labels."""
    line = '{"sentence1": "甲", "sentence2": "乙", "label": "%s"}\n'
    path, cmnli = write(tmp_path, "test.json", 2 * line % ("-", "-")), get_task("cmnli")
    data = reading.read_examples(path, cmnli, cmnli.labels, placeholders_allowed=True)
    assert data.num_examples == 2 and not data.has_labels
    with pytest.raises(UserError, match="test.json: all 2 rows carry ignored labels"):
        reading.read_examples(path, cmnli, cmnli.labels)


def test_a_test_file_of_one_known_label_is_scored_with_a_warning(tmp_path, caplog):
    """It may be a placeholder that happens to be the name of a class."""
    path = write(tmp_path, "test.tsv", "甲\t0\n乙\t0\n")
    data = reading.read_examples(path, SINGLE, ("0", "1"), placeholders_allowed=True)
    assert data.has_labels
    assert "test.tsv: all 2 rows have the label 0" in caplog.text
    caplog.clear()
    reading.read_examples(path, SINGLE, ("0", "1"))
    assert "the label 0; nothing else can be learned from them" in caplog.text
    caplog.clear()
    path = write(tmp_path, "test.tsv", "甲\t0\n乙\t1\n")
    reading.read_examples(path, SINGLE, ("0", "1"), placeholders_allowed=True)
    assert not caplog.text


@pytest.mark.parametrize("ends", ["\r{}\n", "\r{}\r\n{}\n"])
def test_line_ends_of_two_kinds_do_not_join_rows(tmp_path, ends):
    path = write(tmp_path, "x.tsv", "甲" + ends.format("乙", "丙"))
    with pytest.raises(UserError, match="x.tsv:1: a carriage return within the line"):
        list(reading.read_texts(path, SINGLE, ("0", "1")).chunks(9))
    subprocess.check_call(
        "perl -pe 's/\\r\\n?/\\n/g' x.tsv > y.tsv", shell=True, cwd=str(tmp_path)
    )
    data = reading.read_texts(str(tmp_path / "y.tsv"), SINGLE, ("0", "1"))
    assert data.num_examples == 1 + ends.count("{}")


def test_the_hint_for_a_return_within_a_text_works(tmp_path):
    path = write(tmp_path, "x.tsv", "很好\r不错\t1\r\n乙\t0\r\n")
    with pytest.raises(UserError) as raised:
        list(reading.read_texts(path, SINGLE, ("0", "1")).chunks(9))
    command = str(raised.value).split("`")[3].replace("FILE > NEW", "x.tsv > y.tsv")
    subprocess.check_call(command, shell=True, cwd=str(tmp_path))
    data = reading.read_examples(str(tmp_path / "y.tsv"), SINGLE, ("0", "1"))
    assert [example.text_a for example in data.examples] == ["很好 不错", "乙"]


LABELLED = '{"text": "丙", "label": "0"}\n'


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.tsv", "甲\t\n乙\t \n"),
        ("x.json", '{"text": "甲", "label": ""}\n{"text": "乙", "label": ""}\n'),
        ("x.json", '{"text": "甲", "label": null}\n{"text": "乙", "label": null}\n'),
    ],
)
@pytest.mark.parametrize("task", ["single", "multi_label", "regression_single"])
def test_a_test_file_with_nothing_for_labels_has_none(tmp_path, task, name, content):
    def read(content, placeholders_allowed=True):
        return reading.read_examples(
            write(tmp_path, name, content),
            get_task(task),
            ("0", "1"),
            placeholders_allowed=placeholders_allowed,
        )

    data = read(content)
    assert data.num_examples == 2 and not data.has_labels
    some = content + (LABELLED if name == "x.json" else "丙\t0\n")
    if task == "multi_label" and "null" not in content:
        assert [e.label for e in read(some).examples] == [(), (), ("0",)]
        return
    for placeholders_allowed in (False, True):
        with pytest.raises(UserError, match="x.*:1: label is "):
            read(some, placeholders_allowed)


@pytest.mark.parametrize("label", ["不 明", "不明,不清", '"不明"', "it's"])
def test_advice_to_ignore_a_label_can_be_followed(tmp_path, label):
    path = write(tmp_path, "x.tsv", "甲\t1\n乙\t{}\n".format(label))
    with pytest.raises(UserError, match="leaves such rows out") as caught:
        reading.read_examples(path, SINGLE, ("0", "1"))
    (advice,) = re.findall(r"[(](--ignore_labels=.*) leaves", str(caught.value))
    (flag,) = shlex.split(advice)
    ignored = name_lists.split(flag.split("=", 1)[1])
    data = reading.read_examples(path, SINGLE, ("0", "1"), ignored)
    assert data.num_examples == data.num_ignored == 1


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = write(tmp_path, "x.tsv", "甲\n乙\n")
    texts = reading.read_texts(path, SINGLE)
    write(tmp_path, "x.tsv", "甲\n乙\n丙\n")
    with pytest.raises(UserError, match="3 rows, 2 when it was checked"):
        list(texts.chunks(2))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(str(tmp_path / "x.tsv"))
    with pytest.raises(UserError, match="it is no ordinary file"):
        reading.read_texts(str(tmp_path / "x.tsv"), SINGLE)


@pytest.mark.parametrize("text", ["", " ", "\u3000", "\u200b", "\ufeff\x00"])
def test_what_files_refuse_the_command_line_refuses(tmp_path, text):
    with pytest.raises(UserError, match="--text: a text is empty"):
        reading.from_command_line(SINGLE, [[text]], [])
    with pytest.raises(UserError):
        reading.read_texts(write(tmp_path, "x.tsv", "甲\n" + text + "\n乙\n"), SINGLE)


def test_arguments_in_another_locale_are_still_texts():
    bytes_as_python_gives_them = "你好".encode().decode("ascii", "surrogateescape")
    data = reading.from_command_line(SINGLE, [[bytes_as_python_gives_them]], [])
    assert data.examples == [Example("你好", None, None)]
    with pytest.raises(UserError, match="--text: .* is not UTF-8"):
        reading.from_command_line(SINGLE, [["\udcff"]], [])


# Mutated files


CELLS = st.text(
    st.one_of(
        st.sampled_from("天地人好坏ab01 ,\"'\t;" + INVISIBLE),
        st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)),
    ),
    max_size=8,
)
VISIBLE = CELLS.filter(lambda text: not text_lines.is_blank(text))
LABELS = st.sampled_from(["0", "1", "科技", "a,b"])
MUTATIONS = (
    "none blank_end bom crlf invisible_label insert_bytes delete_bytes duplicate_line "
    "delete_line swap_separator truncate header_again blank_middle surround_spaces"
).split()


RECORDS = st.one_of(
    st.lists(st.tuples(VISIBLE, LABELS), min_size=1, max_size=6),
    st.lists(st.tuples(VISIBLE, VISIBLE, LABELS), min_size=1, max_size=6),
)


def serialize(kind, columns, records):
    """A file of records that `kind` can hold, with a header or keys, as bytes."""
    if kind == "csv":
        target = io.StringIO()
        csv.writer(target, lineterminator="\n").writerows([columns] + records)
        return target.getvalue().encode("utf-8")
    if kind == "json":
        lines = [json.dumps(dict(zip(columns, record))) for record in records]
    else:
        lines = ["\t".join(cells) for cells in [columns] + without_tabs(records)]
    return ("\n".join(lines) + "\n").encode("utf-8")


def without_tabs(records):
    return [tuple(cell.replace("\t", " ") for cell in record) for record in records]


def mutate(content, mutation, generator):
    """Returns a changed file, and whether the same examples must come out of it."""
    lines = content.split(b"\n")[:-1]
    position = generator.randrange(len(content))
    middle = generator.randrange(1, len(lines) + 1)
    if mutation == "blank_end":
        return content + b"\n \n\xe2\x80\x8b\n", True
    if mutation == "bom":
        return BOM.encode("utf-8") + content, True
    if mutation == "crlf":
        return content.replace(b"\n", b"\r\n"), True
    if mutation == "invisible_label":
        zero_width = "\u200b".encode()
        changed = content.replace("科技".encode(), "科技".encode() + zero_width)
        return changed, False
    if mutation == "insert_bytes":
        some = bytes(generator.randrange(256) for _ in range(generator.randrange(1, 4)))
        return content[:position] + some + content[position:], False
    if mutation == "delete_bytes":
        return content[:position] + content[
            position + generator.randrange(1, 4) :
        ], False
    if mutation == "truncate":
        return content[:position], False
    if mutation == "swap_separator":
        return content.replace(b"\t", b",", 1), False
    if mutation == "surround_spaces":
        return content.replace(b"\n", b" \n"), False
    added = {
        "duplicate_line": lines[middle - 1],
        "header_again": lines[0],
        "blank_middle": b"",
    }
    if mutation in added:
        lines.insert(middle, added[mutation])
    elif mutation == "delete_line":
        del lines[middle - 1]
    return b"\n".join(lines) + b"\n", mutation == "none"


def without_marks(example):
    """An `Example` without the byte order marks that are dropped at a line's start."""
    return example._replace(text_a=example.text_a.lstrip(BOM))


@settings(max_examples=300)
@given(
    kind=st.sampled_from(["tsv", "csv", "json"]),
    records=RECORDS,
    mutation=st.sampled_from(MUTATIONS),
    seed=st.integers(0, 2**32),
)
def test_mutated_files_lose_and_shift_no_row(
    tmp_path_factory, kind, records, mutation, seed
):
    """Read as predictions and as training: one line of error, or every row in place."""
    task = PAIR if len(records[0]) == 3 else SINGLE
    content, is_same = mutate(
        serialize(kind, task.columns, records), mutation, random.Random(seed)
    )
    records = without_tabs(records) if kind == "tsv" else records
    path = write(tmp_path_factory.mktemp("mutated"), "x." + kind, content)
    try:
        data = reading.read_examples(path, task)
    except UserError as error:
        assert "\n" not in str(error) and "x." + kind in str(error)
        texts = [text for record in records for text in record[:-1]]
        assert not (is_same and not any(map(text_lines.is_blank, texts))), error
        return
    texts = reading.read_texts(path, task)
    assert texts.num_examples == data.num_examples
    chunks = sum(texts.chunks(2), [])
    assert chunks == [example._replace(label=None) for example in data.examples]
    # A quotation mark can join lines of CSV.
    if kind != "json" and mutation not in ("insert_bytes", "delete_bytes", "truncate"):
        added = {"duplicate_line": 1, "delete_line": -1 if data.has_header else 0}
        assert data.num_examples == len(records) + added.get(mutation, 0)
    if is_same:
        expected = [
            Example(r[0], r[1] if task.is_pair else None, r[-1]) for r in records
        ]
        found = list(map(without_marks, data.examples))
        assert found == list(map(without_marks, expected))
    if mutation == "invisible_label":
        assert {e.label for e in data.examples} <= {clean_label(r[-1]) for r in records}


@pytest.mark.parametrize(
    "first, second", [("content", "sentence"), ("sentence", "text"), ("Text", "text")]
)
def test_the_first_row_decides_which_key_is_read(tmp_path, first, second):
    both = {first: "甲", second: "乙", "label": "1"}
    for second_row in (both, dict(reversed(list(both.items())))):
        objects = {first: "甲", "label": "0"}, second_row
        lines = [json.dumps(each, ensure_ascii=False) for each in objects]
        path = write(tmp_path, "x.json", "\n".join(lines))
        found = reading.read_examples(path, SINGLE).examples
        assert [each.text_a for each in found] == ["甲", "甲"]
        assert [texts for _, texts in row_texts(path)] == [["甲"], ["甲"]]


def row_texts(path):
    return rows.texts_or_pairs(path, SINGLE, PAIR)


def test_a_key_that_only_later_rows_have_is_refused(tmp_path):
    lines = ['{"content": "甲", "label": "0"}', '{"sentence": "乙", "label": "1"}']
    path = write(tmp_path, "x.json", "\n".join(lines))
    message = "x.json:2: text_a is called 'sentence', 'content' in line 1; give it one"
    with pytest.raises(UserError, match=message):
        reading.read_examples(path, SINGLE)
    assert [texts for _, texts in row_texts(path)] == [["甲"], ["乙"]]  # not trained on


def test_a_flag_names_a_key_exactly(tmp_path):
    row = '{"Text": "甲", "text": "乙", "label": "0"}'
    path = write(tmp_path, "x.json", row + "\n" + row)
    columns = Columns(text_a="text")
    found = reading.read_examples(path, SINGLE, columns=columns).examples
    assert [each.text_a for each in found] == ["乙", "乙"]


def test_a_number_outside_the_range_of_its_task_is_refused(tmp_path):
    stsb, any_number = get_task("stsb"), get_task("regression")
    for label, is_wrong in (("7", True), ("-0.1", True), ("5", False), ("0", False)):
        path = write(tmp_path, "x.tsv", "甲\t乙\t2.5\n丙\t丁\t{}\n".format(label))
        assert len(reading.read_examples(path, any_number).examples) == 2
        if is_wrong:
            message = "x.tsv:2: label is {}; expected a number from 0 to 5".format(
                label
            )
            for placeholders_allowed in (False, True):
                with pytest.raises(UserError, match=message):
                    reading.read_examples(
                        path, stsb, placeholders_allowed=placeholders_allowed
                    )
        else:
            assert len(reading.read_examples(path, stsb).examples) == 2
    path = write(tmp_path, "x.tsv", "甲\t乙\t-1\n丙\t丁\t-1\n")  # stands for none
    found = reading.read_examples(path, stsb, placeholders_allowed=True).examples
    assert [each.label for each in found] == [None, None]
    with pytest.raises(UserError, match="label is -1; expected a number from 0 to 5"):
        reading.read_examples(path, stsb)
