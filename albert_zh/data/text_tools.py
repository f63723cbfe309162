"""The tools that turn text into tokens and words: tokenizer and segmenter."""

import functools
from typing import NamedTuple, Optional

import tokenization
from albert_zh.data import instances, segmentation


class TextSettings(NamedTuple):
    """How text becomes tokens and words; picklable, for other processes.

    Attributes:
      vocabulary: bytes of the WordPiece vocabulary or SentencePiece model.
      is_sentencepiece: bool, which of the two it is.
      do_lower_case, normalize_punctuation: bool, as in `tokenization.FullTokenizer`.
      segmenter: one of `segmentation.SEGMENTERS`; "" for the tokenizer's own words;
        None to mask single tokens.
      encoding_errors: one of `corpus.ENCODING_ERRORS`.
    """

    vocabulary: bytes
    is_sentencepiece: bool = False
    do_lower_case: bool = True
    normalize_punctuation: bool = False
    segmenter: Optional[str] = None
    encoding_errors: str = "strict"

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
    """
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
