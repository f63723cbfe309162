"""Models of every dialect and kind of task with random weights, to export."""

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.serving import encoder
from albert_zh.tasks import get_task, kinds, model_files

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(
    "今天气很好不错我们去公园吗"
)
WORDS += ["[unused{}]".format(i) for i in range(len(WORDS), 60)]

_SIZES = dict(
    vocab_size=len(WORDS),
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=40,
)
# Settings of `modeling.AlbertConfig` beside the sizes.
DIALECTS = {
    "albert_zh": {"embedding_size": 8, "ln_type": "postln"},
    "albert_zh_preln": {"embedding_size": 8, "ln_type": "preln"},
    "albert_zh_attention": {"embedding_size": 8, "cross_layer_sharing": "attention"},
    "albert_zh_ffn": {"embedding_size": 8, "cross_layer_sharing": "ffn"},
    "google": {"embedding_size": 8, "num_hidden_groups": 1},
    "google_same_width": {"embedding_size": 32, "num_hidden_groups": 1},
    "google_groups": {
        "embedding_size": 8,
        "num_hidden_groups": 2,
        "inner_group_num": 2,
    },
    "bert": {},
    "bert_gelu_exact": {"hidden_act": "gelu_exact"},
    "bert_relu": {"hidden_act": "relu"},
}
# Head -> (task, labels, options).
HEADS = {
    "classification": ("pair", ("0", "1", "2"), {}),
    "multi_label": ("multi_label", ("a", "b", "c"), {}),
    "regression": ("stsb", (), {}),
    "multiple_choice": ("multiple_choice", (), {}),
    "cloze": ("chid", (), {}),
    "span_extraction": ("squad", (), {}),
    "tagging_softmax": ("ner", ("LOC", "PER"), {"decoder": "softmax"}),
    "tagging_crf": ("ner", ("LOC", "PER"), {"decoder": "crf"}),
    "tagging_span": ("ner", ("LOC", "PER"), {"decoder": "span"}),
    "encoder": ("encoder", (), {}),
}


def config_of(dialect):
    """The `modeling.AlbertConfig` of a key of `DIALECTS`."""
    return modeling.AlbertConfig(**dict(_SIZES, **DIALECTS[dialect]))


def build_kind(directory, dialect, head, max_seq_length=16):
    """The `kind.Kind` of a key of `HEADS`; writes a vocabulary."""
    path = directory / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    name, labels, options = HEADS[head]
    files = model_files.TaskFiles(
        config_of(dialect),
        encoder.TASK if name == "encoder" else get_task(name),
        labels,
        str(path),
        None,
        True,
        False,
        max_seq_length,
        options,
    )
    if name == "encoder":
        return encoder.Encoder(files)
    return kinds.kind_of(files.task)(files)


def random_weights(kind, seed=0):
    """Dict variable name -> float32 array, of encoder, pooler and head or MLM head."""
    with tf.Graph().as_default():
        token = tf.zeros([1, 3], tf.int32)
        config = kind.files.config
        model = modeling.AlbertModel(config, False, token, scope="bert")
        kind.outputs(model)
        if kind.files.task is encoder.TASK:
            encoder.mask_logits(config, model, token)
        shapes = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    draw = np.random.RandomState(seed)
    weights = {}
    for name, shape in sorted(shapes.items()):
        scale = 0.15 if len(shape) > 1 else 0.1
        weights[name] = scale * draw.standard_normal(shape).astype(np.float32)
        if name.endswith("gamma"):
            weights[name] += 1
    return weights


def random_features(batch, length, seed=0):
    """Encoder inputs, dict name -> int32 [batch, length], with padding."""
    draw = np.random.RandomState(seed)
    lengths = draw.randint(min(3, length), length + 1, batch)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    ids = draw.randint(5, len(WORDS), [batch, length]).astype(np.int32)
    segments = (np.arange(length) >= lengths[:, None] // 2).astype(np.int32)
    return {
        "input_ids": ids * mask,
        "input_mask": mask,
        "segment_ids": segments * mask,
    }
