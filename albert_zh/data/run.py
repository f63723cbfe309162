"""A run of data generation, from the start or from where it was stopped.

Until a run is complete, its files are in a directory named by a digest of everything
that the records depend on. It is inside the working directory, beside the output:

  manifest.json              the inputs of the run: files, settings, vocabulary
  text-00007.txt             input file 7 as plain text, where it is converted
  shard-00012.json           marks the bundle that begins with shard 12 as done; its
                             statistics and checksums
  shard-00012-of-00003.part  its records for output file 3
  output-00003.json          marks output file 3 as complete; its checksum

At the end the manifest is copied into the summary and the directory is removed.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import time
from typing import Any, Dict, List, NamedTuple

from albert_zh.base import checksums, files, json_files
from albert_zh.base.checksums import Checksum, Expected
from albert_zh.base.errors import UserError
from albert_zh.base.progress import ByteProgress
from albert_zh.data import corpus, output_names, sources, work_directory
from albert_zh.data import shards as sharding
from albert_zh.data.summary import ONE_DOCUMENT, Statistics

_LOGGER = logging.getLogger(__name__)

# Increased when the same settings produce other bytes.
_FORMAT = 3

_ADVICE = "give the same flags and input, another --output_file, or --overwrite"
_HAS_CHANGED = "{} has changed since it was made; {}"
_DAMAGED_ADVICE = "give --overwrite to start over, or another --output_file"

_SIZE = {"type": "integer", "minimum": 0}
_CHECKSUM_SCHEMA = {
    "type": "object",
    "properties": {"size": _SIZE, "crc32c": _SIZE},
    "required": ["size", "crc32c"],
}
_MANIFEST_SCHEMA = {
    "type": "object",
    "properties": {
        "input": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "bytes": _SIZE,
                    "sha256": {"type": "string"},
                },
                "required": ["path", "bytes", "sha256"],
            },
        },
        "output": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["input", "output"],
}
# A summary must match this before the files that it lists are removed.
_LIST_SCHEMA = {
    "type": "object",
    "properties": {"output_files": {"type": "object"}},
    "required": ["output_files"],
}
_SUMMARY_SCHEMA = {
    "type": "object",
    "properties": {
        "output_files": {"type": "object", "additionalProperties": _SIZE},
        # Absent from summaries of earlier versions.
        "output_crc32c": {"type": "object", "additionalProperties": _SIZE},
        "manifest": _MANIFEST_SCHEMA,
        "warnings": {"type": "array", "items": {"type": "string"}},
        "distributions": {
            "type": "object",
            "propertyNames": {
                "enum": [
                    "sequence_lengths",
                    "unk_percent_of_documents",
                    "masks_per_instance",
                    "ngram_lengths",
                ]
            },
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"pattern": r"^[0-9]{1,9}\Z"},
                "additionalProperties": _SIZE,
            },
        },
    },
    "required": ["output_files", "manifest", "warnings", "distributions"],
}


class Plan(NamedTuple):
    """A run of data generation.

    Attributes:
      job: `sharding.Job`; its working directory is the one of `outputs`.
      input_files: list of paths.
      shard_bytes: int, see `sharding.plan_shards`.
      settings: dict that `json` can write: everything, besides the content of the
        input files, that the records depend on (see `settings_of`).
      outputs: `output_names.Outputs`.
    """

    job: sharding.Job
    input_files: List[str]
    shard_bytes: int
    settings: Dict[str, Any]
    outputs: output_names.Outputs


def settings_of(job, vocab_size):
    """Returns what the records of a `sharding.Job` depend on, besides the input.

    Args:
      job: `sharding.Job`.
      vocab_size: int, entries of its vocabulary.

    Returns:
      dict that `json` can write.
    """
    text, masks = job.text, job.settings.masks
    settings = {
        "do_lower_case": text.do_lower_case,
        "normalize_punctuation": text.normalize_punctuation,
        "max_seq_length": job.settings.max_seq_length,
        "masking": "dynamic" if masks is None else "static",
        "short_seq_prob": job.settings.short_seq_prob,
        "dupe_factor": job.settings.dupe_factor,
        "random_seed": job.random_seed,
    }
    # Left out at 0: records made before there was this setting are the same.
    if job.settings.overlap_prob:
        settings["overlap_prob"] = job.settings.overlap_prob
    settings.update({} if masks is None else masks._asdict())
    settings["vocabulary_sha256"] = hashlib.sha256(text.vocabulary).hexdigest()
    settings["vocab_size"] = vocab_size
    settings["segmenter"] = text.versions.segmenter
    settings["unicode"] = text.versions.unicode
    settings["encoding"] = job.form.encoding
    settings["text_field"] = ",".join(job.form.text_fields or ())
    return settings


def generate(plan, engine, overwrite=False):
    """Makes all output files, or resumes the same run where it was stopped.

    Args:
      plan: `Plan`.
      engine: an engine of `engines`.
      overwrite: bool, whether to remove what earlier runs left and start over.

    Returns:
      dict, the summary; the earlier run's if it was complete.

    Raises:
      UserError: the input cannot be used or changes during the run, the output cannot
        be written, files of another run are there, or another run is active.
    """
    started = time.time()
    for warning in Statistics(plan.job.settings).warnings():
        _LOGGER.warning("%s", warning)
    job, paths, summary_file = plan.job, plan.input_files, plan.outputs.summary_file
    stamps = list(map(files.stamp, paths))
    manifest = _manifest(plan, stamps)
    root = job.work_directory
    with work_directory.hold(root):
        if overwrite:
            _remove_earlier(job, plan.outputs)
        # Errors that need no input are reported before the input is read.
        _find_earlier(job, manifest, summary_file)
        files.remove_leftovers(summary_file, *job.output_files)
        found = _examine(job, paths, engine)
        contents = _fingerprints(manifest, stamps, engine)
        finished = _find_earlier(job, manifest, summary_file)
        if finished:
            _require_nothing_replaced(job, finished)
            _require_as_made(job, finished, engine)
            work_directory.clear(root)
            return finished
        job = _open_work(job, manifest)
        statistics, made = _make_all(job, plan, found, contents, stamps, engine)
        summary = _summary(statistics, manifest, made, started)
        _require_nothing_replaced(job, summary)
        json_files.write(summary, summary_file)
        work_directory.clear(root)
    return summary


def _require_nothing_replaced(job, summary):
    """Raises `UserError` for replaced bytes that the run's flags do not allow.

    An earlier run with the same settings may have replaced them: where all bytes can
    be decoded, the flag changes nothing, and a manifest is without it.
    """
    number = summary["replaced_undecodable_bytes"]
    if number and job.form.encoding_errors == "strict":
        raise UserError(
            "an earlier run replaced {} undecodable bytes of this input; give "
            "--encoding_errors=replace again, or --overwrite".format(number)
        )


def _manifest(plan, stamps):
    """Returns the dict that says what a run is made from, checksums excepted."""
    manifest = dict(plan.settings, format=_FORMAT, shard_bytes=plan.shard_bytes)
    manifest["output"] = _relative(plan.job.output_files)
    manifest["input"] = [
        {"path": path, "bytes": stamp.size}
        for path, stamp in zip(plan.input_files, stamps)
    ]
    return manifest


def _make_all(job, plan, found, contents, stamps, engine):
    """Makes all shards and output files.

    Args:
      job: `sharding.Job` with the run's own directory.
      plan: `Plan`.
      found: list of `sources.Found`, one for each input file.
      contents: list of the input files' `checksums.Content`s.
      stamps: list of their `files.Stamp`s.
      engine: an engine of `engines`.

    Returns:
      (`Statistics`, list of the output files' `Checksum`s).
    """
    paths = plan.input_files
    with _kept_if_usable(job, paths, stamps):
        plain_paths, contents, num_replaced = _convert(
            job, paths, contents, found, engine
        )
        shards = sharding.plan_shards(plain_paths, contents, plan.shard_bytes)
        bundles = sharding.bundle_shards(shards, plan.shard_bytes)
        statistics, outputs = _make_bundles(job, bundles, engine)
        statistics.add_replaced_bytes(num_replaced)
    for path in set(plain_paths) - set(paths):
        files.remove(path)  # its space is needed for the output files
    try:
        corpus.require_unchanged(paths, stamps)
        _require_records(job, statistics, outputs, paths)
    except UserError:
        # What is done cannot be used for any other run.
        work_directory.clear(os.path.dirname(job.work_directory))
        raise
    return statistics, _merge_outputs(job, outputs, engine)


def _summary(statistics, manifest, made, started):
    """Returns the dict that is written as the summary.

    Args:
      statistics: `Statistics` of all shards.
      manifest: dict, what the run is made from.
      made: list of the output files' `Checksum`s.
      started: start time, from `time.time`.
    """
    summary = statistics.summary()
    summary["seconds"] = round(time.time() - started, 1)
    names = manifest["output"]
    summary["output_files"] = {name: c.size for name, c in zip(names, made)}
    summary["output_crc32c"] = {name: c.crc32c for name, c in zip(names, made)}
    summary["manifest"] = manifest
    return summary


def difference(old, new):
    """Describes the first difference between two manifests, or returns None.

    Input files are compared by content; their names may differ. Checksums are
    compared where both manifests have them.
    """
    for old_file, new_file in itertools.zip_longest(old["input"], new["input"]):
        if old_file is None or new_file is None:
            return "{} input files, not {}".format(len(old["input"]), len(new["input"]))
        for key in set(old_file) & set(new_file) - {"path"}:
            if old_file[key] != new_file[key]:
                return "other content in {} ({} {}, now {})".format(
                    new_file["path"], key, old_file[key], new_file[key]
                )
    for key in sorted(set(old) | set(new)):
        if key != "input" and old.get(key) != new.get(key):
            return "{} {}, not {}".format(key, old.get(key), new.get(key))
    return None


def _relative(paths):
    """Returns paths relative to the first one's folder, so that it can be moved."""
    folder = os.path.dirname(paths[0])
    return [os.path.relpath(path, folder) for path in paths]


def _fingerprints(manifest, stamps, engine):
    """Reads the input once and adds its checksums to the manifest.

    Returns:
      List of the files' `checksums.Content`s.

    Raises:
      UserError: a file has changed since its stamp was taken.
    """
    total = sum(stamp.size for stamp in stamps)
    paths = [entry["path"] for entry in manifest["input"]]
    _LOGGER.info("reading %.1f MB of input to compute checksums", total / 1e6)
    with ByteProgress(total) as progress:
        found = engine.run(checksums.fingerprint, paths, progress.update)
    for entry, (sha256, content) in zip(manifest["input"], found):
        if content.size != entry["bytes"]:
            raise checksums.changed(entry["path"])
        entry["sha256"] = sha256
    return [content for _, content in found]


def _examine(job, paths, engine):
    """Looks at the start of each input file; returns the list of `sources.Found`."""
    found = engine.run(functools.partial(sources.examine, job.form), paths)
    if not any(item.has_blank_line for item in found):
        _LOGGER.warning(
            "no blank line at the start of any input file; %s", ONE_DOCUMENT
        )
    return found


def _convert(job, paths, contents, found, engine):
    """Converts the input files that cannot be read as they are.

    Args:
      job, paths, contents, found, engine: as of `_make_all`.

    Returns:
      (paths, contents, num_replaced): lists of the paths of plain text and of their
      `checksums.Content`s; int, bytes that were replaced.
    """
    todo = [
        sharding.Conversion(number, paths[number], contents[number])
        for number, item in enumerate(found)
        if not item.is_plain
    ]
    if not todo:
        return paths, contents, 0
    _LOGGER.info("converting %d input files to plain UTF-8 text", len(todo))
    total = sum(item.content.size for item in todo)
    with ByteProgress(total) as progress:
        convert = functools.partial(sharding.convert, job)
        converted = engine.run(convert, todo, progress.update)
    paths, contents = list(paths), list(contents)
    for item, (_, content) in zip(todo, converted):
        paths[item.number] = job.plain_text(item.number)
        contents[item.number] = content
    return paths, contents, sum(num_replaced for num_replaced, _ in converted)


def _remove_earlier(job, outputs):
    """Removes unfinished runs, and the output and summary of a finished one.

    Raises:
      UserError: one of the files may not be this command's; nothing is removed then.
    """
    summary_file = outputs.summary_file
    folder = os.path.dirname(job.output_files[0])
    own, base = set(_relative(job.output_files)), os.path.basename(outputs.name)
    listed = _listed(summary_file)
    for other in listed:
        path = os.path.join(folder, other)
        if other in own or output_names.is_of(base, other) or not files.lexists(path):
            continue
        raise UserError(
            "{} lists {!r}, which is no output file of this command; nothing was "
            "removed; name it in --output_file too, or remove it or the summary by "
            "hand".format(summary_file, other)
        )
    old = [os.path.join(folder, other) for other in listed]
    old = set(old) | set(job.output_files) | {summary_file}
    present = sorted(path for path in old if files.lexists(path))
    for path in present:
        if files.is_link(path) or not files.is_regular(path):
            raise UserError(
                "cannot remove {}: it is no ordinary file; remove it by hand".format(
                    path
                )
            )
    for path in present:
        files.remove(path)
    files.remove_leftovers(*old)
    work_directory.clear(job.work_directory)


def _listed(summary_file):
    """Returns the names of output files that a summary lists, unchecked."""
    if not files.exists(summary_file):
        return []
    try:
        summary = json_files.read(summary_file, _LIST_SCHEMA, "it is removed")
    except UserError as error:
        _LOGGER.warning("%s; output files with other numbers may remain", error)
        return []
    return list(summary["output_files"])


def _find_earlier(job, manifest, summary_file):
    """Checks the files of earlier runs.

    Returns:
      dict, the summary of the same run if it is complete, else None.

    Raises:
      UserError: files of another run are there, or files are damaged.
    """
    root = job.work_directory
    for path in work_directory.runs(root):
        path = os.path.join(path, work_directory.MANIFEST)
        if files.exists(path):
            held = json_files.read(path, _MANIFEST_SCHEMA, _DAMAGED_ADVICE)
            found = difference(held, manifest)
            if found:
                raise UserError(
                    "{} was started with {}; {}".format(root, found, _ADVICE)
                )
            return None
    present = [path for path in job.output_files if files.lexists(path)]
    if not files.exists(summary_file):
        if present:
            raise UserError(
                "{} exists already, without a summary; {}".format(present[0], _ADVICE)
            )
        return None
    summary = json_files.read(summary_file, _SUMMARY_SCHEMA, _DAMAGED_ADVICE)
    found = difference(summary["manifest"], manifest)
    if found:
        raise UserError(
            "{} is from a run with {}; {}".format(summary_file, found, _ADVICE)
        )
    if not present:
        return None
    for name, path in zip(manifest["output"], job.output_files):
        if not files.exists(path) or files.size(path) != summary["output_files"].get(
            name
        ):
            raise UserError(
                "{} has changed since it was made; {}".format(path, _ADVICE)
            )
    return summary


def _require_as_made(job, summary, engine):
    """Checks the files of a finished run, whose sizes are right, by checksum.

    Raises:
      UserError: the content of a file has changed.
    """
    known = summary.get("output_crc32c")
    if known is None:
        _LOGGER.info(
            "all output files exist and have the right sizes; an earlier version of "
            "the same command made them, whose summary has no checksums"
        )
        return
    expected = [
        Expected((path,), (Checksum(summary["output_files"][name], known.get(name)),))
        for name, path in zip(summary["manifest"]["output"], job.output_files)
    ]
    wrong = _not_as_expected(expected, engine)
    if wrong:
        path = expected[wrong[0]].paths[0]
        raise UserError(_HAS_CHANGED.format(path, _ADVICE))
    _LOGGER.info("all output files exist already, made by the same command")


def _not_as_expected(expected, engine):
    """Reads files; returns the indices of the `Expected` that are not met."""
    if not expected:
        return []
    total = sum(checksum.size for item in expected for checksum in item.checksums)
    _LOGGER.info("reading %.1f MB of earlier output to verify it", total / 1e6)
    with ByteProgress(total) as progress:
        found = engine.run(checksums.are_as_expected, expected, progress.update)
    return [place for place, is_right in enumerate(found) if not is_right]


def _open_work(job, manifest):
    """Makes or reopens the run's own directory; returns the `Job` that uses it."""
    # By content: the names of the input files may change.
    content = dict(manifest, input=[entry["sha256"] for entry in manifest["input"]])
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    job = job._replace(work_directory=os.path.join(job.work_directory, digest))
    work_directory.make_run(job.work_directory)
    work_directory.remove_temporary(job.work_directory)
    path = os.path.join(job.work_directory, work_directory.MANIFEST)
    if files.exists(path):
        _LOGGER.info("resuming %s", job.work_directory)
    else:
        json_files.write(manifest, path)
    return job


def _make_bundles(job, bundles, engine):
    """Makes the bundles that are not done yet.

    Returns:
      (`Statistics`, list of `sharding.Output`), of all bundles.

    Raises:
      UserError: a bundle cannot be made, or an output file has changed.
    """
    made = _find_bundles(job, bundles, _missing_outputs(job, engine), engine)
    todo = [place for place, mark in enumerate(made) if mark is None]
    _LOGGER.info(
        "%d of %d shards to do",
        *(
            sum(len(bundle.shards) for bundle in some)
            for some in ([bundles[place] for place in todo], bundles)
        ),
    )
    total = sum(bundle.num_bytes for bundle in bundles)
    left = sum(bundles[place].num_bytes for place in todo)
    with ByteProgress(total, total - left) as progress:
        make = functools.partial(sharding.make_bundle, job)
        tasks = [bundles[place] for place in todo]
        for place, mark in zip(todo, engine.run(make, tasks, progress.update)):
            made[place] = mark
    statistics = Statistics(job.settings)
    for mark in made:
        statistics.merge(mark)
    return statistics, [
        sharding.Output(
            output,
            tuple(
                section
                for bundle, mark in zip(bundles, made)
                for section in sharding.sections_of(bundle, mark, output)
            ),
        )
        for output in range(len(job.output_files))
    ]


def _missing_outputs(job, engine):
    """Returns the numbers of the output files that are not complete.

    Raises:
      UserError: one that was complete is another file now.
    """
    missing, expected = [], []
    for number, path in enumerate(job.output_files):
        made = _read_mark(job.output_mark(number), _CHECKSUM_SCHEMA)
        if made is None or not files.lexists(path):
            files.remove(job.output_mark(number))
            missing.append(number)
        else:
            checksum = Checksum(made["size"], made["crc32c"])
            expected.append(Expected((path,), (checksum,)))
    for place in _not_as_expected(expected, engine):
        raise UserError(
            _HAS_CHANGED.format(
                expected[place].paths[0],
                "move it away and rerun the same command, or give --overwrite",
            )
        )
    return missing


def _find_bundles(job, bundles, outputs, engine):
    """Finds the bundles that are done, whose input and parts have not changed.

    Args:
      job: `sharding.Job`.
      bundles: list of all `sharding.Bundle`s.
      outputs: list of int, the output files that still need their parts.
      engine: an engine of `engines`.

    Returns:
      List of the content of every bundle's mark, None for a bundle still to do.
    """
    made = []
    for bundle in bundles:
        schema = sharding.mark_schema(job, len(bundle.shards))
        mark = _read_mark(job.bundle_mark(bundle.number), schema)
        is_same = mark is not None and mark["input_crc32c"] == bundle.input_crc32c
        made.append(mark if is_same else None)
    done = [place for place, mark in enumerate(made) if mark]
    if outputs:
        expected = []
        for place in done:
            mark, number = made[place], bundles[place].number
            parts = list(map(Checksum, mark["part_bytes"], mark["part_crc32c"]))
            paths = tuple(job.part(number, output) for output in outputs)
            expected.append(Expected(paths, tuple(parts[output] for output in outputs)))
        for place in _not_as_expected(expected, engine):
            made[done[place]] = None
    return made


def _read_mark(path, schema):
    """Returns the content of a mark; None if it is absent or damaged."""
    if not files.exists(path):
        return None
    try:
        return json_files.read(path, schema, "it is replaced")
    except UserError as error:
        _LOGGER.warning("%s", error)
        return None


@contextlib.contextmanager
def _kept_if_usable(job, paths, stamps):
    """After an error in the block, keeps finished shards if a rerun can use them.

    A rerun cannot use them if the input has changed; then everything is removed.
    """
    try:
        yield
    except BaseException:
        try:
            root = os.path.dirname(job.work_directory)
            is_done = work_directory.has_marks(job.work_directory)
            if not is_done or list(map(files.stamp, paths)) != stamps:
                work_directory.clear(root)
            else:
                _LOGGER.info(
                    "finished shards are in %s; rerun the same command to resume", root
                )
        except UserError as error:
            _LOGGER.warning("%s", error)  # the first error is the one to raise
        raise


def _require_records(job, statistics, outputs, paths):
    """Raises `UserError` if an output file would be empty."""
    if not statistics.num_sentences:
        raise UserError(corpus.no_sentence_in(paths))
    sizes = list(map(_size, outputs))
    if 0 in sizes:
        raise UserError(
            "the input gives {} records, too few for {} output files: {} would be "
            "empty".format(
                statistics.num_instances,
                len(job.output_files),
                job.output_files[sizes.index(0)],
            )
        )


def _size(output):
    """Returns the bytes of a `sharding.Output`."""
    return sum(section.checksum.size for section in output.sections)


def _merge_outputs(job, outputs, engine):
    """Assembles the output files that are not complete yet.

    Returns:
      List of the `Checksum`s of all output files.
    """
    todo = [item for item in outputs if not files.exists(job.output_mark(item.number))]
    _LOGGER.info("assembling %d output files", len(todo))
    total = sum(map(_size, todo))
    with ByteProgress(total) as progress:
        merge = functools.partial(sharding.merge_output, job)
        engine.run(merge, todo, progress.update)
    marks = [
        json_files.read(job.output_mark(o.number), _CHECKSUM_SCHEMA, _DAMAGED_ADVICE)
        for o in outputs
    ]
    return [Checksum(mark["size"], mark["crc32c"]) for mark in marks]
