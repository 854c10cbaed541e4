"""Trains the demo checkpoint: seeded, resumable, on CPU or GPU.

    python train.py --run RUN_FOLDER [--steps N]

First the vision tower alone learns from the guides (`guides.py`), then everything learns together
from answers in Florence-2's output language. The learning rate warms up, stays, and falls over the
last part of the steps; because it stays, a run may be given more steps as long as it has not begun
to fall. Writes RUN_FOLDER/state.pt every few minutes and RUN_FOLDER/log.txt; call it again to go on.
"""

import argparse
import math
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict

import torch
import torch.distributed as dist

from batches import PAD, SEED, TOWER_STEPS, Batches, loader
from guides import Guide
from model import new_model, pixel_values
from tokenizer import build_tokenizer

WARM_UP = 60
# Share of the steps over which the learning rate falls to nothing.
FALL = 0.35
RATE_MATRICES = 2e-3
RATE_OTHERS = 1.5e-3
SAVE_SECONDS = 180
# Width of the soft targets in bins: at the start, when the rate begins to fall, and at the end. The
# narrow end keeps neighbouring bins apart, so that no answer hangs on the last bit of a sum.
SOFT_FIRST, SOFT_LEVEL, SOFT_LAST = 14.0, 5.0, 1.5
LOCATION_WEIGHT = 0.6


def rate_factor(step, steps):
    """Warm-up at both beginnings, level, then a cosine fall."""
    since = step if step < TOWER_STEPS else step - TOWER_STEPS
    warm = min(1.0, (since + 1) / WARM_UP) if step >= TOWER_STEPS or since < WARM_UP else 1.0
    begin = steps * (1 - FALL)
    if step < begin:
        return warm
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - begin) / (steps - begin))))


def soft_width(step, steps):
    """Width of the soft targets in bins, narrowing geometrically in both parts of the schedule."""
    begin = steps * (1 - FALL)
    if step < begin:
        return SOFT_FIRST * (SOFT_LEVEL / SOFT_FIRST) ** (step / begin)
    return SOFT_LEVEL * (SOFT_LAST / SOFT_LEVEL) ** ((step - begin) / (steps - begin))


def softness(width, device):
    """(1000, 1000): row n is the target distribution of bin n."""
    bins = torch.arange(1000, device=device)
    table = torch.exp(-0.5 * ((bins[:, None] - bins[None]) / width) ** 2)
    return table / table.sum(1, keepdim=True)


