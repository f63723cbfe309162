"""Sentence-order pairs and the records made of them: an oracle, invariants, statistics.

The texts are synthetic. But for the oracle's, their token ids count up from
FIRST_TEXT_ID, so that an id tells the token's place in the text, and no random
replacement, which comes from ORDINARY_IDS, can be taken for text.
"""

import itertools
from unittest import mock

import hypothesis
import numpy as np
import pytest
import reference_instances
from hypothesis import strategies as st

import tokenization
from albert_zh.data import input_pipeline, instances, masking
from albert_zh.data import shards as sharding
from albert_zh.data.summary import Statistics

CLS, SEP, MASK, UNK = 2, 3, 4, 1
ORDINARY_IDS = np.arange(5, 105, dtype=np.int32)
FIRST_TEXT_ID = 1000
VOCAB_SIZE = 12000
ALL_IDS = np.arange(VOCAB_SIZE)

# The tokens 4, 9, 14, ... of a text end a clause, 9, 24, 39, ... a sentence, and
# 10, 25, 40, ... close what a sentence's end has ended.
VOCABULARY = instances.Vocabulary(
    cls_id=CLS,
    sep_id=SEP,
    mask_id=MASK,
    unk_id=UNK,
    ordinary_ids=ORDINARY_IDS,
    ends_sentence=ALL_IDS % 15 == 4,
    ends_clause=ALL_IDS % 5 == 4,
    closes=ALL_IDS % 15 == 5,
)
NO_MARKS = np.zeros(VOCAB_SIZE, np.bool_)
UNPUNCTUATED = VOCABULARY._replace(
    ends_sentence=NO_MARKS, ends_clause=NO_MARKS, closes=NO_MARKS
)


def make_text(documents):
    """Makes a text from the lengths of its words.

    Args:
      documents: list of lists (sentences) of lists of int, the words' lengths.

    Returns:
      `TokenizedText`.
    """
    starts, sentence_bounds, document_bounds = [], [0], [0]
    for sentences in documents:
        for sentence in sentences:
            for length in sentence:
                starts += [True] + [False] * (length - 1)
            sentence_bounds.append(len(starts))
        document_bounds.append(len(starts))
    return instances.TokenizedText(
        FIRST_TEXT_ID + np.arange(len(starts), dtype=np.int32),
        np.array(starts, np.bool_),
        np.array(sentence_bounds, np.int64),
        np.array(document_bounds, np.int64),
    )


def random_text(seed, num_documents=4, num_sentences=40, max_words=30):
    """Makes a text with the word lengths of Chinese."""
    rng = np.random.RandomState(seed)
    return make_text(
        [
            [
                rng.choice([1, 2, 3, 4], p=[0.5, 0.35, 0.1, 0.05], size=size).tolist()
                for size in rng.randint(1, max_words + 1, size=num_sentences)
            ]
            for _ in range(num_documents)
        ]
    )


def make_records(text, settings, seed=0, vocabulary=VOCABULARY):
    """Makes records in the way of `sharding.make_shard`.

    Returns:
      (pairs, records, statistics): `Pairs` and decoded records, in the same order;
      `Statistics` of the pairs and masks.
    """
    statistics = Statistics(settings)
    rng = np.random.RandomState(seed)
    pairs = instances.draw_pairs(text, settings, vocabulary, rng)
    pairs = pairs.take(rng.permutation(len(pairs.swapped)))
    statistics.add_pairs(pairs)
    serialized = sharding.make_records(
        text, pairs, settings, vocabulary, statistics, rng
    )
    return pairs, [input_pipeline.decode_example(x) for x in serialized], statistics


def _draw(text, seed=0, vocabulary=VOCABULARY, **settings):
    return instances.draw_pairs(
        text, instances.Settings(**settings), vocabulary, np.random.RandomState(seed)
    )


def _segments(pairs):
    """Returns [((begin, end), (begin, end))] in the text's order, ends exclusive."""
    segments = []
    for begin_a, length_a, begin_b, length_b, swapped, _ in zip(*pairs):
        pair = (begin_a, begin_a + length_a), (begin_b, begin_b + length_b)
        segments.append(pair[::-1] if swapped else pair)
    return segments


