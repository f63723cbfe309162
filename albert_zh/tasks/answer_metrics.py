"""CMRC 2018's official scores of answers cut from a text: exact match and F1.

Follows `cmrc2018_evaluate.py` of github.com/ymcui/cmrc2018 (v5). Answers are compared
in lower case, without outer white space and without the marks of `PUNCTUATION`. F1
counts the segments of the longest run that both texts have, not a bag of words. Of
several right answers the best one counts.
"""

import difflib
import re

# The script's list. Its entry "……" never equals a single character, so that "…" stays,
# as do "‘" and the half-width marks , . " ( ) ? ! ;
PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")

# What the script takes for Chinese: not the later ideographs of Unicode.
_CHINESE = re.compile("([\u4e00-\u9fa5])")

# How the script's nltk.word_tokenize separates the words of other text: patterns around
# which, or in front of or behind which, white space is put, one after another.
_SEPARATED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # The full stop at the end
        (r"""(?<=[^.])\.(?=[])}>"'»\s]*\Z)""", r" \g<0> "),
        (r"""[][(){}<>;@#$%&?!"«»„‘\u2012-\u2015]|\.{2,}|,(?!\d)|''""", r" \g<0> "),
        # An apostrophe that opens a quotation, and one that ends a word
        (r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", r"\g<0> "),
        (r"(?<=[^'\s])(?:n't|'(?:ll|re|ve|[smd])?)(?=\s|\Z)", r" \g<0>"),
    )
)


def segments(text):
    """Splits a text into what F1 counts.

    Args:
      text: str.

    Returns:
      List of str in lower case: single Chinese characters, and the words of what
      stands between them. "在《Abc》里，1.5米" is 在 abc 里 1.5 米.
    """
    found = []
    for part in _CHINESE.split(_without_punctuation(text)):
        found += [part] if _CHINESE.match(part) else _words(part)
    return found


def _words(text):
    """Splits a text that is not Chinese into words and marks.

    Differs from nltk in what texts between Chinese characters rarely have: nltk also
    separates the full stop of a sentence in the middle, which a trained model finds,
    and "cannot", "gonna" and such into two words.
    """
    for pattern, replacement in _SEPARATED:
        text = pattern.sub(replacement, text)
    return text.split()


def _without_punctuation(text):
    return "".join(c for c in text.lower().strip() if c not in PUNCTUATION)


def exact_match(answers, prediction):
    """Returns 1.0 where a prediction is one of the answers, else 0.0.

    Args:
      answers: right answers, str; none where "" is right.
      prediction: str.
    """
    prediction = _without_punctuation(prediction)
    return float(any(_without_punctuation(a) == prediction for a in answers or [""]))


def can_match(answers, context):
    """Returns whether a piece of a text is an exact match of an answer.

    Args:
      answers: as those of `exact_match`.
      context: the text, str.
    """
    context = _without_punctuation(context)
    return not answers or any(_without_punctuation(a) in context for a in answers)


def f1(answers, prediction):
    """Returns the best F1 of a prediction over the answers, 0 to 1.

    Args:
      answers, prediction: as those of `exact_match`.
    """
    if not answers:
        return exact_match(answers, prediction)
    predicted = segments(prediction)
    return max(_f1(segments(answer), predicted) for answer in answers)


def _f1(expected, predicted):
    matcher = difflib.SequenceMatcher(None, expected, predicted, autojunk=False)
    size = matcher.find_longest_match(0, len(expected), 0, len(predicted)).size
    # 2PR / (P + R) with precision size / len(predicted), recall size / len(expected).
    return 2 * size / (len(expected) + len(predicted)) if size else 0.0


def score(questions, predictions):
    """Means of the scores over questions.

    Args:
      questions: list of the lists of right answers of each; an empty one stands for a
        question that has none.
      predictions: list of str, "" for no answer.

    Returns:
      Dict `num_examples`, `exact_match`, `f1`. Where some of the questions have no
      answer, also `answerable` and `unanswerable`: dicts of the same scores of each.
    """
    rows = [
        (exact_match(answers, prediction), f1(answers, prediction))
        for answers, prediction in zip(questions, predictions)
    ]
    scores = _means(rows)
    groups = {True: [], False: []}
    for answers, row in zip(questions, rows):
        groups[bool(answers)].append(row)
    if groups[True] and groups[False]:
        scores["answerable"] = _means(groups[True])
        scores["unanswerable"] = _means(groups[False])
    return scores


def _means(rows):
    names = "exact_match", "f1"
    means = {name: sum(column) / len(rows) for name, column in zip(names, zip(*rows))}
    return dict(means, num_examples=len(rows))
