"""Distillation: a student learns from the outputs of a teacher (arXiv:1503.02531).

The teacher is a fine-tuned model. Its logits for the training data are computed once
and kept in a file; the records of the student hold them, and `objective` mixes the two
losses. Where a kind has outputs for each token, both models need the same tokens;
otherwise each has its own vocabulary, length and architecture.
"""

import hashlib
import io
import json
import logging
import os
import shlex
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from albert_zh.base import files, name_lists
from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.tasks import fine_tuning, model_files, training_settings
from albert_zh.tasks.kinds import kind_of
from albert_zh.tasks.registry import get_task

_LOGGER = logging.getLogger(__name__)

FLAG = "--teacher_model_dir"
# In the --output_dir, for all seeds. Whoever deletes it has it computed again.
LOGITS_FILE = "teacher_logits.npz"
# What NumPy raises where such a file cannot be read; EOFError where it is empty.
_DAMAGED = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


class Teacher(NamedTuple):
    """A model whose outputs a student learns from.

    Attributes:
      student: `model_files.TaskFiles` of the student.
      identity: str, different for teachers of other outputs.
      path: of the file of its logits.
      compute: function of a labelled `reading.ExampleFile`; it yields for each example
        the list, for each window, of a dict name of a field -> float32 array [n].
    """

    student: model_files.TaskFiles
    identity: str
    path: str
    compute: Any

    def add_logits(self, windows, data):
        """Adds the teacher's logits to the targets of the student's training data.

        Args:
          windows: list of lists of `features.Features`, for each example.
          data: labelled `reading.ExampleFile` of these examples.

        Returns:
          Such a list whose windows have the `kind.Kind.teacher_fields`, too.

        Raises:
          UserError: the file of the logits cannot be read or written.
        """
        identity = {
            "teacher": self.identity,
            "train_file": training_settings.describe_examples(data),
        }
        identity = json.dumps(identity, sort_keys=True)
        rows = _read(self.path, identity, sum(map(len, windows)))
        if rows is None:
            _LOGGER.info("computing the logits of the teacher")
            rows = [row for found in self.compute(data) for row in found]
            _write(self.path, identity, rows)
        rows = iter(rows)
        return [
            [w._replace(targets=dict(w.targets, **next(rows))) for w in group]
            for group in windows
        ]


def load(directory, student, output_dir, runtime, batch_size):
    """Reads a teacher, and checks that the student can learn from it.

    Args:
      directory: of the teacher's model, or of its training.
      student: `model_files.TaskFiles` of the model to train.
      output_dir: where the logits are kept.
      runtime: `estimator.Runtime`.
      batch_size: windows per step.

    Returns:
      `Teacher`.

    Raises:
      UserError: there is no such model, or the student cannot learn from it.
    """
    kind_of(student.task).check_has_soft_losses(student, FLAG)
    teacher, checkpoint = model_files.load_fine_tuned(directory, FLAG, student.task)
    check_pair("{}={}".format(FLAG, directory), teacher, student)

    def compute(data):
        kind = _Logits(teacher, student)
        tuner = fine_tuning.FineTuner(
            teacher, output_dir, runtime, batch_size, batch_size, directory, kind
        )
        for _, logits in tuner.predict(data, "teacher"):
            yield logits

    return Teacher(
        student,
        _identity(teacher, checkpoint, student),
        os.path.join(output_dir, LOGITS_FILE),
        compute,
    )


def check_pair(source, teacher, student):
    """Checks that a student can learn from a teacher.

    Args:
      source: str, what the message begins with.
      teacher, student: `model_files.TaskFiles`.

    Raises:
      UserError: names the first difference that keeps it from that.
    """
    tasks = teacher.task, student.task
    if teacher.task.shape != student.task.shape:
        raise UserError(
            "{}: a model for {}, which cannot teach {}; expected one fine-tuned for "
            "{}".format(source, *(task.name for task in tasks + tasks[1:]))
        )
    kind_of(teacher.task).check_has_soft_losses(teacher, source)
    if sorted(teacher.labels) != sorted(student.labels):
        labels = name_lists.join(teacher.labels)
        # Found in the training data, which may lack some.
        is_open = get_task(student.task.name).labels is None
        raise UserError(
            "{}: its labels are {}, those of the model to train {}; give a teacher of "
            "the same labels{}".format(
                source,
                labels,
                name_lists.join(student.labels),
                ", or --labels=" + shlex.quote(labels) if is_open else "",
            )
        )
    expected = _token_settings(student)
    for name, held in _token_settings(teacher).items():
        if held != expected[name]:
            raise UserError(
                "{}: its {} is {}, that of the model to train {}; the two must be the "
                "same for {}, which has outputs for each token".format(
                    source, name, held, expected[name], student.task.name
                )
            )


