"""The catalogue of `download_model.py`: published models, CLUE's tasks, a vocabulary.

Plain data, from the link lists of brightmart/albert_zh, google-research/albert,
huggingface.co/voidful and CLUEbenchmark/CLUE. Sizes and checksums are given only if a
publisher states them or two independent sources agree; unknown ones are None.
"""

import difflib
import re
from typing import NamedTuple, Optional, Tuple

from albert_zh.base.errors import UserError

MODEL, TASK, VOCABULARY = "model", "task", "vocabulary"


class File(NamedTuple):
    """One published file.

    Attributes:
      path: its address below the source's base URL.
      checksum: "sha256:..." or "md5:...", None if unknown.
    """

    path: str
    checksum: Optional[str] = None

    @property
    def name(self):
        """Name of the file without its folders."""
        return self.path.split("/")[-1]


class Size(NamedTuple):
    """A model's size: its config in `albert_config/`, dialect, encoder parameters."""

    config: str
    dialect: str
    parameters: int


class Entry(NamedTuple):
    """One thing that can be downloaded from one source.

    Attributes:
      name: name on the command line.
      kind: `MODEL`, `TASK` or `VOCABULARY`.
      source: its publisher.
      base_url: URL that a mirror replaces.
      files: an archive, or several files that make one directory.
      megabytes: size that the publisher states; None if unknown.
      size: `Size` of a model, else None.
    """

    name: str
    kind: str
    source: str
    base_url: str
    files: Tuple[File, ...]
    megabytes: Optional[float] = None
    size: Optional[Size] = None

    @property
    def is_archive(self):
        """Whether its only file is an archive to unpack."""
        return self.files[0].path.endswith((".zip", ".tar.gz"))

    @property
    def address(self):
        """The address of the only file, or of the folder of several."""
        path = self.files[0].path
        if len(self.files) > 1:
            path = path.rsplit("/", 1)[0]
        return "{}/{}".format(self.base_url, path)

    @property
    def max_bytes(self):
        """Size limit of each of its files, for downloads.

        Four times the stated size plus 1 MB, because stated sizes are rounded and
        archives may have been replaced. Otherwise for a model 16 bytes per parameter
        plus 16 MB: with the optimizer's state a checkpoint has up to 12.
        """
        if self.megabytes is not None:
            return int(4e6 * self.megabytes + 1e6)
        if self.size is not None:
            return 16 * self.size.parameters + 2**24
        return 2**30

    @property
    def published_names(self):
        """The publisher's names: file name, with and without its endings."""
        if len(self.files) > 1:
            return (self.files[0].path.split("/")[1],)
        file_name = self.files[0].name
        stem = re.sub(r"\.(zip|tar\.gz)$", "", file_name)
        return file_name, stem, re.sub("_public$", "", stem)


TINY = Size("albert_config_tiny.json", "albert_zh", 4175152)
BASE = Size("albert_config_base.json", "albert_zh", 10877440)
LARGE = Size("albert_config_large.json", "albert_zh", 17009664)
XLARGE = Size("albert_config_xlarge.json", "albert_zh", 58577920)
GOOGLE_SIZES = {
    "tiny": Size("albert_config_tiny_google.json", "google", 4080520),
    "small": Size("albert_config_small_google.json", "google", 4742272),
    "base": Size("albert_config_base_google.json", "google", 10547968),
    "large": Size("albert_config_large_google.json", "google", 16548352),
    "xlarge": Size("albert_config_xlarge_google.json", "google", 57589248),
    "xxlarge": Size("albert_config_xxlarge_google.json", "google", 221459968),
}


def _albert_zh(name, archive, size, megabytes=None):
    base_url = "https://storage.googleapis.com/albert_zh"
    files = (File(archive),)
    return Entry(name, MODEL, "albert_zh", base_url, files, megabytes, size)


def _google(size_name):
    base_url = "https://storage.googleapis.com/albert_models"
    files = (File("albert_{}_zh.tar.gz".format(size_name)),)
    name = "albert_{}_zh_google".format(size_name)
    return Entry(name, MODEL, "google", base_url, files, size=GOOGLE_SIZES[size_name])


def _hugging_face(size_name):
    folder = "voidful/albert_chinese_{}/resolve/main/".format(size_name)
    files = ("config.json", "pytorch_model.bin", "vocab.txt")
    return Entry(
        "albert_{}_zh_google".format(size_name),
        MODEL,
        "huggingface",
        "https://huggingface.co",
        tuple(File(folder + name) for name in files),
        size=GOOGLE_SIZES[size_name],
    )


def _clue(name, archive=None, megabytes=None, checksum=None):
    base_url = "https://storage.googleapis.com/cluebenchmark/tasks"
    files = (File(archive or name + "_public.zip", checksum),)
    return Entry(name, TASK, "clue", base_url, files, megabytes)


# BERT's Chinese vocabulary: 21,128 lines, 109,540 bytes.
VOCABULARY_CHECKSUM = "md5:3b5b76c4aef48ecf8cb3abaafe960f09"


def _vocabulary(source, base_url, path):
    files = (File(path, VOCABULARY_CHECKSUM),)
    return Entry("vocab", VOCABULARY, source, base_url, files, 0.11)


