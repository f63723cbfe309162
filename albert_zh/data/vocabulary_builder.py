"""Builds a WordPiece vocabulary for Chinese from a corpus.

BERT's tokenization makes every ideograph a word, so Chinese needs no learned merges,
only the characters of the corpus. Pieces of other scripts are learned by the
`tokenizers` library, which splits text as BERT does.
"""

import collections
import os
import string

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

import tokenization
from albert_zh.base import files, locks
from albert_zh.base.errors import UserError

# In the order of BERT's Chinese vocabulary, so that the ids agree.
SPECIAL_TOKENS = (
    ["[PAD]"]
    + ["[unused{}]".format(number) for number in range(1, 100)]
    + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
)

# Four times the largest published vocabulary of a multilingual model (XLM-R's).
MAX_VOCAB_SIZE = 2**20

# Of the entries that `vocab_size` leaves to the text; the rest may be unused ones.
MIN_FILLED_SHARE = 0.9

_PREFIX = "##"


def check_size(vocab_size, do_lower_case):
    """Checks that the fixed entries leave room for at least one character.

    Raises:
      UserError: `vocab_size` is too small, or larger than `MAX_VOCAB_SIZE`.
    """
    if vocab_size > MAX_VOCAB_SIZE:
        raise UserError(
            "vocab_size={}; expected at most {}".format(vocab_size, MAX_VOCAB_SIZE)
        )
    fixed = _num_fixed(do_lower_case)
    if vocab_size <= fixed:
        raise UserError(
            "vocab_size={}; expected more than {}, the number of special tokens, "
            "digits and letters".format(vocab_size, fixed)
        )


def build_vocabulary(read_lines, vocab_size, min_count, do_lower_case):
    """Chooses the entries of a vocabulary; the same lines give the same entries.

    The order is: special tokens; ASCII digits and letters, alone and with "##"; other
    characters by decreasing count, then by code point, each followed by its form with
    "##" if the corpus has it inside words; learned pieces. If `vocab_size` is too
    small, pieces are left out first, then the rarest characters.

    Args:
      read_lines: function without arguments that returns an iterable of str, the
        corpus; called twice.
      vocab_size: largest number of entries, including the special tokens.
      min_count: smallest count of a character, or of a pair of pieces to join.
      do_lower_case: whether to lower-case and to strip accents.

    Returns:
      List of distinct str; the index is the id.

    Raises:
      UserError: `vocab_size` has no room for a character, or there is no word.
    """
    check_size(vocab_size, do_lower_case)
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=do_lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    entries = SPECIAL_TOKENS + _spelling(do_lower_case)
    entries += _characters(tokenizer, read_lines(), min_count, set(entries))
    del entries[vocab_size:]
    # The trainer numbers the characters it finds in the order of a hash table, and
    # the numbers break ties between pairs. Given as "special" tokens, which training
    # treats like others, all characters have fixed numbers.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        special_tokens=entries,
        limit_alphabet=0,
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    tokenizer.train_from_iterator(read_lines(), trainer)
    ids = tokenizer.get_vocab()
    learned = sorted(ids, key=ids.get)[len(entries) : vocab_size]
    # The library treats a few rare ideographs as letters.
    return entries + [piece for piece in learned if not _has_ideograph(piece)]


def fill(entries, vocab_size, min_count, do_lower_case):
    """Adds unused entries, which no text contains, up to `vocab_size`.

    A model whose embedding table is mostly such entries pays for rows that it never
    trains, so they may take a tenth of the room at most.

    Args:
      entries: list of str, what `build_vocabulary` returned for the other arguments.

    Raises:
      UserError: the text gave less than `MIN_FILLED_SHARE` of the entries that
        `vocab_size` leaves to it.
    """
    fixed = _num_fixed(do_lower_case)
    found = len(entries) - fixed
    if found < MIN_FILLED_SHARE * (vocab_size - fixed):
        ways = ["more text"]
        if min_count > 1:
            ways.append("a --min_count below {}".format(min_count))
        if found:
            ways.append("--vocab_size={}".format(len(entries)))
        raise UserError(
            "--vocab_size={}: the text gives no more than {} entries; give {}".format(
                vocab_size, len(entries), ", or ".join(ways)
            )
        )
    first = SPECIAL_TOKENS.index("[UNK]")  # after BERT's own
    number = vocab_size - len(entries)
    return entries + ["[unused{}]".format(first + index) for index in range(number)]


def write(entries, path):
    """Writes a vocabulary, one entry per line; removes what killed runs left.

    Raises:
      UserError: it cannot be written.
    """
    folder, name = os.path.split(path)
    lock = os.path.join(folder, ".{}.lock".format(name))
    with locks.hold(lock, "", is_patient=True):
        files.remove_leftovers(path)
        files.write_text("".join(entry + "\n" for entry in entries), path)


def coverage(lines, tokenizer):
    """Returns the share of the corpus's tokens that are not [UNK], in [0, 1].

    Args:
      lines: iterable of str; the share is 0 if they have no token.
      tokenizer: `tokenization.FullTokenizer` of a WordPiece vocabulary.
    """
    num_tokens = num_unknown = 0
    for line in lines:
        tokens = tokenizer.tokenize(line)
        num_tokens += len(tokens)
        num_unknown += tokens.count("[UNK]")
    return 1.0 - num_unknown / num_tokens if num_tokens else 0.0


def _characters(tokenizer, lines, min_count, known):
    """Returns the corpus's characters, and their forms with "##", not in `known`.

    Counted here, because the trainer has no minimum count for characters.
    """
    counts, continuing = collections.Counter(), set()
    for line in lines:
        normalized = tokenizer.normalizer.normalize_str(line)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized):
            counts.update(word)
            continuing.update(word[1:])
    if not counts:
        raise UserError("the input has only control characters; expected text")
    entries = []
    for char in sorted(counts, key=lambda char: (-counts[char], char)):
        if counts[char] >= min_count and char not in known:
            entries.append(char)
            if char in continuing and not _has_ideograph(char):
                entries.append(_PREFIX + char)
    return entries


def _has_ideograph(piece):
    return any(tokenization.is_chinese_char(ord(char)) for char in piece)


def _num_fixed(do_lower_case):
    """The entries that do not depend on the text."""
    return len(SPECIAL_TOKENS) + len(_spelling(do_lower_case))


def _spelling(do_lower_case):
    """Returns digits and letters, alone and with "##", so that no ASCII is unknown."""
    alphabet = string.digits + string.ascii_lowercase
    if not do_lower_case:
        alphabet += string.ascii_uppercase
    return list(alphabet) + [_PREFIX + char for char in alphabet]
