"""Entities in texts: features, head, scores, and the form of predictions."""

import bisect
import contextlib
import json
import os
from typing import NamedTuple

import numpy as np

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks import (
    characters,
    distillation_losses,
    entity_metrics,
    kind,
    rows,
    tag_decoders,
    tag_schemes,
    tagged_texts,
)
from albert_zh.tasks.features import Field
from albert_zh.tasks.tag_schemes import Span

PREDICTIONS_FILE = "predictions.json"
DEFAULT_DECODER = "softmax"


class Entity(NamedTuple):
    """An entity: `text` is [start, end) of the source text, whose type is `type`."""

    start: int
    end: int
    text: str
    type: str


class Tagging(kind.Kind):
    """Entities of each text; a prediction is a list of `Entity`, sorted.

    `labels` of its `model_files.TaskFiles` are the types, sorted;
    `options["decoder"]` is one of `tag_decoders.DECODERS`.
    """

    reads_sequence = True
    min_labels = 1
    prediction_files = (PREDICTIONS_FILE,)
    metrics = ("f1", "macro_f1")
    options = {"decoder": {"enum": sorted(tag_decoders.DECODERS)}}
    needed_options = ("decoder",)

    find_labels = staticmethod(tagged_texts.find_types)

    def __init__(self, files):
        super().__init__(files)
        self._encoder = characters.Encoder(self.tokenizer, files.max_seq_length)
        self._decoder = _decoder(files)

    @property
    def target_fields(self):
        """The targets of the decoder."""
        return self._decoder.fields

    @classmethod
    def head(cls, files):
        return _decoder(files).variables(files.config.hidden_size)

    def build_features(self, example):
        features = self._encoder.encode(example.text)
        if example.entities is None:
            return features
        windows = [item.origin for item in features]
        spans = _token_spans(example.entities, _positions(windows))
        targets = self._decoder.targets(spans, windows)
        features = [f._replace(targets=values) for f, values in zip(features, targets)]
        if self._loses_entities(example, features):
            features[0] = features[0]._replace(notes=(self._loss_note(),))
        return features

    def _loses_entities(self, example, features):
        """Whether entities of a labelled text are not among the targets."""
        rows = [self._decoder.perfect(window.targets) for window in features]
        found = {(e.start, e.end, e.type) for e in self.decode(example, features, rows)}
        return not found.issuperset(example.entities)

    def _loss_note(self):
        reason = "overlap others, which --decoder=span can predict"
        if self.files.options["decoder"] == "span":  # tags join the parts of long ones
            reason = "are longer than half of --max_seq_length"
        text = (
            "have entities that cannot be predicted: they {}, or begin or end with "
            "characters that the vocabulary does not know as text, such as spaces"
        )
        return text.format(reason)

    def outputs(self, model, drop=None):
        values = kind.create_variables(self.head(self.files))
        sequence = model.get_sequence_output()[:, 1:]
        if drop:
            sequence = drop(sequence)
        return self._decoder.outputs(sequence, values)

    def losses(self, outputs, features, objective):
        return self._decoder.losses(outputs, features, _lengths(features))

    @classmethod
    def check_has_soft_losses(cls, files, flag):
        """Raises `UserError` for decoders whose scores are not those of single tags."""
        decoder = files.options["decoder"]
        if decoder != "softmax":
            raise UserError(
                "{}: the scores of --decoder={} are not those of each token's tags, "
                "which --decoder=softmax alone has".format(flag, decoder)
            )

    @classmethod
    def class_names(cls, files):
        return tuple(tag_schemes.bio_names(files.labels))

    @property
    def teacher_fields(self):
        """See `kind.Kind`; the tags' logits of one token after the other."""
        num_tags = len(self.class_names(self.files))
        most = num_tags * (self.files.max_seq_length - 1)
        return (Field("teacher_logits", True, np.float32, most_values=most),)

    def teacher_outputs(self, outputs, features):
        return {"teacher_logits": outputs["logits"]}

    def num_teacher_rows(self, window):
        return len(window.input_ids) - 1  # without [CLS]

    def soft_losses(self, outputs, features, temperature):
        """See `kind.Kind`; the mean over the tokens."""
        student = outputs["logits"]  # [B, T - 1, N]
        shape = tf.shape(student)
        teacher = tf.reshape(features["teacher_logits"], [shape[0], -1])
        # The batch may be padded to more tokens than its longest text has.
        missing = shape[1] * shape[2] - tf.shape(teacher)[1]
        teacher = tf.reshape(tf.pad(teacher, [[0, 0], [0, missing]]), shape)
        losses = distillation_losses.softmax_loss(teacher, student, temperature)
        return tag_decoders.mean_over_tokens(losses, _lengths(features))

    def predictions(self, outputs, features):
        return self._decoder.predictions(outputs, _lengths(features))

    def decode(self, example, windows, predicted):
        windows = [window.origin for window in windows]
        positions = _positions(windows)
        entities = []
        for first, end, name in self._decoder.spans(windows, predicted):
            start, end = positions[first], positions[end - 1] + 1
            entities.append(Entity(start, end, example.text[start:end], name))
        return sorted(entities)

    def score(self, examples, predictions):
        return entity_metrics.score(
            [example.text for example in examples],
            [example.entities for example in examples],
            predictions,
            self.files.labels,
        )

    def write_predictions(self, output_dir, data, predictions):
        """Writes `predictions.json`, a line of JSON for each text of the data.

        Texts of JSON lines have CLUENER's form of a submission, {"id": ..., "label":
        {type: {entity: [[start, last character]]}}}. Texts of other files have
        {"id": ..., "text": ..., "entities": [{"start", "end", "text", "type"}]}, where
        `end` is the character after the last. Without an id, the text's number from 0
        on stands for it.
        """
        path = os.path.join(output_dir, PREDICTIONS_FILE)
        form = cluener_form if rows.is_json(data.path) else entity_form
        with files.whole(path) as target:
            for example, entities in predictions:
                line = json.dumps(form(example, entities), ensure_ascii=False) + "\n"
                target.write(line.encode("utf-8"))
        return path

    @contextlib.contextmanager
    def open_submission(self, path, data):
        """Writes CLUENER's form, whatever the data's."""
        with files.whole(path) as target:

            def add(example, entities):
                form = cluener_form(example, entities)
                line = json.dumps(form, ensure_ascii=False) + "\n"
                target.write(line.encode("utf-8"))

            yield add

    def headline(self, scores):
        text = "F1 {f1:.4f}, precision {precision:.4f}, recall {recall:.4f}"
        return text.format(**scores)

    def report(self, name, scores):
        return entity_metrics.format_report(name, scores)


