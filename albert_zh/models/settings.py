"""Schemas and readers for the JSON files of a model directory.

`labels.json` has the labels of a fine-tuned classifier and the settings of its
tokenizer, `tokenizer_settings.json` (Hugging Face: `tokenizer_config.json`) the
tokenizer settings of any model, `albert_config.json` the sizes of the encoder.
"""

import json
import re

import modeling
from albert_zh.base import files, json_files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError

# [CLS], a token, [SEP], another token, [SEP]
MIN_SEQ_LENGTH = 5
_MAX_INTEGER = 2**31 - 1
# Labels are written into cells of TSV files and lines of reports.
_LABEL = r"\A[^\x00-\x1f\x7f]+\Z"
# What a new label may not hold besides: other line ends and half surrogate pairs.
_NO_LABEL = re.compile("[\x80-\x9f\u2028\u2029\ud800-\udfff]")

_TOKENIZER_SETTINGS = {
    "do_lower_case": {"type": "boolean"},
    "normalize_punctuation": {"type": "boolean"},
}
_TASK_SETTINGS = dict(
    _TOKENIZER_SETTINGS,
    task_name={"type": "string", "minLength": 1},
    labels={
        "type": "array",
        "uniqueItems": True,
        "items": {"type": "string", "pattern": _LABEL},
    },
    max_seq_length={
        "type": "integer",
        "minimum": MIN_SEQ_LENGTH,
        "maximum": _MAX_INTEGER,
    },
    options={"type": "object"},
)
_PARTIAL_LABELS_SCHEMA = {"type": "object", "properties": _TASK_SETTINGS}
_LABELS_SCHEMA = dict(
    _PARTIAL_LABELS_SCHEMA,
    required=sorted(set(_TASK_SETTINGS) - {"options"}),
    additionalProperties=False,
)
# Published models have at most 48. Shared layers cost nothing on disk, so that no
# checkpoint contradicts a number of layers that takes hours to build.
_MAX_LAYERS = 1000
_LAYERS = {"maximum": _MAX_LAYERS}
# Published vocabularies have up to a million entries.
_MAX_WORDS = 2**24
# A hundred times the parameters of ALBERT xxlarge; 94 GB as float32.
_MAX_PARAMETERS = 235 * 10**8
# `modeling.AlbertConfig` checks the rest, but has no largest size.
_CONFIG_SCHEMA = {
    "type": "object",
    "properties": {
        "num_hidden_layers": _LAYERS,
        "inner_group_num": _LAYERS,
        "vocab_size": {"maximum": _MAX_WORDS},
    },
    "additionalProperties": {"minimum": -_MAX_INTEGER, "maximum": _MAX_INTEGER},
}

_ADVICE = "copy the model again from an intact source, or train into another directory"


def is_label(text):
    """Whether a text can be a label: not empty, one line, one TSV cell."""
    return re.match(_LABEL, text) is not None and not _NO_LABEL.search(text)


def read_labels(path):
    """Reads a `labels.json`.

    Returns:
      Dict of its settings; `options` may be absent.

    Raises:
      UserError: it cannot be read, or does not have exactly these settings.
    """
    return json_files.read(path, _LABELS_SCHEMA, _ADVICE)


def check_labels(settings, source, min_labels=2):
    """Checks a model's settings from another source, as in its `labels.json`.

    Args:
      settings: dict.
      source: where they are from, for the message.
      min_labels: int, the fewest labels it may have.

    Raises:
      UserError: they do not; names the first wrong one.
    """
    labels = dict(_TASK_SETTINGS["labels"], minItems=min_labels)
    schema = dict(_LABELS_SCHEMA, properties=dict(_TASK_SETTINGS, labels=labels))
    try:
        json_files.parse(json.dumps(settings).encode("utf-8"), schema)
    except (ValueError, TypeError) as error:
        raise UserError(
            "{}: the settings of its task cannot be used ({}); correct them "
            "there".format(source, printable(error))
        ) from error
    for label in settings["labels"]:
        if not is_label(label):
            raise UserError(
                "{}: the label {} holds a control character, such as a line end; "
                "correct it there".format(source, printable(label))
            )


