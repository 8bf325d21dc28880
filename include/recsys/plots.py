"""Plots of the reports, each as the address of an image in the page itself."""

import base64
import io
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure


def picture(title: str, draw: Callable[[Axes], None], *, left: float = 0.08) -> str:
    """What `draw` draws, with `left` of the width for labels. Its figure has its own canvas:
    pyplot's global state is not safe in long-lived workers."""
    figure = Figure(figsize=(8.4, 3.2))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left, 0.13, 0.96 - left, 0.76))
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def mark_days(axes: Axes) -> None:
    """Name the days along the horizontal axis, as many as there is room for."""
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
