"""From text to records, and from records to batches."""
