"""Pretraining instances out of tokenized documents: sentence order and word masks.

Every function works on one document or one instance, holds its tokens in flat NumPy
arrays and takes its random generator as an argument; nothing here needs TensorFlow.

An instance is `[CLS] A [SEP] B [SEP]`, where A and B are consecutive stretches of
one document, in swapped order with probability 1/2 (sentence-order prediction,
ALBERT, arXiv:1909.11942, section 3.1), with some words masked.

A masked word is masked whole, and each of its *tokens* is then replaced by [MASK]
with probability 0.8, left as it is with 0.1, or replaced by a random ordinary token
with 0.1. The choice is made per token, as BERT, its whole-word-masking release and
ALBERT make it: per word, a randomly replaced word would be a string of tokens that
no text holds, and a kept one would be given away by its neighbours.
"""

from typing import List, NamedTuple

import numpy as np

# Marks after which a sentence, or a clause of it, ends; a closing mark that follows
# one of them belongs to what it closes.
SENTENCE_ENDS = "。！？；….!?;"
CLAUSE_ENDS = SENTENCE_ENDS + "，、：—,:"
CLOSING_MARKS = "”’」』）》】〉\"')]"

NUM_SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]

# Kinds of replacement, the values of `Instance.replacements`.
MASKED, KEPT, RANDOM = range(3)


class Settings(NamedTuple):
    """How instances are made; the defaults are those of the published command.

    Attributes:
      max_seq_length: tokens in an instance, [CLS] and [SEP] included.
      max_predictions_per_seq: masked tokens in an instance at most.
      masked_lm_prob: share of the tokens of A and B that is masked.
      short_seq_prob: share of instances made shorter than max_seq_length.
      ngram: longest run of words masked together.
      dupe_factor: times each document is used, with other pairs and masks.
    """

    max_seq_length: int = 512
    max_predictions_per_seq: int = 51
    masked_lm_prob: float = 0.1
    short_seq_prob: float = 0.1
    ngram: int = 1
    dupe_factor: int = 10

    @property
    def max_text_tokens(self):
        """Tokens that A and B may have together."""
        return self.max_seq_length - NUM_SPECIAL_TOKENS

    def check(self):
        """Raises ValueError, naming the setting, where one is out of its range."""
        shortest = NUM_SPECIAL_TOKENS + 2
        for name, expected, valid in (
            ("max_seq_length", "at least %d" % shortest, lambda x: x >= shortest),
            ("max_predictions_per_seq", "at least 1", lambda x: x >= 1),
            ("masked_lm_prob", "more than 0, less than 1", lambda x: 0 < x < 1),
            ("short_seq_prob", "0 to 1", lambda x: 0 <= x <= 1),
            ("ngram", "at least 1", lambda x: x >= 1),
            ("dupe_factor", "at least 1", lambda x: x >= 1),
        ):
            value = getattr(self, name)
            if not valid(value):
                raise ValueError("{}={}, expected {}".format(name, value, expected))


class Vocabulary(NamedTuple):
    """What masking needs to know of a vocabulary.

    Attributes:
      cls_id, sep_id, mask_id, unk_id: ids of the special tokens.
      ordinary_ids: int32 [num_ordinary], ids a random replacement is drawn from:
        no special or reserved tokens (`[...]`, `<...>`), no `##` pieces.
      ends_sentence, ends_clause, closes: bool [vocab_size], whether an ordinary
        token ends in such a mark.
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
          ValueError: no token is left to draw random replacements from.
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
            ends_in(SENTENCE_ENDS),
            ends_in(CLAUSE_ENDS),
            ends_in(CLOSING_MARKS),
        )


class TokenizedDocument(NamedTuple):
    """A document's tokens, end to end.

    Attributes:
      token_ids: int32 [num_tokens].
      word_starts: bool [num_tokens], whether a token begins a word.
      sentence_bounds: int32 [num_sentences + 1]; sentence i is the tokens from
        bounds[i] to bounds[i + 1].
      num_empty_sentences: sentences left out because they hold no token.
    """

    token_ids: np.ndarray
    word_starts: np.ndarray
    sentence_bounds: np.ndarray
    num_empty_sentences: int


class Instance(NamedTuple):
    """One training example, not yet padded.

    Attributes:
      input_ids: int32 [length], `[CLS] A [SEP] B [SEP]` after masking.
      segment_ids: int32 [length], 0 for `[CLS] A [SEP]`, 1 for `B [SEP]`.
      masked_lm_positions: int32 [num_masked], ascending.
      masked_lm_ids: int32 [num_masked], the original token ids.
      swapped: bool, whether A follows B in the document.
      replacements: int8 [num_masked], MASKED, KEPT or RANDOM.
      ngram_lengths: list of int, words in each masked n-gram.
      num_truncated: tokens cut off the two segments to make them fit.
      capped: bool, whether max_predictions_per_seq limited the masks.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    masked_lm_positions: np.ndarray
    masked_lm_ids: np.ndarray
    swapped: bool
    replacements: np.ndarray
    ngram_lengths: List[int]
    num_truncated: int
    capped: bool


