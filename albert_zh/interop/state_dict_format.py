"""PyTorch model directories: Hugging Face's, and albert_pytorch's.

Both have a `config.json`, a state dict (`weights_files`) and tokenizer files
(`tokenizer_files`).
"""

import os
import re
from typing import Callable, NamedTuple

import numpy as np

import modeling
from albert_zh.base import files, json_files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.interop import heads, names, tokenizer_files, weights_files
from albert_zh.interop.model import DEFAULT_OPTIONS, Model
from albert_zh.models import directory as model_directory

_CONFIG = "config.json"
# Key in the config.json of a fine-tuned model for the content of `labels.json`.
_TASK = "albert_zh"

# Key in that for the content of `decision.json`.
_DECISION = "decision"

# What transformers calls a class without a name.
_NO_NAME = re.compile(r"LABEL_\d+")

# Keys that mean the same on both sides.
_SHARED_KEYS = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
    "hidden_dropout_prob attention_probs_dropout_prob max_position_embeddings "
    "type_vocab_size initializer_range"
).split()

_SIZES = [key for key in _SHARED_KEYS if not re.search("prob|range", key)] + [
    "embedding_size",
    "num_hidden_groups",
    "inner_group_num",
]
# Published models have up to 24 layers and sizes up to 20,480. Wrong values far above
# would take a day to build, or all memory.
_MAX_LAYERS = 1000
_MAX_SIZE = 2**20
_CONFIG_SCHEMA = {
    "type": "object",
    "properties": dict(
        {
            key: {
                "type": "integer",
                "minimum": 1,
                "maximum": _MAX_LAYERS if re.search("layer|group", key) else _MAX_SIZE,
            }
            for key in _SIZES
        },
        model_type={"type": ["string", "null"]},
        hidden_act={"type": "string"},
        problem_type={"type": ["string", "null"]},
        architectures={"type": ["array", "null"], "items": {"type": "string"}},
        id2label={
            "type": ["object", "null"],
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
        task_specific_params={
            "type": ["object", "null"],
            "properties": {
                _TASK: {
                    "type": ["object", "null"],
                    "properties": {
                        "task_name": {"type": "string"},
                        "labels": {"type": "array", "items": {"type": "string"}},
                        "max_seq_length": {"type": "integer", "minimum": 1},
                        "do_lower_case": {"type": "boolean"},
                        "normalize_punctuation": {"type": "boolean"},
                        "options": {"type": "object"},
                        _DECISION: model_directory.DECISION_SCHEMA,
                    },
                }
            },
        },
    ),
}

# Activations that compute the same function. PyTorch's "gelu" is the exact form,
# TensorFlow's the tanh form (arXiv:1606.08415, section 2). The first PyTorch name is
# written.
_ACTIVATIONS = (
    ("gelu", ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")),
    ("gelu_exact", ("gelu", "gelu_python")),
    ("relu", ("relu",)),
    ("tanh", ("tanh",)),
    ("linear", ("linear",)),
)


class Layout(NamedTuple):
    """How one family of PyTorch models stores one dialect.

    Attributes:
      model_type: value in config.json.
      table: `names.NameTable`.
      layers: part of the name of every layer's parameters.
      config_keys: keys of the dialect's config beyond `_SHARED_KEYS`.
      architecture: prefix of the class names, "Albert" or "Bert".
      weights_file: name of the file to write.
      check: function of an `AlbertConfig`, raises `UserError` if the PyTorch side
        cannot compute this model.
    """

    model_type: str
    table: names.NameTable
    layers: str
    config_keys: tuple
    architecture: str
    weights_file: str
    check: Callable[[modeling.AlbertConfig], None]


def _check_google(config):
    if config.cross_layer_sharing in ("attention", "ffn"):
        raise UserError(
            "Hugging Face's ALBERT cannot share only {} between layers; no exact "
            "conversion exists".format(config.cross_layer_sharing)
        )
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    for layer in range(layers):
        # The frameworks round differently.
        if int(layer / layers * groups) != int(layer / (layers / groups)):
            raise UserError(
                "{} layers in {} groups: the frameworks put layer {} into different "
                "groups; no exact conversion exists".format(layers, groups, layer)
            )


def _check_bert(config):
    if config.cross_layer_sharing != "none":
        raise UserError(
            "Hugging Face's BERT shares no layers, this model shares {}; no exact "
            "conversion exists".format(config.cross_layer_sharing)
        )


def _check_bright(config):
    if config.cross_layer_sharing != "all" or config.ln_type != "postln":
        raise UserError(
            "albert_pytorch's bright variant shares all layers with post-LN, this "
            "model shares {} with {}; no exact conversion exists".format(
                config.cross_layer_sharing, config.ln_type
            )
        )


HUGGING_FACE = {
    "google": Layout(
        "albert",
        names.HUGGING_FACE_ALBERT,
        "encoder.albert_layer_groups.",
        ("embedding_size", "num_hidden_groups", "inner_group_num"),
        "Albert",
        weights_files.SAFETENSORS,
        _check_google,
    ),
    "bert": Layout(
        "bert",
        names.HUGGING_FACE_BERT,
        "encoder.layer.",
        (),
        "Bert",
        weights_files.SAFETENSORS,
        _check_bert,
    ),
}
ALBERT_PYTORCH = {
    "albert_zh": Layout(
        "albert",
        names.ALBERT_PYTORCH,
        "encoder.layer_shared.",
        ("embedding_size",),
        "Albert",
        weights_files.PICKLE,
        _check_bright,
    )
}


# --- Reading -----------------------------------------------------------------


def read(layouts, directory, options=DEFAULT_OPTIONS, is_trusted=False):
    """Reads a PyTorch model directory.

    Args:
      layouts: dict dialect -> `Layout`, `HUGGING_FACE` or `ALBERT_PYTORCH`.
      directory: path.
      options: `Options`; `drop_masked_lm` allows a copy of a tied weight that
        differs from its original.
      is_trusted: bool; whether this process wrote it.

    Returns:
      `Model`, its weights float32 whatever the file's dtype.

    Raises:
      UserError: a file is missing or damaged, or there is no exact conversion.
    """
    path = os.path.join(directory, _CONFIG)
    files.require_regular(path)
    settings = json_files.read(path, _CONFIG_SCHEMA, "copy or download it again")
    state = weights_files.read_state(directory, is_trusted)
    dialect = _dialect(layouts, settings, state, directory)
    layout = layouts[dialect]
    config = _read_config(settings, layout, dialect, directory)
    tensors, unused = _to_tensorflow(
        state, layout.table, directory, check_ties=not options.drop_masked_lm
    )
    if dialect == "google":
        _drop_identity(tensors, config, directory)
    dropped, told = _sort_head(tensors, settings, layout)
    if told is None and heads.find(tensors, directory) == "classifier":
        told = heads.of_kind(options.kind)
    task = _read_task(settings, directory, heads.find(tensors, directory, told))
    decision = (task or {}).pop(_DECISION, {})
    vocabulary, sentencepiece, do_lower_case = tokenizer_files.read(
        directory, config.vocab_size
    )
    return Model(
        config,
        tensors,
        unused + dropped,
        vocabulary,
        sentencepiece,
        do_lower_case,
        task or None,
        told,
        decision,
    )


def _sort_head(tensors, settings, layout):
    """Names the variables of a `classifier` by what it is for; drops unknown ones.

    Heads for texts, for choices, for tokens, for several labels and for regression have
    the same names in PyTorch.

    Returns:
      Tuple of the names of the dropped parameters, and the `Model.told`.
    """
    given = [name for name in heads.HEADS["classifier"].variables if name in tensors]
    architectures = settings.get("architectures") or ["ForSequenceClassification"]
    suffix = architectures[0]
    if suffix.endswith(heads.HEADS["tagger"].class_suffix):
        for name in given:
            tensors[heads.TAGGER_SCOPE + name] = tensors.pop(name)
        return (), None
    has_one_row = "output_bias" in tensors and tensors["output_bias"].size == 1
    head, problem = None, settings.get("problem_type")
    if suffix.endswith(heads.HEADS["multiple_choice"].class_suffix):
        head = "multiple_choice"
    elif suffix.endswith(heads.HEADS["classifier"].class_suffix):
        head = heads.BY_PROBLEM_TYPE.get(problem)
        if problem is None and has_one_row:  # as transformers takes it
            head = "regression"
        elif problem in (None, "single_label_classification"):
            head = "classifier"
    if head and has_one_row == (head in ("multiple_choice", "regression")):
        return (), head if heads.HEADS[head].problem_type else None
    for name in given:
        del tensors[name]
    return tuple(layout.table.to_pytorch(name)[0] for name in given), None


def _read_task(settings, directory, head):
    """Returns a head's settings from a config.json, as in `labels.json`, or None."""
    if head is None:
        return None
    task = dict((settings.get("task_specific_params") or {}).get(_TASK) or {})
    if head in heads.WITHOUT_LABELS:
        return task or None
    names_by_id = settings.get("id2label")
    if names_by_id:
        # Hugging Face shows these, and a later training may have changed them.
        try:
            keys = sorted(names_by_id, key=int)
        except (TypeError, ValueError) as error:
            raise UserError(
                "{}: the keys of id2label are not numbers".format(
                    os.path.join(directory, _CONFIG)
                )
            ) from error
        found = [str(names_by_id[key]) for key in keys]
        task["labels"] = heads.labels_of(head, found)
        if task["labels"] is None and all(_NO_NAME.fullmatch(name) for name in found):
            del task["labels"]
        elif task["labels"] is None:
            raise UserError(
                "{}: the tags of id2label are {}; expected O, B-X, I-X, B-Y, I-Y, ... "
                "in this order".format(
                    os.path.join(directory, _CONFIG), ", ".join(found)
                )
            )
    return task or None


def _dialect(layouts, settings, state, directory):
    """Returns the dialect of a directory, a key of `layouts`."""
    bright = any("word_embeddings_2" in name for name in state)
    if bright != ("albert_zh" in layouts):
        raise UserError(
            "{}: this is {}".format(
                directory,
                "albert_pytorch's bright variant (word_embeddings_2); give "
                "--from=albert_pytorch"
                if bright
                else "not albert_pytorch's bright variant, it has no word_embeddings_2",
            )
        )
    if bright:
        return "albert_zh"
    model_type = settings.get("model_type")
    for dialect, layout in layouts.items():
        has_layers = any(layout.layers in name for name in state)
        # The first versions of Hugging Face's tools did not write model_type.
        if model_type == layout.model_type or (model_type is None and has_layers):
            return dialect
    raise UserError(
        "{}: model_type is {!r}, expected {}".format(
            os.path.join(directory, _CONFIG),
            settings.get("model_type"),
            " or ".join(layout.model_type for layout in layouts.values()),
        )
    )


def _read_config(settings, layout, dialect, directory):
    path = os.path.join(directory, _CONFIG)
    keys = _SHARED_KEYS + list(layout.config_keys)
    missing = [key for key in keys + ["hidden_act"] if key not in settings]
    if missing:
        raise UserError("{}: lacks {}".format(path, ", ".join(missing)))
    try:
        modeling.check_fixed_keys(settings)
    except ValueError as error:
        raise UserError(
            "{}: {}; no exact conversion exists".format(path, printable(error))
        ) from error
    config = {key: settings[key] for key in keys}
    for ours, theirs in _ACTIVATIONS:
        if settings["hidden_act"] in theirs:
            config["hidden_act"] = ours
            break
    else:
        raise UserError(
            "{}: modeling.py has no hidden_act {!r}".format(
                path, settings["hidden_act"]
            )
        )
    if dialect == "albert_zh":
        config["ln_type"] = "postln"
    with as_user_error(ValueError):
        config = modeling.AlbertConfig.from_dict(config)
    layout.check(config)
    return config


def _to_tensorflow(state, table, directory, check_ties):
    """Renames and transposes the parameters of a state dict.

    Returns:
      (dict variable name -> float32 ndarray, tuple of the unused parameters).

    Raises:
      UserError: a copy differs from its original.
    """
    state = {
        # Hugging Face's names before 2019.
        re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)): value
        for name, value in state.items()
        if not name.endswith("position_ids")
    }
    if not any(name.startswith(table.prefix) for name in state):
        state = {table.prefix + name: value for name, value in state.items()}
    for tied in table.tied:
        copy = state.pop(tied.name, None)
        original = state.get(tied.original)
        if copy is None or original is None or not check_ties:
            continue
        if not np.array_equal(copy, original.T if tied.transposed else original):
            raise UserError(
                "{}: {} differs from {}, TensorFlow has one variable for both; no "
                "exact conversion exists (--drop_masked_lm converts the rest)".format(
                    directory, tied.name, tied.original
                )
            )
    tensors, unused = {}, []
    for name, value in state.items():
        found = table.to_tensorflow(name)
        if found is None:
            unused.append(name)
            continue
        variable, transposed = found
        value = value.T if transposed else value
        tensors[variable] = np.ascontiguousarray(value, np.float32)
    return tensors, tuple(sorted(unused))


