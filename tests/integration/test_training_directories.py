"""An --output_dir that a run goes on in, or must not: pretraining and fine-tuning."""

import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import run_classifier
import run_pretraining
from albert_zh import command_line
from albert_zh.data import record_format
from albert_zh.models import checkpoints, output_directory
from albert_zh.training import progress_hook

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

CHARACTERS = "天地人山水火土木金石日月"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(CHARACTERS)
LENGTH = 8
CONFIG = {
    "vocab_size": len(TOKENS),
    "embedding_size": 4,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": LENGTH,
    "ln_type": "postln",
}
# Checkpoints are saved at steps 0 (the graph's start), 2 and 4.
NUM_STEPS, SAVE_STEPS, BATCH = 4, 2, 4
KINDS = ["pretraining", "fine-tuning"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of config, vocabulary, records and labelled texts."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    features = {
        "input_ids": np.arange(5, 5 + LENGTH),
        "input_mask": np.ones(LENGTH, np.int64),
        "segment_ids": np.arange(LENGTH) > 4,
        "masked_lm_positions": [1, 2],
        "masked_lm_ids": [6, 7],
        "masked_lm_weights": np.ones(2),
        "next_sentence_labels": [0],
    }
    record = record_format.encode_example(features)
    record_format.write_records([record] * 8, str(folder / "a.tfrecord"))
    rows = ["{}\t{}".format(c, i % 2) for i, c in enumerate(CHARACTERS[:8])]
    (folder / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def flags_of(kind, data, output_dir, **changes):
    flags = {
        "output_dir": output_dir,
        "do_train": True,
        "albert_config_file": data / "config.json",
        "vocab_file": data / "vocab.txt",
        "max_seq_length": LENGTH,
        "train_batch_size": BATCH,
        "save_checkpoints_steps": SAVE_STEPS,
        "learning_rate": 0.001,
    }
    if kind == "pretraining":
        flags.update(
            input_file=data / "a.tfrecord",
            max_predictions_per_seq=2,
            num_train_steps=NUM_STEPS,
            num_warmup_steps=1,
        )
    else:
        # Two steps an epoch.
        flags.update(task_name="single", data_dir=data, num_train_epochs=2)
    flags.update(changes)
    return ["--{}={}".format(name, value) for name, value in flags.items()]


def run(kind, data, output_dir, **changes):
    module = run_pretraining if kind == "pretraining" else run_classifier
    flags = flags_of(kind, data, output_dir, **changes)
    command_line.run(module.main, module.build_parser(), flags)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Dict of kind -> output directory of a run."""
    directories = {}
    for kind in KINDS:
        directories[kind] = tmp_path_factory.mktemp(kind)
        run(kind, data, directories[kind])
    return directories


@pytest.fixture(params=KINDS)
def training(request, data, finished, tmp_path):
    """A run's kind, its directory, and a function that gives the command again."""
    kind = request.param
    directory = tmp_path / "run"
    shutil.copytree(str(finished[kind]), str(directory))

    def again(**changes):
        longer = {"num_train_steps": 6} if kind == "pretraining" else {}
        run(kind, data, directory, **dict(longer, **changes))

    return kind, directory, again


def refused(capsys, function, **arguments):
    """The line that a command ends with."""
    with pytest.raises(SystemExit) as caught:
        function(**arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def contents(directory):
    """Everything below a directory: dict path -> bytes."""
    return {
        path.relative_to(directory): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def follow_hint(line):
    """Does what an error line says; returns the checkpoint that it names."""
    found = re.search(r'make (\S+) a file with this one line: (\S+: "(\S+)"); or', line)
    path, text, name = found.groups()
    path = pathlib.Path(path)
    if path.is_dir():
        path.rmdir()
    elif os.path.lexists(str(path)):
        path.unlink()
    path.write_text(text + "\n")
    return name


def _to_directory(path):
    path.unlink()
    path.mkdir()


def _to_pipe(path):
    path.unlink()
    os.mkfifo(str(path))


def _to_link_to_nowhere(path):
    path.unlink()
    path.symlink_to("nowhere")


NAMES = 'model_checkpoint_path: "{}"\n'
SPOILED = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00model"),
    "no protocol": lambda path: path.write_text("model.ckpt-4"),
    "a directory": _to_directory,
    "a pipe": _to_pipe,
    "a link to nowhere": _to_link_to_nowhere,
    "names none": lambda path: path.write_text('model_checkpoint_path: ""\n'),
    "names one that is gone": lambda path: path.write_text(
        NAMES.format("model.ckpt-7")
    ),
    "names one elsewhere": lambda path: path.write_text(
        NAMES.format("../run/model.ckpt-4")
    ),
}


@pytest.mark.parametrize("what", sorted(SPOILED))
def test_a_state_file_that_does_not_tell_is_no_beginning(training, capsys, what):
    _, directory, again = training
    SPOILED[what](directory / "checkpoint")
    before = contents(directory)
    line = refused(capsys, again)
    assert str(directory / "checkpoint") in line
    assert "choose another --output_dir" in line
    assert contents(directory) == before
    assert follow_hint(line) == "model.ckpt-4"
    latest = checkpoints.latest_checkpoint(str(directory))
    assert checkpoints.resume_step(latest, str(directory)) == 4


def test_the_hint_lets_a_run_go_on(training, capsys, caplog):
    kind, directory, again = training
    (directory / "checkpoint").unlink()
    for path in directory.glob("model.ckpt-4.data*"):
        path.unlink()
    shutil.rmtree(str(directory / "best"), ignore_errors=True)
    assert follow_hint(refused(capsys, again)) == "model.ckpt-2"
    with caplog.at_level("INFO"):
        again()
    word = "resuming from" if kind == "pretraining" else "resuming after step 2 of 4"
    assert word in caplog.text
    latest = checkpoints.latest_checkpoint(str(directory))
    assert checkpoints.read_step(latest) == (6 if kind == "pretraining" else 4)


def test_a_complete_training_without_its_best_model_has_it_again(data, tmp_path):
    flags = {"dev_file": data / "train.tsv", "do_eval": True}
    run("fine-tuning", data, tmp_path, **flags)
    before = contents(tmp_path / "best")
    shutil.rmtree(str(tmp_path / "best"))
    run("fine-tuning", data, tmp_path, **flags)
    after = contents(tmp_path / "best")
    assert set(after) == set(before)
    (weights,) = (path for path in before if ".data" in path.name)
    assert after[weights] == before[weights]


def test_a_run_that_has_no_whole_checkpoint_can_begin_anew(training, capsys):
    _, directory, again = training
    (directory / "checkpoint").unlink()
    for path in directory.glob("model.ckpt-*.index"):
        path.unlink()
    line = refused(capsys, again)
    assert "no checkpoint is whole" in line
    for path in directory.glob("model.ckpt-*"):
        path.unlink()
    assert checkpoints.latest_checkpoint(str(directory)) is None


@pytest.mark.parametrize(
    "damage, words",
    [
        ("cut", "is damaged"),
        ("nan", "bert/pooler/dense/bias holds NaN"),
        ("step", "global_step is -4"),
    ],
)
def test_a_damaged_newest_checkpoint_names_the_one_before(
    training, capsys, damage, words
):
    _, directory, again = training
    prefix = str(directory / "model.ckpt-4")
    tensors = checkpoints.read_tensors(prefix, keep_training_state=True)
    tensors["bert/pooler/dense/bias"][0] = np.nan
    if damage == "step":
        tensors["global_step"] = np.int64(-4)
        del tensors["bert/pooler/dense/bias"]
    _write(tensors, prefix)
    if damage == "cut":
        (path,) = directory.glob("model.ckpt-4.data*")
        path.write_bytes(path.read_bytes()[:-30])
    line = refused(capsys, again)
    assert words in line
    assert follow_hint(line) == "model.ckpt-2"
    latest = checkpoints.latest_checkpoint(str(directory))
    assert checkpoints.resume_step(latest, str(directory)) == 2


def _write(tensors, prefix):
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in tensors.items():
            tf.get_variable(name, initializer=value)
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver()
        saver.save(session, prefix, write_meta_graph=False, write_state=False)


@pytest.mark.parametrize(
    "named",
    ["{victim}/model.ckpt-1", "../victim/model.ckpt-1", "link/model.ckpt-1", "*"],
)
def test_checkpoints_elsewhere_are_not_a_runs_to_delete(training, capsys, named):
    _, directory, again = training
    victim = directory.parent / "victim"
    victim.mkdir()
    for path in directory.glob("model.ckpt-2.*"):
        shutil.copy(str(path), str(victim / path.name.replace("-2", "-1")))
    (directory / "link").symlink_to(victim)
    with (directory / "checkpoint").open("a") as state:
        named = named.format(victim=victim)
        state.write('all_model_checkpoint_paths: "{}"\n'.format(named))
    before = contents(victim)
    line = refused(capsys, again)
    assert repr(named) in line and contents(victim) == before
    assert follow_hint(line) == "model.ckpt-4"


def test_absolute_paths_of_the_directory_itself_are_a_runs(training, caplog):
    kind, directory, again = training
    (directory / "checkpoint").write_text(
        NAMES.format(directory / "model.ckpt-4")
        + 'all_model_checkpoint_paths: "{}"\n'.format(directory / "model.ckpt-4")
    )
    with caplog.at_level("INFO"):
        again()
    assert re.search("resuming from .*-4|training is complete: .* 4 of 4", caplog.text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["run[12]", "run*", "run?", "run\\"])
def test_a_directory_whose_name_is_a_pattern_is_none_to_train_in(
    data, tmp_path, capsys, kind, name
):
    """TensorFlow's saver would delete checkpoints of those that it matches."""
    line = refused(capsys, run, kind=kind, data=data, output_dir=tmp_path / name)
    assert "for a pattern" in line and name in line
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_run_starts_from_nan(finished, data, tmp_path, capsys, kind, value):
    start = checkpoints.latest_checkpoint(str(finished["pretraining"]))
    tensors = checkpoints.read_tensors(start)
    tensors["bert/pooler/dense/kernel"][1, 1] = value
    start = checkpoints.write_tensors(tensors, str(tmp_path / "start.ckpt"))
    output_dir = tmp_path / "new" / "run"
    line = refused(
        capsys,
        run,
        kind=kind,
        data=data,
        output_dir=output_dir,
        init_checkpoint=start,
    )
    assert start + ": bert/pooler/dense/kernel holds NaN or infinity (1 of 64" in line
    assert not output_dir.parent.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.bool_])
