"""Stories for small children, told by an instruct model that a lacuna-server serves, for the
embedded model to learn from.

    python -m sparsify.recipes.stories tell --server HOST:PORT --seeds 1 10000 --out told.jsonl
    python -m sparsify.recipes.stories select told.jsonl --train train.txt --valid valid.txt

`tell` asks for one story a request and seed, of 320 tokens at most, and goes on where an earlier
run ended. `select` keeps what reads like a simple story or, mostly, the beginning of one, one a
document, and with --valid holds out every 20th. Needs grpcio and grpcio-tools.
"""

import argparse
import json
import random
import re
import sys
import tempfile
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ..textdata import BOUNDARY, CUT

PROTO = Path(__file__).resolve().parents[2] / "proto"

NAMES = """Lily Tom Mia Ben Anna Max Sara Leo Emma Sam Lucy Jack Ella Tim Rose Finn Amy Ned Nora
Will Ruth Paul Clara Fred Molly Hugh Alice Peter Grace Harry Kate Oscar May Toby Jane Ralph
Daisy Mark Polly Joe""".split()
ANIMALS = """cat dog rabbit fox mouse bear duck frog owl horse goat sheep hen pig squirrel bird
turtle hedgehog lion elephant monkey bee fish whale donkey kitten puppy lamb crow goose""".split()
PEOPLE = """girl boy farmer fisherman baker gardener teacher king queen grandmother grandfather
sailor shepherd painter shoemaker doctor miller postman princess tailor""".split()
TRAITS = """little old kind brave shy curious clever lazy hungry lonely happy sad proud quiet
funny careful clumsy friendly grumpy poor gentle sleepy tiny busy""".split()
PLACES = """garden, forest, village, farm, river, lake, hill, beach, school, barn, kitchen,
market, park, meadow, mountain, harbor, island, castle, old mill, orchard, bridge, library,
small town, pond, cave, field, tall tree, attic, bakery, lighthouse"""
THINGS = """ball, kite, boat, hat, key, lamp, bell, book, red coat, apple, pie, cake, basket,
drum, flute, wheel, bucket, blanket, map, coin, ring, chair, window, door, box, button, shoe,
stone, feather, flower, seed, pumpkin, egg, loaf of bread, jar of honey, candle, letter, mirror,
umbrella, ladder, rope, wagon, sled, doll, clock, spoon, broom, star, shell, nest, acorn, pear
tree, pot of soup, paper bird, toy train, tin soldier, silver cup, warm scarf, bag of nuts,
wooden horse"""
PLOTS = """loses something and finds it again, helps a stranger, makes a new friend, is afraid
of the dark, gets lost and comes home, learns to share, learns to say sorry, plans a surprise,
waits for the rain to stop, wants to see the sea, cannot sleep, builds something, finds a
secret, takes care of a sick friend, learns to swim, tells a lie and is sorry, has a birthday,
wins a race, loses a race, shares the last piece of food, grows something, follows a sound,
saves a small animal, learns to be patient, goes on a trip, breaks something and mends it, is
scared by a storm, learns a song, finds a way across the water, misses a friend, cleans up a
mess, plays a game in the snow, asks many questions, gives a gift, keeps a promise, looks for
something in the wind, tries again and again, visits a friend, cooks for everyone, learns that
being different is good"""
PLACES, THINGS, PLOTS = (" ".join(s.split()).split(", ") for s in (PLACES, THINGS, PLOTS))

# (system message or none, request)
ASKS = (
    ("", "Write a bedtime story for children about {who} named {name}. Use simple words and short "
     "sentences."),
    ("", "Write a very simple story for a small child about {name}, {who}, and {thing}."),
    ("You write simple stories for small children, with short sentences and a happy end.",
     "Write a story about {who} named {name} who {plot} near the {place}."),
    ("", "Write a bedtime story for little children about {who} named {name} who {plot}. Use "
     "simple words."),
)  # fmt: skip


def one(noun):
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def messages(seed):
    """[(role, content)] of request `seed`."""
    r = random.Random(seed)
    system, ask = r.choice(ASKS)
    who = one(f"{r.choice(TRAITS)} {r.choice(r.choice([ANIMALS, PEOPLE]))}")
    ask = ask.format(
        who=who, name=r.choice(NAMES), thing=one(r.choice(THINGS)), plot=r.choice(PLOTS),
        place=r.choice(PLACES),
    )  # fmt: skip
    return [("system", system)] * bool(system) + [("user", ask)]


