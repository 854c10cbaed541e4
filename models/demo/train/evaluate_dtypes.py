"""What the faster number formats cost: the scores of `evaluate.py` for each dtype of the CPU, and on how
many answers the token ids are f32's. Writes the part "dtypes" of models/README.md.

    python3 evaluate_dtypes.py [--scenes 200] [--tasks a,b] [--dtypes f32,bf16,int8] [--no-write]

Needs the server's release binary, and of Python what `evaluate.py` needs for it. Fails where a score
falls by more than a point.
"""

import argparse
import os
import sys

from backends import Rust
from evaluate import COLUMNS, DEMO, ROOT, held_out_cases
from language import TASKS
from metrics import score
from page import write_part

# A point of a hundred.
MOST_LOST = 0.01


def table(scores, equal, dtypes, count):
    """The Markdown table: a line a task and score."""
    lines = [
        f"{count} held-out scenes a task, three beams, through the server's binary.",
        "",
        "| task | score | " + " | ".join(dtypes) + " |",
        "|---|---|" + "---|" * len(dtypes),
    ]
    for task, by_dtype in scores.items():
        for name in COLUMNS:
            if name in by_dtype[dtypes[0]]:
                cells = " | ".join(f"{by_dtype[dtype][name]:.3f}" for dtype in dtypes)
                lines.append(f"| {task} | {name} | {cells} |")
    cells = " | ".join(f"{equal[dtype]} of {count * len(scores)}" for dtype in dtypes)
    lines.append(f"| all | answers with the tokens of {dtypes[0]} | {cells} |")
    return "\n".join(lines)


def main():
    """Asks, scores, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--dtypes", default="f32,bf16,int8", help="the first is what others are held to")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target", "release", "florence2-server"))
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    options = parser.parse_args()
    wanted, dtypes = options.tasks.split(","), options.dtypes.split(",")
    scores, equal, lost = {}, dict.fromkeys(dtypes, 0), []
    for task in wanted:
        cases = held_out_cases(task, options.scenes)
        answers = {dtype: Rust(DEMO, options.binary, dtype).answer(cases) for dtype in dtypes}
        scores[task] = {d: score(task, cases, [text for _, text in answers[d]]) for d in dtypes}
        for dtype in dtypes:
            equal[dtype] += sum(a[0] == b[0] for a, b in zip(answers[dtype], answers[dtypes[0]]))
            for name, value in scores[task][dtypes[0]].items():
                if value - scores[task][dtype][name] > MOST_LOST:
                    lost.append(f"{task}, {name}: {value:.3f} in {dtypes[0]}, {scores[task][dtype][name]:.3f} in {dtype}")
        print(task, scores[task], equal, flush=True)
    text = table(scores, equal, dtypes, options.scenes)
    print("\n" + text)
    print("\n".join(lost))
    if not options.no_write and set(wanted) == set(TASKS):
        write_part("dtypes", text)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
