"""Span extraction: windows, targets, head, loss, decoding, settings."""

import itertools
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given
from hypothesis import strategies as st

import modeling
from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints, model_graph
from albert_zh.tasks import fine_tuning, get_task, model_files, span_extraction
from albert_zh.tasks.objective import PLAIN
from albert_zh.tasks.reading import ExampleFile
from albert_zh.tasks.span_extraction import Settings
from albert_zh.tasks.squad_files import Question, SquadReader
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = list("天地人山水火土木金石，。12") + ["ab", "##c"]
TEXTS = st.text(st.sampled_from("天地人山 \u3000，。12abＡcé\u200b龘"), max_size=30)
NAMES = ("start_logits", "end_logits")


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(SPECIAL + CHARACTERS) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def sentencepiece_file(tmp_path_factory, train_sentencepiece):
    lines = ["天地 人山 ab 12，", "人 天 地ab c 。山"] * 20
    folder = tmp_path_factory.mktemp("spm")
    return train_sentencepiece(folder, lines, vocab_size=30)


@pytest.fixture(scope="module")
def build_kind(vocab_file):
    """Function of a length, of options and a SentencePiece model; builds the kind."""

    def build(max_seq_length, spm_model_file=None, **options):
        return span_extraction.SpanExtraction(
            model_files.TaskFiles(
                CONFIG,
                get_task("squad"),
                (),
                None if spm_model_file else vocab_file,
                spm_model_file,
                True,
                False,
                max_seq_length,
                options,
            )
        )

    return build


# Windows


@given(st.integers(0, 60), st.integers(1, 20), st.data())
def test_windows_cover_the_text_and_stop_at_its_end(num_tokens, size, data):
    stride = data.draw(st.integers(1, size))
    firsts = list(span_extraction.window_starts(num_tokens, size, stride))
    covered = {i for first in firsts for i in range(first, first + size)}
    assert covered >= set(range(num_tokens))
    # As BERT's loop makes them.
    expected, start = [], 0
    while True:
        expected.append(start)
        if start + size >= num_tokens:
            break
        start += stride
    assert firsts == expected


@given(st.integers(0, 60), st.integers(1, 20), st.data())
def test_a_token_is_judged_where_it_has_the_most_context(num_tokens, size, data):
    stride = data.draw(st.integers(1, size))
    firsts = span_extraction.window_starts(num_tokens, size, stride)
    chosen = span_extraction.window_of_tokens(num_tokens, firsts, size)
    for token in range(num_tokens):
        contexts = []
        for first in firsts:
            last = min(first + size, num_tokens) - 1
            context = -1.0
            if first <= token <= last:
                context = min(token - first, last - token) + 0.01 * (last - first + 1)
            contexts.append(context)
        assert chosen[token] == np.argmax(contexts)


def test_the_window_with_most_context_by_hand():
    # Windows of tokens 0-3, 2-5, 4-6. Token 3 is the last one of the first window and
    # has one token on its left in the second. Token 2 ends none, but begins the second.
    firsts = span_extraction.window_starts(7, 4, 2)
    assert list(firsts) == [0, 2, 4]
    chosen = span_extraction.window_of_tokens(7, firsts, 4)
    assert chosen.tolist() == [0, 0, 0, 1, 1, 2, 2]


