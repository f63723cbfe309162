"""The published tasks of classification: files, fields and labels as CLUE has them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.base.errors import UserError
from albert_zh.tasks import get_task, kinds, reading, row_forms
from albert_zh.tasks.columns import Columns
from albert_zh.tasks.registry import TASKS, Submission
from albert_zh.tasks.splits import TaskData

# Number of labels, whether pairs, what the judge reads of the test file.
CLUE = {
    "afqmc": (2, True, "afqmc_predict.json"),
    "tnews": (15, False, "tnews11_predict.json"),
    "iflytek": (119, False, "iflytek_predict.json"),
    "cmnli": (3, True, "cmnli_predict.json"),
    "ocnli": (3, True, "ocnli_50k_predict.json"),
    "cluewsc2020": (2, False, "cluewsc11_predict.json"),
    "csl": (2, True, "csl_predict.json"),
}
WSC = {
    "target": {
        "span1_text": "小明",
        "span1_index": 0,
        "span2_text": "他",
        "span2_index": 3,
    },
    "label": "true",
    "text": "小明说他累了",
}
CSL = {"id": 7, "abst": "本文研究句子。", "keyword": ["句子", "模型"], "label": "1"}


@pytest.mark.parametrize("name", sorted(CLUE))
def test_tasks_of_clue(name):
    task = get_task(name)
    facts = len(task.labels), task.is_pair, task.submissions[0].file
    assert facts == CLUE[name]
    assert task.metric == "accuracy"
    assert task.submissions[0].test_file == "test.json"


def test_names_are_those_of_the_entries():
    aliases = {"lcqmc_pair"}
    assert all(t.name == name for name, t in TASKS.items() if name not in aliases)


def test_two_tasks_have_an_earlier_test_file_too():
    second = [t.submissions[1] for t in TASKS.values() if len(t.submissions) > 1]
    assert set(second) >= {
        Submission("tnews10_predict.json", "test1.0.json"),
        Submission("cluewsc10_predict.json", "test1.0.json"),
    }


def test_labels_that_tnews_does_not_use():
    assert not {"105", "111"} & set(get_task("tnews").labels)


def write_json(path, *records):
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_bytes("".join(lines).encode("utf-8"))
    return str(path)


def read(task, path):
    return reading.TableReader(task).read_examples(path, task.labels)


@pytest.mark.parametrize("name", ["cmnli", "ocnli"])
def test_rows_without_consensus_are_left_out_of_scores_and_predicted(tmp_path, name):
    rows = [
        {"sentence1": "天晴", "sentence2": "下雨", "label": label}
        for label in ("-", "neutral", "-", "entailment")
    ]
    path, task = write_json(tmp_path / "dev.json", *rows), get_task(name)
    data = read(task, path)
    assert [e.label for e in data.examples] == ["neutral", "entailment"]
    assert data.num_ignored == 2
    texts = reading.TableReader(task).read_texts(path, task.labels)
    assert texts.num_examples == 4


def test_spans_are_marked(tmp_path):
    path = write_json(tmp_path / "train.json", WSC)
    (example,) = read(get_task("cluewsc2020"), path).examples
    assert example == ("_小明_说[他]累了", None, "true")


def test_the_later_span_may_be_the_noun_and_spans_may_touch():
    record = {
        "text": "他小明",
        "target": dict(WSC["target"], span1_index=1, span2_index=0),
    }
    assert row_forms.marked_spans(record)["text_a"] == "[他]_小明_"


@given(st.data())
def test_marks_stand_around_the_spans(data):
    # No character of the text is a mark.
    text = data.draw(st.text("天地人山水", min_size=2, max_size=12))
    cuts = data.draw(st.lists(st.integers(0, len(text)), min_size=4, max_size=4))
    first, end, start, last = sorted(cuts)
    if first == end or start == last:
        return
    spans = [(first, end), (start, last)]
    noun, pronoun = spans if data.draw(st.booleans()) else spans[::-1]
    target = {
        "span1_text": text[slice(*noun)],
        "span1_index": noun[0],
        "span2_text": text[slice(*pronoun)],
        "span2_index": pronoun[0],
    }
    marked = row_forms.marked_spans({"text": text, "target": target})["text_a"]
    assert marked.translate(str.maketrans("", "", "_[]")) == text
    assert marked.split("_")[1].strip("[]") == text[slice(*noun)]
    assert marked[marked.index("[") + 1 : marked.index("]")] == text[slice(*pronoun)]


def test_keywords_are_the_first_text(tmp_path):
    path = write_json(tmp_path / "train.json", CSL)
    (example,) = read(get_task("csl"), path).examples
    assert example == ("句子;模型", "本文研究句子。", "1")


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


def target(**changes):
    return dict(WSC, target=dict(WSC["target"], **changes))


BAD_ROWS = [
    ("cluewsc2020", without(WSC, "target"), "no target among"),
    ("cluewsc2020", without(WSC, "text"), "no text among"),
    ("cluewsc2020", dict(WSC, target="他"), "target is '他'; expected an object"),
    ("cluewsc2020", target(span1_index=1), "the text has '明说' at span1_index 1"),
    ("cluewsc2020", target(span1_index=-2), "at span1_index -2"),
    ("cluewsc2020", target(span2_index=99), "the text has '' at span2_index 99"),
    ("cluewsc2020", target(span2_text=""), "span2_text is ''"),
    (
        "cluewsc2020",
        target(span2_text="明说他", span2_index=1),
        "span1 and span2 overlap in the text",
    ),
    ("cluewsc2020", target(span2_index="3"), "'3'; expected an integer"),
    ("cluewsc2020", target(span2_index=True), "True; expected an integer"),
    ("cluewsc2020", dict(WSC, label="maybe"), "unknown label 'maybe'"),
    ("cluewsc2020", dict(WSC, label="很" * 999), "unknown label '很{99}; expected"),
    ("csl", without(CSL, "keyword"), "no keyword among"),
    ("csl", dict(CSL, keyword=[]), r"keyword is \[\]"),
    ("csl", dict(CSL, keyword="句子"), "keyword is '句子'; expected a list"),
    ("csl", dict(CSL, keyword=["句子", 3]), "keyword is .*expected a list of texts"),
    ("csl", dict(CSL, abst=None), "abst is None; expected text"),
    ("csl", dict(CSL, abst=" "), "text_b is empty"),
    ("tnews", {"sentence": "新闻", "label": "105"}, "unknown label '105'"),
    ("iflytek", {"sentence": "应用", "label": "119"}, "unknown label '119'"),
    ("afqmc", {"sentence1": "花呗", "label": "1"}, "no text_b among"),
]


@pytest.mark.parametrize("name,row,message", BAD_ROWS)
def test_bad_rows_are_named(tmp_path, name, row, message):
    good = {
        "cluewsc2020": WSC,
        "csl": CSL,
        "afqmc": {"sentence1": "花呗", "sentence2": "借呗", "label": "0"},
    }.get(name, {"sentence": "新闻", "label": "100"})
    path = write_json(tmp_path / "train.json", good, row)
    with pytest.raises(UserError, match="train.json:2: .*" + message) as caught:
        read(get_task(name), path)
    assert "\n" not in str(caught.value)


def test_flags_may_name_the_fields_of_another_layout(tmp_path):
    path = write_json(
        tmp_path / "train.json", {"已标注": "_小明_说[他]", "label": "true"}
    )
    columns = Columns(text_a="已标注")
    data = reading.read_examples(path, get_task("cluewsc2020"), columns=columns)
    assert data.examples[0].text_a == "_小明_说[他]"


def test_tables_may_hold_the_texts_ready(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes("句子;模型\t本文\t1\n".encode())
    assert read(get_task("csl"), str(path)).examples[0] == ("句子;模型", "本文", "1")


def test_xnli_takes_one_language(tmp_path):
    header = "language\tgold_label\tsentence1\tsentence2\n"
    path = tmp_path / "xnli.dev.tsv"
    path.write_bytes((header + "zh\tneutral\t甲\t乙\n").encode("utf-8"))
    task = get_task("xnli")
    assert read(task, str(path)).examples == [("甲", "乙", "neutral")]
    path.write_bytes((header + "ar\tneutral\ta\tb\n").encode("utf-8"))
    with pytest.raises(UserError, match=":2: language is 'ar', expected 'zh'.*awk"):
        read(task, str(path))


def test_xnli_spells_a_label_in_two_ways(tmp_path):
    path = tmp_path / "multinli.train.zh.tsv"
    path.write_bytes("premise\thypo\tlabel\n甲\t乙\tcontradictory\n".encode())
    assert read(get_task("xnli"), str(path)).examples[0].label == "contradiction"


@pytest.mark.parametrize(
    "name,split,file",
    [
        ("ocnli", "train", "train.50k.json"),
        ("ocnli", "train", "train.json"),
        ("csl", "dev", "val.json"),
        ("xnli", "test", "xnli.test.tsv"),
        ("afqmc", "train", "train.txt"),
        ("cmrc2018", "train", "cmrc2018_train.json"),
        ("cmrc2018", "dev", "cmrc2018_dev.json"),
        ("cmrc2018", "test", "test.json"),
        ("drcd", "train", "DRCD_training.json"),
        ("drcd", "dev", "DRCD_dev.json"),
        ("drcd", "test", "DRCD_test.json"),
    ],
)
def test_files_are_found_under_their_published_names(tmp_path, name, split, file):
    task = get_task(name)
    data = TaskData(task, str(tmp_path), {}, reading.TableReader(task))
    assert data.find(split) is None
    (tmp_path / file).write_bytes(b"")
    assert data.find(split) == str(tmp_path / file)


# Rows read, of them left out for want of consensus.
REAL_FILES = [
    ("afqmc", "tasks/afqmc/train.txt", 34334, 0),
    ("afqmc", "tasks/afqmc/dev.txt", 4316, 0),
    ("afqmc", "tasks/afqmc/test.txt", 3861, 0),
    ("tnews", "tasks/tnews/test.json", 10000, 0),
    ("iflytek", "tasks/iflytek/dev.json", 2599, 0),
    ("cmnli", "tasks/cmnli/dev.json", 12426, 185),
    ("cmnli", "tasks/cmnli/test.json", 13880, 0),
    ("ocnli", "ocnli/train.10k.json", 10000, 15),
    ("ocnli", "ocnli/dev.json", 3000, 50),
    ("ocnli", "ocnli/test.json", 3000, 0),
    ("cluewsc2020", "tasks/fewclue/cluewsc/test_public.json", 976, 0),
    ("csl", "tasks/fewclue/csl/test_public.json", 2838, 0),
    ("chnsenticorp", "chnsenticorp/train.tsv", 9600, 0),
    ("chnsenticorp", "chnsenticorp/test.tsv", 1200, 0),
]


@pytest.mark.parametrize("name,file,num_rows,num_ignored", REAL_FILES)
def test_real_files_are_read_row_for_row(real_data, name, file, num_rows, num_ignored):
    path, task = str(real_data / file), get_task(name)
    data = read(task, path)
    assert (data.num_examples, data.num_ignored) == (
        num_rows - num_ignored,
        num_ignored,
    )
    texts = reading.TableReader(task).read_texts(path, task.labels)
    assert texts.num_examples == num_rows


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_submission_is_no_file_that_every_prediction_replaces(name):
    task = TASKS[name]
    submissions = {submission.file for submission in task.submissions}
    assert not submissions.intersection(kinds.kind_of(task).prediction_files)
