"""deploy/: what Docker Compose and Ray's launcher would refuse, and what must never stand in a file."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.places import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
STACK = yaml.safe_load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service["restart"] == "on-failure"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SECRET = re.compile(r"password|secret|token|key", re.IGNORECASE)
# The keys of the compose specification that are used, by where they stand.
TOP_KEYS = {"name", "services", "networks", "volumes"}
SERVICE_KEYS = {
    "image", "build", "restart", "networks", "command", "environment", "ports", "healthcheck", "depends_on", "volumes",
    "shm_size", "working_dir", "user", "scale", "profiles", "deploy",
}  # fmt: skip
CHECK_KEYS = {"test", "interval", "timeout", "retries", "start_period"}


def _example() -> dict[str, str]:
    """The variables of .env.example, those that are commented out too."""
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"(?:# )?([A-Z0-9_]+)=(\S*)", line) for line in lines]
    return {line[1]: line[2] for line in found if line}


def test_the_file_has_only_keys_of_the_compose_specification() -> None:
    assert {key for key in STACK if not key.startswith("x-")} == TOP_KEYS
    for name, service in SERVICES.items():
        assert set(service) <= SERVICE_KEYS, name
        assert set(service.get("healthcheck", {})) <= CHECK_KEYS, name


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_restarts_and_is_watched(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+[\w.-]*$", service["image"]), "an exact tag"
    assert service["restart"] in ("unless-stopped", "on-failure")
    assert name in ONE_SHOT or service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_healthy_ones_that_exist(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        assert wanted["condition"] == ("service_completed_successfully" if other in ONE_SHOT else "service_healthy")


@pytest.mark.parametrize("name", SERVICES)
def test_the_networks_volumes_and_files_of_a_service_are_there(name: str) -> None:
    service = SERVICES[name]
    assert set(service["networks"]) <= set(STACK["networks"])
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (DEPLOY / source).exists() if source.startswith((".", "/")) else source in STACK["volumes"]
    if "build" in service:
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_only_mlflow_and_the_dashboard_are_published_and_to_this_machine_unless_told() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"mlflow": ["${PUBLISH_ADDRESS:-127.0.0.1}:5000:5000"], "dashboard": ["127.0.0.1:8080:8080"]}


def test_the_store_is_reached_by_mlflow_alone() -> None:
    reached = {name for name, service in SERVICES.items() if "artifacts" in service["networks"]}
    assert reached == {"store", "bucket", "mlflow"}


def test_who_sees_the_checkout_does_not_see_its_secrets() -> None:
    """`deploy/.env` belongs to the owner of the checkout, whom the Ray nodes run as."""
    seen = {name: service["volumes"] for name, service in SERVICES.items() if "..:/work" in service.get("volumes", [])}
    assert set(seen) == {"ray-head", "ray-worker", "ray-gpu-worker"}
    assert all("/dev/null:/work/deploy/.env:ro" in volumes for volumes in seen.values())


@pytest.mark.parametrize(
    ("secret", "services"),
    [
        ("MLFLOW_ADMIN_PASSWORD", {"mlflow", "tuner"}),
        ("TUNER_PASSWORD", {"tuner", "ray-head"}),
        ("OPTUNA_DB_PASSWORD", {"postgres", "studies", "dashboard", "ray-head"}),
        ("RAY_AUTH_TOKEN", {"ray-head", "ray-worker", "ray-gpu-worker"}),
    ],
)
def test_a_secret_is_given_to_those_alone_who_use_it(secret: str, services: set[str]) -> None:
    """Trials run on the workers; a search's own process, on the head, talks to MLflow and to the study."""
    assert {name for name, service in SERVICES.items() if f"${{{secret}:" in str(service["environment"])} == services


def test_no_secret_stands_in_a_file_and_none_has_a_default() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert re.fullmatch(r"\$\{\w+:\?set it in deploy/\.env\}|token", value), (name, variable)
        assert not re.search(r"//\w+:[^@/\s]+@", " ".join(service.get("command", []))), "a password in a URI"
    assert not any(value for name, value in _example().items() if SECRET.search(name))


