"""The vocabulary that a command works with."""

import pytest

from albert_zh.base.errors import UserError
from albert_zh.models import vocabularies


def test_flags_alone_name_a_vocabulary(tmp_path):
    vocab_file = str(tmp_path / "vocab.txt")
    with pytest.raises(UserError, match="no such vocabulary.*download_model.py vocab"):
        vocabularies.choose(None, vocab_file, None, None)
    (tmp_path / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    chosen = vocabularies.choose(None, vocab_file, None, None)
    assert chosen == vocabularies.Choice(vocab_file, None, True, None)
    assert chosen.read_files() == [vocab_file]
    assert not vocabularies.choose(None, vocab_file, None, False).do_lower_case
    vocabularies.check_fit(chosen, 1, 512)  # there is no config to fit


def test_a_vocabulary_must_be_named():
    with pytest.raises(UserError, match="--vocab_file is missing"):
        vocabularies.choose(None, None, None, None)


def test_a_sentencepiece_model_has_precedence(tmp_path):
    (tmp_path / "spm.model").write_bytes(b"model")
    spm_model_file = str(tmp_path / "spm.model")
    chosen = vocabularies.choose(None, "unused.txt", spm_model_file, None)
    assert chosen.path == spm_model_file


def test_a_directory_completes_the_flags(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n", encoding="utf-8")
    (tmp_path / "tokenizer_settings.json").write_text('{"do_lower_case": false}')
    (tmp_path / "albert_config.json").write_text(
        '{"vocab_size": 3, "embedding_size": 4, "hidden_size": 8, '
        '"num_attention_heads": 2, "ln_type": "postln", "max_position_embeddings": 16}'
    )
    chosen = vocabularies.choose(str(tmp_path), None, None, None)
    assert chosen.vocab_file == str(tmp_path / "vocab.txt")
    assert not chosen.do_lower_case
    assert chosen.config_file == str(tmp_path / "albert_config.json")
    with pytest.raises(UserError, match="2 entries.*3 rows"):
        vocabularies.check_fit(chosen, 2, 16)
    with pytest.raises(UserError, match="--max_seq_length 17"):
        vocabularies.check_fit(chosen, 3, 17)
    vocabularies.check_fit(chosen, 3, 16)
