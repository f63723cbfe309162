"""What pretraining gains at a fixed budget of sequences, one choice changed at a time.

    python benchmarks/pretraining_quality.py --corpus='corpus/*.txt' \\
        --held_out=heldout.txt --task=lcqmc=lcqmc --work=/tmp/quality --rows=base,lamb

A row is a run of the repository's commands: records, pretraining up to `--sequences`,
held-out loss and accuracies, then fine-tuning on each `--task` from that checkpoint, a
seed at a time. The row `scratch` is fine-tuned without pretraining. The budget is
counted in sequences, as the speed of a machine drifts; a sequence of twice `LENGTH`
tokens counts as two. Held-out text is masked once, by whole words, the
same for every row of one vocabulary: the loss of rows that are trained with other masks
is no measure between them, fine-tuning is.

A run that is stopped goes on where it was. Finished rows are kept in the work folder
and shown again; with other settings, a row is refused there.
"""

import json
import pathlib
import sys
import time
from typing import NamedTuple, Tuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

from albert_zh.base import console, json_files
from albert_zh.base.errors import UserError
from albert_zh.command_line import positive_int
from albert_zh.data import corpus, input_pipeline
from benchmarks import model_scores, rows, task_files
from benchmarks.model_scores import LENGTH
from benchmarks.work_directory import work_directory

# Of a vocabulary, the tokens that are not fillers.
FILLED_SHARE = 0.9


class Stage(NamedTuple):
    """A part of a row's pretraining.

    Attributes:
      length: int, tokens of a sequence.
      share: float, of the row's budget.
      num_layers: int, times the shared layer is applied; 0 for what the config says.
      rate: float, factor of the row's rate.
      has_sop: bool, whether sentence order is trained, if it is in the row at all.
    """

    length: int
    share: float
    num_layers: int = 0
    rate: float = 1.0
    has_sop: bool = True


class Recipe(NamedTuple):
    """How a row is pretrained; a row changes some of these settings.

    The defaults are those of "Small budgets" in docs/pretraining_en.md.

    Attributes:
      optimizer, learning_rate, batch_size, lr_schedule: as the flags.
      warmup_share: of the steps.
      stages: tuple of `Stage`; each goes on from the one before, with a warm-up and a
        decay of its own.
      masked_lm_prob, ngram, mask_token_share, sop_weight, dropout: as the flags.
      whole_words: bool, whether all tokens of a word are masked together.
      config: NAME of albert_config/albert_config_NAME.json.
      ln_type: "postln", "preln", or "" for what the config says.
      initializer_range: float, standard deviation of initial kernels and embeddings.
      initial_weights, shuffle_buffer_size: as the flags.
      vocab_size: of a vocabulary built from the corpus; 0 for `--vocab_file`'s.
    """

    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    batch_size: int = 32
    lr_schedule: str = "trapezoid"
    warmup_share: float = 0.3
    stages: Tuple[Stage, ...] = (
        Stage(LENGTH, 0.5, 1, 1.0, has_sop=False),
        Stage(LENGTH, 0.25, 2, 0.7),
        Stage(LENGTH, 0.25, 4, 0.5),
    )
    masked_lm_prob: float = 0.3
    ngram: int = 1
    mask_token_share: float = 0.8
    sop_weight: float = 1.0
    dropout: float = 0.0
    whole_words: bool = True
    config: str = "tiny_google"
    ln_type: str = ""
    initializer_range: float = 0.06
    initial_weights: str = "local_attention"
    shuffle_buffer_size: int = input_pipeline.SHUFFLE_BUFFER_RECORDS
    vocab_size: int = 8192


