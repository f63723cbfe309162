"""The same text through this repository and through the Keras loaders of its models.

    python benchmarks/keras_loaders.py --work=/tmp/keras_loaders

Writes model directories with random weights at the real tiny sizes, loads them with
bert4keras (0.11.5, keras 2.3.1) and bert-for-tf2 (0.14.9) as their users do, and
prints a Markdown table of the largest absolute differences. Both peers install on
Python 3.7 with TensorFlow 1.15 (`requirements-dev.txt`).
"""

import argparse
import concurrent.futures
import importlib.util
import json
import multiprocessing
import os
import pathlib
import sys
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import modeling
from albert_zh.models import directory as model_directory
from benchmarks import head_to_head
from benchmarks.work_directory import work_directory

# --- What users write --------------------------------------------------------

# bert4keras's "gelu" is the exact form; TensorFlow's models mean the tanh form.
_BERT4KERAS_ACTIVATIONS = {"gelu": "gelu_tanh", "gelu_exact": "gelu_erf"}
_BERT4KERAS_MODELS = {"google": "albert", "bert": "bert"}


def build_bert4keras(directory, **settings):
    """Loads a model directory of the google or bert dialect with bert4keras.

    Args:
      directory: path.
      **settings: of `build_transformer_model`, such as `with_pool=True`.

    Returns:
      What `build_transformer_model` returns.
    """
    from bert4keras.models import build_transformer_model

    config_file = os.path.join(directory, "albert_config.json")
    config = modeling.AlbertConfig.from_json_file(config_file)
    return build_transformer_model(
        config_file,
        tf.train.latest_checkpoint(directory),
        model=_BERT4KERAS_MODELS[config.dialect],
        hidden_act=_BERT4KERAS_ACTIVATIONS[config.hidden_act],
        **settings,
    )


def run_bert4keras(directory, inputs):
    """Runs a model directory with bert4keras, which takes id 0 for padding.

    Returns:
      {output: ndarray} as `head_to_head.run_here`, but log-probabilities of the
      sentence order: the peer gives no logits of it.
    """
    batch = [inputs.input_ids, inputs.segment_ids]
    sequence = build_bert4keras(directory).predict(batch)
    heads = build_bert4keras(directory, with_pool=True, with_mlm="linear")
    pooled, masked_lm = heads.predict(batch)
    order = build_bert4keras(directory, with_nsp=True).predict(batch)
    return {
        "sequence": sequence,
        "pooled": pooled,
        "masked_lm": masked_lm,
        "sentence_order": np.log(order),
    }


def save_with_bert4keras(directory, checkpoint):
    """Loads a model with all heads and saves it as a TensorFlow checkpoint."""
    transformer = build_bert4keras(
        directory, with_nsp=True, with_mlm=True, return_keras_model=False
    )
    transformer.save_weights_as_checkpoint(checkpoint)


def run_bert_for_tf2(directory, inputs):
    """Runs a model directory of any dialect with bert-for-tf2: {"sequence": ndarray}.

    Raises:
      ValueError: the peer left out a weight.
    """
    import bert
    from bert import attention, loader, loader_albert, transformer
    from params_flow import activations

    # Two of its modules take TensorFlow's private copy of Keras, whose classes
    # TensorFlow 2.15 keeps apart from the public ones.
    transformer.keras = attention.keras = tf.keras

    config_file = os.path.join(directory, "albert_config.json")
    config = modeling.AlbertConfig.from_json_file(config_file)
    parameters = bert.params_from_pretrained_ckpt(directory)
    parameters.mask_zero = True  # takes id 0 for padding, as bert4keras
    if config.hidden_act == "gelu_exact":
        parameters.intermediate_activation = activations.gelu_exact
    layer = bert.BertModelLayer.from_params(parameters, name="bert")
    shape = inputs.input_ids.shape[1:]
    tensors = [tf.keras.layers.Input(shape, dtype="int32") for _ in range(2)]
    model = tf.keras.Model(tensors, layer(tensors))
    rename = loader.map_to_stock_variable_name
    if config.dialect == "google":
        # `load_albert_weights` tells this dialect by a file model.ckpt-best.meta.
        rename = loader_albert.map_to_tfhub_albert_variable_name
    checkpoint = tf.train.latest_checkpoint(directory)
    names = {rename(weight.name, "bert") for weight in layer.weights}
    missing = names - {name for name, _ in tf.train.list_variables(checkpoint)}
    if missing or loader.load_stock_weights(layer, checkpoint, rename):
        raise ValueError("{}: not loaded: {}".format(directory, sorted(missing)))
    return {"sequence": model.predict([inputs.input_ids, inputs.segment_ids])}


