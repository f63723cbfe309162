"""What a run of data generation made: counts, shares, warnings."""

import collections

import numpy as np

from albert_zh.instances import KEPT, MASKED, NUM_SPECIAL_TOKENS, RANDOM


class Statistics:
    """Counts what went into the records and what came out, for the summary.

    Args:
      settings: `Settings`.
      vocabulary: `Vocabulary`.
    """

    def __init__(self, settings, vocabulary):
        self.settings = settings
        self._unk_id = vocabulary.unk_id
        self._counts = collections.Counter()
        self._ngram_lengths = collections.Counter()
        self._replacements = np.zeros(3, np.int64)

    def add_document(self, document, num_replaced_bytes):
        """Counts a `TokenizedDocument` once, whatever the number of duplicates."""
        self._counts.update(
            documents=1,
            sentences=len(document.sentence_bounds) - 1,
            sentences_without_tokens=document.num_empty_sentences,
            tokens=len(document.token_ids),
            unk_tokens=int(np.count_nonzero(document.token_ids == self._unk_id)),
            replaced_undecodable_bytes=num_replaced_bytes,
        )

    def add_instance(self, instance):
        """Counts an `Instance`."""
        counts = self._counts
        counts["instances"] += 1
        counts["instance_tokens"] += len(instance.input_ids) - NUM_SPECIAL_TOKENS
        counts["masked_tokens"] += len(instance.masked_lm_ids)
        counts["truncated_tokens"] += instance.num_truncated
        counts["swapped"] += instance.swapped
        counts["capped"] += instance.capped
        counts["unmasked"] += not len(instance.masked_lm_ids)
        self._ngram_lengths.update(instance.ngram_lengths)
        self._replacements += np.bincount(instance.replacements, minlength=3)

    def summary(self):
        """Returns a dict that `json` can write; shares are None where nothing is."""
        counts, settings = self._counts, self.settings
        used = counts["tokens"] * settings.dupe_factor
        return {
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
            "truncated_tokens": counts["truncated_tokens"],
            "truncated_share": _share(counts["truncated_tokens"], used),
            "dropped_tokens": self._dropped_tokens(),
            "masked_tokens": counts["masked_tokens"],
            "masked_share": _share(counts["masked_tokens"], counts["instance_tokens"]),
            "target_masked_share": settings.masked_lm_prob,
            "instances_at_max_predictions": counts["capped"],
            "instances_without_masks": counts["unmasked"],
            "ngram_lengths": {
                str(n): self._ngram_lengths[n] for n in sorted(self._ngram_lengths)
            },
            "replaced_by_mask_share": _share(
                self._replacements[MASKED], counts["masked_tokens"]
            ),
            "kept_share": _share(self._replacements[KEPT], counts["masked_tokens"]),
            "replaced_by_random_share": _share(
                self._replacements[RANDOM], counts["masked_tokens"]
            ),
            "swapped_share": _share(counts["swapped"], counts["instances"]),
            "settings": settings._asdict(),
            "warnings": self.warnings(),
        }

    def warnings(self):
        """Returns a list of str: settings and counts that need attention.

        What concerns the settings alone is known before the first document.
        """
        counts, settings = self._counts, self.settings
        found = []
        wanted = settings.masked_lm_prob * settings.max_text_tokens
        if wanted > settings.max_predictions_per_seq:
            found.append(
                "max_predictions_per_seq={} limits the masks: masked_lm_prob={} of {} "
                "tokens is {:.1f}; raise it to {} to mask the whole share".format(
                    settings.max_predictions_per_seq,
                    settings.masked_lm_prob,
                    settings.max_text_tokens,
                    wanted,
                    int(np.ceil(wanted)),
                )
            )
        for count, meaning in (
            (counts["sentences_without_tokens"], "sentences hold no token: left out"),
            (counts["replaced_undecodable_bytes"], "undecodable bytes were replaced"),
            (counts["unmasked"], "instances hold no word short enough to be masked"),
            (self._dropped_tokens(), "tokens stood alone in a chunk: left out"),
        ):
            if count:
                found.append("{} {}".format(count, meaning))
        return found

    def _dropped_tokens(self):
        """Returns the tokens that are in no instance and were not truncated."""
        counts = self._counts
        used = counts["tokens"] * self.settings.dupe_factor
        return used - counts["instance_tokens"] - counts["truncated_tokens"]


def _share(part, whole):
    return round(float(part) / whole, 6) if whole else None
