"""Sentence-order pairs and masks: invariants, oracles and statistics.

The documents are synthetic. Their token ids count up from FIRST_TEXT_ID, so that an
id tells the token's place in its document, and no random replacement, which comes
from ORDINARY_IDS, can be taken for text.
"""

import itertools
import types

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from albert_zh import corpus, instances
from albert_zh.instances import KEPT, MASKED, RANDOM
from albert_zh.statistics import Statistics

CLS, SEP, MASK, UNK = 2, 3, 4, 1
ORDINARY_IDS = np.arange(5, 105, dtype=np.int32)
FIRST_TEXT_ID = 1000
VOCAB_SIZE = 12000
ALL_IDS = np.arange(VOCAB_SIZE)

# The tokens 4, 9, 14, ... of a text end a clause, 9, 24, 39, ... a sentence.
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


def _document(sentences):
    """Makes a document from the lengths of its words, a list for each sentence."""
    starts = [
        position == 0
        for sentence in sentences
        for length in sentence
        for position in range(length)
    ]
    bounds = np.cumsum([0] + [sum(sentence) for sentence in sentences])
    return instances.TokenizedDocument(
        np.arange(FIRST_TEXT_ID, FIRST_TEXT_ID + len(starts), dtype=np.int32),
        np.array(starts, np.bool_),
        bounds.astype(np.int32),
        0,
    )


def _random_document(seed, num_sentences=40, max_words=30):
    """Makes a document with the word lengths of Chinese text."""
    rng = np.random.RandomState(seed)
    return _document(
        [
            rng.choice([1, 2, 3, 4], p=[0.5, 0.35, 0.1, 0.05], size=size).tolist()
            for size in rng.randint(1, max_words + 1, size=num_sentences)
        ]
    )


def _create(document, seed=0, vocabulary=VOCABULARY, **settings):
    return list(
        instances.create_instances(
            document,
            instances.Settings(**settings),
            vocabulary,
            np.random.RandomState(seed),
        )
    )


def _restore(instance):
    """Returns the unmasked segments, as places in the document, in its order."""
    ids = instance.input_ids.copy()
    ids[instance.masked_lm_positions] = instance.masked_lm_ids
    first_sep = len(instance.segment_ids) - instance.segment_ids.sum() - 1
    segments = [ids[1:first_sep], ids[first_sep + 1 : -1]]
    assert (ids[0], ids[first_sep], ids[-1]) == (CLS, SEP, SEP)
    if instance.swapped:
        segments.reverse()
    return [segment - FIRST_TEXT_ID for segment in segments]


DOCUMENTS = st.lists(
    st.lists(st.integers(1, 5), min_size=1, max_size=30), min_size=1, max_size=12
).map(_document)
SETTINGS = st.fixed_dictionaries(
    {
        "max_seq_length": st.integers(5, 64),
        "max_predictions_per_seq": st.integers(1, 12),
        "masked_lm_prob": st.floats(0.01, 0.6),
        "short_seq_prob": st.sampled_from([0.0, 0.1, 1.0]),
        "ngram": st.integers(1, 4),
        "dupe_factor": st.integers(1, 2),
        "seed": st.integers(0, 2**32 - 1),
    }
)


@hypothesis.given(document=DOCUMENTS, settings=SETTINGS)
def test_segments_are_neighbouring_stretches_of_the_document(document, settings):
    for instance in _create(document, **settings):
        assert len(instance.input_ids) <= settings["max_seq_length"]
        assert instance.segment_ids.tolist() == sorted(instance.segment_ids)
        first, second = _restore(instance)
        assert len(first) and len(second)
        for segment in (first, second):
            assert (np.diff(segment) == 1).all()
            assert 0 <= segment[0] and segment[-1] < len(document.token_ids)
        gap = second[0] - first[-1] - 1
        assert 0 <= gap <= instance.num_truncated


@hypothesis.given(document=DOCUMENTS, settings=SETTINGS)
def test_every_token_is_used_truncated_or_counted(document, settings):
    made = _create(document, **settings)
    used = sum(len(i.input_ids) - 3 + i.num_truncated for i in made)
    dropped = settings["dupe_factor"] * len(document.token_ids) - used
    # Only the last chunk of each duplicate can have a single token.
    assert 0 <= dropped <= settings["dupe_factor"]


