"""The eight shapes the demo model knows, as outlines in a unit frame.

Each shape has two outlines: a fine one, which is drawn and gives the exact box, and a coarse one of
at most twelve points, which is the target of the segmentation tasks. Both live here so that they
cannot drift apart. Nothing here knows about colours, pictures or tokens.

The frame is x to the right, y downwards, the shape about the origin with a radius of about one.
"""

import math

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")

# Inner radius of the ring's hole, as a fraction of its outer radius.
RING_HOLE = 0.52


def _arc(count, radius=1.0, start=0.0, turn=2 * math.pi, cx=0.0, cy=0.0, closed=True):
    steps = count if closed else count - 1
    return [
        (cx + radius * math.cos(start + turn * i / steps), cy + radius * math.sin(start + turn * i / steps))
        for i in range(count)
    ]


def _star():
    points = []
    for i in range(10):
        radius = 1.0 if i % 2 == 0 else 0.42
        angle = -math.pi / 2 + math.pi * i / 5
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return points


def _cross():
    a, b = 1.0, 0.34
    return [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]


def _heart(count):
    points = []
    for i in range(count):
        t = 2 * math.pi * i / count
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16, -(y + 2.5) / 16))
    return points


def _moon(outer, inner):
    # A disc minus a disc of 0.85 of its radius, shifted right; the horns are where the circles meet.
    radius, shift = 0.85, 0.62
    x = (1 + shift * shift - radius * radius) / (2 * shift)
    horn = math.acos(x)
    horn_in = math.atan2(math.sqrt(1 - x * x), x - shift)
    back = _arc(outer, 1.0, horn, 2 * math.pi - 2 * horn, closed=False)
    front = _arc(inner, radius, -horn_in, -(2 * math.pi - 2 * horn_in), cx=shift, closed=False)
    return [(px + 0.3, py) for px, py in back + front[1:-1]]


def fine_outline(shape):
    """The outline that is drawn, in the unit frame."""
    if shape in ("circle", "ring"):
        return _arc(48)
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "triangle":
        return [(0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)]
    if shape == "star":
        return _star()
    if shape == "cross":
        return _cross()
    if shape == "heart":
        return _heart(40)
    return _moon(30, 24)


def coarse_outline(shape):
    """The outline that the segmentation tasks answer with: the same shape in at most twelve points."""
    if shape in ("circle", "ring"):
        return _arc(8, 1.04, math.pi / 8)
    if shape == "heart":
        return _heart(10)
    if shape == "moon":
        return _moon(6, 6)
    return fine_outline(shape)
