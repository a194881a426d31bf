"""Draws what commands report for a person at a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from daemon.views import outcome

STYLES = {
    "promoted": "green", "kept": "cyan", "parked": "red", "split": "yellow",
    "trained": "green", "coalesced": "green", "quarantined": "red", "lost": "red",
    "unaccounted": "red", "waiting": "yellow",
}  # fmt: skip
UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


def status_text(view: dict[str, Any]) -> RenderableType:
    """Draw the state of every pipeline."""
    daemon = view["daemon"]
    first = (
        f"The daemon runs: process {daemon['pid']} on {daemon['host']}, {daemon['url'] or 'once'}"
        if daemon["running"]
        else "The daemon is not running; `retraind run` starts it."
    )
    return Group(Text(first), *(_pipeline(item) for item in view["pipelines"]))


def _pipeline(item: dict[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black")
    grid.add_column(overflow="fold")
    for label, value in _lines(item):
        grid.add_row(label, _plain(value))
    return Group(Text(f"\n{item['name']}", style="bold"), grid)


def _lines(item: dict[str, Any]) -> list[tuple[str, str]]:
    champion, work = item["champion"], item["open"]
    serves = "nothing yet"
    if champion:
        serves = f"version {champion['version']}, {champion['how']} {_when(champion['since'])}"
        serves += f": {champion['reason']}"
    lines = [("table", f"{item['table']}, branch {item['branch']}"), ("serves", serves)]
    if champion and item["deployed"] != champion["version"]:
        lines.append(("deployed", f"version {item['deployed']}" if item["deployed"] else "nothing"))
    lines += [
        ("cursor", str(item["cursor"] or "none")),
        ("head", str(item["head"] or "none")),
        ("does", item["doing"]),
        ("endpoint", item["endpoint"]),
    ]
    if item["paused"] is not None:
        hint = "; `retraind resume` lets it pass" if item["halted"] else ""
        lines.append(("paused", item["paused"] + hint))
    if work and work["trouble"]:
        lines.append(("trouble", f"{work['trouble']} (attempt {work['attempts']})"))
    if champion:
        lines += _lived(champion["live"])
        lines += [("doubt", doubt) for doubt in champion["doubts"]]
    if item["pins"]:
        lines.append(("pins", item["pins"]))
    lines += [
        ("parked", f"delta {p['delta']}, {p['rows']:,} rows: {p['reason']}") for p in item["parked"]
    ]
    return lines


def _lived(live: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Tell how the champion did on the last delta, and whether it fails."""
    if live is None or live["loss"]["mean"] is None:
        return []
    told = f"{live['measure']} {live['loss']['mean']:.4f}"
    if live["loss"]["error"] is not None:
        told += f" (standard error {live['loss']['error']:.4f})"
    told += f" on the {live['rows']:,} rows of delta {live['delta']}"
    if live["promised"] is not None:
        told += f"; it promised {live['promised']:.4f}"
    return [("live", told), *([("fails", live["told"])] if live["told"] else [])]


def history_text(decisions: list[dict[str, Any]]) -> RenderableType:
    """Draw a table of decisions."""
    if not decisions:
        return Text("No decision yet.")
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("when (UTC)", "pipeline", "delta", "rows", "verdict", "version", "why"):
        table.add_column(name, justify="right" if name in ("delta", "rows") else "left")
    for item in decisions:
        table.add_row(
            _when(item["closed_at"]), item["pipeline"], str(item["delta"]), f"{item['rows']:,}",
            Text(outcome(item), style=STYLES.get(item["state"], "")), item["version"] or "",
            _plain("; ".join(filter(None, [item["reason"], item["forced"]]))),
        )  # fmt: skip
    return table


def account_text(view: dict[str, Any]) -> RenderableType:
    """Draw what became of every snapshot, the totals, and whether they add up."""
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("committed (UTC)", "snapshot", "operation", "rows", "state", "delta", "why"):
        table.add_column(name, justify="right" if name in ("rows", "delta") else "left")
    for item in [*view["snapshots"], *view["elsewhere"]]:
        table.add_row(
            _when(item["committed_at"]), str(item["id"]), _plain(item["operation"]),
            f"{item['rows']:,}",
            Text(item["state"], style=STYLES.get(item["state"], "")), str(item["delta"] or ""),
            _plain(item["reason"]),
        )  # fmt: skip
    told = ", ".join(
        f"{of['snapshots']} {state} ({of['rows']:,} rows)" for state, of in view["totals"].items()
    )
    sum_ = f"{len(view['snapshots'])} snapshot(s) in the branch's history: {told or 'none'}."
    end = "They add up." if view["adds_up"] else "They do not add up: some are unaccounted for."
    return Group(Text(f"{view['pipeline']}", style="bold"), table, Text(f"\n{sum_} {end}"))


