"""CLUE: which data are missing, the table, and the check of a submission."""

import json
import logging
import pathlib
import re
import shlex
import shutil
import zipfile

import numpy as np
import pytest

from albert_zh.base.errors import UserError
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.serving import exported
from albert_zh.tasks import clue, get_task, kinds, rows
from albert_zh.tasks.splits import TaskData

SIZE = "tiny"


@pytest.fixture
def runs(tmp_path):
    """Finished runs of afqmc and tnews, whose files and results are made up."""
    pair = {"sentence1": "甲", "sentence2": "乙"}
    contents = {
        "afqmc": ([dict(pair, id=i) for i in (5, 3, 9)], "1"),
        "tnews": ([{"sentence": "甲"}] * 2, "104"),
    }
    for name, (content, label) in contents.items():
        folder, output = tmp_path / "data" / name, tmp_path / "out" / name
        folder.mkdir(parents=True)
        output.mkdir(parents=True)
        for split in ("train", "dev", "test"):
            lines = [json.dumps(row) + "\n" for row in content]
            (folder / (split + ".json")).write_text("".join(lines))
        (run,), missing = clue.plan(
            [get_task(name)], str(tmp_path / "data"), str(tmp_path / "out")
        )
        assert not missing
        for file, test_file in run.submissions().items():
            write_submission(output / file, test_file, label, len(content))
        (output / "trials.json").write_text(
            json.dumps(
                {
                    "metric": "accuracy",
                    "best_seed": 1,
                    "splits": {
                        "dev": {
                            "by_seed": {"1": 0.5, "2": 0.7},
                            "mean": 0.6,
                            "standard_deviation": 0.1414,
                        }
                    },
                }
            )
        )
    tasks = clue.choose_tasks(("afqmc", "tnews"))
    return clue.plan(tasks, str(tmp_path / "data"), str(tmp_path / "out"))[0]


def write_submission(path, test_file, label, number):
    ids = rows.read_ids(test_file)
    lines = [json.dumps({"id": next(ids), "label": label}) for _ in range(number)]
    path.write_text("".join(line + "\n" for line in lines))


def test_table_has_the_published_scores_beside(runs):
    lines = clue.format_table(runs, SIZE).splitlines()
    assert "published dev, tiny" in lines[0]
    assert "| afqmc | accuracy | 60.00 ± 14.14 | - | 69.13 | 69.92 |" in lines[2]
    assert "https://github.com/CLUEbenchmark/CLUE" in lines[2]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    "metric, shown", [("loss", "0.60 ± 0.14"), ("macro_f1", "60.00 ± 14.14")]
)
def test_another_metric_is_not_beside_what_was_published(runs, metric, shown):
    path = pathlib.Path(runs[0].output_dir, "trials.json")
    path.write_text(path.read_text().replace("accuracy", metric))
    lines = clue.format_table(runs, SIZE).splitlines()
    assert lines[2] == "| afqmc | {} | {} | - | - | - |  |".format(metric, shown)
    assert "| tnews | accuracy | 60.00 ± 14.14 | - | 53.55 | 53.35 |" in lines[3]


def test_a_run_is_complete_with_all_it_is_made_of(runs, tmp_path):
    run, flags = runs[0], {"--num_train_epochs": "1.0"}
    made = run.describe([1, 2], flags)
    assert not run.is_complete(made)
    run.begin(made)
    assert not run.is_complete(made)
    run.finish(made)
    assert run.is_complete(made)
    assert not run.is_complete(run.describe([1, 2, 3], flags))
    assert not run.is_complete(run.describe([1], flags))  # the table is of both
    assert not run.is_complete(run.describe([1, 2], {}))
    (tmp_path / "out" / "afqmc" / "afqmc_predict.json").unlink()
    assert not run.is_complete(made)


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_a_run_of_files_that_have_changed_is_not_complete(runs, tmp_path, name):
    runs[0].finish(runs[0].describe([1, 2], {}))
    path = tmp_path / "data" / "afqmc" / (name + ".json")
    text = path.read_text()
    path.write_text(text.replace("5", "6"))
    assert not runs[0].is_complete(runs[0].describe([1, 2], {}))
    path.write_text(text)
    assert runs[0].is_complete(runs[0].describe([1, 2], {}))


