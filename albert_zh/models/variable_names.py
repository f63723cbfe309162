"""Variable names that other releases of the published code gave the same variables.

Google's ALBERT code names layer norms as Keras does when TensorFlow 2 runs it, and its
TensorFlow Hub modules count layers in the names of shared ones:

  bert/embeddings/layer_normalization/gamma
  bert/encoder/transformer/group_0/layer_0/inner_group_0/layer_normalization_2/beta
  module/bert/encoder/transformer/group_0_11/layer_11/inner_group_0/LayerNorm/gamma
"""

import collections
import re

_MODULE = re.compile(r"^module/(?=(bert|albert|cls)/)")
_LAYER_OF_GROUP = re.compile(r"/(group_\d+)(?:_\d+)?/layer_\d+/(?=inner_group_\d+/)")
_KERAS_NORM = re.compile(
    r"^(?P<scope>.*)/layer_normalization(?:_(?P<number>\d+))?/(?P<rest>.*)$"
)


def usual(names):
    """Returns a dict of every name to the one that `modeling` gives that variable.

    A name stays as it is if its usual name is taken.

    Args:
      names: iterable of the names of a checkpoint's variables.
    """
    renamed = _rename_norms(
        {
            name: _LAYER_OF_GROUP.sub(r"/\1/", _MODULE.sub("", name), count=1)
            for name in names
        }
    )
    uses = collections.Counter(renamed.values())
    return {
        name: new if uses[new] == 1 else name for name, new in sorted(renamed.items())
    }


def _rename_norms(renamed):
    """Renames Keras' layer norms; the first of a scope is LayerNorm, then LayerNorm_1.

    Args:
      renamed: dict of the stored name to the name so far.
    """
    matches = {name: _KERAS_NORM.match(new) for name, new in renamed.items()}
    numbers = collections.defaultdict(set)
    for match in filter(None, matches.values()):
        numbers[match.group("scope")].add(int(match.group("number") or 0))
    result = dict(renamed)
    for name, match in matches.items():
        if match:
            held = sorted(numbers[match.group("scope")])
            place = held.index(int(match.group("number") or 0))
            suffix = "_{}".format(place) if place else ""
            result[name] = "{}/LayerNorm{}/{}".format(
                match.group("scope"), suffix, match.group("rest")
            )
    return result