@given(question=TEXTS, context=TEXTS, length=st.integers(8, 24), data=st.data())
@pytest.mark.parametrize("is_sentencepiece", [False, True])
def test_windows_hold_the_tokens_with_their_characters(
    build_kind, sentencepiece_file, is_sentencepiece, question, context, length, data
):
    spm_model_file = sentencepiece_file if is_sentencepiece else None
    kind = build_kind(length, spm_model_file)
    tokenizer = kind.tokenizer
    tokens = tokenizer.tokenize_with_offsets(context)
    ids = tokenizer.convert_tokens_to_ids([token.text for token in tokens])
    start = data.draw(st.integers(0, len(context)))
    span = (start, data.draw(st.integers(start, len(context))))
    windows = kind.build_features(Question("1", question, context, (), span))
    asked = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(question))
    asked = asked[: kind.settings.max_query_length]
    num_judged = 0
    for window in windows:
        assert len(window.input_ids) == len(window.segment_ids) <= length
        origin, size = window.origin, len(window.origin.starts)
        assert window.input_ids[: origin.position] == (
            [tokenizer.cls_id] + asked + [tokenizer.sep_id]
        )
        held = window.input_ids[origin.position :]
        assert held[-1] == tokenizer.sep_id and len(held) == size + 1
        first = next(
            i
            for i in range(len(tokens) + 1)
            if [t.start for t in tokens[i : i + size]] == origin.starts.tolist()
            and ids[i : i + size] == held[:-1]
        )
        assert [t.end for t in tokens[first:][:size]] == origin.ends.tolist()
        num_judged += int(origin.is_judged.sum())
        target = window.targets
        assert 0 <= target["start_positions"] <= target["end_positions"]
        if target["start_positions"]:
            first_token = target["start_positions"] - origin.position
            last_token = target["end_positions"] - origin.position
            # The rest of a token may be cut along, but never a whole one.
            inside = [t for t in tokens if t.end > span[0] and t.start < span[1]]
            inside = [t for t in inside if t.end > t.start]
            assert origin.starts[first_token] == inside[0].start
            assert origin.ends[last_token] == inside[-1].end
    assert num_judged == len(tokens)


@pytest.mark.parametrize(
    "context, answer, expected",
    [
        ("天地人山", "地人", "地人"),
        ("天 地\u3000人 山", "地\u3000人", "地\u3000人"),
        ("天ＡB地", "ＡB", "ＡB"),  # width and case of the source
        ("天龘地", "龘", "龘"),  # [UNK]
        ("天abc地", "b", "ab"),  # inside a token
        ("天地 人", "地 ", "地"),
    ],
)
def test_an_answer_is_cut_from_the_source(build_kind, context, answer, expected):
    kind = build_kind(16)
    start = context.index(answer)
    example = Question("1", "山", context, (answer,), (start, start + len(answer)))
    assert predict_targets(kind, example).text == expected


def predict_targets(kind, example):
    """What is decoded where the head scores the targets of each window the highest."""
    windows = kind.build_features(example)
    rows = []
    for window in windows:
        row = {}
        for name in ("start", "end"):
            logits = np.zeros(len(window.input_ids), np.float32)
            logits[window.targets[name + "_positions"]] = 9
            row[name + "_logits"] = logits
        rows.append(row)
    return kind.decode(example, windows, rows)


def test_an_answer_in_two_windows_and_one_that_is_cut(build_kind):
    # [CLS] 山 [SEP] leave 8 - 4 = 4 tokens of the text, 2 further on in each window.
    kind = build_kind(8, max_query_length=1, doc_stride=2)
    context = "天地人山水火土木"
    in_two = Question("1", "山", context, ("人山",), (2, 4))
    windows = kind.build_features(in_two)
    targets = [window.targets for window in windows]
    assert [t["start_positions"] for t in targets] == [5, 3, 0]
    assert [t["end_positions"] for t in targets] == [6, 4, 0]
    assert predict_targets(kind, in_two).text == "人山"
    too_long = Question("2", "山", context, ("地人山水",), (1, 5))
    windows = kind.build_features(too_long)
    assert {w.targets["start_positions"] for w in windows} == {0}
    notes = ("have an answer that no window holds whole",)
    assert [window.notes for window in windows] == [notes] * 3


def test_an_answer_cut_where_its_beginning_is_judged_is_noted(build_kind):
    context = "天地人山水火土木"
    example = Question("1", "山", context, ("人山水",), (2, 5))
    # Windows 天地人山, 人山水火 and 水火土木; the first has more context for 人.
    kind = build_kind(8, max_query_length=1, doc_stride=2)
    (note,) = kind.build_features(example)[0].notes
    assert "never predicted" in note and "--doc_stride" in note
    assert predict_targets(kind, example).text != "人山水"
    kind = build_kind(10, max_query_length=1, doc_stride=2)
    assert kind.build_features(example)[0].notes == ()
    assert predict_targets(kind, example).text == "人山水"


