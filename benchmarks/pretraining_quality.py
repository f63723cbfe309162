"""What pretraining gains at a fixed budget of sequences, one choice changed at a time.

    python benchmarks/pretraining_quality.py --corpus='corpus/*.txt' \\
        --held_out=heldout.txt --task=lcqmc=lcqmc --work=/tmp/quality --rows=base,no_sop

A row is a run of the repository's commands: records, pretraining up to `--sequences`,
held-out loss and accuracies, then fine-tuning on each `--task` from that checkpoint, a
seed at a time. The row `scratch` is fine-tuned without pretraining. The budget is
counted in sequences, as the speed of a machine drifts; a sequence of twice `LENGTH`
tokens counts as two. Held-out text is masked once, by whole words, the
same for every row of one vocabulary: the loss of rows that are trained with other masks
is no measure between them, fine-tuning is.

`below 6.0 after` is where a row leaves the plateau of guessing frequent tokens, whose
loss is 6.2 to 6.3 with the vocabulary of 8,192: the sequences at the first line of the
log, every 30 seconds, whose loss of masked tokens is below 6.0 (sentence order, where
it is trained, is taken for a guess), with the step of its stage and that loss. Other
vocabularies have other plateaus.

A run that is stopped resumes where it was. Finished rows are kept in the work folder
and shown again; with other settings or files, a row is refused there.
"""

import json
import math
import os
import pathlib
import re
import sys
from typing import NamedTuple, Tuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.command_line import positive_int
from albert_zh.data import corpus
from albert_zh.models import vocabularies
from benchmarks import model_scores, rows, task_files
from benchmarks.model_scores import LENGTH
from benchmarks.work_directory import work_directory

# Below it, a model knows more than which tokens are frequent.
PLATEAU_LOSS = 6.0
_LOGGED_LOSS = re.compile(r" step (\d+)/\d+  loss (\d+\.\d+)")
# Of a row's first stage; each later one counts on, as every stage begins a run of its
# own and would read the records in the same order, with the same masks.
SEED = 12345


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

    The defaults are what the other rows are compared with; a warm-up is a share of the
    steps.

    Attributes:
      optimizer, learning_rate, batch_size, lr_schedule: as the flags.
      warmup_share: of the steps.
      stages: tuple of `Stage`; each goes on from the one before, with a warm-up and a
        decay of its own.
      masked_lm_prob, ngram, mask_token_share, sop_weight, dropout: as the flags.
      whole_words: bool, whether all tokens of a word are masked together.
      overlap_prob: as the flag.
      config: NAME of albert_config/albert_config_NAME.json.
      ln_type: "postln", "preln", or "" for what the config says.
      initializer_range: float, standard deviation of initial kernels and embeddings.
      initial_weights: as the flag.
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
    overlap_prob: float = 0.3
    config: str = "tiny_google"
    ln_type: str = ""
    initializer_range: float = 0.06
    initial_weights: str = "local_attention"
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
        "overlap_prob": 0.0,
    },
    # Rate, warm-up (600 steps of 100,000 sequences) and first weights that
    # --recipe=small_budget sets, without an earlier stage.
    "small_budget": {
        "stages": (Stage(LENGTH, 1.0, 4, 0.5),),
        "warmup_share": 0.192,
    },
    "random_weights": {"initial_weights": "random"},
    "initializer_0.02": {"initializer_range": 0.02},
    "lamb_0.002": {"optimizer": "lamb", "learning_rate": 0.002},
    "lamb_0.005": {"optimizer": "lamb", "learning_rate": 0.005},
    "lamb_0.01": {"optimizer": "lamb", "learning_rate": 0.01},
    "batch_64": {"batch_size": 64},
    "batch_128": {"batch_size": 128},
    "batch_128_rate_0.002": {"batch_size": 128, "learning_rate": 2e-3},
    "batch_1024_rate_0.004": {"batch_size": 1024, "learning_rate": 4e-3},
    "rate_0.0005": {"learning_rate": 5e-4},
    "rate_0.002": {"learning_rate": 2e-3},
    "warmup_0.05": {"warmup_share": 0.05},
    "warmup_0.5": {"warmup_share": 0.5},
    "linear": {"lr_schedule": "linear"},
    # Its rate rises for half of the steps; beside `warmup_0.5`.
    "one_cycle": {"lr_schedule": "one_cycle", "warmup_share": 0.5},
    "one_cycle_0.0005": {
        "learning_rate": 5e-4,
        "lr_schedule": "one_cycle",
        "warmup_share": 0.5,
    },
    "tenth": {"lr_schedule": "tenth"},
    "length_64_128_512": {
        "stages": tuple(
            s._replace(length=length) for s, length in zip(_DEPTHS, (64, 128, 512))
        )
    },
    "mask_0.15": {"masked_lm_prob": 0.15},
    "mask_0.2": {"masked_lm_prob": 0.2},
    "mask_token_only": {"mask_token_share": 1.0},
    "no_sop": {"sop_weight": 0.0},
    "sop_from_the_start": {"stages": tuple(s._replace(has_sop=True) for s in _DEPTHS)},
    # Beside `albert_zh_dialect`, as Google's configs have no pre-LN.
    "preln": {"config": "tiny", "ln_type": "preln"},
    "albert_zh_dialect": {"config": "tiny"},
    "dropout_0.1": {"dropout": 0.1},
    "vocabulary_given": {"vocab_size": 0},
    "single_tokens": {"whole_words": False},
    "ngram_3": {"ngram": 3},
    "ordinary_records": {"overlap_prob": 0.0},
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
    """Runs what is not done yet of the rows; prints the table.

    Raises:
      UserError: a flag or a file is wrong, the work folder holds results of other
        settings or files, or a command failed.
      Stopped: it was told to stop.
    """
    names = rows.choose(args.rows, ["scratch", *ROWS])
    _check_flags(args, names)
    args.corpus = corpus.expand_input_files(args.corpus)
    args.held_out = ",".join(_held_out_files(args))
    runs = [Run(name, args) for name in names]
    for run in runs:
        run.check()
    for run in runs:
        run.go_on()
        console.show("{}\n\n".format(table(runs, args.task)))


