"""Time to fine-tune LCQMC beside Hugging Face transformers: the whole command.

    python benchmarks/fine_tuning_speed.py --data=DATA --work=/tmp/fine_tuning_speed
    python benchmarks/fine_tuning_speed.py --split=train --turns=1 ...

DATA is a folder with `lcqmc/` (train.tsv, dev.tsv, test.tsv) and
`bert_zh_vocab/vocab.txt`. Both train a randomly initialized albert_tiny of Google's
layout for one epoch over the same pairs and score it on the test pairs, from start to
exit: imports, tokenizing, training, scoring. transformers pads each batch to its
longest pair, tokenizes in its fast tokenizer, and trains with AdamW, in float32 and
under `torch.autocast` in bfloat16; run_classifier.py chooses its precision itself. The
contestants take turns, so that a ratio compares what ran within minutes.
"""

import argparse
import functools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.work_directory import work_directory  # noqa: E402

CONFIG = REPOSITORY / "albert_config" / "albert_config_tiny_google.json"
PRECISIONS = ("float32", "bfloat16")
LENGTH, BATCH, RATE, WARMUP = 128, 64, 1e-4, 0.1


def build_parser():
    """Returns the benchmark's flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=work_directory, required=True)
    parser.add_argument("--split", choices=("dev", "train"), default="dev")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS
    )
    return parser


def main(args):
    """Lets the contestants take turns; prints the table."""
    files = {
        "train": args.data / "lcqmc" / (args.split + ".tsv"),
        "test": args.data / "lcqmc" / "test.tsv",
        "vocab": args.data / "bert_zh_vocab" / "vocab.txt",
    }
    contestants = {"here": functools.partial(ours, files, args.work / "run")}
    for precision in args.precisions:
        name = "transformers, " + precision
        contestants[name] = functools.partial(theirs, files, precision)
    seconds = {name: [] for name in contestants}
    accuracy = {}
    for _ in range(args.turns):
        for name, contestant in contestants.items():
            began = time.perf_counter()
            accuracy[name] = contestant()
            seconds[name].append(time.perf_counter() - began)
    rows = [
        "| contestant | seconds | accuracy | times as fast here |",
        "|---" * 4 + "|",
    ]
    for name, found in seconds.items():
        ratios = [b / a for a, b in zip(seconds["here"], found)]
        rows.append(
            "| {} | {} | {:.4f} | {:.2f} |".format(
                name,
                ", ".join(map("{:.1f}".format, found)),
                accuracy[name],
                statistics.median(ratios),
            )
        )
    sys.stdout.write("\n".join(rows) + "\n")


def ours(files, folder):
    """Runs run_classifier.py in a new folder; returns the accuracy."""
    shutil.rmtree(str(folder), ignore_errors=True)
    run(
        REPOSITORY / "run_classifier.py",
        "--task_name=lcqmc",
        "--do_train",
        "--do_eval",
        "--train_file={}".format(files["train"]),
        "--test_file={}".format(files["test"]),
        "--vocab_file={}".format(files["vocab"]),
        "--albert_config_file={}".format(CONFIG),
        "--output_dir={}".format(folder),
        "--max_seq_length={}".format(LENGTH),
        "--train_batch_size={}".format(BATCH),
        "--learning_rate={}".format(RATE),
        "--warmup_proportion={}".format(WARMUP),
        "--num_train_epochs=1",
    )
    results = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
    return results["test"]["accuracy"]


def theirs(files, precision):
    """Runs `train_transformers` in a process of its own; returns the accuracy."""
    names = [str(files[name]) for name in ("train", "test", "vocab")]
    return float(run(__file__, "--transformers", *names, precision).split()[-1])


def run(script, *flags):
    """Runs a script; returns what it wrote to standard output."""
    return subprocess.run(
        [sys.executable, str(script), *map(str, flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        check=True,
        env=dict(os.environ, TOKENIZERS_PARALLELISM="true"),
    ).stdout


def train_transformers(train_file, test_file, vocab_file, precision):
    """One epoch and the score, as a user of transformers would write them."""
    import torch
    import transformers

    torch.manual_seed(1)
    tokenizer = transformers.BertTokenizerFast(vocab_file)
    config = transformers.AlbertConfig(num_labels=2, **json.loads(CONFIG.read_text()))
    model = transformers.AlbertForSequenceClassification(config)
    collate = transformers.DataCollatorWithPadding(tokenizer)

    def load(path, shuffle):
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
        rows = [line.split("\t") for line in lines]
        # Some of the files have a header.
        first, second, labels = zip(*(row for row in rows if row[2].isdecimal()))
        tokens = tokenizer(
            list(first), list(second), truncation=True, max_length=LENGTH
        )
        examples = [
            dict({name: tokens[name][i] for name in tokens}, labels=int(label))
            for i, label in enumerate(labels)
        ]
        return torch.utils.data.DataLoader(
            examples, batch_size=BATCH, shuffle=shuffle, collate_fn=collate
        )

    autocast = torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"
    )
    batches = load(train_file, True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, int(WARMUP * len(batches)), len(batches)
    )
    for batch in batches:
        with autocast:
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    right = total = 0
    for batch in load(test_file, False):
        with torch.inference_mode(), autocast:
            logits = model(**batch).logits
        right += int((logits.argmax(-1) == batch["labels"]).sum())
        total += len(logits)
    sys.stdout.write("{}\n".format(right / total))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--transformers"]:
        train_transformers(*sys.argv[2:])
    else:
        main(build_parser().parse_args())