def test_an_answer_longer_than_any_predicted_is_noted(build_kind):
    kind = build_kind(12, max_query_length=1, max_answer_length=2)
    long = Question("1", "山", "天地人山", ("天地人",), (0, 3))
    (window,) = kind.build_features(long)
    assert window.notes == (
        "have an answer of over 2 tokens, which is never predicted",
    )
    assert predict_targets(kind, long).text != "天地人"
    short = Question("2", "山", "天地人山", ("地人",), (1, 3))
    assert kind.build_features(short)[0].notes == ()
    assert predict_targets(kind, short).text == "地人"


def test_a_perfect_model_answers_the_real_questions(real_data, tmp_path):
    """No window, offset or comparison keeps a model from CMRC 2018's answers."""
    config = dict(CONFIG.to_dict(), vocab_size=21128, max_position_embeddings=512)
    config = modeling.AlbertConfig.from_dict(config)
    vocab_file = str(real_data / "bert_zh_vocab" / "vocab.txt")
    settings = Settings(doc_stride=128, max_query_length=64, max_answer_length=512)
    for name in ("trial", "dev"):
        path = str(real_data / "cmrc2018" / "cmrc2018_{}.json".format(name))
        reader = SquadReader(skip_unanswerable=True)
        examples = reader.read_examples(path, None, is_training=True).examples[:200]
        files = model_files.TaskFiles(
            *(config, get_task("cmrc2018"), (), vocab_file, None, True, False, 512),
            dict(settings._asdict()),
        )
        kind = span_extraction.SpanExtraction(files)
        predictions = [predict_targets(kind, example) for example in examples]
        # An answer of the trial file begins with a space, which has no token.
        assert kind.score(examples, predictions)["exact_match"] >= 0.995


def test_questions_are_cut_and_noted(build_kind):
    kind = build_kind(12, max_query_length=2)
    (window,) = kind.build_features(Question("1", "天地人", "山"))
    assert window.notes == ("have a question cut to 2 tokens",)
    assert len(window.input_ids) == 1 + 2 + 1 + 1 + 1
    (window,) = kind.build_features(Question("1", "", "山"))
    assert window.notes == ("have an empty question",)


def test_a_text_without_tokens_has_no_answer(build_kind):
    kind = build_kind(12)
    example = Question("1", "天", "\u200b")
    (window,) = kind.build_features(example)
    row = {name: np.ones(len(window.input_ids), np.float32) for name in NAMES}
    assert kind.decode(example, [window], [row]).text == ""


# Decoding


@given(
    starts=st.lists(st.integers(-5, 5), min_size=1, max_size=12),
    data=st.data(),
    max_length=st.integers(1, 15),
    number=st.integers(1, 30),
)
def test_the_best_spans_are_those_of_brute_force(starts, data, max_length, number):
    size = len(starts)
    values = st.lists(st.integers(-5, 5), min_size=size, max_size=size)
    ends = np.array(data.draw(values), np.float32)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    starts = np.where(allowed, np.array(starts, np.float32), -np.inf)
    found = list(zip(*span_extraction.best_spans(starts, ends, max_length, number)))
    spans = [
        (first, last)
        for first in range(size)
        for last in range(first, min(first + max_length, size))
        if allowed[first]
    ]
    spans.sort(key=lambda span: -(starts[span[0]] + ends[span[1]]))
    assert found == spans[:number]


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_decoding_equals_brute_force(build_kind, seed, with_negative):
    generator = np.random.RandomState(seed)
    context = "".join(generator.choice(list("天地人山 水"), generator.randint(1, 15)))
    example = Question("1", "火", context + "土")
    kind = build_kind(
        9,
        max_query_length=1,
        doc_stride=3,
        max_answer_length=3,
        n_best_size=4,
        version_2_with_negative=with_negative,
        null_score_diff_threshold=0.5 if with_negative else 0.0,
    )
    windows = kind.build_features(example)
    rows = [
        {name: generator.normal(size=12).astype(np.float32) for name in NAMES}
        for _ in windows
    ]
    prediction = kind.decode(example, windows, rows)
    best = {}  # text -> score
    nulls = []
    for window, row in zip(windows, rows):
        starts, ends = (row[name].astype(float) for name in NAMES)
        nulls.append(starts[0] + ends[0])
        origin = window.origin
        for i, j in itertools.product(range(len(origin.starts)), repeat=2):
            if i <= j < i + 3 and origin.is_judged[i]:
                text = example.context[origin.starts[i] : origin.ends[j]]
                score = starts[origin.position + i] + ends[origin.position + j]
                best[text] = max(best.get(text, -np.inf), score)
    kept = sorted(best.items(), key=lambda item: -item[1])[:4]
    expected = kept[0][0]
    if with_negative:
        expected = "" if min(nulls) - kept[0][1] > 0.5 else expected
        kept = sorted(kept + [("", min(nulls))], key=lambda item: -item[1])
    assert prediction.text == expected
    assert [answer.text for answer in prediction.answers] == [text for text, _ in kept]
    weights = np.exp([score for _, score in kept])
    np.testing.assert_allclose(
        [answer.probability for answer in prediction.answers],
        weights / weights.sum(),
        rtol=1e-4,
    )
    for answer in prediction.answers:
        assert example.context[answer.start : answer.end] == answer.text
        assert (answer.text == prediction.text) == (
            answer.probability == prediction.probability
        )


