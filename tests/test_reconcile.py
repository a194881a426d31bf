"""The tick, with every door real: Spark and Iceberg, MLflow on SQLite, an endpoint process."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
from conftest import Lab, told

from daemon import operate
from daemon.ledger import Ledger
from daemon.reconcile import Reconciler
from daemon.retry import FIRST_DELAY, UNREADABLE_ATTEMPTS
from daemon.store import now
from handlers.evidence import PROOF, read_proof, write_proof
from handlers.facts import Fate, Model, State
from handlers.registry import SCORER
from handlers.scorer import Scorer

real = pytest.mark.real


def serving(lab: Lab) -> str | None:
    """Ask the endpoint which version answers."""
    return lab.doors().endpoint.serving()


def folder_of(lab: Lab, book: Ledger) -> Path:
    """Give the champion's folder."""
    return lab.home / "models" / _run(book, lab)


def champion(book: Ledger, lab: Lab) -> str | None:
    """Say which version the ledger holds to be champion."""
    found = book.champion(lab.pipeline)
    return found.model.version if found else None


@real
def test_the_story(lab: Lab) -> None:
    """First model promoted and served; no drift: kept; drift: promoted and served within a tick."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    for batch, (state, version) in enumerate(
        [("promoted", "1"), ("kept", "1"), ("promoted", "3"), ("kept", "3")]
    ):
        lab.append(batch, 3000)
        reconciler.tick()
        record = book.history(lab.pipeline, 1)[0]
        assert (record.state.value, record.delta.rows) == (state, 3000), record.reason
        assert champion(book, lab) == serving(lab) == version
    verdict = book.history(lab.pipeline, 1)[0].verdict
    assert verdict is not None
    assert verdict.champion is not None
    assert verdict.against == "3"
    reconciler.tick()
    assert len(book.history(lab.pipeline)) == 4
    assert not reconciler.troubled


@real
def test_the_two_halves_of_a_tick_follow_each_other(lab: Lab) -> None:
    """Up to the verdict nothing is deployed; the other half deploys, and looks at no table.

    Each half ends well whatever the other one has left to do.
    """
    lab.append(0)
    book = lab.ledger()
    judging, deploying = lab.reconciler(book), lab.reconciler(book)
    assert deploying.tick("deploy") == 0  # no champion yet: level
    assert judging.tick("verdict") == 1
    assert (champion(book, lab), serving(lab)) == ("1", None)
    assert judging.tick("verdict") == 0
    lab.append(1, 300, fraud_trx=[9] * 300)  # parked, but that is not the deployment's concern
    head = book.standing(lab.pipeline).head_id
    assert deploying.tick("deploy") == 1
    assert serving(lab) == "1"
    assert book.standing(lab.pipeline).head_id == head
    assert not deploying.troubled
    assert not judging.troubled


@real
def test_the_endpoint_gives_the_offline_predictions(lab: Lab) -> None:
    """What is served answers rows of the table exactly as the registered model scores them."""
    rows = lab.append(0)
    book = lab.ledger()
    lab.reconciler(book).tick()
    folder = folder_of(lab, book)
    scorer = Scorer.load(folder / SCORER)
    frame = rows.to_pandas().head(200)
    answer = lab.doors().endpoint.predict(frame[scorer.columns])
    assert answer.version == "1"
    np.testing.assert_allclose(answer.predictions, scorer.score(frame), rtol=1e-6)


@real
def test_the_same_snapshots_give_the_same_model(lab: Lab) -> None:
    """Training again from the same snapshots, elsewhere, gives the same bytes."""
    lab.append(0)
    made = []
    for home in ("one", "two"):
        other = Lab(lab.sessions, lab.lake, lab.home / home)
        other.name = lab.name
        book = other.ledger()
        other.reconciler(book).tick()
        other.close()
        folder = folder_of(other, book) / SCORER
        made.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
        record = book.history(other.pipeline, 1)[0]
        assert record.state is State.PROMOTED
        book.close()
        # The second must not find the first one's decisions in MLflow.
        lab.sql("SELECT 1")
        _forget(other)
    assert made[0] == made[1]


def _forget(lab: Lab) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 (one use)

    client = MlflowClient(str(lab.settings().mlflow.tracking_uri))
    experiment = client.get_experiment_by_name(f"lab-{lab.pipeline}")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id]):
        client.delete_run(run.info.run_id)


@real
def test_a_poisoned_delta_is_parked_and_the_next_goes_on(lab: Lab) -> None:
    """One class, no labels: parked with the reason, and never a stop for what follows."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    reconciler.tick()
    lab.append(1, 300, fraud_trx=[0] * 300)
    reconciler.tick()
    lab.append(2, 300, fraud_trx=[None] * 300)
    reconciler.tick()
    lab.append(3, 3000)
    reconciler.tick()
    assert [state for state, _ in told(book, lab.pipeline)] == [
        "promoted", "parked", "parked", "promoted",
    ]  # fmt: skip
    parked = book.parked(lab.pipeline)
    assert "1 class" in parked[0].reason
    assert "'fraud_trx' is null throughout" in parked[1].reason
    assert [r.snapshots[0].state for r in parked] == [Fate.QUARANTINED, Fate.QUARANTINED]
    assert champion(book, lab) == serving(lab)


