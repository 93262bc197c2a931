"""Small modules for the tests."""

from typing import Any

import torch
from torch import nn


class Mlp(nn.Module):
    """Four numbers in, three out."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 8)
        self.out = nn.Linear(8, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        found: torch.Tensor = self.out(torch.relu(self.hidden(x)))
        return found


class Outer(nn.Module):
    """A module that calls another one, and a container."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Mlp()
        self.tail = nn.Sequential(nn.ReLU(), nn.Linear(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two numbers."""
        found: torch.Tensor = self.tail(self.inner(x))
        return found


class Raises(nn.Module):
    """Fails within a nested module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes do not fit."""
        found: torch.Tensor = self.inner(x)
        return found


class Answers(nn.Module):
    """Answers whatever it was given, as it is."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answer = answer

    def forward(self, x: Any) -> Any:
        """The answer."""
        return self.answer


def softmax_net(classes: int = 3) -> nn.Sequential:
    """A classifier that says so itself: its last layer is a softmax."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, classes), nn.Softmax(-1)).eval()


def conv_net() -> nn.Sequential:
    """A small convolutional classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 15 * 15, 5), nn.Softmax(-1)
    ).eval()