def _token_settings(given):
    """Dict of what both models must share; {} where outputs are not for each token."""
    kind = kind_of(given.task)
    if not kind.reads_sequence:
        return {}
    settings = {
        "vocabulary": _describe_vocabulary(given),
        "do_lower_case": given.do_lower_case,
        "normalize_punctuation": given.normalize_punctuation,
        "max_seq_length": given.max_seq_length,
    }
    return dict(settings, **kind.token_settings(given))


def _describe_vocabulary(given):
    content = model_directory.read_bytes(given.spm_model_file or given.vocab_file)
    return "a file with SHA-256 " + hashlib.sha256(content).hexdigest()


def _identity(teacher, checkpoint, student):
    """What is noted of a teacher, as text; its logits are in the student's order."""
    content = {
        "checkpoint": checkpoints.fingerprint(checkpoint),
        "config": teacher.config.to_dict(),
        "settings": model_files.task_settings(teacher),
        "vocabulary": _describe_vocabulary(teacher),
        "names": kind_of(student.task).class_names(student),
    }
    content = json.dumps(content, sort_keys=True).encode("utf-8")
    return "a model with SHA-256 " + hashlib.sha256(content).hexdigest()


class _Logits:
    """The kind of a teacher, whose predictions are the logits for a student."""

    def __init__(self, teacher, student):
        """Builds the teacher's tokenizer; both arguments are `TaskFiles`."""
        self._kind = kind_of(teacher.task)(teacher)
        names = self._kind.class_names(teacher)
        self._order = [names.index(n) for n in self._kind.class_names(student)]

    def __getattr__(self, name):
        return getattr(self._kind, name)

    def predictions(self, outputs, features):
        return self._kind.teacher_outputs(outputs, features)

    def decode(self, example, windows, predicted):
        """Returns a dict name -> float32 [n] for each window, without padding."""
        return [
            {name: self._cut(window, row[name]) for name in row}
            for window, row in zip(windows, predicted)
        ]

    def _cut(self, window, values):
        values = values[: self._kind.num_teacher_rows(window)]
        values = values[..., self._order] if self._order else values
        return np.array(values, np.float32).ravel()


def _write(path, identity, rows):
    """Writes the logits of all windows: of each field the values, and their numbers.

    Args:
      path: of the file; it appears whole.
      identity: str, whose they are.
      rows: list of dicts name -> float32 [n], one for each window.
    """
    arrays = {"identity": np.array(identity)}
    for name in rows[0]:
        values = [row[name] for row in rows]
        arrays[name] = np.concatenate(values)
        arrays[name + ".sizes"] = np.array(list(map(len, values)), np.int64)
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write_bytes(content.getvalue(), path)


def _read(path, identity, num_windows):
    """Reads what `_write` wrote; None where there is nothing, or that of others."""
    if not files.exists(path):
        return None
    content = io.BytesIO(files.read_bytes(path))
    try:
        with np.load(content, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        if str(arrays.pop("identity")) != identity:
            _LOGGER.info("%s holds the logits of another teacher, or other data", path)
            return None
        names = [name for name in arrays if name + ".sizes" in arrays]
        columns = [
            np.split(arrays[name], np.cumsum(arrays[name + ".sizes"])[:-1])
            for name in names
        ]
        if {len(column) for column in columns} != {num_windows}:
            raise ValueError("it has not as many windows as the data")
    except _DAMAGED as error:
        _LOGGER.warning("%s is damaged (%s)", path, error)
        return None
    return [dict(zip(names, values)) for values in zip(*columns)]