def generate_instances(
    documents, tokenizer, word_boundaries, vocabulary, statistics, rng
):
    """Streams the instances of all documents.

    Each document is tokenized and segmented once and used
    `statistics.settings.dupe_factor` times, then forgotten.

    Args:
      documents: iterable of `corpus.Document`.
      tokenizer: `tokenization.FullTokenizer`.
      word_boundaries: `segmentation.WordBoundaries` or None, see
        `tokenize_document`.
      vocabulary: `Vocabulary`.
      statistics: `statistics.Statistics`, which is updated.
      rng: `np.random.RandomState`.

    Yields:
      `Instance`s.
    """
    for document in documents:
        tokenized = tokenize_document(document.sentences, tokenizer, word_boundaries)
        statistics.add_document(tokenized, document.num_replaced_bytes)
        for instance in create_instances(
            tokenized, statistics.settings, vocabulary, rng
        ):
            statistics.add_instance(instance)
            yield instance


def tokenize_document(sentences, tokenizer, word_boundaries):
    """Tokenizes and segments a document, once for all its duplicates.

    Args:
      sentences: list of str.
      tokenizer: `tokenization.FullTokenizer`.
      word_boundaries: `segmentation.WordBoundaries`, or None where every token is a
        word of its own.

    Returns:
      `TokenizedDocument`.
    """
    ids, starts, bounds, num_empty = [], [], [0], 0
    for sentence in sentences:
        tokens = tokenizer.tokenize_with_offsets(sentence)
        if not tokens:
            num_empty += 1
            continue
        ids.extend(tokenizer.convert_tokens_to_ids([token.text for token in tokens]))
        if word_boundaries is None:
            starts.append(np.ones(len(tokens), np.bool_))
        else:
            starts.append(word_boundaries(sentence, tokens))
        bounds.append(len(ids))
    return TokenizedDocument(
        np.array(ids, np.int32),
        np.concatenate(starts) if starts else np.zeros(0, np.bool_),
        np.array(bounds, np.int32),
        num_empty,
    )


def create_instances(document, settings, vocabulary, rng):
    """Yields the instances of a document, `settings.dupe_factor` times over.

    Every token of the document is in one chunk of each duplicate. What can be
    missing from the instances is what truncation cuts off a chunk that is longer
    than an instance (`Instance.num_truncated`), and a last chunk of a single token,
    which has no two segments.

    Args:
      document: `TokenizedDocument`.
      settings: `Settings`.
      vocabulary: `Vocabulary`.
      rng: `np.random.RandomState`.

    Yields:
      `Instance`s in the document's order.
    """
    document = split_long_sentences(document, settings.max_text_tokens, vocabulary)
    clause_breaks = _breaks(document, vocabulary.ends_clause, vocabulary)
    bounds = document.sentence_bounds.tolist()
    for _ in range(settings.dupe_factor):
        for first, end in chunk_sentences(
            bounds, settings.max_text_tokens, settings.short_seq_prob, rng
        ):
            if bounds[end] - bounds[first] < 2:
                continue
            split = split_chunk(document, first, end, clause_breaks, rng)
            yield _create_instance(
                document, bounds[first], split, bounds[end], settings, vocabulary, rng
            )