def cluener_form(example, entities):
    """The dict of a text's entities in CLUENER's form; `end` is the last character."""
    label = {}
    for entity in entities:
        places = label.setdefault(entity.type, {}).setdefault(entity.text, [])
        places.append([entity.start, entity.end - 1])
    return {"id": example.id, "label": label}


def entity_form(example, entities):
    """The dict of a text and its entities; `end` is the character after the last."""
    return {
        "id": example.id,
        "text": example.text,
        "entities": [dict(entity._asdict()) for entity in entities],
    }


def _decoder(files):
    decoder = tag_decoders.DECODERS[files.options["decoder"]]
    return decoder(files.labels, files.max_seq_length)


def _positions(windows):
    """The characters that the tokens of a text are, from its `characters.Window`s."""
    positions = []
    for window in windows:
        positions += window.positions[len(positions) - window.begin :]
    return positions


def _token_spans(entities, positions):
    """Spans of characters as spans of tokens, without those that have no token."""
    spans = []
    for start, end, name in entities:
        first, end = (bisect.bisect_left(positions, place) for place in (start, end))
        if first < end:
            spans.append(Span(first, end, name))
    return spans


def _lengths(features):
    """int32 [B], tokens of each window without [CLS] and [SEP]."""
    return tf.maximum(tf.reduce_sum(features["input_mask"], axis=1) - 2, 0)
