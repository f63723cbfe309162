"""Fine-tunes, evaluates and applies a classifier of sentence pairs or single texts.

Training keeps the checkpoint that scores best on the dev file in OUTPUT_DIR/best, a
complete model directory, which evaluation, prediction, `--text` and `--text_pair` use.
Without `--do_train`, `--model_dir` may name another fine-tuned model. Data files are
TSV, CSV or JSON lines: train, dev, test in `--data_dir`, or named one by one.
"""

from albert_zh import command_line  # isort: split

import optimization
from albert_zh import flags
from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.command_line import non_negative_int, positive_int, positive_number
from albert_zh.models import directory as model_directory
from albert_zh.models.settings import MIN_SEQ_LENGTH
from albert_zh.tasks import classification, metrics, model_files, reading, rows
from albert_zh.tasks.registry import TASKS, get_task
from albert_zh.tasks.splits import SPLITS, TaskData
from albert_zh.training import distribution as distributions
from albert_zh.training import estimator as estimators
from albert_zh.training import numerics

# What must be on for a flag to have an effect; see `flags.check_read`.
_READERS = {
    "do_train": (
        "train_file train_batch_size learning_rate num_train_epochs warmup_proportion "
        "optimizer dropout recompute save_checkpoints_steps allow_missing seed "
        "data_dir dev_file eval_batch_size ignore_labels"
    ).split(),
    "do_eval": "data_dir dev_file test_file eval_batch_size ignore_labels".split(),
    "do_predict": "data_dir test_file predict_file predict_batch_size".split(),
    "text": ("predict_batch_size",),
    "text_pair": ("predict_batch_size",),
    "use_tpu": flags.TPU_FLAGS,
}
for _mode in ("do_train", "do_eval", "do_predict"):
    _READERS[_mode] += [name + "_column" for name in rows.Columns._fields]
# Flags that are fields of `classification.Training`.
_TRAINING = "learning_rate warmup_proportion optimizer save_checkpoints_steps seed"


