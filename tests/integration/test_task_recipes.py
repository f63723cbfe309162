"""`--task_name` alone takes the published recipe; flags win; resuming keeps it."""

import json
import logging

import pytest
import tensorflow.compat.v1 as tf

import run_classifier
from albert_zh import command_line
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
        rows = [
            {"id": i, "sentence1": a, "sentence2": WORDS[-i - 1], "label": str(i % 2)}
            for i, a in enumerate(WORDS)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
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