def _check_flags(args, names):
    """Checks the flags against each other and the names of the rows.

    Raises:
      UserError: a flag is missing, or is not read.
    """
    task_files.check_names(args.task)
    has_task, is_given = bool(args.task), "vocabulary_given" in names
    for flag, is_read, reader in (
        ("vocab_file", is_given, "--rows=vocabulary_given"),
        ("seeds", has_task, "--task"),
        ("train_rows", has_task, "--task"),
        ("sequences", names != ["scratch"], "a row that is pretrained"),
    ):
        if flag in args.given and not is_read:
            raise UserError(
                "--{0} requires {1}; add it or remove --{0}".format(flag, reader)
            )
    if "scratch" in names and not has_task:
        raise UserError("--rows: scratch requires --task")
    if is_given and not args.vocab_file:
        raise UserError("--rows: vocabulary_given requires --vocab_file")
    if is_given:
        vocabularies.choose(None, args.vocab_file, None, None)


def _held_out_files(args):
    """Returns the list of the files of `--held_out`.

    Raises:
      UserError: one is missing, or is a file of the corpus.
    """
    held_out = corpus.expand_input_files(args.held_out)
    trained = {os.path.realpath(path): path for path in args.corpus}
    for path in held_out:
        if os.path.realpath(path) in trained:
            raise UserError(
                "--held_out: {} is a file of --corpus, too ({}); give text that "
                "--corpus does not name".format(path, trained[os.path.realpath(path)])
            )
    return held_out


class PlateauEnd(NamedTuple):
    """Where the loss of masked tokens is below `PLATEAU_LOSS` for the first time.

    Attributes:
      sequences: int, of all stages until then.
      step: int, of the stage.
      loss: float.
    """

    sequences: int
    step: int
    loss: float

    def __str__(self):
        return "{0.sequences:,} (step {0.step:,}: {0.loss:.2f})".format(self)


