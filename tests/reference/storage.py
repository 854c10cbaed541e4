"""Weights on disk, in the three forms published checkpoints have.

Writes and reads `model.safetensors`, sharded safetensors with an index, and
`pytorch_model.bin`. What is read back is what the reference results are
computed from, so a mistake in writing cannot stay unseen.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
METADATA = {"format": "pt"}


def write(state, folder, storage, shards=3):
    """Stores `state` as "safetensors", "sharded" or "pickle"."""
    folder = Path(folder)
    if storage == "pickle":
        # Tied tensors stay views of one storage, as torch.save leaves them.
        torch.save(state, folder / PICKLE)
        return
    apart = untie(state)
    if storage == "safetensors":
        save_file(apart, folder / SINGLE, METADATA)
        return
    if storage != "sharded":
        raise ValueError(f"unknown storage {storage}")
    names = sorted(apart)
    size = -(-len(names) // shards)
    weight_map = {}
    for part in range(shards):
        file = f"model-{part + 1:05}-of-{shards:05}.safetensors"
        chosen = names[part * size : (part + 1) * size]
        save_file({name: apart[name] for name in chosen}, folder / file, METADATA)
        weight_map.update(dict.fromkeys(chosen, file))
    total = sum(tensor.numel() * tensor.element_size() for tensor in apart.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def untie(state):
    """Copies of tensors that share memory: safetensors refuses views of one storage."""
    seen, out = set(), {}
    for name, tensor in state.items():
        place = tensor.data_ptr()
        out[name] = tensor.clone() if place in seen else tensor.contiguous()
        seen.add(place)
    return out


def read(folder):
    """All tensors of a checkpoint folder under the names in its files."""
    folder = Path(folder)
    if (folder / SINGLE).exists():
        return load_file(folder / SINGLE)
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text())
        out = {}
        for file in sorted(set(index["weight_map"].values())):
            out.update(load_file(folder / file))
        return out
    return torch.load(folder / PICKLE, weights_only=True)
