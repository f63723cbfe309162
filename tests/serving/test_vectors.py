"""Whitening, and the nearest neighbours of a vector."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.base.errors import UserError
from albert_zh.serving import vectors


def cone(number, width, seed=0):
    """Vectors in a narrow cone, as those of a pretrained model are."""
    random = np.random.RandomState(seed)
    mixed = random.normal(size=(number, width)) @ random.normal(size=(width, width))
    return (mixed + 30 * random.normal(size=width)).astype(np.float32)


@pytest.mark.parametrize("size", [None, 1, 4])
def test_whitened_vectors_have_mean_0_and_covariance_1(size):
    held = cone(200, 8)
    whitened = vectors.fit_whitening(held, size).apply(held)
    assert whitened.shape == (200, size or 8)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-4)
    covariance = whitened.T @ whitened / 200
    np.testing.assert_allclose(covariance, np.eye(size or 8), atol=1e-3)


def test_whitening_parts_texts_that_look_alike():
    held = cone(200, 8)
    raw = vectors.normalized(held)
    assert np.abs(raw @ raw.T).min() > 0.5
    white = vectors.normalized(vectors.fit_whitening(held).apply(held))
    assert abs((white @ white.T).mean()) < 0.05


def test_fewer_texts_than_numbers_span_fewer_directions():
    held = cone(5, 8)
    whitened = vectors.fit_whitening(held).apply(held)
    assert whitened.shape == (5, 4)
    assert np.isfinite(whitened).all()


def test_texts_that_are_too_few_are_warned_of(caplog):
    """Whitened they are the corners of a simplex, whatever they say."""
    held = cone(5, 8)
    white = vectors.normalized(vectors.fit_whitening(held).apply(held))
    cosines = (white @ white.T)[np.triu_indices(5, 1)]
    np.testing.assert_allclose(cosines, -0.25, atol=1e-3)
    (record,) = caplog.records
    assert "5 texts in 4 directions" in record.getMessage()
    assert "--whiten_size" in record.getMessage()
    caplog.clear()
    vectors.fit_whitening(held, 2)
    vectors.fit_whitening(cone(50, 8))
    assert not caplog.records


@pytest.mark.parametrize("number", [3, 33])
def test_equal_texts_whose_vectors_are_rounded_apart(number):
    """They are computed in batches of other lengths."""
    random = np.random.RandomState(0)
    held = cone(1, 312) * (1 + 2e-7 * random.normal(size=(number, 312)))
    held = held.astype(np.float32)
    assert len(np.unique(held, axis=0)) > 1
    with pytest.raises(UserError, match="all texts have one and the same vector"):
        vectors.fit_whitening(held)


@pytest.mark.parametrize(
    "held, size, words",
    [
        (np.ones((1, 4)), None, "--whiten: 1 text; expected at least 2"),
        (np.ones((3, 4)), None, "--whiten: all texts have one and the same vector"),
        (cone(5, 8), 5, "--whiten_size=5: expected at most 4"),
        (cone(50, 8), 9, "--whiten_size=9: expected at most 8"),
        (np.repeat(cone(2, 8), 4, axis=0), 3, "have 1 directions only"),
    ],
)
def test_what_cannot_be_whitened(held, size, words):
    with pytest.raises(UserError, match=words):
        vectors.fit_whitening(held.astype(np.float32), size)


def test_a_whitening_is_saved_and_read(tmp_path):
    held, path = cone(50, 8), str(tmp_path / "w.npz")
    whitening = vectors.fit_whitening(held, 3)
    with open(path, "wb") as target:
        whitening.save(target)
    again = vectors.load_whitening(path, 8)
    np.testing.assert_array_equal(again.apply(held), whitening.apply(held))
    with pytest.raises(UserError, match="for vectors of 8 numbers, the model's have 9"):
        vectors.load_whitening(path, 9)


def test_a_whitening_is_for_one_pooling(tmp_path):
    path = str(tmp_path / "w.npz")
    with open(path, "wb") as target:
        vectors.fit_whitening(cone(50, 8), 3, "mean").save(target)
    assert vectors.load_whitening(path, 8, "mean").pooling == "mean"
    with pytest.raises(UserError, match="w.npz: was fitted on .*; give --pooling=mean"):
        vectors.load_whitening(path, 8, "cls")
    # Files of earlier versions do not say.
    held = np.load(path)
    np.savez(path, mean=held["mean"], matrix=held["matrix"])
    assert vectors.load_whitening(path, 8, "cls").pooling == ""


def test_a_file_that_is_no_whitening(tmp_path):
    path = tmp_path / "w.npz"
    with path.open("wb") as target:
        vectors.fit_whitening(cone(50, 8)).save(target)
    content = path.read_bytes()
    objects = tmp_path / "objects.npz"
    np.savez(str(objects), mean=np.array([{}], object), matrix=np.ones(1))
    lone = tmp_path / "lone.npy"
    np.save(str(lone), np.ones(3))
    broken = {"half.npz": content[: len(content) // 2], "empty": b"", "text": b"text"}
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    for name in [*broken, "objects.npz", "lone.npy", "none.npz"]:
        with pytest.raises(UserError, match=name):
            vectors.load_whitening(str(tmp_path / name), 8)


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 30), st.integers(0, 99))
def test_the_nearest_are_those_of_a_full_sort(number, queries, wanted, seed):
    random = np.random.RandomState(seed)
    # Few different ones, so that there are equal scores.
    held = vectors.normalized(random.randint(-1, 2, (number, 2)) + 0.25)
    asked = vectors.normalized(random.randint(-1, 2, (queries, 2)) + 0.5)
    wanted = min(wanted, number)
    held, asked = held.astype(np.float32), asked.astype(np.float32)
    places, cosines = vectors.ExactIndex(held).search(asked, wanted)
    for row, query, found in zip(places, asked, cosines):
        scores = held @ query
        np.testing.assert_allclose(found, scores[row], atol=1e-6)
        assert len(set(row.tolist())) == wanted
        np.testing.assert_allclose(
            scores[row], np.sort(scores)[::-1][:wanted], atol=1e-6
        )


def test_equal_lines_are_found_in_the_order_of_the_file():
    held = np.ones((5, 2), np.float32)
    places, _ = vectors.build_index("exact", held).search(held[:1] / 2**0.5, 3)
    assert places.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("name", ["faiss", "hnswlib"])
def test_an_index_finds_the_same(name):
    pytest.importorskip(name)
    held = cone(300, 8)
    held -= held.mean(axis=0)
    asked = vectors.normalized(held[::50])
    expected, _ = vectors.build_index("exact", held).search(asked, 5)
    places, cosines = vectors.build_index(name, held).search(asked, 5)
    assert (places == expected).mean() > 0.9
    np.testing.assert_allclose(cosines[:, 0], 1, atol=1e-3)


@pytest.mark.parametrize("name, package", [("faiss", "faiss-cpu"), ("hnswlib",) * 2])
def test_a_package_that_is_missing_is_named(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    message = "--index={} needs .*pip install -c .* {}`, or give --index=exact"
    for call in (
        vectors.check_index,
        lambda name: vectors.build_index(name, cone(5, 8)),
    ):
        with pytest.raises(UserError, match=message.format(name, package)):
            call(name)
    vectors.check_index("exact")


class Hnswlib:
    """Stands in for hnswlib: it finds as many vectors as it has links, or fails."""

    class Index:
        def __init__(self, space, dim):
            assert (space, dim) == ("ip", 8)

        def init_index(self, max_elements, M, ef_construction):
            self._most, self._found = max_elements, M

        def add_items(self, held):
            assert len(held) == self._most
            self._held = held

        def set_ef(self, number):
            self._looked_at = number

        def knn_query(self, queries, k):
            assert self._looked_at >= k
            if k > self._found:
                raise RuntimeError("Cannot return the results in a contiguous 2D array")
            distances = 1 - queries @ self._held.T
            places = np.argsort(distances, axis=1)[:, :k]
            distances = np.take_along_axis(distances, places, axis=1)
            return places.astype(np.uint64), distances.astype(np.float32)


def test_hnswlib_is_asked_as_it_wants(monkeypatch):
    monkeypatch.setitem(sys.modules, "hnswlib", Hnswlib)
    held = cone(300, 8)
    asked = vectors.normalized(held[::50])
    vectors.check_index("hnswlib")
    index = vectors.build_index("hnswlib", held)
    expected, expected_cosines = vectors.build_index("exact", held).search(asked, 5)
    places, cosines = index.search(asked, 5)
    assert places.dtype == np.int64
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_allclose(cosines, expected_cosines, atol=1e-6)
    with pytest.raises(
        UserError, match="fewer than 250 neighbours.*--index=exact.*smaller --top_k"
    ):
        index.search(asked, 250)
