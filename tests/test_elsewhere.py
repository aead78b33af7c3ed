"""The tool that runs notebooks elsewhere: it moves every seed, simulates what it says, and flags what is too tight."""

import dataclasses
import itertools
import json
import math

import nbformat
import pytest

import elsewhere
import elsewhere_kernel
import elsewhere_page
import elsewhere_source
import elsewhere_table
import notebooks
from elsewhere_source import Claim
from elsewhere_table import Measured

# A number that depends on a seed, for each way in which a library is given one.
SEEDED = {
    "torch.manual_seed": "torch.manual_seed(5); x = torch.rand(1)",
    "torch.random.manual_seed": "torch.random.manual_seed(5); x = torch.rand(1)",
    "torch.Generator": "x = torch.rand(1, generator=torch.Generator().manual_seed(5))",
    "Accelerate": "runtime.start(5, 'float32', 1); x = torch.rand(1)",
    "Accelerate, NumPy": "runtime.start(5, 'float32', 1); x = np.random.rand()",
    "Accelerate, random": "runtime.start(5, 'float32', 1); x = random.random()",
    "np.random.default_rng": "x = np.random.default_rng(5).random()",
    "np.random.default_rng, by name": "x = np.random.default_rng(seed=5).random()",
    "np.random.default_rng, of two": "x = np.random.default_rng([5, 7]).random()",
    "np.random.seed": "np.random.seed(5); x = np.random.rand()",
    "np.random.RandomState": "x = np.random.RandomState(5).rand()",
    "np.random.SeedSequence": "x = np.random.SeedSequence([5, 7]).generate_state(1)[0]",
    "np.random.PCG64": "x = np.random.Generator(np.random.PCG64(5)).random()",
    "random.seed": "random.seed(5); x = random.random()",
    "random.Random": "x = random.Random(5).random()",
    "scikit-learn, split": "x = train_test_split(np.arange(10_000), random_state=5)[0][0]",
    "scikit-learn, tree": "x = ExtraTreeRegressor(random_state=5).fit(grid, grid[:, 0]).tree_.threshold[0]",
    "SciPy": "x = stats.norm.rvs(random_state=5)",
    "course_lib's batches": "x = ShuffledIndices(10_000, seed=5).batch(0, 1)",
    "course_lib's labels": "x = choose_labelled(torch.arange(1000) % 2, 2, classes=2, seed=5).nonzero()[0, 0]",
}
IMPORTS = """\
import random
import numpy as np
import torch
from scipy import stats
from sklearn.model_selection import train_test_split
from sklearn.tree import ExtraTreeRegressor
from course_lib import runtime
from course_lib.claims import claim
from course_lib.data.batches import ShuffledIndices
from course_lib.data.labels import choose_labelled
runtime.use_threads("quick")
grid = np.random.default_rng(0).random((50, 3))"""
UNSEEDED = "claim('torch, before any seed', torch.rand(1), at_least=2)"
FIXED = "claim('no seed', 0.25, between=(0, 1))"


def write(path, *cells):
    """Write a notebook of these code cells, the first of which sets up."""
    new = nbformat.v4
    nbformat.write(new.new_notebook(cells=[new.new_code_cell(cell) for cell in ("import course_lib", *cells)]), path)
    return path


def run(path, variant, tmp_path):
    folder = tmp_path / variant.name.replace(" ", "_").replace(":", "")
    folder.mkdir()
    return elsewhere._run(path, variant, folder)


# ── Seeds ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_librarys_seeds_are_moved_and_a_failing_claim_stops_nothing(tmp_path):
    cells = [f"{code}\nclaim({name!r}, x, at_least=1e9)" for name, code in SEEDED.items()]
    path = write(tmp_path / "seeds.ipynb", IMPORTS, UNSEEDED, *cells, FIXED)
    found = {
        offset: run(path, dataclasses.replace(elsewhere.seeds_moved(offset), name=f"by {offset}"), tmp_path)["claims"]
        for offset in (0, 11_000, 12_000)
    }
    for name in ("torch, before any seed", *SEEDED):
        assert len({claims[name] for claims in found.values()}) == 3, f"{name}: an offset does not move its seed"
    assert {claims["no seed"] for claims in found.values()} == {0.25}


def test_a_claim_that_no_offset_moves_is_flagged():
    still = measured(seeds=[0.9] * 10)
    assert any("moved by no seed" in flag for flag in elsewhere_table.flags(still))
    assert not elsewhere_table.flags(dataclasses.replace(still, fixed=["accuracy"]))
    moving = measured(seeds=SPREAD, fixed=["accuracy"])
    assert any("named as fixed" in flag for flag in elsewhere_table.flags(moving))


