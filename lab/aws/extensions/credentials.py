"""Access keys: AWS refuses those that it did not issue; moto accepts any."""

import json
import re

from moto.iam.models import iam_backends

# Answers by service, as the protocol of each has it; the others speak the query protocol.
_ANSWERS = {
    "ec2": (
        "401 Unauthorized",
        "text/xml",
        (
            "<Response><Errors><Error><Code>AuthFailure</Code><Message>AWS was not able to validate the provided "
            "access credentials</Message></Error></Errors><RequestID>lab</RequestID></Response>"
        ),
    ),
    "s3": (
        "403 Forbidden",
        "application/xml",
        (
            "<Error><Code>InvalidAccessKeyId</Code><Message>The AWS Access Key Id you provided does not exist in our "
            "records.</Message></Error>"
        ),
    ),
    "json": (
        "400 Bad Request",
        "application/x-amz-json-1.1",
        json.dumps(
            {
                "__type": "UnrecognizedClientException",
                "message": "The security token included in the request is invalid.",
            }
        ),
    ),
    "query": (
        "403 Forbidden",
        "text/xml",
        (
            "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>The security token "
            "included in the request is invalid.</Message></Error><RequestId>lab</RequestId></ErrorResponse>"
        ),
    ),
}

_CREDENTIAL = re.compile(r"Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/")


# The account that all buckets of the lab belong to.
_ACCOUNT = "123456789012"


def refusal(environ: dict, access_key: str) -> tuple[str, str, str] | None:
    """The status, content type and body to answer a signed request with whose access key is
    neither the given one nor one that moto issued, or which expects a bucket to be another account's."""
    if environ.get("HTTP_X_AMZ_EXPECTED_BUCKET_OWNER", _ACCOUNT) != _ACCOUNT:
        return "403 Forbidden", "application/xml", "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    match = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    if not match or match[1] == access_key or _issued(match[1]):
        return None
    service = match[2]
    if service not in _ANSWERS:
        service = "json" if environ.get("HTTP_X_AMZ_TARGET") else "query"
    return _ANSWERS[service]


def _issued(key: str) -> bool:
    if key.startswith("ASIA"):  # of a role, by STS
        return True
    return any(
        key == issued.access_key_id
        for _, _, backend in iam_backends.iter_backends()
        for user in backend.users.values()
        for issued in user.access_keys
    )
