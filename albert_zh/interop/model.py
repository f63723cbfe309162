"""The intermediate form of a model in a conversion, and its checks."""

from typing import Any, Dict, NamedTuple, Optional

import numpy as np

import modeling
from albert_zh.base.errors import UserError
from albert_zh.interop import heads
from albert_zh.models import architecture, checkpoints, model_graph

# Some checkpoints lack the pooler, because not every head uses it.
_POOLER = "bert/pooler/"
_MASKED_LM = "cls/predictions/"


class Model(NamedTuple):
    """The content of a model directory, in TensorFlow's terms.

    Attributes:
      config: `modeling.AlbertConfig`.
      tensors: dict variable name -> ndarray, with the names and layout of `modeling`.
      unused: names in the source that have no counterpart.
      vocabulary: bytes of the WordPiece vocabulary file, or None.
      sentencepiece: bytes of the SentencePiece model, or None.
      do_lower_case: bool, whether the tokenizer lower-cases.
      task: dict of the `labels.json` of a fine-tuned model, or None.
      told: key of `heads.HEADS`: its head, where that looks like another; or None.
      decision: dict of what was chosen on dev, such as a threshold; {} for nothing.
      normalize_punctuation: bool, whether the tokenizer maps marks that the vocabulary
        lacks.
    """

    config: modeling.AlbertConfig
    tensors: Dict[str, np.ndarray]
    unused: tuple = ()
    vocabulary: Optional[bytes] = None
    sentencepiece: Optional[bytes] = None
    do_lower_case: bool = True
    task: Optional[Dict[str, Any]] = None
    told: Optional[str] = None
    decision: Dict[str, float] = {}
    normalize_punctuation: bool = False

    @property
    def heads(self):
        """Tuple of its heads: "masked_lm", "sentence_order", keys of `heads.HEADS`."""
        found = architecture.find_heads(self.tensors)
        names = {"classifier": self.fine_tuned_head}
        return tuple(names.get(name, name) for name in found)

    @property
    def fine_tuned_head(self):
        """Key of `heads.HEADS`, None for a model that is not fine-tuned."""
        return heads.find(self.tensors, "the model", self.told)

    @property
    def num_rows(self):
        """Number of rows of the weights of its fine-tuned head."""
        return len(self.tensors[heads.HEADS[self.fine_tuned_head].variables[0]])

    @property
    def weights(self):
        """dict of the tensors that are not the optimizer's state."""
        return {
            name: value
            for name, value in self.tensors.items()
            if not checkpoints.is_training_state(name)
        }

    def num_parameters(self):
        """Number of scalars in the weights."""
        return sum(value.size for value in self.weights.values())


class Options(NamedTuple):
    """How a model is converted; every format takes them whole.

    Attributes:
      keep_slots: bool; keep the optimizer's state (TensorFlow to TensorFlow).
      dtype: "float32" or "float16", of the weights in a PyTorch file.
      allow_missing: bool; convert a model without a pooler, too.
      drop_masked_lm: bool; leave out the masked language model's head.
      task: dict for the `labels.json` of a fine-tuned model from another framework
        ("task_name", "labels", "max_seq_length", ...), or None.
      kind: the kind of that task, or None.
      kinds: dict name of a task -> its kind, of all that a `labels.json` may name.
    """

    keep_slots: bool = False
    dtype: str = "float32"
    allow_missing: bool = False
    drop_masked_lm: bool = False
    task: Optional[Dict[str, Any]] = None
    kind: Optional[str] = None
    kinds: Dict[str, str] = {}


DEFAULT_OPTIONS = Options()


def without_masked_lm(model):
    """Returns the model without the masked language model's head."""
    tensors = {
        name: value
        for name, value in model.tensors.items()
        if not name.startswith(_MASKED_LM)
    }
    return model._replace(tensors=tensors)


def without_unknown(model):
    """Moves tensors that the graph of the config lacks to `unused`."""
    known = set(model_graph.variable_shapes(model.config, model.heads))
    for head in heads.HEADS.values():
        known.update(head.variables)
    unknown = {
        name
        for name in set(model.weights) - known
        if not name.startswith(heads.TAGGER_SCOPE)
    }
    tensors = {
        name: value for name, value in model.tensors.items() if name not in unknown
    }
    return model._replace(
        tensors=tensors, unused=tuple(sorted(unknown | set(model.unused)))
    )


def with_pooler(model):
    """Returns the model with a pooler of zeros, where its head reads none."""
    head = model.fine_tuned_head
    if head is None or heads.HEADS[head].reads_pooler:
        return model
    size = model.config.hidden_size
    pooler = {
        _POOLER + "dense/kernel": np.zeros([size, size], np.float32),
        _POOLER + "dense/bias": np.zeros([size], np.float32),
    }
    return model._replace(tensors={**pooler, **model.tensors})


def check(model, source, allow_missing=False):
    """Checks a model's tensors against the graph of its config.

    Args:
      model: `Model`.
      source: its directory, for messages.
      allow_missing: bool; whether the pooler may be absent.

    Returns:
      Sorted names of the absent variables, all of which may be absent.

    Raises:
      UserError: a variable is missing or has another shape.
    """
    expected = model_graph.variable_shapes(model.config, model.heads)
    weights = model.weights
    missing = sorted(set(expected) - set(weights))
    for name in missing:
        head = heads.HEADS.get(model.fine_tuned_head)
        needs_pooler = head is not None and head.reads_pooler
        may_miss = name.startswith(_POOLER) and not needs_pooler
        if may_miss and allow_missing:
            continue
        hint = "; --allow_missing converts the rest" if may_miss else ""
        raise UserError("{}: {} is missing{}".format(source, name, hint))
    for name in sorted(set(expected) & set(weights)):
        if list(weights[name].shape) != expected[name]:
            raise UserError(
                "{}: {} has shape {}, its config expects {}".format(
                    source, name, list(weights[name].shape), expected[name]
                )
            )
    _check_head(model, source)
    return missing


def _check_head(model, source):
    head = heads.find(model.tensors, source, model.told)
    if head is None:
        return
    weights, bias = (model.tensors.get(name) for name in heads.HEADS[head].variables)
    if weights.shape[1:] != (model.config.hidden_size,) or (
        bias is None or bias.shape != weights.shape[:1]
    ):
        raise UserError(
            "{}: the {} has weights {} and bias {}, expected [classes, {}] "
            "and [classes]".format(
                source,
                head,
                list(weights.shape),
                None if bias is None else list(bias.shape),
                model.config.hidden_size,
            )
        )
    labels = (model.task or {}).get("labels")
    if labels is not None and heads.num_rows(head, labels) != len(weights):
        raise UserError(
            "{}: {} labels for a {} of {} classes".format(
                source, len(labels), head, len(weights)
            )
        )
