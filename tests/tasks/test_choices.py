"""Questions with choices and blanks: reading, refusals, model inputs, assignment."""

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.base.errors import UserError
from albert_zh.tasks import choice_features, choices, get_task
from albert_zh.tasks.assignment import best_assignment
from albert_zh.tasks.choices import Blank, ChoiceReader, Cloze, Question
from albert_zh.tasks.splits import TaskData

C3 = [
    [
        ["男：你好。", "女：再见！"],
        [
            {"question": "谁先说？", "choice": ["男的", "女的"], "answer": "男的"},
            {"question": "几句？", "choice": ["一", "二", "三"], "answer": "二 "},
        ],
        "1-1",
    ],
    [
        ["天晴。"],
        [{"question": "天气？", "choice": ["雨", "雪", "晴", "风"], "answer": "晴"}],
        "m1-2",
    ],
]
QUESTION = {"context": "天晴。", "question": "天气？", "choices": ["雨", "晴"]}
LINE = {
    "content": ["他#idiom000001#地走了，又#idiom000002#。", "#idiom000003#！"],
    "candidates": ["大摇大摆", "卷土重来", "岂有此理", "画蛇添足"],
}
ANSWERS = {"#idiom000001#": 0, "#idiom000002#": 1, "#idiom000003#": 2}


def write(path, value):
    """Writes JSON, or a list of dicts as JSON lines; returns the path as text."""
    lines = [value]
    if isinstance(value, list) and isinstance(value[0], dict):
        lines = value
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return str(path)


def read(name, path):
    return ChoiceReader(get_task(name)).read_examples(path)


def refused_to_predict(name, path):
    """The message about a file to predict, which can be read to train on."""
    read(name, path)
    with pytest.raises(UserError) as caught:
        ChoiceReader(get_task(name)).read_texts(path)
    return str(caught.value)


def test_questions_of_c3_number_themselves(tmp_path):
    first, second = write(tmp_path / "d.json", C3), write(tmp_path / "m.json", C3[1:])
    data = read("c3", first + "," + second)
    assert data.has_labels
    assert data.examples[1] == Question(
        1, "男：你好。\n女：再见！", "几句？", ("一", "二", "三"), 1
    )
    assert [e.identifier for e in data.examples] == [0, 1, 2, 3]
    assert [e.answer for e in data.examples] == [0, 1, 2, 2]


def test_questions_of_c3s_test_file_have_ids_and_no_answers(tmp_path):
    questions = [
        {"question": "谁？", "choice": ["男的", "女的"], "id": number}
        for number in (7, 3)
    ]
    data = read("c3", write(tmp_path / "t.json", [[["男：好。"], questions, "1"]]))
    assert not data.has_labels
    assert [e.identifier for e in data.examples] == [7, 3]


def test_a_repeated_choice_of_c3_counts_once(tmp_path, caplog):
    """Six of the 19,577 published questions have one."""
    questions = [{"question": "？", "choice": ["一", "二", "二"], "answer": "二"}]
    path = write(tmp_path / "d.json", [[["天"], questions, "1"]])
    assert read("c3", path).examples[0].answer == 1
    assert "same choice twice: 1; the first one counts" in caplog.text


@pytest.mark.parametrize("answer, index", [(1, 1), ("晴", 1), (0, 0), (None, None)])
def test_answers_are_indices_or_texts(tmp_path, answer, index):
    path = write(tmp_path / "x.jsonl", [dict(QUESTION, answer=answer)])
    assert read("multiple_choice", path).examples == [
        Question(0, "天晴。", "天气？", ("雨", "晴"), index)
    ]


def test_blanks_and_the_answers_beside_them(tmp_path):
    path = write(tmp_path / "dev.json", [LINE])
    bare = read("chid", path)
    assert not bare.has_labels
    write(tmp_path / "dev_answer.json", ANSWERS)
    (cloze,) = read("chid", path).examples
    assert cloze == Cloze(
        tuple(LINE["candidates"]),
        (
            Blank("#idiom000001#", "他", "地走了，又#idiom000002#。", 0),
            Blank("#idiom000002#", "他#idiom000001#地走了，又", "。", 1),
            Blank("#idiom000003#", "", "！", 2),
        ),
    )
    assert bare.examples[0].blanks[1] == cloze.blanks[1]._replace(answer=None)


