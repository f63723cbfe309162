"""Extractive reading comprehension: answers are spans of a text (SQuAD, CMRC 2018).

A window is [CLS] question [SEP] a part of the text [SEP]. Windows overlap; a token that
stands in several is judged in the one where it has the most context (BERT's
`run_squad.py`, arXiv:1810.04805). The head scores each token as the first and as the
last of the answer, and [CLS] as "no answer here".
"""

import contextlib
import functools
import os
from typing import Any, List, NamedTuple, Tuple

import numpy as np

from albert_zh.base import json_files
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks import answer_metrics, distillation_losses, kind
from albert_zh.tasks.features import Features, Field

PREDICTIONS_FILE = "predictions.json"
NBEST_FILE = "nbest_predictions.json"

# The form of CLUE's cmrc2018_predict.json, and the n-best file of BERT's script.
_FILES = (PREDICTIONS_FILE, NBEST_FILE)

# What the head scores each token as, of an answer.
_ENDS = ("start", "end")
# Tokens of the text that a window has at least.
_MIN_WINDOW = 1
# [CLS] question [SEP] text [SEP]
_NUM_SPECIAL = 3
# Spans of a window that are looked at for each answer kept: many have the same text.
_SPANS_PER_ANSWER = 20
# Contexts whose tokens are kept for the next questions about them.
_CONTEXTS_KEPT = 16

_COUNT = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}


