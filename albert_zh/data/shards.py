"""The tasks of data generation: shards of text -> parts -> output files.

The input is divided between documents into shards of about `shard_bytes`. One task
makes one shard, with a random generator seeded by the run's seed and the shard's
number: it draws the shard's instances, shuffles them, and writes an equal part for
each output file. When all shards are done, each output file is assembled from its
parts, in an order of its own. The bytes therefore depend on the input, the settings
and the seed, not on which worker makes which shard, or when.

A task can be repeated, even concurrently: its files appear whole or not at all, and
its mark is written last. The mark records checksums of the shard's input and of its
parts, so that changed input or parts are noticed. `run` schedules the tasks.
"""

import itertools
import json
import os
from typing import NamedTuple, Tuple

import numpy as np

from albert_zh.base import checksums, files
from albert_zh.base.checksums import Checksum
from albert_zh.base.errors import UserError
from albert_zh.data import corpus, instances, masking, record_format, text_tools
from albert_zh.data.summary import Statistics


class Job(NamedTuple):
    """Everything a task needs; picklable, for other processes and machines.

    Attributes:
      settings: `instances.Settings`.
      text: `text_tools.TextSettings`.
      random_seed: int.
      output_files: tuple of paths.
      work_directory: path.
    """

    settings: instances.Settings
    text: text_tools.TextSettings
    random_seed: int
    output_files: Tuple[str, ...]
    work_directory: str

    def shard_mark(self, shard):
        """Path of the file that marks a shard as done."""
        return self._path("shard-{:05d}.json", shard)

    def output_mark(self, output):
        """Path of the file that marks an output file as complete."""
        return self._path("output-{:05d}.json", output)

    def part(self, shard, output):
        """Path of a shard's records for one output file."""
        return self._path("shard-{:05d}-of-{:05d}.part", shard, output)

    def _path(self, pattern, *numbers):
        return os.path.join(self.work_directory, pattern.format(*numbers))


class Shard(NamedTuple):
    """A part of the input.

    Attributes:
      number: int, counted from 0 over all files.
      path: the file.
      begin, end: int, byte offsets; the shard has the documents from the first
        document boundary at or after `begin` to the first at or after `end`, which
        may be beyond the file.
      num_bytes: int, bytes of the file between `begin` and `end`.
      content: `checksums.Content` of all bytes that the documents depend on.
    """

    number: int
    path: str
    begin: int
    end: int
    num_bytes: int
    content: checksums.Content

    def __str__(self):
        return "shard {} ({}, bytes {} to {})".format(
            self.number, self.path, self.begin, self.begin + self.num_bytes
        )


class Output(NamedTuple):
    """An output file to assemble.

    Attributes:
      number: int, its place among the output files.
      parts: the `Checksum` of each shard's part for this file.
    """

    number: int
    parts: Tuple[Checksum, ...]

    def __str__(self):
        return "output file {}".format(self.number)


def plan_shards(paths, contents, shard_bytes):
    """Divides files into shards without reading them.

    Args:
      paths: list of files.
      contents: list of their `checksums.Content`s.
      shard_bytes: int.

    Returns:
      List of `Shard`.
    """
    shards = []
    for path, content in zip(paths, contents):
        for begin in range(0, content.size, shard_bytes):
            num_bytes = min(shard_bytes, content.size - begin)
            end = begin + shard_bytes
            first, last = corpus.reach(begin, end + shard_bytes)
            known = content.range(first, last)
            shards.append(Shard(len(shards), path, begin, end, num_bytes, known))
    return shards


def make_shard(job, shard, report):
    """Makes the records of one shard.

    Args:
      job: `Job`.
      shard: `Shard`.
      report: function called with the number of bytes just processed.

    Returns:
      dict, the content of the shard's mark (see `mark_schema`).

    Raises:
      UserError: the input cannot be read or has changed, or the output cannot be
        written.
    """
    statistics = Statistics(job.settings)
    tools = text_tools.load(job.text)
    text, num_empty = instances.tokenize(
        _read_shard(job, shard, statistics, report),
        tools.tokenizer,
        tools.word_boundaries,
    )
    statistics.add_text(text, num_empty, tools.vocabulary.unk_id)
    rng = np.random.RandomState([job.random_seed, shard.number])
    pairs = instances.draw_pairs(text, job.settings, tools.vocabulary, rng)
    pairs = pairs.take(rng.permutation(len(pairs.swapped)))
    statistics.add_pairs(pairs)
    records = make_records(text, pairs, job.settings, tools.vocabulary, statistics, rng)
    num_outputs = len(job.output_files)
    bounds = np.arange(num_outputs + 1) * len(pairs.swapped) // num_outputs
    written = [None] * num_outputs
    for place, size in enumerate(np.diff(bounds).tolist()):
        # Rotated, so that small shards together fill all output files.
        output = (place + shard.number) % num_outputs
        part = itertools.islice(records, size)
        path = job.part(shard.number, output)
        written[output] = record_format.write_records(part, path, syncs_name=False)
    with files.writing(job.work_directory):
        files.sync_directory(job.work_directory)
    made = dict(
        statistics.to_dict(),
        input_crc32c=shard.content.checksums,
        part_bytes=[checksum.size for checksum in written],
        part_crc32c=[checksum.crc32c for checksum in written],
    )
    # The parts and their names are on the disk by now.
    files.write_text(json.dumps(made), job.shard_mark(shard.number))
    return made


