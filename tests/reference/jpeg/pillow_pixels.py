"""Pixels of JPEG files as Pillow gives them, in the format of the Rust side's results.

    python pillow_pixels.py LIST OUT

reads paths from LIST, a line each, and writes one record a file: 1, width, height and RGB bytes, or 0,
length, 0 and a message. Nothing but an error counts as refusal: what libjpeg merely warns of, Pillow passes on.
"""

import struct
import sys

from PIL import Image

Image.MAX_IMAGE_PIXELS = None


def record(path):
    try:
        with Image.open(path) as picture:
            if picture.format not in ("JPEG", "MPO"):
                raise OSError(f"opened as {picture.format}")
            rgb = picture.convert("RGB")
    except Exception as error:  # every refusal counts, whatever its type
        message = f"{type(error).__name__}: {error}".encode()
        return struct.pack("<BII", 0, len(message), 0) + message
    return struct.pack("<BII", 1, *rgb.size) + rgb.tobytes()


if __name__ == "__main__":
    with open(sys.argv[1]) as paths, open(sys.argv[2], "wb") as out:
        for path in paths:
            out.write(record(path.rstrip("\n")))