class Settings(NamedTuple):
    """How texts become windows, and logits become answers.

    Attributes:
      doc_stride: tokens between the beginnings of two windows.
      max_query_length: tokens of a question; what is longer is cut.
      n_best_size: answers of a question in the n-best file.
      max_answer_length: tokens of an answer. CMRC 2018 has answers of 87 characters in
        its dev file, so that BERT's 30 is too few.
      version_2_with_negative: whether a question may have no answer.
      null_score_diff_threshold: by how much the score of "no answer" must exceed that
        of the best answer.
    """

    doc_stride: int = 128
    max_query_length: int = 64
    n_best_size: int = 20
    max_answer_length: int = 128
    version_2_with_negative: bool = False
    null_score_diff_threshold: float = 0.0

    @classmethod
    def for_length(cls, max_seq_length, given):
        """The defaults for windows of a length: BERT's, or less where they are short.

        Args:
          max_seq_length: int.
          given: dict field -> value, what the user gives in place of defaults.
        """
        question = given.get(
            "max_query_length", min(64, max(1, (max_seq_length - _NUM_SPECIAL) // 2))
        )
        window = max_seq_length - question - _NUM_SPECIAL
        defaults = {
            "max_query_length": question,
            "doc_stride": min(128, max(1, window // 2)),
        }
        return cls(**dict(defaults, **given))

    @classmethod
    def of(cls, files):
        """The settings of a model, `model_files.TaskFiles`."""
        given = {n: files.options[n] for n in cls._fields if n in files.options}
        return cls.for_length(files.max_seq_length, given)

    def check(self, max_seq_length):
        """Raises `UserError` where windows of this length would skip text.

        Also for a threshold of "no answer" where every question has one.
        """
        if self.null_score_diff_threshold and not self.version_2_with_negative:
            raise UserError(
                "--null_score_diff_threshold={:g}: the model answers every question; "
                "remove it, or train with --version_2_with_negative".format(
                    self.null_score_diff_threshold
                )
            )
        window = max_seq_length - self.max_query_length - _NUM_SPECIAL
        if window < _MIN_WINDOW:
            raise UserError(
                "--max_query_length={}: leaves no room for a text in --max_seq_length="
                "{}; expected at most {}".format(
                    self.max_query_length,
                    max_seq_length,
                    max_seq_length - _NUM_SPECIAL - _MIN_WINDOW,
                )
            )
        if self.doc_stride > window:
            raise UserError(
                "--max_seq_length={0} --max_query_length={1} --doc_stride={2}: windows "
                "of {3} tokens of a text, {2} apart, would skip some; give a "
                "--doc_stride of at most {3}, a smaller --max_query_length or a larger "
                "--max_seq_length".format(
                    max_seq_length, self.max_query_length, self.doc_stride, window
                )
            )


class Window(NamedTuple):
    """The part of a text that a window has.

    Attributes:
      position: of its first token in the inputs.
      starts, ends: int64 [n], spans of characters of its tokens in the text.
      is_judged: bool [n], whether no other window has more context for a token.
    """

    position: int
    starts: np.ndarray
    ends: np.ndarray
    is_judged: np.ndarray


class Answer(NamedTuple):
    """An answer, cut from the text.

    Attributes:
      text: str, `context[start:end]`; "" for no answer.
      start, end: half-open span of characters; 0, 0 for no answer.
      probability: share among the answers of the question that are kept.
      start_logit, end_logit: its scores, natural logarithms.
    """

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float
    probability: float = 0.0

    @property
    def score(self):
        """The sum of its logits."""
        return self.start_logit + self.end_logit


class Prediction(NamedTuple):
    """The answer to a question, and the best ones that were considered for it."""

    text: str
    probability: float
    answers: Tuple[Answer, ...]


class SpanExtraction(kind.Kind):
    """The answer to a question, a span of a text. A prediction is a `Prediction`."""

    target_fields = (Field("start_positions"), Field("end_positions"))
    teacher_fields = tuple(
        Field("teacher_{}_logits".format(name), True, np.float32) for name in _ENDS
    )
    reads_sequence = True
    has_head_dropout = False
    prediction_files = _FILES
    metrics = ("exact_match", "f1")
    # In the first epochs no answer may be exact.
    tie_breakers = ("exact_match", "f1")
    options = {
        "doc_stride": _COUNT,
        "max_query_length": _COUNT,
        "n_best_size": _COUNT,
        "max_answer_length": _COUNT,
        "version_2_with_negative": {"type": "boolean"},
        "null_score_diff_threshold": {"type": "number"},
    }
    usage_options = tuple(sorted(set(options) - {"version_2_with_negative"}))

    def __init__(self, files):
        """See `kind.Kind`."""
        super().__init__(files)
        self.settings = Settings.of(files)
        self._tokens = functools.lru_cache(_CONTEXTS_KEPT)(self._tokenize)

    @classmethod
    def check_options(cls, files):
        """Raises `UserError` as `Settings.check`."""
        Settings.of(files).check(files.max_seq_length)

    @classmethod
    def head(cls, files):
        """See `kind.Kind`; the names of BERT's script."""
        return (
            kind.Variable("cls/squad/output_weights", (2, files.config.hidden_size)),
            kind.Variable("cls/squad/output_bias", (2,), is_bias=True),
        )

    def _tokenize(self, context):
        """Returns ids (list), starts and ends (int64 [n]) of the tokens of a text."""
        tokens = self.tokenizer.tokenize_with_offsets(context)
        ids = self.tokenizer.convert_tokens_to_ids([token.text for token in tokens])
        spans = np.array([token[1:] for token in tokens], np.int64).reshape(-1, 2)
        return ids, spans[:, 0], spans[:, 1]

    def build_features(self, example):
        tokenizer, longest = self.tokenizer, self.settings.max_query_length
        question = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(example.question))
        prefix = [tokenizer.cls_id] + question[:longest] + [tokenizer.sep_id]
        ids, starts, ends = self._tokens(example.context)
        size = self.files.max_seq_length - len(prefix) - 1
        firsts = window_starts(len(ids), size, self.settings.doc_stride)
        judged = window_of_tokens(len(ids), firsts, size)
        target = token_span(example.span, starts, ends)
        holding = [
            n for n, f in enumerate(firsts) if target and _holds(f, size, target)
        ]
        is_judged = any(judged[target[0]] == number for number in holding)
        notes = self._notes(len(question), target, bool(holding), is_judged)
        features = []
        for number, first in enumerate(firsts):
            part = slice(first, first + size)
            window = ids[part] + [tokenizer.sep_id]
            origin = Window(
                len(prefix), starts[part], ends[part], judged[part] == number
            )
            features.append(
                Features(
                    prefix + window,
                    [0] * len(prefix) + [1] * len(window),
                    _targets(target, first, size, len(prefix)),
                    notes=notes,
                    origin=origin,
                )
            )
        return features

    def _notes(self, num_question_tokens, target, is_whole, is_judged):
        """What to tell of a question: see `features.Features`.

        Args:
          num_question_tokens: int, of the whole question.
          target: first and last token of the answer, or None.
          is_whole: whether a window holds the answer whole.
          is_judged: whether that window is the one that judges its first token.
        """
        notes, settings = [], self.settings
        if num_question_tokens > settings.max_query_length:
            note = "have a question cut to {} tokens"
            notes.append(note.format(settings.max_query_length))
        # CMRC 2018's trial file has one, which counts when scored.
        if not num_question_tokens:
            notes.append("have an empty question")
        if target and not is_whole:
            notes.append("have an answer that no window holds whole")
        if is_whole and not is_judged:
            notes.append(
                "have an answer cut by the window with the most context for its first "
                "token, which is never predicted; a smaller --doc_stride or a larger "
                "--max_seq_length keeps it whole"
            )
        if target and target[1] - target[0] >= settings.max_answer_length:
            note = "have an answer of over {} tokens, which is never predicted"
            notes.append(note.format(settings.max_answer_length))
        return tuple(notes)

    def outputs(self, model, drop=None):
        """See `kind.Kind`; as in BERT, without dropout in front of the head."""
        weights, bias = kind.create_variables(self.head(self.files))
        tokens = model.get_sequence_output()  # [B, T, H]
        logits = tf.tensordot(tokens, weights, [[2], [1]]) + bias  # [B, T, 2]
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}

    def losses(self, outputs, features, objective):
        """Mean cross-entropy of first and last token.

        It is over what can be one, and [CLS], which stands for no answer: not over the
        question or padding.
        """
        is_candidate = _are_candidates(features)
        total = 0.0
        for name in _ENDS:
            logits = outputs[name + "_logits"]
            logits = tf.where(is_candidate, logits, tf.fill(tf.shape(logits), -1e9))
            total += tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=features[name + "_positions"], logits=logits
            )
        return total / 2

    @classmethod
    def token_settings(cls, files):
        settings = Settings.of(files)
        return {n: getattr(settings, n) for n in ("doc_stride", "max_query_length")}

    def teacher_outputs(self, outputs, features):
        return {"teacher_" + name: value for name, value in outputs.items()}

    def num_teacher_rows(self, window):
        return len(window.input_ids)

    def soft_losses(self, outputs, features, temperature):
        """See `kind.Kind`; over the candidates of `losses`, mean of first and last."""
        is_candidate, total = _are_candidates(features), 0.0
        for name in _ENDS:
            total += distillation_losses.softmax_loss(
                features["teacher_{}_logits".format(name)],
                outputs[name + "_logits"],
                temperature,
                is_candidate,
            )
        return total / 2

    def predictions(self, outputs, features):
        return dict(outputs)

    def decode(self, example, windows, predicted):
        """See `kind.Kind`; finds the best spans of all, not only of the best ends."""
        answers, null = [], None
        for window, row in zip(windows, predicted):
            answers += self._answers(example.context, window.origin, row)
            start, end = float(row["start_logits"][0]), float(row["end_logits"][0])
            # The window that is the least sure that it has no answer decides.
            if null is None or start + end < null.score:
                null = Answer("", 0, 0, start, end)
        answers.sort(key=lambda answer: -answer.score)
        best = _different(answers)[: self.settings.n_best_size]
        kept = best
        if self.settings.version_2_with_negative or not best:
            kept = sorted(best + [null], key=lambda answer: -answer.score)
        scores = np.array([answer.score for answer in kept])
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        kept = [a._replace(probability=float(p)) for a, p in zip(kept, shares)]
        text = best[0].text if best else ""
        if best and self.settings.version_2_with_negative:
            excess = null.score - best[0].score
            text = "" if excess > self.settings.null_score_diff_threshold else text
        probability = next(a.probability for a in kept if a.text == text)
        return Prediction(text, probability, tuple(kept))

    def _answers(self, context, window, row):
        """Returns the list of the best `Answer`s of a window."""
        place = slice(window.position, window.position + len(window.starts))
        start_logits, end_logits = row["start_logits"][place], row["end_logits"][place]
        number = _SPANS_PER_ANSWER * self.settings.n_best_size
        firsts, lasts = best_spans(
            np.where(window.is_judged, start_logits, -np.inf),
            end_logits,
            self.settings.max_answer_length,
            number,
        )
        answers = []
        for first, last in zip(firsts.tolist(), lasts.tolist()):
            start, end = int(window.starts[first]), int(window.ends[last])
            # SentencePiece's mark of white space alone is a token without characters.
            if start < end:
                logits = float(start_logits[first]), float(end_logits[last])
                answers.append(Answer(context[start:end], start, end, *logits))
        return answers

    def score(self, examples, predictions):
        answers = [example.answers or () for example in examples]
        return answer_metrics.score(answers, [p.text for p in predictions])

    def write_predictions(self, output_dir, data, predictions):
        """Writes `predictions.json` and, with several answers, the n-best file."""
        texts, nbest = {}, {}
        for example, prediction in predictions:
            texts[example.id] = prediction.text
            nbest[example.id] = [answer._asdict() for answer in prediction.answers]
        path = os.path.join(output_dir, PREDICTIONS_FILE)
        json_files.write(nbest, os.path.join(output_dir, NBEST_FILE))
        json_files.write(texts, path)
        return path

    @contextlib.contextmanager
    def open_submission(self, path, data):
        """Writes one object, {id: answer}."""
        texts = {}

        def add(example, prediction):
            texts[example.id] = prediction.text

        yield add
        json_files.write(texts, path)

    def headline(self, scores):
        return "EM {exact_match:.4f}, F1 {f1:.4f}".format(**scores)

    def report(self, name, scores):
        lines = [super().report(name, scores)]
        for group in ("answerable", "unanswerable"):
            if group in scores:
                lines.append("  " + super().report(group, scores[group]))
        return "".join(lines)


def _are_candidates(features):
    """Which tokens can be the first or last of an answer, and [CLS]: bool [B, T]."""
    is_text = tf.equal(features["segment_ids"], 1)
    return tf.concat([tf.ones_like(is_text[:, :1]), is_text[:, 1:]], axis=1)


def window_starts(num_tokens, size, stride):
    """Where the windows of a text begin, the last one where it first reaches the end.

    Args:
      num_tokens: of the text; 0 has one window, too.
      size: tokens of a window.
      stride: tokens between two beginnings, at most `size`.

    Returns:
      Range of int. For 10 tokens, windows of 6 and a stride of 3: 0, 3, 6.
    """
    num_after_first = -(-max(num_tokens - size, 0) // stride)
    return range(0, num_after_first * stride + 1, stride)


def window_of_tokens(num_tokens, firsts, size):
    """Which window has the most context for each token.

    BERT's measure: the smaller of the numbers of tokens to its left and to its right in
    the window, and a hundredth of the window's length; the first of equal windows.

    Args:
      num_tokens: of the text.
      firsts: where each window begins.
      size: tokens of a window; the last one may have fewer.

    Returns:
      int64 [num_tokens], the numbers of windows.
    """
    most = np.full(num_tokens, -1.0)
    chosen = np.zeros(num_tokens, np.int64)
    for number, first in enumerate(firsts):
        length = min(size, num_tokens - first)
        left = np.arange(length)
        context = np.minimum(left, left[::-1]) + 0.01 * length
        is_more = context > most[first : first + length]
        most[first : first + length][is_more] = context[is_more]
        chosen[first : first + length][is_more] = number
    return chosen


def token_span(span, starts, ends):
    """The tokens that a span of characters has a part in.

    Args:
      span: half-open span of characters, or None.
      starts, ends: int64 [n], spans of the tokens, ascending.

    Returns:
      (first token, last token), or None where there is no span, or no token in it.
    """
    if span is None:
        return None
    # A token without characters (start == end) is in no span.
    inside = np.flatnonzero((ends > span[0]) & (starts < span[1]) & (ends > starts))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _holds(first, size, target):
    """Whether a window has all of a span of tokens, (first token, last token)."""
    return first <= target[0] and target[1] < first + size


def _targets(target, first, size, position):
    """The targets of a window: positions of the span, or of [CLS] without it."""
    start = end = 0
    if target and _holds(first, size, target):
        start, end = (position + token - first for token in target)
    return {"start_positions": start, "end_positions": end}


def best_spans(start_logits, end_logits, max_length, number):
    """The spans with the largest sums of start and end logit.

    Args:
      start_logits: float [n]; -inf where no span may begin.
      end_logits: float [n].
      max_length: most tokens of a span.
      number: how many spans to find.

    Returns:
      Two int64 arrays, first and last token of each, the best first; of equal sums the
      earlier, then the shorter first. At most `number`, fewer where there are fewer.
    """
    size = len(end_logits)
    max_length = min(max_length, size)
    if not size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    padded = np.concatenate([end_logits, np.full(max_length - 1, -np.inf)])
    lasts = np.arange(size)[:, np.newaxis] + np.arange(max_length)
    sums = (start_logits[:, np.newaxis] + padded[lasts]).ravel()
    order = np.flatnonzero(sums > -np.inf)
    if len(order) > number:
        # All that are no worse than the last one wanted: ties are broken by place.
        least = np.partition(sums[order], len(order) - number)[len(order) - number]
        order = order[sums[order] >= least]
    order = order[np.argsort(-sums[order], kind="stable")][:number]
    firsts, lengths = np.divmod(order, max_length)
    return firsts, firsts + lengths


def _different(answers: List[Any]):
    """Returns the first of the answers of each text, in their order."""
    found = {}
    for answer in answers:
        found.setdefault(answer.text, answer)
    return list(found.values())
