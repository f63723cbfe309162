"""What knows nothing of ALBERT: files, errors, locks, progress, pictures."""