def mark_schema(job):
    """Returns the JSON Schema of a shard's mark, a dict.

    A mark has the dict of `Statistics.to_dict`, the checksums of the input's blocks
    (`Shard.content`), and size and checksum of the part for each output file.
    """
    # Histograms of other lengths, or numbers beyond int64, could not be added up.
    count = {"type": "integer", "minimum": 0, "maximum": 2**53}

    def numbers(length):
        return {"type": "array", "items": count, "minItems": length, "maxItems": length}

    histograms = Statistics(job.settings).to_dict()["histograms"]
    properties = {
        "counts": {"type": "object", "additionalProperties": count},
        "histograms": {
            "type": "object",
            "properties": {name: numbers(len(h)) for name, h in histograms.items()},
            "required": sorted(histograms),
            "additionalProperties": False,
        },
        "input_crc32c": {"type": "array", "items": count},
        "part_bytes": numbers(len(job.output_files)),
        "part_crc32c": numbers(len(job.output_files)),
    }
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def make_records(text, pairs, settings, vocabulary, statistics, rng):
    """Makes the records of pairs, in the same order.

    Args:
      text: `instances.TokenizedText`.
      pairs: `instances.Pairs`.
      settings: `instances.Settings`.
      vocabulary: `instances.Vocabulary`.
      statistics: `Statistics`, which counts the masks.
      rng: `np.random.RandomState`.

    Yields:
      bytes, see `record_format`.
    """
    length, masks = settings.max_seq_length, settings.masks
    for begin in range(0, len(pairs.swapped), instances.BATCH_INSTANCES):
        some = pairs.take(slice(begin, begin + instances.BATCH_INSTANCES))
        batch = instances.assemble(text, some, length, vocabulary)
        if masks is None:
            features = record_format.dynamic_features(batch, some.swapped)
        else:
            masked = masking.apply_masks(
                batch.input_ids,
                batch.word_lengths,
                batch.second_begin,
                masking.draw(
                    rng, len(some.swapped), length, vocabulary.ordinary_ids, masks
                ),
                vocabulary.mask_id,
                masks,
            )
            statistics.add_masks(masked)
            features = record_format.static_features(batch, masked, some.swapped)
        yield from record_format.encode_batch(features)


def merge_output(job, output, report):
    """Assembles one output file from its parts, and removes them.

    Args:
      job: `Job`.
      output: `Output`.
      report: as in `make_shard`.

    Raises:
      UserError: a part cannot be read or has changed, the output cannot be written,
        or another file has its name.
    """
    mark = job.output_mark(output.number)
    if files.exists(mark):
        return
    # Each file starts with another part of the corpus.
    rng = np.random.RandomState([job.random_seed, output.number, 1])
    parts = [
        (job.part(shard, output.number), output.parts[shard])
        for shard in rng.permutation(len(output.parts)).tolist()
    ]
    path = job.output_files[output.number]
    try:
        if files.lexists(path):
            made = _require_made_of(path, parts)
        else:
            made = _write_output(job, path, parts, report)
    except UserError:
        # A concurrent run of the same task may have finished and removed the parts.
        if not files.exists(mark):
            raise
        return
    files.write_text(json.dumps(made._asdict()) + "\n", mark)
    for part, _ in parts:
        files.remove(part)


def _write_output(job, path, parts, report):
    """Writes an output file; returns its `Checksum`."""
    # In the working directory, which is removed later, if that is on the same disk.
    is_near = os.path.dirname(path) == os.path.dirname(
        os.path.dirname(job.work_directory)
    )
    made = checksums.NOTHING
    with files.whole(path, directory=job.work_directory if is_near else None) as file:
        for block in _checked_blocks(parts):
            file.write(block)
            made = made.extended(block)
            report(len(block))
    return made


def _require_made_of(path, parts):
    """Returns the `Checksum` of a file written just before a run was stopped.

    Raises:
      UserError: the file does not consist of these parts.
    """
    made = checksums.NOTHING
    for block in _checked_blocks(parts):
        made = made.extended(block)
    if checksums.of_file(path, lambda num_bytes: None) != made:
        raise UserError(
            "{} exists already and is not from this run; move it away and rerun the "
            "same command, or give another --output_file".format(path)
        )
    return made


def _checked_blocks(parts):
    """Yields the bytes of all parts, which are pairs (path, `Checksum`).

    Raises:
      UserError: a part cannot be read, or its bytes, all yielded by then, have
        another checksum.
    """
    for path, expected in parts:
        found = checksums.NOTHING
        for block in checksums.blocks(path):
            found = found.extended(block)
            yield block
        if found != expected:
            raise UserError(
                "{} has changed since it was made; rerun the same command to make it "
                "again".format(path)
            )


def _read_shard(job, shard, statistics, report):
    """Yields the sentences of each document of a shard."""
    path, content = shard.path, shard.content
    begin, is_inside = corpus.document_boundary(path, shard.begin, shard.end, content)
    limit = 2 * shard.end - shard.begin
    end, _ = corpus.document_boundary(path, shard.end, limit, content)
    if is_inside and begin < end:
        statistics.add_cut_document()
    for document in corpus.read_range(
        path, begin, end, job.text.encoding_errors, content
    ):
        statistics.add_document(document)
        yield document.sentences
        report(document.num_bytes)
