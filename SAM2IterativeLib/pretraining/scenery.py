"""What a generated volume shows beside the structures that can be asked for: as unlabelled anatomy, in place along the slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .anatomy import STRUCTURES, Anatomy, label_volumes, sample_anatomy, uniform, vary
from .appearance import Appearance, Backdrop


@dataclass(frozen=True)
class Scenery:
    """Structures that are seen and never asked for, as most of what a real scan shows.

    Attributes:
        anatomy: where they are. means: (B, S) their intensities. shown: (B,) bool, the volumes that have any.
    """

    anatomy: Anatomy
    means: torch.Tensor
    shown: torch.Tensor

    def varied(self, generator: torch.Generator) -> Scenery:
        """What another individual shows of the same kind."""
        return replace(self, anatomy=vary(self.anatomy, generator))

    def backdrop(self, positions: torch.Tensor, shifts: torch.Tensor, side: int) -> Backdrop:
        """Slices of it; the arguments are those of ``anatomy.label_volumes``."""
        labels = label_volumes(self.anatomy, positions, shifts, side)
        there = self.shown[:, None, None, None] & (labels < STRUCTURES)
        return Backdrop(torch.where(there, labels, torch.zeros_like(labels)), self.means)


def sample_scenery(generator: torch.Generator, look: Appearance, share: float) -> Scenery:
    """Draw scenery for about ``share`` of the volumes of ``look``; half of it has the intensity of a labelled structure."""
    b = len(look.blur)
    means = uniform(generator, 0.05, 0.95, b, STRUCTURES)
    like = torch.randint(1, STRUCTURES, (b, STRUCTURES), generator=generator, device=generator.device)
    alike = torch.rand(b, STRUCTURES, generator=generator, device=generator.device) < 0.5
    means = torch.where(alike, look.means[..., 0].gather(1, like), means)
    return Scenery(sample_anatomy(generator, b), means, torch.rand(b, generator=generator, device=generator.device) < share)
