"""What an operator does is written down with who and why, or refused with a sentence."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from builders import PIPELINE, close, delta, dump, ledger, model, moment, park, promote

from daemon import operate
from daemon.ledger import Ledger
from handlers.facts import GiveUp, State

if TYPE_CHECKING:
    from handlers.endpoint import Endpoint


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give the ledger of a daemon that runs."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        yield book


@pytest.fixture
def three(book: Ledger) -> Ledger:
    """Give a ledger in which versions 1, 2 and 3 were promoted in turn."""
    for number in (1, 2, 3):
        promote(book, number)
    return book


@pytest.fixture(autouse=True)
def _is_ann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")


def champion(book: Ledger) -> str | None:
    """Give the version that should serve."""
    found = book.champion(PIPELINE)
    return found.model.version if found else None


def audited(book: Ledger) -> list[tuple[str, str, str, str]]:
    """Give what operators did, oldest first."""
    rows = reversed(book.audit())
    return [(row["who"], row["action"], row["pipeline"], row["detail"]) for row in rows]


def refused(book: Ledger, to: str | None = None) -> str:
    """Try a rollback that must be refused and change nothing; gives the sentence."""
    before = dump(book)
    with pytest.raises(GiveUp) as caught:
        operate.rollback(book, PIPELINE, to, "")
    assert dump(book) == before
    assert caught.value.remedy
    return caught.value.what


def test_a_rollback_goes_to_the_champion_before(three: Ledger) -> None:
    """Without a version it goes back one champion, and one more each time."""
    said = operate.rollback(three, PIPELINE, None, "answers oddly")
    assert said == "cards: version 2 is champion instead of 3."
    found = three.champion(PIPELINE)
    assert found is not None
    assert (found.model, found.how, found.reason) == (model(2), "rolled back", "answers oddly")
    operate.rollback(three, PIPELINE, None, "")
    assert champion(three) == "1"
    assert audited(three) == [
        ("ann", "rollback", PIPELINE, "to 2: answers oddly"),
        ("ann", "rollback", PIPELINE, "to 1: "),
    ]


def test_a_rollback_goes_to_a_named_champion(three: Ledger) -> None:
    """Any version that was champion once may be again, also a younger one."""
    operate.rollback(three, PIPELINE, "1", "")
    assert champion(three) == "1"
    operate.rollback(three, PIPELINE, "3", "")
    assert champion(three) == "3"


def test_a_rollback_skips_what_failed_to_serve(three: Ledger) -> None:
    """The champion before is one that served."""
    three.refuse(PIPELINE, model(3), "differs")
    promote(three, 4)
    three.refuse(PIPELINE, model(4), "differs")
    promote(three, 5)
    operate.rollback(three, PIPELINE, None, "")
    assert champion(three) == "2"


def test_a_rollback_to_what_was_never_champion_is_refused(three: Ledger) -> None:
    """A challenger that lost its comparison never serves."""
    close(three, three.open(PIPELINE, delta(4)), State.KEPT, 4)
    assert refused(three, "4") == "Version 4 of cards was never champion."
    assert refused(three, "nonsense") == "Version nonsense of cards was never champion."


def test_a_rollback_to_the_champion_is_refused(three: Ledger) -> None:
    """There is nothing to do."""
    assert refused(three, "3") == "Version 3 is the champion already."


def test_a_rollback_behind_the_first_champion_is_refused(three: Ledger) -> None:
    """The first champion replaced nothing."""
    operate.rollback(three, PIPELINE, "1", "")
    assert refused(three) == "Version 1 is the first champion of cards."


def test_a_rollback_without_a_champion_is_refused(book: Ledger) -> None:
    """Before the first promotion there is nothing to go back to, by name or not."""
    assert "no champion" in refused(book)
    assert refused(book, "1") == "Version 1 of cards was never champion."


def test_a_rollback_brings_back_a_champion_when_none_is_left(book: Ledger) -> None:
    """Once the endpoint is repaired, a model that was refused may be named again."""
    promote(book, 1)
    book.refuse(PIPELINE, model(1), "the port was taken")
    assert "no champion" in refused(book)
    operate.rollback(book, PIPELINE, "1", "the port is free again")
    assert champion(book) == "1"


def test_a_rollback_spoils_the_comparison_under_way(three: Ledger) -> None:
    """A challenger compared with the former champion does not replace the operator's choice."""
    work = three.open(PIPELINE, delta(4))
    operate.rollback(three, PIPELINE, "1", "")
    close(three, work, State.PROMOTED, 4)  # compared anew, with version 1
    assert three.before(PIPELINE, "4") == model(1)


