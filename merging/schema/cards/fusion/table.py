"""Every fusion rule's card, by name: what it is called, needs and can be told; no torch.

The interface process builds its forms from this table. Rules that work tensor by tensor are in
`merging/fusion/rules`, those of whole networks in `merging/fusion/networks`. θ₀ is the base, θₜ
model t, wₜ and αₜ the numbers per model: shares of a mean, or factors of task vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from merging.schema.cards.fusion.card import RuleCard
from merging.schema.cards.fusion.curvature import CURVATURE
from merging.schema.cards.fusion.means import MEANS
from merging.schema.cards.fusion.networks import NETWORKS
from merging.schema.cards.fusion.robust import ROBUST
from merging.schema.cards.fusion.soups import SOUPS
from merging.schema.cards.fusion.task_vectors import TASK_VECTORS
from merging.schema.cards.fusion.trajectory import TRAJECTORY
from merging.schema.options import look_up, read_record

_FAMILIES = (MEANS, TASK_VECTORS, CURVATURE, SOUPS, TRAJECTORY, ROBUST, NETWORKS)
# In the order of menus.
RULE_CARDS: Mapping[str, RuleCard] = MappingProxyType({
    card.name: card for family in _FAMILIES for card in family
})


def find_card(name: str) -> RuleCard:
    """Return the card of a rule, whether it works tensor by tensor or on whole networks.

    Raises:
        UnknownNameError: If there is no such rule.
    """
    return look_up(RULE_CARDS, name, "rule")


def read_rule_options(card: RuleCard, options: Mapping[str, Any] | None) -> Any:
    """Return a rule's options from a mapping; what is missing has its default.

    Args:
        card: The rule.
        options: Values by option name.

    Returns:
        The options record.

    Raises:
        UnknownNameError: If the rule has no such option, or an option's value is not among its
            choices or outside its range.
    """
    return read_record(card.title, card.options, options)
