"""The recipes in docs/, in both languages, follow from the rules stated beside them."""

import json
import math

import pytest

from albert_zh.tasks import recipes

PAGES = ("docs/pretraining.md", "docs/pretraining_en.md")
SIZES = ("tiny", "small_google", "base", "large", "xlarge", "xxlarge")
LENGTH = 512
# Of the estimate: bytes of memory and how many bytes a bfloat16's two take.
MEMORY = ((8e9, 2), (16e9, 1))


def table(repository, page, heading):
    """The rows of cells under the one table whose heading holds a text."""
    lines = (repository / page).read_text(encoding="utf-8").split("\n")
    is_start = [line.startswith("|") and heading in line for line in lines]
    assert is_start.count(True) == 1
    start = is_start.index(True)
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])


@pytest.mark.parametrize("page", PAGES)
def test_rates_and_steps_follow_the_square_root_rule(repository, page):
    rows = table(repository, page, "`--num_warmup_steps`")
    assert len(rows) == 4
    for row in rows:
        batch, steps, warmup = int(row[1]), int(row[3]), int(row[4])
        assert row[2] == "{:.5f}".format(0.00176 * math.sqrt(batch / 4096))
        assert batch * steps == 4096 * 125000
        assert warmup == 3125


@pytest.mark.parametrize("page", PAGES)
def test_micro_batches_follow_the_estimate(repository, page):
    rows = table(repository, page, "| `--micro_batch_size` | tiny")
    assert len(rows) == len(MEMORY)
    for row, (memory, factor) in zip(rows, MEMORY):
        for size, stated in zip(SIZES, row[1:]):
            path = repository / "albert_config" / "albert_config_{}.json".format(size)
            config = json.loads(path.read_text())
            heads, hidden = config["num_attention_heads"], config["hidden_size"]
            values = LENGTH * hidden * (34 + 5 * heads * LENGTH / hidden)
            sequence = config["num_hidden_layers"] * values * factor
            assert int(stated) == 2 ** int(math.log2(memory / 2 / sequence)), size


@pytest.mark.parametrize("page", ("docs/fine_tuning.md", "docs/fine_tuning_en.md"))
def test_recipes_of_tasks_are_those_taken(repository, page):
    rows = table(repository, page, "| `--task_name` | tiny")
    assert [row[0] for row in rows] == ["`{}`".format(t) for t in recipes.RECIPES]
    for row in rows:
        for size, stated in zip(recipes.SIZES, row[1:]):
            recipe = recipes.RECIPES[row[0].strip("`")][size]
            batch, length, epochs, rate = map(float, stated.split(", "))
            assert batch == recipe.train_batch_size
            assert length == recipe.max_seq_length
            assert epochs == recipe.num_train_epochs
            assert rate == recipe.learning_rate
