"""Pretraining driven through the library, without the command."""

import collections
import json
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline, masking, record_files, record_format
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.training import estimator as estimators
from albert_zh.training import pretraining
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

LENGTH, PREDICTIONS, BATCH = CONFIG.max_position_embeddings, 2, 4
FORM = input_pipeline.Form(LENGTH, PREDICTIONS, CONFIG.vocab_size)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """`RecordFiles` of 16 records."""
    random = np.random.RandomState(0)
    path = str(tmp_path_factory.mktemp("records") / "a.tfrecord")
    features = {
        "input_mask": np.ones(LENGTH, np.int64),
        "segment_ids": np.arange(LENGTH) > 4,
        "masked_lm_positions": [1, 2],
        "masked_lm_ids": [6, 7],
        "masked_lm_weights": np.ones(2),
        "next_sentence_labels": [0],
    }
    contents = [
        record_format.encode_example(
            dict(features, input_ids=random.randint(5, CONFIG.vocab_size, LENGTH))
        )
        for _ in range(16)
    ]
    record_format.write_records(contents, path)
    return record_files.find(path, FORM, masking.MaskSettings())


def training(num_steps=4, batch_size=BATCH, **settings):
    schedule = estimators.Schedule("lamb", 0.01, num_steps, 1, batch_size)
    return pretraining.Training(schedule, **settings)


def model_in(output_dir, init_checkpoint=None):
    start = model_directory.ModelDirectory(None, checkpoint=init_checkpoint)
    return pretraining.Pretraining(start, CONFIG, str(output_dir))


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    """The directory of a finished training."""
    output_dir = tmp_path_factory.mktemp("trained")
    model_in(output_dir).train(records, training())
    return output_dir


def test_a_model_is_trained_evaluated_and_resumed(records, tmp_path):
    model = model_in(tmp_path)
    model.train(records, training(4, micro_batch_size=2))
    scores = model.evaluate(records, batch_size=8)
    assert scores["global_step"] == 4 and np.isfinite(scores["masked_lm_loss"])
    assert json.loads((tmp_path / "eval_results.json").read_text()) == scores
    # Another object, as of another process, finds the run.
    again = model_in(tmp_path)
    again.train(records, training(6, micro_batch_size=2))
    assert again.evaluate(records, batch_size=8)["global_step"] == 6


def test_a_resumed_run_says_which_settings_change(records, trained, tmp_path, caplog):
    output_dir = tmp_path / "run"
    shutil.copytree(str(trained), str(output_dir))
    start = model_directory.ModelDirectory(None)
    # Nothing is left to train, whatever the settings.
    model_in(output_dir).train(records, training())
    assert "is resumed with" not in caplog.text
    other = pretraining.Pretraining(start, CONFIG, str(output_dir), sop_weight=0.5)
    schedule = training().schedule._replace(shape="tenth")
    other.train(records, pretraining.Training(schedule))
    line = "resumed with --lr_schedule=tenth (was linear), --sop_weight=0.5 (was 1.0)"
    assert caplog.text.count("is resumed with") == 1 and line in caplog.text
    caplog.clear()
    # As of an earlier version.
    (output_dir / "optimizer.json").write_text('{"optimizer": "lamb"}')
    model_in(output_dir).train(records, training())
    assert "is resumed with" not in caplog.text
    record = json.loads((output_dir / "optimizer.json").read_text())
    assert record["settings"]["--sop_weight"] == 1.0


def test_masks_of_records_without_them_are_recorded_settings(tmp_path, records):
    masks = input_pipeline.DynamicMasks(masking.MaskSettings(0.3), 4, np.arange(5, 9))
    model = model_in(tmp_path)
    settings = model._settings(training(), records._replace(masks=masks))
    assert settings["--masked_lm_prob"] == 0.3
    assert settings["--mask_token_share"] == 0.8
    assert "--masked_lm_prob" not in model._settings(training(), records)


