"""The parts of models/README.md that programs write: whatever stands between two markers.

`evaluate.py` writes the part "measured", `export.py` the part "checksums". The rest of the page is
written by hand.
"""

import hashlib
import os

PAGE = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md"))


def write_part(name, text):
    """Replaces the part between the markers of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    with open(PAGE) as file:
        page = file.read()
    head, rest = page.split(begin)
    _, tail = rest.split(end)
    with open(PAGE + ".new", "w") as file:
        file.write(f"{head}{begin}\n{text}\n{end}{tail}")
    os.replace(PAGE + ".new", PAGE)


def checksums(folder):
    """SHA-256 and bytes of the files of a checkpoint folder, as sha256sum prints them."""
    lines = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                content = file.read()
            lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}  ({len(content):,} bytes)")
    return "```\n" + "\n".join(lines) + "\n```"