@real
def test_good_snapshots_beside_a_bad_one_are_trained(lab: Lab) -> None:
    """A delta that fails as a whole is taken apart, so that only the bad snapshot is parked."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    reconciler.tick()
    lab.append(1, 600)
    lab.append(2, 100, fraud_trx=[2] * 100)  # a third class, where the task is binary
    lab.append(3, 500)
    for _ in range(5):
        reconciler.tick()
    states = told(book, lab.pipeline)
    assert states[1] == ("split", 1200)
    assert [rows for _, rows in states[2:]] == [600, 100, 500]
    assert [state for state, rows in states[2:] if rows == 100] == ["parked"]
    assert {state for state, rows in states[2:] if rows != 100} <= {"kept", "promoted"}
    assert book.standing(lab.pipeline).one_by_one_until is None
    assert book.standing(lab.pipeline).cursor == lab.table().head()


@real
def test_a_parked_delta_is_taken_up_again_on_demand(lab: Lab) -> None:
    """`retry` opens the delta anew under a new number; the cursor does not move back."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    reconciler.tick()
    lab.append(1, 400, fraud_trx=[0] * 400)
    reconciler.tick()
    lab.append(2)
    reconciler.tick()
    cursor = book.standing(lab.pipeline).cursor
    (parked,) = book.parked(lab.pipeline)
    book.retry(lab.pipeline, "me", [parked])
    reconciler.tick()
    again = book.history(lab.pipeline, 1)[0]
    assert (again.retry_of, again.sequence, again.state) == (parked.sequence, 4, State.PARKED)
    assert again.delta == parked.delta
    assert book.standing(lab.pipeline).cursor == cursor
    assert [record.sequence for record in book.parked(lab.pipeline)] == [4]


@real
def test_commits_that_bring_no_rows_are_skipped_with_their_reason(lab: Lab) -> None:
    """Compaction trains nothing, and neither do rewrites where the policy says so."""
    book = lab.ledger()
    reconciler = lab.reconciler(book, delta={"min_rows": 1, "rewrites": "skip"})
    lab.append(0)
    reconciler.tick()
    lab.append(1)
    reconciler.tick()
    lab.sql(
        "CALL lake.system.rewrite_data_files(table => '{t}', options => map('rewrite-all', 'true'))"
    )
    reconciler.tick()
    lab.append(2, 200, mode="overwrite")
    reconciler.tick()
    skipped = list(reversed(book.history(lab.pipeline, 2)))
    assert [record.state for record in skipped] == [State.SKIPPED, State.SKIPPED]
    assert "compaction" in skipped[0].reason
    assert "up to 200 rows written by overwrite or merge were left out" in skipped[1].reason
    assert skipped[1].snapshots[-1].state is Fate.REWRITTEN
    head = lab.table().head()
    assert book.standing(lab.pipeline).cursor == head