@hypothesis.given(document=DOCUMENTS, settings=SETTINGS)
def test_masks_fall_on_text_and_are_described(document, settings):
    for instance in _create(document, **settings):
        positions = instance.masked_lm_positions
        assert positions.tolist() == sorted(set(positions))
        assert len(positions) <= settings["max_predictions_per_seq"]
        assert (instance.masked_lm_ids >= FIRST_TEXT_ID).all()
        replaced = instance.input_ids[positions]
        kinds = instance.replacements
        assert (replaced[kinds == MASKED] == MASK).all()
        kept = replaced[kinds == KEPT]
        assert (kept == instance.masked_lm_ids[kinds == KEPT]).all()
        assert np.isin(replaced[kinds == RANDOM], ORDINARY_IDS).all()
        untouched = np.delete(instance.input_ids, positions)
        special = np.isin(untouched, [CLS, SEP])
        assert special.sum() == 3
        assert (untouched[~special] >= FIRST_TEXT_ID).all()
        if not len(positions):
            assert (
                min(_word_lengths(document, instance))
                > (settings["max_predictions_per_seq"])
            )


@hypothesis.given(document=DOCUMENTS, settings=SETTINGS)
def test_words_are_masked_whole(document, settings):
    word_of_token = np.cumsum(document.word_starts)
    for instance in _create(document, **settings):
        masked = set(instance.masked_lm_ids - FIRST_TEXT_ID)
        num_words = 0
        for segment in _restore(instance):
            for _, word in itertools.groupby(segment, lambda i: word_of_token[i]):
                shares = {place in masked for place in word}
                assert len(shares) == 1
                num_words += shares == {True}
        assert sum(instance.ngram_lengths) == num_words
        assert all(1 <= n <= settings["ngram"] for n in instance.ngram_lengths)


def _word_lengths(document, instance):
    word_of_token = np.cumsum(document.word_starts)
    return [
        len(list(word))
        for segment in _restore(instance)
        for _, word in itertools.groupby(segment, lambda i: word_of_token[i])
    ]


@hypothesis.given(
    length_a=st.integers(1, 90), length_b=st.integers(1, 90), limit=st.integers(2, 70)
)
def test_truncation_takes_from_the_longer_segment(length_a, length_b, limit):
    expected = [length_a, length_b]
    while sum(expected) > limit:
        expected[0 if expected[0] > expected[1] else 1] -= 1
    received = instances.truncated_lengths(length_a, length_b, limit)
    assert list(received) == expected


def test_truncation_cuts_both_ends_alike():
    document = _document([[1] * 40, [1] * 40])
    front, total = 0, 0
    for instance in _create(document, max_seq_length=63, dupe_factor=400):
        if len(instance.input_ids) == 63 and instance.num_truncated == 20:
            first, _ = _restore(instance)
            front += first[0]
            total += 10
    # Each of the ten tokens cut off the first segment is a fair coin.
    assert total > 3000
    assert abs(front / total - 0.5) < 4 * 0.5 / total**0.5


def test_segments_are_swapped_half_of_the_time():
    made = _create(_random_document(1), max_seq_length=64, dupe_factor=300)
    share = np.mean([instance.swapped for instance in made])
    assert len(made) > 3000
    assert 0.48 < share < 0.52


def test_a_sentence_is_divided_after_a_clause():
    document = _document([[1] * 22])
    splits = {len(_restore(i)[0]) for i in _create(document, dupe_factor=50)}
    # Clauses end with the tokens 4, 9, 14 and 19; token 10 closes what 9 ends.
    assert splits == {5, 11, 15, 20}


def test_a_sentence_without_clauses_is_divided_between_words():
    document = _document([[3, 2, 4]])
    made = _create(document, vocabulary=UNPUNCTUATED, dupe_factor=50)
    assert {len(_restore(instance)[0]) for instance in made} == {3, 5}


def test_a_single_word_is_divided_between_tokens():
    document = _document([[4]])
    made = _create(document, vocabulary=UNPUNCTUATED, dupe_factor=50)
    assert {len(_restore(instance)[0]) for instance in made} == {1, 2, 3}
    assert all(len(instance.masked_lm_ids) >= 1 for instance in made)


def test_a_single_token_is_counted_as_dropped():
    document = _document([[1]])
    assert _create(document) == []
    statistics = Statistics(instances.Settings(dupe_factor=3), VOCABULARY)
    statistics.add_document(document, 0)
    summary = statistics.summary()
    assert summary["dropped_tokens"] == 3
    assert summary["masked_share"] is None
    assert any("3 tokens" in warning for warning in summary["warnings"])


