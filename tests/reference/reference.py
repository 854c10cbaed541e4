"""The reference library on one checkpoint folder: load, stages, generate.

Everything expected of the Rust program comes from here, and everything here is
done by `Florence2ForConditionalGeneration`, its processor and its `generate`,
in float32 with eager attention, from the weights as the files hold them.
"""

import json
import math
import platform
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL
import tokenizers
import torch
import transformers
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from transformers import Florence2ForConditionalGeneration, Florence2Processor, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import configs
import layouts
import margins
import storage
import tiny_tokenizer

# The library's own length when nobody asks: 21 tokens with the start token.
DEFAULT_NEW_TOKENS = 20
# The library's values for settings that no file mentions.
LIBRARY_DEFAULTS = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0, "no_repeat_ngram_size": 0}
SPECIAL_IDS = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
}


def read_json(path):
    """One JSON file."""
    return json.loads(Path(path).read_text())


def require_pinned_versions():
    """Stops unless every library has the version of `requirements.txt`.

    Answers depend on them silently: Pillow 13, for one, resizes tall pictures
    in another order of passes.
    """
    for line in (Path(__file__).parent / "requirements.txt").read_text().splitlines():
        name, _, wanted = line.partition("==")
        if wanted and (found := metadata.version(name)) != wanted:
            raise SystemExit(f"{name} is {found}, but requirements.txt pins {wanted}")


def library_versions():
    """What the answers were computed with."""
    return {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }


class Reference:
    """A checkpoint folder of either layout, run by the reference library."""

    def __init__(self, folder, layout, attention="eager"):
        self.folder = Path(folder)
        self.layout = layout
        self.tokenizer = complete_tokenizer(self.folder, layout)
        self.model, self.extra_bias = load(self.folder, layout, attention)
        if self.extra_bias is not None:
            bias = self.extra_bias
            self.model.lm_head.register_forward_hook(lambda module, inputs, output: output + bias)
        self.processor = Florence2Processor(
            image_processor=CLIPImageProcessorPil(**pillow_settings(self.folder)),
            tokenizer=PreTrainedTokenizerFast(
                tokenizer_object=self.tokenizer,
                bos_token="<s>",
                eos_token="</s>",
                pad_token="<pad>",
                unk_token="<unk>",
                mask_token="<mask>",
                extra_special_tokens={"image_token": tiny_tokenizer.IMAGE},
                clean_up_tokenization_spaces=False,
            ),
        )

    def inputs(self, picture, prompt):
        """The processor's tensors, and the ids of the text alone."""
        out = self.processor(text=prompt, images=Image.open(picture), return_tensors="pt")
        image = self.processor.image_token_id
        ids = out["input_ids"]
        text_ids = ids[ids != image].tolist()
        out["input_ids"] = ids.masked_fill(ids == image, self.model.config.image_token_id)
        return dict(out), text_ids

    def text_sent(self, prompt):
        """The sentence a prompt becomes."""
        return self.processor._construct_prompts(prompt)[0]

    def settings(self, passed):
        """All generation settings in force when the caller passes `passed`."""
        if self.layout == "native":
            source = read_json(self.folder / "generation_config.json")
        else:
            source = read_json(self.folder / "config.json")["text_config"]
        out = {key: passed.get(key, source.get(key, default)) for key, default in LIBRARY_DEFAULTS.items()}
        out["max_new_tokens"] = passed.get("max_new_tokens", DEFAULT_NEW_TOKENS)
        return out

    @torch.no_grad()
    def generate(self, inputs, settings):
        """Token ids of the answer, and how narrow the narrowest decision was."""
        beams = settings["num_beams"]
        config = GenerationConfig(
            **SPECIAL_IDS, **settings, do_sample=False, return_dict_in_generate=True, output_scores=beams == 1
        )
        if beams == 1:
            # Settings of beam search say nothing here, and the library would warn.
            config.early_stopping, config.length_penalty = False, 1.0
            result = self.model.generate(**inputs, generation_config=config)
            return result.sequences[0].tolist(), margins.of_greedy(result.scores)
        with margins.watched_beam_search(self.model) as margin:
            result = self.model.generate(**inputs, generation_config=config)
        return result.sequences[0].tolist(), margin.smallest

    def decode(self, ids):
        """The text of token ids, special tokens kept."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def answer(self, picture, task, prompt, passed):
        """One run as `expected.json` holds it; `picture` is a file of the folder."""
        inputs, text_ids = self.inputs(self.folder / picture, prompt)
        settings = self.settings(passed)
        token_ids, margin = self.generate(inputs, settings)
        return {
            "task": task,
            "picture": picture,
            "prompt": prompt,
            "text_sent": self.text_sent(prompt),
            "input_ids": text_ids,
            "image_tokens": inputs["input_ids"].shape[1] - len(text_ids),
            "num_beams": settings["num_beams"],
            "options": {key: value for key, value in settings.items() if key != "num_beams"},
            "passed": passed,
            "token_ids": token_ids,
            "text": self.decode(token_ids),
            "transition_margin": margin if margin < math.inf else None,
        }

    @torch.no_grad()
    def stages(self, picture, prompt):
        """What stands between the picture and the first token, stage by stage."""
        inputs, _ = self.inputs(self.folder / picture, prompt)
        inner = self.model.model
        pixels, ids = inputs["pixel_values"], inputs["input_ids"]
        features = inner.vision_tower(pixels).last_hidden_state
        image_features = inner.multi_modal_projector(features)
        whole = self.model(
            **inputs, decoder_input_ids=torch.tensor([[SPECIAL_IDS["decoder_start_token_id"]]]), use_cache=False
        )
        stages = {
            "pixel_values": pixels,
            "vision_features": features.flatten(2).transpose(1, 2),
            "image_features": image_features,
            "encoder_hidden_states": whole.encoder_last_hidden_state,
            "first_logits": whole.logits[:, 0],
        }
        return {name: tensor.contiguous() for name, tensor in stages.items()}


def complete_tokenizer(folder, layout):
    """The folder's tokenizer with all task tokens and `<image>`."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if layout == "original":
        tokens = tiny_tokenizer.TASK_TOKENS + [tiny_tokenizer.IMAGE]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return tokenizer


