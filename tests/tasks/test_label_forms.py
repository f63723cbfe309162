"""What stands in a label column: one class, several, or a number."""

import argparse
import json

import pytest

from albert_zh import command_line
from albert_zh.base.errors import UserError
from albert_zh.tasks import get_task, reading
from albert_zh.tasks.columns import Columns
from albert_zh.tasks.splits import TaskData


def read(tmp_path, name, task, content, labels=None):
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8"))
    return reading.read_examples(str(path), get_task(task), labels)


def json_row(label):
    return json.dumps({"text": "甲", "text2": "乙", "label": label}) + "\n"


def test_several_labels_in_a_cell_and_in_json(tmp_path):
    data = read(tmp_path, "a.tsv", "multi_label", '甲\t体育, 财经\n乙\t\n丙\t"a,b"\n')
    assert [e.label for e in data.examples] == [("体育", "财经"), (), ("a,b",)]
    data = read(tmp_path, "b.csv", "multi_label", '甲,"体育,财经"\n乙,财经\n')
    assert [e.label for e in data.examples] == [("体育", "财经"), ("财经",)]
    rows = json_row(["体育", 3]) + json_row([]) + json_row("体育,财经")
    data = read(tmp_path, "c.json", "multi_label", rows)
    assert [e.label for e in data.examples] == [("体育", "3"), (), ("体育", "财经")]
    assert reading.find_all_labels(data) == ("3", "体育", "财经")


def test_numbers(tmp_path):
    data = read(tmp_path, "a.tsv", "regression", "甲\t乙\t3\n丙\t丁\t-0.5\n")
    assert [e.label for e in data.examples] == [3.0, -0.5]
    rows = json_row(2.5) + json_row("4") + json_row(" 1e-1\u200b")
    data = read(tmp_path, "b.json", "regression", rows)
    assert [e.label for e in data.examples] == [2.5, 4.0, 0.1]


@pytest.mark.parametrize("label", ["-1", "0", "2.5", "?", "nan", ""])
def test_one_number_for_all_rows_is_no_label_to_score(tmp_path, label):
    path = tmp_path / "test.tsv"
    path.write_text("甲\t乙\t{0}\n丙\t丁\t{0}\n".format(label), encoding="utf-8")
    reader = reading.TableReader(get_task("regression"))
    data = reader.read_examples(str(path), (), placeholders_allowed=True)
    assert data.num_examples == 2 and not data.has_labels
    with pytest.raises(UserError, match="test.tsv.*--predict_file"):
        reader.read_examples(str(path), None)
    assert reader.read_texts(str(path), ()).num_examples == 2


@pytest.mark.parametrize(
    "label, message",
    [
        ("体育，财经", "label '体育，财经' seems to be several; put ',' between names"),
        ("体育;财经", "label '体育;财经' seems to be several"),
        ("1 0 1", "label '1 0 1' seems to be several"),
        ('"体育,财经', "is no line of CSV .*quotation marks stand around a whole name"),
        ('"体育"、财经', "is no line of CSV"),
    ],
)
def test_names_in_a_cell_are_separated_by_commas(tmp_path, label, message):
    with pytest.raises(UserError, match="a.tsv:2: .*" + message):
        read(tmp_path, "a.tsv", "multi_label", "甲\t体育\n乙\t{}\n".format(label))


def test_a_name_with_another_separator_stands_in_quotation_marks(tmp_path):
    """As the messages say."""
    rows = '甲\t"体育，财经","1 0 1"\n乙\t"a""b"\n'
    data = read(tmp_path, "a.tsv", "multi_label", rows)
    assert [e.label for e in data.examples] == [("体育，财经", "1 0 1"), ('a"b',)]
    data = read(tmp_path, "a.json", "multi_label", json_row(["体育，财经"]))
    assert data.examples[0].label == ("体育，财经",)
    labels = ("体育;财经", "1")
    data = read(tmp_path, "a.tsv", "multi_label", "甲\t体育;财经\n", labels)
    assert data.examples[0].label == ("体育;财经",)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "正文\t主题\n甲\t体育\n乙\t体育,财经\n",
            "'主题' occurs in the first row only",
        ),
        (
            "".join("{0}\t第{0}篇\n".format(i) for i in range(100)),
            "100 labels in 100 rows",
        ),
        ("甲\t体育\n乙\t财经\n丙\t体育 财经\n", "'体育 财经' seems to be several"),
        ("甲\t体育\n乙\t财经\n丙\t体育、财经\n", "'体育、财经' seems to be several"),
    ],
)
def test_columns_of_other_things_than_several_labels(tmp_path, content, message):
    data = read(tmp_path, "a.tsv", "multi_label", content)
    with pytest.raises(UserError, match="a.tsv: .*" + message):
        reading.find_all_labels(data)
    # Of names that are given, none is searched for.
    labels = tuple({name for e in data.examples for name in e.label})
    assert read(tmp_path, "a.tsv", "multi_label", content, labels).has_labels


def test_a_rare_label_in_the_first_row_of_several_is_one(tmp_path):
    for content in (
        "甲\t主题,体育\n乙\t体育,财经\n",
        "text\tlabel\n甲\t主题\n乙\t体育\n丙\t体育\n",
        "甲\t主题\n乙\t体育,财经\n",
    ):
        data = read(tmp_path, "a.tsv", "multi_label", content)
        assert "主题" in reading.find_all_labels(data)


def test_labels_in_a_flag_are_a_line_of_csv():
    assert command_line.names('"a,b",c') == ("a,b", "c")
    with pytest.raises(argparse.ArgumentTypeError, match="is no line of CSV"):
        command_line.names('"a,b')


