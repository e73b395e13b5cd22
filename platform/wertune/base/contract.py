"""What wertune and wergate read of each other, or a later process of what an earlier one wrote: its names, once.

It stands in wertune, on whose lower rooms both packages build, and since a registered version carries wertune's code
alone. It imports nothing, so that a worker of a search may read it. What was written under a name is read under it for
ever: a name is added, never changed.
"""

# Tags of a registered version.
ENGINE_TAG = "wertune.engine"  # of a report's run too: what transcribed
REGISTRAR_TAG = "wergate.registrar"
APPROVAL_PREFIX = "wergate.approval."
VERDICT_PREFIX = "wergate."  # and staging or production: what its gates last said, in a line
DECISION_PREFIX = "wergate.decision."  # and the same: where that decision lies
OPENING_PREFIX = "wertune.final."  # and a set's digest: what its opening of the final set said
EXPORT_PREFIX = "wertune.export."  # and a plain library's way: what it writes of long recordings from an export

# Tags of a registered model.
INTENT_TAG = "wergate.intent"
AUDIT_PREFIX = "wergate.audit."
TICKET_PREFIX = "wergate.ticket."

# Tags of a run: of an evaluation, of whatever prepared a project, of a trial.
REPORT_FOR_TAG = "wergate.report_for"
OTHER_ENGINE_TAG = "wertune.report_in_another_engine_for"
TEST_DIGEST_TAG = "wergate.test_digest"
REPORT_DIGEST_TAG = "wergate.report_digest"
BASE_MODEL_TAG = "wertune.base_model"
BASE_DIGEST_TAG = "wertune.base_model_digest"
NORMALISER_TAG = "wertune.normaliser"
FINAL_DIGEST_TAG = "wertune.final_digest"
TRIAL_TAG = "wertune.trial"
ADAPTER_RUN_TAG = "wertune.adapter_run"  # of a version: the run whose adapter it has
POINT_TAG = "wertune.point"
RESTART_TAG = "wertune.restart"  # of a run of the best configuration from another seed, and of the mean of them
OUTCOME_TAG = "wertune.outcome"
EPOCHS_TAG = "wertune.epochs"
RESOURCES_TAG = "wertune.resources"
DEVICE_TAG = "wertune.device"
PRECISION_TAG = "wertune.precision"
HOST_TAG = "wertune.host"
REFUSED_TAG = "wertune.state_refused"
HALVED_TAG = "wertune.batch_halved"

# A run's artifacts.
EVAL_REPORT = "eval_report.json"
TRAINING_ROWS = "training_rows.json"
MODEL_CARD = "model_card_v"  # and the version's number: a resumed search registers another version from the same run
DECISIONS = "decisions"

# A report's sets, beside the splits of a project.
BATTERY_PREFIX = "battery."  # of ordinary speech that the platform brings: battery.short_answers, …
ARTEFACT_SET = "test_torch"  # the test set by the 8-bit artefact in torch, where another engine serves
JOINED_SET, LONG_SET = "joined", "long"  # clips in their places in recordings joined of them, and in whole recordings
ALONE = "_clips"  # behind the name of such a set: the same clips alone

# Sections of a version's card that wergate renews.
RESULTS, AGAINST_PRODUCTION, STANDING = "Results", "Against Production", "Standing"

# Metrics of a run that others read.
BEST_OBJECTIVE = "best_objective"
PEAK_MEMORY_MB = "peak_memory_mb"
TRAINABLE_PARAMETERS, TRAINABLE_PERCENT, ADAPTER_MB = "trainable_parameters", "trainable_percent", "adapter_mb"
RESULT_METRICS = ("test_wer", "test_cer", "term_recall", "retention_wer")
