"""What the calibrated confidence is worth, on the demo model's answers through real vLLM (loadtests/confidence).

Everything is fitted on 60% of the documents and judged on the other 40%; all five kinds of one document stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
from loadtests.confidence import trials
from loadtests.confidence.held import ALPHA, DELTA, SHARPENED, Held, held
from loadtests.confidence.trials import AnswerPool, Control, Floats

from evidence.results import Measurement
from spillway_router.calibration.certify import certify, naive
from spillway_router.calibration.labelled import PREFIXES
from spillway_router.calibration.measures import auroc, brier, ece, interval, resamples, summary
from spillway_router.core.confidence import drift
from spillway_server.demo_model.documents import NOISES

Say = Callable[[str], None]
GAIN, ECE = "confidence.auroc_gain_over_best_single", "confidence.ece"
COST = "confidence.cost_saved_equal_accuracy"
CERTIFICATE, DRIFT = "confidence.certificate_violations", "confidence.drift_excess"
IDS = (GAIN, ECE, COST, CERTIFICATE, DRIFT)
RESPLITS, RUNS, REPEATS = 1000, 200, 1000
AUDITS = 0.05
EQUAL_WITHIN = 0.01
"""Accuracy that may be lost against always escalating and still counts as equal."""
MIXES: Mapping[str, Mapping[str, float]] = {
    "all five kinds alike, as certified": dict.fromkeys(NOISES, 0.2),
    "the demo's traffic (half clean)": {"clean": 0.5, "light": 0.3, "heavy": 0.2},
    "no clean page": {"light": 0.3, "heavy": 0.3, "unseen": 0.2, "truncated": 0.2},
    "noisy pages only": {"light": 0.5, "heavy": 0.5},
    "heavy noise only": {"heavy": 1.0},
}
CERTIFIED_MIX = MIXES["all five kinds alike, as certified"]


@lru_cache(maxsize=1)
def _held() -> Held:
    """Run the experiment once: about 45 s of one core."""
    return held()


def confidence(say: Say) -> dict[str, Measurement]:
    """Measure all five promises on one experiment."""
    say("  fitting on 60% of 8,540 answers, judging on the others and on 8,540 fresh ones")
    experiment = _held()
    say(f"  {len(experiment.rows)} held-out answers; scores with {REPEATS} bootstrap samples of documents")
    results = {**quality(experiment, REPEATS), **cost(experiment, REPEATS)}
    say(f"  {RESPLITS} resplits, {RUNS} runs of every drift")
    return {**results, **certificates(experiment.pool, RESPLITS), **drifts(experiment, RUNS)}


def quality(experiment: Held, repeats: int, confidences: Floats | None = None) -> dict[str, Measurement]:
    """Measure AUROC against the best single score on the held-out answers themselves, and the calibration error.

    `confidences` replaces the calibrated ones, to see the measurement fail.
    """
    pool = experiment.pool
    p = pool.confidence if confidences is None else confidences
    draws = resamples(pool.groups, repeats)
    names = sorted(set.intersection(*(set(row.scores) for row in experiment.rows)))
    singles = {name: experiment.score(name) for name in names}
    best = max(singles, key=lambda name: auroc(singles[name], pool.right))
    rest = singles[best]
    gain = interval(lambda r: auroc(p[r], pool.right[r]) - auroc(rest[r], pool.right[r]), len(p), draws)
    error = interval(lambda r: ece(p[r], pool.right[r]), len(p), draws)
    table = summary({"combination": p, **singles}, pool.right, draws, ["combination"])
    shared = {
        "best_single": best,
        "scores": {"columns": "value, low, high (95% bootstrap over documents)", **table},
        "model": experiment.built.fitted.chosen,
        "fitted_on": experiment.built.data["made"]["fitted_on"] + experiment.built.data["made"]["certified_on"],
        "right": round(float(pool.right.mean()), 4),
    }
    gained = {
        "gain": gain.rounded(),
        **shared,
        "baselines_out_of_fold": _baselines(experiment),
        "prefixes": _prefixes(experiment),
    }
    errors = {
        "interval": error.rounded(),
        "of_fresh_answers_alone": round(ece(p[experiment.fresh], pool.right[experiment.fresh]), 4)
        if experiment.fresh.any()
        else None,
        "brier": round(brier(p, pool.right), 4),
        "floor": _floor(p),
        "by_kind": _by_kind(pool, p),
        "note": "calibrated over the mixture; within one kind of damage the error is larger, as by_kind shows",
    }
    n = len(p)
    return {GAIN: Measurement(round(gain.low, 5), n, gained), ECE: Measurement(round(error.value, 5), n, errors)}


def _floor(p: Floats) -> list[float]:
    """Return [mean, 97.5% quantile] of the error that perfectly calibrated confidences would show.

    This is sampling alone, if the answers were independent; the five kinds of one document are not, so the true floor
    is higher.
    """
    rng = np.random.default_rng(0)
    errors = [ece(p, (rng.random(len(p)) < p).astype(np.float64)) for _ in range(200)]
    return [round(float(np.mean(errors)), 4), round(float(np.quantile(errors, 0.975)), 4)]


def _baselines(experiment: Held) -> dict[str, dict[str, float]]:
    """Return candidates and baselines on the fitting part's held-out folds."""
    fitted = experiment.built.fitted
    rights = fitted.labels
    return {
        name: {
            "auroc": round(auroc(p, rights), 4),
            "ece": round(ece(p, rights), 4),
            "brier": round(brier(p, rights), 4),
        }
        for name, p in fitted.out_of_fold.items()
    }