def reproduction_text(view: dict[str, Any]) -> RenderableType:
    """Draw what was on record beside what came out, and what that means."""
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("", "what", "then", "now"):
        table.add_column(name)
    for item in view["checks"]:
        mark = Text("ok", style="green") if item["same"] else Text("!!", style="bold red")
        then = "not on record" if item["then"] is None else item["then"]
        table.add_row(mark, item["what"], then, item["now"])
    for item in view["changed"]:
        table.add_row("", item["what"], item["then"], item["now"])
    name = f"{view['pipeline']}-{view['delta']}, version {view['version']}"
    return Group(Text(name, style="bold"), table, Text(f"\n{view['told']}"))


def simulation_text(view: dict[str, Any]) -> RenderableType:
    """Draw each decision beside the simulated one, the totals, and what they mean."""
    metric = view["totals"]["metric"]
    head = [Text(view["pipeline"], style="bold")]
    head += [
        _plain(f"{path}: {of['simulated']} instead of {of['live']}")
        for path, of in view["policy"].items()
    ]
    side = ("serves then", metric)
    table = _grid("delta", "rows", "up to snapshot", "live", *side, "simulated", *side)
    for item in view["deltas"]:
        table.add_row(
            str(item["delta"]), f"{item['rows']:,}", str(item["snapshot_to"]),
            *_decided(item["live"], metric), *_decided(item["simulated"], metric),
            style="" if item["same"] else "bold",
        )  # fmt: skip
    foot = [_total(name, view["totals"][name]) for name in ("live", "simulated")]
    foot += [_plain(told) for told in (*view["turns"], view["told"])]
    return Group(*head, table, Text(), *foot)


def _total(name: str, of: dict[str, Any]) -> Text:
    counts = [f"{of[what]} {what}" for what in ("trained", "promoted")]
    scores = [f"{what} {of[what]:.4f}" for what in of if isinstance(of[what], float)]
    return Text(f"{name}: {', '.join([*counts, *scores])}")


def _decided(side: dict[str, Any], metric: str) -> tuple[Text, str, str]:
    told = side["state"] or "left out"
    if side["pieces"]:
        told += f" ({', '.join(piece['state'] for piece in side['pieces'])})"
    score = side["scored"]["scores"].get(metric) if side["scored"] else None
    return (
        Text(told, style=STYLES.get(side["state"] or "", "")),
        side["serving"] or "nothing",
        "" if score is None else f"{score:.4f}",
    )


def explanation_text(view: dict[str, Any]) -> RenderableType:
    """Draw the verdict, the features, the slices, the calibration and the confusion."""
    decision, found = view["decision"], view["explanation"]
    name = f"{decision['pipeline']}-{decision['delta']}, version {decision['version']}"
    head = [Text(name, style="bold"), _plain(decision["reason"])]
    if found is None:
        return Group(*head, Text("\nNothing was kept to explain it."))
    whose = f"champion {found['against']}" if found["against"] else "champion"
    features = _grid("feature", "share of contributions", "of gain", whose)
    for item in found["features"]:
        theirs = "" if item["champion"] is None else f"{item['champion']:.1%}"
        features.add_row(
            _plain(item["name"]), f"{item['share']:.1%}", f"{item['gain']:.1%}", theirs
        )
    slices = _grid("where they differ most", "rows", "its loss", whose, "standard error")
    for item in found["slices"]:
        slices.add_row(
            _plain(item["slice"]), f"{item['rows']:,}", f"{item['challenger']:.4f}",
            f"{item['champion']:.4f}", f"{item['error']:.4f}",
        )  # fmt: skip
    bins = _grid("predicted", "came true", "rows")
    for item in found.get("calibration", []):
        bins.add_row(f"{item['predicted']:.1%}", f"{item['observed']:.1%}", f"{item['rows']:,}")
    drawn = [features, slices, bins, _confusion(found.get("confusion"))]
    told = [part for grid in drawn if grid.row_count for part in (Text(), grid)]
    if view["pictures"]:
        told.append(_plain("\n".join(["\nDrawn for people:", *view["pictures"]])))
    return Group(*head, *told)


def _confusion(found: dict[str, Any] | None) -> Table:
    if found is None:
        return Table()
    guesses = range(len(found["counts"][0]))
    grid = _grid("is", *(f"taken for {found['classes'][guess]}" for guess in guesses))
    for name, counts in zip(found["classes"], found["counts"], strict=True):
        grid.add_row(_plain(name), *(f"{count:,}" for count in counts))
    return grid


def _grid(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column(_plain(first))
    for name in others:
        table.add_column(_plain(name), justify="right")
    return table


def _plain(text: str) -> Text:
    """Draw a text as it is; escape sequences in it must not command the terminal.

    A tab becomes a blank: a table reserves no room for it, and would cut off what follows.
    """
    shown = (c if c.isprintable() or c == "\n" else UNPRINTABLE for c in text.replace("\t", " "))
    return Text("".join(shown))


def _when(iso: str) -> str:
    return iso[:19].replace("T", " ")
