"""`--task_name` alone takes the published recipe; flags win; resuming keeps it."""

import json
import logging
import os

import pytest
import tensorflow.compat.v1 as tf

import run_classifier
from albert_zh import command_line
from albert_zh.tasks import get_task, rows, splits
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)

WORDS = "天地人山水火土木金石日月"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model's config and vocabulary, and AFQMC's files."""
    folder = tmp_path_factory.mktemp("afqmc")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(WORDS)
    (folder / "vocab.txt").write_bytes("\n".join(tokens).encode("utf-8"))
    config = dict(CONFIG.to_dict(), vocab_size=len(tokens))
    (folder / "albert_config.json").write_text(json.dumps(config))
    for split in ("train", "dev", "test"):
        content = [
            {
                "id": 100 + 3 * i,
                "sentence1": a,
                "sentence2": WORDS[-i - 1],
                "label": str(i % 2),
            }
            for i, a in enumerate(WORDS)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (folder / (split + ".json")).write_text(lines)
    return folder


def train(folder, output_dir, *flags):
    command_line.run(
        run_classifier.main,
        run_classifier.build_parser(),
        [
            "--task_name=afqmc",
            "--do_train",
            "--data_dir={}".format(folder),
            "--bert_config_file={}".format(folder / "albert_config.json"),
            "--vocab_file={}".format(folder / "vocab.txt"),
            "--output_dir={}".format(output_dir),
        ]
        + list(flags),
    )
    return json.loads((output_dir / "training.json").read_text())


def test_the_recipe_is_taken_logged_saved_and_kept(folder, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        settings = train(folder, tmp_path / "a", "--num_train_epochs=1")
        assert settings["--train_batch_size"] == 16
        assert settings["--learning_rate"] == 2e-5
        assert settings["--num_train_epochs"] == 1
        assert settings["--max_seq_length"] == CONFIG.max_position_embeddings
        assert settings["recipe"]["size"] == "tiny"
        assert settings["recipe"]["settings"] == {
            "train_batch_size": 16,
            "learning_rate": 2e-5,
            "max_seq_length": CONFIG.max_position_embeddings,
        }
        assert "nearest by parameters is tiny" in caplog.text
        assert "recipe of afqmc for size tiny: --learning_rate=2e-05" in caplog.text
        caplog.clear()
        train(folder, tmp_path / "a", "--num_train_epochs=1")
        assert "training is complete" in caplog.text
        given = ["--train_batch_size=8", "--learning_rate=1e-3", "--max_seq_length=8"]
        train(folder, tmp_path / "b", "--num_train_epochs=1", *given)
        assert "for size tiny: no setting is left to it (http" in caplog.text


def test_a_training_of_earlier_versions_is_resumed_without_a_recipe(
    folder, tmp_path, caplog
):
    defaults = [
        "--train_batch_size=32",
        "--learning_rate=5e-5",
        "--num_train_epochs=3",
        "--max_seq_length=8",
    ]
    settings = train(folder, tmp_path / "a", *defaults)
    assert settings.pop("recipe")["settings"] == {}
    (tmp_path / "a" / "training.json").write_text(json.dumps(settings))
    with caplog.at_level(logging.INFO):
        train(folder, tmp_path / "a", "--max_seq_length=8")
    assert "training is complete" in caplog.text
    assert "recipe" not in caplog.text


def test_predicting_writes_what_the_judge_reads(folder, tmp_path, capsys):
    output_dir = tmp_path / "a"
    train(folder, output_dir, "--num_train_epochs=1", "--do_predict")
    path = output_dir / "afqmc_predict.json"
    assert "Submission saved to {}".format(path) in capsys.readouterr().out
    found = [json.loads(line) for line in path.read_text().splitlines()]
    test = [json.loads(line) for line in (folder / "test.json").open()]
    assert [row["id"] for row in found] == [row["id"] for row in test]
    predictions = (output_dir / "predictions.tsv").read_text().splitlines()
    assert [row["label"] for row in found] == [p.split("\t")[0] for p in predictions]
    assert all(set(row) == {"id", "label"} for row in found)

    # Another file does not replace it; what a killed run has left is removed.
    for name in ("predictions.tsv", "afqmc_predict.json"):
        (output_dir / ".{}.{}.partial".format(name, "0f" * 16)).write_text("half")
    submitted, names = path.read_bytes(), set(os.listdir(str(output_dir)))
    predict = ["--do_predict", "--output_dir={}".format(output_dir)]
    predict.append("--predict_file={}".format(folder / "dev.json"))
    command_line.run(run_classifier.main, run_classifier.build_parser(), predict)
    assert "Submission" not in capsys.readouterr().out
    assert path.read_bytes() == submitted
    left = {name for name in names if name.endswith(".partial")}
    assert len(left) == 2 and set(os.listdir(str(output_dir))) == names - left


@pytest.mark.parametrize("flag", ["predict", "test"])
@pytest.mark.parametrize(
    "name,expected",
    [
        (None, {"tnews11_predict.json": "test.json"}),
        ("test1.0.json", {"tnews10_predict.json": "test1.0.json"}),
        ("dev.json", {}),
    ],
)
def test_a_file_is_submitted_under_the_name_of_its_test_file(
    tmp_path, flag, name, expected
):
    task = get_task("tnews")
    for file in ("test.json", "dev.json"):
        (tmp_path / file).write_text("")
    named = {flag: name and str(tmp_path / name)}
    data = splits.TaskData(task, str(tmp_path), named, None)
    expected = {key: str(tmp_path / file) for key, file in expected.items()}
    assert data.find_submissions() == expected
    if name is None:
        (tmp_path / "test1.0.json").write_text("")
        assert set(data.find_submissions()) == {
            "tnews11_predict.json",
            "tnews10_predict.json",
        }


@pytest.mark.parametrize("flag", ["predict", "test"])
def test_a_test_file_read_with_others_is_no_submission(tmp_path, flag):
    folder = tmp_path / "c3,1"
    folder.mkdir()
    paths = [str(folder / name) for name in ("extra.json", "test1.1.json")]
    for path in paths:
        open(path, "w").close()
    task = get_task("c3")
    alone = splits.TaskData(task, None, {flag: paths[1]}, None)
    assert alone.find_submissions() == {"c311_predict.json": paths[1]}
    for both in (paths, paths[::-1]):
        data = splits.TaskData(task, None, {flag: ",".join(both)}, None)
        assert data.find_submissions() == {}


@pytest.mark.parametrize("name", ["c3", "chid"])
@pytest.mark.parametrize("versions", [[], ["0"], ["1"], ["0", "1"]])
def test_each_version_of_a_test_file_has_its_submission(tmp_path, name, versions):
    for file in ["test.json"] + ["test1.{}.json".format(v) for v in versions]:
        (tmp_path / file).write_text("")
    data = splits.TaskData(get_task(name), str(tmp_path), {}, None)
    assert data.find_submissions() == {
        "{}1{}_predict.json".format(name, v): str(tmp_path / "test1.{}.json".format(v))
        for v in versions
    }


def test_ids_are_those_of_the_lines_else_their_numbers(tmp_path):
    path = tmp_path / "test.json"
    path.write_text('{"id": 7}\n{"idx": 3}\n{"id": "x"}\n\n')
    ids = rows.read_ids(str(path))
    assert [next(ids) for _ in range(3)] == [7, 1, "x"]
    ids = rows.read_ids(str(tmp_path / "test.txt"))
    assert [next(ids) for _ in range(2)] == [0, 1]
