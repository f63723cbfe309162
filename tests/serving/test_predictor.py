"""The resident model: the commands' numbers, from any number of threads."""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import albert_zh
from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints
from albert_zh.serving import encoder, inputs
from albert_zh.serving import predictor as predicting
from albert_zh.tasks import fine_tuning
from albert_zh.tasks.features import Features
from albert_zh.tasks.reading import ExampleFile
from tests import served_models
from tests.served_models import is_close

TASKS = [name for name in served_models.TASKS if name != "encoder"]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Dict name of `served_models.TASKS` -> model directory."""
    return served_models.write_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", TASKS)
def test_the_numbers_are_those_of_the_fine_tuning_loop(name, directories):
    instances = served_models.instances_of(name)
    with albert_zh.load(directories[name]) as predictor:
        answers = predictor(instances)
        form = predictor._form
        examples = [form.example(instance) for instance in instances]
        tuner = fine_tuning.FineTuner(
            predictor.files, None, model_dir=directories[name]
        )
        predictions = list(tuner.predict(ExampleFile("these", examples)))
        expected = [form.answer(*each) for each in predictions]
        assert is_close(answers, expected)
        assert is_close([predictor(instance) for instance in instances], answers)


@pytest.mark.parametrize("name", ["lcqmc", "ner-span", "multiple_choice"])
def test_threads_get_their_own_answers(name, directories):
    instances = served_models.instances_of(name)
    with albert_zh.load(directories[name]) as predictor:
        expected = predictor(instances)

        def ask(number):
            place = number % len(instances)
            return place, predictor(instances[place])

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            for place, answer in pool.map(ask, range(256)):
                assert is_close(answer, expected[place])


@pytest.mark.parametrize("pooling", encoder.POOLINGS)
def test_vectors_are_those_of_the_formula(pooling, directories):
    texts = ["今天天气很好", "a", "银行卡"]
    with albert_zh.load(directories["encoder"], pooling=pooling) as predictor:
        vectors = [answer["vector"] for answer in predictor(texts)]
        names = [encoder.layer_name(i) for i in range(2)]
        for text, vector in zip(texts, vectors):
            (window,) = predictor.prepare(text).windows
            batch = inputs.assemble([window], len(window.input_ids))
            first, last = predictor.backend.run(batch, names).values()
            expected = {
                "cls": last[0, 0],
                "mean": last[0].mean(axis=0),
                "first_last_mean": (first[0].mean(axis=0) + last[0].mean(axis=0)) / 2,
            }
            np.testing.assert_allclose(vector, expected[pooling], atol=1e-6)


def test_fill_mask_is_the_softmax_over_the_vocabulary(directories):
    with albert_zh.load(directories["encoder"]) as predictor:
        answers = predictor.fill_mask("今天[MASK]气很[MASK]", top_k=3)
        assert [len(words) for words in answers] == [3, 3]
        everything = predictor.fill_mask("今天[MASK]气", top_k=10**6)
        assert len(everything[0]) == len(served_models.WORDS)
        assert abs(sum(word["probability"] for word in everything[0]) - 1) < 1e-6
        ranks = [word["probability"] for word in everything[0]]
        assert ranks == sorted(ranks, reverse=True)
        with pytest.raises(UserError, match=r"no \[MASK\]"):
            predictor.fill_mask("今天")
        with pytest.raises(UserError, match="longer than the 64 tokens"):
            predictor.fill_mask("[MASK]" * 63)
        for number in (0, -1, 1.5, None):
            with pytest.raises(UserError, match="top_k=.*: expected a positive"):
                predictor.fill_mask("今天[MASK]", top_k=number)
    with albert_zh.load(directories["lcqmc"], encoder=True) as predictor:
        assert predictor.kind_name == "encoder"
        with pytest.raises(UserError, match="no masked language model"):
            predictor.fill_mask("今天[MASK]")


LONG = "今天天气很好" * 20
NESTED = []
for _ in range(5000):
    NESTED = [NESTED]
# (name of a model, instance, what the message says)
REFUSED = [
    ("lcqmc", {"text_a": "a"}, 'no text_b; expected {"text_a": ..., "text_b": ...}'),
    ("lcqmc", {"text_a": "a", "text_b": "b", "c": 1}, "unknown field 'c'; expected"),
    ("lcqmc", {"text_a": "a", "text_b": 3}, "text_b is 3; expected text"),
    ("lcqmc", {"text_a": "a", "text_b": None}, "text_b is None; expected text"),
    ("lcqmc", {"text_a": "a", "text_b": True}, "text_b is True; expected text"),
    ("lcqmc", {"text_a": ["a"], "text_b": "a"}, "text_a is ['a']; expected text"),
    ("lcqmc", {"text_a": "a", "text_b": ""}, "text_b is empty"),
    ("lcqmc", {"text_a": "a", "text_b": "\0\u200b\ufeff "}, "text_b is empty"),
    ("lcqmc", {"text_a": "a", "text_b": "a\ud800"}, "text_b holds half a surrogate"),
    ("lcqmc", {"text_a": "a", "text_b": LONG}, "longer than the 32 tokens"),
    ("lcqmc", "a", "an instance is 'a'; expected {"),
    ("lcqmc", ["a"], "an instance is ['a']; expected {"),
    ("lcqmc", ["a", 1], "an instance is ['a', 1]; expected {"),
    ("lcqmc", 7, "an instance is 7; expected {"),
    ("lcqmc", None, "an instance is None; expected {"),
    ("lcqmc", {1: "a"}, "unknown field 1; expected"),
    ("lcqmc", NESTED, "nested too deeply"),
    ("lcqmc", {"text_a": "a", "text_b": NESTED}, "nested too deeply"),
    ("single", {"text_a": "a"}, "unknown field 'text_a'; expected {\"text\": ...}"),
    ("single", {"text": LONG}, "longer than the 32 tokens"),
    ("ner-crf", {"text": " "}, "text is empty"),
    ("ner-crf", {"text": "a", "id": 1}, "unknown field 'id'"),
    ("squad", {"question": "a", "context": " "}, "context is empty"),
    ("squad", {"question": LONG, "context": "a"}, "question is longer than the 14"),
    ("multiple_choice", {"context": "a", "question": "a"}, "no choices; expected"),
    (
        "multiple_choice",
        {"context": "a", "question": "a", "choices": "ab"},
        "choices is 'ab'; expected a list of texts",
    ),
    (
        "multiple_choice",
        {"context": "a", "question": "a", "choices": ["a"] * 3},
        "choices has 'a' twice",
    ),
    (
        "multiple_choice",
        {"context": "a", "question": "a", "choices": list(map(str, range(27)))},
        "choices has 27; expected 2 to 26",
    ),
    (
        "multiple_choice",
        {"context": LONG, "question": "a", "choices": ["a", "b"]},
        "longer than the 32 tokens",
    ),
    ("chid", {"content": ["a"], "candidates": ["a", "b"]}, "content has no blank"),
    (
        "chid",
        {"content": ["#idiom1##idiom1#"], "candidates": ["a", "b"]},
        "#idiom1# occurs twice",
    ),
    ("chid", {"content": "#idiom1#", "candidates": ["a", "b"]}, "a list of texts"),
    (
        "chid",
        {"content": ["#idiom1#"], "candidates": ["a", LONG]},
        "a candidate is longer than the 28 tokens",
    ),
    ("encoder", {"text": "a", "text_b": "a"}, "give text or a pair"),
    ("encoder", {"text_a": "a"}, "no text_b; expected"),
    ("encoder", {}, 'no text; expected {"text": ...}'),
    ("encoder", {"text": LONG}, "longer than the 64 tokens"),
]


@pytest.fixture(scope="module")
def predictors(directories):
    """Dict name -> `Predictor` that only checks: it has no back end."""
    held = {}
    for name, directory in directories.items():
        kind = predicting.kind_of(predicting.read_files(directory), directory)
        held[name] = predicting.Predictor(kind, None, directory)
    return held


@pytest.mark.parametrize("name, instance, words", REFUSED)
def test_what_has_no_answer_is_refused_in_one_line(name, instance, words, predictors):
    with pytest.raises(UserError) as caught:
        predictors[name].check(instance)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_names_the_instance_it_refuses(predictors):
    with pytest.raises(UserError, match="^instance 1: text is empty$"):
        predictors["single"](["a", ""])


def test_what_is_no_list_is_an_instance(predictors):
    for value in (None, 7, iter("a")):
        with pytest.raises(UserError, match="an instance is "):
            predictors["single"](value)


def test_a_blank_is_judged_by_the_text_around_it(predictors):
    """As in training; a text of any length is an instance."""
    content = [LONG + "#idiom1#" + LONG + "#idiom2#"]
    instance = {"content": content, "candidates": ["天气", "上海ab"]}
    predictor = predictors["chid"]
    windows = predictor.prepare(instance).windows
    assert [window.is_truncated for window in windows] == [True, True]
    longest = [max(window.targets["sequence_lengths"]) for window in windows]
    assert longest == [32, 32]


@pytest.mark.parametrize(
    "name, text, tokens",
    [
        ("single", "ab 今", [("ab", 0, 2), ("今", 3, 4)]),
        ("ner-crf", "ab 今", [("a", 0, 1), ("[UNK]", 1, 2), ("今", 3, 4)]),
        ("ner-crf", "今" * 99, [("今", i, i + 1) for i in range(99)]),
        ("ner-crf", "", []),
    ],
)
def test_tokens_are_those_that_the_model_reads(name, text, tokens, predictors):
    found = predictors[name].tokenize(text)
    assert [(t["token"], t["start"], t["end"]) for t in found] == tokens
    ids = [token["id"] for token in found]
    assert ids == [served_models.WORDS.index(token) for token, *_ in tokens]


@given(
    st.sampled_from(sorted(served_models.TASKS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda values: (
            st.lists(values, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    "text text_a text_b question context choices content candidates "
                    "x".split()
                ),
                values,
                max_size=4,
            )
        ),
        max_leaves=8,
    ),
)
def test_any_value_is_prepared_or_refused(name, value):
    predictor = _PREDICTORS[name]
    try:
        prepared = predictor.prepare(value)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert prepared.windows
    for window in prepared.windows:
        assert len(window.input_ids) == len(window.segment_ids)


_PREDICTORS = {}


@pytest.fixture(autouse=True, scope="module")
def _keep_predictors(predictors):
    """Hypothesis' examples share the module's predictors."""
    _PREDICTORS.update(predictors)
    yield
    _PREDICTORS.clear()


def test_texts_that_are_too_long_are_cut_where_asked(directories):
    with albert_zh.load(directories["lcqmc"], truncate=True) as predictor:
        (answer,) = predictor([{"text_a": LONG, "text_b": "a"}])
        assert set(answer["probabilities"]) == {"0", "1"}
        assert len(predictor.prepare([LONG, "a"]).windows[0].input_ids) == 32


def test_texts_alone_stand_for_instances(directories):
    with albert_zh.load(directories["single"]) as single:
        expected = single({"text": "今天"})
        assert is_close(single("今天"), expected)
        assert is_close(single(["今天", {"text": "今天"}]), [expected] * 2)
        assert is_close(single(np.array(["今天", "今天"])), [expected] * 2)
    with albert_zh.load(directories["lcqmc"]) as pair:
        expected = pair({"text_a": "今天", "text_b": "天气"})
        assert is_close(pair(["今天", "天气"]), expected)
        assert is_close(pair([["今天", "天气"], ("今天", "天气")]), [expected] * 2)
        assert pair([]) == []


def test_it_says_what_it_is(directories):
    with albert_zh.load(directories["ner-crf"]) as predictor:
        assert predictor.task_name == "ner"
        assert predictor.kind_name == "tagging"
        assert predictor.labels == ["LOC", "PER"]
        assert predictor.max_seq_length == 32
        assert predictor.fields == ("text",)


def test_offsets_are_those_of_the_source_text(directories):
    text = "我在 北京\u3000喜欢，上海 天气" * 3
    with albert_zh.load(directories["ner-span"]) as predictor:
        (found,) = predictor([{"text": text}])
    assert found["entities"]
    for entity in found["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
    with albert_zh.load(directories["cmrc2018"]) as predictor:
        answer = predictor({"question": "天气", "context": text})
    assert text[answer["start"] : answer["end"]] == answer["answer"]
    assert answer["n_best"][0]["text"] == answer["answer"]


_WITHOUT_ESTIMATOR = """
import sys
import tensorflow.compat.v1
before = set(sys.modules)
import albert_zh
with albert_zh.load(sys.argv[1]) as predictor:
    predictor(["今天", "天气"])
