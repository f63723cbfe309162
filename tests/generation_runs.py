"""A corpus of about 20 shards, and the command run on it as users run it."""

import hashlib
import pathlib
import random
import subprocess
import sys

LENGTH, PREDICTIONS = 32, 5
SHARD_BYTES = 6000

SUBJECTS = ["老师", "图书管理员", "小明的爷爷", "中华人民共和国", "我们"]
VERBS = ["昨天看见了", "一直喜欢", "正在研究", "从来没有听说过"]
OBJECTS = ["语言模型", "北京大学的图书馆", "一只白色的猫", "春天"]

_COMMAND = pathlib.Path(__file__).resolve().parent.parent / "create_pretraining_data.py"


def write_corpus(directory):
    """Writes a.txt, b.txt and their vocabulary, vocab.txt."""
    text = "\n".join(_document(number) for number in range(450))
    half = text.index("\n\n", len(text) // 2) + 2
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab += sorted(set(text) - {"\n"})
    for name, content in (
        ("a.txt", text[:half]),
        ("b.txt", text[half:]),
        ("vocab.txt", "\n".join(vocab)),
    ):
        (directory / name).write_text(content, encoding="utf-8")


def _document(number):
    rng = random.Random(number)
    lines = []
    for _ in range(3 + number % 9):
        parts = [rng.choice(words) for words in (SUBJECTS, VERBS, OBJECTS)]
        lines.append("".join(parts) + "。\n")
    return "".join(lines)


def flags(corpus_dir, **changed):
    """The command's flags; None leaves one out."""
    given = dict(
        input_file="{0}/a.txt,{0}/b.txt".format(corpus_dir),
        output_file="out.tfrecord",
        num_output_files=3,
        vocab_file=corpus_dir / "vocab.txt",
        max_seq_length=LENGTH,
        max_predictions_per_seq=PREDICTIONS,
        masked_lm_prob=0.15,
        ngram=2,
        dupe_factor=2,
        shard_bytes=SHARD_BYTES,
    )
    given.update(changed)
    return ["--{}={}".format(*item) for item in given.items() if item[1] is not None]


def command(*given):
    """The list of arguments that runs the command."""
    return [sys.executable, str(_COMMAND)] + [str(flag) for flag in given]


def run(directory, *given, **options):
    """Runs the command in a directory; returns the `subprocess.CompletedProcess`."""
    return subprocess.run(
        command(*given),
        cwd=str(directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        **options,
    )


def start(directory, *given):
    """Starts the command in a process group of its own, without output."""
    return subprocess.Popen(
        command(*given),
        cwd=str(directory),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(process, condition):
    """Waits until a condition holds or a process has ended, whichever is first."""
    while process.poll() is None and not condition():
        try:
            process.wait(timeout=0.002)
        except subprocess.TimeoutExpired:
            pass


def digest(path):
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(directory):
    """Returns dict of name -> SHA-256 of the output files in a directory."""
    return {path.name: digest(path) for path in sorted(directory.glob("*.tfrecord"))}


def leftovers(directory):
    """Returns the names of half-written files below a directory."""
    return sorted(path.name for path in directory.rglob(".*.partial"))
