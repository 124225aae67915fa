"""The web application in front of moto: one request at a time, access keys, the lab's own paths."""

import io
import json
import logging
import time
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from . import control, credentials
from .clock import lock

_KEPT = 500  # answers
_READS = ("Describe", "List", "Get", "Head")


class Application:
    def __init__(self, access_key: str):
        self._access_key = access_key
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._answers = {}  # by the SDK's id of an invocation, whose attempts all carry it

    def __call__(self, environ, start_response):
        # The body is read before the lock is taken, so that a slow client holds up nobody.
        terminated = environ.get("wsgi.input_terminated")  # the body of a chunked request ends by itself
        body = environ["wsgi.input"].read(-1 if terminated else int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path.startswith("/lab/"):
            with lock:
                status, reply = control.answer(method, path, body)
            return _reply(start_response, status, "application/json", json.dumps(reply))
        with lock:
            refused = credentials.refusal(environ, self._access_key)
            if refused:
                return _reply(start_response, *refused)
            return self._once(_action(environ, body), environ, start_response)

    def _once(self, action, environ, start_response):
        """Answers a repeated attempt as the one before it, whose answer was lost on a busy machine.

        AWS does not; Fairway, which names itself, gets no such help.
        """
        invocation = environ.get("HTTP_AMZ_SDK_INVOCATION_ID")
        if not invocation or action.startswith(_READS) or "app/fairway" in environ.get("HTTP_USER_AGENT", ""):
            return self._logged(action, environ, start_response)
        if invocation in self._answers:
            status, headers, answer = self._answers[invocation]
            logging.info("%s: answered once more: %s", action, status)
            start_response(status, headers)
            return answer
        said = []

        def respond(status, headers, *rest):
            said[:] = [status, list(headers)]
            return start_response(status, headers, *rest)

        answer = self._logged(action, environ, respond)
        if said and said[0] < "5":
            self._answers[invocation] = (*said, answer)
            while len(self._answers) > _KEPT:
                del self._answers[next(iter(self._answers))]
        return answer

    def _logged(self, action, environ, start_response):
        """Changes are worth a line in the log, questions are not, unless they fail."""
        start = time.monotonic()

        def respond(status, headers, *rest):
            if not action.startswith(_READS) or status >= "4":
                logging.info("%s: %s in %.0f ms", action, status, 1000 * (time.monotonic() - start))
            return start_response(status, headers, *rest)

        # As a list, so that nothing is left to do when the lock is released.
        return list(self._moto(environ, respond))


def _action(environ, body):
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return target.rpartition(".")[2]
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return parse_qs(body.decode(errors="replace")).get("Action", ["?"])[0]
    return f"{environ['REQUEST_METHOD'].capitalize()} {environ['PATH_INFO']}"


def _reply(start_response, status, content_type, body):
    data = body.encode()
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(data)))])
    return [data]
