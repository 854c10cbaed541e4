"""What Pillow makes of the JPEG files of a folder.

    python ask_pillow.py DIR [--also PYTHON]

writes DIR/expected.txt, a line a file: its path in DIR, then width, height and the SHA-256 of the RGB bytes, or
`refused` and why. Nothing but an error counts as refusal: what libjpeg merely warns of, Pillow passes on. With `--also` the
interpreter of another environment is asked too, and any difference stops the script.
"""

import argparse
import hashlib
import pathlib
import subprocess
import sys

import PIL
from PIL import Image

Image.MAX_IMAGE_PIXELS = None


def told(path):
    try:
        with Image.open(path) as picture:
            if picture.format not in ("JPEG", "MPO"):
                raise OSError(f"opened as {picture.format}")
            rgb = picture.convert("RGB")
    except Exception as error:  # every refusal counts, whatever its type
        return f"refused {type(error).__name__}: {error}".replace("\n", " ").replace(str(path), "")
    return f"{rgb.width} {rgb.height} {hashlib.sha256(rgb.tobytes()).hexdigest()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--also", help="Python of an environment with another Pillow")
    parser.add_argument("--out", default="expected.txt")
    arguments = parser.parse_args()
    folder = arguments.folder
    lines = [f"{path.relative_to(folder)} {told(path)}" for path in sorted(folder.rglob("*.jpg"))]
    (folder / arguments.out).write_text("\n".join(lines) + "\n")
    print(f"Pillow {PIL.__version__}: {len(lines)} files")
    if arguments.also:
        subprocess.run([arguments.also, __file__, folder, "--out", "also.txt"], check=True)
        also = (folder / "also.txt").read_text().splitlines()
        same = [a.split()[:4] == b.split()[:4] if " refused" not in a else " refused" in b for a, b in zip(lines, also, strict=True)]
        if not all(same):
            sys.exit(f"the two differ on {same.count(False)} files, first {lines[same.index(False)]}")
        print("both alike")


if __name__ == "__main__":
    main()