@real
def test_a_lost_ledger_is_rebuilt(lab: Lab) -> None:
    """Without the ledger's file, decisions, champion and cursor come back from MLflow."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    for batch in range(3):
        lab.append(batch, 2000)
        reconciler.tick()
    lab.append(3, 100, fraud_trx=[0] * 100)
    reconciler.tick()
    before = book.history(lab.pipeline, 100)
    cursor, version = book.standing(lab.pipeline).cursor, champion(book, lab)
    book.close()
    (lab.home / "ledger.db").unlink()
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    reconciler.tick()
    assert book.history(lab.pipeline, 100) == before
    assert book.standing(lab.pipeline).cursor == cursor
    assert champion(book, lab) == version == serving(lab)


@real
def test_evidence_completed_before_a_crash_is_used_not_made_again(lab: Lab) -> None:
    """Killed between MLflow and the ledger, the delta is closed with the run that was made."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    settle = book.settle

    def dies(record: Any) -> None:  # noqa: ARG001 (stands in for settle)
        raise KeyboardInterrupt

    book.settle = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        reconciler.tick()
    book.settle = settle  # type: ignore[method-assign]
    lab.append(1)  # the head moves on while the daemon is down
    made = lab.doors().registry.history()
    lab.reconciler(book).tick()
    records = list(reversed(book.history(lab.pipeline)))
    assert records[0] == made[0]
    assert records[0].delta.rows == 1200
    lab.reconciler(book).tick()
    assert [rows for _, rows in told(book, lab.pipeline)] == [1200, 1200]
    assert len(lab.doors().registry.history()) == 2


@real
def test_a_killed_endpoint_comes_back(lab: Lab) -> None:
    """The next tick starts the endpoint anew with the champion."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    reconciler.tick()
    port = lab.port
    owners = {c.pid for c in psutil.net_connections() if c.laddr and c.laddr.port == port and c.pid}
    for pid in owners - {os.getpid()}:
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], 5)
    assert serving(lab) is None
    reconciler.tick()
    assert serving(lab) == "1"


@real
def test_a_changed_endpoint_is_brought_back_to_the_champion(lab: Lab) -> None:
    """Whatever somebody else deploys, the next tick serves the champion again."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    reconciler.tick()
    folder = folder_of(lab, book) / SCORER
    lab.doors().endpoint.deploy(Model("99", "intruder"), folder)
    assert serving(lab) == "99"
    reconciler.tick()
    assert serving(lab) == "1"


@real
def test_a_rollback_is_carried_out_by_the_next_tick(lab: Lab) -> None:
    """An operator's champion is the champion: deployed, and compared with from then on."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    for batch in (0, 1, 2):
        lab.append(batch, 3000)
        reconciler.tick()
    assert serving(lab) == "3"
    previous = book.before(lab.pipeline, "3")
    assert previous is not None
    book.rollback(lab.pipeline, "me", previous, "looks odd")
    reconciler.tick()
    assert serving(lab) == "1"
    lab.append(3, 3000)
    reconciler.tick()
    record = book.history(lab.pipeline, 1)[0]
    assert record.verdict is not None
    assert record.verdict.against == "1"


@real
def test_a_forced_champion_is_deployed_and_judged_against(lab: Lab) -> None:
    """What lost serves at the next tick, under the alias; a rollback takes it back."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    for batch in (0, 1):
        lab.append(batch, 3000)
        reconciler.tick()
    assert serving(lab) == "1"
    operate.promote(book, lab.pipeline, "2", "the law asks")
    reconciler.tick()
    assert (serving(lab), lab.doors().registry.pointed("champion")) == ("2", "2")
    lab.append(2, 3000)
    reconciler.tick()
    record = book.history(lab.pipeline, 1)[0]
    assert record.verdict is not None
    assert record.live is not None
    assert (record.verdict.against, record.live.version) == ("2", "2")
    operate.promote(book, lab.pipeline, "1", "no, this")
    operate.rollback(book, lab.pipeline, None, "")
    reconciler.tick()
    assert serving(lab) == lab.doors().registry.pointed("champion") != "1"


