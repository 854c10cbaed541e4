"""A small set out of a large one: a few tiny files of every kind, with what a decoder must make of them.

    python pick_jpeg_cases.py LIST OURS PILLOW OUT

copies files to OUT and writes `expected.txt` beside them: a line each of name, width, height and the 64-bit FNV-1a sum of
the RGB bytes as Pillow gives them, or name and `refused`. Stops when a picture differs.
"""

import collections
import pathlib
import sys

from compare_jpeg import outcome, records

MOST_BYTES = 4_000
WANTED = {"identical": 3, "refused by both": 1, "refused by us": 1}


def fnv(data):
    total = 0xCBF29CE484222325
    for byte in data:
        total = (total ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return total


def main():
    paths = [pathlib.Path(line) for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
    folder = pathlib.Path(sys.argv[4])
    folder.mkdir(parents=True, exist_ok=True)
    taken, lines = collections.Counter(), []
    for path, ours, pillow in zip(paths, records(sys.argv[2]), records(sys.argv[3]), strict=True):
        result = outcome(ours, pillow)
        if result == "different":
            sys.exit(f"{path} differs")
        kind = path.parent.name
        data = path.read_bytes()
        is_dull = result == "identical" and pillow[0] * pillow[1] < 300 and taken[kind, result]
        if len(data) > MOST_BYTES or is_dull or taken[kind, result] >= WANTED.get(result, 0):
            continue
        taken[kind, result] += 1
        name = f"{kind}-{taken.total():03}.jpg"
        (folder / name).write_bytes(data)
        told = f"{pillow[0]} {pillow[1]} {fnv(pillow[2]):016x}" if result == "identical" else "refused"
        lines.append(f"{name} {told}\n")
    (folder / "expected.txt").write_text("".join(lines))
    print(len(lines), "files,", sum(path.stat().st_size for path in folder.iterdir()), "bytes")


if __name__ == "__main__":
    main()
