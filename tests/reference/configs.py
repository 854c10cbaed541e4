"""`config.json` and its companions in the shape each layout publishes them.

One description of the sizes (`Sizes`) is written out in either shape, and
either file is read into the reference library's configuration class.
"""

from dataclasses import dataclass, field

from transformers import Florence2Config

PATCH_PRENORM = [False, True, True, True]
TEMPORAL_POSITIONS = 100


@dataclass
class Sizes:
    """Everything about an architecture that its configuration states."""

    dims: list = field(default_factory=lambda: [6, 12, 16, 24])
    heads: list = field(default_factory=lambda: [1, 2, 2, 3])
    groups: list = field(default_factory=lambda: [2, 3, 4, 6])
    depths: list = field(default_factory=lambda: [1, 1, 1, 1])
    patch_size: list = field(default_factory=lambda: [7, 3, 3, 3])
    patch_stride: list = field(default_factory=lambda: [4, 2, 2, 2])
    patch_padding: list = field(default_factory=lambda: [3, 1, 1, 1])
    window: int = 12
    mlp_ratio: float = 4.0
    image_positions: int = 8
    side: int = 48
    d_model: int = 16
    encoder_layers: int = 1
    decoder_layers: int = 1
    encoder_heads: int = 2
    decoder_heads: int = 2
    encoder_ffn: int = 48
    decoder_ffn: int = 48
    positions: int = 128

    def image_tokens(self):
        """Vectors one picture becomes: the average and one per cell."""
        side = self.side
        for kernel, stride, padding in zip(self.patch_size, self.patch_stride, self.patch_padding):
            side = (side + 2 * padding - kernel) // stride + 1
        return side * side + 1


BASE = Sizes(
    dims=[128, 256, 512, 1024],
    heads=[4, 8, 16, 32],
    groups=[4, 8, 16, 32],
    depths=[1, 1, 9, 1],
    image_positions=50,
    side=768,
    d_model=768,
    encoder_layers=6,
    decoder_layers=6,
    encoder_heads=12,
    decoder_heads=12,
    encoder_ffn=3072,
    decoder_ffn=3072,
    positions=1024,
)

LARGE = Sizes(
    dims=[256, 512, 1024, 2048],
    heads=[8, 16, 32, 64],
    groups=[8, 16, 32, 64],
    depths=[1, 1, 9, 1],
    image_positions=50,
    side=768,
    d_model=1024,
    encoder_layers=12,
    decoder_layers=12,
    encoder_heads=16,
    decoder_heads=16,
    encoder_ffn=4096,
    decoder_ffn=4096,
    positions=4096,
)


def text_sizes(sizes, vocab_size):
    """What both layouts say alike about the text model."""
    return {
        "activation_dropout": 0.1,
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "attention_dropout": 0.1,
        "classif_dropout": 0.1,
        "classifier_dropout": 0.0,
        "d_model": sizes.d_model,
        "decoder_attention_heads": sizes.decoder_heads,
        "decoder_ffn_dim": sizes.decoder_ffn,
        "decoder_layerdrop": 0.0,
        "decoder_layers": sizes.decoder_layers,
        "dropout": 0.1,
        "encoder_attention_heads": sizes.encoder_heads,
        "encoder_ffn_dim": sizes.encoder_ffn,
        "encoder_layerdrop": 0.0,
        "encoder_layers": sizes.encoder_layers,
        "forced_bos_token_id": 0,
        "gradient_checkpointing": False,
        "init_std": 0.02,
        "max_position_embeddings": sizes.positions,
        "normalize_before": False,
        "num_hidden_layers": sizes.encoder_layers,
        "scale_embedding": False,
        "vocab_size": vocab_size,
    }


