"""The uniform soup: the mean of all models, whatever they are worth."""

from __future__ import annotations

from merging.fusion.rule import Rule, weighted_mean
from merging.schema.cards.fusion.table import find_rule_card

RULE = Rule(find_rule_card("uniform_soup"), weighted_mean)
