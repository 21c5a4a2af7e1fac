"""Class-balanced logistic regression with an L2 penalty: many small problems at once, or one large.

    minimise  1/2 |w|^2 + C sum_i s_i log(1 + exp(-y_i (w . x_i + b))),   s_i = n / (2 n_class(i))

over standardised columns x, y = +-1: scikit-learn's objective with `class_weight="balanced"`. Damped
Newton steps, batched over problems; few columns make the systems tiny. The same code runs on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from workbench.errors import ModelError

__all__ = ["Fit", "Scale", "balanced", "fit_columns", "fit_each", "fit_supports"]

CLOSE = 1e-10  # of the Newton decrement, before a last step, which about squares the distance
ROUNDING = 1e-14  # of the objective: a step that changes it by less neither helps nor harms
MOST_STEPS, MOST_HALVINGS = 100, 40
ELEMENTS = 2**21  # of the columns of problems that are solved together
TOGETHER = 2**18  # the same where k is 1: few enough to stay in a processor's cache
FAST_STEPS, EXACT_STEPS = 12, 4
NEAR = 1e-6  # of a float32 decrement, for each example
LARGE = 64  # columns from which on scikit-learn is as fast


@dataclass(frozen=True)
class Scale:
    """Means and standard deviations of columns, of the examples a probe is fitted on.

    Attributes:
        mean, spread: [units]; a spread of 0 makes a column 0, so that its weight is 0.
    """

    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, acts: Tensor) -> Scale:
        """Of [n, units] activations, in float64.

        Raises:
            ModelError: an activation is NaN or infinite.
        """
        wide = acts.double()
        if not wide.isfinite().all():
            raise ModelError("activations that are not finite: the dtype overflows; try float32")
        shift = wide[0]
        mean, spread = (wide - shift).mean(0), (wide - shift).std(0, correction=0)
        return cls(mean + shift, spread)

    def __call__(self, acts: Tensor) -> Tensor:
        """[n, units] standardised, float64."""
        usable = self.spread > 0
        return torch.where(
            usable, (acts.double() - self.mean) / torch.where(usable, self.spread, 1.0), 0.0
        )


@dataclass(frozen=True)
class Fit:
    """Logistic regressions over standardised columns.

    Attributes:
        weight: [..., k]; bias: [...]; loss: [...] the objective at the minimum.
    """

    weight: Tensor
    bias: Tensor
    loss: Tensor


def balanced(labels: Tensor) -> Tensor:
    """[n] weights n / (2 n_class) of 0/1 labels, so that both classes weigh the same."""
    has = labels.bool()
    each = len(labels) / (2 * torch.stack([(~has).sum(), has.sum()]).double())
    return each[has.long()]


def fit_columns(
    columns: Tensor, labels: Tensor, *, c: float = 1.0, weights: Tensor | None = None
) -> Fit:
    """One regression for each of P sets of columns.

    Args:
        columns: [P, k, n] standardised columns, float64.
        labels: [n] 0 and 1.
        c: C of the objective.
        weights: [n] s_i; those of `balanced` where None.

    Returns:
        A fit with weight [P, k], bias and loss [P].

    Raises:
        ModelError: no minimum was found in 100 steps.
    """
    s = c * (balanced(labels) if weights is None else weights).to(columns)
    sign = 2 * labels.to(columns) - 1
    parts = [_newton(part, sign, s) for part in torch.split(columns, _together(columns))]
    theta, loss = (torch.cat(found) for found in zip(*parts, strict=True))
    return Fit(theta[:, :-1], theta[:, -1], loss)


def fit_each(scaled: Tensor, labels: Tensor, *, c: float = 1.0) -> tuple[Tensor, Tensor]:
    """One regression on each column of [n, units] by itself: k = 1 for every neuron.

    The systems are 2 x 2. Plain Newton steps in float32 come close, steps of a float64 gradient with the
    last curvature the rest of the way; columns on which that fails are solved by `fit_columns`.

    Returns:
        [units] weights, and [units] biases.
    """
    s = c * balanced(labels).to(scaled)
    columns = scaled.T.contiguous()
    step = max(1, TOGETHER // len(labels))
    parts = [_singles(part, labels.to(scaled), s) for part in torch.split(columns, step)]
    weight, bias, decrement = (torch.cat(found) for found in zip(*parts, strict=True))
    if (hard := ~(decrement <= CLOSE**2 * len(labels)).cpu()).any():
        slow = fit_columns(columns[hard, None], labels, c=c)
        weight[hard], bias[hard] = slow.weight[:, 0], slow.bias
    return weight, bias


def _singles(x: Tensor, labels: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[units] weights, biases, and decrements of the last step, of [units, n] columns."""
    want = torch.stack([(s @ labels).expand(len(x)), x @ (s * labels)])
    near = x.float()
    weighted, low = s.float() * near, s.float()
    theta = _first(near, weighted, low, want.float())  # bias, weight
    for _ in range(FAST_STEPS):
        p = torch.sigmoid(torch.addcmul(theta[0, :, None].float(), theta[1, :, None].float(), near))
        gradient = _slope(p, weighted, low, want.float(), theta.float())
        curvature = _curvature(p, near, weighted, low)
        step = _solved(curvature, gradient)
        theta = theta - step
        if ((step * gradient).sum(0) <= NEAR * x.shape[1]).all():
            break
    weighted = s * x
    for _ in range(EXACT_STEPS):
        p = torch.sigmoid(torch.addcmul(theta[0, :, None], theta[1, :, None], x))
        gradient = _slope(p, weighted, s, want, theta)
        step = _solved(curvature.double(), gradient)
        theta, decrement = theta - step, (step * gradient).sum(0).abs()
        if (decrement <= CLOSE**2 * x.shape[1]).all():
            break
    return theta[1], theta[0], decrement


