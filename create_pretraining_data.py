"""Turns raw text into pretraining records for `run_pretraining.py`.

Reads text files with one sentence per line and a blank line between documents, and
writes TFRecord files of sentence-order pairs with whole-word masks, and a summary,
`<output file>.summary.json`. The same input, flags and seed give the same bytes,
whatever the number of workers. A run that was stopped goes on when the same command
is given again.
"""

from albert_zh import command_line  # isort: split

import hashlib
import logging

import tokenization
from albert_zh import engines, flags
from albert_zh.base import console, files, pictures
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.command_line import positive_int
from albert_zh.data import (
    corpus,
    instances,
    masking,
    output_names,
    preview,
    segmentation,
)
from albert_zh.data import run as generation
from albert_zh.data import shards as sharding
from albert_zh.data import summary as statistics

_LOGGER = logging.getLogger(__name__)

_MAX_SHOWN_FILES = 4

# Flags that the records depend on, with the content of the input and the vocabulary,
# the words and the shards; a run can go on with any others.
_SETTINGS = (
    "do_lower_case",
    "normalize_punctuation",
    "max_seq_length",
    "masking",
    "short_seq_prob",
    "dupe_factor",
    "random_seed",
)


_READERS = {
    "engine=local": ("num_workers",),
    "engine=spark": ("spark_master",),
    "masking=static": ("max_predictions_per_seq", "masked_lm_prob", "ngram"),
}


def build_parser():
    """Returns the command's flags; the defaults are the published command's."""
    parser = command_line.ArgumentParser(description=__doc__)
    _add_file_arguments(parser)
    _add_text_arguments(parser)
    _add_instance_arguments(parser)
    _add_work_arguments(parser)
    return parser


def _add_file_arguments(parser):
    add = parser.add_argument
    add("--input_file", required=True, help="text files or globs, comma-separated")
    add("--output_file", required=True, help="TFRecord files, comma-separated")
    add(
        "--num_output_files",
        type=positive_int,
        help="make NAME-00000-of-00128.tfrecord and so on of one --output_file",
    )
    parser.add_bool("--overwrite", False, "remove what is there and begin anew")
    add("--preview", type=positive_int, default=0, help="records to show at the end")
    add("--report", help="folder for pictures of the distributions")


def _add_text_arguments(parser):
    add, add_bool = parser.add_argument, parser.add_bool
    add("--model_dir", help="folder of a model, for vocabulary and casing")
    add("--vocab_file", help="WordPiece vocabulary, one token per line")
    add("--spm_model_file", help="SentencePiece model, in place of a vocabulary")
    add_bool(
        "--do_lower_case",
        None,
        "lower-case the text and strip accents; default: as --model_dir, else True",
    )
    add_bool("--normalize_punctuation", False, "map “ ” ‘ ’ … — to known tokens")
    add(
        "--encoding_errors",
        choices=corpus.ENCODING_ERRORS,
        default="strict",
        help="stop at bytes that are not UTF-8, or replace and count them",
    )
    add_bool("--do_whole_word_mask", True, "mask all tokens of a word together")
    add_bool("--non_chinese", False, "words from the tokenizer's marks alone")
    add(
        "--segmenter",
        choices=segmentation.SEGMENTERS,
        help="what finds Chinese words: rjieba is faster; default: jieba",
    )


def _add_instance_arguments(parser):
    add = parser.add_argument
    add("--max_seq_length", type=positive_int, default=512, help="tokens in a record")
    add(
        "--masking",
        choices=("static", "dynamic"),
        default="static",
        help="mask here, or leave it to run_pretraining.py, anew in every epoch",
    )
    add(
        "--max_predictions_per_seq",
        type=positive_int,
        help="masked tokens in a record at most, static masking only; default: "
        "{}".format(masking.MaskSettings().max_predictions_per_seq),
    )
    flags.add_mask_arguments(parser, "static masking only")
    add("--short_seq_prob", type=float, default=0.1, help="share of short records")
    add(
        "--dupe_factor",
        type=positive_int,
        help="uses of each document; default: 10, with dynamic masking 1",
    )
    add("--random_seed", type=command_line.non_negative_int, default=12345, help="seed")