_MAPPING = "bert/encoder/embedding_hidden_mapping_in/"


def _drop_identity(tensors, config, directory):
    """Drops PyTorch's projection if E = H, where TensorFlow has none.

    Raises:
      UserError: it is not the identity.
    """
    if config.embedding_size != config.hidden_size:
        return
    kernel = tensors.pop(_MAPPING + "kernel", None)
    bias = tensors.pop(_MAPPING + "bias", None)
    if kernel is None or bias is None:
        return
    is_identity = kernel.shape == (config.hidden_size,) * 2 and np.array_equal(
        kernel, np.eye(config.hidden_size, dtype=np.float32)
    )
    if not is_identity or bias.any():
        raise UserError(
            "{}: embedding_size equals hidden_size, for which TensorFlow's model has "
            "no projection, but the one here is not the identity; no exact conversion "
            "exists".format(directory)
        )


# --- Writing -----------------------------------------------------------------


def check_writable(layouts, config):
    """Checks that a model of this config can be written.

    Raises:
      UserError: no exact conversion exists, or torch is required and not installed.
    """
    layout = layouts[config.dialect]
    layout.check(config)
    if layout.weights_file == weights_files.PICKLE:
        weights_files.import_torch(layout.weights_file)


def write(layouts, model, directory, options=DEFAULT_OPTIONS):
    """Writes a PyTorch model directory into an existing, empty folder.

    Args:
      layouts: dict dialect -> `Layout`.
      model: `Model`.
      directory: path.
      options: `Options`; `dtype` is that of the weights in the file.

    Raises:
      UserError: a value exceeds the dtype.
    """
    layout = layouts[model.config.dialect]
    tokenizer_files.write(model, directory)
    config = _config_json(model, layout, options.dtype)
    json_files.write(config, os.path.join(directory, _CONFIG))
    state = _to_pytorch(model, layout.table)
    path = os.path.join(directory, layout.weights_file)
    weights_files.write_state(state, path, options.dtype)


