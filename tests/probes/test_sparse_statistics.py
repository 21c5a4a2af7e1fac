"""Statistics that hold: splits by group, held-out scores, maxT under two nulls, controls, MDL."""

import pytest
import torch
from sklearn import metrics
from torch import Tensor

from probes.sparse.controls import control_labels, online_code
from probes.sparse.scores import best_threshold, f1_interval, scores
from probes.sparse.significance import Arrangements, max_t, p_values, statistics
from probes.sparse.splits import given_split, group_codes, split_by_group
from workbench import PromptError

DOCUMENTS, TOKENS, UNITS = 40, 50, 500


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["within", "between"])
def test_no_group_stands_on_two_sides(kind: str) -> None:
    """Labels that vary within groups, and rare ones that are constant in each: 3 groups of 30."""
    groups = torch.arange(300) // 10
    labels = (torch.rand(300, generator=generator(0)) < 0.3).long()
    if kind == "between":
        labels = (groups % 10 == 0).long()
    part = split_by_group(labels, groups, "x")
    for one in range(30):
        assert len(part[groups == one].unique()) == 1
    for one in range(3):
        assert len(labels[part == one].unique()) == 2
    assert 0.4 < (part == 0).double().mean() < 0.7
    assert part.equal(split_by_group(labels, groups, "x"))
    assert not part.equal(split_by_group(labels, groups, "x", seed=1))


