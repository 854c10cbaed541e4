"""Scores the checkpoint on held-out scenes and writes the table of models/README.md.

    ./evaluate [--backend rust|reference] [--compare] [--scenes 200] [--tasks a,b] [--no-write]

`rust` (the default) runs the server's binary, `reference` the reference library's class, both in
float32 with three beams. `--compare` runs both, the reference one picture at a time as a caller
would, and fails unless every token id agrees. The scenes come from seeds that training never uses.
OCR tasks take scenes with words only.
"""

import argparse
import os
import random
import sys

from backends import Reference, Rust
from language import TASKS, draw_example
from metrics import score
from page import write_part
from scenes import make_scene

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.dirname(HERE)
ROOT = os.path.dirname(os.path.dirname(DEMO))
# Training's seeds begin at 1,000,000,000.
FIRST_HELD_OUT = 500_000_000
# What the issue demands of a task.
BARS = {
    "caption": {"exact": 0.70},
    "object-detection": {"recall": 0.85, "precision": 0.85, "mean IoU": 0.75},
    "dense-region-caption": {"recall": 0.85, "precision": 0.85, "mean IoU": 0.75},
    "caption-to-phrase-grounding": {"recall": 0.80},
    "region-to-category": {"exact": 0.85},
}
COLUMNS = ("exact", "recall", "precision", "mean IoU")


def held_out_cases(task, count):
    """The questions of a task, one per scene."""
    rng = random.Random(f"held-out/{task}")
    cases, seed = [], FIRST_HELD_OUT
    while len(cases) < count:
        scene = make_scene(seed)
        seed += 1
        if task.startswith("ocr") and not scene.words:
            continue
        cases.append({**draw_example(scene, task, rng), "scene": scene})
    return cases


def table(scores, backend, count):
    """The Markdown table."""
    lines = [
        f"{count} held-out scenes a task, three beams, float32, "
        + ("through the server's binary." if backend == "rust" else "through the reference library."),
        "",
        "| task | exactly right | found (IoU ≥ 0.5) | of the answers, right | mean IoU | bar |",
        "|---|---|---|---|---|---|",
    ]
    for task, figures in scores.items():
        cells = [f"{figures[name]:.3f}" if name in figures else "" for name in COLUMNS]
        bar = ", ".join(f"{value:.2f}" for value in BARS.get(task, {}).values())
        if task in BARS:
            met = all(figures[name] >= value for name, value in BARS[task].items())
            bar += " ✓" if met else " (below)"
        lines.append(f"| {task} | " + " | ".join(cells) + f" | {bar} |")
    return "\n".join(lines)


def main():
    """Asks, scores, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("rust", "reference"), default="rust")
    parser.add_argument("--compare", action="store_true", help="run both and compare token ids")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--model", default=DEMO, help="folder of the checkpoint")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target", "release", "florence2-server"))
    parser.add_argument("--num-beams", type=int, default=3, help="beams of the reference backend")
    parser.add_argument("--threads", type=int, default=1, help="threads of the reference backend")
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    options = parser.parse_args()
    wanted = options.tasks.split(",")
    alone = {"batch": 1} if options.compare else {}
    backends = {"rust": lambda: Rust(options.model, options.binary),
                "reference": lambda: Reference(options.model, options.threads, options.num_beams, **alone)}
    names = ("rust", "reference") if options.compare else (options.backend,)
    ready = {name: backends[name]() for name in names}
    scores, different = {}, 0
    for task in wanted:
        cases = held_out_cases(task, options.scenes)
        answers = {name: backend.answer(cases) for name, backend in ready.items()}
        chosen = answers[options.backend if options.backend in answers else names[0]]
        scores[task] = score(task, cases, [text for _, text in chosen])
        line = f"{task}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores[task].items())
        if options.compare:
            apart = sum(a[0] != b[0] for a, b in zip(answers["rust"], answers["reference"]))
            different += apart
            line += f", token ids differ on {apart} of {len(cases)}"
        print(line, flush=True)
    text = table(scores, options.backend, options.scenes)
    print("\n" + text)
    if options.compare:
        text += f"\n\nToken ids of the binary and the reference library differ on {different} of "
        text += f"{options.scenes * len(wanted)} answers."
    if not options.no_write and set(wanted) == set(TASKS):
        write_part("measured", text)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
