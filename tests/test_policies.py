"""What the policies of a pipeline do, with every door real."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from conftest import Lab, told

from daemon.accounting import accounting
from daemon.ledger import Ledger
from daemon.reconcile import Reconciler
from daemon.store import now
from daemon.views import doubts
from handlers.cards import Recipe, cards
from handlers.facts import Fate, Record, State

pytestmark = pytest.mark.real
EXPIRE = (
    "CALL lake.system.expire_snapshots(table => '{t}', "
    "older_than => TIMESTAMP '2100-01-01', retain_last => 1)"
)


def start(lab: Lab, rows: int = 1200, **delta: Any) -> tuple[Ledger, Reconciler]:
    """Fill a table, and let the first delta make the first champion."""
    lab.append(0, rows)
    book = lab.ledger()
    reconciler = lab.reconciler(book, delta={"min_rows": 1, **delta})
    reconciler.tick()
    assert last(book, lab).state is State.PROMOTED
    return book, reconciler


def merge(lab: Lab, batch: int, rows: int) -> None:
    """Bring new rows, and write one old row again as it was: a merge that rewrites files."""
    known = cards(Recipe(1200, 0, 0)).slice(0, 1)
    lab.commit(pa.concat_tables([known, cards(Recipe(rows, 0, batch))]), "merge")


def last(book: Ledger, lab: Lab) -> Record:
    """Give the newest decision."""
    return book.history(lab.pipeline, 1)[0]


def account(book: Ledger, lab: Lab) -> dict[str, Any]:
    """Hold the table's log against the ledger."""
    table = lab.table()
    fates = book.fates(lab.pipeline)
    return accounting(book.standing(lab.pipeline), table.log(), table.elsewhere(), fates)


def settle(reconciler: Reconciler, ticks: int = 6) -> None:
    """Tick until there is nothing left to do."""
    for _ in range(ticks):
        reconciler.tick()


def test_merged_rows_that_are_new_are_trained_on(lab: Lab) -> None:
    """`added`: a merge that brings 300 rows and rewrites 1,200 is a delta of what it changed."""
    book, reconciler = start(lab)
    merge(lab, 1, 300)
    reconciler.tick()
    record = last(book, lab)
    assert record.delta.way == "changed"
    assert (record.delta.rows, record.delta.removed) == (300, 0)
    assert record.learnt is not None
    assert record.learnt.train_rows + record.learnt.held_out_rows == 300
    (snapshot,) = record.snapshots
    assert snapshot.state is Fate.REWRITTEN
    assert "300 rows of the delta that really are new" in snapshot.reason
    assert account(book, lab)["adds_up"]


def test_a_rewrite_can_mean_the_whole_table(lab: Lab) -> None:
    """`full`: after a merge the challenger learns from the table as it is then."""
    book, reconciler = start(lab, rewrites="full")
    merge(lab, 1, 300)
    reconciler.tick()
    record = last(book, lab)
    assert record.delta.way == "whole"
    assert record.learnt is not None
    assert record.learnt.train_rows + record.learnt.held_out_rows == 1500


def test_a_rewrite_can_stop_the_pipeline(lab: Lab) -> None:
    """`halt`: what was appended before is trained on, then a person decides; resume goes on."""
    book, reconciler = start(lab, rewrites="halt")
    lab.append(1, 400)
    merge(lab, 2, 300)
    settle(reconciler, 3)
    assert told(book, lab.pipeline)[1:] == [(last(book, lab).state.value, 400)]
    standing = book.standing(lab.pipeline)
    assert standing.paused is not None
    assert standing.paused.startswith("halted: snapshot")
    assert standing.halted_id == standing.head_id
    assert [entry["action"] for entry in book.audit()] == ["halt"]
    assert account(book, lab)["totals"]["waiting"] == {"snapshots": 1, "rows": 1500}
    book.resume(lab.pipeline, "me")
    settle(reconciler, 2)
    assert (last(book, lab).delta.way, last(book, lab).delta.rows) == ("changed", 300)
    merge(lab, 3, 200)
    reconciler.tick()
    assert book.standing(lab.pipeline).paused is not None


