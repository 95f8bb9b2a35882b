"""Random values for every parameter and statistic of a network."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def randomise(module: Network, *, scale: float = 0.03) -> Network:
    """Move every value of a network by random numbers, the same each time, so that nothing is hidden behind a zero or a one; in place.

    Running statistics of norms are moved too. The global random numbers are left as they are.

    Args:
        module: The network.
        scale: Standard deviation of what is added to each parameter.

    Returns:
        The network, in eval mode.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * scale)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.randn(buffer.shape, generator=generator) * 0.1)
            elif name.endswith("running_var"):
                buffer.mul_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module.eval()
