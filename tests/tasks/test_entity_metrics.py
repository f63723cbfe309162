"""Scores of entities against cases worked out by hand."""

import json

import pytest

from albert_zh.tasks import entity_metrics
from albert_zh.tasks.tag_schemes import Span

TEXTS = ["北京人在北京", "张三去上海", "李四"]
TRUE = [
    [Span(0, 2, "LOC"), Span(4, 6, "LOC")],
    [Span(0, 2, "PER"), Span(3, 5, "LOC")],
    [Span(0, 2, "PER")],
]
PREDICTED = [
    [Span(0, 2, "LOC")],  # one of two; as strings, both
    [Span(0, 2, "LOC"), Span(3, 5, "LOC")],  # a wrong type
    [Span(0, 1, "PER")],  # a wrong border
]


def test_against_a_case_worked_out_by_hand():
    scores = entity_metrics.score(TEXTS, TRUE, PREDICTED, ("LOC", "PER"))
    # 2 of 4 predicted are right, of 5.
    assert scores["precision"] == 2 / 4
    assert scores["recall"] == 2 / 5
    assert scores["f1"] == pytest.approx(2 * 0.5 * 0.4 / 0.9)
    # LOC: 2 of 3 predicted, of 3. PER: 0 of 1, of 2.
    assert scores["per_type"]["LOC"] == {
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": pytest.approx(2 / 3),
        "num_entities": 3,
    }
    assert scores["per_type"]["PER"]["f1"] == 0
    # As strings LOC: {北京}, {上海} are true; {北京}, {张三, 上海} predicted: 2 of 3,
    # of 2, so F1 0.8. PER: 0.
    assert scores["macro_f1"] == pytest.approx((0.8 + 0) / 2)
    assert (scores["num_examples"], scores["num_entities"]) == (3, 5)
    json.dumps(scores)


def test_types_that_never_occur_count_in_the_mean():
    found = [[Span(0, 2, "LOC")]]
    scores = entity_metrics.score(["北京"], found, found, ("LOC", "PER"))
    assert scores["f1"] == 1 and scores["macro_f1"] == 0.5


def test_nothing_there_and_nothing_found():
    scores = entity_metrics.score(["北京"], [[]], [[]], ("LOC",))
    assert (scores["f1"], scores["macro_f1"], scores["num_entities"]) == (0, 0, 0)


def test_an_entity_found_twice_counts_once():
    scores = entity_metrics.score(
        ["北京"], [[Span(0, 2, "LOC")]], [[Span(0, 2, "LOC")] * 2], ("LOC",)
    )
    assert scores["f1"] == 1


def test_report_has_a_row_for_each_type():
    scores = entity_metrics.score(TEXTS, TRUE, PREDICTED, ("LOC", "PER"))
    lines = entity_metrics.format_report("dev", scores).splitlines()
    assert lines[0] == (
        "dev: 3 texts, 5 entities, F1 0.4444, macro F1 by strings (CLUENER) 0.4000"
    )
    assert [line.split()[0] for line in lines[1:]] == ["type", "all", "LOC", "PER"]
    assert lines[3].split() == ["LOC", "0.6667", "0.6667", "0.6667", "3"]


def test_a_type_may_have_the_name_of_the_total():
    true = [[Span(0, 2, "all"), Span(4, 6, "LOC")]]
    scores = entity_metrics.score(TEXTS[:1], true, [true[0][:1]], ("LOC", "all"))
    rows = entity_metrics.format_report("dev", scores).splitlines()[2:]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [
        ("all", "2"),
        ("LOC", "1"),
        ("all", "1"),
    ]