def test_files_beside_those_of_a_task_count_as_well(tmp_path):
    """The answers of ChID, and second test files."""
    for name, files in (
        ("chid", ["train.json", "train_answer.json", "test1.1.json"]),
        ("chid", ["train.json", "train_answer.json", "test1.1.json", "test1.0.json"]),
        ("tnews", ["train.json", "test.json", "test1.0.json"]),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / name / file).write_text(file)
        run = clue.Run(get_task(name), str(tmp_path / name), str(tmp_path / "out"))
        assert sorted(run.describe([1], {})["files"]) == sorted(files)


def test_a_task_that_has_begun_keeps_its_flags(runs, tmp_path):
    run, flags = runs[0], {"--num_train_epochs": "1.0"}
    run.begin(run.describe([1], flags))
    run.check_flags({})  # no training has begun
    trial = tmp_path / "out" / "afqmc" / "seed_1"
    (trial / "best").mkdir(parents=True)
    (trial / "training.json").write_text("{}")
    run.check_flags(flags)
    for given, received in (({}, "none"), ({"--num_train_epochs": "2.0"}, "2.0")):
        words = "afqmc: .* another --num_train_epochs: 1.0, received " + received
        with pytest.raises(UserError, match=words):
            run.check_flags(given)
    (tmp_path / "out" / "afqmc" / clue.RECORD_FILE).unlink()
    with pytest.raises(UserError, match="--num_train_epochs: none, received 1.0"):
        run.check_flags(flags)


@pytest.fixture
def begun(runs):
    """Runs that have begun without flags, but for the seed; afqmc is complete."""
    for run in runs:
        trial = pathlib.Path(run.output_dir) / "seed_1"
        (trial / "best").mkdir(parents=True)
        (trial / "training.json").write_text("{}")
        run.begin(run.describe([1], {}))
    runs[0].finish(runs[0].describe([1], {}))
    return runs


def test_flags_for_a_later_task_lose_no_complete_one(begun, caplog):
    flags = {"afqmc": {"--class_weights": "a"}, "tnews": {"--class_weights": "a"}}
    with pytest.raises(UserError, match="tnews: .*remove .*tnews to train tnews anew"):
        clue.settle_flags(begun, [1], flags)
    # As the message says.
    shutil.rmtree(begun[1].output_dir)
    settled = clue.settle_flags(begun, [1], flags)
    assert settled == dict(flags, afqmc={})
    assert "afqmc is complete and stays as it is; its flags after -- were: none" in (
        caplog.text
    )
    # Killed in tnews, the same command resumes it.
    shutil.copytree(begun[0].output_dir, begun[1].output_dir)
    begun[1].begin(begun[1].describe([1], flags["tnews"]))
    assert clue.settle_flags(begun, [1], flags) == settled


def test_flags_that_no_task_would_run_with_are_refused(begun):
    with pytest.raises(UserError, match="another --class_weights: none, received a"):
        clue.settle_flags(begun[:1], [1], {"afqmc": {"--class_weights": "a"}})
    more_seeds = begun[:1], [1, 2], {"afqmc": {"--class_weights": "a"}}
    with pytest.raises(UserError, match="another --class_weights: none, received a"):
        clue.settle_flags(*more_seeds)
    assert clue.settle_flags(begun, [1], {"afqmc": {}, "tnews": {}})["afqmc"] == {}


def find_completed(tmp_path, names=("tnews",)):
    """`clue.find_completed` beside a run of these tasks."""
    (tmp_path / "model").mkdir(exist_ok=True)
    folders = [str(tmp_path / name) for name in ("data", "out", "model")]
    return clue.find_completed(clue.choose_tasks(names), *folders)


def test_results_of_tasks_that_do_not_run_are_found(begun, tmp_path, caplog):
    """With the seeds and flags that they have, not those of the run beside them."""
    caplog.set_level(logging.INFO)
    flags = {"--num_train_epochs": "1.0"}
    begun[0].finish(begun[0].describe([1, 2], flags))
    assert find_completed(tmp_path) == begun[:1]
    (record,) = caplog.records
    said = "afqmc is complete and stays as it is; its seeds: 1, 2, flags after --: {}"
    assert record.message == said.format("--num_train_epochs=1.0")
    assert find_completed(tmp_path, ("tnews", "afqmc")) == []


def _change(path):
    path.write_text(path.read_text().replace("甲", "丙").replace("\\u7532", "丁"))