def test_deleted_rows_cast_doubt_on_the_champion(lab: Lab) -> None:
    """`forget: record`: a delete trains nothing, is recorded with its count, and is shown."""
    book, reconciler = start(lab)
    before = lab.sql("SELECT count(*) AS n FROM {t}")[0].n
    lab.sql("DELETE FROM {t} WHERE age < 30")
    removed = before - lab.sql("SELECT count(*) AS n FROM {t}")[0].n
    reconciler.tick()
    record = last(book, lab)
    assert (record.state, record.delta.removed) == (State.SKIPPED, removed)
    assert f"{removed} rows were taken away" in record.reason
    assert doubts(book, lab.pipeline, "1") == [
        f"{removed:,} rows were deleted since; it may have learnt from some of them"
    ]


@pytest.mark.parametrize("mode", ["copy-on-write", "merge-on-read"])
def test_deleted_rows_can_be_forgotten(lab: Lab, mode: str) -> None:
    """`forget: full`: a delete retrains on the table without the deleted rows."""
    book, reconciler = start(lab, forget="full")
    lab.sql(f"ALTER TABLE {{t}} SET TBLPROPERTIES ('write.delete.mode' = '{mode}')")
    lab.sql("DELETE FROM {t} WHERE age < 30")
    left = lab.sql("SELECT count(*) AS n FROM {t}")[0].n
    reconciler.tick()
    record = last(book, lab)
    assert record.delta.whole
    assert record.learnt is not None
    assert record.learnt.train_rows + record.learnt.held_out_rows == left
    assert record.model is not None
    assert doubts(book, lab.pipeline, record.model.version) == []


def test_models_trained_on_rolled_back_rows_are_marked(lab: Lab) -> None:
    """A rollback marks what learnt from the rows it took back; rolling forward unmarks it."""
    book, reconciler = start(lab)
    base = lab.table().head()
    lab.append(2, 3000)
    reconciler.tick()
    assert last(book, lab).state is State.PROMOTED
    ahead = lab.table().head()
    assert base is not None
    assert ahead is not None
    lab.sql(f"CALL lake.system.rollback_to_snapshot('{{t}}', {base.snapshot_id})")
    reconciler.tick()
    assert "rolled back" in last(book, lab).reason
    assert doubts(book, lab.pipeline, "2") == [
        "up to 3,000 rows it learnt from, in 1 snapshot(s), were rolled back"
    ]
    assert doubts(book, lab.pipeline, "1") == []
    (gone,) = account(book, lab)["elsewhere"]
    assert gone["id"] == ahead.snapshot_id
    assert "was trained in delta 2; history rewritten" in gone["reason"]
    lab.sql(f"CALL lake.system.set_current_snapshot('{{t}}', {ahead.snapshot_id})")
    reconciler.tick()
    assert last(book, lab).state is State.SKIPPED
    assert doubts(book, lab.pipeline, "2") == []
    assert account(book, lab)["adds_up"]


def test_a_cherry_pick_of_rows_that_are_known_is_not_trained_on_again(lab: Lab) -> None:
    """A picked snapshot has a new id, but its source was dealt with."""
    book, reconciler = start(lab)
    base = lab.table().head()
    lab.append(1, 400)
    reconciler.tick()
    picked = lab.table().head()
    assert base is not None
    assert picked is not None
    lab.sql(f"CALL lake.system.rollback_to_snapshot('{{t}}', {base.snapshot_id})")
    lab.append(2, 300)
    settle(reconciler, 2)
    assert last(book, lab).delta.rows == 300
    lab.sql(f"CALL lake.system.cherrypick_snapshot('{{t}}', {picked.snapshot_id})")
    reconciler.tick()
    assert last(book, lab).state is State.SKIPPED
    assert "dealt with before" in last(book, lab).reason
    assert account(book, lab)["adds_up"]


