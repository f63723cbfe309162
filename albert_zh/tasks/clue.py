"""The CLUE benchmark: where its data are, the table of scores, the submission."""

import contextlib
import io
import logging
import os
import shlex
import zipfile
from typing import NamedTuple

from albert_zh.base import checksums, files, json_files
from albert_zh.base.errors import UserError
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.tasks import choices, recipes, rows, training_settings, trials
from albert_zh.tasks.readers import reader_of
from albert_zh.tasks.registry import TASKS
from albert_zh.tasks.splits import TaskData

_LOGGER = logging.getLogger(__name__)

# Bounds what is read at a time.
_EXAMPLES_AT_A_TIME = 10000
SUBMISSION_FILE = "submission.zip"
TABLE_FILE = "results.md"
# What the results of a task are made of; it is written last.
RECORD_FILE = "clue.json"
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_RECORD_SCHEMA = {
    "type": "object",
    "required": ["flags"],
    "properties": {
        "flags": _TEXTS,
        "seeds": {"type": "array", "items": {"type": "integer"}},
        "files": _TEXTS,
    },
}


class Run(NamedTuple):
    """The fine-tuning of one task.

    Attributes:
      task: `registry.Task`.
      data_dir: folder of its data.
      output_dir: where its trials, predictions and submissions go.
    """

    task: object
    data_dir: str
    output_dir: str

    @property
    def data(self):
        """`splits.TaskData` of the folder."""
        reader = reader_of(self.task)
        return TaskData(self.task, self.data_dir, {}, reader, has_flags=False)

    def submissions(self):
        """Returns the dict name of a file for the judge -> path of its test file."""
        return self.data.find_submissions()

    def describe(self, seeds, flags):
        """What the results are made of, but for the model: a dict ready for JSON.

        Args:
          seeds: of the trials.
          flags: dict flag -> its value as text, of those beside the recipe's.
        """
        paths = self.data.paths() + list(self.submissions().values())
        if self.task.kind == "cloze":
            answers = [choices.path_of_answers(path) for path in paths]
            paths += filter(files.exists, answers)
        digests = {os.path.basename(path): checksums.hex_digest(path) for path in paths}
        return {"flags": flags, "seeds": list(seeds), "files": digests}

    def is_complete(self, made):
        """Whether the results are there, and `describe` returned `made` of them."""
        return self._read_record() == made and None not in self.stamps().values()

    def check_completed(self, model_dir):
        """Checks results of an earlier run, which goes by its own seeds and flags.

        Args:
          model_dir: folder of the pretrained model that they are to come from.

        Raises:
          UserError: they are not complete, damaged, or not those of the data and the
            model that are there.
        """
        record = self._read_record()
        seeds, name = record.get("seeds"), self.task.name
        if not seeds or "files" not in record or None in self.stamps().values():
            text = "{0}: {1} is not complete; to finish it, name {0} in --tasks, too"
            raise UserError(text.format(name, self.output_dir))
        self._check_files(record["files"], self.describe(seeds, {})["files"])
        self.check_model(seeds, model_dir)
        try:
            trials.read(self.output_dir)
            if self.submissions():
                check_submission(self.output_dir, [self], _pack([self]))
        except UserError as error:
            text = "{}; remove that file, and name {} in --tasks, too"
            raise UserError(text.format(error, name)) from error
        given = _as_words(record["flags"])
        text = "%s is complete and stays as it is; its seeds: %s, flags after --: %s"
        _LOGGER.info(text, name, ", ".join(map(str, seeds)), given)

    def _check_files(self, then, now):
        """Raises `UserError` where files are no longer those of the results.

        Args:
          then, now: dict name -> SHA-256.
        """
        names = sorted(set(then) | set(now))
        changed = [name for name in names if then.get(name) != now.get(name)]
        tests = [self.data.find("test"), *self.submissions().values()]
        advice = "put back what it was made of, or remove {2} and name {0} in --tasks"
        if set(changed) <= set(map(os.path.basename, filter(None, tests))):
            advice = "name {0} in --tasks, too, to predict anew"
        if changed:
            problem = "{0}: {1} in {3} changed after {2} was made; " + advice
            raise UserError(
                problem.format(
                    self.task.name, ", ".join(changed), self.output_dir, self.data_dir
                )
            )

    @contextlib.contextmanager
    def making(self, made):
        """Begins, and finishes where the block ends.

        Where an error ends it before any result is written, those that are there count
        as before.
        """
        held = self._read_record() if files.exists(self._record_file) else None
        stamps = self.stamps()
        self.begin(made)
        try:
            yield
        except UserError:
            if held and self.stamps() == stamps:
                json_files.write(held, self._record_file)
            raise
        self.finish(made)

    def begin(self, made):
        """Notes the flags of what begins: a run that is killed resumes with them."""
        files.make_directory(self.output_dir)
        json_files.write({"flags": made["flags"]}, self._record_file)

    def finish(self, made):
        """Notes what the results are made of, now that they are there."""
        json_files.write(made, self._record_file)

    def stamps(self):
        """Dict path of a file of results -> `files.Stamp`, None where there is none."""
        names = [trials.TRIALS_FILE] + list(self.submissions())
        paths = [os.path.join(self.output_dir, name) for name in names]
        return {p: files.stamp(p) if files.exists(p) else None for p in paths}

    @property
    def _record_file(self):
        return os.path.join(self.output_dir, RECORD_FILE)

    def _read_record(self):
        if not files.exists(self._record_file):
            return {"flags": {}}  # as of earlier versions, which passed none on
        advice = "choose another --output_dir"
        return json_files.read(self._record_file, _RECORD_SCHEMA, advice)

    def held_flags(self):
        """The flags that a training has begun with, a dict; None if none has begun."""
        begun = any(
            map(training_settings.has_saved, trials.directories(self.output_dir))
        )
        return self._read_record()["flags"] if begun else None

    def check_flags(self, flags):
        """Raises `UserError` where a training began with other flags than these."""
        held = self.held_flags()
        if held not in (None, flags):
            names = sorted(set(held).union(flags))
            flag = next(name for name in names if held.get(name) != flags.get(name))
            raise UserError(
                "{0}: {1} began with another {2}: {3}, received {4}; repeat that after "
                "--, remove {1} to train {0} anew, or choose another "
                "--output_dir".format(
                    self.task.name,
                    self.output_dir,
                    flag,
                    held.get(flag, "none"),
                    flags.get(flag, "none"),
                )
            )

    def check_model(self, seeds, model_dir):
        """Raises `UserError` where a seed's training began with another model."""
        directory = model_directory.resolve(model_dir)
        checkpoint = model_directory.find_checkpoint(directory)
        for seed in seeds:
            held = trials.directory_of(self.output_dir, seed)
            if checkpoint and not training_settings.began_with(held, checkpoint):
                raise UserError(
                    "--model_dir={}: {} began with another model; give that one, or "
                    "choose another --output_dir".format(model_dir, held)
                )


