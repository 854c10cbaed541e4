"""Reads answers in the output language and scores them against what is true of a scene.

Boxes count as hits when the label is exactly right and the overlap (IoU) is at least one half;
every true object can be hit once. Captions, categories, descriptions and written words must be
right to the letter. Masks are compared as filled polygons, pixel by pixel.
"""

import re

import numpy as np
from PIL import Image, ImageDraw

from language import phrase, reference_answer, short_phrase

HIT = 0.5
LOCATION = re.compile(r"<loc_(\d+)>")
PIECE = re.compile(r"([^<]*)((?:<loc_\d+>){4,})")
TEXT_ANSWERS = (
    "caption", "detailed-caption", "more-detailed-caption", "region-to-category", "region-to-description", "ocr",
)
MASK_ANSWERS = ("referring-expression-segmentation", "region-to-segmentation")


def plain(text):
    """The answer without the sequence tokens."""
    for token in ("<s>", "</s>", "<pad>"):
        text = text.replace(token, "")
    return text.strip()


def pixels(bins, scene):
    """Bins x, y, x, y, … as the middle of their cells in pixels."""
    sizes = (scene.width, scene.height)
    return [(n + 0.5) * sizes[i % 2] / 1000 for i, n in enumerate(bins)]


def pieces(text, scene, group):
    """(label, coordinates) for every `group` locations that follow a label."""
    found = []
    for label, tail in PIECE.findall(plain(text)):
        bins = [int(n) for n in LOCATION.findall(tail)]
        for at in range(0, len(bins) - group + 1, group):
            found.append((label.strip(), pixels(bins[at : at + group], scene)))
    return found


def iou(a, b):
    """Intersection over union of two corner boxes."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    shared = w * h
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def match(answers, truths):
    """The overlaps of the hits, best first; each answer and each truth is used once."""
    pairs = sorted(
        ((iou(box, true), i, j) for i, (label, box) in enumerate(answers)
         for j, (want, true) in enumerate(truths) if label == want),
        reverse=True,
    )
    hits, used, taken = [], set(), set()
    for overlap, i, j in pairs:
        if overlap >= HIT and i not in used and j not in taken:
            hits.append(overlap)
            used.add(i)
            taken.add(j)
    return hits


def truths(case):
    """(label, box) of everything that a box task should find."""
    scene, task, things = case["scene"], case["task"], case["things"]
    if task == "object-detection":
        return [(thing.shape, thing.box) for thing in scene.things]
    if task == "dense-region-caption":
        return [(phrase(thing), thing.box) for thing in scene.things]
    if task == "region-proposal":
        return [("", thing.box) for thing in scene.things]
    if task == "ocr-with-region":
        return [(word.text, word.box) for word in scene.words]
    if task == "caption-to-phrase-grounding":
        return [(short_phrase(thing), thing.box) for thing in things]
    label = re.sub(r"^(a|an|the) ", "", case["text"])
    return [(label, thing.box) for thing in things]


def mask_overlap(bins, case):
    """IoU of the answered polygon and the drawn outline, in pixels."""
    scene = case["scene"]
    points = pixels(bins, scene)
    if len(points) < 6:
        return 0.0
    masks = []
    for polygon in (list(zip(points[0::2], points[1::2])), case["things"][0].outline):
        mask = Image.new("1", (scene.width, scene.height))
        ImageDraw.Draw(mask).polygon(polygon, fill=1)
        masks.append(np.asarray(mask))
    return float((masks[0] & masks[1]).sum() / max(1, (masks[0] | masks[1]).sum()))


def score(task, cases, texts):
    """The figures of one task as a dictionary."""
    if task in TEXT_ANSWERS:
        wanted = [reference_answer(case["scene"], task, case["text"], case["things"]) for case in cases]
        return {"exact": float(np.mean([plain(text) == want for text, want in zip(texts, wanted)]))}
    if task in MASK_ANSWERS:
        overlaps = [
            mask_overlap([int(n) for n in LOCATION.findall(text)], case) for text, case in zip(texts, cases)
        ]
        return {"recall": float(np.mean([o >= HIT for o in overlaps])), "mean IoU": float(np.mean(overlaps))}
    hits, answered, real = [], 0, 0
    for case, text in zip(cases, texts):
        found = pieces(text, case["scene"], 8 if task == "ocr-with-region" else 4)
        if task == "ocr-with-region":
            found = [(label, quad[0:2] + quad[4:6]) for label, quad in found]
        want = truths(case)
        hits += match(found, want)
        answered += len(found)
        real += len(want)
    return {
        "recall": len(hits) / max(1, real),
        "precision": len(hits) / max(1, answered),
        "mean IoU": float(np.mean(hits)) if hits else 0.0,
    }
