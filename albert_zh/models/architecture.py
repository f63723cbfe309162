"""The architecture of a model, inferred from variable names and shapes.

They determine the dialect, all sizes and what the layers share. They do not determine
the number of attention heads, the place of LayerNorm (`ln_type`), the activation, the
dropout, or, if all layers are shared, the number of layers.
"""

import re
from typing import NamedTuple, Optional, Tuple

from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import checkpoints

# Variable scope of the encoder in every published checkpoint.
SCOPE = "bert"

# One variable that every model with the head has. BERT's next-sentence head has the
# names of the sentence-order head.
HEADS = {
    "masked_lm": "cls/predictions/output_bias",
    "sentence_order": "cls/seq_relationship/output_weights",
    "classifier": "output_weights",
    "tagger": "ner/output_weights",
    "span": "cls/squad/output_weights",
}
_WORD_EMBEDDINGS = "/embeddings/word_embeddings"
# Names of a model's variables; {} is the encoder's scope.
_MODEL = r"({}/(embeddings|encoder|pooler)/|cls/|ner/|output_(weights|bias)$)"


class Architecture(NamedTuple):
    """The properties of a model that its variables show.

    Attributes:
      scope: variable scope of the encoder, "bert" in every published checkpoint.
      dialect: "albert_zh", "google" or "bert".
      vocab_size, embedding_size, hidden_size, intermediate_size,
        max_position_embeddings, type_vocab_size: int, as in `AlbertConfig`.
      cross_layer_sharing: "all", "attention", "ffn" or "none". In the google dialect
        a model without sharing looks like one with a group per layer: "all".
      num_hidden_layers: int; None if sharing hides it.
      num_hidden_groups: int, 1 outside the google dialect.
      inner_group_num: int, 1 outside the google dialect.
      heads: those of "masked_lm", "sentence_order", "classifier" (also of choices),
        "tagger" and "span" that it has.
      has_pooler: bool.
      encoder_parameters: int, scalars of encoder and pooler.
      parameters: int, scalars of the whole model, including heads.
      slots: int, number of the optimizer's variables.
      others: sorted names of all other variables: of an unknown head or optimizer.
    """

    scope: str
    dialect: str
    vocab_size: int
    embedding_size: int
    hidden_size: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    cross_layer_sharing: str
    num_hidden_layers: Optional[int]
    num_hidden_groups: int
    inner_group_num: int
    heads: Tuple[str, ...]
    has_pooler: bool
    encoder_parameters: int
    parameters: int
    slots: int
    others: Tuple[str, ...]


class _Layers(NamedTuple):
    """The fields of `Architecture` that describe the layers."""

    cross_layer_sharing: str
    num_hidden_layers: Optional[int]
    num_hidden_groups: int
    inner_group_num: int


def infer(shapes, source="the checkpoint"):
    """Infers the architecture from variable names and shapes.

    Args:
      shapes: dict variable name -> list of int, from `checkpoints.read_shapes`.
      source: name of the checkpoint, for messages.

    Returns:
      `Architecture`.

    Raises:
      UserError: these are not the variables of one ALBERT or BERT encoder.
    """
    shapes = {name: tuple(shape) for name, shape in shapes.items()}
    scope = _find_scope(shapes, source)

    def find(pattern, rank=2):
        """Returns the shape of the encoder's first variable whose name matches."""
        pattern = re.compile("{}/{}$".format(re.escape(scope), pattern))
        for name in sorted(shapes):
            if pattern.match(name) and len(shapes[name]) == rank:
                return shapes[name]
        raise UserError(
            "{}: no variable of rank {} matches {}; expected an ALBERT or BERT "
            "encoder".format(source, rank, pattern.pattern)
        )

    vocab_size, embedding_size = find("embeddings/word_embeddings")
    inside = [name[len(scope) + 1 :] for name in shapes if name.startswith(scope + "/")]
    dialect = _find_dialect(inside)
    layers = _google_layers(inside) if dialect == "google" else _layers(inside)
    _, hidden_size = find("encoder/.*/self/query/kernel")
    _, intermediate_size = find("encoder/.*/intermediate(_[0-9]+)?/dense/kernel")
    model, slots, others = _sort_out(shapes, scope)
    return Architecture(
        scope=scope,
        dialect=dialect,
        vocab_size=vocab_size,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        max_position_embeddings=find("embeddings/position_embeddings")[0],
        type_vocab_size=find("embeddings/token_type_embeddings")[0],
        heads=find_heads(shapes),
        has_pooler=scope + "/pooler/dense/kernel" in shapes,
        encoder_parameters=checkpoints.count_parameters(
            {n: s for n, s in model.items() if n.startswith(scope + "/")}
        ),
        parameters=checkpoints.count_parameters(model),
        slots=len(slots),
        others=tuple(sorted(others)),
        **layers._asdict(),
    )