def test_files_to_predict_may_have_labels_or_none(tmp_path):
    for task, labelled, bare in (
        ("stsb", "甲\t乙\t3\n", "甲\t乙\n"),
        ("multi_label", "甲\t体育,财经\n", "甲\n"),
    ):
        for content in (labelled, bare):
            path = tmp_path / "test.tsv"
            path.write_bytes(content.encode("utf-8"))
            labels = ("体育", "财经") if task == "multi_label" else ()
            texts = reading.read_texts(str(path), get_task(task), labels)
            assert texts.num_examples == 1


BAD = [
    ("multi_label", json_row({"a": 1}), "expected a list of names"),
    ("multi_label", json_row(None), "expected a list of names"),
    ("multi_label", json_row(["a", ""]), "label is empty"),
    ("multi_label", json_row("a,,b"), "label is empty"),
    ("multi_label", json_row(["a", "a "]), "'a' stands there twice"),
    ("multi_label", json_row(["a", 1.5]), "1.5; expected text or an integer"),
    ("multi_label", json_row(["a", "x"]), "unknown label 'x'"),
    ("regression", json_row("很像"), "'很像'; expected a number"),
    ("regression", json_row(True), "True; expected a number"),
    ("regression", json_row(None), "None; expected a number"),
    ("regression", json_row(float("nan")), "nan; expected a number"),
    ("regression", json_row("inf"), "'inf'; expected a number"),
    ("regression", json_row(1e39), r"1e\+39; expected a number from -1e18 to 1e18"),
    ("regression", json_row("-2e18"), "'-2e18'; expected a number from -1e18 to 1e18"),
    ("regression", json_row(10**400), "0; expected a number"),
    ("regression", json_row([1]), r"\[1\]; expected a number"),
    ("regression", json_row("1_5"), "'1_5'; expected a number"),
]


@pytest.mark.parametrize("task,row,message", BAD)
def test_bad_labels_are_named(tmp_path, task, row, message):
    labels = ("a", "b") if task == "multi_label" else None
    good = json_row(["a"] if labels else 1)
    with pytest.raises(UserError, match="a.json:2: .*" + message) as caught:
        read(tmp_path, "a.json", task, good + row, labels)
    assert "\n" not in str(caught.value)


def test_labels_of_numbers_are_refused():
    with pytest.raises(UserError, match="--labels=a,b: stsb predicts numbers"):
        get_task("stsb", ("a", "b"))


def test_real_similarities(real_data):
    for split, number in (("train", 5231), ("dev", 1458), ("test", 1361)):
        path = str(real_data / "tasks" / "stsb" / (split + ".txt"))
        data = reading.read_examples(path, get_task("stsb"))
        assert data.num_examples == number
        assert {e.label for e in data.examples} == set(map(float, range(6)))


def test_the_published_form_of_stsb_is_read(tmp_path):
    rows = "sts-b-dev-0||甲||乙||5\nsts-b-dev-1||丙||丁 | 戊||0.5\n"
    (tmp_path / "cnsd-sts-dev.txt").write_text(rows, encoding="utf-8")
    data = TaskData(get_task("stsb"), str(tmp_path), {}, None)
    path = data.find("dev")
    examples = reading.read_examples(path, get_task("stsb")).examples
    assert [tuple(example) for example in examples] == [
        ("甲", "乙", 5.0),
        ("丙", "丁 | 戊", 0.5),
    ]


@pytest.mark.parametrize(
    "row,message",
    [
        ("sts-b-dev-2||甲||乙", ":2: 3 columns, expected 4 as in line 1"),
        ("sts-b-dev-2||||||", ":2: text_a is empty"),
        ("sts-b-dev-2||甲||||5", ":2: "),
        ("sts-b-dev-2||甲||乙||好", ":2: "),
        ("甲\t乙\t5", ":2: "),
    ],
)
def test_a_bad_row_of_the_published_form_is_named(tmp_path, row, message):
    path = tmp_path / "cnsd-sts-train.txt"
    path.write_text("0||甲||乙||5\n" + row + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=str(path) + message):
        reading.read_examples(str(path), get_task("stsb"))


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "甲甲||乙乙||1.5\n丙||丁||2\n",
            "3 columns, expected 4 .id, text_a, text_b, l",
        ),
        ("甲||乙\n", "2 columns, expected 4 .id, text_a, text_b, label"),
    ],
)
def test_the_published_form_without_an_id_is_refused(tmp_path, content, message):
    path = tmp_path / "cnsd-sts-train.txt"
    path.write_text(content, encoding="utf-8")
    for read_file in (reading.read_examples, reading.read_texts):
        with pytest.raises(UserError, match="train.txt:1: " + message):
            read_file(str(path), get_task("stsb"), ())


@pytest.mark.parametrize(
    "content, columns",
    [
        ("0||甲||乙\n", Columns()),
        ("id||text_a||text_b||label\n0||甲||乙||5\n", Columns()),
        ("text_a||text_b||label\n甲||乙||5\n", Columns()),
        ("甲||乙||5\n", Columns("1", "2", "3")),
    ],
)
def test_other_columns_of_the_published_form_are_read(tmp_path, content, columns):
    path = tmp_path / "cnsd-sts-test.txt"
    path.write_text(content, encoding="utf-8")
    (texts,) = reading.read_texts(str(path), get_task("stsb"), (), columns).chunks(9)
    assert texts == [reading.Example("甲", "乙", None)]


def test_separators_within_texts_of_other_files_are_text(tmp_path):
    data = read(tmp_path, "a.tsv", "regression", "甲||乙\t丙\t3\n")
    assert data.examples[0].text_a == "甲||乙"
