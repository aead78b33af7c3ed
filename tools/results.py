"""Write book/appendix/results.md from the records that come with course_lib. `make results` calls it."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

import pages
from course_lib import pretrained, recorded_runs, records, studies
from course_lib.studies import Column, Entry

PAGE = Path(__file__).resolve().parent.parent / "book" / "appendix" / "results.md"

INTRODUCTION = """\
# Recorded results

Every number on this page was written down by the run that made it, and the page itself is generated from these
records; a test says so when the two differ. Results are those of the **last** update, accuracies those on the test
pictures; no epoch and no seed was chosen with their help. ± is the standard deviation over seeds.
[How much is a label worth?](../06_ssgan/label_budget.ipynb) explains what the runs show, and how their settings were
chosen. [Which cures work?](../03_gan_theory/remedies.ipynb) does so for the study `remedies`.

Seconds are those of the whole run, in chapter 6 baseline and GAN. Other work on the same machine makes them longer, so
take them for an upper bound. To repeat a run, use its command; `--out FOLDER` keeps what comes out. On another machine
the last digits of a result differ, because sums are added up in another order, and a training magnifies that.

"""


def page() -> str:
    """Return the text of the page."""
    return INTRODUCTION + _weights() + "".join(_study(name) for name in studies.STUDIES)


def values() -> dict[str, dict[str, float]]:
    """Return all recorded numbers: name of the weights or of the study -> key -> value.

    Keys of weights are metrics; a run that is kept without its weights has "epochs" and "seconds" besides. Keys of a
    study are SETTING/METRIC/STATISTIC, for example labels=50/gain_points/mean; the setting of runs that change nothing
    is "default".
    """
    found: dict[str, dict[str, float]] = {name: pretrained.read_record(name)["metrics"] for name in pretrained.names()}
    for name in recorded_runs.names():
        record = recorded_runs.read(name).record
        epochs = float(record["identity"]["settings"]["epochs"])
        found[name] = record["metrics"] | {"epochs": epochs, "seconds": record["seconds"]}
    for name in studies.STUDIES:
        found[name] = {}
        for setting, runs in _by_setting(studies.read(name)):
            rows = {key: [run["metrics"][key] for run in runs] for key in runs[0]["metrics"]}
            rows["seconds"] = [run["seconds"] for run in runs]
            for key, numbers in rows.items():
                statistics = {"mean": mean(numbers), "min": min(numbers), "max": max(numbers), "runs": len(numbers)}
                statistics["std"] = stdev(numbers) if len(numbers) > 1 else 0.0
                found[name] |= {f"{setting}/{key}/{label}": value for label, value in statistics.items()}
    return found


def _setting(entry: Entry) -> str:
    """Name what a run changes: "labels=50,ablation=real_fakes"; a part that is left out is "no augmentation"."""
    changes = entry["changes"].items()
    named = [f"no_{key}" if value is None else f"{key}={_plain(value)}" for key, value in changes]
    return ",".join(named) or "default"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _by_setting(entries: list[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    for setting, group in groupby(entries, key=_setting):
        yield setting, list(group)


def _machine(environment: records.Environment) -> str:
    threads = environment["threads"]
    return f"{environment['device']}, {threads} thread{'s' * (threads > 1)}, {environment['precision']}"


def _weights() -> str:
    commands = {name: one.run.command for study in studies.STUDIES.values() for name, one in study.ships.items()}
    lines = []
    for name in pretrained.names():
        record = pretrained.read_record(name)
        metrics = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in record["metrics"].items())
        where = f"{record['seconds']:,.0f} seconds on {_machine(record['environment'])}"
        lines.append(f"- `{name}`: {pages.safe(f'{metrics}; {where}')}; trained by `{commands[name]}`\n")
    command = "```sh\npython -m course_lib evaluate --pretrained NAME\n```\n\n"
    return (
        "## Shipped weights\n\n"
        "Weights that come with the package. This command measures them again, and fails where they miss their\n"
        "record:\n\n" + command + "".join(lines) + "\n"
    )


def _spread(numbers: list[float], column: Column) -> str:
    """Give mean, standard deviation and, for a difference, the smallest: a gain is only as good as its worst run."""
    shown = [f"{column.factor * number:.{column.decimals}f}" for number in (mean(numbers), min(numbers))]
    if len(numbers) == 1:
        return shown[0]
    return f"{shown[0]} ± {column.factor * stdev(numbers):.{column.decimals}f} ({shown[1]})"


def _study(name: str) -> str:
    study, entries = studies.STUDIES[name], studies.read(name)
    summary, every = [], []
    for setting, group in _by_setting(entries):
        spreads = [_spread([one["metrics"][key] for one in group], column) for key, column in study.columns.items()]
        told = setting.replace(",", ", ").replace("_", " ").replace("default", "as the recipe has it")
        summary.append([pages.safe(told), str(len(group)), *spreads, f"{mean(one['seconds'] for one in group):,.0f}"])
    for run, entry in zip(study.runs, entries, strict=True):
        numbers = [f"{c.factor * entry['metrics'][key]:.{c.decimals}f}" for key, c in study.columns.items()]
        cost = [f"{entry['seconds']:,.0f}", str(entry["environment"]["threads"])]
        every.append([f"`{run.command}`", *numbers, *cost])
    headings = [column.heading for column in study.columns.values()]
    machines = " / ".join(sorted({pages.safe(_machine(entry["environment"])) for entry in entries}))
    return (
        f"## Study `{name}`\n\n{study.question}\n\n"
        f"```sh\npython -m course_lib study {name} --out runs/{name}\n```\n\nRun on {machines}.\n\n"
        + pages.table(["setting", "runs", *(f"{heading} (least)" for heading in headings), "seconds"], summary)
        + "<details><summary>Every run with its command</summary>\n\n"
        + pages.table(["command", *headings, "seconds", "threads"], every)
        + "</details>\n\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page().rstrip() + "\n", encoding="utf-8")
    print(f"wrote {PAGE.name}")
