"""The gates that a policy may ask for: a small class a kind, with its limit, its unit and how it is evaluated."""

from typing import Annotated

from pydantic import Field

from wergate.gates.kinds import accuracy, battery, delivery, long_form, robustness, terms

AnyGate = Annotated[
    accuracy.WerGate
    | accuracy.CerGate
    | accuracy.LexiconWerGate
    | accuracy.OtherWerGate
    | accuracy.BaseGate
    | accuracy.ChampionGate
    | accuracy.ForgettingGate
    | battery.FormattedWerGate
    | battery.BatteryGate
    | terms.TermGate
    | terms.WorstTermGate
    | robustness.HallucinationGate
    | robustness.LoopGate
    | robustness.SliceGate
    | long_form.LongFormGate
    | long_form.TimestampsGate
    | long_form.SkippedSpeechGate
    | delivery.TrainableGate
    | delivery.AdapterSizeGate
    | delivery.PeakMemoryGate
    | delivery.RealTimeFactorGate
    | delivery.ProvenanceGate
    | delivery.LeakageGate,
    Field(discriminator="kind"),
]
