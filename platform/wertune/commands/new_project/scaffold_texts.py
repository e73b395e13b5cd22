"""What stands in the files of a new project beside the values of the models."""

from typing import Any

PROJECT = """\
# One domain: its data, its base model, and what a trial does where search.yaml does not vary it.
# Every value below that you do not change may be removed: it is the default, but for decode.term_boost, whose is 0.
"""

# Without it a lexicon would only be counted. Of 1, 2 and 3 on an adapter of the demo 2 gave the least WER; with others
# 3 was a little better than 2.5.
TERM_BOOST = 2.0

SEARCH = "# What `wertune tune` varies, how many trials it gets, and when one is ended early.\n"

# Wide enough for most domains; the first trials say what to narrow.
SPACE: dict[str, Any] = {
    "train.learning_rate": {"low": 3.0e-4, "high": 2.0e-3, "log": True},
    "train.learning_rate_ratio": {"choices": [1, 2]},
    "train.replay_ratio": {"low": 0.3, "high": 1.0},
    "lora.r": {"choices": [4, 8, 16]},
    "lora.target_modules": {"choices": ["q_proj,v_proj", "q_proj,v_proj,fc1"]},
}
STRENGTHS = (0.7, 0.85, 1.0)  # what each of them forgets and knows costs one look at validation

BATTERY_THERE = """\
A version is also measured on a battery of ordinary speech beside the untouched base, some minutes more
   (`data.battery` in `project.yaml`); leave it out only with its gates.
"""
BATTERY_TO_MAKE = """\
No battery of ordinary speech is shipped for this language: `project.yaml` says how one is made. With one, take the
   `#` from the gates `battery`.
"""

LEXICON = """\
# The words that matter in this domain. They are boosted while a text is written
# (decode.term_boost in project.yaml), and the gates count them.
#   - {term: CPF, spoken: see pee eff, kind: scheme, meaning: Central Provident Fund}
# term: as it stands in transcripts. spoken: as it is said, for speech synthesis. kind, meaning: for people.
# aliases: other ways in which it is written, for the table of what each part brings.
"""

EXAMPLE_ROW = {
    "audio_filepath": "../audio/0001.wav",
    "text": "What is said in the clip, as you want it written.",
    "speaker": "ann",
    "channel": "telephone",
}

# Under `data:` of a project in a language that the platform has no battery of.
NO_BATTERY = """\
  # None is shipped for {language}: write battery.yaml as docs/battery.md shows, make one with
  # `wertune battery --form battery.yaml --language {language} --out {folder}/battery`, then set `battery: battery`.
"""

README = """\
# {name}

What this domain is, who speaks in it, where its recordings come from, and who may use them.

1. Put recordings (wav, flac, ogg/opus, mp3; 0.2 to 30 s) into `audio/`, and one line for each into
   `manifests/train.jsonl`, `validation.jsonl` and `test.jsonl`, as in `manifests/example.jsonl`. `speaker` and
   `channel` may be left out. The speakers and sentences of `test` and `validation` must not be those of `train`.
   No recordings yet? Write `sentences.txt`, one sentence a line, and everyday ones into `general.txt`; then
   `wertune synthesize --project {folder}` makes the clips and manifests.
2. Recordings of everyday speech, in `manifests/retention_validation.jsonl`, `retention_test.jsonl` and
   `replay.jsonl`, watch over what is forgotten: name them in `project.yaml`, and take the `#` from the gates
   `forgetting`.
3. Write the terms that matter into `lexicon.yaml`, and set the limits in `{policy}`.
   {battery}4. `wertune doctor --project {folder}`, then `wertune validate --project {folder}`, then
   `wertune tune --project {folder} --dry-run`, and without `--dry-run` when the plan is to your liking.
"""

