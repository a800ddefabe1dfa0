"""The stored results of the benchmarks as one page of tables, for the web edition."""

import json
import re
from pathlib import Path
from statistics import median

from hfnb.studies.tasks import markdown_table

ROOT = Path(__file__).resolve().parent.parent
INTRODUCTION = """# Results of the benchmarks

These are the tables of the stored results in `bench/results`, as they were measured;
[how to read the benchmarks](../bench/README.md) says what each one asks, and [the findings](findings.md)
what follows from them. Of three numbers the first is the median; square brackets hold the range over the
starts, round ones the quartiles or an interval. `inf` means that a run did not arrive.
"""


def page():
    """Return the page, with a section for each file of results."""
    parts = [INTRODUCTION]
    for path in sorted(ROOT.glob("bench/results/*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        about = document["about"]
        load = ", ".join(f"{each:g}" for each in about["load"])
        parts.append(f"## {path.stem}\n\n`{about['command']}`: {about['machine']}, load {load}.")
        found = tables(document)
        if not found:
            parts.append("Each run is stored; the lessons and the findings show what they say.")
        for title, rows in found:
            parts.append(f"**{title}**" if title else "")
            columns = dict.fromkeys(key for row in rows for key in row)
            parts.append(markdown_table([{key: cell(row.get(key)) for key in columns} for row in rows]))
    return "\n\n".join(part for part in parts if part) + "\n"


def tables(document):
    """Return [(title, rows)] of a document: its own tables, and those that its stored runs make."""
    found = [("", list(map(flat, document[key]))) for key in ("rows", "table", "times") if key in document]
    if "verdict" in document:
        found.append(("What was asked", [flat(row) for row in document["verdict"]]))
    if "speedup" in document:
        speedups = [
            {"beside": name, "speed-up": quartiles} for name, quartiles in document["speedup"].items()
        ]
        found.append(("Times as fast as this: quartiles", speedups))
    tuned = [tuned_row(each) for each in document.get("tuned", {}).values()]
    if any(tuned):
        found.append(("The best setting of each method", [row for row in tuned if row]))
    over_all = [each for each in document.get("answers", {}).values() if each["problem"] == "all"]
    if over_all:
        found.append(("Ratios over all problems", [flat(row) for row in over_all]))
    return found


def tuned_row(each):
    """Return the row of a tuned method, None where its file stores no results with the setting."""
    names = ("problem", "race", "metric", "method", "batch", "seconds", "settings", "option", "value")
    row = {name: each[name] for name in names if name in each}
    if "errors" in each:
        return row | {"error": spread(each["errors"])}
    if "runs" in each:
        costs = [cost for cost in ("reductions", "passes") if cost in each["runs"][0]]
        return row | {cost: spread([run[cost] for run in each["runs"]]) for cost in costs}
    return None


def flat(row):
    """Return a row in which each part of a dictionary is a column."""
    found: dict = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= {f"{key}: {part}": each for part, each in value.items()}
        else:
            found[key] = value
    return found


def spread(values):
    """Return the median and the range of some numbers; None stands for a run that did not arrive."""
    values = [float("inf") if value is None else value for value in values]
    return f"{number(median(values))} [{number(min(values))}, {number(max(values))}]"


def number(value):
    """Return a number with three digits, or whole if it has four or more."""
    return f"{value:,.0f}" if 1000 <= abs(value) < float("inf") else f"{value:.3g}"


def cell(value):
    """Return a value as a table shows it: 3 digits, nothing for None, the quartiles of three numbers."""
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} = {each}" for key, each in value.items())
    if isinstance(value, list) and len(value) == 3 and all(isinstance(each, float) for each in value):
        low, middle, high = map(number, value)
        return f"{middle} ({low}–{high})"
    # The stored keys call the methods of this package "ours".
    return re.sub(r"\bours\b", "hfnb", str(value)).replace("|", "\\|")
