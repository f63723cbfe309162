"""Instances out of files and pipes, and their answers in order."""

import json
import logging
import os
import threading

import pytest

import albert_zh
from albert_zh.base.errors import UserError
from albert_zh.serving import streams
from albert_zh.tasks import get_task
from tests import served_models


@pytest.fixture(scope="module")
def predictors(tmp_path_factory):
    """Function of a name of `served_models.TASKS`: its `Predictor`, loaded once."""
    folder, held = tmp_path_factory.mktemp("models"), {}

    def get(name):
        if name not in held:
            held[name] = albert_zh.load(served_models.write_model(folder / name, name))
        return held[name]

    yield get
    for predictor in held.values():
        predictor.close()


def answers(predictor, path):
    """All answers to the rows of a file."""
    return sum(streams.answers_of_file(predictor, str(path)), [])


def write_json_lines(path, records):
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_a_table_has_an_answer_for_each_row(predictors, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_CHUNK", 2)
    predictor = predictors("lcqmc")
    instances = served_models.instances_of("lcqmc") * 2
    rows = ["{text_a}\t{text_b}\t1\n".format(**instance) for instance in instances]
    expected = [predictor(instance)["label"] for instance in instances]
    for name, header in (("a.tsv", ""), ("b.tsv", "text_a\ttext_b\tlabel\n")):
        path = tmp_path / name
        path.write_text(header + "".join(rows), encoding="utf-8")
        assert [found["label"] for found in answers(predictor, path)] == expected
    path = write_json_lines(tmp_path / "c.json", instances)
    assert [found["label"] for found in answers(predictor, path)] == expected


@pytest.mark.parametrize(
    "name, suffix",
    [
        ("single", ".jsonl"),
        ("ner-crf", ".jsonl"),
        ("squad", ".jsonl"),
        ("multiple_choice", ".jsonl"),
        ("chid", ".json"),
        ("encoder", ".jsonl"),
    ],
)
def test_json_lines_of_instances(name, suffix, predictors, tmp_path):
    predictor = predictors(name)
    instances = served_models.instances_of(name)
    path = write_json_lines(tmp_path / ("rows" + suffix), instances)
    found, expected = answers(predictor, path), predictor(instances)
    assert [list(answer) for answer in found] == [list(answer) for answer in expected]
    assert len(found) == len(expected)


PAIRS = [["怎么开户", "如何办理开户"], ["今天天气", "上海"]]


@pytest.mark.parametrize(
    "file_name, content",
    [
        ("a.jsonl", '{{"text_a": "{}", "text_b": "{}"}}\n{{"q1": "{}", "q2": "{}"}}\n'),
        ("a.tsv", "text_a\ttext_b\n{}\t{}\n{}\t{}\n"),
        ("a.csv", "sentence1,sentence2,label\n{},{},1\n{},{},0\n"),
    ],
)
def test_pairs_of_an_encoders_file_are_embedded_as_pairs(
    file_name, content, predictors, tmp_path
):
    predictor, path = predictors("encoder"), tmp_path / file_name
    path.write_text(content.format(*PAIRS[0], *PAIRS[1]), encoding="utf-8")
    pairs = [predictor(tuple(pair)) for pair in PAIRS]
    assert served_models.is_close(answers(predictor, path), pairs, 1e-4)
    singles = [predictor(first) for first, _ in PAIRS]
    assert not served_models.is_close(pairs, singles, 1e-2)


def test_texts_and_pairs_of_an_encoder_may_be_in_one_file(predictors, tmp_path):
    predictor = predictors("encoder")
    instances = [{"text": "今天"}, dict(zip(("text_a", "text_b"), PAIRS[0]))]
    path = write_json_lines(tmp_path / "a.jsonl", instances)
    assert served_models.is_close(answers(predictor, path), predictor(instances), 1e-4)
    path = tmp_path / "a.tsv"
    path.write_text("text_a\tlabel\n今天\t1\n", encoding="utf-8")
    found = answers(predictor, path)
    assert served_models.is_close(found, [predictor("今天")], 1e-4)


def test_the_tasks_own_files_are_read(predictors, repository):
    sample = repository / "resources" / "sample_squad" / "dev.json"
    questions = [
        question
        for entry in json.loads(sample.read_text("utf-8"))["data"]
        for paragraph in entry["paragraphs"]
        for question in paragraph["qas"]
    ]
    predictor = predictors("cmrc2018")
    with pytest.raises(UserError, match="dev.json: id 'dev_1_1': question is longer"):
        next(streams.answers_of_file(predictor, str(sample)))
    with albert_zh.load(predictor._source, truncate=True) as predictor:
        assert len(answers(predictor, sample)) == len(questions)


@pytest.mark.parametrize(
    "name, file_name, content, words",
    [
        ("lcqmc", "a.tsv", "今\t天\t0\n今\t\t0\n", "a.tsv:2: text_b is empty"),
        ("lcqmc", "a.tsv", "今\t天\t0\n今\n", "a.tsv:2: 1 columns"),
        (
            "lcqmc",
            "a.tsv",
            "今\t天\t0\n今\t" + "天" * 40 + "\t0\n",
            "a.tsv:2: longer than the 32 tokens that the model takes; shorten it, or "
            "give --truncate to cut it",
        ),
        ("lcqmc", "a.tsv", "1\t今\t0\n2\t今\t天\n", "a.tsv:2: column 3 should be the"),
        ("single", "a.json", '{"text": "a"}\n{"text": 3}\n', "a.json:2: text_a is 3"),
        ("single", "a.json", '{"text": "a"}\n{"text": "a\\ud800"}\n', "a.json:2: text"),
        ("single", "a.json", '{"text": "a"}\n[\n', "a.json:2: not JSON"),
        ("single", "a.xyz", "a\n", "unknown extension"),
        ("ner-crf", "a.json", '{"text": "a"}\n{"text": ""}\n', "a.json:2: text is em"),
        ("encoder", "a.tsv", "今天\t上海\n", "a.tsv:1: 2 columns, and no row that na"),
        ("encoder", "a.csv", "text_a,text_b\n今,天\n今,\n", "a.csv:3: text_b is em"),
        ("encoder", "a.jsonl", '{"text": "a", "text_b": 3}\n', "jsonl:1: text_b is 3"),
        ("encoder", "a.xyz", "a\n", "unknown extension"),
        ("squad", "a.jsonl", '{"question": "a"}\n', "a.jsonl:1: no context"),
        ("squad", "a.json", "{}", "a.json"),
        ("chid", "a.json", "{}\n", "a.json:1: no content; expected"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_before_any_answer(
    name, file_name, content, words, predictors, tmp_path
):
    path = tmp_path / file_name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        next(streams.answers_of_file(predictors(name), str(path)))
    assert words in str(caught.value)


def test_standard_input_is_answered_as_it_arrives(predictors):
    predictor = predictors("single")
    source, sink = os.pipe()
    found = streams.answers_of_input(predictor, source)
    timer = threading.Timer(60, os.close, [sink])  # no test waits for ever
    timer.start()
    os.write(sink, b'{"text": "a"}\n"b"\n{"te')
    assert len(next(found)) == 2
    os.write(sink, b'xt": "c"}\n\n')
    assert len(next(found)) == 1
    os.write(sink, b'\n{"text": "d"}')
    timer.cancel()
    os.close(sink)
    # The blank lines that were held are no longer at the end.
    with pytest.raises(UserError, match="standard input:4: not JSON"):
        list(found)
    os.close(source)


def test_a_pipe_is_no_file_of_rows(predictors, tmp_path):
    """It would be read twice, and the second time for ever."""
    path = str(tmp_path / "rows.tsv")
    os.mkfifo(path)
    with pytest.raises(UserError, match="rows.tsv: it is no ordinary file"):
        next(streams.answers_of_file(predictors("single"), path))


@pytest.mark.parametrize("name", ["single", "lcqmc", "encoder", "squad", "ner-crf"])
def test_a_folder_is_no_file_of_rows(name, predictors, tmp_path):
    with pytest.raises(UserError, match="it is a folder; expected a file"):
        next(streams.answers_of_file(predictors(name), str(tmp_path)))


@pytest.mark.parametrize("name", ["ner-crf", "squad"])
def test_rows_of_one_id_have_an_answer_each(name, predictors, tmp_path):
    """Answers have the order of the rows; no id tells them apart."""
    record = dict(served_models.instances_of(name)[0], id=7)
    if name == "squad":
        context = record.pop("context")
        record.update(id="7", answers=[])
        paragraph = {"context": context, "qas": [record, record]}
        path = tmp_path / "rows.json"
        path.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    else:
        path = write_json_lines(tmp_path / "rows.json", [record, record])
    assert len(answers(predictors(name), path)) == 2


def test_pairs_of_one_id_have_an_answer_each(tmp_path):
    """Also of a task whose judge tells them apart by their ids."""
    record = dict(zip(("sentence1", "sentence2"), PAIRS[0]), id=7)
    path = str(write_json_lines(tmp_path / "rows.json", [record, record]))
    found = streams._table_instances(path, get_task("afqmc"), None)
    assert [texts for _, texts in found] == [PAIRS[0], PAIRS[0]]


def test_a_first_text_that_is_a_name_is_said(predictors, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in ("single", "encoder"):
        path = tmp_path / name / "rows.txt"
        path.parent.mkdir()
        path.write_text("review\n今天\n", encoding="utf-8")
        caplog.clear()
        assert len(answers(predictors(name), path)) == 1
        messages = [
            each.message for each in caplog.records if "rows.txt" in each.message
        ]
        assert ["rows.txt:1: 'review' is taken for" in m for m in messages] == [True]


def test_a_header_alone_has_no_rows_to_judge(predictors, tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("text_a\ttext_b\tlabel\n", encoding="utf-8")
    with pytest.raises(UserError, match="rows.tsv: no rows to judge"):
        next(streams.answers_of_file(predictors("lcqmc"), str(path)))


def test_what_cannot_be_read_is_one_line(predictors, tmp_path):
    descriptor = os.open(str(tmp_path), os.O_RDONLY)
    with pytest.raises(UserError, match="cannot read standard input: Is a directory"):
        next(streams.answers_of_input(predictors("single"), descriptor))
    os.close(descriptor)


@pytest.mark.parametrize(
    "content, number, words",
    [
        (b"", 0, None),
        (b"\n\n", 0, None),
        (b'"a"\n\n \n', 1, None),
        (b'"a"\r\n"b"', 2, None),
        (b'\xef\xbb\xbf"a"\n', 1, None),
        (b'"a"\n{"text": 1}\n"b"\n', 1, "standard input:2: text is 1"),
        (b'"a"\n"\xff"\n', 1, "standard input:2: not JSON (byte 1 is not UTF-8)"),
        (b'"a"\n"\\ud800"\n', 1, "standard input:2: not JSON"),
        (b'"a"\nNaN\n', 1, "standard input:2: not JSON"),
        (b'"a"\n"' + "天".encode() * 33 + b'"', 1, "give --truncate to cut it"),
        (b"[" * 10000, 0, "nested too deeply"),
        (b'"a"\n{"text": "a", "text": "b"}', 1, "the key 'text' twice"),
    ],
)
def test_what_stands_in_standard_input(content, number, words, predictors, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(content)
    found = []
    with open(str(path), "rb") as source:
        try:
            for some in streams.answers_of_input(predictors("single"), source.fileno()):
                found += some
        except UserError as error:
            assert words is not None and words in str(error)
        else:
            assert words is None
    assert len(found) == number