def _prefixes(experiment: Held) -> dict[str, Any]:
    """Return AUROC(k) of what is known after the first k tokens of a stream, for whether the whole answer will be
    right.
    """
    by_prefix: dict[str, Any] = {}
    for k in PREFIXES:
        stage = next((s for s in experiment.calibration.stages if s.tokens == k), None)
        if stage is None:
            continue
        rows = [i for i, row in enumerate(experiment.rows) if k in row.prefixes]
        p = np.array([stage.probability(experiment.rows[i].prefixes[k]) for i in rows])
        right = experiment.pool.right[rows]
        by_prefix[str(k)] = {"auroc": round(auroc(p, right), 4), "ece": round(ece(p, right), 4), "answers": len(rows)}
    return by_prefix


def _by_kind(pool: AnswerPool, p: Floats) -> dict[str, dict[str, float]]:
    kinds = np.array(pool.kinds)
    by_kind = {}
    for kind in NOISES:
        rows = kinds == kind
        right = pool.right[rows]
        by_kind[kind] = {
            "n": int(rows.sum()),
            "right": round(float(right.mean()), 4),
            "auroc": round(auroc(p[rows], right), 4),
            "ece": round(ece(p[rows], right), 4),
        }
    return by_kind


def cost(experiment: Held, repeats: int, confidences: Floats | None = None) -> dict[str, Measurement]:
    """Measure the share of requests not paid for at the accuracy of always escalating.

    The threshold is chosen on one half of the held-out documents and judged on the other, both ways round.
    """
    p = experiment.pool.confidence if confidences is None else confidences
    single = experiment.score(experiment.built.fitted.best_single)
    ours, theirs = (_both_ways(experiment, score) for score in (p, single))
    details: dict[str, Any] = {
        "strong_model": "simulated: reads whatever still stands in the text (undoing look-alikes, blanks, commas), "
        "fails where digits were replaced, lost or cut off",
        "accuracy_of_always_escalating": round(float(experiment.strong.mean()), 4),
        "accuracy_of_never_escalating": round(float(experiment.pool.right.mean()), 4),
        "accuracy_gain": round(ours.gain, 4),
        "best_single": {
            "score": experiment.built.fitted.best_single,
            "saved": round(theirs.kept, 4),
            "gain": round(theirs.gain, 4),
        },
        "saved_more_than_best_single": _difference(experiment, p, single, repeats),
        "saved_more_on_fresh_answers_alone": _difference(
            experiment, p, single, repeats, np.flatnonzero(experiment.fresh)
        ),
        "with_a_cloud_that_is_never_wrong": _never_wrong(experiment, p, single),
    }
    if ours.gain < -EQUAL_WITHIN:
        return {COST: Measurement(None, len(p), {"reason": "the accuracy is not equal", **details})}
    return {COST: Measurement(round(ours.kept, 4), len(p), details)}


def _both_ways(experiment: Held, score: Floats, seed: int = 0) -> trials.Saving:
    """Choose a threshold on one half and judge it on the other; return the mean over ten splits, both ways round."""
    rng = np.random.default_rng(seed)
    right, strong = experiment.pool.right, experiment.strong
    savings = []
    for _ in range(10):
        one, other = trials.halves(experiment.pool.groups, rng)
        for chosen, judged in ((one, other), (other, one)):
            level = trials.loosest_equal(score[chosen], right[chosen], strong[chosen])
            savings.append(trials.saving(score[judged], right[judged], strong[judged], level))
    return trials.Saving(float(np.mean([s.kept for s in savings])), float(np.mean([s.gain for s in savings])))


