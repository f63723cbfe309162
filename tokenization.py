"""WordPiece and SentencePiece tokenization with offsets into the source text.

Chinese ALBERT models share BERT's Chinese vocabulary: text is cleaned, split at
white space, punctuation and around every ideograph, then cut into WordPieces by
greedy longest match (BERT, arXiv:1810.04805). English ALBERT models
(arXiv:1909.11942) use a SentencePiece model (arXiv:1808.06226) instead.

Every token has the half-open span `[start, end)` of characters (code points) it
came from. If one character becomes several tokens, as a Hangul syllable does when
accents are stripped, each of them has that character's span. Text that spells a
special token, such as "[MASK]", is split like any other text; insert special tokens
by their ids.

This module imports no sibling. TensorFlow is needed for remote paths only.
"""

import collections
import functools
import itertools
import logging
import re
import unicodedata
from typing import NamedTuple

import numpy as np

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Marks that BERT's Chinese vocabulary lacks and their substitutes under
# `normalize_punctuation`. Of several, the last one in the vocabulary is used; for
# BERT's that is the midline ellipsis.
PUNCTUATION_SUBSTITUTES = tuple(
    zip("“”‘’—………", ['"', '"', "'", "'", "-", ".", "...", "\u22ef"])
)

# Unified and compatibility ideographs, up to extension E: each is a word.
_CHINESE = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"
    "\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)

_SPM_SPACE = "\u2581"
_SPM_UNITS = re.compile(r"``|''|\s+|\S")

# Python sorts combining marks in quadratic time; more marks than text has in a row
# (the Stream-Safe Text Format of UAX #15 allows 30) are sorted here.
_MAX_UNSORTED_MARKS = 30

# Some published vocabularies have a blank line or a token twice. More than one line,
# or this share of a large vocabulary, is damage.
_ODD_LINES = 1 / 1000

_LOGGER = logging.getLogger(__name__)

# Limits of the caches of characters and of split words: about 10 MB when full. Of a run
# of marks, each mark is a piece.
_MAX_REMEMBERED_CHARS = 32768
_MAX_REMEMBERED_RUNS = 32768
_MAX_REMEMBERED_RUN_CHARS = 64
_MAX_REMEMBERED_PIECES = 131072


class Token(NamedTuple):
    """A token and its half-open character span in the source."""

    text: str
    start: int
    end: int