POLICY = """\
# What an adapter of @name must reach. Limits are shares (0.15 is 15 %) unless the unit says otherwise; start from what
# the untouched base reaches (`wertune evaluate --base …`) and from what your users can bear.
# A rate is judged by the less favourable end of its confidence interval; `judge: point` takes the value itself.
# `blocks: false` makes a gate a warning.
bootstrap:
  resamples: 10000           # draws behind a confidence interval
  seed: 0                    # of the draws
  confidence: 0.95           # of each end
  blocks: speaker            # what is drawn together: speaker (where known) or utterance

approval:
  forbid_self: true          # who registered a version may not approve it
  expires_after_days: 30     # null: never

# None -> Staging: it works on the domain, it still understands everyday speech, and its origins are known.
staging:
  - {kind: provenance}       # add test_digest: … to freeze the test set; a decision names the digest
  - {kind: leakage, limit: 0}                            # clips of the test set that training had
  - {kind: wer, limit: 0.30}                             # errors a word
  - {kind: base, limit: 0}                               # better than the untouched base; -0.1: by ten points
  - {kind: champion, limit: 0.02, blocks: false}         # beside the version in Production
  @term - {kind: term, measure: recall, limit: 0.60}     # terms that were said and written
  @term - {kind: term, measure: precision, limit: 0.80}  # terms that were written and said
  @forgetting - {kind: forgetting, limit: 0.03}          # rise of WER on everyday speech

  # Ordinary speech (data.battery) beside the untouched base: what tuning may break.
  @battery - {kind: battery, measure: wer, limit: 0.02}  # rise of WER
  @battery - {kind: battery, measure: deleted, parts: [short_answers], limit: 0.04}  # clips without one word
  # Clips whose numbers or codes are not right; then terms that nobody said, in 1,000 words, by the value itself.
  @battery - {kind: battery, measure: inexact, parts: [digits, read_backs, figures, spelled], limit: 0.10}
  @battery - {kind: battery, measure: false_terms, against: nothing, judge: point, limit: 0.5}
  @battery - {kind: battery, measure: formatted_wer, limit: 0.02, blocks: false}  # case, punctuation, form of numbers
  @battery - {kind: battery, measure: made_up, parts: [nonspeech], limit: 2, blocks: false}  # words a minute in sounds
  @battery - {kind: battery, measure: skipped, limit: 0.5, blocks: false}  # seconds of speech a minute without a word
  @battery - {kind: battery, measure: loops, limit: 0.01, blocks: false}

  # Recordings joined of test clips, beside the same clips alone: how much more is wrong, how many times more left out.
  - {kind: long_form, against: clips, limit: 0.03, blocks: false}
  - {kind: skipped_speech, measure: deletions, against: clips, limit: 2, blocks: false}

  - {kind: loops, limit: 0}                              # texts that repeat themselves
  - {kind: hallucination, set: silence, limit: 0.5, blocks: false}  # words a clip where nothing is said
  - {kind: trainable_percent, limit: 5}
  - {kind: adapter_mb, limit: 100}

# Staging -> Production: the same, closer, and what serving costs.
production:
  - {kind: provenance}
  - {kind: leakage, limit: 0}
  - {kind: wer, limit: 0.20}
  - {kind: base, limit: 0}
  - {kind: champion, limit: 0.02}                        # 0 asks for a better one; a margin lets an equal one follow
  @term - {kind: term, measure: recall, limit: 0.70}
  @term - {kind: term, measure: precision, limit: 0.85}
  @forgetting - {kind: forgetting, limit: 0.02}
  @battery - {kind: battery, measure: wer, limit: 0.02}
  @battery - {kind: battery, measure: deleted, parts: [short_answers], limit: 0.04}
  @battery - {kind: battery, measure: inexact, parts: [digits, read_backs, figures, spelled], limit: 0.10}
  @battery - {kind: battery, measure: false_terms, against: nothing, judge: point, limit: 0.5}
  @battery - {kind: battery, measure: formatted_wer, limit: 0.02, blocks: false}
  @battery - {kind: battery, measure: made_up, parts: [nonspeech], limit: 2, blocks: false}
  @battery - {kind: battery, measure: skipped, limit: 0.5, blocks: false}
  @battery - {kind: battery, measure: loops, limit: 0.01, blocks: false}
  - {kind: long_form, against: clips, limit: 0.03, blocks: false}
  - {kind: skipped_speech, measure: deletions, against: clips, limit: 2, blocks: false}
  - {kind: loops, sets: [test, silence, noise, short], limit: 0}
  - {kind: hallucination, set: silence, limit: 0.5}
  - {kind: hallucination, set: noise, limit: 0.5}
  - {kind: slice, by: speaker, limit: 0.40}              # the worst speaker
  - {kind: trainable_percent, limit: 5}
  - {kind: adapter_mb, limit: 100}
  - {kind: real_time_factor, limit: 1.5}                 # seconds of work, beside the untouched base
"""
