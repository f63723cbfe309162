"""Published settings and scores of fine-tuning, by task and size of the model.

`RECIPES` and `PUBLISHED` are data: to add a task, add its rows. A size without settings
of its own takes those of the task's smallest model, at a rate that the size bears.
"""

import logging
import math
from typing import NamedTuple, Optional

_LOGGER = logging.getLogger(__name__)

# Layers and hidden size of the published models, from the smallest to the largest.
SIZES = {
    "tiny": (4, 312),
    "small": (6, 384),
    "base": (12, 768),
    "large": (24, 1024),
    "xlarge": (24, 2048),
    "xxlarge": (12, 4096),
}

_CLUE = "https://github.com/CLUEbenchmark/CLUE"
_CLUE_SCRIPT = _CLUE + "/blob/master/baselines/models/albert/run_classifier_{}.sh"
_ALBERT_ZH = "https://github.com/brightmart/albert_zh"
_BERT = "https://arxiv.org/abs/1810.04805"
# Cui et al., 2019, Pre-training with whole word masking for Chinese BERT.
_BERT_WWM = "https://arxiv.org/abs/1906.08101"
_BERT_NER = "https://github.com/lonePatient/BERT-NER-Pytorch"

# What a source is where nobody has published settings for ALBERT.
_NOT_ALBERT = "{} (of {}; none are published for ALBERT)"
_OF_TWO_FAMILIES = _BERT_NER + " (of albert_zh's weights; of Google's {:.2f} on dev)"
_OF_CLUENER = _BERT_NER + " (of CLUENER; none are published for this task)"
_OF_BERT_WWM = _NOT_ALBERT.format(_BERT_WWM, "BERT base")
# The highest rate of a size with another size's recipe: the highest one BERT's paper
# tries, albert_zh's for large, and google-research/albert's for xxlarge. xlarge
# collapses at 2e-5 on several of CLUE's tasks.
_HIGHEST_RATES = {
    "tiny": math.inf,
    "small": math.inf,
    "base": 5e-5,
    "large": 2e-5,
    "xlarge": 1e-5,
    "xxlarge": 1e-5,
}
# The lowest rate of a size with a larger one's recipe: albert_zh's for tiny. Published
# rates fall with the size: for LCQMC 1e-4 of tiny and 2e-5 of large.
_LOWEST_RATES = {"tiny": 1e-4, "small": 1e-4}


class Recipe(NamedTuple):
    """Settings of a training; the names are those of the flags.

    Attributes:
      train_batch_size: examples of a step.
      max_seq_length: tokens.
      num_train_epochs: passes over the training data.
      learning_rate: the peak.
      source: where they are from, for people.
      warmup_proportion: share of the steps with linear warm-up; None where the source
        does not say.
      crf_learning_rate: the peak of the layers above the encoder with
        `--decoder=crf`; None where the source does not say.
    """

    train_batch_size: int
    max_seq_length: int
    num_train_epochs: float
    learning_rate: float
    source: str
    warmup_proportion: Optional[float] = None
    crf_learning_rate: Optional[float] = None

    def settings(self):
        """Returns the dict flag -> value of what the recipe sets."""
        values = {name: getattr(self, name) for name in SETTINGS}
        return {name: value for name, value in values.items() if value is not None}


# What a recipe can set; a training's directory keeps the values.
SETTINGS = tuple(name for name in Recipe._fields if name != "source")


class Published(NamedTuple):
    """Published scores of a task, in percent; None where there is none.

    Attributes:
      dev, test: of the metric that the task is ranked by.
      source: where they are from.
    """

    dev: Optional[float]
    test: Optional[float]
    source: str = _CLUE


