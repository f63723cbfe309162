"""The best model of a training: the dev scores of its epochs, and the folder `best/`.

A run may be killed between any two writes. The scores on disk decide which epoch is the
best; what is in `best/` follows them when the run resumes.
"""

import logging
import os

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.tasks import metrics, model_files
from albert_zh.training import results

_LOGGER = logging.getLogger(__name__)

# Dev scores after every epoch: what "best" is chosen from, also after a restart.
EPOCH_SCORES_FILE = "dev_scores.json"
_ADVICE = (
    "train into another --output_dir, or remove it: best/ is then chosen among the "
    "epochs scored from now on"
)


class BestModel:
    """The model of the best epoch, in a model directory of its own.

    Attributes:
      directory: where it is.
      history: list of dict, the `metrics.summary` of the dev scores of each epoch, its
        "step" and its "epoch", from 1 on.
    """

    def __init__(self, output_dir, directory, kind, task_files):
        """Reads and writes nothing.

        Args:
          output_dir: of the training; None where there is none.
          directory: the model directory.
          kind: `kind.Kind`, whose decision is that of the model read last.
          task_files: `model_files.TaskFiles`.
        """
        self.directory = directory
        self.history = []
        self._output_dir = output_dir
        self._kind = kind
        self._files = task_files

    def read_history(self, step):
        """Reads the scores of the epochs of a training that goes on from `step`.

        Later ones are of an epoch that is trained again. Where the model of one is in
        use, it stays a candidate: what it was better than need not be there any more.
        From step 0 on, they are a deleted training's.

        Raises:
          UserError: they are damaged.
        """
        path = os.path.join(self._output_dir, EPOCH_SCORES_FILE)
        self.history = []
        if step and files.exists(path):
            in_use = checkpoints.named_step(self.directory)
            self.history = [
                metrics.summary(entry)
                for entry in read_scores(path, self._kind.ranked_by)
                if entry["step"] <= step or entry["step"] == in_use
            ]

    def has_epoch(self, step):
        """Whether an epoch that ended with `step` is scored."""
        return any(entry["step"] == step for entry in self.history)

    def has_stalled(self, step, num_epochs):
        """Whether a training at `step` had no new best among its last `num_epochs`."""
        if num_epochs is None or not self.history or self.history[-1]["step"] != step:
            return False
        return epochs_since_best(map(self._kind.rank, self.history)) >= num_epochs

    def saved_step(self):
        """The step of the model that is there; None where none is, or not whole."""
        try:
            best = checkpoints.latest_checkpoint(self.directory)
            return best and checkpoints.resume_step(best, self.directory)
        except UserError:
            return None

    def find_checkpoint(self):
        """Returns its checkpoint's path prefix; the kind decides as it did with that.

        Raises:
          UserError: there is none.
        """
        checkpoint = None
        if files.is_directory(self.directory):
            checkpoint = model_directory.find_checkpoint(self.directory)
        if checkpoint is None:
            raise UserError(
                "--output_dir={} holds no fine-tuned model; run with --do_train "
                "first".format(self._output_dir)
            )
        self._kind.decision = model_directory.read_decision(self.directory)
        return checkpoint

    def find_removed(self):
        """Finds the model of the best epoch where somebody has removed it from `best/`.

        Returns:
          Its checkpoint's path prefix in the directory of the training; None where
          nothing is missing.

        Raises:
          UserError: it is not there, either.
        """
        if not self.history:
            return None
        name = _checkpoint_name(self._best_step())
        if files.exists(os.path.join(self.directory, name + ".index")):
            return None
        checkpoint = os.path.join(self._output_dir, name)
        if not files.exists(checkpoint + ".index"):
            raise UserError(
                "--output_dir={0}: {1} of the best epoch is no longer in {2}; copy it "
                "back, remove {0} to train anew, or choose another --output_dir".format(
                    self._output_dir, name, self.directory
                )
            )
        _LOGGER.warning("%s: %s was removed; written again", self.directory, name)
        return checkpoint

    def add_epoch(self, epoch, step, scores, checkpoint):
        """Notes the dev scores of an epoch; takes its model where that is the best.

        Args:
          epoch: int, from 0 on.
          step: int, that it ended with.
          scores: dict of `kind.Kind.score`.
          checkpoint: path prefix of its model.

        Returns:
          Whether it is the best so far.

        Raises:
          UserError: a score is NaN.
        """
        rank = self._kind.rank(scores)
        is_best = all(rank > self._kind.rank(entry) for entry in self.history)
        _LOGGER.info(
            "epoch %d, step %d: dev %s%s",
            epoch + 1,
            step,
            self._kind.headline(scores),
            ", the best so far" if is_best else "",
        )
        results.check_finite({"dev": scores})
        if is_best:
            self.add(checkpoint)
        # This decides which epoch is the best: a run killed before it scores this one
        # again, a run killed after it settles what is in best/ when it is resumed.
        self.history.append(dict(metrics.summary(scores), step=step, epoch=epoch + 1))
        json_files.write(
            self.history, os.path.join(self._output_dir, EPOCH_SCORES_FILE)
        )
        if is_best:
            self.settle(lambda: scores)
        return is_best

    def add(self, checkpoint):
        """Writes a model beside that in use; returns its path prefix.

        Args:
          checkpoint: path prefix; the kind decides as it is to do with that.
        """
        model_files.save(self.directory, self._files)
        step = checkpoints.read_step(checkpoint, "--output_dir")
        model_directory.replace_decision(self._kind.decision, step, self.directory)
        prefix = os.path.join(self.directory, "model.ckpt")
        return checkpoints.write_stripped(checkpoint, prefix)

    def settle(self, score):
        """Makes the folder a complete model directory of the best epoch alone.

        Args:
          score: function that returns the dict of `kind.Kind.score` of the best epoch;
            called where the folder does not have it.
        """
        if not self.history:
            return
        step = self._best_step()
        checkpoints.name_only(os.path.join(self.directory, _checkpoint_name(step)))
        model_directory.settle_decision(self.directory)
        if results.read_step(self.directory) != step:
            results.write_results(self.directory, {"dev": score(), "step": step})

    def _best_step(self):
        """The step that the best of the scored epochs ended with."""
        return max(self.history, key=self._kind.rank)["step"]  # of equals, the first


def read_scores(path, ranked_by):
    """Reads an `EPOCH_SCORES_FILE`.

    Args:
      path: of the file.
      ranked_by: tuple of str, the scores that `kind.Kind.rank` compares.

    Returns:
      List of dict. Of its fields, "step" and those scores are checked; the others are
      for people.

    Raises:
      UserError: it is damaged.
    """
    # Shares of what is right, and correlations; a loss has no bounds.
    share = {"type": "number", "minimum": -1, "maximum": 1}
    properties = {"step": {"type": "integer", "minimum": 0}}
    for name in ranked_by:
        properties[name] = {"type": "number"} if name == "loss" else share
    required = sorted(properties)
    items = {"type": "object", "properties": properties, "required": required}
    return json_files.read(path, {"type": "array", "items": items}, _ADVICE)


def epochs_since_best(ranks):
    """The number of epochs after the first best one, from the ranks of all epochs."""
    ranks = list(ranks)
    return len(ranks) - 1 - ranks.index(max(ranks))


def _checkpoint_name(step):
    """The name of a checkpoint, in the directory of the training and in `best/`."""
    return "model.ckpt-{}".format(step)