def test_numerics_are_handed_on_whole(records, tmp_path, monkeypatch):
    """Whatever fields they have: the model takes them as keyword arguments."""
    given = []

    class Model(modeling.AlbertModel):
        def __init__(self, *arguments, new_field, **settings):
            given.append(new_field)
            super().__init__(*arguments, **settings)

    fields = modeling.Numerics._fields + ("new_field",)
    numerics = collections.namedtuple("Numerics", fields)(*modeling.FLOAT32, "whole")
    monkeypatch.setattr(modeling, "AlbertModel", Model)
    runtime = estimators.Runtime(numerics=numerics)
    start = model_directory.ModelDirectory(None)
    model = pretraining.Pretraining(start, CONFIG, str(tmp_path), runtime)
    model.train(records, training(1))
    assert set(given) == {"whole"}


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"micro_batch_size": 3}, "micro-batches of --micro_batch_size 3"),
        ({"batch_size": 5, "micro_batch_size": 2}, "--train_batch_size 5 is not"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(records, tmp_path, settings, words):
    output_dir = tmp_path / "out"
    with pytest.raises(UserError, match=words):
        model_in(output_dir).train(records, training(**settings))
    assert not output_dir.exists()


def test_a_checkpoint_to_start_from_is_evaluated(records, trained, tmp_path):
    checkpoint = checkpoints.latest_checkpoint(str(trained))
    scores = model_in(tmp_path, checkpoint).evaluate(records, batch_size=8)
    assert scores["masked_lm_loss"] == pytest.approx(
        model_in(trained).evaluate(records, batch_size=8)["masked_lm_loss"]
    )


def test_what_would_be_evaluated_is_never_in_doubt(records, trained, tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        model_in(tmp_path).evaluate(records)
    first = str(trained / "model.ckpt-0")
    with pytest.raises(UserError, match="would be evaluated in place of"):
        model_in(trained, first).evaluate(records)
    # The run's own newest one is meant where it has trained here.
    model = model_in(trained, first)
    model.train(records, training())
    assert model.evaluate(records, batch_size=8)["global_step"] == 4


def test_a_resumed_run_does_not_need_what_it_started_from(
    records, trained, tmp_path, caplog
):
    caplog.set_level("INFO")
    start = tmp_path / "start"
    shutil.copytree(str(trained), str(start))
    first = checkpoints.latest_checkpoint(str(start))
    output_dir = tmp_path / "out"
    model_in(output_dir, first).train(records, training(2))
    shutil.rmtree(str(start))
    model_in(output_dir, first).train(records, training(3))
    assert "ignoring {}".format(first) in caplog.text
    with pytest.raises(UserError, match="no readable TensorFlow checkpoint"):
        model_in(tmp_path / "another", first).train(records, training(3))


@pytest.mark.parametrize(
    "cores, batch_size, words",
    [
        (8, 20, "--eval_batch_size 20 is not divisible by the 8 devices"),
        (4, 20, "--eval_batch_size 20: .*a.tfrecord has 16 records, fewer than"),
        (4, 8, None),
    ],
)
def test_a_tpu_evaluates_full_batches(
    records, trained, monkeypatch, cores, batch_size, words
):
    build = estimators.build_estimator

    def build_here(model_fn, output_dir, device, *arguments):
        return build(model_fn, output_dir, device._replace(use_tpu=False), *arguments)

    monkeypatch.setattr(estimators, "build_estimator", build_here)
    device = estimators.Device(use_tpu=True, num_tpu_cores=cores)
    runtime = estimators.DEFAULT_RUNTIME._replace(device=device)
    start = model_directory.ModelDirectory(None)
    model = pretraining.Pretraining(start, CONFIG, str(trained), runtime)
    if words:
        with pytest.raises(UserError, match=words):
            model.check_evaluation(records, batch_size)
        return
    model.check_evaluation(records, batch_size)
    assert model._count_full_batches(records, batch_size) == 2
    assert model.evaluate(records, batch_size)["global_step"] > 0


def test_records_without_masks_need_their_vocabulary(tmp_path):
    path = str(tmp_path / "dynamic.tfrecord")
    record = record_format.encode_example(
        {
            "input_ids": np.arange(5, 5 + LENGTH),
            "input_mask": np.ones(LENGTH, np.int64),
            "segment_ids": np.arange(LENGTH) > 4,
            "word_lengths": [0, 1, 1, 0, 1, 1, 1, 0],
            "next_sentence_labels": [0],
        }
    )
    record_format.write_records([record], path)
    with pytest.raises(UserError, match="give --vocab_file or --spm_model_file"):
        record_files.find(path, FORM, masking.MaskSettings())


@pytest.mark.parametrize("dialect", ["albert_zh", "google"])
def test_a_new_model_that_cannot_be_converted_is_told(
    dialect, records, tmp_path, caplog
):
    caplog.set_level("INFO")
    keys = {"albert_zh": {"ln_type": "postln"}, "google": {"num_hidden_groups": 1}}
    settings = dict(CONFIG.to_dict(), embedding_size=4)
    for key in ("ln_type", "num_hidden_groups", "inner_group_num"):
        settings.pop(key, None)
    config = modeling.AlbertConfig.from_dict(dict(settings, **keys[dialect]))
    start = model_directory.ModelDirectory(None)
    for num_steps in (2, 3):
        model = pretraining.Pretraining(start, config, str(tmp_path))
        model.train(records, training(num_steps))
    # Once: a run that is resumed cannot choose any more.
    told = caplog.text.count("which no other framework reads")
    assert told == (dialect == "albert_zh")
