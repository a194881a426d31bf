"""Draws an explanation: five pictures at most, for people who look at a run in MLflow.

Pure but for the files. matplotlib comes with MLflow 3; where it is missing, as beside a platform's
slim MLflow, there are no pictures. A picture that cannot be drawn is told in the log and left out:
nothing is decided by one. Colours are those of Okabe and Ito, told apart by the colour-blind.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, THEIRS, INK, FAINT = "#0072B2", "#E69F00", "#222222", "#8a8a8a"
WIDTH, DPI = 7.6, 100
"""Of a picture, in inches, and pixels an inch."""
TITLE = 0.62
"""Inches at the top that the title has for itself."""
MOST = 15
"""Features that are drawn."""
WRITTEN = 12
"""Classes up to which a confusion has numbers in its cells."""
Z = 1.96
"""Standard errors on either side of a 95% interval."""

log = structlog.get_logger(__name__)


def draw(view: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw what an explanation has into a folder, and name the pictures that came out."""
    try:
        import matplotlib.figure  # noqa: F401, PLC0415 (slow, and not everywhere)
    except ImportError:
        log.info("pictures_left_out", reason="matplotlib is not installed")
        return []
    drawn = []
    for name, (fits, picture) in PICTURES.items():
        try:
            if fits(view):
                (folder / f"{name}.png").write_bytes(_png(picture(view)))
                drawn.append(name)
        except Exception:  # whatever it is, the evidence is worth more
            log.warning("picture_failed", picture=name, exc_info=True)
    return drawn


def _contributions(view: Mapping[str, Any]) -> Figure:
    """Show what each model looks at, as shares of its contributions."""
    items = view["features"][:MOST][::-1]
    against = view["against"]
    figure, axes = _figure(1.5 + 0.42 * len(items))
    places, high = np.arange(len(items)), 0.38 if against else 0.62
    shift = high / 2 if against else 0.0
    ours = [item["share"] for item in items]
    axes.barh(places + shift, ours, high, color=OURS, label="challenger")
    if against:
        theirs = [item["champion"] for item in items]
        axes.barh(places - shift, theirs, high, color=THEIRS, label=f"champion {against}")
        _valued(axes, theirs, places - shift)
        axes.legend(frameon=False, loc="lower right")
    _valued(axes, ours, places + shift)
    axes.set_yticks(places, [_short(item["name"]) for item in items])
    left = len(view["features"]) - len(items)
    more = f"; {left} more have less" if left else ""
    return _titled(
        figure, axes, "What the model looks at",
        f"share of the mean absolute SHAP value, held-out rows{more}", percent="x",
    )  # fmt: skip


def _importance(view: Mapping[str, Any]) -> Figure:
    """Show how much each feature's splits gained while the model was trained."""
    ranked = sorted(view["features"], key=lambda item: -item["gain"])[:MOST][::-1]
    figure, axes = _figure(1.5 + 0.32 * len(ranked))
    gains = [item["gain"] for item in ranked]
    axes.barh(range(len(ranked)), gains, 0.62, color=OURS)
    _valued(axes, gains, range(len(ranked)))
    axes.set_yticks(range(len(ranked)), [_short(item["name"]) for item in ranked])
    return _titled(
        figure, axes, "What training gained from",
        "share of the total gain of all splits, training rows", percent="x",
    )  # fmt: skip


def _calibration(view: Mapping[str, Any]) -> Figure:
    """Hold predicted probabilities against what came true."""
    bins = view["calibration"]
    predicted = np.array([item["predicted"] for item in bins])
    observed = np.array([item["observed"] for item in bins])
    low, high = _wilson(observed, np.array([item["rows"] for item in bins]))
    figure, axes = _figure(4.8)
    end = min(1.0, 1.08 * float(max(predicted.max(), high.max())))
    axes.plot([0, end], [0, end], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="exact")
    axes.errorbar(
        predicted, observed, yerr=np.clip([observed - low, high - observed], 0, None), fmt="o-",
        color=OURS, linewidth=1.5, markersize=5, elinewidth=1.2, capsize=3, label="challenger",
        clip_on=False, zorder=3,
    )  # fmt: skip
    axes.set(xlim=(0, end), ylim=(0, end), xlabel="predicted probability")
    axes.legend(frameon=False, loc="upper left")
    return _titled(
        figure, axes, "How far to trust its probabilities",
        f"share that came true, in {len(bins)} bins of {view['rows']:,} held-out rows; "
        "bars: 95% intervals", percent="xy",
    )  # fmt: skip