def test_every_variable_is_in_the_example_and_the_other_way_round() -> None:
    assert set(re.findall(r"\$\{(\w+)", COMPOSE)) == set(_example())


def test_make_env_fills_every_empty_place_at_random_and_overwrites_nothing(tmp_path: Path) -> None:
    written = []
    for folder in (tmp_path / "a" / "deploy", tmp_path / "b" / "deploy"):
        folder.mkdir(parents=True)
        for name in ("make_env", ".env.example"):
            shutil.copy(DEPLOY / name, folder / name)
        subprocess.run([folder / "make_env"], check=True, stdout=subprocess.DEVNULL)
        assert (folder / ".env").stat().st_mode & 0o077 == 0
        lines = (folder / ".env").read_text().splitlines()
        written.append(dict(line.split("=", 1) for line in lines if line and not line.startswith("#")))
    one, other = written
    assert set(one) == {name for name, value in _example().items() if not value}
    assert all(len(value) >= 44 for name, value in one.items() if name != "CHECKOUT_OWNER")
    assert {name for name in one if one[name] == other[name]} == {"CHECKOUT_OWNER"}
    assert subprocess.run([folder / "make_env"], capture_output=True, check=False).returncode == 1


def _options(program: str) -> set[str]:
    """Of the installed `mlflow server`, `ray start` and `optuna-dashboard`."""
    if program == "optuna-dashboard":
        asked = [Path(sys.executable).with_name(program), "--help"]
        text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        return set(re.findall(r"(?<![\w-])--[a-z-]+", text))
    if program == "mlflow":
        from mlflow.cli import cli

        command = cli.commands["server"]
    else:
        from ray.scripts.scripts import start as command
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("service", ["mlflow", "dashboard", "ray-head", "ray-worker"])
def test_the_options_of_a_command_are_those_of_the_installed_program(service: str) -> None:
    program, *arguments = SERVICES[service]["command"]
    given = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
    assert given <= _options(program)


def test_the_image_is_of_this_version_and_made_of_groups_that_there_are() -> None:
    images = {service["image"] for service in SERVICES.values() if "build" in service}
    assert images == {f"wertune:{PROJECT['project']['version']}"}
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    sync = re.search(r"uv sync --frozen .*", dockerfile)[0]  # type: ignore[index]
    assert set(re.findall(r"--group (\S+)", sync)) <= set(PROJECT["dependency-groups"])
    assert set(re.findall(r"--extra (\S+)", sync)) <= set(PROJECT["project"]["optional-dependencies"])
    assert all(re.search(r":v?\d+\.\d+\.\d+", image) for image in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    for copied in re.findall(r"deploy/[\w.]+", dockerfile):
        assert (ROOT / copied).is_file()
        assert f"!{copied}\n" in (DEPLOY / "Dockerfile.dockerignore").read_text() or copied == "deploy/compose.yaml"


def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    probe = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False) if _docker() else None
    if probe is None or probe.returncode:
        pytest.skip("`docker compose` is not installed")
    env = tmp_path / ".env"
    env.write_text("".join(f"{name}=1000\n" for name, value in _example().items() if not value))
    command = [
        "docker",
        "compose",
        "--profile",
        "gpu",
        "--env-file",
        env,
        "-f",
        DEPLOY / "compose.yaml",
        "config",
        "-q",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _docker() -> bool:
    return shutil.which("docker") is not None


def test_ray_takes_its_cluster_file() -> None:
    """As `ray up` reads it: filled in with the provider's defaults, then checked against Ray's own schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(cluster))
    with pytest.raises(Exception, match="no_such_key"):
        validate_config(prepare_config(cluster | {"no_such_key": 1}))
    for command in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in cluster[command][-1]
        assert "ray.env" not in cluster[command][-1]
    # What is mounted, the checkout included, goes to every node; the sign-in is for the head.
    assert set(cluster["file_mounts"]) == {"~/wertune", "~/.ray/auth_token"}
    assert {"deploy/.env", "deploy/.env.new"} <= set(cluster["rsync_exclude"])