def _splits(pairs):
    """The lengths of the segments that come first in the text."""
    return {end - begin for (begin, end), _ in _segments(pairs)}


WORDS = st.lists(st.integers(1, 5), min_size=1, max_size=30)
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=8), min_size=1, max_size=4).map(
    make_text
)
SEEDS = st.integers(0, 2**32 - 1)
MASKS = st.builds(
    masking.MaskSettings,
    masked_lm_prob=st.floats(0.01, 0.6),
    max_predictions_per_seq=st.integers(1, 12),
    ngram=st.integers(1, 4),
    mask_token_share=st.sampled_from([0.0, 0.8, 1.0]),
)


def _settings(masks, overlap_probs=(0.0,)):
    return st.builds(
        instances.Settings,
        max_seq_length=st.integers(5, 64),
        short_seq_prob=st.sampled_from([0.0, 0.1, 1.0]),
        dupe_factor=st.integers(1, 3),
        masks=masks,
        overlap_prob=st.sampled_from(overlap_probs),
    )


# Three ids of each kind of mark, and one that ends a clause and closes as well.
MARKED = UNPUNCTUATED._replace(
    ends_sentence=np.isin(ALL_IDS, [10, 11, 12]),
    ends_clause=np.isin(ALL_IDS, [10, 11, 12, 13, 14, 15, 16]),
    closes=np.isin(ALL_IDS, [16, 17, 18, 19]),
)


def _with_marks(text, seed, share):
    """Gives tokens a mark's id with probability `share`, more at sentence bounds."""
    rng = np.random.RandomState(seed)
    uniform = rng.random_sample(len(text.token_ids))
    uniform[text.sentence_bounds[1:] - 1] **= 4
    uniform[text.sentence_bounds[:-1]] **= 2
    marks = rng.randint(10, 20, size=len(text.token_ids))
    ids = np.where(uniform < share, marks, text.token_ids)
    return text._replace(token_ids=ids.astype(np.int32))


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    text=st.builds(_with_marks, TEXTS, SEEDS, st.sampled_from([0.0, 0.2, 0.4])),
    settings=_settings(st.none() | MASKS),
    seed=SEEDS,
    batch_instances=st.sampled_from([1, 3, instances.BATCH_INSTANCES]),
)
def test_records_are_those_of_a_plain_implementation(
    text, settings, seed, batch_instances
):
    with mock.patch.object(instances, "BATCH_INSTANCES", batch_instances):
        _, received, _ = make_records(text, settings, seed, MARKED)
    expected = reference_instances.make_records(
        text, settings, MARKED, np.random.RandomState(seed), batch_instances
    )
    assert len(received) == len(expected)
    differing = {
        (number, name)
        for number, (record, plain) in enumerate(zip(received, expected))
        for name in set(record) | set(plain)
        if record[name].tolist() != plain[name]
    }
    assert not differing


@hypothesis.given(text=TEXTS, settings=_settings(st.none()), seed=SEEDS)
def test_segments_are_neighbouring_stretches_of_one_document(text, settings, seed):
    pairs = _draw(text, seed, **settings._asdict())
    bounds = text.document_bounds
    assert pairs.swapped.dtype == np.bool_
    for (first, second), num_truncated in zip(_segments(pairs), pairs.num_truncated):
        assert first[0] < first[1] <= second[0] < second[1]
        assert second[0] - first[1] <= num_truncated
        num_tokens = second[1] - second[0] + first[1] - first[0]
        assert num_tokens <= settings.max_text_tokens
        # Nothing is cut but what has to be.
        assert num_tokens == settings.max_text_tokens or not num_truncated
        document = np.searchsorted(bounds, first[0], side="right") - 1
        assert bounds[document] <= first[0] and second[1] <= bounds[document + 1]


