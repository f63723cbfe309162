"""From tokenized text to records the plain way, for tests.

One instance at a time, with lists and loops, so that each step reads like what it is
meant to do. `instances` and `masking` do the same with arrays; given a random
generator in the same state, the records are equal. So the random numbers are drawn by
the same calls in the same order, though their meaning is spelled out anew.
"""

from typing import List, NamedTuple


class Token(NamedTuple):
    """A token of a text."""

    id: int
    begins_word: bool


class Pair(NamedTuple):
    """Two segments before masking, in the order of the instance."""

    a: List[Token]
    b: List[Token]
    is_swapped: bool
    num_truncated: int


def documents_of(text):
    """Turns a `TokenizedText` into lists of sentences, which are lists of `Token`s."""
    tokens = list(map(Token, text.token_ids.tolist(), text.word_starts.tolist()))
    sentence_bounds = text.sentence_bounds.tolist()
    document_bounds = text.document_bounds.tolist()
    return [
        [
            tokens[begin:end]
            for begin, end in zip(sentence_bounds, sentence_bounds[1:])
            if document_begin <= begin < document_end
        ]
        for document_begin, document_end in zip(document_bounds, document_bounds[1:])
    ]


def make_records(text, settings, vocabulary, rng, batch_instances):
    """Makes the records of a text in their final order.

    Args:
      text: `instances.TokenizedText`.
      settings: `instances.Settings`.
      vocabulary: `instances.Vocabulary`.
      rng: `np.random.RandomState`.
      batch_instances: instances whose masks are drawn by the same calls.

    Returns:
      List of dict of feature name to list of numbers.
    """
    pairs = draw_pairs(documents_of(text), settings, vocabulary, rng)
    pairs = [pairs[place] for place in rng.permutation(len(pairs))]
    records = []
    for begin in range(0, len(pairs), batch_instances):
        batch = pairs[begin : begin + batch_instances]
        if settings.masks is None:
            records += [_unmasked_record(pair, settings, vocabulary) for pair in batch]
        else:
            records += _masked_records(batch, settings, vocabulary, rng)
    return records


def draw_pairs(documents, settings, vocabulary, rng):
    """Returns the list of `Pair`s of all documents, before they are shuffled."""
    max_tokens = settings.max_seq_length - 3
    fitting = [
        [
            part
            for sentence in document
            for part in _divide(sentence, max_tokens, vocabulary)
        ]
        for document in documents
    ]
    chunks = []
    for _ in range(settings.dupe_factor):
        for sentences in fitting:
            chunks += _chunk(sentences, max_tokens, settings.short_seq_prob, rng)
    chunks = [chunk for chunk in chunks if _num_tokens(chunk) > 1]

    halves = []
    for chunk, uniform in zip(chunks, rng.random_sample(len(chunks))):
        tokens = [token for sentence in chunk for token in sentence]
        places = _split_places(chunk, vocabulary)
        place = places[int(uniform * len(places))]
        halves.append((tokens[:place], tokens[place:]))

    lengths = [_truncated_lengths(*half, max_tokens=max_tokens) for half in halves]
    firsts = _truncate(
        [first for first, _ in halves], [length for length, _ in lengths], rng
    )
    seconds = _truncate(
        [second for _, second in halves], [length for _, length in lengths], rng
    )
    swapped = rng.randint(2, size=len(chunks))
    pairs = []
    for chunk, first, second, is_swapped in zip(chunks, firsts, seconds, swapped):
        num_truncated = _num_tokens(chunk) - len(first) - len(second)
        a, b = (second, first) if is_swapped else (first, second)
        pairs.append(Pair(a, b, bool(is_swapped), num_truncated))
    return pairs


def _num_tokens(chunk):
    return sum(len(sentence) for sentence in chunk)


