"""Operations that make the host wait for a GPU, counted on a CPU."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class AsksTheDevice(TorchDispatchMode):
    """Counts operations whose result has to travel from the device to Python."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select")
        self.count += func.name().startswith(waits)
        return func(*args, **(kwargs or {}))
