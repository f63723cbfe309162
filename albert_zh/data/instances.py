"""Pretraining instances from tokenized text: sentence-order pairs.

An instance is `[CLS] A [SEP] B [SEP]`, where A and B are consecutive stretches of
one document, in swapped order with probability 1/2 (sentence-order prediction,
ALBERT, arXiv:1909.11942, section 3.1), with some words masked (see `masking`).

The documents of a shard are concatenated in flat NumPy arrays. A pair is a few numbers
that point into them, so that all pairs of a shard can be drawn and shuffled before
instances are made, batch by batch. Random generators are arguments; TensorFlow is not
needed.
"""

import bisect
from typing import NamedTuple

import numpy as np

from albert_zh.data import corpus, masking

# Marks that end a clause. A closing mark after one of them, or after one that ends a
# sentence, belongs to the same clause or sentence.
CLAUSE_ENDS = corpus.SENTENCE_ENDS + "，、：—,:"
CLOSING_MARKS = "”’」』）》】〉\"')]"

NUM_SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]

# Half a chunk of fewer tokens makes no two segments that are worth comparing.
_MIN_OVERLAPPING_TOKENS = 8
# In a record with fewer tokens for a segment, nothing overlaps.
_MIN_OVERLAPPING_LENGTH = 4

# Memory and disk grow with it; the published command uses 10.
MAX_DUPE_FACTOR = 1000

# Instances per batch: their arrays mostly fit the processor's cache.
BATCH_INSTANCES = 128


class Settings(NamedTuple):
    """How instances are made; the defaults are the published command's.

    Attributes:
      max_seq_length: tokens in an instance, including [CLS] and [SEP].
      short_seq_prob: share of instances made shorter than max_seq_length.
      dupe_factor: how often each document is used, with other pairs and masks.
      masks: `masking.MaskSettings`, None if the reader draws the masks.
      overlap_prob: share of chunks that become two instances each, whose segments
        overlap (see `_overlapping_pairs`).
    """

    max_seq_length: int = 512
    short_seq_prob: float = 0.1
    dupe_factor: int = 10
    masks: masking.MaskSettings = masking.MaskSettings()
    overlap_prob: float = 0.0

    @property
    def max_text_tokens(self):
        """Tokens that A and B may have in total."""
        return self.max_seq_length - NUM_SPECIAL_TOKENS

    def check(self):
        """Raises ValueError, naming the setting, if one is out of range."""
        shortest = NUM_SPECIAL_TOKENS + 2
        masking.check_ranges(
            self,
            masking.in_range("max_seq_length", shortest, masking.MAX_SEQ_LENGTH),
            ("short_seq_prob", "0 to 1", lambda x: 0 <= x <= 1),
            masking.in_range("dupe_factor", 1, MAX_DUPE_FACTOR),
            ("overlap_prob", "0 to 1", lambda x: 0 <= x <= 1),
        )
        if self.masks is not None:
            self.masks.check()


class Vocabulary(NamedTuple):
    """Properties of a vocabulary that instances need.

    Attributes:
      cls_id, sep_id, mask_id, unk_id: ids of the special tokens.
      ordinary_ids: int32 [num_ordinary], ids a random replacement is drawn from:
        no special or reserved tokens (`[...]`, `<...>`), no `##` pieces.
      ends_sentence, ends_clause, closes: bool [vocab_size], whether a token is
        ordinary and ends in such a mark.
    """

    cls_id: int
    sep_id: int
    mask_id: int
    unk_id: int
    ordinary_ids: np.ndarray
    ends_sentence: np.ndarray
    ends_clause: np.ndarray
    closes: np.ndarray

    @classmethod
    def from_tokenizer(cls, tokenizer):
        """Reads a `tokenization.FullTokenizer`.

        Raises:
          ValueError: there is no token to draw random replacements from.
        """
        tokens = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
        is_ordinary = [_is_ordinary(token) for token in tokens]
        ordinary = np.flatnonzero(is_ordinary)
        if not len(ordinary):
            raise ValueError(
                "the vocabulary's {} tokens are all special, reserved or `##` pieces; "
                "expected ordinary tokens to draw replacements from".format(len(tokens))
            )

        last_characters = [token[-1:] for token in tokens]

        def ends_in(marks):
            return np.isin(last_characters, list(marks)) & is_ordinary

        return cls(
            tokenizer.cls_id,
            tokenizer.sep_id,
            tokenizer.mask_id,
            tokenizer.unk_id,
            ordinary.astype(np.int32),
            ends_in(corpus.SENTENCE_ENDS),
            ends_in(CLAUSE_ENDS),
            ends_in(CLOSING_MARKS),
        )