@pytest.mark.parametrize(
    "damage, path, words",
    [
        (
            pathlib.Path.unlink,
            "out/afqmc/afqmc_predict.json",
            "complete; .* name afqmc",
        ),
        (pathlib.Path.unlink, "out/afqmc/clue.json", "afqmc: .*afqmc is not complete"),
        (
            pathlib.Path.unlink,
            "data/afqmc/train.json",
            "no train.tsv, .*download_model",
        ),
        (pathlib.Path.unlink, "data/afqmc/dev.json", "no dev.tsv, .*download_model"),
        (_change, "data/afqmc/train.json", "train.json .*or remove .*out/afqmc and"),
        (_change, "data/afqmc/test.json", "test.json .*; name afqmc in .* anew$"),
        (lambda path: path.write_text("x"), "out/afqmc/clue.json", "clue.json"),
        (pathlib.Path.unlink, "out/afqmc/trials.json", "afqmc is not complete"),
        (lambda path: path.write_text("x"), "out/afqmc/trials.json", "name afqmc in"),
        (
            lambda path: path.write_text(""),
            "out/afqmc/afqmc_predict.json",
            "0 lines.*; remove that file, and name afqmc in --tasks",
        ),
        (lambda path: shutil.copy(path, str(path) + "l"), "data/afqmc/dev.json", "dev"),
    ],
)
def test_results_that_cannot_be_used_are_said(
    begun, tmp_path, caplog, damage, path, words
):
    damage(tmp_path / path)
    assert find_completed(tmp_path) == []
    (record,) = caplog.records
    assert re.search("^not in the table, nor .*" + words, record.message)


def test_results_of_another_model_are_said(begun, tmp_path, caplog):
    (tmp_path / "model").mkdir()
    tensors = {"w": np.int64(1), "global_step": 1}
    checkpoints.write_tensors(tensors, str(tmp_path / "model" / "model.ckpt"))
    training = tmp_path / "out" / "afqmc" / "seed_1" / "training.json"
    settings = {"--max_seq_length": 8, "--train_batch_size": 4, "--learning_rate": 1e-5}
    settings.update({"--warmup_proportion": 0.1, "--seed": 1, "--num_train_epochs": 5})
    settings.update({"--optimizer": "adamw", "--train_file": "3 examples"})
    settings["--init_checkpoint"] = "a checkpoint with SHA-256 " + 64 * "0"
    training.write_text(json.dumps(settings))
    assert find_completed(tmp_path) == []
    assert "out/afqmc/seed_1 began with another model; give that one" in caplog.text


def test_results_of_what_has_only_begun_are_said(begun, tmp_path, caplog):
    (tmp_path / "out" / "tnews" / "trials.json").unlink()
    assert find_completed(tmp_path, ("afqmc",)) == []
    assert "out/tnews is not complete" in caplog.text


def test_submission_holds_the_files_without_folders(runs, tmp_path):
    path = clue.write_submission(runs, str(tmp_path))
    content = open(path, "rb").read()
    with zipfile.ZipFile(path) as archive:
        names = ["afqmc_predict.json", "tnews11_predict.json"]
        assert sorted(archive.namelist()) == names
        first = archive.read("afqmc_predict.json").splitlines()[0]
    assert json.loads(first) == {"id": 5, "label": "1"}
    clue.write_submission(runs, str(tmp_path))
    assert open(path, "rb").read() == content


GOOD = ['{"id": 5, "label": "1"}', '{"id": 3, "label": "0"}', '{"id": 9, "label": "0"}']
FAULTS = [
    (GOOD[:2], "afqmc_predict.json: 2 lines, but .*test.json has 3 rows"),
    (GOOD + GOOD[:1], "4 lines, but"),
    (GOOD[:1] + GOOD[:0:-1], "afqmc_predict.json:2: id is 9, but .*has 3"),
    (GOOD[:2] + ['{"id": 9, "label": "2"}'], ":3: .*has no label of afqmc"),
    (GOOD[:2] + ['{"id": 9, "label": 0}'], ":3: .*has no label of afqmc"),
    (GOOD[:2] + ['{"id": 9}'], ":3: .*has no label of afqmc"),
    (GOOD[:2] + ["[]"], ":3: .*has no label of afqmc"),
    (GOOD[:2] + ["{"], ":3: not JSON"),
    (GOOD[:2] + ['{"id": 9, "label": "0", "label": "1"}'], ":3: .*'label' twice"),
]


