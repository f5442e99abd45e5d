"""Random requests of every route of /openapi.json: no server error, and answers that are as the schema says.

ASRTOOL_FUZZ_SECONDS sets the duration.
"""

import contextlib
import os
import time

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.faults.commands import until
from tests.faults.serving import Server, tone_system

__all__ = ["tone_system"]

SECONDS = float(os.environ.get("ASRTOOL_FUZZ_SECONDS", 6))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.fuzz
def test_random_requests_get_answers_of_the_schema(tone_system, tmp_path):
    counts: dict[str, int] = {}
    with Server(tone_system, tmp_path) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        assert "POST /v1/transcribe" in [operation.label for operation in operations]
        end = time.monotonic() + SECONDS
        while not counts or time.monotonic() < end:
            for operation in operations:
                for mode in GenerationMode:
                    run_operation(operation, mode, counts)
                    assert server.process.poll() is None
        print(f"\n{sum(counts.values())} requests: {counts}")
        assert until(server.is_idle, 60)
        server.recognises()
        assert "Traceback" not in server.log and "ERROR" not in server.log, server.log[-3000:]


def run_operation(operation, mode, counts):
    """Sends some random requests, right (positive) or wrong (negative) by the schema."""

    @settings(
        max_examples=10,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case):
        counts[operation.label] = counts.get(operation.label, 0) + 1
        case.call_and_validate(checks=CHECKS, timeout=60)

    with contextlib.suppress(Unsatisfiable):  # no request is wrong for a route without parameters, or for any text
        send()
