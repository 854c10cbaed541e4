"""Scenes: a picture and everything that is true about it, as a pure function of a seed.

One to five shapes on a plain, graded, noisy, striped or checkered background, with modest overlap,
in pictures of different sizes and aspect ratios; some carry one or two words. `make_scene` decides
what is there, `render` draws it. What a model should say about a scene is `language.py`'s business.

Objects are listed from left to right by their left edge, and their left edges are kept apart, so
that the order is never a matter of a pixel. A pair of shape and colour occurs once in a scene, so
that "red circle" always means one thing.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shapes import RING_HOLE, SHAPES, coarse_outline, fine_outline

COLOURS = {
    "red": (214, 32, 38),
    "orange": (250, 138, 18),
    "yellow": (248, 222, 32),
    "green": (34, 150, 62),
    "blue": (32, 84, 214),
    "purple": (132, 44, 168),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
}
SIZES = ("small", "large")
BACKGROUNDS = ("plain", "graded", "noisy", "striped", "checkered")
WORDS = (
    "OPEN", "STOP", "EXIT", "SALE", "TAXI", "CAFE", "BANK", "PARK", "HOTEL", "MENU",
    "FREE", "NEWS", "BOOK", "SHOP", "ZOO", "BUS", "GYM", "LIVE", "MILK", "FISH",
)
# Longer side of an object relative to sqrt(width * height); the gap keeps the two sizes apart.
SIZE_RANGES = {"small": (0.17, 0.21), "large": (0.31, 0.39)}
# Share of the smaller of two boxes that another may cover.
MAX_OVERLAP = 0.12
# Left edges are at least this far apart, as a share of the width.
MIN_LEFT_GAP = 0.03
OBJECT_COUNTS = (0.14, 0.24, 0.28, 0.20, 0.14)


@dataclass
class Thing:
    """One shape: what it is, its exact box and outlines in pixels (x1, y1, x2, y2 and x, y pairs)."""

    shape: str
    colour: str
    size: str
    rgb: tuple
    box: tuple
    outline: list
    polygon: list
    hole: list = field(default_factory=list)


@dataclass
class Word:
    """One rendered word and its box in pixels."""

    text: str
    box: tuple
    font_size: int
    rgb: tuple

    def quad(self):
        """The four corners, clockwise from the top left."""
        x1, y1, x2, y2 = self.box
        return [x1, y1, x2, y1, x2, y2, x1, y2]


@dataclass
class Scene:
    """Everything that is true about one picture."""

    width: int
    height: int
    background: str
    tint: tuple
    seed: int
    things: list
    words: list


def make_scene(seed, max_objects=5, size=None):
    """The scene of a seed. `size` fixes (width, height); otherwise it is drawn too."""
    rng = np.random.default_rng([20240601, seed])
    if size is None:
        aspect = math.exp(rng.uniform(-0.36, 0.36))
        area = rng.uniform(176, 420) ** 2
        size = (max(160, round(math.sqrt(area * aspect))), max(160, round(math.sqrt(area / aspect))))
    width, height = size
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    tint = _tint(rng)
    count = min(1 + rng.choice(len(OBJECT_COUNTS), p=OBJECT_COUNTS), max_objects)
    words = _place_words(rng, width, height, tint)
    things = _place_things(rng, width, height, count, [word.box for word in words])
    if not things:
        # Rarely the words leave no room; a scene is never empty.
        words = []
        things = _place_things(rng, width, height, count, [])
    things.sort(key=lambda thing: thing.box[0])
    words.sort(key=lambda word: word.box[1])
    return Scene(width, height, background, tint, seed, things, words)


def _tint(rng):
    # Backgrounds are of middle lightness and little saturation: no object colour is near them.
    base = rng.uniform(120, 190)
    return tuple(float(np.clip(base + rng.uniform(-16, 16), 0, 255)) for _ in range(3))


@lru_cache(maxsize=256)
def _font(size):
    return ImageFont.load_default(size)


def _place_words(rng, width, height, tint):
    draw = rng.random()
    count = 0 if draw < 0.62 else 1 if draw < 0.92 else 2
    words = []
    for text in rng.permutation(WORDS)[:count]:
        text = str(text)
        target = rng.uniform(0.30, 0.42) * width
        probe = _font(40).getbbox(text)
        font_size = max(14, int(40 * target / (probe[2] - probe[0])))
        left, top, right, bottom = _font(font_size).getbbox(text)
        w, h = right - left, bottom - top
        for _ in range(30):
            x, y = rng.uniform(2, max(3, width - w - 2)), rng.uniform(2, max(3, height - h - 2))
            box = (float(round(x)), float(round(y)), float(round(x) + w), float(round(y) + h))
            if box[2] < width and box[3] < height and all(_overlap(box, other.box) == 0 for other in words):
                dark = bool(rng.random() < 0.5)
                rgb = (16, 18, 40) if dark else (252, 252, 246)
                words.append(Word(text, box, font_size, rgb))
                break
    return words


def _place_things(rng, width, height, count, taken):
    things, pairs, larges = [], set(), 0
    scale = math.sqrt(width * height)
    for _ in range(count):
        size = SIZES[int(rng.random() < 0.5)]
        if size == "large" and larges >= (3 if count < 4 else 2):
            size = "small"
        for _ in range(60):
            shape = SHAPES[rng.integers(len(SHAPES))]
            colour = list(COLOURS)[rng.integers(len(COLOURS))]
            if (shape, colour) in pairs:
                continue
            thing = _thing(rng, shape, colour, size, width, height, scale)
            if thing and _fits(thing, things, taken, width):
                things.append(thing)
                pairs.add((shape, colour))
                larges += size == "large"
                break
    return things


def _thing(rng, shape, colour, size, width, height, scale):
    angle = 0.0 if shape in ("circle", "ring") else rng.uniform(-0.2, 0.2)
    fine = _turn(fine_outline(shape), angle)
    xs, ys = [p[0] for p in fine], [p[1] for p in fine]
    extent = max(max(xs) - min(xs), max(ys) - min(ys))
    zoom = rng.uniform(*SIZE_RANGES[size]) * scale / extent
    margin = 2
    low = (margin - min(xs) * zoom, margin - min(ys) * zoom)
    high = (width - margin - max(xs) * zoom, height - margin - max(ys) * zoom)
    if low[0] >= high[0] or low[1] >= high[1]:
        return None
    cx, cy = rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])
    outline = [(cx + x * zoom, cy + y * zoom) for x, y in fine]
    polygon = [(cx + x * zoom, cy + y * zoom) for x, y in _turn(coarse_outline(shape), angle)]
    hole = [(cx + x * zoom * RING_HOLE, cy + y * zoom * RING_HOLE) for x, y in fine] if shape == "ring" else []
    rgb = tuple(int(np.clip(value + rng.uniform(-14, 14), 0, 255)) for value in COLOURS[colour])
    box = (
        min(p[0] for p in outline), min(p[1] for p in outline),
        max(p[0] for p in outline), max(p[1] for p in outline),
    )
    return Thing(shape, colour, size, rgb, box, outline, polygon, hole)


def _turn(points, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def _overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _fits(thing, things, taken, width):
    if any(_overlap(thing.box, box) > 0.0 for box in taken):
        return False
    for other in things:
        if _overlap(thing.box, other.box) > MAX_OVERLAP:
            return False
        if abs(thing.box[0] - other.box[0]) < MIN_LEFT_GAP * width:
            return False
    return True


def render(scene, oversample=1):
    """The picture of a scene. `oversample` draws the shapes larger and shrinks them, for smooth edges."""
    rng = np.random.default_rng([20240602, scene.seed])
    picture = Image.fromarray(_background(rng, scene))
    if oversample > 1:
        picture = picture.resize((scene.width * oversample, scene.height * oversample), Image.BICUBIC)
    for thing in scene.things:
        _draw_thing(picture, thing, oversample)
    if oversample > 1:
        picture = picture.resize((scene.width, scene.height), Image.LANCZOS)
    draw = ImageDraw.Draw(picture)
    for word in scene.words:
        font = _font(word.font_size)
        left, top, _, _ = font.getbbox(word.text)
        draw.text((word.box[0] - left, word.box[1] - top), word.text, fill=word.rgb, font=font)
    return picture


def _draw_thing(picture, thing, zoom):
    outline = [(x * zoom, y * zoom) for x, y in thing.outline]
    if not thing.hole:
        ImageDraw.Draw(picture).polygon(outline, fill=thing.rgb)
        return
    mask = Image.new("L", picture.size, 0)
    draw = ImageDraw.Draw(mask)
    draw.polygon(outline, fill=255)
    draw.polygon([(x * zoom, y * zoom) for x, y in thing.hole], fill=0)
    picture.paste(thing.rgb, mask=mask)


def _background(rng, scene):
    h, w = scene.height, scene.width
    xs = np.arange(w, dtype=np.float32)[None, :]
    ys = np.arange(h, dtype=np.float32)[:, None]
    light = np.zeros((h, w), dtype=np.float32)
    if scene.background == "graded":
        angle = rng.uniform(0, 2 * math.pi)
        light += (math.cos(angle) * (xs / w - 0.5) + math.sin(angle) * (ys / h - 0.5)) * rng.uniform(50, 80)
    elif scene.background == "noisy":
        light += rng.integers(-26, 27, (h, w), dtype=np.int8)
    elif scene.background in ("striped", "checkered"):
        period = rng.uniform(0.06, 0.11) * math.sqrt(w * h)
        angle = rng.uniform(-0.6, 0.6) if scene.background == "striped" else rng.uniform(-0.1, 0.1)
        bands = np.floor((xs * math.cos(angle) + ys * math.sin(angle)) / period)
        if scene.background == "checkered":
            bands += np.floor((ys * math.cos(angle) - xs * math.sin(angle)) / period)
        light += ((bands % 2) * 2 - 1) * rng.uniform(9, 14)
    canvas = np.empty((h, w, 3), dtype=np.uint8)
    for channel, base in enumerate(scene.tint):
        canvas[..., channel] = np.clip(light + base, 0, 255)
    return canvas
