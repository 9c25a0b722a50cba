"""The live side: writes events and catalogue changes to the journal and folds them in, and swaps releases."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from indexer.encoder import Encoder
from indexer.store import Store
from ranker.changes import Change
from ranker.journal import Entry, JournalError, Position
from ranker.journals import open_journal, read_log
from ranker.upserts import Upsert, listed
from server.amendments import prepared, with_upserts, without_deleted
from server.assortment import catalogue_moment
from server.config import Settings
from server.release import Release
from server.rulebook import Rulebook
from server.state import State, load_state

logger = logging.getLogger(__name__)

# Loads the encoder of an index, given its manifest.
EncoderFor = Callable[[Mapping[str, Any]], Encoder]


class Live:
    """Holds the one reference to the current state, and the rules beside it. Safe to call from several threads."""

    def __init__(self, store: Store, settings: Settings, encoder_for: EncoderFor, release: Release) -> None:
        self._store = store
        self._settings = settings
        self._encoder_for = encoder_for
        # First: a file that cannot be used is told before the seconds that loading takes.
        self.rulebook = Rulebook(settings.server.rules)
        # Held while what the journal holds is folded into the state, and while a state is swapped: an event is in the
        # new state either because it was replayed or because it came after, never twice and never not at all. So is a
        # change to the catalogue, which does no harm twice.
        self._lock = threading.Lock()
        self.journal = open_journal(store.root, settings.journal)
        # Whether the last look at the journal failed: that is told once, and not before each batch.
        self._unread = False
        # How far the journal is in the state; another process may write to it too.
        self.state, self._folded = self._load(release, None)
        # The state before the last swap, for requests that were checked on it.
        self._before: State | None = None
        self.rulebook.tell(self.state.columns)

    def write(self, requests: Sequence[Sequence[Sequence[Entry]]]) -> list[tuple[int, int]]:
        """Write the events of several requests in one transaction; returns (written, duplicates) of each.

        When this returns the events are on disk and in the state.
        """
        events = [event for request in requests for event in request]
        new = self.journal.append(events)
        self._fold()
        counts, place = [], 0
        for request in requests:
            written = sum(new[place : place + len(request)])
            counts.append((written, len(request) - written))
            place += len(request)
        return counts

    def change(self, requests: Sequence[Sequence[Change]]) -> list[list[Change | None]]:
        """Write the catalogue changes of several requests in one transaction; returns what was known before each.

        When this returns they are on disk and in every further answer.
        """
        known = iter(self.journal.change([change for request in requests for change in request]))
        self._fold()
        return [[next(known) for _ in request] for request in requests]

    def upsert(self, requests: Sequence[Sequence[Upsert]]) -> list[list[bool]]:
        """Write the upserts of several requests in one transaction; says of each whether it was written.

        When this returns they are on disk and in every further answer. Titles are embedded before anybody waits for it.
        """
        every = prepared(self.state, [upsert for request in requests for upsert in request])
        written = iter(self.journal.upsert(every))
        self._fold()
        return [[next(written) for _ in request] for request in requests]

    def erase(self, user: str) -> int:
        """Erase a user; returns the entries that were removed. When this returns no answer knows the user."""
        removed = self.journal.erase(user)
        self._fold()
        return removed

    def refresh(self) -> None:
        """Fold in what other processes have written: an event that one of them took changes the next answer of each."""
        try:
            # Who asks while another folds waits for it: that something changed is told once.
            with self._lock:
                if self.journal.changed() or self._unread:
                    self.state, self._folded = self._catch_up(self.state, self._folded)
            self._unread = False
        except JournalError as error:
            if not self._unread:
                logger.warning("the journal cannot be read (%s); answers go on without what is newest in it", error)
            self._unread = True

    def sequence(self) -> int:
        """The number of the journal's last entry; where it cannot be read, of the last one that counts here."""
        try:
            return self.journal.sequence()
        except JournalError:
            return self._folded.sequence

    def swap(self, release: Release, warm: Callable[[State], None]) -> State:
        """Open `release` aside, `warm` it and make it current; the old state answers until then and what it began."""
        state, replayed = self._load(release, self.state.encoder)
        warm(state)
        with self._lock:
            before, folded = self.state, self._folded
            self._before = before
            self.state, self._folded = self._catch_up(state, replayed)
            # Last, when no further request is checked on it: what was acknowledged before one came is in its answer.
            self._before, _ = self._catch_up(before, folded)
            state = self.state
        logger.info("release %d is live", release.number)
        self.rulebook.tell(state.columns)
        return state

    def newest(self, state: State) -> State:
        """The state that answers a request which was checked on `state`: of the same release, with what came since."""
        for each in (self.state, self._before):
            if each is not None and each.first is state.first:
                return each
        return state

    def let_go(self) -> None:
        """Drop the state before the last swap, once no request is in flight that was checked on it."""
        self._before = None

    def reread_rules(self) -> None:
        """Let a changed file of rules count from the next request on; a faulty one is told, and changes nothing."""
        if self.rulebook.reread():
            self.rulebook.tell(self.state.columns)

    def _fold(self) -> None:
        with self._lock:
            self.state, self._folded = self._catch_up(self.state, self._folded)

    def _catch_up(self, state: State, folded: Position) -> tuple[State, Position]:
        """Fold what the journal holds after `folded` into `state`; returns it, or the one that has further products,
        and how far the journal is in it now.
        """
        if self.journal.position() == folded:
            return state, folded
        news = self.journal.news(folded)
        # First: an erased user's events that are still there came after.
        if news.erased:
            state.behaviour.forget(lambda user: news.erased.moment(user) is not None)
        state = with_upserts(state, news.upserts, self._settings.indexer)
        if news.changes:
            state.assortment.apply(news.changes)
            state = without_deleted(state, news.changes)
        if len(news.events):
            state.fold(news.events)
        return state, news.position

    def _load(self, release: Release, at_hand: Encoder | None) -> tuple[State, Position]:
        """The state of a release, and how far the journal has been replayed into it.

        The encoder `at_hand` is kept where the release's index was built with it: loading one compiles it for seconds.
        """
        index = self._store.manifest("indexes", release.index)
        encoder = at_hand
        if encoder is None or encoder.fingerprint != index["encoder"]["fingerprint"]:
            encoder = self._encoder_for(index)
        position = self.journal.position()
        events = read_log(
            self._settings.ranker.events, self._store.root, self._settings.journal, up_to=position.sequence
        )
        # Of upserts and changes those written after `position` as well: they come once more, and change nothing then.
        since = catalogue_moment(index)
        upserts, changes = self.journal.upserts(since), self.journal.changes(since)
        # A product that came and went needs no row.
        state = load_state(self._store, release, self._settings, encoder, events, listed(upserts, changes))
        state.assortment.apply(changes)
        return state, position
