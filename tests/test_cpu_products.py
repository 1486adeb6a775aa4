"""Linear layers through oneDNN: the numbers and the memory of torch's own, wherever they are taken."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qa.cpu import products
from qa.cpu.products import OneDnnLinear, onednn_is_faster

needs_operator = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch has no oneDNN",
)


def pair(*sizes: int, bias: bool = True) -> tuple[nn.Linear, OneDnnLinear]:
    """The same weights in torch's layer and in ours."""
    torch.manual_seed(0)
    plain = nn.Linear(*sizes, bias=bias)
    ours = OneDnnLinear(*sizes, bias=bias)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def outcome(layer: nn.Module, states: Tensor) -> list[Tensor]:
    states = states.clone().requires_grad_()
    output = layer(states)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    (output * weights).sum().backward()
    return [output.detach(), states.grad, *(parameter.grad for parameter in layer.parameters())]  # type: ignore[list-item]


@needs_operator
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((24, 40), (7, 24)), ((40, 24), (2, 5, 40)), ((16, 2), (1, 33, 16)), ((8, 8), (8,)), ((1, 3), (4, 1))],
)
def test_outputs_and_gradients_are_those_of_torchs_layer(
    sizes: tuple[int, int], shape: tuple[int, ...], bias: bool
) -> None:
    states = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    plain, ours = pair(*sizes, bias=bias)
    torch.testing.assert_close(outcome(ours, states), outcome(plain, states))


@needs_operator
def test_transposed_states_and_no_states_at_all() -> None:
    plain, ours = pair(6, 4)
    states = torch.randn(6, 9, generator=torch.Generator().manual_seed(2)).t()
    assert not states.is_contiguous()
    torch.testing.assert_close(outcome(ours, states), outcome(plain, states))
    assert ours(torch.zeros(0, 6)).shape == (0, 4)


@needs_operator
def test_frozen_weights_keep_no_states_for_the_backward_pass() -> None:
    """What parameter-efficient tuning saves must not be lost again."""
    _, ours = pair(6, 4)
    kept: list[tuple[int, ...]] = []

    def look(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    def shapes(states: Tensor) -> list[tuple[int, ...]]:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
            output = ours(states)
        output.sum().backward()
        return sorted(kept)

    states = torch.randn(5, 6)
    assert shapes(states) == [(5, 6)]
    assert shapes(states.clone().requires_grad_()) == [(4, 6), (5, 6)]
    ours.weight.requires_grad_(False)
    assert shapes(states.clone().requires_grad_()) == [(4, 6)]
    assert shapes(states) == []
    assert ours.weight.grad is not None  # of the first two


@needs_operator
@pytest.mark.parametrize("case", ["double", "autocast", "compiled"])
def test_what_is_not_its_business_goes_torchs_way(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("not here")

    plain, ours = pair(6, 4)
    states = torch.randn(5, 6)
    monkeypatch.setattr(products, "_product", refuse)
    with pytest.raises(AssertionError, match="not here"):
        ours(states)
    if case == "double":
        assert torch.equal(ours.double()(states.double()), plain.double()(states.double()))
    elif case == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ours(states), plain(states))
    else:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert torch.equal(ours(states), plain(states))


@needs_operator
def test_one_step_of_an_optimiser_moves_the_weights_as_before() -> None:
    moved = []
    for layer in pair(6, 4):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        layer(torch.arange(12.0).view(2, 6)).square().sum().backward()
        optimizer.step()
        moved.append(layer.state_dict())
    torch.testing.assert_close(dict(moved[1]), dict(moved[0]))


@needs_operator
def test_a_layer_is_copied_and_saved_like_any_other() -> None:
    plain, ours = pair(6, 4)
    assert set(ours.state_dict()) == set(plain.state_dict())
    assert isinstance(copy.deepcopy(ours), OneDnnLinear)


# Products of ever other sizes, and by how much the process grows after the first hundred.
GROWTH = """
import os, sys
import torch
from qa.cpu.products import OneDnnLinear, keep_few_kernels

if sys.argv[1] == "few":
    keep_few_kernels()
layer = OneDnnLinear(384, 384)
pages = lambda: int(open("/proc/self/statm").read().split()[1])
for rows in range(500, 800):
    if rows == 600:
        before = pages()
    layer(torch.ones(rows, 384)).sum().backward()
print((pages() - before) * os.sysconf("SC_PAGE_SIZE"))
"""


@needs_operator
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_every_new_size() -> None:
    def growth(kept: str) -> int:
        command = [sys.executable, "-c", GROWTH, kept]
        environment = {name: value for name, value in os.environ.items() if name not in products.KERNELS_KEPT}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert growth("few") < 0.25 * growth("all")


def test_the_users_own_number_of_kernels_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = products.KERNELS_KEPT
    monkeypatch.delenv(first, raising=False)
    monkeypatch.setenv(second, "7")
    products.keep_few_kernels()
    assert (os.environ[first], os.environ[second]) == ("64", "7")


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("GenuineIntel", "AVX512", False),  # MKL is made for it
        ("AuthenticAMD", "AVX2", False),  # MKL has kernels for it
        ("", "AVX512", False),
    ],
)
@needs_operator
def test_which_cpus_gain(
    vendor: str, capability: str, expected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "cpuinfo"
    lines = ["processor\t: 0", *([f"vendor_id\t: {vendor}"] if vendor else []), "model name\t: x"]
    told.write_text("\n".join(lines))
    monkeypatch.setattr(products, "Path", lambda name: told)
    monkeypatch.setattr(products.sys, "platform", "linux")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster() is expected
    finally:
        onednn_is_faster.cache_clear()