@pytest.mark.parametrize("seed", range(8))
def test_few_groups_of_every_kind_still_give_every_part_both_classes(seed: int) -> None:
    """Of 7 groups: one with both, two with positives, four with negatives alone."""
    groups = torch.arange(14) // 2
    labels = torch.tensor([0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    part = split_by_group(labels, groups, "x", seed=seed)
    assert all(len(labels[part == one].unique()) == 2 for one in range(3))


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([1] * 6, [0, 1, 2, 3, 4, 5], "'x' has no negatives among 6 examples"),
        ([0] * 6, [0, 1, 2, 3, 4, 5], "'x' has no positives among 6 examples"),
        ([1, 1, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5], "'x': its positives stand in 2 groups"),
    ],
)
def test_what_cannot_be_split_is_refused(labels: list, groups: list, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        split_by_group(torch.tensor(labels), torch.tensor(groups), "x")


def test_given_splits_are_taken_and_checked() -> None:
    names = ["train", "train", "val", "validation", "test", "test"]
    labels, groups = torch.tensor([0, 1] * 3), group_codes("abcdef")
    assert given_split(names, labels, groups, "x").tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(PromptError, match="'x': a group stands in two splits"):
        given_split(names, labels, group_codes("aaabcc"), "x")
    with pytest.raises(PromptError, match="split 'dev1': expected one of train"):
        given_split(["dev1", *names[1:]], labels, groups, "x")
    with pytest.raises(PromptError, match="split test lacks a class"):
        given_split(names, torch.tensor([0, 1, 0, 1, 1, 1]), groups, "x")


def test_scores_and_baselines() -> None:
    """Against scikit-learn, with ties. Average precision is of the scores, not the predictions."""
    random = generator(1)
    labels = (torch.rand(200, generator=random) < 0.2).long()
    logits = (labels + torch.randn(200, generator=random)).round(decimals=1)
    found, said = scores(logits, labels, 0.5), logits > 0.5
    for name, expected in {
        "f1": metrics.f1_score(labels, said),
        "precision": metrics.precision_score(labels, said),
        "recall": metrics.recall_score(labels, said),
        "mcc": metrics.matthews_corrcoef(labels, said),
        "average_precision": metrics.average_precision_score(labels, logits),
        "roc_auc": metrics.roc_auc_score(labels, logits),
    }.items():
        assert getattr(found, name) == pytest.approx(expected, rel=1e-12), name
    nothing = scores(logits, labels, 100.0)
    assert (nothing.f1, nothing.precision, nothing.mcc) == (0.0, 0.0, 0.0)
    share = float(labels.double().mean())
    ones = torch.ones_like(labels)
    assert found.all_positive == pytest.approx(metrics.f1_score(labels, ones), rel=1e-12)
    drawn = torch.rand(2000, 200, generator=random) < share
    f1 = 2 * (drawn & labels.bool()).sum(1) / (drawn.sum(1) + labels.sum())
    assert f1.mean().item() == pytest.approx(found.random, abs=0.01)  # standard error .0015


def test_the_threshold_is_that_of_greatest_f1() -> None:
    random = generator(2)
    labels = (torch.rand(60, generator=random) < 0.3).long()
    logits = (labels + torch.randn(60, generator=random, dtype=torch.float64)).round(decimals=1)
    at = best_threshold(logits, labels)
    every = [float(metrics.f1_score(labels, logits > t - 0.05)) for t in logits.unique()]
    assert metrics.f1_score(labels, logits > at) == max(every)


def test_intervals_of_whole_groups_cover() -> None:
    """20 equal examples a group: the interval is that of the 30 groups, not of 600 examples."""
    inside = 0
    for seed in range(60):
        random = generator(seed)
        truth = torch.arange(30) % 2
        said = torch.where(torch.rand(30, generator=random) < 0.7, truth, 1 - truth)
        groups = torch.arange(600) // 20
        low, high = f1_interval(said[groups] - 0.5, truth[groups], groups, 0.0, resamples=300)
        inside += low <= 0.7 <= high
    assert inside >= 50  # of 60 at 95%: 57 in the mean, standard deviation 1.7; percentile is short


def documents(seed: int, *, of_label: str) -> tuple[Tensor, Tensor, Tensor]:
    """Units that differ between documents, and labels that are independent of them.

    "within": the share of positives differs between documents too; "between": a document has a label.
    """
    random = generator(seed)
    groups = torch.arange(DOCUMENTS).repeat_interleave(TOKENS)
    acts = torch.randn(DOCUMENTS, UNITS, generator=random)[groups]
    acts += torch.randn(len(groups), UNITS, generator=random)
    share = torch.rand(DOCUMENTS, generator=random)[groups]
    if of_label == "between":
        share = (torch.rand(DOCUMENTS, generator=random) < 0.5).float()[groups]
    labels = (torch.rand(len(groups), generator=random) < share).long()
    return acts, labels, groups


@pytest.mark.parametrize("of_label", ["within", "between"])
def test_maxt_passes_nothing_of_what_is_independent(of_label: str) -> None:
    """In at least 18 of 20 seeds; permuting tokens passes some in every one of them."""
    clean = naive = 0
    for seed in range(20):
        acts, labels, groups = documents(seed, of_label=of_label)
        clean += not (max_t(acts, labels, groups, permutations=200, seed=seed) <= 0.05).any()
        if seed < 5:
            each = max_t(acts, labels, torch.arange(len(groups)), permutations=200)
            naive += bool((each <= 0.05).any())
    assert clean >= 18
    assert naive == 5


def test_maxt_passes_nothing_of_rare_labels_and_skewed_units_in_groups_of_any_size() -> None:
    """200 groups of 1 to 6 examples, 5% of them positive, activations that are mostly 0."""
    clean = 0
    for seed in range(20):
        random = generator(seed)
        groups = torch.arange(200).repeat_interleave(torch.randint(1, 7, (200,), generator=random))
        acts = (torch.randn(200, UNITS, generator=random)[groups] - 1).relu()
        labels = (torch.rand(200, generator=random) < 0.05).long()[groups]
        clean += not (max_t(acts, labels, groups, permutations=200, seed=seed) <= 0.05).any()
    assert clean >= 18


def test_maxt_passes_one_in_twenty_of_shuffled_labels_and_a_planted_unit() -> None:
    """Exact: 2 of 40 seeds in the mean, more than 7 once in a thousand (6 of 200 when written)."""
    passed = 0
    for seed in range(40):
        acts, labels, groups = documents(seed, of_label="within")
        shuffled = labels[torch.randperm(len(labels), generator=generator(seed))]
        acts = acts[:, :200]
        passed += bool((max_t(acts, shuffled, groups, permutations=200, seed=seed) <= 0.05).any())
        if seed == 0:
            acts[:, 33] += 0.6 * shuffled
            p = max_t(acts, shuffled, groups, permutations=200)
            assert (p <= 0.05).nonzero()[:, 0].tolist() == [33]
            assert p[33] == pytest.approx(1 / 201)
    assert passed <= 7


def test_maxt_of_a_small_case_is_every_permutation() -> None:
    """6 documents, 3 of them positive, one unit: 2 of 20 arrangements reach the observed split."""
    groups = torch.arange(6).repeat_interleave(2)
    labels = (groups < 3).long()
    acts = labels[:, None] + 0.01 * torch.rand(12, 1, generator=generator(0), dtype=torch.float64)
    p = max_t(acts, labels, groups, permutations=20000)
    assert p.item() == pytest.approx(0.1, abs=0.0085)  # four standard errors


def test_arrangements_move_whole_sequences() -> None:
    """Groups of 2, 3 and 1 labels: begun again where a group is longer, cut where it is shorter."""
    labels, groups = torch.tensor([0, 1, 1, 0, 0, 1]), torch.tensor([0, 0, 1, 1, 1, 2])
    drawn = Arrangements.draw(labels, groups, 50)
    made = drawn.arranged(groups, torch.tensor([0, 1, 0, 1, 2, 0]))
    assert made[0].equal(labels)
    known = {0: [0, 1, 0], 1: [1, 0, 0], 2: [1, 1, 1]}
    for order, one in zip(drawn.orders[1:].tolist(), made[1:].tolist(), strict=True):
        expected = [known[order[0]][:2], known[order[1]][:3], known[order[2]][:1]]
        assert one == [label for part in expected for label in part]


def test_pairs_swap_their_classes() -> None:
    """8 words in 2 frames and both forms: of 2^8 swaps, 2 part the forms as far as the observed one.

    Shuffling examples would find more, with a unit that differs between words and frames as well.
    """
    random, words = generator(0), 8
    groups = torch.arange(words).repeat_interleave(4)
    labels = torch.tensor([0, 1, 0, 1]).repeat(words)
    word, frame = torch.randn(words, 1, generator=random), torch.tensor([0.0, 0.0, 1.0, 1.0])
    acts = (word + 3 * frame).reshape(-1, 1).double() + labels[:, None]
    p = max_t(acts, labels, groups, permutations=20000)
    assert p.item() == pytest.approx(2 / 256, abs=0.0025)  # four standard errors
    drawn = Arrangements.draw(labels, groups, 50)
    made = drawn.arranged(groups, torch.arange(4).repeat(words)).reshape(51, words, 4)
    assert drawn.swap
    assert made[0].flatten().equal(labels)
    assert ((made == made[0]).all(-1) | (made == 1 - made[0]).all(-1)).all()


def test_swaps_pass_one_in_twenty_of_pairs_without_a_relation() -> None:
    """Word forms that differ by chance, the same in every frame: more than 7 of 40 once in a thousand.

    Shuffling examples within words takes the frames of a form for independent, and passes nearly all.
    """
    words, frames, passed = 20, 6, 0
    groups = torch.arange(words).repeat_interleave(2 * frames)
    labels = torch.tensor([0, 1]).repeat(words * frames)
    for seed in range(40):
        forms = torch.randn(words, 2, 50, generator=generator(seed))
        acts = forms[:, None].expand(-1, frames, -1, -1).reshape(len(groups), 50)
        passed += bool((max_t(acts, labels, groups, permutations=200, seed=seed) <= 0.05).any())
    assert passed <= 7


def test_statistics_are_correlations_and_p_values_of_the_whole_family() -> None:
    """A unit's p can only grow when others join its family."""
    random = generator(7)
    acts = torch.randn(100, 5, generator=random, dtype=torch.float64)
    arranged = (torch.rand(40, 100, generator=random) < 0.3).double()
    moments = acts.mean(0), acts.std(0, correction=0)
    found = statistics(arranged @ acts, arranged.sum(1), 100, *moments)
    both = torch.cat([arranged, acts.T])
    torch.testing.assert_close(found, 10 * torch.corrcoef(both)[:40, 40:].abs(), rtol=1e-10, atol=0)
    ((alone,),), joint = p_values([[found[:, :1]]]), p_values([[found[:, :1], found[:, 1:]]])
    assert joint[0][0] >= alone
    assert len(joint[0][1]) == 4


def test_a_feature_of_great_statistics_does_not_hide_another() -> None:
    """Every arrangement of the first has 30; the second's 8 is beside arrangements of at most 3."""
    random = generator(11)
    loud = 30 + torch.rand(200, 4, generator=random, dtype=torch.float64)
    quiet = 3 * torch.rand(200, 4, generator=random, dtype=torch.float64)
    quiet[0, 2] = 8.0
    (of_loud,), (of_quiet,) = p_values([[loud], [quiet]])
    assert of_quiet[2] == pytest.approx(1 / 200)
    assert (of_loud > 0.05).all()
    (scaled,), _ = p_values([[loud * 7], [quiet]])
    torch.testing.assert_close(scaled, of_loud)


def test_scaled_families_pass_one_in_twenty_without_a_relation() -> None:
    """Two features of unlike scale, no relation: of 400 families 20 in the mean, 34 once in a thousand."""
    random, passed = generator(12), 0
    for _ in range(400):
        few = torch.rand(100, 3, generator=random, dtype=torch.float64)
        many = 20 + torch.randn(100, 30, generator=random, dtype=torch.float64)
        found = p_values([[few], [many[:, :10], many[:, 10:]]])
        passed += min(float(one.min()) for own in found for one in own) <= 0.05
    assert 7 <= passed <= 34


def test_controls_are_constant_in_a_type_and_as_frequent() -> None:
    types = torch.randint(30, (900,), generator=generator(3))
    labels = (torch.rand(900, generator=generator(4)) < 0.3).long()
    control = control_labels(types, labels)
    assert control is not None
    for one in types.unique():
        assert len(control[types == one].unique()) == 1
    assert abs(float(control.double().mean() - labels.double().mean())) < 1 / 30
    assert control_labels(torch.zeros(5), torch.tensor([0, 1, 0, 1, 1])) is None


def test_online_code_of_noise_saves_nothing_and_of_a_feature_much() -> None:
    random = generator(5)
    groups = torch.arange(2000) // 4
    labels = (torch.rand(2000, generator=random) < 0.5).long()
    noise = torch.randn(2000, 2, generator=random, dtype=torch.float64)
    assert 0.9 < online_code(noise, labels, groups) < 1.01
    clear = noise.clone()
    clear[:, 0] += 8 * labels
    assert online_code(clear, labels, groups) > 10
