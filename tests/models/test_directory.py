"""Which files of a directory are taken for the model's, and what cannot be told."""

import json
import logging
import os

import pytest

import modeling
from albert_zh.base.errors import UserError
from albert_zh.models import directory as model_directory

CONFIG = {"vocab_size": 9, "hidden_size": 8}
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make(directory, *names, state=None):
    """Makes files of these names; "NAME.ckpt" stands for both files of a checkpoint."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith("config.json") or "_config" in name:
            (directory / name).write_text(json.dumps(CONFIG))
        elif ".ckpt" in name and "." not in name.split(".ckpt")[1]:
            make(directory, name + ".index", name + ".data-00000-of-00001")
        else:
            (directory / name).write_text("")
    if state is not None:
        text = 'model_checkpoint_path: "{}"\n'.format(state)
        (directory / "checkpoint").write_text(text)
    return str(directory)


def names_of(found):
    """The file names of a `ModelDirectory`, without its directory."""
    return tuple(path and path.split(found.directory + "/")[1] for path in found[1:])


@pytest.mark.parametrize(
    "files, state, expected",
    [
        (
            ["albert_config.json", "vocab.txt", "model.ckpt-7", "labels.json"],
            "model.ckpt-7",
            ("albert_config.json", "vocab.txt", None, "model.ckpt-7"),
        ),
        (  # albert_zh's archives
            ["albert_config_tiny.json", "vocab.txt", "albert_model.ckpt"],
            "albert_model.ckpt",
            ("albert_config_tiny.json", "vocab.txt", None, "albert_model.ckpt"),
        ),
        (  # Google's archives
            ["albert_config.json", "vocab_chinese.txt", "model.ckpt-best"],
            None,
            ("albert_config.json", "vocab_chinese.txt", None, "model.ckpt-best"),
        ),
        (
            ["albert_config.json", "30k-clean.model", "30k-clean.vocab"],
            None,
            ("albert_config.json", None, "30k-clean.model", None),
        ),
        (  # A preferred name decides between several.
            ["albert_config.json", "bert_config.json", "vocab.txt", "vocab_2.txt"],
            None,
            ("albert_config.json", "vocab.txt", None, None),
        ),
        (["spm.model", "vocab.txt"], None, (None, None, "spm.model", None)),
        (["crf.model", "vocab.txt"], None, (None, "vocab.txt", None, None)),
        (["my.model"], None, (None, None, "my.model", None)),
        (
            ["model.ckpt-1", "model.ckpt-2"],
            "model.ckpt-2",
            3 * (None,) + ("model.ckpt-2",),
        ),
        # Trained elsewhere, then moved here.
        (
            ["model.ckpt-1", "model.ckpt-2"],
            "/a/model.ckpt-1",
            3 * (None,) + ("model.ckpt-1",),
        ),
        # The file it names is gone, but one is left.
        (["model.ckpt-1"], "/a/b.ckpt", 3 * (None,) + ("model.ckpt-1",)),
        ([], None, 4 * (None,)),
    ],
)
def test_finds_the_files_of_published_and_own_models(tmp_path, files, state, expected):
    directory = make(tmp_path / "model", *files, state=state)
    assert names_of(model_directory.find(directory)) == expected


def test_takes_the_config_that_is_tensorflows(tmp_path):
    directory = make(tmp_path)
    others = {
        "config.json": dict(CONFIG, model_type="albert"),
        "tokenizer_config.json": {"do_lower_case": True},
        "my_config.json": CONFIG,
    }
    for name, settings in others.items():
        (tmp_path / name).write_text(json.dumps(settings))
    (tmp_path / "broken_config.json").write_text("{")
    found = model_directory.find_config(directory)
    assert found == str(tmp_path / "my_config.json")


@pytest.mark.parametrize(
    "files, words",
    [
        (
            ["albert_config_tiny.json", "bert_config.json"],
            "albert_config_tiny.json, bert_config.json: .* leave one there$",
        ),
        (["vocab_a.txt", "vocab_b.txt"], "vocab_a.txt, vocab_b.txt: .* one there$"),
        (["a.model", "b.model"], "a.model, b.model: .* leave one there$"),
        (
            ["a.ckpt", "b.ckpt"],
            "checkpoints a.ckpt, b.ckpt, and no `checkpoint` file that names one of "
            "them; leave one, or name one in the `checkpoint` file$",
        ),
        (["a.ckpt.index"], "a.ckpt.data-00000-of-00001 is missing"),
        (["a.ckpt.data-00000-of-00001"], "a.ckpt.index is missing"),
        (["a.ckpt.index", "a.ckpt.data-00001-of-00002"], "a.ckpt.data-00000-of-00002"),
        (
            ["config.json", "pytorch_model.bin"],
            "convert_checkpoint.py --from=huggingface --to=google --input={}",
        ),
        (["model.safetensors"], "holds model.safetensors and no TensorFlow"),
    ],
)
def test_what_cannot_be_told_is_one_line(tmp_path, files, words):
    directory = make(tmp_path, *files)
    with pytest.raises(UserError, match=words.format(directory)) as caught:
        model_directory.find(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "files, fields, flag",
    [
        (["a_config.json", "b_config.json"], ["config_file"], "--albert_config_file"),
        (["vocab_a.txt", "vocab_b.txt"], ["vocab_file", "spm_model_file"], "--vocab_f"),
        (["a.model", "b.model"], ["vocab_file", "spm_model_file"], "--spm_model_file"),
        (["a.ckpt", "b.ckpt"], ["checkpoint"], "--init_checkpoint"),
    ],
)
def test_commands_with_flags_name_them(tmp_path, files, fields, flag):
    directory = make(tmp_path, *files)
    with pytest.raises(UserError, match=flag):
        model_directory.choose(directory, **dict.fromkeys(fields))
    missing = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="a checkpoint's path goes to --init_check"):
        model_directory.choose(missing, **dict.fromkeys(fields))


def test_a_stale_state_file_is_told_from_none(tmp_path):
    directory = make(tmp_path, "a.ckpt", "b.ckpt", state="gone.ckpt")
    with pytest.raises(
        UserError, match="a.ckpt, b.ckpt, but its `checkpoint` file names .*gone.ckpt;"
    ):
        model_directory.find_checkpoint(directory)


def test_a_checkpoint_elsewhere_is_read_only_where_there_is_none_here(tmp_path, caplog):
    foreign = make(tmp_path / "elsewhere", "foreign.ckpt") + "/foreign.ckpt"
    directory = make(tmp_path / "here", "own.ckpt", state=foreign)
    own = directory + "/own.ckpt"
    assert model_directory.find_checkpoint(directory) == own
    assert "reading " + own in caplog.text
    make(tmp_path / "here", "other.ckpt")
    with pytest.raises(UserError, match="`checkpoint` file names " + foreign):
        model_directory.find_checkpoint(directory)
    empty = make(tmp_path / "empty", state=foreign)
    caplog.clear()
    assert model_directory.find_checkpoint(empty) == foreign
    assert "reading " + foreign in caplog.text


def write_settings(folder, **files):
    """Writes NAME.json for each name whose settings are not None."""
    for name, settings in files.items():
        if settings is not None:
            (folder / (name + ".json")).write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "labels, tokenizer, expected",
    [
        (None, None, None),
        (None, {"do_lower_case": False}, False),
        ({"do_lower_case": False}, {"do_lower_case": True}, False),
        ({"do_lower_case": True}, None, True),
        # Written without that setting.
        ({"labels": ["0", "1"]}, {"do_lower_case": False}, False),
        (None, {"model_max_length": 512}, None),
    ],
)
def test_the_casing_is_that_of_the_labels_or_the_tokenizer(
    tmp_path, labels, tokenizer, expected
):
    write_settings(tmp_path, labels=labels, tokenizer_config=tokenizer)
    assert model_directory.read_do_lower_case(str(tmp_path)) is expected


@pytest.mark.parametrize(
    "labels, tokenizer, expected",
    [
        (None, None, False),
        (None, {"do_lower_case": True}, False),
        (None, {"normalize_punctuation": True}, True),
        ({"normalize_punctuation": False}, {"normalize_punctuation": True}, False),
        ({"normalize_punctuation": True}, None, True),
    ],
)
def test_normalization_is_that_of_the_labels_or_the_tokenizer(
    tmp_path, labels, tokenizer, expected
):
    write_settings(tmp_path, labels=labels, tokenizer_settings=tokenizer)
    assert model_directory.read_normalize_punctuation(str(tmp_path)) is expected


@pytest.mark.parametrize("name", ["labels.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", '{"do_lower_case": "no"}', "\udcff"])
def test_a_damaged_casing_is_named(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=name + ": ") as caught:
        model_directory.read_do_lower_case(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_state_file_whose_checkpoint_is_gone_is_named(tmp_path):
    directory = make(tmp_path, state="model.ckpt-5")
    with pytest.raises(
        UserError, match="checkpoint: names .*model.ckpt-5, which does not"
    ):
        model_directory.find_checkpoint(directory)


def test_a_state_file_that_names_none_is_named(tmp_path):
    directory = make(tmp_path, "model.ckpt-1", state="")
    with pytest.raises(UserError, match="checkpoint: names no checkpoint; delete"):
        model_directory.find_checkpoint(directory)


@pytest.mark.parametrize(
    "state", [b"\xff\xfe", b"model.ckpt-1", b"model_checkpoint_path: 'a\\n'", None]
)
def test_a_state_file_that_cannot_be_read_is_named(tmp_path, state):
    directory = make(tmp_path, "model.ckpt-1")
    path = tmp_path / "checkpoint"
    path.mkdir() if state is None else path.write_bytes(state)
    with pytest.raises(UserError, match="checkpoint.*; delete this file") as caught:
        model_directory.find_checkpoint(directory)
    assert "\n" not in str(caught.value)
    path.rmdir() if state is None else path.unlink()
    assert model_directory.find_checkpoint(directory).endswith("model.ckpt-1")


def test_the_index_alone_is_found_where_it_is_enough(tmp_path):
    directory = make(tmp_path, "a.ckpt.index")
    found = model_directory.find_checkpoint(directory, needs_data=False)
    assert found == str(tmp_path / "a.ckpt")


def test_a_fine_tunings_directory_stands_for_its_best(tmp_path):
    make(tmp_path, "albert_config.json", "model.ckpt-9", state="model.ckpt-9")
    best = tmp_path / "best"
    make(best, "albert_config.json", "vocab.txt", "model.ckpt-3", "labels.json")
    found = model_directory.find(str(tmp_path))
    assert found.directory == str(best)
    assert found.checkpoint == str(best / "model.ckpt-3")


def test_no_such_directory(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such directory"):
        model_directory.find(str(tmp_path / "nowhere"))


def test_flags_win_and_what_they_name_is_not_searched_for(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    # Neither vocabulary nor checkpoint could be told.
    directory = make(
        tmp_path / "model",
        "albert_config.json",
        "vocab_a.txt",
        "vocab_b.txt",
        "a.ckpt",
        "b.ckpt",
    )
    make(tmp_path, "mine.model")
    chosen = model_directory.choose(
        directory,
        config_file=None,
        vocab_file=None,
        spm_model_file=str(tmp_path / "mine.model"),
        checkpoint="elsewhere/model.ckpt",
    )
    assert chosen == model_directory.ModelDirectory(
        directory,
        directory + "/albert_config.json",
        None,
        str(tmp_path / "mine.model"),
        "elsewhere/model.ckpt",
    )
    assert "--init_checkpoint: elsewhere/model.ckpt, not --model_dir's" in caplog.text
    assert "--model_dir: {}/albert_config.json".format(directory) in caplog.text


def test_only_what_is_asked_for_is_searched(tmp_path):
    directory = make(tmp_path, "albert_config.json", "a.ckpt", "b.ckpt", "vocab.txt")
    chosen = model_directory.choose(directory, config_file=None)
    assert chosen == (directory, directory + "/albert_config.json", None, None, None)


def test_a_file_that_a_flag_names_must_be_there(tmp_path):
    flags = {"vocab_file": "no.txt", "spm_model_file": None}
    with pytest.raises(
        UserError, match="--vocab_file=no.txt: .*download_model.py vocab"
    ):
        model_directory.choose(None, **flags)
    with pytest.raises(UserError, match="--albert_config_file=no.json: no such file$"):
        model_directory.choose(None, config_file="no.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("field", ["config_file", "vocab_file", "spm_model_file"])
def test_a_pipe_is_refused_before_it_is_read(tmp_path, field):
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="pipe: it is no ordinary file"):
        model_directory.choose(None, **{field: pipe})
    directory = make(tmp_path / "model", "albert_config.json")
    os.mkfifo(directory + "/vocab.txt")
    with pytest.raises(UserError, match="vocab.txt: it is no ordinary file"):
        model_directory.choose(directory, vocab_file=None, spm_model_file=None)


def test_missing_files_are_asked_for_by_their_flag(tmp_path):
    with pytest.raises(
        UserError, match="--vocab_file is missing.*download_model.py voc"
    ):
        model_directory.require(model_directory.ModelDirectory(None), "vocab_file")
    empty = model_directory.find(make(tmp_path))
    with pytest.raises(UserError, match="holds no checkpoint; give --init_checkpoint"):
        model_directory.require(empty, "checkpoint")
    with pytest.raises(UserError, match="holds no checkpoint$"):
        model_directory.require(empty, "checkpoint", has_flags=False)
    # A SentencePiece model does.
    sentencepiece = empty._replace(spm_model_file="spm.model")
    model_directory.require(sentencepiece, "vocab_file")


@pytest.mark.parametrize(
    "entries, exact, words",
    [
        (9, True, None),
        (8, False, None),
        (
            8,
            True,
            r"vocab.txt has 8 entries.* 9 rows.*append \[unused8\]\)",
        ),
        (7, True, r"append the lines \[unused7\] to \[unused8\]\)"),
        (10, False, "vocab.txt has 10 entries, .* only 9 rows"),
        (10, True, "only 9 rows"),
    ],
)
def test_a_vocabulary_that_is_not_the_models_is_refused(
    tmp_path, entries, exact, words
):
    config = modeling.AlbertConfig.from_dict(dict(CONFIG, num_attention_heads=2))
    tokens = SPECIALS + [str(i) for i in range(entries - len(SPECIALS))]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(tokens))
    checks = [
        lambda: model_directory.check_vocabulary(entries, str(path), config, exact)
    ]
    if exact:
        files = model_directory.ModelDirectory(str(tmp_path), vocab_file=str(path))
        checks.append(lambda: model_directory.check_vocabulary_of(files, config))
    for check in checks:
        if words is None:
            check()
        else:
            with pytest.raises(UserError, match=words):
                check()


def test_the_vocabulary_goes_along_but_replaces_none(tmp_path):
    source = tmp_path / "words.txt"
    source.write_text("天\n", encoding="utf-8")
    source.chmod(0o444)
    files = model_directory.ModelDirectory(str(tmp_path), vocab_file=str(source))
    target = tmp_path / "out"
    target.mkdir()
    for _ in range(2):
        model_directory.copy_vocabulary(files, str(target))
    assert [path.name for path in target.iterdir()] == ["vocab.txt"]
    assert (target / "vocab.txt").read_text("utf-8") == "天\n"
    (target / "vocab.txt").write_text("地\n", encoding="utf-8")
    with pytest.raises(UserError, match="vocab.txt differs from .*words.txt"):
        model_directory.copy_vocabulary(files, str(target))
    assert (target / "vocab.txt").read_text("utf-8") == "地\n"


def test_the_casing_goes_along_but_replaces_none(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for directory in (source, target):
        directory.mkdir()
    files = model_directory.ModelDirectory(str(source))
    model_directory.copy_vocabulary(files, str(target))
    assert not list(target.iterdir())

    (source / "labels.json").write_text('{"do_lower_case": false}')
    for _ in range(2):
        model_directory.copy_vocabulary(files, str(target))
    assert [path.name for path in target.iterdir()] == ["tokenizer_settings.json"]
    assert model_directory.read_do_lower_case(str(target)) is False

    (source / "labels.json").write_text('{"do_lower_case": true}')
    with pytest.raises(UserError, match="--output_dir: .* has do_lower_case False"):
        model_directory.copy_vocabulary(files, str(target))
    assert model_directory.read_do_lower_case(str(target)) is False


def test_the_settings_are_those_of_the_records(tmp_path, caplog):
    source, target = tmp_path / "source", tmp_path / "target"
    for directory in (source, target):
        directory.mkdir()
    files = model_directory.ModelDirectory(str(source))
    settings = {"do_lower_case": False, "normalize_punctuation": True}
    for _ in range(2):
        model_directory.copy_vocabulary(files, str(target), settings)
    assert model_directory.read_do_lower_case(str(target)) is False
    assert model_directory.read_normalize_punctuation(str(target)) is True
    assert not caplog.text
    (source / "labels.json").write_text('{"do_lower_case": true}')
    model_directory.copy_vocabulary(files, str(target), settings)
    assert "made with do_lower_case False, but the model in" in caplog.text
    other = dict(settings, normalize_punctuation=False)
    with pytest.raises(
        UserError, match="has normalize_punctuation True, the records F"
    ):
        model_directory.copy_vocabulary(files, str(target), other)