# Head and loss


class Encoder:
    """Stands in for `modeling.AlbertModel`."""

    def __init__(self, sequence):
        self._sequence = tf.constant(sequence)

    def get_sequence_output(self):
        return self._sequence


def test_head_is_a_linear_layer_with_the_names_of_bert(build_kind):
    sequence = np.random.RandomState(0).normal(size=(2, 3, 16)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = build_kind(8).outputs(Encoder(sequence))
        variables = tf.trainable_variables()
        assert {v.op.name: v.shape.as_list() for v in variables} == {
            "cls/squad/output_weights": [2, 16],
            "cls/squad/output_bias": [2],
        }
        session.run(tf.global_variables_initializer())
        session.run(variables[1].assign([1.0, 2.0]))
        actual, weights = session.run([outputs, variables[0]])
    expected = sequence @ weights.T + [1.0, 2.0]
    np.testing.assert_allclose(actual["start_logits"], expected[..., 0], atol=1e-5)
    np.testing.assert_allclose(actual["end_logits"], expected[..., 1], atol=1e-5)


def test_loss_is_the_mean_cross_entropy_over_text_and_cls(build_kind):
    generator = np.random.RandomState(1)
    logits = {n: generator.normal(size=(2, 6)).astype(np.float32) for n in NAMES}
    features = {
        # The second example has a token of the question less, and one of padding.
        "segment_ids": [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0]],
        "start_positions": [3, 0],
        "end_positions": [4, 0],
    }
    candidates = [[0, 3, 4, 5], [0, 2, 3, 4]]
    with tf.Graph().as_default(), tf.Session() as session:
        losses = session.run(
            build_kind(8).losses(
                {name: tf.constant(value) for name, value in logits.items()},
                {name: tf.constant(value) for name, value in features.items()},
                PLAIN,
            )
        )
    for row, places in enumerate(candidates):
        expected = 0
        for name in ("start", "end"):
            values = logits[name + "_logits"][row].astype(float)
            target = features[name + "_positions"][row]
            expected += np.log(np.exp(values[places]).sum()) - values[target]
        assert losses[row] == pytest.approx(expected / 2, abs=1e-5)


def test_padding_changes_no_prediction(build_kind):
    features = {
        "input_ids": [[2, 5, 3, 6, 7, 3]],
        "input_mask": [[1] * 6],
        "segment_ids": [[0, 0, 0, 1, 1, 1]],
        "is_real_example": [1],
    }
    padded = {n: [v[0] + [0, 0]] for n, v in features.items() if "real" not in n}
    results = []
    for values in (features, dict(features, **padded)):
        model_fn = fine_tuning.model_fn_builder(build_kind(8), False, modeling.FLOAT32)
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(1)
            tensors = {name: tf.constant(value) for name, value in values.items()}
            spec = model_fn(tensors, None, tf.estimator.ModeKeys.PREDICT, {})
            session.run(tf.global_variables_initializer())
            results.append(session.run(spec.predictions))
    for name in NAMES:
        np.testing.assert_allclose(results[0][name], results[1][name][:, :6], atol=1e-5)


# Settings


