"""Settings of a training run, and the two sets of them that have a name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from asexlatent.latent.networks import NetworkSettings


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides the outcome of a training, beside the data.

    Parameters
    ----------
    network : sizes of the autoencoder.
    components : K, mixture components per continuous column at most.
    concentration : of the Dirichlet prior of the mixtures; small values leave few components.
    max_sites : slots of a row.
    epochs : passes over the data at most.
    batch : rows per step.
    learning_rate, weight_decay : of AdamW; the rate falls along half a cosine.
    kl_weight : weight of the KL term at the end of the warm-up; 1 gives the evidence lower bound.
    kl_warmup : share of the epochs over which that weight rises from 0.
    held_out : share of the parents held out for the early stop.
    patience : epochs without a better held-out loss (after the warm-up) before stopping.
    condition_epochs : of the condition model.
    seed : of everything random.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    components: int = 10
    concentration: float = 10.0
    max_sites: int = 8
    epochs: int = 200
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    kl_weight: float = 1.0
    kl_warmup: float = 0.25
    held_out: float = 0.1
    patience: int = 30
    condition_epochs: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("components", "max_sites", "epochs", "batch", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "kl_weight", "kl_warmup", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be from 0 up to 1, not {self.held_out}")

    def kl_weight_at(self, epoch: int) -> float:
        """Weight of the KL term in an epoch, 0 the first."""
        warmup = self.kl_warmup * self.epochs
        return self.kl_weight * (min((epoch + 1) / warmup, 1.0) if warmup else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> TrainingSettings:
        """Rebuild from `to_dict`."""
        return cls(**{**saved, "network": NetworkSettings(**saved["network"])})

    def but(self, **changes: Any) -> TrainingSettings:
        """Return these settings with some changed; sizes of the network by their names too."""
        sizes = set(NetworkSettings.__dataclass_fields__)
        network = replace(self.network, **{k: v for k, v in changes.items() if k in sizes})
        own = {k: v for k, v in changes.items() if k not in sizes}
        return replace(self, network=network, **own)


PRESETS = {
    # With the full weight of the KL term z says next to nothing (2 to 3 nats), and there is nothing
    # left for latent refinement to change; without dropout few rows are learned by heart.
    "small": TrainingSettings(
        network=NetworkSettings(dropout=0.2), epochs=80, kl_weight=0.1, patience=20
    ),
    "paper": TrainingSettings(
        network=NetworkSettings(latent=128, embedding=128, hidden=1024, condition_in_encoder=False),
        epochs=250,
        batch=2048,
    ),
}
"""``small`` trains on two cores in minutes; ``paper`` has the published sizes (section 3.2)."""