def connect(server):
    """The generated messages, and a stub of the server's GenerationService."""
    import grpc
    from grpc_tools import protoc

    code = tempfile.mkdtemp()
    name = "lacuna/v1/generation"
    if protoc.main(["protoc", f"-I{PROTO}", f"--python_out={code}", f"--grpc_python_out={code}",
                    f"{PROTO}/{name}.proto"]):  # fmt: skip
        raise SystemExit(f"protoc cannot compile {PROTO}/{name}.proto")
    sys.path.insert(0, code)
    from lacuna.v1 import generation_pb2, generation_pb2_grpc

    channel = grpc.insecure_channel(server)
    return generation_pb2, generation_pb2_grpc.GenerationServiceStub(channel)


def tell(args):
    pb, stub = connect(args.server)
    out = Path(args.out)
    done = {json.loads(line)["seed"] for line in out.open()} if out.exists() else set()

    def story(seed):
        request = pb.GenerateRequest()
        for role, content in messages(seed):
            request.messages.messages.add(role=role, content=content)
        sampling = request.sampling
        sampling.temperature, sampling.top_p = args.temperature, 0.95
        sampling.repetition_penalty, sampling.seed = args.repetition_penalty, seed
        request.stopping.max_tokens = 320
        choice = stub.Generate(request).choices[0]
        cut = choice.finished.reason == pb.LENGTH
        return {"seed": seed, "cut": cut, "text": choice.text}

    wanted = range(args.seeds[0], args.seeds[1] + 1)
    seeds = [seed for seed in wanted if seed not in done]
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(seeds), desc="tell", unit="story")
    waiting = deque()
    with bar, out.open("a") as file, ThreadPoolExecutor(args.concurrency) as pool:

        def write():
            file.write(json.dumps(waiting.popleft().result()) + "\n")
            file.flush()
            bar.update()

        try:
            for seed in seeds:
                waiting.append(pool.submit(story, seed))
                if len(waiting) >= 2 * args.concurrency:
                    write()
            while waiting:
                write()
        finally:  # after an error or an interrupt, too, what was told is kept
            pool.shutdown(cancel_futures=True)
            for future in waiting:
                if not future.cancelled() and future.exception() is None:
                    file.write(json.dumps(future.result()) + "\n")


WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
# Talk about the story, which ends it.
ABOUT = re.compile(
    r"(?i)^(this|the|my|our|and so,? the) (simple |short |little |whole )?(story|tale|moral)\b"
    r"|^(i hope (you|this)|let me know|in conclusion|in this story|title|note|here is|sure[,!])"
    r"|^the end[.!]?$"
)
# What is not for children, or no story.
UNFIT = re.compile(
    r"(?i)\b(kill\w*|murder\w*|blood\w*|breasts?|sex\w*|naked|nude|drugs?|drunk\w*|alcohol|wine|beer"
    r"|guns?|knife|knives|suicid\w*|rape\w*|god|jesus|allah|hell|damn|devil|hate[ds]?|slaves?|wars?"
    r"|slaughter\w*|graves?|graveyard|corpses?|skulls?|drown\w*|weapons?|swords?|poison\w*|evil"
    r"|dead|died|die|dies|death|poop\w*|pee|ai|language model|website|video|online|copyright)\b"
)
ODD = re.compile(r"[^A-Za-z ,.;:!?'\"\n-]|\b[A-Z]{2,}\b|[.,;:]{2}")
# "a owl", "an bear", "the the", "the king's king", "a cat named Mia, she".
SLIP = re.compile(
    r"(?i)\ba (?=[aeiou])(?!one\b|once\b|uni|use|usu|eur)|\ban (?=[bcdfgjklmnpqrstvwxyz])"
    r"|\b(?!had\b|that\b|very\b|so\b|big\b|no\b)([a-z]+)(?:'s)? \1\b"
    r"|\bnamed \w+, (?:he|she|it|they)\b"
)
SENTENCE = re.compile(
    r"(?<=[.!?])(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)\s+|(?<=[.!?]\")\s+(?![a-z])"  # not before `said Mia`
)
END = re.compile(r'[.!?]"?$')
# A word that fewer than RARE stories have is a rare one, of which a story has FEW at most; at most
# LONGEST words in a sentence, at least SHORTEST in a story.
RARE, FEW, LONGEST, SHORTEST = 6, 3, 40, 120