@hypothesis.given(text=TEXTS, settings=_settings(st.none()), seed=SEEDS)
def test_every_token_is_used_truncated_or_left_alone(text, settings, seed):
    pairs = _draw(text, seed, **settings._asdict())
    num_uses = np.zeros(len(text.token_ids), np.int64)
    for first, second in _segments(pairs):
        num_uses[first[0] : first[1]] += 1
        num_uses[second[0] : second[1]] += 1
    assert num_uses.max(initial=0) <= settings.dupe_factor
    num_unused = settings.dupe_factor * len(num_uses) - num_uses.sum()
    num_alone = num_unused - pairs.num_truncated.sum()
    # Only the last chunk of a document can have a single token.
    num_documents = len(text.document_bounds) - 1
    assert 0 <= num_alone <= settings.dupe_factor * num_documents


@hypothesis.given(
    length_a=st.integers(1, 90), length_b=st.integers(1, 90), limit=st.integers(2, 70)
)
def test_truncation_takes_from_the_longer_segment(length_a, length_b, limit):
    expected = [length_a, length_b]
    while sum(expected) > limit:
        expected[0 if expected[0] > expected[1] else 1] -= 1
    received = instances.truncated_lengths(
        np.array([length_a, length_b]), np.array([length_b, length_a]), limit
    )
    assert [received[0][0], received[1][0]] == expected
    assert received[0][1] + received[1][1] == sum(expected)


@hypothesis.given(text=TEXTS, settings=_settings(st.none(), (0.3, 1.0)), seed=SEEDS)
def test_overlapping_segments_are_most_of_one_window(text, settings, seed):
    pairs = _draw(text, seed, **settings._asdict())
    bounds = text.document_bounds
    num_used = np.zeros(len(text.token_ids), np.int64)
    for (first, second), repeated, truncated in zip(
        _segments(pairs), pairs.num_repeated, pairs.num_truncated
    ):
        lengths = first[1] - first[0], second[1] - second[0]
        assert min(lengths) > 0 and sum(lengths) <= settings.max_text_tokens
        assert first[0] < second[0] and first[1] < second[1]
        document = np.searchsorted(bounds, first[0], side="right") - 1
        assert bounds[document] <= first[0] and second[1] <= bounds[document + 1]
        assert repeated == max(first[1] - second[0], 0)
        if repeated:
            size = second[1] - first[0]
            assert lengths[0] == lengths[1] and truncated >= 2
            assert 0.75 * size <= lengths[0] <= size - 1
            assert repeated >= lengths[0] * 2 / 3 - 1
        num_used[first[0] : first[1]] += 1
        num_used[max(first[1], second[0]) : second[1]] += 1
    # What is not truncated is used, but for a last token of a document.
    num_left_out = settings.dupe_factor * len(num_used) - num_used.sum()
    num_left_out -= pairs.num_truncated.sum()
    if pairs.num_repeated.all():
        assert num_used.max(initial=0) <= settings.dupe_factor
    assert 0 <= num_left_out <= settings.dupe_factor * (len(bounds) - 1)


@pytest.mark.parametrize("max_seq_length", [64, 128])
def test_the_ends_of_overlapping_segments_do_not_tell_which_is_first(max_seq_length):
    rng = np.random.RandomState(1)
    text = make_text([[[1] * rng.randint(8, 40) for _ in range(400)]])
    pairs = _draw(text, max_seq_length=max_seq_length, dupe_factor=20, overlap_prob=1.0)
    pairs = pairs.take(np.flatnonzero(pairs.num_repeated))
    assert len(pairs.swapped) > 2000
    ends_a = np.isin(pairs.begin_a + pairs.length_a, text.sentence_bounds)
    ends_b = np.isin(pairs.begin_b + pairs.length_b, text.sentence_bounds)
    # The one that ends with a sentence is taken for the later one.
    right = np.where(ends_a == ends_b, 0.5, ends_a == pairs.swapped)
    assert 0.4 < right.mean() < 0.6


