"""Which tokens begin a word: the units that whole-word masking keeps together.

A segmenter cuts the text into words. Tokens are aligned with the words by character
offsets, not by comparing strings, so words may have any length and mix scripts. The
published whole-word masking for Chinese marks characters with `##` instead and loses
words of more than three characters.
"""

import importlib
import warnings

import numpy as np

from albert_zh.base.errors import UserError

SEGMENTERS = ("jieba", "rjieba")

# jieba's time is quadratic in the length of a run of characters that make no word: 4 s
# for so many of them.
MAX_SEGMENTED_CHARACTERS = 2**15
_MARKS = "。！？；，、："


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
        text; None to use the tokenizer's own marks (for languages written with
        spaces).
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
                for part in divided(sentence):
                    lengths.extend(map(len, self._segment(part)))
            starts = align(lengths, tokens.starts, tokens.ends)
            if not self._sentencepiece:
                # Pieces of a Latin word stay one word even if the segmenter, which
                # does not know accents, divides it.
                starts &= tokens.begins_word
        first_tokens = np.cumsum(tokens.counts) - tokens.counts
        starts[first_tokens[tokens.counts > 0]] = True
        return starts


def divided(text):
    """Yields text in parts of at most `MAX_SEGMENTED_CHARACTERS`.

    A part ends after a punctuation mark, which divides words anyway, if there is one.
    """
    begin = 0
    while len(text) - begin > MAX_SEGMENTED_CHARACTERS:
        limit = begin + MAX_SEGMENTED_CHARACTERS
        end = max(text.rfind(mark, begin, limit) for mark in _MARKS) + 1 or limit
        yield text[begin:end]
        begin = end
    yield text[begin:]


def align(word_lengths, starts, ends):
    """Marks the tokens that begin a word.

    Token i begins a word if its first character is in another word than the last
    character of token i - 1. A token that spans several words therefore joins them,
    and several tokens of one character stay together.

    >>> align([2, 1], np.array([0, 1, 2]), np.array([1, 2, 3]))  # 使用 模
    array([ True, False,  True])

    Args:
      word_lengths: list of int, characters of each word; they sum to the text's.
      starts, ends: int64 [num_tokens], character offsets of the tokens.

    Returns:
      bool [num_tokens].
    """
    is_start = np.ones(len(starts), np.bool_)
    if not word_lengths:
        return is_start
    word_of_character = np.repeat(np.arange(len(word_lengths)), word_lengths)
    # A piece that is only the mark of a word's begin is empty and may be at the end.
    first = np.minimum(starts, len(word_of_character) - 1)
    last = np.maximum(first, ends - 1)
    is_start[1:] = word_of_character[first[1:]] != word_of_character[last[:-1]]
    return is_start


def load_segmenter(name):
    """Returns a segmenter of `SEGMENTERS`, a function from str to list of str.

    jieba runs in its accurate mode, as a private instance that shares no state with
    other users of jieba in the process. Its dictionary is built from the package's
    file, which takes as long (0.6 s) as reading jieba's cache in the shared temporary
    folder and avoids a stale or unwritable cache. rjieba has the same dictionary and
    model in Rust.

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
    """Returns name and version of a segmenter; words may differ between versions.

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
