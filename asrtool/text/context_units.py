"""Context-dependent phone units: biphones and triphones, tied into classes by a decision tree for each phone.

A unit is a leaf of the tree of its phone, as in Young et al. (1994), "Tree-based state tying for high accuracy acoustic
modelling". A biphone depends on the phone before it, a triphone also on the one after it. As in the chain models of
Kaldi, the context goes across words; silence is a unit without context that is a context for its neighbours, and the
edges of the utterance are a context of their own. The blank is not a phone: a context reaches across it.

The file of the tokenizer holds, besides the units and the phone tokenizer, the tree of each phone as a list of nodes:

    {"ask": "left", "phones": ["<s>", "B", "D"], "yes": 1, "no": 2}   is the phone before one of these?
    {"unit": "AA_1"}                                                  a leaf

The first node is the root, and `yes` and `no` are the places of nodes further down in the list.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from asrtool.text.lexicon import Lexicon, Pronunciation
from asrtool.text.tokenizer import BLANK, BLANK_SYMBOL, PhoneTokenizer, Tokenizer, check_symbols

BOUNDARY = 0  # the context beyond either edge of the utterance; the blank has the same number and is never a context
BOUNDARY_SYMBOL = "<s>"  # BOUNDARY in a file; no phone has this name
MAX_NODES = 1_000_000  # of all trees; untied triphones of 60 phones have 450,000
Side = Literal["left", "right"]
SIDES: dict[str, tuple[Side, ...]] = {"biphone": ("left",), "triphone": ("left", "right")}


@dataclass(frozen=True)
class Question:
    """An inner node of a tree: is the phone on one side in a set?"""

    side: Side
    phones: frozenset[int]
    yes: int  # place of the next node if it is
    no: int


@dataclass(frozen=True)
class Leaf:
    """A leaf of a tree."""

    unit: int


Tree = Sequence[Question | Leaf]  # the root first, each node before the nodes that it leads to


class ContextTokenizer(Tokenizer):
    """Phones in context as units.

    `without_context` is the tokenizer of the phones, `trees[phone]` the tree of phone number `phone` (from 1). A unit
    belongs to one phone: `phone_of[unit]`. `decode` returns phones, as with the tokenizer of the phones.
    """

    output_type = "phones"

    def __init__(self, kind: str, symbols: Sequence[str], phones: PhoneTokenizer, trees: Mapping[int, Tree]):
        """`kind` is a key of SIDES. Raises ValueError for trees that do not give each unit to one phone."""
        self.kind = kind
        self.symbols = list(symbols)
        self.trees = trees
        self._phones = phones
        self.separator = phones.separator
        self.phone_of = self._phone_of_units()
        self._unit_of: dict[tuple[int, int, int], int] = {}  # cache of `unit`

    @property
    def without_context(self) -> PhoneTokenizer:
        """The tokenizer of the phones."""
        return self._phones

    def _phone_of_units(self) -> list[int]:
        """Returns the phone of each unit, BLANK for the blank. Raises ValueError for units without one, or with two."""
        phones = self._phones.symbols
        if set(self.trees) != set(range(1, len(phones))):
            raise ValueError("it does not have one tree for each phone")
        phone_of = {BLANK: BLANK}
        for phone, tree in self.trees.items():
            leaves = {node.unit for node in tree if isinstance(node, Leaf)}
            if not leaves or not leaves.isdisjoint(phone_of):
                raise ValueError(f"the tree of {phones[phone]} has no unit, or one of another phone")
            phone_of |= dict.fromkeys(leaves, phone)
        if sorted(phone_of) != list(range(len(self.symbols))):
            raise ValueError("it has a unit that is in no tree")
        self._check_names(phone_of)
        return [phone_of[unit] for unit in range(len(self.symbols))]

    def _check_names(self, phone_of: dict[int, int]) -> None:
        """Raises ValueError for a unit with the name of another phone, and for silence in context."""
        number = {symbol: phone for phone, symbol in enumerate(self._phones.symbols)}
        for unit, phone in phone_of.items():
            name = self.symbols[unit]
            if number.get(name, phone) != phone:
                raise ValueError(f"its unit {name} is not of the phone {name}")
            if self._phones.symbols[phone] == self.separator != name:
                raise ValueError(f"silence is not a single unit {self.separator}")

    def unit(self, left: int, phone: int, right: int) -> int:
        """Returns the unit of a phone between two others; BOUNDARY is the edge of the utterance."""
        key = (left, phone, right)
        if key not in self._unit_of:
            tree = self.trees[phone]
            node = tree[0]
            while isinstance(node, Question):
                context = left if node.side == "left" else right
                node = tree[node.yes if context in node.phones else node.no]
            self._unit_of[key] = node.unit
        return self._unit_of[key]

    @cached_property
    def left_class(self) -> list[int]:
        """For each phone, and BOUNDARY, the first phone (or BOUNDARY) that is the same as a left context."""
        questions = [node for tree in self.trees.values() for node in tree if isinstance(node, Question)]
        sets = list(dict.fromkeys(node.phones for node in questions if node.side == "left"))
        first: dict[tuple[int, ...], int] = {}
        contexts = range(self._phones.size)
        return [first.setdefault(tuple(n for n, s in enumerate(sets) if c in s), c) for c in contexts]

    def context_units(self, phones: Sequence[int]) -> list[int]:
        """Returns the units of all phones of an utterance."""
        padded = [BOUNDARY, *phones, BOUNDARY]
        return [self.unit(*padded[n : n + 3]) for n in range(len(phones))]

    def encode(self, text: str) -> list[int]:
        """Returns the units of the usual pronunciation of each word, as one utterance without silence."""
        return self.context_units(self._phones.encode(text))

    def pronunciation_units(self, text: str) -> list[list[list[int]]]:
        """Returns the pronunciations of each word of `text` between the usual pronunciations of its neighbours.

        `transcript_graph` (asrtool/graphs/context.py) has them between all pronunciations of the neighbours.
        """
        words = self._phones.pronunciation_units(text)
        before = [BOUNDARY, *(word[0][-1] for word in words)]
        after = [*(word[0][0] for word in words[1:]), BOUNDARY]
        return [
            [self._between(left, pronunciation, right) for pronunciation in word]
            for left, word, right in zip(before, words, after, strict=False)
        ]

    def _between(self, left: int, phones: Sequence[int], right: int) -> list[int]:
        padded = [left, *phones, right]
        return [self.unit(*padded[n : n + 3]) for n in range(len(phones))]

    def aligned_units(self, symbols: Sequence[str]) -> list[int | None]:
        """Returns the unit of each symbol of the alignment of an utterance; None for a symbol that is unknown.

        The symbols name units, or phones as a phone system aligns them. Phones are in the context of their neighbours
        in the alignment.
        """
        phone_number = {symbol: number for number, symbol in enumerate(self._phones.symbols) if number != BLANK}
        if set(symbols) <= phone_number.keys():
            return list(self.context_units([phone_number[symbol] for symbol in symbols]))
        return super().aligned_units(symbols)

    def decode(self, units: Iterable[int]) -> str:
        """Returns the phones, joined by single spaces, without silence."""
        return self._phones.decode(self.phone_of[unit] for unit in units)

    def reference(self, text: str) -> str:
        """Returns the usual pronunciations in phones, as with the tokenizer of the phones."""
        return self._phones.reference(text)

    def unknown(self, text: str) -> list[str]:
        """Returns the words of `text` without a pronunciation."""
        return self._phones.unknown(text)

    def pronunciations(self, word: str) -> tuple[Pronunciation, ...]:
        """Returns all pronunciations of `word` in phones, the usual one first."""
        return self._phones.pronunciations(word)

    def lexicon_of(self, words: Iterable[str]) -> Lexicon:
        """Returns the pronunciations in phones of all `words` that have any, with their probabilities."""
        return self._phones.lexicon_of(words)

    def to_dict(self) -> dict:
        """Returns the tokenizer as plain values for its file."""
        phones = [BOUNDARY_SYMBOL, *self._phones.symbols[1:]]
        trees = {
            phones[phone]: [self._node_to_dict(node, phones) for node in tree] for phone, tree in self.trees.items()
        }
        return {"type": self.kind, "symbols": self.symbols, "phones": self._phones.to_dict(), "trees": trees}

    def _node_to_dict(self, node: Question | Leaf, phones: Sequence[str]) -> dict:
        if isinstance(node, Leaf):
            return {"unit": self.symbols[node.unit]}
        asked = [phones[phone] for phone in sorted(node.phones)]
        return {"ask": node.side, "phones": asked, "yes": node.yes, "no": node.no}

    @classmethod
    def from_dict(cls, content: dict) -> "ContextTokenizer":
        """Returns the tokenizer whose `to_dict` returned `content`. Raises one of tokenizer.INVALID for another."""
        kind = content["type"]
        check_symbols(content["symbols"])
        check_symbols(content["phones"]["symbols"])
        phones = PhoneTokenizer.from_dict(content["phones"])
        if sum(map(len, content["trees"].values())) > MAX_NODES:
            raise ValueError(f"its trees have more than {MAX_NODES:,} nodes")
        contexts = {symbol: number for number, symbol in enumerate([BOUNDARY_SYMBOL, *phones.symbols[1:]])}
        units = {symbol: number for number, symbol in enumerate(content["symbols"]) if number != BLANK}
        trees = {
            contexts[phone]: [
                _node_from_dict(node, place, len(nodes), SIDES[kind], contexts, units)
                for place, node in enumerate(nodes)
            ]
            for phone, nodes in content["trees"].items()
        }
        return cls(kind, content["symbols"], phones, trees)


def _node_from_dict(
    node: dict, place: int, size: int, sides: Sequence[str], contexts: dict[str, int], units: dict[str, int]
) -> Question | Leaf:
    """Returns the node at `place` of a tree of `size` nodes. Raises one of tokenizer.INVALID where it is not one."""
    if "unit" in node:
        return Leaf(units[node["unit"]])
    children = node["yes"], node["no"]
    if not all(type(child) is int and place < child < size for child in children):
        raise ValueError("a node of a tree leads to a place that is not further down in its list")
    if node["ask"] not in sides or not isinstance(node["phones"], list):
        raise ValueError(f"a node of a tree does not ask for a set of phones on the {' or '.join(sides)}")
    return Question(node["ask"], frozenset(contexts[phone] for phone in node["phones"]), *children)


def untied_trees(kind: str, phones: PhoneTokenizer) -> tuple[list[str], dict[int, Tree]]:
    """Returns the symbols and the trees of units without tying: one for each phone in each context.

    Their names are HTK's: B-AA is AA after B, B-AA+D is this AA before D.
    """
    names = [BOUNDARY_SYMBOL, *phones.symbols[1:]]
    symbols = [BLANK_SYMBOL]
    trees: dict[int, Tree] = {}
    for phone in range(1, phones.size):
        nodes: list[Question | Leaf] = []
        sides = () if names[phone] == phones.separator else SIDES[kind]
        _append_untied(nodes, names[phone], sides, names, symbols)
        trees[phone] = nodes
    return symbols, trees


def _append_untied(
    nodes: list[Question | Leaf], name: str, sides: Sequence[Side], names: Sequence[str], symbols: list[str]
) -> None:
    """Appends the nodes that distinguish all contexts on `sides`; `name` has the contexts that are known so far."""
    if not sides:
        nodes.append(Leaf(len(symbols)))
        symbols.append(name)
        return
    _append_halves(nodes, name, sides, range(len(names)), names, symbols)


def _append_halves(
    nodes: list[Question | Leaf],
    name: str,
    sides: Sequence[Side],
    contexts: range,
    names: Sequence[str],
    symbols: list[str],
) -> None:
    """Appends nodes that distinguish `contexts` on the first of the sides by halving, then all on the other side."""
    if len(contexts) == 1:
        context = names[contexts[0]]
        name = f"{context}-{name}" if sides[0] == "left" else f"{name}+{context}"
        _append_untied(nodes, name, sides[1:], names, symbols)
        return
    middle = len(contexts) // 2
    place = len(nodes)
    nodes.append(Leaf(BLANK))  # its place; the question follows when the places of its answers are known
    _append_halves(nodes, name, sides, contexts[:middle], names, symbols)
    no = len(nodes)
    _append_halves(nodes, name, sides, contexts[middle:], names, symbols)
    nodes[place] = Question(sides[0], frozenset(contexts[:middle]), place + 1, no)
