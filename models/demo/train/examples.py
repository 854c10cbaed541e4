"""Makes the example pictures and their expected answers.

    python examples.py [--model models/demo]

Looks through seeds that neither training nor evaluation uses and keeps, for each of six wishes
about size, background, number of shapes and words, the first scene to which the checkpoint answers
rightly: every label, every box (IoU at least 0.75), the caption, a grounded phrase, a region and
the written words. Writes PNG files and `expected.json`, whose boxes are the true ones in
pixels and whose region is in location bins (thousandths of the sides), as the endpoints take it.
Only its `token_ids` are an answer: the reference library's, with three beams in float32.
"""

import argparse
import json
import os
import re

from backends import Reference
from language import bins, caption, phrase, short_phrase, with_article
from metrics import iou, pieces, plain
from scenes import make_scene, render

HERE = os.path.dirname(os.path.abspath(__file__))
FIRST_SEED = 700_000_000
MIN_IOU = 0.75
# name, (width, height), background, number of shapes, number of words
WISHES = (
    ("three-on-stripes", (480, 360), "striped", 3, 0),
    ("four-on-checks", (400, 400), "checkered", 4, 0),
    ("two-and-a-word", (480, 360), "graded", 2, 1),
    ("portrait", (360, 480), "graded", 3, 0),
    ("five-on-noise", (500, 375), "noisy", 5, 0),
    ("plain-and-a-word", (420, 380), "plain", 3, 1),
)
OVERSAMPLE = 3
SEEDS_A_WISH = 4000


def questions(scene):
    """The cases that an example must answer, by task."""
    first, last = scene.things[0], scene.things[-1]
    said = f"{with_article(short_phrase(last))} and {with_article(short_phrase(first))}"
    asked = [
        ("caption", None, None, None),
        ("object-detection", None, None, None),
        ("dense-region-caption", None, None, None),
        ("caption-to-phrase-grounding", said, None, [last, first]),
        ("region-to-category", None, last.box, [last]),
        ("ocr", None, None, None),
    ]
    return [dict(scene=scene, task=t, text=s, region=r, things=o) for t, s, r, o in asked]


def boxes(things, name):
    """Labelled true boxes with one decimal."""
    return [{"label": name(thing), "box": [round(value, 1) for value in thing.box]} for thing in things]


def expected(scene):
    """What expected.json says about a scene."""
    last, first = scene.things[-1], scene.things[0]
    cases = {case["task"]: case for case in questions(scene)}
    return {
        "width": scene.width,
        "height": scene.height,
        "caption": caption(scene),
        "dense-region-caption": boxes(scene.things, phrase),
        "object-detection": boxes(scene.things, lambda thing: thing.shape),
        "caption-to-phrase-grounding": {
            "text": cases["caption-to-phrase-grounding"]["text"],
            "boxes": boxes([last, first], short_phrase),
        },
        "region-to-category": {"region": bins(last.box, scene), "text": last.shape},
        "ocr": {"text": " ".join(word.text for word in scene.words)},
    }


def is_right(wanted, case, text):
    """Whether one answer is wholly right."""
    task = case["task"]
    if task == "caption":
        return plain(text) == wanted["caption"]
    if task in ("region-to-category", "ocr"):
        return plain(text) == wanted[task]["text"]
    truth = wanted[task]["boxes"] if task == "caption-to-phrase-grounding" else wanted[task]
    found = pieces(text, case["scene"], 4)
    return len(found) == len(truth) and all(
        label == true["label"] and iou(box, true["box"]) >= MIN_IOU for (label, box), true in zip(found, truth)
    )


def find(wish, reference, taken):
    """The first scene that is as wished and rightly answered, the pictures of questions as drawn."""
    _, size, background, count, words = wish
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS_A_WISH):
        scene = make_scene(seed, size=size)
        fits = (scene.background, len(scene.things), len(scene.words)) == (background, count, words)
        mixed = len({thing.size for thing in scene.things}) == 2 and len({thing.shape for thing in scene.things}) == count
        if not fits or not mixed or seed in taken:
            continue
        wanted, cases = expected(scene), questions(scene)
        answers = reference.answer(cases, OVERSAMPLE)
        if all(is_right(wanted, case, text) for case, (_, text) in zip(cases, answers)):
            taken.add(seed)
            wanted["token_ids"] = {case["task"]: ids for case, (ids, _) in zip(cases, answers)}
            return scene, wanted
    raise SystemExit(f"no scene for {wish}")


def numbers_on_one_line(text):
    """Indented JSON with every list of numbers joined into one line."""
    return re.sub(r"\[[\s\d.,-]+\]", lambda found: "[" + ", ".join(found[0][1:-1].replace(",", " ").split()) + "]", text)


def main():
    """Finds, draws and describes the six."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=os.path.dirname(HERE))
    parser.add_argument("--to", default=os.path.join(os.path.dirname(HERE), "examples"))
    options = parser.parse_args()
    os.makedirs(options.to, exist_ok=True)
    reference, taken, answers = Reference(options.model, batch=1), set(), {}
    for wish in WISHES:
        scene, wanted = find(wish, reference, taken)
        render(scene, OVERSAMPLE).save(os.path.join(options.to, wish[0] + ".png"))
        answers[wish[0] + ".png"] = wanted
        print(wish[0], scene.seed, wanted["caption"])
    with open(os.path.join(options.to, "expected.json"), "w") as file:
        file.write(numbers_on_one_line(json.dumps(answers, indent=2)) + "\n")


if __name__ == "__main__":
    main()
