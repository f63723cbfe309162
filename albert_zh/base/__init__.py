"""Utilities not specific to ALBERT: files, errors, locks, progress, pictures."""
