import argparse
import json
from types import SimpleNamespace

import pytest
from sparsify.recipes import stories
from sparsify.textdata import CUT, read_documents

STORY = [
    f"Mia the {animal} found {stories.one(thing)} near the {place}, "
    f"and {animal} and {place} were happy."
    for animal, thing, place in zip(stories.ANIMALS, stories.THINGS, stories.PLACES)
]
TEXT = "\n\n".join(" ".join(STORY[i : i + 2]) for i in range(0, 12, 2))


def test_a_seed_always_asks_for_the_same_story():
    assert stories.messages(7) == stories.messages(7)
    asked = [stories.messages(seed) for seed in range(200)]
    assert len({m[-1][1] for m in asked}) > 190
    assert {m[0][0] for m in asked} == {"system", "user"}
    for (_, text), *_ in ([m[-1]] for m in asked):
        assert "{" not in text and " a old" not in text and " an kind" not in text


def test_quotation_marks_and_dashes_have_one_form():
    assert stories.plain("“I—I don’t know,” she said--“no.”") == (
        '"I - I don\'t know," she said - "no."'
    )
    assert stories.plain("'It's late,' said he. 'Come!'") == '"It\'s late," said he. "Come!"'
    assert stories.plain("It was the dog's, and the boys' too.") == (
        "It was the dog's, and the boys' too."
    )


def test_talk_about_the_story_and_what_was_cut_off_are_dropped():
    whole = TEXT.split("\n\n")
    assert stories.clean(TEXT) == (whole, False)
    assert stories.clean(TEXT + "\n\nThis story teaches us to share.") == (whole, True)
    assert stories.clean(TEXT + " The end. I hope you like it.") == (whole, True)
    assert stories.clean(TEXT + "\n\nThen the cat went to the") == (whole, False)
    assert stories.clean(TEXT + "\n\nSure enough, the end of the rope was there.")[0][:-1] == whole
    quoted, _ = stories.clean("He came.\n\n“Hello – it’s me,” he said. “Where did she")
    assert quoted == ["He came.", '"Hello - it\'s me," he said.']
    assert stories.clean('Tom came. "I am sorry,"') == (["Tom came."], False)
    assert stories.clean("Then the cat went to the") == ([], False)


@pytest.mark.parametrize(
    "change",
    [
        ("happy.", "happy in 1999."),
        ("happy.", "happy (and sad)."),
        ("happy.", "happy..."),
        ("found", "killed"),
        ("found", "slaughtered"),
        ("Mia the dog", "A dog named Mia, she"),
        ("Mia the dog", "Mia the dog and " + " and ".join(stories.NAMES[3:40])),
        ("were happy.", "were happy to walk and run and play and sing with Mia again."),
        ("found a ball", "found a apple"),
        ("found a ball", "found A Umbrella"),
        ("found a ball", "found an ball"),
        ("found a ball", "found found a ball"),
        ("found a ball", "found a ball's ball"),
        ("Mia the dog", '"Mia the dog'),
        ("were happy. Mia the dog", "were happy. It was so. It was so. Mia the dog"),
    ],
)
def test_what_does_not_read_like_a_story_is_refused(change):
    assert stories.reads_well(TEXT.split("\n\n"))
    assert not stories.reads_well(TEXT.replace(*change).split("\n\n"))


def test_people_may_say_things_again_and_again():
    said = '"I see!" said Mia. "It is here!" said Mia. A use, a unicorn and a one-eyed owl.'
    assert stories.reads_well([*TEXT.split("\n\n"), said])


def test_short_and_repeating_stories_are_refused():
    assert not stories.reads_well(STORY[:3])
    assert not stories.reads_well([*STORY, STORY[0].replace("happy", "glad")] * 2)


def test_stories_of_rare_words_are_left_out_and_every_20th_is_held_out(tmp_path):
    told = [{"seed": seed, "cut": seed % 2 == 0, "text": TEXT} for seed in range(1, 61)]
    told[5]["text"] = TEXT + " Zig zag zog zug."
    (tmp_path / "told.jsonl").write_text("".join(json.dumps(t) + "\n" for t in told))
    args = argparse.Namespace(
        input=tmp_path / "told.jsonl", train=tmp_path / "train.txt", valid=tmp_path / "valid.txt"
    )
    stories.select(args)
    train, valid = (list(read_documents(p)) for p in (args.train, args.valid))
    assert len(valid) == 3 and len(train) == 56
    assert train[0] == TEXT.split("\n\n") and train[1] == [*TEXT.split("\n\n"), CUT]
    assert not any("Zig" in paragraph for document in train for paragraph in document)
    args.valid = None
    stories.select(args)
    assert len(list(read_documents(args.train))) == 59


def test_telling_goes_on_where_it_ended(tmp_path, monkeypatch):
    asked, fail = [], []

    def generate(request):
        asked.append(request.sampling.seed)
        if request.sampling.seed in fail:
            raise ValueError("no story")
        finished = SimpleNamespace(reason="cut" if request.sampling.seed == 2 else "end")
        text = f"Story {request.sampling.seed}."
        return SimpleNamespace(choices=[SimpleNamespace(text=text, finished=finished)])

    def new_request():
        messages = []
        add = lambda **message: messages.append(message)  # noqa: E731
        return SimpleNamespace(
            messages=SimpleNamespace(messages=SimpleNamespace(add=add)),
            sampling=SimpleNamespace(), stopping=SimpleNamespace(),
        )  # fmt: skip

    fake = (
        SimpleNamespace(GenerateRequest=new_request, LENGTH="cut"),
        SimpleNamespace(Generate=generate),
    )
    monkeypatch.setattr(stories, "connect", lambda server: fake)
    args = argparse.Namespace(
        server="", seeds=(1, 3), temperature=0.5, repetition_penalty=1.0, concurrency=2,
        out=tmp_path / "told.jsonl",
    )  # fmt: skip
    stories.tell(args)
    args.seeds = (1, 6)
    fail.append(4)
    with pytest.raises(ValueError, match="no story"):
        stories.tell(args)
    fail.clear()
    stories.tell(args)
    lines = [json.loads(line) for line in args.out.read_text().splitlines()]
    assert sorted(t["seed"] for t in lines) == [1, 2, 3, 4, 5, 6]
    assert [t["seed"] for t in lines if t["cut"]] == [2] and lines[0]["text"] == "Story 1."
    assert asked.count(1) == 1 and asked.count(4) == 2
