"""A small set out of a large one: a few tiny files of every kind, with what a decoder must make of them.

    python pick_jpeg_cases.py DIR OUT

DIR holds files and `expected.txt` (ask_pillow.py), and `outcomes.txt` (the test slow_jpeg_corpus_has_pillows_pixels, which
compares them). Copies files to OUT and writes `expected.txt` beside them: a line each of name, width, height and SHA-256 of
the RGB bytes as Pillow gives them, or name and `refused`.
"""

import collections
import pathlib
import shutil
import sys

MOST_BYTES = 4_000
WANTED = {"identical": 3, "refused by both": 1, "refused here": 1}


def main():
    folder, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    expected = dict(line.split(" ", 1) for line in (folder / "expected.txt").read_text().splitlines())
    outcomes = dict(line.split(" ", 1) for line in (folder / "outcomes.txt").read_text().splitlines())
    taken, lines = collections.Counter(), []
    for path, outcome in sorted(outcomes.items()):
        kind, told = pathlib.PurePath(path).parent.name, expected[path].split()
        is_dull = outcome == "identical" and int(told[0]) * int(told[1]) < 300 and taken[kind, outcome]
        is_large = (folder / path).stat().st_size > MOST_BYTES
        if is_dull or is_large or taken[kind, outcome] >= WANTED.get(outcome, 0):
            continue
        taken[kind, outcome] += 1
        name = f"{kind}-{taken.total():03}.jpg"
        shutil.copy(folder / path, out / name)
        lines.append(f"{name} {expected[path] if outcome == 'identical' else 'refused'}\n")
    (out / "expected.txt").write_text("".join(lines))
    print(len(lines), "files,", sum(path.stat().st_size for path in out.iterdir()), "bytes")


if __name__ == "__main__":
    main()
