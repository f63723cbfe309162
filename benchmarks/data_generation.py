"""Speed and memory of data generation on real text, and static against dynamic masks.

    python benchmarks/data_generation.py --data=$ALBERT_ZH_DATA --work=/tmp/bench_data

Runs `create_pretraining_data.py` as a user would, one process tree for each row, and
prints Markdown tables. The text is `niutrans_modern/modern_zh.txt` (7 MB, Chinese),
repeated to the size wanted; `bert_zh_vocab/vocab.txt` is the vocabulary; length 512,
dupe_factor 10, whole words, as the published command has them.

`instances/s a core` is for the processor time of the whole process tree, start
included; `instances/s` is for the wall time. Peak memory is the largest resident set
of any of its processes.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.work_directory import work_directory

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

LENGTH, PREDICTIONS = 512, 51
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def repeat_text(source, target, num_bytes):
    """Writes whole copies of a text, a blank line between two, of about a size."""
    content = source.read_bytes().rstrip(b"\n") + b"\n\n"
    with open(str(target), "wb") as file:
        while file.tell() < num_bytes:
            rest = content[: num_bytes - file.tell()]
            file.write(rest[: rest.rindex(b"\n") + 1] if b"\n" in rest else content)
            if len(rest) < len(content):
                break


class PeakMemory(threading.Thread):
    """Watches the resident memory of a process and its descendants.

    Attributes:
      megabytes: largest resident set of a single process seen so far.
    """

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.megabytes = 0.0
        self._pid = pid
        self._is_over = threading.Event()

    def run(self):
        while not self._is_over.wait(0.05):
            for pid in self._descendants():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    pages = pathlib.Path("/proc/{}/statm".format(pid)).read_text()
                    megabytes = int(pages.split()[1]) * PAGE_MB
                    self.megabytes = max(self.megabytes, megabytes)

    def _descendants(self):
        pids = [self._pid]
        for pid in pids:
            with contextlib.suppress(OSError):
                path = "/proc/{0}/task/{0}/children".format(pid)
                pids += map(int, pathlib.Path(path).read_text().split())
        return pids

    def end(self):
        self._is_over.set()
        self.join()


def generate(text, work, vocab, *flags):
    """Runs the command; returns a dict of what it cost and made."""
    output = work / "records"
    shutil.rmtree(str(output), ignore_errors=True)
    command = [
        str(REPOSITORY / "create_pretraining_data.py"),
        "--input_file={}".format(text),
        "--output_file={}".format(output / "out.tfrecord"),
        "--vocab_file={}".format(vocab),
        "--max_seq_length={}".format(LENGTH),
        *flags,
    ]
    sys.stderr.write("$ {}\n".format(" ".join(command)))
    before, start = os.times(), time.time()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    memory = PeakMemory(process.pid)
    memory.start()
    status = process.wait()
    memory.end()
    after, seconds = os.times(), time.time() - start
    if status:
        sys.exit("the command failed")
    processor = after.children_user + after.children_system
    processor -= before.children_user + before.children_system
    summary = json.loads((output / "out.tfrecord.summary.json").read_text("utf-8"))
    return {
        "seconds": seconds,
        "processor": processor,
        "megabytes": memory.megabytes,
        "instances": summary["instances"],
        "text_mb": text.stat().st_size / 1e6,
        "disk_mb": sum(p.stat().st_size for p in output.glob("*.tfrecord")) / 1e6,
    }


def speed_row(name, cost, base=None):
    rate = cost["instances"] / cost["seconds"]
    return "| {} | {:.1f} | {:.0f} | {:.0f} | {} | {:.2f} | {:.0f} |".format(
        name,
        cost["seconds"],
        rate,
        cost["instances"] / cost["processor"],
        "{:.2f}".format(rate / base) if base else "",
        cost["text_mb"] / cost["seconds"],
        cost["megabytes"],
    )


def bench_speed(source, work, vocab, segmenters, megabytes):
    """One and two workers, with each segmenter."""
    text = work / "speed.txt"
    repeat_text(source, text, megabytes * 10**6)
    table = [
        "| segmenter, workers | seconds | instances/s | instances/s a core | speed-up "
        "| MB of text/s | peak MB of a process |",
        "|---|---|---|---|---|---|---|",
    ]
    for segmenter in segmenters:
        base = None
        for num_workers in (1, 2):
            cost = generate(
                text,
                work,
                vocab,
                "--segmenter=" + segmenter,
                "--num_workers={}".format(num_workers),
                "--shard_bytes={}".format(2 * 2**20),
            )
            name = "{}, {}".format(segmenter, num_workers)
            table.append(speed_row(name, cost, base))
            base = base or cost["instances"] / cost["seconds"]
    return table


def bench_memory(source, work, vocab, segmenter, sizes):
    """Small and large text, shards of 16 MB, two workers."""
    table = [
        "| text | seconds | instances/s | instances/s a core | | MB of text/s "
        "| peak MB of a process |",
        "|---|---|---|---|---|---|---|",
    ]
    for megabytes in sizes:
        text = work / "memory.txt"
        repeat_text(source, text, megabytes * 10**6)
        flags = ["--segmenter=" + segmenter, "--num_workers=2", "--num_output_files=8"]
        flags.append("--shard_bytes={}".format(16 * 2**20))
        cost = generate(text, work, vocab, *flags)
        table.append(speed_row("{} MB".format(megabytes), cost))
        shutil.rmtree(str(work / "records"))
        text.unlink()
    return table


def bench_masking(source, work, vocab, segmenter):
    """Ten static copies against one dynamic, in the making and in the reading."""
    table = [
        "| masking | seconds | records | MB on disk | sequences/s read, 2 threads "
        "| sequences/s trained, albert_tiny | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for masking in ("static", "dynamic"):
        cost = generate(
            source, work, vocab, "--segmenter=" + segmenter, "--masking=" + masking
        )
        path = work / "records" / "out.tfrecord"
        read, trained = reading_rate(path, vocab), training_rate(path, work, vocab)
        table.append(
            "| {} | {:.1f} | {} | {:.1f} | {:.0f} | {:.1f} | {:.0f} |".format(
                masking,
                cost["seconds"],
                cost["instances"],
                cost["disk_mb"],
                read,
                trained,
                read / trained,
            )
        )
    return table


def training_rate(path, work, vocab, num_steps=40):
    """Returns the sequences a second that `run_pretraining.py` trains, with tiny."""
    output_dir = work / "trained"
    shutil.rmtree(str(output_dir), ignore_errors=True)
    command = [
        str(REPOSITORY / "run_pretraining.py"),
        "--input_file={}".format(path),
        "--output_dir={}".format(output_dir),
        "--do_train=True",
        "--albert_config_file={}".format(
            REPOSITORY / "albert_config" / "albert_config_tiny.json"
        ),
        "--vocab_file={}".format(vocab),
        "--max_seq_length={}".format(LENGTH),
        "--max_predictions_per_seq={}".format(PREDICTIONS),
        "--train_batch_size=4",
        "--num_train_steps={}".format(num_steps),
        "--num_warmup_steps=1",
    ]
    sys.stderr.write("$ {}\n".format(" ".join(command)))
    log = subprocess.run(
        [sys.executable, *command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ).stderr
    return float(re.findall(r"sequences/s ([0-9.]+)", log)[-1])


def reading_rate(path, vocab, batch_size=32, num_batches=600):
    """Returns the sequences a second of the input pipeline of training."""
    import numpy as np
    import tensorflow.compat.v1 as tf

    import tokenization
    from albert_zh.data import input_pipeline, instances, masking

    vocabulary = instances.Vocabulary.from_tokenizer(
        tokenization.FullTokenizer(str(vocab))
    )
    is_dynamic = input_pipeline.check_record_files([str(path)], LENGTH, PREDICTIONS)
    masks = input_pipeline.DynamicMasks(
        masking.MaskSettings(0.1, PREDICTIONS),
        vocabulary.mask_id,
        vocabulary.ordinary_ids,
    )
    input_fn = input_pipeline.input_fn_builder(
        [str(path)],
        LENGTH,
        PREDICTIONS,
        vocab_size=30000,
        is_training=True,
        seed=1,
        masks=masks if is_dynamic else None,
        reading=input_pipeline.Reading(shuffle_records=1000, num_threads=2),
    )
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = input_fn({"batch_size": batch_size})
        features = tf.data.make_one_shot_iterator(dataset).get_next()
        total = tf.add_n(
            [tf.reduce_sum(tf.cast(value, tf.float32)) for value in features.values()]
        )
        for _ in range(50):
            session.run(total)
        start = time.time()
        for _ in range(num_batches):
            assert np.isfinite(session.run(total))
        return batch_size * num_batches / (time.time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=work_directory)
    parser.add_argument("--segmenters", default="jieba,rjieba")
    parser.add_argument("--speed_mb", type=int, default=28, help="text of the first")
    parser.add_argument("--memory_mb", default="10,1000", help="texts of the second")
    args = parser.parse_args()
    source = args.data / "niutrans_modern" / "modern_zh.txt"
    vocab = args.data / "bert_zh_vocab" / "vocab.txt"
    for path in (source, vocab):
        if not path.exists():
            parser.error("--data: there is no {}".format(path))
    segmenters = args.segmenters.split(",")
    sizes = [int(size) for size in args.memory_mb.split(",")]
    tables = [
        bench_speed(source, args.work, vocab, segmenters, args.speed_mb),
        bench_memory(source, args.work, vocab, segmenters[-1], sizes),
        bench_masking(source, args.work, vocab, segmenters[-1]),
    ]
    for table in tables:
        sys.stdout.write("\n" + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
