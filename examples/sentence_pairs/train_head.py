"""Trains a sentence-pair classifier on a frozen pretrained model, without Estimator.

    export PYTHONPATH=/path/to/the/repository
    python train_head.py --model_dir=albert_tiny_zh --train_file=train.tsv \
        --output_dir=trained

This is a project of its own: a plain TensorFlow graph and session, written the way
projects written for BERT's `modeling.py` are, with the repository on its path. It
runs on TensorFlow 1.15 and 2.15 and takes a model directory of any dialect, BERT's as
well. The training file has one pair a line: text_a, text_b and the label 0 or 1,
separated by tabs. The output is a model directory again, whose head has the names of
the published classifiers; `convert_checkpoint.py --task_name=pair` adds its task.
"""

import argparse
import collections
import os
import sys

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
import tokenization
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.models import architecture, checkpoints
from albert_zh.models import directory as model_directory

Batch = collections.namedtuple("Batch", "input_ids input_mask segment_ids labels")
LEAST = {"max_seq_length": 4, "batch_size": 1, "num_train_steps": 1}


def read_pairs(path, tokenizer, length):
    """Reads the training file: a `Batch` of int32 arrays [N, length], labels [N]."""
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) != 3 or cells[2] not in ("0", "1"):
                raise UserError(
                    "{}:{}: expected text_a, text_b and 0 or 1, separated by tabs, "
                    "received {!r}".format(path, number, line.rstrip())
                )
            text_a, text_b, label = cells
            first, second = tokenizer.tokenize(text_a), tokenizer.tokenize(text_b)
            while len(first) + len(second) > length - 3:
                max(first, second, key=len).pop()
            first = ["[CLS]"] + first + ["[SEP]"]
            ids = tokenizer.convert_tokens_to_ids(first + second + ["[SEP]"])
            segments = [0] * len(first) + [1] * (len(ids) - len(first))
            padding = [0] * (length - len(ids))
            mask = [1] * len(ids) + padding
            rows.append((ids + padding, mask, segments + padding, int(label)))
    if not rows:
        raise UserError("{}: holds no pairs".format(path))
    return Batch(*[np.array(column, np.int32) for column in zip(*rows)])


def build_classifier(config, batch):
    """Encoder and head of two classes; returns the mean loss, the head's variables."""
    model = modeling.BertModel(
        config=config,
        is_training=False,  # the encoder stays as it is, without dropout
        input_ids=batch.input_ids,
        input_mask=batch.input_mask,
        token_type_ids=batch.segment_ids,
    )
    weights = tf.get_variable(
        "output_weights",
        [2, config.hidden_size],
        initializer=modeling.create_initializer(),
    )
    bias = tf.get_variable("output_bias", [2], initializer=tf.zeros_initializer())
    logits = tf.matmul(model.get_pooled_output(), weights, transpose_b=True) + bias
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=batch.labels, logits=logits
    )
    return tf.reduce_mean(losses), [weights, bias]


def restore(checkpoint, head):
    """Makes the variables start from a checkpoint; `UserError` if the encoder cannot.

    A head that was trained before comes along, if it has two classes.
    """
    variables, shapes = tf.trainable_variables(), checkpoints.read_shapes(checkpoint)
    fitting = [v for v in variables if shapes.get(v.op.name) == v.shape.as_list()]
    assignment_map, restored = modeling.get_assignment_map_from_checkpoint(
        fitting, checkpoint
    )
    missing = {v.name for v in variables} - {v.name for v in head} - set(restored)
    if missing:
        raise UserError("{} lacks {}".format(checkpoint, ", ".join(sorted(missing))))
    tf.train.init_from_checkpoint(checkpoint, assignment_map)


def train(loss, head, inputs, examples, args):
    """Trains the head and saves the weights of the whole model."""
    train_op = tf.train.AdamOptimizer(args.learning_rate).minimize(loss, var_list=head)
    rng = np.random.RandomState(args.seed)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for step in range(1, args.num_train_steps + 1):
            rows = rng.choice(len(examples.labels), args.batch_size)
            feed = {t: array[rows] for t, array in zip(inputs, examples)}
            _, value = session.run([train_op, loss], feed)
            if step == 1 or step % 10 == 0:
                tf.logging.info("step %d: loss %.4f", step, value)
        saver = tf.train.Saver(tf.trainable_variables(), save_relative_paths=True)
        saver.save(session, os.path.join(args.output_dir, "model.ckpt"), step)
    tf.logging.info("Model saved to %s", args.output_dir)


def check_flags(args):
    for name, least in LEAST.items():
        value = getattr(args, name)
        if value < least:
            raise UserError("--{}={}: expected {} or more".format(name, value, least))
    if os.path.isdir(args.output_dir) and os.listdir(args.output_dir):
        raise UserError("--output_dir={}: not empty".format(args.output_dir))


def main(args):
    tf.logging.set_verbosity(tf.logging.INFO)
    tf.set_random_seed(args.seed)
    check_flags(args)
    files = model_directory.find(args.model_dir)
    for field in ("config_file", "vocab_file", "checkpoint"):
        model_directory.require(files, field, has_flags=False)
    # What these modules have to say about bad input is one line as well.
    with as_user_error(ValueError):
        config = modeling.BertConfig.from_json_file(files.config_file)
        architecture.check(files.checkpoint, config, "--model_dir")
        checkpoints.check_readable(files.checkpoint, "--model_dir")
        model_directory.check_vocabulary_of(files, config)
        tokenizer = tokenization.FullTokenizer(
            files.vocab_file,
            model_directory.choose_do_lower_case(None, files.directory),
            spm_model_file=files.spm_model_file,
        )
        examples = read_pairs(args.train_file, tokenizer, args.max_seq_length)
        shapes = [[None, *array.shape[1:]] for array in examples]
        inputs = Batch(*[tf.placeholder(tf.int32, shape) for shape in shapes])
        loss, head = build_classifier(config, inputs)
    restore(files.checkpoint, head)
    os.makedirs(args.output_dir, exist_ok=True)
    train(loss, head, inputs, examples, args)
    model_directory.copy_vocabulary(files, args.output_dir)
    with open(os.path.join(args.output_dir, "albert_config.json"), "w") as file:
        file.write(config.to_json_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--max_seq_length", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--num_train_steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    with tf.Graph().as_default():
        try:
            main(parser.parse_args())
        except (UserError, OSError) as error:
            sys.exit("{}: error: {}".format(parser.prog, error))
