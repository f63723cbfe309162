"""Texts tokenised character by character, in windows of what a model can read.

A token is one character, so that an entity may begin and end anywhere, and its offsets
are those of the text. Characters without a token (white space, control characters,
invisible ones) are not among the model's inputs; they keep their place in the text.
"""

from typing import List, NamedTuple, Sequence

import numpy as np

from albert_zh.tasks.features import Features


class Window(NamedTuple):
    """A part of the tokens of a text.

    Attributes:
      begin: its first token.
      positions: the characters of the text that its tokens are.
    """

    begin: int
    positions: Sequence[int]

    @property
    def end(self):
        """The token after its last one."""
        return self.begin + len(self.positions)


class Encoder:
    """Turns texts into windows of tokens."""

    def __init__(self, tokenizer, max_seq_length):
        """Creates an encoder.

        Args:
          tokenizer: `tokenization.FullTokenizer`.
          max_seq_length: most tokens of a window, [CLS] and [SEP] included.
        """
        self._tokenizer = tokenizer
        self._max_tokens = max_seq_length - 2
        self._ids = {}  # character -> id of its token, None where it has none

    def encode(self, text) -> List[Features]:
        """The windows of a text, without targets.

        Windows overlap by half, so that a token is a quarter of a window away from
        where the text is cut in at least one of them. A text without any token has one
        window without any, too.

        Args:
          text: str.

        Returns:
          List of `Features`; `origin` is the `Window`.
        """
        ids, positions = [], []
        for position, char in enumerate(text):
            token_id = self._id(char)
            if token_id is not None:
                ids.append(token_id)
                positions.append(position)
        return [
            self._features(ids[begin:end], Window(begin, positions[begin:end]))
            for begin, end in window_ranges(len(ids), self._max_tokens)
        ]

    def _features(self, ids, window):
        input_ids = [self._tokenizer.cls_id] + ids + [self._tokenizer.sep_id]
        return Features(input_ids, [0] * len(input_ids), origin=window)

    def _id(self, char):
        if char not in self._ids:
            # SentencePiece's mark of a new word is a token of no character. Of several
            # tokens, as a Hangul syllable has, the first stands for the character.
            tokens = self._tokenizer.tokenize_with_offsets(char)
            texts = [token.text for token in tokens if token.start < token.end]
            ids = self._tokenizer.convert_tokens_to_ids(texts[:1])
            self._ids[char] = ids[0] if ids else None
        return self._ids[char]


def window_ranges(num_tokens, max_tokens):
    """Divides tokens into windows of `max_tokens`, of which neighbours share half.

    Returns:
      List of (first token, token after the last), at least one.
    """
    stride = max_tokens - max_tokens // 2
    starts = list(range(0, max(num_tokens - max_tokens, 0), stride))
    starts.append(max(num_tokens - max_tokens, 0))
    return [(start, min(start + max_tokens, num_tokens)) for start in starts]


def best_windows(windows, first, last):
    """Which window has the most context around each run of tokens.

    The context is the number of tokens to the nearer side where the window cuts the
    text; it is infinite where the window cuts neither side.

    Args:
      windows: list of all `Window`s of a text.
      first, last: int [n], first and last tokens of the runs.

    Returns:
      int64 [n], the windows' numbers, the first of equal ones; -1 where every window
      cuts the run.
    """
    first, last = np.asarray(first, np.int64), np.asarray(last, np.int64)
    begins = np.array([window.begin for window in windows])
    ends = np.array([window.end for window in windows])
    # Of a text of many windows only a few hold a run, one after another.
    number = np.searchsorted(ends, last, side="right")
    after = np.searchsorted(begins, first, side="right")
    most, chosen = np.full(len(first), -1.0), np.full(len(first), -1)
    for _ in range((after - number).max(initial=0)):
        window = np.minimum(number, len(windows) - 1)
        left = np.where(begins[window] == 0, np.inf, first - begins[window])
        right = np.where(window == len(windows) - 1, np.inf, ends[window] - 1 - last)
        context = np.where(number < after, np.minimum(left, right), -1.0)
        chosen = np.where(context > most, window, chosen)
        most = np.maximum(context, most)
        number = number + 1
    return chosen
