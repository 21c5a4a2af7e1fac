"""What the bundled models must show, on the shipped weights.

Layers count from 1 (0 is the embedding), so entry i of a causal trace is layer i + 1.
"""

from typing import Any

import pytest

from workbench.atlas.measure import Loaded
from workbench.atlas.neurons import probes

Figures = dict[str, Any]


def test_atlas_recalls_held_out_paraphrases(atlas_table: Figures) -> None:
    assert atlas_table["recall"]["all"] >= 0.99
    assert min(atlas_table["recall"].values()) >= 0.97


def test_atlas_answers_the_classics(atlas_table: Figures) -> None:
    assert atlas_table["classics"] == 1.0


def test_trace_early_site_is_the_last_subject_token(atlas_trace: Figures) -> None:
    effects = atlas_trace["last_subject"]
    assert atlas_trace["total"] >= 0.70
    assert min(effects[:3]) >= 0.40
    assert effects[3] >= 0.30
    assert effects[4] <= 0.10
    assert effects[5] == pytest.approx(0, abs=1e-6)


def test_trace_late_site_is_the_last_token(atlas_trace: Figures) -> None:
    effects = atlas_trace["last"]
    assert max(effects[:3]) <= 0.15
    assert effects[4] >= 0.6
    assert effects[5] == pytest.approx(atlas_trace["total"], abs=1e-5)


def test_trace_other_subject_tokens_carry_next_to_nothing(atlas_trace: Figures) -> None:
    assert max(atlas_trace["other_subject"]) <= 0.03


def test_trace_mlps_work_early_and_attention_late(atlas_trace: Figures) -> None:
    assert max(atlas_trace["mlp_window"][1:3]) >= 0.25
    assert max(atlas_trace["mlp_window"][4:]) <= 0.1
    assert min(atlas_trace["attention_window"][3:]) >= 0.33
    assert max(atlas_trace["attention_window"][:2]) <= 0.1


def test_lens_rank_of_the_answer_falls_to_one(atlas_table: Figures) -> None:
    ranks = atlas_table["lens ranks"]
    assert len(ranks) == 7
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] > 1000
    assert ranks[4] <= 10
    assert ranks[5:] == [1.0, 1.0]


def test_atlas_has_an_induction_head(atlas_table: Figures) -> None:
    found = atlas_table["induction"]
    assert found["score"] >= 0.77
    assert found["head"] == (2, 0)
    first, second = found["loss"]
    assert first > 7
    assert second <= 0.54
    assert atlas_table["induction prompts"] >= 0.95


def test_atlas_finds_the_indirect_object(atlas_table: Figures) -> None:
    accuracy, difference = atlas_table["indirect object"]
    assert accuracy >= 0.975
    assert difference >= 3.85


def test_atlas_agrees_in_number(atlas_table: Figures) -> None:
    assert atlas_table["agreement"] >= 0.95


def test_single_neurons_tell_features_of_unseen_entities(atlas: Loaded) -> None:
    found = probes(atlas)
    least = {"plural": 0.98, "expects a city": 0.90, "country": 0.85}
    for feature, f1 in least.items():
        assert found[feature]["f1"] >= f1, feature
        assert found[feature]["f1"] > found[feature]["baseline"] + 0.1, feature


def test_mean_cosine_rises_then_falls(atlas_table: Figures) -> None:
    cosines = atlas_table["mean cosine"]
    top = cosines.index(max(cosines))
    assert 0 < top < 6
    assert cosines[top] > cosines[0] + 0.05
    assert cosines[-1] < cosines[top] - 0.1


def test_bag_recalls_as_well(bag_table: Figures) -> None:
    assert bag_table["recall"]["all"] >= 0.95


def test_bag_has_no_early_site(bag_trace: Figures) -> None:
    assert max(bag_trace["last_subject"]) <= 0.05
    assert bag_trace["total"] > 0.5


def test_bag_has_no_induction(bag_table: Figures) -> None:
    assert bag_table["induction"]["score"] <= 0.1
    first, second = bag_table["induction"]["loss"]
    assert second > 0.7 * first
