"""The matrix of the picture: which labels are predicted for which, or which labels come together.

In: a `Confusion` or a `CoOccurrence`, and axes of matplotlib. Out: the matrix, drawn. Of up to 20 labels each cell has
its names and figures; of more, it has a colour alone. Not here: the other parts of the picture (picture.py).
"""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from textcls.reporting.drawing import FAINT, INK, title
from textcls.reporting.label_names import DrawnNames
from textcls.reporting.task_scores import Confusion, CoOccurrence
from textcls.reporting.terminal import MOST_CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Said where it occurs. Such a cell has the darkest blue, and its figure: the labels are predicted together in more rows
# than have the rarer one.
_MORE_THAN_ALL = "; over 100 %: too often"

# A matrix is drawn with at most 600 x 600 cells: about one a pixel.
_MOST_CELLS = 600


def draw_confusion(axes: "Axes", confusion: Confusion, names: DrawnNames) -> None:
    """The rows of each true label by predicted label."""
    matrix, support = confusion.matrix(_MOST_CELLS)
    share = matrix / np.maximum(support[:, None], 1)
    classes = len(confusion.labels)
    _draw_cells(axes, share, classes)
    if classes > MOST_CLASSES:
        title(axes, f"Confusion of {classes} labels, as share of the true label")
        axes.set(xlabel="predicted label id", ylabel="true label id")
        return
    title(axes, "Confusion, in % of the true label")
    axes.set(xlabel="predicted label", ylabel="true label")
    _name_labels(axes, names)
    for true, predicted in itertools.product(range(classes), repeat=2):
        value = share[true, predicted]
        _write(axes, (true, predicted), value, f"{value:.1%}\n{int(matrix[true, predicted]):,}", classes)


def draw_co_occurrence(axes: "Axes", together: CoOccurrence, names: DrawnNames) -> None:
    """Rows of pairs of labels: below the diagonal as they are, above it as they are predicted."""
    share = together.matrix(_MOST_CELLS)
    classes = len(together.labels)
    _draw_cells(axes, share, classes)
    many = classes > MOST_CLASSES
    title(axes, f"Labels that occur together, {'as share' if many else 'in %'} of the rarer one's rows")
    axes.set_ylabel("below the diagonal: true")
    side: dict[str, Any] = {"rotation": 270, "va": "center", "transform": axes.transAxes}
    axes.text(1.025, 0.5, "above the diagonal: predicted" + _MORE_THAN_ALL * bool((share > 1).any()), **side)
    if many:
        left_out = f"; {together.other_pairs:,} rarer pairs are not shown" if together.other_pairs else ""
        axes.set_xlabel(f"label id{left_out}")
        return
    _name_labels(axes, names)
    for row, column in itertools.product(range(classes), repeat=2):
        value = share[row, column]
        if np.isfinite(value):
            _write(axes, (row, column), value, f"{value:.1%}", classes)


def _draw_cells(axes: "Axes", share: np.ndarray, classes: int) -> None:
    """Draws shares [n, n] of this many labels in blue; NaN stays empty."""
    from matplotlib.colors import PowerNorm

    # Among many labels each share is small: the square root makes 1 % visible.
    power = 0.5 if classes > MOST_CLASSES else 1.0
    ids = (-0.5, classes - 0.5, classes - 0.5, -0.5)
    axes.imshow(share, cmap="Blues", norm=PowerNorm(power, vmin=0, vmax=1), extent=ids)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    for side in axes.spines.values():
        side.set_color(FAINT)


def _name_labels(axes: "Axes", names: DrawnNames) -> None:
    """Writes the names of labels beside rows and columns."""
    classes = len(names.names)
    steep = classes > 4 or max(map(len, names.names)) > 14
    slope: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if steep else {}
    style: dict[str, Any] = {"parse_math": False, "fontfamily": names.families}
    axes.set_xticks(range(classes), names.names, **style, **slope)
    axes.set_yticks(range(classes), names.names, **style)


def _write(axes: "Axes", cell: tuple[int, int], value: float, long: str, classes: int) -> None:
    """Writes a share into a cell (row, column): in long where there is room, else as whole percent, or not at all."""
    size = 13 if classes <= 3 else 10 if classes <= 12 else 6.5
    text = long if classes <= 8 else f"{100 * value:.0f}" if value >= 0.005 else ""
    row, column = cell
    axes.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if value > 0.6 else INK)
