"""What tells a wrong export: outputs that differ, and predictions that do."""

import types

import numpy as np
import pytest

from albert_zh.base.errors import UserError
from albert_zh.serving import verification

OUTPUTS = {"logits": np.array([[2.0, -4.0]]), "probabilities": np.array([[0.9, 0.1]])}
WRONG = {
    "missing": {"probabilities": OUTPUTS["probabilities"]},
    "another shape": dict(OUTPUTS, logits=OUTPUTS["logits"][0]),
    "NaN": dict(OUTPUTS, logits=OUTPUTS["logits"] * np.nan),
    "infinite": dict(OUTPUTS, logits=OUTPUTS["logits"] * np.inf),
}


@pytest.mark.parametrize("name", WRONG)
def test_outputs_that_are_not_the_models(name):
    assert verification.difference(OUTPUTS, WRONG[name], list(OUTPUTS)) == np.inf
    if name != "missing":  # nor where TensorFlow's are so
        assert verification.difference(WRONG[name], OUTPUTS, list(OUTPUTS)) == np.inf


def test_the_difference_is_a_share_of_the_largest_output():
    found = dict(OUTPUTS, logits=np.array([[2.0, -4.4]]), more=np.zeros(3))
    names = list(OUTPUTS)
    assert verification.difference(OUTPUTS, found, names) == pytest.approx(0.1)
    # Not of less than 1: a small output is not held to more digits.
    found = dict(OUTPUTS, probabilities=np.array([[0.8, 0.2]]))
    assert verification.difference(OUTPUTS, found, names) == pytest.approx(0.1)
    assert verification.difference(OUTPUTS, OUTPUTS, names) == 0


def agreement(kind_name, expected, found):
    task = types.SimpleNamespace(kind=kind_name)
    kind = types.SimpleNamespace(files=types.SimpleNamespace(task=task), threshold=0.5)
    return verification.agreement(kind, expected, found)


@pytest.mark.parametrize(
    "change, least, most",
    [
        (lambda x: x, 1, 1),
        (lambda x: x + 0.001, 0.99, 1),
        (lambda x: 0.7 * x, 0, 0.95),
        (lambda x: x + 1, 0, 0.9),
        (lambda x: -x, -1, 0),
        (lambda x: 0 * x, 0, 0),
    ],
)
def test_numbers_agree_if_they_are_neither_scaled_nor_shifted(change, least, most):
    values = np.random.RandomState(0).normal(size=50)
    found = agreement("regression", values.tolist(), change(values).tolist())
    assert least - 1e-6 <= found <= most + 1e-6


def test_equal_numbers_agree_with_themselves_only():
    assert agreement("regression", [2.0] * 3, [2.0] * 3) == 1
    assert agreement("regression", [2.0] * 3, [3.0] * 3) == 0


def test_labels_that_are_absent_from_both_do_not_count():
    """Of many labels most are absent: one that is lost must still show."""
    expected = [np.eye(100)[i] for i in range(10)]
    found = [np.zeros(100)] + expected[1:]
    assert agreement("multi_label", expected, expected) == 1
    assert agreement("multi_label", expected, found) == pytest.approx(18 / 19)
    assert agreement("multi_label", found[:1], found[:1]) == 1


def test_single_labels_that_are_the_same():
    expected = [np.log([0.9, 0.1]), np.log([0.2, 0.8])]
    found = [np.log([0.6, 0.4]), np.log([0.6, 0.4])]
    assert agreement("classification", expected, found) == 0.5


def test_a_dev_file_is_held_to_its_labels_not_to_the_tolerance():
    """The largest of many batches grows with the file, of good exports as well."""
    found = verification.Verification(
        0.3, 1.0, 1.0, 8, agreement=0.9967, dev_difference=0.6
    )
    verification.check(found, "int8", "--model_dir=x")
    with pytest.raises(UserError, match="differs from TensorFlow by 0.5 of an output"):
        verification.check(found._replace(difference=0.5), "int8", "--model_dir=x")
    with pytest.raises(UserError, match="no finite output for some texts of --dev"):
        verification.check(
            found._replace(dev_difference=np.inf), "int8", "--model_dir=x"
        )
