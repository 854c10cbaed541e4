"""The fifteen task tokens by the names used in `expected.json`.

Only names and tokens stand here: the sentences come from the reference
library's own processor, so that a mistake in our table cannot hide in its
own copy.
"""

TASK_TOKENS = {
    "caption": "<CAPTION>",
    "detailed-caption": "<DETAILED_CAPTION>",
    "more-detailed-caption": "<MORE_DETAILED_CAPTION>",
    "object-detection": "<OD>",
    "dense-region-caption": "<DENSE_REGION_CAPTION>",
    "region-proposal": "<REGION_PROPOSAL>",
    "ocr": "<OCR>",
    "ocr-with-region": "<OCR_WITH_REGION>",
    "caption-to-phrase-grounding": "<CAPTION_TO_PHRASE_GROUNDING>",
    "referring-expression-segmentation": "<REFERRING_EXPRESSION_SEGMENTATION>",
    "region-to-segmentation": "<REGION_TO_SEGMENTATION>",
    "open-vocabulary-detection": "<OPEN_VOCABULARY_DETECTION>",
    "region-to-category": "<REGION_TO_CATEGORY>",
    "region-to-description": "<REGION_TO_DESCRIPTION>",
    "region-to-ocr": "<REGION_TO_OCR>",
}

# The inputs of tasks that take one; several, so that repeated tasks differ.
TASK_INPUTS = {
    "caption-to-phrase-grounding": [
        "a red car in front of the house",
        "  the dog, a man and two cups ",
        "café 中文 sign",
    ],
    "referring-expression-segmentation": ["a green car", "the left window"],
    "region-to-segmentation": ["<loc_52><loc_332><loc_932><loc_774>", "<loc_0><loc_0><loc_999><loc_999>"],
    "open-vocabulary-detection": ["a cat", "wheels and doors"],
    "region-to-category": ["<loc_52><loc_332><loc_932><loc_774>", "<loc_7><loc_1><loc_500><loc_88>"],
    "region-to-description": ["<loc_300><loc_20><loc_640><loc_480>", "<loc_5><loc_5><loc_6><loc_6>"],
    "region-to-ocr": ["<loc_100><loc_200><loc_300><loc_400>", "<loc_11><loc_222><loc_333><loc_444>"],
}

# Prompts without any task token: they are sent as they are.
FREE_PROMPTS = ["Which colour is the car?", "Describe the image in one word"]


def prompt_of(task, turn):
    """The prompt handed to the processor, for the `turn`-th use of `task`."""
    if task is None:
        return FREE_PROMPTS[turn % len(FREE_PROMPTS)]
    inputs = TASK_INPUTS.get(task, [""])
    return TASK_TOKENS[task] + inputs[turn % len(inputs)]
