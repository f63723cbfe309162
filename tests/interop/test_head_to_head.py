"""The same text through both frameworks, at the real tiny size: equal to 1e-4."""

import numpy as np
import pytest

import modeling
from benchmarks import head_to_head

TOLERANCE = 1e-4


@pytest.mark.parametrize("case", head_to_head.CASES, ids=lambda case: case.name)
def test_outputs_are_equal(case, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    result = head_to_head.compare(case, str(tmp_path))
    expected = {"sequence", "pooled"} | set(case.heads)
    if expected.intersection(("tagger", "span")):  # transformers' have no pooler
        expected.remove("pooled")
    assert set(result.differences) == expected
    assert max(result.differences.values()) < TOLERANCE
    assert result.parameters > 4e6


def test_the_comparison_sees_a_wrong_activation(tmp_path):
    """The tolerance is tight enough to tell the two forms of GELU apart."""
    outputs = []
    for activation in ("gelu", "gelu_exact"):
        config = modeling.AlbertConfig(hidden_act=activation, **head_to_head.GOOGLE)
        directory = str(tmp_path / activation)
        head_to_head.write_random_model(directory, config, head_to_head.HEADS)
        inputs = head_to_head.make_inputs(config.vocab_size)
        outputs.append(
            head_to_head.run_here(directory, inputs, head_to_head.HEADS)["sequence"]
        )
    assert np.abs(outputs[0] - outputs[1]).max() > 3 * TOLERANCE


@pytest.mark.real_data
def test_auto_classes_read_a_converted_fine_tuned_model(
    tmp_path, real_data, run_command
):
    """AutoTokenizer and AutoModel give our ids and our probabilities."""
    transformers = pytest.importorskip("transformers")
    import tokenization

    vocab_file = str(real_data / "bert_zh_vocab" / "vocab.txt")
    config = modeling.AlbertConfig(**head_to_head.GOOGLE)
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    head_to_head.write_random_model(source, config, ("classifier",), vocab_file)
    result = run_command(
        "convert_checkpoint.py",
        "--from=google",
        "--to=huggingface",
        "--input=" + source,
        "--output=" + target,
    )
    assert result.returncode == 0, result.stderr
    text = "花呗怎么还款，ＡＢＣ café 2019年"
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    ours = tokenization.FullTokenizer(vocab_file)
    tokens = ["[CLS]"] + ours.tokenize(text) + ["[SEP]"]
    encoded = tokenizer(text)
    assert encoded["input_ids"] == ours.convert_tokens_to_ids(tokens)
    ids = np.array([encoded["input_ids"]], np.int32)
    inputs = head_to_head.Inputs(ids, np.ones_like(ids), np.zeros_like(ids))
    expected = head_to_head.run_here(source, inputs, ("classifier",))["classifier"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(target)
    logits = model(**tokenizer(text, return_tensors="pt")).logits.detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
