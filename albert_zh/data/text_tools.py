"""The tools that turn text into tokens and words: tokenizer and segmenter."""

import functools
import unicodedata
from typing import NamedTuple, Optional

import tokenization
from albert_zh.base.errors import UserError
from albert_zh.data import instances, segmentation


class Versions(NamedTuple):
    """What tokens and words depend on besides the settings.

    Attributes:
      unicode: version of Python's character database; other versions drop other
        characters as unassigned. Python 3.7 has 11.0.0, Python 3.11 has 14.0.0.
      segmenter: name and version of the segmenter, or what `choose` returns for none.
    """

    unicode: str
    segmenter: Optional[str]


def installed_versions(segmenter):
    """Returns the `Versions` of this interpreter.

    Args:
      segmenter: as `TextSettings.segmenter`.

    Raises:
      UserError: the segmenter is not installed.
    """
    return Versions(
        unicodedata.unidata_version,
        segmentation.segmenter_version(segmenter) if segmenter else segmenter,
    )


class TextSettings(NamedTuple):
    """How text becomes tokens and words; picklable, for other processes.

    Attributes:
      vocabulary: bytes of the WordPiece vocabulary or SentencePiece model.
      is_sentencepiece: bool, which of the two it is.
      do_lower_case, normalize_punctuation: bool, as in `tokenization.FullTokenizer`.
      segmenter: one of `segmentation.SEGMENTERS`; "" for the tokenizer's own words;
        None to mask single tokens.
      versions: the `Versions` that the records are made with; None for any.
    """

    vocabulary: bytes
    is_sentencepiece: bool = False
    do_lower_case: bool = True
    normalize_punctuation: bool = False
    segmenter: Optional[str] = None
    versions: Optional[Versions] = None

    def load_tokenizer(self, source="the vocabulary"):
        """Returns the `tokenization.FullTokenizer` of these settings.

        Args:
          source: what the vocabulary is called in messages.

        Raises:
          ValueError: the vocabulary cannot be used.
          ImportError: SentencePiece is not installed.
        """
        return tokenization.FullTokenizer.from_bytes(
            self.vocabulary,
            is_sentencepiece=self.is_sentencepiece,
            do_lower_case=self.do_lower_case,
            normalize_punctuation=self.normalize_punctuation,
            source=source,
        )


class TextTools(NamedTuple):
    """What a process loads once for all its tasks."""

    tokenizer: tokenization.FullTokenizer
    word_boundaries: Optional[segmentation.WordBoundaries]
    vocabulary: instances.Vocabulary


@functools.lru_cache(maxsize=1)
def load(settings):
    """Loads the `TextTools` of `TextSettings`.

    Raises:
      ValueError: the vocabulary cannot be used.
      ImportError, UserError: a package is missing.
      UserError: this interpreter has other versions than the settings say.
    """
    _require_versions(settings)
    tokenizer = settings.load_tokenizer()
    boundaries = None
    if settings.segmenter is not None:
        boundaries = segmentation.WordBoundaries(
            segmentation.load_segmenter(settings.segmenter)
            if settings.segmenter
            else None,
            settings.is_sentencepiece,
        )
    vocabulary = instances.Vocabulary.from_tokenizer(tokenizer)
    return TextTools(tokenizer, boundaries, vocabulary)


def _require_versions(settings):
    """Raises `UserError` on a worker whose records would differ from the others'."""
    expected = settings.versions
    if expected is None:
        return
    found = installed_versions(settings.segmenter)
    if found != expected:
        raise UserError(
            "a worker's Python has Unicode {} and segmenter {}, the command's {} and "
            "{}; install the same versions of Python and segmenter for both".format(
                found.unicode, found.segmenter, expected.unicode, expected.segmenter
            )
        )
