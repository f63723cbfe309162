"""The pretraining command end to end on small records."""

import json
import logging
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import run_pretraining
from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline, record_format
from albert_zh.models import checkpoints
from albert_zh.training import curves

LENGTH, PREDICTIONS, VOCABULARY = 16, 3, 40
MASK = 4


@pytest.fixture(scope="module")
def record_files(tmp_path_factory):
    """Two files of records in which a masked token follows from its position."""
    random = np.random.RandomState(0)
    folder = tmp_path_factory.mktemp("records")
    paths = [str(folder / "part{}.tfrecord".format(i)) for i in range(2)]
    for path in paths:
        record_format.write_records([_record(random) for _ in range(32)], path)
    return paths


def _record(random, length=LENGTH):
    ids = np.repeat(random.randint(5, VOCABULARY, length // 2), 2)
    swapped = random.randint(2)
    ids[0] = 2 + swapped  # the first token tells the order
    positions = np.sort(random.choice([3, 5, 7, 9], PREDICTIONS, replace=False))
    labels = 10 + positions
    ids[positions] = MASK
    return record_format.encode_example(
        {
            "input_ids": ids,
            "input_mask": np.ones(length, np.int64),
            "segment_ids": np.repeat([0, 1], length // 2),
            "masked_lm_positions": positions,
            "masked_lm_ids": labels,
            "masked_lm_weights": np.ones(PREDICTIONS),
            "next_sentence_labels": np.array([swapped]),
        }
    )


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "albert_config.json"
    path.write_text(json.dumps(_config()))
    return str(path)


def _config(**changes):
    config = {
        "vocab_size": VOCABULARY,
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": LENGTH,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "ln_type": "postln",
    }
    config.update(changes)
    return config


TRAINING = {
    "train_batch_size": 16,
    "num_train_steps": 120,
    "num_warmup_steps": 2,
    "learning_rate": 0.02,
}


def run(record_files, config_file, output_dir, do_train=True, **flags):
    """Runs the command in this process with small defaults."""
    values = {
        "input_file": ",".join(record_files),
        "albert_config_file": config_file,
        "output_dir": str(output_dir),
        "do_train": do_train,
        "max_seq_length": LENGTH,
        "max_predictions_per_seq": PREDICTIONS,
    }
    values.update(TRAINING if do_train else {})
    values.update(flags)
    argv = ["--{}={}".format(name, value) for name, value in values.items()]
    run_pretraining.main(run_pretraining.build_parser().parse_args(argv))


@pytest.fixture(scope="module")
def trained(record_files, config_file, tmp_path_factory):
    """Output directory of a finished run with evaluation."""
    output_dir = tmp_path_factory.mktemp("trained")
    run(record_files, config_file, output_dir, do_eval=True)
    return output_dir


def test_both_tasks_are_learnt(trained):
    results = json.loads((trained / "eval_results.json").read_text())
    assert results["global_step"] == 120
    # Chance: 1/35 and 1/2.
    assert results["masked_lm_accuracy"] > 0.5
    assert results["sentence_order_accuracy"] > 0.9
    assert results["masked_lm_loss"] < np.log(VOCABULARY - 5)
    total = results["masked_lm_loss"] + results["sentence_order_loss"]
    assert results["loss"] == pytest.approx(total, rel=1e-3)
    lines = (trained / "eval_results.txt").read_text().splitlines()
    assert "global_step = 120" in lines


def test_curves_are_written(trained):
    tags = set()
    for path in trained.glob("events.out.tfevents*.v2"):
        for event in tf.train.summary_iterator(str(path)):
            tags.update(value.tag for value in event.summary.value)
    assert tags == {
        "loss",
        "masked_lm_loss",
        "masked_lm_accuracy",
        "sentence_order_loss",
        "sentence_order_accuracy",
        "learning_rate",
        "gradient_norm",
        "train_batch_size",
    }


def test_curves_are_drawn(trained, run_command):
    pytest.importorskip("matplotlib")
    path = trained / "training.png"
    command = ["plot_training.py", "--run_dir", trained, "--output_file", path]
    result = run_command(*command)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "Picture saved to {}".format(path)
    run = curves.read_run(str(trained), "trained")
    assert run.curves["loss"].steps.tolist() == [0, 50, 100]
    # From 0 in warm-up, then along the line to 0 at step 120.
    expected = [0.0, 0.02 * (1 - 50 / 120), 0.02 * (1 - 100 / 120)]
    assert run.curves["learning_rate"].values == pytest.approx(expected, rel=1e-5)
    assert run.curves["sequences_per_second"].steps.tolist() == [50, 100]


def test_run_goes_on_and_then_says_that_it_is_finished(
    record_files, config_file, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    run(record_files, config_file, tmp_path, num_train_steps=3)
    run(record_files, config_file, tmp_path, num_train_steps=5)
    assert "resuming from" in caplog.text
    assert checkpoints.latest_checkpoint(str(tmp_path)).endswith("-5")
    run(record_files, config_file, tmp_path, num_train_steps=5)
    assert "at step 5 of 5 already: nothing left to train" in caplog.text


def test_a_run_keeps_its_optimizer(record_files, config_file, tmp_path):
    """LAMB's and AdamW's slots have the same names and shapes."""
    run(record_files, config_file, tmp_path / "a", num_train_steps=3)
    with pytest.raises(UserError, match="trains with lamb.* give --optimizer=lamb"):
        run(
            record_files,
            config_file,
            tmp_path / "a",
            num_train_steps=5,
            optimizer="adamw",
        )
    latest = checkpoints.latest_checkpoint(str(tmp_path / "a"))
    assert checkpoints.read_step(latest) == 3
    # Both hints work.
    run(record_files, config_file, tmp_path / "a", num_train_steps=4, optimizer="lamb")
    run(
        record_files,
        config_file,
        tmp_path / "b",
        num_train_steps=3,
        optimizer="adamw",
        init_checkpoint=latest,
    )
    # A run of an earlier version has no record.
    (tmp_path / "b" / "optimizer.json").unlink()
    run(record_files, config_file, tmp_path / "b", num_train_steps=4, optimizer="adamw")


def test_a_run_keeps_its_recipe(record_files, config_file, tmp_path):
    """The advice names the recipe, which sets the optimizer, and it works."""

    def resume(name, num_train_steps, **flags):
        flags = dict(flags, num_train_steps=num_train_steps)
        run(record_files, config_file, tmp_path / name, **flags)

    resume("adamw", 3, recipe="small_budget")
    with pytest.raises(UserError, match="^--optimizer=lamb: .*; give --recipe=small_b"):
        resume("adamw", 4)
    with pytest.raises(UserError, match="^--recipe=published: .* give --recipe=small_"):
        resume("adamw", 4, recipe="published")
    # Another recipe, even where the optimizer that is given fits.
    with pytest.raises(UserError, match="^--recipe=published: .* give --recipe=small_"):
        resume("adamw", 4, recipe="published", optimizer="adamw")
    resume("adamw", 4, recipe="small_budget")
    resume("adamw", 5, optimizer="adamw")
    # It is not forgotten.
    with pytest.raises(UserError, match="^--recipe=published: .* give --recipe=small_"):
        resume("adamw", 6, recipe="published", optimizer="adamw")

    resume("both", 3, recipe="small_budget", optimizer="lamb")
    advice = "lamb by .*small_budget.*; give --recipe=small_budget --optimizer=lamb, or"
    with pytest.raises(UserError, match=advice):
        resume("both", 4, recipe="small_budget")
    with pytest.raises(UserError, match=advice):
        resume("both", 4, optimizer="adamw")
    resume("both", 4, recipe="small_budget", optimizer="lamb")

    resume("lamb", 3)
    with pytest.raises(
        UserError, match="^--recipe=small_budget: .* leave --recipe .* --optimizer=lamb"
    ):
        resume("lamb", 4, recipe="small_budget")
    resume("lamb", 4, optimizer="lamb")


def test_init_checkpoint_is_restored_and_reported(
    record_files, config_file, trained, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    checkpoint = checkpoints.latest_checkpoint(str(trained))
    run(
        record_files,
        config_file,
        tmp_path,
        do_train=False,
        do_eval=True,
        init_checkpoint=checkpoint,
    )
    assert "0 missing, 0 unused" in caplog.text
    expected = json.loads((trained / "eval_results.json").read_text())
    actual = json.loads((tmp_path / "eval_results.json").read_text())
    assert actual["masked_lm_loss"] == pytest.approx(expected["masked_lm_loss"])


def test_same_seed_same_weights(record_files, config_file, tmp_path):
    name = "bert/embeddings/word_embeddings"
    tables = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        output_dir = tmp_path / folder
        run(record_files, config_file, output_dir, num_train_steps=3, seed=seed)
        prefix = checkpoints.latest_checkpoint(str(output_dir))
        tables.append(tf.train.load_variable(prefix, name))
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-4, atol=1e-6)
    assert np.abs(tables[0] - tables[2]).max() > 1e-3


@pytest.mark.parametrize("micro_batch_size", [16, 8])
def test_initial_weights_are_those_that_are_asked_for(
    record_files, config_file, tmp_path, micro_batch_size
):
    """A rate too small for a step to change a weight shows what training began with."""
    run(
        record_files,
        config_file,
        tmp_path,
        num_train_steps=1,
        num_warmup_steps=0,
        learning_rate=1e-12,
        initial_weights="local_attention",
        micro_batch_size=micro_batch_size,
    )
    reader = tf.train.load_checkpoint(checkpoints.latest_checkpoint(str(tmp_path)))
    names = reader.get_variable_to_shape_map()
    (query,) = (name for name in names if name.endswith("self/query/kernel"))
    key = reader.get_tensor(query.replace("query", "key"))
    np.testing.assert_array_equal(reader.get_tensor(query), key)
    table = reader.get_tensor("bert/embeddings/position_embeddings")
    assert np.abs(np.diff(table, axis=0)).mean() < table.std()


def test_micro_batches_leave_the_steps_as_they_are(
    record_files, config_file, trained, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    latest = checkpoints.latest_checkpoint(str(trained))
    start = checkpoints.write_stripped(latest, str(tmp_path / "start.ckpt"))
    weights = []
    for name, flags in (("whole", {}), ("parts", {"micro_batch_size": 4})):
        run(
            record_files,
            config_file,
            tmp_path / name,
            init_checkpoint=start,
            num_train_steps=5,
            learning_rate=0.00176,
            precision="float32",
            **flags,
        )
        prefix = checkpoints.latest_checkpoint(str(tmp_path / name))
        assert tf.train.load_variable(prefix, "global_step") == 5
        weights.append(
            {
                name: tf.train.load_variable(prefix, name)
                for name, _ in tf.train.list_variables(prefix)
            }
        )
    assert "16 sequences per step as 4 micro-batches of 4" in caplog.text
    assert set(weights[0]) == set(weights[1])
    for name, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][name], atol=1e-5, err_msg=name)


def test_nan_stops_with_advice(record_files, config_file, tmp_path):
    with pytest.raises(UserError, match="became NaN; lower --learning_rate"):
        run(
            record_files,
            config_file,
            tmp_path,
            learning_rate=1e38,
            num_warmup_steps=0,
            num_train_steps=20,
        )


@pytest.mark.parametrize("do_train", [True, False])
@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"masked_lm_weights": np.full(PREDICTIONS, np.nan)},
            "masked_lm_weights holds",
        ),
        ({"input_ids": np.full(LENGTH, 2**32 + 7)}, "input_ids holds 4294967303"),
        (None, "is no tf.train.Example"),
    ],
)
def test_a_record_that_cannot_be_is_named(
    config_file, trained, tmp_path, do_train, change, words
):
    """Also in an evaluation, which would have said NaN."""
    random = np.random.RandomState(1)
    contents = [_record(random) for _ in range(20)]
    features = dict(input_pipeline.decode_example(contents[7]), **(change or {}))
    # A cut record has bytes that are no UTF-8.
    contents[7] = record_format.encode_example(features) if change else contents[7][:-3]
    path = str(tmp_path / "damaged.tfrecord")
    record_format.write_records(contents, path)
    with pytest.raises(UserError) as error:
        run(
            [path],
            config_file,
            tmp_path / "out",
            do_train=do_train,
            do_eval=not do_train,
            **({"num_train_steps": 20} if do_train else {"model_dir": trained}),
        )
    assert str(error.value).startswith(path + ": record 7 (the first is 0): ")
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out" / "eval_results.json").exists()