def plain(text):
    """`text` with straight double quotation marks around speech and " - " for dashes."""
    text = re.sub("[“”„]", '"', re.sub("[‘’`]", "'", text))
    text = re.sub(r"\s*(?:—|–|--+)\s*", " - ", text)
    if '"' not in text:  # speech between single marks
        text = re.sub(r"(^|[\s(-])'(?=[A-Z])", r'\1"', text)
        if '"' in text:
            text = re.sub(r"(?<=[.,!?;-])'(?=\s|$)", '"', text)
    return " ".join(text.split())


def clean(text):
    """Paragraphs of the story: straight quotation marks, whole sentences; and whether there was
    talk about it behind them, which is dropped."""
    paragraphs, talk = [], None
    for line in map(plain, text.splitlines()):
        sentences = SENTENCE.split(line) if line else []
        talk = next((i for i, s in enumerate(sentences) if ABOUT.search(s)), None)
        paragraphs += [sentences[:talk]] if sentences[:talk] else []
        if talk is not None:
            break
    while paragraphs:
        last = paragraphs[-1]
        while last and (not END.search(last[-1]) or " ".join(last).count('"') % 2):
            last.pop()
        if last:
            break
        paragraphs.pop()
    return [" ".join(sentences) for sentences in paragraphs], talk is not None


def reads_well(paragraphs):
    text = "\n".join(paragraphs)
    sentences = [s for p in paragraphs for s in SENTENCE.split(p)]
    words = [WORD.findall(s) for s in sentences]
    runs = [tuple(w[i : i + 8]) for w in words for i in range(len(w) - 7)]
    return (
        sum(map(len, words)) >= SHORTEST
        and not ODD.search(text)
        and not UNFIT.search(text)
        and not SLIP.search(text)
        and all(p.count('"') % 2 == 0 and END.search(p) for p in paragraphs)
        and max(map(len, words)) <= LONGEST
        and len(set(sentences)) == len(sentences)
        and len(set(runs)) >= 0.97 * len(runs)
    )


def select(args):
    told = [json.loads(line) for line in open(args.input)]
    stories = {}
    for t in sorted(told, key=lambda t: t["seed"]):
        story, talk = clean(t["text"])
        if story:
            stories[t["seed"]] = story, t["cut"] and not talk
    words = {
        seed: {w.lower() for p in story for w in WORD.findall(p)}
        for seed, (story, _) in stories.items()
    }
    seen = Counter(w for of in words.values() for w in of)
    kept = [
        seed
        for seed, (story, _) in stories.items()
        if reads_well(story) and sum(seen[w] < RARE for w in words[seed]) <= FEW
    ]
    parts = [(args.train, [s for s in kept if s % 20 or not args.valid])]
    if args.valid:
        parts.append((args.valid, [s for s in kept if s % 20 == 0]))
    for path, seeds in parts:
        part = [stories[seed] for seed in seeds]
        with open(path, "w", encoding="utf-8") as out:
            for story, cut in part:
                out.write("\n".join([*story, *[CUT] * cut, BOUNDARY]) + "\n")
        whole = sum(not cut for _, cut in part)
        print(f"{path}: {len(part)} of {len(told)} stories, {whole} of them to their end")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m sparsify.recipes.stories",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("tell")
    command.add_argument("--server", default="127.0.0.1:50051")
    command.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), required=True)
    command.add_argument("--temperature", type=float, default=0.5)
    command.add_argument("--repetition-penalty", type=float, default=1.07)
    command.add_argument("--concurrency", type=int, default=64)
    command.add_argument("--out", required=True)
    command.set_defaults(run=tell)
    command = commands.add_parser("select")
    command.add_argument("input")
    command.add_argument("--train", required=True)
    command.add_argument("--valid", help="hold out every 20th story, for this file")
    command.set_defaults(run=select)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