# The first of a name is its default source. Megabytes of albert_zh's archives are
# its README's; those of CLUE's tasks and their checksums are what the `datasets`
# library keeps for them, without tnews and c3 (their archives have been replaced
# since). Two of the checksums are confirmed elsewhere; only these are enforced.
ENTRIES = (
    _albert_zh("albert_tiny_zh", "albert_tiny.zip", TINY, 16),
    _albert_zh("albert_tiny_zh_489k", "albert_tiny_489k.zip", TINY, 16),
    _albert_zh("albert_base_zh", "albert_base_zh.zip", BASE, 40),
    _albert_zh(
        "albert_base_zh_additional_36k_steps",
        "albert_base_zh_additional_36k_steps.zip",
        BASE,
        40,
    ),
    _albert_zh("albert_large_zh", "albert_large_zh.zip", LARGE, 64),
    _albert_zh("albert_xlarge_zh_177k", "albert_xlarge_zh_177k.zip", XLARGE, 230),
    _albert_zh("albert_xlarge_zh_183k", "albert_xlarge_zh_183k.zip", XLARGE, 230),
    _albert_zh(
        "albert_tiny_zh_google", "albert_tiny_zh_google.zip", GOOGLE_SIZES["tiny"]
    ),
    _albert_zh(
        "albert_small_zh_google", "albert_small_zh_google.zip", GOOGLE_SIZES["small"]
    ),
    _google("base"),
    _google("large"),
    _google("xlarge"),
    _google("xxlarge"),
    _hugging_face("tiny"),
    _hugging_face("small"),
    _hugging_face("base"),
    _hugging_face("large"),
    _hugging_face("xlarge"),
    _hugging_face("xxlarge"),
    _clue("afqmc", megabytes=1.195044),
    _clue("tnews"),
    _clue("iflytek", megabytes=6.505938),
    _clue("cmnli", megabytes=31.404066),
    _clue("ocnli"),
    _clue("wsc", "cluewsc2020_public.zip", megabytes=0.088526),
    _clue(
        "csl",
        megabytes=3.234594,
        checksum="sha256:"
        "795d1a2e475d59acad8236f6c5baba7a0b43d3e0508cb60f15ffbc76d5f437c4",
    ),
    _clue(
        "cmrc2018",
        megabytes=3.405146,
        checksum="sha256:"
        "6c63dc27e728ec5231aeb7d2861b4c90b6c116390582e0c44416cf3edf030b16",
    ),
    _clue("drcd", megabytes=7.2642),
    _clue("chid", megabytes=133.322133),
    _clue("c3"),
    _clue("cluener"),
    _vocabulary(
        "huggingface",
        "https://huggingface.co",
        "bert-base-chinese/resolve/main/vocab.txt",
    ),
    _vocabulary(
        "keras_nlp",
        "https://storage.googleapis.com/keras-nlp",
        "models/bert_base_zh/vocab.txt",
    ),
    _vocabulary(
        "albert_zh",
        "https://raw.githubusercontent.com/brightmart/albert_zh/master",
        "albert_config/vocab.txt",
    ),
)

SOURCES = tuple(sorted({entry.source for entry in ENTRIES}))


def find(name, source=None):
    """Finds an entry by name.

    Args:
      name: an entry's name, or the publisher's name of the archive or repository.
      source: one of `SOURCES`; None for the first that has the entry.

    Returns:
      `Entry`.

    Raises:
      UserError: the name is unknown, is a path, or the source does not have it.
    """
    if re.search(r"[/\\]", name):
        raise UserError(
            "{!r} is a path; expected a name such as {} (--list shows them)".format(
                name, ENTRIES[0].name
            )
        )
    found = [entry for entry in ENTRIES if entry.name == name]
    found = found or [entry for entry in ENTRIES if name in entry.published_names]
    if not found:
        raise UserError("nothing is called {!r}; {}".format(name, _suggest(name)))
    for entry in found:
        if source in (None, entry.source):
            return entry
    raise UserError(
        "--source={} does not have {}; expected {}".format(
            source, name, " or ".join(entry.source for entry in found)
        )
    )


def others(entry):
    """Returns the entries of the same file, as its checksum says, at other sources."""
    return tuple(
        other
        for other in ENTRIES
        if other != entry
        and other.name == entry.name
        and len(other.files) == 1
        and other.files[0].checksum == entry.files[0].checksum is not None
    )


def _suggest(name):
    names = list(dict.fromkeys(entry.name for entry in ENTRIES))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "did you mean {}? --list shows all names".format(" or ".join(close))
    return "expected one of " + ", ".join(names)


def table():
    """Returns the catalogue as a list of lines, in columns, with a header line."""
    rows = [("name", "size", "parameters", "dialect", "source", "address")]
    for entry in ENTRIES:
        dialect = entry.size.dialect if entry.size else "-"
        rows.append(
            (
                entry.name,
                _megabytes(entry.megabytes),
                "{:,}".format(entry.size.parameters) if entry.size else "-",
                dialect,
                entry.source,
                entry.address,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            text.rjust(width) if index in (1, 2) else text.ljust(width)
            for index, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _megabytes(value):
    if value is None:
        return "unknown"
    return "{:.2f} MB".format(value) if value < 1 else "{:.3g} MB".format(value)
