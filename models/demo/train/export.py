"""Writes the checkpoint folder in the original layout, and reads it back into the reference class.

    python export.py --run RUN_FOLDER [--to models/demo]

Names and layout follow the Microsoft files: `image_projection` is transposed, of the four tied
matrices only `shared` is stored, the zero `final_logits_bias` and the temporal table are stored,
everything is float16. After writing, the folder is loaded back by the reverse renaming and
compared. Files are written beside their targets and moved into place.
"""

import argparse
import json
import os
import re
import tempfile

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration

import model as demo
from page import checksums, write_part
from tokenizer import build_tokenizer, save_tokenizer

TIED = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# (original, native), applied to dotted names from left to right.
RENAMES = (
    (r"^vision_tower\.convs\.(\d+)\.proj\.", r"model.vision_tower.convs.\1.conv."),
    (r"^vision_tower\.", "model.vision_tower."),
    (r"\.(conv[12])\.fn\.dw\.", r".\1."),
    (r"\.(window_attn|channel_attn)\.norm\.", ".norm1."),
    (r"\.(window_attn|channel_attn)\.fn\.", r".\1."),
    (r"\.ffn\.norm\.", ".norm2."),
    (r"\.ffn\.fn\.net\.", ".ffn."),
    (r"^image_projection$", "model.multi_modal_projector.image_projection.weight"),
    (r"^image_proj_norm\.", "model.multi_modal_projector.image_proj_norm."),
    (r"^image_pos_embed\.", "model.multi_modal_projector.image_position_embed."),
    (r"^visual_temporal_embed\.", "model.multi_modal_projector.visual_temporal_embed."),
    (r"^language_model\.model\.", "model.language_model."),
)


def native_name(original):
    """The native name of an original tensor name."""
    name = original
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def original_name(native):
    """The original name of a native tensor name."""
    name = native.removeprefix("model.")
    if name.startswith("language_model."):
        return "language_model.model." + name.removeprefix("language_model.")
    name = name.removeprefix("multi_modal_projector.")
    name = name.replace("image_projection.weight", "image_projection")
    name = name.replace("image_position_embed.", "image_pos_embed.")
    name = re.sub(r"^(vision_tower\.convs\.\d+)\.conv\.", r"\1.proj.", name)
    name = re.sub(r"\.(conv[12])\.(weight|bias)$", r".\1.fn.dw.\2", name)
    name = re.sub(r"\.(window_attn|channel_attn)\.(qkv|proj)\.", r".\1.fn.\2.", name)
    half = "window_attn" if ".spatial_block." in name else "channel_attn"
    name = name.replace(".norm1.", f".{half}.norm.")
    name = name.replace(".norm2.", ".ffn.norm.")
    return re.sub(r"\.ffn\.(fc[12])\.", r".ffn.fn.net.\1.", name)


def original_tensors(state):
    """The tensors of the file, from a native state dict."""
    tensors = {}
    for native, value in state.items():
        if native.endswith(TIED):
            continue
        original = original_name(native)
        assert native_name(original) == native, (native, original)
        value = value.T if original == "image_projection" else value
        tensors[original] = value.to(torch.float16).contiguous()
    rows = tensors["language_model.model.shared.weight"].shape[0]
    tensors["language_model.final_logits_bias"] = torch.zeros(1, rows, dtype=torch.float16)
    return tensors


def load_checkpoint(folder):
    """The reference class in float32 with the weights of a folder, and its tokenizer."""
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    model = Florence2ForConditionalGeneration(demo.native_config(tokenizer.get_vocab_size())).eval()
    tensors = load_file(os.path.join(folder, "model.safetensors"))
    tensors.pop("language_model.final_logits_bias")
    state = {native_name(name): value.float() for name, value in tensors.items()}
    state["model.multi_modal_projector.image_projection.weight"] = tensors["image_projection"].float().T.contiguous()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith(TIED) for name in missing), (missing, unexpected)
    model.tie_weights()
    model.set_attn_implementation("eager")
    return model, tokenizer


