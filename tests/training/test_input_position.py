"""Tests of `albert_zh.training.input_position`: records seen, changes noticed."""

import json
import logging
import os

import pytest

from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline, record_format
from albert_zh.training import input_position

ORDER = {"--seed": 1, "--shuffle_buffer_size": 100}


@pytest.fixture
def record_files(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.tfrecord", "b.tfrecord")]
    for path, size in zip(paths, (7, 4)):
        record_format.write_records([b"record"] * size, path)
    return paths


@pytest.fixture
def output_dir(tmp_path):
    (tmp_path / "out").mkdir()
    return str(tmp_path / "out")


def _warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_run_goes_on_after_as_many_records_as_it_had(
    output_dir, record_files, caplog
):
    begin = input_position.resume(output_dir, 0, 8, record_files, ORDER)
    assert begin == input_pipeline.BEGINNING
    with caplog.at_level("INFO"):
        position = input_position.resume(output_dir, 20, 8, record_files, ORDER)
    assert position == input_pipeline.Position(160, [7, 4])
    assert "resumes after 160 records: 14.55 epochs of 11" in caplog.text
    assert not _warnings(caplog)


def test_each_batch_size_counts_for_its_own_steps(output_dir, record_files, caplog):
    def num_seen(step, batch_size):
        return input_position.resume(
            output_dir, step, batch_size, record_files, ORDER
        ).num_seen

    num_seen(0, 8)
    assert num_seen(20, 4) == 160
    assert num_seen(20, 2) == 160  # the start with 4 came to no checkpoint
    assert num_seen(30, 2) == 180
    assert num_seen(35, 8) == 190
    assert num_seen(36, 8) == 198
    # An earlier checkpoint is gone on with: what came after it is undone.
    assert num_seen(20, 8) == 160
    assert num_seen(40, 8) == 320
    assert num_seen(0, 8) == 0
    assert not _warnings(caplog)


def test_a_new_run_forgets_what_the_directory_had(output_dir, record_files, caplog):
    input_position.resume(output_dir, 0, 8, record_files, ORDER)
    input_position.resume(output_dir, 0, 2, record_files[:1], dict(ORDER, **{"--s": 2}))
    position = input_position.resume(
        output_dir, 5, 2, record_files[:1], dict(ORDER, **{"--s": 2})
    )
    assert position == input_pipeline.Position(10, [7])
    assert not _warnings(caplog)


def test_a_run_without_the_file_is_said_to_be_taken_for_a_plain_one(
    output_dir, record_files, caplog
):
    position = input_position.resume(output_dir, 20, 8, record_files, ORDER)
    assert position == input_pipeline.Position(160, [7, 4])
    (warning,) = _warnings(caplog)
    assert "input_position.json is missing" in warning
    assert "--train_batch_size=8 up to step 20" in warning
    assert input_position.resume(output_dir, 30, 8, record_files, ORDER).num_seen == 240
    assert len(_warnings(caplog)) == 1


def test_another_order_is_said(output_dir, record_files, caplog):
    input_position.resume(output_dir, 0, 8, record_files, ORDER)
    input_position.resume(output_dir, 5, 8, record_files, dict(ORDER, **{"--seed": 2}))
    (warning,) = _warnings(caplog)
    assert warning.startswith("--seed=2, but was 1: the order of records changes")


@pytest.mark.parametrize("change", ["fewer", "other order", "grown"])
def test_other_files_are_said_and_counted(output_dir, record_files, caplog, change):
    input_position.resume(output_dir, 0, 8, record_files, ORDER)
    input_position.resume(output_dir, 5, 8, record_files, ORDER)
    if change == "grown":
        record_format.write_records([b"record"] * 9, record_files[1])
    files = {"fewer": record_files[1:], "other order": record_files[::-1]}
    files = files.get(change, record_files)
    position = input_position.resume(output_dir, 5, 8, files, ORDER)
    sizes = {"fewer": [4], "other order": [4, 7], "grown": [7, 9]}
    assert position == input_pipeline.Position(40, sizes[change])
    (warning,) = _warnings(caplog)
    assert warning.startswith("--input_file: other files than before")


def test_files_are_counted_again_only_where_they_have_changed(
    output_dir, record_files, caplog
):
    caplog.set_level(logging.INFO)
    input_position.resume(output_dir, 0, 8, record_files, ORDER)
    assert "counting" not in caplog.text
    input_position.resume(output_dir, 5, 8, record_files, ORDER)
    assert caplog.text.count("counting the records of") == 2
    caplog.clear()
    input_position.resume(output_dir, 6, 8, record_files, ORDER)
    assert "counting" not in caplog.text
    # As many bytes, written later, in other records.
    record = b"r" * (len(b"record") * 2 + 16)
    record_format.write_records([record] * 2, record_files[1])
    status = os.stat(record_files[1])
    os.utime(record_files[1], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    position = input_position.resume(output_dir, 6, 8, record_files, ORDER)
    assert position.file_sizes == [7, 2]
    assert "counting the records of " + record_files[1] in caplog.text


def test_a_damaged_record_file_is_named(output_dir, record_files):
    input_position.resume(output_dir, 0, 8, record_files, ORDER)
    with open(record_files[1], "r+b") as file:
        file.truncate(os.path.getsize(record_files[1]) - 3)
    with pytest.raises(UserError, match="b.tfrecord: truncated or corrupt"):
        input_position.resume(output_dir, 5, 8, record_files, ORDER)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"batch_sizes": [[0]], "files": [], "order": {}}',
        '{"batch_sizes": [["0", 8]], "files": [], "order": {}}',
        '{"batch_sizes": [[0, 8]], "files": [{"name": "a"}], "order": {}}',
        '{"batch_sizes": [[0, 8]], "files": [], "order": null}',
        "[" * 50000 + "]" * 50000,
        '{"batch_sizes": [], "files": [], "order": {}}',
        '{"batch_sizes": [[0, 0]], "files": [], "order": {}}',
        '{"batch_sizes": [[0, 8, 1]], "files": [], "order": {}}',
        '{"batch_sizes": [[0, 8.5]], "files": [], "order": {}}',
        '{"batch_sizes": [[0, %d]], "files": [], "order": {}}' % (10**40),
        '{"batch_sizes": [[3, 8]], "files": [], "order": {}}',
        '{"batch_sizes": [[0, 8], [4, 2], [2, 8]], "files": [], "order": {}}',
        '{"batch_sizes": [[0, 8]], "files": [], "order": {"--seed": []}}',
        '{"batch_sizes": [[0, 8]], "order": {}, "files": [{"name": "a", "size": 1, '
        '"written": 1, "records": 0}]}',
    ],
)
def test_a_damaged_file_is_named(output_dir, record_files, content):
    path = os.path.join(output_dir, input_position.STATE_FILE)
    with open(path, "w") as file:
        file.write(content)
    with pytest.raises(UserError, match="input_position.json: damaged .* remove it"):
        input_position.resume(output_dir, 5, 8, record_files, ORDER)
    # The advice helps.
    os.remove(path)
    position = input_position.resume(output_dir, 5, 8, record_files, ORDER)
    assert position == input_pipeline.Position(40, [7, 4])
    input_position.resume(output_dir, 0, 8, record_files, ORDER)
    with open(path) as file:
        assert json.load(file)["batch_sizes"] == [[0, 8]]


def test_only_the_chief_writes(output_dir, record_files):
    input_position.resume(output_dir, 0, 8, record_files, ORDER, is_chief=False)
    assert not os.path.exists(os.path.join(output_dir, input_position.STATE_FILE))
