"""Resume point of the input pipeline: how many records a run has read.

That number suffices, since the order of records follows from the seed and the number
of the epoch (`input_pipeline.input_fn_builder`). The checkpoint holds the step;
`input_position.json` beside it holds the batch size since each step at which it
changed, and the settings that the order follows from, so that a change is reported.
The file is written before training begins and therefore always fits the checkpoint.
"""

import json
import logging
import os

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline, record_format

_LOGGER = logging.getLogger(__name__)

STATE_FILE = "input_position.json"

_ADVICE = (
    "remove it to resume as if the run had always had this --train_batch_size, --seed "
    "and --input_file"
)
# Steps, bytes and nanoseconds since 1970 are int64.
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_POSITIVE = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_FILE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "size": _COUNT,
        "written": {"type": "integer"},
        "records": dict(_POSITIVE, type=["integer", "null"]),
    },
    "required": ["name", "size", "written", "records"],
}
_SCHEMA = {
    "type": "object",
    "properties": {
        "batch_sizes": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "array",
                "items": [_COUNT, _POSITIVE],
                "minItems": 2,
                "maxItems": 2,
            },
        },
        "files": {"type": "array", "items": _FILE},
        "order": {
            "type": "object",
            "additionalProperties": {"type": ["boolean", "number", "string", "null"]},
        },
    },
    "required": ["batch_sizes", "files", "order"],
}


def resume(output_dir, step, batch_size, input_files, order, is_chief=True):
    """Finds the position that training resumes from, and records its settings.

    Args:
      output_dir: directory of the run's checkpoints.
      step: int, global step of the newest one; 0 for a new run.
      batch_size: int, sequences per step from now on, over all hosts.
      input_files: list of TFRecord files.
      order: dict of flag to JSON value: what the order of records follows from.
      is_chief: bool; whether this process is the one that records the settings.

    Returns:
      `input_pipeline.Position`.

    Raises:
      UserError: a record file is damaged, or the directory's file is or cannot be
        written.
    """
    path = os.path.join(output_dir, STATE_FILE)
    held = _read(path) if step and files.exists(path) else None
    if step and held is None:
        _LOGGER.warning(
            "%s is missing: assuming --train_batch_size=%d up to step %d, and the same "
            "--seed and files",
            path,
            batch_size,
            step,
        )
    if held is None:
        held = {"batch_sizes": [[0, batch_size]], "order": order, "files": []}
    described = _describe(input_files, held["files"], counted=step > 0)
    if held["files"]:
        _warn_of_changes(held, order, described)
    # Entries of this step or later are from a start that saved no checkpoint.
    batch_sizes = [pair for pair in held["batch_sizes"] if pair[0] < step]
    if not batch_sizes or batch_sizes[-1][1] != batch_size:
        batch_sizes.append([step, batch_size])
    state = {"batch_sizes": batch_sizes, "order": order, "files": described}
    if is_chief:
        files.write_text(json.dumps(state, indent=1, sort_keys=True) + "\n", path)
    if not step:
        return input_pipeline.BEGINNING
    file_sizes = [entry["records"] for entry in described]
    position = input_pipeline.Position(_count_seen(batch_sizes, step), file_sizes)
    _LOGGER.info(
        "the input resumes after %d records: %.2f epochs of %d",
        position.num_seen,
        position.num_seen / sum(file_sizes),
        sum(file_sizes),
    )
    return position


def _read(path):
    """Returns what `resume` has written.

    Raises:
      UserError: the file cannot be read, or is damaged.
    """
    state = json_files.read(path, _SCHEMA, _ADVICE)
    first_steps = [first_step for first_step, _ in state["batch_sizes"]]
    if first_steps[0] or first_steps != sorted(set(first_steps)):
        raise UserError(
            "{}: damaged (the steps of batch_sizes do not ascend from 0); {}".format(
                path, _ADVICE
            )
        )
    return state


def _describe(input_files, known, counted):
    """Returns a dict for each file; its records are None where they are not counted.

    Args:
      input_files: list of TFRecord files.
      known: list of such dicts; a file that has not changed is not counted again.
      counted: bool, whether the records are needed.
    """
    counts = {
        (entry["name"], entry["size"], entry["written"]): entry["records"]
        for entry in known
    }
    described = []
    for path in input_files:
        key = (os.path.basename(path),) + tuple(files.stamp(path))
        num_records = counts.get(key)
        if counted and num_records is None:
            _LOGGER.info("counting the records of %s", path)
            num_records = count_records(path)
        entry = dict(zip(("name", "size", "written"), key), records=num_records)
        described.append(entry)
    return described


def count_records(path):
    """Returns how many records a file holds.

    Raises:
      UserError: it is damaged.
    """
    try:
        return sum(1 for _ in record_format.read_records(path))
    except ValueError as error:
        raise UserError(
            "{}: truncated or corrupt TFRecord file ({}); make it again".format(
                path, error
            )
        ) from error


def _warn_of_changes(held, order, described):
    """Warns of each change that alters the order of records."""
    effect = (
        "the order of records changes from here on; this epoch may read some records "
        "twice and others not at all"
    )
    for flag in sorted(set(order) | set(held["order"])):
        before, now = held["order"].get(flag), order.get(flag)
        if before != now:
            _LOGGER.warning("%s=%s, but was %s: %s", flag, now, before, effect)
    before, now = (
        [(entry["name"], entry["size"]) for entry in entries]
        for entries in (held["files"], described)
    )
    if before != now:
        _LOGGER.warning("--input_file: other files than before: %s", effect)


def _count_seen(batch_sizes, step):
    """The records of `step` steps; `batch_sizes` are pairs (first step, size)."""
    ends = [first for first, _ in batch_sizes[1:]] + [step]
    return sum((end - first) * size for (first, size), end in zip(batch_sizes, ends))