def test_segments_overlap_as_often_as_asked_for():
    text = make_text([[[1] * 10] * 1000])
    settings = dict(max_seq_length=23, short_seq_prob=0.0, dupe_factor=1)
    for overlap_prob in (0.0, 0.3, 1.0):
        pairs = _draw(text, overlap_prob=overlap_prob, **settings)
        # A chunk is two sentences: one pair, or one of each sentence.
        num_overlapping = np.count_nonzero(pairs.num_repeated)
        num_chunks = len(pairs.swapped) - num_overlapping // 2
        assert num_chunks == 500
        difference = num_overlapping / 2 - 500 * overlap_prob
        limit = 4 * (500 * overlap_prob * (1 - overlap_prob)) ** 0.5
        assert abs(difference) <= limit
        if overlap_prob == 1.0:
            assert abs(pairs.swapped.mean() - 0.5) < 4 * 0.5 / 1000**0.5
            # Seven of a window of eight: each sentence lacks its ends.
            assert set(pairs.length_a) == {6, 7}
            assert set(pairs.num_truncated) == {2}


def test_truncation_cuts_both_ends_alike():
    text = make_text([[[1] * 40, [1] * 40]])
    pairs = _draw(text, max_seq_length=63, dupe_factor=400)
    cut = [
        segments
        for segments, num_truncated in zip(_segments(pairs), pairs.num_truncated)
        if num_truncated == 20
    ]
    # Each of the ten tokens cut off a segment is a fair coin.
    assert len(cut) > 300
    for front in ([a[0] for a, _ in cut], [b[0] - 40 for _, b in cut]):
        share = sum(front) / (10 * len(cut))
        assert abs(share - 0.5) < 4 * 0.5 / (10 * len(cut)) ** 0.5


def test_segments_are_swapped_half_of_the_time():
    pairs = _draw(random_text(1), max_seq_length=64, dupe_factor=100)
    num_pairs = len(pairs.swapped)
    assert num_pairs > 3000
    assert abs(pairs.swapped.mean() - 0.5) < 4 * 0.5 / num_pairs**0.5


@hypothesis.given(text=TEXTS, settings=_settings(st.none()), seed=SEEDS)
def test_swapped_records_begin_with_the_later_segment(text, settings, seed):
    pairs, made, _ = make_records(text, settings, seed)
    assert len(made) == len(pairs.swapped)
    for record, (first, second) in zip(made, _segments(pairs)):
        length = record["input_mask"].sum()
        segment_ids = record["segment_ids"][:length].tolist()
        second_begin = segment_ids.index(1)
        ids = record["input_ids"][:length].tolist()
        segments = ids[1 : second_begin - 1], ids[second_begin:-1]
        assert (ids[0], ids[second_begin - 1], ids[-1]) == (CLS, SEP, SEP)
        assert segment_ids == sorted(segment_ids)
        if record["next_sentence_labels"].tolist() == [1]:
            segments = segments[::-1]
        else:
            assert record["next_sentence_labels"].tolist() == [0]
        for segment, (begin, end) in zip(segments, (first, second)):
            assert segment == text.token_ids[begin:end].tolist()


def test_between_sentences_every_place_is_as_likely():
    text = make_text([[[1], [2], [3], [4]]])
    pairs = _draw(text, short_seq_prob=0.0, dupe_factor=3000)
    lengths = [end - begin for (begin, end), _ in _segments(pairs)]
    counts = np.bincount(lengths, minlength=10)
    assert np.flatnonzero(counts).tolist() == [1, 3, 6]
    # 13.8 is the 0.999 quantile of chi-square with two degrees of freedom.
    assert ((counts[[1, 3, 6]] - 1000) ** 2 / 1000).sum() < 13.8


def test_a_sentence_is_divided_after_a_clause():
    pairs = _draw(make_text([[[1] * 22]]), dupe_factor=50)
    # Clauses end with the tokens 4, 9, 14 and 19; token 10 closes what 9 ends.
    assert _splits(pairs) == {5, 11, 15, 20}


def test_a_sentence_without_clauses_is_divided_between_words():
    pairs = _draw(make_text([[[3, 2, 4]]]), vocabulary=UNPUNCTUATED, dupe_factor=50)
    assert _splits(pairs) == {3, 5}


def test_a_single_word_is_divided_between_tokens():
    pairs = _draw(make_text([[[4]]]), vocabulary=UNPUNCTUATED, dupe_factor=50)
    assert _splits(pairs) == {1, 2, 3}


