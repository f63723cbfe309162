"""The command, from text to records: as a user runs it, and on real text."""

import hashlib
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import create_pretraining_data
import tokenization
from albert_zh import command_line
from albert_zh.data import input_pipeline, segmentation

SUBJECTS = ["老师", "小明的爷爷", "中华人民共和国", "图书管理员", "iPhone6", "我们"]
VERBS = ["昨天看见了", "一直喜欢", "正在研究", "终于找到", "从来没有听说过"]
OBJECTS = ["语言模型", "北京大学的图书馆", "3.14", "résumé", "一只白色的猫", "春天"]
LENGTH, PREDICTIONS = 48, 9

# The records of `_corpus` with seed 12345, equal on every supported Python.
PINNED_SHA256 = "b93773e639f4da990cc542dde93be72d61cb6bcbdc16fb8c20aa80d6df60b037"


def _corpus():
    """About 150 sentences in 30 documents, the shortest of one sentence."""
    lines = []
    for number in range(150):
        parts = [
            (SUBJECTS[number % 6], VERBS[number % 5], OBJECTS[(number // 2) % 6]),
            (SUBJECTS[(number + 2) % 6], VERBS[number % 4], OBJECTS[number % 5]),
        ]
        clauses = ["".join(part) for part in parts[: 1 + number % 2]]
        lines.append("，".join(clauses) + "。")
        if number % 5 == 4 or number % 31 == 0:
            lines.append("")
    return "\n".join(lines) + "\n"


def _vocabulary():
    """Entries for all of `_corpus`, with the pieces BERT has and never uses."""
    specials = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"]
    chinese = sorted({c for c in _corpus() if tokenization.is_chinese_char(ord(c))})
    pieces = ["iphone", "##6", "re", "##sum", "##e", "3", "14", ".", "，", "。"]
    return specials + chinese + pieces + ["##" + char for char in chinese]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    (directory / "corpus.txt").write_text(_corpus(), encoding="utf-8")
    (directory / "vocab.txt").write_text("\n".join(_vocabulary()), encoding="utf-8")
    return directory


def _flags(data, output, **flags):
    flags = dict(
        dict(
            input_file="{}/corpus.txt".format(data),
            output_file=output,
            vocab_file="{}/vocab.txt".format(data),
            max_seq_length=LENGTH,
            max_predictions_per_seq=PREDICTIONS,
            masked_lm_prob=0.15,
            dupe_factor=3,
        ),
        **flags,
    )
    return ["--{}={}".format(*item) for item in flags.items() if item[1] is not None]


def _run(data, output, **flags):
    """Runs the command in this process; returns its records and summary."""
    command_line.run(
        create_pretraining_data.main,
        create_pretraining_data.build_parser(),
        _flags(data, output, **flags),
    )
    first = str(output).split(",")[0]
    with open(first + ".summary.json", encoding="utf-8") as file:
        summary = json.load(file)
    return _decode(str(output).split(",")), summary


def _decode(paths):
    return [
        input_pipeline.decode_example(record)
        for path in paths
        for record in tf.io.tf_record_iterator(path)
    ]


def _predictions(features):
    """Returns the positions and labels of a record that have weight."""
    real = features["masked_lm_weights"] > 0
    return features["masked_lm_positions"][real], features["masked_lm_ids"][real]


def _share_of_suffixed_chinese(examples, vocab_file):
    """Share of inputs and labels that are ids of `##` and a Chinese character."""
    tokens = list(tokenization.load_vocab(str(vocab_file)))
    suffixed = [
        token.startswith("##") and tokenization.is_chinese_char(ord(token[-1]))
        for token in tokens
    ]
    ids = np.concatenate([_predictions(e)[1] for e in examples])
    ids = np.concatenate([ids] + [e["input_ids"] for e in examples])
    return np.array(suffixed)[ids].mean()


def test_a_run_makes_records_and_a_summary(data, tmp_path, capsys):
    output = tmp_path / "out" / "a.tfrecord"
    examples, summary = _run(data, output)
    input_pipeline.check_record_files([str(output)], LENGTH, PREDICTIONS)
    assert summary["instances"] == len(examples) > 100
    assert summary["documents"] == len(_corpus().strip().split("\n\n"))
    assert summary["sentences"] == 150
    assert summary["unk_share"] == 0
    assert summary["manifest"]["vocab_size"] == len(_vocabulary())
    assert summary["manifest"]["max_seq_length"] == LENGTH
    # As in records made before there was this setting, which are the same.
    assert "overlap_prob" not in summary["manifest"]
    assert summary["dropped_tokens"] == 0
    masked = sum(len(_predictions(example)[0]) for example in examples)
    assert summary["masked_tokens"] == masked
    assert sum(e["next_sentence_labels"][0] for e in examples) == pytest.approx(
        summary["swapped_share"] * len(examples), abs=0.01
    )
    assert _share_of_suffixed_chinese(examples, data / "vocab.txt") == 0
    last_line = capsys.readouterr().out.strip().splitlines()[-1]
    assert last_line == "summary in {}.summary.json".format(output)


def test_unmasked_segments_are_in_the_corpus(data, tmp_path):
    examples, _ = _run(data, tmp_path / "a.tfrecord")
    tokenizer = tokenization.FullTokenizer(str(data / "vocab.txt"))
    documents = [
        " {} ".format(" ".join(tokenizer.tokenize(document)))
        for document in _corpus().split("\n\n")
    ]
    for example in examples:
        ids = example["input_ids"].copy()
        positions, labels = _predictions(example)
        ids[positions] = labels
        first, second = (
            tokenizer.convert_ids_to_tokens(ids[mask].tolist())
            for mask in (
                (example["input_mask"] == 1) & (example["segment_ids"] == 0),
                example["segment_ids"] == 1,
            )
        )
        segments = [first[1:-1], second[:-1]]
        if example["next_sentence_labels"][0]:
            segments.reverse()
        texts = [" {} ".format(" ".join(segment)) for segment in segments]
        found = [document for document in documents if texts[0] in document]
        assert any(
            document.find(texts[1], document.find(texts[0])) >= 0 for document in found
        )


def test_the_same_seed_gives_the_same_bytes(data, tmp_path):
    digests = []
    for name, seed in (("a", 12345), ("b", 12345), ("c", 1)):
        _run(data, tmp_path / name, random_seed=seed, ngram=3)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] == PINNED_SHA256


def test_the_command_as_a_user_runs_it(data, tmp_path, run_command):
    (tmp_path / "one.txt").write_text("老师喜欢春天，我们研究语言模型。\n", "utf-8")
    result = run_command(
        "create_pretraining_data.py",
        "--input_file={}/*.txt,{}".format(tmp_path, data / "corpus.txt"),
        "--output_file=a.tfrecord,b.tfrecord",
        "--vocab_file={}".format(data / "vocab.txt"),
        "--do_lower_case=True",
        "--do_whole_word_mask=True",
        "--dupe_factor=1",
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr and "jieba" not in result.stderr
    files = [str(tmp_path / name) for name in ("a.tfrecord", "b.tfrecord")]
    input_pipeline.check_record_files(files, 512, 51)
    lengths = [len(_decode([path])) for path in files]
    assert sum(lengths) >= 30 and abs(lengths[0] - lengths[1]) <= 1
    assert "a.tfrecord.summary.json" in result.stdout.splitlines()[-1]


def _num_masked_words(summary):
    lengths = summary["distributions"]["ngram_lengths"]
    return sum(int(length) * count for length, count in lengths.items())


def test_single_tokens_are_masked_on_request(data, tmp_path, monkeypatch):
    def unexpected(name):
        raise AssertionError("jieba was loaded")

    monkeypatch.setattr(segmentation, "load_segmenter", unexpected)
    _, summary = _run(data, tmp_path / "a", do_whole_word_mask=False)
    assert _num_masked_words(summary) == summary["masked_tokens"]
    _, summary = _run(data, tmp_path / "b", non_chinese=True)
    assert _num_masked_words(summary) < summary["masked_tokens"]


def test_english_with_sentencepiece(tmp_path, train_sentencepiece):
    words = "the reader turned another page and wondered about unforgettable sentences"
    rng = np.random.RandomState(0)
    lines = [" ".join(rng.permutation(words.split())) + "." for _ in range(200)]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    model_file = train_sentencepiece(tmp_path, lines, vocab_size=32)
    examples, summary = _run(
        None,
        tmp_path / "a",
        input_file=tmp_path / "text.txt",
        vocab_file=None,
        spm_model_file=model_file,
        non_chinese=True,
    )
    assert summary["unk_share"] == 0
    # The words have several pieces each, which are masked together.
    assert _num_masked_words(summary) < summary["masked_tokens"]
    tokenizer = tokenization.FullTokenizer(None, spm_model_file=model_file)
    for example in examples:
        positions, labels = _predictions(example)
        ids = example["input_ids"].copy()
        ids[positions] = labels
        pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
        for before, after in zip(range(len(pieces)), range(1, len(pieces))):
            # A piece of letters without a mark continues the word before it.
            if pieces[after].isalpha() and pieces[before] != "[SEP]":
                assert (after in positions) == (before in positions)


def test_dynamic_records_hold_the_text_and_its_words(data, tmp_path):
    output = tmp_path / "a.tfrecord"
    flags = ["--masking=dynamic", "--preview=2"]
    parser = create_pretraining_data.build_parser()
    given = _flags(data, output)
    kept = [f for f in given if "masked_lm" not in f and "predictions" not in f]
    kept = [flag for flag in kept if "dupe_factor" not in flag]
    command_line.run(create_pretraining_data.main, parser, kept + flags)
    examples = _decode([str(output)])
    with open(str(output) + ".summary.json", encoding="utf-8") as file:
        summary = json.load(file)
    assert summary["manifest"]["dupe_factor"] == 1
    assert summary["instances"] == len(examples) > 30
    assert "masked_share" not in summary
    mask_id = tokenization.load_vocab(str(data / "vocab.txt"))["[MASK]"]
    for example in examples:
        num_tokens = example["input_mask"].sum()
        # Every token but the three special ones is in one word.
        assert example["word_lengths"].sum() == num_tokens - 3
        assert mask_id not in example["input_ids"]
    assert input_pipeline.check_record_files([str(output)], LENGTH, PREDICTIONS)


def test_many_output_files_share_the_records(data, tmp_path):
    output = tmp_path / "a.tfrecord"
    flags = _flags(data, output, num_output_files=3, shard_bytes=1000)
    parser = create_pretraining_data.build_parser()
    command_line.run(create_pretraining_data.main, parser, flags)
    names = sorted(path.name for path in tmp_path.glob("a-*"))
    assert names == ["a-0000{}-of-00003.tfrecord".format(i) for i in range(3)]
    sizes = [len(_decode([str(tmp_path / name)])) for name in names]
    with open(str(output) + ".summary.json", encoding="utf-8") as file:
        summary = json.load(file)
    assert sum(sizes) == summary["instances"]
    assert max(sizes) - min(sizes) <= 0.2 * max(sizes)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == names + ["a.tfrecord.summary.json"]


def test_undecodable_bytes_are_counted(data, tmp_path, capsys):
    (tmp_path / "bad.txt").write_bytes(
        "我们研究".encode() + b"\xff\n" + "春天。".encode()
    )
    _, summary = _run(
        data, tmp_path / "a", input_file=tmp_path / "bad.txt", encoding_errors="replace"
    )
    assert summary["replaced_undecodable_bytes"] == 1
    assert any("1 undecodable" in warning for warning in summary["warnings"])
    # What they became is not taken for text that could be decoded.
    with pytest.raises(SystemExit):
        _run(data, tmp_path / "a", input_file=tmp_path / "bad.txt")
    error = capsys.readouterr().err
    assert "replaced 1 undecodable bytes" in error and "--overwrite" in error


def test_a_directory_with_the_vocabulary_and_the_output(data, tmp_path, caplog):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.txt", "vocab.txt"):
        source = "corpus.txt" if name == "a.txt" else name
        (folder / name).write_bytes((data / source).read_bytes())
    for _ in range(2):
        _, summary = _run(
            data, folder / "out", input_file=folder, vocab_file=folder / "vocab.txt"
        )
        read = [entry["path"] for entry in summary["manifest"]["input"]]
        assert read == [str(folder / "a.txt")]
    assert "not read as text: {}".format(folder / "vocab.txt") in caplog.text


def test_a_binding_limit_warns_first(data, tmp_path, caplog):
    _, summary = _run(data, tmp_path / "a", max_predictions_per_seq=3)
    assert "raise it to 7" in caplog.text
    assert summary["instances_at_max_predictions"] > 0
    assert "raise it to 7" in summary["warnings"][0]


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"input_file": "missing*.txt"}, ["no input file matches", "missing*.txt"]),
        ({"input_file": "empty.txt"}, ["the input is empty", "empty.txt"]),
        ({"input_file": "bad.txt"}, ["bad.txt:2", "not valid UTF-8"]),
        ({"vocab_file": "missing.txt"}, ["missing.txt", "download_model.py vocab"]),
        ({"vocab_file": "empty.txt"}, ["empty.txt", "empty"]),
        ({"vocab_file": None}, ["--vocab_file is missing"]),
        ({"vocab_file": ""}, ["--vocab_file: expected a value"]),
        ({"max_seq_length": 4}, ["max_seq_length=4"]),
        ({"masked_lm_prob": 15}, ["masked_lm_prob=15"]),
        ({"random_seed": 2**32}, ["--random_seed: expected 0 to 2**31 - 1"]),
        ({"output_file": "bad.txt/a"}, ["cannot write", "bad.txt/a"]),
        (
            {"output_file": "bad.txt", "input_file": "bad.txt"},
            ["none of them an input"],
        ),
        ({"encoding_errors": "ignore"}, ["encoding_errors", "ignore"]),
        ({"masking": "dynamic"}, ["--masked_lm_prob requires --masking=static"]),
        (
            {"segmenter": "rjieba", "non_chinese": True},
            ["--segmenter has no effect with --non_chinese"],
        ),
        ({"output_file": "a,b", "num_output_files": 3}, ["--num_output_files", "a,b"]),
        ({"spark_master": "local[2]"}, ["--spark_master", "--engine=spark"]),
        ({"engine": "spark", "num_workers": 2}, ["--num_workers", "--engine=local"]),
        (
            {"num_output_files": 10000},
            ["for 10000 output files", "would be empty"],
        ),
    ],
)
def test_mistakes_end_in_one_line(data, tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "bad.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(SystemExit) as exit_info:
        _run(data, flags.pop("output_file", "a.tfrecord"), **flags)
    assert exit_info.value.code == 2
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert ": error: " in last_line
    assert all(word in last_line for word in words), last_line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.txt", "empty.txt"]


def test_a_mistake_as_a_user_sees_it(data, run_command, assert_user_error):
    flags = _flags(data, "a.tfrecord", input_file="*.missing")
    result = run_command("create_pretraining_data.py", *flags)
    assert_user_error(result, "*.missing", "no input file matches")


def test_real_text(real_data, tmp_path):
    text = (real_data / "niutrans_modern" / "modern_zh.txt").read_bytes()[:200000]
    (tmp_path / "text.txt").write_bytes(text[: text.rindex(b"\n") + 1])
    vocab_file = real_data / "bert_zh_vocab" / "vocab.txt"
    examples, summary = _run(
        None,
        tmp_path / "a.tfrecord",
        input_file=tmp_path / "text.txt",
        vocab_file=vocab_file,
        max_seq_length=128,
        max_predictions_per_seq=20,
    )
    assert _share_of_suffixed_chinese(examples, vocab_file) == 0
    num_tokens = sum(example["input_mask"].sum() - 3 for example in examples)
    masked = sum(len(_predictions(example)[0]) for example in examples)
    assert masked / num_tokens == pytest.approx(0.15, rel=0.01)
    assert summary["masked_share"] == pytest.approx(masked / num_tokens, abs=1e-6)
    assert summary["dropped_tokens"] == 0
    swapped = np.mean([example["next_sentence_labels"][0] for example in examples])
    # 200 KB give about 1,600 instances: four standard deviations are 5 %.
    assert abs(swapped - 0.5) < 0.05
