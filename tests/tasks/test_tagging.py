"""Taggers: offsets of characters, windows, heads, decoders, predictions."""

import json
import tracemalloc

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given
from hypothesis import strategies as st

import modeling
import tokenization
from albert_zh.base.errors import UserError
from albert_zh.tasks import (
    characters,
    get_task,
    model_files,
    tag_decoders,
    tagged_texts,
    tagging,
)
from albert_zh.tasks.objective import PLAIN
from albert_zh.tasks.reading import ExampleFile
from albert_zh.tasks.tag_schemes import Span
from tests.small_models import CONFIG

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("在北京米兰霸争a31.")
VOCABULARY = ("\n".join(WORDS + ["vsac", "##s", "31"]) + "\n").encode("utf-8")
TYPES = ("LOC", "PER")
# Characters with a token; without one: white space, control, zero-width; others.
KNOWN, SKIPPED, UNKNOWN = "在北京米兰霸争a31.", " \u3000\xa0\t\x01\u200b\ufeff", "😀𠀀é"


def build_files(tmp_path, decoder, max_seq_length=8, types=TYPES):
    path = tmp_path / "vocab.txt"
    path.write_bytes(VOCABULARY)
    config = dict(CONFIG.to_dict(), vocab_size=len(WORDS) + 3)
    return model_files.TaskFiles(
        modeling.AlbertConfig.from_dict(config),
        get_task("ner"),
        types,
        str(path),
        None,
        True,
        False,
        max_seq_length,
        {"decoder": decoder},
    )


@pytest.fixture(scope="module")
def taggers(tmp_path_factory):
    """Dict decoder -> `Tagging` with windows of 6 tokens."""
    folder = tmp_path_factory.mktemp("taggers")
    return {
        name: tagging.Tagging(build_files(folder, name))
        for name in tag_decoders.DECODERS
    }


def perfect(tagger, text, entities):
    """What `decode` makes of a perfect model's predictions."""
    example = tagged_texts.TaggedText(text, tuple(entities))
    windows = tagger.build_features(example)
    rows = [tagger._decoder.perfect(window.targets) for window in windows]
    return tagger.decode(example, windows, rows)


@st.composite
def tagged(draw, overlap):
    """A text, and entities of it that begin and end with characters with a token."""
    alphabet = st.sampled_from(KNOWN + SKIPPED + UNKNOWN)
    text = "".join(draw(st.lists(alphabet, min_size=1, max_size=30)))
    borders = [i for i, char in enumerate(text) if char not in SKIPPED]
    spans, first = set(), 0
    for _ in range(draw(st.integers(0, 5))):
        if first >= len(borders):
            break
        start = draw(st.integers(first, len(borders) - 1))
        # No longer than half a window, where it is found whole in one of them.
        last = draw(st.integers(start, min(start + 2, len(borders) - 1)))
        kind = draw(st.sampled_from(TYPES))
        spans.add(Span(borders[start], borders[last] + 1, kind))
        first = 0 if overlap else last + 1
    return text, sorted(spans)


@pytest.mark.parametrize("decoder", ["softmax", "crf"])
@given(case=tagged(overlap=False))
def test_flat_entities_come_back_in_any_text(taggers, decoder, case):
    text, spans = case
    found = perfect(taggers[decoder], text, spans)
    assert [(e.start, e.end, e.type) for e in found] == spans
    assert all(text[e.start : e.end] == e.text for e in found)


@given(case=tagged(overlap=True))
def test_any_entities_come_back_from_span(taggers, case):
    text, spans = case
    found = perfect(taggers["span"], text, spans)
    assert [(e.start, e.end, e.type) for e in found] == spans
    assert all(text[e.start : e.end] == e.text for e in found)


@given(st.text(st.sampled_from(KNOWN + SKIPPED + UNKNOWN), max_size=40))
def test_each_character_is_a_token_once_or_none(text):
    tokenizer = tokenization.FullTokenizer.from_bytes(VOCABULARY)
    features = characters.Encoder(tokenizer, 8).encode(text)
    windows = [item.origin for item in features]
    positions = tagging._positions(windows)
    assert positions == [i for i, char in enumerate(text) if char not in SKIPPED]
    for item in features:
        assert len(item.input_ids) == len(item.origin.positions) + 2 <= 8
        for token_id, position in zip(item.input_ids[1:], item.origin.positions):
            # The accent is stripped, and e not in the vocabulary.
            expected = text[position] if text[position] in KNOWN else "[UNK]"
            assert tokenizer.inv_vocab[token_id] == expected