def test_no_run_starts_from_another_type(finished, data, tmp_path, capsys, kind, dtype):
    start = checkpoints.latest_checkpoint(str(finished["pretraining"]))
    tensors = checkpoints.read_tensors(start)
    name = "bert/pooler/dense/kernel"
    tensors[name] = tensors[name].astype(dtype)
    start = checkpoints.write_tensors(tensors, str(tmp_path / "start.ckpt"))
    line = refused(
        capsys,
        run,
        kind=kind,
        data=data,
        output_dir=tmp_path / "run",
        init_checkpoint=start,
    )
    assert "{} is {}, expected float32".format(name, np.dtype(dtype).name) in line


def _train_and_wait(arguments, connection):
    """Trains; says so after the first step, and waits for an answer."""

    def wait(self, run_context, run_values):
        if not connection.closed:
            connection.send("training")
            connection.recv()
            connection.close()

    progress_hook.ProgressHook.after_run = wait
    run(*arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_trains_in_a_directory(data, tmp_path, capsys, kind):
    output_dir = tmp_path / "run"
    connection, others_end = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_train_and_wait, args=((kind, data, output_dir), others_end)
    )
    process.start()
    try:
        assert connection.recv() == "training"
        line = refused(capsys, run, kind=kind, data=data, output_dir=output_dir)
        assert "another process trains there" in line and str(output_dir) in line
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    finally:
        process.kill()
    # Its step 0 is saved.
    run(kind, data, output_dir)
    latest = checkpoints.latest_checkpoint(str(output_dir))
    assert checkpoints.read_step(latest) == NUM_STEPS
    assert not (output_dir / output_directory.LOCK_FILE).exists()