def find_heads(names):
    """Returns the tuple of the `Architecture.heads` with a variable in `names`."""
    return tuple(head for head, name in HEADS.items() if name in names)


def _sort_out(shapes, scope):
    """Splits {name: shape} into variables of the model, of the optimizer, and others.

    The step is left out. An optimizer names its variables below the model's, so a
    variable below another one is not the model's.
    """
    is_model = re.compile(_MODEL.format(re.escape(scope))).match
    model, slots, others = {}, {}, {}
    for name, shape in shapes.items():
        parts = name.split("/")
        parents = ("/".join(parts[:end]) for end in range(1, len(parts)))
        if name == checkpoints.STEP:
            continue
        if checkpoints.is_training_state(name):
            slots[name] = shape
        elif is_model(name) and not any(parent in shapes for parent in parents):
            model[name] = shape
        else:
            others[name] = shape
    return model, slots, others


def _find_scope(shapes, source):
    ends = [name for name in shapes if name.endswith(_WORD_EMBEDDINGS)]
    if len(ends) != 1:
        raise UserError(
            "{}: {} of its {} variables are named SCOPE{}; expected one, an ALBERT or "
            "BERT encoder's".format(source, len(ends), len(shapes), _WORD_EMBEDDINGS)
        )
    return ends[0][: -len(_WORD_EMBEDDINGS)]


def _find_dialect(names):
    if "embeddings/word_embeddings_2" in names:
        return "albert_zh"
    if any(name.startswith("encoder/transformer/group_") for name in names):
        return "google"
    return "bert"


def _numbers(pattern, names):
    """Returns the set of numbers that the one group of `pattern` finds in names."""
    matches = [re.match(pattern, name) for name in names]
    return {int(match.group(1)) for match in matches if match}


def _layers(names):
    """Returns the `_Layers` of the dialects albert_zh and bert."""
    for sharing, pattern in (
        ("none", r"encoder/layer_([0-9]+)/"),
        ("attention", r"encoder/layer_shared/intermediate_([0-9]+)/"),
        ("ffn", r"encoder/layer_shared/attention_([0-9]+)/"),
    ):
        numbers = _numbers(pattern, names)
        if numbers:
            return _Layers(sharing, max(numbers) + 1, 1, 1)
    return _Layers("all", None, 1, 1)


def _google_layers(names):
    """Returns the `_Layers` of the google dialect."""
    group = r"encoder/transformer/group_([0-9]+)/inner_group_[0-9]+/"
    num_attentions = max(_numbers(group + "attention_1/", names), default=0) + 1
    num_ffns = max(_numbers(group + "ffn_1/", names), default=0) + 1
    inner = r"encoder/transformer/group_[0-9]+/inner_group_([0-9]+)/"
    num_inner = max(_numbers(inner, names), default=0) + 1
    if num_attentions < num_ffns:
        return _Layers("attention", num_ffns, 1, num_inner)
    if num_attentions > num_ffns:
        return _Layers("ffn", num_attentions, 1, num_inner)
    return _Layers("all", None, num_attentions, num_inner)


