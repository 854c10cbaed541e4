"""The same tiny checkpoints, asked about JPEG and WebP files.

    python make_parity_formats.py [--out ../data/parity]

Puts three files beside `picture.png` in some checkpoints' folders and writes `formats.json`: the library's answers to
questions of `expected.json`, and for each file the SHA-256 of the processor's pixel values (float32, little-endian).
An answer that hangs on a narrow decision is left out.
"""

import argparse
import hashlib
from pathlib import Path

import torch
import transformers
from PIL import Image

import build
from make_parity import LEAST_KINDS_OF_TOKENS, LEAST_MARGIN, OUT, PICTURE
from reference import Reference, library_versions, read_json, require_pinned_versions

FOLDERS = ("01-original-f16", "02-native-f16", "09-original-separate-head", "22-native-own-settings", "31-original-tall-picture")
FORMATS = {
    "baseline.jpg": {"quality": 75, "subsampling": 2},
    "progressive.jpg": {"quality": 85, "subsampling": 1, "progressive": True},
    "lossy.webp": {"quality": 80},
}
ANSWERS_A_PICTURE = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    require_pinned_versions()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for name in FOLDERS:
        folder = out / name
        stored = read_json(folder / "expected.json")
        reference = Reference(folder, stored["layout"])
        runs, sums = [], {}
        for file, options in FORMATS.items():
            Image.open(folder / PICTURE).save(folder / file, **options)
            pixels = reference.inputs(folder / file, stored["runs"][0]["prompt"])[0]["pixel_values"]
            sums[file] = hashlib.sha256(pixels.numpy().astype("<f4").tobytes()).hexdigest()
            kept = []
            for asked in stored["runs"]:
                run = reference.answer(file, asked["task"], asked["prompt"], asked["passed"])
                margin = run["transition_margin"]
                if (margin is None or margin >= LEAST_MARGIN) and len(set(run["token_ids"])) >= LEAST_KINDS_OF_TOKENS:
                    kept.append(run)
                if len(kept) == ANSWERS_A_PICTURE:
                    break
            if not kept:
                raise SystemExit(f"{name}: no answer to {file} was worth keeping")
            runs += kept
        build.dump(folder / "formats.json", {"library": library_versions(), "pixel_values_sha256": sums, "runs": runs})
        print(f"{name}: {len(runs)} runs")


if __name__ == "__main__":
    main()
