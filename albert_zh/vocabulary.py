"""Builds a WordPiece vocabulary for Chinese out of a corpus.

BERT's tokenization makes every ideograph a word, so Chinese needs no learned merges:
the vocabulary is the characters the corpus uses. Text in other scripts is covered by
its most frequent whole words; ASCII words beyond those are spelled in letters.
"""

import collections
import string

import tokenization
from albert_zh.errors import UserError

_MAX_WORD_CHARACTERS = 100  # a longer word is [UNK] whatever the vocabulary holds


def count_words(documents, do_lower_case):
    """Counts the words that BERT's basic tokenization finds.

    Memory grows with the number of different words, not with the corpus.

    Args:
      documents: iterable of `corpus.Document`.
      do_lower_case: whether to lower-case and to strip accents.

    Returns:
      `collections.Counter` of word (str) -> count, not empty.

    Raises:
      UserError: there is no word at all.
    """
    tokenizer = tokenization.BasicTokenizer(do_lower_case)
    counts = collections.Counter()
    for document in documents:
        for sentence in document.sentences:
            counts.update(tokenizer.tokenize(sentence))
    if not counts:
        raise UserError("the input holds control characters only; expected text")
    return counts


def check_size(vocab_size, do_lower_case):
    """Checks that the entries every vocabulary has leave room for a character.

    Raises:
      UserError: `vocab_size` is too small.
    """
    fixed = len(tokenization.SPECIAL_TOKENS) + len(_spelling(do_lower_case))
    if vocab_size <= fixed:
        raise UserError(
            "vocab_size={}; expected more than {}: special tokens, digits and letters "
            "take that many".format(vocab_size, fixed)
        )


def build_vocabulary(word_counts, vocab_size, min_count, do_lower_case):
    """Chooses the entries of a vocabulary.

    The order is: special tokens; Chinese characters and punctuation; ASCII digits
    and letters, alone and with "##"; whole words of other scripts. Characters and
    words come by falling count, then by code point. Where `vocab_size` is too small
    for all, words go first, then the rarest characters.

    Args:
      word_counts: mapping of word -> count, from `count_words`.
      vocab_size: greatest number of entries.
      min_count: least count of a character or word.
      do_lower_case: as in `count_words`; decides whether capitals are entries.

    Returns:
      List of different str; the index is the id.

    Raises:
      UserError: `vocab_size` has no room for any character.
    """
    check_size(vocab_size, do_lower_case)
    spelling = _spelling(do_lower_case)
    characters, words = [], []
    for word in sorted(word_counts, key=lambda word: (-word_counts[word], word)):
        if word_counts[word] < min_count or word in spelling:
            continue
        if len(word) == 1 and (
            tokenization.is_chinese_char(ord(word)) or tokenization.is_punctuation(word)
        ):
            characters.append(word)
        elif len(word) <= _MAX_WORD_CHARACTERS:
            words.append(word)
    room = vocab_size - len(tokenization.SPECIAL_TOKENS) - len(spelling)
    characters = characters[:room]
    words = words[: room - len(characters)]
    return list(tokenization.SPECIAL_TOKENS) + characters + spelling + words


def coverage(word_counts, vocabulary):
    """Returns the share of the corpus's tokens that are not [UNK], in [0, 1].

    Exact, without tokenizing the corpus again: a word's pieces depend on nothing
    but the word.

    Args:
      word_counts: mapping of word -> count, from `count_words`; not empty.
      vocabulary: the entries, from `build_vocabulary`.
    """
    tokenizer = tokenization.WordpieceTokenizer(frozenset(vocabulary))
    num_tokens = num_unknown = 0
    for word, count in word_counts.items():
        pieces = tokenizer.split_word(word)
        num_tokens += count * len(pieces)
        if pieces == [tokenizer.unk_token]:
            num_unknown += count
    return 1.0 - num_unknown / num_tokens


def _spelling(do_lower_case):
    """Returns digits and letters, alone and as the continuation of a word."""
    alphabet = string.digits + string.ascii_lowercase
    if not do_lower_case:
        alphabet += string.ascii_uppercase
    return list(alphabet) + ["##" + char for char in alphabet]
