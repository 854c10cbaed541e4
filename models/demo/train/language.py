"""What the model is asked and what it should answer: Florence-2's prompts and output language.

For a scene and a task this file writes the prompt sentence and the target string, and draws the
inputs of the tasks that take a text or a region. Location tokens are written as the real processor
quantises them: floor(v / (size / 1000)), clamped to 0..999.

Rules of the demo's answers: objects from left to right, each with its own label (a label that
occurs twice is written twice); a detection's class is its shape; a description is size, colour,
shape; captions name every object; words in a picture are not objects.
"""

from scenes import COLOURS, SIZES

TASKS = {
    "caption": "What does the image describe?",
    "detailed-caption": "Describe in detail what is shown in the image.",
    "more-detailed-caption": "Describe with a paragraph what is shown in the image.",
    "object-detection": "Locate the objects with category name in the image.",
    "dense-region-caption": "Locate the objects in the image, with their descriptions.",
    "region-proposal": "Locate the region proposals in the image.",
    "caption-to-phrase-grounding": "Locate the phrases in the caption: {}",
    "open-vocabulary-detection": "Locate {} in the image.",
    "referring-expression-segmentation": "Locate {} in the image with mask",
    "region-to-segmentation": "What is the polygon mask of region {}",
    "region-to-category": "What is the region {}?",
    "region-to-description": "What does the region {} describe?",
    "ocr": "What is the text in the image?",
    "ocr-with-region": "What is the text in the image, with regions?",
}
TEXT_TASKS = ("caption-to-phrase-grounding", "open-vocabulary-detection", "referring-expression-segmentation")
REGION_TASKS = ("region-to-segmentation", "region-to-category", "region-to-description")
NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six")
ARTICLES = ("", "a ", "the ")


def quantise(value, size):
    """The location bin of a coordinate in pixels."""
    return min(999, max(0, int(value / (size / 1000))))


def bins(points, scene):
    """Location bins of a flat list x, y, x, y, … in pixels."""
    sizes = (scene.width, scene.height)
    return [quantise(value, sizes[i % 2]) for i, value in enumerate(points)]


def locations(points, scene):
    """Location tokens of a flat list x, y, x, y, … in pixels."""
    return "".join(f"<loc_{n}>" for n in bins(points, scene))


def short_phrase(thing):
    """Colour and shape: unique within a scene."""
    return f"{thing.colour} {thing.shape}"


def phrase(thing):
    """Size, colour and shape."""
    return f"{thing.size} {thing.colour} {thing.shape}"


def with_article(words):
    """The phrase after "a" or "an"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def listing(parts):
    """A comma list that ends in "and"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def background_phrase(scene):
    """The background as a noun phrase."""
    return f"a {scene.background} background"


def caption(scene):
    """One sentence: how many shapes, and which."""
    noun = "shape" if len(scene.things) == 1 else "shapes"
    parts = listing([with_article(short_phrase(thing)) for thing in scene.things])
    return f"{NUMBERS[len(scene.things)]} {noun}: {parts}."


def detailed_caption(scene):
    """The caption with sizes and the background."""
    noun = "shape" if len(scene.things) == 1 else "shapes"
    parts = listing([with_article(phrase(thing)) for thing in scene.things])
    return f"{NUMBERS[len(scene.things)]} {noun} on {background_phrase(scene)}: {parts}."


def more_detailed_caption(scene):
    """A paragraph: background, the shapes from left to right, and the written words."""
    parts = listing([with_article(phrase(thing)) for thing in scene.things])
    text = f"The image shows {background_phrase(scene)}. From left to right there is {parts}."
    if not scene.words:
        return text + " Nothing is written on it."
    return text + f" It says {listing([word.text for word in scene.words])}."


