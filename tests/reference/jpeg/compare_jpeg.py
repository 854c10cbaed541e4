"""The table of a comparison: what became of every kind of file.

    python compare_jpeg.py LIST OURS PILLOW [--show]

Kinds are the names of the folders that the files lie in. The exit status is 1 when any picture differs.
"""

import collections
import pathlib
import struct
import sys

import numpy

OUTCOMES = ("identical", "refused by both", "refused by us", "refused by Pillow", "different")


def records(path):
    data = pathlib.Path(path).read_bytes()
    at = 0
    while at < len(data):
        good, first, second = struct.unpack_from("<BII", data, at)
        at += 9
        size = first * second * 3 if good else first
        body = data[at : at + size]
        at += size
        yield (first, second, body) if good else body.decode(errors="replace")


def outcome(ours, pillow):
    if isinstance(ours, str):
        return "refused by both" if isinstance(pillow, str) else "refused by us"
    if isinstance(pillow, str):
        return "refused by Pillow"
    return "identical" if ours == pillow else "different"


def main():
    paths = pathlib.Path(sys.argv[1]).read_text().splitlines()
    table = collections.defaultdict(collections.Counter)
    reasons = collections.Counter()
    for path, ours, pillow in zip(paths, records(sys.argv[2]), records(sys.argv[3]), strict=True):
        result = outcome(ours, pillow)
        table[pathlib.Path(path).parent.name][result] += 1
        if result in ("refused by us", "refused by Pillow"):
            reasons[result, ours if isinstance(ours, str) else pillow[:60]] += 1
        if result == "different":
            if ours[:2] == pillow[:2]:
                a, b = (numpy.frombuffer(x[2], numpy.uint8).astype(int) for x in (ours, pillow))
                apart = numpy.abs(a - b)
                print(path, ours[:2], "largest", apart.max(), "values", (apart > 0).sum(), "of", apart.size)
            else:
                print(path, ours[:2], pillow[:2])
        elif "--show" in sys.argv and result.startswith("refused by ") and result != "refused by both":
            print(result, path, ours if isinstance(ours, str) else pillow)
    total = collections.Counter()
    print("| kind | files |", " | ".join(OUTCOMES), "|")
    for kind in sorted(table):
        total.update(table[kind])
        print("|", kind, "|", table[kind].total(), "|", " | ".join(str(table[kind][name]) for name in OUTCOMES), "|")
    print("| all |", total.total(), "|", " | ".join(str(total[name]) for name in OUTCOMES), "|")
    for (result, reason), count in sorted(reasons.items(), key=lambda item: -item[1]):
        print(f"{count:5} {result}: {reason}")
    return int(total["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
