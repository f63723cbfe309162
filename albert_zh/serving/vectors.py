"""Vectors of texts: whitening, and the nearest neighbours of a text.

The cosines of two texts' vectors, as a pretrained model gives them, are all above 0.8:
they lie in a narrow cone. Whitening (Su et al., 2021; arXiv:2103.15316) moves their
mean to 0 and makes their covariance the identity.

Shapes: N texts, H numbers of a vector, D numbers of a whitened one.
"""

import logging
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.serving import packages

_LOGGER = logging.getLogger(__name__)

INDEXES = ("exact", "faiss", "hnswlib")
# Directions of less variance than this share of the largest are noise.
_LEAST_VARIANCE = 1e-6
# All variance of less than this share of the squared mean is rounding: a text's vector
# depends a little, around 1e-7 of its length, on the batch in which it is computed.
_ROUNDING = 1e-10
# Bounds the memory of `nearest`.
_SCORES_AT_A_TIME = 2**24
# What NumPy raises for a file that is no .npz, or a damaged one.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    zipfile.BadZipFile,
    zlib.error,
)
# Of a graph of neighbours: links of each vector, and how many are looked at.
_LINKS, _LOOKED_AT = 32, 200


class Whitening(NamedTuple):
    """(x - mean) matrix.

    Attributes:
      mean: float32 [H].
      matrix: float32 [H, D].
      pooling: str, how the vectors were made that it was fitted on; "" if unknown.
    """

    mean: np.ndarray
    matrix: np.ndarray
    pooling: str = ""

    def apply(self, vectors):
        """float32 [N, H] -> float32 [N, D]."""
        return (vectors - self.mean) @ self.matrix

    def save(self, target):
        """Writes into an open file the .npz that `load_whitening` reads."""
        np.savez(target, **self._asdict())


def fit_whitening(vectors, size=None, pooling=""):
    """Fits a whitening.

    Args:
      vectors: float32 [N, H], N at least 2.
      size: int, D; the directions of the most variance are kept. None keeps all that
        have any: at most N - 1. Warns where all are kept of no more texts than H.
      pooling: str, how the vectors were made.

    Returns:
      `Whitening`.

    Raises:
      UserError: there are fewer directions than `size`.
    """
    check_whitening(*vectors.shape, size)
    vectors = vectors.astype(np.float64)
    mean = vectors.mean(axis=0)
    _, scales, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    variances = scales**2 / len(vectors)
    number = int((variances > _LEAST_VARIANCE * variances[0]).sum())
    if variances[0] <= _ROUNDING * (mean**2).sum():
        raise UserError("--whiten: all texts have one and the same vector")
    if size is not None and size > number:
        raise UserError(
            "--whiten_size={}: the {} texts have {} directions only; give more "
            "texts".format(size, len(vectors), number)
        )
    kept = size or number
    if kept == number and len(vectors) <= vectors.shape[1]:
        # The corners of a simplex: one angle between any two, however alike they are.
        _LOGGER.warning(
            "--whiten: %d texts in %d directions all become equally unlike each other; "
            "give more texts, or a smaller --whiten_size",
            len(vectors),
            kept,
        )
    matrix = directions[:kept].T / np.sqrt(variances[:kept])
    return Whitening(mean.astype(np.float32), matrix.astype(np.float32), pooling)


def check_whitening(num_texts, width, size=None):
    """Raises `UserError` where so many vectors of H numbers cannot be whitened."""
    if num_texts < 2:
        raise UserError("--whiten: {} text; expected at least 2".format(num_texts))
    most = min(num_texts - 1, width)
    if size is not None and size > most:
        raise UserError(
            "--whiten_size={}: expected at most {}, for {} texts and vectors of {} "
            "numbers".format(size, most, num_texts, width)
        )


