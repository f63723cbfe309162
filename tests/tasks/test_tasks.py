"""Tasks: registry, reading of every format, features, records, metrics."""

import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import run_classifier
from albert_zh import task_command
from albert_zh.base.errors import UserError
from albert_zh.tasks import clue, features, get_task, metrics, reading, text_lines
from albert_zh.tasks.reading import Example
from albert_zh.tasks.splits import TaskData
from tests.row_files import write

PAIR = get_task("pair")
SINGLE = get_task("single")
LCQMC = get_task("lcqmc")


# Registry


def test_the_published_name_is_the_same_task():
    assert get_task("lcqmc_pair") is get_task("LCQMC")
    assert get_task("lcqmc").labels == ("0", "1")


def test_unknown_task_names_the_known_ones():
    with pytest.raises(UserError, match="--task_name=qqp.*lcqmc.*pair.*single"):
        get_task("qqp")


def test_labels_given_become_the_tasks_own():
    assert get_task("pair", ("b", "a")).labels == ("b", "a")
    assert get_task("pair").labels is None
    with pytest.raises(UserError, match="--labels=a,b: the labels of lcqmc are 0,1"):
        get_task("lcqmc", ("a", "b"))
    for labels in (("a",), ("a", "a"), ("a", ""), ("a", "b\tc")):
        with pytest.raises(UserError, match="two or more different names"):
            get_task("single", labels)


# Reading


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "header",
    ["", "sentence1\tsentence2\tlabel", "text_a\ttext_b\tlabel", "a\tb\tLabel"],
)
def test_lcqmc_with_and_without_header_bom_and_crlf(tmp_path, bom, newline, header):
    lines = ([header] if header else []) + ["你好\t您好\t1", "天气\t吃饭\t0", ""]
    content = bom + newline.join(lines).encode("utf-8")
    data = reading.read_examples(write(tmp_path, "dev.txt", content), LCQMC, ("0", "1"))
    assert data.examples == [
        Example("你好", "您好", "1"),
        Example("天气", "吃饭", "0"),
    ]
    assert data.has_header == bool(header)
    assert data.has_labels


def test_last_line_without_newline_is_a_row(tmp_path):
    path = write(tmp_path, "x.tsv", "a\tb\t0\nc\td\t1")
    assert len(reading.read_examples(path, PAIR).examples) == 2


def test_quotes_are_ordinary_characters_in_tsv(tmp_path):
    path = write(tmp_path, "x.tsv", '"开\t"引"号"\t0\n他说"\t"\t1\n')
    assert [e.text_a for e in reading.read_examples(path, PAIR).examples] == [
        '"开',
        '他说"',
    ]


def test_only_newlines_end_a_line(tmp_path):
    path = write(tmp_path, "x.tsv", "a\u2028b\x0bc\td\u0085\t0\n")
    assert reading.read_examples(path, PAIR).examples[0].text_a == "a\u2028b\x0bc"


def test_csv_quotes_commas_and_line_ends(tmp_path):
    path = write(tmp_path, "x.csv", 'label,text\n1,"好,很""好""\n的"\n0,差\n')
    data = reading.read_examples(path, SINGLE)
    assert data.examples == [
        Example('好,很"好"\n的', None, "1"),
        Example("差", None, "0"),
    ]


@pytest.mark.parametrize("names", [("q1", "q2"), ("question1", "question2")])
@pytest.mark.parametrize(
    "content",
    [
        "id\tlabel\t{1}\t{0}\n7\tyes\tsecond\tfirst\n",
        "{1}\t{0}\tlabel\nsecond\tfirst\tyes\n",
    ],
)
def test_columns_are_found_by_name_in_any_order(tmp_path, names, content):
    path = write(tmp_path, "x.tsv", content.format(*names))
    data = reading.read_examples(path, PAIR)
    assert data.examples == [Example("first", "second", "yes")]


@pytest.mark.parametrize(
    "header", ["问题1\t问题2\t标签", "句子1\t句子2\t类别", "文本1\t文本2\t标签"]
)
def test_chinese_column_names(tmp_path, header):
    path = write(tmp_path, "x.tsv", header + "\n甲\t乙\t0\n丙\t丁\t1\n")
    data = reading.read_examples(path, PAIR)
    assert data.has_header
    assert data.examples == [Example("甲", "乙", "0"), Example("丙", "丁", "1")]
    assert reading.find_labels(data) == ("0", "1")


