"""How close a generation came to another answer.

Two correct float32 implementations differ by about 1e-5 in a summed
log-probability, so a case is only a fair test when every decision that led to
its answer was wider than that. The reference library's own steps are watched,
not repeated: its methods are wrapped on one model object.
"""

import math
from contextlib import contextmanager

import torch

# Sums this low belong to beams that do not exist yet.
ABSENT = -1e8


class Margin:
    """The smallest gap seen, in summed log-probability."""

    def __init__(self):
        self.smallest = math.inf

    def see(self, gap):
        """Counts one decision."""
        if math.isfinite(gap):
            self.smallest = min(self.smallest, abs(gap))


def of_greedy(scores):
    """The smallest gap between best and second best over the steps' processed logits."""
    margin = Margin()
    for step in scores:
        best = torch.topk(step[0], 2).values.tolist()
        if best[1] > -math.inf:
            margin.see(best[0] - best[1])
    return margin.smallest


def see_candidates(margin, totals, num_beams, vocab_size, eos, length, max_length):
    """The decisions of one beam step: who goes on, and which endings count."""
    wanted = min(4 * num_beams, totals.numel())
    sums, places = torch.topk(totals, wanted)
    sums, tokens = sums.tolist(), (places % vocab_size).tolist()
    ended = [token == eos or length + 1 >= max_length for token in tokens]
    alive = [s for s, end in zip(sums, ended) if not end and s > ABSENT]
    if len(alive) > num_beams:
        margin.see(alive[num_beams - 1] - alive[num_beams])
    for rank, (value, end) in enumerate(zip(sums, ended)):
        if not end or value <= ABSENT:
            continue
        rival = sums[num_beams] if rank < num_beams else sums[num_beams - 1]
        if rival > ABSENT:
            margin.see(value - rival)


@contextmanager
def watched_beam_search(model, eos=2):
    """Watches the beam search of `model`, ended by `eos`; gives a `Margin` that fills up."""
    margin = Margin()
    state = {"max_length": None, "finished": None}
    top_k, update, heuristic = (
        model._get_top_k_continuations,
        model._update_finished_beams,
        model._check_early_stop_heuristic,
    )

    def watched_top_k(**arguments):
        totals = arguments["accumulated_log_probs"][0]
        beams = arguments["num_beams"]
        max_length = arguments["running_sequences"].shape[-1]
        see_candidates(margin, totals, beams, totals.numel() // beams, eos, arguments["cur_len"], max_length)
        return top_k(**arguments)

    def watched_update(**arguments):
        result = update(**arguments)
        state["finished"] = (result[0][0], result[1][0], arguments["length_penalty"])
        return result

    def watched_heuristic(**arguments):
        open_question = (
            arguments["early_stopping"] is not True
            and bool(arguments["is_early_stop_heuristic_unsatisfied"].any())
            and bool(arguments["is_sent_finished"].all())
        )
        if open_question:
            penalty, start = arguments["length_penalty"], arguments["decoder_prompt_len"]
            to_the_end = arguments["early_stopping"] == "never" and penalty > 0
            length = (arguments["max_length"] if to_the_end else arguments["cur_len"]) - start
            best, worst = arguments["running_beam_scores"][0, 0].item(), arguments["beam_scores"][0].min().item()
            if best > ABSENT:
                margin.see(best - worst * length**penalty)
        return heuristic(**arguments)

    model._get_top_k_continuations = watched_top_k
    model._update_finished_beams = watched_update
    model._check_early_stop_heuristic = watched_heuristic
    try:
        yield margin
    finally:
        del model._get_top_k_continuations, model._update_finished_beams, model._check_early_stop_heuristic
    sequences, scores, penalty = state["finished"]
    if scores.numel() > 1 and scores[1] > ABSENT:
        length = int((sequences[0] != model.config.text_config.pad_token_id).sum()) - 1
        margin.see((scores[0] - scores[1]).item() * length**penalty)
