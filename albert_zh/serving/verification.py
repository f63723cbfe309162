"""Compares an exported model with TensorFlow's, on the same texts."""

import collections
import time
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from albert_zh.base.errors import UserError
from albert_zh.serving import encoder, inputs, predictions
from albert_zh.tasks.features import pair_features

# The largest difference of an output for the sample texts, as a share of the largest
# value of it in the batch, or of 1 if that is less. Logits of an int8 model that
# collapse, as published ones have from 12.1 to 5.7, differ by half.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "int8": 0.4}
# The least share of predictions for --dev_file that are the same.
MIN_AGREEMENT = 0.99

_TEXTS = (
    "今天天气怎么样",
    "请问怎么开户,需要带什么证件?",
    "我想知道从北京到上海的高铁要多长时间",
    "这家店的服务很好,菜也好吃,就是等得有点久。",
    "Python 3 和 TensorFlow 2.15 能一起用吗",
    "据新华社报道,2019年中国国内生产总值同比增长6.1%,符合预期目标。",
    "1",
)
_TIMED_RUNS = 20
_WARM_UP_RUNS = 3


class Verification(NamedTuple):
    """What a comparison found.

    Attributes:
      difference: the largest one for the sample texts, as `TOLERANCES` has it.
      latency: of the exported model, median ms of a batch of one text.
      reference_latency: of TensorFlow, the same.
      num_tokens: of that text.
      agreement: share of equal predictions for the dev file, None without one.
      scores: dict of the headlines ("TensorFlow", "export") of the scores on it.
      num_examples: of the dev file.
      dev_difference: as `difference`, of the dev file. The more batches it has, the
        larger is the largest, so that it tells of the file as much as of the export.
    """

    difference: float
    latency: float
    reference_latency: float
    num_tokens: int
    agreement: Optional[float] = None
    scores: Dict[str, str] = {}
    num_examples: int = 0
    dev_difference: Optional[float] = None


