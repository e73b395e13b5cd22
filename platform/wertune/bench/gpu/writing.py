"""What a token costs while texts are written, with one beam and with more, and how long the device waits meanwhile."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from wertune.bench.clips import PLAIN_LORA
from wertune.bench.counted import FRAMES_AT_4_S, MEL_BINS
from wertune.bench.gpu.ways import DECODE, WRITTEN_TOKENS
from wertune.training.probe import seconds_of
from wertune.whisper.adapter import add_lora
from wertune.whisper.model import load_whisper

BEAMS, CLIPS = (1, 5), (1, 8)


@torch.no_grad()
def measure(folder: Path) -> dict[str, dict[str, float]]:
    """By clips and beams: `token_ms`, and `waiting_share`, the share of that in which the device has nothing to do.

    On a GPU that is the launch of kernels and what the host decides, on a CPU what is between the operators.
    """
    whisper = add_lora(load_whisper(folder, "en", "int8"), PLAIN_LORA, seed=0)
    whisper.model.eval()
    whisper.keep_unpacked()
    found = {}
    for clips in CLIPS:
        states = whisper.encode(torch.randn(clips, MEL_BINS, FRAMES_AT_4_S))
        for beams in BEAMS:
            decode = DECODE.model_copy(update={"num_beams": beams})
            write = partial(whisper.write, states, [WRITTEN_TOKENS] * clips, decode)
            tokens = max(len(each.log_probabilities) for each in write())
            seconds = seconds_of(whisper.device, write)
            name = f"{clips} clip{'s' if clips > 1 else ''}, {beams} beam{'s' if beams > 1 else ''}"
            waiting = waiting_share(write, whisper.device, seconds)
            found[name] = {"token_ms": 1000 * seconds / tokens, "waiting_share": waiting}
    return found


def waiting_share(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """1 minus the device's busy time over the `seconds` that the work takes unwatched; of a CPU while it is watched.

    On a GPU the kernels take what they take, watched or not; operators on a CPU are slowed down by it.
    """
    is_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if is_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as watched:
        started = time.perf_counter()
        work()
        if is_gpu:
            torch.cuda.synchronize()
        watched_s = time.perf_counter() - started
    events = watched.key_averages()
    if is_gpu:
        kernels = (each for each in events if each.device_type == DeviceType.CUDA and not each.is_user_annotation)
        busy_us = sum(float(each.self_device_time_total) for each in kernels)
    else:
        busy_us = sum(float(each.self_cpu_time_total) for each in events)
    return max(0.0, 1.0 - busy_us / 1e6 / (seconds if is_gpu else watched_s))