def test_single_texts_label_first_by_header(tmp_path):
    path = write(tmp_path, "x.tsv", "label\ttext_a\n1\t好\n0\t坏\n")
    data = reading.read_examples(path, SINGLE)
    assert data.examples == [Example("好", None, "1"), Example("坏", None, "0")]


def test_json_lines(tmp_path):
    rows = [
        {"sentence1": "甲", "sentence2": "乙", "label": "neutral", "label0": "x"},
        {"sentence1": "丙", "sentence2": "丁", "label": 3, "label0": "y"},
    ]
    path = write(tmp_path, "x.json", "\n".join(map(json.dumps, rows)))
    assert reading.read_examples(path, PAIR).examples == [
        Example("甲", "乙", "neutral"),
        Example("丙", "丁", "3"),
    ]


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.tsv", "甲\t乙\n丙\t丁\n"),
        ("x.tsv", "甲\t乙\t?\n丙\t丁\t\n"),
        ("x.tsv", "q1\tq2\n甲\t乙\n丙\t丁\n"),
        ("x.csv", "甲,乙\n丙,丁\n"),
        ("x.jsonl", '{"q1": "甲", "q2": "乙"}\n{"q1": "丙", "q2": "丁", "label": 1}\n'),
    ],
)
def test_texts_are_read_whatever_their_labels(tmp_path, name, content):
    data = reading.read_texts(write(tmp_path, name, content), PAIR, ("0", "1"))
    assert list(data.chunks(1)) == (
        [[Example("甲", "乙", None)], [Example("丙", "丁", None)]]
    )
    assert data.num_examples == 2


