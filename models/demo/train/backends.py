"""The two ways to ask the checkpoint: the server's own binary, and the reference class.

Both take cases and give back one list of token ids and one text per case, decoder start token and
special tokens included, from three beams in float32. `evaluate.py` scores and compares them.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

from export import load_checkpoint
from language import REGION_TASKS, TASKS, TEXT_TASKS, bins, locations
from model import IMAGE_PLACEHOLDER, IMAGE_TOKENS, pixel_values, resized
from scenes import render

MAX_NEW_TOKENS = 200
# Pictures in one call of the binary, and in one batch of the reference class where only meaning counts.
PICTURES_A_CALL = 50


def prompt_text(case):
    """The sentence that a case puts to the model."""
    task, scene = case["task"], case["scene"]
    if task in TEXT_TASKS:
        return TASKS[task].format(case["text"])
    if task in REGION_TASKS:
        return TASKS[task].format(locations(case["region"], scene))
    return TASKS[task]


def progress(name, done, total):
    """One line that rewrites itself, for people at a terminal."""
    if sys.stderr.isatty():
        print(f"  {name}: {done}/{total}   ", end="\r", file=sys.stderr)


class Reference:
    """The reference library's class.

    In a batch its matrix products round otherwise than for one picture alone, which turns about one
    answer in a thousand to a neighbouring location bin. Who compares token ids says `batch=1`.
    """

    def __init__(self, folder, threads=1, num_beams=3, batch=PICTURES_A_CALL):
        torch.set_num_threads(threads)
        self.model, self.tokenizer = load_checkpoint(folder)
        self.num_beams, self.batch = num_beams, batch

    @torch.no_grad()
    def answer(self, cases, oversample=1):
        """[(ids, text)] in the order of the cases; cases with prompts of one length may share a batch."""
        prompts = [self.tokenizer.encode(prompt_text(case)).ids for case in cases]
        answers = [None] * len(cases)
        order = sorted(range(len(cases)), key=lambda i: len(prompts[i]))
        while order:
            batch = [i for i in order if len(prompts[i]) == len(prompts[order[0]])][: self.batch]
            order = [i for i in order if i not in batch]
            pictures = np.stack([resized(render(cases[i]["scene"], oversample)) for i in batch])
            ids = torch.tensor([[IMAGE_PLACEHOLDER] * IMAGE_TOKENS + prompts[i] for i in batch])
            sequences = self.model.generate(
                input_ids=ids, pixel_values=pixel_values(pictures), max_new_tokens=MAX_NEW_TOKENS,
                num_beams=self.num_beams, early_stopping=self.num_beams > 1, no_repeat_ngram_size=0,
                forced_bos_token_id=0, forced_eos_token_id=2, decoder_start_token_id=2, do_sample=False,
            )
            for i, sequence in zip(batch, sequences.tolist()):
                end = sequence.index(2, 1) + 1 if 2 in sequence[1:] else len(sequence)
                text = self.tokenizer.decode(sequence[:end], skip_special_tokens=False)
                answers[i] = (sequence[:end], text)
            progress("reference", len(cases) - len(order), len(cases))
        return answers


class Rust:
    """The server's binary, `run IMAGE… --json`."""

    def __init__(self, folder, binary, dtype="f32"):
        self.folder, self.binary, self.dtype = folder, binary, dtype

    def answer(self, cases):
        """[(ids, text)] in the order of the cases."""
        answers = []
        with tempfile.TemporaryDirectory() as pictures:
            paths = []
            for number, case in enumerate(cases):
                paths.append(os.path.join(pictures, f"{number}.png"))
                render(case["scene"]).save(paths[-1])
            alone = cases[0]["task"] in TEXT_TASKS + REGION_TASKS
            step = 1 if alone else PICTURES_A_CALL
            for at in range(0, len(cases), step):
                answers += self._call(paths[at : at + step], cases[at])
                progress("binary", len(answers), len(cases))
        return answers

    def _call(self, paths, case):
        command = [self.binary, "run", *paths, "--model", self.folder, "--task", case["task"], "--json"]
        command += ["--device", "cpu", "--dtype", self.dtype]
        if case["task"] in TEXT_TASKS:
            command += ["--text", case["text"]]
        if case["task"] in REGION_TASKS:
            # The endpoints take regions in location bins, not in pixels.
            command += ["--region", ",".join(str(n) for n in bins(case["region"], case["scene"]))]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        return [(line["token_ids"], line["text"]) for line in lines]