@real
def test_a_model_that_answers_wrongly_is_refused(lab: Lab) -> None:
    """A deployment whose answers are not the offline ones falls back to the last good model."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0, 3000)
    reconciler.tick()
    lab.append(2, 3000)
    level = reconciler.level
    reconciler.level = lambda: None  # type: ignore[method-assign]
    reconciler.tick()
    assert champion(book, lab) == "2"
    folder = lab.doors().registry.fetch(Model("2", _run(book, lab)), lab.home / "models")
    rows, expected = read_proof(folder / PROOF)
    _falsify(folder, rows, expected)
    reconciler.level = level  # type: ignore[method-assign]
    reconciler.tick()
    assert champion(book, lab) == serving(lab) == "1"
    refused = [d for d in book.deployments(lab.pipeline) if d.outcome == "refused"]
    assert [d.version for d in refused] == ["2"]
    assert "differently" in refused[0].reason
    reconciler.tick()
    assert len(book.deployments(lab.pipeline)) == 3


def _run(book: Ledger, lab: Lab) -> str:
    found = book.champion(lab.pipeline)
    assert found is not None
    return found.model.run_id


def _falsify(folder: Any, rows: pd.DataFrame, expected: Any) -> None:
    """Write a proof that the model cannot reproduce, as a model that was corrupted would not."""
    scorer = Scorer.load(folder / SCORER)
    write_proof(scorer, rows, folder / PROOF)
    table = pd.read_parquet(folder / PROOF)
    table["retraind_score_0"] = (expected + 0.25).astype("float32")
    table.to_parquet(folder / PROOF, index=False)


@real
def test_a_pause_observes_and_loses_nothing(lab: Lab) -> None:
    """While paused nothing is trained, the status says what waits; resume trains all of it."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    reconciler.tick()
    book.pause(lab.pipeline, "me", "holidays")
    lab.append(1, 500)
    lab.append(2, 600)
    reconciler.tick()
    standing = book.standing(lab.pipeline)
    assert "paused (holidays); 2 snapshot(s) with 1100 appended rows wait" in standing.doing
    assert len(book.history(lab.pipeline)) == 1
    book.resume(lab.pipeline, "me")
    reconciler.tick()
    assert told(book, lab.pipeline)[-1][1] == 1100


@real
def test_few_rows_wait_until_they_are_enough(lab: Lab) -> None:
    """Below min_rows the cursor stays, and the rows are trained together with the next ones."""
    book = lab.ledger()
    reconciler = lab.reconciler(book, delta={"min_rows": 500})
    lab.append(0, 300)
    reconciler.tick()
    assert "1 snapshot with 300 rows waits for min_rows: 500" in book.standing(lab.pipeline).doing
    lab.append(1, 300)
    reconciler.tick()
    assert told(book, lab.pipeline)[0][1] == 600


@real
def test_a_missing_table_and_wrong_columns_wait(lab: Lab) -> None:
    """What the configuration names and the table lacks is waited for, with the nearest name."""
    book = lab.ledger()
    lab.reconciler(book).tick()
    assert "does not exist (yet)" in book.standing(lab.pipeline).doing
    lab.append(0)
    lab.reconciler(book, label="fraud_tx").tick()
    work = book.pending(lab.pipeline)
    assert work is not None
    assert "nearest: 'fraud_trx'" in work.trouble
    assert work.next_try_at is not None
    assert work.next_try_at - now() < timedelta(seconds=FIRST_DELAY)
    mended = lab.reconciler(book, label="fraud_trx")
    mended.tick()
    assert book.pending(lab.pipeline) is not None, "waits for its next attempt"
    book.retry(lab.pipeline, "me", [])
    mended.tick()
    assert told(book, lab.pipeline) == [("promoted", 1200)]


@real
def test_an_mlflow_outage_delays_and_loses_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While MLflow is down the delta stays open; afterwards it is closed, once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    book = lab.ledger()
    lab.append(0)
    reconciler = lab.reconciler(book)
    registry = reconciler._registry
    reachable = registry._uris
    reconciler.tick()
    lab.append(1)
    registry._uris, registry._connection = ("http://127.0.0.1:9", None), None
    reconciler.tick()
    work = book.pending(lab.pipeline)
    assert work is not None
    assert "MLflow" in work.trouble
    assert serving(lab) == "1"
    registry._uris = reachable
    book.retry(lab.pipeline, "me", [])
    reconciler.tick()
    assert [rows for _, rows in told(book, lab.pipeline)] == [1200, 1200]


