"""The demo model: its size, its start values and its pictures as tensors.

The network is the reference library's `Florence2ForConditionalGeneration`; only the numbers of the
configuration are ours. Sizes were chosen so that a training run fits into about an hour of two CPU
cores; head widths are 32 throughout the tower, as in the published models.
"""

import math

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration, Florence2VisionConfig

SIDE = 128
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
DIM_EMBED = [32, 64, 128, 192]
HEADS = [1, 2, 4, 6]
DEPTHS = [1, 1, 2, 1]
PATCH_STRIDE = [4, 2, 2, 1]
WINDOW = 8
D_MODEL = 192
LAYERS = {"encoder": 2, "decoder": 3}
TEXT_HEADS = 6
FFN = 768
MAX_POSITIONS = 1024
GRID = 8
IMAGE_TOKENS = GRID * GRID + 1
# The native class wants an id to put image features in the place of. Text never has `<unk>`.
IMAGE_PLACEHOLDER = 3
GENERATION = {"num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 0}


def native_config(vocab_size):
    """The configuration of the reference class."""
    vision = Florence2VisionConfig(
        embed_dim=DIM_EMBED, num_heads=HEADS, num_groups=HEADS, depths=DEPTHS, patch_stride=PATCH_STRIDE,
        window_size=WINDOW, projection_dim=D_MODEL, drop_path_rate=0.0, max_position_embeddings=50,
    )
    text = BartConfig(
        vocab_size=vocab_size, d_model=D_MODEL, max_position_embeddings=MAX_POSITIONS,
        encoder_layers=LAYERS["encoder"], decoder_layers=LAYERS["decoder"],
        encoder_attention_heads=TEXT_HEADS, decoder_attention_heads=TEXT_HEADS,
        encoder_ffn_dim=FFN, decoder_ffn_dim=FFN, activation_function="gelu",
        dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, scale_embedding=False,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
        forced_bos_token_id=0, forced_eos_token_id=2, tie_word_embeddings=True,
    )
    return Florence2Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), image_token_id=IMAGE_PLACEHOLDER,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, tie_word_embeddings=True,
    )


def new_model(tokenizer, seed):
    """A fresh model with start values that suit its small width."""
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration(native_config(tokenizer.get_vocab_size()))
    _start_values(model, tokenizer)
    return model


@torch.no_grad()
def _start_values(model, tokenizer):
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "lm_head" not in name:
            gain = 0.5 if "vision_tower" in name and name.endswith(("proj", "fc2")) else 1.0
            nn.init.xavier_uniform_(module.weight, gain=gain)
        elif isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            std = 0.1 if module.groups > 1 else 1.0 / math.sqrt(fan_in)
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    shared = model.model.language_model.shared.weight
    nn.init.normal_(shared, std=0.07)
    _share_words(shared, tokenizer)
    first = tokenizer.token_to_id("<loc_0>")
    # Neighbouring bins begin alike, so that what is learned about one bin is learned about its neighbours.
    shared[first : first + 1000] = waves(1000, D_MODEL, 0.07, 24.0, 4000.0)
    for part in (model.model.language_model.encoder, model.model.language_model.decoder):
        nn.init.normal_(part.embed_positions.weight, std=0.03)
    place = model.model.multi_modal_projector.image_position_embed
    half = DIM_EMBED[-1] // 2
    place.row_embeddings.weight.copy_(waves(50, half, 0.5, 3.0, 100.0))
    place.column_embeddings.weight.copy_(waves(50, half, 0.5, 3.0, 100.0))
    model.tie_weights()


def _share_words(shared, tokenizer):
    # A word and the same word after a space begin with the same meaning.
    for token, index in tokenizer.get_vocab().items():
        other = tokenizer.token_to_id(token[1:]) if token.startswith("Ġ") and len(token) > 3 else None
        if other is not None:
            shared[index] = 0.9 * shared[other] + 0.3 * shared[index]


def waves(count, width, std, shortest, longest):
    """(count, width): row n holds sines and cosines of n at periods from shortest to longest."""
    periods = shortest * (longest / shortest) ** (torch.arange(width // 2) / (width // 2 - 1))
    angles = torch.arange(count)[:, None] * 2 * math.pi / periods[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1) * std * math.sqrt(2)


def resized(picture):
    """The picture as uint8 (SIDE, SIDE, 3): Pillow's bicubic, horizontal pass first."""
    picture = picture.resize((SIDE, picture.height), Image.BICUBIC).resize((SIDE, SIDE), Image.BICUBIC)
    return np.asarray(picture)


def pixel_values(pictures):
    """uint8 (batch, SIDE, SIDE, 3) → float32 (batch, 3, SIDE, SIDE), as the slow image processor does it."""
    values = torch.from_numpy((np.asarray(pictures).astype(np.float64) * 0.00392156862745098).astype(np.float32))
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