def _places_after(sentence, ends, vocabulary):
    """The places (tokens before them) inside a sentence after a mark that ends.

    A closing mark right after it belongs to it. No place is before another mark, and
    none inside a word.
    """
    places = []
    for place in range(1, len(sentence)):
        last, following = sentence[place - 1], sentence[place]
        closes_an_end = (
            place > 1
            and vocabulary.closes[last.id]
            and bool(ends[sentence[place - 2].id])
        )
        before_mark = ends[following.id] or vocabulary.closes[following.id]
        if (ends[last.id] or closes_an_end) and not before_mark:
            if following.begins_word:
                places.append(place)
    return places


def _places_between_words(sentence):
    return [i for i in range(1, len(sentence)) if sentence[i].begins_word]


def _divide(sentence, max_tokens, vocabulary):
    """Divides a sentence that is longer than an instance."""
    if len(sentence) <= max_tokens:
        return [sentence]
    kinds_of_places = (
        _places_after(sentence, vocabulary.ends_clause, vocabulary),
        _places_between_words(sentence),
        range(1, len(sentence)),
    )
    bounds = [0]
    sentence_ends = _places_after(sentence, vocabulary.ends_sentence, vocabulary)
    for part_end in sentence_ends + [len(sentence)]:
        while part_end - bounds[-1] > max_tokens:
            limit = bounds[-1] + max_tokens
            for places in kinds_of_places:
                fitting = [place for place in places if bounds[-1] < place <= limit]
                if fitting:
                    bounds.append(fitting[-1])
                    break
        bounds.append(part_end)
    return [sentence[begin:end] for begin, end in zip(bounds, bounds[1:])]


def _chunk(sentences, max_tokens, short_seq_prob, rng):
    """Groups the sentences of a document, one group for each instance."""
    chunks = []
    rest = list(sentences)
    while rest:
        target = max_tokens
        if rng.random_sample() < short_seq_prob:
            target = rng.randint(2, max_tokens + 1)
        chunk = [rest.pop(0)]
        while rest and _num_tokens(chunk) < target:
            num_kept = max_tokens - _num_tokens(chunk)
            num_cut = len(rest[0]) - num_kept
            if num_cut > num_kept:
                break
            chunk.append(rest.pop(0))
        chunks.append(chunk)
    return chunks


def _split_places(chunk, vocabulary):
    """The places where the second segment of a chunk may begin."""
    if len(chunk) > 1:
        return [_num_tokens(chunk[:number]) for number in range(1, len(chunk))]
    (sentence,) = chunk
    return (
        _places_after(sentence, vocabulary.ends_clause, vocabulary)
        or _places_between_words(sentence)
        or list(range(1, len(sentence)))
    )


def _truncated_lengths(first, second, max_tokens):
    """The longer segment, the second of two equal ones, loses token by token."""
    lengths = [len(first), len(second)]
    while sum(lengths) > max_tokens:
        lengths[0 if lengths[0] > lengths[1] else 1] -= 1
    return lengths


def _truncate(segments, lengths, rng):
    """Cuts each segment to its length, some of it off the front."""
    num_cut = [len(segment) - length for segment, length in zip(segments, lengths)]
    num_front = rng.binomial(num_cut, 0.5)
    return [
        segment[front : front + length]
        for segment, length, front in zip(segments, lengths, num_front)
    ]


def _word_lengths(pair, seq_length):
    """For each position, the tokens of the word that begins there."""
    lengths = [0] * seq_length
    position = 0
    for segment in (pair.a, pair.b):
        position += 1  # [CLS] or the [SEP] between
        for place, token in enumerate(segment):
            if token.begins_word or place == 0:
                word = position
            lengths[word] += 1
            position += 1
    return lengths


def _input_ids(pair, seq_length, vocabulary):
    ids = [vocabulary.cls_id]
    for segment in (pair.a, pair.b):
        ids += [token.id for token in segment] + [vocabulary.sep_id]
    return ids + [0] * (seq_length - len(ids))