def test_numbers_and_runs_of_marks_are_not_divided():
    # A word of three tokens whose second ends a clause, as in 3.14, and two marks
    # in a row, of which the last counts.
    vocabulary = UNPUNCTUATED._replace(
        ends_clause=np.isin(ALL_IDS - FIRST_TEXT_ID, [1, 5, 6])
    )
    text = make_text([[[3, 1, 1, 1, 1, 1, 1]]])
    assert _splits(_draw(text, vocabulary=vocabulary, dupe_factor=20)) == {7}


def test_marks_of_another_sentence_do_not_count():
    # The first document ends with the end of a sentence, the second begins with a
    # closing mark, which closes nothing of its own.
    vocabulary = UNPUNCTUATED._replace(
        ends_clause=np.isin(ALL_IDS - FIRST_TEXT_ID, [3, 6]),
        closes=np.isin(ALL_IDS - FIRST_TEXT_ID, [4]),
    )
    text = make_text([[[1] * 4], [[1] * 5]])
    pairs = _draw(text, vocabulary=vocabulary, dupe_factor=40)
    splits = {first[1] for first, _ in _segments(pairs) if first[0] >= 4}
    assert splits == {7}


@hypothesis.given(text=TEXTS, max_tokens=st.integers(2, 30))
def test_long_sentences_are_divided_to_fit(text, max_tokens):
    divided = instances.split_long_sentences(text, max_tokens, VOCABULARY)
    old, new = text.sentence_bounds, divided.sentence_bounds
    assert set(old) <= set(new)
    assert (np.diff(new) > 0).all() and np.diff(new).max() <= max_tokens
    fitting = old[:-1][np.diff(old) <= max_tokens]
    for begin in fitting:
        assert new[np.searchsorted(new, begin) + 1] in old


def test_long_sentences_are_divided_at_the_best_place():
    def bounds(sentences, max_tokens, vocabulary):
        text = make_text([sentences])
        divided = instances.split_long_sentences(text, max_tokens, vocabulary)
        return divided.sentence_bounds.tolist()

    # Tokens 9, 24 and 39 end a sentence and 10, 25 and 40 close it; the parts of 15
    # tokens are too long and divided after their last clause.
    divided = bounds([[1] * 47, [1] * 9], 14, VOCABULARY)
    assert divided == [0, 11, 20, 26, 35, 41, 47, 56]
    assert bounds([[3] * 8], 10, UNPUNCTUATED) == [0, 9, 18, 24]
    assert bounds([[25]], 10, UNPUNCTUATED) == [0, 10, 20, 25]


def _chunks(lengths, max_tokens, short_seq_prob=0.0, first=0, last=None):
    bounds = np.cumsum([0] + lengths).tolist()
    last = len(lengths) if last is None else last
    rng = np.random.RandomState(0)
    return list(
        instances.chunk_sentences(bounds, first, last, max_tokens, short_seq_prob, rng)
    )


@pytest.mark.parametrize(
    "lengths, expected",
    [
        # 8 + 4 reaches 12 of 10 with half of the 4 kept; 8 + 5 would lose 3 of 5.
        ([8, 4, 9], [(0, 2), (2, 3)]),
        ([8, 5, 9], [(0, 1), (1, 3)]),
        ([8, 5], [(0, 1), (1, 2)]),
        ([5, 5, 9], [(0, 2), (2, 3)]),
        ([2, 2, 2], [(0, 3)]),
        ([10], [(0, 1)]),
    ],
)
def test_chunks_take_a_sentence_that_keeps_half_of_itself(lengths, expected):
    assert _chunks(lengths, 10) == expected


def test_chunks_stay_within_their_document():
    assert _chunks([2] * 9, 10, first=2, last=4) == [(2, 4)]


def test_short_chunks_have_their_share():
    chunks = _chunks([1] * 100000, 50, 0.1)
    lengths = np.array([end - first for first, end in chunks[:-1]])
    # A short target is uniform over 2..50, so that 48 of 49 show.
    expected = 0.1 * 48 / 49
    assert abs((lengths < 50).mean() - expected) < 4 * (0.09 / len(lengths)) ** 0.5
    assert abs(lengths[lengths < 50].mean() - 25.5) < 3
    assert chunks[0][0] == 0 and chunks[-1][1] == 100000
    assert all(a[1] == b[0] for a, b in zip(chunks, chunks[1:]))


