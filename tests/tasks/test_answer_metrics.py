"""CMRC 2018's scores: cases worked out by hand, and the definition as plain code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.tasks import answer_metrics

CASES = [
    # Right answers, prediction, exact match, F1
    (["光荣"], "光荣", 1, 1),
    (["光荣"], "光", 0, 2 / 3),  # 1 of 2 expected, 1 of 1 predicted
    (["光荣和ω-force"], "光荣", 0, 4 / 6),  # 光 荣 和 ωforce: 2 of 4, 2 of 2
    # The longest run in one piece, not the bag of words: 北京 is 2 of 4 and 4.
    (["北京天津"], "天津北京", 0, 2 * 2 / 8),
    (["天津", "北京"], "北京", 1, 1),  # the best of several
    (["《三国》"], "三国", 1, 1),  # marks of the list
    (["Nexon"], " NEXON。", 1, 1),  # case, outer white space
    (["三…国"], "三国", 0, 2 * 1 / 5),  # not on the list: … ‘ and half-width , . " ( )
    (["‘三"], "三", 0, 2 / 3),
    (["三,"], "三", 0, 2 / 3),
    (["(三)"], "三", 0, 2 / 4),
    (["三"], "四", 0, 0),
    (["三"], "", 0, 0),  # a missing answer
    (["《》"], "。", 1, 0),  # nothing left: equal, but no common segment
    (["6.5%"], "6.5", 0, 2 / 3),  # 6.5 %
    (["new york city"], "york city", 0, 4 / 5),
    (["a  b"], "a b", 0, 1),  # inner white space counts in exact match alone
    ([], "", 1, 1),  # no answer is right
    ([], "三", 0, 0),
]


@pytest.mark.parametrize("answers, prediction, exact_match, f1", CASES)
def test_scores_by_hand(answers, prediction, exact_match, f1):
    assert answer_metrics.exact_match(answers, prediction) == exact_match
    assert answer_metrics.f1(answers, prediction) == pytest.approx(f1)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("在《Abc》里，1.5米", "在 abc 里 1.5 米"),
        ("a-b", "ab"),  # a mark that is dropped does not divide
        ("𠀀𠀁", "𠀀𠀁"),  # ideographs that the script does not know: one run
        ("1,000,", "1,000 ,"),
        ("u.s. (fifa)", "u.s. ( fifa )"),
        ("It's him. they don't", "it 's him. they do n't"),
        ("end.", "end ."),
        ('"wait..."', '" wait ... "'),
        ("1990—1991年", "1990 — 1991 年"),
        ("  ", ""),
    ],
)
def test_segments_by_hand(text, expected):
    assert answer_metrics.segments(text) == expected.split()


def longest_common_run(a, b):
    runs = {tuple(a[i:j]) for i in range(len(a)) for j in range(i + 1, len(a) + 1)} & {
        tuple(b[i:j]) for i in range(len(b)) for j in range(i + 1, len(b) + 1)
    }
    return max(map(len, runs), default=0)


@given(*[st.text(st.sampled_from("天地人a1 ，.-"), max_size=8) for _ in range(2)])
def test_f1_is_that_of_the_longest_common_run(answer, prediction):
    expected, predicted = map(answer_metrics.segments, (answer, prediction))
    size = longest_common_run(expected, predicted)
    f1 = 0
    if size:
        precision, recall = size / len(predicted), size / len(expected)
        f1 = 2 * precision * recall / (precision + recall)
    assert answer_metrics.f1([answer], prediction) == pytest.approx(f1)


def test_questions_with_and_without_answers_are_scored_apart():
    scores = answer_metrics.score([["三"], ["三四"], []], ["三", "三", "三"])
    f1 = (1 + 2 / 3) / 2
    assert scores == {
        "num_examples": 3,
        "exact_match": pytest.approx(1 / 3),
        "f1": pytest.approx(2 * f1 / 3),
        "answerable": {"num_examples": 2, "exact_match": 0.5, "f1": pytest.approx(f1)},
        "unanswerable": {"num_examples": 1, "exact_match": 0, "f1": 0},
    }
    assert "answerable" not in answer_metrics.score([["三"]], ["三"])