class SentenceTokens(NamedTuple):
    """The tokens of several sentences, concatenated.

    Attributes:
      ids: int32 [num_tokens].
      starts, ends: int64 [num_tokens], character spans in the concatenated sentences.
      begins_word: bool [num_tokens], whether a token begins a word by the tokenizer's
        marks: in WordPiece `##` continues a word; in SentencePiece `▁` begins one, and
        punctuation is a word.
      counts: int64 [num_sentences], tokens of each sentence.
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    begins_word: np.ndarray
    counts: np.ndarray


# Three times faster than `Token(...)`, which runs Python code.
_token_from_tuple = functools.partial(tuple.__new__, Token)


# BERT's published models, by the folder of their `bert_model.ckpt`.
_LOWER_CASED_MODELS = frozenset(
    "uncased_L-24_H-1024_A-16 uncased_L-12_H-768_A-12 multilingual_L-12_H-768_A-12 "
    "chinese_L-12_H-768_A-12".split()
)
_CASED_MODELS = frozenset(
    "cased_L-12_H-768_A-12 cased_L-24_H-1024_A-16 "
    "multi_cased_L-12_H-768_A-12".split()
)


def validate_case_matches_checkpoint(do_lower_case, init_checkpoint):
    """Checks the casing against a checkpoint of BERT's that is known by its path.

    Args:
      do_lower_case: bool.
      init_checkpoint: path of a checkpoint, or None. Others than BERT's pass.

    Raises:
      ValueError: that model was trained with the other casing.
    """
    folder = re.search(r"([A-Za-z0-9_-]+)[/\\]bert_model\.ckpt", init_checkpoint or "")
    if not folder:
        return
    wrong = _CASED_MODELS if do_lower_case else _LOWER_CASED_MODELS
    if folder.group(1) in wrong:
        raise ValueError(
            "--do_lower_case={} does not fit --init_checkpoint={}: {} was trained "
            "{}; give --do_lower_case={}".format(
                bool(do_lower_case),
                init_checkpoint,
                folder.group(1),
                "cased" if do_lower_case else "lower-cased",
                not do_lower_case,
            )
        )


def convert_by_vocab(vocab, items):
    """Returns the list of the values of `items` in a vocabulary or an inverse one.

    Raises:
      ValueError: an item is not in it.
    """
    return _look_up(vocab, items, "entry")


def convert_tokens_to_ids(vocab, tokens):
    """Returns the list of ids of `tokens`; raises ValueError for an unknown one."""
    return _look_up(vocab, tokens, "token")


def convert_ids_to_tokens(inv_vocab, ids):
    """Returns the list of tokens of `ids`; raises ValueError for an unknown id."""
    return _look_up(inv_vocab, ids, "id")


def convert_to_unicode(text):
    """Returns `text` as str; bytes are decoded as UTF-8, without invalid sequences."""
    if isinstance(text, str):
        return text
    if isinstance(text, bytes):
        return text.decode("utf-8", "ignore")
    raise ValueError("expected str or bytes, received {}".format(type(text).__name__))


def printable_text(text):
    """Returns `text` (str or UTF-8 bytes) as str, for logs."""
    return convert_to_unicode(text)


def whitespace_tokenize(text):
    """Returns the list of words of `text` between white space."""
    return text.split()


def is_chinese_char(codepoint):
    """Whether a code point (int) is a word in BERT: ideographs, not kana or Hangul."""
    return _CHINESE.match(chr(codepoint)) is not None


def load_vocab(vocab_file):
    """Loads a vocabulary file: UTF-8, one token per line; the line index is the id.

    A byte order mark, CRLF line ends, ASCII white space around tokens and empty
    lines at the end are ignored. A path with "://" is read through TensorFlow.

    A few blank lines and repeated tokens are accepted, as in BERT: they keep their
    ids, no text becomes a blank line, and a repeated token has its last line's id.
    Such a line is called "[LINE, line N]" here.

    Returns:
      `OrderedDict` of token (str) -> id (int), in the order of the ids.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not UTF-8, has many duplicates or empty lines, or lacks one of
        `SPECIAL_TOKENS`. The message names the file and the line.
    """
    return _parse_vocab(_read_file(vocab_file), vocab_file)


def _parse_vocab(data, source):
    """Like `load_vocab`, for the file's bytes; `source` names them in messages."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            "{}:{}: byte 0x{:02x} is not UTF-8; convert the vocabulary to UTF-8".format(
                source, line, data[error.start]
            )
        ) from error
    # Only ASCII white space: U+2028 is an entry of BERT's vocabulary.
    lines = [line.strip(" \t\r\f\v") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    last_ids = {token: token_id for token_id, token in enumerate(lines)}
    odd = [
        token_id
        for token_id, token in enumerate(lines)
        if not token or last_ids[token] != token_id
    ]
    if odd:
        _report_odd_lines(lines, odd, last_ids, source)
    for token_id in odd:
        # The space keeps it from matching any text.
        lines[token_id] = "[{}, line {}]".format(lines[token_id], token_id + 1)
    vocab = collections.OrderedDict(zip(lines, range(len(lines))))
    _require_tokens(vocab, SPECIAL_TOKENS, source)
    return vocab


def _report_odd_lines(lines, odd, last_ids, source):
    """Warns of blank lines and repeated tokens; raises ValueError if there are many."""
    token = lines[odd[0]]
    message = "{}:{}: token {!r} is {}".format(
        source,
        odd[0] + 1,
        token,
        "on line {}, too".format(last_ids[token] + 1) if token else "an empty line",
    )
    if len(odd) > max(1, _ODD_LINES * len(lines)):
        raise ValueError(
            "{}; {:,} of {:,} lines are empty or repeated; copy or download the "
            "vocabulary again (deleting a line would shift all later ids)".format(
                message, len(odd), len(lines)
            )
        )
    _LOGGER.warning("%s; it keeps its id, but no text gets it", message)


def _require_tokens(vocab, tokens, source):
    missing = [token for token in tokens if token not in vocab]
    if missing:
        raise ValueError(
            "{}: no {} among its {} entries; expected all of {}; give the vocabulary "
            "the model was trained with".format(
                source, " ".join(missing), len(vocab), " ".join(tokens)
            )
        )


def _read_file(path):
    """Returns the bytes of a local file, or of a remote one through TensorFlow."""
    if "://" in str(path):
        import tensorflow.compat.v1 as tf

        open_file, unreadable = tf.io.gfile.GFile, tf.errors.OpError
    else:
        open_file, unreadable = open, OSError
    try:
        with open_file(path, "rb") as vocabulary_file:
            return vocabulary_file.read()
    except unreadable as error:
        raise OSError(
            "cannot read the vocabulary: {}; give the file that came with the "
            "model".format(error)
        ) from error


def _is_dropped(char):
    """Whether cleaning removes a character: control, unassigned, U+FFFD, ..."""
    if char in "\t\n\r":
        return False
    return char == "\ufffd" or unicodedata.category(char).startswith("C")


def is_punctuation(char):
    """Whether a character is a word by itself; all ASCII symbols are."""
    if char < "\x80":
        return "!" <= char <= "~" and not char.isalnum()
    return unicodedata.category(char).startswith("P")


class _WordScanner:
    """Finds the words of a text, splits them into pieces and records their offsets.

    A text is a sequence of ideographs, white space and runs of anything else.
    Neither normalization nor words cross the border of a run, so the result for a
    character or a short run is computed once and cached.
    """

    def __init__(self, do_lower_case, split_word):
        """`split_word` is a function from a word (str) to its list of pieces."""
        self._do_lower_case = do_lower_case
        self._split_word = split_word
        self._alone = {}
        self._runs = {}
        # In `_runs`. Threads may miscount it by a few until the next clearing.
        self._num_pieces = 0

    def scan(self, text):
        """Returns three lists: the tokens of `text`, their starts, their ends."""
        texts, starts, ends = [], [], []
        alone = self._alone
        runs = self._runs
        run_start = -1
        # The space ends a run at the end of the text.
        for index, char in enumerate(text + " "):
            try:
                token = alone[char]
            except KeyError:
                token = self._classify(char)
            if token is None:
                if run_start < 0:
                    run_start = index
                continue
            if run_start >= 0:
                run = text[run_start:index]
                found = runs.get(run)
                if found is None:
                    found = self._pieces(run)
                for piece, start, end in found:
                    texts.append(piece)
                    starts.append(run_start + start)
                    ends.append(run_start + end)
                run_start = -1
            if token:
                texts.append(token)
                starts.append(index)
                ends.append(index + 1)
        return texts, starts, ends

    def makes_token(self, char):
        """Whether a character makes a token, which its neighbours cannot change."""
        if _is_dropped(char) or char.isspace():
            return False
        return bool(self._normalize(char))

    def _classify(self, char):
        """Caches and returns an ideograph's token, "" for white space, else None."""
        token = None
        if not _is_dropped(char):
            if char.isspace():
                token = ""
            elif is_chinese_char(ord(char)):
                token = self._split(char)[0].text
        if len(self._alone) >= _MAX_REMEMBERED_CHARS:
            self._alone.clear()
        self._alone[char] = token
        return token

    def _pieces(self, run):
        """Returns, and caches, the pieces of a run as a list of `Token`s."""
        found = self._split(run)
        if len(run) > _MAX_REMEMBERED_RUN_CHARS:
            return found
        if (
            len(self._runs) >= _MAX_REMEMBERED_RUNS
            or self._num_pieces + len(found) > _MAX_REMEMBERED_PIECES
        ):
            self._runs.clear()
            self._num_pieces = 0
        self._runs[run] = found
        self._num_pieces += len(found)
        return found

    def _split(self, run):
        """Returns the pieces of a run as a list of `Token`s."""
        found = []
        for word in self._words(run):
            pieces = self._split_word("".join(char.text for char in word))
            first = 0
            for piece in pieces:
                last = first + len(piece) - (2 if first else 0)
                if len(pieces) == 1:  # [UNK] or a substitute, of any length
                    last = len(word)
                found.append(Token(piece, word[first].start, word[last - 1].end))
                first = last
        return found

    def _words(self, run):
        """Returns the words of a run, each a list of characters (`Token`)."""
        words = []
        open_word = False
        for char in self._normalized(run):
            stands_alone = is_punctuation(char.text)
            if stands_alone or not open_word:
                words.append([])
            words[-1].append(char)
            open_word = not stands_alone
        return words

    def _normalized(self, run):
        """Returns the normalized characters of a run as a list of `Token`s.

        Lower-casing is per character (so a final sigma is treated like any other),
        then follows canonical composition and, in lower case, decomposition without
        the accents.
        """
        clusters = []
        for index, source in enumerate(run):
            if _is_dropped(source):
                continue
            for char in source.lower() if self._do_lower_case else source:
                if not clusters or _starts_cluster(clusters[-1], char):
                    clusters.append([])
                clusters[-1].append((char, index))
        normalized = []
        for cluster in clusters:
            whole = self._normalize("".join(char for char, _ in cluster))
            parts = [self._normalize(char) for char, _ in cluster]
            start, end = cluster[0][1], cluster[-1][1] + 1
            if "".join(parts) != whole:
                normalized.extend(Token(char, start, end) for char in whole)
                continue
            for part, (_, index) in zip(parts, cluster):
                normalized.extend(Token(char, index, index + 1) for char in part)
                if not part and normalized:
                    # The span of a letter includes its stripped accent.
                    normalized[-1] = normalized[-1]._replace(end=index + 1)
        return normalized

    def _normalize(self, text):
        text = _composed(text)
        if not self._do_lower_case:
            return text
        text = unicodedata.normalize("NFD", text.lower())
        return "".join(char for char in text if unicodedata.category(char) != "Mn")


def _starts_cluster(cluster, char):
    """Whether normalization never combines `char` with a list of (char, index)."""
    if char < "\u0300":  # below the first combining mark
        return True
    if unicodedata.combining(unicodedata.normalize("NFD", char)[0]):
        return False
    before = "".join(char for char, _ in cluster)
    return _composed(before + char) == _composed(before) + _composed(char)


def _composed(text):
    """Returns the NFC of `text`, in near-linear time for any number of marks."""
    if len(text) > _MAX_UNSORTED_MARKS:
        decomposed = "".join(unicodedata.normalize("NFD", char) for char in text)
        ordered = []
        for _, chars in itertools.groupby(decomposed, _is_mark):
            # A stable sort is the canonical order; characters that are no marks have
            # the class 0.
            ordered.extend(sorted(chars, key=unicodedata.combining))
        text = "".join(ordered)
    return unicodedata.normalize("NFC", text)


def _is_mark(char):
    return unicodedata.combining(char) > 0


class WordpieceTokenizer:
    """Splits words into the longest matching vocabulary entries, left to right."""

    def __init__(self, vocab, unk_token="[UNK]", max_input_chars_per_word=100):
        """A word that is longer or cannot be split into entries is `unk_token`."""
        self.vocab = vocab
        self.unk_token = unk_token
        self.max_input_chars_per_word = max_input_chars_per_word
        self._longest_entry = max(map(len, vocab), default=0)

    def tokenize(self, text):
        """Returns the pieces of `text`, words separated by white space.

        For example "unaffable" is ["un", "##aff", "##able"].
        """
        words = whitespace_tokenize(text)
        return [piece for word in words for piece in self.split_word(word)]

    def split_word(self, word):
        """Returns the list of pieces of one word, at least one."""
        if len(word) > self.max_input_chars_per_word:
            return [self.unk_token]
        pieces = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest_entry), start, -1):
                piece = prefix + word[start:end]
                if piece in self.vocab:
                    break
            else:
                return [self.unk_token]
            pieces.append(piece)
            start = end
        return pieces


