"""Which tokens begin a word: the units that whole-word masking keeps together.

A segmenter cuts the text itself into words; tokens are aligned with them by their
character offsets, never by comparing strings, so a word may be of any length and
may hold any mixture of scripts. Published whole-word masking for Chinese marks
characters with `##` instead and loses words over three characters.
"""

import warnings

import numpy as np


class WordBoundaries:
    """Finds the tokens that begin a word.

    Args:
      segment: function from str to list of str, words whose concatenation is the
        text; None leaves the words to the tokenizer's own marks (for languages
        written with spaces).
      sentencepiece: bool, whether tokens are SentencePiece pieces, where `▁` begins
        a word, or WordPiece tokens, where `##` continues one.
    """

    def __init__(self, segment=None, sentencepiece=False):
        self._segment = segment
        self._sentencepiece = sentencepiece

    def __call__(self, text, tokens):
        """Returns bool [num_tokens]: whether each token of `text` begins a word.

        Args:
          text: str, the sentence.
          tokens: list of `tokenization.Token`, with offsets into `text`.
        """
        if not tokens:
            return np.zeros(0, np.bool_)
        if self._segment is None:
            begins = _begins_piece if self._sentencepiece else _begins_wordpiece
            starts = np.array([begins(token.text) for token in tokens], np.bool_)
        else:
            starts = align(self._segment(text), tokens)
            if not self._sentencepiece:
                # A Latin word cut into pieces is one word even where the
                # segmenter, which knows no accents, divides it.
                starts &= [not token.text.startswith("##") for token in tokens]
        starts[0] = True
        return starts


def align(words, tokens):
    """Marks the tokens between which a word boundary lies.

    Token i begins a word when its first character belongs to another word than the
    last character of token i - 1. A token that spans several words therefore joins
    them, and several tokens from one character stay together.

    >>> Token = collections.namedtuple("Token", "text start end")
    >>> tokens = [Token("使", 0, 1), Token("用", 1, 2), Token("模", 2, 3)]
    >>> align(["使用", "模"], tokens)
    array([ True, False,  True])

    Args:
      words: list of str whose concatenation is the text.
      tokens: list of tokens with `start` and `end`, character offsets into the text.

    Returns:
      bool [num_tokens].
    """
    word_of_character = np.repeat(np.arange(len(words)), [len(word) for word in words])
    first = np.array([token.start for token in tokens])
    last = np.array([token.end for token in tokens]) - 1
    # A piece for the mere beginning of a word can be empty and lie at the end.
    first = np.minimum(first, len(word_of_character) - 1)
    last = np.maximum(first, last)
    starts = np.ones(len(tokens), np.bool_)
    starts[1:] = word_of_character[first[1:]] != word_of_character[last[:-1]]
    return starts


def load_jieba():
    """Returns jieba's accurate mode as a function from str to list of str.

    The segmenter is private: other users of jieba in the process neither change it
    nor are changed. Its dictionary is built from the package's own file, which
    takes as long (0.6 s) as reading the cache jieba keeps in the shared temporary
    folder, and cannot pick up a stale or unwritable one.
    """
    with warnings.catch_warnings():
        # jieba 0.42 imports pkg_resources and has invalid escapes in its patterns.
        warnings.simplefilter("ignore")
        import jieba
    segmenter = jieba.Tokenizer()
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter.lcut


def _begins_wordpiece(token):
    return not token.startswith("##")


def _begins_piece(piece):
    """Whether a SentencePiece piece begins a word; punctuation stands alone."""
    return piece.startswith("▁") or not any(map(str.isalnum, piece))
