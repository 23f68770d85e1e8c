"""Registration of the kernels with torch: schema, implementation, meta function and autograd of one op.

Through ``torch.library.define`` and not ``torch.library.custom_op``: the wrapper of the latter imports torch's compiler
at the first call, which took 1.1 s of the 1.9 s until then (torch 2.13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "gigascope"


class Op:
    """One op of the namespace, ready to receive its meta function and its gradient."""

    def __init__(self, name: str, schema: str, function: Callable[..., Any]) -> None:
        self.name = f"{NAMESPACE}::{name}"
        torch.library.define(self.name, schema)
        arguments = getattr(getattr(torch.ops, NAMESPACE), name).default._schema.arguments
        written = [i for i, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write]
        torch.library.impl(self.name, "default", _counting_versions(function, written) if written else function)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Give the op its meta function: shapes and dtypes of the results without their values."""
        torch.library.register_fake(self.name, function)
        return function

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., Any]) -> None:
        """Give the op its gradient."""
        torch.library.register_autograd(self.name, backward, setup_context=setup_context)


def define(name: str, schema: str) -> Callable[[Callable[..., Any]], Op]:
    """Make the decorated function the implementation of ``gigascope::name`` on every device."""

    def decorate(function: Callable[..., Any]) -> Op:
        return Op(name, schema, function)

    return decorate


def _counting_versions(function: Callable[..., Any], written: list[int]) -> Callable[..., Any]:
    """Tell autograd which arguments the op wrote, so that a saved tensor that was overwritten is noticed."""

    def run(*arguments: Any) -> Any:
        result = function(*arguments)
        tensors: list[Tensor] = [arguments[i] for i in written]
        torch.autograd.graph.increment_version([tensor for tensor in tensors if not tensor.is_inference()])
        return result

    return run
