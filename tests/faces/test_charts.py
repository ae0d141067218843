"""Charts where plotly is not drawn: a picture without a script."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import plotly.graph_objects as go

from lepton_jupyter.faces.objects.chart import PLOTLY, chart_bundle


def _drawn(figure: go.Figure) -> tuple[str, ET.Element]:
    bundle = chart_bundle(figure.update_layout(title="Drift"))
    assert PLOTLY in bundle and bundle["text/plain"] == "[chart: Drift]"
    page = bundle["text/html"]
    assert "<script" not in page
    start = page.index("<svg")
    return page, ET.fromstring(page[start : page.index("</svg>") + 6])


def _boxes(picture: ET.Element) -> list[tuple[float, float]]:
    return [
        (float(box.get("width", 0)), float(box.get("height", 0))) for box in picture.iter() if box.tag.endswith("rect")
    ]


def test_bars_that_lie_are_stacked_one_line_a_category() -> None:
    figure = go.Figure().update_layout(barmode="stack")
    figure.add_bar(x=[0.1, 0.1], y=["age", "dose <mg>"], orientation="h", name="by chance", marker={"color": "#777"})
    figure.add_bar(x=[0.3, None], y=["age", "dose <mg>"], orientation="h", name="drifted")
    page, picture = _drawn(figure)
    assert "by chance" in page and "dose &lt;mg&gt;" in page
    chance, drifted, alone = _boxes(picture)
    assert drifted[0] / chance[0] == 3 or abs(drifted[0] / chance[0] - 3) < 0.01
    assert alone == chance


def test_bars_that_stand_are_side_by_side() -> None:
    figure = go.Figure().update_layout(barmode="group")
    for name, values in (("training", [0.5, 0.5]), ("window", [0.25, float("nan")])):
        figure.add_bar(x=["B", "M"], y=values, name=name)
    page, picture = _drawn(figure)
    heights = sorted(height for _, height in _boxes(picture))
    assert len(heights) == 3 and abs(heights[0] * 2 - heights[2]) < 0.2
    assert "training" in page and ">B<" in page and ">M<" in page


def test_lines_over_times_end_at_the_last_one() -> None:
    figure = go.Figure()
    figure.add_scatter(x=["2026-11-24 02:31", "2026-11-24 02:32"], y=[1.0, 2.0], name="p95", mode="lines")
    page, picture = _drawn(figure)
    assert "2026-11-24 02:32" in page and "p95" in page
    assert any(part.tag.endswith("polyline") for part in picture.iter())


def test_a_chart_of_nothing_is_its_title() -> None:
    page = chart_bundle(go.Figure().add_bar(x=[], y=[]).update_layout(title="Requests"))["text/html"]
    assert "Requests" in page
