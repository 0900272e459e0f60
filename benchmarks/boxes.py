"""The 35 problems of More, Garbow and Hillstrom (1981) in boxes: wiberg without bounds, with them, and SciPy.

    python benchmarks/boxes.py

Prints the tables of docs/minimisers.md. Boxes are those of tests/more_garbow_hillstrom/boxes.py; steps and evaluations
are counted as runs.py there says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from more_garbow_hillstrom import PROBLEMS, Problem  # noqa: E402
from more_garbow_hillstrom.boxes import PUBLISHED, Box, cutting_box, published_box, wide_box  # noqa: E402
from more_garbow_hillstrom.runs import Run, by_wiberg, in_box_by_scipy, in_box_by_wiberg, is_as_low  # noqa: E402

METHODS = ("wiberg", "L-BFGS-B", "TNC", "trust-constr")


def run(problem: Problem, box: Box, method: str) -> Run:
    return in_box_by_wiberg(problem, box) if method == "wiberg" else in_box_by_scipy(problem, box, method)


def line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def print_wide() -> None:
    """Steps and evaluations with a box that changes nothing."""
    different, totals = [], [0, 0, 0, 0]
    for problem in PROBLEMS:
        free, boxed = by_wiberg(problem), in_box_by_wiberg(problem, wide_box(problem))
        counts = free.steps, free.evaluations, boxed.steps, boxed.evaluations
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        if counts[:2] != counts[2:] or problem.reached(boxed.energy) != problem.reached(free.energy):
            different.append(f"{problem.title}: {counts[0]} / {counts[1]}, in the box {counts[2]} / {counts[3]}")
    print(
        f"all 35: {totals[0]} / {totals[1]}, in wide boxes {totals[2]} / {totals[3]}; different:", *different, sep="\n"
    )


def print_table(title: str, problems: list[Problem], box_of: Callable[[Problem], Box]) -> None:
    """Steps / evaluations of each method, 'no' where another ended lower."""
    found = {(p.number, method): run(p, box_of(p), method) for p in problems for method in METHODS}
    lowest = {p.number: min(r.energy for (number, _), r in found.items() if number == p.number) for p in problems}
    solved = {key: is_as_low(r, lowest[key[0]]) for key, r in found.items()}
    print(
        f"\n{title}\n",
        line("problem", "lowest energy", *METHODS),
        line("---", "---:", *["---:"] * len(METHODS)),
        sep="\n",
    )
    for p in problems:
        cells = []
        for method in METHODS:
            r = found[p.number, method]
            cells.append(f"{r.steps} / {r.evaluations}" if solved[p.number, method] else f"no ({r.energy:.6g})")
        print(line(f"{p.number} {p.title}", f"{lowest[p.number]:.7g}", *cells))
    print()
    print(
        line("method", "solved", "steps", "evaluations", "wiberg on the same problems"),
        line("---", *["---:"] * 4),
        sep="\n",
    )
    for method in METHODS:
        both = [p.number for p in problems if solved[p.number, method] and solved[p.number, "wiberg"]]
        theirs, ours = ([found[number, who] for number in both] for who in (method, "wiberg"))
        count = sum(solved[p.number, method] for p in problems)
        sums = (
            [sum(r.steps for r in runs) for runs in (theirs, ours)],
            [sum(r.evaluations for r in runs) for runs in (theirs, ours)],
        )
        beside = "" if method == "wiberg" else f"{sums[0][1]} / {sums[1][1]}"
        print(line(method, f"{count} of {len(problems)}", sums[0][0], sums[1][0], beside))


def main() -> None:
    print_wide()
    print_table("boxes that cut the minimiser off", list(PROBLEMS), cutting_box)
    print_table("published boxes", [p for p in PROBLEMS if p.number in PUBLISHED], published_box)


if __name__ == "__main__":
    main()
