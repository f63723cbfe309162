"""The files of a task that a run needs: found, read and checked before any work."""

import logging
import os
import shlex
from typing import Any, Dict, NamedTuple, Optional

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks.registry import Task

# "predict" is a file that need not be labelled; by default the test file.
SPLITS = ("train", "dev", "test", "predict")

_LOGGER = logging.getLogger(__name__)


class TaskData(NamedTuple):
    """Where the data of a task is.

    Attributes:
      task: a `registry.Task`.
      data_dir: folder with files called train, dev and test, or None.
      named_files: dict of `SPLITS` -> path or None; a path wins over `data_dir`.
      reader: reads files of the task's form, such as a `reading.TableReader`.
      has_flags: whether the user's command has a flag for each split's file. Messages
        then name the flag.
    """

    task: Task
    data_dir: Optional[str]
    named_files: Dict[str, Optional[str]]
    reader: Any
    has_flags: bool = True

    def find(self, split):
        """Returns the path of a split's file, None where there is none.

        Of files that are read together, it has all paths, separated by commas.

        Raises:
          UserError: no such folder, several files for the split, or some of those
            that are read together.
        """
        named_file = self.named_files.get(split)
        # In a folder, the texts to predict are those of the test file.
        if named_file or not self.data_dir or split == "predict":
            return named_file
        self._check_folder()
        if self.task.split_files:
            return self._find_together(split)
        names = self.task.names_of(split)
        paths = [os.path.join(self.data_dir, name) for name in names]
        found = [path for path in paths if tf.io.gfile.exists(path)]
        if len(found) > 1:
            advice = "leave one of them there"
            if self.has_flags:
                advice = "name one with --{}_file".format(split)
            names = ", ".join(map(os.path.basename, found))
            raise UserError(
                "--data_dir={}: several {} files ({}); {}".format(
                    self.data_dir, split, names, advice
                )
            )
        return found[0] if found else None

    def _check_folder(self):
        if not tf.io.gfile.isdir(self.data_dir):
            raise UserError("--data_dir={}: no such folder".format(self.data_dir))

    def _find_together(self, split):
        """Returns the paths of the first of the task's alternatives that is there."""
        for names in self.task.split_files.get(split, ()):
            paths = [os.path.join(self.data_dir, name) for name in names]
            found = [path for path in paths if tf.io.gfile.exists(path)]
            if found == paths:
                return ",".join(paths)
            if found:
                missing = set(paths).difference(found)
                advice = "put it there"
                if self.has_flags:
                    advice = "to do without it, give --{}_file={}".format(
                        split, shlex.quote(",".join(found))
                    )
                names = ", ".join(sorted(map(os.path.basename, missing)))
                raise UserError(
                    "--data_dir={}: {} is missing; {}".format(
                        self.data_dir, names, advice
                    )
                )
        return None

    def paths(self, splits=SPLITS):
        """Returns the list of the files there are.

        Args:
          splits: those that a run reads; files of others do not concern it.

        Raises:
          UserError: as `find`.
        """
        if self.data_dir:  # also where all files are named, and it is not searched
            self._check_folder()
        found = [path for path in map(self.find, splits) if path]
        if self.task.split_files:
            found = [path for paths in found for path in files.split_inputs(paths)]
        return found

    def read_dev(self, labels):
        """Reads the dev file as `read_labelled` does; returns None without one."""
        return self.read_labelled("dev", labels) if self.find("dev") else None

    def read_labelled(self, split, labels):
        """Reads a split for training or scoring.

        Args:
          split: "train", "dev" or "test".
          labels: the labels allowed, None for any.

        Returns:
          A labelled `reading.ExampleFile`.

        Raises:
          UserError: no such file, a bad row, or no labels.
        """
        path = self._require(split)
        data = self.reader.read_examples(path, labels, is_training=split == "train")
        if not data.has_labels:
            raise self.reader.no_labels(path)
        return data

    def read_for_scoring(self, labels):
        """Reads what there is to score: dev, and test where it has labels.

        Public data sets often keep the labels of their test file to themselves.

        Returns:
          Dict "dev", "test" -> labelled `reading.ExampleFile`.

        Raises:
          UserError: neither is there, or a bad row.
        """
        splits = {}
        test_file = self.find("test")
        if self.find("dev") or not test_file:
            splits["dev"] = self.read_labelled("dev", labels)
        if test_file:
            test_data = self.reader.read_examples(
                test_file, labels, placeholders_allowed=True
            )
            if test_data.has_labels:
                splits["test"] = test_data
            else:
                _LOGGER.warning("%s has no labels: not scored", test_file)
        if not splits:
            raise UserError("{}: no labels to score against".format(test_file))
        return splits

    def read_for_prediction(self, labels=None):
        """Checks the texts to predict: the file named for it, or else test.

        Args:
          labels: the model's labels, None where they are not known.

        Returns:
          A `reading.TextFile`.

        Raises:
          UserError: no such file, or a bad row.
        """
        split = "predict" if self.named_files.get("predict") else "test"
        path = self._require(split)
        return self.reader.read_texts(path, labels)

    def find_submissions(self):
        """The files that a judge reads of this task, and where their test files are.

        Returns:
          Dict name of the file -> path of the test file; a file that a flag names is
          one of them only under the name of a judge's test file, so that predicting
          another replaces no submission.
        """
        named = self.named_files.get("predict") or self.named_files.get("test")
        if named:
            # Of several files read together, the predictions are of them all.
            paths = files.split_inputs(named) if self.task.split_files else [named]
            return {
                submission.file: named
                for submission in self.task.submissions
                if [submission.test_file] == list(map(os.path.basename, paths))
            }
        found = {}
        for submission in self.task.submissions:
            path = self.data_dir and os.path.join(self.data_dir, submission.test_file)
            # Of several versions of a test file, each has a submission of its own.
            if submission is self.task.submissions[0] and not self.task.split_files:
                path = self.find("test")
            if path and tf.io.gfile.exists(path):
                found[submission.file] = path
        return found

    def _require(self, split):
        path = self.find(split)
        if path is None:
            names = self.task.names_of(split)
            where = "give --{}_file or --data_dir".format(split)
            if self.data_dir:
                where = "--data_dir={} holds none of {}".format(
                    self.data_dir, ", ".join(names)
                )
            raise UserError("no {} file: {}".format(split, where))
        return path
