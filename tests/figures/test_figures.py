"""Figures as files: format, size, fonts, rows; what they look like is for eyes."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import fake_run
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from conftest import Values
from pypdf import PdfReader

from coldprefix.figures import (
    captions,
    fig1_invalidation,
    fig2_scaling,
    fig3_backends,
    fig4_cascade,
    fig5_batch_size,
    fig6_confound,
    phase_panels,
    style,
)
from coldprefix.study import registry
from coldprefix.study.config import Config

FIGURES = {
    module.__name__.rpartition(".")[2]: module.draw
    for module in (fig1_invalidation, fig2_scaling, fig3_backends, fig4_cascade, fig5_batch_size, fig6_confound)
}
VALUES = ("median", "ci_low", "ci_high")
Measure = Callable[..., style.Measured]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """pyplot keeps what is drawn until it is saved, and warns of many."""
    yield
    plt.close("all")


@pytest.fixture
def measured(values: Values) -> Measure:
    """All cells of these experiments and phases, measured on null engines."""

    def measure(*phases: str, experiments: Sequence[str] = ("main",), noise: float = 0.0) -> style.Measured:
        return fake_run.measured(values, phases, experiments, noise)

    return measure


def written(drawing: style.Drawing, folder: Path, config: Config) -> tuple[PdfReader, str]:
    paths = [folder / f"figure.{format}" for format in ("pdf", "png", "csv", "txt")]
    style.save(drawing, paths, config.figures)
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert pl.read_csv(io.BytesIO(paths[2].read_bytes())).height == drawing.rows.height > 0
    said = paths[3].read_text()
    assert "one machine: Some CPU" in said and "trials" in said and "engine process" in said
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
    assert text.count("+26 ms") == 4 and "0.10 ms/token" in text, "256 tokens of 0.1 ms each"
    assert text.count("+77 ms") == 4 * 3, "a cold prompt computes 768 tokens more than a hit, in each configuration"
    assert captions.INTERVAL in text


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (0.1, "0.10 ms/token"),
        (0.55, "0.55 ms/token"),
        (12.3, "12 ms/token"),
        (0.0994, "99 µs/token"),
        (0.0032, "3.2 µs/token"),
        (-0.00045, "\u22120.45 µs/token"),
    ],
)
def test_a_cost_per_token_is_told_in_two_digits_without_leading_zeros(ms: float, told: str) -> None:
    assert style.per_token(ms) == told


@pytest.mark.parametrize(
    ("name", "experiments", "words"),
    [
        (
            "fig2_scaling",
            ["scaling"],
            ["TTFT of a hit", "tokens reused", "(144 computed)", "(24 computed)", "0.100 [0.100, 0.100]", "bend 0.0", "n_ubatch"],
        ),
        (
            "fig3_backends",
            ["main", "confound"],
            [
                "ms for each token computed more",
                "cold: nothing cached",
                "repeated prompts",
                "0.10 ms/token +346 %",
                "\u221226 ms \u221278 %",
            ],
        ),
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


def test_fig1_shows_three_states_with_the_medians_of_each_process(measured: Measure, config: Config) -> None:
    drawing = fig1_invalidation.draw(measured("phase3b", noise=0.03), config.figures)
    ttft = drawing.rows.filter(pl.col("metric") == "ttft_ms")
    assert set(ttft["state"]) == {"hit", "miss", "cold"} and ttft["ci_low"].null_count() == 0
    points = [line for line in drawing.figure.axes[0].lines if line.get_marker() == "o"]
    assert len(points) == ttft.height == 9
    assert {np.size(line.get_xdata()) for line in points} == {2 * fake_run.PROCESSES}, "each state is measured in two jobs"
    told = r"llama.cpp Python A512_B256 2\d\.\d \[2\d\.\d, 2\d\.\d\] ms, 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] ms/token, 3\d\d \[3\d\d, 3\d\d\] %"
    assert re.search(told, drawing.caption), "milliseconds first, with intervals"


def test_a_row_of_figure_1_is_an_engine(measured: Measure, config: Config) -> None:
    """vLLM and llama.cpp compute with different types: no axis puts them side by side, whichever backends are measured."""
    axes = fig1_invalidation.draw(measured("phase2", "phase3a"), config.figures).figure.axes
    assert len(axes) == 2 and not axes[0].get_shared_y_axes().joined(axes[0], axes[1])


@pytest.mark.parametrize(("name", "experiments"), [("fig1_invalidation", ["main"]), ("fig3_backends", ["main", "confound"])])
def test_no_label_lies_on_another_or_sticks_out(name: str, experiments: list[str], measured: Measure, config: Config) -> None:
    figure = FIGURES[name](measured(*registry.phases(), experiments=experiments), config.figures).figure
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]
        assert boxes
        for (one, a), (other, b) in combinations(boxes, 2):
            assert not a.overlaps(b), (one, other)
        assert max(box.y1 for _, box in boxes) <= axes.get_window_extent().y1 + 2
        for text, box in boxes if name == "fig1_invalidation" else []:
            assert not any(box.overlaps(bar.get_window_extent().padded(-1)) for bar in axes.patches), f"{text} lies over a bar"


def test_the_line_of_figure_2_is_the_law_the_engine_follows(measured: Measure, config: Config) -> None:
    drawing = fig2_scaling.draw(measured("phase3b", experiments=["scaling"]), config.figures)
    assert "llama.cpp Python 0.1000 [0.1000, 0.1000] ms/token, intercept 5.0 [5.0, 5.0] ms, bend 0.0 [0.0, 0.0] %" in drawing.caption
    hits = drawing.rows.filter(pl.col("state") == "hit", pl.col("quantity") == "ttft").sort("tokens")
    assert hits["tokens"].to_list() == [24, 120, 248, 504, 632, 760, 920], "cached ones"
    assert hits["median"].to_list() == pytest.approx([7.4] * 7)
    off = drawing.rows.filter(pl.col("quantity") == "off the line")
    assert off.filter(pl.col("state") == "miss")["tokens"].to_list() == [128, 256, 512, 640, 768, 928], "from 100 on, as C10"
    assert off["ci_low"].null_count() == 0


def test_figure_2_compares_hits_that_compute_as_much(measured: Measure, config: Config) -> None:
    """A block pool reuses whole blocks: of [A, B, Q] with 24 + 24 tokens 48 are left to compute, of 120 + 24 all 144, of 920 + 24 again 48."""
    drawing = fig2_scaling.draw(measured("phase2", experiments=["scaling"]), config.figures)
    panel = drawing.figure.axes[2]
    shown = [line for line in panel.lines if line.get_linestyle() == "None"]
    assert {int(x) for line in shown for x in np.asarray(line.get_xdata())} == {128, 384, 512, 640}  # a hit of 24 tokens is none
    assert [float(y) for line in shown for y in np.asarray(line.get_ydata())] == pytest.approx([5 + 14.4] * 4 * fake_run.PROCESSES)
    assert "hits 0.0 [0.0, 0.0] µs per reused token" in drawing.caption


def test_figure_2_draws_each_process_in_a_shade_of_its_own(measured: Measure, config: Config) -> None:
    top = fig2_scaling.draw(measured("phase3b", experiments=["scaling"], noise=0.03), config.figures).figure.axes[0]
    lines = [line for line in top.lines if len(np.asarray(line.get_xdata())) == 50]
    assert len(lines) == fake_run.PROCESSES + 1 and len({str(line.get_color()) for line in lines}) == len(lines), "and the mean"


def test_the_interfaces_of_an_engine_share_an_axis_in_figures_1_and_2(measured: Measure, config: Config) -> None:
    data = measured(*registry.phases(), experiments=["main", "scaling"])
    for draw in (fig1_invalidation.draw, fig2_scaling.draw):
        limits = [axes.get_ylim() for axes in draw(data, config.figures).figure.axes[:4]]
        assert limits[0] == limits[1] and limits[2] == limits[3]


def test_figure_3_tells_the_architectures_apart(measured: Measure, config: Config) -> None:
    """A block pool keeps the repeated [B, Q]; a slot does not. Both compute what is not cached at the same price."""
    rows = fig3_backends.draw(measured("phase2", "phase3b", experiments=["main", "confound"]), config.figures).rows
    found = {(row["phase"], row["variant"], row["state"], row["metric"]): row for row in rows.iter_rows(named=True)}
    for phase in ("phase2", "phase3b"):
        assert found[phase, "main", "miss", "ttft_cost_ms_per_token"]["median"] == pytest.approx(0.1)
        assert found[phase, "main", "cold", "ttft_cost_ms"]["median"] == pytest.approx(76.8)
        assert found[phase, "confound/fresh", "miss", "query_ms"]["median"] == pytest.approx(33)
        for content in ("fresh", "repeated"):
            row = found[phase, f"confound/{content}", "miss", "query_ms"]
            assert row["n"] == fake_run.PROCESSES * (fake_run.TRIALS - 1), (
                "without the first of a process, a true miss whatever the prompts"
            )
    change = "repeated over fresh, query_ms"
    assert found["phase2", "confound/repeated", "miss", change]["median"] == pytest.approx(100 * (7.4 / 33 - 1)), "256 of 280 are reused"
    assert found["phase3b", "confound/repeated", "miss", change]["median"] == pytest.approx(0)
    assert all(row["ci_low"] is not None for row in found.values())


def test_figure_4_shows_what_was_reused_in_each_step(measured: Measure, config: Config) -> None:
    rows = fig4_cascade.draw(measured("phase2", "phase3b"), config.figures).rows
    reused = {(row["phase"], row["state"], row["step"]): row["cached_tokens"] for row in rows.iter_rows(named=True)}
    assert [reused["phase3b", "miss", step] for step in ("warmup", "query", "rewarm")] == [0, 0, 0]
    assert [reused["phase3b", "hit", step] for step in ("warmup", "query", "rewarm")] == [0, 768, 767]
    assert [reused["phase2", "miss", step] for step in ("warmup", "query", "rewarm")] == [0, 0, 640]


def test_figure_6_shows_every_trial_and_what_verification_rejects(measured: Measure, config: Config) -> None:
    drawing = fig6_confound.draw(measured("phase2", "phase3b", experiments=["confound"]), config.figures)
    n = fake_run.TRIALS
    assert drawing.rows.height == 2 * 2 * n and set(drawing.rows["process"]) == {0}, "the first process of each cell"
    assert "first engine process" in drawing.caption
    repeated = drawing.rows.filter(pl.col("phase") == "phase2", pl.col("content") == "repeated").sort("trial")
    assert repeated["query_cached_tokens"].to_list() == [0] + [256] * (n - 1)
    assert f"{n - 1} of them verification rejects as misses ({n - 1} with repeated prompts)" in drawing.caption


def test_figure_3_says_what_was_not_measured(measured: Measure, config: Config) -> None:
    figure = fig3_backends.draw(measured("phase3b"), config.figures).figure
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.10 ms/token\n+346 %", "0.10 ms/token\n+1038 %"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["not measured", "not measured"]


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
            assert low <= min(0, axes.dataLim.y0) and axes.dataLim.y1 <= high
            assert low == 0 or axes.get_ylabel() == "streaming overhead (ms)"
        assert drawing.rows.height


def test_fig1_of_one_phase_fits_a_column(measured: Measure, config: Config, tmp_path: Path) -> None:
    reader, _ = written(fig1_invalidation.draw(measured("phase3b"), config.figures), tmp_path, config)
    assert float(reader.pages[0].mediabox.width) / 72 == pytest.approx(config.figures.column_in, abs=0.01)


@pytest.mark.parametrize("phase", registry.phases())
def test_phase_panels(phase: str, measured: Measure, config: Config, tmp_path: Path) -> None:
    data = measured("phase3b", phase) if phase != "phase3b" else measured(phase)
    reader, text = written(phase_panels.draw(data, config.figures, phase), tmp_path, config)
    check_fonts(reader)
    for words in ("time to first token (ms)", "throughput (tokens/s)", "warm-up (ms)", "after a miss", "cold"):
        assert words in text, words
    assert "after a cold" not in text, "it has no warm-up"
    assert "depends on the length of the context" in (tmp_path / "figure.txt").read_text().replace("\n", " ")
    assert ("streaming overhead (ms)" in text) == (registry.phases()[phase].interface == "http")


def test_overhead_has_its_sign(measured: Measure, config: Config) -> None:
    data = measured("phase3a")
    negative = pl.when(pl.col("metric") == "overhead_ms").then(-1.5).otherwise("median").alias("median")
    data = dataclasses.replace(data, summary=data.summary.with_columns(negative))
    panel = phase_panels.draw(data, config.figures, "phase3a").figure.axes[1]
    assert [patch.get_height() for patch in panel.patches] == pytest.approx([-1.5] * 9)  # type: ignore[attr-defined]
    low, high = panel.get_ylim()
    assert low < -1.5 and high > 0, "zero is in sight"


def test_the_warm_up_in_an_empty_cache_is_one_bar(measured: Measure, config: Config) -> None:
    """It is the same computation before a hit and before a miss."""
    drawing = phase_panels.draw(measured("phase3b"), config.figures, "phase3b")
    assert len(drawing.figure.axes[-1].patches) == 3 * (1 + 2), "and no bars of cold, which has no warm-up"
    first = drawing.rows.filter(pl.col("metric") == "warmup_ms")
    assert first["state"].to_list() == ["hit, miss"] * 3 and first["processes"].to_list() == [2 * fake_run.PROCESSES] * 3
    assert first["n"].to_list() == [2 * 2 * fake_run.PROCESSES * fake_run.TRIALS] * 3, "of both states"


def test_throughput_is_shown_where_enough_tokens_were_streamed(measured: Measure, config: Config) -> None:
    data = measured("phase3b")
    panel = phase_panels.draw(data, config.figures, "phase3b").figure.axes[1]
    assert len(panel.patches) == 2 * 3, "cold prompts are partners only, and stream two tokens"
    few = data.summary.with_columns(pl.when(pl.col("metric") == "throughput_tok_s").then(None).otherwise("median").alias("median"))
    panel = phase_panels.draw(dataclasses.replace(data, summary=few), config.figures, "phase3b").figure.axes[1]
    assert [text.get_text() for text in panel.texts] == ["not measured"] and not panel.patches


def test_captions_say_what_is_confounded(measured: Measure) -> None:
    data = measured("phase2", "phase3b")
    assert "vLLM bf16 against llama.cpp f16): compare within an engine" in captions.confounded(data.provenance)
    for record in data.provenance:
        job = record["job"]
        job["model"]["gguf_type"] = "Q4_K_M" if job["engine"] == "llamacpp" else None
    assert "vLLM bf16 against llama.cpp Q4_K_M)" in captions.confounded(data.provenance), "a quantised model is not called f16"
    assert captions.confounded(data.of(phase="phase2").provenance) == ""
    text = captions.counted(data.trials)
    assert text == f"{2 * fake_run.PROCESSES} engine processes and {2 * fake_run.PROCESSES * fake_run.TRIALS} trials for each value"


def test_figure_5_joins_nothing(measured: Measure, config: Config) -> None:
    drawing = fig5_batch_size.draw(measured("phase3a", "phase3b", experiments=["batch_size"], noise=0.03), config.figures)
    assert all(line.get_linestyle() == "None" for line in drawing.figure.axes[0].lines)
    assert drawing.rows["processes"].to_list() == [fake_run.PROCESSES] * 10 and drawing.rows["ci_low"].null_count() == 0


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


# One state of each edit.
STATES = ["hit", "miss", "cold", "substitute-1@5", "insert-2@50%", "delete-3@0", "swap-2@0-4", "truncate@50%", "prepend-2", "foreign-256"]


def test_backends_have_colours_and_markers_of_their_own() -> None:
    colours = [style.state_colour(state) for state in STATES]
    assert len(set(style.BACKEND_COLOURS.values())) == 4 and len(set(colours)) == len(registry.EDITS)
    assert not set(style.BACKEND_COLOURS.values()) & set(colours)
    assert len(set(style.BACKEND_MARKERS.values())) == 4


def test_states_differ_in_more_than_hue() -> None:
    def luminance(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert abs(luminance(style.state_colour("hit")) - luminance(style.state_colour("miss"))) > 0.05
    assert len({registry.edit(state).hatch for state in STATES}) == len(STATES)