def _record(pair, input_ids, **more):
    """The features that both forms of records have, and `more`."""
    num_first, num_second = len(pair.a) + 2, len(pair.b) + 1
    num_padding = len(input_ids) - num_first - num_second
    return dict(
        input_ids=input_ids,
        input_mask=[1] * (num_first + num_second) + [0] * num_padding,
        segment_ids=[0] * num_first + [1] * num_second + [0] * num_padding,
        next_sentence_labels=[int(pair.is_swapped)],
        **more,
    )


def _unmasked_record(pair, settings, vocabulary):
    seq_length = settings.max_seq_length
    return _record(
        pair,
        _input_ids(pair, seq_length, vocabulary),
        word_lengths=_word_lengths(pair, seq_length),
    )


def _masked_records(pairs, settings, vocabulary, rng):
    """The records of a batch: draws for all of it, then masks one by one."""
    masks, seq_length = settings.masks, settings.max_seq_length
    num_predictions = masks.max_predictions_per_seq
    num_ordinary = len(vocabulary.ordinary_ids)
    budget_draws = rng.random_sample(len(pairs))
    unit_draws = [None] * len(pairs)
    if masks.ngram > 1:
        unit_draws = rng.random_sample([len(pairs), seq_length])
    priorities = rng.randint(2**31, size=[len(pairs), seq_length])
    replacement_draws = rng.random_sample([len(pairs), num_predictions])
    random_draws = rng.randint(num_ordinary, size=[len(pairs), num_predictions])

    records = []
    for row, pair in enumerate(pairs):
        lengths = _word_lengths(pair, seq_length)
        words = [(begin, length) for begin, length in enumerate(lengths) if length]
        second_begin = len(pair.a) + 2
        budget = _budget(words, budget_draws[row], masks)
        units = _units(words, second_begin, unit_draws[row], masks.ngram)
        positions = _choose(units, budget, priorities[row])
        ids = _input_ids(pair, seq_length, vocabulary)
        labels = [ids[position] for position in positions]
        for slot, position in enumerate(positions):
            if replacement_draws[row, slot] < masks.mask_token_share:
                ids[position] = vocabulary.mask_id
            elif replacement_draws[row, slot] >= 0.5 + masks.mask_token_share / 2:
                random_id = vocabulary.ordinary_ids[random_draws[row, slot]]
                ids[position] = int(random_id)
        padding = [0] * (num_predictions - len(positions))
        record = _record(
            pair,
            ids,
            masked_lm_positions=positions + padding,
            masked_lm_ids=labels + padding,
            masked_lm_weights=[1.0] * len(positions) + [0.0] * len(padding),
        )
        records.append(record)
    return records


def _budget(words, uniform, masks):
    """How many tokens may be masked."""
    num_tokens = sum(length for _, length in words)
    budget = int(num_tokens * masks.masked_lm_prob + uniform)
    # Not so few that no word fits.
    budget = max(budget, min(length for _, length in words))
    return min(budget, masks.max_predictions_per_seq)


def _units(words, second_begin, draws, ngram):
    """Groups words into n-grams.

    Returns:
      List of (number of the priority, words of the unit).
    """
    if ngram == 1:
        return [(begin, [(begin, length)]) for begin, length in words]
    weights = [1.0 / n for n in range(1, ngram + 1)]
    units, rest, number = [], list(words), 0
    while rest:
        n, threshold = 1, weights[0] / sum(weights)
        while n < ngram and draws[number] >= threshold:
            n += 1
            threshold += weights[n - 1] / sum(weights)
        number += 1
        gram, rest = rest[:n], rest[n:]
        for in_second in (False, True):
            unit = [word for word in gram if (word[0] >= second_begin) == in_second]
            if unit:
                units.append(unit)
    return list(enumerate(units))


def _choose(units, budget, priority):
    """Walks through the units in random order; returns the positions masked."""
    positions = []
    for _, unit in sorted(units, key=lambda unit: (priority[unit[0]], unit[0])):
        for begin, length in unit:
            if len(positions) + length <= budget:
                positions += range(begin, begin + length)
    return sorted(positions)