class TokenizedText(NamedTuple):
    """The tokens of documents, concatenated.

    Attributes:
      token_ids: int32 [num_tokens].
      word_starts: bool [num_tokens], whether a token begins a word.
      sentence_bounds: int64 [num_sentences + 1]; sentence i has the tokens from
        bounds[i] to bounds[i + 1].
      document_bounds: int64 [num_documents + 1], likewise.
    """

    token_ids: np.ndarray
    word_starts: np.ndarray
    sentence_bounds: np.ndarray
    document_bounds: np.ndarray


class Pairs(NamedTuple):
    """Sentence-order pairs, every array [num_pairs].

    Attributes:
      begin_a, length_a: int64, position of segment A in a `TokenizedText`.
      begin_b, length_b: int64, position of segment B.
      swapped: bool, whether A follows B in the document.
      num_truncated: int64, tokens of the text cut off, so that in neither segment.
    """

    begin_a: np.ndarray
    length_a: np.ndarray
    begin_b: np.ndarray
    length_b: np.ndarray
    swapped: np.ndarray
    num_truncated: np.ndarray

    @property
    def num_repeated(self):
        """Tokens of the text that both segments have, int64 [num_pairs]."""
        begin = np.maximum(self.begin_a, self.begin_b)
        end = np.minimum(self.begin_a + self.length_a, self.begin_b + self.length_b)
        return np.maximum(end - begin, 0)

    def take(self, places):
        """Returns the `Pairs` selected by an index array or slice."""
        return Pairs(*(column[places] for column in self))


class Batch(NamedTuple):
    """Instances of one batch, before masking.

    Attributes:
      input_ids: int32 [B, S], `[CLS] A [SEP] B [SEP]` and zeros.
      word_lengths: int32 [B, S], tokens of the word that begins at a position.
      second_begin: int64 [B], position of B's first token.
      length: int64 [B], tokens without padding.
    """

    input_ids: np.ndarray
    word_lengths: np.ndarray
    second_begin: np.ndarray
    length: np.ndarray


def tokenize(documents, tokenizer, word_boundaries):
    """Tokenizes and segments documents, once for all their duplicates.

    Args:
      documents: iterable of lists of str, the sentences.
      tokenizer: `tokenization.FullTokenizer`.
      word_boundaries: `segmentation.WordBoundaries`, or None to make every token a
        word.

    Returns:
      (text, num_empty): `TokenizedText` of the documents that have tokens;
      int, sentences left out because they have no token.
    """
    ids, starts, counts, document_bounds = [], [], [], [0]
    num_empty = 0
    for sentences in documents:
        columns = tokenizer.encode_sentences(sentences)
        num_empty += len(columns.counts) - np.count_nonzero(columns.counts)
        if not len(columns.ids):
            continue
        ids.append(columns.ids)
        if word_boundaries is None:
            starts.append(np.ones(len(columns.ids), np.bool_))
        else:
            starts.append(word_boundaries(sentences, columns))
        counts.append(columns.counts[columns.counts > 0])
        document_bounds.append(document_bounds[-1] + len(columns.ids))
    text = TokenizedText(
        np.concatenate(ids) if ids else np.zeros(0, np.int32),
        np.concatenate(starts) if ids else np.zeros(0, np.bool_),
        np.cumsum(np.concatenate([[0]] + counts)),
        np.array(document_bounds),
    )
    return text, int(num_empty)


