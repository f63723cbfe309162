"""Speed of predictions beside transformers and ONNX Runtime, and of the service.

    python benchmarks/serving.py --data=DATA --work=/tmp/serving

DATA is a folder with `lcqmc/` (train.tsv, dev.tsv, test.tsv) and
`bert_zh_vocab/vocab.txt`. An albert_tiny of Google's layout is fine-tuned for a moment,
exported, and converted, so that all contestants have the same weights; the exports are
compared with it on dev.tsv, which it has not seen. Every contestant is a process of its
own and takes the text of a pair to its label: one pair at a time, the median; and all
test pairs at once. They take turns, so that a ratio compares what ran within seconds.
The foreign ONNX file is torch's export of transformers' model, which is what Optimum
writes, quantized by ONNX Runtime. Then `serve.py` is asked by 1, 8 and 64 clients on
the loopback address.
"""

import argparse
import asyncio
import itertools
import json
import os
import pathlib
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.work_directory import work_directory  # noqa: E402

CONFIG = REPOSITORY / "albert_config" / "albert_config_tiny_google.json"
LENGTH, BATCH = 128, 64
NUM_TRAINING_PAIRS = 8802
SINGLES_OF_A_TURN = 200
CLIENTS = (1, 8, 64)
# Of the seconds of each number of clients; before each, the predictor alone.
SLICES = 5
ALONE_PAIRS = 1000
PARTS = ("predictor", "service")
SERVED = (
    ("tensorflow", os.path.join("model", "best")),
    ("onnx", "onnx"),
    ("onnx", "onnx_int8"),
)
HERE = ("here", "here_onnx", "here_int8")
FOREIGN = ("transformers", "foreign_onnx", "foreign_int8")


# --- Contestants: each loads its model and returns a function of a list of pairs ------


def here(work):
    """The resident predictor on TensorFlow."""
    return _resident(work / "model" / "best", "tensorflow")


def here_onnx(work):
    """The resident predictor on the exported file, float32."""
    return _resident(work / "onnx", "onnx")


def here_int8(work):
    """The resident predictor on the exported file, int8."""
    return _resident(work / "onnx_int8", "onnx")


def _resident(directory, backend):
    import albert_zh

    predictor = albert_zh.load(str(directory), backend=backend, truncate=True)

    def predict(pairs):
        return [answer["label"] for answer in predictor([list(p) for p in pairs])]

    return predict


def transformers(work):
    """The pipeline of transformers."""
    import transformers as library

    directory = str(work / "huggingface")
    pipeline = library.pipeline(
        "text-classification",
        model=directory,
        tokenizer=library.BertTokenizerFast.from_pretrained(directory),
    )

    def predict(pairs):
        inputs = [dict(text=a, text_pair=b) for a, b in pairs]
        found = pipeline(inputs, batch_size=BATCH, truncation=True, max_length=LENGTH)
        return [answer["label"] for answer in found]

    return predict


def foreign_onnx(work):
    """torch's export in ONNX Runtime, float32."""
    return _foreign(work, "model.onnx")


def foreign_int8(work):
    """torch's export in ONNX Runtime, int8."""
    return _foreign(work, "model_int8.onnx")


def _foreign(work, name):
    import numpy as np
    import onnxruntime
    import transformers as library

    session = onnxruntime.InferenceSession(
        str(work / "foreign" / name), providers=["CPUExecutionProvider"]
    )
    directory = work / "huggingface"
    tokenizer = library.BertTokenizerFast.from_pretrained(str(directory))
    settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    labels = settings["id2label"]

    def predict(pairs):
        found = []
        for first in range(0, len(pairs), BATCH):
            one, two = zip(*pairs[first : first + BATCH])
            inputs = tokenizer(
                list(one),
                list(two),
                padding=True,
                truncation=True,
                max_length=LENGTH,
                return_tensors="np",
            )
            logits = session.run(["logits"], {k: inputs[k] for k in FED})[0]
            found += [labels[str(i)] for i in np.argmax(logits, -1)]
        return found

    return predict


FED = ("input_ids", "attention_mask", "token_type_ids")


def export_foreign(work):
    """Writes torch's ONNX export of the converted model, and quantizes it."""
    import onnxruntime.quantization as quantization
    import torch
    import transformers as library

    model = library.AlbertForSequenceClassification.from_pretrained(
        str(work / "huggingface"), attn_implementation="eager"
    ).eval()
    (work / "foreign").mkdir(exist_ok=True)
    path = work / "foreign" / "model.onnx"
    example = tuple(torch.ones([2, 16], dtype=torch.long) for _ in FED)
    torch.onnx.export(
        model,
        example,
        str(path),
        input_names=list(FED),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in FED},
        opset_version=17,
        dynamo=False,
    )
    quantization.quantize_dynamic(
        str(path), str(work / "foreign" / "model_int8.onnx"), per_channel=True
    )


