"""Fine-tunes, evaluates and applies a classifier of sentence pairs or single texts.

Training keeps the checkpoint that scores best on the dev file in OUTPUT_DIR/best, a
complete model directory; evaluation, prediction and the texts given by `--text` or
`--text_pair` use it. Without `--do_train`, config, vocabulary and labels come from
there. Data files are TSV (.tsv, .txt), CSV or JSON lines, found in `--data_dir` as
train, dev and test, or named one by one.
"""

from albert_zh import command_line  # isort: split

import logging
import os
import sys

import tensorflow.compat.v1 as tf

import optimization
from albert_zh import checkpoints, classification, estimators, records
from albert_zh.errors import UserError
from albert_zh.tasks import TASKS, find_data_file, get_task, metrics, reading
from albert_zh.tasks.model_files import ClassifierFiles, check_same_model, load

_LOGGER = logging.getLogger(__name__)


def _names(text):
    return tuple(name.strip() for name in text.split(","))


def build_parser():
    """Returns the command's flags, named as in the published scripts."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--task_name", required=True, help="one of " + ", ".join(sorted(TASKS)))
    add("--output_dir", required=True, help="checkpoints, results and best/")
    parser.add_bool("--do_train", False, "fine-tune, scoring dev after every epoch")
    parser.add_bool("--do_eval", False, "score the best checkpoint on dev and test")
    parser.add_bool("--do_predict", False, "write predictions.tsv for the test file")
    add("--text_pair", nargs=2, action="append", default=[], help="judge this pair")
    add("--text", action="append", default=[], help="judge this single text")

    add("--data_dir", help="folder of the files train, dev and test")
    for split in ("train", "dev", "test"):
        add("--{}_file".format(split), help="instead of the one in --data_dir")
    add("--predict_file", help="file to predict, labelled or not; default: test")
    add("--labels", type=_names, help="class names, comma-separated; default: found")
    add("--ignore_labels", type=_names, default=(), help="leave these rows out")

    for name in ("--bert_config_file", "--albert_config_file"):
        add(name, dest="config_file", help="model sizes; needed to train")
    add("--vocab_file", help="WordPiece vocabulary; needed to train")
    add("--spm_model_file", help="SentencePiece model instead of --vocab_file")
    parser.add_bool("--do_lower_case", None, "lower-case the text; True when training")
    parser.add_bool("--normalize_punctuation", None, "map marks the vocabulary lacks")
    add("--max_seq_length", type=command_line.positive_int, help="128 when training")
    add("--init_checkpoint", help="pretrained checkpoint to start from")

    add("--train_batch_size", type=command_line.positive_int, default=32)
    add("--eval_batch_size", type=command_line.positive_int, default=64)
    add("--predict_batch_size", type=command_line.positive_int, default=64)
    add("--learning_rate", type=float, default=5e-5, help="peak of the schedule")
    add("--num_train_epochs", type=float, default=3.0, help="may be fractional")
    add("--warmup_proportion", type=float, default=0.1, help="share of the steps")
    add("--optimizer", choices=optimization.OPTIMIZERS, default="adamw")
    add("--save_checkpoints_steps", type=command_line.positive_int, default=1000)
    add("--seed", type=command_line.non_negative_int, default=12345)
    command_line.add_device_arguments(parser)
    return parser


def main(args):
    """Trains, evaluates and predicts as the flags say."""
    task = get_task(args.task_name)
    _check_flags(args, task)
    device = estimators.device_from(args)
    if args.do_train:
        train_data = _read_split(args, task, "train", task.labels or args.labels)
        files = _files_to_train(args, task, train_data)
    else:
        files = _files_of_model(args, task)
    tokenizer = _build_tokenizer(args, files)
    dev_data, test_data = _evaluation_data(args, task, files.labels)
    predict_data = _predict_data(args, task)
    classifier = classification.Classifier(
        files,
        tokenizer,
        args.output_dir,
        device,
        args.seed,
        args.eval_batch_size,
        args.predict_batch_size,
    )
    if args.do_train:
        classifier.train(train_data, dev_data, _training(args))
    if args.do_eval:
        _evaluate(args, classifier, dev=dev_data, test=test_data)
    if args.do_predict:
        _predict(args, classifier, predict_data)
    if args.text or args.text_pair:
        _judge_texts(args, classifier)
    sys.stdout.write("The model lies in {}\n".format(classifier.best_dir))


def _check_flags(args, task):
    """Raises `UserError` for flags that are wrong whatever the files hold."""
    texts = args.text or args.text_pair
    if not (args.do_train or args.do_eval or args.do_predict or texts):
        raise UserError(
            "nothing to do: give --do_train, --do_eval, --do_predict, --text_pair "
            "or --text"
        )
    if args.text if "text_b" in task.columns else args.text_pair:
        right = "--text_pair A B" if args.text else "--text A"
        raise UserError("--task_name={} takes {}".format(args.task_name, right))
    if args.labels and task.labels:
        raise UserError(
            "--labels: the labels of {} are {}; for others take --task_name=pair or "
            "single".format(args.task_name, ",".join(task.labels))
        )
    if args.labels and len(set(args.labels)) < max(2, len(args.labels)):
        raise UserError(
            "--labels={}: expected two or more different names".format(
                ",".join(args.labels)
            )
        )
    for name, is_right, expected in (
        ("learning_rate", args.learning_rate > 0, "more than 0"),
        ("num_train_epochs", args.num_train_epochs > 0, "more than 0"),
        ("warmup_proportion", 0 <= args.warmup_proportion < 1, "0 to below 1"),
        ("max_seq_length", (args.max_seq_length or 5) >= 5, "at least 5"),
    ):
        if not is_right:
            raise UserError(
                "--{}={}: expected {}".format(name, getattr(args, name), expected)
            )
    for name in ("config_file", "vocab_file", "spm_model_file"):
        path = getattr(args, name)
        if path and not tf.io.gfile.exists(path):
            flag = name.replace("config", "bert_config")
            raise UserError("--{}={}: no such file".format(flag, path))
    if args.init_checkpoint and args.do_train:
        checkpoints.read_shapes(args.init_checkpoint)
    elif args.init_checkpoint:
        _LOGGER.info("--init_checkpoint is for --do_train; the model is best/")


def _split_file(args, task, split):
    """Path of a split's file, None where there is none."""
    named = getattr(args, split + "_file")
    if named or not args.data_dir:
        return named
    return find_data_file(task, args.data_dir, split)


