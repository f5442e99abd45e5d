"""Decision trees for phones in context, grown by greedy splits (Young et al. 1994; Kaldi's build-tree).

Each phone begins as one class. The split with the largest gain of likelihood in all classes is made again and again,
until there are as many leaves as asked for, or no split leaves enough frames on both sides.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.errors import UserError
from asrtool.text.context_statistics import ContextStatistics, log_likelihood, phone_questions
from asrtool.text.context_units import SIDES, ContextTokenizer, Leaf, Question, Side, Tree
from asrtool.text.tokenizer import BLANK_SYMBOL, PhoneTokenizer, check_symbols

COLUMNS: dict[Side, int] = {"left": 0, "right": 2}  # of ContextStatistics.contexts


@dataclass
class Split:
    """The best question for a class, and the gain of likelihood in nats."""

    gain: float
    side: Side
    phones: frozenset[int]


@dataclass
class TreeNode:
    """A class of contexts of a phone, by their numbers in the statistics; with `children` it has been split."""

    members: np.ndarray  # (M,) int64
    split: Split | None = None
    children: "tuple[TreeNode, TreeNode] | None" = None  # the answers yes and no


class TreeGrower:
    """Finds the splits of classes in the statistics of phones in context."""

    def __init__(self, statistics: ContextStatistics, questions: Sequence[frozenset[int]], min_count: int):
        """`questions` are sets of phones, which are asked on each side; each class keeps `min_count` frames or more."""
        self.statistics = statistics
        self.questions = questions
        self.min_count = min_count
        self._floor = statistics.variance_floor
        size = 1 + max(max(question) for question in questions)
        self._asks = np.array([[phone in question for phone in range(size)] for question in questions], float)  # (Q, P)

    def best_split(self, members: np.ndarray, sides: Sequence[Side]) -> Split | None:
        """Returns the split of a class with the largest gain, the first of equals; None if there is none above 0."""
        best = None
        for side in sides:
            gains = self.gains(members, side)
            number = int(gains.argmax())
            if gains[number] > (best.gain if best else 0.0):
                best = Split(float(gains[number]), side, self.questions[number])
        return best

    def gains(self, members: np.ndarray, side: Side) -> np.ndarray:
        """Returns the gain of each question about the phones on one side, (Q,) nats; -inf where it is not allowed."""
        moments = self.statistics.moments[members]
        by_phone = np.zeros((self._asks.shape[1], moments.shape[1]))  # (P, 1 + 2 D)
        np.add.at(by_phone, self.statistics.contexts[members, COLUMNS[side]], moments)
        yes = self._asks @ by_phone  # (Q, 1 + 2 D)
        no = (1 - self._asks) @ by_phone
        total = log_likelihood(moments.sum(axis=0), self._floor)
        gains = log_likelihood(yes, self._floor) + log_likelihood(no, self._floor) - total
        is_allowed = np.minimum(yes[:, 0], no[:, 0]) >= max(self.min_count, 1)
        return np.where(is_allowed, gains, -np.inf)

    def divide(self, node: TreeNode) -> None:
        """Splits a class by its best split."""
        assert node.split is not None
        contexts = self.statistics.contexts[node.members, COLUMNS[node.split.side]]
        is_yes = np.isin(contexts, sorted(node.split.phones))
        node.children = TreeNode(node.members[is_yes]), TreeNode(node.members[~is_yes])


def grow_trees(
    statistics: ContextStatistics, phones: PhoneTokenizer, kind: str, num_leaves: int, min_count: int
) -> dict[int, TreeNode]:
    """Returns the root of the tree of each phone, with `num_leaves` leaves together, or fewer.

    `kind` is a key of SIDES. Silence is not split, and each phone has a leaf, also one without frames.
    """
    questions = phone_questions(statistics, phones.size - 1)
    grower = TreeGrower(statistics, questions, min_count)
    centres = statistics.contexts[:, 1]
    roots = {phone: TreeNode(np.flatnonzero(centres == phone)) for phone in range(1, phones.size)}
    waiting: list[tuple[float, int, TreeNode]] = []  # minus the gain, the number of the entry, the class
    num_entries = 0

    def consider(node: TreeNode) -> None:
        nonlocal num_entries
        node.split = grower.best_split(node.members, SIDES[kind])
        if node.split:
            heapq.heappush(waiting, (-node.split.gain, num_entries, node))
            num_entries += 1

    for phone, root in roots.items():
        if phones.symbols[phone] != phones.separator and len(root.members):
            consider(root)
    total = len(roots)
    while waiting and total < num_leaves:
        _, _, node = heapq.heappop(waiting)
        grower.divide(node)
        assert node.children is not None
        for child in node.children:
            consider(child)
        total += 1
    return roots


def grow_tokenizer(
    statistics: ContextStatistics, phones: PhoneTokenizer, kind: str, num_leaves: int, min_count: int
) -> ContextTokenizer:
    """Returns a tokenizer of `kind` "biphone" or "triphone" whose units are the leaves of `grow_trees`.

    The leaves of phone AA are named AA_1, AA_2 ...; a phone with one leaf keeps its name. Raises UserError where such
    a name already belongs to another phone.
    """
    symbols = [BLANK_SYMBOL]
    trees: dict[int, Tree] = {}
    for phone, root in grow_trees(statistics, phones, kind, num_leaves, min_count).items():
        nodes: list[Question | Leaf] = []
        first = len(symbols)
        num_units = append_nodes(nodes, root, first) - first
        name = phones.symbols[phone]
        symbols += [name] if num_units == 1 else [f"{name}_{number + 1}" for number in range(num_units)]
        trees[phone] = nodes
    try:
        check_symbols(symbols)
        return ContextTokenizer(kind, symbols, phones, trees)
    except ValueError as error:
        raise UserError(f"units cannot be named: {error}; rename the phones of the lexicon") from error


def append_nodes(nodes: list[Question | Leaf], node: TreeNode, next_unit: int) -> int:
    """Appends a node and all below it to the list of a tree; returns the unit of the next leaf."""
    if node.children is None:
        nodes.append(Leaf(next_unit))
        return next_unit + 1
    assert node.split is not None
    place = len(nodes)
    nodes.append(Leaf(next_unit))  # its place; the question follows when the places of its answers are known
    next_unit = append_nodes(nodes, node.children[0], next_unit)
    no = len(nodes)
    next_unit = append_nodes(nodes, node.children[1], next_unit)
    nodes[place] = Question(node.split.side, node.split.phones, place + 1, no)
    return next_unit


def likelihood_gain(statistics: ContextStatistics, tokenizer: ContextTokenizer) -> float:
    """Returns how much more likely the frames are with a Gaussian for each unit than for each phone, nats a frame."""
    units = np.array([tokenizer.unit(*context) for context in statistics.contexts.tolist()])
    by_unit = _class_likelihood(statistics, units)
    by_phone = _class_likelihood(statistics, statistics.contexts[:, 1])
    return (by_unit - by_phone) / statistics.num_frames


def _class_likelihood(statistics: ContextStatistics, classes: np.ndarray) -> float:
    moments = np.zeros((classes.max() + 1, statistics.moments.shape[1]))
    np.add.at(moments, classes, statistics.moments)
    return float(log_likelihood(moments, statistics.variance_floor).sum())