@pytest.mark.parametrize(
    "name, content, where",
    [
        ("x.tsv", "甲\t乙\t0\n丙\t1\n", "x.tsv:2: 2 columns, expected 3"),
        ("x.tsv", "甲\t乙\t0\t1\n", "x.tsv:1: 4 columns, expected 3"),
        ("x.tsv", "甲\t乙\t0\n\n丙\t丁\t1\n", "x.tsv:2: 1 columns"),
        ("x.tsv", "甲\t乙\t0\n \t丁\t1\n", "x.tsv:2: text_a is empty"),
        ("x.tsv", "甲\t乙\t0\n丙\t\t1\n", "x.tsv:2: text_b is empty"),
        ("x.tsv", "甲\t乙\t0\n丙\t丁\t\n", "x.tsv:2: label is empty"),
        ("x.tsv", "甲\t乙\tlabels_\n", "x.tsv:1: unknown label 'labels_'"),
        ("x.tsv", "甲\t乙\t0\n丙\t丁\t2\n", "x.tsv:2: unknown label '2'.*0, 1"),
        ("x.tsv", "label\tfirst\tsecond\n0\t甲\t乙\n", "x.tsv:1: no text_a among"),
        ("x.tsv", b"a\tb\t0\n\xff\tb\t0\n", "x.tsv:2: not UTF-8"),
        ("x.tsv", "", "x.tsv: the file is empty"),
        ("x.tsv", "q1\tq2\tlabel\n", "x.tsv: no examples"),
        ("x.csv", 'a,b,0\n"c,d,1\n', "x.csv:2: not CSV"),
        ("x.csv", "a,b,0\n\nc,d,1\n", "x.csv:2: 0 columns"),
        ("x.csv", 'a,"b\nb",0\nc,d\n', "x.csv:3: 2 columns"),
        ("x.json", "{}\n", "x.json:1: no text_a among"),
        ("x.json", "[1]\n", "x.json:1: expected one JSON object a line"),
        ("x.json", '{"q1": "a", "q2": "b"}\n{"q1"\n', "x.json:2: not JSON"),
        ("x.json", "[" * 100_000 + "\n", "x.json:1: not JSON"),
        ("x.json", '{"q1": "a", "q2": null}\n', "x.json:1: text_b is None"),
        (
            "x.json",
            '{"q1": "a", "q2": "b"}\n{"q1": "a", "q2": "b", "label": 0}\n',
            "x.json:2: a row with a label among rows without one",
        ),
        (
            "x.json",
            '{"q1": "a", "q2": "b", "label": null}\n',
            "x.json:1: label is None",
        ),
        (
            "x.json",
            '{"q1": "a", "q2": "b", "label": "c\\td"}\n',
            r"x.json:1: label 'c\\td' holds a control character",
        ),
        ("x.xlsx", "a\tb\t0\n", "x.xlsx: unknown extension '.xlsx'"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path, name, content, where):
    path = write(tmp_path, name, content)
    with pytest.raises(UserError, match=where) as caught:
        reading.read_examples(path, PAIR, labels=("0", "1"))
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no.tsv: no such file"):
        reading.read_examples(str(tmp_path / "no.tsv"), PAIR)


def test_ignored_labels_are_counted(tmp_path):
    path = write(tmp_path, "x.tsv", "甲\t乙\t0\n丙\t丁\t-\n戊\t己\t1\n")
    data = reading.read_examples(path, PAIR, ("0", "1"), ignored_labels=("-",))
    assert [e.label for e in data.examples] == ["0", "1"]
    assert data.num_ignored == 1


# Rows of a TSV file: any characters but its separators, not blank.
cells = st.text(
    st.characters(blacklist_characters="\t\n\r\ufeff", blacklist_categories=("Cs",)),
    min_size=1,
    max_size=8,
).filter(lambda text: not text_lines.is_blank(text))
rows = st.lists(st.tuples(cells, cells, st.sampled_from("01")), min_size=1, max_size=5)


@settings(max_examples=50)
@given(rows=rows)
def test_tsv_and_json_lines_round_trip(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    expected = [Example(*row) for row in rows]
    content = "text_a\ttext_b\tlabel\n" + "".join("\t".join(r) + "\n" for r in rows)
    path = write(folder, "x.tsv", content)
    assert reading.read_examples(path, PAIR).examples == expected
    keys = ("text_a", "text_b", "label")
    content = "".join(json.dumps(dict(zip(keys, r))) + "\n" for r in rows)
    path = write(folder, "x.jsonl", content)
    assert reading.read_examples(path, PAIR).examples == expected


@pytest.mark.parametrize(
    "found, expected",
    [
        ("10 9 -1 2", ("-1", "2", "9", "10")),
        ("b a C", ("C", "a", "b")),
        ("10 9 x", ("10", "9", "x")),
    ],
)
def test_labels_found_are_sorted_by_value_where_all_are_integers(found, expected):
    examples = [Example("text", None, label) for label in found.split() * 2]
    data = reading.ExampleFile("x.tsv", examples, False, 0)
    assert reading.find_labels(data) == expected


@pytest.mark.parametrize(
    "labels, message",
    [
        (["a", "a"], "only label is 'a'"),
        (["a", "b", "-"], "--ignore_labels=-"),
        (["text {}".format(i) for i in range(40)], "40 labels in 40 rows"),
    ],
)
def test_label_sets_that_cannot_be_meant(labels, message):
    examples = [Example("text", None, label) for label in labels]
    with pytest.raises(UserError, match=message):
        reading.find_labels(reading.ExampleFile("x.tsv", examples, False, 0))


@pytest.mark.parametrize("name, is_refused", [("x.tsv", True), ("x.jsonl", False)])
def test_a_label_of_the_first_row_alone_may_be_a_columns_name(name, is_refused):
    examples = [Example("text", "text", label) for label in ("kind", "0", "1", "0")]
    data = reading.ExampleFile(name, examples, False, 0)
    if not is_refused:
        assert reading.find_labels(data) == ("0", "1", "kind")
        return
    with pytest.raises(UserError, match="x.tsv: label 'kind' occurs in the first row"):
        reading.find_labels(data)
    # Beside a header row, or where every label occurs once, it is a label.
    assert "kind" in reading.find_labels(data._replace(has_header=True))
    assert "kind" in reading.find_labels(data._replace(examples=examples[:3]))


# Splits


def test_data_files_are_found_by_split(tmp_path):
    dev = write(tmp_path, "dev.txt", "a\tb\t0\n")
    data = TaskData(
        LCQMC, str(tmp_path), {"train": "elsewhere.tsv"}, reading.TableReader(LCQMC)
    )
    assert data.find("dev") == dev
    assert data.find("test") is None
    assert data.find("train") == "elsewhere.tsv"


def test_two_files_for_a_split_are_an_error(tmp_path):
    write(tmp_path, "dev.txt", "a\tb\t0\n")
    write(tmp_path, "dev.tsv", "a\tb\t0\n")
    with pytest.raises(UserError, match="dev.tsv, dev.txt.*--dev_file"):
        TaskData(LCQMC, str(tmp_path), {}, reading.TableReader(LCQMC)).find("dev")


@pytest.mark.parametrize(
    "mode,others",
    [("--do_train", "test"), ("--do_train", "predict"), ("--do_predict", "dev")],
)
def test_files_that_a_run_does_not_read_do_not_stop_it(tmp_path, mode, others):
    for split in ("train", "test"):
        write(tmp_path, split + ".tsv", "甲\t乙\t0\n")
    for extension in (".tsv", ".txt"):
        write(tmp_path, others + extension, "甲\t乙\t0\n")
    flags = ["--data_dir={}".format(tmp_path), "--output_dir={}".format(tmp_path / "o")]
    args = run_classifier.build_parser().parse_args(
        flags + ["--task_name=lcqmc", mode, "--vocab_file=none.txt"]
    )
    with pytest.raises(UserError) as error:  # the next thing that is looked for
        task_command.check_training(args, run_classifier.COMMAND)
    message = str(error.value)
    assert "none.txt" in message or "no fine-tuned model" in message
    write(tmp_path, "train.txt", "甲\t乙\t0\n")
    write(tmp_path, "test.txt", "甲\t乙\t0\n")
    with pytest.raises(UserError, match="several (train|test) files"):
        task_command.check_training(args, run_classifier.COMMAND)


def test_a_folder_is_looked_for_though_all_files_are_named(tmp_path):
    named = {"predict": write(tmp_path, "a.tsv", "")}
    data = TaskData(LCQMC, str(tmp_path / "nowhere"), named, None)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        data.paths(["predict"])


SPLIT_FILES = {
    "train": (("d-train.tsv", "m-train.tsv"), ("x-train.tsv",)),
    "test": (("test1.1.tsv",), ("test1.0.tsv",)),
}


def test_files_with_names_of_their_own_are_found_and_read_together(tmp_path):
    task = LCQMC._replace(split_files=SPLIT_FILES)
    data = TaskData(task, str(tmp_path), {"dev": "a.tsv,b.tsv"}, None)
    assert data.find("train") is None
    with pytest.raises(UserError, match="none of d-train.tsv with m-train.tsv, x-tra"):
        data.read_labelled("train", None)
    old = write(tmp_path, "test1.0.tsv", "")
    new = write(tmp_path, "test1.1.tsv", "")
    assert data.find("test") == new
    os.remove(new)
    assert data.find("test") == old
    dialogues = write(tmp_path, "d-train.tsv", "")
    with pytest.raises(UserError, match="m-train.tsv is missing.*--train_file=.*/d-tr"):
        data.find("train")
    with pytest.raises(UserError, match="m-train.tsv is missing; put it there$"):
        data._replace(has_flags=False).find("train")
    mixed = write(tmp_path, "m-train.tsv", "")
    assert data.find("train") == dialogues + "," + mixed
    assert data.paths() == [dialogues, mixed, "a.tsv", "b.tsv", old]


def test_without_flags_for_files_an_error_names_none(tmp_path):
    (tmp_path / "csl").mkdir()
    for name in ("train.json", "dev.json", "test.json", "val.json"):
        write(tmp_path / "csl", name, "")
    with pytest.raises(UserError, match="several dev files.*; leave one of them there"):
        clue.plan([get_task("csl")], str(tmp_path), str(tmp_path))
    os.remove(str(tmp_path / "csl" / "val.json"))  # as the message says
    assert clue.plan([get_task("csl")], str(tmp_path), str(tmp_path))[0]


def test_missing_files_name_the_flags(tmp_path):
    with pytest.raises(UserError, match="--data_dir=.*nowhere: no such folder"):
        TaskData(LCQMC, str(tmp_path / "nowhere"), {}, reading.TableReader(LCQMC)).find(
            "dev"
        )
    with pytest.raises(UserError, match="no train file: --data_dir=.*train.tsv, train"):
        TaskData(LCQMC, str(tmp_path), {}, reading.TableReader(LCQMC)).read_labelled(
            "train", None
        )
    with pytest.raises(UserError, match="no dev file: give --dev_file"):
        TaskData(LCQMC, None, {}, reading.TableReader(LCQMC)).read_for_scoring(
            ("0", "1")
        )


def test_unlabelled_test_files_are_predicted_but_not_scored(tmp_path):
    write(tmp_path, "dev.tsv", "甲\t乙\t0\n")
    test = write(tmp_path, "test.tsv", "丙\t丁\n")
    data = TaskData(LCQMC, str(tmp_path), {}, reading.TableReader(LCQMC))
    assert list(data.read_for_scoring(("0", "1"))) == ["dev"]
    assert data.read_for_prediction().path == test
    with pytest.raises(UserError, match="test.tsv:1: no label"):
        data.read_labelled("test", ("0", "1"))
    alone = TaskData(LCQMC, None, {"test": test}, reading.TableReader(LCQMC))
    with pytest.raises(UserError, match="test.tsv: no labels to score"):
        alone.read_for_scoring(("0", "1"))


# Features


class CharacterTokenizer:
    """A stand-in for `FullTokenizer`: a token is a character, its id the code point."""

    cls_id, sep_id = 1, 2

    def tokenize(self, text):
        return list(text)

    def convert_tokens_to_ids(self, tokens):
        return [ord(token) for token in tokens]


@settings(max_examples=200)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_truncation_cuts_the_longer_text(length_a, length_b, max_tokens):
    a, b = list(range(length_a)), list(range(length_b))
    kept_a, kept_b = features.truncate_pair(a, b, max_tokens)
    assert kept_a == a[: len(kept_a)]
    assert kept_b == b[: len(kept_b)]
    assert len(kept_a) + len(kept_b) == min(max_tokens, length_a + length_b)
    if len(kept_a) < length_a and len(kept_b) < length_b:
        assert 0 <= len(kept_a) - len(kept_b) <= 1
    elif len(kept_a) < length_a:
        assert len(kept_a) >= length_b
    elif len(kept_b) < length_b:
        assert len(kept_b) >= length_a - 1


def test_features_of_a_pair_and_of_a_single_text():
    tokenizer = CharacterTokenizer()
    pair = features.pair_features(tokenizer, "AB", "C", 16)
    assert pair == features.Features([1, 65, 66, 2, 67, 2], [0, 0, 0, 0, 1, 1])
    single = features.pair_features(tokenizer, "ABC", None, 4)
    assert single == features.Features([1, 65, 66, 2], [0] * 4, is_truncated=True)


FIELDS = (features.Field("label_ids"),)


def make_features(num_examples, seed=0):
    generator = np.random.RandomState(seed)
    return [
        features.Features([i + 1] * length, [0] * length, {"label_ids": i % 2})
        for i, length in enumerate(generator.randint(1, 9, num_examples))
    ]


def read_batches(build_dataset):
    batches = []
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = build_dataset()
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        try:
            while True:
                batches.append(session.run(batch))
        except tf.errors.OutOfRangeError:
            return batches


def read_predicted(path, batch_size, **arguments):
    input_fn = features.prediction_input_fn(FIELDS, **arguments)
    return read_batches(lambda: input_fn(path, batch_size))


def test_batches_are_padded_to_their_longest_sequence(tmp_path):
    items = make_features(7)
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, items, FIELDS)
    batches = read_predicted(path, 3)
    assert [len(batch["label_ids"]) for batch in batches] == [3, 3, 1]
    for start, batch in zip((0, 3, 6), batches):
        lengths = [len(item.input_ids) for item in items[start : start + 3]]
        assert batch["input_ids"].shape == (len(lengths), max(lengths))
        assert batch["input_mask"].sum(axis=1).tolist() == lengths
        for row, item in zip(batch["input_ids"], items[start:]):
            assert row[row > 0].tolist() == item.input_ids


@given(st.integers(1, 9), st.integers(0, 9))
def test_rounded_lengths_add_padding_alone(tmp_path_factory, multiple, more):
    items = make_features(7)
    longest = max(len(item.input_ids) for item in items) + more
    path = str(tmp_path_factory.mktemp("records") / "x.tfrecord")
    features.write_records(path, items, FIELDS)
    rounded = read_predicted(path, 3, rounding=(multiple, longest))
    for batch, plain in zip(rounded, read_predicted(path, 3)):
        length = plain["input_ids"].shape[1]
        width = batch["input_ids"].shape[1]
        assert width == longest or width % multiple == 0
        assert length <= width < length + multiple and width <= longest
        for name, values in plain.items():
            if values.ndim > 1:
                assert not batch[name][:, length:].any()
                batch[name] = batch[name][:, :length]
            np.testing.assert_array_equal(batch[name], values)


def test_full_batches_of_static_length_for_tpu(tmp_path):
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, make_features(4), FIELDS, num_padding_examples=2)
    input_fn = features.prediction_input_fn(FIELDS, padded_length=12)
    with tf.Graph().as_default():
        shapes = tf.data.get_output_shapes(input_fn(path, 3))
        assert shapes["input_ids"].as_list() == [3, 12]
        assert shapes["label_ids"].as_list() == [3]
    batches = read_predicted(path, 3, padded_length=12)
    assert np.concatenate([b["is_real_example"] for b in batches]).tolist() == (
        [1, 1, 1, 1, 0, 0]
    )


SEVERAL = FIELDS + (features.sequence_lengths(4),)


def make_groups(num_examples, seed=0):
    """Features of one to four sequences, and the list of the sequences of each."""
    generator = np.random.RandomState(seed)
    items, groups = [], []
    for _ in range(num_examples):
        lengths = generator.randint(1, 9, generator.randint(1, 5)).tolist()
        rows = [generator.randint(1, 9, length).tolist() for length in lengths]
        groups.append(rows)
        targets = {"label_ids": 0, "sequence_lengths": lengths}
        ids = np.concatenate(rows).astype(np.int32)
        items.append(features.Features(ids, ids % 2, targets))
    return items, groups


@pytest.mark.parametrize("padded_length", [None, 12])
def test_sequences_of_a_window_are_consecutive_rows(tmp_path, padded_length):
    items, groups = make_groups(10)
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, items, SEVERAL, num_padding_examples=2)
    input_fn = features.prediction_input_fn(SEVERAL, padded_length)
    batches = read_batches(lambda: input_fn(path, 3))
    assert len(batches) == 4
    for start, batch in zip(range(0, 12, 3), batches):
        held = (groups + [[[0]]] * 2)[start : start + 3]
        num_rows = 4 if padded_length else max(map(len, held))
        longest = max(len(row) for rows in held for row in rows)
        assert batch["input_ids"].shape == (3 * num_rows, padded_length or longest)
        assert batch["sequence_lengths"].shape == (3, num_rows)
        for i, rows in enumerate(held):
            padded = rows + [[]] * (num_rows - len(rows))
            assert batch["sequence_lengths"][i].tolist() == list(map(len, padded))
            for row, position in zip(padded, range(i * num_rows, 99)):
                mask = batch["input_mask"][position]
                assert mask.tolist() == [1] * len(row) + [0] * (len(mask) - len(row))
                ids = batch["input_ids"][position]
                assert ids[: len(row)].tolist() == row and not ids[len(row) :].any()
                segments = batch["segment_ids"][position]
                assert (segments == ids % 2).all()


