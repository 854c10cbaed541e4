"""A small tokenizer of the published kind: byte-level BPE, then the task tokens.

Base entries are `<s> <pad> </s> <unk>`, the 256 bytes, a few merges learnt
from the task sentences, and `<mask>` last. The original layout's file ends
there; the native file lists the 1024 task tokens and `<image>` as well.
"""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

FIRST_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
MASK = "<mask>"
IMAGE = "<image>"

# In the order of their ids.
TASK_TOKENS = (
    ["<od>", "</od>", "<ocr>", "</ocr>"]
    + [f"<loc_{n}>" for n in range(1000)]
    + ["<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>"]
    + ["<grounding>", "</grounding>", "<seg>", "</seg>", "<sep>"]
    + ["<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"]
    + ["<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"]
)

# What the merges are learnt from: sentences of our own in the manner of the answers.
SENTENCES = [
    "What does the image describe?",
    "Describe in detail what is shown in the image.",
    "Locate the objects in the image, with their descriptions.",
    "Locate the region proposals in the image.",
    "What is the text in the image, with regions?",
    "What is the polygon mask of region",
    "a red car and a green car in front of the house",
    "a man with a dog on the street, the dog looks at a cat",
    "two cups and a plate on the table near the window",
    "the man in the house, the car on the street, the cat on the table",
]


def learn(merges):
    """Vocabulary and merges with exactly `merges` merges."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=1,
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    model = json.loads(bpe.to_str())["model"]
    if len(model["merges"]) != merges:
        raise ValueError(f"the sentences give only {len(model['merges'])} merges")
    ordered = sorted(model["vocab"], key=model["vocab"].get)
    entries = FIRST_SPECIALS + ordered + [MASK]
    return {token: index for index, token in enumerate(entries)}, model["merges"]


def added(index, content, normalized):
    """One entry of `added_tokens`; only `<mask>` swallows the space before it."""
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": content == MASK,
        "rstrip": False,
        "normalized": normalized,
        "special": True,
    }


def tokenizer_json(layout, merges):
    """`tokenizer.json` of the layout, as a dictionary."""
    vocab, pairs = learn(merges)
    base = len(vocab)
    tokens = [added(vocab[token], token, True) for token in FIRST_SPECIALS + [MASK]]
    if layout == "native":
        tokens += [added(base + offset, token, False) for offset, token in enumerate(TASK_TOKENS + [IMAGE])]
    else:
        pairs = [" ".join(pair) for pair in pairs]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["</s>", 2],
            "cls": ["<s>", 0],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": vocab,
            "merges": pairs,
        },
    }


def base_size(merges):
    """Entries before the task tokens."""
    return len(FIRST_SPECIALS) + 256 + merges + 1