_DEPTHS = Recipe().stages
# Row -> what it changes of `Recipe`.
ROWS = {
    "base": {},
    # LAMB at the published rate, by the square-root rule for the batch.
    "published": {
        "optimizer": "lamb",
        "learning_rate": 0.00016,
        "lr_schedule": "linear",
        "warmup_share": 0.1,
        "stages": (Stage(LENGTH, 1.0),),
        "masked_lm_prob": 0.15,
        "initializer_range": 0.02,
        "initial_weights": "random",
    },
    "four_layers": {"stages": (Stage(LENGTH, 1.0, 4, 0.5),)},
    "two_layers_first": {
        "stages": (Stage(LENGTH, 0.6, 2), Stage(LENGTH, 0.4, 4, 0.5)),
    },
    "random_weights": {"initial_weights": "random"},
    "initializer_0.02": {"initializer_range": 0.02},
    "initializer_0.04": {"initializer_range": 0.04},
    "shuffle_10000": {"shuffle_buffer_size": 10000},
    "lamb_0.002": {"optimizer": "lamb", "learning_rate": 0.002},
    "lamb_0.005": {"optimizer": "lamb", "learning_rate": 0.005},
    "lamb_0.01": {"optimizer": "lamb", "learning_rate": 0.01},
    "batch_64": {"batch_size": 64},
    "batch_128_rate_0.002": {"batch_size": 128, "learning_rate": 2e-3},
    "batch_256_rate_0.003": {"batch_size": 256, "learning_rate": 3e-3},
    "batch_1024_rate_0.004": {"batch_size": 1024, "learning_rate": 4e-3},
    "rate_0.0005": {"learning_rate": 5e-4},
    "rate_0.002": {"learning_rate": 2e-3},
    "warmup_0.05": {"warmup_share": 0.05},
    "warmup_0.5": {"warmup_share": 0.5},
    "linear": {"lr_schedule": "linear"},
    "one_cycle": {"lr_schedule": "one_cycle", "warmup_share": 0.5},
    "tenth": {"lr_schedule": "tenth"},
    "length_128": {"stages": tuple(s._replace(length=128) for s in _DEPTHS)},
    "length_128_last": {"stages": (*_DEPTHS[:2], _DEPTHS[2]._replace(length=128))},
    "length_512_last": {"stages": (*_DEPTHS[:2], _DEPTHS[2]._replace(length=512))},
    "mask_0.15": {"masked_lm_prob": 0.15},
    "mask_0.2": {"masked_lm_prob": 0.2},
    "mask_token_only": {"mask_token_share": 1.0},
    "no_sop": {"sop_weight": 0.0},
    "sop_from_the_start": {"stages": tuple(s._replace(has_sop=True) for s in _DEPTHS)},
    "preln": {"config": "tiny", "ln_type": "preln"},
    "albert_zh_dialect": {"config": "tiny"},
    "dropout_0.1": {"dropout": 0.1},
    "vocabulary_given": {"vocab_size": 0},
    "single_tokens": {"whole_words": False},
    "ngram_3": {"ngram": 3},
}