def split_long_sentences(document, max_tokens, vocabulary):
    """Divides the sentences that are longer than an instance.

    Such a line is taken for the paragraph it mostly is and divided after every mark
    that ends a sentence. A part that is still too long is divided, from the left,
    after the last clause that fits, else after the last word, else anywhere.

    Args:
      document: `TokenizedDocument`.
      max_tokens: tokens a sentence may have.
      vocabulary: `Vocabulary`.

    Returns:
      The `TokenizedDocument` with further sentence bounds.
    """
    if np.diff(document.sentence_bounds).max(initial=0) <= max_tokens:
        return document
    sentence_breaks = _breaks(document, vocabulary.ends_sentence, vocabulary)
    clause_breaks = _breaks(document, vocabulary.ends_clause, vocabulary)
    word_breaks = np.append(document.word_starts[1:], True)
    bounds = document.sentence_bounds.tolist()
    fitting = bounds[:1]
    for begin, end in zip(bounds[:-1], bounds[1:]):
        parts = [end]
        if end - begin > max_tokens:
            inner = np.flatnonzero(sentence_breaks[begin : end - 1]) + begin + 1
            parts = inner.tolist() + parts
        for part_end in parts:
            while part_end - fitting[-1] > max_tokens:
                window = slice(fitting[-1], fitting[-1] + max_tokens)
                fitting.append(_last_break(window, clause_breaks, word_breaks))
            fitting.append(part_end)
    return document._replace(sentence_bounds=np.array(fitting, np.int32))


def chunk_sentences(bounds, max_tokens, short_seq_prob, rng):
    """Groups consecutive sentences into chunks, one for each instance.

    A chunk takes sentences until it reaches its target length: `max_tokens`, or,
    with probability `short_seq_prob`, a uniform draw from 2 to `max_tokens`, so that
    the model also sees short inputs. BERT draws the target once per document, which
    makes the share of short instances depend on the documents' lengths; here each
    chunk draws its own. The sentence that passes `max_tokens`, and will be cut by
    truncation, is taken when at least half of it can stay; else it begins the next
    chunk, so that little text is lost and few instances are padded.

    Args:
      bounds: list of int [num_sentences + 1], token offsets; no sentence is longer
        than `max_tokens`.
      max_tokens: tokens of an instance without the special ones.
      short_seq_prob: share of the chunks with a shorter target.
      rng: `np.random.RandomState`.

    Yields:
      (first, end): sentence indices of a chunk; together they cover all sentences.
    """
    num_sentences = len(bounds) - 1
    first = 0
    while first < num_sentences:
        target = max_tokens
        if rng.random_sample() < short_seq_prob:
            target = rng.randint(2, max_tokens + 1)
        end = first + 1
        while end < num_sentences and bounds[end] - bounds[first] < target:
            num_kept = max_tokens - (bounds[end] - bounds[first])
            num_cut = bounds[end + 1] - bounds[first] - max_tokens
            if num_cut > num_kept:
                break
            end += 1
        yield first, end
        first = end


def split_chunk(document, first, end, clause_breaks, rng):
    """Draws the place where a chunk is divided into its two segments.

    Between two sentences; in a chunk of one sentence after a clause, else between
    words, else between tokens. Never is another document's text put in.

    Args:
      document: `TokenizedDocument`.
      first, end: sentence indices of the chunk, which has at least two tokens.
      clause_breaks: bool [num_tokens], whether a clause ends with the token.
      rng: `np.random.RandomState`.

    Returns:
      int, the token where the second segment begins.
    """
    bounds = document.sentence_bounds
    if end - first > 1:
        return int(bounds[first + rng.randint(1, end - first)])
    inside = slice(bounds[first], bounds[end] - 1)
    places = np.flatnonzero(clause_breaks[inside])
    if not len(places):
        places = np.flatnonzero(
            document.word_starts[inside.start + 1 : inside.stop + 1]
        )
    if not len(places):
        places = np.arange(inside.stop - inside.start)
    return int(inside.start + 1 + places[rng.randint(len(places))])