def tasks():
    """Returns the list of the tasks of CLUE: those that a judge takes."""
    found = {task.name: task for task in TASKS.values() if task.submissions}
    return list(found.values())


def other_tasks():
    """Returns the list of the tasks with a recipe that no judge takes."""
    found = {task.name: task for task in TASKS.values() if task.recipes}
    return [task for task in found.values() if not task.submissions]


def known_tasks():
    """Returns the list of the tasks with a recipe, those of CLUE first."""
    return tasks() + other_tasks()


def choose_tasks(names):
    """Returns the list of the tasks of these names, all of CLUE for None.

    Raises:
      UserError: a name is none of them, and none of the other tasks with a recipe.
    """
    if names is None:
        return tasks()
    known = {task.name: task for task in known_tasks()}
    for name in names:
        if name not in known:
            raise UserError(
                "--tasks: {!r} is no task with a recipe; expected some of {}".format(
                    name, ", ".join(known)
                )
            )
    return [known[name] for name in dict.fromkeys(names)]


def folders_of(task, data_dir):
    """Returns the list of the folders that the data of a task may be in."""
    names = dict.fromkeys(filter(None, (task.name, task.archive)))
    return [os.path.join(data_dir, name) for name in names]


def plan(chosen, data_dir, output_dir):
    """Finds the data of tasks.

    Args:
      chosen: list of tasks.
      data_dir: folder with a folder for each task, of its name or its archive's.
      output_dir: folder in which each task gets one.

    Returns:
      List of `Run`, and the list of a line for each task whose data are missing.
    """
    found, missing = [], []
    for task in chosen:
        folders = folders_of(task, data_dir)
        lacks = "none of the folders {}".format(", ".join(folders))
        for folder in filter(files.is_directory, folders):
            run = Run(task, folder, os.path.join(output_dir, task.name))
            absent = [s for s in ("train", "dev", "test") if not run.data.find(s)]
            lacks = "{} in {}".format(
                "; ".join("no " + ", ".join(task.names_of(s)) for s in absent), folder
            )
            if not absent:
                found.append(run)
                break
        else:
            how = "put its files train, dev and test there"
            if task.archive:
                how += ", or run `python3 download_model.py {} --output_dir={}`".format(
                    task.archive, shlex.quote(folders[0])
                )
            missing.append("{}: {}; {}".format(task.name, lacks, how))
    return found, missing


