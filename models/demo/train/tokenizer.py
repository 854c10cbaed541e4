"""The demo's tokenizer: a small byte-level BPE in exactly the layout of the real one.

Specials first (`<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3), then the byte alphabet and the merges,
`<mask>` last of the base vocabulary, then the 1024 task and location tokens in the published
order. Unlike the Microsoft files, `tokenizer.json` holds the added tokens too; a loader that adds
them itself finds them in place.
"""

import json
import os

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from language import corpus

BASE_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
TASK_TOKENS = (
    ["<od>", "</od>", "<ocr>", "</ocr>"]
    + [f"<loc_{n}>" for n in range(1000)]
    + ["<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"]
    + ["<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"]
    + ["<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"]
)


def build_tokenizer():
    """Trains the merges on the demo's own sentences; deterministic."""
    tokenizer = Tokenizer(models.BPE(unk_token=None, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        special_tokens=list(BASE_SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in TASK_TOKENS])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    assert [tokenizer.token_to_id(token) for token in BASE_SPECIALS] == [0, 1, 2, 3]
    assert tokenizer.token_to_id("<and>") == tokenizer.get_vocab_size() - 1
    assert tokenizer.token_to_id("<mask>") == tokenizer.get_vocab_size() - 1 - len(TASK_TOKENS)
    return tokenizer


def save_tokenizer(folder):
    """Writes tokenizer.json and tokenizer_config.json."""
    tokenizer = build_tokenizer()
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    config = {
        "model_max_length": 1024,
        "tokenizer_class": "BartTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump(config, file, indent=2)
        file.write("\n")
    return tokenizer
