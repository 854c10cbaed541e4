"""Writes a checkpoint folder with random weights, as a user would have it."""

import json
from pathlib import Path

import torch
from transformers import Florence2ForConditionalGeneration

import configs
import layouts
import random_weights
import storage
from reference import complete_tokenizer

# The native vocabulary is padded to a multiple of this.
VOCABULARY_STEP = 64
DTYPES = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
TIED_NAMES = dict(zip(("shared", "encoder", "decoder", "head"), layouts.TIED))


def dump(path, value, compact=False):
    """One JSON file with a final newline."""
    form = {"separators": (",", ":")} if compact else {"indent": 1}
    Path(path).write_text(json.dumps(value, ensure_ascii=False, **form) + "\n")


def write_checkpoint(
    folder,
    sizes,
    layout,
    dtype,
    known,
    seed,
    generation,
    scales,
    form="safetensors",
    tied=("shared",),
    logits_bias="zero",
    temporal_table=True,
):
    """Configuration and weights beside the `tokenizer.json` that already lies in `folder`.

    `known` is the number of tokens without `<image>`; `tied` names the copies
    of the embedding that the file holds.
    """
    rows = -(-(known + 1) // VOCABULARY_STEP) * VOCABULARY_STEP
    native = configs.native_config(sizes, rows, known, dtype, generation)
    model = Florence2ForConditionalGeneration._from_config(configs.reference_config(native, "native"))
    random_weights.fill(model, complete_tokenizer(folder, layout), known, scales, seed)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in layouts.TIED}
    state = {name: tensor.to(DTYPES[dtype]) for name, tensor in state.items()}
    table = model.get_input_embeddings().weight.detach().to(DTYPES[dtype])
    del model
    if not temporal_table:
        del state[layouts.TEMPORAL_TABLE]
    state.update({TIED_NAMES[kind]: table for kind in tied})
    dump(folder / "preprocessor_config.json", configs.preprocessor_config(sizes))
    if layout == "native":
        dump(folder / "config.json", native)
        dump(folder / "generation_config.json", configs.native_generation_config(generation))
    else:
        dump(folder / "config.json", configs.original_config(sizes, known, dtype, generation))
        dump(folder / "generation_config.json", configs.ORIGINAL_GENERATION_CONFIG)
        state = layouts.to_original(state, known)
        if logits_bias != "absent":
            loud = 1.0 if logits_bias == "random" else 0.0
            noise = torch.randn((1, known), generator=random_weights.generator(seed, layouts.FINAL_LOGITS_BIAS))
            state[layouts.FINAL_LOGITS_BIAS] = (loud * noise).to(DTYPES[dtype])
    storage.write(state, folder, form)