def truncated_lengths(length_a, length_b, max_tokens):
    """Returns the lengths left when the longer segment loses tokens one by one."""
    kept_b = min(length_b, max(max_tokens // 2, max_tokens - length_a))
    return min(length_a, max_tokens - kept_b), kept_b


def num_to_predict(num_tokens, masked_lm_prob, rng):
    """Draws how many of an instance's tokens are masked, before any limit.

    floor(x + u) with x = num_tokens * masked_lm_prob and u uniform in [0, 1) has
    mean x; rounding to the nearest, or up to at least one, would shift the share.
    The special tokens do not count.
    """
    return int(num_tokens * masked_lm_prob + rng.random_sample())


def ngram_probabilities(ngram):
    """p(n) = (1/n) / sum_k (1/k) for n = 1..ngram (ALBERT, section 4.1).

    Returns:
      float64 [ngram].
    """
    weights = 1.0 / np.arange(1, ngram + 1)
    return weights / weights.sum()


def choose_ngrams(word_bounds, second_segment, budget, ngram, rng):
    """Chooses runs of words with `budget` tokens in total.

    A length n is drawn from `ngram_probabilities`; then places are tried in random
    order until n free words of one segment are found. Near the end of the budget a
    run that has too many tokens is shortened, and a word that has too many is
    passed over. Words left free by longer runs are used last, one at a time.

    Args:
      word_bounds: list of int [num_words + 1], token offsets.
      second_segment: index of the first word of the second segment.
      budget: tokens to choose.
      ngram: longest run, in words.
      rng: `np.random.RandomState`.

    Returns:
      List of (first, end), word indices; disjoint, in the order they were chosen.
      Fewer tokens than `budget` are chosen only where no free word fits the rest.
    """
    num_words = len(word_bounds) - 1
    places = rng.permutation(num_words).tolist()
    cumulative = np.cumsum(ngram_probabilities(ngram))[:-1]
    draws = rng.random_sample(max(budget, 1))
    lengths = iter(np.searchsorted(cumulative, draws, side="right").tolist())
    taken = bytearray(num_words)
    chosen = []
    for single in (False, True):
        length = 1 if single else next(lengths) + 1
        for first in places:
            if budget == 0:
                return chosen
            end = first + length
            segment_end = second_segment if first < second_segment else num_words
            if end > segment_end or 1 in taken[first:end]:
                continue
            while word_bounds[end] - word_bounds[first] > budget:
                end -= 1
            if end == first:
                continue
            chosen.append((first, end))
            taken[first:end] = b"\x01" * (end - first)
            budget -= word_bounds[end] - word_bounds[first]
            if not single and budget:
                length = next(lengths) + 1
    return chosen


def choose_masks(word_starts, length_a, budget, settings, rng):
    """Chooses whole words, alone or in n-grams, to be predicted.

    An instance too small for its budget to hold any word has its shortest word
    masked, unless that has more than `max_predictions_per_seq` tokens.

    Args:
      word_starts: bool [num_tokens], of A and B without special tokens.
      length_a: tokens of A.
      budget: tokens to choose, at least 1.
      settings: `Settings`.
      rng: `np.random.RandomState`.

    Returns:
      (tokens, ngram_lengths): int64 [num_masked], ascending indices; list of int.
    """
    first_tokens = np.flatnonzero(word_starts)
    second_segment = int(np.searchsorted(first_tokens, length_a))
    word_bounds = first_tokens.tolist() + [len(word_starts)]
    chosen = choose_ngrams(word_bounds, second_segment, budget, settings.ngram, rng)
    if not chosen:
        word_lengths = np.diff(word_bounds)
        shortest = int(word_lengths.argmin())
        if word_lengths[shortest] <= settings.max_predictions_per_seq:
            chosen = [(shortest, shortest + 1)]
    masked = np.zeros(len(word_starts), np.bool_)
    for first, end in chosen:
        masked[word_bounds[first] : word_bounds[end]] = True
    return np.flatnonzero(masked), [end - first for first, end in chosen]


def replace_tokens(token_ids, vocabulary, rng):
    """Replaces tokens by [MASK] (0.8), themselves (0.1) or a random one (0.1).

    Args:
      token_ids: int32 [num_masked], the original ids.
      vocabulary: `Vocabulary`; a random token is uniform over its `ordinary_ids`
        and can, rarely, be the original.
      rng: `np.random.RandomState`.

    Returns:
      (replaced, replacements): int32 and int8 [num_masked].
    """
    draws = rng.random_sample(len(token_ids))
    random_ids = vocabulary.ordinary_ids[
        rng.randint(len(vocabulary.ordinary_ids), size=len(token_ids))
    ]
    replacements = np.full(len(token_ids), MASKED, np.int8)
    replacements[draws >= 0.8] = KEPT
    replacements[draws >= 0.9] = RANDOM
    replaced = np.choose(replacements, [vocabulary.mask_id, token_ids, random_ids])
    return replaced.astype(np.int32), replacements


def _create_instance(document, begin, split, end, settings, vocabulary, rng):
    """Makes the instance of the tokens begin..end, whose second segment is at split."""
    kept = truncated_lengths(split - begin, end - split, settings.max_text_tokens)
    segments = []
    for segment_begin, segment_end, length in zip((begin, split), (split, end), kept):
        num_cut = segment_end - segment_begin - length
        # Each token is cut from the front or the back at random, as in BERT: always
        # cutting the outer ends would give the order of the segments away.
        segment_begin += int(rng.randint(2, size=num_cut).sum()) if num_cut else 0
        segments.append(slice(segment_begin, segment_begin + length))
    swapped = bool(rng.randint(2))
    if swapped:
        segments.reverse()
    length_a = segments[0].stop - segments[0].start
    ids = np.concatenate([document.token_ids[segment] for segment in segments])
    starts = np.concatenate([document.word_starts[segment] for segment in segments])
    # Truncation can leave the last part of a word: it is then a word of its own.
    starts[[0, length_a]] = True

    budget = num_to_predict(len(ids), settings.masked_lm_prob, rng)
    limit = settings.max_predictions_per_seq
    masked, ngram_lengths = choose_masks(
        starts, length_a, min(max(budget, 1), limit), settings, rng
    )
    labels = ids[masked]
    ids[masked], replacements = replace_tokens(labels, vocabulary, rng)
    return Instance(
        input_ids=_join_segments(ids, length_a, vocabulary),
        segment_ids=np.repeat(
            np.array([0, 1], np.int32), [length_a + 2, len(ids) - length_a + 1]
        ),
        masked_lm_positions=(masked + 1 + (masked >= length_a)).astype(np.int32),
        masked_lm_ids=labels,
        swapped=swapped,
        replacements=replacements,
        ngram_lengths=ngram_lengths,
        num_truncated=end - begin - len(ids),
        capped=budget > limit,
    )


def _join_segments(ids, length_a, vocabulary):
    """Returns `[CLS] A [SEP] B [SEP]`, int32 [num_tokens + 3]."""
    joined = np.empty(len(ids) + NUM_SPECIAL_TOKENS, np.int32)
    joined[0] = vocabulary.cls_id
    joined[1 : length_a + 1] = ids[:length_a]
    joined[length_a + 1] = vocabulary.sep_id
    joined[length_a + 2 : -1] = ids[length_a:]
    joined[-1] = vocabulary.sep_id
    return joined


def _breaks(document, ends, vocabulary):
    """Marks the tokens after which a sentence or clause ends.

    Only the last of several marks in a row counts, and only before a new word, so
    that neither "？！" nor "3.14" is divided.

    Args:
      document: `TokenizedDocument`.
      ends: bool [vocab_size], `vocabulary.ends_sentence` or `.ends_clause`.
      vocabulary: `Vocabulary`.

    Returns:
      bool [num_tokens].
    """
    ends = ends[document.token_ids]
    marks = ends | vocabulary.closes[document.token_ids]
    breaks = ends.copy()
    breaks[1:] |= marks[1:] & ends[:-1]
    breaks[:-1] &= ~marks[1:] & document.word_starts[1:]
    return breaks


def _last_break(window, *kinds_of_breaks):
    """Returns where to cut a window of tokens: after its last break, or at its end."""
    for breaks in kinds_of_breaks:
        places = np.flatnonzero(breaks[window])
        if len(places):
            return window.start + int(places[-1]) + 1
    return window.stop


def _is_ordinary(token):
    bracketed = len(token) > 2 and (token[0], token[-1]) in (("[", "]"), ("<", ">"))
    return not bracketed and not (token.startswith("##") and len(token) > 2)