@pytest.mark.parametrize(
    "seed, expected", [(5, 11_005), ("five", "five+11000"), ([5, 7], [11_005, 7]), (None, None), (True, True)]
)
def test_what_a_moved_seed_is(seed, expected):
    assert elsewhere_kernel.moved(seed, 11_000) == expected


def test_offsets_share_no_seed_below_a_thousand():
    offsets = sorted([0, *elsewhere.OFFSETS, *elsewhere.FRESH])
    assert min(later - earlier for earlier, later in itertools.pairwise(offsets)) >= 1_000
    assert len(elsewhere.OFFSETS) == elsewhere_table.OFFSETS and len(elsewhere.FRESH) == 5


# ── Processors and threads ────────────────────────────────────────────────────────────────────────────────────────

BUSY = """\
import torch
from course_lib import runtime
from course_lib.claims import claim
runtime.use_threads("quick")
from pathlib import Path
def ticks():
    tasks = {task.name: (task / "stat").read_text() for task in Path("/proc/self/task").iterdir()}
    return {name: sum(map(int, stat.rsplit(")")[1].split()[11:13])) for name, stat in tasks.items()}
product = torch.rand(1500, 1500)
before = ticks()
for _ in range(40):
    product = product @ product / product.norm()
spent = [after - before.get(name, 0) for name, after in ticks().items()]
claim("threads that were busy", sum(each >= max(spent) / 4 for each in spent), at_least=1)"""


def test_two_threads_are_set_and_really_used(tmp_path):
    path = write(tmp_path / "busy.ipynb", BUSY)
    one, two = (dataclasses.replace(elsewhere.seeds_moved(0), name=name) for name in ("one", "two"))
    two = dataclasses.replace(two, environment={"COURSE_THREADS": "2"}, threads=2)
    busy = [run(path, variant, tmp_path)["claims"]["threads that were busy"] for variant in (one, two)]
    assert busy[1] == busy[0] + 1


def test_a_notebook_that_does_not_set_its_threads_is_refused(tmp_path):
    path = write(tmp_path / "all.ipynb", BUSY.replace('runtime.use_threads("quick")', "torch.set_num_threads(3)"))
    with pytest.raises(elsewhere.ElsewhereError, match="must call runtime.use_threads"):
        run(path, elsewhere.seeds_moved(0), tmp_path)


def test_a_simulation_that_took_no_effect_is_refused(tmp_path):
    path = write(tmp_path / "small.ipynb", "from course_lib.claims import claim\nclaim('one', 1, at_least=1)")
    mistyped = {"ATEN_CPU_CAPABILITY": "defualt"}
    variant = dataclasses.replace(elsewhere.PROCESSORS["oldest"], environment=mistyped)
    with pytest.raises(
        elsewhere.ElsewhereError, match="'oldest' is not simulated .*torch is .*not DEFAULT.*NumPy still"
    ):
        run(path, variant, tmp_path)


# ── The table ─────────────────────────────────────────────────────────────────────────────────────────────────────

SPREAD = [0.88, 0.89, 0.90, 0.91, 0.92, 0.88, 0.89, 0.90, 0.91, 0.92]  # mean 0.9, standard deviation 0.0149


def measured(*, low=0.8, high=1.0, **changes):
    """What was measured of a notebook with one claim, which holds and notices its mutation."""
    runs = {"oldest": {"accuracy": 0.9}}
    seeds = changes.pop("seeds", SPREAD)
    found = Measured(
        notebook="book/x.ipynb",
        code="",
        claims=[Claim("accuracy", low, high, 0.9)],
        processors=runs,
        seeds={f"seeds+{i}": {"accuracy": value} for i, value in enumerate(seeds)},
        fresh={},
        damaged={"mutation: labels shuffled": {"accuracy": 0.1}},
        catches={"labels shuffled": ["accuracy"]},
        fixed=[],
    )
    return dataclasses.replace(found, **changes)


def test_a_claim_that_holds_and_notices_its_mutation_has_no_flag():
    assert elsewhere_table.flags(measured()) == []


