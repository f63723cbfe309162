"""The tasks of data generation: shards of text -> parts -> output files.

The input is divided between documents into shards of about `shard_bytes`. Each shard
has a random generator seeded by the run's seed and the shard's number: it draws the
shard's instances, shuffles them, and gives an equal section to each output file. When
all shards are done, each output file is assembled from its sections, in an order of its
own. The bytes therefore depend on the input, the settings and the seed, not on which
worker makes which shard, or when.

One task makes a bundle: one shard, or several small ones, whose sections for one output
file are in one part file. So a corpus of many small files makes few temporary files.

A task can be repeated, even concurrently: its files appear whole or not at all, and
its mark is written last. The mark records checksums of the bundle's input and of its
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
from albert_zh.data import (
    corpus,
    instances,
    masking,
    record_format,
    sources,
    text_tools,
)
from albert_zh.data.summary import Statistics

# Shards of a bundle have together a quarter of the bytes of a full shard at most, and
# are so many at most, whose checksums are in one mark.
_SHARE_OF_BUNDLE = 4
_MAX_BUNDLED = 1000


class Job(NamedTuple):
    """Everything a task needs; picklable, for other processes and machines.

    Attributes:
      settings: `instances.Settings`.
      text: `text_tools.TextSettings`.
      random_seed: int.
      output_files: tuple of paths.
      work_directory: path.
      form: `sources.Form` of the input files.
    """

    settings: instances.Settings
    text: text_tools.TextSettings
    random_seed: int
    output_files: Tuple[str, ...]
    work_directory: str
    form: sources.Form = sources.Form()

    def bundle_mark(self, bundle):
        """Path of the file that marks a bundle as done."""
        return self._path("shard-{:05d}.json", bundle)

    def output_mark(self, output):
        """Path of the file that marks an output file as complete."""
        return self._path("output-{:05d}.json", output)

    def part(self, bundle, output):
        """Path of a bundle's records for one output file."""
        return self._path("shard-{:05d}-of-{:05d}.part", bundle, output)

    def plain_text(self, number):
        """Path of an input file's text, converted to plain UTF-8."""
        return self._path("text-{:05d}.txt", number)

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


