"""Pretrains ALBERT on TFRecords: masked language model and sentence order.

    python3 run_pretraining.py --input_file='data/*.tfrecord' --output_dir=my_model \
        --do_train=True --do_eval=True \
        --albert_config_file=albert_config/albert_config_tiny.json \
        --train_batch_size=4096 --max_seq_length=512 --max_predictions_per_seq=51 \
        --num_train_steps=125000 --num_warmup_steps=12500 --learning_rate=0.00176

A run that was stopped goes on from its last checkpoint when the same command is
given again, with the records that an undisturbed run would have had next. Without
dropout, as in the published recipe, and with `--deterministic_input` it ends with the
same weights; with dropout the masks of dropout are other ones after each start.
SIGTERM ends a run after the present step, with a checkpoint and exit code 0.
`--model_dir` names a pretrained model to start from, in place of
`--albert_config_file` and `--init_checkpoint`.
"""

from albert_zh import command_line  # isort: split

import contextlib
import logging
from typing import List, NamedTuple, Optional

import numpy as np

import tokenization
from albert_zh import flags
from albert_zh.base import console
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.command_line import positive_int
from albert_zh.data import corpus, input_pipeline, instances, masking
from albert_zh.data import summary as statistics
from albert_zh.models import directory as model_directory
from albert_zh.models import output_directory
from albert_zh.models import settings as model_settings
from albert_zh.training import (
    accumulation,
    distribution,
    input_position,
    numerics,
    pretraining,
    results,
)
from albert_zh.training import estimator as estimators

_LOGGER = logging.getLogger(__name__)

_READERS = {
    "do_train": (
        "train_batch_size",
        "micro_batch_size",
        "learning_rate",
        "num_train_steps",
        "num_warmup_steps",
        "optimizer",
        "dropout",
        "save_checkpoints_steps",
        "keep_checkpoint_max",
        "shuffle_buffer_size",
        "deterministic_input",
        "distribution",
        "seed",
    ),
    "do_eval": ("eval_input_file", "eval_batch_size", "max_eval_steps"),
    "use_tpu": flags.TPU_FLAGS,
    "distribution=multi_worker": ("worker_timeout", "allow_open_ports"),
}


