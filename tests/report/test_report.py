"""The report as a reader uses it: opened in a browser from a file, clicked through, at two widths."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_run
import polars as pl
import pytest
import yaml
from browser import Browser
from conftest import ROOT, Values

from coldprefix.advice.table import ADVICE
from coldprefix.analysis.self_check import self_check
from coldprefix.claims.table import CLAIMS
from coldprefix.data import tables
from coldprefix.figures import fig1_invalidation, style
from coldprefix.report import page as report
from coldprefix.study.checks import parse

EVIL = "<script>document.title='pwned'</script>&\"'<img src=x onerror=\"document.title='pwned'\">"
TIMES = {
    "wall_s": 60.0,
    "job_s": 61.0,
    "engine_busy_s": 48.0,
    "engine_start_s": [3.0],
    "settle_s": 1.0,
    "finished_at": "2026-01-01T00:00:00+00:00",
}
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report over measured null engines, into which words from outside were put wherever they can come in. Made once: nobody changes it."""
    values, tmp_path = yaml.safe_load((ROOT / "config.yaml").read_text()), tmp_path_factory.mktemp("report")
    config = parse(values)
    changes = {"phases": ["phase2", "phase3b"], "experiments": ["main", "confound"]}
    rows, provenance = fake_run.requests(values, changes, noise=0.03)
    for record in provenance:
        record |= TIMES | {"host": {"cpu": f"CPU {EVIL}", "gpus": []}, "in_force": {"slots": 1, "version": EVIL}}
    bad = (pl.col("trial") == 2) & (pl.col("sweep") == "main")
    trials, summary = fake_run.tables_of(rows.with_columns(rejection=pl.when(bad).then(pl.lit(EVIL)).otherwise("rejection")))
    figure = tmp_path / "fig1_invalidation.png"
    drawing = fig1_invalidation.draw(style.Measured(trials, summary, provenance), config.figures)
    style.save(drawing, [figure, figure.with_suffix(".csv"), figure.with_suffix(".txt")], config.figures)
    empty = dict.fromkeys(CLAIMS)
    checked = pl.DataFrame(
        [
            empty | {"id": "C5", "statement": EVIL, "figure": "fig1_invalidation", "original_status": "stated", "verdict": "refuted", "effect": 345.9, "effect_low": 340.0,
                     "effect_high": 350.0, "unit": "%", "threshold": 10.0, "threshold_reason": "drift", "finding": "It pays.", "rows": ["phase2/A512_B256/miss"], "n": 3},
            empty | {"id": "C1", "statement": "s", "figure": "fig4_cascade", "original_status": "withdrawn", "verdict": "not decided", "threshold": 0.0, "threshold_reason": "r",
                     "finding": "nothing measured", "rows": [], "n": 0},
        ],
        schema=tables.schema(CLAIMS),
    )  # fmt: skip
    path = tmp_path / "report.html"
    calibration, peers = "null engine\n<python> 0.02 ms", None
    html = report.build(trials, summary, checked, provenance, [figure], calibration, peers, self_check(trials))
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture
def browser() -> Iterator[Browser]:
    if os.environ.get("COLDPREFIX_NO_BROWSER"):
        pytest.skip("COLDPREFIX_NO_BROWSER is set")
    opened = Browser()
    yield opened
    opened.close()


def test_a_reader_clicks_through_the_report(page: Path, browser: Browser) -> None:
    browser.open(page, 1400)
    assert browser.run("document.title") == "coldprefix report", "markup from outside did not run"
    assert browser.run("document.querySelectorAll('main img[src=\"x\"], main script').length") == 0
    # A figure is drawn, and its rows open.
    assert browser.run("document.querySelector('#fig1_invalidation img').naturalWidth") > 900, "a column of a page"
    assert browser.run("document.querySelector('#fig1_invalidation details').open") is False
    browser.run("document.querySelector('#fig1_invalidation summary').click()")
    assert browser.run("document.querySelector('#fig1_invalidation tbody tr').getBoundingClientRect().height") > 0
    # Claims are sorted by a column, up and down; those without an effect come last.
    order = "[...document.querySelectorAll('#claim-table tbody tr')].map(r => r.id)"
    effect = "document.querySelectorAll('#claim-table th button')[4].click()"
    browser.run("document.querySelector('#claim-table th button').click()")
    assert browser.run(order) == ["claim-C1", "claim-C5"]
    browser.run(effect)
    assert browser.run(order) == ["claim-C5", "claim-C1"]
    browser.run(effect)
    assert browser.run(order) == ["claim-C1", "claim-C5"]
    assert browser.run("document.querySelector('#claim-table th[aria-sort]').textContent") == "effect"
    # The filter leaves what was asked for.
    browser.run("{const f = document.getElementById('filter'); f.value = 'phase3b hit'; f.dispatchEvent(new Event('input'));}")
    assert browser.run("document.getElementById('shown').textContent") == "3 of 14 cells" or browser.run(
        "document.getElementById('shown').textContent"
    ).startswith("3 of ")
    left = browser.run("[...document.querySelectorAll('#cell-table tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)")
    assert len(left) == 3 and all("phase3b" in cell and cell.endswith("hit") for cell in left)
    # A cell leads to its provenance, which opens.
    browser.run("document.querySelector('#cell-table tbody tr:not([hidden]) a').click()")
    browser.run("new Promise(done => setTimeout(done, 200))")
    assert browser.run("document.querySelector('details[id^=\"cell-phase3b\"][open] pre').textContent.includes('in_force')") is True
    assert browser.errors == [] and browser.requests == [page.as_uri()], "the page loads nothing but itself"


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_sticks_out_at_the_sides(page: Path, browser: Browser, width: int) -> None:
    browser.open(page, width)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelector('main').getBoundingClientRect().width") <= width


