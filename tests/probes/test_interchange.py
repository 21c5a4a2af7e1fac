"""Interchanges against plain patching, closed forms, and transformer-lens' own."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import interchange as other

import workbench as wb
from probes.interchange import bootstrap
from probes.interchange.levels import Asked, Level, levels
from probes.interchange.pairs import arbitrary, paired
from probes.interchange.rotation import Fit
from probes.interchange.state import group_of
from probes.interchange.subspaces import (
    axes,
    class_means,
    matched,
    moved,
    other_axes,
    random_basis,
)
from tests.models.bridges import bridge
from tests.models.test_engine import close
from tests.tiny import LAYERS, model

TEXTS = ["The Eiffel Tower", "Rome was", "a b c d e f g h", "xy", "Colosseum is in"]
AT = torch.tensor([4, 3, 0, 1, 8])
BASE, SOURCE = torch.tensor([0, 1, 4, 2, 0]), torch.tensor([1, 0, 3, 4, 2])
WIDE = torch.float64


def asked(family: str, hooked: wb.TorchModel | None = None) -> Asked:
    hooked = hooked or model(family)
    return Asked(hooked, [hooked.encode(wb.Prompt(text)) for text in TEXTS], AT)


def level(family: str, site: str, layer: int) -> Level:
    return next(levels(asked(family), site, [layer]))


def logits(here: Level, rows: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    found = torch.zeros(len(rows), here.asked.model.vocab_size, dtype=here.values.dtype)
    for part, values in here.logits(rows, moves):
        found[part] = values
    return found


SITES = [
    ("gpt2", "resid_post", 0),
    ("gpt2", "resid_pre", 2),
    ("gpt2", "resid_mid", 2),
    ("gpt2", "attn_out", 1),
    ("gpt2", "mlp_act", 2),
    ("gpt2", "mlp_out", 2),
    ("gpt_neox", "mlp_out", 2),
    ("gemma2", "mlp_out", 1),
    ("llama", "resid_post", LAYERS),
]


@pytest.mark.parametrize(("family", "site", "layer"), SITES)
def test_the_whole_state_is_plain_patching(family: str, site: str, layer: int) -> None:
    here, hooked = level(family, site, layer), model(family)
    moves = here.values[SOURCE] - here.values[BASE]
    found = logits(here, BASE, moves)
    for row, (base, source) in enumerate(zip(BASE.tolist(), SOURCE.tolist(), strict=True)):
        place = [int(AT[source])]
        value = hooked.capture(TEXTS[source], [(site, layer)], place)[site, layer]
        edit = wb.Edit.set((site, layer), value, [int(AT[base])])
        patched = hooked.intervene(TEXTS[base], [edit], positions="last")["logits", LAYERS][0]
        torch.testing.assert_close(found[row], patched, **close(family))
    plain = torch.stack(
        [hooked.capture(text, ["logits"], "last")["logits", LAYERS][0] for text in TEXTS]
    )
    still = logits(here, BASE, torch.zeros_like(moves))
    torch.testing.assert_close(still, plain[BASE], **close(family))
    same = logits(here, BASE, here.values[BASE] - here.values[BASE])
    assert torch.equal(same, still)


@pytest.mark.parametrize(
    ("family", "site", "layer"), [("gpt2", "resid_post", 1), ("gpt_neox", "mlp_out", 2)]
)
def test_slopes_are_finite_differences(family: str, site: str, layer: int) -> None:
    here, wanted = level(family, site, layer), torch.tensor([65, 66, 67, 68, 69])
    generator = torch.Generator().manual_seed(0)
    moves, step = (
        torch.randn(5, here.values.shape[1], generator=generator, dtype=WIDE) for _ in range(2)
    )

    def loss(by: float) -> float:
        logprobs = logits(here, BASE, moves + by * step).double().log_softmax(-1)
        return -float(logprobs[torch.arange(5), wanted].sum())

    found, slopes = here.slopes(BASE, moves, wanted)
    # A central difference errs by the square of its size times a third derivative (of order 1 to
    # 100), and by rounding over its size; NeoX's rotary angles are float32.
    size, most = (1e-5, 1e-6) if family == "gpt2" else (1e-3, 1e-3)
    assert found == pytest.approx(loss(0), rel=most)
    slope = (loss(size) - loss(-size)) / (2 * size)
    assert float((slopes * step).sum()) == pytest.approx(slope, rel=most)


def test_subspaces_are_projections() -> None:
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randn(2, 7, 12, generator=generator, dtype=WIDE)
    close64 = {"rtol": 0, "atol": 1e-13}  # sums of a dozen terms of size 1
    nothing, everything = torch.zeros(12, 0, dtype=WIDE), torch.eye(12, dtype=WIDE)
    assert not moved(base, source, nothing).any()
    torch.testing.assert_close(base + moved(base, source, everything), source, **close64)
    assert not moved(base, base, random_basis(12, 5, 0)).any()
    basis = random_basis(12, 5, 0)
    torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=WIDE), **close64)
    once = base + moved(base, source, basis)
    torch.testing.assert_close(moved(once, source, basis), torch.zeros_like(once), **close64)
    rest = everything - basis @ basis.T
    torch.testing.assert_close(once @ rest, base @ rest, **close64)
    chosen = axes(12, [4, 1], base)
    coordinates = base + moved(base, source, chosen)
    torch.testing.assert_close(coordinates[:, [1, 4]], source[:, [1, 4]], **close64)
    assert torch.equal(coordinates[:, [0, 2, 3]], base[:, [0, 2, 3]])
    like = moved(base, source, basis)
    scaled = matched(base, source, random_basis(12, 3, 1), like)
    torch.testing.assert_close(scaled.norm(dim=-1), like.norm(dim=-1), **close64)
    assert not matched(base, base, basis, like).any()
    drawn = other_axes(12, [0, 1, 2], 3)
    assert len(set(drawn)) == 3
    assert not set(drawn) & {0, 1, 2}


def projector(basis: torch.Tensor) -> torch.Tensor:
    return basis @ basis.T


def test_class_means_have_a_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(12, 6, generator=generator, dtype=WIDE)
    classes, kinds = torch.tensor([0, 1, 0, 1, 1, 0] * 2), torch.zeros(12, dtype=torch.int64)
    difference = values[classes == 0].mean(0) - values[classes == 1].mean(0)
    unit = difference / difference.norm()
    found = class_means(values, classes, kinds, 4)
    assert found.shape == (6, 1)
    torch.testing.assert_close(projector(found), torch.outer(unit, unit), rtol=0, atol=1e-13)
    # What all of a kind share is no difference of classes: two kinds far apart add nothing of it.
    far = torch.tensor([0] * 6 + [1] * 6)
    shifted = values + 100 * far[:, None]
    two = class_means(shifted, classes + 2 * far, far, 4)
    assert two.shape == (6, 2)
    torch.testing.assert_close(
        projector(two),
        projector(class_means(values, classes + 2 * far, far, 4)),
        rtol=0,
        atol=1e-10,
    )
    four = torch.tensor([0, 1, 2, 3] * 3)
    theirs = other.mean_difference_basis(values, four.tolist())
    # transformer-lens takes means and directions in float32
    torch.testing.assert_close(
        projector(class_means(values, four, kinds, 5)).float(), projector(theirs), rtol=0, atol=1e-5
    )


@pytest.fixture
def doubles() -> Iterator[None]:
    """transformer-lens draws and keeps a subspace in torch's default type."""
    torch.set_default_dtype(WIDE)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("doubles")
