"""The vocabulary of a command: named by flags or found in a model directory.

TensorFlow is loaded for a model directory only.
"""

from typing import NamedTuple, Optional

from albert_zh.base import files
from albert_zh.base.errors import UserError

_HINT = "; `python download_model.py vocab` fetches BERT's Chinese one"


class Choice(NamedTuple):
    """A vocabulary and what a model directory says about its use.

    Attributes:
      vocab_file: path of a WordPiece vocabulary, or None.
      spm_model_file: path of a SentencePiece model, which has precedence, or None.
      do_lower_case: bool.
      config_file: path of the config in the model directory, or None.
      normalize_punctuation: bool, whether the model's tokenizer maps punctuation.
    """

    vocab_file: Optional[str]
    spm_model_file: Optional[str]
    do_lower_case: bool
    config_file: Optional[str]
    normalize_punctuation: bool = False

    @property
    def path(self):
        """Path of the file that holds the vocabulary."""
        return self.spm_model_file or self.vocab_file

    def read_files(self):
        """Returns the list of the paths that a command reads."""
        return list(filter(None, [self.path, self.config_file]))


def choose(model_dir, vocab_file, spm_model_file, do_lower_case):
    """Completes what the flags say by what a model directory holds.

    Args:
      model_dir: path of a model directory, or None.
      vocab_file, spm_model_file: paths from the flags, or None.
      do_lower_case: bool; None for the model's casing, else True.

    Returns:
      `Choice`, whose vocabulary is an ordinary file.

    Raises:
      UserError: no vocabulary is named or found, the file is missing or a pipe, or
        the model directory cannot be used.
    """
    if model_dir:
        choice = _from_directory(model_dir, vocab_file, spm_model_file, do_lower_case)
    else:
        lower_case = True if do_lower_case is None else do_lower_case
        choice = Choice(vocab_file, spm_model_file, lower_case, None)
    if not choice.path:
        raise UserError("--vocab_file is missing; give it or --model_dir" + _HINT)
    if not files.exists(choice.path):
        raise UserError("{}: no such vocabulary{}".format(choice.path, _HINT))
    files.require_regular(choice.path)
    return choice


def _from_directory(model_dir, vocab_file, spm_model_file, do_lower_case):
    from albert_zh.models import directory as model_directory

    found = model_directory.choose(
        model_dir,
        config_file=None,
        vocab_file=vocab_file,
        spm_model_file=spm_model_file,
    )
    model_directory.require(found, "vocab_file")
    return Choice(
        found.vocab_file,
        found.spm_model_file,
        model_directory.choose_do_lower_case(do_lower_case, found.directory),
        found.config_file,
        model_directory.read_normalize_punctuation(found.directory),
    )


def check_fit(choice, vocab_size, max_seq_length):
    """Checks vocabulary and sequence length against the model's config, if any.

    Args:
      choice: `Choice`.
      vocab_size: int, entries of its vocabulary.
      max_seq_length: int.

    Raises:
      UserError: they do not fit the config.
    """
    if not choice.config_file:
        return
    from albert_zh.models import directory as model_directory
    from albert_zh.models import settings as model_settings

    config = model_settings.load_config(choice.config_file, max_seq_length)
    model_directory.check_vocabulary(vocab_size, choice.path, config, exact=True)
