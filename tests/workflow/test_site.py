"""The documentation as a site: no broken link, nothing from the network, readable on a wide and on a narrow screen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from browser import Browser
from conftest import ROOT, Values

from coldprefix.setup.environments import ensure_environment
from coldprefix.study import registry
from coldprefix.study.checks import parse
from coldprefix.study.plan import plan_of

LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=[\"']?(https?:[^\s\"'>]+)", re.I)


def build(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a folder like docs/ as `make site` does."""
    (docs.parent / "envs").mkdir(exist_ok=True)
    shutil.copytree(
        ROOT / "envs" / "docs", docs.parent / "envs" / "docs", ignore=shutil.ignore_patterns(".venv", "__pycache__"), dirs_exist_ok=True
    )
    shutil.copyfile(ROOT / "mkdocs.yml", docs.parent / "mkdocs.yml")
    command = [str(ensure_environment("docs") / "bin" / "mkdocs"), "build", "--strict", "--site-dir", str(site)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=docs.parent, capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(ROOT / "docs", tmp_path_factory.mktemp("checkout") / "docs")


@pytest.fixture(scope="module")
def site(docs: Path) -> Path:
    done = build(docs, docs.parent / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    return docs.parent / "site"


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    assert not {str(page.relative_to(site)): found for page in pages if (found := LOADED.findall(page.read_text()))}


def test_broken_links_and_a_page_that_no_line_names_are_errors(docs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(docs, tmp_path / "docs")
    with open(copy / "layout.md", "a") as page:
        page.write("\n\n[gone](gone.md) and [here](method.md#no-such-heading)\n")
    (copy / "unnamed.md").write_text("# A page\n")
    done = build(copy, tmp_path / "site")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    for named in ("gone.md", "no-such-heading", "unnamed.md"):
        assert re.search(rf"WARNING.*{re.escape(named)}|^ *- {re.escape(named)}$", said, re.M), f"{named} in {said}"


@pytest.fixture
def browser() -> Iterator[Browser]:
    if os.environ.get("COLDPREFIX_NO_BROWSER"):
        pytest.skip("COLDPREFIX_NO_BROWSER is set")
    browser = Browser()
    yield browser
    browser.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_it_reads_well_from_a_file_and_can_be_searched(browser: Browser, site: Path, tmp_path: Path, width: int) -> None:
    for page in ("index.html", "flags.html", "method.html", "configuration.html"):
        browser.open(site / page, width)
        assert browser.run("document.documentElement.scrollWidth") <= width, f"{page} is wider than the screen"
    browser.picture(tmp_path / f"site-{width}.png")
    browser.open(site / "index.html", width)
    browser.run("document.querySelector('label[for=__search]').click()")
    found = browser.run("""new Promise(resolve => {
        const box = document.querySelector('.md-search__input'); let left = 200;
        box.focus(); box.value = 'checkpoints'; box.dispatchEvent(new Event('keyup'));
        const timer = setInterval(() => {
            const links = [...document.querySelectorAll('.md-search-result__link')].map(a => a.getAttribute('href'));
            if (links.length || !left--) { clearInterval(timer); resolve(links.join(' ')); }
        }, 100);
    })""")
    assert "flags.html" in found or "configuration.html" in found, "the search finds pages without a server"
    assert not browser.errors
    assert all(address.startswith(("file:", "blob:", "about:")) for address in browser.requests), browser.requests


def test_what_the_page_of_flags_asks_for_can_be_planned(values: Values) -> None:
    """Every experiment and every key that it names exists, and its own sweep has a cell for each variant."""
    text = (ROOT / "docs" / "flags.md").read_text()
    named = re.findall(r"snakemake --config experiments=([\w,]+)", text)
    assert len(named) >= 5
    for experiments in named:
        assert plan_of(parse(values | {"experiments": experiments.split(",")})).jobs
    keys = re.findall(r"^\| `(vllm|llamacpp)\.(\w+)`(?:, `(\w+)`)? \|", text, re.M)
    assert len(keys) >= 10
    for engine, *names in keys:
        assert set(filter(None, names)) <= set(registry.engine(engine).settings.model_fields), names
    own = yaml.safe_load(re.search(r"^```yaml\n(.*?)^```$", text, re.M | re.S)[1])  # type: ignore[index]
    cells = plan_of(parse(values | own | {"sweeps": values["sweeps"] | own["sweeps"]})).jobs
    assert sorted(cells) == [f"phase3a/swa/{variant}/A640_B320/{state}" for variant in ("full", "windows") for state in ("hit", "miss")]
