"""JPEG files of every kind, for comparing a decoder with Pillow.

    python make_jpeg_cases.py DIR [--scale N]

writes some two thousand files into folders of DIR that are named by their kind. Needs Pillow, numpy, and
`cjpeg` and `jpegtran` of libjpeg-turbo. The same versions give the same files.
"""

import argparse
import io
import pathlib
import random
import struct
import subprocess

import numpy
from PIL import Image, ImageFile

import jpeg_writer

ImageFile.MAXBLOCK = 1 << 22  # progressive files of tiny pictures outgrow Pillow's own buffer

SIZES = [(1, 1), (2, 1), (1, 2), (3, 3), (4, 5), (5, 4), (7, 9), (8, 8), (9, 8), (15, 17), (16, 16), (17, 16), (31, 33), (40, 24), (63, 65)]
SAMPLINGS = [
    [(1, 1), (1, 1), (1, 1)], [(2, 1), (1, 1), (1, 1)], [(1, 2), (1, 1), (1, 1)], [(2, 2), (1, 1), (1, 1)],
    [(4, 1), (1, 1), (1, 1)], [(1, 4), (1, 1), (1, 1)], [(4, 2), (1, 1), (1, 1)], [(2, 4), (1, 1), (1, 1)],
    [(3, 1), (1, 1), (1, 1)], [(1, 3), (1, 1), (1, 1)], [(3, 2), (1, 1), (1, 1)], [(3, 2), (3, 1), (1, 2)],
    [(2, 2), (2, 1), (1, 2)], [(2, 2), (1, 2), (2, 1)], [(1, 1), (2, 2), (2, 2)], [(1, 1), (2, 1), (1, 2)],
    [(2, 1), (2, 1), (2, 1)], [(1, 2), (1, 2), (1, 2)], [(1, 1), (1, 1), (2, 2)], [(4, 1), (2, 1), (1, 1)],
    [(4, 2), (2, 1), (2, 2)], [(2, 2), (2, 2), (1, 1)], [(1, 4), (1, 2), (1, 1)], [(2, 4), (1, 2), (1, 2)],
    [(3, 3), (1, 1), (1, 1)], [(2, 3), (1, 1), (2, 1)], [(4, 4), (1, 1), (1, 1)], [(3, 1), (2, 1), (1, 1)], [(2, 2), (2, 2), (2, 2)],
]
PROGRESSIONS = {
    "spectral": [(None, 0, 0, 0, 0), (0, 1, 63, 0, 0), (1, 1, 63, 0, 0), (2, 1, 63, 0, 0)],
    "usual": [
        (None, 0, 0, 0, 1), (0, 1, 5, 0, 2), (2, 1, 63, 0, 1), (1, 1, 63, 0, 1), (0, 6, 63, 0, 2),
        (0, 1, 63, 2, 1), (None, 0, 0, 1, 0), (2, 1, 63, 1, 0), (1, 1, 63, 1, 0), (0, 1, 63, 1, 0),
    ],
    "deep": [(None, 0, 0, 0, 3)]
    + [(i, 1, 63, 0, 4) for i in range(3)]
    + [(i, 1, 63, high, high - 1) for high in (4, 3, 2, 1) for i in range(3)]
    + [(None, 0, 0, high, high - 1) for high in (3, 2, 1)],
    "split": [((0,), 0, 0, 0, 0), ((1,), 0, 0, 0, 1), ((2,), 0, 0, 0, 1), ((1, 2), 0, 0, 1, 0)]
    + [(i, k, min(63, k + 8), 0, 0) for k in range(1, 64, 9) for i in range(3)],
}


