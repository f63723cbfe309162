"""The bundled sample data keep the formats and counts `resources/README.md` states."""

import json
import os
import re

import pytest

import run_demo

RESOURCES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "resources")
SPLITS = ("train", "dev", "test")


def read_bytes(name):
    with open(os.path.join(RESOURCES, name), "rb") as file:
        return file.read()


def read_text(name):
    with open(os.path.join(RESOURCES, name), encoding="utf-8", newline="") as file:
        return file.read()


def documents():
    """The corpus as a list of documents, each a list of sentences."""
    text = read_text("sample_corpus.txt").rstrip("\n")
    return [document.split("\n") for document in text.split("\n\n")]


def pairs(split):
    """The pairs of one split as (text_a, text_b, label) triples of strings."""
    lines = counted_lines("sample_pairs/%s.txt" % split, "pairs")
    return [tuple(line.split("\t")) for line in lines]


def stated_counts(pattern):
    """Integers that `pattern` captures in the one README line it matches."""
    matches = re.findall(pattern, read_text("README.md"))
    assert len(matches) == 1, matches
    found = matches[0] if isinstance(matches[0], tuple) else (matches[0],)
    return tuple(int(number) for number in found)


def counted_lines(name, unit):
    """The lines of a file, as many of a unit as the README says."""
    lines = read_text(name).splitlines()
    pattern = re.escape(name) + r"` \| (\d+) " + unit + r" \|"
    assert (len(lines),) == stated_counts(pattern)
    return lines


@pytest.mark.parametrize(
    "name",
    ["sample_corpus.txt"]
    + ["sample_pairs/%s.txt" % s for s in SPLITS]
    + ["sample_topics/%s.jsonl" % s for s in ("train", "dev")]
    + ["sample_similarity/%s.tsv" % s for s in ("train", "dev")]
    + ["sample_choices/%s.jsonl" % s for s in ("train", "dev")]
    + ["sample_squad/%s.json" % s for s in ("train", "dev")]
    + ["sample_ner/%s.json" % split for split in SPLITS],
)
def test_files_are_clean_utf8(name):
    content = read_bytes(name)
    content.decode("utf-8")
    assert not content.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in content
    assert content.endswith(b"\n") and not content.endswith(b"\n\n")


def test_corpus_has_single_blank_lines_and_no_stray_spaces():
    text = read_text("sample_corpus.txt")
    assert not text.startswith("\n")
    assert "\n\n\n" not in text
    assert all(line == line.strip() for line in text.split("\n"))


def test_corpus_documents_are_long_enough_for_sentence_order_prediction():
    assert all(8 <= len(document) <= 25 for document in documents())


def test_corpus_repeats_no_sentence():
    sentences = [sentence for document in documents() for sentence in document]
    assert len(set(sentences)) == len(sentences)


def test_corpus_counts_are_those_of_the_readme():
    sentences = [sentence for document in documents() for sentence in document]
    counted = (len(documents()), len(sentences), sum(map(len, sentences)))
    pattern = r"(\d+) documents, (\d+) sentences, (\d+) characters"
    assert counted == stated_counts(pattern)


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_have_three_filled_columns_and_a_binary_label(split):
    for row in pairs(split):
        assert len(row) == 3, row
        assert row[2] in ("0", "1"), row
        assert all(column and column == column.strip() for column in row), row
        assert row[0] != row[1], row


@pytest.mark.parametrize("split", SPLITS)
def test_pair_labels_are_balanced(split):
    labels = [label for _, _, label in pairs(split)]
    assert 0.45 <= labels.count("1") / len(labels) <= 0.55


def test_no_pair_occurs_twice_in_either_order_within_or_across_splits():
    unordered = [
        frozenset((text_a, text_b))
        for split in SPLITS
        for text_a, text_b, _ in pairs(split)
    ]
    assert len(set(unordered)) == len(unordered)


def test_labels_follow_shared_characters_but_not_entirely():
    """Learnable by a tiny model, yet not solved by counting characters alone."""
    # The baseline that the READMEs state.
    found = run_demo.overlap_accuracy(os.path.join(RESOURCES, "sample_pairs"))
    assert found == pytest.approx(0.94)


def test_texts_have_some_of_five_topics():
    texts, topics = [], set()
    for split in ("train", "dev"):
        lines = counted_lines("sample_topics/%s.jsonl" % split, "texts")
        for record in map(json.loads, lines):
            texts.append(record["text"])
            topics.update(record["label"])
            assert len(set(record["label"])) == len(record["label"])
    assert len(set(texts)) == len(texts) and len(topics) == 5


@pytest.mark.parametrize("split", ["train", "dev"])
def test_sentence_pairs_have_a_score(split):
    lines = counted_lines("sample_similarity/%s.tsv" % split, "sentence pairs")
    scores = [float(score) for _, _, score in (line.split("\t") for line in lines)]
    assert min(scores) == 0 and 4.5 < max(scores) <= 5


@pytest.mark.parametrize("split", ["train", "dev"])
def test_questions_have_their_answer_among_their_choices(split):
    lines = counted_lines("sample_choices/%s.jsonl" % split, "questions")
    for question in map(json.loads, lines):
        choices = question["choices"]
        assert 2 <= len(set(choices)) == len(choices) <= 4
        assert question["answer"] in choices


@pytest.mark.parametrize("split", ["train", "dev"])
def test_answers_stand_where_the_questions_say(split):
    name = "sample_squad/%s.json" % split
    paragraphs = [
        paragraph
        for entry in json.loads(read_text(name))["data"]
        for paragraph in entry["paragraphs"]
    ]
    questions = [(p["context"], q) for p in paragraphs for q in p["qas"]]
    pattern = re.escape(name) + r"` \| (\d+) texts, (\d+) questions"
    assert (len(paragraphs), len(questions)) == stated_counts(pattern)
    assert len({question["id"] for _, question in questions}) == len(questions)
    for context, question in questions:
        (answer,) = question["answers"]
        assert context[answer["answer_start"] :].startswith(answer["text"])


def test_entities_stand_where_the_files_say_and_counts_are_those_of_the_readme():
    texts, types = [], set()
    for split in SPLITS:
        lines = counted_lines("sample_ner/%s.json" % split, "texts")
        for record in map(json.loads, lines):
            texts.append(record["text"])
            types.update(record["label"])
            for entities in record["label"].values():
                for entity, places in entities.items():
                    for start, last in places:
                        assert record["text"][start : last + 1] == entity
    assert len(set(texts)) == len(texts) == 40 and len(types) == 10
