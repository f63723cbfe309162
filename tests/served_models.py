"""Small model directories of every kind of task, with random weights."""

import os

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.models import checkpoints
from albert_zh.serving import encoder
from albert_zh.tasks import get_task, kinds, model_files
from tests.small_models import CONFIG

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"]
CHARACTERS = "怎么开户如何办理银行卡在哪里北京上海天气很好我喜欢吃苹果今明年春a1,。?"
WORDS = SPECIAL + sorted(set(CHARACTERS)) + ["##b", "ab"]
MAX_SEQ_LENGTH = 32

# Task name -> what its `TaskFiles` have beside the defaults.
TASKS = {
    "lcqmc": {"labels": ("0", "1")},
    "single": {"labels": ("正", "负", "中")},
    "multi_label": {"labels": ("甲", "乙", "丙")},
    "regression": {},
    "ner-softmax": {"labels": ("LOC", "PER"), "options": {"decoder": "softmax"}},
    "ner-crf": {"labels": ("LOC", "PER"), "options": {"decoder": "crf"}},
    "ner-span": {"labels": ("LOC", "PER"), "options": {"decoder": "span"}},
    "cmrc2018": {"options": {"doc_stride": 8, "max_query_length": 8}},
    "squad": {"options": {"version_2_with_negative": True, "doc_stride": 8}},
    "multiple_choice": {},
    "chid": {},
    "encoder": {},
}


def write_model(
    directory,
    name="lcqmc",
    seed=0,
    max_seq_length=MAX_SEQ_LENGTH,
    deviation=0.3,
    **sizes,
):
    """Writes a model directory.

    Args:
      directory: `pathlib.Path`, which is created.
      name: key of `TASKS`.
      seed: of the weights.
      max_seq_length: int.
      deviation: float, of the weights.
      **sizes: fields of the config other than those of `small_models.CONFIG`.

    Returns:
      The directory, str.
    """
    directory.mkdir()
    vocab_file = directory / "vocab.txt"
    vocab_file.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    settings = dict(CONFIG.to_dict(), vocab_size=len(WORDS), num_hidden_layers=2)
    settings["max_position_embeddings"] = 64
    settings.update(sizes)
    config = modeling.AlbertConfig.from_dict(settings)
    if name == "encoder":
        (directory / "albert_config.json").write_text(config.to_json_string())
        write_weights(directory, config, _mask_head(config), seed, deviation)
        return str(directory)
    files = model_files.TaskFiles(
        config,
        get_task(name.split("-")[0]),
        TASKS[name].get("labels", ()),
        str(vocab_file),
        None,
        True,
        False,
        max_seq_length,
        TASKS[name].get("options", {}),
    )
    model_files.save(str(directory), files)
    kind = kinds.kind_of(files.task)(files)
    write_weights(directory, config, kind.outputs, seed, deviation)
    return str(directory)


def _mask_head(config):
    return lambda model: encoder.mask_logits(config, model, tf.zeros([1, 1], tf.int32))


def write_weights(directory, config, add_head, seed, deviation=0.3):
    """Writes a checkpoint of random values, with a step."""
    with tf.Graph().as_default():
        tokens = tf.zeros([1, 4], tf.int32)
        add_head(modeling.AlbertModel(config, False, tokens, scope="bert"))
        shapes = {v.op.name: v.shape.as_list() for v in tf.trainable_variables()}
    random = np.random.RandomState(seed)
    tensors = {
        name: random.normal(float(name.endswith("gamma")), deviation, shape)
        for name, shape in sorted(shapes.items())
    }
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    tensors[checkpoints.STEP] = np.int64(1)
    checkpoints.write_tensors(tensors, os.path.join(str(directory), "model.ckpt"))


_CLOZE = {
    "content": ["今天#idiom000001#很好", "我#idiom000002#苹果,#idiom000003#。"],
    "candidates": ["天气", "喜欢吃", "春天", "上海ab"],
}
# Kind -> instances of various lengths.
INSTANCES = {
    "lcqmc": [
        {"text_a": "怎么开户", "text_b": "如何办理开户"},
        {"text_a": "银行卡在哪里办理", "text_b": "我喜欢吃苹果, 今天天气很好。"},
        {"text_a": "abc", "text_b": "?"},
    ],
    "single": [{"text": "今天天气很好"}, {"text": "a"}, {"text": "我喜欢吃苹果。" * 3}],
    "ner": [{"text": t} for t in ("我在北京 吃苹果", "上海天气很好。" * 12, "😀")],
    "squad": [
        {"question": "天气如何?", "context": "今天北京天气很好。" * 9},
        {"question": "在哪里", "context": "上海"},
    ],
    "multiple_choice": [
        {"context": "今天很好", "question": "天气?", "choices": ["好", "很 好", "a"]},
        {"context": "我喜欢苹果", "question": "吃?", "choices": ["苹果", "天气很好"]},
    ],
    "chid": [_CLOZE, {"content": ["#idiom7#"], "candidates": ["苹果", "上海"]}],
}
INSTANCES["regression"] = INSTANCES["lcqmc"]
INSTANCES["cmrc2018"] = INSTANCES["squad"]
INSTANCES["multi_label"] = INSTANCES["encoder"] = INSTANCES["single"]


def instances_of(name):
    """The list of instances for a key of `TASKS`."""
    return INSTANCES[name.split("-")[0]]


def write_models(folder):
    """Writes a model directory of each task; returns dict name -> directory."""
    return {name: write_model(folder / name, name) for name in TASKS}


def is_close(found, expected, tolerance=1e-6):
    """Whether two answers are equal, but for numbers that differ little.

    Args:
      found, expected: nested lists and dicts of JSON types.
      tolerance: float, absolute, of numbers above 1 relative.
    """
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(
            is_close(found[key], expected[key], tolerance) for key in expected
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(
            is_close(*pair, tolerance) for pair in zip(found, expected)
        )
    if isinstance(expected, float):
        return abs(found - expected) <= tolerance * max(1, abs(expected))
    return found == expected