def c3_with(**changes):
    """C3's items with a changed second question; None removes a field."""
    record = dict(C3[0][1][1], **changes)
    record = {name: value for name, value in record.items() if value is not None}
    return [[C3[0][0], [C3[0][1][0], record], "1-1"], C3[1]]


BAD_C3 = {
    "answer '四' is none of the choices 一,二,三": c3_with(answer="四"),
    "answer is 1; expected text": c3_with(answer=1),
    "no answer among others with one": c3_with(answer=None),
    "choice has 1; expected 2 to 4": c3_with(choice=["二"]),
    "choice has 5; expected 2 to 4": c3_with(choice=list("一二三四五")),
    'no choice; expected {"question": ..., "choice": [...], "answer": ...}': (
        c3_with(choice=None)
    ),
    "choice is '一二'; expected a list of texts": c3_with(choice="一二"),
    "choice: text 2 of 2 is empty": c3_with(choice=["二", " "]),
    "choice: text 2 of 2 is 3; expected text": c3_with(choice=["二", 3]),
    "question is empty": c3_with(question="\u200b"),
    'no question; expected {"question": ..., "choice": [...], "answer": ...}': (
        c3_with(question=None)
    ),
}


@pytest.mark.parametrize("message", sorted(BAD_C3))
def test_bad_questions_of_c3(tmp_path, message):
    path = write(tmp_path / "d.json", BAD_C3[message])
    with pytest.raises(UserError) as caught:
        read("c3", path)
    assert str(caught.value) == "{}: item 1, question 2: {}".format(path, message)


BAD_ITEMS = [
    ([["天", [], "1"]], "item 1: expected C3's [[[context"),
    ([{"context": "天"}], "item 1: expected C3's [[[context"),
    ([["天", C3[0][1], "1"]], "item 1: context is '天'; expected a list of texts"),
    ([C3[0], [["", " "], C3[0][1], "1"]], "item 2: context is empty"),
    ([[["天", 1], C3[0][1], "1"]], "item 1: context is ['天', 1]; expected a list"),
    ([[["天"], ["问"], "1"]], "item 1, question 1: '问' is no question"),
    ({"a": 1}, "damaged (.* is not of type 'array'); expected C3's"),
]


@pytest.mark.parametrize("items, message", BAD_ITEMS)
def test_bad_items_of_c3(tmp_path, items, message):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(items), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read("c3", str(path))
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text
    assert all(part in text for part in message.split(".*"))


def test_repeated_ids_of_c3_are_refused(tmp_path):
    path = write(tmp_path / "d.json", c3_with(id=5) + c3_with(id=5))
    message = refused_to_predict("c3", path)
    assert "d.json: item 3, question 2: a second question of the id 5: " in message


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("c3", [1], "d.json: item 1, question 2: id is [1]; expected a number or text"),
        ("c3", "", "d.json: item 1, question 2: id is empty"),
        ("multiple_choice", "", "d.json:1: id is empty"),
        ("multiple_choice", "a\ud800", "d.json:1: id holds half a surrogate pair"),
    ],
)
def test_ids_that_cannot_be_written(tmp_path, name, value, words):
    path = tmp_path / "d.json"
    content = c3_with(id=value) if name == "c3" else dict(LABELLED, id=value)
    path.write_text(json.dumps(content))
    assert words in refused_to_predict(name, str(path))


@pytest.mark.parametrize(
    "ids, message",
    [
        (({"id": 7}, {"id": 7}), "a second question of the id 7: predictions could"),
        (({"id": 1}, {}), "no id, and its number, 1, is the id of another question"),
        (({}, {"id": 0}), "a second question of the id 0: .*without any id, questions"),
    ],
)
def test_repeated_ids_of_questions_are_named_with_their_line(tmp_path, ids, message):
    path = write(tmp_path / "a.jsonl", [dict(QUESTION, **each) for each in ids])
    found = refused_to_predict("multiple_choice", path)
    assert re.search("a.jsonl:2: " + message, found)


