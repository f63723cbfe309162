"""Tokenizer files beside PyTorch models, as Hugging Face names them."""

import logging
import os

from albert_zh.base import files, json_files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError

_LOGGER = logging.getLogger(__name__)

_VOCABULARY = "vocab.txt"
_SENTENCEPIECE = "spiece.model"
_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_ADDED_TOKENS = "added_tokens.json"

_SHOWN_CHARACTERS = 200
# In two entries of BERT's Chinese vocabulary.
_LINE_SEPARATOR = "\u2028"
# Published vocabularies have a few tokens twice, so that some of their ids, at most
# this share, have no token.
_ABSENT_IDS = 1 / 1000
_COPY_AGAIN = "copy or download it again"
_SWITCH = {"type": ["boolean", "null"]}
_ID = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_ADDED_SCHEMA = {"type": "object", "additionalProperties": _ID}
_CONTENT = {"content": {"type": "string"}}
_CONFIG_SCHEMA = {
    "type": "object",
    "properties": {
        "do_lower_case": _SWITCH,
        "added_tokens_decoder": {
            "type": ["object", "null"],
            "propertyNames": {"pattern": r"\A[0-9]{1,9}\Z"},
            "additionalProperties": {
                "type": "object",
                "properties": _CONTENT,
                "required": ["content"],
            },
        },
    },
}
_TOKENIZER_SCHEMA = {
    "type": "object",
    "properties": {
        "normalizer": {
            "type": ["object", "null"],
            "properties": {"lowercase": _SWITCH},
        },
        "added_tokens": {
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "properties": dict(_CONTENT, id=_ID),
                "required": ["content", "id"],
            },
        },
        "model": {
            "type": ["object", "null"],
            "if": {
                "required": ["type"],
                "properties": {"type": {"const": "WordPiece"}},
            },
            "then": {
                "required": ["vocab"],
                "properties": {
                    "vocab": {
                        "type": "object",
                        "additionalProperties": _ID,
                    }
                },
            },
        },
    },
}

# Settings of a tokenizer_config.json that are fixed in `tokenization`.
_TOKENIZER_DEFAULTS = {
    "keep_accents": False,
    "remove_space": True,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
}


def read(directory, num_rows=0):
    """Reads a directory's tokenizer.

    Args:
      directory: path.
      num_rows: int, number of rows of the embedding table. A shorter vocabulary of a
        tokenizer.json, which cannot have been cut, gets names for the others.

    Returns:
      (vocabulary, sentencepiece, do_lower_case): bytes of a vocab.txt, with the tokens
      that were added to it, or None; bytes of a SentencePiece model or None; bool.

    Raises:
      UserError: a file is damaged.
    """

    def path_of(name):
        path = os.path.join(directory, name)
        return path if os.path.exists(path) else None

    def read_json(name, schema):
        path = path_of(name)
        return json_files.read(path, schema, _COPY_AGAIN) if path else {}

    settings = read_json(_TOKENIZER_CONFIG, _CONFIG_SCHEMA)
    vocabulary, sentencepiece = (
        files.read_bytes(path_of(name)) if path_of(name) else None
        for name in (_VOCABULARY, _SENTENCEPIECE)
    )
    tokenizer = {}
    if sentencepiece is None:
        tokenizer = read_json(_TOKENIZER, _TOKENIZER_SCHEMA)
    is_whole = vocabulary is None
    if vocabulary is None:
        vocabulary = _vocabulary_of(tokenizer.get("model") or {}, path_of(_TOKENIZER))
    if vocabulary is not None and sentencepiece is None:
        added = _added_tokens(
            read_json(_ADDED_TOKENS, _ADDED_SCHEMA), tokenizer, settings
        )
        vocabulary = _append(added, vocabulary, directory)
        if is_whole:
            vocabulary = _padded(vocabulary, num_rows, directory)
    _warn_of_settings(settings, path_of(_TOKENIZER_CONFIG))
    lower_case = settings.get("do_lower_case")
    if lower_case is None:
        lower_case = (tokenizer.get("normalizer") or {}).get("lowercase")
    # The Chinese models' vocabulary is lower-cased.
    return vocabulary, sentencepiece, lower_case is not False


def _warn_of_settings(settings, path):
    """Warns of settings of a tokenizer_config.json that `tokenization` lacks."""
    for key, value in _TOKENIZER_DEFAULTS.items():
        if settings.get(key, value) not in (value, None):
            _LOGGER.warning(
                "%s: %s %s has no counterpart here; some texts are tokenized "
                "differently",
                path,
                key,
                printable(settings[key])[:_SHOWN_CHARACTERS],
            )