def draw_pairs(text, settings, vocabulary, rng):
    """Draws the pairs of all documents, `settings.dupe_factor` times.

    Every token of a document is in one chunk of each duplicate. Instances lack only
    tokens truncated from chunks that are too long, and a last chunk of one token,
    which cannot make two segments.

    Args:
      text: `TokenizedText`.
      settings: `Settings`.
      vocabulary: `Vocabulary`.
      rng: `np.random.RandomState`.

    Returns:
      `Pairs`, document by document in each duplicate; those whose segments overlap
      come last.
    """
    text = split_long_sentences(text, settings.max_text_tokens, vocabulary)
    bounds = text.sentence_bounds
    chunks = _chunk_documents(text, settings, rng)
    chunks = chunks[bounds[chunks[:, 1]] - bounds[chunks[:, 0]] > 1]
    split = split_chunks(text, chunks, vocabulary, rng.random_sample(len(chunks)))
    begin, end = bounds[chunks[:, 0]], bounds[chunks[:, 1]]
    max_tokens = settings.max_text_tokens
    if not settings.overlap_prob:  # draws no more, so that a seed's bytes stay the same
        return _fit_pairs(begin, split, end, max_tokens, rng)
    overlap = rng.random_sample(len(chunks)) < settings.overlap_prob
    overlap &= np.minimum(split - begin, end - split) >= _MIN_OVERLAPPING_TOKENS
    overlap &= max_tokens // 2 >= _MIN_OVERLAPPING_LENGTH
    apart = _fit_pairs(begin[~overlap], split[~overlap], end[~overlap], max_tokens, rng)
    overlapping = _overlapping_pairs(
        np.concatenate([begin[overlap], split[overlap]]),
        np.concatenate([split[overlap], end[overlap]]),
        max_tokens,
        rng,
    )
    return Pairs(*map(np.concatenate, zip(apart, overlapping)))


def split_long_sentences(text, max_tokens, vocabulary):
    """Divides the sentences that are longer than an instance.

    Such a line is usually a paragraph, and is divided after every mark that ends a
    sentence. A part that is still too long is divided, from the left, after the last
    clause that fits, else after the last word that fits, else at `max_tokens`.

    Args:
      text: `TokenizedText`.
      max_tokens: the most tokens in a sentence.
      vocabulary: `Vocabulary`.

    Returns:
      The `TokenizedText` with more sentence bounds.
    """
    bounds = text.sentence_bounds
    too_long = np.flatnonzero(np.diff(bounds) > max_tokens)
    if not len(too_long):
        return text
    sentence_breaks = _breaks(text, vocabulary.ends_sentence, vocabulary)
    clause_breaks = _breaks(text, vocabulary.ends_clause, vocabulary)
    word_breaks = np.append(text.word_starts[1:], True)
    inner = []
    for begin, end in zip(bounds[too_long].tolist(), bounds[too_long + 1].tolist()):
        parts = np.flatnonzero(sentence_breaks[begin : end - 1]) + begin + 1
        for part_end in parts.tolist() + [end]:
            while part_end - begin > max_tokens:
                window = slice(begin, begin + max_tokens)
                begin = _last_break(window, clause_breaks, word_breaks)
                inner.append(begin)
            begin = part_end
        inner.extend(parts.tolist())
    return text._replace(sentence_bounds=np.union1d(bounds, inner).astype(np.int64))


def chunk_sentences(bounds, first, last, max_tokens, short_seq_prob, rng):
    """Groups consecutive sentences into chunks, one per instance.

    A chunk takes sentences until it reaches its target length: `max_tokens`, or,
    with probability `short_seq_prob`, a uniform draw from 2 to `max_tokens`, so that
    the model also sees short inputs. Each chunk draws its own target; BERT draws one
    per document, which makes the share of short instances depend on the documents'
    lengths. A sentence that exceeds `max_tokens` is kept, and truncated, if at least
    half of it fits; else it begins the next chunk. So little text is lost and few
    instances are padded.

    Args:
      bounds: list of int [num_sentences + 1], token offsets; no sentence is longer
        than `max_tokens`.
      first: index of the document's first sentence.
      last: index after its last sentence.
      max_tokens: tokens of an instance, without the special tokens.
      short_seq_prob: share of chunks with a shorter target.
      rng: `np.random.RandomState`.

    Yields:
      (first, end): sentence range of a chunk; the chunks cover all sentences.
    """
    while first < last:
        target = max_tokens
        if rng.random_sample() < short_seq_prob:
            target = rng.randint(2, max_tokens + 1)
        begin = bounds[first]
        end = bisect.bisect_left(bounds, begin + target, first + 1, last)
        num_cut = bounds[end] - begin - max_tokens
        if end > first + 1 and num_cut > max_tokens - (bounds[end - 1] - begin):
            end -= 1
        yield first, end
        first = end