def test_repeated_tags_of_several_files_are_refused(tmp_path):
    paths = [write(tmp_path / name, LINE) for name in ("a.json", "b.json")]
    message = refused_to_predict("chid", ",".join(paths))
    assert "b.json:1: a second blank of the tag #idiom0000" in message


def test_a_comma_may_be_part_of_a_folder_s_name(tmp_path):
    folder = tmp_path / "问答,第1批"
    folder.mkdir()
    (tmp_path / "问答").mkdir()
    paths = [write(folder / name, C3) for name in ("d-train.json", "m-train.json")]
    task = get_task("c3")
    data = TaskData(task, str(folder), {}, ChoiceReader(task))
    assert data.paths() == paths
    assert data.read_labelled("train", None).num_examples == 6
    write(folder / "train.json", LINE)
    task = get_task("chid")
    data = TaskData(task, str(folder), {}, ChoiceReader(task))
    with pytest.raises(UserError, match="in .*第1批/train_answer.json"):
        data.read_labelled("train", None)


@pytest.mark.parametrize("content", ["", "[]", "[[", "\ufeff", '"\\ud800"'])
def test_files_of_c3_without_any_question(tmp_path, content):
    path = tmp_path / "d.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="d.json: (damaged|no questions).*expected"):
        read("c3", str(path))


def changed(record, **changes):
    record = dict(record, **changes)
    return {name: value for name, value in record.items() if value is not None}


LABELLED = dict(QUESTION, answer=1)
EMPTY_ANSWER = "answer is empty; where answers are not known, leave the field out"
BAD_QUESTIONS = {
    "answer is 2; expected an index from 0 to 1": changed(LABELLED, answer=2),
    "answer is -1; expected an index from 0 to 1": changed(LABELLED, answer=-1),
    "answer is True; expected an index": changed(LABELLED, answer=True),
    "answer is [1]; expected an index": changed(LABELLED, answer=[1]),
    "answer '雪' is none of the choices 雨,晴": changed(LABELLED, answer="雪"),
    EMPTY_ANSWER: changed(LABELLED, answer=""),
    "no answer among others with one": changed(LABELLED, answer=None),
    "choices has '雨' twice": changed(LABELLED, choices=["雨", "晴", "雨"]),
    "choices has '雨 ' twice": changed(LABELLED, choices=["雨 ", "晴", "\u200b雨"]),
    "choices has 1; expected 2 to 26": changed(LABELLED, choices=["雨"]),
    "choices is {}; expected a list of texts": changed(LABELLED, choices={}),
    "choices: text 2 of 2 is 1; expected text": changed(LABELLED, choices=["雨", 1]),
    "context is 5; expected text": changed(LABELLED, context=5),
    "context is empty": changed(LABELLED, context="\n"),
    "context holds half a surrogate pair": changed(LABELLED, context="天\ud800"),
    "question is empty": changed(LABELLED, question=""),
    'no question; expected {"context": ..., "question": ..., "choices": [...]}': (
        changed(LABELLED, question=None)
    ),
}


@pytest.mark.parametrize("message", sorted(BAD_QUESTIONS))
def test_bad_lines_of_questions(tmp_path, message):
    path = tmp_path / "x.jsonl"
    lines = [LABELLED, BAD_QUESTIONS[message]]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read("multiple_choice", str(path))
    assert str(caught.value) == "{}:2: {}".format(path, message)


def test_lines_that_are_no_questions(tmp_path):
    for content, message in (
        ("[1]", "x.jsonl:1: expected one JSON object a line"),
        ("{", "x.jsonl:1: not JSON"),
        ("", "x.jsonl: the file is empty"),
        ("\n", "x.jsonl: no questions; expected at least one"),
    ):
        path = tmp_path / "x.jsonl"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            read("multiple_choice", str(path))