class _SentencePieceScanner:
    """Tokenizes with a SentencePiece model as ALBERT does, with offsets."""

    def __init__(self, model, source, do_lower_case):
        """`model` is the model file's bytes; `source` names it in messages."""
        try:
            from sentencepiece import SentencePieceProcessor

            self._normalize = SentencePieceProcessor.Normalize  # since 0.2
        except (ImportError, AttributeError) as error:
            raise ImportError(
                "spm_model_file requires SentencePiece 0.2 or later: run "
                "`pip install --upgrade sentencepiece`"
            ) from error
        self._do_lower_case = do_lower_case
        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(
                "{}: not a SentencePiece model; expected ALBERT's spiece.model".format(
                    source
                )
            ) from error
        ids = range(self._processor.GetPieceSize())
        if any(self._processor.IsByte(piece_id) for piece_id in ids):
            raise ValueError(
                "{}: has byte fallback, whose pieces have no character offsets; train "
                "the model with byte_fallback=false".format(source)
            )
        self.vocab = collections.OrderedDict(
            (self._processor.IdToPiece(piece_id), piece_id) for piece_id in ids
        )

    def scan(self, text):
        """Returns three lists: the pieces of `text`, their starts, their ends.

        A span excludes the white space of a piece's leading mark; a piece that is
        only the mark has an empty span.
        """
        prepared, spans = self._prepare(text)
        normalized, origins = self._normalize(
            self._processor, prepared, with_offsets=True
        )
        spans.append((len(text), len(text)))  # for a mark at the end
        texts, starts, ends = self._pieces(prepared), [], []
        last = 0
        for piece in texts:
            first = last + normalized.startswith(_SPM_SPACE, last)
            last = first + len(piece) - piece.startswith(_SPM_SPACE)
            starts.append(spans[origins[first]][0])
            # One character may become several pieces: each has at least that one.
            final = max(origins[last] - 1, origins[first])
            ends.append(spans[final][1] if last > first else starts[-1])
        return texts, starts, ends

    def makes_token(self, char):
        """Whether a character alone makes a token."""
        return bool(self.scan(char)[0])

    def _pieces(self, prepared):
        """Returns the pieces, with a comma after a digit split off.

        So "9,9" is split the same way everywhere.
        """
        pieces = []
        for piece in self._processor.EncodeAsPieces(prepared):
            if len(piece) < 2 or piece[-1] != "," or not piece[-2].isdigit():
                pieces.append(piece)
                continue
            number = piece[:-1].replace(_SPM_SPACE, "")
            parts = self._processor.EncodeAsPieces(number)
            if not piece.startswith(_SPM_SPACE) and parts[0].startswith(_SPM_SPACE):
                parts[0] = parts[0][1:]
            pieces.extend(part for part in parts if part)
            pieces.append(",")
        return pieces

    def _prepare(self, text):
        """Returns `text` as passed to SentencePiece, and a span per character.

        White space is collapsed, `` and '' become ", accents are stripped by
        compatibility decomposition, and the text is lower-cased if the model is.
        """
        chars, spans = [], []
        first = len(text) - len(text.lstrip())
        for unit in _SPM_UNITS.finditer(text, first, len(text.rstrip())):
            start, end = unit.span()
            char = unit.group()
            if unicodedata.category(char[0]) == "Cs":
                continue  # a lone surrogate has no UTF-8
            char = " " if char.isspace() else char if len(char) == 1 else '"'
            for part in unicodedata.normalize("NFKD", char):
                if not unicodedata.combining(part):
                    chars.append(part)
                    spans.append((start, end))
                elif spans and spans[-1][1] == start:
                    spans[-1] = (spans[-1][0], end)
        prepared = "".join(chars)
        if not self._do_lower_case:
            return prepared, spans
        spans = [span for char, span in zip(chars, spans) for _ in char.lower()]
        return prepared.lower(), spans


