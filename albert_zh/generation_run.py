"""A run of data generation from beginning to end, or from where it was stopped.

Until it is complete, a run lives in a directory of its own, named by a digest of all
that its records depend on, within the working directory beside its output:

  manifest.json              what it is made from: input, settings, vocabulary
  shard-00012.json           shard 12 is done; its statistics
  shard-00012-of-00003.part  its records for output file 3
  output-00003.json          output file 3 is complete

At the end the manifest goes into the summary and the working directory away.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import time

from albert_zh import corpus, files, generation
from albert_zh.errors import UserError
from albert_zh.progress import ByteProgress
from albert_zh.statistics import Statistics

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LOGGER = logging.getLogger(__name__)

# Changes when the same settings begin to give other bytes.
_FORMAT = 2

_ADVICE = "give the same flags and input, another --output_file, or --overwrite"


def run(job, paths, shard_bytes, settings, engine, summary_file, overwrite):
    """Makes all output files, going on where the same run was stopped.

    Args:
      job: `generation.Job`; its working directory is the common one.
      paths: list of input files.
      shard_bytes: int, see `generation.plan_shards`.
      settings: dict that `json` can write; what, besides the content of the input
        files, the output depends on.
      engine: an engine of `engines`.
      summary_file: path of the summary that is written at the end.
      overwrite: bool, whether to remove what earlier runs have left and begin anew.

    Returns:
      dict, the summary; that of the earlier run where it has made everything.

    Raises:
      UserError: the input cannot be used or has changed meanwhile, the output cannot
        be written, what is there is of another run, or another run is at work.
    """
    started = time.time()
    stamps = list(map(files.stamp, paths))
    outputs = _relative(job.output_files)
    manifest = dict(settings, format=_FORMAT, shard_bytes=shard_bytes, output=outputs)
    manifest["input"] = [
        {"path": path, "bytes": stamp.size} for path, stamp in zip(paths, stamps)
    ]
    root = job.work_directory
    with _only_one_run(root):
        if overwrite:
            _remove_earlier(root, job, summary_file)
        # What is wrong is said before the input is read.
        _find_earlier(root, job, manifest, summary_file)
        checksums = _checksums(paths, stamps, engine)
        for entry, checksum in zip(manifest["input"], checksums):
            entry["sha256"] = checksum
        finished = _find_earlier(root, job, manifest, summary_file)
        if finished:
            _LOGGER.info("all output files are there: the same command has made them")
            files.remove_directory(root)
            return finished
        job = _open_work(job, manifest)
        shards = generation.plan_shards(paths, [s.size for s in stamps], shard_bytes)
        with _kept_if_any_is_done(root, job, shards):
            counted = _make_shards(job, shards, engine)
        statistics = Statistics(job.settings)
        for counts in counted:
            statistics.merge(counts)
        sizes = [sum(column) for column in zip(*(c["part_bytes"] for c in counted))]
        try:
            _require_unchanged(paths, stamps)
            _require_records(job, statistics, sizes, paths)
        except UserError:
            files.remove_directory(root)  # it is of no use
            raise
        _merge_outputs(job, sizes, len(shards), engine)
        summary = statistics.summary()
        summary["seconds"] = round(time.time() - started, 1)
        summary["output_files"] = {
            name: files.size(path) for name, path in zip(outputs, job.output_files)
        }
        summary["manifest"] = manifest
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        files.write_text(text + "\n", summary_file)
        # First what makes it a run to go on with: the rest may be interrupted.
        files.remove(_manifest_file(job))
        files.remove_directory(root)
    return summary


def difference(old, new):
    """Says in what one manifest differs from another, or returns None.

    The names of the input files may differ, not their content; checksums count where
    both have them.
    """
    for old_file, new_file in itertools.zip_longest(old["input"], new["input"]):
        if old_file is None or new_file is None:
            return "{} input files, not {}".format(len(old["input"]), len(new["input"]))
        for key in set(old_file) & set(new_file) - {"path"}:
            if old_file[key] != new_file[key]:
                return "another content of {} ({} {}, now {})".format(
                    new_file["path"], key, old_file[key], new_file[key]
                )
    for key in sorted(set(old) | set(new)):
        if key != "input" and old.get(key) != new.get(key):
            return "{} {}, not {}".format(key, old.get(key), new.get(key))
    return None


@contextlib.contextmanager
def _only_one_run(root):
    """Keeps a second run out of the working directory, on one machine.

    The lock is the system's: it ends with the process, however that ends.
    """
    with files.writing(root):
        files.make_directory(root)
    if files.is_remote(root) or fcntl is None:
        yield
        return
    with files.writing(root):
        lock = open(os.path.join(root, "lock"), "w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                "{}: another run is at work there; wait for it, or give another "
                "--output_file".format(root)
            ) from error
        except OSError as error:
            _LOGGER.warning("%s cannot be locked (%s)", root, error.strerror)
        try:
            yield
        finally:
            if os.path.isdir(root) and os.listdir(root) == ["lock"]:
                files.remove_directory(root)


def _relative(paths):
    """The output files as seen from the first one's folder, which may be moved."""
    folder = os.path.dirname(paths[0])
    return [os.path.relpath(path, folder) for path in paths]


