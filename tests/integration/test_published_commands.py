"""The commands of albert_zh's README, as written there but for paths and sizes."""

import json
import math
import os
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.models import checkpoints

# What the published files look like, at a size that trains in seconds.
CONFIG = {
    "attention_probs_dropout_prob": 0.0,
    "directionality": "bidi",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 24,
    "embedding_size": 8,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "type_vocab_size": 2,
    "vocab_size": 1104,
    "ln_type": "postln",
}
DOCUMENTS = 20

MAKE_VOCABULARY = """
python3 build_vocab.py --input_file=$DATA/corpus.txt --min_count=1
  --output_file=$DATA/vocab.txt --vocab_size=1104
"""
MAKE_RECORDS = """
python3 create_pretraining_data.py --do_whole_word_mask=True
  --input_file=$DATA/corpus.txt --output_file=$DATA/tf_1.tfrecord,$DATA/tf_2.tfrecord
  --vocab_file=$DATA/vocab.txt --do_lower_case=True --max_seq_length=64
  --max_predictions_per_seq=7 --masked_lm_prob=0.10 --dupe_factor=2
"""
PRETRAIN = """
python3 run_pretraining.py --input_file=$DATA/tf*.tfrecord
  --output_dir=$DATA/my_new_model_path --do_train=True --do_eval=True
  --bert_config_file=$BERT_BASE_DIR/albert_config_tiny.json
  --train_batch_size=8 --max_seq_length=64 --max_predictions_per_seq=7
  --num_train_steps=12 --num_warmup_steps=2 --learning_rate=0.00176
  --save_checkpoints_steps=6 --init_checkpoint=$BERT_BASE_DIR/albert_model.ckpt
"""
FINE_TUNE = """
python3 run_classifier.py --task_name=lcqmc_pair --do_train=true --do_eval=true
  --data_dir=$TEXT_DIR --vocab_file=$DATA/vocab.txt
  --bert_config_file=$BERT_BASE_DIR/albert_config_tiny.json
  --max_seq_length=32 --train_batch_size=64 --learning_rate=1e-4
  --num_train_epochs=1 --output_dir=$DATA/albert_lcqmc_checkpoints
  --init_checkpoint=$BERT_BASE_DIR/albert_model.ckpt
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory, repository):
    """Function that runs one of the command lines above in a POSIX shell."""
    folder = tmp_path_factory.mktemp("published")
    text = (repository / "resources" / "sample_corpus.txt").read_text("utf-8")
    documents = text.split("\n\n")[:DOCUMENTS]
    (folder / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")
    (folder / "albert_config_tiny.json").write_text(json.dumps(CONFIG))
    _write_checkpoint(str(folder / "albert_model.ckpt"))
    (folder / "lcqmc").mkdir()
    for split, rows in (("train", 256), ("dev", 64), ("test", 64)):
        source = repository / "resources" / "sample_pairs" / (split + ".txt")
        lines = source.read_text("utf-8").splitlines()[:rows]
        (folder / "lcqmc" / (split + ".txt")).write_text("\n".join(lines), "utf-8")

    def run(command):
        line = " ".join(command.split()).replace("python3", sys.executable, 1)
        environment = dict(
            os.environ,
            DATA=str(folder),
            BERT_BASE_DIR=str(folder),
            TEXT_DIR=str(folder / "lcqmc"),
        )
        # In the precision, and with the compiler, that users have on this machine.
        del environment["ONEDNN_MAX_CPU_ISA"]
        result = subprocess.run(
            line,
            shell=True,
            cwd=str(repository),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr, folder

    return run


def _write_checkpoint(prefix):
    """Writes a checkpoint with encoder and pretraining heads."""
    config = modeling.AlbertConfig.from_dict(CONFIG)
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.zeros([1, 4], tf.int32)
        model = modeling.AlbertModel(config, False, ids)
        modeling.get_masked_lm_output(config, model, ids, ids, tf.ones([1, 4]))
        modeling.get_sentence_order_output(config, model, tf.zeros([1], tf.int32))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, prefix, write_meta_graph=False)


def _fill_vocabulary(path):
    """Gives every row of the embedding table an entry, as the published files do."""
    missing = CONFIG["vocab_size"] - len(path.read_text("utf-8").splitlines())
    with path.open("a", encoding="utf-8") as vocabulary:
        vocabulary.writelines("[unused{}]\n".format(100 + i) for i in range(missing))


def test_from_text_to_a_fine_tuned_model(shell):
    _, folder = shell(MAKE_VOCABULARY)
    _fill_vocabulary(folder / "vocab.txt")
    shell(MAKE_RECORDS)
    output, folder = shell(PRETRAIN)
    assert "31 variables restored" in output and "0 missing, 0 unused" in output
    model_dir = folder / "my_new_model_path"
    assert checkpoints.latest_checkpoint(str(model_dir)).endswith("model.ckpt-12")
    results = json.loads((model_dir / "eval_results.json").read_text())
    assert results["global_step"] == 12
    # A model that has hardly begun to learn spreads its guesses over the vocabulary.
    chance = math.log(CONFIG["vocab_size"])
    assert results["masked_lm_loss"] == pytest.approx(chance, rel=0.3)

    output, folder = shell(FINE_TUNE)
    assert "not used: cls/predictions/output_bias" in output
    results = (folder / "albert_lcqmc_checkpoints" / "eval_results.json").read_text()
    for split in ("dev", "test"):
        scores = json.loads(results)[split]
        assert scores["num_examples"] == 64
        assert scores["accuracy"] == pytest.approx(
            (scores["confusion_matrix"][0][0] + scores["confusion_matrix"][1][1]) / 64
        )