def split_chunks(text, chunks, vocabulary, uniform):
    """Chooses where the second segments of chunks begin.

    Between two sentences if the chunk has several; else after a clause, else between
    words, else between tokens. Both segments are from the same document.

    Args:
      text: `TokenizedText`.
      chunks: int64 [num_chunks, 2], first sentence and end, at least two tokens each.
      vocabulary: `Vocabulary`.
      uniform: float64 [num_chunks], uniform in [0, 1), chooses among the places.

    Returns:
      int64 [num_chunks], the tokens where the second segments begin.
    """
    first, end = chunks.T
    num_inner = end - first - 1
    split = text.sentence_bounds[first + 1 + (uniform * num_inner).astype(np.int64)]
    single = np.flatnonzero(num_inner == 0)
    begin = text.sentence_bounds[first[single]]
    end = text.sentence_bounds[end[single]]
    clauses = np.flatnonzero(_breaks(text, vocabulary.ends_clause, vocabulary)) + 1
    words = np.flatnonzero(text.word_starts)
    tokens = np.arange(len(text.token_ids))
    for places in (clauses, words, tokens):
        low = np.searchsorted(places, begin + 1)
        number = np.searchsorted(places, end) - low
        found = number > 0
        chosen = low + (uniform[single] * number).astype(np.int64)
        split[single[found]] = places[chosen[found]]
        single, begin, end = single[~found], begin[~found], end[~found]
    return split


