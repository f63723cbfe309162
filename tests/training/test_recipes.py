"""Recipes of `run_pretraining.py` beside the flags that the user gives."""

import pytest

import optimization
import run_pretraining
from albert_zh.base.errors import UserError
from albert_zh.training import initial_weights, recipes


def apply(*flags):
    parser = run_pretraining.build_parser()
    args = parser.parse_args(["--input_file=a", "--output_dir=b", *flags])
    recipes.apply(args)
    return args


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_sets_what_is_not_given(name):
    recipe, args = recipes.RECIPES[name], apply("--recipe=" + name)
    for field in recipe._fields[:5]:
        assert getattr(args, field) == getattr(recipe, field), field
    assert args.num_warmup_steps == recipe.warmup_share * recipe.num_train_steps
    assert recipe.lr_schedule in optimization.SCHEDULES
    assert recipe.initial_weights in initial_weights.CHOICES
    assert args.initial_weights == recipe.initial_weights


def test_published_is_what_the_flags_say_anyway():
    published, plain = vars(apply("--recipe=published")), vars(apply())
    for name in set(plain) - {"given", "recipe"}:
        assert published[name] == plain[name], name


def test_given_flags_win_and_the_warmup_follows_the_steps(caplog):
    caplog.set_level("INFO")
    args = apply(
        "--recipe=small_budget", "--num_train_steps=10", "--train_batch_size=8"
    )
    assert (args.num_train_steps, args.train_batch_size) == (10, 8)
    assert args.num_warmup_steps == 1
    assert args.optimizer == "adamw"
    assert "--recipe=small_budget sets --optimizer=adamw" in caplog.text
    assert "--train_batch_size" not in caplog.text


def test_a_rate_is_not_taken_to_another_optimizer():
    with pytest.raises(UserError, match="give --learning_rate for --optimizer=lamb"):
        apply("--recipe=small_budget", "--optimizer=lamb")
    args = apply("--recipe=small_budget", "--optimizer=lamb", "--learning_rate=0.01")
    assert (args.optimizer, args.learning_rate) == ("lamb", 0.01)
    assert apply("--recipe=small_budget", "--optimizer=adamw").learning_rate == 0.0005


@pytest.mark.parametrize("flag", ["--model_dir=c", "--init_checkpoint=c"])
def test_initial_weights_are_not_those_of_a_recipe_beside_a_checkpoint(flag):
    assert apply("--recipe=small_budget", flag).initial_weights == "random"
