"""The library behind the commands of this repository."""


def load(directory, **settings):
    """Loads a model that stays in memory; see `serving.predictor.load`.

    Example:
      predictor = albert_zh.load("demo/classifier")
      predictor({"text_a": "怎么开户", "text_b": "如何开户"})["label"]
    """
    from albert_zh.serving import predictor

    return predictor.load(directory, **settings)
