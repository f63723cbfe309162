"""Model inputs of questions with choices and of blanks: a sequence for each choice."""

import numpy as np

from albert_zh.tasks import choices, features

# Stands for the blank to fill, as in CLUE's baseline; other blanks are four [MASK], the
# length of most idioms. A vocabulary without it has [MASK] there.
_BLANK = "[unused1]"
_MASK = "[MASK]"
_OTHER_BLANK = (_MASK,) * 4

# [CLS] context [SEP] question [SEP] choice [SEP]
_QUESTION_SPECIALS = 4
# [CLS] choice [SEP] text [SEP]
_BLANK_SPECIALS = 3


def question_features(tokenizer, question, max_seq_length):
    """The inputs of a question: [CLS] context [SEP] question [SEP] choice [SEP].

    What follows the context is segment 1, as in CLUE's baseline. The context is cut at
    its end to what the question and its longest choice leave, so that all choices are
    judged by the same text. Where a question and a choice alone are too long, the
    context is empty and the longer of the two is cut at its end.

    Args:
      tokenizer: a `tokenization.FullTokenizer`.
      question: `choices.Question`.
      max_seq_length: most tokens of a sequence.

    Returns:
      `features.Features` of a sequence for each choice.
    """
    room = max_seq_length - _QUESTION_SPECIALS
    context = tokenizer.tokenize(question.context)
    asked = tokenizer.tokenize(question.question)
    answers = [tokenizer.tokenize(choice) for choice in question.choices]
    left = max(room - len(asked) - max(map(len, answers)), 0)
    is_truncated, sequences = len(context) > left, []
    for answer in answers:
        # In this order a choice keeps at least one token.
        kept, kept_asked = features.truncate_pair(answer, asked, room)
        is_truncated |= len(kept) + len(kept_asked) < len(answer) + len(asked)
        sequences.append((context[:left], kept_asked + ["[SEP]"] + kept))
    return _build(tokenizer, sequences, question.answer, is_truncated)


def blank_features(tokenizer, candidates, blank, max_seq_length):
    """The inputs of a blank: [CLS] candidate [SEP] text around the blank [SEP].

    As in CLUE's baseline the text is a window with half of the tokens before the blank
    and half after it, or more on one side where the other has fewer. It is the same for
    all candidates: what the longest of them leaves. The text is segment 1.

    Args:
      tokenizer: a `tokenization.FullTokenizer`.
      candidates: tuple of texts.
      blank: `choices.Blank`.
      max_seq_length: most tokens of a sequence.

    Returns:
      `features.Features` of a sequence for each candidate.
    """
    room = most_candidate_tokens(max_seq_length)
    answers = [tokenizer.tokenize(candidate) for candidate in candidates]
    is_truncated = max(map(len, answers)) > room
    answers = [answer[:room] for answer in answers]
    before = _tokenize_around(tokenizer, blank.before)
    after = _tokenize_around(tokenizer, blank.after)
    room -= max(map(len, answers))
    num_before, num_after = window(len(before), len(after), room)
    is_truncated |= num_before < len(before) or num_after < len(after)
    text = before[len(before) - num_before :]
    text.append(_BLANK if _BLANK in tokenizer.vocab else _MASK)
    text += after[:num_after]
    sequences = [(answer, text) for answer in answers]
    return _build(tokenizer, sequences, blank.answer, is_truncated)


def most_candidate_tokens(max_seq_length):
    """The most tokens of a candidate for a blank that `blank_features` does not cut."""
    return max_seq_length - _BLANK_SPECIALS - 1  # 1: the blank itself


def window(num_before, num_after, room):
    """Divides the room of a window between the tokens before and after a place.

    Args:
      num_before, num_after: numbers of the tokens that there are.
      room: most tokens to take.

    Returns:
      How many to take before and after the place: `room // 2` before it and the rest
      after it; what one side does not fill is the other's.
    """
    taken_before = min(num_before, max(room // 2, room - num_after))
    return taken_before, min(num_after, room - taken_before)


def _tokenize_around(tokenizer, text):
    """Tokens of a text on one side of a blank."""
    tokens = []
    for number, piece in enumerate(choices.TAG.split(text)):
        if number:
            tokens += _OTHER_BLANK
        tokens += tokenizer.tokenize(piece)
    return tokens


def _build(tokenizer, sequences, answer, is_truncated):
    """`Features` of sequences, given as lists of the tokens of both segments."""
    ids, segments, lengths = [], [], []
    for first, second in sequences:
        tokens = ["[CLS]"] + first + ["[SEP]"] + second + ["[SEP]"]
        ids += tokenizer.convert_tokens_to_ids(tokens)
        segments += [0] * (len(first) + 2) + [1] * (len(second) + 1)
        lengths.append(len(tokens))
    targets = {"label_ids": answer or 0, features.SEQUENCE_LENGTHS: lengths}
    # Arrays: ChID's hundreds of millions of tokens would not fit into memory as lists.
    return features.Features(
        np.array(ids, np.int32), np.array(segments, np.uint8), targets, is_truncated
    )
