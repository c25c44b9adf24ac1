"""The weighted mean of models."""

from __future__ import annotations

from merging.fusion.rule import Rule, weighted_mean
from merging.schema.cards.fusion.table import find_rule_card

RULE = Rule(find_rule_card("average"), weighted_mean)
