"""Counts of data generation: against recounts, in parts, and what they warn of."""

import json

import numpy as np
import pytest
import reference_instances
from test_instances import (
    CLS,
    FIRST_TEXT_ID,
    MASK,
    SEP,
    UNK,
    VOCABULARY,
    make_records,
    make_text,
    random_text,
)

from albert_zh.data import corpus, instances, masking
from albert_zh.data import shards as sharding
from albert_zh.data.summary import Statistics, limit_warnings

MASKS = masking.MaskSettings(0.15, 10, 3)
SETTINGS = instances.Settings(64, 0.1, 3, MASKS)
DYNAMIC_SETTINGS = SETTINGS._replace(masks=None)


def _document(num_sentences, num_replaced_bytes=0, is_cut=False, ends_blank=True):
    sentences = ["。"] * num_sentences
    return corpus.Document(sentences, 99, num_replaced_bytes, is_cut, ends_blank)


def _with_unk(text):
    """Puts [UNK] in place of 100 tokens of the first document, two of the second."""
    ids = text.token_ids.copy()
    second = text.document_bounds[1]
    ids[second - 100 : second + 1] = UNK
    ids[second + 30] = UNK
    return text._replace(token_ids=ids)


def _share_of(flags):
    return pytest.approx(np.mean(flags), abs=1e-6)


def _distribution(values):
    return {str(value): values.count(value) for value in sorted(set(values))}


def test_counts_are_those_of_a_plain_recount():
    text = random_text(4)
    _, made, statistics = make_records(text, SETTINGS)
    statistics.add_text(_with_unk(text), 4, UNK)
    for document in (_document(100, 7), _document(60, 0, True), _document(0)):
        statistics.add_document(document)
    summary = statistics.summary()
    assert summary["documents"] == 3 and summary["sentences"] == 160
    assert summary["sentences_without_tokens"] == 4
    assert summary["replaced_undecodable_bytes"] == 7
    num_tokens = len(text.token_ids)
    assert summary["tokens"] == num_tokens
    assert summary["unk_share"] == pytest.approx(102 / num_tokens, abs=1e-6)

    num_instances = len(made)
    lengths = [int(record["input_mask"].sum()) for record in made]
    num_used = sum(lengths) - 3 * num_instances
    assert summary["instances"] == statistics.num_instances == num_instances > 100
    assert statistics.num_sentences == 160
    assert summary["tokens_per_instance"] == _share_of([n - 3 for n in lengths])
    swapped = [record["next_sentence_labels"][0] for record in made]
    assert summary["swapped_share"] == _share_of(swapped)
    num_missing = SETTINGS.dupe_factor * num_tokens - num_used
    assert summary["truncated_tokens"] + summary["dropped_tokens"] == num_missing
    truncated_share = summary["truncated_tokens"] / (SETTINGS.dupe_factor * num_tokens)
    assert summary["truncated_share"] == pytest.approx(truncated_share, abs=1e-6)

    reals = [record["masked_lm_weights"] > 0 for record in made]
    labels = np.concatenate([r["masked_lm_ids"][real] for r, real in zip(made, reals)])
    replaced = np.concatenate(
        [r["input_ids"][r["masked_lm_positions"][real]] for r, real in zip(made, reals)]
    )
    assert summary["masked_tokens"] == len(labels) > 1000
    masked_share = len(labels) / num_used
    assert summary["masked_share"] == pytest.approx(masked_share, abs=1e-6)
    assert summary["target_masked_share"] == 0.15
    assert summary["replaced_by_mask_share"] == _share_of(replaced == MASK)
    assert summary["kept_share"] == _share_of(replaced == labels)
    assert summary["replaced_by_random_share"] == _share_of(
        (replaced != MASK) & (replaced != labels)
    )

    distributions = summary["distributions"]
    assert sorted(distributions) == [
        "masks_per_instance",
        "ngram_lengths",
        "sequence_lengths",
        "unk_percent_of_documents",
    ]
    assert distributions["sequence_lengths"] == _distribution(lengths)
    num_masked = [int(real.sum()) for real in reals]
    assert distributions["masks_per_instance"] == _distribution(num_masked)
    # Every masked word is in one unit; a token of it that begins the word tells it,
    # but for words whose beginning is truncated.
    num_words = sum(
        n * count
        for n, count in zip((1, 2, 3), map(distributions["ngram_lengths"].get, "123"))
    )
    num_begins = np.count_nonzero(text.word_starts[labels - FIRST_TEXT_ID])
    assert num_begins <= num_words <= num_begins + num_instances
    num_unk = {0: 100, 1: 2}
    assert distributions["unk_percent_of_documents"] == _distribution(
        [
            num_unk.get(number, 0) * 100 // int(size)
            for number, size in enumerate(np.diff(text.document_bounds))
        ]
    )


