"""The architecture: imports point one way, and importing the package is light."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_synthqual

ROOT = Path(lightning_synthqual.__file__).parent
PACKAGE = "lightning_synthqual"
ALLOWED = {
    "checking": set(),
    "distributed": set(),
    "importing": set(),
    "precision": set(),
    "timing": set(),
    "residence": set(),
    "metrics": {"metrics", "checking", "precision"},
    "images": {"images", "metrics", "distributed", "checking", "precision"},
    "extractors": {"extractors", "images", "distributed", "importing", "checking", "precision", "timing"},
    "plotting": {"plotting", "metrics"},
    "reporting": {"reporting", "metrics"},
    "evaluation": {
        "evaluation",
        "images",
        "extractors",
        "metrics",
        "plotting",
        "reporting",
        "distributed",
        "importing",
        "checking",
        "precision",
        "residence",
        "timing",
        "__about__",
    },
    "audit": {
        "audit",
        "evaluation",
        "images",
        "extractors",
        "metrics",
        "plotting",
        "reporting",
        "distributed",
        "checking",
        "__about__",
    },
    "torchmetrics": {"checking", "evaluation", "extractors", "images", "metrics"},
    "cli": {
        "cli",
        "audit",
        "evaluation",
        "extractors",
        "metrics",
        "plotting",
        "reporting",
        "importing",
        "checking",
        "__about__",
    },
    "__main__": {"cli"},
    "callbacks": {
        "callbacks",
        "evaluation",
        "images",
        "metrics",
        "reporting",
        "distributed",
        "importing",
        "checking",
    },
}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in ("__init__.py",))


def imported(path: Path) -> list[str]:
    """Modules that a file imports when it runs; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_one_way(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(path):
        if name.startswith(PACKAGE + "."):
            assert name.split(".")[1] in ALLOWED.get(room, set()), f"{path.name} imports {name}"
        if name.startswith("torch.distributed"):
            assert room == "distributed"
        if name.split(".")[0] in ("lightning", "pytorch_lightning"):
            assert room == "callbacks"


def public_names() -> list[tuple[str, object]]:
    """What users import: by dotted name."""
    modules = (PACKAGE, f"{PACKAGE}.metrics", f"{PACKAGE}.extractors")
    found = []
    for module in map(importlib.import_module, modules):
        found += [(f"{module.__name__}.{name}", getattr(module, name)) for name in module.__all__]
    return [(name, what) for name, what in found if not name.endswith("__version__")]


@pytest.mark.parametrize(("name", "what"), public_names(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_public_name_says_what_it_takes_and_shows_how_it_is_used(name, what):
    text = inspect.getdoc(what) or ""
    assert ">>> " in text, f"{name} has no example"
    if inspect.isfunction(what):
        assert {"Args:", "Returns:", "Raises:"} <= set(text.split()), f"{name} leaves something out"
        for argument in inspect.signature(what).parameters:
            assert f"{argument}:" in text, f"{name} does not say what {argument} is"


def test_importing_loads_nothing_heavy_and_lightning_only_for_callbacks():
    code = """
import sys
heavy = {"wandb", "open_clip", "dreamsim", "timm", "lpips", "torch_fidelity", "transformers", "sklearn", "matplotlib"}
lightning = {"lightning", "pytorch_lightning", "torchmetrics", "torchvision"}
import lightning_synthqual.cli
print(sorted((heavy | lightning) & {*sys.modules}))
import lightning
before = set(sys.modules)
from lightning_synthqual import *
print(sorted(heavy & ({*sys.modules} - before)), QualityMonitor.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[] QualityMonitor"]


def test_the_package_knows_its_names():
    assert set(lightning_synthqual.__all__) <= set(dir(lightning_synthqual))
    with pytest.raises(AttributeError, match="module 'lightning_synthqual' has no attribute 'QualityMeter'"):
        lightning_synthqual.QualityMeter  # noqa: B018


def test_nothing_is_unpickled():
    for path in FILES:
        text = path.read_text()
        assert "pickle.load" not in text
        assert "weights_only=False" not in text
        assert text.count("torch.load(") <= text.count("weights_only=True)")


OLD_NAMES = {"counterpart", "exhibits", "studies", "insiders", "occupants", "headline", "COMPANIONS", "Walker"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_names_that_were_replaced_by_plain_ones_do_not_return(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {getattr(node, part, None) for node in nodes for part in ("id", "attr", "name", "arg")}
    assert not names & OLD_NAMES
