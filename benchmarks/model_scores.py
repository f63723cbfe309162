"""Commands that score a pretrained model: on held-out text, and on one task.

A command is a list of str, as `rows.Job` has it.
"""

import json

from albert_zh.models import directory as model_directory
from albert_zh.training.results import FILES
from benchmarks import task_files

# What the commands write last.
SCORES_FILE = FILES[0]

# Tokens of a sequence of held-out text.
LENGTH = 64
# Predictions of a held-out sequence: 15 % of its tokens.
_PREDICTIONS = 10
FINE_TUNING = {
    "--train_batch_size": 32,
    "--learning_rate": 1e-4,
    "--num_train_epochs": 3,
    "--max_seq_length": LENGTH,
}


def find_model(directory):
    """Returns the `ModelDirectory` of a pretrained model with all that it needs.

    Raises:
      UserError: there is no such directory, or it lacks a file.
    """
    found = model_directory.find(directory)
    needed = "config_file", "vocab_file", "checkpoint"
    model_directory.require(found, *needed, has_flags=False)
    return found


def tokenizer_flags(directory):
    """How a model directory treats texts, for commands that take its vocabulary alone.

    Args:
      directory: path of the model.

    Returns:
      Dict flag -> value, of what is not the commands' default.

    Raises:
      UserError: there is no such directory, or a file of it is damaged.
    """
    directory = model_directory.resolve(directory)
    flags = {}
    if model_directory.read_do_lower_case(directory) is False:
        flags["--do_lower_case"] = False
    if model_directory.read_normalize_punctuation(directory):
        flags["--normalize_punctuation"] = True
    return flags


def make_held_out(text_file, vocab_file, output_file, tokenizer=None):
    """The command that writes records of held-out text, masked once by whole words.

    Args:
      text_file, vocab_file, output_file: as the flags.
      tokenizer: dict as `tokenizer_flags` returns it, or None.
    """
    flags = {
        "--input_file": text_file,
        "--output_file": output_file,
        "--vocab_file": vocab_file,
        "--max_seq_length": LENGTH,
        "--max_predictions_per_seq": _PREDICTIONS,
        "--masked_lm_prob": 0.15,
        "--dupe_factor": 1,
        "--do_whole_word_mask": True,
        **(tokenizer or {}),
    }
    return line("create_pretraining_data.py", flags)


def score_held_out(records, output_dir, config_file, checkpoint):
    """The command that scores a checkpoint on records of `make_held_out`."""
    flags = {
        "--do_eval": True,
        "--input_file": records,
        "--output_dir": output_dir,
        "--albert_config_file": config_file,
        "--init_checkpoint": checkpoint,
        "--max_seq_length": LENGTH,
        "--max_predictions_per_seq": _PREDICTIONS,
        "--max_eval_steps": 10**6,
    }
    return line("run_pretraining.py", flags)


def fine_tune(task, data_dir, train_rows, copies_dir, flags):
    """The command that fine-tunes on a task and scores its dev file, and test if any.

    Args:
      task: name of the task.
      data_dir: `pathlib.Path` of the folder of its files.
      train_rows: rows of the training file at most; None for all.
      copies_dir: `pathlib.Path`, where a shortened training file goes.
      flags: dict of the other flags: model, seed, output, and what differs from
        `FINE_TUNING`.

    Raises:
      UserError: as `task_files.find`.
    """
    found = task_files.find(task, data_dir)
    own = {
        "--do_train": True,
        "--do_eval": True,
        "--task_name": task,
        "--train_file": task_files.first_rows(
            task, found["train"], train_rows, copies_dir
        ),
        "--dev_file": found["dev"],
        "--test_file": found.get("test"),
    }
    return line("run_classifier.py", {**own, **FINE_TUNING, **flags})


def read(path):
    """Returns the scores that either command left in its `SCORES_FILE`, a dict."""
    return json.loads(path.read_text())


def read_accuracies(path):
    """Returns the accuracies that `fine_tune` left there: dict dev, test -> float.

    Without "test" where the task has no labelled test file.
    """
    scores = read(path)
    splits = [split for split in ("dev", "test") if split in scores]
    return {split: scores[split]["accuracy"] for split in splits}


def line(script, flags):
    """A command of the repository; flags whose value is None are left out."""
    given = {name: value for name, value in flags.items() if value is not None}
    return [script] + ["{}={}".format(*item) for item in given.items()]