def test_truncated_records_are_named(record_files, config_file, tmp_path):
    content = open(record_files[1], "rb").read()
    damaged = tmp_path / "damaged.tfrecord"
    damaged.write_bytes(content[:-20])
    with pytest.raises(UserError, match="damaged.tfrecord .* does not end with"):
        run(
            [record_files[0], str(damaged)],
            config_file,
            tmp_path / "out",
            num_train_steps=20,
        )


@pytest.mark.parametrize(
    "flags,words",
    [
        ({"do_train": False}, "give --do_train=True, --do_eval=True or both"),
        ({"max_seq_length": 17}, "--max_seq_length 17 is above max_position_embed"),
        ({"max_seq_length": 8}, "max_seq_length 16, but 8 was given"),
        ({"max_predictions_per_seq": 4}, "max_predictions_per_seq 3, but 4"),
        ({"input_file": "no/such*.tfrecord"}, r"no/such\*.tfrecord"),
        ({"do_train": False, "do_eval": True, "seed": 1}, "--seed requires --do_train"),
        (
            {"do_train": False, "do_eval": True, "dropout": 0},
            "--dropout requires --do_train",
        ),
        ({"eval_input_file": "a"}, "--eval_input_file requires --do_eval"),
        ({"tpu_name": "a"}, "--tpu_name requires --use_tpu"),
        ({"worker_timeout": 9}, "--worker_timeout requires --distribution=multi_w"),
        ({"num_warmup_steps": 120}, "--num_warmup_steps 120 leaves nothing"),
        ({"micro_batch_size": 5}, "--train_batch_size 16 .* --micro_batch_size 5$"),
        ({"micro_batch_size": 32}, "--train_batch_size 16 .* --micro_batch_size 32$"),
        ({"init_checkpoint": "no/model.ckpt"}, "--init_checkpoint: no readable"),
        ({"albert_config_file": "no.json"}, "--albert_config_file=no.json: no such"),
        ({"use_tpu": True}, "--use_tpu needs --tpu_name"),
        (
            {"use_tpu": True, "tpu_name": "grpc://a:1", "master": "grpc://b:1"},
            "--tpu_name and --master exclude each other",
        ),
        (
            {"master": "grpc://a:1", "distribution": "mirrored"},
            "--master cannot be combined with --distribution=mirrored",
        ),
        (
            {"initial_weights": "local_attention", "init_checkpoint": "no/model.ckpt"},
            "--initial_weights cannot be combined with a checkpoint",
        ),
        ({"do_train": False, "do_eval": True}, "has no checkpoint"),
    ],
)
def test_bad_flags_stop_before_the_work(
    record_files, config_file, tmp_path, flags, words
):
    with pytest.raises(UserError, match=words):
        run(record_files, config_file, tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


def test_output_dir_of_another_model_is_refused(record_files, trained, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps(_config(hidden_size=16)))
    before = (trained / "albert_config.json").read_text()
    with pytest.raises(UserError, match="holds a different model .hidden_size is 32"):
        run(record_files, str(other), trained)
    assert (trained / "albert_config.json").read_text() == before


def test_dropout_by_flag_is_the_models(record_files, config_file, tmp_path):
    run(record_files, config_file, tmp_path, dropout=0.5, num_train_steps=3)
    config = json.loads((tmp_path / "albert_config.json").read_text())
    assert config["hidden_dropout_prob"] == 0.5
    assert config["attention_probs_dropout_prob"] == 0.5
    with pytest.raises(UserError, match="attention_probs_dropout_prob is 0.5, not 0.0"):
        run(record_files, config_file, tmp_path)
    run(record_files, config_file, tmp_path, dropout=0.5, num_train_steps=4)
    assert checkpoints.latest_checkpoint(str(tmp_path)).endswith("-4")


def test_training_goes_on_with_more_layers_of_the_same_weights(
    record_files, config_file, tmp_path
):
    """One layer, then two, as small budgets want it."""
    one, two = tmp_path / "one", tmp_path / "two"
    run(record_files, config_file, one, num_hidden_layers=1, num_train_steps=3)
    assert (
        json.loads((one / "albert_config.json").read_text())["num_hidden_layers"] == 1
    )
    with pytest.raises(UserError, match="num_hidden_layers is 1, not 2"):
        run(record_files, config_file, one)
    run(record_files, config_file, two, model_dir=one, num_hidden_layers=2)
    assert (
        json.loads((two / "albert_config.json").read_text())["num_hidden_layers"] == 2
    )
    first, second = (
        checkpoints.read_tensors(checkpoints.latest_checkpoint(str(folder)))
        for folder in (one, two)
    )
    assert {n: t.shape for n, t in first.items()} == {
        n: t.shape for n, t in second.items()
    }


def test_records_of_a_larger_vocabulary_are_refused(record_files, tmp_path):
    small = tmp_path / "small.json"
    small.write_text(json.dumps(_config(vocab_size=8)))
    with pytest.raises(UserError, match="the config's vocab_size is 8"):
        run(record_files, str(small), tmp_path / "out")


def test_checkpoint_of_another_size_is_refused(record_files, trained, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps(_config(hidden_size=16)))
    checkpoint = checkpoints.latest_checkpoint(str(trained))
    words = "hidden_size is 32, not the config's 16"
    with pytest.raises(UserError, match=words):
        run(record_files, str(other), tmp_path / "out", init_checkpoint=checkpoint)
    assert not (tmp_path / "out").exists()


def test_checkpoint_beside_another_one_is_not_taken_for_it(
    record_files, config_file, trained, tmp_path
):
    latest = checkpoints.latest_checkpoint(str(trained))
    other = checkpoints.write_stripped(latest, str(tmp_path / "other.ckpt"))
    with pytest.raises(UserError, match="which would be evaluated in place"):
        run(
            record_files,
            config_file,
            trained,
            do_train=False,
            do_eval=True,
            init_checkpoint=other,
        )


def test_checkpoint_without_slots_is_no_run_to_go_on_with(
    record_files, config_file, trained, tmp_path
):
    checkpoint = checkpoints.latest_checkpoint(str(trained))
    checkpoints.write_stripped(checkpoint, str(tmp_path / "model.ckpt"))
    with pytest.raises(UserError, match="has no fitting .*adam_m.*--init_checkpoint"):
        run(record_files, config_file, tmp_path, num_train_steps=130)


def test_damaged_checkpoint_is_named(record_files, config_file, trained, tmp_path):
    checkpoint = checkpoints.latest_checkpoint(str(trained))
    prefix = str(tmp_path / "model.ckpt")
    shutil.copy(checkpoint + ".index", prefix + ".index")
    with pytest.raises(UserError, match="model.ckpt.data-00000-of-00001 is missing"):
        run(record_files, config_file, tmp_path / "out", init_checkpoint=prefix)
    assert not (tmp_path / "out").exists()


def test_later_record_of_another_length_is_named(record_files, config_file, tmp_path):
    random = np.random.RandomState(1)
    path = str(tmp_path / "mixed.tfrecord")
    short = _record(random, length=12)
    record_format.write_records([_record(random)] * 8 + [short], path)
    with pytest.raises(UserError, match="mixed.tfrecord: record 8 .* length 12"):
        run([path], config_file, tmp_path / "out", train_batch_size=9)


def test_user_error_is_one_line_without_traceback(run_command, assert_user_error):
    flags = ["--input_file=a", "--output_dir=b", "--do_train"]
    result = run_command("run_pretraining.py", *flags)
    assert_user_error(result, "--albert_config_file is missing", "--model_dir")


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    """Records without masks, in which a word is one token twice, and the vocabulary."""
    folder = tmp_path_factory.mktemp("dynamic")
    random = np.random.RandomState(0)
    serialized = []
    for _ in range(64):
        words = np.repeat(random.randint(5, VOCABULARY, 6), 2)
        ids = np.concatenate([[2], words[:6], [3], words[6:], [3, 0]])
        lengths = np.zeros(LENGTH, np.int64)
        lengths[[1, 3, 5, 8, 10, 12]] = 2
        serialized.append(
            record_format.encode_example(
                {
                    "input_ids": ids,
                    "input_mask": ids > 0,
                    "segment_ids": (ids > 0) & (np.arange(LENGTH) > 7),
                    "word_lengths": lengths,
                    "next_sentence_labels": [0],
                }
            )
        )
    record_format.write_records(serialized, str(folder / "dynamic.tfrecord"))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += ["t{}".format(number) for number in range(len(tokens), VOCABULARY)]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return folder


def test_records_without_masks_are_masked_in_training(dynamic, config_file, tmp_path):
    results = {}
    for name, flags in (("share", {"masked_lm_prob": 0.5}), ("default", {})):
        run(
            [str(dynamic / "dynamic.tfrecord")],
            config_file,
            tmp_path / name,
            do_eval=True,
            vocab_file=dynamic / "vocab.txt",
            max_predictions_per_seq=6,
            num_train_steps=4,
            **flags,
        )
        results[name] = json.loads((tmp_path / name / "eval_results.json").read_text())
        assert (tmp_path / name / "vocab.txt").exists()
    assert results["share"]["global_step"] == 4
    # Other masks, so another loss; the same masks in every evaluation.
    assert results["share"]["masked_lm_loss"] != results["default"]["masked_lm_loss"]
    run(
        [str(dynamic / "dynamic.tfrecord")],
        config_file,
        tmp_path / "share",
        do_train=False,
        do_eval=True,
        vocab_file=dynamic / "vocab.txt",
        max_predictions_per_seq=6,
        masked_lm_prob=0.5,
    )
    again = json.loads((tmp_path / "share" / "eval_results.json").read_text())
    assert again == results["share"]


def test_records_without_masks_need_the_vocabulary(dynamic, config_file, tmp_path):
    files = [str(dynamic / "dynamic.tfrecord")]
    with pytest.raises(UserError, match="dynamic.tfrecord: .* give --vocab_file"):
        run(files, config_file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag, value", [("ngram", 2), ("masked_lm_prob", 0.2)])
def test_records_with_masks_take_no_others(
    record_files, config_file, tmp_path, flag, value
):
    with pytest.raises(UserError, match="--{}: these records hold".format(flag)):
        run(record_files, config_file, tmp_path / "out", **{flag: value})


def test_records_of_two_kinds_are_refused(dynamic, record_files, config_file, tmp_path):
    files = [record_files[0], str(dynamic / "dynamic.tfrecord")]
    with pytest.raises(UserError, match="give files of one kind"):
        run(files, config_file, tmp_path / "out", vocab_file=dynamic / "vocab.txt")