def _difference(experiment: Held, p: Floats, single: Floats, repeats: int, only: Any = None) -> list[float]:
    """Return how much more the combination saves than the best single score at equal accuracy, with its interval.

    `only` has the numbers of the rows to look at; the result is [] where there are none.
    """
    kept = np.arange(len(p)) if only is None else only
    if not len(kept):
        return []
    p, single, right, strong = (values[kept] for values in (p, single, experiment.pool.right, experiment.strong))

    def saved(score: Floats, rows: Any) -> float:
        level = trials.loosest_equal(score[rows], right[rows], strong[rows])
        return trials.saving(score[rows], right[rows], strong[rows], level).kept

    draws = resamples([experiment.pool.groups[row] for row in kept], repeats, 1)
    return interval(lambda rows: saved(p, rows) - saved(single, rows), len(p), draws).rounded()


def _never_wrong(experiment: Held, p: Floats, single: Floats) -> dict[str, list[float]]:
    """Return the largest share kept at full accuracy if the cloud were always right: [combination, best single]."""
    kept_shares = {}
    for accuracy in (0.99, 0.98, 0.95):
        kept = []
        for score in (p, single):
            lost = np.cumsum(1.0 - experiment.pool.right[np.argsort(-score, kind="stable")]) / len(score)
            kept.append(round(float(np.searchsorted(lost, 1.0 - accuracy, side="right") / len(score)), 4))
        kept_shares[f"accuracy {accuracy:g}"] = kept
    return kept_shares


def certificates(pool: AnswerPool, resplits: int, rule: Callable[..., Any] = certify) -> dict[str, Measurement]:
    """Certify on a random half of the held-out documents and judge on the other half, many times."""
    rng = np.random.default_rng(0)
    ours: list[tuple[bool, float]] = []
    theirs: list[tuple[bool, float]] = []
    for _ in range(resplits):
        one, other = trials.halves(pool.groups, rng)
        confidences, right = pool.confidence[one].tolist(), (pool.right[one] > 0).tolist()
        certified = rule(confidences, right, ALPHA, DELTA) if rule is certify else rule(confidences, right, ALPHA)
        ours.append(trials.violation(certified, pool, other, ALPHA))
        theirs.append(trials.violation(naive(confidences, right, ALPHA), pool, other, ALPHA))
    details = {
        "alpha": ALPHA,
        "delta": DELTA,
        "risk": "P(wrong | kept), the stricter reading; the other half's own sampling error counts against us",
        "kept_mean": round(float(np.mean([kept for _, kept in ours])), 4),
        "naive_violations": round(float(np.mean([bad for bad, _ in theirs])), 4),
        "naive_kept_mean": round(float(np.mean([kept for _, kept in theirs])), 4),
        "labelled_per_resplit": len(pool.right) // 2,
    }
    return {CERTIFICATE: Measurement(round(float(np.mean([bad for bad, _ in ours])), 4), resplits, details)}


def drifts(experiment: Held, runs: int, *, moves: bool = True) -> dict[str, Measurement]:
    """Measure the worst drift: expected share of wrong answers among the kept, over alpha, from 2,000 requests after it
    on.
    """
    calibration = experiment.calibration
    certified = calibration.threshold
    if certified is None:
        return {DRIFT: Measurement(None, 0, {"reason": "no threshold was certified"})}
    start = drift.theta_of(certified, calibration.reference)
    control = Control(certified, calibration.reference, drift.DriftTerms(ALPHA, AUDITS, start), moves)
    before = (experiment.pool, CERTIFIED_MIX)
    cases = {f"to: {name}": (experiment.pool, mix) for name, mix in MIXES.items()}
    cases[f"to: an overconfident engine (log-probabilities x {SHARPENED:g})"] = (experiment.sharpened, CERTIFIED_MIX)
    risks = {name: trials.drifting(before, after, control, runs, 7) for name, after in cases.items()}
    fixed = Control(certified, calibration.reference, control.terms, moves=False)
    by_case = {
        name: {
            **{key: round(value, 4) for key, value in asdict(risk).items()},
            "threshold_left_alone": round(trials.drifting(before, cases[name], fixed, max(2, runs // 10), 8).pooled, 4),
        }
        for name, risk in risks.items()
    }
    worst = max(risks, key=lambda name: risks[name].expected)
    details = {
        "alpha": ALPHA,
        "audits": AUDITS,
        "eta": drift.ETA,
        "looked_at": f"requests {trials.AFTER:,} to {trials.AFTER + trials.LOOKED_AT:,} after the drift, {runs} runs",
        "value": "expected: mean over runs of wrong/kept, 0 for a run that keeps nothing. pooled (wrong over kept, "
        "of all runs together) is above alpha where no threshold attains alpha: the few runs weigh that still keep "
        "something; kept and of_all show how little that is",
        "worst": worst,
        "drifts": by_case,
    }
    return {DRIFT: Measurement(round(risks[worst].expected - ALPHA, 5), runs, details)}
