"""The gates that a policy may ask for: a small class a kind, with its limit, its unit and how it is evaluated."""

from typing import Annotated

from pydantic import Field

from wergate.gates.kinds.accuracy import (
    BaseGate,
    CerGate,
    ChampionGate,
    ForgettingGate,
    LexiconWerGate,
    OtherWerGate,
    WerGate,
)
from wergate.gates.kinds.battery import BatteryGate, FormattedWerGate
from wergate.gates.kinds.delivery import (
    AdapterSizeGate,
    LeakageGate,
    PeakMemoryGate,
    ProvenanceGate,
    RealTimeFactorGate,
    TrainableGate,
)
from wergate.gates.kinds.robustness import HallucinationGate, LoopGate, SliceGate
from wergate.gates.kinds.terms import TermGate, WorstTermGate

AnyGate = Annotated[
    WerGate
    | CerGate
    | LexiconWerGate
    | OtherWerGate
    | BaseGate
    | ChampionGate
    | ForgettingGate
    | FormattedWerGate
    | BatteryGate
    | TermGate
    | WorstTermGate
    | HallucinationGate
    | LoopGate
    | SliceGate
    | TrainableGate
    | AdapterSizeGate
    | PeakMemoryGate
    | RealTimeFactorGate
    | ProvenanceGate
    | LeakageGate,
    Field(discriminator="kind"),
]
