"""The main job on real data: records, pretraining, LCQMC; time, memory, quality.

    python benchmarks/main_job.py --data=$ALBERT_ZH_DATA --work=/tmp/main_job

Runs the repository's commands as a user would, one process each, and prints a
Markdown table of wall time, processor time, peak resident memory and results. The
data directory holds `bert_zh_vocab/vocab.txt`, `niutrans_modern/modern_zh.txt` and
`lcqmc/{dev,test}.tsv`. LCQMC's dev split serves as training set and its test split
as evaluation. The number to compare is the last epoch's accuracy: the best of the
three epochs, shown beside it, is chosen on the evaluation data.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.work_directory import work_directory

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

TRAIN_BYTES = 2000000
HELD_OUT_BYTES = 400000
LENGTHS = ["--max_seq_length=128", "--max_predictions_per_seq=20"]
CONFIG = "--albert_config_file=" + str(
    REPOSITORY / "albert_config" / "albert_config_tiny.json"
)


def run(*command):
    """Runs one command; returns (seconds, processor seconds, peak memory in MB)."""
    line = [sys.executable, str(REPOSITORY / command[0])] + list(command[1:])
    sys.stdout.write("$ {}\n".format(" ".join([command[0]] + list(command[1:]))))
    sys.stdout.flush()
    start = time.time()
    process = subprocess.Popen(line)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("{} failed".format(command[0]))
    processor = usage.ru_utime + usage.ru_stime
    return time.time() - start, processor, usage.ru_maxrss / 1024


def split_corpus(corpus, work):
    """Writes the first and the last bytes of a corpus, whole lines, to two files."""
    content = corpus.read_bytes()
    head = content[:TRAIN_BYTES]
    tail = content[-HELD_OUT_BYTES:]
    (work / "train.txt").write_bytes(head[: head.rindex(b"\n") + 1])
    (work / "held_out.txt").write_bytes(tail[tail.index(b"\n") + 1 :])


def make_records(vocab, work, row):
    for name in ("train", "held_out"):
        records = str(work / (name + ".tfrecord"))
        cost = run(
            "create_pretraining_data.py",
            "--input_file=" + str(work / (name + ".txt")),
            "--output_file=" + records,
            "--vocab_file=" + vocab,
            "--masked_lm_prob=0.15",
            "--dupe_factor=3",
            *LENGTHS,
        )
        summary = json.loads(pathlib.Path(records + ".summary.json").read_text())
        wrong = count_continued_chinese(records, vocab)
        row(
            "records, " + name,
            cost,
            "{} instances, masked share {:.4f}, SOP swapped {:.4f}, "
            "`##` + Chinese {}".format(
                summary["instances"],
                summary["masked_share"],
                summary["swapped_share"],
                wrong,
            ),
        )


def count_continued_chinese(records_file, vocab_file):
    """Counts labels and inputs of the form `##` + Chinese character."""
    import tensorflow.compat.v1 as tf

    import tokenization
    from albert_zh.data import input_pipeline

    wrong = set()
    for token, number in tokenization.load_vocab(vocab_file).items():
        if token.startswith("##") and tokenization.is_chinese_char(ord(token[2])):
            wrong.add(number)
    count = 0
    for serialized in tf.io.tf_record_iterator(records_file):
        features = input_pipeline.decode_example(serialized)
        for name in ("input_ids", "masked_lm_ids"):
            count += sum(int(number) in wrong for number in features[name])
    return count


def pretrain(work, row):
    output_dir = work / "pretrained"
    shutil.rmtree(str(output_dir), ignore_errors=True)
    shared = ["--output_dir=" + str(output_dir), CONFIG, *LENGTHS]
    cost = run(
        "run_pretraining.py",
        "--input_file=" + str(work / "train.tfrecord"),
        "--do_train=True",
        "--train_batch_size=32",
        "--num_train_steps=600",
        "--num_warmup_steps=60",
        "--learning_rate=0.002",
        *shared,
    )
    row("pretraining, 600 steps", cost, "")
    cost = run(
        "run_pretraining.py",
        "--input_file=" + str(work / "held_out.tfrecord"),
        "--do_eval=True",
        "--max_eval_steps=1000000",
        *shared,
    )
    results = json.loads((output_dir / "eval_results.json").read_text())
    row(
        "held-out evaluation",
        cost,
        "MLM loss {masked_lm_loss:.3f}, MLM accuracy {masked_lm_accuracy:.4f}, "
        "SOP accuracy {sentence_order_accuracy:.4f}".format(**results),
    )


def fine_tune(lcqmc, vocab, work, seeds, row):
    data_dir = work / "lcqmc"
    data_dir.mkdir(exist_ok=True)
    shutil.copy(str(lcqmc / "dev.tsv"), str(data_dir / "train.tsv"))
    shutil.copy(str(lcqmc / "test.tsv"), str(data_dir / "dev.tsv"))
    checkpoint = str(work / "pretrained" / "model.ckpt-600")
    for start, flags in (
        ("from scratch", []),
        ("from the checkpoint", ["--init_checkpoint=" + checkpoint]),
    ):
        accuracies = []
        for seed in seeds:
            output_dir = work / "lcqmc_{}_{}".format(start.split()[-1], seed)
            shutil.rmtree(str(output_dir), ignore_errors=True)
            cost = run(
                "run_classifier.py",
                "--task_name=lcqmc_pair",
                "--do_train=true",
                "--do_eval=true",
                "--data_dir=" + str(data_dir),
                "--vocab_file=" + vocab,
                CONFIG,
                "--max_seq_length=64",
                "--train_batch_size=64",
                "--learning_rate=1e-4",
                "--num_train_epochs=3",
                "--output_dir=" + str(output_dir),
                "--seed={}".format(seed),
                *flags,
            )
            epochs = json.loads((output_dir / "dev_scores.json").read_text())
            accuracies.append(epochs[-1]["accuracy"])
            row(
                "LCQMC {}, seed {}".format(start, seed),
                cost,
                "accuracy {:.4f} (best epoch {:.4f})".format(
                    accuracies[-1], max(epoch["accuracy"] for epoch in epochs)
                ),
            )
        mean = sum(accuracies) / len(accuracies)
        row("LCQMC {}, mean".format(start), None, "accuracy {:.4f}".format(mean))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=work_directory)
    parser.add_argument("--seeds", default="1,2,3", help="of the fine-tuning runs")
    parser.add_argument(
        "--stages", default="records,pretrain,finetune", help="which to run"
    )
    args = parser.parse_args()
    stages = args.stages.split(",")
    vocab = str(args.data / "bert_zh_vocab" / "vocab.txt")
    table = [
        "| stage | seconds | processor seconds | peak MB | result |",
        "|---|---|---|---|---|",
    ]

    def row(stage, cost, result):
        cells = [""] * 3 if cost is None else ["{:.0f}".format(x) for x in cost]
        table.append("| " + " | ".join([stage] + cells + [result]) + " |")

    if "records" in stages:
        split_corpus(args.data / "niutrans_modern" / "modern_zh.txt", args.work)
        make_records(vocab, args.work, row)
    if "pretrain" in stages:
        pretrain(args.work, row)
    if "finetune" in stages:
        seeds = [int(seed) for seed in args.seeds.split(",")]
        fine_tune(args.data / "lcqmc", vocab, args.work, seeds, row)
    import tensorflow

    sys.stdout.write(
        "\nTensorFlow {}, Python {}.{}\n\n{}\n".format(
            tensorflow.__version__, *sys.version_info[:2], "\n".join(table)
        )
    )


if __name__ == "__main__":
    main()
