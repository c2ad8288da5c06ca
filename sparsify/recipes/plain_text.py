"""Novels as the embedded model learns them: one way to write quotation marks and dashes.

    python -m sparsify.recipes.plain_text IN OUT                all of the text
    python -m sparsify.recipes.plain_text IN OUT --easy WORDS   only what is easy to read: passages
        of short sentences in the commonest 4,000 words of the text WORDS

Texts as the package reads them, .txt or .txt.xz; OUT is .txt.
"""

import argparse
import re
from collections import Counter

from ..textdata import BOUNDARY, read_documents

# Ranks below COMMON are common words; HARD is the share of others in a sentence; LONGEST, in words;
# SHORTEST, in sentences, if it is only a part of a paragraph.
COMMON, HARD, LONGEST, SHORTEST = 4000, 0.04, 24, 2
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
SENTENCE = re.compile(r"(?<=[.!?])(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!St\.)\s+|(?<=[.!?]\")\s+")
# Signs of old or broad speech, such as letters left out at the edge of a word; and of headings.
OLD = re.compile(
    r"(?i)\b(thee|thou|thy|thine|ye|yer|hath|doth|hast|dost|shalt|wilt|canst|didst|art thou|wot"
    r"|nay|'?tis|'?twas|'?em|ain't|chapter|hither|thither|whither|hence|thence|whence)\b"
    r"|(^|\s)'[a-z]|[a-z]'(?![a-z])"
)
ODD = re.compile(r"[^A-Za-z ,.;:!?'\"-]|\b[A-Z]{2,}\b|_")


def plain(text):
    """`text` with straight double quotation marks around speech and " - " for dashes."""
    text = re.sub("[“”„]", '"', re.sub("[‘’`]", "'", text))
    text = re.sub(r"\s*(?:—|–|--+)\s*", " - ", text)
    if '"' not in text:  # speech between single marks
        text = re.sub(r"(^|[\s(-])'(?=[A-Z])", r'\1"', text)
        if '"' in text:
            text = re.sub(r"(?<=[.,!?;-])'(?=\s|$)", '"', text)
    return " ".join(text.split())


def ranks(path):
    """Words in lower case -> rank by frequency, of a text."""
    counts = Counter()
    for document in read_documents(path):
        for paragraph in document:
            counts.update(w for w in WORD.findall(plain(paragraph)) if w[0].islower())
    return {word: rank for rank, (word, _) in enumerate(counts.most_common())}


def easy(sentence, rank):
    words = WORD.findall(sentence)
    if not words or len(words) > LONGEST or ODD.search(sentence) or OLD.search(sentence):
        return False
    # A name is not in the list in lower case, or late, but is easy all the same.
    hard = sum(w[0].islower() and rank.get(w, COMMON) >= COMMON for w in words)
    return hard <= HARD * len(words)


def easy_passages(paragraph, rank):
    """The runs of easy sentences in a paragraph: all of it, or SHORTEST sentences at least. Speech
    is not torn: a run has both of its quotation marks."""
    if paragraph[-1] not in '.!?"':
        return
    sentences, run = SENTENCE.split(paragraph), []
    for sentence in [*sentences, None]:
        if sentence is not None and easy(sentence, rank):
            run.append(sentence)
            continue
        passage = " ".join(run)
        if run and (len(run) >= SHORTEST or len(run) == len(sentences)):
            if passage.count('"') % 2 == 0 and re.match('["A-Z]', passage):
                yield passage
        run = []


def main():
    parser = argparse.ArgumentParser(
        prog="python -m sparsify.recipes.plain_text",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--easy", metavar="WORDS")
    args = parser.parse_args()
    rank = ranks(args.easy) if args.easy else None
    with open(args.output, "w", encoding="utf-8") as out:
        for document in read_documents(args.input):
            for paragraph in map(plain, document):
                for passage in easy_passages(paragraph, rank) if rank else [paragraph]:
                    out.write(passage + "\n")
            out.write(BOUNDARY + "\n")


if __name__ == "__main__":
    main()
