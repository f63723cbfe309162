"""The record files of a run: found, checked, and made into its input."""

import collections
import contextlib
import logging
import os
from typing import Dict, List, NamedTuple, Optional

import tokenization
from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.data import corpus, input_pipeline, instances, output_names, summary

_LOGGER = logging.getLogger(__name__)

_TOKENIZER_SETTINGS = ("do_lower_case", "normalize_punctuation")
# What is read of a summary of data generation.
_SUMMARY_SCHEMA = {
    "type": "object",
    "properties": {
        "manifest": {
            "type": "object",
            "properties": {
                "output": {"type": "array", "items": {"type": "string"}},
                "do_lower_case": {"type": "boolean"},
                "normalize_punctuation": {"type": "boolean"},
            },
            "required": ["output", *_TOKENIZER_SETTINGS],
        }
    },
    "required": ["manifest"],
}


class RecordFiles(NamedTuple):
    """Record files and how a run reads them.

    Attributes:
      files: paths of TFRecord files of one form.
      form: `input_pipeline.Form` of their records.
      masks: `input_pipeline.DynamicMasks` for records without masks, else None.
      reading: `input_pipeline.Reading`.
      tokenizer_settings: dict of the settings that the records were made with, as the
        summaries beside them say; {} where there are none.
    """

    files: List[str]
    form: input_pipeline.Form
    masks: Optional[input_pipeline.DynamicMasks] = None
    reading: input_pipeline.Reading = input_pipeline.DEFAULT_READING
    tokenizer_settings: Dict[str, bool] = {}

    def input_fn(
        self,
        is_training,
        seed=None,
        position=input_pipeline.BEGINNING,
        drop_remainder=False,
    ):
        """Returns Estimator's input function; see `input_pipeline.input_fn_builder`."""
        return input_pipeline.input_fn_builder(
            self.files,
            self.form.max_seq_length,
            self.form.max_predictions_per_seq,
            self.form.vocab_size,
            is_training,
            seed=seed,
            drop_remainder=drop_remainder,
            masks=self.masks,
            reading=self.reading,
            position=position,
            type_vocab_size=self.form.type_vocab_size,
        )


def find(
    patterns,
    form,
    mask_settings,
    vocab_file=None,
    spm_model_file=None,
    reading=input_pipeline.DEFAULT_READING,
):
    """Finds record files and checks that they fit a model.

    Args:
      patterns: files or globs, separated by commas.
      form: `input_pipeline.Form` that the records must have; whether they are dynamic
        is found here.
      mask_settings: `masking.MaskSettings` for records without masks.
      vocab_file: WordPiece vocabulary of the records, or None.
      spm_model_file: SentencePiece model in its place, or None.
      reading: `input_pipeline.Reading`.

    Returns:
      `RecordFiles`.

    Raises:
      UserError: the files do not fit, or their vocabulary is needed to mask them and
        cannot be used.
    """
    paths = corpus.expand_input_files(patterns)
    is_dynamic = input_pipeline.check_record_files(
        paths,
        form.max_seq_length,
        form.max_predictions_per_seq,
        form.vocab_size,
        form.type_vocab_size,
    )
    masks = None
    if is_dynamic:
        if not (vocab_file or spm_model_file):
            raise UserError(
                "{}: its records are masked during training (--masking=dynamic), which "
                "requires their vocabulary: give --vocab_file or "
                "--spm_model_file".format(paths[0])
            )
        masks = _dynamic_masks(mask_settings, vocab_file, spm_model_file)
        max_text_tokens = form.max_seq_length - instances.NUM_SPECIAL_TOKENS
        for warning in summary.limit_warnings(mask_settings, max_text_tokens):
            _LOGGER.warning("%s", warning)
    form = form._replace(is_dynamic=is_dynamic)
    return RecordFiles(paths, form, masks, reading, _tokenizer_settings(paths))


def _tokenizer_settings(paths):
    """Reads from the summaries beside record files how their text was tokenized.

    Returns:
      Dict "do_lower_case", "normalize_punctuation" -> bool; {} where there is no
      summary of any of the files.

    Raises:
      UserError: the files differ.
    """
    found, first = {}, None
    for path, manifest in _manifests(paths):
        settings = {name: manifest[name] for name in _TOKENIZER_SETTINGS}
        if found and settings != found:
            raise UserError(
                "--input_file: by {} and {}, the records differ in {}; give records of "
                "one tokenizer".format(
                    first,
                    path,
                    " and ".join(n for n in settings if settings[n] != found[n]),
                )
            )
        found, first = settings, path
    return found


def _manifests(paths):
    """Yields (path, manifest) of the summaries that have one of the record files."""
    by_folder = collections.defaultdict(set)
    for path in paths:
        by_folder[os.path.dirname(path)].add(os.path.basename(path))
    for folder, names in sorted(by_folder.items()):
        for name in files.list_directory(folder or "."):
            if not name.endswith(output_names.SUMMARY_ENDING):
                continue
            path = os.path.join(folder, name)
            # Others than ours may have such names; no training depends on them.
            with contextlib.suppress(UserError):
                manifest = json_files.read(path, _SUMMARY_SCHEMA, "")["manifest"]
                if names & set(map(os.path.basename, manifest["output"])):
                    yield path, manifest


def _dynamic_masks(settings, vocab_file, spm_model_file):
    """Returns `input_pipeline.DynamicMasks`; arguments as those of `find`."""
    with as_user_error(ValueError, OSError, ImportError):
        settings.check()
        vocabulary = instances.Vocabulary.from_tokenizer(
            tokenization.FullTokenizer(vocab_file, spm_model_file=spm_model_file)
        )
    return input_pipeline.DynamicMasks(
        settings, vocabulary.mask_id, vocabulary.ordinary_ids
    )
