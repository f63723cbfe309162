"""What dividing the requests of a moment into batches of like length gains.

    python benchmarks/serving_batches.py --model_dir=MODEL --pairs=DATA/lcqmc/test.tsv

Pairs in random order are answered so many at a time, as by a service under load, with
each bound of the padding that a batch may hold, and without one. The bounds take turns
on the same pairs; shown are the medians of the ratios.
"""

import argparse
import pathlib
import random
import statistics
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import albert_zh  # noqa: E402
from albert_zh.serving import inputs  # noqa: E402

NO_BOUND = sys.maxsize


def build_parser():
    """Returns the benchmark's flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model_dir", required=True, help="a classifier of pairs, or its ONNX export")
    add("--pairs", type=pathlib.Path, required=True, help="lines of text, tab, text")
    add("--sizes", type=int, nargs="+", default=(8, 32, 64), help="pairs at a time")
    add("--bounds", type=int, nargs="+", default=(16, 32, 64, 128), help="tokens")
    add("--turns", type=int, default=10)
    return parser


def main(args):
    """Measures each size; prints the table."""
    lines = args.pairs.read_text(encoding="utf-8-sig").splitlines()
    random.Random(1).shuffle(lines)
    pairs = [line.split("\t")[:2] for line in lines[: args.turns * max(args.sizes)]]
    columns = ["pairs", "ms without a bound"] + list(map(str, args.bounds))
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    with albert_zh.load(args.model_dir, truncate=True) as predictor:
        prepared = [predictor.prepare(pair) for pair in pairs]
        for size in args.sizes:
            chunks = [prepared[i * size : (i + 1) * size] for i in range(args.turns)]
            seconds = measure(predictor, chunks, [NO_BOUND] + list(args.bounds))
            without = seconds[NO_BOUND]
            cells = [str(size), "{:.1f}".format(1000 * statistics.median(without))]
            for bound in args.bounds:
                ratios = [a / b for a, b in zip(without, seconds[bound])]
                cells.append("{:.2f}".format(statistics.median(ratios)))
            rows.append("| " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(rows) + "\n")


def measure(predictor, chunks, bounds):
    """Answers each chunk with each bound.

    Args:
      predictor: `albert_zh.serving.predictor.Predictor`.
      chunks: list of lists of what its `prepare` returns.
      bounds: list of int, padded tokens.

    Returns:
      Dict bound -> list of seconds, one for each chunk.
    """
    seconds = {bound: [] for bound in bounds}
    # The first time, a shape is prepared.
    for is_warm in (False, True):
        for number, chunk in enumerate(chunks):
            for bound in random.Random(number).sample(bounds, len(bounds)):
                inputs.WASTED_TOKENS = bound
                began = time.perf_counter()
                predictor.answer(chunk)
                if is_warm:
                    seconds[bound].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main(build_parser().parse_args())