def _every_size(**published):
    """Returns a dict size -> `Recipe` for all of `SIZES`.

    Args:
      published: size -> `Recipe`; another size takes that of the next smaller one that
        is published, else of the smallest, at a rate that the size bears.
    """
    recipes, nearest = {}, None
    smallest = next(size for size in SIZES if size in published)
    for size in SIZES:
        if size in published:
            recipes[size] = nearest = published[size]
            continue
        taken = nearest or published[smallest]
        rate = min(taken.learning_rate, _HIGHEST_RATES[size])
        if nearest is None:
            rate = max(rate, _LOWEST_RATES.get(size, 0.0))
        source = "{}, of another size".format(taken.source)
        if rate != taken.learning_rate:
            source += ", at a rate for {}".format(size)
        recipes[size] = taken._replace(learning_rate=rate, source=source)
    return recipes


def _reading(smallest, larger):
    """Recipes of a task for which the sizes from base to xlarge share their own."""
    return _every_size(tiny=smallest, base=larger, large=larger, xlarge=larger)


def _tagging(source):
    """Recipes of a task with the settings that are published for CLUENER."""
    own = Recipe(24, 128, 4, 3e-5, source, crf_learning_rate=1e-3)
    return _every_size(base=own)


RECIPES = {
    "lcqmc": _every_size(
        tiny=Recipe(64, 128, 5, 1e-4, _ALBERT_ZH),
        base=Recipe(64, 128, 3, 2e-5, _OF_BERT_WWM),
        large=Recipe(64, 128, 3, 2e-5, _ALBERT_ZH),
    ),
    "chnsenticorp": _every_size(base=Recipe(64, 256, 3, 2e-5, _OF_BERT_WWM)),
    "afqmc": _every_size(tiny=Recipe(16, 128, 3, 2e-5, _CLUE)),
    "tnews": _every_size(tiny=Recipe(16, 128, 3, 2e-5, _CLUE)),
    "iflytek": _every_size(tiny=Recipe(32, 128, 10, 2e-5, _CLUE)),
    "cmnli": _every_size(tiny=Recipe(64, 128, 2, 3e-5, _CLUE)),
    "ocnli": _every_size(
        base=Recipe(
            16,
            128,
            2,
            3e-5,
            _NOT_ALBERT.format(
                _CLUE + "/blob/master/baselines/models_pytorch/classifier_pytorch/"
                "run_classifier_ocnli.sh",
                "RoBERTa base",
            ),
        )
    ),
    "cluewsc2020": _every_size(tiny=Recipe(8, 128, 50, 1e-4, _CLUE)),
    "csl": _every_size(tiny=Recipe(4, 256, 5, 1e-5, _CLUE)),
    # At its rate of 2e-5, xlarge collapses.
    "xnli": _every_size(
        base=Recipe(*(16, 128, 3, 2e-5), _CLUE_SCRIPT.format("xnli") + " (of xlarge)")
    ),
    # BERT's paper tries four rates on the English task and names none as the best.
    "stsb": _every_size(
        base=Recipe(32, 128, 3, 2e-5, _NOT_ALBERT.format(_BERT, "BERT on GLUE"))
    ),
    "cmrc2018": _reading(
        Recipe(32, 512, 3, 2e-4, _CLUE, 0.1), Recipe(32, 512, 2, 3e-5, _CLUE)
    ),
    "drcd": _every_size(tiny=Recipe(32, 512, 3, 2e-4, _CLUE)),
    "chid": _reading(Recipe(24, 64, 3, 2e-5, _CLUE), Recipe(24, 64, 3, 2e-5, _CLUE)),
    "c3": _reading(Recipe(32, 512, 8, 5e-5, _CLUE), Recipe(24, 512, 8, 2e-5, _CLUE)),
    "cluener": _tagging(_BERT_NER),
    "msra_ner": _tagging(_OF_CLUENER),
    "resume_ner": _tagging(_OF_CLUENER),
}