def build_parser():
    """Returns the benchmark's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--corpus", required=True, help="text files or globs, comma-separated")
    add("--held_out", required=True, help="text file that the corpus does not contain")
    add("--work", type=work_directory, required=True, help="folder for all of it")
    add("--rows", default="base", help="names, comma-separated; all: every one")
    add("--sequences", type=positive_int, default=100000, help="budget of a row")
    task = task_files.task_argument
    add("--task", action="append", default=[], type=task, help="TASK_NAME=DATA_DIR")
    add("--seeds", type=positive_int, default=3, help="fine-tuning runs of a row")
    add("--train_rows", type=positive_int, help="of a task's training file at most")
    add("--vocab_file", help="vocabulary of the row `vocabulary_given`")
    return parser


def main(args):
    """Runs what is not done yet of the rows; prints the table."""
    names = rows.choose(args.rows, ["scratch", *ROWS])
    args.corpus = corpus.expand_input_files(args.corpus)
    if "vocabulary_given" in names and not args.vocab_file:
        raise UserError("--rows: vocabulary_given requires --vocab_file")
    runs = [Run(name, args) for name in names]
    for run in runs:
        run.check()
    for run in runs:
        run.go_on()
        console.show("{}\n\n".format(table(runs, args.task)))


class Run:
    """One row: what is done of it stands in its folder."""

    def __init__(self, name, args):
        """Reads the row's state, if any; writes nothing.

        Args:
          name: key of `ROWS`, or "scratch".
          args: the benchmark's flags.
        """
        self.name = name
        self._args = args
        self._recipe = Recipe(**ROWS.get(name, {}))
        self._folder = args.work / "rows" / name
        self._state_file = self._folder / "state.json"
        self.state = {"settings": self._settings(), "seconds": 0.0, "tasks": {}}
        if self._state_file.exists():
            self.state = json.loads(self._state_file.read_text())

    def _settings(self):
        """What the row's numbers depend on, as JSON gives it back."""
        settings = dict(self._recipe._asdict(), sequences=self._args.sequences)
        settings.update(fine_tuning=model_scores.FINE_TUNING)
        settings.update(train_rows=self._args.train_rows)
        return json.loads(json.dumps(settings))

    def check(self):
        """Raises `UserError` for a state of other settings, or a budget of no step."""
        wanted, found = self._settings(), self.state["settings"]
        for setting in sorted(wanted):
            if found.get(setting) != wanted[setting]:
                raise UserError(
                    "{}: the row was begun with {}={}, now it is {}; give another "
                    "--work or remove that folder".format(
                        self._folder, setting, found.get(setting), wanted[setting]
                    )
                )
        if self.name != "scratch" and min(steps for _, steps in self._stages()) < 2:
            raise UserError(
                "--sequences={} are less than two steps of {}, batch {}".format(
                    self._args.sequences, self.name, self._recipe.batch_size
                )
            )

    def go_on(self):
        """Pretrains, evaluates and fine-tunes as far as that is not done."""
        self._save()
        if self.name != "scratch" and "masked_lm_loss" not in self.state:
            self._pretrain()
        for task, folder in self._args.task:
            scores = self.state["tasks"].setdefault(task, [])
            for seed in range(len(scores), self._args.seeds):
                scores.append(self._fine_tune(task, folder, seed))
                self._save()

    def _save(self):
        self._folder.mkdir(parents=True, exist_ok=True)
        json_files.write(self.state, str(self._state_file))

    def _command(self, script, flags):
        """Runs a command of the repository, its output into the row's log."""
        rows.run(model_scores.line(script, flags), self._folder)

    def _stages(self):
        """The (`Stage`, steps) of each stage of pretraining."""
        for stage in self._recipe.stages:
            sequences = self._args.sequences * stage.share * LENGTH / stage.length
            yield stage, int(sequences / self._recipe.batch_size)

    def _pretrain(self):
        recipe, checkpoint = self._recipe, None
        for number, (stage, steps) in enumerate(self._stages()):
            length = stage.length
            output_dir = self._folder / "stage_{}".format(number)
            masks = {
                "--masked_lm_prob": recipe.masked_lm_prob,
                "--ngram": recipe.ngram,
                "--mask_token_share": recipe.mask_token_share,
                "--max_predictions_per_seq": round(recipe.masked_lm_prob * length) + 1,
            }
            begin = time.time()
            self._command(
                "run_pretraining.py",
                {
                    "--do_train": True,
                    "--input_file": self._records(length),
                    "--output_dir": output_dir,
                    "--albert_config_file": self._config_file(stage.num_layers),
                    "--vocab_file": self._vocab_file(),
                    "--init_checkpoint": checkpoint,
                    "--initial_weights": None if checkpoint else recipe.initial_weights,
                    "--max_seq_length": length,
                    "--shuffle_buffer_size": recipe.shuffle_buffer_size,
                    "--num_train_steps": steps,
                    "--num_warmup_steps": int(recipe.warmup_share * steps),
                    "--train_batch_size": recipe.batch_size,
                    "--micro_batch_size": min(recipe.batch_size, 64),
                    "--learning_rate": recipe.learning_rate * stage.rate,
                    "--lr_schedule": recipe.lr_schedule,
                    "--optimizer": recipe.optimizer,
                    "--sop_weight": recipe.sop_weight if stage.has_sop else 0.0,
                    "--dropout": recipe.dropout,
                    "--keep_checkpoint_max": 1,
                    **masks,
                },
            )
            self.state["seconds"] += time.time() - begin
            checkpoint = output_dir / "model.ckpt-{}".format(steps)
        self.state["checkpoint"] = str(checkpoint.relative_to(self._args.work))
        self.state.update(self._evaluate(checkpoint))
        self._save()

    def _evaluate(self, checkpoint):
        """Held-out losses and accuracies of a checkpoint."""
        held_out = self._held_out()
        output_dir = self._folder / "held_out"
        rows.run(
            model_scores.score_held_out(
                held_out, output_dir, self._config_file(), checkpoint
            ),
            self._folder,
        )
        return model_scores.read(output_dir)

    def _fine_tune(self, task, data_dir, seed):
        """Fine-tunes with one seed; returns the accuracies of dev and test."""
        output_dir = self._folder / "{}_{}".format(task, seed)
        checkpoint = self.state.get("checkpoint")
        flags = {
            "--output_dir": output_dir,
            "--albert_config_file": self._config_file(),
            "--vocab_file": self._vocab_file(),
            "--init_checkpoint": checkpoint and self._args.work / checkpoint,
            "--seed": seed,
        }
        copies_dir = self._args.work / "tasks" / task
        rows.run(
            model_scores.fine_tune(
                task, data_dir, self._args.train_rows, copies_dir, flags
            ),
            self._folder,
        )
        return model_scores.read_accuracies(output_dir)

    def _config_file(self, num_layers=0):
        """The row's model, with so many layers (0: the config's), as a file."""
        name = "albert_config_{}.json".format(self._recipe.config)
        config = json.loads((rows.REPOSITORY / "albert_config" / name).read_text())
        if self._recipe.ln_type:
            config["ln_type"] = self._recipe.ln_type
        if num_layers:
            config["num_hidden_layers"] = num_layers
        config["initializer_range"] = self._recipe.initializer_range
        with open(self._vocab_file(), encoding="utf-8") as lines:
            config["vocab_size"] = sum(1 for _ in lines)
        path = self._folder / "config_{}.json".format(config["num_hidden_layers"])
        json_files.write(config, str(path))
        return path

    def _vocab_file(self):
        """The row's vocabulary, built where it is missing."""
        if not self._recipe.vocab_size:
            return pathlib.Path(self._args.vocab_file)
        size = self._recipe.vocab_size
        path = self._args.work / "vocab_{}.txt".format(size)
        if not path.exists():
            flags = {"--vocab_size": size, "--output_file": path}
            flags["--input_file"] = ",".join(self._args.corpus)
            self._command("build_vocab.py", flags)
        self._check_vocabulary(path)
        return path

    def _check_vocabulary(self, path):
        """Raises `UserError` if the corpus filled less than `FILLED_SHARE` of it."""
        tokens = path.read_text(encoding="utf-8").split("\n")[:-1]
        filled = sum(not token.startswith("[unused") for token in tokens)
        if filled < FILLED_SHARE * len(tokens):
            raise UserError(
                "--corpus: too small for a vocabulary of {}: it gives {} tokens; give "
                "more text".format(len(tokens), filled)
            )

    def _records(self, length):
        """Records of the corpus, made where they are missing."""
        masked = "words" if self._recipe.whole_words else "tokens"
        path = self._records_file("corpus", length, masked)
        if not model_scores.is_made(path):
            self._command(
                "create_pretraining_data.py",
                {
                    "--input_file": ",".join(self._args.corpus),
                    "--output_file": path,
                    "--vocab_file": self._vocab_file(),
                    "--max_seq_length": length,
                    "--do_whole_word_mask": self._recipe.whole_words,
                    "--masking": "dynamic",
                    "--dupe_factor": 1,
                },
            )
        return path

    def _held_out(self):
        """Records of the held-out text, made where they are missing."""
        path = self._records_file("held_out", LENGTH, "words")
        if not model_scores.is_made(path):
            making = model_scores.make_held_out(
                self._args.held_out, self._vocab_file(), path
            )
            rows.run(making, self._folder)
        return path

    def _records_file(self, text, length, masked):
        name = "{}_{}_{}_{}.tfrecord".format(
            text, self._vocab_file().stem, length, masked
        )
        path = self._args.work / "records" / name
        path.parent.mkdir(exist_ok=True)
        return path


def table(runs, tasks):
    """Returns what is known of the rows as a Markdown table."""
    columns = [
        "row",
        "sequences",
        "MLM loss",
        "MLM accuracy",
        "SOP accuracy",
        "seconds",
    ]
    columns += [
        "{} {}".format(task, split) for task, _ in tasks for split in ("dev", "test")
    ]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for run in runs:
        state = run.state
        sequences = 0 if run.name == "scratch" else state["settings"]["sequences"]
        cells = [run.name, "{:,}".format(sequences)]
        for name, form in (
            ("masked_lm_loss", "{:.3f}"),
            ("masked_lm_accuracy", "{:.1%}"),
            ("sentence_order_accuracy", "{:.1%}"),
        ):
            cells.append(form.format(state[name]) if name in state else "")
        cells.append("{:.0f}".format(state["seconds"]))
        for task, _ in tasks:
            for split in ("dev", "test"):
                scores = [entry[split] for entry in state["tasks"].get(task, ())]
                cells.append(rows.mean_and_deviation(scores))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main, build_parser())