BAD_LINES = {
    "candidates has '画蛇添足' twice": changed(
        LINE, candidates=LINE["candidates"] + ["画蛇添足"]
    ),
    "candidates has 11; expected 2 to 10": changed(
        LINE, candidates=[str(number) for number in range(11)]
    ),
    'no candidates; expected {"content": [...], "candidates": [...]}': (
        changed(LINE, candidates=None)
    ),
    "content is '天'; expected a list of texts": changed(LINE, content="天"),
    "content: text 2 of 2 is empty": changed(LINE, content=["天", ""]),
    "content has no blank, such as #idiom000000#": changed(LINE, content=["天"]),
    "content has no blank, such as #idiom000000#; #idiom# has no number": (
        changed(LINE, content=["天#idiom#"])
    ),
    "3 blanks for 2 candidates, each of which is used once at most": (
        changed(LINE, candidates=["大摇大摆", "卷土重来"])
    ),
    "#idiom000001# occurs twice": changed(LINE, content=["#idiom000001#" * 2]),
}


@pytest.mark.parametrize("message", sorted(BAD_LINES))
def test_bad_lines_of_blanks(tmp_path, message):
    other = {"content": ["#idiom9#"], "candidates": ["一", "二"]}
    path = write(tmp_path / "x.json", [other, BAD_LINES[message]])
    with pytest.raises(UserError) as caught:
        read("chid", path)
    assert str(caught.value) == "{}:2: {}".format(path, message)


@pytest.mark.parametrize(
    "answers, message",
    [
        ({"#idiom000002#": None}, "x.json:1: #idiom000002# has no answer in {}"),
        ({"#idiom000002#": 4}, "x.json:1: {}: #idiom000002# is 4; expected an index "),
        ({"#idiom000002#": "卷土重来"}, "x.json:1: {}: #idiom000002# is '卷土重来'; "),
        (
            {"#idiom4#": 1},
            "{}: 1 of its answers are for .*such as #idiom4#",
        ),
    ],
)
def test_answers_that_do_not_fit_their_blanks(tmp_path, answers, message):
    path = write(tmp_path / "x.json", [LINE])
    given_answers = write(tmp_path / "x_answer.json", changed(ANSWERS, **answers))
    with pytest.raises(UserError, match=message.format(given_answers)):
        read("chid", path)


def test_files_to_predict_may_have_anything_for_answers(tmp_path):
    c3 = c3_with(answer="")
    lines = [dict(QUESTION, answer=answer) for answer in ("", -1, "?", None, 1)]
    write(tmp_path / "x_answer.json", {"#idiom000002#": -1})
    for name, value in (("c3", c3), ("multiple_choice", lines), ("chid", [LINE])):
        path = write(tmp_path / "x.json", value)
        texts = ChoiceReader(get_task(name)).read_texts(path)
        assert texts.num_examples == {"c3": 3, "multiple_choice": 5, "chid": 1}[name]
        assert not any(example.label for example in texts.examples)
        with pytest.raises(UserError):
            read(name, path)


def test_files_without_answers_say_where_they_belong(tmp_path):
    for name, value, place in (
        ("chid", [LINE], "in .*x_answer.json"),
        ("multiple_choice", [QUESTION], "with the questions"),
    ):
        path = write(tmp_path / "x.json", value)
        error = ChoiceReader(get_task(name)).no_labels(path)
        with pytest.raises(
            UserError, match="x.json: no answers; expected them " + place
        ):
            raise error


def test_what_the_message_of_an_empty_answer_advises(tmp_path):
    """Without the field, a test file that --data_dir has is not scored."""
    for name, dev, test in (
        (
            "c3",
            [C3[1]],
            [[["天晴。"], [{"question": "天气？", "choice": ["雨", "晴"]}]]],
        ),
        ("multiple_choice", [LABELLED], [dict(QUESTION)]),
    ):
        named = {"dev": write(tmp_path / "dev.json", dev)}
        named["test"] = write(tmp_path / "test.json", test)
        task = get_task(name)
        data = TaskData(task, None, named, ChoiceReader(task))
        assert list(data.read_for_scoring(None)) == ["dev"]
        (test[0][1] if name == "c3" else test)[0]["answer"] = " "
        write(tmp_path / "test.json", test)
        with pytest.raises(UserError, match=": " + EMPTY_ANSWER):
            data.read_for_scoring(None)


