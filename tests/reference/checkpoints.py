"""The table of tiny checkpoints, and the runs each of them is asked for.

A row says what is special about a checkpoint; what it does not say is the
default of `Checkpoint` and `Sizes`. Runs are dealt out in cycles of coprime
lengths, so that all tasks and settings occur; `make_parity.py` checks that.
"""

from dataclasses import dataclass, field

from configs import Sizes
from tasks import TASK_TOKENS, prompt_of

# Which of the four tied tensors a file holds.
STORED_TIED = {
    "shared": ("shared",),
    "all": ("shared", "encoder", "decoder", "head"),
    "shared-and-head": ("shared", "head"),
    "head": ("head",),
    "encoder": ("encoder",),
    "decoder-and-head": ("decoder", "head"),
}

# What the files of a checkpoint say about generation unless a row says otherwise.
PUBLISHED_GENERATION = {"early_stopping": True, "no_repeat_ngram_size": 3, "num_beams": 3}


@dataclass
class Checkpoint:
    """One tiny checkpoint."""

    name: str
    layout: str
    dtype: str = "float16"
    storage: str = "safetensors"
    tied: str = "shared"
    merges: int = 64
    # Original layout: values of final_logits_bias ("zero", "random", or "absent").
    logits_bias: str = "zero"
    temporal_table: bool = True
    generation: dict = field(default_factory=lambda: dict(PUBLISHED_GENERATION))
    picture: tuple = (61, 40)
    runs: int = 3
    sizes: Sizes = field(default_factory=Sizes)


def row(name, layout, picture=(61, 40), dtype="float16", **rest):
    """A checkpoint; unknown keys are sizes."""
    own = {key: rest.pop(key) for key in list(rest) if key in Checkpoint.__dataclass_fields__}
    return Checkpoint(name=name, layout=layout, picture=picture, dtype=dtype, sizes=Sizes(**rest), **own)


F32, BF16 = "float32", "bfloat16"
NARROW = {"dims": [4, 8, 12, 16], "heads": [1, 2, 3, 4], "groups": [2, 4, 3, 8]}
EVEN = {"dims": [8, 16, 16, 16], "heads": [2, 2, 2, 2], "groups": [4, 4, 4, 4]}
ONE_HEAD = {"dims": [8, 8, 16, 16], "heads": [1, 1, 1, 1], "groups": [1, 1, 1, 1]}
MANY_HEADS = {"dims": [8, 16, 16, 24], "heads": [4, 8, 4, 6], "groups": [8, 2, 16, 1]}
LAST_STRIDE_1 = {"patch_stride": [4, 2, 2, 1]}