def _config_json(model, layout, dtype):
    """Returns the dict of `config.json`."""
    config = model.config
    settings = {key: getattr(config, key) for key in _SHARED_KEYS}
    settings.update((key, getattr(config, key)) for key in layout.config_keys)
    if config.dialect == "google" and config.cross_layer_sharing == "none":
        settings["num_hidden_groups"] = config.num_hidden_layers
    activations = dict(_ACTIVATIONS)
    settings.update(
        model_type=layout.model_type,
        architectures=[layout.architecture + _class_suffix(model)],
        hidden_act=activations[config.hidden_act or "linear"][0],
        layer_norm_eps=modeling.FIXED_KEYS["layer_norm_eps"][0],
        pad_token_id=0,
        torch_dtype=dtype,
    )
    if model.fine_tuned_head is not None:
        settings.update(_task_json(model))
    return settings


def _task_json(model):
    """Returns the dict of what `config.json` holds of a fine-tuned model's task."""
    head, task, settings = model.fine_tuned_head, model.task or {}, {}
    classes = ["LABEL_{}".format(index) for index in range(model.num_rows)]
    if task.get("labels"):
        classes = heads.class_names(head, task["labels"])
    if head == "regression":  # else transformers takes it to have two classes
        classes = ["LABEL_0"]
    if head == "regression" or head not in heads.WITHOUT_LABELS:
        settings.update(
            id2label={str(index): label for index, label in enumerate(classes)},
            label2id={label: index for index, label in enumerate(classes)},
        )
    if heads.HEADS[head].problem_type:
        settings["problem_type"] = heads.HEADS[head].problem_type
    if "task_name" in task:
        if model.decision:
            task = dict(task, **{_DECISION: model.decision})
        settings["task_specific_params"] = {_TASK: task}
    return settings


def _class_suffix(model):
    """Returns the name of Hugging Face's class for a model, without its prefix."""
    if model.fine_tuned_head is not None:
        return heads.HEADS[model.fine_tuned_head].class_suffix
    if "masked_lm" in model.heads:
        return "ForPreTraining" if "sentence_order" in model.heads else "ForMaskedLM"
    return "Model"


def _to_pytorch(model, table):
    state = {}
    for variable, value in model.weights.items():
        name, transposed = table.to_pytorch(variable)
        state[name] = value.T if transposed else value
    config = model.config
    if config.dialect == "google" and config.embedding_size == config.hidden_size:
        for variable, value in (
            ("kernel", np.eye(config.hidden_size, dtype=np.float32)),
            ("bias", np.zeros(config.hidden_size, np.float32)),
        ):
            state[table.to_pytorch(_MAPPING + variable)[0]] = value
    if table.stores_tied and "masked_lm" in model.heads:
        for tied in table.tied:
            original = state[tied.original]
            state[tied.name] = original.T if tied.transposed else original
    return state
