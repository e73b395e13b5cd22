"""What the commands work with: a registered model, its lock, and a move that is looked at again afterwards."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime

from wergate.errors import LockLost, RegistryError
from wergate.gates.decision import Decision
from wergate.registry.cards import Cards
from wergate.trail.moves import Guard, carry_out, mendable, repair, settle
from wergate.trail.records import Move, trail, utc_now
from wergate.trail.registered_model import RegisteredModel, Snapshot


@dataclass(frozen=True)
class Outcome:
    """What a command did; `decision` is none for a rollback and for what was there already."""

    moved: bool
    text: str
    decision: Decision | None = None


class Overtaken(LockLost):
    """The lock was lost during the move that `token` names; `outcome` is what it would have come to."""

    def __init__(self, reason: str, token: str, outcome: Outcome) -> None:
        super().__init__(reason)
        self.token = token
        self.outcome = outcome


@dataclass(frozen=True)
class RegistryClient:
    """One model of a registry in the name of `who`; tests put fakes in."""

    model: RegisteredModel
    lock: Callable[[], AbstractContextManager[Guard]]
    who: str
    now: Callable[[], datetime] = utc_now
    say: Callable[[str], None] = lambda text: None

    @property
    def cards(self) -> Cards:
        return Cards(self.model, self.say)

    @contextmanager
    def settled(self) -> Iterator[tuple[Guard, Snapshot]]:
        """The lock, and the model with every interrupted move finished or undone."""
        with self.lock() as guard:
            text, snapshot = settle(self.model, guard)
            if text:
                self.say(text)
            # Nothing is promoted over what nobody can explain.
            if found := "; ".join(mendable(snapshot)):
                problem = f"{snapshot.name} has drifted from its audit trail: {found}"
                raise RegistryError(f"{problem}; run check with repair=true")
            yield guard, snapshot

    def move(self, snapshot: Snapshot, move: Move, guard: Guard, outcome: Outcome) -> Outcome:
        """The move; then the model is read again and, where another's late write got in between, mended, and told.

        Raises Overtaken when the lock was lost on the way.
        """
        try:
            carry_out(self.model, snapshot, move, guard)
            if mendable(self.model.look()):
                repair(self.model, guard, self.who)
                if left := mendable(self.model.look()):
                    raise RegistryError(f"moved, but {'; '.join(left)}; run check with repair=true")
        except LockLost as error:
            raise Overtaken(str(error), move.token, outcome) from None
        self.cards.tell_standing([move.version, move.replaced])
        return outcome

    def surviving(self, act: Callable[[], Outcome]) -> Outcome:
        """`act`; where it lost its lock, a new one tells what came of the move, and whether to begin again.

        Whoever got the old lock has finished the move or undone it.
        """
        for last in (False, False, True):
            try:
                return act()
            except LockLost as lost:
                if isinstance(lost, Overtaken) and self._landed(lost.token):
                    return lost.outcome
                if last:
                    raise
                self.say(f"beginning again: {lost}")
        raise AssertionError("the last try returns or raises")

    def _landed(self, token: str) -> bool:
        """Whether the move stands in the audit trail, after all that was left open is settled."""
        with self.lock() as guard:
            repair(self.model, guard, self.who)
            return token in {record.move.token for record in trail(self.model.tags())}