@pytest.mark.parametrize("lines,message", FAULTS)
def test_faults_of_a_submission_are_named(runs, tmp_path, lines, message):
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("afqmc_predict.json", "\n".join(lines) + "\n")
    with pytest.raises(UserError, match=message):
        clue.check_submission(str(path), runs[:1])


@pytest.mark.parametrize("name", ["out/afqmc_predict.json", "ocnli_predict.json"])
def test_other_names_are_refused(runs, tmp_path, name):
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr(name, "\n".join(GOOD))
    with pytest.raises(UserError, match="it holds {}, expected".format(name)):
        clue.check_submission(str(path), runs[:1])


def test_missing_data_are_named_with_their_place(tmp_path):
    folder = tmp_path / "ocnli"
    folder.mkdir()
    (folder / "dev.json").write_text("")
    tasks = clue.choose_tasks(("ocnli", "cluewsc2020"))
    runs, (ocnli, wsc) = clue.plan(tasks, str(tmp_path), str(tmp_path))
    assert not runs
    assert "ocnli: no train.tsv" in ocnli and "train.50k.json" in ocnli
    assert "no test.tsv" in ocnli and "no dev" not in ocnli
    place = tmp_path / "cluewsc2020"
    assert "none of the folders {}".format(place) in wsc
    assert "download_model.py wsc --output_dir={}".format(place) in wsc
    assert "\n" not in ocnli + wsc


def test_paths_in_commands_are_quoted(tmp_path):
    """As a shell reads them, where a folder's name has a space."""
    folder = tmp_path / "my data"
    (folder / "c3").mkdir(parents=True)
    (folder / "c3" / "d-dev.json").write_text("")
    _, (line,) = clue.plan(clue.choose_tasks(("ocnli",)), str(folder), str(tmp_path))
    assert "--output_dir={}".format(folder / "ocnli") in shlex.split(line.split("`")[1])
    data = TaskData(get_task("c3"), str(folder / "c3"), {}, None)
    flag = "--dev_file={}".format(folder / "c3" / "d-dev.json")
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_text("")
    for function, argument in (
        (lambda: data.find("dev"), flag),
        (lambda: model_directory.find(str(folder)), "--input={}".format(folder)),
        (lambda: exported.read(str(folder), "onnx"), "--model_dir={}".format(folder)),
    ):
        with pytest.raises(UserError) as error:
            function()
        assert argument in shlex.split(str(error.value))


def test_tasks_are_those_with_a_judge():
    names = {task.name for task in clue.tasks()}
    assert names >= {"afqmc", "tnews", "iflytek", "cmnli", "ocnli", "csl"}
    assert not names & {"lcqmc", "xnli", "pair"}
    with pytest.raises(UserError, match="--tasks: 'pair' is no task with a recipe"):
        clue.choose_tasks(("pair",))


def test_other_tasks_with_a_recipe_can_be_asked_for():
    names = [task.name for task in clue.other_tasks()]
    assert {
        *("lcqmc", "xnli", "chnsenticorp", "stsb", "drcd", "msra_ner", "resume_ner")
    } == set(names)
    chosen = clue.choose_tasks(names)
    assert [task.name for task in chosen] == names
    assert all(task.kind in kinds.COMMANDS for task in chosen)


def test_without_a_judge_there_is_no_submission(tmp_path):
    run = clue.Run(get_task("stsb"), str(tmp_path), str(tmp_path / "out"))
    assert clue.write_submission([run], str(tmp_path)) is None
    assert not (tmp_path / clue.SUBMISSION_FILE).exists()


@pytest.mark.parametrize(
    "name,folder,file,label,number",
    [
        ("ocnli", "ocnli", "test.json", "neutral", 3000),
        ("cmnli", "tasks/cmnli", "test.json", "neutral", 13880),
        ("afqmc", "tasks/afqmc", "test.txt", "0", 3861),
    ],
)
def test_real_test_files(real_data, tmp_path, name, folder, file, label, number):
    run = clue.Run(get_task(name), str(real_data / folder), str(tmp_path))
    ((submission, test_file),) = run.submissions().items()
    assert test_file == str(real_data / folder / file)
    write_submission(tmp_path / submission, test_file, label, number)
    clue.write_submission([run], str(tmp_path))


def _lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