def _missing_file(args, task, split):
    return UserError(
        "no {0} file: give --{0}_file or a --data_dir with {1} (received "
        "--data_dir={2})".format(
            split, " or ".join(split + ext for ext in task.extensions), args.data_dir
        )
    )


def _read_split(args, task, split, labels):
    path = _split_file(args, task, split)
    if path is None:
        raise _missing_file(args, task, split)
    data = reading.read_examples(path, task, labels, args.ignore_labels)
    if not data.has_labels:
        raise UserError(
            "{}:1: no label; expected the columns {} or a header row that names "
            "them".format(path, ", ".join(task.columns))
        )
    return data


def _evaluation_data(args, task, labels):
    """The dev and the test data that this run needs, None for what it does not."""
    dev_data = test_data = None
    dev_file, test_file = (_split_file(args, task, name) for name in ("dev", "test"))
    if args.do_eval and not dev_file and (args.do_train or not test_file):
        raise _missing_file(args, task, "dev")
    if dev_file and (args.do_train or args.do_eval):
        dev_data = _read_split(args, task, "dev", labels)
    elif args.do_train:
        _LOGGER.warning("no dev file: the last checkpoint is kept as the best")
    if test_file and args.do_eval:
        test_data = reading.read_examples(test_file, task, labels, args.ignore_labels)
        if not test_data.has_labels:
            _LOGGER.warning("%s has no labels and is not scored", test_file)
            test_data = None
    return dev_data, test_data


def _predict_data(args, task):
    if not args.do_predict:
        return None
    path = args.predict_file or _split_file(args, task, "test")
    if path is None:
        raise _missing_file(args, task, "predict")
    return reading.read_texts(path, task)


def _files_to_train(args, task, train_data):
    if not args.config_file or not (args.vocab_file or args.spm_model_file):
        raise UserError("--do_train needs --bert_config_file and --vocab_file")
    max_seq_length = args.max_seq_length or 128
    return ClassifierFiles(
        config=estimators.load_config(args.config_file, max_seq_length),
        task=task,
        labels=task.labels or args.labels or reading.find_labels(train_data),
        vocab_file=None if args.spm_model_file else args.vocab_file,
        spm_model_file=args.spm_model_file,
        do_lower_case=args.do_lower_case is not False,
        normalize_punctuation=bool(args.normalize_punctuation),
        max_seq_length=max_seq_length,
    )