class Bundle(NamedTuple):
    """Consecutive shards that one task makes."""

    shards: Tuple[Shard, ...]

    @property
    def number(self):
        """Number of the first shard."""
        return self.shards[0].number

    @property
    def num_bytes(self):
        """Bytes of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def input_crc32c(self):
        """List of the checksums of all blocks that the records depend on."""
        return [crc for shard in self.shards for crc in shard.content.checksums]

    def __str__(self):
        more = len(self.shards) - 1
        return str(self.shards[0]) + (" and {} more".format(more) if more else "")


class Section(NamedTuple):
    """The records of one shard for one output file.

    Attributes:
      bundle: int, number of the shard's bundle.
      begin: int, byte offset in the bundle's part.
      checksum: `Checksum`.
    """

    bundle: int
    begin: int
    checksum: Checksum


class Output(NamedTuple):
    """An output file to assemble.

    Attributes:
      number: int, its place among the output files.
      sections: the `Section` of each shard for this file.
    """

    number: int
    sections: Tuple[Section, ...]

    def __str__(self):
        return "output file {}".format(self.number)


class Conversion(NamedTuple):
    """An input file to convert to plain text.

    Attributes:
      number: int, its place among the input files.
      path: the file.
      content: its `checksums.Content`.
    """

    number: int
    path: str
    content: checksums.Content

    def __str__(self):
        return "conversion of {}".format(self.path)


def convert(job, conversion, report):
    """Converts one input file to plain text; see `sources.write_plain`.

    Args:
      job: `Job`.
      conversion: `Conversion`.
      report: function called with the number of bytes just processed.

    Returns:
      (int, `checksums.Content`): bytes that were replaced, content of the plain text.
    """
    target = job.plain_text(conversion.number)
    num_replaced = sources.write_plain(
        job.form,
        conversion.path,
        target,
        text_tools.load(job.text).tokenizer.has_tokens,
        report,
        conversion.content,
    )
    _, content = checksums.fingerprint(target, lambda num_bytes: None)
    return num_replaced, content


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


def bundle_shards(shards, shard_bytes):
    """Groups small consecutive shards.

    Args:
      shards: list of `Shard`, from `plan_shards`.
      shard_bytes: int, as given there.

    Returns:
      List of `Bundle`.
    """
    # Their records are held in memory until the part files are written.
    most = shard_bytes // _SHARE_OF_BUNDLE
    bundles, some, num_bytes = [], [], 0
    for shard in shards:
        num_bytes += shard.num_bytes
        if some and (num_bytes > most or len(some) == _MAX_BUNDLED):
            bundles.append(Bundle(tuple(some)))
            some, num_bytes = [], shard.num_bytes
        some.append(shard)
    return bundles + ([Bundle(tuple(some))] if some else [])


def make_bundle(job, bundle, report):
    """Makes the records of one bundle.

    Args:
      job: `Job`.
      bundle: `Bundle`.
      report: function called with the number of bytes just processed.

    Returns:
      dict, the content of the bundle's mark (see `mark_schema`).

    Raises:
      UserError: the input cannot be read or has changed, or the output cannot be
        written.
    """
    statistics = Statistics(job.settings)
    num_outputs = len(job.output_files)
    written = [None] * num_outputs
    if len(bundle.shards) == 1:
        for output, records in _draw_shard(job, bundle.shards[0], statistics, report):
            written[output] = _write_part(job.part(bundle.number, output), [records])
    else:
        held = [[] for _ in range(num_outputs)]
        for shard in bundle.shards:
            for output, records in _draw_shard(job, shard, statistics, report):
                held[output].append(list(records))
        for output, sections in enumerate(held):
            written[output] = _write_part(job.part(bundle.number, output), sections)
    with files.writing(job.work_directory):
        files.sync_directory(job.work_directory)
    made = dict(
        statistics.to_dict(),
        input_crc32c=bundle.input_crc32c,
        part_bytes=[part.size for part, _ in written],
        part_crc32c=[part.crc32c for part, _ in written],
        section_bytes=[[s.size for s in sections] for _, sections in written],
        section_crc32c=[[s.crc32c for s in sections] for _, sections in written],
    )
    # The parts and their names are on the disk by now.
    files.write_text(json.dumps(made), job.bundle_mark(bundle.number))
    return made


def _draw_shard(job, shard, statistics, report):
    """Draws the records of one shard.

    Yields:
      (number of an output file, iterator of its records, bytes), for every output
      file; to be read in this order.
    """
    tools = text_tools.load(job.text)
    text, num_empty = instances.tokenize(
        _read_shard(job, shard, tools.tokenizer, statistics, report),
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
    for place, size in enumerate(np.diff(bounds).tolist()):
        # Rotated, so that small shards together fill all output files.
        yield (place + shard.number) % num_outputs, itertools.islice(records, size)


def _write_part(path, sections):
    """Writes a part file.

    Args:
      path: the file.
      sections: iterable of iterables of records, bytes.

    Returns:
      (`Checksum` of the file, list of the sections' `Checksum`s).
    """
    made, each = checksums.NOTHING, []
    with files.whole(path, syncs_name=False) as file:
        for records in sections:
            section = checksums.NOTHING
            for record in records:
                framed = record_format.frame(record)
                file.write(framed)
                section = section.extended(framed)
                made = made.extended(framed)
            each.append(section)
    return made, each


def sections_of(bundle, mark, output):
    """Returns the `Section`s of a bundle for one output file, from the mark."""
    sizes, crcs = mark["section_bytes"][output], mark["section_crc32c"][output]
    begins = itertools.accumulate([0] + sizes)
    return [
        Section(bundle.number, begin, Checksum(size, crc))
        for begin, size, crc in zip(begins, sizes, crcs)
    ]


def mark_schema(job, num_shards):
    """Returns the JSON Schema of the mark of a bundle of `num_shards`, a dict.

    A mark has the dict of `Statistics.to_dict`, the checksums of the input's blocks
    (`Shard.content`), and size and checksum of the part for each output file and of its
    sections.
    """
    # Histograms of other lengths, or numbers beyond int64, could not be added up.
    count = {"type": "integer", "minimum": 0, "maximum": 2**53}

    def arrays(length, items):
        return {"type": "array", "items": items, "minItems": length, "maxItems": length}

    def numbers(length):
        return arrays(length, count)

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
        "section_bytes": arrays(len(job.output_files), numbers(num_shards)),
        "section_crc32c": arrays(len(job.output_files), numbers(num_shards)),
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
    """Assembles one output file from its sections, and removes its parts.

    Args:
      job: `Job`.
      output: `Output`.
      report: function called with the number of bytes just written.

    Raises:
      UserError: a part cannot be read or has changed, the output cannot be written,
        or another file has its name.
    """
    mark = job.output_mark(output.number)
    if files.exists(mark):
        return
    # Each file starts with another part of the corpus.
    rng = np.random.RandomState([job.random_seed, output.number, 1])
    sections = [
        output.sections[shard]
        for shard in rng.permutation(len(output.sections)).tolist()
    ]
    parts = {s.bundle: job.part(s.bundle, output.number) for s in sections}
    path = job.output_files[output.number]
    try:
        if files.lexists(path):
            made = _require_made_of(path, parts, sections)
        else:
            made = _write_output(job, path, parts, sections, report)
    except UserError:
        # A concurrent run of the same task may have finished and removed the parts.
        if not files.exists(mark):
            raise
        return
    files.write_text(json.dumps(made._asdict()) + "\n", mark)
    for part in parts.values():
        files.remove(part)


def _write_output(job, path, parts, sections, report):
    """Writes an output file; returns its `Checksum`."""
    # In the working directory, which is removed later, if that is on the same disk.
    is_near = os.path.dirname(path) == os.path.dirname(
        os.path.dirname(job.work_directory)
    )
    made = checksums.NOTHING
    with files.whole(path, directory=job.work_directory if is_near else None) as file:
        for block in _checked_blocks(parts, sections):
            file.write(block)
            made = made.extended(block)
            report(len(block))
    return made


def _require_made_of(path, parts, sections):
    """Returns the `Checksum` of a file written just before a run was stopped.

    Raises:
      UserError: the file does not consist of these sections.
    """
    made = checksums.NOTHING
    for block in _checked_blocks(parts, sections):
        made = made.extended(block)
    if checksums.of_file(path, lambda num_bytes: None) != made:
        raise UserError(
            "{} exists already and is not from this run; move it away and rerun the "
            "same command, or give another --output_file".format(path)
        )
    return made


def _checked_blocks(parts, sections):
    """Yields the bytes of `Section`s; `parts` is a dict of bundle -> path.

    Raises:
      UserError: a part cannot be read, or its bytes, all yielded by then, have
        another checksum.
    """
    for section in sections:
        path, found = parts[section.bundle], checksums.NOTHING
        for block in checksums.blocks(path, section.begin, section.checksum.size):
            found = found.extended(block)
            yield block
        if found != section.checksum:
            raise UserError(
                "{} has changed since it was made; rerun the same command to make it "
                "again".format(path)
            )


def _read_shard(job, shard, tokenizer, statistics, report):
    """Yields the sentences of each document of a shard."""
    path, content, has_tokens = shard.path, shard.content, tokenizer.has_tokens
    begin, is_inside = corpus.document_boundary(
        path, shard.begin, shard.end, content, has_tokens
    )
    limit = 2 * shard.end - shard.begin
    end, _ = corpus.document_boundary(path, shard.end, limit, content, has_tokens)
    if is_inside and begin < end:
        statistics.add_cut_document()
    for document in corpus.read_range(
        path, begin, end, job.form.encoding_errors, content, has_tokens
    ):
        statistics.add_document(document)
        yield document.sentences
        report(document.num_bytes)
