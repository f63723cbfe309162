"""Pretrains ALBERT on TFRecords: masked language model and sentence order.

    python3 run_pretraining.py --input_file='data/*.tfrecord' --output_dir=my_model \
        --do_train=True --do_eval=True \
        --albert_config_file=albert_config/albert_config_tiny.json \
        --train_batch_size=4096 --max_seq_length=512 --max_predictions_per_seq=51 \
        --num_train_steps=125000 --num_warmup_steps=12500 --learning_rate=0.00176

Rerun the same command to resume a stopped run from its last checkpoint, at the next
unread record. With `--deterministic_input` and no dropout, as in the published recipe,
it ends with the weights of an uninterrupted run; dropout masks change at each restart.
SIGTERM or Ctrl-C ends a run after the current step, with a checkpoint.
"""

from albert_zh import command_line  # isort: split

import optimization
from albert_zh import flags
from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.command_line import non_negative_int, positive_int, positive_number
from albert_zh.data import input_pipeline, masking, record_files
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.training import distribution as distributions
from albert_zh.training import estimator as estimators
from albert_zh.training import initial_weights, numerics, pretraining, recipes

# What must be on for a flag to have an effect; see `flags.check_read`.
_READERS = {
    "do_train": (
        "recipe train_batch_size micro_batch_size learning_rate num_train_steps "
        "num_warmup_steps optimizer lr_schedule dropout save_checkpoints_steps "
        "keep_checkpoint_max shuffle_buffer_size deterministic_input distribution "
        "seed recompute initial_weights"
    ).split(),
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
    add("--model_dir", help="model directory to start from")
    add("--albert_config_file", "--bert_config_file", help="config file of the model")
    add("--output_dir", required=True, help="where checkpoints and results go")
    add("--init_checkpoint", help="checkpoint to start from")
    add("--vocab_file", help="WordPiece vocabulary of the records")
    add("--spm_model_file", help="SentencePiece model, in place of a vocabulary")
    text = "how often the shared layer is applied, in place of the config's number"
    add("--num_hidden_layers", type=positive_int, help=text)
    text = "initialize heads that the checkpoint lacks with random values"
    parser.add_bool("--allow_missing", False, text)


def _add_record_arguments(parser):
    add, defaults = parser.add_argument, input_pipeline.DEFAULT_READING
    add("--input_file", required=True, help="TFRecord files or globs, comma-separated")
    add("--eval_input_file", help="TFRecords for --do_eval; default: --input_file")
    text = "tokens per record, as when the records were made"
    add("--max_seq_length", type=positive_int, default=512, help=text)
    text = "predictions per record, as when made; the limit for --masking=dynamic"
    add("--max_predictions_per_seq", type=positive_int, default=51, help=text)
    flags.add_mask_arguments(parser, "for records of --masking=dynamic only")
    number, text = defaults.shuffle_records, "records in the shuffle buffer"
    add("--shuffle_buffer_size", type=positive_int, default=number, help=text)
    number, text = defaults.num_threads, "files read in turn, batches parsed at once"
    add("--num_input_threads", type=positive_int, default=number, help=text)
    text = "--seed alone decides the order of records; off, threads wait less"
    parser.add_bool("--deterministic_input", defaults.deterministic, text)


def _add_training_arguments(parser):
    add = parser.add_argument
    parser.add_bool("--do_train", False, "train")
    parser.add_bool("--do_eval", False, "evaluate")
    text = "sets rate, batch, steps, warm-up, optimizer and more, unless given"
    add("--recipe", choices=tuple(recipes.RECIPES), help=text)
    add("--train_batch_size", type=positive_int, default=4096, help="of all devices")
    text = "sequences a device computes at a time, to fit its memory; default: all"
    add("--micro_batch_size", type=positive_int, help=text)
    text = "peak rate; scale it by sqrt(batch/4096) for LAMB"
    add("--learning_rate", type=positive_number, default=0.00176, help=text)
    add("--num_train_steps", type=positive_int, default=125000, help="steps in total")
    add("--num_warmup_steps", type=non_negative_int, default=12500, help="linear")
    add("--optimizer", choices=optimization.OPTIMIZERS, default="lamb")
    add("--lr_schedule", choices=optimization.SCHEDULES, default="linear", help="decay")
    choices, text = initial_weights.CHOICES, "local_attention: for small budgets"
    add("--initial_weights", choices=choices, default="random", help=text)
    text = "factor of the loss of sentence order; 0: train without it"
    factor = command_line.number_between(0, 1e6)
    add("--sop_weight", type=factor, default=1.0, help=text)
    flags.add_dropout_argument(parser)
    add("--save_checkpoints_steps", type=positive_int, default=1000, help="interval")
    add("--keep_checkpoint_max", type=positive_int, default=5, help="checkpoints kept")
    add("--eval_batch_size", type=positive_int, default=64, help="sequences per step")
    add("--max_eval_steps", type=positive_int, default=100, help="batches at most")
    add("--seed", type=non_negative_int, default=12345, help="of weights, input order")


def main(args):
    """Trains and evaluates as the flags say."""
    _check_flags(args)
    estimators.set_up_process()
    device = estimators.create_device(**flags.device_settings(args))
    distribution = distributions.create(
        args.distribution, args.use_tpu, args.worker_timeout, args.allow_open_ports
    )
    files = _choose_files(args)
    config = model_settings.load_config(
        files.config_file, args.max_seq_length, args.dropout, args.num_hidden_layers
    )
    model_directory.check_vocabulary_of(files, config)
    if args.do_train:
        recipes.warn_of_layers(args, config)
    train_records, eval_records = _find_records(args, config, files)
    given = flags.numerics_settings(args)
    kernels = numerics.choose(use_tpu=args.use_tpu, static_shapes=True, **given)
    runtime = estimators.Runtime(device, kernels, distribution)
    settings = args.output_dir, runtime, args.allow_missing, args.sop_weight
    model = pretraining.Pretraining(files, config, *settings)
    if args.do_eval:
        model.check_evaluation(eval_records, args.eval_batch_size)
    if args.do_train:
        micro_batch, save_every = args.micro_batch_size, args.save_checkpoints_steps
        saving = estimators.Saving(save_every, args.keep_checkpoint_max)
        how = _schedule(args), micro_batch, saving, args.seed, args.initial_weights
        model.train(train_records, pretraining.Training(*how, recipe=args.recipe))
    if args.do_eval and distribution.is_chief:
        distributions.leave_cluster()
        model.evaluate(eval_records, args.eval_batch_size, args.max_eval_steps)
    what = "Model" if args.do_train else "Results"
    console.show("{} saved to {}\n".format(what, args.output_dir))


def _check_flags(args):
    """Raises `UserError` for flags that are wrong whatever the files hold."""
    if not args.do_train and not args.do_eval:
        raise UserError("give --do_train=True, --do_eval=True or both")
    flags.check_read(args, _READERS)
    if args.master and args.distribution != "none":
        raise UserError(
            "--master cannot be combined with --distribution={}, which finds its own "
            "devices".format(args.distribution)
        )
    if args.do_train:
        recipes.apply(args)
        _schedule(args).check()


def _choose_files(args):
    """Returns the `ModelDirectory` of what the flags name or --model_dir holds."""
    files = model_directory.choose(
        args.model_dir,
        config_file=args.albert_config_file,
        checkpoint=args.init_checkpoint,
        # They are copied to --output_dir, and masks drawn here need them.
        vocab_file=args.vocab_file,
        spm_model_file=args.spm_model_file,
    )
    model_directory.require(files, "config_file")
    if args.model_dir:
        model_directory.require(files, "checkpoint")
    if files.checkpoint and args.initial_weights != "random":
        raise UserError("--initial_weights cannot be combined with a checkpoint")
    return files


def _find_records(args, config, files):
    """Returns the `RecordFiles` to train on and those to evaluate on."""
    settings = masking.MaskSettings(**flags.given_mask_settings(args))
    form = input_pipeline.Form(
        args.max_seq_length,
        args.max_predictions_per_seq,
        config.vocab_size,
        config.type_vocab_size,
    )
    reading = input_pipeline.Reading(
        args.shuffle_buffer_size, args.num_input_threads, args.deterministic_input
    )
    how = (form, settings, files.vocab_file, files.spm_model_file, reading)
    train_records = eval_records = record_files.find(args.input_file, *how)
    if args.eval_input_file:
        eval_records = record_files.find(args.eval_input_file, *how)
    if not (train_records.masks or eval_records.masks):
        flags.check_no_masks_given(args)
    return train_records, eval_records


def _schedule(args):
    rate, batch, decay = args.learning_rate, args.train_batch_size, args.lr_schedule
    steps = args.num_train_steps, args.num_warmup_steps
    return estimators.Schedule(args.optimizer, rate, *steps, batch, decay)


if __name__ == "__main__":
    command_line.run(main, build_parser())