def pillow_settings(folder):
    """`preprocessor_config.json` for the Pillow image processor, which is the exact one."""
    settings = read_json(folder / "preprocessor_config.json")
    return {key: value for key, value in settings.items() if not key.endswith(("_type", "_class")) and key != "auto_map"}


def exact_pixels(picture, side, mean, std):
    """Resize, rescale and normalise written out: what the processor must equal bit by bit."""
    image = Image.open(picture).resize((side, side), Image.Resampling.BICUBIC)
    scaled = (np.asarray(image).astype(np.float64) * 0.00392156862745098).astype(np.float32)
    pixels = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def load(folder, layout, attention="eager"):
    """The reference model in float32, and the original layout's logits bias if it has one."""
    state, bias = storage.read(folder), None
    if layout == "original":
        state, bias = layouts.to_native(state)
    present = [name for name in layouts.TIED if name in state]
    if any(not torch.equal(state[name], state[present[0]]) for name in present):
        raise ValueError("tied tensors differ")
    table = state[present[0]].float()
    state = {name: tensor.float() for name, tensor in state.items() if name not in layouts.TIED}
    state.update(dict.fromkeys(layouts.TIED, table))
    config = configs.reference_config(read_json(folder / "config.json"), layout)
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration._from_config(config, attn_implementation=attention)
    if layouts.TEMPORAL_TABLE not in state:
        state[layouts.TEMPORAL_TABLE] = temporal_table(model)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    return model.eval(), None if bias is None else bias.float()


def temporal_table(model):
    """The cosine table, for files that do not store it."""
    embed = model.model.multi_modal_projector.visual_temporal_embed
    sine, cosine = embed.get_sinusoid_embeddings(embed.max_seq_len, embed.embed_dim)
    return torch.stack((sine, cosine), dim=-1).flatten(1)