def find_completed(chosen, data_dir, output_dir, model_dir):
    """Finds the results that earlier runs left for tasks that do not run now.

    Table and submission are written anew and would lose them. Results that cannot be
    used are logged.

    Args:
      chosen: list of the tasks that do.
      data_dir, output_dir: as in `plan`.
      model_dir: folder of the pretrained model.

    Returns:
      List of complete `Run`s.
    """
    found = []
    for task in known_tasks():
        folder = os.path.join(output_dir, task.name)
        left = [os.path.join(folder, n) for n in (RECORD_FILE, trials.TRIALS_FILE)]
        if task in chosen or not any(map(files.exists, left)):
            continue
        try:
            runs, problems = plan([task], data_dir, output_dir)
            for run in runs:
                run.check_completed(model_dir)
            found += runs
        except UserError as error:
            problems = [str(error)]
        for problem in problems:
            _LOGGER.warning("not in the table, nor in a submission: %s", problem)
    return found


def settle_flags(runs, seeds, flags):
    """Decides which flags each task runs with, and checks them against what has begun.

    A complete task keeps its own: flags that another one needs lose no results. Where
    all tasks began with other flags than these, they are refused.

    Args:
      runs: list of `Run`.
      seeds: of the trials.
      flags: dict name of a task -> dict flag -> its value as text.

    Returns:
      Such a dict.

    Raises:
      UserError: a task began with other flags, and is not complete.
    """
    others = {}
    for run in runs:
        held = run.held_flags()
        if held not in (None, flags[run.task.name]):
            is_complete = run.is_complete(run.describe(seeds, held))
            if not is_complete:
                run.check_flags(flags[run.task.name])
            others[run.task.name] = held
    if len(others) == len(runs):
        for run in runs:
            run.check_flags(flags[run.task.name])
    for name, held in others.items():
        text = "%s is complete and stays as it is; its flags after -- were: %s"
        _LOGGER.warning(text, name, _as_words(held))
    return dict(flags, **others)


def _as_words(flags):
    """A dict flag -> value as it is given in a shell."""
    words = ("{}={}".format(*item) for item in sorted(flags.items()))
    return " ".join(map(shlex.quote, words)) or "none"


def size_of(model_dir):
    """Returns the size, a key of `recipes.SIZES`, of a model in a directory.

    Raises:
      UserError: it has no config, or one that cannot be used.
    """
    config_file = model_directory.find_config(model_directory.resolve(model_dir))
    if config_file is None:
        raise UserError("--model_dir={} has no config".format(model_dir))
    return recipes.find_size(model_settings.read_config(config_file))[0]


