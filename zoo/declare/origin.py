"""Steps in which the values of a model came about, from published weights to the last training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """One step.

    Attributes:
        step: ``weights`` (published, or of a file), ``random`` (values that nothing was read into), ``own`` (a network of the user's),
            ``fit`` (a run, of whatever objective), or ``mean`` (of several models).
        name: The backbone; of a run its recipe, and its objective where that is not the labels' alone.
        source: Where the weights were read, or the name of the training data, without the folders above it.
        license: Licence of the weights.
        samples: Number of training samples.
        sha256: Digest of the weights' file where it is declared, or of the training data.
    """

    step: str
    name: str
    source: str = ""
    license: str = ""
    samples: int = 0
    sha256: str = ""

    def __str__(self) -> str:
        licence = f" ({self.license})" if self.license else ""
        words = {
            "weights": f"weights of {self.name} from {self.source}{licence}",
            "random": f"random values of {self.name}",
            "own": f"{self.name}, a network of the user's own",
            "fit": f"trained by {self.name} on {self.samples:,} samples of {self.source}",
            "mean": f"mean with {self.name}",
        }
        return words.get(self.step, f"{self.step}: {self.name}")
