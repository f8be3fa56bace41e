"""Scores of an answer from its tokens' log-probabilities. For every score, more means surer.

With l_t the log-probability of the chosen token t in nats, and p_1 >= p_2 >= ... those of its alternatives:

- sum, mean, q10, q25, min     of l_t; a quantile of order 0 is the minimum (Gupta et al. 2024, "Language model
                               cascades: token-level uncertainty")
- margin_mean, margin_min      p_1 - p_2, in [0, 1]
- entropy_mean, entropy_min    minus the entropy of the alternatives in nats, the unseen rest as one tail term; min:
                               that of the least sure token
- group_low, group_bottom,     token confidence c_t = -(1/k) sum_j log p_j of the k alternatives other than the chosen
  tail                         one, averaged over a sliding window: the lowest window, the mean of the lowest tenth of
                               windows, the last window (DeepConf, Fu et al. 2025)
- window_low                   the lowest mean of l_t over a sliding window

Two traps are avoided. A token that a grammar forced (every other alternative masked to -9999 or less) carries no
information and is dropped. An engine that reports exactly 0.0 for nearly all tokens gives no signal at all, which is
not the same as being sure; `signal_flaw` reports it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from spillway_router.core.frozen import fast_frozen

FORCED = -9999.0
"""What engines report for tokens that a grammar masked; a value at or below it is no log-probability."""
SILENT_SHARE = 0.95
"""Share of tokens at exactly 0.0 above which the engine gives no signal."""
WINDOW = 16
"""Tokens per sliding window. DeepConf's 2,048 suit long reasoning; answers here are short."""
LEAST = -50.0
"""Floor of a token's log-probability, so that one impossible token doesn't dominate a sum."""


@fast_frozen(frozen=True, slots=True)
class Token:
    """One generated token as the engine reports it.

    `logprob`: natural log-probability of the chosen token. `top`: log-probabilities of the requested alternatives,
    including the chosen token, best first; empty if none were requested.
    """

    text: str
    logprob: float
    top: tuple[float, ...] = ()

    @property
    def forced(self) -> bool:
        """Whether a grammar left no choice, or the chosen token itself is masked: it says nothing about the model."""
        return self.logprob <= FORCED or (len(self.top) > 1 and self.top[1] <= FORCED)


def with_alternatives(tokens: Sequence[Token], count: int) -> Sequence[Token]:
    """Return the tokens as if `count` alternatives had been requested; the same object where there are no more.

    Scores of alternatives mean something else for another count, and a client may request more than we do.
    """
    if all(len(token.top) <= count for token in tokens):
        return tokens
    return [_fewer(token, count) for token in tokens]


def _fewer(token: Token, count: int) -> Token:
    best = token.top[:count]
    # An engine also reports the sampled token if it is not among the best ones.
    return Token(token.text, token.logprob, best if token.logprob in best else (*best, token.logprob))


def informative(tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens at which the model had a choice."""
    return [token for token in tokens if not token.forced]


def signal_flaw(tokens: Sequence[Token]) -> str | None:
    """Return why these informative tokens carry no signal: "none", "nan" or "zeros"; None if they do carry one."""
    if not tokens:
        return "none"
    zeros = 0
    for token in tokens:
        if not math.isfinite(token.logprob):
            return "nan"
        if token.logprob == 0.0:
            zeros += 1
    return "zeros" if zeros > SILENT_SHARE * len(tokens) else None


def token_scores(tokens: Sequence[Token]) -> dict[str, float]:
    """Return the scores, by name, of informative tokens that carry a signal; {} for no tokens.

    The scores of alternatives are among them only if every token has two or more.
    """
    if not tokens:
        return {}
    chosen = [max(LEAST, min(0.0, token.logprob)) for token in tokens]
    total = math.fsum(chosen)
    ordered = sorted(chosen)
    scores = {
        "sum": total,
        "mean": total / len(chosen),
        "min": ordered[0],
        "q10": quantile(ordered, 0.10),
        "q25": quantile(ordered, 0.25),
        "window_low": min(window_means(chosen)),
    }
    if all(len(token.top) > 1 for token in tokens):
        scores.update(_alternative_scores(tokens))
    return scores


def _alternative_scores(tokens: Sequence[Token]) -> dict[str, float]:
    margins = [margin(token) for token in tokens]
    entropies = [-entropy(token.top) for token in tokens]
    groups = window_means([others(token) for token in tokens])
    lowest = sorted(groups)[: max(1, len(groups) // 10)]
    return {
        "margin_mean": math.fsum(margins) / len(margins),
        "margin_min": min(margins),
        "entropy_mean": math.fsum(entropies) / len(entropies),
        "entropy_min": min(entropies),
        "group_low": lowest[0],
        "group_bottom": math.fsum(lowest) / len(lowest),
        "tail": groups[-1],
    }


def quantile(ordered: Sequence[float], order: float) -> float:
    """Quantile of sorted values by linear interpolation; order 0 is the minimum, 1 the maximum."""
    place = order * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def margin(token: Token) -> float:
    """Return p_1 - p_2 of the two best alternatives, in [0, 1]; 0 if fewer than two are known."""
    if len(token.top) < 2:
        return 0.0
    return max(0.0, math.exp(min(0.0, token.top[0])) - math.exp(min(0.0, token.top[1])))


def entropy(top: Sequence[float]) -> float:
    """Return the entropy in nats of the known alternatives, with all unseen ones counted as one further outcome."""
    probabilities = [math.exp(min(0.0, x)) for x in top if x > FORCED]
    tail = 1.0 - math.fsum(probabilities)
    if tail > 1e-12:
        probabilities.append(tail)
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0.0)


def others(token: Token) -> float:
    """Return DeepConf's token confidence: minus the mean log-probability of the alternatives without the best one.

    The best one is nearly always the chosen token, whose own log-probability is in the other scores.
    """
    rest = [max(LEAST, x) for x in token.top[1:]]
    return -math.fsum(rest) / len(rest) if rest else 0.0


def window_means(values: Sequence[float], width: int = WINDOW) -> list[float]:
    """Return the mean of every window of `width` consecutive values; the mean of all of them if there are fewer."""
    if len(values) <= width:
        return [math.fsum(values) / len(values)]
    running = math.fsum(values[:width])
    means = [running / width]
    for leaving, entering in zip(values, values[width:], strict=False):
        running += entering - leaving
        means.append(running / width)
    return means
