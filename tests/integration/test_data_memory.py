"""Peak memory of data generation: the same for twice, or ten times, the input."""

import gzip
import json
import random
import subprocess
import sys

import generation_runs as runs
import pytest

pytestmark = pytest.mark.once

# What the documentation names for a process.
MOST_MB = 650
# Between two runs, for pages that the allocator keeps.
SLACK_MB = 60

_MEASURE = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
status, usage = os.wait4(child.pid, 0)[1:]
print("peak", usage.ru_maxrss // 1024)
sys.exit(os.WEXITSTATUS(status))
"""

_WORDS = "今天 天气 很好 我们 一起 去 公园 散步 孩子 老人 下棋 银行 公布 利率"
_WORDS = _WORDS.split()


def _text(num_bytes, separator=""):
    """Words without punctuation, as of song lyrics."""
    rng = random.Random(1)
    words, left = [], num_bytes
    while left > 0:
        words.append(rng.choice(_WORDS) + separator)
        left -= len(words[-1].encode())
    return "".join(words)


@pytest.fixture
def peak(tmp_path):
    """Function that runs the command and returns its peak memory in MB."""
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab += sorted(set("".join(_WORDS)))
    (tmp_path / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")

    def run(name, *more):
        flags = ["--input_file=" + name, "--output_file=out.tfrecord", "--overwrite"]
        flags += ["--vocab_file=vocab.txt", "--max_seq_length=64", "--dupe_factor=1"]
        result = subprocess.run(
            [sys.executable, "-c", _MEASURE] + runs.command(*flags, *more),
            cwd=str(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
        assert result.returncode == 0, result.stderr
        summary = json.loads((tmp_path / "out.tfrecord.summary.json").read_text())
        assert summary["unk_share"] == 0
        return int(result.stdout.split()[-1])

    return run


def test_a_line_of_16_mb(peak, tmp_path):
    sizes = (5 * 2**20, 31 * 2**19)
    for size in sizes:
        name = tmp_path / "{}.txt".format(size)
        name.write_text(_text(size) + "\n", encoding="utf-8")
    first, second = (peak("{}.txt".format(size), "--non_chinese") for size in sizes)
    assert first < MOST_MB and second < MOST_MB
    # A shard's tokens are held, and a line belongs to one shard.
    assert second - first < 160
    assert peak("{}.txt".format(sizes[0])) < MOST_MB  # with jieba


def test_many_small_files(peak, tmp_path):
    for number in (50, 1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        for count in range(number):
            name = folder / "{}.txt".format(count)
            name.write_text(_text(2000, "\n") + "\n", encoding="utf-8")
    more = ("--non_chinese", "--num_output_files=16")
    first, second = peak("50", *more), peak("1000", *more)
    assert second < first + SLACK_MB


_CONVERT = """
import resource, sys
from albert_zh.data import sources
form = sources.Form(encoding="gb18030")
sources.write_plain(form, sys.argv[1], sys.argv[2], bool, lambda num_bytes: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_packed_files_are_converted_in_pieces(repository, tmp_path):
    peaks, text = [], (_text(1000) + "\n").encode("gb18030") * 1000
    for number in (1, 64):
        packed, plain = str(tmp_path / "in.gz"), str(tmp_path / "out.txt")
        with gzip.open(packed, "wb") as file:
            for _ in range(number):
                file.write(text)
        command = [sys.executable, "-c", _CONVERT, packed, plain]
        output = subprocess.check_output(command, cwd=str(repository))
        peaks.append(int(output))
    # All of the larger text would be 40 MB, or 80 as a string.
    assert peaks[1] < peaks[0] + 15


def test_a_packed_line_without_end_is_not_held(tmp_path, assert_user_error):
    """200 MB in a file of 200 kB."""
    with gzip.open(str(tmp_path / "in.gz"), "wb") as file:
        for _ in range(200):
            file.write(b"a" * 2**20)
    runs.write_corpus(tmp_path)
    flags = runs.flags(tmp_path, input_file="in.gz", num_output_files=None)
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE] + runs.command(*flags),
        cwd=str(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )
    assert_user_error(result, "in.gz:1: line of more than 16 MB")
    assert int(result.stdout.split()[-1]) < 300
