"""Small pictures with something of everything: gradients, shapes, noise.

Seeded, so that a picture can be made again; stored as PNG, so that nobody
has to.
"""

import numpy as np
from PIL import Image, ImageDraw


def picture(width, height, seed):
    """A `width` by `height` RGB picture."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    pixels = np.empty((height, width, 3))
    for channel in range(3):
        slope = random.uniform(-1, 1, 2)
        ramp = slope[0] * x / max(width - 1, 1) + slope[1] * y / max(height - 1, 1)
        pixels[..., channel] = 128 + 90 * ramp
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        left, top = random.integers(0, width), random.integers(0, height)
        right, bottom = left + random.integers(2, width), top + random.integers(2, height)
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        shape = draw.rectangle if random.random() < 0.5 else draw.ellipse
        shape([int(left), int(top), int(right), int(bottom)], fill=colour)
    pixels = np.asarray(image).astype(np.int64)
    # Noise over one quarter: enough to see every tap of the resizing filter,
    # without making every file incompressible.
    noise = random.integers(-100, 101, (height // 2, width // 2, 3))
    pixels = pixels.copy()
    pixels[: height // 2, width - width // 2 :] += noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