def _confusion(view: Mapping[str, Any]) -> Figure:
    """Count guesses by what was true; shades are shares of the true class."""
    classes, counts = view["confusion"]["classes"], np.array(view["confusion"]["counts"])
    guesses = classes[: counts.shape[1]]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(min(7.0, 2.2 + 0.55 * len(classes)))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if len(classes) <= WRITTEN:
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            axes.text(
                column, row, f"{count:,}\n{share:.1%}", ha="center", va="center", fontsize=9,
                color="white" if share > 0.55 else INK,  # noqa: PLR2004 (where blue turns dark)
            )  # fmt: skip
    every = max(1, len(classes) // 30)
    axes.set_xticks(range(0, len(guesses), every), [_short(n, 14) for n in guesses[::every]])
    axes.set_yticks(range(0, len(classes), every), [_short(n, 20) for n in classes[::every]])
    axes.tick_params(axis="x", rotation=0 if len(guesses) <= 6 else 60)  # noqa: PLR2004 (fit)
    axes.set(xlabel="taken for", ylabel="is")
    return _titled(
        figure, axes, "What it takes for what",
        f"{view['rows']:,} held-out rows, taken for their likeliest class; shades: share of a row",
    )  # fmt: skip


def _slices(view: Mapping[str, Any]) -> Figure:
    """Show where challenger and champion differ most clearly, with intervals."""
    items = view["slices"][::-1]
    gains = np.array([item["champion"] - item["challenger"] for item in items])
    reach = Z * np.array([item["error"] for item in items])
    figure, axes = _figure(1.9 + 0.46 * len(items))
    axes.axvline(0, color=FAINT, linewidth=1)
    for place, (gain, error) in enumerate(zip(gains, reach, strict=True)):
        better = gain > 0
        axes.errorbar(
            gain, place, xerr=error, fmt="o" if better else "s", color=OURS if better else THEIRS,
            markersize=6, elinewidth=1.6, capsize=3,
        )  # fmt: skip
    named = [f"{_short(item['slice'], 60)}\n{item['rows']:,} rows" for item in items]
    axes.set_yticks(range(len(items)), [_wrapped(name) for name in named])
    low, high = min(0.0, float((gains - reach).min())), max(0.0, float((gains + reach).max()))
    room = 0.25 * (high - low)  # for the words on both sides of zero
    axes.set(xlim=(low - room, high + room), ylim=(-0.6, len(items) - 0.4))
    axes.set_xlabel("mean loss of the champion less the challenger's")
    axes.set_title("◀ champion better", loc="left", fontsize=8.5, color=INK)
    axes.set_title("challenger better ▶", loc="right", fontsize=8.5, color=INK)
    return _titled(
        figure, axes, f"Where it differs from champion {view['against']}",
        "the clearest slices of the held-out rows, so these 95% intervals flatter",
    )  # fmt: skip


Fits = Callable[[Mapping[str, Any]], Any]
PICTURES: Mapping[str, tuple[Fits, Callable[[Mapping[str, Any]], Any]]] = {
    "contributions": (lambda view: view["features"], _contributions),
    "importance": (lambda view: any(f["gain"] for f in view["features"]), _importance),
    "calibration": (lambda view: view.get("calibration"), _calibration),
    "confusion": (lambda view: view.get("confusion"), _confusion),
    "slices": (lambda view: view["slices"], _slices),
}
"""Each picture's name, whether an explanation has what it shows, and what draws it."""


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415 (see `draw`; no pyplot, so any thread may)
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    below_the_title = ConstrainedLayoutEngine(rect=(0.012, 0.01, 0.97, 0.99 - TITLE / height))
    figure = Figure((WIDTH, height), DPI, facecolor="white", layout=below_the_title)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


def _titled(figure: Figure, axes: Axes, title: str, told: str, percent: str = "") -> Figure:
    """Write what a picture shows above it, and percent signs on the axes of these names."""
    from matplotlib.ticker import FuncFormatter  # noqa: PLC0415 (see `draw`)

    inch = 1 / figure.get_figheight()
    figure.text(0.02, 1 - 0.3 * inch, title, fontsize=13, fontweight="bold", color=INK)
    figure.text(0.02, 1 - 0.53 * inch, told, fontsize=9, color="#555555")
    for axis in (getattr(axes, f"{name}axis") for name in percent):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
    return figure


def _png(figure: Figure) -> bytes:
    """Give the picture's bytes, the same ones every time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _valued(axes: Axes, shares: Sequence[float], places: Iterable[float]) -> None:
    """Write each bar's share at its end."""
    for share, place in zip(shares, places, strict=True):
        axes.annotate(
            f"{share:.1%}", (share, place), (4, 0), textcoords="offset points", va="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.margins(x=0.09)


def _wilson(shares: Any, rows: Any) -> tuple[Any, Any]:  # noqa: ANN401 (arrays of shape (bins,))
    """Give the 95% interval of a share (Wilson 1927), which holds near 0 and 1, too."""
    scale = 1 + Z**2 / rows
    middle = (shares + Z**2 / (2 * rows)) / scale
    half = Z / scale * np.sqrt(shares * (1 - shares) / rows + Z**2 / (4 * rows**2))
    return middle - half, middle + half


def _short(name: str, most: int = 30) -> str:
    """Shorten a name in its middle: columns often differ in their ends."""
    text = name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"
    return _plain(text)


def _wrapped(text: str) -> str:
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, 34))


def _plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs as formulas."""
    return text.replace("$", r"\$")
