"""What the JSON files of a model directory may hold."""

import json

import pytest

import modeling
from albert_zh.base.errors import UserError
from albert_zh.models import settings as model_settings
from albert_zh.tasks import model_files

LABELS = {
    "task_name": "pair",
    "labels": ["no", "是"],
    "do_lower_case": True,
    "normalize_punctuation": False,
    "max_seq_length": 8,
}
CONFIG = {
    "vocab_size": 9,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
}
DEEP = "[" * 50000 + "]" * 50000


def write(path, value):
    """Writes a value as JSON, a str as it is."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("length", [5, 8])
def test_settings_that_are_right_are_read(tmp_path, length):
    settings = dict(LABELS, max_seq_length=length)
    write(tmp_path / "albert_config.json", CONFIG)
    path = write(tmp_path / "labels.json", settings)
    assert model_settings.read_labels(path) == settings
    model_settings.check_labels(settings, "somewhere")
    assert model_files.task_settings(model_files.load(str(tmp_path))) == settings


WRONG_SETTINGS = [
    {"max_seq_length": value} for value in (-5, 0, 4, 32.5, 8.0, "8", True, None, 2**31)
]
WRONG_SETTINGS += [
    {name: value}
    for name in ("do_lower_case", "normalize_punctuation")
    for value in ("no", 0, 1, None, [])
]
WRONG_SETTINGS += [
    {"labels": value}
    for value in (
        [],
        ["one"],
        ["a", "a"],
        ["a", ""],
        ["a", 1],
        ["a", "b\tc"],
        ["a", "b\n"],
        "ab",
        {"a": 0, "b": 1},
        None,
    )
]
WRONG_SETTINGS += [{"task_name": value} for value in ("", 5, None, [])]
WRONG_SETTINGS += [{"another": 1}]


@pytest.mark.parametrize("change", WRONG_SETTINGS, ids=str)
def test_settings_that_are_wrong_are_named(tmp_path, change):
    write(tmp_path / "albert_config.json", CONFIG)
    path = write(tmp_path / "labels.json", dict(LABELS, **change))
    with pytest.raises(UserError, match="labels.json: damaged ") as error:
        model_files.load(str(tmp_path))
    assert "\n" not in str(error.value) and str(error.value).startswith(path)
    with pytest.raises(UserError, match="^model: .* cannot be used"):
        model_settings.check_labels(dict(LABELS, **change), "model")


@pytest.mark.parametrize("label", ["a\x85", "a\u2028b", "\x9b31m"])
def test_labels_from_elsewhere_are_one_line(label):
    settings = dict(LABELS, labels=["a", label])
    with pytest.raises(UserError, match="^model: the label .* a control char") as error:
        model_settings.check_labels(settings, "model")
    assert label not in str(error.value)


@pytest.mark.parametrize("name", sorted(LABELS))
def test_no_setting_may_be_missing(tmp_path, name):
    settings = {key: value for key, value in LABELS.items() if key != name}
    with pytest.raises(UserError, match="'{}' is a required property".format(name)):
        model_settings.read_labels(write(tmp_path / "labels.json", settings))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", DEEP, '{"labels": NaN}'])
def test_what_is_no_object_is_named(tmp_path, text):
    path = write(tmp_path / "file.json", text)
    for read in (
        model_settings.read_labels,
        model_settings.read_config,
        lambda path: model_settings.read_tokenizer_setting(path, "do_lower_case", True),
        lambda path: model_settings.read_tokenizer_setting(
            path, "do_lower_case", False
        ),
    ):
        with pytest.raises(UserError, match="file.json: damaged ") as error:
            read(path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_the_length_is_one_that_the_config_has(tmp_path):
    write(tmp_path / "albert_config.json", CONFIG)
    write(tmp_path / "labels.json", dict(LABELS, max_seq_length=9))
    with pytest.raises(UserError, match="max_seq_length 9 is above .* 8 of the config"):
        model_files.load(str(tmp_path))


def test_a_task_that_nobody_knows_is_named(tmp_path):
    write(tmp_path / "albert_config.json", CONFIG)
    write(tmp_path / "labels.json", dict(LABELS, task_name="qqp\nx"))
    with pytest.raises(UserError, match=r"labels.json: task_name is 'qqp\\nx'"):
        model_files.load(str(tmp_path))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"hidden_size": "8"}, "hidden_size must be a positive integer"),
        ({"hidden_act": []}, "config.json: "),
        ({"vocab_size": 10**5000}, "damaged"),
        ({"vocab_size": 2**31}, "damaged .*maximum"),
        ({"vocab_size": 2**31 - 1}, "vocab_size: .*maximum of 16777216"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: .*maximum of 1000"),
        ({"hidden_size": 2**20}, r"4,\d+,\d+,\d+,\d+ parameters \(\d\d,\d+ GB\)"),
        ({"hidden_size": 2**18}, "GB.*give the model's own config"),
        ({"max_position_embeddings": 2**31 - 1, "embedding_size": 64}, "GB"),
        ({"num_hidden_layers": 2000000}, "num_hidden_layers: .*maximum of 1000"),
        ({"inner_group_num": 2000000}, "inner_group_num: .*maximum of 1000"),
        ({"initializer_range": float("nan")}, "damaged .*NaN"),
        ({"a\nb": 1}, r"unknown config key a\\nb"),
        ({"ln_type": {}, "embedding_size": 4}, "ln_type must be one of"),
    ],
)
def test_a_config_that_is_wrong_is_one_line(tmp_path, change, words):
    settings = dict(CONFIG, **change)
    if change.get("vocab_size", 0) > 2**64:
        settings = json.dumps(CONFIG).replace("9", "1" + "0" * 5000)
    path = write(tmp_path / "config.json", settings)
    with pytest.raises(UserError, match=words) as error:
        model_settings.read_config(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such config file"):
        model_settings.read_config(str(tmp_path / "none.json"))


def test_a_config_that_is_right_is_read(tmp_path):
    path = write(tmp_path / "config.json", CONFIG)
    expected = modeling.AlbertConfig.from_dict(CONFIG).to_dict()
    assert model_settings.read_config(path).to_dict() == expected


def test_a_config_is_held_against_the_length_and_takes_the_dropout(tmp_path):
    path = write(tmp_path / "albert_config.json", CONFIG)
    config = model_settings.load_config(path, 8)
    assert config.hidden_dropout_prob == modeling.AlbertConfig(9).hidden_dropout_prob
    config = model_settings.load_config(path, 8, dropout=0.25)
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.25
    with pytest.raises(UserError, match="--max_seq_length 9 is above"):
        model_settings.load_config(path, 9)


@pytest.mark.parametrize("has_groups", [True, False], ids=["groups", "bert"])
def test_only_layers_of_shared_weights_can_be_more_or_fewer(tmp_path, has_groups):
    shared = dict(CONFIG, embedding_size=4, num_hidden_groups=1, num_hidden_layers=2)
    path = write(tmp_path / "albert_config.json", shared)
    for number in (1, 5):
        config = model_settings.load_config(path, 8, num_hidden_layers=number)
        assert config.num_hidden_layers == number
    with pytest.raises(UserError, match="--num_hidden_layers=1001; expected at most"):
        model_settings.load_config(path, 8, num_hidden_layers=1001)
    groups = dict(shared, num_hidden_groups=2)
    settings = groups if has_groups else dict(CONFIG, num_hidden_layers=2)
    path = write(tmp_path / "other.json", settings)
    model_settings.load_config(path, 8, num_hidden_layers=2)
    with pytest.raises(
        UserError, match="--num_hidden_layers=7: not all layers of .*r."
    ):
        model_settings.load_config(path, 8, num_hidden_layers=7)
