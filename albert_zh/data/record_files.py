"""The record files of a run: found, checked, and made into its input."""

import logging
from typing import List, NamedTuple, Optional

import tokenization
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.data import corpus, input_pipeline, instances, summary

_LOGGER = logging.getLogger(__name__)


class RecordFiles(NamedTuple):
    """Record files and how a run reads them.

    Attributes:
      files: paths of TFRecord files of one form.
      form: `input_pipeline.Form` of their records.
      masks: `input_pipeline.DynamicMasks` for records without masks, else None.
      reading: `input_pipeline.Reading`.
    """

    files: List[str]
    form: input_pipeline.Form
    masks: Optional[input_pipeline.DynamicMasks] = None
    reading: input_pipeline.Reading = input_pipeline.DEFAULT_READING

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
    files = corpus.expand_input_files(patterns)
    is_dynamic = input_pipeline.check_record_files(
        files,
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
                "--spm_model_file".format(files[0])
            )
        masks = _dynamic_masks(mask_settings, vocab_file, spm_model_file)
        max_text_tokens = form.max_seq_length - instances.NUM_SPECIAL_TOKENS
        for warning in summary.limit_warnings(mask_settings, max_text_tokens):
            _LOGGER.warning("%s", warning)
    return RecordFiles(files, form._replace(is_dynamic=is_dynamic), masks, reading)


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