def test_a_bound_one_standard_deviation_from_the_mean_is_flagged():
    flags = elsewhere_table.flags(measured(low=0.9 - 0.0149, seeds=[0.9, 0.9149, 0.8851, 0.9149, 0.8851]))
    assert any("1.0 standard deviations from a bound" in flag for flag in flags), flags


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"fresh": {"seeds+21000": {"accuracy": 0.7}}}, "misses its bounds 1 times"),
        ({"processors": {"oldest": {"accuracy": math.nan}}}, "misses its bounds 1 times"),
        ({"processors": {"oldest": {}}}, "misses its bounds 1 times"),
        ({"catches": {}, "damaged": {}}, "names no mutation"),
        ({"damaged": {"mutation: labels shuffled": {"accuracy": 0.85}}}, "does not notice 'labels shuffled'"),
        ({"catches": {"labels shuffled": ["acuracy"]}, "damaged": {}}, "'acuracy', which is no claim"),
        ({"fixed": ["acuracy"]}, "'acuracy' is named as fixed and is no claim"),
    ],
)
def test_what_is_wrong_is_flagged(changes, message):
    flags = elsewhere_table.flags(measured(**changes))
    assert any(message in flag for flag in flags), flags


def test_a_notebook_that_fails_under_a_mutation_has_noticed_it():
    assert elsewhere_table.flags(measured(damaged={"mutation: labels shuffled": {}})) == []


def test_an_identity_is_told_by_its_bound_and_needs_no_distance():
    found = measured(low=None, high=1e-10, seeds=[1e-15, 2e-15, 9e-11], processors={})
    assert [row.kind for row in elsewhere_table.rows(found)] == ["exact"]
    assert elsewhere_table.flags(found) == []


def test_ten_times_wider_bounds_let_a_small_damage_pass():
    found = measured(damaged={"mutation: labels shuffled": {"accuracy": 0.7}})
    assert [elsewhere_table.survives(found, "labels shuffled", widened=by) for by in (1, 10)] == [False, True]


def test_a_claim_that_was_never_measured_or_has_other_bounds_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere_table, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(elsewhere_source, "ROOT", tmp_path)
    (tmp_path / "book").mkdir()
    path = tmp_path / "book" / "x.ipynb"

    def store(line):
        write(path, "claim()")
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text=line)]
        nbformat.write(notebook, path)

    store("✓ accuracy is between 0.8 and 1   [measured 0.9]\n")
    assert elsewhere_table.unmeasured(path) == ["book/x.ipynb: its 1 claims were never measured elsewhere"]
    elsewhere_table.keep([measured()])
    assert elsewhere_table.unmeasured(path) == []
    store("✓ accuracy is between 0.8 and 1   [measured 0.9]\n✓ loss is at most 1   [measured 0.2]\n")
    assert elsewhere_table.unmeasured(path) == ["book/x.ipynb: 'loss' was never measured elsewhere"]
    store("✓ accuracy is between 0.85 and 1   [measured 0.9]\n")
    assert elsewhere_table.unmeasured(path) == [
        "book/x.ipynb: 'accuracy' has other bounds than those measured: [0.8, 1.0]"
    ]


# ── What runs again ───────────────────────────────────────────────────────────────────────────────────────────────


def key(path, variant):
    elsewhere_source.text_of.cache_clear()
    return elsewhere.result_file(path, variant).name


def test_only_what_decides_about_a_measurement_makes_it_run_again(tmp_path):
    seeds, processor = elsewhere.seeds_moved(11_000), elsewhere.PROCESSORS["avx2"]

    def keys(code, *more):
        path = write(tmp_path / "x.ipynb", code, *more)
        return key(path, seeds), key(path, processor)

    before = keys("x = 1\nclaim('x', x, at_least=0.5)")
    assert keys("x = 1  # one\nclaim('x',\n      x, at_least=0.7)")[0] == before[0]
    assert keys("x = 1\nclaim('x', x, at_least=0.7)")[1] != before[1]
    assert keys("x = 2\nclaim('x', x, at_least=0.5)")[0] != before[0]
    assert keys("x = 1\nclaim('x', x, at_least=0.5)", "from course_lib import recipes")[0] != before[0]


def test_code_uses_what_it_imports_directly_and_through_others():
    cell = nbformat.v4.new_code_cell("def f():\n    from course_lib import pretrained")
    names = {file.relative_to(notebooks.ROOT).as_posix() for file in elsewhere_source.used_files([cell])}
    assert {
        "course_lib/pretrained.py",
        "course_lib/recipes/__init__.py",
        "course_lib/losses/semi_supervised.py",
    } <= names
    assert "course_lib/weights/ssgan_mnist_1000/record.json" in names
    assert "course_lib/numpy_conv.py" not in names and "course_lib/cli.py" not in names


