"""The measure functions, grouped with the promises that one run of each of them measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from evidence import (
    measures_access,
    measures_accounting,
    measures_bench,
    measures_blame,
    measures_caching,
    measures_confidence,
    measures_confident_streams,
    measures_convert,
    measures_dashboard,
    measures_demo,
    measures_deploy,
    measures_docs,
    measures_documents,
    measures_engine,
    measures_examples,
    measures_failover,
    measures_faults,
    measures_fields,
    measures_fleet,
    measures_fuzz,
    measures_groupings,
    measures_large_bodies,
    measures_leaks,
    measures_leaving,
    measures_ledger,
    measures_ledger_away,
    measures_loadtest,
    measures_misfits,
    measures_mixed,
    measures_models,
    measures_money,
    measures_newcomer,
    measures_overflow,
    measures_overload,
    measures_pacing,
    measures_plan,
    measures_policy,
    measures_privacy,
    measures_relay,
    measures_rentals,
    measures_replay,
    measures_report,
    measures_rollout,
    measures_scaleout,
    measures_secrets,
    measures_stopped,
    measures_timezones,
    measures_two_guards,
    measures_usage,
    measures_use,
)
from evidence.results import Measurement
from evidence.streams import objects, truncations

Say = Callable[[str], None]
Measure = Callable[[Say], Mapping[str, Measurement]]


@dataclass(frozen=True, slots=True)
class Group:
    """The ids that one call of `measure` covers. `about` says how long it takes and what it needs."""

    ids: tuple[str, ...]
    measure: Measure
    about: str


GROUPS: tuple[Group, ...] = (
    Group(measures_confidence.IDS, measures_confidence.confidence, "about 2 minutes; no engine"),
    Group(measures_bench.RATIOS, measures_bench.ratios, "about 6 minutes; installs the peers on first use"),
    Group((measures_policy.DECIDE_CPU,), measures_policy.decide_cpu, "about 20 s"),
    Group((measures_policy.MANY_BACKENDS,), measures_policy.many_backends, "about 4 minutes"),
    Group((measures_policy.MANY_ENGINES,), measures_policy.many_engines, "about 4 minutes"),
    Group((measures_examples.PRESETS_GREEN,), measures_examples.presets_green, "about 1 minute; needs vLLM"),
    Group(("bench.idle_rss",), measures_bench.idle_rss, "about 30 s"),
    Group(measures_dashboard.CHECKS, measures_dashboard.checks, "about 1 minute; needs Chromium"),
    Group((measures_dashboard.MILLION_ROWS,), measures_dashboard.million_rows, "about 2 minutes; needs Chromium"),
    Group((measures_dashboard.VIEWERS,), measures_dashboard.viewers, "about 90 s; needs Chromium"),
    Group(("relay.disconnect_close",), measures_relay.disconnect_close, "about 1 minute"),
    Group(("relay.slow_reader_growth",), measures_relay.slow_reader_growth, "about 1 minute"),
    Group(("demo_model.clean_exact",), measures_demo.clean_exact, "about 2 minutes; starts the engine"),
    Group(("demo.seconds_after_install",), measures_demo.seconds_after_install, "up to 5 minutes; runs the demo"),
    Group((measures_plan.KV_ERROR,), measures_plan.plan_kv_error, "5 to 10 minutes; the CPU build of vLLM"),
    Group(measures_documents.IDS, measures_documents.documents, "about 8 minutes; starts the engine"),
    Group(
        (measures_models.RATIO, measures_models.LADDER),
        measures_models.conversions,
        "about 10 minutes; two GGUF files in .cache/models, .venv-convert, .venv-llama",
    ),
    Group((measures_models.GREEDY,), measures_models.greedy_equal, "about 5 minutes; the same, and vLLM on the CPU"),
    Group(
        (measures_models.DIFFER,),
        measures_models.transplanted,
        "about 1 minute; a GGUF in .cache/models, .venv-convert",
    ),
    Group(measures_convert.IDS, measures_convert.conversion, "about 4 minutes; installs .venv-convert on first use"),
    Group((measures_deploy.DRY_RUNS,), measures_deploy.dry_runs, "about 20 s"),
    Group((measures_misfits.MISFITS,), measures_misfits.misfits_accepted, "about 10 s"),
    Group((measures_faults.FAULTS_LEFT,), measures_faults.faults_left, "about 5 minutes; needs helm and promtool"),
    Group((measures_stopped.STOPPED_STREAM_ERROR,), measures_stopped.stopped_streams, "about 2 minutes"),
    Group(measures_leaving.IDS, measures_leaving.leaving, "about 3 minutes"),
    Group(measures_fleet.IDS, measures_fleet.fleet, "about 5 minutes"),
    Group(measures_overflow.IDS, measures_overflow.overflow, "about 10 s"),
    Group((measures_replay.ERROR,), measures_replay.error_vs_live, "about 25 minutes"),
    Group((measures_accounting.USED_PLUS_UNUSED,), measures_accounting.used_plus_unused, "about 2 minutes"),
    Group((measures_groupings.GROUPINGS_UNEQUAL,), measures_groupings.groupings_unequal, "about 3 minutes"),
    Group((measures_timezones.TIMEZONE_SUMS,), measures_timezones.timezone_sums, "about 1 minute"),
    Group((measures_rentals.RENTALS_DIFFERENCE,), measures_rentals.rentals_difference, "about 6 minutes"),
    Group((measures_report.MILLION_ROWS,), measures_report.million_rows, "about 2 minutes"),
    Group(
        (*measures_report.FIVE_MILLION, *measures_report.READERS),
        measures_report.five_million_rows,
        "about 10 minutes; 1.4 GB of disk",
    ),
    Group(("ledger.kill9_lost_or_doubled",), measures_ledger.kill9, "about 1 minute"),
    Group(("ledger.powercut_lost",), measures_ledger.powercut, "about 20 s"),
    Group(measures_ledger.SPEED, measures_ledger.speed, "about 40 s; needs an idle machine"),
    Group(("budget.overshoot",), measures_money.overshoot, "about 5 minutes; starts PostgreSQL"),
    Group(measures_fields.IDS, measures_fields.fields, "about 4 minutes"),
    Group((measures_docs.DEAD_LINKS,), measures_docs.links, "about 20 s; needs `make install-docs`"),
    Group((measures_docs.EXAMPLES_FAILED,), measures_docs.failing_examples, "about 30 s"),
    Group((measures_newcomer.FIRST_ANSWER,), measures_newcomer.first_answer, "up to 15 minutes; installs everything"),
    Group((measures_newcomer.MONEY_PAGE,), measures_newcomer.money_page, "up to 20 minutes; installs everything"),
    Group((measures_use.MISTAKES,), measures_use.mistakes_well_told, "about 1 minute"),
    Group((measures_usage.USAGE_SHAPES,), measures_usage.usage_shapes, "about 15 s"),
    Group(("budget.leaked_reservations",), measures_money.leaked, "about 3 minutes; starts PostgreSQL"),
    Group(("ledger.independent_bill_difference",), measures_money.independent_bill, "about 3 minutes"),
    Group(
        (measures_loadtest.RUNS_GREEN,), measures_loadtest.runs_green, "about 4 minutes; needs locust: `make loadtest`"
    ),
    Group((measures_scaleout.LOST,), measures_scaleout.lost_requests, "about 5 minutes; starts two engines"),
    Group((measures_rollout.LOST,), measures_rollout.lost_requests, "about 3 minutes; starts PostgreSQL"),
    Group(measures_pacing.IDS, measures_pacing.pacing, "about 15 s"),
    Group((measures_privacy.LEAKED,), measures_privacy.leaked, "about 5 minutes"),
    Group(measures_two_guards.IDS, measures_two_guards.two_guards, "about 4 minutes"),
    Group((measures_privacy.FALSE_ALARMS,), measures_privacy.false_alarms, "about 20 s"),
    Group((measures_blame.BLAME_TABLE,), measures_blame.blame_table, "about 1 s"),
    Group(
        truncations.IDS,
        truncations.streams,
        "about 9 minutes; needs Node, and installs client libraries on first use",
    ),
    Group((objects.DIFFER,), objects.client_objects, "about 1 minute; needs Node, and installs client libraries"),
    Group((measures_failover.FAILOVER,), measures_failover.failover, "about 2 minutes"),
    Group((measures_failover.AMPLIFICATION,), measures_failover.amplification, "about 1 minute"),
    Group((measures_failover.RECOVERY,), measures_failover.recovery, "about 2 minutes"),
    Group((measures_large_bodies.HEALTH_WAIT,), measures_large_bodies.health_wait, "about 3 minutes"),
    Group((measures_large_bodies.KEPT_MEMORY,), measures_large_bodies.kept_memory, "about 8 minutes"),
    Group((measures_engine.KILLED, measures_engine.HUNG), measures_engine.engine_faults, "about 4 minutes; needs vLLM"),
    Group((measures_fuzz.FUZZ,), measures_fuzz.fuzzed_requests, "about 3 minutes"),
    Group((measures_secrets.SECRETS,), measures_secrets.secret_canaries, "about 5 minutes; starts PostgreSQL"),
    Group((measures_access.ROUTE_ROLE,), measures_access.route_role, "about 2 minutes"),
    Group((measures_access.KEY_RULES,), measures_access.key_rules, "about 5 minutes"),
    Group((measures_caching.CROSSINGS,), measures_caching.crossings, "about 3 minutes"),
    Group(
        (measures_caching.WRONG_HITS,), measures_caching.wrong_hits, "about 10 minutes; fetches a model on first use"
    ),
    Group((measures_access.EMBEDDING_SPACES,), measures_access.embedding_spaces, "about 3 minutes"),
    Group((measures_access.OPEN_S1,), measures_access.open_s1, "about 3 minutes"),
    Group((measures_mixed.MIXED,), measures_mixed.mixed_streams, "about 2 minutes"),
    Group((measures_leaks.LEAKS,), measures_leaks.tasks_and_fds, "about 1 minute"),
    Group((measures_leaks.SLOPE,), measures_leaks.rss_slope, "at most an hour"),
    Group(measures_ledger_away.IDS, measures_ledger_away.ledger_away, "about 4 minutes; needs root"),
    Group(measures_overload.WITH_CAP, measures_overload.with_queue_cap, "about 90 s"),
    Group((measures_overload.WITHOUT_CLOUD,), measures_overload.without_cloud, "about 3 minutes"),
    Group((measures_overload.CALM_KEY,), measures_overload.calm_key, "about 70 s"),
    Group((measures_overload.VICTIM,), measures_overload.victim, "about 11 minutes"),
    Group((measures_confident_streams.OVERHEAD,), measures_confident_streams.overhead, "about 3 minutes"),
)


def chosen(name: str, prefixes: str) -> bool:
    """Return whether an id begins with one of these prefixes, which commas separate."""
    return name.startswith(tuple(prefixes.split(",")))


def groups_for(prefixes: str, groups: Sequence[Group] = GROUPS) -> list[Group]:
    """Return the groups with at least one id that begins with one of these prefixes."""
    return [group for group in groups if any(chosen(name, prefixes) for name in group.ids)]


def measured_ids(groups: Iterable[Group] = GROUPS) -> set[str]:
    """Return all ids that a function measures."""
    return {name for group in groups for name in group.ids}
