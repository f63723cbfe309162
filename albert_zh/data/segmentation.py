"""Which tokens begin a word: the units that whole-word masking keeps together.

A segmenter cuts the text itself into words; tokens are aligned with them by their
character offsets, never by comparing strings, so a word may be of any length and
may hold any mixture of scripts. Published whole-word masking for Chinese marks
characters with `##` instead and loses words over three characters.
"""

import importlib
import warnings

import numpy as np

from albert_zh.base.errors import UserError

SEGMENTERS = ("jieba", "rjieba")


def choose(segmenter, whole_words, non_chinese):
    """Returns the segmenter that flags ask for.

    Args:
      segmenter: one of `SEGMENTERS`, or None where --segmenter is absent.
      whole_words: bool, --do_whole_word_mask.
      non_chinese: bool, --non_chinese.

    Returns:
      One of `SEGMENTERS`; "" for the tokenizer's own words; None for single tokens.

    Raises:
      UserError: one of the flags has no effect with the others.
    """
    if non_chinese and not whole_words:
        raise UserError(
            "--non_chinese has no effect without --do_whole_word_mask; remove it"
        )
    if whole_words and not non_chinese:
        return segmenter or "jieba"
    if segmenter:
        raise UserError(
            "--segmenter has no effect with --non_chinese or without "
            "--do_whole_word_mask; remove it"
        )
    return "" if whole_words else None


class WordBoundaries:
    """Finds the tokens that begin a word.

    Args:
      segment: function from str to list of str, words whose concatenation is the
        text; None leaves the words to the tokenizer's own marks (for languages
        written with spaces).
      sentencepiece: bool, whether tokens are SentencePiece pieces or WordPiece
        tokens.
    """

    def __init__(self, segment=None, sentencepiece=False):
        self._segment = segment
        self._sentencepiece = sentencepiece

    def __call__(self, sentences, tokens):
        """Returns bool [num_tokens]: whether each token begins a word.

        Args:
          sentences: list of str.
          tokens: `tokenization.SentenceTokens` of them.
        """
        starts = tokens.begins_word.copy()
        if self._segment is not None:
            lengths = []
            for sentence in sentences:
                lengths.extend(map(len, self._segment(sentence)))
            starts = align(lengths, tokens.starts, tokens.ends)
            if not self._sentencepiece:
                # A Latin word cut into pieces is one word even where the
                # segmenter, which knows no accents, divides it.
                starts &= tokens.begins_word
        first_tokens = np.cumsum(tokens.counts) - tokens.counts
        starts[first_tokens[tokens.counts > 0]] = True
        return starts


def align(word_lengths, starts, ends):
    """Marks the tokens between which a word boundary lies.

    Token i begins a word when its first character belongs to another word than the
    last character of token i - 1. A token that spans several words therefore joins
    them, and several tokens from one character stay together.

    >>> align([2, 1], np.array([0, 1, 2]), np.array([1, 2, 3]))  # 使用 模
    array([ True, False,  True])

    Args:
      word_lengths: list of int, characters of the words, which make up the text.
      starts, ends: int64 [num_tokens], character offsets of the tokens.

    Returns:
      bool [num_tokens].
    """
    is_start = np.ones(len(starts), np.bool_)
    if not word_lengths:
        return is_start
    word_of_character = np.repeat(np.arange(len(word_lengths)), word_lengths)
    # A piece for the mere beginning of a word can be empty and lie at the end.
    first = np.minimum(starts, len(word_of_character) - 1)
    last = np.maximum(first, ends - 1)
    is_start[1:] = word_of_character[first[1:]] != word_of_character[last[:-1]]
    return is_start


def load_segmenter(name):
    """Returns a segmenter of `SEGMENTERS`, a function from str to list of str.

    jieba works in its accurate mode. The segmenter is private: other users of jieba
    in the process neither change it nor are changed. Its dictionary is built from
    the package's own file, which takes as long (0.6 s) as reading the cache jieba
    keeps in the shared temporary folder, and cannot pick up a stale or unwritable
    one. rjieba is the same dictionary and model in Rust.

    Raises:
      UserError: it is not installed.
    """
    package = _import_segmenter(name)
    if name == "rjieba":
        return package.cut
    segmenter = package.Tokenizer()
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter.lcut


def segmenter_version(name):
    """Returns name and version of a segmenter: other versions, other words.

    Raises:
      UserError: it is not installed.
    """
    package = _import_segmenter(name)
    if name == "jieba":
        return "jieba " + package.__version__
    from importlib import metadata  # Python 3.8, which rjieba needs too

    return "rjieba " + metadata.version("rjieba")


def _import_segmenter(name):
    with warnings.catch_warnings():
        # jieba 0.42 imports pkg_resources and has invalid escapes in its patterns.
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                "--segmenter={0} is not installed: run `pip install {0}`{1}".format(
                    name,
                    " (Python 3.8 or later), or use jieba" if name == "rjieba" else "",
                )
            ) from error
