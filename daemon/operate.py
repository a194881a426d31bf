"""What an operator does: each is written to the ledger with who and why, and the next tick acts.

`who` is told by what let the person in; without it, it is whoever runs this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from config import workload
from daemon import owner
from daemon.ledger import Ledger
from handlers.facts import GiveUp, Record

if TYPE_CHECKING:
    from handlers.endpoint import Endpoint


def rollback(book: Ledger, pipeline: str, to: str | None, reason: str, who: str = "") -> str:
    """Make an earlier champion the champion again."""
    current = book.champion(pipeline)
    version = current.model.version if current else "none"
    if current is None and to is None:
        raise GiveUp(f"{pipeline} has no champion now.", "`--to` names an earlier one, if any.")
    if current and to == version:
        raise GiveUp(f"Version {to} is the champion already.", "Nothing was changed.")
    model = book.promoted(pipeline, to) if to else book.former(pipeline)
    if model is None:
        what = f"Version {to} of {pipeline} was never champion." if to else (
            f"Version {version} is the first champion of {pipeline}."
        )  # fmt: skip
        raise GiveUp(what, "`retraind history` lists the promoted versions.")
    book.rollback(pipeline, who or workload.person(), model, reason)
    return f"{pipeline}: version {model.version} is champion instead of {version}."


def promote(book: Ledger, pipeline: str, version: str, reason: str, who: str = "") -> str:
    """Make a model champion although it has not won."""
    current = book.champion(pipeline)
    former = current.model.version if current else "none"
    if version == former:
        raise GiveUp(f"Version {version} is the champion already.", "Nothing was changed.")
    record = book.made(pipeline, version)
    if record is None or record.model is None:
        raise GiveUp(
            f"No decision of {pipeline} made a version {version}.",
            "`retraind history` lists the versions that there are.",
        )
    if (why := book.refusal(pipeline, version)) is not None:
        raise GiveUp(
            f"Version {version} was refused when it was deployed: {why.rstrip('.')}.",
            f"`retraind rollback --to {version}` tries it again, once that is mended.",
        )
    found = book.doubts(record)
    if found.undone_snapshots:
        raise GiveUp(
            f"Up to {found.undone_rows:,} rows that version {version} learnt from, in "
            f"{found.undone_snapshots} snapshot(s), were rolled back.",
            "Choose a version that has not learnt from them.",
        )
    book.promote(pipeline, who or workload.person(), record.model, reason)
    return f"{pipeline}: version {version} is champion instead of {former}, forced."


def pause(book: Ledger, pipeline: str, reason: str, who: str = "") -> str:
    """Stop acting on new snapshots."""
    book.pause(pipeline, who or workload.person(), reason)
    return f"{pipeline} is paused; snapshots are kept for `retraind resume`."


def resume(book: Ledger, pipeline: str, who: str = "") -> str:
    """Act on new snapshots again."""
    book.resume(pipeline, who or workload.person())
    return f"{pipeline} goes on at the next tick."


def retry(
    book: Ledger, pipeline: str, delta: int | None, *, release: bool = False, who: str = ""
) -> str:
    """Take up parked deltas again; released ones whatever the data contract says of them."""
    parked = _parked(book, pipeline, delta)
    book.retry(pipeline, who or workload.person(), parked, "release" if release else "")
    taken = f"{len(parked)} parked delta(s) are taken up again" if parked else "nothing is parked"
    return f"{pipeline}: {taken}; what waits for an attempt is tried at the next tick."


def drop(book: Ledger, pipeline: str, delta: int, reason: str, who: str = "") -> str:
    """Close a parked delta for good: its rows are never trained on."""
    parked = _parked(book, pipeline, delta)
    book.retry(pipeline, who or workload.person(), parked, "drop", reason)
    return f"{pipeline}: delta {delta} is dropped at the next tick; its rows stay in the table."


def _parked(book: Ledger, pipeline: str, delta: int | None) -> list[Record]:
    parked = book.parked(pipeline)
    if delta is not None and delta not in {record.sequence for record in parked}:
        listed = ", ".join(str(record.sequence) for record in parked) or "none"
        raise GiveUp(f"Delta {delta} of {pipeline} is not parked.", f"Parked are: {listed}.")
    return [record for record in parked if delta in (None, record.sequence)]


def stop_endpoint(book: Ledger, pipeline: str, endpoint: Endpoint) -> str:
    """Stop what serves a pipeline, while no daemon keeps it up."""
    if running := owner.living(book):
        raise GiveUp(
            f"The daemon (process {running.pid} on {running.host}) keeps the endpoint up.",
            "Stop the daemon first.",
        )
    version = endpoint.serving()
    endpoint.stop()
    told = f"no longer serves version {version}" if version else "served nothing"
    return f"{pipeline}: {endpoint.where} {told}."
