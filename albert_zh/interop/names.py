"""Tables of TensorFlow variables and PyTorch parameters, one per pair of frameworks.

A table serves both directions. In its names `{}` is a number (group and inner group,
or layer), the same on both sides, in the same order.
"""

import re
from typing import NamedTuple, Tuple

# The variables of a kind of module: (suffix of the TensorFlow variable, suffix of the
# PyTorch parameter, whether one is the transpose of the other). TensorFlow stores a
# dense kernel as [in, out], PyTorch as [out, in].
_KINDS = {
    "embedding": (("", ".weight", False),),
    "projection": (("", ".weight", True),),
    "dense": (("/kernel", ".weight", True), ("/bias", ".bias", False)),
    "layer_norm": (("/gamma", ".weight", False), ("/beta", ".bias", False)),
    # The published TensorFlow heads store their weights as [out, in].
    "head": (("output_weights", ".weight", False), ("output_bias", ".bias", False)),
    "vector": (("", "", False),),
}


class Tied(NamedTuple):
    """A PyTorch parameter that is a copy of another one.

    Attributes:
      name: name of the copy.
      original: name of the original.
      transposed: whether it is the original's transpose.
    """

    name: str
    original: str
    transposed: bool = False


class NameTable:
    """The names of one pair of frameworks.

    Attributes:
      prefix: prefix of the encoder's PyTorch parameters; an encoder saved without
        heads lacks it.
      tied: the `Tied` parameters.
      stores_tied: bool; whether the PyTorch side expects the copies in its file.
    """

    def __init__(self, prefix: str, entries, tied: Tuple[Tied, ...], stores_tied: bool):
        """`entries` are (TensorFlow scope, PyTorch module, key of `_KINDS`)."""
        self.prefix = prefix
        self.tied = tied
        self.stores_tied = stores_tied
        self._to_pytorch = []
        self._to_tensorflow = []
        for scope, module, kind in entries:
            for variable, parameter, transposed in _KINDS[kind]:
                pair = scope + variable, module + parameter
                self._to_pytorch.append((_pattern(pair[0]), pair[1], transposed))
                self._to_tensorflow.append((_pattern(pair[1]), pair[0], transposed))

    def to_pytorch(self, variable):
        """Returns (parameter name, transposed) of a TensorFlow variable, or None."""
        return _look_up(self._to_pytorch, variable)

    def to_tensorflow(self, parameter):
        """Returns (variable name, transposed) of a PyTorch parameter, or None."""
        return _look_up(self._to_tensorflow, parameter)


def _pattern(template):
    return re.compile(re.escape(template).replace(re.escape("{}"), r"(\d+)"))


def _look_up(rules, name):
    for pattern, template, transposed in rules:
        match = pattern.fullmatch(name)
        if match:
            return template.format(*match.groups()), transposed
    return None


# Of one model at most one. A classifier.weight is read as the first one's.
_FINE_TUNED_HEADS = (
    ("", "classifier", "head"),
    ("ner/", "classifier", "head"),
    ("cls/squad/", "qa_outputs", "head"),
)

_GROUP = "bert/encoder/transformer/group_{}/inner_group_{}/"
_ALBERT_LAYER = "albert.encoder.albert_layer_groups.{}.albert_layers.{}."