CHECKPOINTS = [
    row("original-f16", "original", (61, 40), depths=[1, 1, 2, 1], side=64),
    row("native-f16", "native", (40, 61), **EVEN),
    row("original-f32-bin", "original", (33, 21), F32, storage="pickle", tied="all", side=48, **NARROW),
    row("native-f16-all-tied", "native", (20, 90), tied="all", side=48, **NARROW, window=4),
    row("original-f16-sharded", "original", (90, 20), storage="sharded", window=5, side=56, encoder_layers=2),
    row("native-f16-sharded", "native", (47, 47), storage="sharded", window=7, side=56, **EVEN, decoder_layers=2),
    row("original-logits-bias", "original", (35, 64), logits_bias="random", side=80, **EVEN),
    row("native-bf16", "native", (64, 35), BF16, side=64, window=4, **EVEN),
    row("original-separate-head", "original", (50, 30), tied="shared-and-head", side=96, window=12, **NARROW),
    row("native-separate-head", "native", (30, 50), tied="shared-and-head", side=64, window=5, **NARROW),
    row("original-head-only", "original", (44, 43), tied="head", window=4, depths=[1, 2, 1, 1], **EVEN),
    row("native-head-only", "native", (43, 44), tied="head", window=7, depths=[1, 1, 2, 1], **NARROW),
    row("original-encoder-only", "original", (70, 25), tied="encoder", storage="pickle", window=7, side=64, **NARROW),
    row("native-encoder-only", "native", (25, 70), tied="encoder", side=48, window=5, **EVEN),
    row("original-f16-bin-all-tied", "original", (58, 31), storage="pickle", tied="all", decoder_layers=3, **EVEN),
    row("native-f16-bin", "native", (31, 58), storage="pickle", encoder_layers=3, side=56, **NARROW),
    row("original-last-stride-1", "original", (77, 41), side=48, **LAST_STRIDE_1, **MANY_HEADS, window=4),
    row("native-last-stride-1", "native", (41, 77), side=56, **LAST_STRIDE_1, **NARROW, window=5),
    row("original-wide-text", "original", (36, 29), side=48, **NARROW, d_model=48, decoder_heads=4, encoder_heads=6),
    row("native-mlp-ratio-2", "native", (29, 36), side=48, **EVEN, mlp_ratio=2.0),
    row("original-own-settings", "original", (55, 24), generation={"num_beams": 2, "early_stopping": False}, **ONE_HEAD),
    row(
        "native-own-settings",
        "native",
        (24, 55),
        generation={"num_beams": 2, "early_stopping": "never", "length_penalty": 2.0, "no_repeat_ngram_size": 2},
        **ONE_HEAD,
    ),
    row("original-no-buffers", "original", (48, 66), logits_bias="absent", temporal_table=False, **MANY_HEADS),
    row("native-no-padding-rows", "native", (66, 48), merges=58, **ONE_HEAD, d_model=24, decoder_heads=3),
    row("original-f32-sharded", "original", (39, 52), F32, storage="sharded", side=48, **NARROW, window=5),
    row("native-f32-wide-picture", "native", (140, 22), F32, side=48, **NARROW, window=7),
    row("original-deep-text", "original", (28, 84), encoder_layers=3, decoder_layers=2, side=56, window=12, **EVEN),
    row("native-deep-text", "native", (84, 28), encoder_layers=2, decoder_layers=3, side=56, **ONE_HEAD),
    row("original-logits-bias-f32", "original", (45, 38), F32, logits_bias="random", side=48, window=7, **ONE_HEAD),
    row("native-decoder-and-head", "native", (38, 45), tied="decoder-and-head", side=56, window=4, **NARROW),
    row("original-tall-picture", "original", (22, 140), side=48, window=5, depths=[2, 1, 1, 1], **EVEN),
    row("original-many-merges", "original", (53, 46), merges=120, side=64, window=4, d_model=32, **MANY_HEADS),
]

# Cycles of settings; None means "not passed, whatever the checkpoint says".
BEAMS = [None, 1, 3, 2, 3, 1, 5]
NEW_TOKENS = [20, 60, 20, 60, 60, 20, 1, 60, 20, 2, None]
EARLY_STOPPING = [None, False, True, "never", False]
LENGTH_PENALTY = [None, 1.0, 2.0, None, 0.5, None, None, 2.0, 0.5]
NGRAMS = [None, 3, 0, None, 2, 3, None, 0]
# Every so many runs one goes without a task.
FREE_PROMPT_EVERY = 17


def runs_of(index, checkpoint):
    """(task, prompt, settings passed) for each run of the checkpoint at `index`."""
    tasks = list(TASK_TOKENS)
    out = []
    for turn in range(checkpoint.runs):
        number = index * checkpoint.runs + turn
        free = number % FREE_PROMPT_EVERY == FREE_PROMPT_EVERY - 1
        task = None if free else tasks[number * 4 % len(tasks)]
        passed = {
            "num_beams": BEAMS[number % len(BEAMS)],
            "max_new_tokens": NEW_TOKENS[number % len(NEW_TOKENS)],
            "early_stopping": EARLY_STOPPING[number % len(EARLY_STOPPING)],
            "length_penalty": LENGTH_PENALTY[number % len(LENGTH_PENALTY)],
            "no_repeat_ngram_size": NGRAMS[number % len(NGRAMS)],
        }
        passed = {key: value for key, value in passed.items() if value is not None}
        out.append((task, prompt_of(task, number // len(tasks)), passed))
    return out