def test_tokens_that_come_twice_are_counted_once():
    text = random_text(4)
    settings = SETTINGS._replace(overlap_prob=0.5)
    pairs, made, statistics = make_records(text, settings)
    statistics.add_text(text, 0, UNK)
    summary = statistics.summary()
    used = twice = 0
    for record in made:
        segment_ids, ids = record["segment_ids"], record["input_ids"].copy()
        real = record["masked_lm_weights"] > 0
        ids[record["masked_lm_positions"][real]] = record["masked_lm_ids"][real]
        first, second = (
            set(ids[record["input_mask"].astype(bool) & (segment_ids == i)])
            - {CLS, SEP}
            for i in (0, 1)
        )
        used += len(first | second)
        twice += len(first & second)
    assert summary["repeated_tokens"] == twice > 1000
    num_missing = settings.dupe_factor * len(text.token_ids) - used
    assert summary["truncated_tokens"] + summary["dropped_tokens"] == num_missing
    assert summary["dropped_tokens"] >= 0


@pytest.mark.parametrize("max_seq_length", [5, 16, 64])
def test_what_is_not_in_the_records_is_truncated_or_dropped(max_seq_length):
    text = make_text([[[1]], [[2, 1, 3], [4]], [[1] * 31, [2] * 20, [1]], [[1]]])
    settings = instances.Settings(max_seq_length, 0.0, 4, MASKS)
    _, _, statistics = make_records(text, settings)
    statistics.add_text(text, 0, UNK)
    pairs = reference_instances.draw_pairs(
        reference_instances.documents_of(text),
        settings,
        VOCABULARY,
        np.random.RandomState(0),
    )
    truncated = sum(pair.num_truncated for pair in pairs)
    summary = statistics.summary()
    assert summary["truncated_tokens"] == truncated
    used = sum(len(pair.a) + len(pair.b) for pair in pairs)
    dropped = 4 * len(text.token_ids) - used - truncated
    assert summary["dropped_tokens"] == dropped >= 4 * 2
    warning = "{} tokens stood alone in a chunk: left out".format(dropped)
    assert warning in summary["warnings"]


def test_instances_at_the_limit_are_counted():
    masks = masking.MaskSettings(0.2, 8)
    settings = SETTINGS._replace(short_seq_prob=1.0, masks=masks)
    _, made, statistics = make_records(random_text(3), settings)
    wanted = [0.2 * (record["input_mask"].sum() - 3) for record in made]
    # 0.2 n is rounded up or down at random.
    surely = sum(x >= 9 for x in wanted)
    possibly = sum(x > 8 for x in wanted)
    counted = statistics.summary()["instances_at_max_predictions"]
    assert 0 < surely <= counted <= possibly < len(made)


def _add_parts(text, pairs, masks_of, settings, statistics):
    """Tells each of `statistics` of a part: some documents, pairs and their masks."""
    document_parts = np.array_split(
        np.arange(len(text.document_bounds) - 1), len(statistics)
    )
    pair_parts = np.array_split(np.arange(len(pairs.swapped)), len(statistics))
    for part, documents, places in zip(statistics, document_parts, pair_parts):
        bounds = text.document_bounds[documents[0] : documents[-1] + 2]
        part.add_text(
            text._replace(
                token_ids=text.token_ids[bounds[0] : bounds[-1]],
                document_bounds=bounds - bounds[0],
            ),
            len(documents),
            UNK,
        )
        for number in documents.tolist():
            part.add_document(_document(number + 1, number, number == 0))
            part.add_cut_document()
        part.add_pairs(pairs.take(places))
        if settings.masks is not None:
            part.add_masks(masks_of(places))


@pytest.mark.parametrize("settings", [SETTINGS, DYNAMIC_SETTINGS])
def test_parts_add_up_to_the_whole(settings):
    text = _with_unk(random_text(5, num_documents=7))
    rng = np.random.RandomState(0)
    pairs = instances.draw_pairs(text, settings, VOCABULARY, rng)
    batch = instances.assemble(text, pairs, settings.max_seq_length, VOCABULARY)
    draws = masking.draw(
        rng, len(pairs.swapped), settings.max_seq_length, np.arange(5, 105), MASKS
    )

    def masks_of(places):
        return masking.apply_masks(
            batch.input_ids[places],
            batch.word_lengths[places],
            batch.second_begin[places],
            masking.MaskDraws(*[x[places] for x in draws]),
            MASK,
            MASKS,
        )

    whole, merged = Statistics(settings), Statistics(settings)
    _add_parts(text, pairs, masks_of, settings, [whole])
    parts = [Statistics(settings) for _ in range(3)]
    _add_parts(text, pairs, masks_of, settings, parts)
    for part in parts:
        merged.merge(json.loads(json.dumps(part.to_dict())))
    assert merged.to_dict() == whole.to_dict()
    assert merged.summary() == whole.summary()
    assert json.loads(json.dumps(whole.summary())) == whole.summary()
    assert whole.summary()["instances"] == len(pairs.swapped) > 100
    assert parts[0].summary() != whole.summary()


