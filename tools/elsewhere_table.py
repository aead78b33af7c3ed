"""From what was measured elsewhere to a table, to warnings, and to the record that is kept beside the others."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import elsewhere_source as source

KEPT = source.PACKAGE / "recorded" / "elsewhere"
# A claim with one bound of at most this size says that two ways to compute a number agree up to rounding.
EXACT = 1e-5
NEAREST = 3.0  # standard deviations between the mean and a bound
OFFSETS, PROCESSORS = 15, 4  # a complete measurement has so many


@dataclass(frozen=True)
class Measured:
    """What has been measured of a notebook: name of the run -> fact -> number.

    Args:
        notebook: its path in the project.
        code: a hash of the code that was measured.
        claims: the claims it has stored, with their bounds.
        processors, seeds, fresh, damaged: the runs that there are.
        catches: name of each mutation -> the facts that must fail under it.
        fixed: facts that nothing random goes into.
    """

    notebook: str
    code: str
    claims: list[source.Claim]
    processors: dict[str, dict[str, float]]
    seeds: dict[str, dict[str, float]]
    fresh: dict[str, dict[str, float]]
    damaged: dict[str, dict[str, float]]
    catches: dict[str, list[str]]
    fixed: list[str]

    def is_complete(self) -> bool:
        """Whether nothing is missing but, perhaps, the fresh offsets."""
        whole = len(self.seeds) == OFFSETS and len(self.processors) == PROCESSORS
        return whole and len(self.damaged) == len(self.catches)


@dataclass(frozen=True)
class Row:
    """A claim and how it fared: `fresh` and `processors` set no bound, they only show."""

    claim: source.Claim
    kind: str  # exact: two computations agree; fixed: nothing random; seeds: depends on them
    seeds: list[float]
    fresh: list[float]
    processors: dict[str, float]
    mutations: dict[str, float | None]  # None: the notebook failed before it could measure

    @property
    def mean(self) -> float:
        return mean(self.seeds) if self.seeds else math.nan

    @property
    def std(self) -> float:
        return stdev(self.seeds) if len(self.seeds) > 1 else math.nan

    @property
    def deviation(self) -> float:
        """How far the processors lie from each other, at most."""
        values = self.processors.values()
        return max(values) - min(values) if values else math.nan

    @property
    def distance(self) -> float:
        """How many standard deviations the mean lies from the nearer bound; negative outside."""
        bounds = [self.mean - self.claim.low] if self.claim.low is not None else []
        bounds += [self.claim.high - self.mean] if self.claim.high is not None else []
        return min(bounds) / self.std if self.std else math.inf

    def holds(self, value: float | None, *, widened: float = 1.0) -> bool:
        """Whether a number keeps the bounds, each moved to so many times its distance from the mean."""
        if value is None or math.isnan(value):
            return False
        low, high = self.claim.low, self.claim.high
        centre = self.mean if self.seeds else self.claim.measured
        above = low is None or value >= centre - widened * (centre - low) - 1e-12 * abs(low)
        below = high is None or value <= centre + widened * (high - centre) + 1e-12 * abs(high)
        return above and below

    @property
    def missed(self) -> int:
        """How many of the measurements, on seeds and processors, do not keep the bounds."""
        values = [*self.seeds, *self.fresh, *self.processors.values()]
        return sum(not self.holds(value) for value in values)


def rows(found: Measured) -> list[Row]:
    """Put together what is known of each claim."""

    def values(runs: dict[str, dict[str, float]], fact: str) -> dict[str, float]:
        return {name: claims.get(fact, math.nan) for name, claims in runs.items()}

    made = []
    for claim in found.claims:
        bounds = [bound for bound in (claim.low, claim.high) if bound is not None]
        exact = len(bounds) == 1 and abs(bounds[0]) <= EXACT
        kind = "exact" if exact else "fixed" if claim.fact in found.fixed else "seeds"
        damaged = {
            name.removeprefix("mutation: "): claims.get(claim.fact)
            for name, claims in found.damaged.items()
            if claim.fact in found.catches[name.removeprefix("mutation: ")]
        }
        seeds, fresh = (list(values(runs, claim.fact).values()) for runs in (found.seeds, found.fresh))
        made.append(Row(claim, kind, seeds, fresh, values(found.processors, claim.fact), damaged))
    return made


# ── What is wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


def flags(found: Measured) -> list[str]:
    """Say what is wrong with the claims of a notebook, as far as it has been measured."""
    lines = [f"{fact!r} is named as fixed and is no claim" for fact in {*found.fixed} - {c.fact for c in found.claims}]
    for name, facts in found.catches.items():
        strangers = {*facts} - {claim.fact for claim in found.claims}
        lines += [f"mutation {name!r} names {fact!r}, which is no claim" for fact in sorted(strangers)]
    for row in rows(found):
        lines += [f"{row.claim.fact!r} {wrong}" for wrong in wrong_with(row, found)]
    return [f"{found.notebook}: {line}" for line in lines]


def wrong_with(row: Row, found: Measured) -> Iterator[str]:
    """Say what is wrong with one claim."""
    if row.missed:
        yield f"misses its bounds {row.missed} times"
    if len(row.seeds) > 1 and row.kind == "seeds":
        if row.std == 0:
            yield "is moved by no seed: name it under `fixed`, or a seed was not moved"
        elif row.distance < NEAREST:
            yield f"lies {row.distance:.1f} standard deviations from a bound: less than {NEAREST:g}"
    if len(row.seeds) > 1 and row.kind == "fixed" and row.std > 1e-9 * abs(row.mean):
        yield "is named as fixed, but seeds move it"
    if not any(row.claim.fact in facts for facts in found.catches.values()):
        yield "names no mutation that it would notice"
    for name, value in row.mutations.items():
        if row.holds(value):
            yield f"does not notice {name!r}: measured {value:.4g}"


def unmeasured(path: Path) -> list[str]:
    """Say which claims of a notebook were never measured elsewhere, or have changed since."""
    kept = read(path)
    before = {entry["fact"]: entry for entry in kept["claims"]}
    claims = source.claims(path)
    lines = [] if before or not claims else [f"its {len(claims)} claims were never measured elsewhere"]
    for claim in claims if before else []:
        entry = before.get(claim.fact)
        if entry is None:
            lines.append(f"{claim.fact!r} was never measured elsewhere")
        elif entry["bounds"] != [claim.low, claim.high]:
            lines.append(f"{claim.fact!r} has other bounds than those measured: {entry['bounds']}")
    return [f"{path.relative_to(source.ROOT)}: {line}" for line in lines]


# ── What is shown and kept ────────────────────────────────────────────────────────────────────────────────────────


def bounds(claim: source.Claim) -> str:
    """Return the bounds as they are read: 0.9 to 1, ≥ 0.9, ≤ 1."""
    if claim.low is not None and claim.high is not None:
        return f"{claim.low:g} to {claim.high:g}"
    return f"≥ {claim.low:g}" if claim.low is not None else f"≤ {claim.high:g}"


def cells(row: Row) -> list[str]:
    """Return a line of the table."""
    distance = {"exact": "exact", "fixed": "fixed"}.get(row.kind, f"{row.distance:.1f}")
    damaged = "; ".join(
        f"{name}: {'fails' if value is None else f'{value:.3g}'}" for name, value in row.mutations.items()
    )
    return [
        row.claim.fact,
        bounds(row.claim),
        f"{row.mean:.4g} ± {row.std:.2g}" if row.seeds else "–",
        f"{row.deviation:.2g}" if row.processors else "–",
        distance if row.seeds else "–",
        str(row.missed),
        damaged or "–",
    ]


HEAD = ["claim", "bounds", "mean ± sd, seeds", "processors", "distance", "missed", "mutation: measured under it"]


def text(found: Measured) -> str:
    """Return the table of a notebook for a terminal."""
    lines = [HEAD, *(cells(row) for row in rows(found))]
    widths = [min(max(len(line[i]) for line in lines), 70) for i in range(len(HEAD))]
    runs = f"{len(found.seeds)} + {len(found.fresh)} offsets, {len(found.processors)} processors"
    body = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return f"\n{found.notebook} ({runs}, {len(found.damaged)} of {len(found.catches)} mutations)\n{body}"


def summary(found: list[Measured]) -> str:
    """Return claims, measurements, misses, the five tightest, and what ten times wider bounds would let pass."""
    every = [(each, row) for each in found for row in rows(each)]
    count = {
        "seeds": [(row, value) for _, row in every for value in row.seeds],
        "fresh seeds": [(row, value) for _, row in every for value in row.fresh],
        "processors and threads": [(row, value) for _, row in every for value in row.processors.values()],
    }
    lines = [f"\n{len(every)} claims in {len(found)} notebooks"]
    for name, measurements in count.items():
        missed = sum(not row.holds(value) for row, value in measurements)
        lines.append(f"  {name}: {len(measurements)} measurements, {missed} missed")
    kinds = {kind: sum(row.kind == kind for _, row in every) for kind in ("seeds", "fixed", "exact")}
    lines.append("  " + ", ".join(f"{number} {kind}" for kind, number in kinds.items()))
    tightest = sorted((row for _, row in every if row.kind == "seeds" and row.seeds), key=lambda row: row.distance)[:5]
    lines.append("  the five tightest, in standard deviations:")
    lines += [f"    {row.distance:.2f}  {row.claim.fact} ({bounds(row.claim)})" for row in tightest]
    made = [(each, name) for each in found for name in each.catches if f"mutation: {name}" in each.damaged]
    noticed = [x for x in made if not survives(*x, widened=1)]
    wide = [x for x in made if survives(*x, widened=10)]
    lines.append(f"  {len(noticed)} of {len(made)} mutations are noticed")
    lines.append(f"  with every bound ten times as far from its mean, {len(wide)} of {len(made)} would survive")
    return "\n".join(lines)


def survives(found: Measured, name: str, *, widened: float) -> bool:
    """Whether a mutation passes every claim that names it."""
    return all(row.holds(row.mutations[name], widened=widened) for row in rows(found) if name in row.mutations)


def keep(found: list[Measured]) -> None:
    """Write what was measured beside the other records, a file for each notebook."""
    KEPT.mkdir(exist_ok=True)
    for each in found:
        record = {
            "notebook": each.notebook,
            "code": each.code,
            "claims": [kept_row(row) for row in rows(each)],
        }
        (KEPT / f"{Path(each.notebook).stem}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def kept_row(row: Row) -> dict[str, Any]:
    """Return what is kept of a claim; numbers to five digits."""

    def short(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else float(f"{value:.5g}")

    return {
        "fact": row.claim.fact,
        "bounds": [row.claim.low, row.claim.high],
        "kind": row.kind,
        "seeds": [short(value) for value in row.seeds],
        "fresh_seeds": [short(value) for value in row.fresh],
        "processors": {name: short(value) for name, value in row.processors.items()},
        "mutations": {name: short(value) for name, value in row.mutations.items()},
    }


def read(path: Path) -> dict[str, Any]:
    """Return what is kept of a notebook; nothing, where it was never measured."""
    file = KEPT / f"{path.stem}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"claims": []}


def kept_rows(record: dict[str, Any]) -> list[Row]:
    """Return the rows of the table from what is kept of a notebook."""

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return [
        Row(
            claim=source.Claim(entry["fact"], *entry["bounds"], measured=math.nan),
            kind=entry["kind"],
            seeds=[number(value) for value in entry["seeds"]],
            fresh=[number(value) for value in entry["fresh_seeds"]],
            processors={name: number(value) for name, value in entry["processors"].items()},
            mutations=entry["mutations"],
        )
        for entry in record["claims"]
    ]