@pytest.mark.parametrize("history", ["full", "halt"])
def test_a_replaced_content_is_dealt_with_by_policy(lab: Lab, history: str) -> None:
    """`createOrReplace` starts a new lineage: the whole table again, or a person decides."""
    book, reconciler = start(lab, history=history)
    lab.sql("CREATE OR REPLACE TABLE {t} USING iceberg AS SELECT * FROM {t} WHERE age > 30")
    left = lab.sql("SELECT count(*) AS n FROM {t}")[0].n
    reconciler.tick()
    if history == "halt":
        assert "no ancestor in common" in str(book.standing(lab.pipeline).paused)
        assert len(book.history(lab.pipeline)) == 1
        book.resume(lab.pipeline, "me")
        reconciler.tick()
    record = last(book, lab)
    assert (record.delta.whole, record.delta.rows) == (True, left)
    assert "history rewritten" in record.reason
    assert "1,200 rows it learnt from" in doubts(book, lab.pipeline, "1")[0]


def test_an_open_delta_whose_snapshots_expire_is_not_lost(lab: Lab) -> None:
    """What was expired before it was read is looked at anew, and the whole table is trained on."""
    book, reconciler = start(lab)
    lab.append(1, 300)
    delta = lab.table().since(book.standing(lab.pipeline).cursor)
    assert delta is not None
    book.open(lab.pipeline, delta)
    lab.append(2, 300)
    lab.append(3, 300)
    lab.sql(EXPIRE)
    settle(reconciler, 3)
    states = [state for state, _ in told(book, lab.pipeline)]
    assert states[:2] == ["promoted", "abandoned"]
    assert last(book, lab).delta.rows == 2100
    assert "history lost" in last(book, lab).reason
    assert account(book, lab)["adds_up"]


def test_pins_keep_the_champion_and_the_one_before_it(lab: Lab) -> None:
    """Tags outlast an expiry: both models' deltas can be read again; other tags are released."""
    book, reconciler = start(lab, pin=True)
    for batch in (2, 4, 8, 10):
        lab.append(batch, 3000)
        reconciler.tick()
    versions = [
        r.model.version for r in book.history(lab.pipeline) if r.state is State.PROMOTED if r.model
    ]
    assert len(versions) > 2, "the drift of the generated batches promotes"
    tags = lab.table().pins(r"retraind-.*")
    kept = {name.removeprefix(f"retraind-{lab.pipeline}-").partition(".")[0] for name in tags}
    assert kept == set(versions[:2])
    lab.sql(EXPIRE)
    for version in versions[:2]:
        record = book.made(lab.pipeline, version)
        assert record is not None
        assert lab.table().read(record.delta, ["age"]).num_rows == record.delta.rows
    assert f"versions {versions[0]}" in book.standing(lab.pipeline).pins.replace("(s)", "s")


def test_without_the_right_to_tag_it_is_said_and_done_without(lab: Lab) -> None:
    """Pins that cannot be set delay nothing; `status` says that they are off, and why."""
    from handlers.facts import TryLater  # noqa: PLC0415 (one use)

    lab.append(0)
    book = lab.ledger()
    reconciler = lab.reconciler(book, delta={"min_rows": 1, "pin": True})

    def refused(*_: object) -> None:
        raise TryLater("The table could not be tagged: access denied.")

    reconciler._table.pin = refused  # type: ignore[assignment,method-assign]
    reconciler.tick()
    assert last(book, lab).state is State.PROMOTED
    assert book.standing(lab.pipeline).pins == "off: The table could not be tagged: access denied."
    assert not reconciler.troubled


