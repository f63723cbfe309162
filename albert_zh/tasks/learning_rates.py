"""The factor of each variable's learning rate in fine-tuning."""

import re

FREEZE = ("none", "embeddings", "encoder")

_EMBEDDINGS = "^bert/embeddings/|/embedding_hidden_mapping_in/"
_SHARED_LAYER = "/layer_shared/"


def multipliers(config, head, head_factor=1.0, layerwise_decay=1.0, freeze="none"):
    """The multipliers that settings of fine-tuning come to.

    With layer-wise decay (arXiv:1801.06146) the head and the pooler have 1, the last
    layer the decay, each layer before it the decay once more, then the embeddings.
    Variables that all layers share count as the last layer's.

    Args:
      config: `modeling.AlbertConfig`.
      head: list of the names of the head's variables.
      head_factor: float, for these.
      layerwise_decay: float in (0, 1]; 1 for none.
      freeze: "none"; "embeddings" for 0 there; "encoder" for 0 there and in all layers.

    Returns:
      Tuple of (regular expression, float), as `optimization.create_training_operation`
      takes it.
    """
    found = [("^({})$".format("|".join(map(re.escape, head))), head_factor)]
    if freeze != "none":
        found.append((_EMBEDDINGS, 0.0))
    if freeze == "encoder":
        found.append(("^bert/encoder/", 0.0))
    if layerwise_decay != 1:
        layers = _layers(config)
        found += [
            (layer, layerwise_decay ** (len(layers) - i))
            for i, layer in enumerate(layers)
        ]
        found.append((_SHARED_LAYER, layerwise_decay))
        found.append((_EMBEDDINGS, layerwise_decay ** (len(layers) + 1)))
    return tuple((names, factor) for names, factor in found if factor != 1)


def _layers(config):
    """Regular expressions of the variables that each layer has for itself, in order.

    In the google layout a group stands for a layer.
    """
    number = config.num_hidden_layers
    if config.cross_layer_sharing == "all":
        number = config.num_hidden_groups if config.dialect == "google" else 1
    own = (
        "/(layer|group)_{0}/|" + _SHARED_LAYER + "(attention|intermediate|output)_{0}/"
    )
    return [own.format(i) for i in range(number)]