def truncated_lengths(length_a, length_b, max_tokens):
    """Returns both lengths after the longer segment has lost tokens one by one."""
    kept_b = np.minimum(length_b, np.maximum(max_tokens // 2, max_tokens - length_a))
    return np.minimum(length_a, max_tokens - kept_b), kept_b


def assemble(text, pairs, max_seq_length, vocabulary):
    """Makes the instances of pairs.

    Args:
      text: `TokenizedText`.
      pairs: `Pairs`, B of them.
      max_seq_length: S, tokens of an instance.
      vocabulary: `Vocabulary`.

    Returns:
      `Batch`.
    """
    rows = np.arange(len(pairs.swapped))
    position = np.arange(max_seq_length)
    first_sep = pairs.length_a + 1
    last_sep = first_sep + pairs.length_b + 1
    in_b = position > first_sep[:, None]
    source = position + np.where(
        in_b, (pairs.begin_b - first_sep - 1)[:, None], (pairs.begin_a - 1)[:, None]
    )
    is_text = position < last_sep[:, None]
    is_text[:, 0] = False
    is_text[rows, first_sep] = False
    source *= is_text
    input_ids = text.token_ids[source] * is_text
    input_ids[:, 0] = vocabulary.cls_id
    input_ids[rows, first_sep] = vocabulary.sep_id
    input_ids[rows, last_sep] = vocabulary.sep_id

    # A word ends at the next word or [SEP]. The rest of a word that truncation cut at
    # the beginning of a segment counts as a word.
    borders = text.word_starts[source] & is_text
    borders[:, 1] = True
    borders[rows, first_sep + 1] = True
    borders[rows, first_sep] = True
    borders[rows, last_sep] = True
    places = np.flatnonzero(borders)
    word_lengths = np.zeros(borders.shape, np.int32)
    word_lengths.ravel()[places[:-1]] = np.diff(places)
    word_lengths[rows, first_sep] = 0
    word_lengths[rows, last_sep] = 0
    return Batch(input_ids, word_lengths, first_sep + 1, last_sep + 1)


def _chunk_documents(text, settings, rng):
    """Returns the chunks of all documents and duplicates, int64 [num_chunks, 2]."""
    bounds = text.sentence_bounds.tolist()
    documents = np.searchsorted(text.sentence_bounds, text.document_bounds).tolist()
    duplicates = []
    for _ in range(settings.dupe_factor):
        chunks = []
        for first, last in zip(documents, documents[1:]):
            for chunk in chunk_sentences(
                bounds,
                first,
                last,
                settings.max_text_tokens,
                settings.short_seq_prob,
                rng,
            ):
                chunks += chunk
        duplicates.append(np.array(chunks, np.int64))
    return np.concatenate(duplicates).reshape([-1, 2])


def _fit_pairs(begin, split, end, max_tokens, rng):
    """Makes `Pairs` of chunks [begin, end) divided at `split`, all int64 [n]."""
    kept = truncated_lengths(split - begin, end - split, max_tokens)
    segments = []
    for segment_begin, segment_end, length in zip((begin, split), (split, end), kept):
        # Each token is cut from the front or the back at random, as in BERT: cutting
        # only the outer ends would reveal the order of the segments.
        num_cut = segment_end - segment_begin - length
        segments.append((segment_begin + rng.binomial(num_cut, 0.5), length))
    num_truncated = end - begin - sum(kept)
    return _swap_at_random(segments, num_truncated, rng)


def _overlapping_pairs(begin, end, max_tokens, rng):
    """Makes `Pairs` whose segments share most of their tokens.

    Both are cut from one window: the first begins with it, the second ends with it.
    Each has three quarters of its tokens or more, but not all, and at most half an
    instance. Most masked words can be read in the other segment, at another position,
    and what the segments share tells which is first. Their ends are not to tell it: the
    window begins and ends within the stretch, so that no segment has its first or last
    token, a mark of punctuation in most cases.

    Args:
      begin, end: int64 [n], the stretches of text, of `_MIN_OVERLAPPING_TOKENS` tokens
        or more.
      max_tokens: int, the most tokens of both segments, twice
        `_MIN_OVERLAPPING_LENGTH` or more.
      rng: `np.random.RandomState`.
    """

    def draw(low, high):
        uniform = rng.random_sample(len(begin))
        return low + (uniform * (high - low + 1)).astype(np.int64)

    num_tokens = end - begin
    first = begin + draw(1, num_tokens // 8)
    last = end - draw(1, num_tokens // 8)
    # Three quarters of a longer window would not fit.
    size = np.minimum(last - first, max_tokens // 2 * 4 // 3)
    first += draw(0, last - first - size)
    shortest = -(-3 * size // 4)
    length = draw(shortest, np.minimum(size - 1, max_tokens // 2))
    segments = (first, length), (first + size - length, length)
    return _swap_at_random(segments, num_tokens - size, rng)


def _swap_at_random(segments, num_truncated, rng):
    """Makes `Pairs` of two segments in the text's order, (begin, length) each.

    Args:
      segments: two pairs of int64 [n].
      num_truncated: int64 [n], as of `Pairs`.
      rng: `np.random.RandomState`.
    """
    (begin_1, length_1), (begin_2, length_2) = segments
    swapped = rng.randint(2, size=len(begin_1)).astype(np.bool_)
    return Pairs(
        np.where(swapped, begin_2, begin_1),
        np.where(swapped, length_2, length_1),
        np.where(swapped, begin_1, begin_2),
        np.where(swapped, length_1, length_2),
        swapped,
        num_truncated,
    )


def _breaks(text, ends, vocabulary):
    """Marks the tokens after which a sentence or clause ends.

    Only the last of several marks in a row counts, and only before a new word, so
    that neither "？！" nor "3.14" is divided. A closing mark at the beginning of a
    sentence is ignored.

    Args:
      text: `TokenizedText`.
      ends: bool [vocab_size], `vocabulary.ends_sentence` or `.ends_clause`.
      vocabulary: `Vocabulary`.

    Returns:
      bool [num_tokens].
    """
    ends = ends[text.token_ids]
    marks = ends | vocabulary.closes[text.token_ids]
    breaks = ends.copy()
    breaks[1:] |= marks[1:] & ends[:-1]
    firsts = text.sentence_bounds[:-1]
    breaks[firsts] = ends[firsts]
    breaks[:-1] &= ~marks[1:] & text.word_starts[1:]
    return breaks


def _last_break(window, *kinds_of_breaks):
    """Returns where to cut a window of tokens: after the last break, else its end."""
    for breaks in kinds_of_breaks:
        places = np.flatnonzero(breaks[window])
        if len(places):
            return window.start + int(places[-1]) + 1
    return window.stop


def _is_ordinary(token):
    bracketed = len(token) > 2 and (token[0], token[-1]) in (("[", "]"), ("<", ">"))
    return not bracketed and not (token.startswith("##") and len(token) > 2)