class _OffsetTokenizer:
    """Base class: tokens of a scanner, with or without offsets."""

    def tokenize(self, text):
        """Returns the list of tokens (str) of `text` (str or UTF-8 bytes)."""
        return self._scanner.scan(convert_to_unicode(text))[0]

    def tokenize_with_offsets(self, text):
        """Returns the tokens of `text` as a list of `Token`.

        [UNK] has the span of its word. Starts and ends never decrease; two spans
        overlap only if both tokens came from the same characters.
        """
        columns = self._scanner.scan(convert_to_unicode(text))
        return list(map(_token_from_tuple, zip(*columns)))

    def has_tokens(self, text):
        """Whether `text` (str) has any token; reads no further than the first.

        White space, control characters and invisible ones (zero-width space, byte
        order mark, soft hyphen, ...) make none.
        """
        return any(map(self._scanner.makes_token, text))


class BasicTokenizer(_OffsetTokenizer):
    """Splits text into BERT's words: cleaning, ideographs, case, punctuation."""

    def __init__(self, do_lower_case=True):
        """`do_lower_case` also strips accents."""
        self._scanner = _WordScanner(do_lower_case, self._whole_word)

    @staticmethod
    def _whole_word(word):
        return [word]


class FullTokenizer(_OffsetTokenizer):
    """Turns text into tokens and ids of a model: WordPiece or SentencePiece.

    Attributes:
      vocab: `OrderedDict` of token (str) -> id (int).
      inv_vocab: dict of id -> token.
      vocab_size: number of entries.
      pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.
      basic_tokenizer, wordpiece_tokenizer: the two steps of a WordPiece vocabulary.
    """

    def __init__(
        self,
        vocab_file,
        do_lower_case=True,
        spm_model_file=None,
        normalize_punctuation=False,
    ):
        """Loads the vocabulary.

        Args:
          vocab_file: path of a WordPiece vocabulary, see `load_vocab`. Ignored, and
            may be None, with `spm_model_file`, which includes its vocabulary (the
            published commands give both).
          do_lower_case: whether to lower-case and, for WordPiece, strip accents
            (SentencePiece models never see accents).
          spm_model_file: path of a SentencePiece model.
          normalize_punctuation: whether each of “ ” ‘ ’ … — that the WordPiece
            vocabulary lacks becomes its substitute in `PUNCTUATION_SUBSTITUTES`.
            The published models were trained without it: all six are [UNK].

        Raises:
          OSError: a file cannot be read.
          ImportError: SentencePiece is required and not installed.
          ValueError: a bad vocabulary or model, or options that exclude each other.
        """
        path = spm_model_file or vocab_file
        if not path:
            raise ValueError("no vocabulary: give vocab_file or spm_model_file")
        _refuse_punctuation(normalize_punctuation, spm_model_file)
        self._load(
            _read_file(path),
            path,
            is_sentencepiece=bool(spm_model_file),
            do_lower_case=do_lower_case,
            normalize_punctuation=normalize_punctuation,
        )

    @classmethod
    def from_bytes(
        cls,
        content,
        is_sentencepiece=False,
        do_lower_case=True,
        normalize_punctuation=False,
        source="the vocabulary",
    ):
        """Makes a tokenizer from the bytes of a vocabulary file.

        Args:
          content: bytes of a WordPiece vocabulary or of a SentencePiece model.
          is_sentencepiece: bool, which of the two it is.
          do_lower_case, normalize_punctuation: as of the constructor.
          source: name of the content in messages.

        Raises:
          ImportError, ValueError: as the constructor.
        """
        if is_sentencepiece:
            _refuse_punctuation(normalize_punctuation, source)
        tokenizer = cls.__new__(cls)
        tokenizer._load(
            content, source, is_sentencepiece, do_lower_case, normalize_punctuation
        )
        return tokenizer

    def _load(
        self, content, source, is_sentencepiece, do_lower_case, normalize_punctuation
    ):
        if is_sentencepiece:
            self._scanner = _SentencePieceScanner(content, source, do_lower_case)
            self.vocab = self._scanner.vocab
            specials = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
            _require_tokens(self.vocab, specials, source)
        else:
            self.vocab = _parse_vocab(content, source)
            specials = SPECIAL_TOKENS
            marks = PUNCTUATION_SUBSTITUTES if normalize_punctuation else ()
            self._substitutes = {
                mark: substitute
                for mark, substitute in marks
                if mark not in self.vocab and substitute in self.vocab
            }
            self._wordpiece = WordpieceTokenizer(self.vocab)
            # BERT's names.
            self.basic_tokenizer = BasicTokenizer(do_lower_case)
            self.wordpiece_tokenizer = self._wordpiece
            self._scanner = _WordScanner(do_lower_case, self._split_word)
        self.inv_vocab = {token_id: token for token, token_id in self.vocab.items()}
        self.vocab_size = len(self.vocab)
        ids = [self.vocab[token] for token in specials]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids
        # SentencePiece may return pieces that are not in the vocabulary.
        self._default_id = self.unk_id if is_sentencepiece else None
        self._begins = _begins_piece if is_sentencepiece else _begins_wordpiece
        self._begins_word = np.array([self._begins(token) for token in self.vocab])

    def _split_word(self, word):
        return self._wordpiece.split_word(self._substitutes.get(word, word))

    def encode_sentences(self, sentences):
        """Tokenizes many sentences into arrays.

        Args:
          sentences: list of str.

        Returns:
          `SentenceTokens`.
        """
        texts, starts, ends, counts = [], [], [], []
        for sentence in sentences:
            columns = self._scanner.scan(sentence)
            texts += columns[0]
            starts += columns[1]
            ends += columns[2]
            counts.append(len(columns[0]))
        ids = np.array(self.convert_tokens_to_ids(texts), np.int32)
        begins_word = self._begins_word[ids]
        if self._default_id is not None:
            for place in np.flatnonzero(ids == self._default_id).tolist():
                begins_word[place] = self._begins(texts[place])
        counts = np.array(counts, np.int64)
        lengths = np.array([len(sentence) for sentence in sentences], np.int64)
        offsets = np.repeat(np.cumsum(lengths) - lengths, counts)
        return SentenceTokens(
            ids,
            np.array(starts, np.int64) + offsets,
            np.array(ends, np.int64) + offsets,
            begins_word,
            counts,
        )

    def convert_tokens_to_ids(self, tokens):
        """Returns the list of ids of `tokens`.

        Raises:
          ValueError: a token is not in the WordPiece vocabulary. (With
            SentencePiece it has `unk_id`.)
        """
        if self._default_id is None:
            return _look_up(self.vocab, tokens, "token")
        return [self.vocab.get(token, self._default_id) for token in tokens]

    def convert_ids_to_tokens(self, ids):
        """Returns the list of tokens of `ids`; raises ValueError for an unknown id."""
        return _look_up(self.inv_vocab, ids, "id")


def _refuse_punctuation(normalize_punctuation, spm_model_file):
    if spm_model_file and normalize_punctuation:
        raise ValueError(
            "normalize_punctuation is for WordPiece vocabularies, received "
            "spm_model_file={}; leave one out".format(spm_model_file)
        )


def _begins_wordpiece(token):
    return not token.startswith("##")


def _begins_piece(piece):
    """Whether a SentencePiece piece begins a word; punctuation stands alone."""
    return piece.startswith(_SPM_SPACE) or not any(map(str.isalnum, piece))


def _look_up(table, keys, kind):
    try:
        return [table[key] for key in keys]
    except KeyError as error:
        raise ValueError(
            "{} {!r} is not in the vocabulary of {} entries".format(
                kind, error.args[0], len(table)
            )
        ) from error