def test_questions_of_the_command_line():
    task = get_task("c3")
    data = choices.from_command_line(task, [["天晴。", "天气？", '雨,"晴,或雪"']])
    assert data.examples == [Question(0, "天晴。", "天气？", ("雨", "晴,或雪"), None)]
    assert choices.from_command_line(task, []) is None
    for text, message in (
        (["天", "问", "雨"], "--text: CHOICES has 1; expected 2 to 4"),
        (["", "问", "雨,晴"], "--text: a text is empty"),
        (["天", "问", "雨,"], "--text: CHOICES: text 2 of 2 is empty"),
        (["天", "问", "雨,雨"], "--text: CHOICES has '雨' twice"),
        (["天", "问", '雨,"晴'], "--text: CHOICES: '雨,\"晴' is no line of CSV"),
    ):
        with pytest.raises(UserError, match=message):
            choices.from_command_line(task, [text])
    with pytest.raises(UserError, match="--text: not for chid.*--predict_file"):
        choices.from_command_line(get_task("chid"), [["天", "问", "雨,晴"]])


# Model inputs


class CharacterTokenizer:
    """A stand-in for `FullTokenizer`: a token is a character."""

    def __init__(self, has_blank=True):
        self.vocab = {"[unused1]": 5} if has_blank else {}

    def tokenize(self, text):
        return list(text)

    def convert_tokens_to_ids(self, tokens):
        specials = {"[CLS]": 1, "[SEP]": 2, "[MASK]": 3, "[unused1]": 5}
        return [specials.get(token) or ord(token) for token in tokens]


def sequences(built):
    """The sequences of `Features` as pairs of texts, one for each segment."""
    shown, begin = [], 0
    symbols = {1: "^", 2: "|", 3: "_", 5: "?"}
    for length in built.targets["sequence_lengths"]:
        ids = built.input_ids[begin : begin + length].tolist()
        text = "".join(symbols.get(i) or chr(i) for i in ids)
        segments = built.segment_ids[begin : begin + length].tolist()
        border = segments.index(1)
        assert segments == [0] * border + [1] * (length - border)
        shown.append((text[:border], text[border:]))
        begin += length
    assert begin == len(built.input_ids)
    return shown


def question_sequences(max_seq_length, context="abcdef", question="QR", answers="XY"):
    question = Question(0, context, question, tuple(answers), 1)
    built = choice_features.question_features(
        CharacterTokenizer(), question, max_seq_length
    )
    assert built.targets["label_ids"] == 1
    return sequences(built), built.is_truncated


def test_a_sequence_for_each_choice():
    assert question_sequences(13) == ([("^abcdef|", "QR|X|"), ("^abcdef|", "QR|Y|")], 0)


def test_all_choices_see_the_same_part_of_a_long_context():
    """The longest choice leaves room for three tokens."""
    expected = [("^abc|", "QR|XYZ|"), ("^abc|", "QR|V|")]
    assert question_sequences(12, answers=["XYZ", "V"]) == (expected, True)


def test_a_question_is_cut_only_without_any_context():
    expected = [("^|", "QRST|WX|"), ("^|", "QRSTU|V|")]
    assert question_sequences(10, question="QRSTUV", answers=["WX", "V"]) == (
        expected,
        True,
    )
    assert question_sequences(5)[0] == [("^|", "|X|"), ("^|", "|Y|")]