def test_a_document_without_tokens_gives_nothing():
    tokenizer = types.SimpleNamespace(tokenize_with_offsets=lambda sentence: [])
    document = instances.tokenize_document(["\u200b", "\ufffd"], tokenizer, None)
    assert document.num_empty_sentences == 2
    assert document.sentence_bounds.tolist() == [0]
    assert _create(document) == []


@hypothesis.given(document=DOCUMENTS, max_tokens=st.integers(2, 30))
def test_long_sentences_are_divided_to_fit(document, max_tokens):
    divided = instances.split_long_sentences(document, max_tokens, VOCABULARY)
    old, new = document.sentence_bounds, divided.sentence_bounds
    assert set(old) <= set(new)
    assert (np.diff(new) > 0).all() and np.diff(new).max() <= max_tokens
    fitting = old[:-1][np.diff(old) <= max_tokens]
    for begin in fitting:
        assert new[np.searchsorted(new, begin) + 1] in old


def test_long_sentences_are_divided_at_the_best_place():
    bounds = instances.split_long_sentences(
        _document([[1] * 47, [1] * 9]), 14, VOCABULARY
    ).sentence_bounds
    # Tokens 9, 24 and 39 end a sentence and 10, 25 and 40 close it; the parts of 15
    # tokens are too long and divided after their last clause.
    assert bounds.tolist() == [0, 11, 20, 26, 35, 41, 47, 56]
    document = _document([[3] * 8])
    bounds = instances.split_long_sentences(document, 10, UNPUNCTUATED).sentence_bounds
    assert bounds.tolist() == [0, 9, 18, 24]
    document = _document([[25]])
    bounds = instances.split_long_sentences(document, 10, UNPUNCTUATED).sentence_bounds
    assert bounds.tolist() == [0, 10, 20, 25]


def test_numbers_and_runs_of_marks_are_not_divided():
    # A word of three tokens whose second ends a clause, as in 3.14, and two marks
    # in a row, of which the last counts.
    vocabulary = UNPUNCTUATED._replace(
        ends_clause=np.isin(ALL_IDS - FIRST_TEXT_ID, [1, 5, 6])
    )
    made = _create(
        _document([[3, 1, 1, 1, 1, 1, 1]]), vocabulary=vocabulary, dupe_factor=20
    )
    assert {len(_restore(instance)[0]) for instance in made} == {7}


def test_chunks_take_a_sentence_that_keeps_half_of_itself():
    rng = np.random.RandomState(0)
    # 8 + 4 reaches 12 of 10 with half of the 4 kept; 8 + 5 would lose 3 of 5.
    for lengths, expected in [
        ([8, 4, 9], [(0, 2), (2, 3)]),
        ([8, 5, 9], [(0, 1), (1, 3)]),
        ([8, 5], [(0, 1), (1, 2)]),
        ([5, 5, 9], [(0, 2), (2, 3)]),
        ([2, 2, 2], [(0, 3)]),
        ([10], [(0, 1)]),
    ]:
        bounds = np.cumsum([0] + lengths).tolist()
        assert list(instances.chunk_sentences(bounds, 10, 0.0, rng)) == expected


def test_short_chunks_have_their_share():
    rng = np.random.RandomState(0)
    bounds = list(range(100001))
    chunks = list(instances.chunk_sentences(bounds, 50, 0.1, rng))
    lengths = np.array([end - first for first, end in chunks[:-1]])
    # A short target is uniform over 2..50, so that 48 of 49 show.
    expected = 0.1 * 48 / 49
    assert abs((lengths < 50).mean() - expected) < 4 * (0.09 / len(lengths)) ** 0.5
    assert abs(lengths[lengths < 50].mean() - 25.5) < 3
    assert chunks[0][0] == 0 and chunks[-1][1] == 100000
    assert all(a[1] == b[0] for a, b in zip(chunks, chunks[1:]))


def test_number_to_predict_has_the_exact_mean():
    rng = np.random.RandomState(0)
    draws = [instances.num_to_predict(125, 0.15, rng) for _ in range(20000)]
    assert set(draws) == {18, 19}
    assert abs(np.mean(draws) - 18.75) < 4 * (0.25 * 0.75 / 20000) ** 0.5