PUBLISHED = {
    "lcqmc": {
        "tiny": Published(None, 85.4, _ALBERT_ZH),
        "small": Published(None, 86.0, _ALBERT_ZH),
        "base": Published(87.2, 86.3, _ALBERT_ZH),
        "large": Published(88.7, 87.1, _ALBERT_ZH),
        "xlarge": Published(87.3, 87.7, _ALBERT_ZH),
    },
    "xnli": {
        "base": Published(77.0, 77.1, _ALBERT_ZH),
        "large": Published(78.0, 77.5, _ALBERT_ZH),
    },
    "afqmc": {
        "tiny": Published(69.13, 69.92),
        "base": Published(None, 72.55),
        "large": Published(None, 74.0),
        "xlarge": Published(None, 69.96),
    },
    "tnews": {
        "tiny": Published(53.55, 53.35),
        "base": Published(None, 55.06),
        "large": Published(None, 55.16),
        "xlarge": Published(None, 57.36),
    },
    "iflytek": {
        "tiny": Published(48.76, 48.71),
        "base": Published(None, 56.58),
        "large": Published(None, 57.0),
        "xlarge": Published(None, 59.5),
    },
    "cmnli": {
        "tiny": Published(70.26, 70.61),
        "base": Published(None, 77.58),
        "large": Published(None, 78.77),
        "xlarge": Published(None, 81.13),
    },
    "cluewsc2020": {
        "tiny": Published(57.7, 58.5),
        "base": Published(None, 64.34),
        "large": Published(None, 62.24),
        "xlarge": Published(None, 64.34),
    },
    "csl": {
        "tiny": Published(74.36, 74.56),
        "base": Published(None, 78.5),
        "large": Published(None, 80.3),
        "xlarge": Published(None, 81.2),
    },
    # Ranked by exact match.
    "cmrc2018": {
        "tiny": Published(48.31, None),
        "base": Published(64.76, None),
        "large": Published(67.31, None),
        "xlarge": Published(69.08, None),
    },
    "drcd": {
        "tiny": Published(71.61, None),
        "large": Published(88.88, None),
        "xlarge": Published(89.68, None),
    },
    "chid": {
        "tiny": Published(43.47, 43.53),
        "base": Published(None, 71.77),
        "large": Published(None, 74.18),
        "xlarge": Published(None, 80.57),
    },
    "c3": {
        "tiny": Published(50.58, 50.26),
        "base": Published(None, 59.58),
        "large": Published(None, 64.41),
        "xlarge": Published(None, 70.32),
    },
    # Micro F1 of albert_zh's models.
    "cluener": {
        "base": Published(77.89, None, _OF_TWO_FAMILIES.format(74.20)),
        "large": Published(78.02, None, _OF_TWO_FAMILIES.format(77.63)),
        "xlarge": Published(79.48, None, _OF_TWO_FAMILIES.format(80.21)),
    },
}


def find_size(config):
    """Which of `SIZES` a model is of, or the nearest.

    The nearest has the most similar number of parameters in its layers, counted as if
    they shared none: sharing changes what is saved, not what is computed.

    Args:
      config: `modeling.AlbertConfig`.

    Returns:
      (name, whether layers and hidden size are exactly the published ones).
    """
    found = config.num_hidden_layers, config.hidden_size
    for size, published in SIZES.items():
        if found == published:
            return size, True

    def distance(size):
        return abs(math.log(_parameters(*SIZES[size]) / _parameters(*found)))

    return min(SIZES, key=distance), False


def _parameters(num_layers, hidden_size):
    """Weights of the layers: attention has 4, the feed-forward layer 8 squares."""
    return num_layers * 12 * hidden_size**2


def choose(task_name, config):
    """The recipe for a task and a model.

    Args:
      task_name: `registry.Task.name`.
      config: `modeling.AlbertConfig`.

    Returns:
      Dict with `size`, `source` and `settings`, a dict flag -> value; None where the
      task has no recipe.
    """
    size, is_exact = find_size(config)
    recipe = RECIPES.get(task_name, {}).get(size)
    if recipe is None:
        return None
    if not is_exact:
        _LOGGER.info(
            "%d layers of %d are no published size; the nearest by parameters is %s",
            config.num_hidden_layers,
            config.hidden_size,
            size,
        )
    settings = recipe.settings()
    # A model for shorter sequences reads as much as it can.
    length = min(settings["max_seq_length"], config.max_position_embeddings)
    settings["max_seq_length"] = length
    return {"size": size, "source": recipe.source, "settings": settings}