def test_interchange_and_fit_are_those_of_transformer_lens() -> None:
    hooked = bridge("gpt2")
    texts = ["abcdef", "ghijkl", "mnopqr", "stuvwx", "yzabcd", "efghij", "klmnop", "qrstuv"]
    prompts = [hooked.encode(wb.Prompt(text)) for text in texts]
    at = torch.tensor([2, 3, 1, 2, 4, 0, 2, 3])
    mine = Asked(hooked, prompts, at)
    here = next(levels(mine, "resid_post", [2]))
    base, source = torch.arange(8), torch.tensor([3, 0, 1, 2, 7, 4, 5, 6])
    wanted = torch.tensor([65, 66, 67, 68, 69, 70, 71, 72])
    ids = torch.tensor([prompt.ids for prompt in prompts])
    theirs, hook = hooked.bridge, "blocks.1.hook_out"

    def task(tokens: torch.Tensor) -> torch.Tensor:
        return theirs(tokens)[:, -1]

    acts = other.collect_activations(theirs, hook, ids[source], task, positions=at[source])
    torch.testing.assert_close(here.values[source], acts)
    basis = random_basis(here.values.shape[1], 3, 0)
    step = other.SubspaceInterchange(basis)
    expected = other.intervened_logits(
        theirs, hook, step, ids[base], acts, task, positions=at[base]
    )
    own, aside = here.values[base], here.values[source]
    torch.testing.assert_close(
        logits(here, base, moved(own, aside, basis)), expected, **close("gpt2")
    )
    placebo = other.NormMatchedPlacebo(step, random_basis(own.shape[1], 3, 1))
    like = moved(own, aside, basis)
    torch.testing.assert_close(own + matched(own, aside, placebo.basis, like), placebo(own, aside))
    basis, losses = Fit(3, 4, 0.02, 7, batch=4, eps=1e-8).basis(here, base, source, wanted)
    fitted = other.fit_das(
        theirs, hook, ids[base], ids[source], wanted, task,
        rank=3, base_positions=at[base], source_positions=at[source],
        epochs=4, batch_size=4, lr=0.02, seed=7,
    )  # fmt: skip
    # The same seeds and steps: Adam makes at most 0.02 * 1e-16 / 1e-8 of a slope that is rounding.
    np.testing.assert_allclose(losses, fitted.losses, rtol=1e-8)
    torch.testing.assert_close(projector(basis), projector(fitted.basis), rtol=0, atol=1e-8)
    assert losses[-1] < losses[0]