@given(
    st.text("abc", min_size=1, max_size=30),
    st.text("QR", min_size=1, max_size=12),
    st.lists(st.text("XY", min_size=1, max_size=12), min_size=2, max_size=4),
    st.integers(5, 40),
)
def test_sequences_fit_and_every_choice_keeps_a_token(context, question, answers, most):
    found, is_truncated = question_sequences(most, context, question, answers)
    contexts = {first for first, _ in found}
    assert len(contexts) == 1 and context.startswith(contexts.pop()[1:-1])
    longest = len(context) + len(question) + max(map(len, answers)) + 4
    assert is_truncated == (longest > most)
    for (first, second), answer in zip(found, answers):
        kept_question, kept, end = second.split("|")
        assert len(first + second) <= most and end == ""
        assert question.startswith(kept_question)
        assert kept and answer.startswith(kept)
        if len(question) + len(answer) <= most - 4:
            assert (kept_question, kept) == (question, answer)


def blank_sequences(before, after, max_seq_length, candidates=("XX", "Y"), **arguments):
    blank = Blank("#idiom1#", before, after, 0)
    built = choice_features.blank_features(
        CharacterTokenizer(**arguments), candidates, blank, max_seq_length
    )
    return sequences(built), built.is_truncated


def test_a_blank_stands_in_a_window_of_its_text():
    assert blank_sequences("abcdef", "ghijkl", 11) == (
        [("^XX|", "ef?ghi|"), ("^Y|", "ef?ghi|")],
        True,
    )
    assert blank_sequences("a", "ghijkl", 11)[0][0] == ("^XX|", "a?ghij|")
    assert blank_sequences("abcdef", "g", 11)[0][0] == ("^XX|", "cdef?g|")
    assert blank_sequences("ab", "ghi", 11) == (
        [("^XX|", "ab?ghi|"), ("^Y|", "ab?ghi|")],
        False,
    )


def test_other_blanks_are_four_masks():
    shown, _ = blank_sequences("a#idiom000002#b", "#idiom3#", 30)
    assert shown[0] == ("^XX|", "a____b?____|")
    shown, _ = blank_sequences("a", "b", 30, has_blank=False)
    assert shown[0] == ("^XX|", "a_b|")


@given(st.integers(0, 30), st.integers(0, 30), st.integers(5, 40), st.integers(1, 50))
def test_a_blank_is_always_in_its_window(num_before, num_after, most, length):
    shown, is_truncated = blank_sequences(
        "a" * num_before, "b" * num_after, most, ("X" * length, "Y")
    )
    for first, second in shown:
        assert second.count("?") == 1 and len(first + second) <= most
    assert is_truncated == (num_before + num_after + length + 4 > most)
    before, after = shown[0][1][:-1].split("?")
    # Nothing is left unused that there is text for.
    if is_truncated:
        assert len(shown[0][0] + shown[0][1]) == most
    if min(num_before, num_after) > most:
        assert len(after) - len(before) in (0, 1)


# Assignment


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_the_assignment_is_the_best_of_all(seed, num_rows, num_columns, has_ties):
    generator = np.random.RandomState(seed)
    num_columns = max(num_rows, num_columns)
    scores = generator.normal(size=(num_rows, num_columns)) * 10
    scores = np.round(scores / 8) if has_ties else scores
    columns = best_assignment(scores)
    assert len(set(columns)) == num_rows
    rows = np.arange(num_rows)
    best = max(
        scores[rows, list(order)].sum()
        for order in itertools.permutations(range(num_columns), num_rows)
    )
    assert scores[rows, columns].sum() == pytest.approx(best)


def test_the_assignment_is_not_the_greedy_one():
    """Both rows like column 0 best; the sum is larger where row 0 gives it up."""
    assert best_assignment([[5.0, 4.0], [4.0, 0.0]]).tolist() == [1, 0]


def test_no_assignment_of_more_rows_than_columns_or_of_nan():
    for scores in ([[1.0], [2.0]], [[np.nan, 1.0]]):
        with pytest.raises(ValueError, match="expected finite scores"):
            best_assignment(scores)


def test_real_c3_is_read_whole(real_data):
    folder = str(real_data / "tasks" / "c3" / "c3-{}-{}.json")
    for split, number in (("train", 11869), ("dev", 3816), ("test", 3892)):
        paths = ",".join(folder.format(genre, split) for genre in "dm")
        assert read("c3", paths).num_examples == number
