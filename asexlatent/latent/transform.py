"""The mixture transform: each continuous column as a component and a standardised residual.

Section 3.1 of the method: every scalar column is described by a Gaussian mixture of up to K
components, a value x by the component k it belongs to and ``r = (x - mean_k) / scale_k``. The
inverse ``x = mean_k + scale_k r`` is exact. Where gradients have to pass, component
*probabilities* take the place of k (`MixtureTransform.values`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MODES = ("hard", "straight_through", "soft")

_SMALLEST_SHARE = 0.005  # components with less weight are left out, as in CTGAN
_SMALLEST_SCALE = 1e-4  # a column that hardly varies still has a residual of sensible size
_MOST_SAMPLES = 5000  # more do not change a one-dimensional mixture, but its fit takes longer


@dataclass(frozen=True, eq=False)
class MixtureTransform:
    """Gaussian mixtures of C columns with up to K components each.

    Attributes
    ----------
    columns : tuple of str
        Names, C of them.
    means, scales : (C, K)
        Of the components; where a column has fewer than K, mean 0 and scale 1.
    weights : (C, K)
        Shares of the components, 0 where there is none. Each row adds up to 1.
    """

    columns: tuple[str, ...]
    means: NDArray[np.float64]
    scales: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        values: NDArray[np.float64],
        mask: NDArray[np.bool_],
        columns: Sequence[str],
        max_components: int = 10,
        seed: int = 0,
        concentration: float = 10.0,
    ) -> MixtureTransform:
        """Fit one Bayesian Gaussian mixture (scikit-learn) per column.

        Parameters
        ----------
        values, mask : (n, C)
            Data, and where they mean something: nothing else is looked at.
        columns : C names.
        max_components : K.
        seed : of the initial guess and of the choice of samples from very long columns.
        concentration : of the Dirichlet prior of the weights. A small one leaves few wide
            components, and a coordinate with one wide component is predicted as its mean; a large
            one keeps K narrow ones, between which the decoder can choose.
        """
        means = np.zeros((len(columns), max_components))
        scales, weights = np.ones_like(means), np.zeros_like(means)
        for column in range(len(columns)):
            sample = values[mask[:, column], column]
            found = _fit_column(sample, max_components, (seed, column), concentration)
            for target, part in zip((means, scales, weights), found, strict=True):
                target[column, : len(part)] = part
        return cls(tuple(columns), means, scales, weights)

    @property
    def n_components(self) -> int:
        """K, the largest number of components of a column."""
        return self.means.shape[1]

    def forward(self, values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Most probable component (n, C) of each value (n, C), and its residual (n, C)."""
        component = np.empty(values.shape, dtype=np.int64)
        with np.errstate(divide="ignore"):
            prior = np.log(self.weights) - np.log(self.scales)
        for column in range(values.shape[1]):  # column by column: (n, C, K) may be large
            z = (values[:, column, None] - self.means[column]) / self.scales[column]
            component[:, column] = np.argmax(prior[column] - z**2 / 2, axis=1)
        mean, scale = self._of(component)
        return component, (values - mean) / scale

    def inverse(
        self, component: NDArray[np.int64], residual: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Values (n, C) of components and residuals (n, C), the exact inverse of `forward`."""
        mean, scale = self._of(component)
        return mean + scale * residual

    def _of(self, component: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
        place = np.arange(len(self.columns))
        return self.means[place, component], self.scales[place, component]

    def values(self, logits: Tensor, residuals: Tensor, mode: str = "hard") -> Tensor:
        """Differentiable inverse, shape (B, C).

        Parameters
        ----------
        logits : Tensor, shape (B, C, K)
            Of the components; -inf (or very negative) where a column has none.
        residuals : Tensor, shape (B, C, K)
            Residual that belongs to each component.
        mode : str
            "hard": the most probable component; no gradient reaches the logits.
            "soft": the mean over the component probabilities; smooth, but between modes.
            "straight_through": the value of "hard" with, for the logits, the gradient of "soft"
            (Bengio, Leonard and Courville, arXiv:1308.3432).
        """
        if mode not in MODES:
            raise ValueError(f"mode must be {', '.join(MODES)}, not {mode!r}")
        means = torch.as_tensor(self.means, dtype=residuals.dtype, device=residuals.device)
        scales = torch.as_tensor(self.scales, dtype=residuals.dtype, device=residuals.device)
        each = means + scales * residuals
        if mode == "hard":
            return each.gather(2, logits.argmax(dim=2, keepdim=True))[..., 0]
        share = torch.softmax(logits, dim=2)
        if mode == "straight_through":
            top = torch.zeros_like(share).scatter_(2, share.argmax(dim=2, keepdim=True), 1.0)
            share = top + (share - share.detach())
        return (share * each).sum(dim=2)

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        """Arrays for storage."""
        return {"means": self.means, "scales": self.scales, "weights": self.weights}

    @classmethod
    def from_tensors(cls, columns: Sequence[str], tensors: dict[str, Any]) -> MixtureTransform:
        """Rebuild from `tensors`."""
        means, scales, weights = (
            np.array(tensors[name], dtype=float) for name in ("means", "scales", "weights")
        )
        if not len(columns) == len(means) == len(scales) == len(weights):
            raise ValueError("the mixtures do not fit the columns")
        return cls(tuple(columns), means, scales, weights)


def _fit_column(
    values: NDArray[np.float64],
    max_components: int,
    seed: tuple[int, int],
    concentration: float,
) -> tuple[NDArray, NDArray, NDArray]:
    """Means, scales and weights of the components worth having, in ascending order of means."""
    if len(values) == 0:
        return np.zeros(1), np.ones(1), np.ones(1)
    different = len(np.unique(np.round(values, 6)))
    if different < 4 or len(values) < 8:
        return np.array([values.mean()]), np.array([_floor(values.std())]), np.ones(1)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import BayesianGaussianMixture

    rng = np.random.default_rng(seed)
    if len(values) > _MOST_SAMPLES:
        values = rng.choice(values, _MOST_SAMPLES, replace=False)
    mixture = BayesianGaussianMixture(
        n_components=min(max_components, different // 2),
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=concentration,
        # Unlike the defaults (the variance of the whole column), these do not widen components
        # that hold few of the values.
        covariance_prior=np.array([[values.var() / max_components**2]]),
        mean_precision_prior=0.01,
        init_params="k-means++",
        max_iter=100,
        reg_covar=_SMALLEST_SCALE**2,
        random_state=int(rng.integers(2**31)),
    )
    with warnings.catch_warnings():
        # A mixture that has not quite converged serves as well: the transform is exact with any.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(values[:, None])
    kept = np.flatnonzero(mixture.weights_ > _SMALLEST_SHARE)
    kept = kept[np.argsort(mixture.means_[kept, 0], kind="stable")]
    weights = mixture.weights_[kept] / mixture.weights_[kept].sum()
    scales = _floor(np.sqrt(mixture.covariances_[kept, 0, 0]))
    return mixture.means_[kept, 0], scales, weights


def _floor(scales: Any) -> Any:
    return np.maximum(scales, _SMALLEST_SCALE)