def test_counts_are_numbers_also_of_a_single_document():
    statistics = Statistics(SETTINGS)
    statistics.add_document(_document(1, 0, True))
    counts = json.loads(json.dumps(statistics.to_dict()))["counts"]
    assert [type(count) for count in counts.values()] == [int] * len(counts)


def test_without_masks_nothing_is_said_of_them():
    text = random_text(6)
    _, made, statistics = make_records(text, DYNAMIC_SETTINGS)
    statistics.add_text(text, 0, UNK)
    summary = statistics.summary()
    assert summary["instances"] == len(made) > 100
    assert not [name for name in summary if "mask" in name or "predict" in name]
    assert not [name for name in summary if "kept" in name or "replaced_by" in name]
    distributions = summary["distributions"]
    assert sorted(distributions) == ["sequence_lengths", "unk_percent_of_documents"]
    with_masks = make_records(text, SETTINGS)[2]
    with_masks.add_text(text, 0, UNK)
    for name, value in with_masks.summary().items():
        if name in summary and name != "distributions":
            assert summary[name] == value


def test_shares_of_nothing_are_none():
    summary = Statistics(SETTINGS).summary()
    for name, value in summary.items():
        if name.endswith("_share") and name != "target_masked_share":
            assert value is None
    assert summary["tokens_per_instance"] is None
    assert summary["instances"] == 0
    assert not any(summary["distributions"].values())
    assert json.loads(json.dumps(summary)) == summary


def test_nothing_to_warn_of():
    text = random_text(7)
    _, _, statistics = make_records(text, SETTINGS)
    statistics.add_text(text, 0, UNK)
    statistics.add_document(_document(1))
    summary = statistics.summary()
    assert summary["dropped_tokens"] == 0
    assert summary["warnings"] == statistics.warnings() == []


@pytest.mark.parametrize(
    "add, expected",
    [
        (
            lambda s: s.add_text(make_text([]), 3, UNK),
            "3 lines have only characters without a token, such as zero-width spaces: "
            "taken as blank lines, which end documents",
        ),
        (
            lambda s: s.add_document(_document(1, 5)),
            "5 undecodable bytes were replaced",
        ),
        (
            lambda s: s.add_document(_document(1, 0, True)),
            "1 documents were divided because of their length: put blank lines "
            "between documents",
        ),
        (
            lambda s: s.add_cut_document(),
            "1 documents were divided because of their length: put blank lines "
            "between documents",
        ),
        (
            lambda s: s.add_text(make_text([[[1]]]), 0, UNK),
            "3 tokens stood alone in a chunk: left out",
        ),
    ],
)
def test_counts_that_need_attention_are_warned_of(add, expected):
    statistics = Statistics(SETTINGS)
    add(statistics)
    assert statistics.warnings() == statistics.summary()["warnings"] == [expected]


def test_instances_without_masks_are_warned_of():
    text = make_text([[[3], [3]], [[1], [3]]])
    settings = instances.Settings(16, 0.0, 5, masking.MaskSettings(0.1, 2))
    _, _, statistics = make_records(text, settings)
    statistics.add_text(text, 0, UNK)
    summary = statistics.summary()
    assert summary["instances_without_masks"] == 5
    expected = "5 instances have no word short enough to be masked"
    assert summary["warnings"] == [expected]
    assert summary["distributions"]["masks_per_instance"] == {"0": 5, "1": 5}


def test_the_limit_on_predictions_is_warned_of_before_anything_is_counted():
    masks = masking.MaskSettings(0.15, 10)
    (warning,) = Statistics(instances.Settings(128, masks=masks)).warnings()
    assert "max_predictions_per_seq=10 limits the masks" in warning
    assert "masked_lm_prob=0.15 of 125 tokens is 18.8" in warning
    assert "raise it to 19" in warning
    assert limit_warnings(masks, 125) == [warning]
    assert limit_warnings(masks._replace(max_predictions_per_seq=19), 125) == []
    assert limit_warnings(None, 125) == []
    half = masking.MaskSettings(0.5, 10)
    assert limit_warnings(half, 20) == []
    (warning,) = limit_warnings(half, 21)
    assert "raise it to 11" in warning


def test_generation_counts_every_batch():
    text, settings = random_text(8), SETTINGS._replace(dupe_factor=4)
    pairs, made, statistics = make_records(text, settings)
    assert len(made) > 2 * instances.BATCH_INSTANCES
    num_masked = sum(int(record["masked_lm_weights"].sum()) for record in made)
    assert statistics.summary()["masked_tokens"] == num_masked

    unread = Statistics(settings)
    records = sharding.make_records(
        text, pairs, settings, VOCABULARY, unread, np.random.RandomState(0)
    )
    next(records)
    distribution = unread.summary()["distributions"]["masks_per_instance"]
    assert sum(distribution.values()) == instances.BATCH_INSTANCES