def _first(x: Tensor, weighted: Tensor, s: Tensor, want: Tensor) -> Tensor:
    """[2, units] Newton's step from 0, where every probability is 1/2."""
    first = x @ s
    half, each = torch.stack([s.sum().expand(len(x)), first]) / 2, s.sum().expand(len(x)) / 4
    curvature = torch.stack([each, first / 4, torch.einsum("un,un->u", weighted, x) / 4 + 1])
    return -_solved(curvature, half - want)


def _slope(p: Tensor, weighted: Tensor, s: Tensor, want: Tensor, theta: Tensor) -> Tensor:
    """[2, units] the gradient in bias and weight."""
    return torch.stack([p @ s, torch.einsum("un,un->u", p, weighted) + theta[1]]) - want


def _curvature(p: Tensor, x: Tensor, weighted: Tensor, s: Tensor) -> Tensor:
    """[3, units] second derivatives: bias bias, bias weight, weight weight; overwrites `p`."""
    p.addcmul_(p, p, value=-1)
    first = p @ s
    p.mul_(weighted)
    return torch.stack([first, p.sum(1), torch.einsum("un,un->u", p, x) + 1])


def _solved(curvature: Tensor, gradient: Tensor) -> Tensor:
    """[2, units] the 2 x 2 systems' solutions."""
    a, b, d = curvature.unbind()
    g, h = gradient.unbind()
    return torch.stack([d * g - b * h, a * h - b * g]) / (a * d - b * b)