def test_sequences_of_a_window_have_static_shapes_on_tpu(tmp_path):
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, make_groups(6)[0], SEVERAL)
    for build in (
        lambda: features.prediction_input_fn(SEVERAL, 12)(path, 3),
        lambda: features.training_input_fn(path, 6, SEVERAL, 12)(3, 1),
    ):
        with tf.Graph().as_default():
            shapes = tf.data.get_output_shapes(build())
            assert shapes["input_ids"].as_list() == [12, 12]
            assert shapes["sequence_lengths"].as_list() == [3, 4]
            assert shapes["label_ids"].as_list() == [3]


def epoch_order(path, num_examples, **arguments):
    input_fn = features.training_input_fn(path, num_examples, FIELDS)
    batches = read_batches(lambda: input_fn(4, **arguments))
    return [batch["input_ids"][:, 0].tolist() for batch in batches]


def test_an_epoch_is_a_seeded_permutation_of_all_examples(tmp_path):
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, make_features(50), FIELDS)
    first = epoch_order(path, 50, seed=1)
    ids = sum(first, [])
    assert sorted(ids) == list(range(1, 51))
    assert first == epoch_order(path, 50, seed=1)
    assert first != epoch_order(path, 50, seed=2)
    # A file sorted by label must not stay so: the first half holds both halves.
    assert 5 < sum(i > 25 for i in ids[:25]) < 20


