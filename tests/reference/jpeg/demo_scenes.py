"""Are the answers to a JPEG those to the pixels that Pillow reads in it?

    python demo_scenes.py --binary FILE [--scenes 300]

draws held-out scenes of the demo checkpoint, saves each as JPEG in three qualities and samplings, saves what Pillow reads
in these files as PNG, and asks the server's binary about both. Prints a line for each form and task; the exit status is 1 when any
answer has other tokens.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "models" / "demo" / "train"))

from PIL import Image  # noqa: E402
from scenes import make_scene, render  # noqa: E402

FIRST_HELD_OUT = 500_000_000
FORMS = {"quality 75, 4:2:0": (75, 2), "quality 90, 4:4:4": (90, 0), "quality 60, 4:2:2": (60, 1)}
TASKS = ("dense-region-caption", "ocr-with-region")
PICTURES_A_CALL = 50


def answers(binary, paths, task):
    """Token ids of each picture's answer."""
    found = []
    for start in range(0, len(paths), PICTURES_A_CALL):
        command = [binary, "run", *paths[start : start + PICTURES_A_CALL], "--model", "demo", "--task", task, "--json"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        found += [json.loads(line)["token_ids"] for line in lines]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--scenes", type=int, default=300)
    arguments = parser.parse_args()
    scenes = [render(make_scene(FIRST_HELD_OUT + index)) for index in range(arguments.scenes)]
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        for form, (quality, subsampling) in FORMS.items():
            jpegs, pngs = [], []
            for index, scene in enumerate(scenes):
                jpegs.append(pathlib.Path(folder, f"{index}.jpg"))
                pngs.append(pathlib.Path(folder, f"{index}.png"))
                scene.save(jpegs[-1], quality=quality, subsampling=subsampling)
                Image.open(jpegs[-1]).save(pngs[-1], compress_level=1)
            for task in TASKS:
                pairs = zip(answers(arguments.binary, jpegs, task), answers(arguments.binary, pngs, task), strict=True)
                apart = sum(ours != theirs for ours, theirs in pairs)
                different += apart
                print(f"{form}, {task}: {len(scenes) - apart} of {len(scenes)} alike", flush=True)
    sys.exit(int(different > 0))


if __name__ == "__main__":
    main()