def fit_supports(
    scaled: Tensor, supports: Tensor, labels: Tensor, *, c: float = 1.0, even: bool = True
) -> Fit:
    """One regression for each row of `supports` [P, k], indices of columns of [n, units].

    From 64 columns on, scikit-learn's newton-cholesky solves them one by one.

    Args:
        even: whether both classes weigh the same; each example does where not, as probabilities need.
    """
    if supports.shape[1] >= LARGE:
        return _large(scaled, supports, labels, c, even)
    weights = balanced(labels) if even else torch.ones(len(labels), dtype=torch.float64)
    step = max(1, ELEMENTS // (supports.shape[1] * len(labels)))
    parts = [
        fit_columns(scaled.T[part], labels, c=c, weights=weights)
        for part in torch.split(supports, step)
    ]
    return Fit(
        torch.cat([p.weight for p in parts]),
        torch.cat([p.bias for p in parts]),
        torch.cat([p.loss for p in parts]),
    )


def _together(columns: Tensor) -> int:
    return max(1, ELEMENTS // (columns[0].numel() or 1))


def _newton(columns: Tensor, sign: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """[P, k + 1] weights and bias, and [P] losses."""
    x = torch.cat([columns, torch.ones_like(columns[:, :1])], dim=1)
    ridge = torch.ones_like(x[0, :, 0])
    ridge[-1] = 0
    theta, z = torch.zeros_like(x[:, :, 0]), torch.zeros_like(x[:, 0])
    loss = _loss(theta, z, sign, s, ridge)
    for _ in range(MOST_STEPS):
        step, decrement = _step(x, theta, z, sign, s, ridge)
        theta, z, loss = _descend(x, theta, z, loss, step, decrement, sign, s, ridge)
        if (decrement <= CLOSE).all():
            return theta, loss
    raise ModelError(f"a probe of {columns.shape[1]} units has no minimum in {MOST_STEPS} steps")


def _loss(theta: Tensor, z: Tensor, sign: Tensor, s: Tensor, ridge: Tensor) -> Tensor:
    return softplus(-sign * z) @ s + (ridge * theta.square()).sum(-1) / 2


def _step(
    x: Tensor, theta: Tensor, z: Tensor, sign: Tensor, s: Tensor, ridge: Tensor
) -> tuple[Tensor, Tensor]:
    """[P, k + 1] Newton's steps H^-1 g, and [P] the decrements g . H^-1 g."""
    p = torch.sigmoid(z)
    gradient = (x @ (s * (p - (sign + 1) / 2))[..., None])[..., 0] + ridge * theta
    hessian = (x * (s * p * (1 - p))[:, None]) @ x.mT + torch.diag(ridge)
    # where every example is certain, the bias has no curvature left in float64: the least of it
    hessian[:, -1, -1] += torch.finfo(x.dtype).tiny
    step = torch.linalg.solve(hessian, gradient)
    return step, (gradient * step).sum(-1)


def _descend(
    x: Tensor,
    theta: Tensor,
    z: Tensor,
    loss: Tensor,
    step: Tensor,
    decrement: Tensor,
    sign: Tensor,
    s: Tensor,
    ridge: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the steps, halved where the loss would not fall (Armijo's rule)."""
    along = (step[:, None] @ x)[:, 0]
    size = torch.ones_like(loss)
    for _ in range(MOST_HALVINGS):
        new_theta, new_z = theta - size[:, None] * step, z - size[:, None] * along
        new = _loss(new_theta, new_z, sign, s, ridge)
        high = new > loss - 1e-4 * size * decrement + ROUNDING * loss
        if not high.any():
            break
        size = torch.where(high, size / 2, size)
    return new_theta, new_z, new


def _large(scaled: Tensor, supports: Tensor, labels: Tensor, c: float, even: bool) -> Fit:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=c,
        class_weight="balanced" if even else None,
        solver="newton-cholesky",
        tol=1e-8,
        max_iter=MOST_STEPS,
    )
    weight, bias = [], []
    for support in supports:
        fitted = model.fit(scaled[:, support].cpu().numpy(), labels.cpu().numpy())
        weight.append(torch.from_numpy(fitted.coef_[0]))
        bias.append(torch.tensor(float(fitted.intercept_[0])))
    theta = torch.stack(weight).to(scaled), torch.stack(bias).to(scaled)
    sign = 2 * labels.to(scaled) - 1
    z = (scaled.T[supports] * theta[0][..., None]).sum(1) + theta[1][:, None]
    ridge = torch.ones_like(theta[0][0])
    weights = balanced(labels).to(scaled) if even else torch.ones_like(sign)
    return Fit(*theta, _loss(theta[0], z, sign, c * weights, ridge))
