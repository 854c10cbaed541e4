"""Training batches: fresh scenes, their pictures, guide targets and question-answer pairs as ids.

A batch is a pure function of its number, so a resumed run sees what an uninterrupted one would
have seen. Every scene is asked two long questions (lists and captions) and two short ones (one
object, one word); the two kinds are batched apart because padding would double the work.
"""

import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from guides import guide_targets
from language import draw_example
from model import resized
from scenes import make_scene, render
from tokenizer import build_tokenizer

PAD = 1
SEED = 1
# Scenes of training have seeds from here on; evaluation uses seeds far below.
FIRST_SCENE = SEED * 1_000_000_000
# Steps in which only the tower and its guide learn.
TOWER_STEPS = 300
# Shares of the questions. Long answers list the whole scene, short ones speak of a part of it.
LONG = {
    "dense-region-caption": 5, "object-detection": 4, "caption": 4, "detailed-caption": 2,
    "more-detailed-caption": 2, "region-proposal": 1.5, "caption-to-phrase-grounding": 3,
}
SHORT = {
    "region-to-category": 2, "region-to-description": 3, "open-vocabulary-detection": 3,
    "referring-expression-segmentation": 2, "region-to-segmentation": 2, "ocr": 1.5, "ocr-with-region": 1.5,
    "caption-to-phrase-grounding": 1,
}
QUESTIONS_EACH = 2
REGION_JITTER = 0.06


def max_objects(step):
    """Few objects first, then more."""
    after = step - TOWER_STEPS
    return 5 if after < 0 else 2 if after < 100 else 3 if after < 200 else 5


def with_questions(step):
    """Whether this step trains the language model too."""
    return step >= TOWER_STEPS


class Batches(Dataset):
    """The batches of `count` scenes of steps first to last, for process `rank` of `ranks`."""

    def __init__(self, first, last, count, rank=0, ranks=1):
        self.first, self.last, self.count, self.rank, self.ranks = first, last, count, rank, ranks
        self.tokenizer = None

    def __len__(self):
        return self.last - self.first

    def __getitem__(self, index):
        step = self.first + index
        number = step * self.ranks + self.rank
        if self.tokenizer is None:
            self.tokenizer = build_tokenizer()
        rng = random.Random(f"{SEED}/{number}")
        pictures, cells, skies, longs, shorts = [], [], [], [], []
        for i in range(self.count):
            scene = make_scene(FIRST_SCENE + number * self.count + i, max_objects(step))
            pictures.append(resized(render(scene)))
            targets, sky = guide_targets(scene)
            cells.append(targets)
            skies.append(sky)
            if with_questions(step):
                longs += self._ask(scene, LONG, rng)
                shorts += self._ask(scene, SHORT, rng)
        batch = {
            "pictures": np.stack(pictures),
            "cells": torch.from_numpy(np.stack(cells)),
            "skies": torch.tensor(skies),
        }
        if longs:
            batch["groups"] = [self._pack(longs), self._pack(shorts)]
        return batch

    def _ask(self, scene, shares, rng):
        tasks = []
        while len(tasks) < QUESTIONS_EACH:
            task = rng.choices(list(shares), list(shares.values()))[0]
            if task.startswith("ocr") and not scene.words and rng.random() < 0.7:
                continue
            if task not in tasks:
                tasks.append(task)
        return [draw_example(scene, task, rng, REGION_JITTER) for task in tasks]

    def _pack(self, examples):
        prompts = [self.tokenizer.encode(e["prompt"]).ids for e in examples]
        answers = [self.tokenizer.encode(e["target"]).ids for e in examples]
        return {
            "tasks": [e["task"] for e in examples],
            "prompts": _padded(prompts),
            "answers": _padded(answers),
        }


def _padded(rows):
    width = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def loader(batches, workers=1):
    """Batches in order, made ahead by worker processes."""
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=6 if workers else None)