# ── Mutations ─────────────────────────────────────────────────────────────────────────────────────────────────────

ENTRIES = [(path, entry) for path in notebooks.notebook_paths() for entry in elsewhere.mutations(path)["mutation"]]


@pytest.mark.parametrize("path, entry", ENTRIES, ids=[f"{path.stem}: {entry['name']}" for path, entry in ENTRIES])
def test_a_mutation_fits_its_notebook_and_names_claims_of_it(path, entry, tmp_path):
    assert entry["catches"] and set(entry["catches"]) <= {claim.fact for claim in elsewhere_source.claims(path)}
    assert entry.keys() == {"name", "file", "old", "new", "catches"} and entry["old"] != entry["new"]
    copy = nbformat.read(elsewhere.damaged_copy(path, entry, tmp_path), as_version=4)
    assert len(copy.cells) <= len(nbformat.read(path, as_version=4).cells)


def test_every_file_of_mutations_belongs_to_a_notebook():
    stems = {path.stem for path in notebooks.notebook_paths()}
    assert {file.stem for file in elsewhere_source.MUTATIONS.glob("*")} == stems


def test_a_mutation_reaches_the_package_that_the_notebook_imports(tmp_path):
    cells = ["from course_lib import runtime\nfrom course_lib.claims import claim\nruntime.use_threads('quick')"]
    path = write(tmp_path / "x.ipynb", *cells, "claim('scales', len(runtime.SCALES), at_least=2)")
    entry = {"name": "x", "file": "course_lib/runtime.py", "catches": ["scales"]}
    entry |= {"old": 'SCALES = ("quick", "full")', "new": 'SCALES = ("quick",)'}
    assert run(path, elsewhere.Variant("mutation", mutation=entry), tmp_path)["claims"] == {"scales": 1.0}
    with pytest.raises(elsewhere_source.SourceError, match="stands 0 times in course_lib/runtime.py"):
        elsewhere.damaged_copy(path, entry | {"old": "no such text"}, tmp_path / "again")


# ── The command ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_notebook_that_is_not_there_is_named(capsys):
    assert elsewhere.main(["seeds", "book/nothing.ipynb"]) == 2
    assert "book/nothing.ipynb is no notebook of the book" in capsys.readouterr().err


def test_check_warns_and_fails_only_where_it_is_strict(monkeypatch, capsys):
    monkeypatch.setattr(elsewhere_table, "unmeasured", lambda path: [f"{path.stem}: a claim"])
    path = str(notebooks.notebook_paths()[0])
    assert [elsewhere.main(["check", path, *strict]) for strict in ([], ["--strict"])] == [0, 1]
    assert "make elsewhere NOTEBOOK=" in capsys.readouterr().err


def test_what_is_kept_is_json_without_infinities():
    for file in elsewhere_table.KEPT.glob("*.json"):
        json.loads(file.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_the_page_is_the_one_that_the_kept_measurements_give():
    assert elsewhere_page.PAGE.read_text() == elsewhere_page.page().rstrip() + "\n", "run `make elsewhere`"


def test_what_is_kept_gives_the_same_rows_again(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere_table, "KEPT", tmp_path)
    found = measured(fresh={"seeds+21000": {"accuracy": 0.91}})
    elsewhere_table.keep([found])
    (again,) = elsewhere_table.kept_rows(json.loads((tmp_path / "x.json").read_text()))
    (row,) = elsewhere_table.rows(found)
    assert (again.mean, again.std, again.distance, again.missed) == (row.mean, row.std, row.distance, row.missed)
    assert (again.fresh, again.mutations, again.deviation) == (row.fresh, row.mutations, row.deviation)


KEPT = {
    file.stem: elsewhere_table.kept_rows(json.loads(file.read_text())) for file in elsewhere_table.KEPT.glob("*.json")
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_holds_with_distance_and_notices_its_mutations(name):
    for row in KEPT[name]:
        values = [*row.seeds, *row.processors.values()]
        assert all(row.holds(value) for value in values), row.claim
        assert row.kind != "seeds" or row.distance >= elsewhere_table.NEAREST, row.claim
        assert row.mutations and not any(row.holds(value) for value in row.mutations.values()), row.claim


def test_of_the_fresh_seeds_at_most_one_measurement_in_500_misses():
    values = [(row, value) for rows in KEPT.values() for row in rows for value in row.fresh]
    assert sum(not row.holds(value) for row, value in values) <= len(values) / 500