# --- Comparison --------------------------------------------------------------


class Case(NamedTuple):
    """One comparison: the function that runs the peer, the model's settings."""

    name: str
    run: object
    settings: dict
    activation: str = "gelu"


CASES = (
    Case("google -> bert4keras", run_bert4keras, head_to_head.GOOGLE),
    Case(
        "google, exact GELU -> bert4keras",
        run_bert4keras,
        head_to_head.GOOGLE,
        "gelu_exact",
    ),
    Case("bert -> bert4keras", run_bert4keras, head_to_head.TINY),
    Case("google -> bert-for-tf2", run_bert_for_tf2, head_to_head.GOOGLE),
    Case(
        "google, exact GELU -> bert-for-tf2",
        run_bert_for_tf2,
        head_to_head.GOOGLE,
        "gelu_exact",
    ),
    Case("albert_zh -> bert-for-tf2", run_bert_for_tf2, head_to_head.ALBERT_ZH),
    Case("bert -> bert-for-tf2", run_bert_for_tf2, head_to_head.TINY),
)
# The module that shows whether a peer is installed.
_MODULES = {run_bert4keras: "bert4keras", run_bert_for_tf2: "bert"}


def is_installed(run):
    """Whether the peer that this function runs can be imported."""
    return importlib.util.find_spec(_MODULES[run]) is not None


def in_own_process(work, function, *arguments):
    """Calls a function where no other graph, session or Keras setting exists.

    Keras, which writes a settings file when first imported, does so in `work`.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as executor:
        return executor.submit(_call, work, function, arguments).result()


def _call(work, function, arguments):
    os.environ.update(
        KERAS_HOME=work,
        KERAS_BACKEND="tensorflow",
        TF_KERAS="0",  # bert4keras is to take the package keras
        VERBOSE="0",  # of bert-for-tf2
    )
    tf.logging.set_verbosity(tf.logging.ERROR)
    return function(*arguments)


def compare(case, work):
    """Writes a case's model and runs both sides; returns `head_to_head.Result`."""
    directory = os.path.join(work, "model")
    config = modeling.AlbertConfig(hidden_act=case.activation, **case.settings)
    weights = head_to_head.write_random_model(directory, config, head_to_head.HEADS)
    # As `convert_checkpoint.py` leaves it: the loaders must not stumble over it.
    settings = pathlib.Path(directory, model_directory.TOKENIZER_FILE)
    settings.write_text(json.dumps({"do_lower_case": True}))
    differences = compare_model(case.run, directory, config.vocab_size, work)
    del weights["global_step"]
    parameters = sum(value.size for value in weights.values())
    return head_to_head.Result(len(weights), parameters, differences)


def compare_model(run, directory, vocab_size, work):
    """Runs both sides on a model directory with both pretraining heads.

    Args:
      run: function of the peer, `run_bert4keras` or `run_bert_for_tf2`.
      directory: path.
      vocab_size: int, of the model.
      work: path of a folder for the peer's settings.

    Returns:
      Dict output -> largest absolute difference.
    """
    inputs = head_to_head.make_inputs(vocab_size)
    theirs = in_own_process(work, run, directory, inputs)
    ours = head_to_head.run_here(directory, inputs, head_to_head.HEADS)
    ours["sentence_order"] = _log_softmax(ours["sentence_order"])
    return head_to_head.largest_differences(theirs, ours, inputs)


def _log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", required=True, type=work_directory)
    args = parser.parse_args()
    rows = []
    for number, case in enumerate(CASES):
        result = None
        if is_installed(case.run):
            result = compare(case, str(args.work / str(number)))
        rows.append((case.name, result))
    head_to_head.print_table(rows)


if __name__ == "__main__":
    main()
