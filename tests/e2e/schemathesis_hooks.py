"""What schemathesis checks of spear's generation routes beside its own checks (SCHEMATHESIS_HOOKS names this module).

A body that fits the OpenAPI document may still ask for more tokens than the context holds, for a JSON schema or expression
that cannot be enforced, or for fields that exclude one another: JSON Schema cannot say so. There the server's own code must
say which of these it was, so `positive_data_acceptance` is replaced by this check on both routes."""
import schemathesis
from schemathesis import GenerationMode

ROUTES = ("/v1/completions", "/v1/chat/completions")
MAY_BE_REFUSED = {"context_length_exceeded", "invalid_format", "unsupported_value", "invalid_value"}


@schemathesis.check
def refused_for_a_reason(ctx, response, case):
    positive = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    if not positive or case.path not in ROUTES or response.status_code < 400 or response.status_code in (401, 404, 429):
        return
    error = response.json()["error"]
    if response.status_code != 400 or error["code"] not in MAY_BE_REFUSED or not error["param"]:
        raise AssertionError(f"a body that fits the document got {response.status_code}: {error}")
