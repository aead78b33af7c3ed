"""Write book/appendix/results.md from the records that come with course_lib. `make results` calls it."""

from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from course_lib import pretrained, studies

PAGE = Path(__file__).resolve().parent.parent / "book" / "appendix" / "results.md"

INTRODUCTION = """\
# Recorded results

Every number on this page was written down by the run that made it, and the page itself is generated from these
records; a test says so when the two differ. Accuracies are of the **last** epoch, on the test pictures; no epoch and no
seed was chosen with their help. ± is the standard deviation over seeds.
[How much is a label worth?](../06_ssgan/label_budget.ipynb) explains what the runs show, and how their settings were
chosen.

Seconds are those of the whole run, baseline and GAN. Other work on the same machine makes them longer, so take them for
an upper bound. To repeat a run, use its command; `--out FOLDER` keeps what comes out. On another machine the last
digits of a result differ, because sums are added up in another order, and a training magnifies that.

"""


def page() -> str:
    """Return the text of the page."""
    return INTRODUCTION + _weights() + "".join(_study(name) for name in studies.STUDIES)


def values() -> dict[str, dict[str, float]]:
    """Return all recorded numbers: name of the weights or of the study -> key -> value.

    Keys of weights are metrics. Keys of a study are SETTING/METRIC/STATISTIC, for example
    labels=50/gain_points/mean; the setting of runs that change nothing is "default".
    """
    found: dict[str, dict[str, float]] = {name: pretrained.read_record(name)["metrics"] for name in pretrained.names()}
    for name in studies.STUDIES:
        found[name] = {}
        for setting, runs in _by_setting(studies.read(name)).items():
            rows = {key: [run["metrics"][key] for run in runs] for key in runs[0]["metrics"]}
            rows["seconds"] = [run["seconds"] for run in runs]
            for key, numbers in rows.items():
                statistics = {"mean": mean(numbers), "min": min(numbers), "max": max(numbers), "runs": len(numbers)}
                statistics["std"] = stdev(numbers) if len(numbers) > 1 else 0.0
                found[name] |= {f"{setting}/{key}/{label}": value for label, value in statistics.items()}
    return found


def _by_setting(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups = defaultdict(list)
    for run in runs:
        groups[studies.setting(run["command"]) or "default"].append(run)
    return groups


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def _machine(environment: dict[str, Any]) -> str:
    threads = environment["threads"]
    return f"{environment['device']}, {threads} thread{'s' * (threads > 1)}, {environment['precision']}"


def _weights() -> str:
    lines = []
    for name in pretrained.names():
        record = pretrained.read_record(name)
        metrics = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in record["metrics"].items())
        where = f"{record['seconds']:,.0f} seconds on {_machine(record['environment'])}"
        lines.append(f"- `{name}`: {metrics}; {where}; trained by `{record['command']}`\n")
    command = "```sh\npython -m course_lib evaluate --pretrained NAME\n```\n\n"
    return (
        "## Shipped weights\n\n"
        "Weights that come with the package. This command measures them again, and fails where they miss their\n"
        "record:\n\n" + command + "".join(lines) + "\n"
    )


def _spread(numbers: list[float], form: str) -> str:
    centre = format(mean(numbers), form)
    return f"{centre} ± {format(stdev(numbers), form)}" if len(numbers) > 1 else centre


def _study(name: str) -> str:
    runs = studies.read(name)
    summary, every = [], []
    for setting, group in _by_setting(runs).items():
        columns = {key: [run["metrics"][key] for run in group] for key in group[0]["metrics"]}
        percent = {key: [100 * value for value in column] for key, column in columns.items()}
        gains = columns["gain_points"]
        summary.append(
            [
                setting.replace(",", ", ").replace("_", " ").replace("default", "as the recipe has it"),
                str(len(group)),
                _spread(percent["baseline_test_accuracy"], ".2f"),
                _spread(percent["test_accuracy"], ".2f"),
                _spread(gains, ".2f") + (f" ({min(gains):.2f})" if len(gains) > 1 else ""),
                f"{mean(run['seconds'] for run in group):,.0f}",
            ]
        )
        for run in group:
            metrics = run["metrics"]
            numbers = [f"{100 * metrics[key]:.2f}" for key in ("baseline_test_accuracy", "test_accuracy")]
            cost = [f"{run['seconds']:,.0f}", str(run["environment"]["threads"])]
            every.append([f"`{run['command']}`", *numbers, f"{metrics['gain_points']:.2f}", *cost])
    head = ["setting", "runs", "baseline, %", "semi-supervised GAN, %", "gain, points (smallest)", "seconds"]
    machines = " / ".join(sorted({_machine(run["environment"]) for run in runs}))
    return (
        f"## Study `{name}`\n\n{studies.STUDIES[name].question}\n\n"
        f"```sh\npython -m course_lib study {name} --out runs/{name}\n```\n\nRun on {machines}.\n\n"
        + _table(head, summary)
        + "<details><summary>Every run with its command</summary>\n\n"
        + _table(["command", "baseline, %", "semi-supervised GAN, %", "gain, points", "seconds", "threads"], every)
        + "</details>\n\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page().rstrip() + "\n")
    print(f"wrote {PAGE.name}")
