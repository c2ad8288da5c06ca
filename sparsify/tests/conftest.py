import argparse

import accelerate
import numpy as np
import pytest
import torch
from sparsify import modeling, textdata


@pytest.fixture(autouse=True)
def fresh_process():
    """One thread, and no accelerator state of the test before."""
    torch.set_num_threads(1)
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def model():
    torch.manual_seed(0)
    tiny = modeling.new_model(
        vocab_size=380, hidden=32, ffn=48, layers=2, heads=4, kv_heads=2, context=64
    )
    return modeling.set_activation(tiny)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A little text of two documents, one of them hard-wrapped, and the directory of a tokenizer
    learnt from it."""
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
    textdata.tokenizer(argparse.Namespace(text=text, out=folder, vocab_size=380, sample_mb=1))
    return text, folder
