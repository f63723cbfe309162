"""Published models, tasks and vocabularies, from the network to a directory."""