def check_fit(path, settings, config):
    """Checks that a `labels.json` fits the config beside it.

    Args:
      path: path of the `labels.json`, for the message.
      settings: dict from `read_labels`.
      config: `modeling.AlbertConfig`.

    Raises:
      UserError: it does not fit.
    """
    length, positions = settings["max_seq_length"], config.max_position_embeddings
    if length > positions:
        raise UserError(
            "{}: max_seq_length {} is above max_position_embeddings {} of the config "
            "beside it; {}".format(path, length, positions, _ADVICE)
        )


def read_tokenizer_setting(path, name, is_labels):
    """Reads a setting of a model's tokenizer.

    Args:
      path: path of a `labels.json` or of tokenizer settings.
      name: "do_lower_case" or "normalize_punctuation".
      is_labels: bool, which of the two files it is.

    Returns:
      bool, or None if the file does not say.

    Raises:
      UserError: it cannot be read or is damaged.
    """
    schema = _PARTIAL_LABELS_SCHEMA
    if not is_labels:  # may be another program's, with other settings
        schema = {"type": "object", "properties": {name: _TOKENIZER_SETTINGS[name]}}
    return json_files.read(path, schema, _ADVICE).get(name)


def read_config(path):
    """Reads a config; returns `modeling.AlbertConfig`.

    Raises:
      UserError: there is no such file, or it is no valid config.
    """
    if not files.exists(path):
        raise UserError("{}: no such config file".format(path))
    settings = json_files.read(path, _CONFIG_SCHEMA, "give the model's own config")
    try:
        config = modeling.AlbertConfig.from_dict(settings)
    except (ValueError, TypeError) as error:
        raise UserError("{}: {}".format(path, printable(error))) from error
    parameters = _about_parameters(config)
    if parameters > _MAX_PARAMETERS:
        raise UserError(
            "{}: a model of these sizes has about {:,} parameters ({:,} GB), published "
            "ones have up to 334 million; give the model's own config".format(
                path, parameters, 4 * parameters // 10**9
            )
        )
    return config


def _about_parameters(config):
    """Returns the number of a model's parameters, but for biases and layer norms."""
    hidden = config.hidden_size
    attention, feed_forward = 4 * hidden**2, 2 * hidden * config.intermediate_size
    layers = config.num_hidden_layers * config.inner_group_num
    groups = config.num_hidden_groups * config.inner_group_num
    shared = config.cross_layer_sharing
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    return (
        rows * config.embedding_size
        + attention * (groups if shared in ("all", "attention") else layers)
        + feed_forward * (groups if shared in ("all", "ffn") else layers)
    )


def load_config(path, max_seq_length, dropout=None, num_hidden_layers=None):
    """Reads an `AlbertConfig` and checks --max_seq_length against it.

    Args:
      path: the model's JSON.
      max_seq_length: int.
      dropout: float in place of both of the config's dropout probabilities, or None.
      num_hidden_layers: int in place of the config's, or None.

    Raises:
      UserError: the file is missing or wrong, the length too large, or the number of
        layers another one and their weights not shared, or too large.
    """
    config = read_config(path)
    if max_seq_length > config.max_position_embeddings:
        raise UserError(
            "--max_seq_length {} is above max_position_embeddings {} of {}".format(
                max_seq_length, config.max_position_embeddings, path
            )
        )
    if dropout is not None:
        config.hidden_dropout_prob = dropout
        config.attention_probs_dropout_prob = dropout
    if num_hidden_layers is not None:
        _set_layers(config, num_hidden_layers, path)
    return config


def _set_layers(config, number, path):
    """Changes how often the shared layer is applied; arguments as `load_config`."""
    if number != config.num_hidden_layers and not shares_layers(config):
        raise UserError(
            "--num_hidden_layers={}: not all layers of {} share their weights; leave "
            "the flag away".format(number, path)
        )
    if number > _MAX_LAYERS:
        raise UserError(
            "--num_hidden_layers={}; expected at most {}".format(number, _MAX_LAYERS)
        )
    config.num_hidden_layers = number


def shares_layers(config):
    """Whether a `modeling.AlbertConfig` has one layer, applied repeatedly."""
    return config.cross_layer_sharing == "all" and config.num_hidden_groups == 1
