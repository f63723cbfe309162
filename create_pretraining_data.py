"""Turns raw text into pretraining records for `run_pretraining.py`.

Reads text files with one sentence per line and a blank line between documents. Writes
TFRecord files of sentence-order pairs with whole-word masks, and a summary,
`<output file>.summary.json`. The same input, flags and seed give the same bytes,
whatever the number of workers. To resume a stopped run, rerun the same command.
"""

from albert_zh import command_line  # isort: split

from albert_zh import engines, flags
from albert_zh.base import files, pictures
from albert_zh.base.errors import as_user_error
from albert_zh.command_line import positive_int
from albert_zh.data import (
    corpus,
    instances,
    masking,
    output_names,
    preview,
    run,
    segmentation,
    sources,
    text_tools,
)
from albert_zh.data import shards as sharding
from albert_zh.models import vocabularies

# What must be on for a flag to have an effect; see `flags.check_read`.
_READERS = {
    "engine=local": ("num_workers",),
    "engine=spark": ("spark_master",),
    "masking=static": ("max_predictions_per_seq",) + flags.MASK_FLAGS,
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
    flags.add_text_file_arguments(parser)
    add("--output_file", required=True, help="TFRecord files, comma-separated")
    add(
        "--num_output_files",
        type=positive_int,
        help="divide one --output_file into NAME-00000-of-00128.tfrecord and so on",
    )
    parser.add_bool("--overwrite", False, "remove earlier output and start over")
    add("--preview", type=positive_int, default=0, help="records to show at the end")
    add("--report", help="folder for pictures of the distributions")


def _add_text_arguments(parser):
    add, add_bool = parser.add_argument, parser.add_bool
    add("--model_dir", help="model directory to take vocabulary and casing from")
    add("--vocab_file", help="WordPiece vocabulary, one token per line")
    add("--spm_model_file", help="SentencePiece model, in place of a vocabulary")
    add_bool(
        "--do_lower_case",
        None,
        "lower-case the text and strip accents; default: as --model_dir, else True",
    )
    text = "map “ ” ‘ ’ … — to known tokens; default: as --model_dir, else False"
    add_bool("--normalize_punctuation", None, text)
    add_bool("--do_whole_word_mask", True, "mask all tokens of a word together")
    add_bool("--non_chinese", False, "find words by the tokenizer's marks alone")
    add(
        "--segmenter",
        choices=segmentation.SEGMENTERS,
        help="finds Chinese words; rjieba is faster; default: jieba",
    )


def _add_instance_arguments(parser):
    add = parser.add_argument
    add("--max_seq_length", type=positive_int, default=512, help="tokens in a record")
    add(
        "--masking",
        choices=("static", "dynamic"),
        default="static",
        help="static: mask here; dynamic: run_pretraining.py masks in every epoch",
    )
    add(
        "--max_predictions_per_seq",
        type=positive_int,
        help="masked tokens in a record at most, static masking only; default: "
        "{}".format(masking.MaskSettings().max_predictions_per_seq),
    )
    flags.add_mask_arguments(parser, "static masking only")
    add("--short_seq_prob", type=float, default=0.1, help="share of short records")
    text = "share of the text whose records have segments that overlap"
    add("--overlap_prob", type=float, default=0.0, help=text)
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
        help="bytes of text per worker task; records are shuffled within a task",
    )
    add("--engine", choices=("local", "spark"), default="local", help="what runs it")
    add("--num_workers", type=positive_int, help="local processes; default: 1")
    add("--spark_master", help="Spark's master URL; default: spark-submit's")


def main(args):
    """Makes the records; see `build_parser` for the arguments."""
    with as_user_error(ValueError, OSError, ImportError):
        plan, tokenizer = _plan(args)
    with engines.create(args.engine, args.num_workers, args.spark_master) as engine:
        summary = run.generate(plan, engine, args.overwrite)
    if args.preview:
        preview.show_records(plan.outputs.records[0], tokenizer, args.preview)
    if args.report:
        preview.draw_distributions(summary["distributions"], args.report)
    preview.show_summary(summary, plan.outputs)


def _plan(args):
    """Checks the flags; returns the `run.Plan` and the tokenizer."""
    settings = _instance_settings(args)
    flags.check_read(args, _READERS)
    if args.report:
        pictures.require_matplotlib("--report")
    vocabulary = vocabularies.choose(
        args.model_dir, args.vocab_file, args.spm_model_file, args.do_lower_case
    )
    outputs = output_names.choose(args.output_file, args.num_output_files)
    no_text = vocabulary.read_files() + outputs.of_earlier_runs()
    input_files = corpus.expand_input_files(args.input_file, True, no_text)
    if args.engine == "spark":  # whose workers have other directories
        input_files = list(map(files.absolute, input_files))
    corpus.file_sizes(input_files)  # raises where all are empty
    output_names.prepare(
        args.output_file,
        outputs,
        input_files + vocabulary.read_files(),
        preview.picture_files(args.report) if args.report else [],
    )
    text = _text_settings(args, vocabulary)
    tokenizer = text.load_tokenizer(vocabulary.path)
    instances.Vocabulary.from_tokenizer(tokenizer)  # raises where it has no words
    vocabularies.check_fit(vocabulary, tokenizer.vocab_size, args.max_seq_length)
    job = sharding.Job(
        settings=settings,
        text=text,
        form=sources.Form.of_flags(
            args.encoding, args.encoding_errors, args.text_field
        ),
        random_seed=args.random_seed,
        output_files=tuple(map(files.absolute, outputs.records)),
        work_directory=files.absolute(outputs.work_directory),
    )
    manifest = run.settings_of(job, tokenizer.vocab_size)
    plan = run.Plan(job, input_files, args.shard_bytes, manifest, outputs)
    return plan, tokenizer


def _instance_settings(args):
    is_static = args.masking == "static"
    masks = masking.MaskSettings(**flags.given_mask_settings(args))
    settings = instances.Settings(
        max_seq_length=args.max_seq_length,
        short_seq_prob=args.short_seq_prob,
        dupe_factor=args.dupe_factor or (10 if is_static else 1),
        overlap_prob=args.overlap_prob,
        masks=masks if is_static else None,
    )
    settings.check()
    return settings


def _text_settings(args, vocabulary):
    segmenter = segmentation.choose(
        args.segmenter, args.do_whole_word_mask, args.non_chinese
    )
    marks = args.normalize_punctuation
    if marks is None:
        marks = vocabulary.normalize_punctuation
    return text_tools.TextSettings(
        vocabulary=files.read_bytes(vocabulary.path),
        is_sentencepiece=bool(vocabulary.spm_model_file),
        do_lower_case=vocabulary.do_lower_case,
        normalize_punctuation=marks,
        segmenter=segmenter,
        versions=text_tools.installed_versions(segmenter),
    )


if __name__ == "__main__":
    command_line.run(main, build_parser())