def vision_sizes(sizes):
    """What both layouts say alike about the vision tower."""
    return {
        "drop_path_rate": 0.1,
        "patch_size": sizes.patch_size,
        "patch_stride": sizes.patch_stride,
        "patch_padding": sizes.patch_padding,
        "patch_prenorm": PATCH_PRENORM,
        "enable_checkpoint": False,
        "dim_embed": sizes.dims,
        "num_heads": sizes.heads,
        "num_groups": sizes.groups,
        "depths": sizes.depths,
        "window_size": sizes.window,
        "projection_dim": sizes.d_model,
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": TEMPORAL_POSITIONS},
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": sizes.image_positions},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    }


def original_config(sizes, vocab_size, dtype, generation):
    """`config.json` as Microsoft's repositories have it."""
    if sizes.mlp_ratio != 4.0:
        raise ValueError("the original configuration cannot state an MLP ratio")
    text = text_sizes(sizes, vocab_size) | {
        "bos_token_id": 0,
        "decoder_start_token_id": 2,
        "eos_token_id": 2,
        "forced_eos_token_id": 2,
        "is_encoder_decoder": True,
        "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
        "pad_token_id": 1,
    }
    return {
        "_name_or_path": "florence2",
        "architectures": ["Florence2ForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": "configuration_florence2.Florence2Config",
            "AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration",
        },
        "bos_token_id": 0,
        "eos_token_id": 2,
        "ignore_index": -100,
        "model_type": "florence2",
        "pad_token_id": 1,
        "projection_dim": sizes.d_model,
        "text_config": text | generation,
        "vision_config": {"model_type": "davit"} | vision_sizes(sizes),
        "vocab_size": vocab_size,
        "torch_dtype": dtype,
        "transformers_version": "4.41.0.dev0",
        "is_encoder_decoder": True,
    }


def native_config(sizes, vocab_size, image_token, dtype, generation):
    """`config.json` as the reference library's conversions have it."""
    text = text_sizes(sizes, vocab_size) | {"activation_function": "gelu", "model_type": "bart", "use_cache": True}
    vision = vision_sizes(sizes) | {
        "activation_function": "gelu",
        "embed_dim": sizes.dims,
        "in_channels": 3,
        "initializer_range": 0.02,
        "max_pos_embeddings": sizes.image_positions,
        "max_position_embeddings": sizes.image_positions,
        "max_temporal_embeddings": TEMPORAL_POSITIONS,
        "mlp_ratio": sizes.mlp_ratio,
        "model_type": "florence_vision",
        "qkv_bias": True,
    }
    return {
        "architectures": ["Florence2ForConditionalGeneration"],
        "dtype": dtype,
        "image_token_id": image_token,
        "is_encoder_decoder": True,
        "model_type": "florence2",
        "text_config": text | generation,
        "transformers_version": "4.56.1",
        "vision_config": vision,
    }


def native_generation_config(generation):
    """`generation_config.json` beside a native checkpoint."""
    return {
        "_from_model_config": True,
        "bos_token_id": 0,
        "decoder_start_token_id": 2,
        "eos_token_id": 2,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "pad_token_id": 1,
        "transformers_version": "4.56.1",
    } | generation


# The file Microsoft ships; it has no effect on the original's answers.
ORIGINAL_GENERATION_CONFIG = {"num_beams": 3, "early_stopping": False}


def preprocessor_config(sizes):
    """`preprocessor_config.json`, the same in both layouts but for the sizes."""
    square = {"height": sizes.side, "width": sizes.side}
    return {
        "crop_size": square,
        "do_center_crop": False,
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": sizes.image_tokens(),
        "image_std": [0.229, 0.224, 0.225],
        "processor_class": "Florence2Processor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": square,
    }


# The placeholder under the original layout, which has no `<image>`: a token
# that no prompt holds. Its embedding is replaced before anything reads it.
PLACEHOLDER_ID = 3


def reference_config(config, layout):
    """The reference class's configuration for a checkpoint of either layout."""
    if layout == "native":
        return Florence2Config.from_dict(config)
    vision = dict(config["vision_config"])
    vision["model_type"] = "florence_vision"
    vision["embed_dim"] = vision.pop("dim_embed")
    vision["max_position_embeddings"] = vision["image_pos_embed"]["max_pos_embeddings"]
    vision["max_temporal_embeddings"] = vision["visual_temporal_embedding"]["max_temporal_embeddings"]
    generation = ("num_beams", "early_stopping", "length_penalty", "no_repeat_ngram_size")
    text = {key: value for key, value in config["text_config"].items() if key not in generation}
    text["model_type"] = "bart"
    return Florence2Config.from_dict(
        {"vision_config": vision, "text_config": text, "image_token_id": PLACEHOLDER_ID, "is_encoder_decoder": True}
    )