def picture(rng, size, colors=3):
    """Something between a photograph and noise."""
    width, height = size
    kind = rng.randrange(5)
    y, x = numpy.mgrid[0:height, 0:width]
    planes = []
    for _ in range(colors):
        a, b, c = (rng.uniform(-1, 1) for _ in range(3))
        smooth = 128 + 100 * numpy.sin(a * x / 5 + b * y / 7 + c)
        grain = numpy.random.default_rng(rng.randrange(1 << 30)).normal(0, (0, 4, 20, 80, 5)[kind], (height, width))
        planes.append(smooth + grain)
    values = numpy.stack(planes, -1)
    if kind == 4:
        values[(x // 3 + y // 5) % 2 == 0] = [rng.choice((0, 255)) for _ in range(colors)]
    return numpy.clip(values, 0, 255).astype(numpy.uint8)


class Writer:
    def __init__(self, folder):
        self.folder, self.count = pathlib.Path(folder), 0

    def put(self, kind, data):
        place = self.folder / kind
        place.mkdir(parents=True, exist_ok=True)
        self.count += 1
        (place / f"{self.count:05}.jpg").write_bytes(data)
        return data


def saved(pixels, **options):
    out = io.BytesIO()
    height, width, colors = pixels.shape
    image = Image.frombytes({1: "L", 3: "RGB", 4: "CMYK"}[colors], (width, height), pixels.tobytes())
    image.save(out, "JPEG", **options)
    return out.getvalue()


def any_size(rng, most=600):
    return rng.choice(SIZES) if rng.random() < 0.4 else (rng.randint(1, rng.choice((40, 150, most))), rng.randint(1, rng.choice((40, 150, most))))


def by_pillow(writer, rng, count):
    made = []
    for index in range(count):
        options = {"quality": rng.choice((rng.randint(1, 100), 75, 85, 90)), "subsampling": index % 3}
        if rng.random() < 0.3:
            options["optimize"] = True
        if rng.random() < 0.3:
            options[rng.choice(("restart_marker_blocks", "restart_marker_rows"))] = rng.randint(1, 9)
        if rng.random() < 0.2:
            options |= {"exif": b"Exif\0\0" + bytes(40), "comment": b"a comment", "icc_profile": bytes(rng.randint(1, 90_000))}
        name = "pillow-" + ("444", "422", "420")[index % 3]
        if index % 2:
            options["progressive"] = True
            name += "-progressive"
        colors = 3
        if index % 7 == 6:
            colors, name = 1, "pillow-gray"
        elif index % 11 == 10:
            colors, name = 4, "pillow-cmyk"
        elif index % 13 == 12:
            options["keep_rgb"], name = True, "pillow-rgb"
            options.pop("subsampling")
        pixels = picture(rng, any_size(rng), colors)
        made.append(writer.put(name, saved(pixels, **options)))
    return made


def run(command, data):
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def transformation(rng):
    return rng.choice((["-rotate", "90"], ["-transpose"], ["-flip", "horizontal"], ["-grayscale"], ["-progressive"], ["-optimize"], ["-restart", "2B"]))


def by_libjpeg(writer, rng, count, scratch):
    made = []
    scripts = scratch / "scans.txt"
    for index in range(count):
        pixels = picture(rng, any_size(rng, 300))
        ppm = b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
        command = ["cjpeg", "-quality", str(rng.randint(1, 100))]
        kind = ("sampled", "restarts", "scans", "transformed", "arithmetic", "rgb", "gray", "baseline")[index % 8]
        if kind != "gray":
            command += ["-sample", rng.choice(("1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "3x1", "3x2", "2x4", "2x2,2x1,1x2", "1x1,2x2,2x2"))]
        if kind == "restarts":
            command += ["-restart", rng.choice(("1", "3B", "1B", "20B"))]
        if kind == "scans":
            scripts.write_text("0;\n1;\n2;\n" if rng.random() < 0.5 else "0;\n1 2;\n")
            command += ["-scans", str(scripts)]
        command += {"arithmetic": ["-arithmetic"], "rgb": ["-rgb"], "gray": ["-grayscale"], "baseline": ["-baseline"]}.get(kind, [])
        if rng.random() < 0.3 and kind not in ("scans",):
            command += ["-progressive"]
        try:
            data = run(command, ppm)
            if kind == "transformed":
                data = run(["jpegtran", *transformation(rng)], data)
        except subprocess.CalledProcessError:
            continue
        made.append(writer.put("libjpeg-" + kind, data))
    return made


def parts(rng, size, sampling, idents, quantizations):
    largest = max(h for h, _ in sampling), max(v for _, v in sampling)
    pixels = picture(rng, size, len(sampling)).astype(float)
    return [
        jpeg_writer.Component(idents[i], h, v, i % len(quantizations), pixels[..., i], quantizations[i % len(quantizations)], size, largest)
        for i, (h, v) in enumerate(sampling)
    ]


def quantization(rng, most=99):
    steepness = rng.uniform(0, 3)
    return [min(most, max(1, int(1 + steepness * (i // 8 + i % 8) + rng.randrange(5)))) for i in range(64)]


def by_hand(writer, rng, count):
    made = []
    adobe = [jpeg_writer.segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform])) for transform in range(4)]
    jfif = jpeg_writer.segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    for index in range(count):
        size = rng.choice(SIZES) if rng.random() < 0.6 else (rng.randint(1, 90), rng.randint(1, 90))
        sampling = SAMPLINGS[index % len(SAMPLINGS)]
        idents = rng.choice(((1, 2, 3), (1, 2, 3), (0, 1, 2), (82, 71, 66), (7, 7, 7)))
        heads, kind = [jfif] * rng.randrange(2), "hand-sampled"
        quantizations = [quantization(rng, rng.choice((99, 255))) for _ in range(rng.choice((1, 2, 3)))]
        options = {"tables": rng.choice(("own", "own", "flat")), "wide": rng.random() < 0.2, "restart": rng.choice((0, 0, 0, 1, 2, 3, 7))}
        scans = [((0, 1, 2), 0, 63, 0, 0)]
        choice = index // len(SAMPLINGS) % 8
        if choice == 1:
            kind, scans = "hand-scan-each", [((i,), 0, 63, 0, 0) for i in range(3)]
        elif choice == 2:
            kind, scans = "hand-scans-mixed", rng.choice(([((0, 1), 0, 63, 0, 0), ((2,), 0, 63, 0, 0)], [((2,), 0, 63, 0, 0), ((0, 1), 0, 63, 0, 0)]))
        elif choice in (3, 4):
            name = rng.choice(sorted(PROGRESSIONS))
            kind, options["progressive"] = f"hand-progressive-{name}", True
            scans = [((0, 1, 2) if who is None else who if isinstance(who, tuple) else (who,), *band) for who, *band in PROGRESSIONS[name]]
        elif choice == 5:
            kind, heads = "hand-color", [adobe[rng.randrange(4)]] + [jfif] * rng.randrange(2)
        elif choice == 6:
            # A sampling of its own for the fourth component.
            kind, heads = "hand-four", rng.choice(([], [adobe[0]], [adobe[2]], [adobe[1]], [jfif]))
            sampling = rng.choice(([(1, 1)] * 4, [(2, 2), (1, 1), (1, 1), (2, 2)], [(2, 1), (1, 1), (1, 1), (2, 1)], [(1, 2), (1, 1), (1, 1), (1, 2)]))
            idents, scans = (1, 2, 3, 4), rng.choice(([((0, 1, 2, 3), 0, 63, 0, 0)], [((i,), 0, 63, 0, 0) for i in range(4)]))
        elif choice == 7:
            kind, sampling, idents = "hand-gray", [rng.choice(((1, 1), (2, 2), (1, 3), (4, 1)))], (rng.randrange(256),)
            scans = [((0,), 0, 63, 0, 0)]
            if rng.random() < 0.5:
                options["progressive"] = True
                scans = [((0,), 0, 0, 0, 1), ((0,), 1, 63, 0, 3), ((0,), 1, 63, 3, 2), ((0,), 1, 63, 2, 1), ((0,), 0, 0, 1, 0), ((0,), 1, 63, 1, 0)]
        if len(scans) > 1 and len(set(idents)) < len(idents):
            idents = (1, 2, 3)  # equal numbers name nothing in scans of their own
        components = parts(rng, size, sampling, idents, quantizations)
        made.append(writer.put(kind, jpeg_writer.write(size, components, scans, quantizations, heads=heads, **options)))
    return made


def many_scans(writer, rng):
    """Progressive files with as many scans as are read, and with one more."""
    for extra in (35, 36, 37):
        quantization = [[rng.randint(1, 9) for _ in range(64)]]
        scans = [((0,), 0, 0, 0, 0)] + [((0,), k, k, 0, 0 if k < 10 else 2) for k in range(1, 64)]
        scans += [((0,), k, k, 2, 1) for k in range(10, 10 + extra)]
        components = parts(rng, (16, 16), [(1, 1)], (1,), quantization)
        data = jpeg_writer.write((16, 16), components, scans, quantization, progressive=True)
        writer.put("hand-many-scans", data)


def extremes(writer, rng, count):
    """Coefficients and factors that no encoder writes: sums leave 16 bits."""
    for index in range(count):
        size = rng.choice(SIZES[6:])
        sampling = rng.choice(SAMPLINGS[:4])
        largest = rng.choice((2047, 32767, 300))
        factors = [[rng.choice((1, 3, 17, 255, 4000, 65535)) if rng.random() < 0.3 else 1 for _ in range(64)]]
        components = parts(rng, size, sampling, (1, 2, 3), [[1] * 64])
        for component in components:
            for block in component.coefficients.reshape(-1, 64):
                block[:] = 0
                for _ in range(rng.choice((1, 1, 2, 9, 64))):
                    place = rng.choice((rng.randrange(64), rng.choice((1, 5, 6, 14, 15)), 0))
                    block[place] = rng.randint(-largest, largest) // (2 if place == 0 else 1)
        data = jpeg_writer.write(size, components, [((0, 1, 2), 0, 63, 0, 0)], factors)
        writer.put("hand-extreme", data)


def rearranged(writer, rng, count, made):
    """The same pictures in files that are put together otherwise."""
    sequential = [data for data in made if b"\xff\xc2" not in data]
    for index in range(count):
        data = rng.choice(made)
        kind = ("padded", "apps", "junk-behind", "no-end", "junk-before-end", "no-tables", "thumbnail", "height-segment", "no-end-junk")[index % 9]
        if kind == "padded":
            data = data[:2] + b"\xff" * rng.randint(1, 9) + data[2:]
        elif kind == "apps":
            segments = [jpeg_writer.segment(0xE0 + rng.randrange(16), rng.randbytes(rng.randint(0, 60_000))) for _ in range(rng.randint(1, 9))]
            data = data[:2] + b"".join(segments) + data[2:]
        elif kind == "junk-behind":
            data += rng.randbytes(rng.randint(1, 3000))
        elif kind == "no-end":
            data = data[:-2]
        elif kind == "junk-before-end":
            data = data[:-2] + bytes(rng.randint(1, 40)) + data[-2:]
        elif kind == "no-end-junk":
            data = rng.choice(sequential)[:-2] + bytes(rng.choice((1, 7, 8, 9, 40)))
        elif kind == "no-tables":
            pixels = picture(rng, any_size(rng, 100))
            data = without(saved(pixels, quality=rng.randint(20, 95), subsampling=rng.randrange(3)), 0xC4)
        elif kind == "thumbnail":
            inner = saved(picture(rng, (16, 16)))
            data = data[:2] + jpeg_writer.segment(0xE1, b"Exif\0\0" + inner) + data[2:]
        elif kind == "height-segment":
            data = data[:-2] + b"\xff\xdc\0\4\0\x10" + data[-2:]
        writer.put("file-" + kind, data)


def without(data, code):
    out, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if data[at + 1] != code:
            out += data[at:end]
        at = end
    return bytes(out + data[at:])


def damaged(writer, rng, count, made):
    restarted = [data for data in made if b"\xff\xdd\0\4" in data and b"\xff\xd1" in data] or made
    for index in range(count):
        data = rng.choice(made)
        kind = ("cut", "flipped", "cut", "flipped-head", "removed", "restarts-wrong", "cut-end", "doubled")[index % 8]
        if kind == "cut":
            data = data[: rng.randint(2, len(data) - 1)]
        elif kind == "cut-end":
            data = data[: -rng.randint(1, 12)]
            kind = "cut"
        elif kind in ("flipped", "flipped-head"):
            changed = bytearray(data)
            for _ in range(rng.choice((1, 1, 2, 5))):
                place = rng.randrange(2, min(len(changed), 700) if kind == "flipped-head" else len(changed))
                changed[place] = rng.choice((changed[place] ^ 1 << rng.randrange(8), rng.randrange(256), 255))
            data = bytes(changed)
        elif kind in ("removed", "doubled"):
            start = rng.randrange(2, len(data) - 1)
            end = start + rng.choice((1, 2, 20))
            data = data[:start] + (data[start:end] * 2 if kind == "doubled" else b"") + data[end:]
        elif kind == "restarts-wrong":
            data = rng.choice(restarted)
            places = [i for i in range(len(data) - 1) if data[i] == 255 and 0xD0 <= data[i + 1] <= 0xD7]
            place = rng.choice(places) if places else 2
            data = data[:place] + rng.choice((b"", b"\xff\xd5", b"\xff\xd0", b"\0\xff\xd0", b"\xff\xd9")) + data[place + 2 :]
        writer.put("damaged-" + kind, data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer files of every kind")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    writer = Writer(arguments.folder)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    scaled = lambda count: max(1, int(count * arguments.scale))
    made = by_pillow(writer, rng, scaled(500))
    made += by_libjpeg(writer, rng, scaled(420), arguments.folder)
    made += by_hand(writer, rng, scaled(8 * len(SAMPLINGS) * 2))
    extremes(writer, rng, scaled(120))
    many_scans(writer, rng)
    rearranged(writer, rng, scaled(250), made)
    damaged(writer, rng, scaled(900), made)
    (arguments.folder / "scans.txt").unlink(missing_ok=True)
    print(writer.count, "files")


if __name__ == "__main__":
    main()
