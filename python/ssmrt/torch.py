"""Models as PyTorch modules. Needs torch."""

from __future__ import annotations

import torch

from . import checks
from .model import Model


class Module(torch.nn.Module):
    """`model` where PyTorch wants a module: tensors in and out, run on the CPU without gradients.

    Takes u (batch, length, d_input) or (length, d_input), or tokens (batch, length), on any device, and answers there,
    in the model's dtype. It pickles with `torch.save` as a whole; it has no parameters that could be trained. Raises
    TypeError and ValueError where an argument is of another kind, or where a tensor needs gradients.

    >>> import torch
    >>> ssmrt.torch.Module(model)(torch.zeros(2, 100, model.d_input)).shape
    torch.Size([2, 10])
    """

    def __init__(self, model: Model, *, rate: float = 1.0):
        super().__init__()
        self.model = checks.instance("model", model, Model, "a model")
        self.rate = checks.positive("rate", rate)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Answer whole sequences."""
        if u.requires_grad and torch.is_grad_enabled():
            raise TypeError("u: expected a tensor without gradients: ssmrt runs models and does not train them")
        return torch.from_numpy(self.model(u.detach().cpu().numpy(), rate=self.rate)).to(u.device)

    def extra_repr(self) -> str:
        """What `repr` says of it."""
        return repr(self.model)
