"""Where a trial may run: on GPUs, and beside them only where no GPU could have to wait for it."""

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.errors import ConfigError
from wertune.search import driver
from wertune.search.driver import cluster
from wertune.search.places import NODE_ID_LABEL, Slots, trial_resources
from wertune.search.search_space import SearchConfig

SPACE = {"train.learning_rate": {"low": 1e-4, "high": 1e-3}}


def _config(gpus_per_trial: float | str = "auto", cpus_per_trial: int = 1, workers: int = 1) -> SearchConfig:
    given = {"gpus_per_trial": gpus_per_trial, "cpus_per_trial": cpus_per_trial, "workers_per_trial": workers}
    return SearchConfig.model_validate({"space": SPACE, **given})


def _node(name: str, cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})
    return {"NodeID": name, "Alive": alive, "Resources": resources}


GPU_NODE, CPU_NODE = _node("a1", 8, 2), _node("b2", 4)

node_lists = st.lists(st.tuples(st.integers(0, 16), st.integers(0, 4), st.booleans()), max_size=6).map(
    lambda nodes: [_node(f"{number:x}", cpus, gpus, alive) for number, (cpus, gpus, alive) in enumerate(nodes)]
)
configs = (
    st.builds(_config, st.sampled_from(["auto", 0.0, 0.25, 0.3, 1.0]), st.integers(1, 4))
    | st.builds(_config, st.sampled_from(["auto", 0.0]), st.integers(1, 4), st.integers(1, 4))
    | st.builds(_config, st.sampled_from([2.0, 3.0]), st.integers(1, 4))
)


def test_a_mixed_fleet_has_both_kinds_and_keeps_slow_trials_off_the_nodes_with_gpus() -> None:
    gpu, cpu = trial_resources([CPU_NODE, GPU_NODE], _config(cpus_per_trial=2))
    assert gpu == Slots("gpu", {"GPU": 1.0, "CPU": 2.0}, 2, {})
    assert cpu == Slots("cpu", {"CPU": 2.0}, 2, {NODE_ID_LABEL: "!in(a1)"})


def test_one_kind_of_node_needs_no_label() -> None:
    assert trial_resources([CPU_NODE], _config()) == (Slots("cpu", {"CPU": 1.0}, 4, {}),)
    assert trial_resources([GPU_NODE], _config()) == (Slots("gpu", {"GPU": 1.0, "CPU": 1.0}, 2, {}),)


def test_a_number_is_taken_at_its_word() -> None:
    (shared,) = trial_resources([GPU_NODE, CPU_NODE], _config(0.5))
    assert (shared.kind, shared.count) == ("gpu", 4)
    (none,) = trial_resources([GPU_NODE, CPU_NODE], _config(0))
    assert none == Slots("cpu", {"CPU": 1.0}, 12, {})


def test_what_is_too_much_for_every_node_is_told_with_what_they_have() -> None:
    with pytest.raises(ConfigError, match=r"gpus_per_trial is 4.* 8 CPUs and 2 GPUs, 4 CPUs and 0 GPUs"):
        trial_resources([GPU_NODE, CPU_NODE], _config(4))
    with pytest.raises(ConfigError, match="have no node"):
        trial_resources([_node("a", 8, 1, alive=False)], _config())


def test_workers_of_a_trial_get_a_gpu_each_or_the_cores_of_their_own() -> None:
    assert trial_resources([GPU_NODE, CPU_NODE], _config(2)) == (Slots("gpu", {"GPU": 1.0, "CPU": 1.0}, 1, {}, 2),)
    assert trial_resources([CPU_NODE], _config(0, 2, workers=2)) == (Slots("cpu", {"CPU": 2.0}, 1, {}, 2),)
    gpu, cpu = trial_resources([GPU_NODE, CPU_NODE], _config(workers=2))
    assert (gpu.count, cpu.count) == (1, 2)
    assert gpu.bundles().bundles == [{"GPU": 1.0, "CPU": 1.0}] * 2


@pytest.mark.parametrize(
    ("gpus", "workers", "told"),
    [
        (2.5, 1, "gpus_per_trial is 2.5, but above one it must be whole"),
        (0.25, 2, "workers_per_trial is 2 and gpus_per_trial is 0.25, but each worker has a GPU of its own"),
        (4, 2, "workers_per_trial is 2 and gpus_per_trial is 4, but each worker has a GPU of its own; set gpus_per_tr"),
        (-1, 1, "greater than or equal to 0"),
    ],
)
def test_workers_without_a_whole_gpu_are_refused(gpus: float, workers: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        _config(gpus, workers=workers)


@given(node_lists, configs)
def test_as_many_trials_as_there_are_slots_fit_the_nodes(nodes: list[dict[str, Any]], config: SearchConfig) -> None:
    try:
        kinds = trial_resources(nodes, config)
    except ConfigError:
        return
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    assert [slots.kind for slots in kinds] == sorted((slots.kind for slots in kinds), reverse=True)
    for slots in kinds:
        allowed = [r for r in alive if not (slots.labels and r.get("GPU"))]
        fit = 0
        for resources in allowed:
            share, cpus = slots.resources.get("GPU", 0.0), slots.resources["CPU"]
            while cpus <= resources["CPU"] and _has_gpu(resources, share):
                resources = _after(resources, share, cpus)
                fit += 1
        assert fit // config.workers == slots.count > 0
        assert len(slots.bundles().bundles) == slots.workers == config.workers


def _has_gpu(resources: dict[str, float], share: float) -> bool:
    """Whether one GPU has the share free, or enough whole ones are; each GPU's use is kept by its number."""
    if share == 0:
        return True
    used = _used(resources)
    if share >= 1:
        return sum(u == 0 for u in used) >= share
    return any(u + share <= 1 + 1e-9 for u in used)


def _used(resources: dict[str, float]) -> list[float]:
    return [resources.get(f"used {number}", 0.0) for number in range(int(resources.get("GPU", 0)))]


def _after(resources: dict[str, float], share: float, cpus: float) -> dict[str, float]:
    """What is left of the node after one more trial."""
    left, wanted = dict(resources), share
    left["CPU"] -= cpus
    for number, used in enumerate(_used(resources)):
        take = min(share, 1.0)
        if wanted > 1e-9 and used + take <= 1 + 1e-9:
            left[f"used {number}"] = used + take
            wanted -= take
    return left


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "[::1]:9"])
def test_a_cluster_that_does_not_answer_is_told_at_once(address: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"but no Ray answers there .*; start one with `ray start --head`"),
        cluster(address, _config()),
    ):
        pass


def test_a_cluster_that_does_not_take_this_machine_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray says the same of a token that is missing and of a machine that is no node."""

    def refuse(**options: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(driver.ray, "init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        told = f"`ray start --address={address} --num-cpus=0 --num-gpus=0` .* set RAY_AUTH_MODE=token"
        with pytest.raises(ConfigError, match=told), cluster(address, _config()):
            pass
    with pytest.raises(ConfigError, match="start one with `ray start --head`"), cluster("auto", _config()):
        pass