def _checksums(paths, stamps, engine):
    total = sum(stamp.size for stamp in stamps)
    _LOGGER.info("reading %.1f MB once, for the checksums", total / 1e6)
    with ByteProgress(total) as progress:
        return engine.run(generation.fingerprint, paths, progress.update)


def _read_json(path):
    """Returns the dict in a file; None where there is no file or no dict in it."""
    if not files.exists(path):
        return None
    try:
        content = json.loads(files.read_text(path))
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _remove_earlier(root, job, summary_file):
    """Removes unfinished runs, a finished one's output and its summary."""
    summary = _read_json(summary_file) or {}
    folder = os.path.dirname(job.output_files[0])
    names = summary.get("output_files", {})
    old = [os.path.join(folder, name) for name in names if "manifest" in summary]
    for path in set(old) | set(job.output_files) | {summary_file}:
        with files.writing(path):
            files.remove(path)
    with files.writing(root):
        for name in files.list_directory(root):
            if name != "lock":
                files.remove_directory(os.path.join(root, name))


def _find_earlier(root, job, manifest, summary_file):
    """Looks at what earlier runs have left.

    Returns:
      dict, the summary of the same run where it is complete, else None.

    Raises:
      UserError: there is something of another run, or what is there is damaged.
    """
    for name in files.list_directory(root):
        path = os.path.join(root, name, "manifest.json")
        if name != "lock" and files.exists(path):
            held = _read_json(path)
            if held is None or "input" not in held:
                raise UserError("{} is damaged; {}".format(path, _ADVICE))
            found = difference(held, manifest)
            if found:
                raise UserError("{} was begun with {}; {}".format(root, found, _ADVICE))
            return None
    present = [path for path in job.output_files if files.exists(path)]
    summary = _read_json(summary_file)
    if summary is None or "input" not in summary.get("manifest", {}):
        if present:
            raise UserError(
                "{} is there already, without a summary; {}".format(present[0], _ADVICE)
            )
        return None
    found = difference(summary["manifest"], manifest)
    if found:
        raise UserError(
            "{} is of a run with {}; {}".format(summary_file, found, _ADVICE)
        )
    if not present:
        return None
    for path, size in zip(job.output_files, summary["output_files"].values()):
        if not files.exists(path) or files.size(path) != size:
            raise UserError("{} is not as it was made; {}".format(path, _ADVICE))
    return summary


def _open_work(job, manifest):
    """Makes the run's own directory, or goes on with it; returns the `Job` in it."""
    # The names of the input files may change.
    content = dict(manifest, input=[entry["sha256"] for entry in manifest["input"]])
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    job = job._replace(work_directory=os.path.join(job.work_directory, digest))
    path = _manifest_file(job)
    if files.exists(path):
        _LOGGER.info("going on with %s", job.work_directory)
        return job
    with files.writing(job.work_directory):
        files.make_directory(job.work_directory)
    files.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", path)
    return job


def _manifest_file(job):
    return os.path.join(job.work_directory, "manifest.json")


def _make_shards(job, shards, engine):
    """Makes the shards that are not done yet; returns what `make_shard` did, of all."""
    todo = [shard for shard in shards if not generation.is_done(job, shard)]
    _LOGGER.info("%d of %d shards are to be made", len(todo), len(shards))
    total, left = (sum(s.num_bytes for s in some) for some in (shards, todo))
    with ByteProgress(total, total - left) as progress:
        engine.run(functools.partial(generation.make_shard, job), todo, progress.update)
    return [_read_json(job.shard_mark(shard.number)) for shard in shards]


@contextlib.contextmanager
def _kept_if_any_is_done(root, job, shards):
    """After a failure keeps what is done, and says so, or leaves nothing behind."""
    try:
        yield
    except BaseException:
        done = sum(files.exists(job.shard_mark(shard.number)) for shard in shards)
        if done:
            _LOGGER.info(
                "%d of %d shards are done, in %s; with the same input and settings "
                "they need not be made again",
                done,
                len(shards),
                root,
            )
        else:
            files.remove_directory(root)
        raise


def _require_unchanged(paths, stamps):
    """Raises `UserError` where an input file is not what it was at the beginning."""
    for path, before, now in zip(paths, stamps, map(files.stamp, paths)):
        if before != now:
            raise UserError(
                "{} has changed during the run ({} bytes, now {}); begin again with "
                "files that stay as they are".format(path, before.size, now.size)
            )


def _require_records(job, statistics, sizes, paths):
    """Raises `UserError` where an output file would be empty."""
    if not statistics.num_sentences:
        raise UserError(corpus.no_sentence_in(paths))
    if 0 in sizes:
        raise UserError(
            "the input gives {} records, too few for {} output files: {} would be "
            "empty".format(
                statistics.num_instances,
                len(job.output_files),
                job.output_files[sizes.index(0)],
            )
        )


def _merge_outputs(job, sizes, num_shards, engine):
    """Puts those output files together that are not complete yet."""
    outputs = range(len(job.output_files))
    todo = [output for output in outputs if not files.exists(job.output_mark(output))]
    _LOGGER.info("putting %d output files together", len(todo))
    with ByteProgress(sum(sizes[output] for output in todo)) as progress:
        merge = functools.partial(generation.merge_output, job, num_shards)
        engine.run(merge, todo, progress.update)
