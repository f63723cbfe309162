"""A run of data generation from beginning to end, or from where it was stopped.

Until it is complete, a run lives in a working directory beside its output:

  manifest.json              what it is made from: input, settings, vocabulary
  shard-00012.json           shard 12 is done; its statistics
  shard-00012-of-00003.part  its records for output file 3
  output-00003.json          output file 3 is complete

At the end the manifest goes into the summary and the directory away.
"""

import functools
import itertools
import json
import logging
import os
import time

from albert_zh import corpus, files, generation
from albert_zh.errors import UserError
from albert_zh.progress import ByteProgress
from albert_zh.statistics import Statistics

_LOGGER = logging.getLogger(__name__)

# Changes when the same settings begin to give other bytes.
_FORMAT = 2


def run(job, paths, sizes, shard_bytes, settings, engine, summary_file, overwrite):
    """Makes all output files, going on where the same run was stopped.

    Args:
      job: `generation.Job`.
      paths: list of input files.
      sizes: list of their sizes in bytes.
      shard_bytes: int, see `generation.plan_shards`.
      settings: dict that `json` can write; what, besides the content of the input
        files, the output depends on.
      engine: an engine of `engines`.
      summary_file: path of the summary that is written at the end.
      overwrite: bool, whether what another run has left may be replaced.

    Returns:
      dict, the summary; that of the earlier run where it has made everything.

    Raises:
      UserError: the input cannot be used, the output cannot be written, or what is
        there is of another run.
    """
    started = time.time()
    _LOGGER.info("reading %.1f MB once, for the checksums", sum(sizes) / 1e6)
    with ByteProgress(sum(sizes)) as progress:
        checksums = engine.run(generation.fingerprint, paths, progress.update)
    manifest = _manifest(settings, paths, sizes, checksums)
    finished = _open_work(job, manifest, summary_file, overwrite)
    if finished:
        _LOGGER.info("all output files are there: the same command has made them")
        return finished
    shards = generation.plan_shards(paths, sizes, shard_bytes)
    try:
        statistics = _make_shards(job, shards, engine)
    except BaseException:
        _leave(job, shards)
        raise
    _require_records(job, statistics, paths)
    _merge_outputs(job, statistics, len(shards), engine)
    summary = statistics.summary()
    summary["seconds"] = round(time.time() - started, 1)
    summary["output_files"] = {path: files.size(path) for path in job.output_files}
    summary["manifest"] = manifest
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    files.write_text(text + "\n", summary_file)
    files.remove_directory(job.work_directory)
    return summary


def difference(old, new):
    """Says in what one manifest differs from another, or returns None.

    The names of the input files may differ, not their content.
    """
    for old_file, new_file in itertools.zip_longest(old["input"], new["input"]):
        if old_file is None or new_file is None:
            return "{} input files, not {}".format(len(old["input"]), len(new["input"]))
        for key in ("bytes", "sha256"):
            if old_file[key] != new_file[key]:
                return "another content of {} ({} {}, now {})".format(
                    new_file["path"], key, old_file[key], new_file[key]
                )
    for key in sorted(set(old) | set(new)):
        if key != "input" and old.get(key) != new.get(key):
            return "{} {}, not {}".format(key, old.get(key), new.get(key))
    return None


def _manifest(settings, paths, sizes, checksums):
    columns = zip(paths, sizes, checksums)
    inputs = [dict(zip(("path", "bytes", "sha256"), column)) for column in columns]
    return dict(settings, format=_FORMAT, input=inputs)


def _open_work(job, manifest, summary_file, overwrite):
    """Makes the working directory, or goes on with one of the same run.

    Returns:
      dict, the summary of the same run where it is complete, else None.

    Raises:
      UserError: there are files of another run, and they may not be replaced.
    """
    finished, problem = _finished(job, manifest, summary_file)
    path = os.path.join(job.work_directory, "manifest.json")
    if finished:
        files.remove_directory(job.work_directory)
        return finished
    if files.exists(path):
        found = difference(json.loads(files.read_text(path)), manifest)
        if not found:
            _LOGGER.info("going on with %s", job.work_directory)
            return None
        _require(overwrite, "{} was begun with {}".format(job.work_directory, found))
    elif problem:
        _require(overwrite, problem)
    files.remove_directory(job.work_directory)
    with files.writing(job.work_directory):
        files.make_directory(job.work_directory)
    files.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", path)
    return None


def _finished(job, manifest, summary_file):
    """Looks at the output files that are there.

    Returns:
      (summary, problem): the summary, where all are there and of the same run; str,
      why they are not, None where there are none.
    """
    present = [path for path in job.output_files if files.exists(path)]
    if not present:
        return None, None
    problem = "{} is there already, without a summary".format(present[0])
    if not files.exists(summary_file):
        return None, problem
    summary = json.loads(files.read_text(summary_file))
    if "manifest" not in summary:
        return None, problem
    found = difference(summary["manifest"], manifest)
    if found:
        return None, "{} was made with {}".format(present[0], found)
    for path, size in summary["output_files"].items():
        if not files.exists(path) or files.size(path) != size:
            return None, "{} is not as it was made".format(path)
    return summary, None


def _require(overwrite, problem):
    if not overwrite:
        raise UserError(
            problem + "; give the same flags and input, another --output_file, or "
            "--overwrite"
        )
    _LOGGER.warning("%s: it is made anew", problem)


def _make_shards(job, shards, engine):
    """Makes the shards that are not done yet; returns the `Statistics` of all."""
    todo = [s for s in shards if not files.exists(job.shard_mark(s.number))]
    _LOGGER.info("%d of %d shards are to be made", len(todo), len(shards))
    total, left = (sum(s.num_bytes for s in some) for some in (shards, todo))
    with ByteProgress(total, total - left) as progress:
        engine.run(functools.partial(generation.make_shard, job), todo, progress.update)
    statistics = Statistics(job.settings)
    for shard in shards:
        statistics.merge(json.loads(files.read_text(job.shard_mark(shard.number))))
    return statistics


def _leave(job, shards):
    """After a failure: keeps what is done, and says so, or leaves nothing behind."""
    done = sum(files.exists(job.shard_mark(shard.number)) for shard in shards)
    if done:
        _LOGGER.info(
            "%d of %d shards are done, in %s: the same command goes on from there",
            done,
            len(shards),
            job.work_directory,
        )
    else:
        files.remove_directory(job.work_directory)


def _require_records(job, statistics, paths):
    """Raises `UserError` where there is no record."""
    if statistics.num_instances:
        return
    files.remove_directory(job.work_directory)
    if not statistics.num_sentences:
        raise UserError(corpus.no_sentence_in(paths))
    raise UserError(
        "the text of {} is too short for a record; one needs two tokens".format(
            ", ".join(paths)
        )
    )


def _merge_outputs(job, statistics, num_shards, engine):
    outputs = range(len(job.output_files))
    todo = [o for o in outputs if not files.exists(job.output_mark(o))]
    sizes = [
        sum(files.size(job.part(shard, output)) for shard in range(num_shards))
        for output in todo
    ]
    if 0 in sizes:
        files.remove_directory(job.work_directory)
        raise UserError(
            "the input gives {} records, too few for {} output files: {} would be "
            "empty".format(
                statistics.num_instances,
                len(job.output_files),
                job.output_files[todo[sizes.index(0)]],
            )
        )
    _LOGGER.info("putting %d output files together", len(todo))
    with ByteProgress(sum(sizes)) as progress:
        merge = functools.partial(generation.merge_output, job, num_shards)
        engine.run(merge, todo, progress.update)