class Trainer:
    """Model, guides, optimisers and the step count."""

    def __init__(self, run, device, rank=0, ranks=1):
        self.run, self.device, self.rank, self.ranks = run, device, rank, ranks
        self.tokenizer = build_tokenizer()
        self.first_location = self.tokenizer.token_to_id("<loc_0>")
        self.model = new_model(self.tokenizer, SEED).to(device)
        self.model.set_attn_implementation("eager")
        self.image_guide, self.text_guide = Guide().to(device), Guide().to(device)
        self.step = 0
        self.scores = defaultdict(lambda: None)
        self._optimisers()
        self.path = os.path.join(run, "state.pt")
        if os.path.exists(self.path):
            self._load()

    def _optimisers(self):
        matrices, others = [], []
        for name, parameter in self.model.named_parameters():
            hidden = parameter.ndim == 2 and "embed" not in name and "shared" not in name
            (matrices if hidden else others).append(parameter)
        others += list(self.image_guide.parameters()) + list(self.text_guide.parameters())
        self.parameters = matrices + others
        self.optimisers = [
            torch.optim.Muon(matrices, lr=RATE_MATRICES, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=RATE_OTHERS, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["peak"] = group["lr"]

    def _load(self):
        state = torch.load(self.path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.image_guide.load_state_dict(state["image_guide"])
        self.text_guide.load_state_dict(state["text_guide"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        self.step = state["step"]

    def save(self):
        """Replaces the state file in one move."""
        state = {
            "model": self.model.state_dict(),
            "image_guide": self.image_guide.state_dict(),
            "text_guide": self.text_guide.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
        }
        torch.save(state, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def note(self, name, value):
        """A running mean of a score."""
        value, old = float(value), self.scores[name]
        if value == value:
            self.scores[name] = value if old is None else 0.96 * old + 0.04 * value

    def loss(self, batch, soft):
        """The whole loss of one batch."""
        pixels = pixel_values(batch["pictures"]).to(self.device)
        image = self.model.model.get_image_features(pixels).pooler_output
        cells, skies = batch["cells"].to(self.device), batch["skies"].to(self.device)
        shared = self.model.model.language_model.shared.weight
        locations = shared[self.first_location : self.first_location + 1000]
        guide, scores = self.image_guide(image, cells, skies, locations, soft)
        for name, value in scores.items():
            self.note(f"image {name}", value)
        if "groups" not in batch:
            return guide
        total = 0.4 * guide
        for kind, group in zip(("long", "short"), batch["groups"]):
            questions = len(group["tasks"]) // len(image)
            encoded, mask = self._encode(image.repeat_interleave(questions, 0), group["prompts"].to(self.device))
            if kind == "long":
                seen = encoded[::questions, : image.shape[1]]
                guide, scores = self.text_guide(seen, cells, skies, locations, soft)
                self.note("text rank", scores["rank"])
                self.note("text edge", scores["edge"])
                total = total + 0.4 * guide
            total = total + self._answer_loss(encoded, mask, group, soft)
        return total

    def _encode(self, image, prompts):
        language = self.model.model.language_model
        embedded = torch.cat([image, language.shared(prompts).to(image.dtype)], 1)
        mask = torch.cat([torch.ones(image.shape[:2], dtype=torch.long, device=self.device), (prompts != PAD).long()], 1)
        return language.encoder(inputs_embeds=embedded, attention_mask=mask)[0], mask

    def _answer_loss(self, encoded, mask, group, soft):
        answers = group["answers"].to(self.device)
        given = torch.cat([torch.full_like(answers[:, :1], 2), answers[:, :-1]], 1)
        hidden = self.model.model.language_model.decoder(
            input_ids=given, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
        )[0]
        real = answers != PAD
        labels = answers[real]
        logits = self.model.lm_head(hidden[real]).float()
        first = self.first_location
        place = (labels >= first) & (labels < first + 1000)
        normaliser = torch.logsumexp(logits, 1)
        plain = normaliser[~place] - logits[~place].gather(1, labels[~place, None])[:, 0]
        pointed = logits[place][:, first : first + 1000]
        spread = normaliser[place] - (pointed * soft[labels[place] - first]).sum(1)
        weights = plain.numel() + LOCATION_WEIGHT * spread.numel()
        self._note_answers(logits.argmax(1), labels, place, real, group["tasks"])
        return (plain.sum() + LOCATION_WEIGHT * spread.sum()) / weights

    @torch.no_grad()
    def _note_answers(self, guess, labels, place, real, tasks):
        right = torch.where(place, (guess - labels).abs() <= 15, guess == labels)
        grid_right = torch.ones(real.shape, dtype=torch.bool, device=real.device)
        grid_right[real] = right
        grid_place = torch.zeros_like(grid_right)
        grid_place[real] = place
        for row, task in enumerate(tasks):
            self.note(f"{task}", (grid_right[row] | grid_place[row]).all())
            if grid_place[row].any():
                self.note(f"{task} loc", grid_right[row][grid_place[row]].float().mean())

    def train_step(self, batch, steps):
        """One update."""
        factor = rate_factor(self.step, steps)
        if self.step == self.start or self.step % 50 == 0:
            self.soft = softness(soft_width(self.step, steps), self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = self.loss(batch, self.soft)
        loss.backward()
        self._share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        self.note("loss", loss.detach())
        self.note("norm", norm)

    def _share_gradients(self):
        # The mean over the processes; each then makes the same update.
        if self.ranks == 1:
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in self.parameters])
        dist.all_reduce(flat)
        flat /= self.ranks
        at = 0
        for parameter in self.parameters:
            parameter.grad.copy_(flat[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()

    def fit(self, steps, count):
        """Trains up to `steps`, with a line of progress every 25."""
        self.start = self.step
        batches = Batches(self.step, steps, count, self.rank, self.ranks)
        saved = tick = time.time()
        self.leaving = False
        signal.signal(signal.SIGTERM, self._leave)
        for batch in loader(batches, 0 if self.ranks > 1 else 1):
            self.train_step(batch, steps)
            if self.rank == 0 and self.step % 25 == 0:
                now = time.time()
                self._report(steps, (now - tick) / 25)
                tick = now
            if self.rank == 0 and (self.leaving or time.time() - saved > SAVE_SECONDS):
                self.save()
                saved = time.time()
            if self.leaving:
                return
        if self.rank == 0:
            self.save()

    def _leave(self, *_):
        # The step in progress ends and is saved; `kill` loses nothing.
        self.leaving = True

    def _report(self, steps, seconds):
        line = f"{time.strftime('%H:%M:%S')} step {self.step}/{steps} {seconds:.2f} s/step"
        line += "".join(f" | {name} {value:.3f}" for name, value in sorted(self.scores.items()) if value is not None)
        print(line, flush=True)
        with open(os.path.join(self.run, "log.txt"), "a") as log:
            log.write(line + "\n")


def _process(options):
    rank = options.rank or 0
    torch.set_num_threads(options.threads)
    if options.processes > 1:
        port = f"tcp://127.0.0.1:{options.port}"
        dist.init_process_group("gloo", init_method=port, rank=rank, world_size=options.processes)
    trainer = Trainer(options.run, torch.device(options.device), rank, options.processes)
    trainer.fit(options.steps, options.scenes)


def main():
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of the state and the log")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--scenes", type=int, default=16, help="scenes in a step of one process")
    parser.add_argument("--processes", type=int, default=2, help="one thread each scales better than threads")
    parser.add_argument("--rank", type=int, help="set by the first process for the others")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=29511)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    os.makedirs(options.run, exist_ok=True)
    if options.processes == 1 or options.rank is not None:
        return _process(options)
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--rank"]
    running = [subprocess.Popen([*command, str(rank)]) for rank in range(options.processes)]
    sys.exit(max(process.wait() for process in running))


if __name__ == "__main__":
    main()
