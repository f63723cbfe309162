"""Files of tags and of CLUENER's JSON lines: what is read, what is refused."""

import json
import logging

import pytest

from albert_zh.base.errors import UserError
from albert_zh.tasks import get_task, tagged_texts
from albert_zh.tasks.tag_schemes import Span

NER = tagged_texts.TagReader(get_task("ner"))


def write(folder, content, name="train.txt"):
    path = folder / name
    path.write_bytes(content.encode("utf-8"))
    return str(path)


def read(folder, content, name="train.txt", labels=None, **kwargs):
    return NER.read_examples(write(folder, content, name), labels, **kwargs)


def line(text, label=None, **more):
    record = dict({"text": text}, **more)
    if label is not None:
        record["label"] = label
    return json.dumps(record, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    "content",
    [
        "他 O\n在 O\n北 B-LOC\n京 I-LOC\n\n我 O\n",
        "他\tO\n在\tO\n北\tB-LOC\n京\tI-LOC\n\n我\tO\n\n\n",
        "他 O\r\n在 O\r\n北 B-LOC\r\n京 E-LOC\r\n\r\n我 O\r\n",
        "\ufeff他 O \n在 O\n北 B_LOC\n京 E_LOC\n \n\t\n我 O",
        "他在 O\n北京 S-LOC\n\n我 O\n",
    ],
)
def test_the_same_texts_in_every_layout(tmp_path, content):
    data = read(tmp_path, content)
    assert data.examples == [
        tagged_texts.TaggedText("他在北京", (Span(2, 4, "LOC"),), 0),
        tagged_texts.TaggedText("我", (), 1),
    ]
    assert data.has_labels
    assert tagged_texts.find_types(data) == ("LOC",)


def test_places_in_words_are_no_characters(tmp_path):
    """As Weibo NER is published."""
    content = "科0\tB-ORG.NAM\n技1\tI-ORG.NAM\n10\tO\n61\tO\n\t\n我0\tO\n，0\tO\n"
    data = read(tmp_path, content)
    assert data.examples == [
        tagged_texts.TaggedText("科技16", (Span(0, 2, "ORG.NAM"),), 0),
        tagged_texts.TaggedText("我，", (), 1),
    ]
    with pytest.raises(UserError, match="train.txt:8: '号' has no place in its word"):
        read(tmp_path, content + "号\tO\n")


def test_tokens_of_several_characters_without_spaces(tmp_path):
    content = "第1 O\n集 O\niPhone B-X\n手机 O\n2024 O\n年 O\nA O\nP O\nP O\n"
    (example,) = read(tmp_path, content).examples
    assert example.text == "第1集iPhone手机2024年APP"
    assert example.entities == (Span(3, 9, "X"),)


ODD = list(" \t\u3000\xa0\u200b\ufeff\x01\x0b\u2028") + ["😀", "𠀀"]


@pytest.mark.parametrize("odd", ODD)
def test_odd_characters_keep_their_place(tmp_path, odd):
    content = "天 O\n{} O\n北 B-LOC\n{} I-LOC\n京 I-LOC\n".format(odd, odd)
    (example,) = read(tmp_path, content).examples
    assert example.text == "天" + odd + "北" + odd + "京"
    assert example.entities == (Span(2, 5, "LOC"),)
    text = "天" + odd + "北京"
    content = line(text, {"LOC": {"北京": [[2, 3]]}})
    (example,) = read(tmp_path, content, "train.json").examples
    assert (example.text, example.entities) == (text, (Span(2, 4, "LOC"),))


def test_cluener_lines(tmp_path):
    label = {
        "address": {"台湾": [[0, 1], [4, 5]]},
        "company": {"台湾银行": [[4, 7]]},
    }
    content = line("台湾有个台湾银行", label, id=7) + line("没有", {}, id="a")
    data = read(tmp_path, content + "\n", "dev.json")
    assert [e.id for e in data.examples] == [7, "a"]
    assert data.examples[0].entities == (
        Span(0, 2, "address"),
        Span(4, 6, "address"),
        Span(4, 8, "company"),
    )
    assert data.examples[1].entities == ()


def test_texts_without_entities(tmp_path):
    data = read(tmp_path, line("北京", id=0), "test.json")
    assert not data.has_labels
    assert "test.json:1: no entities" in str(NER.no_labels("test.json"))
    path = write(tmp_path, "北\n \n京\n\n是\n", "test.txt")
    texts = NER.read_texts(path, None)
    assert texts.num_examples == 2
    assert [[e.text for e in chunk] for chunk in texts.chunks(1)] == [["北 京"], ["是"]]


