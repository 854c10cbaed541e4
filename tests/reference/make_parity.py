"""Makes the tiny checkpoints and what the reference library says to them.

    python make_parity.py [--out ../data/parity] [--only NUMBER ...]

Every checkpoint is written first and then read back from its files, so the
expected answers belong to the stored bytes. A seed whose answers hang on a
decision narrower than `LEAST_MARGIN` is replaced by the next one.
"""

import argparse
import json
import platform
import shutil
from collections import Counter
from pathlib import Path

import numpy
import PIL
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import Florence2ForConditionalGeneration

import checkpoints
import configs
import layouts
import pictures
import random_weights
import storage
import tiny_tokenizer
from reference import Reference, exact_pixels
from tasks import TASK_TOKENS

OUT = Path(__file__).resolve().parent.parent / "data" / "parity"
# Ten times the difference between two correct float32 implementations.
LEAST_MARGIN = 2e-4
# An answer with fewer different tokens, the special ones included, says too little.
LEAST_KINDS_OF_TOKENS = 5
SEEDS_TRIED = 100
# So many of them are also asked that one answer ends by itself.
SEEDS_WITH_AN_ENDING = 20
# The native vocabulary is padded to a multiple of this.
VOCABULARY_STEP = 64
DTYPES = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
TIED_NAMES = dict(zip(("shared", "encoder", "decoder", "head"), layouts.TIED))


def library_versions():
    """What the answers were computed with."""
    return {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "tokenizers": tokenizers.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }


def dump(path, value, compact=False):
    """One JSON file with a final newline."""
    form = {"separators": (",", ":")} if compact else {"indent": 1}
    path.write_text(json.dumps(value, ensure_ascii=False, **form) + "\n")


