#!/usr/bin/env python3
"""Draws a dashboard as PNG from a Prometheus, without Grafana: the same panels, places, queries,
units and thresholds, drawn by matplotlib. An impression, not a screenshot.

    render.py DASHBOARD.json PROMETHEUS_URL MINUTES OUT.png      needs matplotlib
"""
import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

WIDTH, UNIT_HEIGHT, DPI = 1400, 27, 100  # pixels
PAGE, PANEL, TEXT, FAINT = "#111217", "#181b1f", "#ccccdc", "#3a3d44"
COLORS = {"green": "#73bf69", "yellow": "#f2cc0c", "red": "#f2495c", "blue": "#5794f2"}
PALETTE = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#8ab8ff", "#b877d9", "#96d98d",
           "#ffee52", "#ff7383", "#ca95e5", "#ffb357"]
STEPS = 200  # points of a query
RATE_INTERVAL = "20s"


def format_value(value, unit):
    if value is None or not math.isfinite(value):
        return "no data"
    if unit == "percentunit":
        return f"{100 * value:.3g} %" if abs(value) < 0.9995 else f"{100 * value:.1f} %"
    if unit == "s":
        for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= scale or name == "µs":
                return f"{value / scale:.3g} {name}"
    for scale, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {name}" + ("B/s" if unit == "Bps" else "")
    return f"{value:.3g}" + {"Bps": " B/s", "reqps": " req/s", "ops": " /s"}.get(unit, "")


class Source:
    def __init__(self, url, minutes):
        self.url, self.minutes = url, minutes
        self.end = time.time()
        self.start = self.end - 60 * minutes

    def query(self, panel):
        """[(legend, times, values)] of a panel's queries over the range."""
        found = []
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in (("$__rate_interval", RATE_INTERVAL),
                                ("$__range", f"{round(60 * self.minutes)}s"),
                                ("$namespace", ".*"), ("$model", ".*"), ("$instance", ".*")):
                text = text.replace(name, value)
            url = f"{self.url}/api/v1/query_range?" + urllib.parse.urlencode({
                "query": text, "start": self.start, "end": self.end,
                "step": (self.end - self.start) / STEPS})
            with urllib.request.urlopen(url, timeout=60) as response:
                result = json.load(response)["data"]["result"]
            for series in result:
                legend = re.sub(r"\{\{(\w+)\}\}",
                                lambda m, s=series: s["metric"].get(m.group(1), ""),
                                target["legendFormat"])
                times, values = zip(*((float(t), float(v)) for t, v in series["values"]))
                found.append((legend, np.array(times), np.array(values)))
        return found


def threshold_color(panel, value):
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    color = steps[0]["color"]
    for step in steps[1:]:
        if value >= step["value"]:
            color = step["color"]
    return COLORS[color]


def draw_stat(axes, panel, series):
    axes.axis("off")
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for i, (legend, _, values) in enumerate(series):
        finite = values[np.isfinite(values)]
        value = finite[-1] if len(finite) else math.nan
        text = format_value(value, unit)
        axes.text(0.5, 0.55 - 0.3 * i, f"{legend}: {text}" if legend else text, fontsize=17,
                  ha="center", va="center", color=threshold_color(panel, value),
                  transform=axes.transAxes)


def draw_lines(axes, panel, series, source):
    defaults = panel["fieldConfig"]["defaults"]
    right = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
    second = axes.twinx() if right else None
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    bottom = {}
    for i, (legend, times, values) in enumerate(series):
        color = PALETTE[i % len(PALETTE)]
        values = np.where(np.isfinite(values), values, np.nan)
        if stacked:
            base = np.array([bottom.get(round(t), 0.0) for t in times])
            values = base + np.nan_to_num(values)
            axes.fill_between(times, base, values, color=color, alpha=0.35, linewidth=0)
            bottom.update({round(t): v for t, v in zip(times, values)})
        (second if legend in right else axes).plot(times, values, color=color, linewidth=1.1,
                                                   label=legend)
    axes.set_ylim(bottom=0)
    if defaults["custom"]["thresholdsStyle"]["mode"] == "dashed":
        for step in defaults["thresholds"]["steps"][1:]:
            if step["value"] <= 1.3 * axes.get_ylim()[1]:
                axes.axhline(step["value"], color=COLORS[step["color"]], linestyle="--",
                             linewidth=0.8)
    if second is not None:
        second.set_ylim(bottom=0)
        second.tick_params(colors=TEXT, labelsize=6.5, length=0)
        second.spines[:].set_visible(False)
    lines = axes.get_lines() + (second.get_lines() if second else [])
    # Lines along zero have no place for a name.
    labelled = [line for line in lines if not line.get_label().startswith("_")
                and np.nanmax(line.get_ydata(), initial=0) > 0]
    axes.legend(labelled, [line.get_label() for line in labelled], loc="upper center",
                bbox_to_anchor=(0.5, -0.11), ncol=6, fontsize=6, frameon=False,
                labelcolor=TEXT, handlelength=0.8, handletextpad=0.4, columnspacing=0.8)
    format_axes(axes, defaults["unit"], source)