def test_a_test_file_of_nothing_but_o_has_no_labels(tmp_path):
    content = "北 O\n京 O\n"
    assert read(tmp_path, content).has_labels
    assert not read(tmp_path, content, placeholders_allowed=True).has_labels


def test_a_test_file_without_the_column_of_tags_has_no_labels(tmp_path):
    """As the message about placeholders such as "-" advises."""
    assert not read(tmp_path, "北\n \n京\n\n是\n").has_labels


@pytest.mark.parametrize(
    "name, content",
    [
        ("train.txt", "张 B-PER\n三 I-PER\u200b\n去 O\n李 B-\ufeffPER\n"),
        (
            "train.json",
            line(
                "张三去李", {"PER": {"张三": [[0, 1]]}, "PER\u200b ": {"李": [[3, 3]]}}
            ),
        ),
    ],
)
def test_types_that_look_alike_are_one(tmp_path, name, content):
    data = read(tmp_path, content, name, labels=("PER",))
    assert data.examples[0].entities == (Span(0, 2, "PER"), Span(3, 4, "PER"))
    assert tagged_texts.find_types(data) == ("PER",)


def test_tags_that_continue_nothing_are_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        data = read(tmp_path, "我 O\n\n他 O\n张 I-PER\n三 I-PER\n去 B-LOC\n沪 I-PER\n")
    assert data.examples[1].entities == (
        Span(1, 3, "PER"),
        Span(3, 4, "LOC"),
        Span(4, 5, "PER"),
    )
    (record,) = caplog.records
    message = record.getMessage()
    assert "train.txt:4: I-PER continues no entity" in message and "2 such" in message


@pytest.mark.parametrize(
    "last, is_told", [("S-PER", True), ("E-PER", True), ("O", False)]
)
def test_entities_that_do_not_end_as_their_scheme_says_are_said(
    tmp_path, caplog, last, is_told
):
    """Of BIO, which has neither E nor S, none does."""
    begin = "B-PER" if last == "E-PER" else "O"
    content = "我 B-LOC\n他 O\n\n张 {}\n三 {}\n".format(begin, last)
    with caplog.at_level(logging.WARNING):
        read(tmp_path, content)
    message = "train.txt:1: B-LOC ends an entity, where E or S should; 1 such tags"
    assert [message in caplog.text, len(caplog.records)] == [is_told, int(is_told)]


@pytest.mark.parametrize(
    "content, words",
    [
        ("\n他 O\n", "train.txt:1: blank; expected the first character"),
        ("他 O\n在 n O\n", "train.txt:2: 3 columns, expected 2"),
        ("他 n O\n", "train.txt:1: 3 columns, expected 2"),
        ("他 O\n在\n", "train.txt:2: 1 column, expected 2 as in line 1"),
        ("他\n在 O\n", "train.txt:2: 2 columns, expected 1 as in line 1"),
        ("他 O\n O\n", "train.txt:2: no character before the tag 'O'"),
        ("他 O\n\tO\n", "train.txt:2: no character before the tag 'O'"),
        ("他在北京\n", "train.txt:1: '他在北京' has no tag"),
        ("他 O\n在 X-LOC\n", "train.txt:2: 'X-LOC' is no tag"),
        ("他 O\n在 LOC\n", "train.txt:2: 'LOC' is no tag"),
        ("New B-LOC\nYork I-LOC\n", "train.txt:2: 'York' after 'New', words whose sp"),
        ("买 O\nA O\n320 O\n", "train.txt:3: '320' after 'A', words whose space is"),
        ("-DOCSTART- O\n\n北 O\n", "train.txt:1: -DOCSTART- is no text; remove such"),
        ("他 -\n", "where the tags are not known, leave their column out"),
        ("他 B-X\n在 I-X\n\n是 M-X\n", "train.txt:4: the tags begin with B, I, M"),
        ("他 O\n在 B-\x01\n", "train.txt:2: the type '\\x01' is empty or holds"),
    ],
)
def test_bad_files_of_tags(tmp_path, content, words):
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert words in str(caught.value)
    with pytest.raises(UserError):
        NER.read_texts(write(tmp_path, content), None)


