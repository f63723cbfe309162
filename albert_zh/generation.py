"""The tasks of data generation: shards of text -> parts -> output files.

The input is divided into shards of about `shard_bytes`, byte ranges between
documents. Every shard is a task of its own with its own random generator, seeded by
the run's seed and the shard's number: it draws all its instances, shuffles them, and
writes an equal part of them for every output file. When all shards are done, each
output file is put together from its parts, in an order of its own. So the bytes
depend on the input, the settings and the seed, not on who makes which shard or when.

A task writes files that appear whole or not at all, its mark last: it can be repeated,
also at the same time as itself.
`generation_run` runs the tasks.
"""

import functools
import hashlib
import itertools
import json
import os
import tempfile
from typing import NamedTuple, Optional, Tuple

import numpy as np

import tokenization
from albert_zh import corpus, files, instances, masking, record_format, segmentation
from albert_zh.errors import UserError
from albert_zh.statistics import Statistics

_COPY_BYTES = 4 * 2**20


class Job(NamedTuple):
    """Everything a task must know; it goes to other processes and machines.

    Attributes:
      settings: `instances.Settings`.
      vocabulary: bytes of the WordPiece vocabulary or SentencePiece model.
      sentencepiece: bool, which of the two it is.
      do_lower_case, normalize_punctuation: as `tokenization.FullTokenizer` has them.
      segmenter: one of `segmentation.SEGMENTERS`; "" for the tokenizer's own words;
        None to mask single tokens.
      encoding_errors: as `corpus.read_range` has it.
      random_seed: int.
      output_files: paths.
      work_directory: path.
    """

    settings: instances.Settings
    vocabulary: bytes
    sentencepiece: bool
    do_lower_case: bool
    normalize_punctuation: bool
    segmenter: Optional[str]
    encoding_errors: str
    random_seed: int
    output_files: Tuple[str, ...]
    work_directory: str

    def shard_mark(self, shard):
        """The file that says a shard is done."""
        return self._path("shard-{:05d}.json", shard)

    def output_mark(self, output):
        """The file that says an output file is complete."""
        return self._path("output-{:05d}.json", output)

    def part(self, shard, output):
        """The records of a shard for an output file."""
        return self._path("shard-{:05d}-of-{:05d}.part", shard, output)

    def _path(self, pattern, *numbers):
        return os.path.join(self.work_directory, pattern.format(*numbers))


class Shard(NamedTuple):
    """A part of the input.

    Attributes:
      number: int, from 0 over all files.
      path: the file.
      begin, end: int, bytes; the shard's documents begin at the first border between
        documents from `begin` on and end at the first from `end` on, which may lie
        beyond the file.
      num_bytes: int, bytes of the file between the two.
    """

    number: int
    path: str
    begin: int
    end: int
    num_bytes: int

    def __str__(self):
        return "shard {} ({}, bytes {} to {})".format(
            self.number, self.path, self.begin, self.begin + self.num_bytes
        )


class Tools(NamedTuple):
    """What a process loads once for all its tasks."""

    tokenizer: tokenization.FullTokenizer
    word_boundaries: Optional[segmentation.WordBoundaries]
    vocabulary: instances.Vocabulary


