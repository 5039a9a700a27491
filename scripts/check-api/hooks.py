"""What a schema cannot say, for requests that are meant to be accepted. Those that are meant to be refused go
out as they were generated."""

import uuid

import schemathesis
from schemathesis import GenerationMode

# Whom the requests' header or token names.
CALLER = "alice"


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is not None and case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    # The user in a path has to be the caller: without this no request would get past 403.
    if "userId" in (case.path_parameters or {}):
        case.path_parameters["userId"] = CALLER
    if case.operation.label == "POST /api/orders" and isinstance(case.body, dict):
        one_key(case)


def one_key(case):
    """The key stands in the body or in the header, and is the same in both."""
    in_body, in_header = case.body.get("idempotencyKey"), (case.headers or {}).get("Idempotency-Key")
    if in_body is None and in_header is None:
        case.body["idempotencyKey"] = str(uuid.uuid4())
    elif in_body is not None and in_header is not None:
        case.headers["Idempotency-Key"] = in_body