def test_what_lost_may_be_forced_with_who_and_why(three: Ledger) -> None:
    """It is champion, judged against as any, and a rollback brings back the one before it."""
    close(three, three.open(PIPELINE, delta(4)), State.KEPT, 4)
    said = operate.promote(three, PIPELINE, "4", "the law asks")
    assert said == "cards: version 4 is champion instead of 3, forced."
    found = three.champion(PIPELINE)
    assert found is not None
    assert (found.model, found.how) == (model(4), "forced")
    assert found.reason == "forced by ann: the law asks"
    assert audited(three) == [("ann", "promote", PIPELINE, "4: the law asks")]
    close(three, three.open(PIPELINE, delta(5)), State.KEPT, 5)  # compared with version 4
    operate.rollback(three, PIPELINE, None, "")
    assert champion(three) == "3"


def test_a_rollback_undoes_a_forced_return(three: Ledger) -> None:
    """A former champion that is forced gives way to the one just before, that still serves."""
    operate.promote(three, PIPELINE, "1", "the law asks")
    assert three.former(PIPELINE) == model(3)
    operate.rollback(three, PIPELINE, None, "")
    assert champion(three) == "3"
    operate.rollback(three, PIPELINE, None, "")
    assert champion(three) == "2"


def test_a_forced_model_that_does_not_serve_gives_way(three: Ledger) -> None:
    """The fall back is as for any champion, and the version cannot be forced once more."""
    close(three, three.open(PIPELINE, delta(4)), State.KEPT, 4)
    operate.promote(three, PIPELINE, "4", "the law asks")
    assert three.refuse(PIPELINE, model(4), "it answers differently.") == model(3)
    assert unforced(three, "4") == (
        "Version 4 was refused when it was deployed: it answers differently."
    )
    operate.rollback(three, PIPELINE, "4", "mended")
    three.deployed(PIPELINE, "4", "answers")
    operate.rollback(three, PIPELINE, "3", "")
    operate.promote(three, PIPELINE, "4", "it serves by now")
    assert champion(three) == "4"


def test_what_must_not_be_forced_is_refused(three: Ledger) -> None:
    """The champion itself, what no decision made, and what learnt from rows that were undone."""
    close(three, three.open("other", delta(1)), State.KEPT, 7)
    assert unforced(three, "3") == "Version 3 is the champion already."
    assert unforced(three, "7") == "No decision of cards made a version 7."
    close(three, three.open(PIPELINE, delta(4)), State.KEPT, 4)
    back = replace(delta(5), start_id=3, end_id=3, snapshots=(), note="rolled back", gone=(4,))
    close(three, three.open(PIPELINE, back), State.SKIPPED)
    assert unforced(three, "4") == (
        "Up to 100 rows that version 4 learnt from, in 1 snapshot(s), were rolled back."
    )


def unforced(book: Ledger, version: str) -> str:
    """Try a forced promotion that must be refused and change nothing; gives the sentence."""
    before = dump(book)
    with pytest.raises(GiveUp) as caught:
        operate.promote(book, PIPELINE, version, "a reason")
    assert dump(book) == before
    assert caught.value.remedy
    return caught.value.what


def test_pause_and_resume(book: Ledger) -> None:
    """A pause is kept with its reason, or with who, until it is ended."""
    assert "is paused" in operate.pause(book, PIPELINE, "maintenance")
    assert book.standing(PIPELINE).paused == "maintenance"
    operate.pause(book, PIPELINE, "")
    assert book.standing(PIPELINE).paused == "ann"
    assert "goes on" in operate.resume(book, PIPELINE)
    assert book.standing(PIPELINE).paused is None
    assert audited(book) == [
        ("ann", "pause", PIPELINE, "maintenance"),
        ("ann", "pause", PIPELINE, ""),
        ("ann", "resume", PIPELINE, ""),
    ]


def test_a_pause_moves_nothing_else(three: Ledger) -> None:
    """Cursor and champion stand where they stood."""
    before = three.standing(PIPELINE).cursor, champion(three)
    operate.pause(three, PIPELINE, "")
    operate.resume(three, PIPELINE)
    assert (three.standing(PIPELINE).cursor, champion(three)) == before


def test_a_retry_takes_up_one(book: Ledger) -> None:
    """A named delta is opened anew, the others stay parked."""
    first, second = park(book, 1), park(book, 2)
    assert "1 parked delta(s) are taken up" in operate.retry(book, PIPELINE, first.sequence)
    work = book.pending(PIPELINE)
    assert work is not None
    assert (work.retry_of, work.delta) == (first.sequence, first.delta)
    assert book.parked(PIPELINE) == [second]
    assert audited(book) == [("ann", "retry", PIPELINE, "1")]


def test_a_retry_takes_up_all(book: Ledger) -> None:
    """Without a number all parked deltas are opened anew, oldest first, each once."""
    park(book, 1)
    park(book, 2)
    assert "2 parked" in operate.retry(book, PIPELINE, None)
    assert "nothing is parked" in operate.retry(book, PIPELINE, None)
    retried = []
    while work := book.pending(PIPELINE):
        retried.append(work.retry_of)
        close(book, work)
    assert retried == [1, 2]
    assert [row[3] for row in audited(book)] == ["1, 2", ""]