@hypothesis.given(
    lengths=st.lists(st.integers(1, 4), min_size=2, max_size=60),
    budget=st.integers(1, 40),
    ngram=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_ngrams_use_the_budget(lengths, budget, ngram, seed):
    bounds = np.cumsum([0] + lengths).tolist()
    second = len(lengths) // 2
    chosen = instances.choose_ngrams(
        bounds, second, budget, ngram, np.random.RandomState(seed)
    )
    words = [word for first, end in chosen for word in range(first, end)]
    assert len(words) == len(set(words))
    assert all(end <= second or first >= second for first, end in chosen)
    rest = budget - sum(lengths[word] for word in words)
    assert rest >= 0
    free = set(range(len(lengths))) - set(words)
    assert all(lengths[word] > rest for word in free)


def test_ngram_lengths_follow_the_paper():
    assert instances.ngram_probabilities(1).tolist() == [1.0]
    np.testing.assert_allclose(
        instances.ngram_probabilities(3), [6 / 11, 3 / 11, 2 / 11]
    )
    counts = np.zeros(3)
    rng = np.random.RandomState(0)
    for _ in range(200):
        chosen = instances.choose_ngrams(list(range(1001)), 500, 150, 3, rng)
        # The last run may have been shortened to fit the budget.
        for first, end in chosen[:-1]:
            counts[end - first - 1] += 1
    expected = counts.sum() * instances.ngram_probabilities(3)
    # 13.8 is the 0.999 quantile of chi-square with two degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 13.8


def test_masks_are_spread_evenly():
    counts = np.zeros(100)
    rng = np.random.RandomState(0)
    for _ in range(2000):
        for first, end in instances.choose_ngrams(list(range(101)), 50, 15, 1, rng):
            counts[first:end] += 1
    # 148.2 is the 0.999 quantile of chi-square with 99 degrees of freedom; without
    # replacement the statistic is smaller by the share left, 0.85.
    assert ((counts - 300) ** 2 / 300).sum() < 148.2
    assert counts.sum() == 30000


def test_replacements_are_80_10_10_and_ordinary():
    num_tokens = 50000
    labels = np.full(num_tokens, FIRST_TEXT_ID, np.int32)
    replaced, kinds = instances.replace_tokens(
        labels, VOCABULARY, np.random.RandomState(0)
    )
    counts = np.bincount(kinds, minlength=3)
    expected = num_tokens * np.array([0.8, 0.1, 0.1])
    assert ((counts - expected) ** 2 / expected).sum() < 13.8
    random_ids = replaced[kinds == RANDOM]
    frequencies = np.bincount(random_ids, minlength=VOCAB_SIZE)[ORDINARY_IDS]
    assert frequencies.sum() == len(random_ids)
    mean = len(random_ids) / len(ORDINARY_IDS)
    assert ((frequencies - mean) ** 2 / mean).sum() < 148.2
    assert replaced.dtype == np.int32


@pytest.mark.parametrize("ngram", [1, 3])
def test_masked_share_is_exact(ngram):
    statistics = Statistics(
        instances.Settings(128, 20, 0.15, ngram=ngram, dupe_factor=20), VOCABULARY
    )
    document = _random_document(2, num_sentences=120)
    statistics.add_document(document, 0)
    for instance in _create(document, **statistics.settings._asdict()):
        statistics.add_instance(instance)
    summary = statistics.summary()
    assert abs(summary["masked_share"] / 0.15 - 1) < 0.01
    assert summary["instances_at_max_predictions"] == 0
    assert summary["warnings"] == []
    assert list(summary["ngram_lengths"]) == [str(n + 1) for n in range(ngram)]


def test_the_limit_on_predictions_is_reported():
    settings = instances.Settings(128, 10, 0.15, dupe_factor=2)
    statistics = Statistics(settings, VOCABULARY)
    (warning,) = statistics.warnings()
    assert "max_predictions_per_seq=10" in warning and "raise it to 19" in warning
    document = _random_document(3)
    statistics.add_document(document, 7)
    made = _create(document, **settings._asdict())
    for instance in made:
        statistics.add_instance(instance)
    summary = statistics.summary()
    assert max(len(instance.masked_lm_ids) for instance in made) == 10
    assert summary["instances_at_max_predictions"] == sum(i.capped for i in made) > 0
    assert summary["replaced_undecodable_bytes"] == 7


def test_statistics_add_up():
    settings = instances.Settings(64, 10, 0.15, ngram=2, dupe_factor=3)
    statistics = Statistics(settings, VOCABULARY)
    documents = [_random_document(seed) for seed in (4, 5)]
    documents[0].token_ids[:5] = UNK
    made = []
    for document in documents:
        statistics.add_document(document, 0)
        made.extend(_create(document, **settings._asdict()))
    for instance in made:
        statistics.add_instance(instance)
    summary = statistics.summary()
    num_tokens = sum(len(document.token_ids) for document in documents)
    num_masked = sum(len(instance.masked_lm_ids) for instance in made)
    assert summary["documents"] == 2 and summary["sentences"] == 80
    assert summary["tokens"] == num_tokens
    assert summary["unk_share"] == pytest.approx(5 / num_tokens, abs=1e-6)
    assert summary["instances"] == len(made)
    assert summary["masked_tokens"] == num_masked
    assert summary["truncated_tokens"] == sum(i.num_truncated for i in made)
    kinds = np.concatenate([instance.replacements for instance in made])
    for name, kind in (
        ("replaced_by_mask_share", MASKED),
        ("kept_share", KEPT),
        ("replaced_by_random_share", RANDOM),
    ):
        assert summary[name] == pytest.approx((kinds == kind).mean(), abs=1e-6)
    assert summary["swapped_share"] == pytest.approx(
        np.mean([instance.swapped for instance in made]), abs=1e-6
    )
    assert sum(summary["ngram_lengths"].values()) == sum(
        len(instance.ngram_lengths) for instance in made
    )


def test_equal_seeds_give_equal_instances():
    document = _random_document(6)
    first, again, other = (
        np.concatenate([i.input_ids for i in _create(document, seed, dupe_factor=2)])
        for seed in (1, 1, 2)
    )
    assert first.tolist() == again.tolist() != other.tolist()


class _CharacterTokenizer:
    """Every character is a token, its id its place in the vocabulary."""

    vocab_size = 200
    cls_id, sep_id, mask_id, unk_id = CLS, SEP, MASK, UNK

    def convert_ids_to_tokens(self, ids):
        reserved = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "<S>"]
        tokens = reserved + ["##好", "##s", "[", "<", ">", "#", "##", "。", "，", "”"]
        tokens += ["t{}".format(i) for i in range(len(tokens), self.vocab_size)]
        return [tokens[i] for i in ids]

    def tokenize_with_offsets(self, text):
        return [types.SimpleNamespace(text=char) for char in text]

    def convert_tokens_to_ids(self, tokens):
        return [ord(token) % 100 + 20 for token in tokens]