def type_problem(variables, found, takes_any_float=False):
    """Says which variable of the model is not float32, and what to do.

    Args:
      variables: dict variable name -> `bundles.Tensor`.
      found: the `Architecture` inferred from their shapes.
      takes_any_float: bool; whether float16, bfloat16 and float64 are right, too.

    Returns:
      One line, or None if there is no such variable.
    """
    model, _, _ = _sort_out(variables, found.scope)
    for name, held in sorted(model.items()):
        if held.dtype == tf.float32 or (takes_any_float and held.dtype.is_floating):
            continue
        advice = "give a checkpoint saved as float32"
        if held.dtype.is_floating:
            advice = "{} makes a copy as float32".format(_copying(found))
        return "{} is {}, expected float32; {}".format(name, held.dtype.name, advice)
    return None


def _copying(found):
    """The command that makes a clean copy of a checkpoint."""
    command = "convert_checkpoint.py --from={0} --to={0}".format(found.dialect)
    return "`python3 {} --input=DIRECTORY --output=NEW_DIRECTORY`".format(command)


def differences(architecture, config):
    """Compares a config with the architecture of a checkpoint.

    Args:
      architecture: `Architecture`.
      config: `modeling.AlbertConfig`.

    Returns:
      List of (setting, value in the checkpoint, value in the config), the dialect
      first; empty if the checkpoint fits the config.
    """
    wanted = dict(config.__dict__, **_visible_layers(config)._asdict())
    names = (
        "dialect vocab_size embedding_size hidden_size intermediate_size "
        "max_position_embeddings type_vocab_size"
    ).split() + list(_Layers._fields)
    pairs = [(name, getattr(architecture, name), wanted[name]) for name in names]
    return [(name, seen, given) for name, seen, given in pairs if seen != given]


def _visible_layers(config):
    """Returns the `_Layers` that `infer` would find for a config's model."""
    sharing, num_layers = config.cross_layer_sharing, config.num_hidden_layers
    if config.dialect != "google":
        num_layers = None if sharing == "all" else num_layers
        return _Layers(sharing, num_layers, 1, 1)
    num_inner = config.inner_group_num
    if sharing == "none":
        return _Layers("all", None, num_layers, num_inner)
    if sharing == "all" or num_layers == 1:
        # The last layer's group, computed as in `modeling`.
        last = int((num_layers - 1) / num_layers * config.num_hidden_groups)
        return _Layers("all", None, last + 1, num_inner)
    return _Layers(sharing, num_layers, 1, num_inner)


def scope_problem(found):
    """Says what to do about an `Architecture` whose scope is not `SCOPE`."""
    return (
        "its encoder is in the variable scope {}, expected {}; {} writes it with the "
        "usual names".format(found.scope, SCOPE, _copying(found))
    )


def check(
    checkpoint, config, flag="--init_checkpoint", scope=SCOPE, takes_any_float=False
):
    """Checks that a checkpoint fits a config.

    Args:
      checkpoint: path prefix.
      config: `modeling.AlbertConfig`.
      flag: the flag that named the checkpoint, for messages.
      scope: variable scope that the encoder must have; None for any.
      takes_any_float: bool; whether variables may be of another type than float32.

    Returns:
      The checkpoint's `Architecture`.

    Raises:
      UserError: it is from another model, or has no ALBERT or BERT encoder.
    """
    source = "{}: {}".format(flag, checkpoint)
    variables = checkpoints.read_variables(checkpoint, flag)
    found = infer({name: held.shape for name, held in variables.items()}, source)
    problem = type_problem(variables, found, takes_any_float)
    if problem:
        raise UserError("{}: {}".format(source, problem))
    if scope not in (None, found.scope):
        raise UserError("{}: {}".format(source, scope_problem(found)))
    problems = [
        "{} is {}, not the config's {}".format(name, seen, given)
        for name, seen, given in differences(found, config)
    ]
    if problems:
        raise UserError(
            "{} is from another model: its {}; give the config that belongs to the "
            "checkpoint".format(source, ", its ".join(problems))
        )
    return found
