import numpy as np
import torch
from sparsify import textdata, train
from transformers import AutoTokenizer


def test_text_is_unwrapped_and_encoded(corpus, monkeypatch):
    monkeypatch.setattr(textdata, "ENCODED_AT_ONCE", 3)
    text, folder = corpus
    documents = list(textdata.read_documents(text))
    assert [len(d) for d in documents] == [400, 50]
    assert all(p.endswith("The end.") and "\n" not in p for p in documents[1])
    ids, size, bos = textdata.encode(text, folder)
    sp = textdata.spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert bos == ids[0] == sp.bos_id() and ids[-1] == sp.eos_id()
    assert list(ids).count(sp.eos_id()) == 2
    texts = [p for d in documents for p in textdata.passages(d)]
    assert [int(i) for i in ids if i not in (1, 2)] == sum(sp.encode(texts), [])
    assert size == sum(len(p.encode()) for p in texts)


def test_a_tokenizer_without_bos_adds_none(corpus, tmp_path):
    text, folder = corpus
    hf = AutoTokenizer.from_pretrained(folder)
    hf._tokenizer.post_processor = None
    hf._tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}'
    )
    ids, _, bos = textdata.encode(text, tmp_path)
    assert bos == -1 and 1 not in ids
    # Where a passage of the same document follows, a newline is in the place of its <s>.
    newline = hf.convert_tokens_to_ids("<0x0A>")
    expected, last = [], 2
    for i in textdata.encode(text, folder).ids:
        if i != 1:
            expected.append(i)
        elif last != 2:
            expected.append(newline)
        last = i
    assert np.array_equal(ids, expected)


def test_batches_cover_an_epoch_once():
    tokens = textdata.Tokens(np.arange(1000, dtype=np.uint16), 4000, bos=1)
    firsts = [int(r[0]) for s in range(6) for r in train.batch_at(tokens, s, 8, 20, seed=1)[0]]
    assert len(set(firsts)) == 48
    x, y = train.batch_at(tokens, 3, 8, 20, seed=1)
    assert torch.equal(x[:, 1:], torch.where(y[:, :-1] < 0, 1, y[:, :-1]))