def test_a_broken_contract_quarantines_and_never_stalls(lab: Lab) -> None:
    """What breaks the contract is parked with figures and examples; what follows goes on."""
    lab.append(0)
    book = lab.ledger()
    contract = {"columns": {"age": {"max": 120}}, "max_duplicates": 0}
    reconciler = lab.reconciler(book, validate=contract)
    reconciler.tick()
    lab.append(1, 300, age=[500] * 3 + [40] * 297)
    reconciler.tick()
    lab.append(2, 400)
    reconciler.tick()
    assert [state for state, _ in told(book, lab.pipeline)][1] == "parked"
    assert last(book, lab).delta.rows == 400
    (parked,) = book.parked(lab.pipeline)
    (breach,) = parked.breaches
    assert (breach.column, breach.count, breach.of, len(breach.examples)) == ("age", 3, 300, 3)
    assert "3 of 300 rows are above 120" in parked.reason
    assert [s.state for s in parked.snapshots] == [Fate.QUARANTINED]
    _release_and_drop(lab, book, reconciler, parked)


def _release_and_drop(lab: Lab, book: Ledger, reconciler: Reconciler, parked: Record) -> None:
    book.retry(lab.pipeline, "me", [parked])
    reconciler.tick()
    again = last(book, lab)
    assert (again.state, again.retry_of) == (State.PARKED, parked.sequence)
    lab.append(5, 300, age=[500] * 300)
    reconciler.tick()
    other = last(book, lab)
    book.retry(lab.pipeline, "me", [again], "release")
    book.retry(lab.pipeline, "me", [other], "drop", "a test rig")
    settle(reconciler, 2)
    dropped, released = book.history(lab.pipeline, 2)
    assert released.state in {State.KEPT, State.PROMOTED}
    assert released.reason.startswith("released by me")
    assert (dropped.state, dropped.reason) == (State.DROPPED, "dropped by me: a test rig")
    assert book.parked(lab.pipeline) == []
    assert account(book, lab)["adds_up"]


def test_a_lost_column_parks_and_a_new_one_is_recorded(lab: Lab) -> None:
    """A column that the configuration names and the delta's snapshots dropped is named exactly."""
    lab.append(0)
    book = lab.ledger()
    reconciler = lab.reconciler(book, features=["age", "transaction_amount"])
    reconciler.tick()
    lab.sql("ALTER TABLE {t} ADD COLUMN city STRING")
    lab.sql("ALTER TABLE {t} ALTER COLUMN age TYPE BIGINT")
    lab.sql("INSERT INTO {t} SELECT * FROM {t} LIMIT 500")
    reconciler.tick()
    assert "columns: city added, age changed from int to long" in last(book, lab).reason
    lab.sql("ALTER TABLE {t} RENAME COLUMN transaction_amount TO amount")
    lab.sql("INSERT INTO {t} SELECT * FROM {t} LIMIT 400")
    reconciler.tick()
    assert last(book, lab).state is State.PARKED
    assert "transaction_amount was renamed to amount" in last(book, lab).reason
    lab.sql("INSERT INTO {t} SELECT * FROM {t} LIMIT 300")
    reconciler.tick()
    assert "lacks column(s)" in book.standing(lab.pipeline).doing
    mended = lab.reconciler(book, features=["age", "AMOUNT"])
    book.retry(lab.pipeline, "me", [])
    mended.tick()
    assert last(book, lab).learnt is not None
    book.retry(lab.pipeline, "me", book.parked(lab.pipeline))
    mended.tick()
    assert (last(book, lab).delta.rows, last(book, lab).retry_of) == (400, 3)


def test_a_branch_that_is_gone_is_told(lab: Lab) -> None:
    """A followed branch that was deleted is waited for; made again elsewhere, ancestry decides."""
    lab.append(0)
    lab.sql("ALTER TABLE {t} CREATE BRANCH audit")
    book = lab.ledger()
    reconciler = lab.reconciler(book, branch="audit")
    reconciler.tick()
    lab.sql("ALTER TABLE {t} DROP BRANCH audit")
    reconciler.tick()
    assert "has no branch 'audit' any more" in book.standing(lab.pipeline).doing
    lab.append(1, 300)
    lab.sql("ALTER TABLE {t} CREATE BRANCH audit")
    reconciler.tick()
    assert last(book, lab).delta.rows == 300