@pytest.mark.parametrize(
    "content, words",
    [
        ("[]\n", "train.json:1: expected one JSON object"),
        ("{\n", "train.json:1: not JSON"),
        (line("好") + "{}\n", "train.json:2: no text"),
        ('{"text": 1}\n', "train.json:1: text is 1; expected text"),
        (line("\u3000"), "train.json:1: text is empty"),
        ('{"text": "好\\ud800"}', "train.json:1: text holds half a surrogate pair"),
        (line("北京", {}) + line("北京"), "train.json:2: a text without entities"),
        (line("北京") + line("北京", {}), "train.json:2: a text with entities"),
        (line("北京", []), "train.json:1: label is []; expected it as in"),
        (line("北京", {"LOC": []}), "train.json:1: label is {'LOC': []}"),
        (line("北京", {"LOC": {"北京": [0, 1]}}), "train.json:1: label is"),
        (line("北京", {"LOC": {"北京": [["0", 1]]}}), "train.json:1: label is"),
        (line("北京", {"LOC": {"北京": [[0, True]]}}), "train.json:1: label is"),
        (line("北京", {"LOC": {"北京": [[0, 2]]}}), "at [0, 2], beyond the text of 2"),
        (line("北京", {"LOC": {"北京": [[-1, 1]]}}), "at [-1, 1], beyond the text"),
        (line("北京", {"LOC": {"北京": [[0, 0]]}}), "where the text has '北'"),
        (
            line("北京", {"LOC": {"北京": []}}),
            "train.json:1: entity '北京' has no place",
        ),
        (line("北京", {"": {"北京": [[0, 1]]}}), "the type '' is empty"),
        ("", "the file is empty"),
    ],
)
def test_bad_json_lines(tmp_path, content, words):
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, "train.json")
    assert words in str(caught.value)


@pytest.mark.parametrize("label", [None, {"LOC": {"北京": [[0, 1]]}}])
@pytest.mark.parametrize(
    "second, words",
    [
        ({"id": 1}, "a second row of the id 1: predictions could not be told apart"),
        ({}, "some rows have an id, others none"),
        ({"id": [1]}, "id is [1]"),
        ({"id": ""}, "id is empty"),
        ({"id": "a\ud800"}, "id holds half a surrogate pair"),
    ],
)
def test_ids_are_checked_in_files_to_predict(tmp_path, label, second, words):
    """Joined training files may have any; entities in the file change nothing."""
    record = {"text": "北京", "label": label}
    records = [json.dumps(dict(record, **ids)) for ids in ({"id": 1}, second)]
    path = write(tmp_path, "\n".join(records), "x.json")
    assert NER.read_examples(path, None).num_examples == 2
    with pytest.raises(UserError) as caught:
        NER.read_texts(path, None)
    assert "x.json:2: " + words in str(caught.value)


def test_a_type_that_only_the_test_file_has(tmp_path):
    content = "他 O\n\n北 B-LOC\n京 I-LOC\n张 B-PER\n"
    with pytest.raises(UserError, match="train.txt:5: unknown type of entity 'PER'"):
        read(tmp_path, content, labels=("LOC",))
    content = line("张", {"PER": {"张": [[0, 0]]}})
    with pytest.raises(UserError, match="train.json:1: .*--labels when training"):
        read(tmp_path, content, "train.json", labels=("LOC",))
    reader = tagged_texts.TagReader(get_task("msra_ner"))
    with pytest.raises(UserError, match="LOC, ORG, PER .--task_name=ner takes any"):
        path = write(tmp_path, "北 B-NS\n")
        reader.read_examples(path, reader.task.labels)


def test_files_without_any_entity_are_not_trained_on(tmp_path):
    with pytest.raises(UserError, match="train.txt: no text has an entity"):
        tagged_texts.find_types(read(tmp_path, "北 O\n"))


def test_a_file_that_changes_is_noticed(tmp_path):
    path = write(tmp_path, line("北京") * 2, "test.json")
    texts = NER.read_texts(path, None)
    write(tmp_path, line("北京"), "test.json")
    with pytest.raises(UserError, match="1 rows, 2 when it was checked"):
        list(texts.chunks(10))


def test_types_on_the_command_line_may_be_one():
    assert get_task("ner", ("PER",)).labels == ("PER",)
    with pytest.raises(UserError, match="one or more"):
        get_task("ner", ("PER", "PER"))
    with pytest.raises(UserError, match="--task_name=ner"):
        get_task("msra_ner", ("PER",))


@pytest.mark.parametrize(
    "name, numbers",
    [
        ("cluener/dev.json", (1343, 3072)),
        ("tasks/resume_ner/dev.char.bmes", (463, 1497)),
        ("tasks/msra_ner/test.txt", (3442, 6190)),
    ],
)
def test_real_files(real_data, name, numbers):
    data = NER.read_examples(str(real_data / name), None)
    entities = [span for example in data.examples for span in example.entities]
    assert (data.num_examples, len(entities)) == numbers