def test_ordinary_tokens_are_no_specials_and_no_pieces():
    vocabulary = instances.Vocabulary.from_tokenizer(_CharacterTokenizer())
    assert vocabulary.ordinary_ids.tolist() == list(range(9, 200))
    assert np.flatnonzero(vocabulary.ends_sentence).tolist() == [14]
    assert np.flatnonzero(vocabulary.ends_clause).tolist() == [14, 15]
    assert np.flatnonzero(vocabulary.closes).tolist() == [16]


def test_a_vocabulary_without_ordinary_tokens_is_refused():
    tokenizer = _CharacterTokenizer()
    tokenizer.vocab_size = 9
    with pytest.raises(ValueError, match="9 tokens are all special"):
        instances.Vocabulary.from_tokenizer(tokenizer)


def test_documents_are_streamed():
    num_read = []

    def documents():
        for number in itertools.count():
            num_read.append(number)
            yield corpus.Document("a.txt", 1, ["ab", "cd"], 6, 0)

    statistics = Statistics(instances.Settings(dupe_factor=2), VOCABULARY)
    generated = instances.generate_instances(
        documents(),
        _CharacterTokenizer(),
        None,
        VOCABULARY,
        statistics,
        np.random.RandomState(0),
    )
    for _ in range(20):
        next(generated)
    assert len(num_read) == 10
    assert statistics.summary()["instances"] == 20


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_seq_length", 4),
        ("max_predictions_per_seq", 0),
        ("masked_lm_prob", 0.0),
        ("masked_lm_prob", 1.5),
        ("short_seq_prob", -0.1),
        ("ngram", 0),
        ("dupe_factor", 0),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    instances.Settings().check()
    with pytest.raises(ValueError, match="{}={}, expected".format(name, value)):
        instances.Settings(**{name: value}).check()
