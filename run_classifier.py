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


def build_parser():
    """The flags, under the names of the published scripts."""
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
