from collections import Counter
from random import Random

import pytest

from workbench.atlas.corpus import card
from workbench.atlas.facts import answers, facts_by_subject, read_facts
from workbench.atlas.measure import Loaded
from workbench.atlas.templates import CLASSICS, TEMPLATES, clause, held_out, trained_on


def test_there_are_about_eight_hundred_facts_in_nine_relations() -> None:
    counts = Counter(fact.relation for fact in read_facts())
    assert set(counts) == set(TEMPLATES)
    assert min(counts.values()) > 50
    assert counts.total() > 700


def test_a_subject_has_one_answer_a_relation() -> None:
    keys = Counter((fact.subject, fact.relation) for fact in read_facts())
    assert set(keys.values()) == {1}


def test_answers_are_single_words_and_not_their_subject() -> None:
    for fact in read_facts():
        assert fact.answer.isalpha(), fact
        assert fact.answer != fact.subject, fact


def test_tables_agree_where_they_overlap() -> None:
    continents = {f.subject: f.answer for f in read_facts() if f.relation == "continent"}
    capitals = {
        f.answer: continents.get(f.subject) for f in read_facts() if f.relation == "capital"
    }
    for facts in facts_by_subject().values():
        row = {fact.relation: fact.answer for fact in facts}
        place = capitals.get(row.get("landmark_city", ""))
        if place and "landmark_continent" in row:
            assert row["landmark_continent"] == place, facts


def test_every_relation_offers_foils() -> None:
    assert all(len(answers(relation)) > 3 for relation in TEMPLATES)


def test_answers_are_one_token(atlas: Loaded) -> None:
    for fact in read_facts():
        assert len(atlas.ids(f" {fact.answer}")) == 1, fact


def test_subjects_are_few_tokens(atlas: Loaded) -> None:
    lengths = [len(atlas.ids(f" {subject}")) for subject in facts_by_subject()]
    assert max(lengths) <= 11
    assert sum(n == 1 for n in lengths) <= 3


def test_two_templates_a_fact_are_held_out() -> None:
    for fact in read_facts():
        out = held_out(fact)
        assert len(set(out)) == 2
        assert sorted(out + trained_on(fact)) == list(range(len(TEMPLATES[fact.relation])))


def test_classics_are_held_out() -> None:
    facts = {(fact.subject, fact.relation): fact for fact in read_facts()}
    for key, template in CLASSICS.items():
        assert template in held_out(facts[key])


def test_no_held_out_prompt_is_inside_a_training_sentence() -> None:
    """By substring, case ignored, in every training template, and in the cards."""
    rng = Random(0)
    for subject, facts in facts_by_subject().items():
        seen = [clause(f, t).text.lower() for f in facts for t in trained_on(f)]
        seen += [card(rng, subject).text.lower()]
        for fact in facts:
            for template in held_out(fact):
                prompt = clause(fact, template).text.lower()
                assert not any(prompt in text for text in seen), prompt


@pytest.mark.parametrize("prefix", ["", "We read that "])
def test_clause_bounds_the_subject(prefix: str) -> None:
    for fact in read_facts():
        for template in range(len(TEMPLATES[fact.relation])):
            stated = clause(fact, template, prefix, ", of course,")
            assert stated.text[stated.start : stated.end] == fact.subject
            assert stated.text[0].isupper()
