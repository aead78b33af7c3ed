"""Write book/appendix/elsewhere.md from what is kept of the measurements. `make elsewhere` calls it."""

from pathlib import Path

import nbformat

import elsewhere_source as source
import elsewhere_table as table
import notebooks
import pages

PAGE = source.ROOT / "book" / "appendix" / "elsewhere.md"

INTRODUCTION = """\
# True elsewhere

A claim in this book is about a method, not about one run on one computer. So each of them is measured again with other
seeds and as other processors would, and this page is generated from what came out.

- **Seeds.** Every seed that a notebook uses, whichever library it goes to, is moved by 11,000, 12,000 and so on.
  Fifteen such runs give a mean and a standard deviation (sd); the bounds of a claim lie at least three standard
  deviations from the mean. Five further runs, the fresh ones, set nothing: they test the bounds.
- **Processors.** One machine plays others by switching instructions off: a processor as old as SSE4 in all libraries,
  one with AVX2 and no AVX-512, and MKL's own compatible path. Each kernel proves first that the libraries obey. A
  fourth run uses two threads instead of one. Here all outputs are compared to the letter, as `make test` does; the
  column shows how far the measured numbers lie apart.
- **Mutations.** What a claim is worth shows when its cause is removed. Each claim names at least one deliberate damage
  to the notebook or to the package; the last column says what is measured under it, and that must lie outside the
  bounds ("fails" means that a cell ends in an error first).
- **Exact** claims are told apart by their bound: at most 0.00001 in size. They say that two ways to compute a number
  agree up to rounding, so that standard deviations mean nothing. **Fixed** claims use nothing random: no seed moves
  them.

Not covered: processors that are not x86-64, such as Apple's or other arm64 ones; GPUs; other versions of the libraries;
the full scale. On a processor that Intel did not make, MKL takes its general path whatever it is told, so that of its
paths only that one and the compatible one are seen.

To measure a notebook again, after changing it or on your own machine:

```sh
make elsewhere NOTEBOOK=book/06_ssgan/ssgan.ipynb
```

It takes between minutes and an hour, can be stopped at any time, and then goes on where it was. Without `NOTEBOOK` it
measures all of them. Changing the bounds of a claim makes nothing run again.

"""


def page() -> str:
    """Return the text of the page."""
    kept = [(path, table.read(path)) for path in notebooks.notebook_paths()]
    known = [(path, table.kept_rows(record)) for path, record in kept if record["claims"]]
    every = [row for _, rows in known for row in rows]
    waiting = [_title(path) for path, record in kept if not record["claims"]]
    missing = [f"**Not yet measured to the end:** {'; '.join(waiting)}.\n\n"] if waiting else []
    return INTRODUCTION + "".join([*missing, *_summary(every), *(_section(path, rows) for path, rows in known)])


def _summary(rows: list[table.Row]) -> list[str]:
    if not rows:
        return ["Nothing has been measured yet.\n"]
    lines = []
    for name, runs in (
        ("fifteen offsets of the seeds", [(row, value) for row in rows for value in row.seeds]),
        ("five fresh offsets", [(row, value) for row in rows for value in row.fresh]),
        ("processors and threads", [(row, value) for row in rows for value in row.processors.values()]),
    ):
        missed = sum(not row.holds(value) for row, value in runs)
        lines.append([name, f"{len(runs):,}", str(missed)])
    tight = sorted((row for row in rows if row.kind == "seeds"), key=lambda row: row.distance)[:5]
    nearest = [[pages.safe(row.claim.fact), table.bounds(row.claim), f"{row.distance:.1f}"] for row in tight]
    return [
        f"## All {len(rows)} claims\n\n",
        pages.table(["measured with", "measurements", "outside the bounds"], lines),
        "The five claims whose mean lies nearest to a bound, in standard deviations:\n\n",
        pages.table(["claim", "bounds", "distance"], nearest),
    ]


def _section(path: Path, rows: list[table.Row]) -> str:
    lines = []
    for row in rows:
        distance = row.kind if row.kind != "seeds" else f"{row.distance:.1f}"
        fresh = f"{min(row.fresh):.3g} to {max(row.fresh):.3g}" if row.fresh else "–"
        damaged = "; ".join(
            f"{pages.safe(name)}: {'fails' if value is None else f'{value:.3g}'}"
            for name, value in row.mutations.items()
        )
        mean = f"{row.mean:.4g}" if row.kind == "fixed" else f"{row.mean:.4g} ± {row.std:.2g}"
        numbers = [table.bounds(row.claim), mean, fresh, f"{row.deviation:.2g}", distance, str(row.missed)]
        lines.append([pages.safe(row.claim.fact), *numbers, damaged])
    head = ["claim", "bounds", "mean ± sd", "fresh seeds", "processors", "distance in sd", "missed", "under a mutation"]
    link = path.relative_to(PAGE.parent.parent).as_posix()
    title = _title(path)
    return f"## {title}\n\n[{title}](../{link}): {len(rows)} claims.\n\n" + pages.table(head, lines)


def _title(path: Path) -> str:
    return nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")


def write() -> None:
    """Write the page."""
    PAGE.write_text(page().rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
    print(f"wrote {PAGE.name}")
