"""Versions of workers against those of the driver."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from bbam_ray.config import RunConfig
from bbam_ray.engine.fingerprint import PACKAGES
from bbam_ray.errors import StartError
from bbam_ray.methods import run_config
from bbam_ray.scale.workers import versions
from bbam_ray.scale.workers.versions import check_versions


@pytest.fixture(autouse=True)
def _on_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray: the process is on node "a"."""
    ray = SimpleNamespace(
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "a"),
        util=SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1"),
    )
    monkeypatch.setattr(versions, "ray", ray)


@pytest.fixture()
def driver(tiny_config: Callable[..., RunConfig]) -> dict[str, str]:
    return versions.versions(tiny_config())


def test_equal_versions_pass_on_every_node(driver: dict[str, str]) -> None:
    check_versions(driver)
    check_versions(driver | {"node": "b"})
    assert set(PACKAGES) < set(driver)


@pytest.mark.parametrize("package", ["bbam-ray", "torch", "pillow"])
def test_a_difference_is_named(driver: dict[str, str], package: str) -> None:
    with pytest.raises(StartError) as caught:
        check_versions(driver | {package: "0.0.1"})
    expected = f"{package} {driver[package]} instead of 0.0.1 as on the driver's node"
    assert (caught.value.node, caught.value.cause) == ("10.0.0.1", expected)


def test_another_build_of_the_same_version_passes(
    driver: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "version", lambda name: f"{driver[name]}+other")
    check_versions(driver)


def test_the_source_is_compared_between_nodes_only(driver: dict[str, str]) -> None:
    changed = driver | {"source of bbam-ray": "12345678"}
    check_versions(changed)  # the same copy, edited while a study runs
    with pytest.raises(StartError, match=r"source of bbam-ray .* instead of 12345678"):
        check_versions(changed | {"node": "b"})


def test_optional_packages_count_where_a_run_needs_them(
    tiny_config: Callable[..., RunConfig], driver: dict[str, str]
) -> None:
    assert not {"timm", "tokenizers", "transformers"} & set(driver)
    timm = versions.versions(run_config({"dataset": "images", "backbone": "timm:resnet18"}, "test"))
    assert set(timm) - set(driver) == {"timm"}
    text = {"dataset": "text", "backbone": "transformer"}
    needed = versions.versions(run_config(text, "test"))
    assert set(needed) - set(driver) == {"tokenizers", "transformers"}
    with pytest.raises(StartError, match="no-such-package missing instead of 1"):
        check_versions(driver | {"no-such-package": "1"})
