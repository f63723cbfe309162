"""Several trainings that differ in the seed alone: their scores, the best of them."""

import os
import re
import statistics
from typing import Any, Dict, NamedTuple

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.tasks import model_files
from albert_zh.training import results

# Scores of the trials, in the directory above theirs.
TRIALS_FILE = "trials.json"

_ADVICE = "remove it, and run the same command again"
_TRIAL = re.compile(r"seed_\d+")
_SCORES = {"type": "object", "additionalProperties": {"type": "number"}}
_SCHEMA = {
    "type": "object",
    "required": ["metric", "best_seed", "splits"],
    "properties": {
        "metric": {"type": "string"},
        "best_seed": {"type": "integer"},
        "splits": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["by_seed", "mean", "standard_deviation"],
                "properties": {
                    "by_seed": _SCORES,
                    "mean": {"type": "number"},
                    "standard_deviation": {"type": ["number", "null"]},
                },
            },
        },
    },
}


class Trial(NamedTuple):
    """A training of one seed.

    Attributes:
      seed: int.
      directory: its output directory.
      rank: what `kind.Kind.rank` makes of its best epoch's dev scores.
      scores: dict split -> its score by the task's metric.
    """

    seed: int
    directory: str
    rank: Any
    scores: Dict[str, float]


def directory_of(output_dir, seed):
    """Returns the output directory of a trial."""
    return os.path.join(output_dir, "seed_{}".format(seed))


def check_directory(output_dir):
    """Raises `UserError` where a directory holds a training, or a model, of its own."""
    training = os.path.join(output_dir, model_files.TRAINING_FILE)
    best_dir = os.path.join(output_dir, model_directory.BEST_DIRECTORY)
    # The file may have been removed, as `read` advises.
    is_of_trials = files.exists(os.path.join(output_dir, TRIALS_FILE)) or _holds_trials(
        output_dir
    )
    if files.exists(training) or (files.exists(best_dir) and not is_of_trials):
        raise UserError(
            "--num_trials: --output_dir={} holds a training that is no trial; choose "
            "another --output_dir".format(output_dir)
        )
    latest = checkpoints.latest_checkpoint(output_dir)
    if latest is not None:
        raise UserError(
            "--num_trials: --output_dir={} holds a model of its own, {}; choose "
            "another --output_dir".format(output_dir, latest)
        )


def directories(output_dir):
    """Returns the list of the directories of the trials in an output directory."""
    if not files.is_directory(output_dir):
        return []
    names = filter(_TRIAL.fullmatch, files.list_directory(output_dir))
    return [os.path.join(output_dir, name) for name in names]


def _holds_trials(output_dir):
    """Whether a directory holds a trial's."""
    return any(
        files.exists(os.path.join(directory, model_files.TRAINING_FILE))
        for directory in directories(output_dir)
    )


def read_dev_scores(directory):
    """The dev scores of a trial's best epoch, a dict.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = os.path.join(directory, model_directory.BEST_DIRECTORY, results.FILES[0])
    schema = {"type": "object", "required": ["dev"]}
    advice = "remove {}, and run the same command again".format(directory)
    if not files.exists(path):  # a training that is complete writes it no more
        raise UserError("{}: no such file; {}".format(path, advice))
    return json_files.read(path, schema, advice)["dev"]


def summarize(metric, found):
    """Mean and standard deviation of trials.

    Args:
      metric: name of the score.
      found: list of `Trial`, at least one.

    Returns:
      Dict ready for JSON; the standard deviation is that of a sample, null for one
      trial. `best_seed` is the seed of the best dev scores, the first of several.
    """
    splits = {}
    for split in found[0].scores:
        values = [trial.scores[split] for trial in found]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        splits[split] = {
            "by_seed": {str(trial.seed): trial.scores[split] for trial in found},
            "mean": statistics.mean(values),
            "standard_deviation": deviation,
        }
    best = max(found, key=lambda trial: trial.rank)
    return {"metric": metric, "best_seed": best.seed, "splits": splits}


def save(output_dir, metric, found):
    """Writes the summary of trials, and keeps the best one's model as `best/`.

    Args:
      output_dir: the directory above those of the trials.
      metric, found: as `summarize` takes them.

    Returns:
      What `summarize` returns.

    Raises:
      UserError: a file cannot be written.
    """
    summary = summarize(metric, found)
    best = directory_of(output_dir, summary["best_seed"])
    source = os.path.join(best, model_directory.BEST_DIRECTORY)
    target = os.path.join(output_dir, model_directory.BEST_DIRECTORY)
    # No directory is taken for a model without its labels.json: removed first and
    # written last, so that a kill leaves no mixture, and no other seed's model.
    files.remove(os.path.join(target, model_directory.LABELS_FILE))
    files.remove_directory(target)
    json_files.write(summary, os.path.join(output_dir, TRIALS_FILE))
    files.make_directory(target)
    names = sorted(files.list_directory(source))
    names.sort(key=lambda name: name == model_directory.LABELS_FILE)
    for name in names:
        files.copy(os.path.join(source, name), os.path.join(target, name))
    return summary


def read(output_dir):
    """Returns what `save` wrote, None where there is nothing.

    Raises:
      UserError: the file is damaged.
    """
    path = os.path.join(output_dir, TRIALS_FILE)
    return json_files.read(path, _SCHEMA, _ADVICE) if files.exists(path) else None


def format_summary(summary):
    """The scores of trials as lines of text."""
    lines = []
    for split, values in summary["splits"].items():
        deviation = values["standard_deviation"]
        lines.append(
            "{}: {} {:.4f}{} of {} trials ({}); seed {} is kept as best/\n".format(
                split,
                summary["metric"],
                values["mean"],
                "" if deviation is None else " ± {:.4f}".format(deviation),
                len(values["by_seed"]),
                ", ".join(
                    "seed {}: {:.4f}".format(seed, score)
                    for seed, score in values["by_seed"].items()
                ),
                summary["best_seed"],
            )
        )
    return "".join(lines)
