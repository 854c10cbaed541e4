"""Guides: training-only heads that tell the network what stands where.

A sequence model of this size needs very long to learn to point from answers alone. During training
small linear heads read every image token and are asked what object covers it: shape or written
word, colour, size, place in the order, and the four edges as location bins. The edges are scored
against the model's own location embeddings, so the very vectors that the decoder later answers
with are learned from the picture directly. The heads are thrown away on export.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from language import quantise
from model import D_MODEL, GRID
from scenes import BACKGROUNDS, COLOURS, SIZES, WORDS
from shapes import SHAPES

COLOUR_NAMES = list(COLOURS)
NOTHING = 0
# Columns of the target array: class, colour, size, rank, x1, y1, x2, y2 (bins), is centre.
COLUMNS = 9
CLASSES = 1 + len(SHAPES) + len(WORDS)
# Cells at which the edges are asked for: those this close to the middle, in half sides.
CENTRE = 0.6


def guide_targets(scene):
    """int16 (GRID * GRID, COLUMNS): what covers each cell; and the number of the background."""
    cells = np.zeros((GRID, GRID, COLUMNS), dtype=np.int16)
    best = np.full((GRID, GRID), 1.0)
    ys, xs = (np.mgrid[0:GRID, 0:GRID] + 0.5) / GRID
    entries = [
        (1 + SHAPES.index(t.shape), COLOUR_NAMES.index(t.colour), SIZES.index(t.size), rank, t.box)
        for rank, t in enumerate(scene.things)
    ] + [(1 + len(SHAPES) + WORDS.index(w.text), 0, 0, 0, w.box) for w in scene.words]
    for kind, colour, size, rank, (x1, y1, x2, y2) in entries:
        bins = [quantise(v, s) for v, s in zip((x1, y1, x2, y2), (scene.width, scene.height) * 2)]
        cx, cy = (x1 + x2) / 2 / scene.width, (y1 + y2) / 2 / scene.height
        w, h = (x2 - x1) / 2 / scene.width, (y2 - y1) / 2 / scene.height
        distance = np.maximum(np.abs(xs - cx) / w, np.abs(ys - cy) / h)
        nearest = np.unravel_index(np.argmin((xs - cx) ** 2 + (ys - cy) ** 2), distance.shape)
        take = distance < best
        take[nearest] = True
        best[take] = distance[take]
        centre = (distance < CENTRE) & take
        centre[nearest] = True
        cells[take, :8] = (kind, colour, size, rank, *bins)
        cells[take, 8] = centre[take]
    return cells.reshape(-1, COLUMNS), BACKGROUNDS.index(scene.background)


class Guide(nn.Module):
    """The heads over one set of image tokens (batch, 1 + GRID * GRID, D_MODEL)."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(D_MODEL)
        self.kind = nn.Linear(D_MODEL, CLASSES)
        self.colour = nn.Linear(D_MODEL, len(COLOURS))
        self.size = nn.Linear(D_MODEL, len(SIZES))
        self.rank = nn.Linear(D_MODEL, 6)
        self.edges = nn.Linear(D_MODEL, 4 * D_MODEL)
        self.background = nn.Linear(D_MODEL, len(BACKGROUNDS))

    def forward(self, tokens, targets, backgrounds, locations, softness):
        """The loss and how often each head is right; `locations` are the model's (1000, D_MODEL)."""
        tokens = self.norm(tokens)
        cells = tokens[:, 1:].reshape(-1, D_MODEL)
        targets = targets.reshape(-1, COLUMNS).long()
        kind = self.kind(cells).float()
        loss = F.cross_entropy(kind, targets[:, 0])
        some = targets[:, 0] != NOTHING
        thing = some & (targets[:, 0] <= len(SHAPES))
        # Most cells are empty; what the others show must not drown in them.
        loss = loss + F.cross_entropy(kind[some], targets[some, 0])
        scores = {"kind": _right(kind[some], targets[some, 0])}
        shown, wanted = cells[thing], targets[thing]
        for name, column, weight in (("colour", 1, 0.3), ("size", 2, 0.3), ("rank", 3, 0.3)):
            logits = getattr(self, name)(shown).float()
            loss = loss + weight * F.cross_entropy(logits, wanted[:, column])
            scores[name] = _right(logits, wanted[:, column])
        centre = targets[:, 8] == 1
        bins = targets[centre, 4:8].reshape(-1)
        queries = self.edges(cells[centre]).reshape(-1, D_MODEL)
        logits = F.linear(queries, locations).float()
        loss = loss + 0.5 * (torch.logsumexp(logits, 1) - (logits * softness[bins]).sum(1)).mean()
        scores["edge"] = ((logits.argmax(1) - bins).abs() <= 15).float().mean()
        sky = self.background(tokens[:, 0]).float()
        return loss + 0.1 * F.cross_entropy(sky, backgrounds), scores


def _right(logits, wanted):
    return (logits.argmax(1) == wanted).float().mean()
