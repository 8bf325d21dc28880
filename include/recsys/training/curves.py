"""The picture of a training: what was measured in each iteration, and the search."""

import io
from collections.abc import Mapping, Sequence

Series = Sequence[float]


def learning_curves(title: str, curves: Mapping[str, Series], search: Series) -> bytes:
    """A PNG with one panel for each of `curves`, and one for the best score of the search."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {**curves, **({"validation objective, best so far": search} if search else {})}
    figure = Figure(figsize=(5 * max(len(panels), 1), 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for number, (name, values) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.plot(range(1, len(values) + 1), values, marker="." if len(values) < 50 else "")
        axes.set_title(name)
        axes.set_xlabel("trial" if values is search else "iteration")
        axes.grid(alpha=0.3)
    if not panels:
        figure.text(0.5, 0.5, "this family has no iterations", ha="center")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90, metadata={"Software": None})
    return picture.getvalue()
