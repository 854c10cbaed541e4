"""Stores how likely the reference library held each token of its answers.

    python make_transition_scores.py [--out ../data/transition_scores.json]

Reads the tiny checkpoints and answers that `make_parity.py` stored, asks the
library again with scores, and refuses to go on when its tokens differ. Pixel
values come from the stored stages, so no picture is read and Pillow's version
does not matter here.

The numbers are those of the library's own `compute_transition_scores`, called
as its documentation says: with the indices of beam search, whose scores are
log-probabilities already, or normalised for greedy search, whose scores are
logits.
"""

import argparse
import json
from importlib import metadata
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import GenerationConfig

from reference import SPECIAL_IDS, Reference, read_json

PARITY = Path(__file__).resolve().parent.parent / "data" / "parity"
OUT = PARITY.parent / "transition_scores.json"
# Both layouts, a bias on the logits, settings of their own, and the longest answers.
CHECKPOINTS = [1, 2, 7, 8, 10, 17, 21, 22, 26, 27, 28, 29]
# What the answers depend on.
PINNED = ["transformers", "torch"]
# Digits behind the point: a tenth of the least difference that float32 shows in such numbers.
DIGITS = 7


def require_pinned_versions():
    """Stops unless the libraries that matter have the versions of `requirements.txt`."""
    lines = (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    wanted = dict(line.split("==") for line in lines if "==" in line)
    for name in PINNED:
        if (found := metadata.version(name).split("+")[0]) != wanted[name]:
            raise SystemExit(f"{name} is {found}, but requirements.txt pins {wanted[name]}")


def inputs_of(run, pixel_values, image_token_id):
    """The tensors that the processor made for a stored run."""
    ids = torch.tensor([[image_token_id] * run["image_tokens"] + run["input_ids"]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixel_values}


@torch.no_grad()
def transition_scores(model, inputs, settings):
    """Token ids, and the log-probability of each but the first."""
    config = GenerationConfig(
        **SPECIAL_IDS, **settings, do_sample=False, return_dict_in_generate=True, output_scores=True
    )
    if settings["num_beams"] == 1:
        # Settings of beam search say nothing here, and the library would warn.
        config.early_stopping, config.length_penalty = False, 1.0
        result = model.generate(**inputs, generation_config=config)
        scores = model.compute_transition_scores(result.sequences, result.scores, normalize_logits=True)
        return result.sequences[0].tolist(), scores[0]
    result = model.generate(**inputs, generation_config=config)
    scores = model.compute_transition_scores(result.sequences, result.scores, result.beam_indices)
    whole = scores.sum() / scores.shape[1] ** settings["length_penalty"]
    if not torch.allclose(whole, result.sequences_scores[0], atol=1e-5):
        raise SystemExit(f"the transition scores give {whole}, the search {result.sequences_scores[0]}")
    return result.sequences[0].tolist(), scores[0]


def folder_of(number):
    """The folder of a tiny checkpoint."""
    [folder] = PARITY.glob(f"{number:02}-*")
    return folder


def rows_of(folder):
    """One row for each stored run of a checkpoint."""
    expected = read_json(folder / "expected.json")
    reference = Reference(folder, expected["layout"])
    pixel_values = load_file(folder / "stages.safetensors")["pixel_values"]
    for index, run in enumerate(expected["runs"]):
        inputs = inputs_of(run, pixel_values, reference.model.config.image_token_id)
        settings = {"num_beams": run["num_beams"], **run["options"]}
        token_ids, scores = transition_scores(reference.model, inputs, settings)
        if token_ids != run["token_ids"]:
            raise SystemExit(f"{folder.name}, run {index}: {token_ids} instead of {run['token_ids']}")
        rounded = [round(score, DIGITS) + 0.0 for score in scores.tolist()]
        yield {"checkpoint": folder.name, "run": index, "transition_scores": rounded}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=OUT)
    chosen = arguments.parse_args()
    require_pinned_versions()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = [row for number in CHECKPOINTS for row in rows_of(folder_of(number))]
    library = {name: metadata.version(name).split("+")[0] for name in PINNED}
    about = "Transition scores of the runs stored under parity: one for each token after the decoder start token."
    head = json.dumps({"about": about, "library": library})[:-1]
    body = ",\n".join(" " + json.dumps(row) for row in rows)
    chosen.out.write_text(f'{head}, "rows": [\n{body}\n]}}\n')
    print(f"{len(rows)} runs, {sum(len(row['transition_scores']) for row in rows)} tokens")


if __name__ == "__main__":
    main()
