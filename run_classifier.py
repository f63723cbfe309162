"""Fine-tunes, evaluates and applies a classifier of sentence pairs or single texts.

Training keeps the checkpoint that scores best on the dev file in OUTPUT_DIR/best, a
complete model directory; evaluation, prediction and the texts given by `--text` or
`--text_pair` use it. Without `--do_train`, config, vocabulary and labels come from
there, or from the fine-tuned model in `--model_dir`. Data files are TSV (.tsv,
.txt), CSV or JSON lines, found in `--data_dir` as train, dev and test, or named one by
one.
"""

from albert_zh import command_line  # isort: split

import logging

import optimization
from albert_zh import flags
from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.tasks import (
    TASKS,
    classification,
    get_task,
    metrics,
    model_files,
    reading,
)
from albert_zh.tasks.model_files import ClassifierFiles
from albert_zh.tasks.splits import TaskData
from albert_zh.training import distribution, numerics
from albert_zh.training import estimator as estimators

_LOGGER = logging.getLogger(__name__)

_TRAINING = (
    "train_file",
    "train_batch_size",
    "learning_rate",
    "num_train_epochs",
    "warmup_proportion",
    "optimizer",
    "dropout",
    "save_checkpoints_steps",
    "allow_missing",
    "seed",
)
_SCORING = ("dev_file", "eval_batch_size", "ignore_labels")
_READERS = {
    "do_train": _TRAINING + _SCORING + ("data_dir",),
    "do_eval": _SCORING + ("data_dir", "test_file"),
    "do_predict": ("data_dir", "test_file", "predict_file", "predict_batch_size"),
    "text": ("predict_batch_size",),
    "text_pair": ("predict_batch_size",),
    "use_tpu": flags.TPU_FLAGS,
}


