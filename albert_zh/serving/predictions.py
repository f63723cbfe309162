"""What `kind.Kind.predictions` computes in a graph, from an exported model's outputs.

NumPy alone: no TensorFlow is needed to predict with an exported model. Shapes: B rows
of a batch, T their length, N tags, C types of entities.
"""

import numpy as np

from albert_zh.tasks.features import SEQUENCE_LENGTHS

# As in `multiple_choice` and `tag_decoders`.
_ABSENT = -1e9
_NEVER = -1e9

# Outputs of the model that the predictions of each head are computed from.
NEEDED = {
    "classification": ("logits",),
    "multi_label": ("probabilities",),
    "regression": ("value",),
    "multiple_choice": ("scores",),
    "cloze": ("scores",),
    "span_extraction": ("start_logits", "end_logits"),
    "tagging_softmax": ("logits",),
    "tagging_crf": ("logits", "transitions"),
    "tagging_span": ("scores",),
}


def of_outputs(head, outputs, features):
    """Computes predictions.

    Args:
      head: key of `NEEDED`, or "encoder".
      outputs: dict name -> array of the model's outputs.
      features: dict name -> int32 array of its inputs [B, T]; for choices with
        `sequence_lengths` [questions, choices], too.

    Returns:
      Dict name -> array, as `kind.Kind.decode` reads its rows.
    """
    return _COMPUTE.get(head, _unchanged)(outputs, features)


def _unchanged(outputs, features):
    return dict(outputs)


def log_softmax(logits):
    """log(exp(logits) / sum(exp(logits))) along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _classes(outputs, features):
    return {"log_probabilities": log_softmax(outputs["logits"])}


def _multi_label(outputs, features):
    return {"probabilities": outputs["probabilities"]}


def _choices(outputs, features):
    lengths = features[SEQUENCE_LENGTHS]
    scores = outputs["scores"].reshape(lengths.shape)
    scores = np.where(lengths > 0, scores, np.float32(_ABSENT))
    return {"log_probabilities": log_softmax(scores)}


def _mask(features, length):
    """bool [B, length]: which places after [CLS] are tokens of the text."""
    lengths = np.maximum(features["input_mask"].sum(axis=1) - 2, 0)
    return np.arange(length) < lengths[:, None]


def _softmax_tags(outputs, features):
    logits = outputs["logits"]
    mask = _mask(features, logits.shape[1])
    # NaN shows in the score only.
    return {
        "tags": logits.argmax(axis=2).astype(np.int32) * mask,
        "score": (logits.max(axis=2) * mask).sum(axis=1),
    }


def _crf_tags(outputs, features):
    logits, transitions = outputs["logits"], outputs["transitions"]
    tags, score = viterbi(logits, _mask(features, logits.shape[1]), transitions)
    return {"tags": tags, "score": score}


def viterbi(logits, mask, transitions):
    """The most probable tags of a conditional random field, as `crf.decode`.

    Args:
      logits: float32 [B, T, N].
      mask: bool [B, T], the steps of each row.
      transitions: float32 [N, N], the score of tag j after tag i at [i, j].

    Returns:
      (tags int32 [B, T], 0 after the last step; score float32 [B]).
    """
    batch, length, num_tags = logits.shape
    best = logits[:, 0]  # [B, N], the score of the best path to each tag
    before = np.zeros([length, batch, num_tags], np.int32)
    for step in range(1, length):
        paths = best[:, :, None] + transitions[None]
        is_real = mask[:, step, None]
        before[step] = np.where(is_real, paths.argmax(axis=1), np.arange(num_tags))
        best = np.where(is_real, paths.max(axis=1) + logits[:, step], best)
    tags = np.zeros([batch, length], np.int32)
    tag = best.argmax(axis=1)
    for step in range(length - 1, -1, -1):
        tags[:, step] = tag
        tag = before[step][np.arange(batch), tag]
    return tags * mask, best.max(axis=1)


def _entity_spans(outputs, features):
    scores = outputs["scores"]  # [B, C, T, T]
    batch, _, length, _ = scores.shape
    tokens = _mask(features, length)
    runs = tokens[:, :, None] & tokens[:, None] & np.triu(np.ones([length] * 2, bool))
    flat = np.where(runs[:, None], scores, np.float32(_NEVER)).reshape(batch, -1)
    number = min(4 * length, flat.shape[1])
    places = np.argpartition(-flat, number - 1, axis=1)[:, :number]
    best = np.take_along_axis(flat, places, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    best, places = (np.take_along_axis(v, order, axis=1) for v in (best, places))
    types, rest = np.divmod(places, length * length)
    spans = np.stack([types, rest // length, rest % length], axis=2)
    return {"scores": best, "spans": spans.astype(np.int32)}


_COMPUTE = {
    "classification": _classes,
    "multi_label": _multi_label,
    "multiple_choice": _choices,
    "cloze": _choices,
    "tagging_softmax": _softmax_tags,
    "tagging_crf": _crf_tags,
    "tagging_span": _entity_spans,
}