@pytest.mark.parametrize("text, start, end", [("vsac米兰", 2, 6), ("霸31.3", 2, 3)])
@pytest.mark.parametrize("decoder", sorted(tag_decoders.DECODERS))
def test_entities_that_begin_or_end_inside_a_wordpiece(
    taggers, decoder, text, start, end
):
    (entity,) = perfect(taggers[decoder], text, [Span(start, end, "LOC")])
    assert entity == (start, end, text[start:end], "LOC")


def test_entities_across_the_cut_between_windows(taggers):
    text = "在北京米兰霸争" * 4
    for start in range(len(text) - 3):
        span = Span(start, start + 3, "PER")
        for tagger in taggers.values():
            (entity,) = perfect(tagger, text, [span])
            assert entity[:2] == span[:2]
    # Tags join longer ones, too.
    (entity,) = perfect(taggers["crf"], text, [Span(1, 20, "LOC")])
    assert entity[:2] == (1, 20)


@given(st.integers(0, 200), st.integers(3, 20))
def test_windows_cover_all_and_give_context(num_tokens, max_tokens):
    ranges = characters.window_ranges(num_tokens, max_tokens)
    assert ranges[0][0] == 0 and ranges[-1][1] == num_tokens
    for (begin, end), (following, _) in zip(ranges, ranges[1:]):
        assert end - begin == max_tokens
        assert begin < following <= end - max_tokens // 2
    windows = [characters.Window(a, range(a, b)) for a, b in ranges]
    for token in range(num_tokens):
        contexts = context_of_windows(windows, token, token)
        assert max(contexts) >= (max_tokens // 2 - 1) // 2


def context_of_windows(windows, first, last):
    """The context of a run in each window, -1 where the window cuts the run."""
    contexts = []
    for window in windows:
        left = first - window.begin if window.begin else np.inf
        right = window.end - 1 - last if window is not windows[-1] else np.inf
        inside = window.begin <= first and last < window.end
        contexts.append(min(left, right) if inside else -1)
    return contexts


@given(st.integers(1, 60), st.integers(3, 12))
def test_the_window_with_the_most_context_is_found(num_tokens, max_tokens):
    ranges = characters.window_ranges(num_tokens, max_tokens)
    windows = [characters.Window(a, range(a, b)) for a, b in ranges]
    runs = [(a, b) for a in range(num_tokens) for b in range(a, num_tokens)]
    found = characters.best_windows(windows, *zip(*runs)).tolist()
    for run, number in zip(runs, found):
        contexts = context_of_windows(windows, *run)
        most = max(contexts)
        assert number == (contexts.index(most) if most >= 0 else -1)


def test_memory_grows_with_a_text_and_not_with_its_square(taggers):
    text = "在北京米兰霸争" * 1000
    spans = [Span(start, start + 3, "LOC") for start in range(0, 6993, 7)]
    example = tagged_texts.TaggedText(text, tuple(spans))
    for decoder in ("softmax", "span"):
        tagger = taggers[decoder]
        windows = tagger.build_features(example)
        rows = [tagger._decoder.perfect(window.targets) for window in windows]
        tracemalloc.start()
        found = tagger.decode(example, windows, rows)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [(e.start, e.end, e.type) for e in found] == spans
        assert peak < 14e6  # 2,300 windows times 7,000 tokens are 130 MB


def test_each_token_s_tag_is_of_the_window_with_the_most_context(taggers):
    tagger = taggers["softmax"]
    text = "北" * 9  # tokens 0-5 and 3-8
    windows = tagger.build_features(tagged_texts.TaggedText(text))
    assert [w.origin.begin for w in windows] == [0, 3]
    inside = {"tags": np.array([1, 2, 2, 2, 2, 2])}
    outside = {"tags": np.zeros(6, int)}
    example = tagged_texts.TaggedText(text)
    # Token 4 is 1 from the end of the first window, and 1 from the second's begin.
    (entity,) = tagger.decode(example, windows, [inside, outside])
    assert (entity.start, entity.end) == (0, 5)
    (entity,) = tagger.decode(example, windows, [outside, inside])
    assert (entity.start, entity.end) == (5, 9)


def test_entities_that_cannot_be_predicted_are_counted(taggers):
    nested = [Span(0, 4, "LOC"), Span(1, 3, "PER")]
    examples = [
        tagged_texts.TaggedText("在北京米", tuple(nested)),
        tagged_texts.TaggedText("在 北", (Span(0, 2, "LOC"), Span(2, 3, "PER"))),
        tagged_texts.TaggedText("\u3000", (Span(0, 1, "LOC"),)),
    ]
    for name, are_noted in (
        ("softmax", [True, True, True]),
        ("crf", [True, True, True]),
        ("span", [False, True, True]),
    ):
        windows = [taggers[name].build_features(example) for example in examples]
        notes = [[note for w in group for note in w.notes] for group in windows]
        assert [len(found) for found in notes] == are_noted
        (note,) = notes[-1]
        assert note.startswith("have entities that cannot be predicted: they ")
        assert ("--decoder=span" in note) == (name != "span")
        assert ("longer than half" in note) == (name == "span")


class Model:
    """Stands in for `modeling.AlbertModel`."""

    def __init__(self, sequence):
        self._sequence = tf.constant(sequence, tf.float32)

    def get_sequence_output(self):
        return self._sequence


def run_head(tagger, sequence, mask, targets):
    """(losses, predictions, values of the variables) of a head."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        features = {"input_mask": tf.constant(mask, tf.int32)}
        features.update({k: tf.constant(v, tf.int32) for k, v in targets.items()})
        outputs = tagger.outputs(Model(sequence))
        losses = tagger.losses(outputs, features, PLAIN)
        fetched = losses, tagger.predictions(outputs, features)
        session.run(tf.global_variables_initializer())
        held = {v.op.name: v for v in tf.trainable_variables()}
        assert list(held) == [v.name for v in tagger.head(tagger.files)]
        random = np.random.RandomState(0)
        for variable in held.values():
            shape = variable.shape.as_list()
            session.run(variable.assign(random.normal(size=shape)))
        return session.run(fetched) + (session.run(held),)


def draw_batch():
    """Outputs of an encoder for windows of 4, 2 and 0 tokens, and their mask."""
    random = np.random.RandomState(3)
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2, [1] * 2 + [0] * 4])
    return random.normal(size=[3, 6, CONFIG.hidden_size]), mask


def test_softmax_loss_and_tags(taggers):
    sequence, mask = draw_batch()
    tag_ids = [[0, 1, 2, 0, 3, 0], [0, 4, 0, 0, 0, 0], [0] * 6]
    losses, predicted, held = run_head(
        taggers["softmax"], sequence, mask, {"tag_ids": tag_ids}
    )
    logits = sequence @ held["ner/output_weights"].T + held["ner/output_bias"]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    for i, length in enumerate((4, 2, 0)):
        steps = range(1, length + 1)
        terms = [-np.log(probabilities[i, t, tag_ids[i][t]]) for t in steps]
        assert losses[i] == pytest.approx(np.mean(terms) if terms else 0, abs=1e-5)
        expected = logits[i, 1 : length + 1].argmax(axis=1)
        assert predicted["tags"][i, :length].tolist() == expected.tolist()
        assert not predicted["tags"][i, length:].any()


def test_crf_has_transitions(taggers):
    sequence, mask = draw_batch()
    tag_ids = [[0, 1, 2, 0, 3, 0], [0, 4, 0, 0, 0, 0], [0] * 6]
    losses, _, held = run_head(taggers["crf"], sequence, mask, {"tag_ids": tag_ids})
    logits = sequence @ held["ner/output_weights"].T + held["ner/output_bias"]
    # Two tokens: all 25 pairs.
    pairs = logits[1, 1][:, None] + logits[1, 2][None] + held["ner/transitions"]
    expected = np.log(np.exp(pairs).sum()) - pairs[4, 0]
    assert losses[1] == pytest.approx(expected, abs=1e-4)
    assert losses[2] == 0


def span_oracle(tagger, vectors, held):
    """s(type, i, j) of the published formula for sequence outputs [n, H]."""
    size = 64
    turned = []
    both = vectors @ held["ner/span_weights"].T + held["ner/span_bias"]
    rates = 10000.0 ** (-np.arange(0, size, 2) / size)
    for part in (both[:, :size], both[:, size:]):
        rows = []
        for position, row in enumerate(part):
            # As complex numbers, the rotation is a product.
            numbers = row[: size // 2] + 1j * row[size // 2 :]
            numbers = numbers * np.exp(1j * position * rates)
            rows.append(np.concatenate([numbers.real, numbers.imag]))
        turned.append(np.array(rows))
    scores = turned[0] @ turned[1].T / np.sqrt(size)
    by_type = both @ held["ner/span_type_weights"].T
    by_type += held["ner/span_type_bias"]
    starts, ends = by_type[:, : len(TYPES)] / 2, by_type[:, len(TYPES) :] / 2
    return scores[None] + starts.T[:, :, None] + ends.T[:, None, :]


def test_span_scores_loss_and_order(taggers):
    tagger = taggers["span"]
    sequence, mask = draw_batch()
    window = characters.Window(0, range(4))
    spans = [Span(0, 3, "PER"), Span(1, 2, "PER"), Span(1, 2, "LOC")]
    (targets,) = tagger._decoder.targets(spans, [window])
    codes = [targets["span_codes"], [0] * 3, [0] * 3]
    losses, predicted, held = run_head(tagger, sequence, mask, {"span_codes": codes})
    for i, (length, true) in enumerate([(4, spans), (2, []), (0, [])]):
        scores = span_oracle(tagger, sequence[i, 1 : length + 1], held)
        places = {(span.type, span.start, span.end - 1) for span in true}
        terms, expected = [], []
        for number, kind in enumerate(TYPES):
            sums = [1.0, 1.0]
            for first in range(length):
                for last in range(first, length):
                    score = scores[number, first, last]
                    if score > 0:
                        expected.append((number, first, last))
                    is_true = (kind, first, last) in places
                    sums[is_true] += np.exp(-score if is_true else score)
            terms.append(np.log(sums).sum())
        assert losses[i] == pytest.approx(np.mean(terms), rel=1e-4, abs=1e-5)
        rows = predicted["spans"][i][predicted["scores"][i] > 0]
        assert sorted(map(tuple, rows.tolist())) == expected


@pytest.mark.parametrize("decoder", sorted(tag_decoders.DECODERS))
def test_nan_shows_in_a_prediction(taggers, decoder):
    sequence, mask = draw_batch()
    sequence[0, 2] = np.nan
    name = taggers[decoder].target_fields[0].name
    _, predicted, _ = run_head(taggers[decoder], sequence, mask, {name: mask * 0})
    floats = [v for v in predicted.values() if v.dtype.kind == "f"]
    assert not all(np.isfinite(values).all() for values in floats)


def test_predictions_have_the_form_of_the_input(taggers, tmp_path):
    text = "北京在北京a"
    example = tagged_texts.TaggedText(text, id="x")
    entities = [
        tagging.Entity(0, 2, "北京", "LOC"),
        tagging.Entity(3, 5, "北京", "LOC"),
        tagging.Entity(3, 6, "北京a", "PER"),
    ]
    lines = []
    for name in ("test.json", "test.txt"):
        data = ExampleFile(name, [example])
        path = taggers["span"].write_predictions(
            str(tmp_path), data, [(example, entities)]
        )
        with open(path, encoding="utf-8") as source:
            lines.append(json.loads(source.read()))
    label = {"LOC": {"北京": [[0, 1], [3, 4]]}, "PER": {"北京a": [[3, 5]]}}
    assert lines[0] == {"id": "x", "label": label}
    assert lines[1]["text"] == text and lines[1]["id"] == "x"
    assert lines[1]["entities"][2] == {
        "start": 3,
        "end": 6,
        "text": "北京a",
        "type": "PER",
    }
    # CLUENER's form is what the reader takes.
    (tmp_path / "back.json").write_text(
        json.dumps(dict(lines[0], text=text)), encoding="utf-8"
    )
    reader = tagged_texts.TagReader(get_task("ner"))
    back = reader.read_examples(str(tmp_path / "back.json"), None).examples[0]
    assert [(s.start, s.end, s.type) for s in back.entities] == [
        (e.start, e.end, e.type) for e in entities
    ]


@pytest.mark.parametrize(
    "options", [{}, {"decoder": "beam"}, {"decoder": "crf", "x": 1}, {"decoder": 1}]
)
def test_labels_file_with_other_options_is_damaged(tmp_path, options):
    files = build_files(tmp_path, "crf")._replace(options=options)
    model_files.save(str(tmp_path / "model"), files)
    with pytest.raises(UserError, match="labels.json: damaged .options"):
        model_files.load(str(tmp_path / "model"))


def test_options_are_kept(tmp_path):
    files = build_files(tmp_path, "span", types=("X",))
    model_files.save(str(tmp_path / "model"), files)
    loaded = model_files.load(str(tmp_path / "model"))
    assert loaded.options == {"decoder": "span"} and loaded.labels == ("X",)
