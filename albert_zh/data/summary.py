"""Statistics of data generation: counts, shares, distributions, warnings."""

import collections

import numpy as np

from albert_zh.data.instances import NUM_SPECIAL_TOKENS
from albert_zh.data.masking import KEPT, MASKED, RANDOM

ONE_DOCUMENT = (
    "each file is read as one document; put a blank line between documents, in files "
    "of one document per line by `sed G OLD > NEW`"
)

_UNK_BINS = 100  # of the share of [UNK] in a document, in percent


class Statistics:
    """Counts the text and the records of a shard.

    Args:
      settings: `instances.Settings`.
    """

    def __init__(self, settings):
        self._settings = settings
        self._counts = collections.Counter()
        lengths = {"sequence_lengths": settings.max_seq_length}
        lengths["unk_percent_of_documents"] = _UNK_BINS
        if settings.masks is not None:
            lengths["masks_per_instance"] = settings.masks.max_predictions_per_seq
            lengths["ngram_lengths"] = settings.masks.ngram
            lengths["replacements"] = RANDOM
        self._histograms = {
            name: np.zeros(largest + 1, np.int64) for name, largest in lengths.items()
        }

    def add_document(self, document):
        """Counts a `corpus.Document`."""
        self._counts.update(
            documents=1,
            sentences=len(document.sentences),
            replaced_undecodable_bytes=document.num_replaced_bytes,
            cut_documents=int(document.is_cut),
            documents_ended_by_blank_lines=int(document.ends_blank),
            sentences_without_tokens=document.num_invisible_lines,
        )

    def add_replaced_bytes(self, number):
        """Counts bytes that were replaced before the documents were read."""
        self._counts["replaced_undecodable_bytes"] += number

    def add_cut_document(self):
        """Counts a document divided because it is larger than a shard."""
        self._counts["cut_documents"] += 1

    def add_text(self, text, num_empty_sentences, unk_id):
        """Counts an `instances.TokenizedText`, once for all duplicates."""
        is_unk = text.token_ids == unk_id
        self._counts.update(
            sentences_without_tokens=num_empty_sentences,
            tokens=len(text.token_ids),
            unk_tokens=int(np.count_nonzero(is_unk)),
        )
        bounds = text.document_bounds
        if len(bounds) > 1:
            num_unk = np.add.reduceat(is_unk.astype(np.int64), bounds[:-1])
            self._add("unk_percent_of_documents", num_unk * 100 // np.diff(bounds))

    def add_pairs(self, pairs):
        """Counts `instances.Pairs`."""
        lengths = pairs.length_a + pairs.length_b
        self._counts.update(
            instances=len(lengths),
            instance_tokens=int(lengths.sum()),
            truncated_tokens=int(pairs.num_truncated.sum()),
            swapped=int(np.count_nonzero(pairs.swapped)),
            repeated_tokens=int(pairs.num_repeated.sum()),
        )
        self._add("sequence_lengths", lengths + NUM_SPECIAL_TOKENS)

    def add_masks(self, masks):
        """Counts `masking.Masks`."""
        self._counts["capped"] += int(np.count_nonzero(masks.capped))
        self._add("masks_per_instance", masks.num_masked)
        self._add("ngram_lengths", masks.ngram_lengths)
        self._add("replacements", masks.replacements)

    def _add(self, name, values):
        self._histograms[name] += np.bincount(
            values, minlength=len(self._histograms[name])
        )

    def to_dict(self):
        """Returns all counts, a dict for `json` and `merge`."""
        histograms = {name: h.tolist() for name, h in self._histograms.items()}
        return {"counts": dict(self._counts), "histograms": histograms}

    def merge(self, counted):
        """Adds the counts of another shard, a dict of `to_dict`."""
        self._counts.update(counted["counts"])
        for name, histogram in counted["histograms"].items():
            self._histograms[name] += np.array(histogram)

    @property
    def num_instances(self):
        """Instances counted so far."""
        return self._counts["instances"]

    @property
    def num_sentences(self):
        """Sentences counted so far."""
        return self._counts["sentences"]

    def summary(self):
        """Returns a dict that `json` can write; shares of nothing are None."""
        counts, settings = self._counts, self._settings
        used = counts["tokens"] * settings.dupe_factor
        summary = {
            "documents": counts["documents"],
            "sentences": counts["sentences"],
            "sentences_without_tokens": counts["sentences_without_tokens"],
            "tokens": counts["tokens"],
            "unk_share": _share(counts["unk_tokens"], counts["tokens"]),
            "replaced_undecodable_bytes": counts["replaced_undecodable_bytes"],
            "instances": counts["instances"],
            "tokens_per_instance": _share(
                counts["instance_tokens"], counts["instances"]
            ),
            "repeated_tokens": counts["repeated_tokens"],
            "truncated_tokens": counts["truncated_tokens"],
            "truncated_share": _share(counts["truncated_tokens"], used),
            "dropped_tokens": self._dropped_tokens(),
            "swapped_share": _share(counts["swapped"], counts["instances"]),
        }
        if settings.masks is not None:
            summary.update(self._mask_summary())
        summary["distributions"] = {
            name: {str(i): int(histogram[i]) for i in np.flatnonzero(histogram)}
            for name, histogram in self._histograms.items()
            if name != "replacements"
        }
        summary["warnings"] = self.warnings()
        return summary

    def _mask_summary(self):
        counts = self._counts
        replacements = self._histograms["replacements"]
        num_masked = int(replacements.sum())
        return {
            "masked_tokens": num_masked,
            "masked_share": _share(num_masked, counts["instance_tokens"]),
            "target_masked_share": self._settings.masks.masked_lm_prob,
            "instances_at_max_predictions": counts["capped"],
            "instances_without_masks": self._unmasked(),
            "replaced_by_mask_share": _share(replacements[MASKED], num_masked),
            "kept_share": _share(replacements[KEPT], num_masked),
            "replaced_by_random_share": _share(replacements[RANDOM], num_masked),
        }

    def warnings(self):
        """Returns a list of str: settings and counts that need attention.

        Before the first document it has the warnings about the settings.
        """
        counts, settings = self._counts, self._settings
        found = limit_warnings(settings.masks, settings.max_text_tokens)
        for count, meaning in (
            (
                counts["sentences_without_tokens"],
                "lines have only characters without a token, such as zero-width "
                "spaces: taken as blank lines, which end documents",
            ),
            (counts["replaced_undecodable_bytes"], "undecodable bytes were replaced"),
            (self._unmasked(), "instances have no word short enough to be masked"),
            (self._dropped_tokens(), "tokens stood alone in a chunk: left out"),
            (
                counts["cut_documents"],
                "documents were divided because of their length: put blank lines "
                "between documents",
            ),
        ):
            if count:
                found.append("{} {}".format(count, meaning))
        if counts["documents"] and not counts["documents_ended_by_blank_lines"]:
            found.append("no blank line between documents: " + ONE_DOCUMENT)
        return found

    def _unmasked(self):
        histogram = self._histograms.get("masks_per_instance")
        return 0 if histogram is None else int(histogram[0])

    def _dropped_tokens(self):
        """Returns the number of tokens neither in an instance nor truncated."""
        counts = self._counts
        used = counts["tokens"] * self._settings.dupe_factor
        kept = counts["instance_tokens"] - counts["repeated_tokens"]
        return used - kept - counts["truncated_tokens"]


def limit_warnings(masks, max_text_tokens):
    """Warns if max_predictions_per_seq keeps the masks below their share.

    Args:
      masks: `masking.MaskSettings` or None.
      max_text_tokens: tokens of an instance, without the special tokens.

    Returns:
      List of at most one str.
    """
    if masks is None:
        return []
    wanted = masks.masked_lm_prob * max_text_tokens
    if wanted <= masks.max_predictions_per_seq:
        return []
    return [
        "max_predictions_per_seq={} limits the masks: masked_lm_prob={} of {} tokens "
        "is {:.1f}; raise it to {} to mask the whole share".format(
            masks.max_predictions_per_seq,
            masks.masked_lm_prob,
            max_text_tokens,
            wanted,
            int(np.ceil(wanted)),
        )
    ]


def _share(part, whole):
    return round(float(part) / whole, 6) if whole else None
