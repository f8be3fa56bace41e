"""The faults of the review of deployment (H1 to H36), each reproduced by tests that fail while the fault is there.

A fault is left if one of its tests fails, is skipped or does not exist, and if part of it was not mended at all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from evidence.results import Measurement, not_measured

FAULTS_LEFT = "deploy.review_faults_left"
_ROOT = Path(__file__).parents[1]
_TIMEOUT_S = 1500
_REFUSED, _DRY = "tests/deploy/test_refused_orders.py", "tests/deploy/test_dry_runs.py"
_PROGRAMS, _RUNPOD, _CHART = (
    "tests/deploy/test_programs.py",
    "tests/deploy/test_runpod.py",
    "tests/deploy/test_chart.py",
)
_FILES, _AWS, _WAITS = "tests/deploy/test_files.py", "tests/deploy/test_aws_stack.py", "tests/deploy/test_stop_time.py"
_STOP, _RENTED = "tests/e2e/test_stopping.py", "tests/server/planning/test_rented.py"
_START, _KEEPER = "tests/deploy/test_start.py", "tests/ledger/rentals/test_keeper.py"
FAULTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "H1 any model passes on any GPU": ((_RENTED, "test_what_can_not_work_is_refused"),),
    "H2 eight GPUs of the documented model": ((_RENTED, "test_the_documented_model_uses_eight_gpus_as_eight_engines"),),
    "H3 what is sent is unchecked": (
        (_REFUSED, "test_every_target_refuses_what_can_not_work"),
        (_REFUSED, "test_a_configuration_that_is_too_long_for_a_stack_is_refused"),
    ),
    "H4 the disk is held against nothing": (
        (_RENTED, "test_what_can_not_work_is_refused"),
        (_REFUSED, "test_a_target_refuses_what_it_can_not_do"),
    ),
    "H5 hosts are not asked for a driver": ((_REFUSED, "test_hosts_are_asked_for_the_driver_that_the_image_needs"),),
    "H6 unknown settings and wrong names": (
        (_REFUSED, "test_every_target_refuses_what_can_not_work"),
        (_REFUSED, "test_a_target_refuses_what_it_can_not_do"),
    ),
    "H7 deploying again books twice": ((_PROGRAMS, "test_the_same_machine_deployed_again_is_the_same_rental"),),
    "H8 the typed price is booked": (
        (_PROGRAMS, "test_vast_is_booked_at_what_it_answers"),
        (_RUNPOD, "test_a_pod_is_booked_at_what_it_costs_and_ends_when_it_exits"),
        (_PROGRAMS, "test_the_books_follow_a_spot_instance_its_price_and_its_end"),
    ),
    "H9 replicas with a GPU each": (
        (_KEEPER, "test_replicas_with_a_gpu_each_have_a_rental_each"),
        (_FILES, "test_the_services_configuration_is_valid"),
    ),
    "H10 a pod that ended elsewhere": (
        (_RUNPOD, "test_a_pod_that_was_terminated_elsewhere_can_be_forgotten"),
        (_RUNPOD, "test_a_pod_is_booked_at_what_it_costs_and_ends_when_it_exits"),
    ),
    "H11 the price cap leaves the disk out": ((_PROGRAMS, "test_vast_takes_the_cheapest_offer"),),
    "H12 the wrong pool": ((_REFUSED, "test_a_worker_for_an_l4_is_an_l4"),),
    "H13 the body of an endpoint": (
        (_RUNPOD, "test_serverless"),
        (_RUNPOD, "test_templates_keep_to_the_schema"),
        ("tests/proxy/control/test_ping.py", "test_a_router_whose_engine_died_is_to_be_replaced"),
    ),
    "H14 answers are cut after 30 s": (
        (_WAITS, "test_everything_that_stops_it_waits_long_enough"),
        (_WAITS, "test_a_pod_has_the_same_time_after_its_service_dropped_it"),
        (_STOP, "test_an_answer_in_progress_ends_whole_and_a_second_signal_does_not_wait_for_it"),
    ),
    "H15 a spot notice refuses everybody": (
        (_STOP, "test_a_machine_that_is_about_to_go_answers_by_the_cloud_and_private_requests_itself"),
        (_AWS, "test_spot_stack_drains"),
    ),
    "H16 an upgrade changes nothing that runs": ((_AWS, "test_an_upgrade_replaces_the_machine_once_it_serves"),),
    "H17 a copy is no backup": (
        ("tests/ledger/store/test_backup.py", "test_a_copy_of_the_file_alone_is_noticed"),
        ("tests/ledger/store/test_backup.py", "test_a_backup_is_the_whole_ledger_in_one_private_file"),
    ),
    "H18 the configuration in a variable": (
        (_START, "test_the_configuration_stays_in_its_variable_for_every_command"),
    ),
    "H19 silent streams are cut": (
        ("tests/proxy/exchange/test_waiting_streams.py", "test_a_client_gets_a_comment_while_the_engine_is_silent"),
    ),
    "H20 a reload says nothing of restarts; keys from files": (
        ("tests/runtime/test_reload.py", "test_a_reload_says_what_only_a_restart_applies"),
        ("tests/config/test_load.py", "test_a_providers_key_may_come_from_a_file_that_each_reload_reads"),
    ),
    "H21 everybody is administrator behind a proxy": (
        ("tests/config/test_exposure.py", "test_what_opens_a_router_to_others_is_warned_of"),
    ),
    "H22 deleting models deletes ledgers": ((_CHART, "test_the_ledger_is_kept_as_long_as_anything_is"),),
    "H23 destroy deletes what is not ours": ((_REFUSED, "test_only_what_was_deployed_from_here_is_released"),),
    "H24 secrets in what is sent, and in messages": (
        (_REFUSED, "test_every_target_refuses_what_can_not_work"),
        ("tests/ledger/store/test_postgres.py", "test_the_password_is_never_shown"),
    ),
    "H25 the role, secrets of several lines, Grafana, units": (
        (_AWS, "test_on_demand_stack"),
        (_AWS, "test_secrets_of_several_lines_are_refused"),
        (_FILES, "test_systemd_units"),
    ),
    "H26 every pod is scraped twice": ((_CHART, "test_prometheus_reads_every_pod_once"),),
    "H27 the network policy shuts out what is enabled": ((_CHART, "test_network_policy_names_clients_and_ports"),),
    "H28 replicas on SQLite": ((_CHART, "test_values_that_contradict_each_other_are_not_rendered"),),
    "H29 what clusters need; strict values": (
        (_CHART, "test_the_pod_takes_what_a_cluster_asks_for"),
        (_CHART, "test_values_keep_to_their_schema"),
        (_CHART, "test_a_router_alone_needs_no_gpu"),
    ),
    "H30 nobody in the default network": ((_AWS, "test_on_demand_stack"),),
    "H31 one instance type; unbounded logs": ((_AWS, "test_another_size_and_no_log_that_grows"),),
    "H32 no alert when the router is down": (
        (_FILES, "test_rules_say_what_they_should"),
        (_FILES, "test_an_engine_and_a_cloud_have_alerts_of_their_own"),
    ),
    "H33 an engine without metrics lacks them": (
        ("tests/runtime/test_engine_watch.py", "test_an_engine_without_metrics_lacks_none"),
    ),
    "H34 the fixed side in the dashboard": ((_FILES, "test_the_dashboard_is_whole"),),
    "H35 compose and the GPU; volumes": (
        (_FILES, "test_what_the_engine_takes_follows_the_gpu_and_nobody_shares_its_volumes"),
        (_START, "test_a_volume_that_cannot_be_written_is_told"),
    ),
    "H36 no budget; pages below a prefix": (
        (_REFUSED, "test_every_target_refuses_what_can_not_work"),
        ("tests/proxy/control/test_ping.py", "test_the_page_of_the_api_works_below_a_prefix"),
    ),
}
"""For each fault the file and the name of the tests that reproduce it."""


def faults_left(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Run the tests of all faults; helm and promtool have to be on the PATH, or their faults count as left."""
    files = sorted({file for tests in FAULTS.values() for file, _ in tests if (_ROOT / file).exists()})
    names = " or ".join(sorted({name for tests in FAULTS.values() for _, name in tests}))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "tests.xml")
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "-k", names]
        done = subprocess.run(
            [*words, *files], cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        say(f"  {done.stdout.strip().splitlines()[-1:]}")
        if not report.exists():
            return {FAULTS_LEFT: not_measured(done.stderr.strip()[-300:])}
        outcomes = outcomes_of(report)
    left = left_of(outcomes)
    for line in left:
        say(f"  left: {line}")
    return {FAULTS_LEFT: Measurement(len(left), len(FAULTS), {"left": left, "tests": sum(map(len, outcomes.values()))})}


def outcomes_of(report: Path) -> dict[str, list[bool]]:
    """Return for each test by its name whether its cases passed."""
    outcomes: dict[str, list[bool]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        outcomes.setdefault(case.get("name", "").split("[")[0], []).append(len(case) == 0)
    return outcomes


def left_of(outcomes: Mapping[str, list[bool]]) -> list[str]:
    """Return the faults of which a test did not pass in every case, each with these tests."""
    left = []
    for fault, tests in FAULTS.items():
        open_tests = [name for _, name in tests if not outcomes.get(name) or not all(outcomes[name])]
        if open_tests:
            left.append(f"{fault}: {', '.join(open_tests)}")
    return left