def test_a_rotation_of_the_whole_width_is_the_whole_state() -> None:
    here = level("gpt2", "resid_post", 2)
    wanted = torch.tensor([65, 66, 67, 68, 69])
    basis, _ = Fit(here.values.shape[1], 1, 0.02, 0).basis(here, BASE, SOURCE, wanted)
    own, aside = here.values[BASE], here.values[SOURCE]
    # The parameter is made in float32.
    torch.testing.assert_close(own + moved(own, aside, basis), aside, rtol=0, atol=1e-5)


def test_a_subject_is_one_group_however_it_is_given() -> None:
    hooked = model("gpt2")
    asked = [
        wb.Prompt("abcdefgh", subject="cde", target="x"),
        wb.Prompt("abcdefg", subject=(2, 5), target="x"),
        wb.Prompt("hgfedcba", subject=(2, 5), target="x"),
    ]
    first, again, other = (group_of(hooked.encode(prompt)) for prompt in asked)
    assert first == again == "cde"
    assert other == "fed"


def test_pairs_keep_groups_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    table = {
        "group": torch.randint(30, (200,), generator=generator),
        "kind": torch.randint(2, (200,), generator=generator),
        "target": torch.randint(5, (200,), generator=generator),
    }
    found = paired(table, seed=0, share=0.4, most=50, within="relation")
    held = found.held_out
    sides = [
        set(table["group"][torch.cat([found.base[side], found.source[side]])].tolist())
        for side in (held, ~held)
    ]
    assert not sides[0] & sides[1]
    assert (table["kind"][found.base] == table["kind"][found.source]).all()
    for name in ("group", "target"):
        assert (table[name][found.base] != table[name][found.source]).all()
    assert int(held.sum()) == 50
    assert len(set(found.base.tolist())) == len(found)
    again = paired(table, seed=1, share=0.4, most=50, within="relation")
    assert not torch.equal(again.base, found.base)


def test_arbitrary_targets_are_a_rule_that_gives_neither_answer() -> None:
    known = {0: torch.tensor([3, 5, 8, 9]), 1: torch.tensor([2, 7])}
    kind = torch.tensor([0] * 12 + [1] * 2)
    four = [(a, b) for a in known[0].tolist() for b in known[0].tolist() if a != b]
    base, source = torch.tensor([*four, (2, 7), (7, 2)]).T
    found = arbitrary(kind, base, source, known, 300, 0)
    assert not (found == base).any()
    assert not (found == source).any()
    assert set(found[:12].tolist()) <= {3, 5, 8, 9}
    assert found[12] == found[13]  # the drawn third
    for answer in known[0].tolist():  # one other answer for each, but where that is the base's own
        given = found[:12][source[:12] == answer]
        assert given.unique(return_counts=True)[1].max() == 2


def test_the_bootstrap_resamples_groups() -> None:
    base, source = torch.tensor([5, 5, 7, 9]), torch.tensor([7, 9, 9, 5])
    drawn = bootstrap.weights(base, source, 3)
    generator = torch.Generator().manual_seed(3)
    picks = torch.randint(3, (bootstrap.DRAWS, 3), generator=generator)
    groups = [5, 7, 9]
    for row in range(20):
        counts = {group: int((picks[row] == i).sum()) for i, group in enumerate(groups)}
        expected = [
            counts[b] * counts[s] for b, s in zip(base.tolist(), source.tolist(), strict=True)
        ]
        assert drawn[row].tolist() == expected
    values = torch.tensor([[1.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    mean, low, high = bootstrap.intervals(values, drawn)
    assert mean.tolist() == [0.75, 2.0]
    assert low[0] < 0.75 < high[0]
    assert (float(low[1]), float(high[1])) == pytest.approx((2.0, 2.0))


def test_intervals_hold_the_mean_of_new_groups() -> None:
    """Nine in ten and more of such intervals hold the truth, where pairs depend on their groups."""
    generator, held, trials = torch.Generator().manual_seed(0), 0, 100
    for trial in range(trials):
        effects = torch.randn(40, generator=generator, dtype=WIDE)
        base = torch.arange(40).repeat(2)
        source = (base + 1 + torch.randint(39, (80,), generator=generator)) % 40
        values = effects[base] + effects[source]
        _, low, high = bootstrap.intervals(values, bootstrap.weights(base, source, trial))
        held += int(low <= 0 <= high)
    # A 95% interval of 40 groups; three standard errors of a hundred trials below that.
    assert held >= 88
