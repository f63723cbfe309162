"""BERT's WordPiece tokenization in plain code: what `tokenization` is compared with.

It follows google-research/bert's `tokenization.py` step by step, on whole strings,
without offsets or caches, with the two differences of `transformers`: text is composed
(NFC) first, and lower-cased character by character.
"""

import unicodedata

# Unified and compatibility ideographs.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def tokenize(text, vocab, lower):
    """Returns the list of tokens of `text`."""
    cleaned = "".join(" " if _is_space(c) else c for c in text if not _is_control(c))
    spaced = "".join(" {} ".format(c) if _is_ideograph(c) else c for c in cleaned)
    tokens = []
    for word in unicodedata.normalize("NFC", spaced).split():
        if lower:
            word = "".join(char.lower() for char in word)
            word = unicodedata.normalize("NFD", word)
            word = "".join(c for c in word if unicodedata.category(c) != "Mn")
        for part in _split_at_punctuation(word):
            tokens += _pieces(part, vocab)
    return tokens


def _is_space(char):
    return char in " \t\n\r" or unicodedata.category(char) == "Zs" or char.isspace()


def _is_control(char):
    if char in "\t\n\r":
        return False
    return char in "\0\ufffd" or unicodedata.category(char).startswith("C")


def _is_ideograph(char):
    return any(first <= ord(char) <= last for first, last in _IDEOGRAPHS)


def _is_punctuation(char):
    code = ord(char)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(char).startswith("P")


def _split_at_punctuation(word):
    parts, starts_new = [], True
    for char in word:
        if _is_punctuation(char):
            parts.append(char)
            starts_new = True
        elif starts_new:
            parts.append(char)
            starts_new = False
        else:
            parts[-1] += char
    return parts


def _pieces(word, vocab):
    if len(word) > 100:
        return ["[UNK]"]
    pieces, start = [], 0
    while start < len(word):
        end = len(word)
        while start < end:
            piece = ("##" if start else "") + word[start:end]
            if piece in vocab:
                break
            end -= 1
        if start == end:
            return ["[UNK]"]
        pieces.append(piece)
        start = end
    return pieces