def write_checkpoint(checkpoint, folder, seed):
    """All files of a checkpoint as a user would have them, and its picture."""
    folder.mkdir(parents=True)
    native = checkpoint.layout == "native"
    known = tiny_tokenizer.base_size(checkpoint.merges) + len(tiny_tokenizer.TASK_TOKENS)
    rows = -(-(known + 1) // VOCABULARY_STEP) * VOCABULARY_STEP
    dump(folder / "tokenizer.json", tiny_tokenizer.tokenizer_json(checkpoint.layout, checkpoint.merges), compact=True)
    dump(folder / "preprocessor_config.json", configs.preprocessor_config(checkpoint.sizes))
    pictures.picture(*checkpoint.picture, seed).save(folder / "picture.png", optimize=True)

    everything = configs.native_config(checkpoint.sizes, rows, known, checkpoint.dtype, checkpoint.generation)
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration._from_config(configs.reference_config(everything, "native"))
    complete = tokenizers.Tokenizer.from_str(json.dumps(tiny_tokenizer.tokenizer_json("native", checkpoint.merges)))
    random_weights.fill(model, complete, known, seed)
    state = {name: tensor.to(DTYPES[checkpoint.dtype]) for name, tensor in model.state_dict().items()}
    if not checkpoint.temporal_table:
        del state[layouts.TEMPORAL_TABLE]
    table = state[layouts.SHARED]
    for tied in layouts.TIED:
        state[tied] = table
    stored = {TIED_NAMES[kind] for kind in checkpoints.STORED_TIED[checkpoint.tied]}
    state = {name: tensor for name, tensor in state.items() if name not in layouts.TIED or name in stored}
    if native:
        dump(folder / "config.json", everything)
        dump(folder / "generation_config.json", configs.native_generation_config(checkpoint.generation))
    else:
        config = configs.original_config(checkpoint.sizes, known, checkpoint.dtype, checkpoint.generation)
        dump(folder / "config.json", config)
        dump(folder / "generation_config.json", configs.ORIGINAL_GENERATION_CONFIG)
        state = layouts.to_original(state, known)
        if checkpoint.logits_bias != "absent":
            loud = 1.0 if checkpoint.logits_bias == "random" else 0.0
            noise = torch.randn((1, known), generator=random_weights.generator(seed, layouts.FINAL_LOGITS_BIAS))
            state[layouts.FINAL_LOGITS_BIAS] = (loud * noise).to(DTYPES[checkpoint.dtype])
    storage.write(state, folder, checkpoint.storage)


def ask(reference, index, checkpoint):
    """The stages of the first run, and all runs."""
    runs, stages = [], None
    picture = reference.folder / "picture.png"
    for task, prompt, passed in checkpoints.runs_of(index, checkpoint):
        inputs, text_ids = reference.inputs(picture, prompt)
        settings = reference.settings(passed)
        token_ids, margin = reference.generate(inputs, settings)
        if stages is None:
            stages = reference.stages(inputs)
        runs.append(
            {
                "task": task,
                "picture": "picture.png",
                "prompt": prompt,
                "text_sent": reference.text_sent(prompt),
                "input_ids": text_ids,
                "image_tokens": checkpoint.sizes.image_tokens(),
                "num_beams": settings["num_beams"],
                "options": {key: value for key, value in settings.items() if key != "num_beams"},
                "passed": passed,
                "token_ids": token_ids,
                "text": reference.decode(token_ids),
                "transition_margin": margin if margin < 1e9 else None,
            }
        )
    return runs, stages


def check_pixels(stages, checkpoint, folder):
    """The processor's pixels are the documented arithmetic, bit by bit."""
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    exact = exact_pixels(folder / "picture.png", checkpoint.sizes.side, settings["image_mean"], settings["image_std"])
    if not torch.equal(stages["pixel_values"], exact):
        raise SystemExit(f"{folder.name}: the processor's pixels are not the documented ones")


def check_stock_loading(reference, runs):
    """A native folder gives the same through `from_pretrained` and the library's own settings."""
    stock, report = Florence2ForConditionalGeneration.from_pretrained(
        reference.folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if report["missing_keys"] or report["mismatched_keys"] or report["unexpected_keys"]:
        raise SystemExit(f"{reference.folder.name}: from_pretrained says {report}")
    stock.eval()
    for run in runs:
        inputs, _ = reference.inputs(reference.folder / "picture.png", run["prompt"])
        ids = stock.generate(**inputs, **run["passed"])[0].tolist()
        if ids != run["token_ids"]:
            raise SystemExit(f"{reference.folder.name}: from_pretrained answers {ids}, not {run['token_ids']}")


def ended_early(run):
    """Whether the answer ended by itself, before its length limit forced it to."""
    return len(run["token_ids"]) < run["options"]["max_new_tokens"] + 1


def worth_keeping(runs, attempt):
    """Whether a seed's answers are safe from rounding and say something."""
    margins = [run["transition_margin"] for run in runs if run["transition_margin"] is not None]
    long = [run for run in runs if run["options"]["max_new_tokens"] > 2]
    telling = all(len(set(run["token_ids"])) >= LEAST_KINDS_OF_TOKENS for run in long)
    ending = any(map(ended_early, long)) or attempt >= SEEDS_WITH_AN_ENDING
    return min(margins, default=LEAST_MARGIN) >= LEAST_MARGIN and telling and ending


def make(index, checkpoint, out):
    """One checkpoint folder; returns its runs."""
    folder = out / f"{index + 1:02}-{checkpoint.name}"
    for attempt in range(SEEDS_TRIED):
        seed = 1000 * (index + 1) + attempt
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(checkpoint, folder, seed)
        reference = Reference(folder, checkpoint.layout)
        runs, stages = ask(reference, index, checkpoint)
        if worth_keeping(runs, attempt):
            break
    else:
        raise SystemExit(f"{folder.name}: no seed of {SEEDS_TRIED} was worth keeping")
    check_pixels(stages, checkpoint, folder)
    if checkpoint.layout == "native" and checkpoint.tied in ("shared", "shared-and-head", "all"):
        check_stock_loading(reference, runs)
    save_file({name: tensor.contiguous() for name, tensor in stages.items()}, folder / "stages.safetensors")
    settings = {"dtype": checkpoint.dtype, "storage": checkpoint.storage, "tied": checkpoint.tied, "seed": seed}
    settings |= {"logits_bias": checkpoint.logits_bias} if checkpoint.layout == "original" else {}
    expected = {
        "library": library_versions(),
        "layout": checkpoint.layout,
        "settings": settings | {"seeds_rejected": attempt},
        "runs": runs,
    }
    dump(folder / "expected.json", expected)
    size = sum(file.stat().st_size for file in folder.iterdir())
    margins = [run["transition_margin"] for run in runs if run["transition_margin"] is not None]
    print(f"{folder.name:34} {size / 1000:6.0f} kB  seed {seed}  margin {min(margins, default=0):.1e}", flush=True)
    return runs


def report(runs, out):
    """What the set covers; refuses a set that leaves a task or a setting out."""
    print(f"{len(runs)} runs, {sum(file.stat().st_size for file in out.rglob('*') if file.is_file()) / 1e6:.2f} MB")
    free = [run for run in runs if run["options"]["max_new_tokens"] > 2]
    print(f"ended by themselves: {sum(map(ended_early, free))} of {len(free)} with room to")
    print(f"distinct answers: {len({run['text'] for run in runs})}")
    print("tasks", dict(Counter(run["task"] for run in runs)))
    print("num_beams", dict(Counter(run["num_beams"] for run in runs)))
    wanted = {
        "early_stopping": {True, False, "never"},
        "length_penalty": {0.5, 1.0, 2.0},
        "no_repeat_ngram_size": {0, 2, 3},
        "max_new_tokens": {1, 2, 20, 60},
    }
    for key, values in wanted.items():
        counts = Counter(run["options"][key] for run in runs if key in ("max_new_tokens", "no_repeat_ngram_size") or run["num_beams"] > 1)
        print(key, dict(counts))
        if not values <= set(counts):
            raise SystemExit(f"{key}: {values - set(counts)} never occurs")
    missing = {*TASK_TOKENS, None} - {run["task"] for run in runs}
    missing |= {1, 2, 3, 5} - {run["num_beams"] for run in runs}
    if missing:
        raise SystemExit(f"never occurs: {missing}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--only", type=int, nargs="*", help="numbers of checkpoints to make again")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    chosen.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for index, checkpoint in enumerate(checkpoints.CHECKPOINTS):
        if chosen.only is None or index + 1 in chosen.only:
            runs += make(index, checkpoint, chosen.out)
    if chosen.only is None:
        report(runs, chosen.out)


if __name__ == "__main__":
    main()
