"""Settings in the files of a checkpoint, and what the reference library makes of them.

    python make_settings.py [--out ../data/settings.json] [--count 200]

Random combinations of generation settings, each absent, null or set, in
`text_config` (native: beside it too) and in `generation_config.json`, which may
be missing. What is stored of each is the tokens that it leads to. Native
folders go through `from_pretrained` and `generate`. The original layout has no
class in the library: its inner language model is configured by `text_config`
with that class's own defaults, and the file has no effect.

Nobody may set `num_beams`; the program then takes 3, the library 1. There the
3 is passed, as `--num-beams` would. A combination that the library refuses, or
that hangs on too narrow a decision, is replaced.
"""

import argparse
import json
import math
import random
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import Florence2ForConditionalGeneration, GenerationConfig

import build
import margins
from reference import Reference, library_versions, read_json, require_pinned_versions

DATA = Path(__file__).resolve().parent.parent / "data"
CHECKPOINTS = {"original": "21-original-own-settings", "native": "22-native-own-settings"}
PICTURE, PROMPT = "picture.png", "<MORE_DETAILED_CAPTION>"
SEED = 11
NEW_TOKENS = 14
# As for the other stored answers: ten times what two correct implementations differ by.
LEAST_MARGIN = 2e-4
BEAMS_OF_NOBODY = 3

# A value of None is null. What is drawn too often as "absent" says little.
VALUES = {
    "num_beams": [None, 1, 2, 3, 4],
    "early_stopping": [None, True, False, "never"],
    "length_penalty": [None, 0.5, 1.0, 2.0, -1.0],
    "no_repeat_ngram_size": [None, 0, 1, 2, 3],
    "forced_bos_token_id": [None, 0, 4, 40],
    "forced_eos_token_id": [None, 2, 5],
    "decoder_start_token_id": [None, 2, 0, 41],
    "bos_token_id": [None, 0, 42],
    # Never null: an answer must end.
    "eos_token_id": [2, 2, 43],
}
ABSENT = 0.4
# The class of the original layout's language model has these where the file is silent.
ORIGINAL_DEFAULTS = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}


def drawn(dice):
    """Some of the keys with a value each."""
    return {key: dice.choice(values) for key, values in VALUES.items() if dice.random() >= ABSENT}


def combination(dice, layout):
    """What each file says; `file` is None where it is missing, `outer` stands beside `text_config`."""
    out = {"text": drawn(dice), "file": drawn(dice) if dice.random() < 0.6 else None}
    if layout == "native":
        out["outer"] = drawn(dice) if dice.random() < 0.3 else {}
        if out["file"] is not None:
            # Without it the library never ends, and the program keeps what the model was made with.
            out["file"].setdefault("eos_token_id", 2)
        elif "eos_token_id" not in out["outer"]:
            out["text"].setdefault("eos_token_id", 2)
    return out


def configured(config, said):
    """`config.json` with nothing but what is said about generation."""
    config = json.loads(json.dumps(config))
    for key in VALUES:
        config.pop(key, None)
        config["text_config"].pop(key, None)
    config["text_config"] |= said["text"]
    return config | said.get("outer", {})


def answer(model, inputs, settings):
    """Tokens and the narrowest margin, with nothing passed but the length (and the beams of nobody)."""
    passed = {"max_new_tokens": NEW_TOKENS, "return_dict_in_generate": True, "output_scores": True}
    beams = settings.num_beams
    if beams is None:
        passed["num_beams"] = beams = BEAMS_OF_NOBODY
    if beams == 1:
        result = model.generate(**inputs, generation_config=settings, **passed)
        return result.sequences[0].tolist(), margins.of_greedy(result.scores)
    with margins.watched_beam_search(model, settings.eos_token_id) as margin:
        result = model.generate(**inputs, generation_config=settings, **passed)
    return result.sequences[0].tolist(), margin.smallest


def native(reference, inputs, said):
    """The reference's own way from a folder to an answer."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copy(reference.folder / "model.safetensors", folder)
        build.dump(folder / "config.json", configured(read_json(reference.folder / "config.json"), said))
        if said["file"] is not None:
            build.dump(folder / "generation_config.json", said["file"])
        model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return answer(model.eval(), inputs, model.generation_config)


def original(reference, inputs, said):
    """The inner language model's settings, given to the native class."""
    text = ORIGINAL_DEFAULTS | said["text"]
    return answer(reference.model, inputs, GenerationConfig.from_model_config(text))


def make(layout, count, dice):
    """`count` combinations of one layout with their tokens."""
    reference = Reference(DATA / "parity" / CHECKPOINTS[layout], layout)
    # Only what the caller says counts; the model's own settings would fill gaps.
    reference.model.generation_config = GenerationConfig()
    inputs, _ = reference.inputs(reference.folder / PICTURE, PROMPT)
    way = {"native": native, "original": original}[layout]
    cases, refused, narrow = [], 0, 0
    while len(cases) < count:
        said = combination(dice, layout)
        try:
            tokens, margin = way(reference, inputs, said)
        except ValueError as error:
            refused += 1
            continue
        if margin < LEAST_MARGIN or not math.isfinite(margin) and len(tokens) > 4:
            narrow += 1
            continue
        cases.append(said | {"token_ids": tokens})
    answers = len({tuple(case["token_ids"]) for case in cases})
    print(f"{layout}: {count} combinations, {answers} answers; {refused} refused, {narrow} too narrow")
    return {"checkpoint": CHECKPOINTS[layout], "cases": cases}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=DATA / "settings.json")
    arguments.add_argument("--count", type=int, default=200, help="combinations of each layout")
    chosen = arguments.parse_args()
    require_pinned_versions()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dice = random.Random(SEED)
    layouts = {layout: make(layout, chosen.count, dice) for layout in CHECKPOINTS}
    head = {"library": library_versions(), "picture": PICTURE, "prompt": PROMPT, "max_new_tokens": NEW_TOKENS}
    lines = [json.dumps(head)[:-1] + ', "layouts": {']
    for number, (layout, found) in enumerate(layouts.items()):
        rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in found["cases"])
        comma = "," if number + 1 < len(layouts) else ""
        lines.append(f'"{layout}": {{"checkpoint": "{found["checkpoint"]}", "cases": [\n{rows}\n]}}{comma}')
    chosen.out.write_text("\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main()
