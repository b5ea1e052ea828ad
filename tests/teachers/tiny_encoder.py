"""A text encoder of transformers' real classes at tiny random size, in a folder as published ones are."""

from pathlib import Path

import transformers
from tiny_pipelines import randomised

WIDTH = 16
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def save_encoder(folder: Path, seed: int = 5) -> Path:
    """BERT with a token for each letter."""
    letters = [chr(i) for i in range(33, 127)]
    words = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    randomised(transformers.BertModel(config), seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