class Run:
    """One row.

    Attributes:
      name: key of `ROWS`, or "scratch".
      sequences: int, what its pretraining reads, in sequences of `LENGTH`.
      scores: dict of held-out text, empty until it is scored.
      tasks: dict of task -> list of the accuracies of each seed, as
        `model_scores.read_accuracies`.
      seconds: float, of its pretraining.
      plateau: `PlateauEnd`; None if its loss is never below `PLATEAU_LOSS`, or nothing
        is pretrained.
    """

    def __init__(self, name, args):
        """Writes nothing; arguments: the name, and the benchmark's flags."""
        self.name = name
        self.scores, self.tasks, self.seconds, self.plateau = {}, {}, 0.0, None
        self._args = args
        self._recipe = Recipe(**ROWS.get(name, {}))
        self._folder = args.work / "rows" / name
        self.sequences = sum(self._sequences(*each) for each in self._stages())

    def check(self):
        """Raises `UserError` for missing files, other ones, or a budget of no step."""
        least = self._least_sequences()
        if self._args.sequences < least:
            raise UserError(
                "--sequences={}: fewer than two steps for a stage of {}; expected at "
                "least {}".format(self._args.sequences, self.name, least)
            )
        jobs = [*self._vocabulary(), *self._pretraining(), *self._scoring()]
        for task, data_dir in self._args.task:
            jobs += self._fine_tuning(task, data_dir)
        rows.check(*jobs)

    def go_on(self):
        """Pretrains, scores and fine-tunes as far as that is not done."""
        for job in self._vocabulary():
            rows.run_once(job)
        self._write_configs()
        stages, before = self._stages(), 0
        for job in self._pretraining():
            seconds = rows.run_once(job)
            if job.command[0] == "run_pretraining.py":
                self.seconds += seconds
                stage, steps = next(stages)
                if self.plateau is None:
                    self.plateau = self._find_plateau_end(job.folder, stage, before)
                before += self._sequences(stage, steps)
        for job in self._scoring():
            rows.run_once(job)
        if self.name != "scratch":
            self.scores = model_scores.read(job.result)
        for task, data_dir in self._args.task:
            self.tasks[task] = []
            for job in self._fine_tuning(task, data_dir):
                rows.run_once(job)
                self.tasks[task].append(model_scores.read_accuracies(job.result))

    def _sequences(self, stage, steps):
        """The sequences of `LENGTH` tokens that so many steps of a stage read."""
        return stage.length * steps * self._recipe.batch_size // LENGTH

    def _find_plateau_end(self, folder, stage, before):
        """Returns `plateau` of a stage that began after so many sequences."""
        guess = self._recipe.sop_weight * math.log(2) if stage.has_sop else 0.0
        log = (folder / rows.LOG_FILE).read_text(encoding="utf-8")
        for step, loss in _LOGGED_LOSS.findall(log):
            if float(loss) - guess < PLATEAU_LOSS:
                sequences = before + self._sequences(stage, int(step))
                return PlateauEnd(sequences, int(step), float(loss) - guess)
        return None

    def _stages(self):
        """The (`Stage`, steps) of each stage of pretraining."""
        for stage in self._recipe.stages if self.name != "scratch" else ():
            yield stage, self._steps(stage, self._args.sequences)

    def _steps(self, stage, sequences):
        """The steps of a stage of a row of so many sequences."""
        own = sequences * stage.share * LENGTH / stage.length
        return int(own / self._recipe.batch_size)

    def _least_sequences(self):
        """The smallest budget with two steps for each stage."""
        least = 1
        for stage, _ in self._stages():
            while self._steps(stage, least) < 2:
                least += 1
        return least

    def _vocabulary(self):
        """The `rows.Job` that builds the vocabulary, if that is not given."""
        if self._recipe.vocab_size:
            flags = {
                "--input_file": ",".join(self._args.corpus),
                "--vocab_size": self._recipe.vocab_size,
                "--output_file": self._vocab_file(),
            }
            command = model_scores.line("build_vocab.py", flags)
            yield rows.Job(command, self._vocab_file().parent, self._vocab_file())

    def _pretraining(self):
        """The `rows.Job`s of the records and of each stage, in order."""
        recipe, checkpoint = self._recipe, None
        for number, (stage, steps) in enumerate(self._stages()):
            length = stage.length
            records = self._records_file(
                "corpus", length, recipe.whole_words, recipe.overlap_prob
            )
            making = {
                "--input_file": ",".join(self._args.corpus),
                "--output_file": records,
                "--vocab_file": self._vocab_file(),
                "--max_seq_length": length,
                "--do_whole_word_mask": recipe.whole_words,
                "--overlap_prob": recipe.overlap_prob,
                "--masking": "dynamic",
                "--dupe_factor": 1,
            }
            command = model_scores.line("create_pretraining_data.py", making)
            yield rows.Job(command, records.parent, records)
            folder = self._folder / "stage_{}".format(number)
            training = {
                "--do_train": True,
                "--input_file": records,
                "--output_dir": folder / "model",
                "--albert_config_file": self._config_file(stage.num_layers),
                "--vocab_file": self._vocab_file(),
                "--init_checkpoint": checkpoint,
                "--initial_weights": None if checkpoint else recipe.initial_weights,
                "--max_seq_length": length,
                "--max_predictions_per_seq": round(recipe.masked_lm_prob * length) + 1,
                "--masked_lm_prob": recipe.masked_lm_prob,
                "--ngram": recipe.ngram,
                "--mask_token_share": recipe.mask_token_share,
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
                "--seed": SEED + number,
            }
            checkpoint = folder / "model" / "model.ckpt-{}".format(steps)
            command = model_scores.line("run_pretraining.py", training)
            yield rows.Job(
                command, folder, checkpoint.with_name(checkpoint.name + ".index")
            )

    def _checkpoint(self):
        """The last stage's checkpoint, None for "scratch"."""
        found = None
        for number, (_, steps) in enumerate(self._stages()):
            found = "stage_{}/model/model.ckpt-{}".format(number, steps)
        return found and self._folder / found

    def _scoring(self):
        """The `rows.Job`s of the held-out records and of their scores."""
        if self.name == "scratch":
            return
        records = self._records_file("held_out", LENGTH, True, 0.0)
        command = model_scores.make_held_out(
            self._args.held_out, self._vocab_file(), records
        )
        yield rows.Job(command, records.parent, records)
        folder = self._folder / "held_out"
        command = model_scores.score_held_out(
            records, folder / "scores", self._config_file(), self._checkpoint()
        )
        yield rows.Job(command, folder, folder / "scores" / model_scores.SCORES_FILE)

    def _fine_tuning(self, task, data_dir):
        """The `rows.Job` of each seed of a task."""
        for seed in range(self._args.seeds):
            folder = self._folder / "{}_{}".format(task, seed)
            flags = {
                "--output_dir": folder / "model",
                "--albert_config_file": self._config_file(),
                "--vocab_file": self._vocab_file(),
                "--init_checkpoint": self._checkpoint(),
                "--seed": seed,
            }
            copies_dir = self._args.work / "tasks" / task
            command = model_scores.fine_tune(
                task, data_dir, self._args.train_rows, copies_dir, flags
            )
            yield rows.Job(command, folder, folder / "model" / model_scores.SCORES_FILE)

    def _config_file(self, num_layers=0):
        """Where the config of so many layers is; 0: as many as the config says."""
        return self._folder / "config_{}.json".format(num_layers or "all")

    def _write_configs(self):
        """Writes the row's configs, which hold the vocabulary's size."""
        name = "albert_config_{}.json".format(self._recipe.config)
        config = json.loads((rows.REPOSITORY / "albert_config" / name).read_text())
        if self._recipe.ln_type:
            config["ln_type"] = self._recipe.ln_type
        config["initializer_range"] = self._recipe.initializer_range
        with open(self._vocab_file(), encoding="utf-8") as lines:
            config["vocab_size"] = sum(1 for _ in lines)
        self._folder.mkdir(parents=True, exist_ok=True)
        for num_layers in {0} | {stage.num_layers for stage, _ in self._stages()}:
            own = {"num_hidden_layers": num_layers} if num_layers else {}
            content = json.dumps({**config, **own}, indent=2)
            self._config_file(num_layers).write_text(content, encoding="utf-8")

    def _vocab_file(self):
        """Where the row's vocabulary is."""
        if not self._recipe.vocab_size:
            return pathlib.Path(self._args.vocab_file)
        folder = "vocab_{}".format(self._recipe.vocab_size)
        return self._args.work / folder / "vocab.txt"

    def _records_file(self, text, length, whole_words, overlap_prob):
        """Where the records of a text, with the row's vocabulary, are."""
        vocabulary = self._recipe.vocab_size or "given"
        masked = "words" if whole_words else "tokens"
        folder = "{}_{}_{}_{}".format(text, vocabulary, length, masked)
        if overlap_prob:
            folder += "_overlap_{:g}".format(overlap_prob)
        return self._args.work / "records" / folder / "records.tfrecord"


def table(runs, tasks):
    """Returns what is known of the rows as a Markdown table."""
    columns = [
        "row",
        "sequences",
        "MLM loss",
        "MLM accuracy",
        "SOP accuracy",
        "below {} after".format(PLATEAU_LOSS),
        "seconds",
    ]
    columns += [
        "{} {}".format(task, split) for task, _ in tasks for split in ("dev", "test")
    ]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for run in runs:
        cells = [run.name, "{:,}".format(run.sequences)]
        for name, form in (
            ("masked_lm_loss", "{:.3f}"),
            ("masked_lm_accuracy", "{:.1%}"),
            ("sentence_order_accuracy", "{:.1%}"),
        ):
            cells.append(form.format(run.scores[name]) if name in run.scores else "")
        never = "never" if run.scores else ""
        cells.append(str(run.plateau) if run.plateau else never)
        cells.append("{:.0f}".format(run.seconds))
        for task, _ in tasks:
            for split in ("dev", "test"):
                found = run.tasks.get(task, ())
                scores = [entry[split] for entry in found if split in entry]
                cells.append(rows.mean_and_deviation(scores))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main, build_parser())