def text_config(rows):
    """`text_config` as the original files write it."""
    return {
        "vocab_size": rows, "activation_dropout": 0.0, "activation_function": "gelu", "add_bias_logits": False,
        "add_final_layer_norm": False, "attention_dropout": 0.0, "bos_token_id": 0, "classif_dropout": 0.1,
        "classifier_dropout": 0.0, "d_model": demo.D_MODEL, "decoder_attention_heads": demo.TEXT_HEADS,
        "decoder_ffn_dim": demo.FFN, "decoder_layerdrop": 0.0, "decoder_layers": demo.LAYERS["decoder"],
        "decoder_start_token_id": 2, "dropout": 0.0, "early_stopping": demo.GENERATION["early_stopping"],
        "encoder_attention_heads": demo.TEXT_HEADS, "encoder_ffn_dim": demo.FFN, "encoder_layerdrop": 0.0,
        "encoder_layers": demo.LAYERS["encoder"], "eos_token_id": 2, "forced_eos_token_id": 2,
        "forced_bos_token_id": 0, "gradient_checkpointing": False, "init_std": 0.02, "is_encoder_decoder": True,
        "max_position_embeddings": demo.MAX_POSITIONS,
        "no_repeat_ngram_size": demo.GENERATION["no_repeat_ngram_size"], "normalize_before": False,
        "num_hidden_layers": demo.LAYERS["encoder"], "pad_token_id": 1, "scale_embedding": False,
        "tie_word_embeddings": True, "num_beams": demo.GENERATION["num_beams"],
    }


def vision_config():
    """`vision_config` as the original files write it."""
    return {
        "model_type": "davit", "drop_path_rate": 0.0, "patch_size": [7, 3, 3, 3], "patch_stride": demo.PATCH_STRIDE,
        "patch_padding": [3, 1, 1, 1], "patch_prenorm": [False, True, True, True], "enable_checkpoint": False,
        "dim_embed": demo.DIM_EMBED, "num_heads": demo.HEADS, "num_groups": demo.HEADS, "depths": demo.DEPTHS,
        "window_size": demo.WINDOW, "projection_dim": demo.D_MODEL,
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    }


def configs(rows):
    """The JSON files by name."""
    side = {"height": demo.SIDE, "width": demo.SIDE}
    return {
        "config.json": {
            "_name_or_path": "florence2-demo", "architectures": ["Florence2ForConditionalGeneration"],
            "bos_token_id": 0, "eos_token_id": 2, "ignore_index": -100, "model_type": "florence2",
            "pad_token_id": 1, "projection_dim": demo.D_MODEL, "text_config": text_config(rows),
            "vision_config": vision_config(), "vocab_size": rows, "torch_dtype": "float16",
            "is_encoder_decoder": True,
        },
        "generation_config.json": {
            **demo.GENERATION, "bos_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 2,
            "forced_bos_token_id": 0, "forced_eos_token_id": 2, "pad_token_id": 1,
        },
        "preprocessor_config.json": {
            "do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "do_center_crop": False, "image_processor_type": "CLIPImageProcessor",
            "image_seq_length": demo.IMAGE_TOKENS, "image_mean": list(demo.MEAN), "image_std": list(demo.STD),
            "processor_class": "Florence2Processor", "resample": 3, "size": side, "crop_size": side,
        },
    }


def export(state, folder):
    """Writes all six files of the checkpoint, each moved into place when whole."""
    os.makedirs(folder, exist_ok=True)
    rows = build_tokenizer().get_vocab_size()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as fresh:
        save_tokenizer(fresh)
        for name, content in configs(rows).items():
            with open(os.path.join(fresh, name), "w") as file:
                json.dump(content, file, indent=2)
                file.write("\n")
        save_file(original_tensors(state), os.path.join(fresh, "model.safetensors"), metadata={"format": "pt"})
        for name in sorted(os.listdir(fresh)):
            os.chmod(os.path.join(fresh, name), 0o644)
            os.replace(os.path.join(fresh, name), os.path.join(folder, name))


def check(state, folder):
    """Fails unless the folder holds exactly this state, up to float16."""
    model, _ = load_checkpoint(folder)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name].to(torch.float16).float()), name


def main():
    """Exports the state of a run."""
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of the training run")
    parser.add_argument("--to", default=os.path.dirname(here), help="folder of the checkpoint")
    options = parser.parse_args()
    saved = torch.load(os.path.join(options.run, "state.pt"), map_location="cpu")
    export(saved["model"], options.to)
    check(saved["model"], options.to)
    if os.path.realpath(options.to) == os.path.realpath(os.path.dirname(here)):
        write_part("checksums", checksums(options.to))
    size = os.path.getsize(os.path.join(options.to, "model.safetensors"))
    print(f"step {saved['step']}: {size} bytes in {options.to}/model.safetensors, loaded back equal")


if __name__ == "__main__":
    main()
