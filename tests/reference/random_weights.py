"""Random values that make a network worth comparing.

Every tensor gets values that matter: a norm's weight is not one, a bias is not
zero, attention is peaked, and the head is loud enough that answers hold words
and location tokens, differ between prompts, and end by themselves. Each tensor
has a generator of its own (seed and name), so that the same seed gives the same
weights in both layouts and whatever the order of creation.
"""

import zlib
from dataclasses import dataclass

import torch

import layouts

# Standard deviation of a logit before the scales of single tokens.
LOGIT_SPREAD = 3.0
# Loudness in the head of tokens that should be rare: bytes that are no text, tags.
QUIET_SCALE = 0.3
# A direction of the decoder's space that tells words from location tokens:
# answers then alternate between the two as real ones do, and hold boxes.
KIND = "kind of the next token"
# One turn of that alternation: words for two positions, then one box.
TURN, WORDS_IN_TURN = 6, 2
# Rows of the position tables before position 0.
POSITION_OFFSET = 2


@dataclass
class Scales:
    """What has to be chosen by trial, and differs with width and depth."""

    # Loudness in the head of words and of location tokens; a smaller crowd has
    # to be louder to be heard as often.
    words: float
    locations: float
    # Loudness of `</s>`: how soon answers end by themselves.
    end: float
    # Size of the position vectors relative to the token vectors.
    positions: float
    # How much picture and prompt, and the decoder's layers at all, weigh
    # against the last token: with less the decoder repeats what it just said,
    # with more it says the same whatever stands before.
    cross_attention_gain: float
    decoder_gain: float
    # How far positions and tokens lie along the direction KIND.
    kind_in_positions: float
    kind_in_tokens: float
    # Standard deviation of a channel attention score, and the sides of the maps
    # that it is wanted for. Scores grow with the square root of the positions:
    # where nothing holds them, a tower of the real size multiplies float32's
    # rounding a thousandfold, and no two libraries agree on a token.
    channel_score: float | None = None
    map_sides: tuple = ()


TINY = Scales(
    words=1.25,
    locations=0.95,
    end=2.4,
    positions=1.0,
    cross_attention_gain=2.5,
    decoder_gain=1.8,
    kind_in_positions=1.2,
    kind_in_tokens=5.0,
)


def real_scales(decoder_layers):
    """The scales of the real architectures; deeper means less per layer."""
    per_layer = (6 / decoder_layers) ** 0.25
    return Scales(
        words=1.0,
        locations=1.5,
        end=3.0,
        positions=5.0,
        cross_attention_gain=0.65 * per_layer,
        decoder_gain=0.5 * per_layer,
        kind_in_positions=3.0,
        kind_in_tokens=15.0,
        channel_score=2.0,
        map_sides=(192, 96, 48, 24),
    )


def generator(seed, name):
    """A generator for one tensor."""
    return torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(name.encode()))


def values(name, shape, scales, seed):
    """Values for every tensor but the embedding, by what its name says it is."""
    noise = torch.randn(shape, generator=generator(seed, name))
    norm = "norm" in name.split(".")[-2]
    if norm:
        return 1 + 0.3 * noise if name.endswith("weight") else 0.2 * noise
    if name.endswith("bias"):
        return 0.1 * noise
    if "embed_positions" in name:
        table = noise * (scales.positions * LOGIT_SPREAD / shape[1] ** 0.5)
        if "decoder" in name:
            table += scales.kind_in_positions * LOGIT_SPREAD * kind_of_positions(*shape, seed)
        return table
    if "row_embeddings" in name or "column_embeddings" in name:
        return 0.4 * noise
    if len(shape) == 4 and shape[1] == 1:
        return 0.2 * noise
    fan_in = noise[0].numel()
    gain = 1.0
    if "q_proj" in name or "k_proj" in name or "qkv" in name:
        gain = 1.4
        if "channel_attn" in name and scales.channel_score is not None:
            gain = channel_gains(name, shape, scales)
    elif "encoder_attn" in name:
        gain = scales.cross_attention_gain
    elif "decoder" in name:
        gain = scales.decoder_gain
    return gain * noise / fan_in**0.5


def channel_gains(name, shape, scales):
    """One gain a row: queries and keys by the size of the stage's map, values one."""
    stage = int(name.split("blocks.")[1].split(".")[0])
    width = shape[-1]
    gain = (scales.channel_score * width**0.5 / scales.map_sides[stage]) ** 0.5
    rows = torch.full((3 * width,), gain)
    rows[2 * width :] = 1.0
    return rows[:, None] if len(shape) == 2 else rows


def kind_direction(width, seed):
    """The unit vector that tells words (+) from location tokens (-)."""
    direction = torch.randn(width, generator=generator(seed, KIND))
    return direction / direction.norm()


def kind_of_positions(rows, width, seed):
    """What the decoder's positions say about the kind of the next token."""
    place = torch.arange(rows) - POSITION_OFFSET
    # Position 0 holds the start token, position 1 the forced first one.
    word = (place - 1) % TURN < WORDS_IN_TURN
    sign = torch.where(word, 1.0, -1.0)
    return sign[:, None] * kind_direction(width, seed)


def embedding(rows, width, loudness, kinds, kind_in_tokens, seed):
    """The shared embedding: one scale per known token, the rest near the mean.

    Rows beyond the known tokens are what the reference library's resizing
    leaves there: close to the mean of the others.
    """
    noise = torch.randn((rows, width), generator=generator(seed, layouts.SHARED))
    known = loudness.numel()
    table = noise * (LOGIT_SPREAD / width**0.5)
    table[:known] *= loudness[:, None]
    table[:known] += kind_in_tokens / width**0.5 * kinds[:, None] * kind_direction(width, seed)
    table[known:] = table[:known].mean(0) + 0.02 * table[known:]
    return table


def tokens_in_head(tokenizer, count, scales):
    """How loud each of the first `count` tokens is in the head, and of which kind."""
    loudness, kinds = torch.full((count,), QUIET_SCALE), torch.zeros(count)
    for index in range(count):
        token = tokenizer.id_to_token(index)
        if token == "</s>":
            loudness[index] = scales.end
        elif token.startswith("<loc_"):
            loudness[index], kinds[index] = scales.locations, -1.0
        elif token in ("<sep>", "<poly>", "</poly>"):
            loudness[index], kinds[index] = scales.words, -1.0
        elif token.startswith("<") and token.endswith(">") and len(token) > 2:
            continue
        elif all(c.isascii() or c in "ĠĊ" for c in token):
            loudness[index], kinds[index] = scales.words, 1.0
    return loudness, kinds


def fill(model, tokenizer, known, scales, seed):
    """Gives every parameter of a reference model its random value, in place.

    `known` tokens exist; rows of the vocabulary beyond them are padding.
    """
    table = model.get_input_embeddings().weight
    loudness, kinds = tokens_in_head(tokenizer, known, scales)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            if parameter is table:
                parameter.copy_(embedding(*shape, loudness, kinds, scales.kind_in_tokens, seed))
            else:
                parameter.copy_(values(name, shape, scales, seed))