def build_parser():
    """Returns the command's flags, named as in the published scripts."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--task_name", required=True, help="one of " + ", ".join(sorted(TASKS)))
    add("--output_dir", required=True, help="checkpoints, best/; or a model's folder")
    parser.add_bool("--do_train", False, "fine-tune, scoring dev after every epoch")
    parser.add_bool("--do_eval", False, "score the best checkpoint on dev and test")
    parser.add_bool("--do_predict", False, "write predictions.tsv for the test file")
    add("--text_pair", nargs=2, action="append", default=[], help="judge this pair")
    add("--text", action="append", default=[], help="judge this single text")

    add("--data_dir", help="folder of the files train, dev and test")
    for split in ("train", "dev", "test"):
        add("--{}_file".format(split), help="instead of the one in --data_dir")
    add("--predict_file", help="file to predict, labelled or not; default: test")
    add(
        "--labels",
        type=command_line.names,
        help="class names, comma-separated; default: found",
    )
    add(
        "--ignore_labels",
        type=command_line.names,
        default=(),
        help="leave these rows out",
    )

    add(
        "--model_dir",
        help="folder of a model: to train, the one to start from (config, vocabulary, "
        "checkpoint); else the fine-tuned one to use in place of --output_dir's",
    )
    add("--bert_config_file", "--albert_config_file", help="sizes; needed to train")
    add("--vocab_file", help="WordPiece vocabulary; needed to train")
    add("--spm_model_file", help="SentencePiece model instead of --vocab_file")
    parser.add_bool(
        "--do_lower_case",
        None,
        "lower-case the text; default: as the model's folder says, else True",
    )
    parser.add_bool("--normalize_punctuation", None, "map marks the vocabulary lacks")
    add("--max_seq_length", type=command_line.positive_int, help="128 when training")
    add("--init_checkpoint", help="pretrained checkpoint to start from")
    parser.add_bool("--allow_missing", False, "start a pooler that it lacks anew")

    add("--train_batch_size", type=command_line.positive_int, default=32)
    add("--eval_batch_size", type=command_line.positive_int, default=64)
    add("--predict_batch_size", type=command_line.positive_int, default=64)
    add(
        "--learning_rate",
        type=command_line.positive_number,
        default=5e-5,
        help="peak of the schedule",
    )
    add(
        "--num_train_epochs",
        type=command_line.positive_number,
        default=3.0,
        help="may be fractional",
    )
    add(
        "--warmup_proportion",
        type=command_line.share,
        default=0.1,
        help="share of the steps",
    )
    add("--optimizer", choices=optimization.OPTIMIZERS, default="adamw")
    flags.add_dropout_argument(parser)
    add("--save_checkpoints_steps", type=command_line.positive_int, default=1000)
    add("--seed", type=command_line.non_negative_int, default=12345)
    flags.add_device_arguments(parser)
    flags.add_numerics_arguments(parser)
    return parser


def main(args):
    """Trains, evaluates and predicts as the flags say."""
    task = get_task(args.task_name, args.labels)
    _check_flags(args, task)
    device = estimators.device_from(args)
    # Estimator would take this process for one of several workers.
    distribution.leave_cluster()
    splits = ("train", "dev", "test", "predict")
    named_files = {name: getattr(args, name + "_file") for name in splits}
    data = TaskData(task, args.data_dir, named_files, args.ignore_labels)
    train_data = data.read_labelled("train", task.labels) if args.do_train else None
    files, init_checkpoint = _classifier_files(args, task, train_data)
    scored = data.read_for_scoring(files.labels) if args.do_eval else {}
    dev_data = scored.get("dev")
    if args.do_train and not dev_data and data.find("dev"):
        dev_data = data.read_labelled("dev", files.labels)
    predict_data = data.read_for_prediction() if args.do_predict else None
    classifier = classification.Classifier(
        files,
        args.output_dir,
        device,
        args.seed,
        args.eval_batch_size,
        args.predict_batch_size,
        numerics.choose(args.precision, args.xla, device.use_tpu),
        None if args.do_train else args.model_dir,
    )
    if args.do_train:
        classifier.train(train_data, dev_data, _training(args, init_checkpoint))
    if scored:
        for name, scores in classifier.write_scores(scored).items():
            console.show(metrics.format_report(name, scores))
    if predict_data:
        path = classifier.write_predictions(predict_data)
        console.show("The predictions lie in {}\n".format(path))
    if args.text or args.text_pair:
        _judge_texts(args, classifier)
    console.show("The model lies in {}\n".format(classifier.best_dir))


def _check_flags(args, task):
    """Raises `UserError` for flags that are wrong whatever the files hold."""
    texts = args.text or args.text_pair
    if not (args.do_train or args.do_eval or args.do_predict or texts):
        raise UserError(
            "nothing to do: give --do_train, --do_eval, --do_predict, --text_pair "
            "or --text"
        )
    if args.text if task.is_pair else args.text_pair:
        right = "--text_pair A B" if task.is_pair else "--text A"
        raise UserError("--task_name={} takes {}".format(args.task_name, right))
    for text in args.text + sum(args.text_pair, []):
        if not text.strip():
            flag = "--text_pair" if task.is_pair else "--text"
            raise UserError("{}: a text is empty; give one to judge".format(flag))
    flags.check_read(args, _READERS)
    if args.max_seq_length is not None and args.max_seq_length < 5:
        raise UserError(
            "--max_seq_length={}: expected at least 5".format(args.max_seq_length)
        )


def _classifier_files(args, task, train_data):
    """What the flags say of the model, and the checkpoint that training starts from.

    Returns:
      `ClassifierFiles`, and a path prefix or None.
    """
    chosen = model_directory.choose(
        args.model_dir if args.do_train else None,
        config_file=args.bert_config_file,
        vocab_file=args.vocab_file,
        spm_model_file=args.spm_model_file,
        checkpoint=args.init_checkpoint,
    )
    if chosen.spm_model_file:
        # The published commands name a vocabulary beside a SentencePiece model.
        chosen = chosen._replace(vocab_file=None)
    if not args.do_train:
        return _trained_files(args, task, chosen), None
    model_directory.require(chosen, "config_file", "vocab_file")
    if args.model_dir:
        model_directory.require(chosen, "checkpoint")
    max_seq_length = args.max_seq_length or 128
    # A model fine-tuned before goes on with its tokenizer's settings.
    before = model_files.load(chosen.directory) if args.model_dir else None
    files = ClassifierFiles(
        config=model_settings.load_config(
            chosen.config_file, max_seq_length, args.dropout
        ),
        task=task,
        labels=task.labels or reading.find_labels(train_data),
        vocab_file=chosen.vocab_file,
        spm_model_file=chosen.spm_model_file,
        do_lower_case=model_directory.choose_do_lower_case(
            args.do_lower_case, chosen.directory
        ),
        normalize_punctuation=_first_given(
            args.normalize_punctuation, before and before.normalize_punctuation, False
        ),
        max_seq_length=max_seq_length,
    )
    return files, chosen.checkpoint


def _first_given(*values):
    return next(value for value in values if value is not None)


def _trained_files(args, task, chosen):
    """The `ClassifierFiles` of the fine-tuned model."""
    if chosen.checkpoint:
        _LOGGER.info("without --do_train --init_checkpoint is not read")
    given = {
        "labels": task.labels,
        "vocab_file": chosen.vocab_file,
        "spm_model_file": chosen.spm_model_file,
        "do_lower_case": args.do_lower_case,
        "normalize_punctuation": args.normalize_punctuation,
        "max_seq_length": args.max_seq_length,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return model_files.load_trained(
        args.output_dir, args.model_dir, task, given, chosen.config_file
    )


def _training(args, init_checkpoint):
    return classification.Training(
        batch_size=args.train_batch_size,
        learning_rate=args.learning_rate,
        num_epochs=args.num_train_epochs,
        warmup_proportion=args.warmup_proportion,
        optimizer=args.optimizer,
        init_checkpoint=init_checkpoint,
        save_checkpoints_steps=args.save_checkpoints_steps,
        allow_missing=args.allow_missing,
    )


def _judge_texts(args, classifier):
    """Shows label and probability of the texts given as flags."""
    texts = args.text_pair or [(text, None) for text in args.text]
    examples = [reading.Example(text_a, text_b, None) for text_a, text_b in texts]
    data = reading.ExampleFile("the command line", examples, False, 0)
    probabilities = classifier.predict("texts", data)
    for example, row in zip(examples, probabilities):
        label = classifier.files.labels[row.argmax()]
        shown = "  |  ".join(filter(None, example))
        console.show("{}  {:.4f}  {}\n".format(label, row.max(), shown))


if __name__ == "__main__":
    command_line.run(main, build_parser())
