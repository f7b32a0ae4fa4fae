"""How every chart looks: colours, fonts, axes, and a matplotlib figure as SVG or PNG.

Colours are Okabe and Ito's palette ("Color Universal Design", 2008), which people with any of the
common colour-vision deficiencies can tell apart. Each is written into the SVG as a CSS variable, so that
the page can exchange it for a lighter one on a dark background; a PNG has the light colours.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Slow to import, and what a chart yields is asked for without drawing one.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2328"
MUTED = "#667079"
GRID = "#dfe3e7"
PAPER = "#fffffe"
"""Behind a label, so that lines do not run through it."""
BLUE = "#0072b2"
SKY = "#56b4e9"
GREEN = "#009e73"
ORANGE = "#e69f00"
RED = "#d55e00"
PURPLE = "#cc79a7"
GREY = "#9aa4ad"

FIXED_INK = "#14181c"
"""Text on a coloured bar: dark on any background of the page."""

VARIABLES: dict[str, tuple[str, str]] = {
    # colour: (CSS variable, its value on a dark background)
    INK: ("ink", "#e6e9ec"),
    MUTED: ("muted", "#9ca7b1"),
    GRID: ("grid", "#333b43"),
    PAPER: ("paper", "#181c20"),
    BLUE: ("blue", "#58a9e0"),
    SKY: ("sky", "#8accf2"),
    GREEN: ("green", "#3fc79b"),
    ORANGE: ("orange", "#f0b73d"),
    RED: ("red", "#f5833a"),
    PURPLE: ("purple", "#e0a2c4"),
    GREY: ("grey", "#7b8791"),
}

CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (1, 1)),
    (0, (3, 1, 1, 1)),
)
"""Beside the colour, so that a print in grey can still be read."""

WIDTH = 10.2
"""Inches of a full-width chart."""
NARROW = 4.5
"""Inches of a chart for a phone."""

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    # Names come from the record: a dollar sign in one is a dollar sign.
    "text.parse_math": False,
    "path.simplify_threshold": 0.4,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw with the lab's style, whatever matplotlib is set to elsewhere in the process."""
    with _rc(_RC):
        yield


def _rc(settings: Any) -> AbstractContextManager[None]:
    """matplotlib's settings meanwhile. Any: its own type would list every key there is."""
    import matplotlib as mpl

    return mpl.rc_context(settings)


def panels(heights: tuple[float, ...], *, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure of panels one above the other on one x axis.

    Args:
        heights: height of each panel in inches.
        width: of the figure, inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.05, hspace=0.02)
    figure = Figure(figsize=(width, sum(heights) + 0.33 * len(heights) + 0.45), layout=engine)
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))
    return figure, [axis for row in axes for axis in row]


def key(axis: Axes, columns: int = 6, *, at: float = 0.0) -> None:
    """The legend of a panel, in one line above it; ``at`` as a share of the panel's width."""
    axis.legend(
        loc="lower left",
        ncols=columns,
        bbox_to_anchor=(at, 1.0),
        borderaxespad=0.1,
        handlelength=1.7,
        handletextpad=0.5,
        columnspacing=1.3,
    )


def halo() -> dict[str, object]:
    """For ``bbox=``: keeps lines from running through a label."""
    return {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0, "alpha": 0.85}


def log_time(axis: Axes) -> None:
    """A logarithmic y axis of milliseconds with ticks at 1, 2 and 5 (or decades only over a wide range)."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high / low < 10:
        middle = math.sqrt(low * high)
        low, high = middle / 3.3, middle * 3.3
        axis.set_ylim(low, high)
    axis.yaxis.set_major_locator(
        LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,), numticks=12)
    )
    axis.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: duration(ms)))
    axis.minorticks_off()


def duration(ms: float) -> str:
    """A time as a tick shows it: 500 µs, 20 ms, 2 s."""
    if ms >= 1000:
        return f"{ms / 1000:g} s"
    return f"{ms:g} ms" if ms >= 1 else f"{ms * 1000:g} µs"


def svg(figure: Figure, salt: str) -> str:
    """The figure as an ``<svg>`` element for a page: text as text, colours as CSS variables.

    Args:
        salt: makes the ids inside unique among all drawings of a page.
    """
    out = io.StringIO()
    with _rc({**_RC, "svg.hashsalt": salt}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, dpi=160)
    figure.set_layout_engine("none")  # the layout stands; computing it again for a PNG takes as long again
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    # Ids that matplotlib counts itself (axes_1, text_3) are the same in every drawing of the page.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    # Coordinates only, inside tags: what stands between tags is a label, and stays as it is.
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), text)
    for colour, (name, _) in VARIABLES.items():
        text = re.sub(colour, f"var(--{name})", text, flags=re.IGNORECASE)
    return text.strip()


def png(figure: Figure) -> bytes:
    """The figure as a PNG on white at twice the size of a screen's pixel."""
    out = io.BytesIO()
    with _rc(_RC):
        figure.savefig(out, format="png", dpi=192, facecolor="white", metadata={"Software": None})
    return out.getvalue()
