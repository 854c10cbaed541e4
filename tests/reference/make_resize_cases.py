"""Makes small pictures in many modes and what Pillow makes of them at 96 x 96 pixels.

Writes `tests/data/resize/*.png` and `tests/data/resize/expected.json`. The expected values are
SHA-256 sums over the interleaved RGB bytes of `convert("RGB")` (key `rgb_sha256`) and of
`convert("RGB").resize((96, 96), BICUBIC)` (key `resized_sha256`).

Pillow opens 16-bit grey as mode `I;16`, whose conversion to RGB takes every sample above 255 as
white. Rows of that mode therefore have a second pair of sums under `upper_byte`, for the conversion
that Pillow itself uses for all other 16-bit pictures: the upper byte of each sample.

Pillow 13 resizes tall pictures in another order of passes; this needs Pillow 12:

    pip install "pillow==12.3.0" && python tests/reference/make_resize_cases.py
"""

import hashlib
import json
import pathlib
import struct
import zlib

import PIL
from PIL import Image

SIDE = 96
FOLDER = pathlib.Path(__file__).resolve().parent.parent / "data" / "resize"


def sample(x, y, c):
    """One byte of a picture that has gradients, edges and noise."""
    return (((31 * x + 17 * y + 101 * c) ^ (x * y + 7 * c)) + (40 if (x // 5 + y // 3) % 2 else 0)) & 255


def picture(mode, size):
    """A picture of one of Pillow's 8-bit modes."""
    width, height = size
    bands = len(mode) if mode in ("L", "LA", "RGB", "RGBA") else 1
    samples = bytes(sample(x, y, c) for y in range(height) for x in range(width) for c in range(bands))
    return Image.frombytes(mode, size, samples)


def palette(size, transparent):
    """A palette picture of 37 colours, some of them transparent on request."""
    width, height = size
    image = Image.frombytes("P", size, bytes(sample(x, y, 0) % 37 for y in range(height) for x in range(width)))
    image.putpalette([sample(i, i * i, c) for i in range(37) for c in range(3)])
    if transparent:
        image.info["transparency"] = bytes(7 * i & 255 for i in range(37))
    return image


def one_bit(size):
    width, height = size
    image = Image.new("1", size)
    image.putdata([255 * (sample(x, y, 0) > 90) for y in range(height) for x in range(width)])
    return image


def upper(x, y, c):
    """The upper byte of a 16-bit sample; 0 in one part, so that I;16 is not white throughout."""
    return 0 if x < 20 else sample(x, y, c)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_16(size, channels):
    """A PNG file with 16-bit samples, written by hand because Pillow writes no 16-bit colour."""
    width, height = size
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(
        b"\0" + b"".join(
            bytes((upper(x, y, c), sample(y, x, c + 4))) for x in range(width) for c in range(channels)
        )
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def sums(rgb):
    resized = rgb.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return {
        "rgb_sha256": hashlib.sha256(rgb.tobytes()).hexdigest(),
        "resized_sha256": hashlib.sha256(resized.tobytes()).hexdigest(),
    }


def row(path):
    """What Pillow makes of one file."""
    with Image.open(path) as image:
        values = {"file": path.name, "mode": image.mode, "width": image.width, "height": image.height}
        values |= sums(image.convert("RGB"))
        if image.mode == "I;16":
            upper = image.tobytes()[1::2]  # little-endian samples
            values["upper_byte"] = sums(Image.frombytes("L", image.size, upper).convert("RGB"))
    return values


def main():
    assert int(PIL.__version__.split(".")[0]) <= 12, "Pillow 13 resizes in another order of passes"
    FOLDER.mkdir(parents=True, exist_ok=True)
    pictures = {
        "rgb-up": picture("RGB", (40, 30)),
        "rgb-down": picture("RGB", (200, 150)),
        "rgb-same": picture("RGB", (96, 96)),
        "rgb-odd": picture("RGB", (97, 95)),
        "rgb-tall": picture("RGB", (31, 203)),
        "rgb-wide": picture("RGB", (211, 17)),
        "rgb-one-pixel": picture("RGB", (1, 1)),
        "rgb-one-wide": picture("RGB", (1, 150)),
        "rgb-one-high": picture("RGB", (150, 1)),
        "grey": picture("L", (61, 43)),
        "grey-alpha": picture("LA", (61, 43)),
        "rgba": picture("RGBA", (130, 101)),
        "rgba-one-pixel": picture("RGBA", (1, 1)),
        "palette": palette((73, 120), transparent=False),
        "palette-transparent": palette((73, 120), transparent=True),
        "one-bit": one_bit((101, 67)),
    }
    files = {}
    for name, image in pictures.items():
        path = FOLDER / f"{name}.png"
        image.save(path, optimize=True)
        files[name] = path
    for name, channels in {"grey-16": 1, "grey-alpha-16": 2, "rgb-16": 3, "rgba-16": 4}.items():
        path = FOLDER / f"{name}.png"
        path.write_bytes(png_16((59, 37), channels))
        files[name] = path

    expected = {
        "about": "Made by tests/reference/make_resize_cases.py, which says how.",
        "pillow": PIL.__version__,
        "side": SIDE,
        "rows": [row(path) for path in files.values()],
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
