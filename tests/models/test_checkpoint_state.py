"""Which paths in a `checkpoint` file a run may delete."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.models import checkpoint_state, checkpoints
from albert_zh.models import directory as model_directory


@pytest.mark.parametrize("name", ["run[12]", "run*", "run?"])
def test_a_path_that_is_a_pattern_is_not_inside(tmp_path, name):
    """TensorFlow's saver would take "run[12]/model.ckpt-1" for "run1/model.ckpt-1"."""
    directory = tmp_path / name
    directory.mkdir()
    assert checkpoint_state.is_inside("model.ckpt-1", str(directory))
    assert not checkpoint_state.is_inside("model.ckpt-[1]", str(directory))
    assert not checkpoint_state.is_inside(str(directory / "a-1"), str(directory))
    assert checkpoint_state.is_inside(str(tmp_path / "a-1"), str(tmp_path))


def write_run(directory, content):
    """Writes a run's checkpoints 0 and 4 and the `checkpoint` file."""
    directory.mkdir()
    for step in (0, 4):
        tensors = {"x": np.ones(2, np.float32), "global_step": np.int64(step)}
        checkpoints.write_tensors(tensors, str(directory / "model.ckpt"))
    lines = ["model_checkpoint_path: {}".format(content[-1])]
    lines += ["all_model_checkpoint_paths: {}".format(named) for named in content]
    (directory / "checkpoint").write_text("\n".join(lines))
    return str(directory)


# The paths of `checkpoint` files from elsewhere, as they are written there.
MOVED = {
    "Windows": [r'"C:\\work\\pre\\model.ckpt-0"', r'"C:\\work\\pre\\model.ckpt-4"'],
    "a share": [r'"\\\\server\\pre\\model.ckpt-4"'],
    "another machine": ['"/home/me/pre/model.ckpt-0"', '"/home/me/pre/model.ckpt-4"'],
    "the cloud": ['"gs://bucket/pre/model.ckpt-4"'],
    "a deleted one": ['"/home/me/model.ckpt-2"', '"/home/me/model.ckpt-4"'],
}


@pytest.mark.parametrize("content", MOVED.values(), ids=list(MOVED))
def test_state_of_a_moved_directory_finds_the_checkpoint_beside(tmp_path, content):
    directory = write_run(tmp_path / "run", content)
    latest = checkpoints.latest_checkpoint(directory)
    assert latest == directory + "/model.ckpt-4"
    assert model_directory.find_checkpoint(directory) == latest
    assert checkpoints.resume_step(latest, directory) == 4
    # What Estimator reads.
    state = checkpoint_state.read(directory)
    kept = ["model.ckpt-0"] if "ckpt-0" in content[0] else []
    assert state == ("model.ckpt-4", kept + ["model.ckpt-4"])
    text = (tmp_path / "run" / "checkpoint").read_text()
    checkpoints.resume_step(latest, directory)
    assert (tmp_path / "run" / "checkpoint").read_text() == text


@pytest.mark.parametrize("directory", [".", "run", "run/best", "../{}/run"])
def test_names_are_of_the_directory_where_its_path_is_relative(
    tmp_path, monkeypatch, directory
):
    """TensorFlow's own function would make "../model.ckpt-4" of "model.ckpt-4"."""
    monkeypatch.chdir(tmp_path)
    directory = directory.format(tmp_path.name)
    (tmp_path / directory).mkdir(parents=True, exist_ok=True)
    tensors = {"x": np.ones(2, np.float32), "global_step": np.int64(4)}
    prefix = directory + "/model.ckpt"
    written = checkpoints.write_tensors(tensors, prefix, names_it=False)
    (tmp_path / directory / "checkpoint").write_text(
        'model_checkpoint_path: "../model.ckpt-4"\n'  # of an earlier version
    )
    checkpoints.name_only(written)
    state = checkpoint_state.read(directory)
    assert state == checkpoint_state.State("model.ckpt-4", ["model.ckpt-4"])
    assert tf.train.latest_checkpoint(directory) == written
    assert checkpoints.latest_checkpoint(directory) == written
    assert model_directory.find_checkpoint(directory) == written


def test_a_moved_run_goes_on_where_its_path_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", ['"/old/run/model.ckpt-0"', '"/old/run/model.ckpt-4"'])
    latest = checkpoints.latest_checkpoint("run")
    for _ in range(2):  # it is written, and read again
        assert checkpoints.resume_step(latest, "run") == 4
    assert checkpoint_state.read("run").newest == "model.ckpt-4"


def test_state_of_a_copied_directory_means_the_copy(tmp_path):
    original = write_run(tmp_path / "run", ['"model.ckpt-4"'])
    copy = write_run(tmp_path / "copy", ['"{}/model.ckpt-4"'.format(original)])
    assert checkpoints.latest_checkpoint(copy) == copy + "/model.ckpt-4"


def test_state_that_names_an_absent_checkpoint_is_refused(tmp_path):
    directory = write_run(tmp_path / "run", [r'"C:\\pre\\model.ckpt-9"'])
    with pytest.raises(UserError, match="ckpt-9.* newest whole .* model.ckpt-4"):
        checkpoints.latest_checkpoint(directory)


@pytest.mark.parametrize("ending", [".index", ".meta", ".data-00000-of-00001"])
def test_a_file_of_a_checkpoint_stands_for_it(tmp_path, ending):
    directory = write_run(tmp_path / "run", ['"model.ckpt-4"'])
    prefix = directory + "/model.ckpt-4"
    assert checkpoints.without_ending(prefix + ending) == prefix
    assert set(checkpoints.read_shapes(prefix + ending)) == {"x", "global_step"}
    chosen = model_directory.choose(directory, checkpoint=prefix + ending)
    assert chosen.checkpoint == prefix
    absent = directory + "/model.ckpt-5" + ending
    assert checkpoints.without_ending(absent) == absent


def test_side_files_of_macos_are_no_files_of_a_model(tmp_path):
    directory = write_run(tmp_path / "run", ['"model.ckpt-4"'])
    for step in (0, 4):
        for path in list((tmp_path / "run").glob("model.ckpt-{}.*".format(step))):
            path.with_name("._" + path.name).write_bytes(b"\0\5\x16\7")
    for name in ("vocab.txt", "albert_config.json", "spiece.model"):
        (tmp_path / "run" / ("._" + name)).write_bytes(b"\0\5\x16\7")
    (tmp_path / "run" / "checkpoint").unlink()
    with pytest.raises(UserError, match="model.ckpt-0, model.ckpt-4, and no"):
        model_directory.find_checkpoint(directory)
    assert model_directory.find_vocabulary(directory) == (None, None)
    assert model_directory.find_config(directory) is None