def test_a_batch_may_be_larger_than_the_data(tmp_path):
    """Nothing is reserved for what is not there: 2**31 examples would be terabytes."""
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, make_features(50), FIELDS)
    input_fn = features.training_input_fn(path, 50, FIELDS)
    (batch,) = read_batches(lambda: input_fn(2**31 - 1, seed=1))
    ids = batch["input_ids"][:, 0].tolist()
    assert sorted(ids) == list(range(1, 51)) and ids != sorted(ids)


def test_skipped_batches_are_those_already_trained_on(tmp_path):
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, make_features(50), FIELDS)
    whole = epoch_order(path, 50, seed=1)
    assert epoch_order(path, 50, seed=1, skip=5) == whole[5:]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, make_features(2), FIELDS)

    def failing():
        yield from make_features(1)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        features.write_records(path, failing(), FIELDS)
    batches = read_predicted(path, 8)
    assert len(batches[0]["label_ids"]) == 2


def test_temporary_records_have_no_name_and_can_be_read_often(tmp_path):
    """No name, no file for a killed process to leave."""
    items = make_features(5)
    with features.temporary_records(str(tmp_path), "train", items, FIELDS, 1) as path:
        if os.path.isdir("/dev/fd"):
            assert not list(tmp_path.iterdir())
        for _ in range(2):
            batches = read_predicted(path, 8)
            real = batches[0]["is_real_example"].tolist()
            assert real == [1, 1, 1, 1, 1, 0]
    assert not list(tmp_path.iterdir())
    assert not os.path.exists(path)


