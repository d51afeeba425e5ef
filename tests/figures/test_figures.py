"""Figures as files: format, size, fonts, rows; what they look like is for eyes."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from conftest import Values, with_values
from null_engine import NullSession
from pypdf import PdfReader

from coldprefix.analysis.summary import summary_of, trials_of
from coldprefix.data import tables
from coldprefix.data.raw import as_frame
from coldprefix.engines.contract import Completion
from coldprefix.figures import (
    fig1_invalidation,
    fig2_scaling,
    fig3_architectures,
    fig4_cascade,
    fig5_batch_size,
    fig6_confound,
    phase_panels,
    style,
)
from coldprefix.measure import protocol
from coldprefix.study import registry
from coldprefix.study.checks import parse
from coldprefix.study.config import Config
from coldprefix.study.plan import job_of

FIGURES = {
    module.__name__.rpartition(".")[2]: module.draw
    for module in (fig1_invalidation, fig2_scaling, fig3_architectures, fig4_cascade, fig5_batch_size, fig6_confound)
}
PHASES = registry.phases()
VALUES = ("median", "ci_low", "ci_high")
Measure = Callable[..., style.Measured]


class Timed(NullSession):
    """Takes 5 ms and 0.1 ms for each token it computes."""

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        done = super().complete(prompt, max_tokens, stream)
        first = 5 + 0.1 * (done.evaluated_tokens or 0)
        times = [first + 2.0 * i for i in range(max_tokens)]
        return dataclasses.replace(done, total_ms=times[-1], token_times_ms=times if stream else [])


@pytest.fixture
def measured(values: Values) -> Measure:
    """All cells of these experiments and phases, measured on null engines: a slot for llama.cpp, a block pool for vLLM."""

    def measure(*phases: str, experiments: Sequence[str] = ("main",)) -> style.Measured:
        config = parse(
            with_values(values, {"settle_ms": 0, "trials": 3, "burn_in": 1, "phases": list(phases), "experiments": list(experiments)})
        )
        rows, provenance = [], []
        for cell in config.all_cells():
            job = job_of(config, cell)
            session = Timed("slot") if job.engine == "llamacpp" else Timed("pool", 128)
            rows += protocol.run_replicate(session, job, 0, 0, lambda _: None)
            in_force = job.settings
            provenance.append({"host": {"cpu": "Some CPU @ 3 GHz", "gpus": []}, "job": job.model_dump(mode="json"), "in_force": in_force})
        trials = trials_of(as_frame(rows).lazy()).collect().cast(tables.schema(tables.TRIALS))
        return style.Measured(trials, summary_of(trials), provenance)

    return measure


def written(drawing: style.Drawing, folder: Path, config: Config) -> tuple[PdfReader, str]:
    paths = [folder / f"figure.{format}" for format in ("pdf", "png", "csv", "txt")]
    style.save(drawing, paths, config.figures)
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert pl.read_csv(io.BytesIO(paths[2].read_bytes())).height == drawing.rows.height > 0
    assert "Some CPU" in paths[3].read_text() and "trials" in paths[3].read_text()
    assert sorted(p.name for p in folder.iterdir()) == ["figure.csv", "figure.pdf", "figure.png", "figure.txt"]
    reader = PdfReader(paths[0])
    return reader, reader.pages[0].extract_text()


def check_fonts(reader: PdfReader) -> None:
    fonts = [font.get_object() for font in reader.pages[0]["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        described = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
        assert "/FontFile2" in described["/FontDescriptor"], "TrueType fonts must be embedded; paper checkers refuse Type 3"


def test_fig1_shows_all_backends_and_says_which_weights(measured: Measure, config: Config, tmp_path: Path) -> None:
    reader, text = written(fig1_invalidation.draw(measured(*registry.phases()), config.figures), tmp_path, config)
    check_fonts(reader)
    assert float(reader.pages[0].mediabox.width) / 72 == pytest.approx(config.figures.text_in, abs=0.01)
    for words in (
        "vLLM HTTP",
        "vLLM Python",
        "llama.cpp HTTP",
        "llama.cpp Python",
        "time to first token (ms)",
        "random weights",
        "Some CPU",
    ):
        assert words in text, words
    assert "+346 %" in text  # (5 + 28.0) / (5 + 2.4)


@pytest.mark.parametrize(
    ("name", "experiments", "words"),
    [
        ("fig2_scaling", ["scaling"], ["tokens recomputed", "0.100 ms/token", "R² = 1.000", "n_ubatch"]),
        ("fig3_architectures", ["main", "confound"], ["TTFT of a miss over a hit (%)", "next warm-up (% of a cold one)", "repeated miss"]),
        ("fig4_cascade", ["main", "host_tier"], ["prompt tokens", "+ host tier", "re-warm", "reused"]),
        ("fig5_batch_size", ["batch_size"], ["n_batch (tokens)", "TTFT of a miss (ms)", "2048"]),
        ("fig6_confound", ["confound"], ["tokens reused,", "says the engine", "repeated prompts", "the whole prompt: 280"]),
    ],
)
def test_the_figures_of_the_sweeps(
    name: str, experiments: list[str], words: list[str], measured: Measure, config: Config, tmp_path: Path
) -> None:
    data = measured(*registry.phases(), experiments=experiments)
    reader, text = written(FIGURES[name](data, config.figures), tmp_path, config)
    check_fonts(reader)
    assert float(reader.pages[0].mediabox.width) / 72 == pytest.approx(
        config.figures.column_in if name == "fig5_batch_size" else config.figures.text_in, abs=0.01
    )
    for word in [*words, *([] if name == "fig5_batch_size" else ["vLLM Python"]), "llama.cpp HTTP"]:
        assert word in text.replace("\n", " ") or word in text, word


def test_the_line_of_figure_2_is_the_law_the_engine_follows(measured: Measure, config: Config) -> None:
    caption = fig2_scaling.draw(measured("phase3b", experiments=["scaling"]), config.figures).caption
    assert "llama.cpp Python 0.1 [0.1, 0.1] ms/token, intercept 5 [5, 5] ms, R² 1 [1, 1]" in caption


def test_figure_3_tells_the_architectures_apart(measured: Measure, config: Config) -> None:
    """A block pool keeps [A, B] and the repeated [B, Q]; a slot keeps neither."""
    rows = fig3_architectures.draw(measured("phase2", "phase3b", experiments=["main", "confound"]), config.figures).rows
    found = {(row["phase"], row["quantity"]): row["median"] for row in rows.iter_rows(named=True)}
    assert found["phase2", "TTFT of a first miss over a hit"] == pytest.approx(100 * (33 / 7.4 - 1))
    assert found["phase2", "TTFT of a repeated miss over a hit"] == pytest.approx(0), "256 of 280 tokens are reused"
    assert found["phase3b", "TTFT of a repeated miss over a hit"] == pytest.approx(100 * (33 / 7.4 - 1))
    assert found["phase3b", "re-warm after a miss, of a cold warm-up"] == pytest.approx(100)
    assert found["phase3b", "re-warm after a hit, of a cold warm-up"] < 10
    assert found["phase2", "re-warm after a miss, of a cold warm-up"] == pytest.approx(100 * (5 + 12.8) / (5 + 76.8))


def test_figure_4_shows_what_was_reused_in_each_step(measured: Measure, config: Config) -> None:
    rows = fig4_cascade.draw(measured("phase2", "phase3b"), config.figures).rows
    reused = {(row["phase"], row["state"], row["step"]): row["cached_tokens"] for row in rows.iter_rows(named=True)}
    assert [reused["phase3b", "miss", step] for step in ("warmup", "query", "rewarm")] == [0, 0, 0]
    assert [reused["phase3b", "hit", step] for step in ("warmup", "query", "rewarm")] == [0, 768, 767]
    assert [reused["phase2", "miss", step] for step in ("warmup", "query", "rewarm")] == [0, 0, 640]


def test_figure_6_shows_every_trial_and_what_verification_rejects(measured: Measure, config: Config) -> None:
    drawing = fig6_confound.draw(measured("phase2", "phase3b", experiments=["confound"]), config.figures)
    n = config.sweeps["confound"].trials
    assert isinstance(n, int) and drawing.rows.height == 2 * 2 * n
    repeated = drawing.rows.filter(pl.col("phase") == "phase2", pl.col("content") == "repeated").sort("trial")
    assert repeated["query_cached_tokens"].to_list() == [0] + [256] * (n - 1)
    assert f"{n - 1} of them verification rejects as misses ({n - 1} with repeated prompts)" in drawing.caption


def test_figure_3_says_what_was_not_measured(measured: Measure, config: Config) -> None:
    figure = fig3_architectures.draw(measured("phase3b"), config.figures).figure
    assert [text.get_text() for text in figure.axes[0].texts] == ["+346", "not measured"]


def test_no_bar_is_cut_off(measured: Measure, config: Config) -> None:
    """Backends that differ much share an axis: it must reach above the highest interval of all, in every panel."""
    data = measured(*registry.phases())
    larger = [pl.when(pl.col("phase") == "phase3b").then(pl.col(c) * 9).otherwise(pl.col(c)).alias(c) for c in VALUES]
    grown = dataclasses.replace(data, summary=data.summary.with_columns(larger))
    drawings = [
        fig1_invalidation.draw(grown, config.figures),
        *(phase_panels.draw(grown, config.figures, phase) for phase in registry.phases()),
    ]
    for drawing in drawings:
        for axes in drawing.figure.axes:
            low, high = axes.get_ylim()
            # dataLim encloses bars and error bars; the label below the bars is no data.
            assert low == 0 and axes.dataLim.y1 <= high
        assert drawing.rows.height


def test_fig1_of_one_phase_fits_a_column(measured: Measure, config: Config, tmp_path: Path) -> None:
    reader, _ = written(fig1_invalidation.draw(measured("phase3b"), config.figures), tmp_path, config)
    assert float(reader.pages[0].mediabox.width) / 72 == pytest.approx(config.figures.column_in, abs=0.01)


@pytest.mark.parametrize("phase", registry.phases())
def test_phase_panels(phase: str, measured: Measure, config: Config, tmp_path: Path) -> None:
    data = measured("phase3b", phase) if phase != "phase3b" else measured(phase)
    reader, text = written(phase_panels.draw(data, config.figures, phase), tmp_path, config)
    check_fonts(reader)
    for words in ("time to first token (ms)", "throughput (tokens/s)", "warm-up (ms)", "after a miss"):
        assert words in text, words
    assert ("streaming overhead" in text) == (registry.phases()[phase].interface == "http")


@pytest.mark.parametrize(("name", "experiments"), [("fig1_invalidation", ["main"]), ("fig2_scaling", ["scaling"])])
def test_two_runs_over_the_same_data_write_the_same_bytes(
    name: str, experiments: list[str], measured: Measure, config: Config, tmp_path: Path
) -> None:
    data = measured("phase3a", experiments=experiments)
    contents = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(FIGURES[name](data, config.figures), tmp_path / folder, config)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / folder).iterdir()})
    assert contents[0] == contents[1]


def test_a_cell_without_valid_trials_leaves_a_gap(measured: Measure, config: Config, tmp_path: Path) -> None:
    data = measured("phase3a")
    hole = (pl.col("state") == "miss") & (pl.col("configuration") == "A512_B256")
    emptied = data.summary.with_columns(pl.when(hole).then(None).otherwise(pl.col(c)).alias(c) for c in ("median", "ci_low", "ci_high"))
    written(fig1_invalidation.draw(dataclasses.replace(data, summary=emptied), config.figures), tmp_path, config)


def test_backends_have_colours_and_markers_of_their_own() -> None:
    assert len({*style.BACKEND_COLOURS.values(), *style.COLOURS.values()}) == 6
    assert len(set(style.BACKEND_MARKERS.values())) == 4


def test_hit_and_miss_differ_in_more_than_hue() -> None:
    def luminance(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert abs(luminance(style.COLOURS["hit"]) - luminance(style.COLOURS["miss"])) > 0.05
    assert style.HATCHES["hit"] != style.HATCHES["miss"]