def build_parser():
    """Returns the command's parser."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    _add_model_arguments(parser)
    _add_record_arguments(parser)
    _add_training_arguments(parser)
    flags.add_device_arguments(parser)
    flags.add_numerics_arguments(parser)
    flags.add_distribution_arguments(parser)
    return parser


def _add_model_arguments(parser):
    add = parser.add_argument
    add(
        "--model_dir",
        help="folder of a model to start from: config, checkpoint; its vocabulary and "
        "casing go along into --output_dir",
    )
    add("--albert_config_file", "--bert_config_file", help="model JSON")
    add("--output_dir", required=True, help="where checkpoints and results go")
    add("--init_checkpoint", help="checkpoint to start from")
    add("--vocab_file", help="WordPiece vocabulary of the records; goes along")
    add("--spm_model_file", help="SentencePiece model, in place of a vocabulary")
    parser.add_bool("--allow_missing", False, "start heads that it lacks anew")


def _add_record_arguments(parser):
    add, defaults = parser.add_argument, input_pipeline.DEFAULT_READING
    add("--input_file", required=True, help="TFRecord files or globs, by commas")
    add("--eval_input_file", help="TFRecords for --do_eval; --input_file when absent")
    add("--max_seq_length", type=positive_int, default=512, help="of the records")
    add(
        "--max_predictions_per_seq",
        type=positive_int,
        default=51,
        help="of the records; masked tokens at most where they are masked here",
    )
    flags.add_mask_arguments(parser, "for records of --masking=dynamic only")
    add(
        "--shuffle_buffer_size",
        type=positive_int,
        default=defaults.shuffle_records,
        help="records held to shuffle them",
    )
    add(
        "--num_input_threads",
        type=positive_int,
        default=defaults.num_threads,
        help="files read, and batches parsed, at the same time",
    )
    parser.add_bool(
        "--deterministic_input",
        defaults.deterministic,
        "the order of records follows from --seed; else threads need not wait",
    )


def _add_training_arguments(parser):
    add = parser.add_argument
    parser.add_bool("--do_train", False, "train")
    parser.add_bool("--do_eval", False, "evaluate")
    add("--train_batch_size", type=positive_int, default=4096, help="sequences a step")
    add(
        "--micro_batch_size",
        type=positive_int,
        help="sequences that a device computes at a time, to fit the memory; the step "
        "remains that of --train_batch_size; default: all at once",
    )
    add("--eval_batch_size", type=positive_int, default=64, help="sequences a step")
    add(
        "--learning_rate",
        type=command_line.positive_number,
        default=0.00176,
        help="peak rate; scale it by sqrt(batch/4096) for LAMB",
    )
    add("--num_train_steps", type=positive_int, default=125000, help="steps in all")
    add(
        "--num_warmup_steps",
        type=command_line.non_negative_int,
        default=12500,
        help="steps of linear warm-up",
    )
    add("--optimizer", choices=("lamb", "adamw"), default="lamb", help="update rule")
    flags.add_dropout_argument(parser)
    add("--save_checkpoints_steps", type=positive_int, default=1000, help="steps")
    add("--keep_checkpoint_max", type=positive_int, default=5, help="checkpoints kept")
    add("--max_eval_steps", type=positive_int, default=100, help="batches at most")
    add(
        "--seed",
        type=command_line.non_negative_int,
        default=12345,
        help="of initialization and input order",
    )


def main(args):
    """Trains and evaluates as the flags say."""
    _check_flags(args)
    device = estimators.device_from(args)
    spread = distribution.create(
        args.distribution,
        args.use_tpu,
        args.worker_timeout or distribution.WORKER_TIMEOUT,
        args.allow_open_ports,
    )
    if args.do_train:
        _check_batch(args, args.num_tpu_cores if args.use_tpu else spread.num_replicas)
    start = _choose_start(args)
    config = model_settings.load_config(
        start.config_file, args.max_seq_length, args.dropout
    )
    model_directory.check_vocabulary_of(start, config)
    train_input = _records(args, args.input_file, config, start)
    eval_input = train_input
    if args.eval_input_file:
        eval_input = _records(args, args.eval_input_file, config, start)
    _check_mask_flags(args, train_input, eval_input)
    distribution.check_enough_files(train_input.files, spread)
    with contextlib.ExitStack() as stack:
        if args.do_train and spread.is_chief:
            stack.enter_context(output_directory.hold(args.output_dir))
        _train_and_evaluate(
            args, config, start, device, spread, train_input, eval_input
        )
    console.show("The model lies in {}\n".format(args.output_dir))


def _train_and_evaluate(args, config, start, device, spread, train_input, eval_input):
    """Does what the flags say in --output_dir, where nobody else trains."""
    step = pretraining.check_start(
        config, args.output_dir, start.checkpoint, args.do_train, args.allow_missing
    )
    output_directory.prepare(args.output_dir, config)
    model_directory.copy_vocabulary(start, args.output_dir)
    model_fn = _model_fn(args, config, start.checkpoint)
    if args.do_train:
        position = _position(args, train_input.files, step, spread)
        estimators.train(
            _build_estimator(
                args, model_fn, device, spread, _graph_seed(args.seed, step)
            ),
            _input_fn(args, train_input, True, position),
            args.num_train_steps,
            train_input.files,
            spread,
            train_input.form,
        )
    if args.do_eval and spread.is_chief:
        distribution.leave_cluster()
        estimator = _build_estimator(args, model_fn, device, distribution.ONE_DEVICE)
        _evaluate(args, estimator, eval_input)


def _check_flags(args):
    """Raises `UserError` for flags that are wrong whatever the files hold."""
    if not args.do_train and not args.do_eval:
        raise UserError("give --do_train=True, --do_eval=True or both")
    flags.check_read(args, _READERS)
    if args.do_train and args.num_warmup_steps >= args.num_train_steps:
        raise UserError(
            "--num_warmup_steps {} leaves nothing of --num_train_steps {}; a tenth of "
            "them is usual".format(args.num_warmup_steps, args.num_train_steps)
        )


def _check_batch(args, num_devices):
    """Raises `UserError` for a batch that devices or micro-batches cannot share."""
    distribution.check_divisible(args.train_batch_size, num_devices)
    if not args.micro_batch_size:
        return
    number = accumulation.count_micro_batches(
        args.train_batch_size, args.micro_batch_size, num_devices
    )
    _LOGGER.info(
        "%d sequences a step as %d micro-batches of %d%s",
        args.train_batch_size,
        number,
        args.micro_batch_size,
        " on each of {} devices".format(num_devices) * (num_devices > 1),
    )


def _choose_start(args):
    """Returns the `ModelDirectory` of what the flags name or --model_dir holds."""
    start = model_directory.choose(
        args.model_dir,
        config_file=args.albert_config_file,
        checkpoint=args.init_checkpoint,
        # They go along into --output_dir, and masks drawn here need them.
        vocab_file=args.vocab_file,
        spm_model_file=args.spm_model_file,
    )
    model_directory.require(start, "config_file")
    if args.model_dir:
        model_directory.require(start, "checkpoint")
    return start


def _model_fn(args, config, init_checkpoint):
    return pretraining.model_fn_builder(
        config,
        args.output_dir,
        init_checkpoint,
        estimators.Schedule(
            args.optimizer,
            args.learning_rate,
            args.num_train_steps,
            args.num_warmup_steps,
        ),
        args.train_batch_size,
        args.use_tpu,
        args.allow_missing,
        args.micro_batch_size,
        numerics.choose(args.precision, args.xla, args.use_tpu, static_shapes=True),
    )


def _build_estimator(args, model_fn, device, spread, seed=None):
    checkpointing = {
        "save_checkpoints_steps": args.save_checkpoints_steps,
        "keep_checkpoint_max": args.keep_checkpoint_max,
        "seed": seed,
    }
    if spread.strategy:
        return estimators.build_distributed_estimator(
            model_fn, args.output_dir, spread, args.train_batch_size, **checkpointing
        )
    return estimators.build_estimator(
        model_fn,
        args.output_dir,
        device,
        args.train_batch_size,
        args.eval_batch_size,
        **checkpointing,
    )


class _Records(NamedTuple):
    """Record files, their form, and how they are masked: None where they are."""

    files: List[str]
    form: input_pipeline.Form
    masks: Optional[input_pipeline.DynamicMasks]


def _records(args, patterns, config, start):
    """Returns the `_Records` of files or globs, which fit the model.

    Raises:
      UserError: they do not, or a vocabulary is needed to mask them.
    """
    files = corpus.expand_input_files(patterns)
    is_dynamic = input_pipeline.check_record_files(
        files,
        args.max_seq_length,
        args.max_predictions_per_seq,
        config.vocab_size,
        config.type_vocab_size,
    )
    form = input_pipeline.Form(
        args.max_seq_length,
        args.max_predictions_per_seq,
        config.vocab_size,
        config.type_vocab_size,
        is_dynamic,
    )
    if not is_dynamic:
        return _Records(files, form, None)
    if not (start.vocab_file or start.spm_model_file):
        raise UserError(
            "{}: its records are masked here (--masking=dynamic), which needs their "
            "vocabulary: give --vocab_file or --spm_model_file".format(files[0])
        )
    with as_user_error(ValueError, OSError, ImportError):
        settings = masking.MaskSettings(**flags.given_mask_settings(args))
        settings.check()
        vocabulary = instances.Vocabulary.from_tokenizer(
            tokenization.FullTokenizer(
                start.vocab_file, spm_model_file=start.spm_model_file
            )
        )
    max_text_tokens = args.max_seq_length - instances.NUM_SPECIAL_TOKENS
    for warning in statistics.limit_warnings(settings, max_text_tokens):
        _LOGGER.warning("%s", warning)
    return _Records(
        files,
        form,
        input_pipeline.DynamicMasks(
            settings, vocabulary.mask_id, vocabulary.ordinary_ids
        ),
    )


def _check_mask_flags(args, *inputs):
    """Raises `UserError` for flags of masks where all records hold theirs."""
    for name in ("masked_lm_prob", "ngram"):
        if getattr(args, name) is not None and not any(i.masks for i in inputs):
            raise UserError(
                "--{}: these records hold their masks; give it to "
                "create_pretraining_data.py, or make records of "
                "--masking=dynamic".format(name)
            )


def _graph_seed(seed, step):
    """A seed of its own for each start: the same would repeat masks of dropout."""
    if step == 0:
        return seed
    return np.random.RandomState([seed, step % 2**32]).randint(2**31)


def _position(args, files, step, spread):
    """Returns the `input_pipeline.Position` where the input of training goes on."""
    if step >= args.num_train_steps:
        return input_pipeline.BEGINNING  # nothing is left to train
    names = ["seed", "shuffle_buffer_size", "num_input_threads", "deterministic_input"]
    # Each host of a pod, of 8 cores, reads files of its own.
    names += ["num_tpu_cores"] if args.use_tpu else []
    order = {"--" + name: getattr(args, name) for name in names}
    order["the number of workers"] = spread.num_workers
    return input_position.resume(
        args.output_dir, step, args.train_batch_size, files, order
    )


def _input_fn(args, given, is_training, position=input_pipeline.BEGINNING):
    return input_pipeline.input_fn_builder(
        given.files,
        args.max_seq_length,
        args.max_predictions_per_seq,
        given.form.vocab_size,
        is_training,
        seed=args.seed,
        drop_remainder=args.use_tpu,
        masks=given.masks,
        reading=input_pipeline.Reading(
            args.shuffle_buffer_size, args.num_input_threads, args.deterministic_input
        ),
        position=position,
        type_vocab_size=given.form.type_vocab_size,
    )


def _evaluate(args, estimator, given):
    _LOGGER.info(
        "evaluating at most --max_eval_steps=%d batches of %d",
        args.max_eval_steps,
        args.eval_batch_size,
    )
    with estimators.one_line_errors(given.files, given.form):
        scores = estimator.evaluate(
            _input_fn(args, given, False), steps=args.max_eval_steps
        )
    scores = {
        key: int(value) if key == "global_step" else float(value)
        for key, value in scores.items()
    }
    results.write_results(args.output_dir, scores)
    for key in sorted(scores):
        _LOGGER.info("%s = %s", key, scores[key])


if __name__ == "__main__":
    command_line.run(main, build_parser())
