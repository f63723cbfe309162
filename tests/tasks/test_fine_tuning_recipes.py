"""Recipes: which a model is given, and that the data are whole."""

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import modeling
from albert_zh.tasks import recipes
from tests.small_models import CONFIG

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "albert_config"
# By the names of their files; nano is half of tiny's layers.
EXPECTED = {
    path.name: next(
        (size for size in recipes.SIZES if "_{}".format(size) in path.name), "tiny"
    )
    for path in sorted(FOLDER.glob("*.json"))
}


def config_of(num_layers, hidden_size):
    settings = dict(CONFIG.to_dict(), num_hidden_layers=num_layers)
    return modeling.AlbertConfig.from_dict(dict(settings, hidden_size=hidden_size))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_sizes_of_the_configs(name):
    config = modeling.AlbertConfig.from_dict(json.loads((FOLDER / name).read_text()))
    size, is_exact = recipes.find_size(config)
    assert size == EXPECTED[name]
    assert is_exact == ("nano" not in name)


@pytest.mark.parametrize(
    "layers,hidden,size",
    [(3, 312, "tiny"), (6, 768, "base"), (24, 1536, "xlarge"), (36, 4096, "xxlarge")],
)
def test_other_models_are_given_the_nearest_size(layers, hidden, size):
    # 6 x 12 x 768**2 = 42 million: base has 85 million, small 11 million.
    assert recipes.find_size(config_of(layers, hidden)) == (size, False)


@given(st.integers(1, 48), st.integers(1, 50).map(lambda n: 2 * n * 16))
def test_more_layers_never_make_a_smaller_model(layers, hidden):
    order = {size: recipes._parameters(*shape) for size, shape in recipes.SIZES.items()}
    smaller, _ = recipes.find_size(config_of(layers, hidden))
    larger, _ = recipes.find_size(config_of(layers * 4, hidden))
    assert order[smaller] <= order[larger]


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_size_has_a_recipe_at_a_rate_it_bears(name):
    by_size = recipes.RECIPES[name]
    assert list(by_size) == list(recipes.SIZES)
    for size, recipe in by_size.items():
        assert recipe.source.startswith("https://")
        if "of another size" in recipe.source:
            assert recipe.learning_rate <= recipes._HIGHEST_RATES[size]
    rates = [recipe.learning_rate for recipe in by_size.values()]
    assert rates == sorted(rates, reverse=True)


def test_a_recipe_as_published():
    chosen = recipes.choose("lcqmc", config_of(4, 312))
    assert chosen["size"] == "tiny"
    assert chosen["settings"] == {
        "train_batch_size": 64,
        "max_seq_length": CONFIG.max_position_embeddings,  # 128, if it could
        "num_train_epochs": 5,
        "learning_rate": 1e-4,
    }


@pytest.mark.parametrize("layers,rate", [(4, 1e-4), (6, 1e-4), (12, 3e-5)])
def test_small_models_take_no_rate_of_larger_ones(layers, rate):
    """Published for CLUENER is base alone, at 3e-5."""
    hidden = {4: 312, 6: 384, 12: 768}[layers]
    chosen = recipes.choose("cluener", config_of(layers, hidden))
    assert chosen["settings"]["learning_rate"] == rate
    assert chosen["source"].endswith("tiny" if layers == 4 else "small") or rate == 3e-5


def test_open_tasks_have_none():
    assert recipes.choose("pair", config_of(4, 312)) is None


@pytest.mark.parametrize("name", sorted(recipes.PUBLISHED))
def test_published_scores_are_percentages(name):
    for size, published in recipes.PUBLISHED[name].items():
        assert size in recipes.SIZES
        values = [v for v in (published.dev, published.test) if v is not None]
        assert values and all(30 < value < 100 for value in values)