def load_whitening(path, size, pooling=""):
    """Reads what `Whitening.save` wrote.

    Args:
      path: the .npz file.
      size: int, H.
      pooling: str, how the vectors are made.

    Raises:
      UserError: it cannot be read, or is for other vectors.
    """
    try:
        with files.open_input(path) as source:
            held = np.load(source, allow_pickle=False)
            fitted = str(held["pooling"]) if "pooling" in held else ""
            whitening = Whitening(held["mean"], held["matrix"], fitted)
    except _UNREADABLE as error:
        problem = "{}: no whitening can be read ({}); fit one with --whiten"
        raise UserError(problem.format(path, error)) from error
    expected = (size,), (size,) + whitening.matrix.shape[1:]
    if (whitening.mean.shape, whitening.matrix.shape) != expected:
        raise UserError(
            "{}: is for vectors of {} numbers, the model's have {}".format(
                path, len(whitening.mean), size
            )
        )
    if pooling and fitted not in ("", pooling):
        raise UserError(
            "{0}: was fitted on vectors of --pooling={1}; give --pooling={1}".format(
                path, fitted
            )
        )
    return whitening


def normalized(vectors):
    """float32 [N, H] -> the same of length 1, whose products are cosines."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


class ExactIndex:
    """Compares with every vector."""

    def __init__(self, vectors):
        """`vectors`: float32 [N, H] of length 1."""
        self._vectors = vectors

    def search(self, queries, number):
        """The nearest vectors.

        Args:
          queries: float32 [Q, H] of length 1.
          number: int, how many, at most N.

        Returns:
          (int64 [Q, number], the nearest first, of equal ones the first in the file;
          float32 [Q, number], their cosines).
        """
        step = max(1, _SCORES_AT_A_TIME // len(self._vectors))
        found = []
        for begin in range(0, len(queries), step):
            scores = queries[begin : begin + step] @ self._vectors.T
            found += [largest(row, number) for row in scores]
        places = np.array(found, np.int64).reshape(len(queries), -1)
        cosines = np.einsum("qh,qkh->qk", queries, self._vectors[places])
        return places, cosines


def largest(scores, number):
    """The places of the largest of scores [N], the largest and the earliest first.

    Args:
      scores: float [N].
      number: how many places; all where there are fewer.

    Returns:
      int64 [min(number, N)].
    """
    places = np.arange(len(scores))
    if number < len(scores):
        least = np.partition(scores, len(scores) - number)[len(scores) - number]
        places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:number]


class FaissIndex:
    """faiss' graph of neighbours (HNSW, arXiv:1603.09320)."""

    def __init__(self, vectors):
        """See `ExactIndex`."""
        faiss = _require("faiss")
        self._index = faiss.IndexHNSWFlat(
            vectors.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT
        )
        self._index.hnsw.efConstruction = _LOOKED_AT
        self._index.add(np.ascontiguousarray(vectors, np.float32))

    def search(self, queries, number):
        """See `ExactIndex`; may miss some. A place is -1 where it finds too few."""
        self._index.hnsw.efSearch = max(_LOOKED_AT, number)
        queries = np.ascontiguousarray(queries, np.float32)
        cosines, places = self._index.search(queries, number)
        return places, cosines


class HnswlibIndex:
    """hnswlib's graph of neighbours (HNSW, arXiv:1603.09320)."""

    def __init__(self, vectors):
        """See `ExactIndex`."""
        hnswlib = _require("hnswlib")
        self._index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self._index.init_index(
            max_elements=len(vectors), M=_LINKS, ef_construction=_LOOKED_AT
        )
        self._index.add_items(vectors)

    def search(self, queries, number):
        """See `ExactIndex`; may miss some.

        Raises:
          UserError: it finds too few.
        """
        self._index.set_ef(max(_LOOKED_AT, number))
        try:
            places, distances = self._index.knn_query(queries, k=number)
        except RuntimeError as error:
            raise UserError(
                "--index=hnswlib: it finds fewer than {} neighbours of a text; give "
                "--index=exact, or a smaller --top_k".format(number)
            ) from error
        return places.astype(np.int64), 1 - distances


_PACKAGES = {"faiss": "faiss-cpu", "hnswlib": "hnswlib"}
_CLASSES = {"exact": ExactIndex, "faiss": FaissIndex, "hnswlib": HnswlibIndex}


def check_index(name):
    """Raises `UserError` where the package of an index is not installed."""
    if name != "exact":
        _require(name)


def build_index(name, vectors):
    """Builds an index.

    Args:
      name: one of `INDEXES`.
      vectors: float32 [N, H]; they are made of length 1.

    Raises:
      UserError: its package is not installed.
    """
    return _CLASSES[name](normalized(vectors))


def _require(name):
    flag = "--index={}".format(name)
    return packages.require(name, flag, _PACKAGES[name], instead="--index=exact")
