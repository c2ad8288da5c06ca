import numpy as np
import pytest
import torch
from sparsify import modeling, textdata


@pytest.fixture
def model():
    torch.manual_seed(0)
    return modeling.new_model(
        vocab_size=300, hidden=32, ffn=48, layers=2, heads=4, kv_heads=2, context=64
    )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A little text of two documents, one of them hard-wrapped, and a tokenizer learnt from it."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    words = "the a old man sea ship went saw her him and but of to house garden rain sun".split()
    wrapped = "".join(
        "\n".join(" ".join(rng.choice(words, 10)) for _ in range(4)) + "\nThe end.\n\n"
        for _ in range(50)
    )
    text = folder / "text.txt"
    text.write_text(
        "".join(" ".join(rng.choice(words, 12)).capitalize() + ".\n" for _ in range(400))
        + "<|endofbook|>\n"
        + wrapped
    )
    tokenizer = textdata.train_tokenizer(text, folder, vocab_size=380, sample_mb=1)
    return text, tokenizer
