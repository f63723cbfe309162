"""A model on disk: config, vocabulary, checkpoint, and what they must have."""