def test_equal_seeds_give_equal_instances():
    text, settings = random_text(6), instances.Settings(64, dupe_factor=2)
    first, again, other = (
        np.concatenate([x["input_ids"] for x in make_records(text, settings, seed)[1]])
        for seed in (1, 1, 2)
    )
    assert first.tolist() == again.tolist() != other.tolist()


@hypothesis.given(text=TEXTS, settings=_settings(MASKS), seed=SEEDS)
def test_words_are_masked_whole_and_described(text, settings, seed):
    pairs, made, statistics = make_records(text, settings, seed)
    word_of_token = np.cumsum(text.word_starts)
    num_masked_words = 0
    for record, segments in zip(made, _segments(pairs)):
        real = record["masked_lm_weights"] == 1
        assert real.tolist() == sorted(real, reverse=True)
        positions = record["masked_lm_positions"][real]
        labels = record["masked_lm_ids"][real]
        assert (np.diff(positions) > 0).all()
        for name in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
            assert len(record[name]) == settings.masks.max_predictions_per_seq
            assert not record[name][~real].any()
        replaced = record["input_ids"][positions]
        is_mask, is_kept = replaced == MASK, replaced == labels
        assert np.isin(replaced[~is_mask & ~is_kept], ORDINARY_IDS).all()

        masked = set(labels - FIRST_TEXT_ID)
        free_lengths = []
        for begin, end in segments:
            words = itertools.groupby(range(begin, end), lambda i: word_of_token[i])
            for _, word in words:
                word = list(word)
                shares = {place in masked for place in word}
                assert len(shares) == 1
                num_masked_words += shares == {True}
                if shares == {False}:
                    free_lengths.append(len(word))
        if not real.any():
            assert min(free_lengths) > settings.masks.max_predictions_per_seq

        ids = record["input_ids"].copy()
        ids[positions] = labels
        text_ids = ids[ids >= FIRST_TEXT_ID] - FIRST_TEXT_ID
        assert set(text_ids) == {i for segment in segments for i in range(*segment)}
        assert sorted(ids[(0 < ids) & (ids < FIRST_TEXT_ID)]) == [CLS, SEP, SEP]
    distribution = statistics.summary()["distributions"]["ngram_lengths"]
    lengths = {int(n): count for n, count in distribution.items()}
    assert sum(n * count for n, count in lengths.items()) == num_masked_words
    assert max(lengths, default=0) <= settings.masks.ngram


@pytest.mark.parametrize("ngram", [1, 3])
def test_masked_share_is_exact(ngram):
    settings = instances.Settings(128, 0.1, 20, masking.MaskSettings(0.15, 20, ngram))
    _, _, statistics = make_records(random_text(2), settings)
    summary = statistics.summary()
    assert abs(summary["masked_share"] / 0.15 - 1) < 0.01
    assert summary["instances_at_max_predictions"] == 0
    assert summary["instances_without_masks"] == 0


@pytest.fixture(scope="module")
def load_tokenizer(tmp_path_factory):
    """Function that loads a `FullTokenizer` of the special tokens and some others."""

    def load(tokens):
        path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
        tokens = list(tokenization.SPECIAL_TOKENS) + tokens
        path.write_text("\n".join(tokens), encoding="utf-8")
        return tokenization.FullTokenizer(str(path))

    return load


def test_ordinary_tokens_are_no_specials_and_no_pieces(load_tokenizer):
    tokens = ["[unused1]", "<S>", "##好", "##s", "[", "<", "#", "##", "。", "，", "”"]
    tokenizer = load_tokenizer(tokens + ["##。", "a.", "a"])
    vocabulary = instances.Vocabulary.from_tokenizer(tokenizer)

    def tokens_of(ids):
        return tokenizer.convert_ids_to_tokens(ids.tolist())

    ordinary = ["[", "<", "#", "##", "。", "，", "”", "a.", "a"]
    assert tokens_of(vocabulary.ordinary_ids) == ordinary
    ends_sentence = tokens_of(np.flatnonzero(vocabulary.ends_sentence))
    assert ends_sentence == ["。", "a."]
    ends_clause = tokens_of(np.flatnonzero(vocabulary.ends_clause))
    assert ends_clause == ["。", "，", "a."]
    assert tokens_of(np.flatnonzero(vocabulary.closes)) == ["”"]
    special_ids = np.array(vocabulary[:4])
    assert tokens_of(special_ids) == ["[CLS]", "[SEP]", "[MASK]", "[UNK]"]