@real
def test_a_stop_is_noticed_between_rounds_and_the_delta_goes_on_later(lab: Lab) -> None:
    """Asked to stop in mid-training, the tick ends; the next start finishes the same delta."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    activity: Any = reconciler._decider._progress
    rounds = []

    def stops(step: str, done: int, total: int) -> None:
        rounds.append((step, done))
        if (step, done) == ("training", 5):
            lab.stopping.set()
        activity(step, done, total)

    reconciler._decider._progress = stops
    reconciler.tick()
    assert rounds[-1] == ("training", 5)
    assert book.pending(lab.pipeline) is not None
    assert not book.history(lab.pipeline)
    lab.stopping.clear()
    book.retry(lab.pipeline, "me", [])
    lab.reconciler(book).tick()
    assert told(book, lab.pipeline) == [("promoted", 1200)]


@real
def test_a_fault_of_ours_parks_the_delta_after_three_attempts(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unforeseen error is tried again, then parked with its text; the next delta goes on."""
    from handlers import judge  # noqa: PLC0415 (patched)

    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    monkeypatch.setattr(judge, "judge", lambda *_: 1 / 0)
    for _ in range(3):
        reconciler.tick()
        book.retry(lab.pipeline, "me", [])
    assert told(book, lab.pipeline) == [("parked", 1200)]
    assert "ZeroDivisionError" in book.history(lab.pipeline, 1)[0].reason
    monkeypatch.undo()
    lab.append(1)
    reconciler.tick()
    assert told(book, lab.pipeline)[-1] == ("promoted", 1200)


@real
def test_full_learns_from_the_whole_table(lab: Lab) -> None:
    """Strategy `full` trains on every row that is not held out, and is judged on the delta's."""
    book = lab.ledger()
    reconciler = lab.reconciler(book, train={"rounds": 10, "strategy": "full", "holdout": 0.3})
    lab.append(0)
    reconciler.tick()
    lab.append(1, 600)
    reconciler.tick()
    learnt = book.history(lab.pipeline, 1)[0].learnt
    assert learnt is not None
    assert learnt.strategy == "full"
    assert learnt.train_rows > 1000
    assert learnt.held_out_rows < 300


@real
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_are_trained_judged_and_served(lab: Lab, task: str) -> None:
    """Several classes and numbers go the same way, strings, booleans and dates as features too."""
    random = np.random.default_rng(0)
    count = 1500
    shop = random.choice(["north", "south", "west"], count)
    size = random.normal(size=count)
    label: Any = shop if task == "multiclass" else size * 3 + (shop == "north")
    rows = pa.table(
        {
            "transaction_id": [f"k{i}" for i in range(count)],
            "shop": [s if i % 7 else None for i, s in enumerate(shop)],
            "size": size,
            "vip": (size > 0).tolist(),
            "day": pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC"),
            "label": label.tolist(),
        }
    )
    lab.commit(rows)
    book = lab.ledger()
    reconciler = lab.reconciler(
        book, task=task, label="label", ignore=[], promote={}, delta={"min_rows": 1}
    )
    reconciler.tick()
    record = book.history(lab.pipeline, 1)[0]
    assert record.state is State.PROMOTED, record.reason
    assert serving(lab) == "1"
    answer = lab.doors().endpoint.predict(rows.to_pandas().head(5))
    assert answer.predictions.shape == ((5, 3) if task == "multiclass" else (5,))


@real
def test_two_pipelines_do_not_meet(lab: Lab, sessions: Any, lake: Any, tmp_path: Any) -> None:
    """Trouble of one pipeline leaves the other be."""
    book = lab.ledger()
    other = Lab(sessions, lake, tmp_path)
    lab.append(0)
    broken: Reconciler = other.reconciler(book)
    fine = lab.reconciler(book)
    broken.tick()
    fine.tick()
    assert broken.troubled
    assert told(book, lab.pipeline) == [("promoted", 1200)]
    assert not fine.troubled