def test_remote_temporary_records_have_a_name_until_they_are_read(tmp_path):
    remote = "file://" + str(tmp_path)
    with features.temporary_records(remote, "train", make_features(5), FIELDS) as path:
        assert path.startswith(remote + "/.train.")
        batches = read_predicted(path, 8)
        assert len(batches[0]["label_ids"]) == 5
    assert not list(tmp_path.iterdir())


def test_temporary_records_need_a_place(tmp_path):
    with pytest.raises(UserError, match="cannot write .*none/train records"):
        with features.temporary_records(str(tmp_path / "none"), "train", [], FIELDS):
            pass


def test_length_order_mixes_equal_lengths():
    items = make_features(200)
    order = features.length_order(items)
    lengths = [len(items[i].input_ids) for i in order]
    assert lengths == sorted(lengths)
    assert sorted(order) == list(range(200))
    assert order.tolist() == features.length_order(items).tolist()
    same = order[np.array(lengths) == 4]
    assert same.tolist() != sorted(same) and len(same) > 5


def test_batches_of_training_have_similar_lengths(tmp_path):
    items = make_features(2000)
    items = [items[i] for i in features.length_order(items)]
    path = str(tmp_path / "x.tfrecord")
    features.write_records(path, items, FIELDS)
    input_fn = features.training_input_fn(path, len(items), FIELDS)
    batches = read_batches(lambda: input_fn(4, seed=3))
    lengths = [batch["input_mask"].sum(axis=1) for batch in batches]
    # 1 to 8 tokens; in batches at random the deviation is 2.3.
    assert np.mean([length.std() for length in lengths]) < 0.5
    # The batches come in no order of length.
    means = [length.mean() for length in lengths]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
    ids = np.concatenate([batch["input_ids"][:, 0] for batch in batches])
    assert sorted(ids) == list(range(1, 2001))
    # Another epoch has other batches.
    again = read_batches(lambda: input_fn(4, seed=4))
    sets = [
        {frozenset(b["input_ids"][:, 0]) for b in part} for part in (batches, again)
    ]
    assert len(sets[0] & sets[1]) < 25


