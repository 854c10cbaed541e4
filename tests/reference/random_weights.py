"""Random values that make a network worth comparing.

Every tensor gets values that matter: a norm's weight is not one, a bias is not
zero, attention is peaked, and the head is loud enough that answers hold words
and location tokens, differ between prompts, and end by themselves. Each tensor
has a generator of its own (seed and name), so that the same seed gives the same
weights in both layouts and whatever the order of creation.
"""

import zlib

import torch

import layouts

# Standard deviation of a logit before the scales of single tokens.
LOGIT_SPREAD = 3.0
# Loudness of single kinds of tokens in the head. Chosen by trial: the end of
# the answer wins within some tens of tokens, and bytes that are no text are rare.
END_SCALE = 2.4
WORD_SCALE = 1.25
LOCATION_SCALE = 0.95
QUIET_SCALE = 0.3
# How much the picture and prompt, and the layers at all, weigh against the last
# token: with less the decoder repeats what it just said.
CROSS_ATTENTION_GAIN = 2.5
DECODER_GAIN = 1.8
# A direction of the decoder's space that tells words from location tokens, and
# how far positions and tokens lie along it: answers then alternate between the
# two as real ones do, and hold boxes.
KIND = "kind of the next token"
KIND_IN_POSITIONS = 1.2
KIND_IN_TOKENS = 5.0
# One turn of that alternation: words for two positions, then one box.
TURN, WORDS_IN_TURN = 6, 2
# Rows of the position tables before position 0.
POSITION_OFFSET = 2


def generator(seed, name):
    """A generator for one tensor."""
    return torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(name.encode()))


def values(name, shape, seed):
    """Values for every tensor but the embedding, by what its name says it is."""
    noise = torch.randn(shape, generator=generator(seed, name))
    norm = "norm" in name.split(".")[-2]
    if norm:
        return 1 + 0.3 * noise if name.endswith("weight") else 0.2 * noise
    if name.endswith("bias"):
        return 0.1 * noise
    if "embed_positions" in name:
        table = noise * (LOGIT_SPREAD / shape[1] ** 0.5)
        return table + kind_of_positions(*shape, seed) if "decoder" in name else table
    if "row_embeddings" in name or "column_embeddings" in name:
        return 0.4 * noise
    if len(shape) == 4 and shape[1] == 1:
        return 0.2 * noise
    fan_in = noise[0].numel()
    gain = 1.0
    if "q_proj" in name or "k_proj" in name or "qkv" in name:
        gain = 1.4
    elif "encoder_attn" in name:
        gain = CROSS_ATTENTION_GAIN
    elif "decoder" in name:
        gain = DECODER_GAIN
    return gain * noise / fan_in**0.5


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
    return KIND_IN_POSITIONS * LOGIT_SPREAD * sign[:, None] * kind_direction(width, seed)


def embedding(rows, width, scales, kinds, seed):
    """The shared embedding: one scale per known token, the rest near the mean.

    Rows beyond the known tokens are what the reference library's resizing
    leaves there: close to the mean of the others.
    """
    noise = torch.randn((rows, width), generator=generator(seed, layouts.SHARED))
    known = scales.numel()
    table = noise * (LOGIT_SPREAD / width**0.5)
    table[:known] *= scales[:, None]
    table[:known] += KIND_IN_TOKENS / width**0.5 * kinds[:, None] * kind_direction(width, seed)
    table[known:] = table[:known].mean(0) + 0.02 * table[known:]
    return table


def tokens_in_head(tokenizer, count):
    """How loud each of the first `count` tokens is in the head, and of which kind."""
    scales, kinds = torch.full((count,), QUIET_SCALE), torch.zeros(count)
    for index in range(count):
        token = tokenizer.id_to_token(index)
        if token == "</s>":
            scales[index] = END_SCALE
        elif token.startswith("<loc_"):
            scales[index], kinds[index] = LOCATION_SCALE, -1.0
        elif token in ("<sep>", "<poly>", "</poly>"):
            scales[index], kinds[index] = WORD_SCALE, -1.0
        elif token.startswith("<") and token.endswith(">") and len(token) > 2:
            continue
        elif all(c.isascii() or c in "ĠĊ" for c in token):
            scales[index], kinds[index] = WORD_SCALE, 1.0
    return scales, kinds


def fill(model, tokenizer, known, seed):
    """Gives every parameter of a reference model its random value, in place.

    `known` tokens exist; rows of the vocabulary beyond them are padding.
    """
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter is table:
                parameter.copy_(embedding(*parameter.shape, *tokens_in_head(tokenizer, known), seed))
            else:
                parameter.copy_(values(name, tuple(parameter.shape), seed))