def format_table(runs, size):
    """The scores of finished tasks beside the published ones, as a Markdown table.

    Args:
      runs: list of complete `Run`s.
      size: of the model.

    Returns:
      Lines of text.
    """
    lines = [
        "| task | metric | dev | test | published dev, {0} | published test, {0} | "
        "source |".format(size),
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        summary = trials.read(run.output_dir)
        published = run.task.published.get(size) or recipes.Published(None, None, "")
        metric = summary["metric"]
        if metric != run.task.metric:  # another one than what was published
            published = recipes.Published(None, None, "")
        # A loss is no share.
        factor = 1 if metric == "loss" else 100
        cells = [run.task.name, metric]
        cells += [
            _mean(summary["splits"].get(split), factor) for split in ("dev", "test")
        ]
        cells += [_percent(published.dev), _percent(published.test), published.source]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean(values, factor):
    """Mean and standard deviation of a split, times a factor, as a cell."""
    if values is None:
        return "-"
    deviation = values["standard_deviation"]
    text = "{:.2f}".format(factor * values["mean"])
    if deviation is None:
        return text
    return text + " ± {:.2f}".format(factor * deviation)


def _percent(value):
    return "-" if value is None else "{:.2f}".format(value)


def write_submission(runs, output_dir):
    """Packs what the judge reads into one ZIP file, without folders, and checks it.

    Args:
      runs: list of complete `Run`s.
      output_dir: where the file goes.

    Returns:
      Its path; None where no judge takes any of the tasks.

    Raises:
      UserError: a file of it does not fit its test file.
    """
    for run in runs:
        if run.task.submissions and not run.submissions():
            _LOGGER.warning(
                "%s is not in the submission: %s has no %s, which CLUE's judge knows",
                run.task.name,
                run.data_dir,
                " or ".join(each.test_file for each in run.task.submissions),
            )
    if not any(run.submissions() for run in runs):
        return None
    path, packed = os.path.join(output_dir, SUBMISSION_FILE), _pack(runs)
    check_submission(path, runs, packed)
    files.write_bytes(packed.getvalue(), path)
    return path


def _pack(runs):
    """Returns an open file of the ZIP of the submissions of complete runs."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for run in runs:
            for name in run.submissions():
                # A fixed date: the same predictions make the same bytes.
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                content = files.read_bytes(os.path.join(run.output_dir, name))
                archive.writestr(entry, content)
    return packed


def check_submission(path, runs, packed=None):
    """Checks a submission against the test files.

    Args:
      path: of the ZIP file.
      runs: list of `Run`, the tasks it is to hold.
      packed: open file of its bytes, before it is at `path`; None to read it there.

    Raises:
      UserError: names the file, and the line, of the first fault: a file is missing or
        too many, or in a folder; it has more or fewer lines than the test file, or in
        another order; a line is not JSON, or its label none of the task's.
    """
    expected = {
        name: (run, test_file)
        for run in runs
        for name, test_file in run.submissions().items()
    }
    with zipfile.ZipFile(packed or path) as archive:
        names = archive.namelist()
        if sorted(names) != sorted(expected):
            raise UserError(
                "{}: it holds {}, expected {}".format(
                    path, ", ".join(sorted(names)), ", ".join(sorted(expected))
                )
            )
        for name, (run, test_file) in expected.items():
            content = archive.read(name)
            check = _CHECKS[run.task.kind]
            check("{}:{}".format(path, name), content, run, test_file)


def _check_labels(name, content, run, test_file):
    """A line for each row of the test file, with its id and one of the labels."""
    lines = _lines(content)
    num_rows = run.data.reader.read_texts(test_file, run.task.labels).num_examples
    if len(lines) != num_rows:
        raise UserError(
            "{}: {} lines, but {} has {} rows".format(
                name, len(lines), test_file, num_rows
            )
        )
    ids = rows.read_ids(test_file)
    for number, (line, row_id) in enumerate(zip(lines, ids), start=1):
        row = _parse(name, number, line)
        if not isinstance(row, dict) or row.get("label") not in run.task.labels:
            raise UserError(
                "{}:{}: {!r} has no label of {}".format(
                    name, number, line, run.task.name
                )
            )
        if row.get("id") != row_id:
            raise UserError(
                "{}:{}: id is {!r}, but {} has {!r}".format(
                    name, number, row.get("id"), test_file, row_id
                )
            )


def _examples(run, test_file):
    """Yields the examples of a test file."""
    data = run.data.reader.read_texts(test_file, run.task.labels)
    for some in data.chunks(_EXAMPLES_AT_A_TIME):
        yield from some


def _check_entities(name, content, run, test_file):
    """A line for each text, with its id and spans of the text under its types."""
    texts = list(_examples(run, test_file))
    records = _lines_with_ids(name, content, [text.id for text in texts], test_file)
    for number, (text, record) in enumerate(zip(texts, records), start=1):
        try:
            entities = [
                (kind, entity, text.text[start : end + 1])
                for kind, found in record["label"].items()
                for entity, spans in found.items()
                for start, end in spans
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = (
                "{}:{}: label is {!r}; expected {{type: {{entity: [[start, end]]}}}}"
            )
            raise UserError(
                problem.format(name, number, record.get("label"))
            ) from error
        for kind, entity, held in entities:
            if kind not in run.task.labels or held != entity:
                problem = "{}:{}: {!r} of type {!r} does not stand there"
                raise UserError(problem.format(name, number, entity, kind))


def _check_choices(name, content, run, test_file):
    """A line for each question, with its id and the index of a choice."""
    questions = list(_examples(run, test_file))
    wanted = [question.identifier for question in questions]
    records = _lines_with_ids(name, content, wanted, test_file)
    for number, (question, record) in enumerate(zip(questions, records), start=1):
        _check_index("{}:{}".format(name, number), record.get("label"), question)


def _check_blanks(name, content, run, test_file):
    """One object with the index of a candidate for each blank."""
    lines = {
        blank.tag: line for line in _examples(run, test_file) for blank in line.blanks
    }
    found = _object_with_keys(name, content, lines, test_file)
    for tag, index in found.items():
        _check_index("{}: {}".format(name, tag), index, lines[tag])


def _check_answers(name, content, run, test_file):
    """One object with a text for each question, which its context has."""
    questions = {question.id: question for question in _examples(run, test_file)}
    found = _object_with_keys(name, content, questions, test_file)
    for identifier, text in found.items():
        if not isinstance(text, str) or text not in questions[identifier].context:
            problem = "{}: {}: {!r} is no piece of the text"
            raise UserError(problem.format(name, identifier, text))


def _check_index(place, index, example):
    if type(index) is not int or not 0 <= index < len(example.choices):
        problem = "{}: {!r} is no index of {} choices"
        raise UserError(problem.format(place, index, len(example.choices)))


def _lines_with_ids(name, content, wanted, test_file):
    """The objects of a file of JSON lines that has these ids, in this order."""
    lines = _lines(content)
    records = [_parse(name, number, line) for number, line in enumerate(lines, 1)]
    are_objects = all(isinstance(record, dict) for record in records)
    if not are_objects or [record.get("id") for record in records] != wanted:
        problem = "{}: its ids are not those of {}, in that order"
        raise UserError(problem.format(name, test_file))
    return records


def _lines(content):
    """The lines of a file; JSON may hold other ends of lines, such as U+2028."""
    lines = content.decode("utf-8").split("\n")
    return lines if lines[-1] else lines[:-1]


def _object_with_keys(name, content, wanted, test_file):
    """The object of a JSON file that has exactly these keys."""
    found = _parse(name, 1, content.decode("utf-8"))
    if not isinstance(found, dict):
        raise UserError("{}: expected one JSON object".format(name))
    differing = set(found) ^ set(wanted)
    if differing:
        problem = "{}: it and {} do not have the same questions, for instance {}"
        raise UserError(problem.format(name, test_file, min(differing)))
    return found


# Kind of task -> function (name, content, run, path of the test file).
_CHECKS = {
    "classification": _check_labels,
    "tagging": _check_entities,
    "span_extraction": _check_answers,
    "multiple_choice": _check_choices,
    "cloze": _check_blanks,
}


def _parse(name, number, line):
    try:
        return json_files.loads(line)
    except ValueError as error:
        raise UserError("{}:{}: not JSON ({})".format(name, number, error)) from error
