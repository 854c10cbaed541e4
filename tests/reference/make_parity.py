"""Makes the tiny checkpoints and what the reference library says to them.

    python make_parity.py [--out ../data/parity] [--only NUMBER ...]

Every checkpoint is written first and then read back from its files, so the
expected answers belong to the stored bytes. A seed whose answers hang on a
decision narrower than `LEAST_MARGIN` is replaced by the next one.
"""

import argparse
import json
import shutil
from collections import Counter
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import Florence2ForConditionalGeneration

import build
import checkpoints
import pictures
import random_weights
import tiny_tokenizer
from reference import Reference, exact_pixels, library_versions, require_pinned_versions
from tasks import TASK_TOKENS

OUT = Path(__file__).resolve().parent.parent / "data" / "parity"
# Ten times the difference between two correct float32 implementations.
LEAST_MARGIN = 2e-4
# An answer with fewer different tokens, the special ones included, says too little.
LEAST_KINDS_OF_TOKENS = 5
SEEDS_TRIED = 100
# So many of them are also asked that one answer ends by itself.
SEEDS_WITH_AN_ENDING = 20
PICTURE = "picture.png"


def write_checkpoint(checkpoint, folder, seed):
    """All files of a tiny checkpoint, and its picture."""
    folder.mkdir(parents=True)
    known = tiny_tokenizer.base_size(checkpoint.merges) + len(tiny_tokenizer.TASK_TOKENS)
    tokenizer = tiny_tokenizer.tokenizer_json(checkpoint.layout, checkpoint.merges)
    build.dump(folder / "tokenizer.json", tokenizer, compact=True)
    pictures.picture(*checkpoint.picture, seed).save(folder / PICTURE, optimize=True)
    build.write_checkpoint(
        folder,
        checkpoint.sizes,
        checkpoint.layout,
        checkpoint.dtype,
        known,
        seed,
        checkpoint.generation,
        random_weights.TINY,
        form=checkpoint.storage,
        tied=checkpoints.STORED_TIED[checkpoint.tied],
        logits_bias=checkpoint.logits_bias,
        temporal_table=checkpoint.temporal_table,
    )


def check_pixels(stages, checkpoint, folder):
    """The processor's pixels are the documented arithmetic, bit by bit."""
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    exact = exact_pixels(folder / PICTURE, checkpoint.sizes.side, settings["image_mean"], settings["image_std"])
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
        inputs, _ = reference.inputs(reference.folder / PICTURE, run["prompt"])
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
        asked = checkpoints.runs_of(index, checkpoint)
        runs = [reference.answer(PICTURE, *question) for question in asked]
        if worth_keeping(runs, attempt):
            break
    else:
        raise SystemExit(f"{folder.name}: no seed of {SEEDS_TRIED} was worth keeping")
    stages = reference.stages(PICTURE, runs[0]["prompt"])
    check_pixels(stages, checkpoint, folder)
    if checkpoint.layout == "native" and checkpoint.tied in ("shared", "shared-and-head", "all"):
        check_stock_loading(reference, runs)
    save_file(stages, folder / "stages.safetensors")
    settings = {"dtype": checkpoint.dtype, "storage": checkpoint.storage, "tied": checkpoint.tied, "seed": seed}
    settings |= {"logits_bias": checkpoint.logits_bias} if checkpoint.layout == "original" else {}
    expected = {
        "library": library_versions(),
        "layout": checkpoint.layout,
        "settings": settings | {"seeds_rejected": attempt},
        "runs": runs,
    }
    build.dump(folder / "expected.json", expected)
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
    require_pinned_versions()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    chosen.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for index, checkpoint in enumerate(checkpoints.CHECKPOINTS):
        if chosen.only is None or index + 1 in chosen.only:
            runs += make(index, checkpoint, chosen.out)
    if chosen.only is None:
        report(runs, chosen.out)


if __name__ == "__main__":
    main()
