"""Makes random rows of tags and words, and what the native post-processor reads in them.

Writes `tests/data/soup/postprocess.json`. Needs the packages of `requirements.txt`:

    python tests/reference/make_postprocess_soup.py [ROWS_PER_TASK] [SEED] [FILE]
"""

import json
import pathlib
import random
import sys

import transformers
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor, Florence2Processor

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILLERS = ["it", "the image", "a group", "lots"]
TASKS = {
    "<CAPTION>": "pure_text",
    "<OD>": "description_with_bboxes",
    "<REGION_PROPOSAL>": "bboxes",
    "<CAPTION_TO_PHRASE_GROUNDING>": "phrase_grounding",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "polygons",
    "<OPEN_VOCABULARY_DETECTION>": "description_with_bboxes_or_polygons",
    "<OCR_WITH_REGION>": "ocr",
}
WORDS = [
    "car", "a green car", " dog ", "it", "the image", "lots", "é", "中文", "🙂", "\n", " ", "\t", "\x1f", "\xa0",
    "<", ">", "<b>", "loc_5>", "<loc_", "<loc_>", "<loc_x>", "<od>", "</od>", "<and>", "<box>", "<ground>", "<obj>",
    "<s>", "</s>", "<pad>", "<po<s>ly>", "<<s>s>", "</<pad>s>",
]
MARKS = ["<sep>", "<sep>", "<poly>", "<poly>", "</poly>", "</poly>"]


class NoTokenizer:
    """The post-processor asks its tokenizer for nothing but this when it is given a text."""

    all_special_tokens = []


def location(rng):
    return f"<loc_{rng.choice([rng.randrange(1000), rng.randrange(1000), 0, 999, 1000, 12345, '007'])}>"


def piece(rng):
    kind = rng.random()
    if kind < 0.45:
        return "".join(location(rng) for _ in range(rng.choice([1, 2, 3, 4, 4, 5, 6, 8, 8, 8, 9, 13, 16])))
    if kind < 0.65:
        return rng.choice(MARKS)
    return rng.choice(WORDS)


def native_answer(processor, task, text, size):
    return processor.post_process_generation(text=text, task=task, image_size=size)[task]


def main():
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 90
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    file = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else ROOT / "data" / "soup" / "postprocess.json"
    rng = random.Random(seed)

    # The constructor wants a whole checkpoint; reading texts wants these two fields alone.
    processor = Florence2Processor.__new__(Florence2Processor)
    processor.tasks_answer_post_processing_type = TASKS
    settings = {kind: {} for kind in TASKS.values()}
    settings["phrase_grounding"] = {"banned_grounding_tokens": FILLERS}
    processor.post_processor = Florence2PostProcessor(settings, NoTokenizer())

    cases = []
    for task in TASKS:
        for _ in range(rows):
            text = "".join(piece(rng) for _ in range(rng.randrange(1, 16)))
            size = (rng.randrange(1, 5000), rng.randrange(1, 5000))
            native = native_answer(processor, task, text, size)
            cases.append({"task": task, "text": text, "image_size": size, "native": native})
    about = f"Made by tests/reference/make_postprocess_soup.py with transformers {transformers.__version__}."
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    file.write_text(f'{{"about": "{about}", "cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