def build_parser():
    """Returns the command's parser, with flags named as in the published scripts."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    _add_task_arguments(parser)
    _add_data_arguments(parser)
    flags.add_model_arguments(parser)
    _add_training_arguments(parser)
    flags.add_device_arguments(parser)
    flags.add_numerics_arguments(parser)
    return parser


def _add_task_arguments(parser):
    add = parser.add_argument
    text = "one of {}; default: the fine-tuned model's"
    add("--task_name", help=text.format(", ".join(sorted(TASKS))))
    text = "checkpoints, best/; or a model's folder; not needed to judge --text with"
    add("--output_dir", help=text + " --model_dir")
    parser.add_bool("--do_train", False, "fine-tune, scoring dev after every epoch")
    parser.add_bool("--do_eval", False, "score the best checkpoint on dev and test")
    parser.add_bool("--do_predict", False, "write predictions.tsv for the test file")
    parser.add_texts("--text_pair", 2, "judge this pair")
    parser.add_texts("--text", 1, "judge this single text")


def _add_data_arguments(parser):
    add, names = parser.add_argument, command_line.names
    flags.add_task_file_arguments(parser)
    for column in rows.Columns._fields:
        text = "its name in the first row or JSON, or number; default: found"
        add("--{}_column".format(column), help=text)
    add("--labels", type=names, help="class names as a line of CSV; default: found")
    add("--ignore_labels", type=names, default=(), help="leave these rows out")


def _add_training_arguments(parser):
    add = parser.add_argument
    add("--train_batch_size", type=positive_int, default=32, help="of a step")
    add("--eval_batch_size", type=positive_int, default=64, help="of a step")
    add("--predict_batch_size", type=positive_int, default=64, help="of a step")
    add("--learning_rate", type=positive_number, default=5e-5, help="the peak")
    add("--num_train_epochs", type=positive_number, default=3.0, help="such as 2.5")
    add("--warmup_proportion", type=command_line.share, default=0.1, help="of steps")
    add("--optimizer", choices=optimization.OPTIMIZERS, default="adamw")
    flags.add_dropout_argument(parser)
    add("--save_checkpoints_steps", type=positive_int, default=1000, help="steps")
    add("--seed", type=non_negative_int, default=12345, help="of weights, input order")


def main(args):
    """Trains, evaluates and predicts as the flags say."""
    _check_flags(args)
    directories = args.model_dir, args.output_dir
    name = args.task_name or model_files.find_task_name(directories)
    task = get_task(name, args.labels)
    texts = reading.from_command_line(task, args.text, args.text_pair)
    estimators.set_up_process()
    device = estimators.create_device(**flags.device_settings(args))
    # Estimator would take this process for one of several workers.
    distributions.leave_cluster()
    named = {name: getattr(args, name + "_file") for name in SPLITS}
    columns = rows.Columns(args.text_a_column, args.text_b_column, args.label_column)
    data = TaskData(task, args.data_dir, named, args.ignore_labels, columns)
    if args.output_dir:
        classification.check_inputs(args.output_dir, data.paths())
    train_data = data.read_labelled("train", task.labels) if args.do_train else None
    files, init_checkpoint = _resolve_files(args, task, train_data)
    scored = data.read_for_scoring(files.labels) if args.do_eval else {}
    predicted = data.read_for_prediction(files.labels) if args.do_predict else None
    how = numerics.choose(use_tpu=args.use_tpu, **flags.numerics_settings(args))
    classifier = classification.Classifier(
        files,
        args.output_dir,
        estimators.Runtime(device, how),
        args.eval_batch_size,
        args.predict_batch_size,
        None if args.do_train else args.model_dir,
    )
    if args.do_train:
        dev_data = scored.get("dev") or data.read_dev(files.labels)
        classifier.train(train_data, dev_data, _training(args, init_checkpoint))
    if scored:
        for name, scores in classifier.write_scores(scored).items():
            console.show(metrics.format_report(name, scores))
    if predicted:
        path = classifier.write_predictions(predicted)
        console.show("Predictions saved to {}\n".format(path))
    if texts:
        _show_verdicts(classifier, texts)
    console.show("Model in {}\n".format(classifier.best_dir))


def _check_flags(args):
    """Raises `UserError` for flags that are wrong whatever the files hold."""
    modes = "do_train", "do_eval", "do_predict", "text_pair", "text"
    if not any(getattr(args, mode) for mode in modes):
        choices = ", ".join("--" + mode for mode in modes)
        raise UserError("nothing to do: give one or more of {}".format(choices))
    flags.check_read(args, _READERS)
    if not args.output_dir:
        if args.do_train or args.do_eval or args.do_predict or not args.model_dir:
            raise UserError(
                "--output_dir is missing; only texts judged with "
                "--model_dir need none"
            )
    length = args.max_seq_length
    if length is not None and length < MIN_SEQ_LENGTH:
        message = "--max_seq_length={}: expected at least {}"
        raise UserError(message.format(length, MIN_SEQ_LENGTH))


def _resolve_files(args, task, train_data):
    """Returns `ClassifierFiles`, and the checkpoint that training starts from."""
    chosen = model_directory.choose(
        args.model_dir if args.do_train else None,
        config_file=args.bert_config_file,
        vocab_file=args.vocab_file,
        spm_model_file=args.spm_model_file,
        checkpoint=args.init_checkpoint,
    )
    given = {
        name: getattr(args, name)
        for name in ("do_lower_case", "normalize_punctuation", "max_seq_length")
        if getattr(args, name) is not None
    }
    if args.do_train:
        files = model_files.for_training(chosen, task, train_data, given, args.dropout)
        return files, chosen.checkpoint
    directories = args.output_dir, args.model_dir
    has_results = args.do_eval or args.do_predict
    files = model_files.load_trained(*directories, task, chosen, given, has_results)
    return files, None


def _training(args, init_checkpoint):
    return classification.Training(
        batch_size=args.train_batch_size,
        num_epochs=args.num_train_epochs,
        init_checkpoint=init_checkpoint,
        allow_missing=args.allow_missing,
        **{name: getattr(args, name) for name in _TRAINING.split()},
    )


def _show_verdicts(classifier, texts):
    """Shows label and probability of each text given as a flag."""
    examples = iter(texts.examples)
    for probabilities in classifier.predict(texts):
        for row, example in zip(probabilities, examples):
            label = classifier.files.labels[row.argmax()]
            shown = "  |  ".join(filter(None, example))
            console.show("{}  {:.4f}  {}\n".format(label, row.max(), shown))


if __name__ == "__main__":
    command_line.run(main, build_parser())