# Metrics


def test_scores_of_a_worked_example():
    label_ids = [0, 0, 0, 1, 1, 1, 1, 1]
    predicted = [0, 0, 1, 1, 1, 1, 0, 0]
    probabilities = np.where(np.eye(2)[predicted] == 1, 0.75, 0.25)
    scores = metrics.score(label_ids, np.log(probabilities), ("0", "1"))
    assert scores["confusion_matrix"] == [[2, 1], [2, 3]]
    assert scores["accuracy"] == 5 / 8
    assert scores["precision"] == 3 / 4
    assert scores["recall"] == 3 / 5
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["macro_precision"] == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert scores["per_class"]["0"]["num_examples"] == 3
    expected_loss = -(5 * np.log(0.75) + 3 * np.log(0.25)) / 8
    assert scores["loss"] == pytest.approx(expected_loss)


def test_classes_without_examples_or_predictions_score_zero():
    log_probabilities = np.log([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]])
    scores = metrics.score([0, 1], log_probabilities, ("a", "b", "c"))
    never_predicted, absent = scores["per_class"]["b"], scores["per_class"]["c"]
    assert never_predicted == dict(precision=0.0, recall=0.0, f1=0.0, num_examples=1)
    assert absent == dict(precision=0.0, recall=0.0, f1=0.0, num_examples=0)
    assert scores["macro_recall"] == pytest.approx(1 / 3)