def draw_heatmap(axes, panel, series, source):
    color = panel["options"]["color"]
    histogram = panel["targets"][0]["format"] == "heatmap"
    series = sorted(series, key=lambda each: float(each[0]))
    grid = sorted({t for _, times, _ in series for t in times})
    column = {t: i for i, t in enumerate(grid)}
    cells = np.full((len(series), len(grid)), np.nan)
    for row, (_, times, values) in enumerate(series):
        cells[row, [column[t] for t in times]] = values
    labels = [legend for legend, _, _ in series]
    if histogram:  # buckets are cumulative
        cells = np.diff(np.vstack([np.zeros(len(grid)), cells]), axis=0)
        cells[cells <= 1e-9] = np.nan
        used = np.where(np.isfinite(cells).any(axis=1))[0]
        if len(used):
            cells = cells[used[0]:used[-1] + 1]
            labels = labels[used[0]:used[-1] + 1]
        labels = [format_value(float(label), panel["options"]["yAxis"]["unit"])
                  if label != "+Inf" else "more" for label in labels]
    image = axes.imshow(cells, aspect="auto", origin="lower", interpolation="nearest",
                        cmap=color["scheme"].lower() if color["scheme"] == "Viridis"
                        else color["scheme"], vmin=color.get("min"), vmax=color.get("max"),
                        extent=(grid[0], grid[-1], -0.5, len(labels) - 0.5))
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.ax.tick_params(colors=TEXT, labelsize=6, length=0)
    bar.outline.set_visible(False)
    format_axes(axes, "short", source)
    every = max(1, len(labels) // 8)
    axes.set_yticks(range(0, len(labels), every), labels[::every])
    axes.grid(False)


def format_axes(axes, unit, source):
    axes.set_xlim(source.start, source.end)
    ticks = np.linspace(source.start, source.end, 5)
    axes.set_xticks(ticks, [time.strftime("%H:%M:%S", time.gmtime(t)) for t in ticks])
    axes.yaxis.set_major_formatter(lambda value, _: format_value(value, unit))
    axes.tick_params(colors=TEXT, labelsize=6.5, length=0)
    axes.grid(color=FAINT, linewidth=0.4)
    axes.spines[:].set_visible(False)


def render(dashboard, source, out):
    panels = [p for p in dashboard["panels"] if not p.get("collapsed")]
    units = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    height = UNIT_HEIGHT * units + 30
    figure = plt.figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
    figure.text(0.006, 1 - 8 / height, dashboard["title"], color=TEXT, fontsize=12, va="top")
    for panel in panels:
        at = panel["gridPos"]
        left, width = at["x"] / 24, at["w"] / 24
        top = 1 - (30 + UNIT_HEIGHT * at["y"]) / height
        if panel["type"] == "row":
            figure.text(0.006, top - 9 / height, panel["title"], color=TEXT, fontsize=10,
                        va="top", weight="bold")
            continue
        tall = UNIT_HEIGHT * at["h"] / height
        gap = 3 / WIDTH
        figure.add_artist(plt.Rectangle((left + gap, top - tall + 3 / height), width - 2 * gap,
                                        tall - 6 / height, color=PANEL, zorder=-1))
        figure.text(left + 10 / WIDTH, top - 9 / height, panel["title"], color=TEXT, fontsize=8,
                    va="top")
        below = (34 if panel["type"] == "timeseries" else 20) / height
        axes = figure.add_axes((left + 52 / WIDTH, top - tall + below,
                                width - (92 if panel["type"] == "timeseries" else 70) / WIDTH,
                                tall - below - 28 / height), facecolor=PANEL)
        series = source.query(panel)
        if not series:
            axes.axis("off")
            axes.text(0.5, 0.5, "no data", color=TEXT, ha="center", transform=axes.transAxes)
        elif panel["type"] == "stat":
            draw_stat(axes, panel, series)
        elif panel["type"] == "heatmap":
            draw_heatmap(axes, panel, series, source)
        else:
            draw_lines(axes, panel, series, source)
    figure.savefig(out, facecolor=PAGE)
    # A palette keeps the file small.
    Image.open(out).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        render(json.load(file), Source(sys.argv[2], float(sys.argv[3])), sys.argv[4])