print([name for name in set(sys.modules) - before if "estimator" in name])
"""


def test_a_path_object_will_do(tmp_path):
    path = pathlib.Path(served_models.write_model(tmp_path / "m", "encoder"))
    with albert_zh.load(path) as held:
        assert held.kind_name == "encoder"
    (path / "model.safetensors").touch()
    for written in (*path.glob("model.ckpt*"), path / "checkpoint"):
        written.unlink()
    with pytest.raises(UserError, match="convert it: python3 convert_checkpoint.py"):
        albert_zh.load(path)


def test_estimator_is_not_imported(directories, repository):
    """But for what `import tensorflow` imports itself, which 1.15 does."""
    printed = subprocess.check_output(
        [sys.executable, "-c", _WITHOUT_ESTIMATOR, directories["lcqmc"]],
        cwd=str(repository),
    )
    assert printed.decode().strip() == "[]"


def test_a_directory_need_not_be_writable(directories, tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(directories["lcqmc"], str(directory))
    before = sorted(os.listdir(str(directory)))
    for path in [*directory.iterdir(), directory]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        with albert_zh.load(str(directory)) as predictor:
            assert predictor(["今天", "天气"])["label"] in ("0", "1")
    finally:
        directory.chmod(0o755)
    assert sorted(os.listdir(str(directory))) == before


def _without(name):
    return lambda directory: (directory / name).unlink()


def _damaged(directory):
    path = next(directory.glob("model.ckpt*.data*"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _shorter_vocabulary(directory):
    path = directory / "vocab.txt"
    words = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(words[:-1]) + "\n", encoding="utf-8")


def _not_finite(directory):
    (checkpoint,) = directory.glob("model.ckpt*.index")
    checkpoint = str(checkpoint)[: -len(".index")]
    tensors = checkpoints.read_tensors(checkpoint)
    tensors["output_bias"] = tensors["output_bias"] * np.float32("nan")
    checkpoints.write_tensors(tensors, str(directory / "model.ckpt"))


@pytest.mark.parametrize(
    "change, words",
    [
        (_without("labels.json"), "without its task (labels.json); "),
        (_without("vocab.txt"), "neither vocab.txt nor spm.model"),
        (_without("albert_config.json"), "no such config file"),
        (_without("model.ckpt-1.index"), "model.ckpt-1.index is missing"),
        (_damaged, "model.ckpt-1"),
        (_shorter_vocabulary, "entries, the model's embedding table"),
        (_not_finite, "output_bias"),
        (shutil.rmtree, "no such directory"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused(
    change, words, directories, tmp_path
):
    directory = tmp_path / "model"
    shutil.copytree(directories["lcqmc"], str(directory))
    change(directory)
    with pytest.raises(UserError) as caught:
        albert_zh.load(str(directory))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["backend", "pooling"])
def test_an_unknown_setting_is_refused(setting, directories):
    with pytest.raises(UserError, match=setting + "='x': expected one of "):
        albert_zh.load(directories["encoder"], **{setting: "x"})


def test_a_model_without_vectors_takes_no_pooling(directories):
    with pytest.raises(UserError, match="^pooling='mean': .* for lcqmc and has no"):
        albert_zh.load(directories["lcqmc"], pooling="mean")
    with albert_zh.load(directories["lcqmc"], encoder=True, pooling="cls") as predictor:
        assert predictor.kind_name == "encoder"


@given(
    st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=4), max_size=90),
    st.integers(1, 64),
)
def test_batches_hold_every_window_once(groups, batch_size):
    windows = [
        Features(
            list(range(1, sum(lengths) + 1)),
            [1] * sum(lengths),
            {"sequence_lengths": lengths},
        )
        for lengths in groups
    ]
    seen = []
    for places, batch in inputs.batches(windows, 20, batch_size):
        assert 0 < len(places) <= batch_size
        num_choices = batch["sequence_lengths"].shape[1]
        for number, place in enumerate(places):
            seen.append(place)
            rows = slice(number * num_choices, (number + 1) * num_choices)
            mask = batch["input_mask"][rows]
            lengths = groups[place] + [0] * (num_choices - len(groups[place]))
            assert mask.sum(axis=1).tolist() == lengths
            assert batch["sequence_lengths"][number].tolist() == lengths
            ids = batch["input_ids"][rows][mask > 0].tolist()
            assert ids == windows[place].input_ids
            assert batch["segment_ids"][rows].sum() == sum(lengths)
    assert sorted(seen) == list(range(len(windows)))
