"""The config of a model so small that tests build it in a moment."""

import modeling

CONFIG = modeling.AlbertConfig(
    vocab_size=20,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=8,
    ln_type="postln",
)