# --- The comparison -------------------------------------------------------------------


class Contestant:
    """A process that answers what it is asked on its standard input."""

    def __init__(self, name, work, pairs_file):
        command = [sys.executable, __file__, "--contestant", name, str(work)]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command + [str(pairs_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self.first = self.ask("first")
        self.start = time.perf_counter() - began
        self.singles, self.rates = [], []

    def ask(self, what):
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def contend(name, work, pairs_file):
    """Serves one contestant; prints a line of JSON for each question."""
    lines = pathlib.Path(pairs_file).read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split("\t")[:2]) for line in lines]
    predict = globals()[name](pathlib.Path(work))
    turn = 0
    for question in sys.stdin:
        question = question.strip()
        answer = {}
        if question == "first":
            answer["labels"] = predict(pairs[:1])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer["megabytes"] = peak / 1024
        elif question == "singles":
            times = []
            first = turn * SINGLES_OF_A_TURN % (len(pairs) - SINGLES_OF_A_TURN)
            turn += 1
            for pair in pairs[first : first + SINGLES_OF_A_TURN]:
                began = time.perf_counter()
                predict([pair])
                times.append(time.perf_counter() - began)
            answer["seconds"] = times
        else:
            began = time.perf_counter()
            answer["labels"] = predict(pairs)
            answer["seconds"] = time.perf_counter() - began
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def compare(work, pairs_file, turns):
    """Lets all contestants take turns; prints the table."""
    contestants = {n: Contestant(n, work, pairs_file) for n in HERE + FOREIGN}
    labels, number = {}, len(pairs_file.read_text(encoding="utf-8").splitlines())
    for contestant in contestants.values():
        contestant.ask("singles")
    for _ in range(turns):
        for contestant in contestants.values():
            contestant.singles.append(
                statistics.median(contestant.ask("singles")["seconds"])
            )
        for name, contestant in contestants.items():
            answer = contestant.ask("all")
            labels[name] = answer["labels"]
            contestant.rates.append(number / answer["seconds"])
    columns = "contestant", "start to first answer, s", "its peak MB"
    columns += "one pair, ms", "pairs/s", "agree"
    show("| " + " | ".join(columns) + " |")
    show("|---" * len(columns) + "|")
    for name, contestant in contestants.items():
        agree = sum(a == b for a, b in zip(labels[name], labels["here"])) / number
        show(
            "| {} | {:.2f} | {:.0f} | {:.2f} | {:.0f} | {:.4f} |".format(
                name,
                contestant.start,
                contestant.first["megabytes"],
                1000 * statistics.median(contestant.singles),
                statistics.median(contestant.rates),
                agree,
            )
        )
        contestant.close()
    for name in HERE:
        for other in FOREIGN:
            one, two = contestants[name], contestants[other]
            pairs = zip(two.singles, one.singles)
            single = statistics.median(a / b for a, b in pairs)
            rate = statistics.median(a / b for a, b in zip(one.rates, two.rates))
            text = "{} / {}: one pair {:.2f} times, all pairs {:.2f}, start {:.2f}"
            show(text.format(name, other, single, rate, two.start / one.start))


