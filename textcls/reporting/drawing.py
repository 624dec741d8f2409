"""How the parts of the picture look alike: colours, titles and axes.

In: axes of matplotlib. Out: the same axes, styled. Not here: what is drawn (picture.py, label_matrix.py).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, QUIET, FAINT = "#222222", "#767676", "#dddddd"
BLUE, ORANGE = "#0072B2", "#D55E00"
"""Of Okabe and Ito (2008): told apart by colour-blind readers and in print."""


def title(axes: "Axes", text: str) -> None:
    """Writes a title above the left end."""
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)


def quiet(axes: "Axes") -> None:
    """Leaves only the lines that carry a scale."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.grid(color="#f0f0f0", linewidth=0.8)
    axes.set_axisbelow(True)