@real
def test_pipelines_work_at_the_same_time(lab: Lab, sessions: Any, lake: Any, tmp_path: Any) -> None:
    """Two pipelines that share ledger, Spark and MLflow are trained and served side by side."""
    book = lab.ledger()
    other = Lab(sessions, lake, tmp_path / "other")
    both = [lab, other]
    for one in both:
        one.append(0)
    ticks = [threading.Thread(target=one.reconciler(book).tick) for one in both]
    for tick in ticks:
        tick.start()
    for tick in ticks:
        tick.join()
    for one in both:
        assert told(book, one.pipeline) == [("promoted", 1200)]
        assert champion(book, one) == serving(one) == "1"
    other.close()


@real
def test_a_damaged_data_file_is_parked_after_some_attempts(lab: Lab) -> None:
    """Rows that cannot be read although the table answers do not stall the ones behind them."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    reconciler.tick()
    lab.append(1)
    head = lab.table().head()
    assert head is not None
    for row in lab.sql("SELECT snapshot_id, data_file.file_path AS path FROM {t}.entries"):
        if row.snapshot_id == head.snapshot_id:
            _damage(row.path)
    for _ in range(UNREADABLE_ATTEMPTS):
        reconciler.tick()
        book.retry(lab.pipeline, "me", [])
    assert told(book, lab.pipeline)[-1] == ("parked", 1200), book.standing(lab.pipeline).doing
    lab.append(2, 3000)
    reconciler.tick()
    assert told(book, lab.pipeline)[-1] == ("promoted", 3000)


@real
def test_a_column_added_before_the_first_look_does_not_stall(lab: Lab) -> None:
    """A snapshot is read with the columns it had, though the table has more by now."""
    lab.append(0)
    lab.sql("ALTER TABLE {t} ADD COLUMN later double")
    book = lab.ledger()
    lab.reconciler(book).tick()
    assert told(book, lab.pipeline) == [("promoted", 1200)]


@real
def test_a_rollback_that_is_undone_trains_nothing_twice(lab: Lab) -> None:
    """Rows that come back with an undone rollback were trained on before, and are told so."""
    book = lab.ledger()
    reconciler = lab.reconciler(book)
    lab.append(0)
    reconciler.tick()
    base = lab.table().head()
    lab.append(1)
    reconciler.tick()
    head = lab.table().head()
    assert base is not None
    assert head is not None
    lab.sql(f"CALL lake.system.rollback_to_snapshot('{{t}}', {base.snapshot_id})")
    reconciler.tick()
    lab.sql(f"CALL lake.system.set_current_snapshot('{{t}}', {head.snapshot_id})")
    lab.append(2, 500)
    for _ in range(2):
        reconciler.tick()
    states = told(book, lab.pipeline)
    assert [state for state, _ in states[2:4]] == ["skipped", "skipped"]
    assert "dealt with before" in book.history(lab.pipeline, 2)[1].reason
    assert states[4][1] == 500
    assert book.standing(lab.pipeline).cursor == lab.table().head()


@real
def test_another_hold_out_is_refused(lab: Lab) -> None:
    """A champion is never judged on rows that another split let it learn."""
    book = lab.ledger()
    lab.append(0)
    lab.reconciler(book).tick()
    lab.append(1)
    lab.reconciler(book, train={"rounds": 10, "holdout": 0.4}).tick()
    work = book.pending(lab.pipeline)
    assert work is not None
    assert "holdout 0.3" in work.trouble
    book.retry(lab.pipeline, "me", [])
    lab.reconciler(book, train={"rounds": 10, "holdout": 0.3}).tick()
    assert len(book.history(lab.pipeline)) == 2


def _damage(path: str) -> None:
    """Overwrite a data file, and the checksum that would tell at once."""
    file = Path(path.removeprefix("file:"))
    file.write_bytes(b"not a Parquet file" * 10)
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