def _add_work_arguments(parser):
    add = parser.add_argument
    add(
        "--shard_bytes",
        type=positive_int,
        default=8 * 2**20,
        help="text that a worker takes at a time; records are shuffled within it",
    )
    add("--engine", choices=("local", "spark"), default="local", help="who works")
    add("--num_workers", type=positive_int, help="local processes; default: 1")
    add("--spark_master", help="Spark's master URL; default: spark-submit's")


def main(args):
    """Makes the records; see `build_parser` for the arguments."""
    with as_user_error(ValueError, OSError, ImportError):
        settings = _settings(args)
        flags.check_read(args, _READERS)
        if args.report:
            pictures.require_matplotlib("--report")
        paths = corpus.expand_input_files(args.input_file)
        vocabulary_file, config_file = _model_files(args)
        corpus.file_sizes(paths)  # raises where all are empty
        inputs = paths + [vocabulary_file] + [config_file] * bool(config_file)
        outputs = _output_files(args, inputs)
        job = _job(args, settings, vocabulary_file, outputs)
        tokenizer = _tokenizer(args, config_file)
    for warning in statistics.limit_warnings(settings.masks, settings.max_text_tokens):
        _LOGGER.warning("%s", warning)
    manifest = _manifest_settings(args, job, tokenizer.vocab_size)
    with _engine(args) as engine:
        summary = generation.run(
            job,
            paths,
            args.shard_bytes,
            manifest,
            engine,
            _base_name(args),
            args.overwrite,
        )
    if args.preview:
        preview.show_records(outputs[0], tokenizer, args.preview)
    if args.report:
        preview.draw_distributions(summary["distributions"], args.report)
    _show(summary, outputs, output_names.summary_file(_base_name(args)))


def _settings(args):
    """Returns the `instances.Settings` of the flags, whose defaults are filled in."""
    masks = flags.given_mask_settings(args)
    is_static = args.masking == "static"
    if args.dupe_factor is None:
        args.dupe_factor = 10 if is_static else 1
    settings = instances.Settings(
        args.max_seq_length,
        args.short_seq_prob,
        args.dupe_factor,
        masking.MaskSettings(**masks) if is_static else None,
    )
    settings.check()
    return settings


def _engine(args):
    """Returns the engine of the flags; see `engines`. Spark takes seconds to start."""
    if args.engine == "spark":
        return engines.SparkEngine(args.spark_master)
    return engines.LocalEngine(args.num_workers or 1)


def _model_files(args):
    """Returns (vocabulary or SentencePiece model, config or None).

    They come from the flags or --model_dir; so does --do_lower_case, which is filled
    in. TensorFlow is loaded for a model's directory only.
    """
    config_file = None
    if args.model_dir:
        from albert_zh.models import directory as model_directory

        found = model_directory.choose(
            args.model_dir,
            config_file=None,
            vocab_file=args.vocab_file,
            spm_model_file=args.spm_model_file,
        )
        model_directory.require(found, "vocab_file")
        args.do_lower_case = model_directory.choose_do_lower_case(
            args.do_lower_case, found.directory
        )
        args.vocab_file, args.spm_model_file = found.vocab_file, found.spm_model_file
        config_file = found.config_file
    if args.do_lower_case is None:
        args.do_lower_case = True
    hint = "; `python download_model.py vocab` fetches BERT's Chinese one"
    path = args.spm_model_file or args.vocab_file
    if not path:
        raise UserError("--vocab_file is missing; give it or --model_dir" + hint)
    if not files.exists(path):
        raise UserError("{}: no such vocabulary{}".format(path, hint))
    files.require_regular(path)
    return path, config_file