@settings(max_examples=100)
@given(st.integers(2, 4), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_scores_equal_their_definitions(num_labels, num_examples, seed):
    generator = np.random.RandomState(seed)
    label_ids = generator.randint(0, num_labels, num_examples)
    probabilities = generator.dirichlet([1.0] * num_labels, num_examples)
    labels = [str(i) for i in range(num_labels)]
    scores = metrics.score(label_ids, np.log(probabilities), labels)
    predicted = probabilities.argmax(axis=1)
    for i, label in enumerate(labels):
        true_positives = sum((label_ids == i) & (predicted == i))
        precision = true_positives / (sum(predicted == i) or 1)
        recall = true_positives / (sum(label_ids == i) or 1)
        f1 = 2 * precision * recall / ((precision + recall) or 1)
        values = scores["per_class"][label]
        assert values["precision"] == pytest.approx(precision)
        assert values["recall"] == pytest.approx(recall)
        assert values["f1"] == pytest.approx(f1)
    assert np.sum(scores["confusion_matrix"]) == num_examples
    assert scores["accuracy"] == pytest.approx(
        np.trace(scores["confusion_matrix"]) / num_examples
    )
    headline = scores["per_class"]["1"] if num_labels == 2 else None
    expected = headline["f1"] if headline else scores["macro_f1"]
    assert scores["f1"] == pytest.approx(expected)
    json.dumps(scores)


def _scores_of_many(num_labels, num_examples):
    """Scores of classes of which every tenth is taken for the next one."""
    labels = tuple("类{}".format(i) for i in range(num_labels))
    label_ids = np.arange(num_examples) % num_labels
    predicted = (label_ids + (label_ids % 10 == 0)) % num_labels
    log_probabilities = np.full([num_examples, num_labels], -20.0, np.float32)
    log_probabilities[np.arange(num_examples), predicted] = 0
    return metrics.score(label_ids, log_probabilities, labels)


def test_scores_of_many_classes_stay_small():
    """A matrix of 5,000 classes would be a file of 275 MB."""
    scores = _scores_of_many(5000, 5000)
    assert scores["accuracy"] == 0.9
    assert "confusion_matrix" not in scores
    assert scores["confusions"][:2] == [["类0", "类1", 1], ["类10", "类11", 1]]
    assert len(scores["confusions"]) == 500
    assert len(json.dumps(scores, indent=2)) < 2e6
    summary = metrics.summary(scores)
    assert len(json.dumps(summary)) < 1000
    assert summary["accuracy"] == 0.9 and summary["loss"] == scores["loss"]


@pytest.mark.parametrize("num_labels", [50, 200])
def test_a_report_of_many_classes_can_be_read(num_labels):
    report = metrics.format_report("dev", _scores_of_many(num_labels, 1000))
    lines = report.splitlines()
    assert len(lines) < 40 and max(map(len, lines)) < 120
    assert "20 of {} classes".format(num_labels) in lines[1]
    number = 1000 // num_labels
    shown = {line.split()[0] for line in lines[3:23]}
    assert len(shown) == 20
    wrong = {"类{}".format(i) for i in range(0, num_labels, 10)}
    assert wrong <= shown if len(wrong) < 20 else shown <= wrong
    assert "{:>8} of 类0 taken for 类1".format(number) in report


def test_a_report_is_safe_and_short_whatever_the_labels():
    labels = ("a\x1b[31m", "长" * 1000)
    scores = metrics.score([0, 1], np.log([[0.9, 0.1], [0.8, 0.2]]), labels)
    report = metrics.format_report("dev", scores)
    assert "\x1b" not in report and "a\\x1b[31m" in report
    assert max(map(len, report.splitlines())) < 200


def test_report_shows_every_class_and_count():
    log_probabilities = np.log([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    report = metrics.format_report(
        "dev", metrics.score([0, 1, 1], log_probabilities, ("no", "yes"))
    )
    lines = report.splitlines()
    assert lines[0].startswith("dev: 3 examples, accuracy 0.6667")
    assert lines[2].split() == ["no", "0.5000", "1.0000", "0.6667", "1", "1", "0"]
    assert lines[3].split() == ["yes", "1.0000", "0.5000", "0.6667", "2", "1", "1"]
