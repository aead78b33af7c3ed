"""Imports inside course_lib point one way, and what only one file may touch is touched by that file alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from course_lib.losses.adversarial import discriminator_loss

PACKAGE = Path(__file__).resolve().parent.parent / "course_lib"

# From the top down. A unit is a module or a subpackage of course_lib; it imports from the layers below its own.
LAYERS = [
    {"cli"},
    {"benchmark", "exercises", "studies"},
    {"pretrained", "recorded_runs"},
    {"recipes"},
    {"training", "evaluation"},
    {"models", "losses", "data"},
    {"runtime", "records"},
]
# Everybody may import these; they import nothing of ours but the errors.
LEAVES = {"claims", "files", "notebook", "numpy_conv", "plotting"}
ERRORS = "errors"
# Training watches the score of a run, so it may look sideways at evaluation; never the other way round.
SIDEWAYS = {("training", "evaluation")}

NETWORK = {"aiohttp", "ftplib", "http", "httpx", "huggingface_hub", "requests", "socket", "urllib", "urllib3"}
NETWORK_SUBMODULES = ("torch.hub", "torchvision.datasets.utils")
DEVICES = {"cuda", "mps", "xpu"}


def depth(unit: str) -> int:
    """Return how far down a unit lies."""
    found = [level for level, units in enumerate(LAYERS) if unit in units]
    assert found, f"course_lib.{unit} has no layer: give it one in LAYERS or LEAVES"
    return found[0]


def may_import(unit: str, other: str) -> bool:
    if unit == other or other == ERRORS:
        return True
    if unit in LEAVES or unit == ERRORS:
        return False
    if other in LEAVES:
        return True
    return depth(unit) < depth(other) or (unit, other) in SIDEWAYS


def imported_modules(tree: ast.AST, module: str) -> Iterator[str]:
    """Yield every module imported anywhere in a file, also inside functions, with relative imports written out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            # `from course_lib import cli` names the module in the second half.
            yield from (f"{source}.{alias.name}" for alias in node.names)


def is_allowed(imported: str, module: str) -> bool:
    """Say whether a file of course_lib may import something, both given by their dotted names."""
    unit = module.split(".")[1] if "." in module else "__init__"
    top, _, rest = imported.partition(".")
    if top == "course_lib":
        other = rest.split(".")[0]
        if other in ("", "__version__"):  # the package itself, which imports nothing
            return True
        if unit == "__main__":
            return other == "cli"
        return unit != "__init__" and may_import(unit, other)
    if top in NETWORK or imported.startswith(NETWORK_SUBMODULES):
        return module == "course_lib.data.download"
    if top == "matplotlib":
        return unit not in ("models", "losses", "data")
    return True


def forbidden_imports(source: str, module: str) -> list[str]:
    """Return what a file of course_lib imports against the rules; `module` is its dotted name."""
    return [imported for imported in imported_modules(ast.parse(source), module) if not is_allowed(imported, module)]


def names_a_device(node: ast.AST) -> bool:
    """Say whether a piece of code names a device: `torch.device`, `x.cuda`, "cuda:0"."""
    match node:
        case ast.Attribute(value=ast.Name("torch"), attr="device" | "accelerator"):
            return True
        case ast.Attribute(attr=name) | ast.Constant(value=str(name)):
            return name.split(":")[0] in DEVICES
        case ast.ImportFrom(module="torch", names=names):
            return any(alias.name in ("device", "accelerator") for alias in names)
    return False


def devices_named(source: str) -> list[str]:
    """Return where code, as opposed to a docstring, names a device."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if id(node) not in prose and names_a_device(node)
    ]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_downwards(module):
    assert forbidden_imports(FILES[module].read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize("module", [name for name in FILES if name != "course_lib.runtime"])
def test_only_the_runtime_names_devices(module):
    assert devices_named(FILES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("course_lib.models.dcgan", "from course_lib.losses.adversarial import discriminator_loss"),
        ("course_lib.losses.adversarial", "def f():\n    from course_lib.models import blocks"),
        ("course_lib.losses.adversarial", "from ..models import blocks"),
        ("course_lib.evaluation.accuracy", "import course_lib.training.fit"),
        ("course_lib.training.fit", "from course_lib import recipes"),
        ("course_lib.runtime", "from course_lib.data.images import digits"),
        ("course_lib.claims", "from course_lib.records import write"),
        ("course_lib.errors", "import course_lib.claims"),
        ("course_lib.recipes.ssgan", "from course_lib.cli import main"),
        ("course_lib.__init__", "from course_lib.models import dcgan"),
        ("course_lib.data.images", "from urllib.request import urlopen"),
        ("course_lib.data.images", "from torchvision.datasets.utils import download_url"),
        ("course_lib.models.dcgan", "import matplotlib.pyplot as plt"),
    ],
)
def test_an_import_against_the_rules_is_found(module, source):
    assert forbidden_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("course_lib.training.monitor", "from course_lib.evaluation.accuracy import accuracy"),
        ("course_lib.training.fit", "from course_lib.training.steps import gan_step"),
        ("course_lib.claims", "from course_lib.errors import InputError"),
        ("course_lib.__main__", "from course_lib.cli import main"),
        ("course_lib.data.download", "from urllib.request import urlopen"),
        ("course_lib.models.dcgan", "from .blocks import Dropout"),
    ],
)
def test_an_import_by_the_rules_is_let_through(module, source):
    assert forbidden_imports(source, module) == []


@pytest.mark.parametrize(
    "source",
    [
        "x.cuda()",
        "torch.device('cpu')",
        "x.to('cuda:0')",
        "torch.accelerator.is_available()",
        "from torch import device",
    ],
)
def test_a_named_device_is_found(source):
    assert devices_named(source)


def test_the_device_of_a_tensor_and_a_docstring_name_no_device():
    assert devices_named('def f(real):\n    """On "cuda" it is faster."""\n    return real.device') == []


def test_a_unit_without_a_layer_is_found():
    with pytest.raises(AssertionError, match="has no layer"):
        forbidden_imports("from course_lib.novelty import x", "course_lib.training.fit")


def test_shapes_are_checked_while_tests_run():
    with pytest.raises(TypeCheckError):
        discriminator_loss(torch.zeros(2, 3), torch.zeros(3))