@pytest.mark.parametrize("number", [2, 99, 0])
def test_a_retry_of_what_is_not_parked_is_refused(book: Ledger, number: int) -> None:
    """The sentence lists what is parked."""
    park(book, 1)
    promote(book, 2)
    before = dump(book)
    with pytest.raises(GiveUp, match=f"Delta {number} of cards is not parked") as caught:
        operate.retry(book, PIPELINE, number)
    assert caught.value.remedy == "Parked are: 1."
    assert dump(book) == before


def test_a_release_says_who_wants_it(book: Ledger) -> None:
    """A delta that breaks the data contract is trained on because a person said so."""
    first, second = park(book, 1), park(book, 2)
    said = operate.retry(book, PIPELINE, first.sequence, release=True)
    assert "1 parked delta(s) are taken up" in said
    work = book.pending(PIPELINE)
    assert work is not None
    assert (work.wish, work.wisher, work.delta) == ("release", "ann", first.delta)
    assert book.parked(PIPELINE) == [second]
    assert audited(book) == [("ann", "release", PIPELINE, "1")]


def test_a_drop_closes_one_and_says_why(book: Ledger) -> None:
    """The next tick closes it; nothing else is hurried, and the others stay parked."""
    first, second = park(book, 1), park(book, 2)
    book.postpone(book.open(PIPELINE, delta(3)), "an outage", moment())
    said = operate.drop(book, PIPELINE, first.sequence, "a test rig")
    assert said == "cards: delta 1 is dropped at the next tick; its rows stay in the table."
    waiting = book.pending(PIPELINE)
    assert waiting is not None
    assert waiting.next_try_at is not None
    close(book, waiting)
    work = book.pending(PIPELINE)
    assert work is not None
    assert (work.wish, work.wisher, work.retry_of) == ("drop", "ann: a test rig", 1)
    assert book.parked(PIPELINE) == [second]
    assert audited(book) == [("ann", "drop", PIPELINE, "1 a test rig")]


@pytest.mark.parametrize("number", [2, 99, 0])
def test_a_drop_of_what_is_not_parked_is_refused(book: Ledger, number: int) -> None:
    """The sentence lists what is parked, and nothing is written; nor is anything dropped twice."""
    park(book, 1)
    promote(book, 2)
    before = dump(book)
    with pytest.raises(GiveUp, match=f"Delta {number} of cards is not parked") as caught:
        operate.drop(book, PIPELINE, number, "")
    assert caught.value.remedy == "Parked are: 1."
    assert dump(book) == before
    operate.drop(book, PIPELINE, 1, "")
    with pytest.raises(GiveUp, match="Parked are: none"):
        operate.drop(book, PIPELINE, 1, "")


def test_a_resume_lets_a_halt_pass(book: Ledger) -> None:
    """What stopped the pipeline was seen by a person, who is named in the audit."""
    book.halt(PIPELINE, "a rewrite", 7)
    operate.resume(book, PIPELINE)
    standing = book.standing(PIPELINE)
    assert (standing.paused, standing.halted_id, standing.passed_id) == (None, None, 7)
    assert audited(book) == [
        ("retraind", "halt", PIPELINE, "a rewrite"),
        ("ann", "resume", PIPELINE, ""),
    ]


def test_a_retry_hurries_what_waits(book: Ledger) -> None:
    """A postponed delta is tried at the next tick, and its attempts are remembered."""
    work = book.open(PIPELINE, delta(1))
    book.postpone(work, "an outage", moment())
    operate.retry(book, PIPELINE, None)
    found = book.pending(PIPELINE)
    assert found is not None
    assert (found.next_try_at, found.attempts, found.trouble) == (None, 1, "an outage")


class Server:
    """Serves version 7 until stopped."""

    where = "http://127.0.0.1:5001"
    version: str | None = "7"

    def serving(self) -> str | None:
        """Name the version."""
        return self.version

    def stop(self) -> None:
        """Serve no more."""
        self.version = None


def test_an_endpoint_is_stopped_only_while_nobody_keeps_it_up(book: Ledger) -> None:
    """A running daemon would start it again, so the operator is told to stop that first."""
    server = Server()
    endpoint = cast("Endpoint", server)
    with pytest.raises(GiveUp, match="keeps the endpoint up"):
        operate.stop_endpoint(book, PIPELINE, endpoint)
    assert server.serving() == "7"
    book.release()
    said = operate.stop_endpoint(book, PIPELINE, endpoint)
    assert said == "cards: http://127.0.0.1:5001 no longer serves version 7."
    assert server.serving() is None
    assert "served nothing" in operate.stop_endpoint(book, PIPELINE, endpoint)


def test_who_is_told_even_where_users_have_no_name(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the user id may have no entry; that keeps nobody from operating."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 8536")

    monkeypatch.setattr(getpass, "getuser", nameless)
    operate.pause(book, PIPELINE, "")
    assert audited(book) == [("unknown", "pause", PIPELINE, "")]