# transformers 4, AlbertForPreTraining and the classes of `heads`
HUGGING_FACE_ALBERT = NameTable(
    "albert.",
    (
        (
            "bert/embeddings/word_embeddings",
            "albert.embeddings.word_embeddings",
            "embedding",
        ),
        (
            "bert/embeddings/token_type_embeddings",
            "albert.embeddings.token_type_embeddings",
            "embedding",
        ),
        (
            "bert/embeddings/position_embeddings",
            "albert.embeddings.position_embeddings",
            "embedding",
        ),
        ("bert/embeddings/LayerNorm", "albert.embeddings.LayerNorm", "layer_norm"),
        (
            "bert/encoder/embedding_hidden_mapping_in",
            "albert.encoder.embedding_hidden_mapping_in",
            "dense",
        ),
        (_GROUP + "attention_1/self/query", _ALBERT_LAYER + "attention.query", "dense"),
        (_GROUP + "attention_1/self/key", _ALBERT_LAYER + "attention.key", "dense"),
        (_GROUP + "attention_1/self/value", _ALBERT_LAYER + "attention.value", "dense"),
        (
            _GROUP + "attention_1/output/dense",
            _ALBERT_LAYER + "attention.dense",
            "dense",
        ),
        (_GROUP + "LayerNorm", _ALBERT_LAYER + "attention.LayerNorm", "layer_norm"),
        (_GROUP + "ffn_1/intermediate/dense", _ALBERT_LAYER + "ffn", "dense"),
        (
            _GROUP + "ffn_1/intermediate/output/dense",
            _ALBERT_LAYER + "ffn_output",
            "dense",
        ),
        (
            _GROUP + "LayerNorm_1",
            _ALBERT_LAYER + "full_layer_layer_norm",
            "layer_norm",
        ),
        ("bert/pooler/dense", "albert.pooler", "dense"),
        ("cls/predictions/transform/dense", "predictions.dense", "dense"),
        ("cls/predictions/transform/LayerNorm", "predictions.LayerNorm", "layer_norm"),
        ("cls/predictions/output_bias", "predictions.bias", "vector"),
        ("cls/seq_relationship/", "sop_classifier.classifier", "head"),
    )
    + _FINE_TUNED_HEADS,
    tied=(
        Tied("predictions.decoder.weight", "albert.embeddings.word_embeddings.weight"),
        Tied("predictions.decoder.bias", "predictions.bias"),
    ),
    stores_tied=False,
)


def _bert_heads():
    """The heads, named alike by Hugging Face's BERT and by albert_pytorch."""
    return (
        ("bert/pooler/dense", "bert.pooler.dense", "dense"),
        (
            "cls/predictions/transform/dense",
            "cls.predictions.transform.dense",
            "dense",
        ),
        (
            "cls/predictions/transform/LayerNorm",
            "cls.predictions.transform.LayerNorm",
            "layer_norm",
        ),
        ("cls/predictions/output_bias", "cls.predictions.bias", "vector"),
        ("cls/seq_relationship/", "cls.seq_relationship", "head"),
    ) + _FINE_TUNED_HEADS


def _bert_embeddings():
    tables = ("word_embeddings", "token_type_embeddings", "position_embeddings")
    entries = [
        ("bert/embeddings/" + name, "bert.embeddings." + name, "embedding")
        for name in tables
    ]
    entries.append(
        ("bert/embeddings/LayerNorm", "bert.embeddings.LayerNorm", "layer_norm")
    )
    return tuple(entries)


def _bert_layer(scope, module):
    """One layer of BERT's naming, which only replaces the slashes by dots."""
    return tuple(
        (scope + name, module + name.replace("/", "."), kind)
        for name, kind in (
            ("attention/self/query", "dense"),
            ("attention/self/key", "dense"),
            ("attention/self/value", "dense"),
            ("attention/output/dense", "dense"),
            ("attention/output/LayerNorm", "layer_norm"),
            ("intermediate/dense", "dense"),
            ("output/dense", "dense"),
            ("output/LayerNorm", "layer_norm"),
        )
    )


_BERT_TIED = (
    Tied("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
)

# transformers 4, BertForPreTraining and the classes of `heads`
HUGGING_FACE_BERT = NameTable(
    "bert.",
    _bert_embeddings()
    + _bert_layer("bert/encoder/layer_{}/", "bert.encoder.layer.{}.")
    + _bert_heads(),
    tied=_BERT_TIED + (Tied("cls.predictions.decoder.bias", "cls.predictions.bias"),),
    stores_tied=False,
)

# albert_pytorch, model/modeling_albert_bright.py. Its head's projection is a
# parameter of its own; in TensorFlow it is the embedding's.
ALBERT_PYTORCH = NameTable(
    "bert.",
    _bert_embeddings()
    + (
        (
            "bert/embeddings/word_embeddings_2",
            "bert.embeddings.word_embeddings_2",
            "projection",
        ),
    )
    + _bert_layer("bert/encoder/layer_shared/", "bert.encoder.layer_shared.")
    + _bert_heads(),
    tied=_BERT_TIED
    + (
        Tied(
            "cls.predictions.project_layer.weight",
            "bert.embeddings.word_embeddings_2.weight",
            transposed=True,
        ),
    ),
    stores_tied=True,
)
