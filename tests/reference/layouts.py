"""Tensor names of the two published layouts, and the way from one to the other.

"native" is the reference library's own class; "original" is what Microsoft
published: other names, the image projection stored transposed, one buffer more
(`final_logits_bias`), a vocabulary without `<image>` and padding rows.
"""

import re

SHARED = "model.language_model.shared.weight"
ENCODER_EMBEDDING = "model.language_model.encoder.embed_tokens.weight"
DECODER_EMBEDDING = "model.language_model.decoder.embed_tokens.weight"
LM_HEAD = "lm_head.weight"
TIED = (SHARED, ENCODER_EMBEDDING, DECODER_EMBEDDING, LM_HEAD)
TEMPORAL_TABLE = "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"
IMAGE_PROJECTION = "image_projection"
FINAL_LOGITS_BIAS = "language_model.final_logits_bias"

# (original, native) endings inside one half of a DaViT block.
BLOCK_PARTS = [
    ("conv1.fn.dw.", "conv1."),
    ("conv2.fn.dw.", "conv2."),
    ("window_attn.norm.", "norm1."),
    ("window_attn.fn.", "window_attn."),
    ("channel_attn.norm.", "norm1."),
    ("channel_attn.fn.", "channel_attn."),
    ("ffn.norm.", "norm2."),
    ("ffn.fn.net.", "ffn."),
]

# (original, native) beginnings outside of the blocks; the first that fits holds.
PREFIXES = [
    ("vision_tower.", "model.vision_tower."),
    ("image_proj_norm.", "model.multi_modal_projector.image_proj_norm."),
    ("image_pos_embed.", "model.multi_modal_projector.image_position_embed."),
    ("visual_temporal_embed.", "model.multi_modal_projector.visual_temporal_embed."),
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
]

BLOCK = re.compile(r"^(vision_tower\.blocks\.\d+\.\d+\.)(spatial|channel)(_block\.)(.*)$")
# The patch embedding's convolution: "proj" in the original, "conv" in the native layout.
CONVOLUTION = re.compile(r"^(vision_tower\.convs\.\d+\.)(?:conv|proj)\.")


def original_name(native):
    """The original layout's name of a native tensor."""
    if native == "model.multi_modal_projector.image_projection.weight":
        return IMAGE_PROJECTION
    for original_prefix, native_prefix in PREFIXES:
        if native.startswith(native_prefix):
            name = original_prefix + native[len(native_prefix) :]
            break
    else:
        raise ValueError(f"no original name for {native}")
    block = BLOCK.match(name)
    if block is None:
        return CONVOLUTION.sub(r"\1proj.", name)
    head, half, middle, rest = block.groups()
    kind = "window_attn" if half == "spatial" else "channel_attn"
    for original_part, native_part in BLOCK_PARTS:
        of_other_half = original_part.startswith(("window_attn", "channel_attn")) and not original_part.startswith(kind)
        if rest.startswith(native_part) and not of_other_half:
            return head + half + middle + original_part + rest[len(native_part) :]
    raise ValueError(f"no original name for {native}")


def native_name(original):
    """The native name of an original tensor; the reverse of `original_name`."""
    if original == IMAGE_PROJECTION:
        return "model.multi_modal_projector.image_projection.weight"
    name = original
    block = BLOCK.match(name)
    if block is not None:
        head, half, middle, rest = block.groups()
        for original_part, native_part in BLOCK_PARTS:
            if rest.startswith(original_part):
                name = head + half + middle + native_part + rest[len(original_part) :]
                break
    name = CONVOLUTION.sub(r"\1conv.", name)
    for original_prefix, native_prefix in PREFIXES:
        if name.startswith(original_prefix):
            return native_prefix + name[len(original_prefix) :]
    raise ValueError(f"no native name for {original}")


def to_original(state, vocab_size):
    """A native state dict as the original layout holds it, cut to `vocab_size` rows."""
    out = {}
    for name, tensor in state.items():
        if name in TIED:
            tensor = tensor[:vocab_size]
        new = original_name(name)
        out[new] = tensor.T.contiguous() if new == IMAGE_PROJECTION else tensor.contiguous()
    return out


def to_native(state):
    """An original state dict under native names, and its logits bias, or None."""
    out, bias = {}, None
    for name, tensor in state.items():
        if name == FINAL_LOGITS_BIAS:
            bias = tensor
        elif name == IMAGE_PROJECTION:
            out[native_name(name)] = tensor.T.contiguous()
        else:
            out[native_name(name)] = tensor
    return out, bias