def show(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# --- The service ----------------------------------------------------------------------


def serve(directory, backend, pairs, seconds):
    """Asks the service with growing numbers of clients; prints the table.

    In slices, which take turns with the predictor alone, as the machine drifts.
    """
    predict = _resident(directory, backend)
    labels = predict(pairs)
    show("\nserve.py --model_dir={}, {} cores".format(directory, os.cpu_count()))
    command = [sys.executable, str(REPOSITORY / "serve.py"), "--name=pairs", "--port=0"]
    process = subprocess.Popen(
        command + ["--model_dir={}".format(directory), "--backend=" + backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    port = int(process.stdout.readline().split(":")[-1].strip("/\n "))
    show(
        "| clients | answers/s | the predictor alone | ratio | median ms | p99 ms "
        "| wrong or lost |"
    )
    show("|---" * 7 + "|")
    for clients in CLIENTS:
        load = Load(port, pairs, labels)
        alone, served = [], []
        for _ in range(SLICES):
            alone.append(rate_of(predict, pairs[:ALONE_PAIRS]))
            answered, began = len(load.times), time.perf_counter()
            asyncio.run(load.run(clients, seconds / SLICES))
            # Until the last answer: those of the end have been asked for before it.
            elapsed = time.perf_counter() - began
            served.append((len(load.times) - answered) / elapsed)
        times = sorted(load.times)
        show(
            "| {} | {:.0f} | {:.0f} | {:.2f} | {:.1f} | {:.1f} | {} |".format(
                clients,
                statistics.median(served),
                statistics.median(alone),
                statistics.median(a / b for a, b in zip(served, alone)),
                1000 * times[len(times) // 2],
                1000 * times[int(0.99 * len(times))],
                load.wrong,
            )
        )
    process.send_signal(signal.SIGTERM)
    show("exit code {}".format(process.wait()))


def rate_of(predict, pairs):
    """Pairs a second of one call."""
    began = time.perf_counter()
    predict(pairs)
    return len(pairs) / (time.perf_counter() - began)


class Load:
    """Clients that each ask for one pair after another over one connection."""

    def __init__(self, port, pairs, labels):
        self.times, self.wrong, self._port, self._labels = [], 0, port, labels
        self._requests = []
        for a, b in pairs:
            body = json.dumps({"instances": [{"text_a": a, "text_b": b}]}).encode()
            head = "POST /v1/models/pairs:predict HTTP/1.1\r\nHost: localhost\r\n"
            head += "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
            self._requests.append(head.format(len(body)).encode() + body)

    async def run(self, clients, seconds):
        end = time.perf_counter() + seconds
        await asyncio.gather(*(self._client(i, clients, end) for i in range(clients)))

    async def _client(self, first, step, end):
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        number = first
        while time.perf_counter() < end:
            place = number % len(self._requests)
            number += step
            began = time.perf_counter()
            writer.write(self._requests[place])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            self.times.append(time.perf_counter() - began)
            right = '"label":"{}"'.format(self._labels[place])
            if b" 200 " not in head or right not in body.decode().replace(" ", ""):
                self.wrong += 1
        writer.close()


# --- Preparation ----------------------------------------------------------------------


def prepare(args):
    """Makes the models of all contestants from one fine-tuning."""
    shutil.rmtree(str(args.work / "model"), ignore_errors=True)
    for name in ("onnx", "onnx_int8", "huggingface", "foreign"):
        shutil.rmtree(str(args.work / name), ignore_errors=True)
    train_file = args.work / "train.tsv"
    with (args.data / "lcqmc" / "train.tsv").open(encoding="utf-8-sig") as source:
        lines = list(itertools.islice(source, 1 + NUM_TRAINING_PAIRS))  # and a header
    train_file.write_text("".join(lines), encoding="utf-8")
    command(
        "run_classifier.py",
        task_name="lcqmc",
        do_train=True,
        train_file=train_file,
        vocab_file=args.data / "bert_zh_vocab" / "vocab.txt",
        albert_config_file=CONFIG,
        output_dir=args.work / "model",
        max_seq_length=LENGTH,
        num_train_epochs=1,
        learning_rate=1e-4,
        precision="float32",
    )
    model = args.work / "model" / "best"
    for name, precision in (("onnx", "float32"), ("onnx_int8", "int8")):
        flags = dict(model_dir=model, output_dir=args.work / name, format="onnx")
        flags["dev_file"] = args.data / "lcqmc" / "dev.tsv"
        command("export_model.py", precision=precision, **flags)
    flags = {"from": "google", "to": "huggingface"}
    command(
        "convert_checkpoint.py", input=model, output=args.work / "huggingface", **flags
    )
    subprocess.run([sys.executable, __file__, "--export", str(args.work)], check=True)


def command(script, **flags):
    """Runs a command of the repository."""
    given = ["--{}={}".format(*item) for item in flags.items()]
    subprocess.run([sys.executable, str(REPOSITORY / script), *given], check=True)


def build_parser():
    """Returns the benchmark's flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=work_directory, required=True)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    return parser


def main(args):
    """Prepares, compares, serves."""
    pairs_file = args.work / "pairs.tsv"
    text = (args.data / "lcqmc" / "test.tsv").read_text(encoding="utf-8-sig")
    pairs_file.write_text(text, encoding="utf-8")
    prepare(args)
    if "predictor" in args.parts:
        compare(args.work, pairs_file, args.turns)
    pairs = [line.split("\t")[:2] for line in text.splitlines()][:2000]
    for backend, folder in SERVED if "service" in args.parts else ():
        serve(args.work / folder, backend, pairs, args.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contestant"]:
        contend(*sys.argv[2:])
    elif sys.argv[1:2] == ["--export"]:
        export_foreign(pathlib.Path(sys.argv[2]))
    else:
        main(build_parser().parse_args())
