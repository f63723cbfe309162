"""Texts made of several fields of a JSON line, as published data sets have them."""


def marked_spans(record):
    """CLUEWSC2020: the text, with the noun as _noun_ and the pronoun as [pronoun].

    `{"text": "小明说他累了", "target": {"span1_text": "小明", "span1_index": 0,
    "span2_text": "他", "span2_index": 3}}` becomes `_小明_说[他]累了`.

    Args:
      record: dict of a line.

    Returns:
      Dict column -> text.

    Raises:
      ValueError: a field is missing or of another type, an offset points elsewhere, or
        noun and pronoun overlap.
    """
    text, target = _field(record, "text", str), _field(record, "target", dict)
    marks = []
    for name, opening, closing in (("span1", "_", "_"), ("span2", "[", "]")):
        span = _field(target, name + "_text", str)
        start = _field(target, name + "_index", int)
        end = start + len(span)
        if start < 0 or not span or text[start:end] != span:
            raise ValueError(
                "{0}_text is {1!r}, but the text has {2!r} at {0}_index {3}".format(
                    name, span, text[max(start, 0) : end], start
                )
            )
        marks += [(start, 1, opening), (end, 0, closing)]
    (first, _, _), (first_end, _, _), (second, _, _), (second_end, _, _) = marks
    if first < second_end and second < first_end:
        raise ValueError("span1 and span2 overlap in the text")
    # From the end on, so that offsets hold; where spans touch, one closes first.
    for place, _, mark in sorted(marks, reverse=True):
        text = text[:place] + mark + text[place:]
    return {"text_a": text}


def keywords(record):
    """CSL: the keywords, joined by ";", and the abstract.

    Args, Returns, Raises: as `marked_spans`.
    """
    words = _field(record, "keyword", list)
    if not words or not all(isinstance(w, str) and w.strip() for w in words):
        problem = "keyword is {:.100}; expected a list of texts"
        raise ValueError(problem.format(repr(words)))
    return {"text_a": ";".join(words), "text_b": _field(record, "abst", str)}


ROW_FORMS = {"marked_spans": marked_spans, "keywords": keywords}

_TYPES = {str: "text", int: "an integer", list: "a list", dict: "an object"}


def _field(record, name, kind):
    """The value of a field of this type; `ValueError` where it is not there."""
    if name not in record:
        raise ValueError("no {} among the keys {}".format(name, ", ".join(record)))
    value = record[name]
    # True is an integer for Python.
    if not isinstance(value, kind) or isinstance(value, bool):
        problem = "{} is {:.100}; expected {}"
        raise ValueError(problem.format(name, repr(value), _TYPES[kind]))
    return value
