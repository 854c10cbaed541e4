"""The real base or large architecture with random weights, made on the spot.

    python real_architecture.py --size large --layout original --out DIR

writes a checkpoint folder with the real tokenizer, pictures, `expected.json`
and `stages.safetensors` in the form of the tiny ones. `--time` measures the
reference library on such a folder instead (and makes it first if it is missing).
"""

import argparse
import resource
import shutil
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

import build
import configs
import pictures
import random_weights
from checkpoints import PUBLISHED_GENERATION
from reference import SPECIAL_IDS, Reference, library_versions, require_pinned_versions
from tasks import prompt_of

TOKENIZERS = Path(__file__).resolve().parent.parent / "data" / "tokenizer"
TOKENIZER = "tokenizer.json"
SIZES = {"base": configs.BASE, "large": configs.LARGE}
# Tokens of the published vocabulary without `<image>`.
KNOWN_TOKENS = 51289
SEED = 2
# Well above what two correct float32 implementations differ by at this size.
LEAST_MARGIN = 1e-3
# Larger, smaller and taller than the model's square.
PICTURE_SIZES = [(640, 480), (500, 900), (1024, 768), (333, 777), (1, 1)]
# Per picture: asked in this order until as many as wanted were decided clearly.
TASKS = [
    ["dense-region-caption", "object-detection", "region-proposal", "caption"],
    ["ocr-with-region", "caption-to-phrase-grounding", "region-to-category", "more-detailed-caption"],
    ["open-vocabulary-detection", "detailed-caption", "referring-expression-segmentation", "ocr"],
]
BEAMS = [1, 3]
TIMED_TOKENS = 100


def write(arguments):
    """The checkpoint folder without what is expected of it."""
    folder = arguments.out
    folder.mkdir(parents=True)
    shutil.copy(arguments.tokenizer or TOKENIZERS / arguments.layout / TOKENIZER, folder / TOKENIZER)
    sizes = SIZES[arguments.size]
    build.write_checkpoint(
        folder,
        sizes,
        arguments.layout,
        arguments.dtype,
        KNOWN_TOKENS,
        arguments.seed,
        dict(PUBLISHED_GENERATION),
        random_weights.real_scales(sizes.decoder_layers),
    )


def ask(reference, arguments):
    """Runs for every picture: greedy and three beams, each on another task."""
    runs = []
    for number in range(arguments.pictures):
        picture = f"picture-{number + 1}.png"
        size = PICTURE_SIZES[number % len(PICTURE_SIZES)]
        pictures.picture(*size, arguments.seed * 100 + number).save(reference.folder / picture)
        tasks = list(TASKS[number % len(TASKS)])
        for beams in BEAMS:
            while tasks:
                task = tasks.pop(0)
                passed = {"num_beams": beams, "max_new_tokens": arguments.max_new_tokens}
                run = reference.answer(picture, task, prompt_of(task, 0), passed)
                margin = run["transition_margin"]
                print(f"{picture} {task} {beams} beams, margin {margin:.1e}: {run['text'][:300]}", flush=True)
                if margin >= LEAST_MARGIN:
                    runs.append(run)
                    break
    return runs


def make(arguments):
    """Everything a parity test needs."""
    write(arguments)
    if arguments.weights_only:
        return
    reference = Reference(arguments.out, arguments.layout)
    runs = ask(reference, arguments)
    save_file(reference.stages(runs[0]["picture"], runs[0]["prompt"]), arguments.out / "stages.safetensors")
    settings = {"size": arguments.size, "dtype": arguments.dtype, "seed": arguments.seed, "storage": "safetensors"}
    expected = {"library": library_versions(), "layout": arguments.layout, "settings": settings, "runs": runs}
    build.dump(arguments.out / "expected.json", expected)


def clock(call):
    """Milliseconds of one call, and what it gave."""
    start = time.perf_counter()
    value = call()
    return 1000 * (time.perf_counter() - start), value


@torch.no_grad()
def measure(arguments):
    """Milliseconds of the library's stages in float32 on this folder, with its fastest attention."""
    loading, reference = clock(lambda: Reference(arguments.out, arguments.layout, attention="sdpa"))
    picture = reference.folder / "picture-1.png"
    if not picture.exists():
        pictures.picture(*PICTURE_SIZES[0], arguments.seed * 100).save(picture)
    inputs, _ = reference.inputs(picture, prompt_of("dense-region-caption", 0))
    model = reference.model
    inner = model.model
    inner.vision_tower(inputs["pixel_values"])
    vision, features = clock(lambda: inner.get_image_features(inputs["pixel_values"]).pooler_output)
    embeddings = inner.get_input_embeddings()(inputs["input_ids"])
    embeddings[:, : features.shape[1]] = features
    encoder, encoded = clock(lambda: inner.language_model.encoder(inputs_embeds=embeddings))
    settings = dict(reference.settings({"num_beams": 3}), max_new_tokens=TIMED_TOKENS)
    config = transformers.GenerationConfig(**SPECIAL_IDS, **settings, min_new_tokens=TIMED_TOKENS)
    decoder, _ = clock(lambda: model.generate(**inputs, encoder_outputs=encoded, generation_config=config))
    total, answer = clock(lambda: model.generate(**inputs, generation_config=config))
    tokens = answer.shape[1] - 1
    print(f"{torch.get_num_threads()} threads, float32, 3 beams, {tokens} new tokens, milliseconds")
    print(f"load {loading:.0f}  vision {vision:.0f}  encoder {encoder:.0f}", end="  ")
    print(f"per token {decoder / tokens:.1f}  total {total:.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--layout", choices=["original", "native"], required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", choices=["f16", "f32"], default="f16")
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json to copy, instead of the repository's")
    parser.add_argument("--weights-only", action="store_true", help="no pictures and no answers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time", action="store_true")
    arguments = parser.parse_args()
    require_pinned_versions()
    arguments.dtype = {"f16": "float16", "f32": "float32"}[arguments.dtype]
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    if not (arguments.time and (arguments.out / "config.json").exists()):
        make(arguments)
    if arguments.time:
        measure(arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"peak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