def test_the_page_says_what_was_rejected_and_what_was_not_decided(page: Path) -> None:
    text = page.read_text()
    assert "not decided" in text and "refuted" in text and "345.9 [340, 350] %" in text
    assert "&lt;script&gt;document.title" in text and EVIL not in text
    assert "<td>0.2, 1.2, 2.2, 0.2 (phase2/A512_B256/miss), " in text, "rejected trials by process, and by the cell that measured them"
    assert text.count('href="#fig1_invalidation"') > text.count('href="#fig4_cascade"') == 0, (
        "a claim leads to its figure, if that is drawn"
    )
    assert 'src="http' not in text and 'href="http' not in text


def test_the_advice_on_a_prompt_is_a_section_of_the_report(page: Path, values: Values, tmp_path: Path, browser: Browser) -> None:
    assert 'id="advice"' not in page.read_text(), "nobody asked"
    row = dict.fromkeys(ADVICE) | {
        "phase": "phase3b",
        "prompt_tokens": 756,
        "computed_tokens": 95.0,
        "measured_ms": 14.5,
        "order": "as it stands",
        "segments": EVIL,
    }
    best = row | {"order": "best", "segments": "system, date, question", "computed_tokens": 25.0, "measured_ms": 7.5, "measured_saved_ms": 7.0, "measured_saved_low": 6.5, "measured_saved_high": 7.5}  # fmt: skip
    advice = pl.DataFrame([row, best], schema=tables.schema(ADVICE))
    rows, provenance = fake_run.requests(values, {"phases": ["phase3b"], "experiments": ["main"]})
    for record in provenance:
        record |= TIMES | {"in_force": {"slots": 1}}
    told = tmp_path / "told.html"
    told.write_text(report.build(*fake_run.tables_of(rows), None, provenance, [], advice=advice), encoding="utf-8")
    browser.open(told, 400)
    assert browser.run("document.documentElement.scrollWidth") <= 400
    text = browser.run("document.querySelector('#advice ~ dl').textContent")
    assert "95 computed tokens become 25, 14.5 ms to the first token become 7.5, 7.0 [6.5, 7.5] ms less (measured)." in text
    assert browser.run("document.querySelectorAll('#advice-table tbody tr').length") == 2
    assert (
        browser.run("document.querySelector('nav a[href=\"#advice\"]').textContent") == "Layout"
        and browser.run("document.title") == "coldprefix report"
    )


def test_a_report_without_claims_says_so(page: Path, values: Values) -> None:
    trials = pl.DataFrame(schema=tables.schema(tables.TRIALS))
    text = report.build(trials, pl.DataFrame(schema=tables.schema(tables.SUMMARY)), None, [], [])
    assert "The claims were not checked" in text and "None." in text and "The harness was not calibrated" in text
    assert "The intervals were not checked" in text and 'id="cpu"' not in text, "nothing was measured on a CPU"


def test_the_first_screen_has_six_lines_of_this_runs_data(page: Path, values: Values) -> None:
    screen = page.read_text().split('id="first"')[1].split('id="claims"')[0]
    told = dict(zip(re.findall(r"<dt>(.*)</dt>", screen), re.findall(r"<dd>(.*)</dd>", screen), strict=True))
    assert len(told) == 6 and screen.count("<img") == 1
    costs = told["What a cold prefix costs here"]
    assert "ms per 1,000 tokens computed (cold of " in costs and costs.count("[") == 2, "each backend with its interval"
    assert "the next request reuses after a miss" in told["What a miss destroys"]
    assert told["How far the clock can be trusted"] == "The harness was not calibrated in this run."
    assert re.search(r"\d+ of \d+ intervals leave 1 out", told["How far the intervals can be trusted"])
    limits = told["What this run cannot say"]
    assert "on a CPU" in limits and "weights are random" in limits and re.search(r"\d+ of \d+ trials, whose cache state was not", limits)
    nothing = report.build(
        pl.DataFrame(schema=tables.schema(tables.TRIALS)), pl.DataFrame(schema=tables.schema(tables.SUMMARY)), None, [], []
    )
    assert "Not measured" in nothing and "Not checked" in nothing, "a line for which there are no data says so"


def test_the_calibration_is_shown(page: Path) -> None:
    assert "null engine\n&lt;python&gt; 0.02 ms" in page.read_text()


def test_the_intervals_are_checked_beside_the_calibration(page: Path) -> None:
    text = page.read_text()
    found = re.search(r"  all      \d+ of (\d+) \(\d+%\)", text)
    assert found and int(found[1]) > 20
    assert text.index('id="clock"') < text.index("null engine\n") < text.index('id="self-check"') < text.index('id="warnings"')


def test_a_run_on_a_cpu_says_what_it_cannot_say(page: Path) -> None:
    text = page.read_text()
    assert "The counts travel" in text and "The milliseconds do not" in text
    assert "over engine processes (Student's t)" in text and "bootstrap" not in text


def test_what_a_partner_measured_leads_to_the_job_that_did(page: Path) -> None:
    assert '<a href="#cell-phase2/A512_B256/hit">phase2/A512_B256/cold</a>' in page.read_text()
