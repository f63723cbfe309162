"""What benchmarks of rows share: which rows, one run of each, the numbers shown."""

import os

import pytest

from albert_zh.base.errors import UserError
from benchmarks import rows

HELP = ["inspect_checkpoint.py", "--help"]


def test_rows_are_those_named_or_all():
    assert rows.choose("all", ["a", "b"]) == ["a", "b"]
    assert rows.choose("b,a", {"a": 1, "b": 2}) == ["b", "a"]
    with pytest.raises(UserError, match="no row c; expected some of a, b"):
        rows.choose("a,c", ["a", "b"])


def test_a_command_that_has_ended_is_not_run_again(tmp_path):
    folder = tmp_path / "row"
    seconds = rows.run_once(HELP, folder)
    log = (folder / "log.txt").read_text()
    assert log.startswith("$ inspect_checkpoint.py --help\nusage: ") and seconds > 0
    assert rows.run_once(HELP, folder) == seconds
    assert (folder / "log.txt").read_text() == log
    with pytest.raises(UserError, match="settings or files \\(now: --other, no --help"):
        rows.run_once(HELP[:1] + ["--other"], folder)


@pytest.fixture
def runs(monkeypatch):
    """The commands that would have run."""
    found = []
    monkeypatch.setattr(rows, "run", lambda command, folder: found.append(command))
    return found


def test_results_of_other_files_are_not_shown(tmp_path, runs):
    (tmp_path / "data").mkdir()
    names = ("text.txt", "model.ckpt-1.index", "data/train.tsv")
    paths = [tmp_path / name for name in names]
    text, table = paths[0], paths[2]
    for path in paths:
        path.write_text("one")
    flags = ["--input_file={},gone".format(text), "--data_dir={}".format(table.parent)]
    flags.append("--init_checkpoint={}".format(tmp_path / "model.ckpt-1"))
    command = ["x.py", *flags, "--output_file={}".format(tmp_path / "out.txt")]
    for number, path in enumerate(paths):
        folder = tmp_path / "row{}".format(number)
        rows.run_once(command, folder)
        (tmp_path / "out.txt").write_text(str(number))
        rows.check(command, folder)
        path.write_text("other")
        with pytest.raises(UserError, match="now: another .*" + path.name):
            rows.check(command, folder)
    path.unlink()
    with pytest.raises(UserError, match="now: another .*train.tsv"):
        rows.run_once(command, folder)
    assert runs == [command] * 3


def test_an_interrupted_command_is_resumed_under_its_settings(tmp_path, monkeypatch):
    def interrupt(command, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rows, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rows.run_once(HELP, tmp_path / "row")
    with pytest.raises(UserError, match="now: --seed=2"):
        rows.run_once(HELP + ["--seed=2"], tmp_path / "row")
    ticks = iter([0.0, 5.0, 100.0, 102.0])
    monkeypatch.setattr(rows.time, "time", lambda: next(ticks))
    monkeypatch.setattr(rows, "run", lambda command, folder: None)
    assert rows.run_once(HELP, tmp_path / "other") == 5.0
    record = tmp_path / "other" / "run.json"
    record.write_text(record.read_text().replace("true", "false"))
    assert rows.run_once(HELP, tmp_path / "other") == 7.0


def test_a_damaged_record_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text('{"command": [')
    with pytest.raises(UserError, match="run.json: damaged .*; remove "):
        rows.run_once(HELP, tmp_path)


def test_a_file_of_the_same_content_keeps_its_time(tmp_path):
    path = tmp_path / "folder" / "config.json"
    rows.write(b"one", path)
    os.utime(str(path), (1, 1))
    rows.write(b"one", path)
    assert path.stat().st_mtime == 1
    rows.write(b"two", path)
    assert path.read_bytes() == b"two"


def test_a_command_that_fails_is_run_again(tmp_path):
    for times in (1, 2):
        with pytest.raises(UserError, match="inspect_checkpoint.py failed; see .*log"):
            rows.run_once(["inspect_checkpoint.py", "--no_flag"], tmp_path)
        assert (tmp_path / "log.txt").read_text().count("$ ") == times


def test_means_have_deviations_from_two_on():
    assert rows.mean_and_deviation([]) == ""
    assert rows.mean_and_deviation([0.5]) == "50.0%"
    assert rows.mean_and_deviation([0.5, 0.7]) == "60.0% ± 14.1"
    assert rows.mean_and_deviation([0.01, 0.02], "{:+.1%}") == "+1.5% ± 0.7"