_QUESTION = {"question": "问", "choice": ["甲", "乙"], "id": "q1"}
_CONTEXT = {"context": "天晴。", "qas": [{"id": "q1", "question": "天气？"}]}
_CONTENTS = ["甲#idiom000001#乙", "丙#idiom000002#丁"]
_IDIOMS = [chr(0x4E00 + number) * 4 for number in range(10)]
# Task -> its test file, a right submission, and wrong ones with what is said of them.
SUBMISSIONS = {
    "cluener": (
        _lines({"id": 7, "text": "北京好"}, {"id": 3, "text": "天"}),
        _lines(
            {"id": 7, "label": {"address": {"北京": [[0, 1]]}}}, {"id": 3, "label": {}}
        ),
        {
            _lines({"id": 7, "label": {}}): "its ids are not those of",
            _lines({"id": 3, "label": {}}, {"id": 7, "label": {}}): "its ids are not",
            _lines(7, 3): "its ids are not",
            _lines({"id": 7, "label": []}, {"id": 3, "label": {}}): r"label is \[\]",
            _lines(
                {"id": 7, "label": {"address": {"北京": [[1, 2]]}}},
                {"id": 3, "label": {}},
            ): "'北京' of type 'address' does not stand there",
            _lines(
                {"id": 7, "label": {"LOC": {"北京": [[0, 1]]}}}, {"id": 3, "label": {}}
            ): "of type 'LOC'",
        },
    ),
    "cmrc2018": (
        json.dumps({"data": [{"paragraphs": [_CONTEXT]}]}),
        json.dumps({"q1": "天晴"}),
        {
            json.dumps({"q2": "天晴"}): "do not have the same questions",
            json.dumps(["天晴"]): "expected one JSON object",
            json.dumps({"q1": "下雨"}): "q1: '下雨' is no piece of the text",
            json.dumps({"q1": 1}): "q1: 1 is no piece",
        },
    ),
    "c3": (
        json.dumps([[["天晴。"], [_QUESTION], "1"]]),
        _lines({"id": "q1", "label": 1}),
        {
            _lines({"id": "q1", "label": 2}): ":1: 2 is no index of 2 choices",
            _lines({"id": "q1", "label": True}): "True is no index",
            _lines({"id": 0, "label": 0}): "its ids are not",
            "{": ":1: not JSON",
        },
    ),
    "chid": (
        _lines({"content": _CONTENTS, "candidates": _IDIOMS}),
        json.dumps({"#idiom000001#": 0, "#idiom000002#": 9}),
        {
            json.dumps({"#idiom000001#": 0}): "instance #idiom000002#",
            json.dumps({"#idiom000001#": 0, "#idiom000002#": 10}): "10 is no index",
        },
    ),
}


@pytest.mark.parametrize("name", sorted(SUBMISSIONS))
def test_submissions_of_every_kind_are_checked(tmp_path, name):
    test_file, right, wrong = SUBMISSIONS[name]
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    output.mkdir()
    for file in ("test.json", "test1.1.json"):
        (data / file).write_text(test_file)
    run = clue.Run(get_task(name), str(data), str(output))
    ((submission, _),) = run.submissions().items()
    (output / submission).write_text(right)
    clue.write_submission([run], str(output))
    (output / clue.SUBMISSION_FILE).unlink()
    for content, message in wrong.items():
        (output / submission).write_text(content)
        with pytest.raises(UserError, match=message) as error:
            clue.write_submission([run], str(output))
        assert "\n" not in str(error.value)
        assert not (output / clue.SUBMISSION_FILE).exists()


def test_a_test_file_that_no_judge_knows_is_said(tmp_path, caplog):
    (tmp_path / "test.json").write_text("")
    run = clue.Run(get_task("chid"), str(tmp_path), str(tmp_path))
    assert clue.write_submission([run], str(tmp_path)) is None
    assert "chid is not in the submission: " in caplog.text
    assert "has no test1.1.json or test1.0.json, which" in caplog.text


def test_ends_of_lines_of_unicode_end_no_line(tmp_path):
    text, (data, output) = "北\u2028京好", (tmp_path / "data", tmp_path / "out")
    entities = {"address": {text[:3]: [[0, 2]]}}
    for folder, file, record in (
        (data, "test.json", {"id": 7, "text": text}),
        (output, "cluener_predict.json", {"id": 7, "label": entities}),
    ):
        folder.mkdir()
        line = json.dumps(record, ensure_ascii=False) + "\n"
        (folder / file).write_text(line, encoding="utf-8")
    runs = [clue.Run(get_task("cluener"), str(data), str(output))]
    path = clue.write_submission(runs, str(output))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["cluener_predict.json"]
