"""What the README and the pages say is true: their blocks run, their links lead somewhere, the site builds."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import fcn
import fcn_kernels
from fcn.cli import main
from tests.fcn.conftest import write_shapes
from tests.oldest import oldest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)

# Pages, in the order in which they are read, whose commands build on each other.
READ = (
    "README.md", "index.md", "kernels.md", "fuse.md", "training.md", "networks.md", "data.md", "prediction.md",
    "deployment.md",
)  # fmt: skip

# Appended to every training, so that it takes seconds: one stage of one epoch, on the small images of this test.
SHORT = "--stages.stride=[8]", "--stages.epochs=[1]", "--stages.lr=[0.002]", "--data.augment.crop=[48,64]"


def blocks(page: Path) -> list[re.Match[str]]:
    return [each for each in BLOCK.finditer(page.read_text(encoding="utf-8")) if each["kind"] in ("sh", "python")]


def run_shell(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["fcn"]:
            if words[1] == "train" and "--resume" not in words:
                words += SHORT
                shutil.rmtree(words[words.index("--trainer.run_dir") + 1], ignore_errors=True)
            assert main(words[1:]) == 0, line
        elif words[:2] == ["python", "-m"]:
            subprocess.run([sys.executable, *words[1:]], check=True, cwd=ROOT, capture_output=True, timeout=60)
        else:
            assert not words, f"{line}: this test does not run that; mark the block <!-- not run: REASON -->"


def test_blocks_of_the_readme_and_the_pages_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shapes(tmp_path / "MY_DATA")
    shutil.copy(tmp_path / "MY_DATA/test/images/test0.png", tmp_path / "PHOTO.jpg")
    monkeypatch.chdir(tmp_path)
    ran = 0
    for name in READ:
        page = ROOT / name if name == "README.md" else ROOT / "docs" / name
        names: dict[str, object] = {"__name__": name}
        for block in blocks(page):
            if block["reason"]:
                continue
            if block["kind"] == "python":
                exec(compile(block["text"], name, "exec"), names)
            else:
                run_shell(block["text"])
            ran += 1
    assert ran >= 15


@pytest.mark.parametrize("page", [page for page in TEXTS if page.name not in READ], ids=lambda page: page.name)
def test_other_pages_have_no_block_that_nothing_runs(page: Path) -> None:
    assert [block["text"] for block in blocks(page) if not block["reason"]] == []


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    """Those to pages and their headings are for the site's builder; it does not look at pictures, nor at the README."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|#", link)]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).is_file()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_reference_has_every_public_name() -> None:
    def told(page: str) -> set[str]:
        text = (ROOT / "docs" / "api" / page).read_text(encoding="utf-8")
        return {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}

    assert told("kernels.md") - {"_Fuse"} | {"fuse"} == set(fcn_kernels.__all__)
    assert told("fcn.md") | {"__version__"} == set(fcn.__all__)
    assert told("nn.md") == {"nn"}


def test_messages_of_the_faq_are_in_the_program() -> None:
    headings = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"), re.MULTILINE)
    files = [*ROOT.glob("fcn/**/*.py"), *ROOT.glob("fcn_kernels/**/*.py"), ROOT / "setup.py", ROOT / "CMakeLists.txt"]
    program = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert len(headings) > 15
    assert [heading for heading in headings if heading not in program] == []


def test_versions_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == fcn_kernels.__version__
    assert f"## {fcn_kernels.__version__} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_linters_of_pre_commit_are_those_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    recipe = re.search(r"^lint: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    ours = [re.sub(r"\$\(BIN\)/| \.$", "", line.strip()) for line in recipe[1].splitlines()]
    theirs = [hook["entry"].replace(".venv/bin/", "").replace(" --force-exclude", "") for hook in hooks]
    assert theirs == ours


def test_the_oldest_versions_are_pinned_for_every_requirement() -> None:
    pinned = oldest()
    assert "numpy==2.0" in pinned
    assert all(re.match(r"[\w-]+(\[\w+\])?==\d[\d.]*(; .*)?$", line) for line in pinned), pinned


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical")
    settings = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    assert tomllib.loads(settings)["project"]["site_dir"] == "build/docs"
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