@pytest.mark.parametrize("length", [5, 6, 16, 64, 128, 384, 512])
def test_defaults_fit_every_length(length):
    settings = Settings.for_length(length, {})
    settings.check(length)
    assert settings.max_query_length <= 64 and settings.doc_stride <= 128
    if length >= 384:
        assert settings == Settings()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"doc_stride": 100}, ["--doc_stride=100", "at most 83"]),
        ({"max_query_length": 148, "doc_stride": 1}, ["at most 146"]),
    ],
)
def test_settings_that_skip_text_are_refused(build_kind, options, words):
    options = dict({"max_query_length": 64}, **options)
    with pytest.raises(UserError) as caught:
        build_kind(150, **options)
    assert not [word for word in words if word not in str(caught.value)]
    # What the message says works.
    name = next(iter(set(options) - {"max_query_length"}))
    if options["doc_stride"] > 1:
        build_kind(150, max_query_length=64, **{name: 83})
    else:
        build_kind(150, max_query_length=146, doc_stride=1)


def test_a_threshold_of_no_answer_needs_questions_without_one(build_kind):
    with pytest.raises(UserError, match="--null_score_diff_threshold=-2: .*remove it"):
        build_kind(150, null_score_diff_threshold=-2.0)
    build_kind(150, null_score_diff_threshold=-2.0, version_2_with_negative=True)


@pytest.mark.parametrize(
    "name, value",
    [
        ("doc_stride", "128"),
        ("doc_stride", 0),
        ("max_query_length", 1.5),
        ("n_best_size", None),
        ("max_answer_length", []),
        ("version_2_with_negative", 1),
        ("null_score_diff_threshold", "0"),
    ],
)
def test_damaged_options_are_one_line(build_kind, tmp_path, name, value):
    files = build_kind(8).files._replace(options=Settings()._asdict())
    model_files.save(str(tmp_path), files)
    assert model_files.load(str(tmp_path)).options == Settings()._asdict()
    path = tmp_path / "labels.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["options"][name] = value
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(UserError, match=r"labels.json: damaged \(options." + name):
        model_files.load(str(tmp_path))


# Files


def test_predictions_are_written_in_the_order_of_the_questions(build_kind, tmp_path):
    kind = build_kind(16)
    examples = [
        Question("乙", "山", "天Ａ地", ("Ａ",), (1, 2)),
        Question("甲", "山", "天地", ("地",), (1, 2)),
    ]
    predictions = [(example, predict_targets(kind, example)) for example in examples]
    data = ExampleFile("x", examples)
    path = kind.write_predictions(str(tmp_path), data, iter(predictions))
    with open(path, encoding="utf-8") as file:
        text = file.read()
    # The form of cmrc2018_predict.json
    assert list(json.loads(text).items()) == [("乙", "Ａ"), ("甲", "地")]
    assert "乙" in text
    path = tmp_path / "nbest_predictions.json"
    nbest = json.loads(path.read_text(encoding="utf-8"))
    assert nbest["乙"][0]["text"] == "Ａ" and nbest["乙"][0]["start"] == 1
    assert {"probability", "start_logit", "end_logit"} <= set(nbest["乙"][0])
    assert sum(a["probability"] for a in nbest["甲"]) == pytest.approx(1)


def test_a_pretrained_checkpoint_needs_no_head_of_the_task(build_kind, tmp_path):
    kind = build_kind(8)
    variables = model_graph.trainable_variables(CONFIG, lambda model: None)
    tensors = {v.op.name: np.zeros(v.shape.as_list(), np.float32) for v in variables}
    path = str(tmp_path / "model.ckpt")
    path = checkpoints.write_tensors(dict(tensors, global_step=np.int64(1)), path)
    add_head = kind.outputs
    variables = model_graph.trainable_variables(CONFIG, add_head)
    report = checkpoints.plan_restore(path, variables)
    assert report.missing == ["cls/squad/output_bias", "cls/squad/output_weights"]
    assert set(report.restored) == set(tensors)


def test_between_epochs_without_an_exact_answer_f1_decides(build_kind):
    kind = build_kind(20)
    scores = [{"exact_match": 0.0, "f1": f1} for f1 in (0.05, 0.2)]
    assert kind.ranked_by == ("exact_match", "f1")
    assert kind.rank(scores[1]) > kind.rank(scores[0])
    assert kind.rank({"exact_match": 0.1, "f1": 0.1}) > kind.rank(scores[1])
