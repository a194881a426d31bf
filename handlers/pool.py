"""Makes one model of several: their margins are added up by weight, in a single booster. Pure.

That is a logarithmic opinion pool (Genest and Zidek, "Combining Probability Distributions", 1986).
As a booster's margin is a sum over its trees, the pool is a booster again: all trees, with their
leaves multiplied by the weight of the model that they come from. So a pool is saved, served,
explained and judged as any other model. The trees are read and written in XGBoost's documented
JSON ("Introduction to Model IO" in its manual; the same in 2.1 to 3.2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, Literal

import numpy as np
import pandas as pd
import xgboost as xgb
from scipy.optimize import brentq
from scipy.special import expit, logit

from handlers.rows import Part
from handlers.scorer import Feature, Scorer, Task

Rule = Literal["exponential", "aue"]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Tree = dict[str, Any]
Codes = Mapping[int, Sequence[int]]
"""Of each category feature, by its old place: the new code of each of the old ones."""

SHARPNESS = 30.0
"""How fast exponential weights fall: a log loss worse by 0.1 costs a factor of 20."""
TINY = 1e-7
"""Probabilities are kept this far from 0 and 1."""


# -- weights ------------------------------------------------------------------------------------


def loss(scorer: Scorer, part: Part, rule: Rule) -> float:
    """Give the mean loss that a rule weighs by, on rows that the model has not learnt from.

    Log loss for `exponential` (of a Gaussian, up to a constant, for a regression); for `aue` the
    squared error of the true class's probability, or that of the values over their variance.
    """
    scores = scorer.score(part.rows).astype(np.float64)
    if scorer.task == "regression":
        labels = part.labels.to_numpy(np.float64)
        error = float(np.mean((scores - labels) ** 2))
        if rule == "aue":
            return error / max(float(np.var(labels)), TINY)
        return 0.5 * float(np.log(max(error, TINY**2)))
    codes = {name: code for code, name in enumerate(scorer.classes)}
    truth = part.labels.map(codes).fillna(-1).to_numpy(int)
    if scores.ndim == 1:
        scores = np.column_stack([1 - scores, scores])
    right = np.where(truth < 0, 0.0, scores[np.arange(len(scores)), truth])
    return _fault(right, rule)


def prior_loss(part: Part, task: Task, rule: Rule) -> float:
    """Give the loss of who always answers the class frequencies (or the mean)."""
    if task == "regression":
        return 1.0
    return _fault(part.labels.map(part.labels.value_counts(normalize=True)).to_numpy(float), rule)


def _fault(right: Floats, rule: Rule) -> float:
    """Give the mean loss of the probabilities that were given to the true classes."""
    faults = (1 - right) ** 2 if rule == "aue" else -np.log(np.clip(right, TINY, 1))
    return float(np.mean(faults))


def weights(
    losses: Sequence[float], priors: Sequence[float], rule: Rule, trivial: float = 0.0,
    rows: float = math.inf,
) -> list[float]:  # fmt: skip
    """Turn losses into weights that sum to 1; the lower the loss, the higher the weight.

    `exponential`: prior * exp(-k (loss - best)). It forgets fast, and lets an old model come back
    when what it learnt is true again. On fewer than k `rows` it goes by their number, as Bayes's
    rule would: a handful of rows must not overthrow what many have shown. `aue`:
    1 / (trivial + loss), as in the Accuracy Updated Ensemble (Brzezinski and Stefanowski, IEEE
    TNNLS 2014), where the newest model's loss is 0 and `trivial` that of the class frequencies.
    Who would get less than a thousandth gets nothing.
    """
    found = np.asarray(losses, np.float64)
    if rule == "aue":
        raw = 1 / (trivial + found + TINY)
    else:
        raw = np.asarray(priors) * np.exp(-min(SHARPNESS, rows) * (found - found.min()))
    kept = np.where(raw < raw.sum() / 1000, 0.0, raw)
    return [float(weight) for weight in kept / kept.sum()]


# -- one encoding -------------------------------------------------------------------------------


def unfit(member: Scorer, newest: Scorer) -> str:
    """Say why a model cannot be in a pool with the newest one; empty if it can.

    It may lack columns that came later; all that it reads must still be there, as the same kind.
    """
    if member.task != newest.task:
        return f"it does a {member.task}"
    if member.classes != newest.classes:
        return f"its classes are {list(member.classes)}, now {list(newest.classes)}"
    kinds = {feature.name: feature.kind for feature in newest.features}
    for feature in member.features:
        if feature.name not in kinds:
            return f"it reads the column {feature.name!r}, which is not learnt from any more"
        if feature.kind != kinds[feature.name]:
            return f"its column {feature.name!r} was a {feature.kind}, now a {kinds[feature.name]}"
    if not _mergeable(member):
        return "its booster is not a sum of plain trees"
    return ""


def joint(scorers: Sequence[Scorer]) -> tuple[Feature, ...]:
    """Give features that all models can be written in: the first one's columns in its order.

    A feature's categories are the first model's, with its codes, then what the others add.
    """

    def values(name: str) -> tuple[str, ...]:
        lists = (f.categories for s in scorers for f in s.features if f.name == name)
        return tuple(dict.fromkeys(chain.from_iterable(lists)))

    return tuple(Feature(f.name, f.kind, values(f.name)) for f in scorers[0].features)


# -- one booster --------------------------------------------------------------------------------


def pool(
    scorers: Sequence[Scorer], weighed: Sequence[float], rows: pd.DataFrame | None = None
) -> Scorer:
    """Make the model whose margin is the weighted sum of the margins of these (`unfit` by none).

    The first one gives columns, classes and objective. The same models and weights give the same
    bytes. The equality is that of float32 sums, which the order of the additions changes.

    Where `rows` are given and the classes are two, a constant is added to the margin that makes its
    mean probability on them the weighted mean of the members' own: the mean of margins alone
    understates what is rare, the more so the less the members agree.
    """
    if len(scorers) == 1:
        return scorers[0]
    features = joint(scorers)
    used = [(s, weight) for s, weight in zip(scorers, weighed, strict=True) if weight > 0]
    documents = [_read(scorer.booster) for scorer, _ in used]
    trees: list[Tree] = []
    for (scorer, weight), document in zip(used, documents, strict=True):
        rewrite = _rewriter(scorer.features, features, weight)
        trees += [rewrite(tree) for tree in _model(document)["trees"]]
    weights = [weight for _, weight in used]
    level = 0.0
    if rows is not None and len(rows) and scorers[0].task == "binary":
        level = _level([scorer.score(rows) for scorer, _ in used], weights)
    return _written(scorers[0], features, documents, trees, weights, level)


def _level(scores: Sequence[np.ndarray[Any, Any]], weighed: Sequence[float]) -> float:
    """Find the constant that lifts the mean of a pool's probabilities to that of its members'."""
    found = [np.clip(score.astype(np.float64), TINY, 1 - TINY) for score in scores]
    shares = np.asarray(weighed) / sum(weighed)
    wanted = float(shares @ [score.mean() for score in found])
    margin: Floats = np.asarray(weighed) @ np.array([logit(score) for score in found])

    def excess(constant: float) -> float:
        return float(expit(margin + constant).mean()) - wanted

    far = float(np.abs(margin).max()) - 2 * math.log(TINY)  # there all answers are sure
    return float(brentq(excess, -far, far))


def _written(
    first: Scorer, features: tuple[Feature, ...], documents: Sequence[dict[str, Any]],
    trees: list[Tree], weighed: Sequence[float], level: float,
) -> Scorer:  # fmt: skip
    blank = Scorer(first.task, features, first.classes, first.booster)
    document, models = documents[0], [_model(document) for document in documents]
    grown = [np.diff(model["iteration_indptr"]) for model in models]
    model, learner = models[0], document["learner"]
    model["tree_info"] = list(chain.from_iterable(each["tree_info"] for each in models))
    model["iteration_indptr"] = [0, *map(int, accumulate(np.concatenate(grown)))]
    model["trees"] = [tree | {"id": number} for number, tree in enumerate(trees)]
    model["gbtree_model_param"]["num_trees"] = str(len(trees))
    learner["learner_model_param"] |= {
        "base_score": _base(first.task, documents, weighed, level),
        "num_feature": str(len(features)),
    }
    learner["feature_names"], learner["feature_types"] = blank.names, blank.feature_types
    booster = xgb.Booster({"nthread": 1})
    booster.load_model(bytearray(json.dumps(document).encode()))
    return Scorer(first.task, features, first.classes, booster)


def _read(booster: xgb.Booster) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bytes(booster.save_raw("json")))
    return document


def _model(document: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["learner"]["gradient_booster"]["model"]
    return found


def _mergeable(scorer: Scorer) -> bool:
    """Say whether a booster is a sum of trees with one number to a leaf (no dart, no gblinear)."""
    document = _read(scorer.booster)
    if document["learner"]["gradient_booster"]["name"] != "gbtree":
        return False
    sizes = (tree["tree_param"]["size_leaf_vector"] for tree in _model(document)["trees"])
    return all(size in {"0", "1"} for size in sizes)


def _base(
    task: Task, documents: Sequence[Mapping[str, Any]], weighed: Sequence[float], level: float
) -> str:
    """Pool the constants to which trees add, and one more: but for two classes a probability.

    XGBoost 2 writes one number, XGBoost 3 a list in brackets with one to each class.
    """
    texts = [document["learner"]["learner_model_param"]["base_score"] for document in documents]
    if len(texts) == 1 and not level:  # nothing is rounded again
        return str(texts[0])
    numbers = [np.array(text.strip("[]").split(","), np.float64) for text in texts]
    if task == "binary":
        numbers = [np.log(p) - np.log1p(-p) for p in (np.clip(n, TINY, 1 - TINY) for n in numbers)]
    margin: Floats = sum(
        (weight * number for weight, number in zip(weighed, numbers, strict=True)),
        np.full(1, level),
    )
    if task == "binary":
        margin = 1 / (1 + np.exp(-margin))
    told = ",".join(map(_number, margin))
    return f"[{told}]" if texts[0].startswith("[") else told


def _number(value: float) -> str:
    """Write a number as XGBoost does: it reads `1E-01` as a half, without a word."""
    text = np.format_float_scientific(np.float32(value), trim="-", exp_digits=1)
    return text.upper().replace("E+", "E")


def _rewriter(
    old: tuple[Feature, ...], new: tuple[Feature, ...], weight: float
) -> Callable[[Tree], Tree]:
    """Give what writes a tree in other features, with its leaves multiplied by a weight."""
    at = {feature.name: place for place, feature in enumerate(new)}
    places = [at[feature.name] for feature in old]
    codes = {
        place: [new[at[f.name]].categories.index(value) for value in f.categories]
        for place, f in enumerate(old)
        if f.kind == "category"
    }
    sizes = {place: len(new[places[place]].categories) for place in codes}

    def rewrite(tree: Tree) -> Tree:
        leaf = np.asarray(tree["left_children"]) == -1
        split = np.asarray(tree["split_indices"])
        conditions = np.asarray(tree["split_conditions"], np.float32)
        return tree | {
            "split_indices": np.where(leaf, 0, np.take(places, split)).tolist(),
            "split_conditions": np.where(leaf, _times(conditions, weight), conditions).tolist(),
            "base_weights": _times(tree["base_weights"], weight).tolist(),
            "loss_changes": _times(tree["loss_changes"], weight).tolist(),
            "tree_param": tree["tree_param"] | {"num_feature": str(len(new))},
            **_categories(tree, codes, sizes),
        }

    return rewrite


def _times(values: object, weight: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    product: Floats = np.asarray(values, np.float64) * weight
    return product.astype(np.float32)


def _categories(tree: Tree, codes: Codes, sizes: Mapping[int, int]) -> dict[str, list[int]]:
    """Rewrite which categories go right at a split; what is not listed there goes left.

    A value that this tree never knew was missing to it, and goes where missing values go.
    """
    segments, out = tree["categories_segments"], []
    for node, begin, size in zip(
        tree["categories_nodes"], segments, tree["categories_sizes"], strict=True
    ):
        place = tree["split_indices"][node]
        right = {codes[place][code] for code in tree["categories"][begin : begin + size]}
        if not tree["default_left"][node]:
            right |= set(range(sizes[place])) - set(codes[place])
        out.append(sorted(right))
    lengths = [len(right) for right in out]
    return {
        "categories": list(chain.from_iterable(out)),
        "categories_segments": list(accumulate([0, *lengths]))[: len(out)],
        "categories_sizes": lengths,
    }