def _tokenizer(args, config_file):
    """Loads the tokenizer and holds vocabulary and length against a config."""
    tokenizer = tokenization.FullTokenizer(
        args.vocab_file,
        args.do_lower_case,
        args.spm_model_file,
        args.normalize_punctuation,
    )
    instances.Vocabulary.from_tokenizer(tokenizer)  # raises where it is of no use
    if config_file:
        from albert_zh.models import directory as model_directory
        from albert_zh.models import settings as model_settings

        model_directory.check_vocabulary(
            tokenizer.vocab_size,
            args.spm_model_file or args.vocab_file,
            model_settings.load_config(config_file, args.max_seq_length),
            exact=True,
        )
    return tokenizer


def _base_name(args):
    """The first name of --output_file: what else is written is called after it."""
    return files.split_names(args.output_file)[0]


def _output_files(args, input_files):
    """Returns the list of the output files; makes the folders of all that is written.

    Raises:
      UserError: flags or paths are at odds.
    """
    outputs, base = _output_names(args), _base_name(args)
    written = outputs + [output_names.summary_file(base)]
    if args.report:
        written += preview.picture_files(args.report)
    working = [output_names.work_directory(base)]
    files.require_separate(args.output_file, written, input_files, working)
    files.make_folders(written)
    return outputs


def _output_names(args):
    """Returns the output files' names."""
    names = files.split_names(args.output_file)
    if args.num_output_files is None:
        return names
    if len(names) != 1:
        raise UserError(
            "--num_output_files divides one --output_file, received {!r}".format(
                args.output_file
            )
        )
    if args.num_output_files > output_names.MAX_OUTPUT_FILES:
        raise UserError(
            "--num_output_files {}: expected at most {}".format(
                args.num_output_files, output_names.MAX_OUTPUT_FILES
            )
        )
    return output_names.divided(names[0], args.num_output_files)


def _job(args, settings, vocabulary_file, outputs):
    segmenter = args.segmenter or "jieba"
    if args.non_chinese or not args.do_whole_word_mask:
        if args.non_chinese and not args.do_whole_word_mask:
            raise UserError(
                "--non_chinese is of no use without --do_whole_word_mask; leave it out"
            )
        if args.segmenter:
            raise UserError(
                "--segmenter is of no use with --non_chinese or without "
                "--do_whole_word_mask; leave it out"
            )
        segmenter = "" if args.do_whole_word_mask else None
    with files.reading(vocabulary_file), files.open_input(vocabulary_file) as file:
        vocabulary = file.read()
    return sharding.Job(
        settings,
        vocabulary,
        bool(args.spm_model_file),
        args.do_lower_case,
        args.normalize_punctuation,
        segmenter,
        args.encoding_errors,
        args.random_seed,
        tuple(map(files.absolute, outputs)),
        output_names.work_directory(files.absolute(_base_name(args))),
    )


def _manifest_settings(args, job, vocab_size):
    """What the records depend on, besides the input, for `generation.run`."""
    settings = {name: getattr(args, name) for name in _SETTINGS}
    if job.settings.masks is not None:
        settings.update(job.settings.masks._asdict())
    settings["vocabulary_sha256"] = hashlib.sha256(job.vocabulary).hexdigest()
    settings["vocab_size"] = vocab_size
    settings["segmenter"] = job.segmenter
    if job.segmenter:
        settings["segmenter"] = segmentation.segmenter_version(job.segmenter)
    return settings


def _show(summary, outputs, summary_file):
    """Shows the summary, last of all where everything is."""
    for warning in summary["warnings"]:
        console.show("warning: {}\n".format(warning))
    for name, value in summary.items():
        if not isinstance(value, (list, dict)):
            console.show("{:<28} {}\n".format(name, value))
    if len(outputs) > _MAX_SHOWN_FILES:
        outputs = ["{} to {}".format(outputs[0], outputs[-1])]
    console.show(
        "records in {}\nsummary in {}\n".format(", ".join(outputs), summary_file)
    )


if __name__ == "__main__":
    command_line.run(main, build_parser())