def test_it_waits_for_quiet_and_no_longer_than_asked(lab: Lab) -> None:
    """While commits go on the batch is kept and grows; `status` says why and until when."""
    moment = now()
    book, _ = start(lab)
    changes = {"min_rows": 1, "quiet_for": "1m", "max_wait": "10m", "cooldown": "2m"}
    book.clock = lambda: moment
    reconciler = lab.reconciler(book, delta=changes)
    reconciler._clock = reconciler._decider._clock = lambda: moment
    for batch in (1, 2):
        lab.append(batch, 300)
        reconciler.tick()
        standing = book.standing(lab.pipeline)
        assert standing.doing.startswith("not now: ")
        assert standing.next_at is not None
        assert standing.next_at > moment
        moment += timedelta(seconds=50)
    assert len(book.history(lab.pipeline)) == 1
    moment += timedelta(minutes=3)
    reconciler.tick()
    assert last(book, lab).delta.rows == 600


def test_each_commit_can_be_a_delta_of_its_own(lab: Lab) -> None:
    """`coalesce: each`: what waits is taken one commit at a time, in order."""
    book, reconciler = start(lab, coalesce="each")
    for batch, rows in ((1, 300), (2, 400), (3, 500)):
        lab.append(batch, rows)
    settle(reconciler, 4)
    assert [rows for _, rows in told(book, lab.pipeline)] == [1200, 300, 400, 500]
    assert set(account(book, lab)["totals"]) == {"trained"}


def test_mlflow_down_is_no_reason_not_to_look(lab: Lab) -> None:
    """While the work waits for MLflow, the head that is seen goes on moving."""
    book, reconciler = start(lab)
    registry: Any = reconciler._registry
    reachable, registry._uris = registry._uris, ("http://127.0.0.1:9", None)
    registry._connection = None
    lab.append(1, 300)
    reconciler.tick()
    assert book.pending(lab.pipeline) is not None
    lab.append(2, 300)
    reconciler.tick()
    head = lab.table().head()
    assert head is not None
    assert book.standing(lab.pipeline).head_id == head.snapshot_id
    registry._uris = reachable


def test_every_operation_is_accounted_for(lab: Lab) -> None:
    """One of each: every snapshot of the log has exactly one state, and they add up."""
    book, reconciler = start(lab)
    lab.append(1, 300)
    lab.append(2, 300)
    reconciler.tick()
    lab.append(3, 100, fraud_trx=[0] * 100)
    reconciler.tick()
    merge(lab, 4, 200)
    lab.sql("DELETE FROM {t} WHERE age = 33")
    reconciler.tick()
    lab.sql(
        "CALL lake.system.rewrite_data_files(table => '{t}', options => map('rewrite-all', 'true'))"
    )
    lab.sql("CALL lake.system.rewrite_manifests('{t}')")
    lab.append(5, 400, mode="overwrite")
    settle(reconciler, 3)
    book.pause(lab.pipeline, "me", "lunch")
    lab.append(6, 250)
    reconciler.tick()
    view = account(book, lab)
    assert view["adds_up"], json.dumps(view, indent=1)
    assert len(view["snapshots"]) == len(lab.table().log())
    totals = {state: of["snapshots"] for state, of in view["totals"].items()}
    assert totals["coalesced"] == 2
    assert totals["quarantined"] == 1
    assert totals["waiting"] == 1
    assert {"trained", "rewritten", "skipped"} <= set(totals)
    (waiting,) = [line for line in view["snapshots"] if line["state"] == "waiting"]
    assert "paused (lunch)" in waiting["reason"]
