"""Recipes of `run_pretraining.py` beside the flags that the user gives."""

import pytest

import modeling
import optimization
import run_pretraining
from albert_zh.base.errors import UserError
from albert_zh.data import masking
from albert_zh.training import initial_weights, recipes
from tests.small_models import CONFIG


def apply(*flags):
    parser = run_pretraining.build_parser()
    args = parser.parse_args(["--input_file=a", "--output_dir=b", *flags])
    recipes.apply(args)
    return args


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_sets_what_is_not_given(name):
    recipe, args = recipes.RECIPES[name], apply("--recipe=" + name)
    for field in recipe._fields[:-1]:
        assert getattr(args, field) == getattr(recipe, field), field
    assert recipe.lr_schedule in optimization.SCHEDULES
    assert recipe.initial_weights in initial_weights.CHOICES


def test_published_is_what_the_flags_say_anyway():
    published, plain = vars(apply("--recipe=published")), vars(apply())
    assert plain["masked_lm_prob"] is None  # what the records' masks are by default
    assert published["masked_lm_prob"] == masking.MaskSettings().masked_lm_prob
    for name in set(plain) - {"given", "recipe", "masked_lm_prob"}:
        assert published[name] == plain[name], name


def test_given_flags_win(caplog):
    caplog.set_level("INFO")
    args = apply("--recipe=small_budget", "--num_train_steps=601", "--seed=3")
    assert (args.num_train_steps, args.num_warmup_steps) == (601, 600)
    assert args.optimizer == "adamw"
    assert "--recipe=small_budget sets --optimizer=adamw" in caplog.text
    assert "--num_train_steps" not in caplog.text


@pytest.mark.parametrize("given", ["--optimizer=lamb", "--train_batch_size=64"])
def test_a_rate_is_not_taken_to_another_optimizer_or_batch(given):
    with pytest.raises(
        UserError, match="rate of 0.0005 .* --learning_rate for " + given
    ):
        apply("--recipe=small_budget", given)
    args = apply("--recipe=small_budget", given, "--learning_rate=0.01")
    assert args.learning_rate == 0.01
    planned = apply(
        "--recipe=small_budget", "--optimizer=adamw", "--train_batch_size=32"
    )
    assert planned.learning_rate == 0.0005


def test_a_budget_below_the_warmup_is_refused():
    with pytest.raises(
        UserError, match="warm-up of 600 .* --num_train_steps=600; give"
    ):
        apply("--recipe=small_budget", "--num_train_steps=600")
    args = apply(
        "--recipe=small_budget", "--num_train_steps=600", "--num_warmup_steps=60"
    )
    assert args.num_warmup_steps == 60


def test_a_run_that_is_resumed_is_not_said_to_begin_with_weights(tmp_path, caplog):
    caplog.set_level("INFO")
    for suffix in ("index", "data-00000-of-00001"):
        (tmp_path / "model.ckpt-5.{}".format(suffix)).write_text("")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-5"\n')
    apply("--recipe=small_budget", "--output_dir={}".format(tmp_path))
    assert "--train_batch_size=32" in caplog.text
    assert "--initial_weights" not in caplog.text


@pytest.mark.parametrize("flag", ["--model_dir=c", "--init_checkpoint=c"])
def test_initial_weights_are_not_those_of_a_recipe_beside_a_checkpoint(flag):
    assert apply("--recipe=small_budget", flag).initial_weights == "random"


@pytest.mark.parametrize(
    "flags, changes, is_told",
    [
        (["--recipe=small_budget"], {}, True),
        (["--recipe=small_budget", "--initial_weights=random"], {}, True),
        (["--recipe=small_budget"], {"num_hidden_layers": 1}, False),
        (["--recipe=small_budget"], {"num_hidden_groups": 2}, False),
        (["--recipe=small_budget", "--init_checkpoint=c"], {}, False),
        (["--recipe=published"], {}, False),
        ([], {}, False),
    ],
)
def test_a_small_budget_is_told_to_begin_with_one_layer(
    caplog, flags, changes, is_told
):
    settings = dict(CONFIG.to_dict(), num_hidden_layers=4, num_hidden_groups=1)
    settings.update(changes)
    settings.pop("ln_type", None)
    recipes.warn_of_layers(apply(*flags), modeling.AlbertConfig.from_dict(settings))
    assert ("begin with --num_hidden_layers=1, see" in caplog.text) == is_told