@functools.lru_cache(maxsize=1)
def load_tools(job):
    """Loads tokenizer, segmenter and vocabulary of a `Job`.

    Returns:
      `Tools`.

    Raises:
      ValueError: the vocabulary cannot be used.
      ImportError, UserError: a package is missing.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "vocabulary")
        with open(path, "wb") as file:
            file.write(job.vocabulary)
        tokenizer = tokenization.FullTokenizer(
            None if job.sentencepiece else path,
            job.do_lower_case,
            spm_model_file=path if job.sentencepiece else None,
            normalize_punctuation=job.normalize_punctuation,
        )
    boundaries = None
    if job.segmenter is not None:
        segment = segmentation.load_segmenter(job.segmenter) if job.segmenter else None
        boundaries = segmentation.WordBoundaries(segment, job.sentencepiece)
    vocabulary = instances.Vocabulary.from_tokenizer(tokenizer)
    return Tools(tokenizer, boundaries, vocabulary)


def plan_shards(paths, sizes, shard_bytes):
    """Divides files into shards, without reading them.

    Args:
      paths: list of files.
      sizes: list of their sizes in bytes.
      shard_bytes: int.

    Returns:
      List of `Shard`.
    """
    shards = []
    for path, size in zip(paths, sizes):
        for begin in range(0, size, shard_bytes):
            num_bytes = min(shard_bytes, size - begin)
            end = begin + shard_bytes
            shards.append(Shard(len(shards), path, begin, end, num_bytes))
    return shards


def make_shard(job, shard, report):
    """Makes the records of one shard.

    Args:
      job: `Job`.
      shard: `Shard`.
      report: function that is told of bytes that have been done.

    Returns:
      dict of `Statistics.to_dict`, and "part_bytes": list of the parts' sizes.

    Raises:
      UserError: the input cannot be read or the output not be written.
    """
    statistics = Statistics(job.settings)
    tools = load_tools(job)
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
    part_bytes = [0] * num_outputs
    for place, size in enumerate(np.diff(bounds).tolist()):
        # In turn, so that small shards together fill all output files.
        output = (place + shard.number) % num_outputs
        part = itertools.islice(records, size)
        path = job.part(shard.number, output)
        part_bytes[output] = record_format.write_records(part, path)
    made = dict(statistics.to_dict(), part_bytes=part_bytes)
    files.write_text(json.dumps(made), job.shard_mark(shard.number))
    return made


def is_done(job, shard):
    """Whether the mark of a shard is there, and every part that is still needed."""
    try:
        made = json.loads(files.read_text(job.shard_mark(shard.number)))
    except ValueError:  # absent or damaged
        return False
    return "part_bytes" in made and all(
        files.exists(job.part(shard.number, output))
        for output in range(len(job.output_files))
        if not files.exists(job.output_mark(output))
    )


def make_records(text, pairs, settings, vocabulary, statistics, rng):
    """Makes the records of pairs, in their order.

    Args:
      text: `instances.TokenizedText`.
      pairs: `instances.Pairs`.
      settings: `instances.Settings`.
      vocabulary: `instances.Vocabulary`.
      statistics: `Statistics`, which is told of the masks.
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


def merge_output(job, num_shards, output, report):
    """Puts one output file together from its parts, and removes them.

    Args:
      job: `Job`.
      num_shards: int.
      output: index of the output file.
      report: as in `make_shard`.

    Raises:
      UserError: a part cannot be read or the output not be written.
    """
    mark = job.output_mark(output)
    if files.exists(mark):
        return
    # Another stretch of the corpus comes first in every file.
    rng = np.random.RandomState([job.random_seed, output, 1])
    parts = [job.part(shard, output) for shard in rng.permutation(num_shards)]
    path = job.output_files[output]
    # In the working directory, which goes away, if that is on the same disk.
    is_near = os.path.dirname(path) == os.path.dirname(job.work_directory)
    directory = job.work_directory if is_near else None
    try:
        with files.whole(path, directory=directory) as target:
            for part in parts:
                with files.reading(part), files.open_file(part) as source:
                    for block in iter(lambda: source.read(_COPY_BYTES), b""):
                        target.write(block)
                        report(len(block))
    except UserError:
        # Another try at the same task may have been faster, parts and all.
        if not files.exists(mark):
            raise
        return
    files.write_text("{}\n", mark)
    for part in parts:
        files.remove(part)


def fingerprint(path, report):
    """Returns the SHA-256 of a file, in hexadecimal digits.

    Raises:
      UserError: it cannot be read.
    """
    digest = hashlib.sha256()
    with files.reading(path), files.open_file(path) as file:
        for block in iter(lambda: file.read(_COPY_BYTES), b""):
            digest.update(block)
            report(len(block))
    return digest.hexdigest()


def _read_shard(job, shard, statistics, report):
    """Yields the sentences of each document of a shard."""
    begin, is_inside = corpus.document_boundary(shard.path, shard.begin, shard.end)
    limit = 2 * shard.end - shard.begin
    end, _ = corpus.document_boundary(shard.path, shard.end, limit)
    if is_inside and begin < end:
        statistics.add_cut_document()
    for document in corpus.read_range(shard.path, begin, end, job.encoding_errors):
        statistics.add_document(document)
        yield document.sentences
        report(document.num_bytes)