def test_a_vocabulary_without_ordinary_tokens_is_refused(load_tokenizer):
    with pytest.raises(ValueError, match="7 tokens are all special"):
        instances.Vocabulary.from_tokenizer(load_tokenizer(["<S>", "##s"]))


EMPTY = "\u200b"  # a character that the tokenizer removes


def test_tokenized_text_knows_its_bounds(load_tokenizer):
    tokenizer = load_tokenizer(list("使用语言模型") + ["re", "##sum"])
    documents = [
        [EMPTY],
        ["使用", EMPTY, "语"],
        [],
        [EMPTY, EMPTY],
        ["resum 模 型"],
        [EMPTY],
    ]

    text, num_empty = instances.tokenize(iter(documents), tokenizer, None)
    tokens = tokenizer.convert_ids_to_tokens(text.token_ids.tolist())
    assert tokens == ["使", "用", "语", "re", "##sum", "模", "型"]
    assert text.sentence_bounds.tolist() == [0, 2, 3, 7]
    assert text.document_bounds.tolist() == [0, 3, 7]
    assert num_empty == 5
    assert text.word_starts.all()
    assert text.token_ids.dtype == np.int32 and text.word_starts.dtype == np.bool_
    assert text.sentence_bounds.dtype == text.document_bounds.dtype == np.int64

    def mark_last(sentences, columns):
        starts = columns.begins_word & False
        starts[-len(sentences) :] = True
        return starts

    text, _ = instances.tokenize(documents, tokenizer, mark_last)
    assert text.word_starts.tolist() == [True] * 3 + [False] * 3 + [True]


@pytest.mark.parametrize("documents", [[], [[]], [[EMPTY], [EMPTY, EMPTY]]])
@pytest.mark.parametrize("masks", [None, masking.MaskSettings()])
def test_texts_without_tokens_give_nothing(documents, masks, load_tokenizer):
    text, num_empty = instances.tokenize(documents, load_tokenizer(["a"]), None)
    assert num_empty == sum(map(len, documents))
    assert [column.tolist() for column in text] == [[], [], [0], [0]]
    pairs, made, statistics = make_records(text, instances.Settings(masks=masks))
    assert len(pairs.swapped) == len(made) == statistics.num_instances == 0


def test_single_tokens_give_nothing():
    text = make_text([[[1]], [[1], [1]], [[1]]])
    pairs = _draw(text, dupe_factor=2)
    assert _segments(pairs) == [((1, 2), (2, 3))] * 2
    assert not pairs.num_truncated.any()


def test_documents_are_tokenized_as_they_are_read(load_tokenizer):
    events = []

    def documents():
        for sentence in ("一", EMPTY, "二二"):
            events.append("read " + sentence)
            yield [sentence]

    def word_boundaries(sentences, columns):
        events.append("done " + sentences[0])
        return columns.begins_word

    instances.tokenize(documents(), load_tokenizer(["一", "二"]), word_boundaries)
    assert events == ["read 一", "done 一", "read " + EMPTY, "read 二二", "done 二二"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_seq_length", 4),
        ("short_seq_prob", -0.1),
        ("short_seq_prob", 1.1),
        ("dupe_factor", 0),
        ("overlap_prob", -0.1),
        ("overlap_prob", 1.1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    instances.Settings().check()
    instances.Settings(masks=None).check()
    with pytest.raises(ValueError, match="{}={}, expected".format(name, value)):
        instances.Settings(**{name: value}).check()


def test_settings_of_masks_are_checked_too():
    with pytest.raises(ValueError, match="ngram=0, expected 1 to 32768"):
        instances.Settings(masks=masking.MaskSettings(ngram=0)).check()
