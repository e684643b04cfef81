"""The files for contributors: they can be read, and they name the checks of ``.ci/run``."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHECKS = (ROOT / ".ci/run").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()  # tomllib is newer than Python 3.10


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_workflow_runs_the_checks_on_every_python_of_the_classifiers() -> None:
    workflow = read(".github/workflows/checks.yml")
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"] == "bash .ci/run"
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert job["strategy"]["matrix"]["python"] == classifiers
    assert f'requires-python = ">={classifiers[0]}"' in PROJECT
    assert {"push", "pull_request"} == set(workflow[True])  # YAML reads `on` as a truth value


def test_pre_commit_runs_the_linters_of_the_checks() -> None:
    foreign, own = read(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"] for hook in own["hooks"]]
    assert entries == re.findall(r'"((?:ruff|mypy)[^"]*)"', CHECKS)
    assert not any(hook["pass_filenames"] for hook in own["hooks"])
    assert re.fullmatch(r"v\d+\.\d+\.\d+", foreign["rev"])


def test_no_large_file_is_here_but_those_that_pre_commit_lets_pass() -> None:
    (hook,) = (
        hook for hook in read(".pre-commit-config.yaml")["repos"][0]["hooks"] if hook["id"] == "check-added-large-files"
    )
    limit = int(hook["args"][0].removeprefix("--maxkb="))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    large = [name for name in names if (ROOT / name).stat().st_size > limit * 1024]
    assert all(re.search(hook["exclude"], name) for name in large), large


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_ask_for_something(name: str) -> None:
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"]
    assert form["description"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])
    identifiers = [field["id"] for field in form["body"]]
    assert len(set(identifiers)) == len(identifiers)


def test_the_citation_names_the_study_and_its_authors_in_order() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    study = citation["preferred-citation"]
    authors = [f"{author['given-names']} {author['family-names']}" for author in study["authors"]]
    assert authors == ["Clara Salditt", "Karan Molaverdikhani", "Barbara Ercolano"]
    assert study["title"] in (ROOT / "README.md").read_text().replace("{", "").replace("}", "")


def test_contributors_are_told_commands_that_are_there() -> None:
    text = (ROOT / ".github/CONTRIBUTING.md").read_text()
    assert 'pip install -e ".[dev]"' in text
    assert re.search(r'^dev = \["lightning-synthqual\[test\]", "pre-commit"\]$', PROJECT, re.M)
    assert "bash .ci/run" in text
    assert "FutureWarning" in text