def sample_batches(tokenizer, max_seq_length):
    """Batches of texts and pairs, short and as long as the model takes, with padding.

    Args:
      tokenizer: `tokenization.FullTokenizer`.
      max_seq_length: int.

    Returns:
      List of dicts of `inputs.assemble`; the first is of one text.
    """
    pairs = [(text, None) for text in _TEXTS] + list(zip(_TEXTS, _TEXTS[1:]))
    pairs.append(("".join(_TEXTS) * (max_seq_length // 50 + 1), _TEXTS[0]))
    windows = [pair_features(tokenizer, *pair, max_seq_length) for pair in pairs]
    one, long = windows[len(_TEXTS) + 1], windows[-1]
    groups = [[one], windows[: len(_TEXTS)], windows[len(_TEXTS) : -1], [long, one]]
    batches = [
        inputs.assemble(group, max(len(window.input_ids) for window in group))
        for group in groups
    ]
    for batch in batches[1:]:  # what an MLM head reads; other models have no such input
        batch[encoder.MASK_POSITIONS] = np.arange(1, 4, dtype=np.int32)
    return batches


class Models(NamedTuple):
    """The two models to compare.

    Attributes:
      reference: `graphs.ExportGraph`.
      exported: the runtime of the exported model, see `formats`.
      names: list of the outputs that it must have.
    """

    reference: Any
    exported: Any
    names: List[str]


def difference(expected, found, names):
    """The largest difference of outputs; infinite for a missing one and for NaN.

    Args:
      expected: dict name -> array, of TensorFlow.
      found: dict name -> array.
      names: of the outputs to compare.
    """
    largest = 0.0
    for name in names:
        values, others = expected[name], found.get(name)
        if others is None or others.shape != values.shape:
            return float("inf")
        if not (np.isfinite(values).all() and np.isfinite(others).all()):
            return float("inf")
        if values.size:  # the mask head's are none without positions
            scale = max(1.0, float(np.abs(values).max()))
            largest = max(largest, float(np.abs(others - values).max()) / scale)
    return largest


def verify(kind, head, models, data=None):
    """Runs the same texts through TensorFlow and through an exported model.

    Args:
      kind: `kind.Kind` or `encoder.Encoder`.
      head: `onnx_model.Head.name`.
      models: `Models`.
      data: labelled `reading.ExampleFile`, or None.

    Returns:
      `Verification`.
    """
    batches = sample_batches(kind.tokenizer, kind.files.max_seq_length)
    reference, runtime, names = models
    largest = max(
        difference(reference.run(batch), runtime.run(batch), names) for batch in batches
    )
    latencies = [_latency(each, batches[0]) for each in (runtime, reference)]
    found = Verification(largest, *latencies, num_tokens=batches[0]["input_ids"].size)
    if data is None or not np.isfinite(largest):
        return found
    compared = _Comparison(kind, head, data.examples, models)
    return found._replace(
        dev_difference=compared.difference,
        agreement=agreement(kind, *compared.predictions),
        scores={
            name: kind.headline(kind.score(data.examples, predicted))
            for name, predicted in zip(("TensorFlow", "export"), compared.predictions)
        },
        num_examples=data.num_examples,
    )


def check(found, precision, source):
    """Refuses an export that is not the model.

    Args:
      found: `Verification`.
      precision: key of `TOLERANCES`.
      source: of the model, for the message.

    Raises:
      UserError: it differs too much.
    """
    advice = "" if precision == "float32" else "; export it with --precision=float32"
    if not found.difference <= TOLERANCES[precision]:
        raise UserError(
            "{}: the {} export differs from TensorFlow by {:.2g} of an output, more "
            "than {:g}; nothing was written{}".format(
                source, precision, found.difference, TOLERANCES[precision], advice
            )
        )
    if found.agreement is None:
        return
    if not np.isfinite(found.dev_difference):
        raise UserError(
            "{}: the {} export has no finite output for some texts of --dev_file; "
            "nothing was written{}".format(source, precision, advice)
        )
    if found.agreement < MIN_AGREEMENT:
        raise UserError(
            "{}: the {} export and TensorFlow agree on {:.2%} of --dev_file, less than "
            "{:.0%}; nothing was written{}".format(
                source, precision, found.agreement, MIN_AGREEMENT, advice
            )
        )


class _Comparison:
    """The predictions of two models for the same examples.

    Attributes:
      difference: the largest one of their outputs.
      predictions: two lists, of `kind.Kind.decode` for each example.
    """

    def __init__(self, kind, head, examples, models):
        reference, runtime, names = models
        features = [kind.build_features(example) for example in examples]
        windows = [window for group in features for window in group]
        rows = [[None] * len(windows) for _ in range(2)]
        self.difference = 0.0
        for places, batch in inputs.batches(windows, kind.files.max_seq_length):
            outputs = reference.run(batch), runtime.run(batch)
            self.difference = max(self.difference, difference(*outputs, names))
            for own, output in zip(rows, outputs):
                predicted = predictions.of_outputs(head, output, batch)
                for number, place in enumerate(places):
                    own[place] = {name: v[number] for name, v in predicted.items()}
        self.predictions = [_decode(kind, examples, features, own) for own in rows]


def _decode(kind, examples, features, rows):
    """The list of the predictions of examples, from the rows of all their windows."""
    rows, decoded = iter(rows), []
    for example, windows in zip(examples, features):
        own = [next(rows) for _ in windows]
        decoded.append(kind.decode(example, windows, own))
    return decoded


def agreement(kind, expected, found):
    """How far two lists of predictions agree.

    Args:
      kind: `kind.Kind`.
      expected, found: lists of predictions of the same examples.

    Returns:
      Float up to 1: the share of labels, choices or answers that are the same; F1 of
      entities and of several labels; of numbers the concordance correlation (Lin,
      1989), which is lower than Pearson's where they are shifted or scaled.
    """
    if kind.files.task.kind == "regression":
        return _concordance(np.array(expected), np.array(found))
    marks = _MARKS[kind.files.task.kind]
    common = total = 0
    for pair in zip(expected, found):
        a, b = (collections.Counter(marks(kind, prediction)) for prediction in pair)
        common += 2 * sum((a & b).values())
        total += sum(a.values()) + sum(b.values())
    return common / total if total else 1.0


def _concordance(a, b):
    spread = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    if spread < 1e-6:  # all the same number
        return 1.0
    return float(2 * np.mean((a - a.mean()) * (b - b.mean())) / spread)


def _best(kind, prediction):
    return [int(np.argmax(prediction))]


# Kind -> function (kind, prediction) -> what it says, as a list.
_MARKS: Dict[str, Any] = {
    "classification": _best,
    "multiple_choice": _best,
    "multi_label": lambda kind, p: np.flatnonzero(p >= kind.threshold).tolist(),
    "cloze": lambda kind, p: list(enumerate(p.indices.tolist())),
    "span_extraction": lambda kind, p: [p.text],
    "tagging": lambda kind, p: [(e.start, e.end, e.type) for e in p],
}


def _latency(model, batch):
    """The median time of a run, in ms."""
    for _ in range(_WARM_UP_RUNS):
        model.run(batch)
    times = []
    for _ in range(_TIMED_RUNS):
        begin = time.perf_counter()
        model.run(batch)
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times))