def _vocabulary_of(model, path):
    """Returns the bytes of a `vocab.txt` from a WordPiece tokenizer.json, or None.

    An id without a token becomes a blank line, as where BERT's vocabularies have a
    token twice. The tokens U+2028 and ##U+2028 of BERT's Chinese vocabulary are ""
    and "##" there, because the file was read by a tool that strips white space.
    """
    if model.get("type") != "WordPiece":
        return None
    tokens = {token_id: token for token, token_id in model["vocab"].items()}
    size = max(tokens, default=-1) + 1
    if len(tokens) != len(model["vocab"]) or size - len(tokens) > _ABSENT_IDS * size:
        raise UserError(
            "{}: the ids of its vocabulary are not 0 to {}".format(
                path, len(model["vocab"]) - 1
            )
        )
    ids = model["vocab"]
    if "" in ids and _LINE_SEPARATOR not in ids:
        for stripped in ("", "##"):
            if stripped in ids:
                tokens[ids[stripped]] = stripped + _LINE_SEPARATOR
    lines = [tokens.get(token_id, "") for token_id in range(size)]
    for token in lines:
        _check_line(token, path)
    return "".join(line + "\n" for line in lines).encode("utf-8")


def _check_line(token, path):
    if set(token) & set("\r\n"):
        raise UserError(
            "{}: the token '{}' cannot be a line of vocab.txt".format(
                path, printable(token)
            )
        )


def _added_tokens(added, tokenizer, settings):
    """Returns {id: token} of the tokens that were added to a tokenizer.

    Args:
      added: content of added_tokens.json.
      tokenizer: content of tokenizer.json.
      settings: content of tokenizer_config.json.
    """
    tokens = {token_id: token for token, token_id in added.items()}
    for entry in tokenizer.get("added_tokens") or []:
        tokens[entry["id"]] = entry["content"]
    for token_id, entry in (settings.get("added_tokens_decoder") or {}).items():
        tokens[int(token_id)] = entry["content"]
    return tokens


def _append(added, vocabulary, directory):
    """Returns the bytes of a `vocab.txt` with the added tokens beyond its end.

    Args:
      added: dict {id: token}; those inside the vocabulary are its special tokens.
      vocabulary: bytes.
      directory: path, for messages.

    Raises:
      UserError: ids are missing between the vocabulary and an added token.
    """
    vocabulary = vocabulary.rstrip(b" \t\r\n\f\v") + b"\n"
    size = vocabulary.count(b"\n")
    beyond = sorted(token_id for token_id in added if token_id >= size)
    if not beyond:
        return vocabulary
    if beyond != list(range(size, size + len(beyond))):
        raise UserError(
            "{}: the vocabulary has {:,} entries, but the added token {} the id "
            "{:,}; {}".format(
                directory,
                size,
                printable(added[beyond[-1]])[:_SHOWN_CHARACTERS],
                beyond[-1],
                _COPY_AGAIN,
            )
        )
    tokens = [added[token_id] for token_id in beyond]
    for token in tokens:
        _check_line(token, directory)
    _LOGGER.warning(
        "%s: the vocabulary gets its %d added tokens, ids %d to %d: %s; they are not "
        "searched in texts, which are split as without them",
        directory,
        len(tokens),
        size,
        beyond[-1],
        printable(", ".join(tokens))[:_SHOWN_CHARACTERS],
    )
    return vocabulary + "".join(token + "\n" for token in tokens).encode("utf-8")


def _padded(vocabulary, num_rows, directory):
    """Returns the bytes of a `vocab.txt` with a name for every row of the table.

    Tables are often enlarged to a multiple of 64.
    """
    size = vocabulary.count(b"\n")
    names = ["[unused{}]".format(row) for row in range(size, num_rows)]
    if names:
        _LOGGER.warning(
            "%s: the vocabulary has %d entries, the embedding table %d rows; the other "
            "rows are named %s to %s",
            directory,
            size,
            num_rows,
            names[0],
            names[-1],
        )
    return vocabulary + "".join(name + "\n" for name in names).encode("ascii")


def write(model, directory):
    """Writes the tokenizer of a `Model`, if it has one, into a directory."""
    for name, content in (
        (_VOCABULARY, model.vocabulary),
        (_SENTENCEPIECE, model.sentencepiece),
    ):
        if content is not None:
            files.write_bytes(content, os.path.join(directory, name))
    if model.vocabulary is None and model.sentencepiece is None:
        return
    # Chinese ALBERT has BERT's vocabulary: without this class, Hugging Face would
    # expect ALBERT's SentencePiece model.
    settings = {
        "tokenizer_class": "BertTokenizer" if model.vocabulary else "AlbertTokenizer",
        "do_lower_case": model.do_lower_case,
        "model_max_length": model.config.max_position_embeddings,
    }
    json_files.write(settings, os.path.join(directory, _TOKENIZER_CONFIG))