def reference_answer(scene, task, text=None, things=None):
    """The target string of a task; `things` are the objects that the text or region means."""
    if task == "caption":
        return caption(scene)
    if task == "detailed-caption":
        return detailed_caption(scene)
    if task == "more-detailed-caption":
        return more_detailed_caption(scene)
    if task == "object-detection":
        return "".join(thing.shape + locations(thing.box, scene) for thing in scene.things)
    if task == "dense-region-caption":
        return "".join(phrase(thing) + locations(thing.box, scene) for thing in scene.things)
    if task == "region-proposal":
        return "".join(locations(thing.box, scene) for thing in scene.things)
    if task == "caption-to-phrase-grounding":
        return "".join(short_phrase(thing) + locations(thing.box, scene) for thing in things)
    if task == "open-vocabulary-detection":
        return "".join(text + locations(thing.box, scene) for thing in things)
    if task in ("referring-expression-segmentation", "region-to-segmentation"):
        return locations([value for point in things[0].polygon for value in point], scene)
    if task == "region-to-category":
        return things[0].shape
    if task == "region-to-description":
        return phrase(things[0])
    if task == "ocr":
        return " ".join(word.text for word in scene.words)
    return "".join(word.text + locations(word.quad(), scene) for word in scene.words)


def draw_example(scene, task, rng, jitter=0.0):
    """A task's prompt, target, input and meant objects for a scene, with inputs drawn from `rng`.

    `jitter` moves the corners of an input region by up to that share of its sides, so that the
    model does not depend on exact boxes.
    """
    text, region, things = None, None, None
    if task == "caption-to-phrase-grounding":
        text, things = _grounding_text(scene, rng)
        slot = text
    elif task == "open-vocabulary-detection":
        text, things = _query(scene, rng, with_class=True)
        slot = rng.choice(ARTICLES) + text
    elif task == "referring-expression-segmentation":
        text, things = _query(scene, rng, with_class=False)
        slot = rng.choice(ARTICLES) + text
    elif task in REGION_TASKS:
        things = [rng.choice(scene.things)]
        region = _jittered(things[0].box, scene, rng, jitter)
        slot = locations(region, scene)
    target = reference_answer(scene, task, text, things)
    prompt = TASKS[task].format(slot) if "{}" in TASKS[task] else TASKS[task]
    spoken = slot if task in TEXT_TASKS else None
    return {"task": task, "prompt": prompt, "target": target, "text": spoken, "region": region, "things": things}


def _grounding_text(scene, rng):
    if rng.random() < 0.35:
        return caption(scene), list(scene.things)
    count = min(len(scene.things), rng.choice((1, 1, 2, 3)))
    things = rng.sample(scene.things, count)
    parts = [rng.choice(("a ", "the ")) + short_phrase(thing) for thing in things]
    parts = [with_article(p[2:]) if p.startswith("a ") else p for p in parts]
    return listing(parts), things


def _query(scene, rng, with_class):
    thing = rng.choice(scene.things)
    draw = rng.random()
    if with_class and draw < 0.25:
        return thing.shape, [other for other in scene.things if other.shape == thing.shape]
    return (phrase(thing) if draw > 0.75 else short_phrase(thing)), [thing]


def _jittered(box, scene, rng, jitter):
    w, h = box[2] - box[0], box[3] - box[1]
    moved = [value + rng.uniform(-jitter, jitter) * side for value, side in zip(box, (w, h, w, h))]
    limits = (scene.width, scene.height) * 2
    return tuple(min(limit - 1.0, max(0.0, value)) for value, limit in zip(moved, limits))


def corpus():
    """Every sentence form, for the tokenizer's merges and for its tests."""
    from scenes import BACKGROUNDS, WORDS
    from shapes import SHAPES

    lines = [prompt.replace("{}", "") for prompt in TASKS.values()] + list(WORDS) + [" " + word for word in WORDS]
    for lead in ("", " ", " a ", " an ", " the ", "A ", "The "):
        for size in SIZES:
            for colour in COLOURS:
                for shape in SHAPES:
                    lines += [f"{lead}{shape}", f"{lead}{colour} {shape}", f"{lead}{size} {colour} {shape}"]
    for number in NUMBERS:
        lines += [f"{number} shape: a circle, an orange star and a moon.", f"{number} shapes"]
        lines += [f"{number} shapes on a {background} background: a" for background in BACKGROUNDS]
        lines += [f" {number} shape: a", f" {number} shapes: a"]
    for background in BACKGROUNDS:
        lines += [f"The image shows a {background} background. From left to right there is a star."] * 3
    lines += [" Nothing is written on it.", " It says STOP and EXIT."] * 3
    return lines
