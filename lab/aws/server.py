"""The lab's AWS endpoint: moto's server with the extensions beside this file."""

import argparse
import logging
import threading

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from extensions import (  # noqa: F401 (they extend moto)
    clock,
    groups,
    instances,
    operations,
    speed,
    stack_operations,
    stacks,
    volumes,
)
from extensions.application import Application


class RequestHandler(MotoRequestHandler):
    """Keeps connections open, as AWS does, and leaves the log of requests to the application."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on the loopback interface")
    parser.add_argument("--access-key", default="test", help="id of the access key of the account's operator")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)

    server = make_server(
        "127.0.0.1",
        arguments.port,
        Application(arguments.access_key),
        threaded=True,
        request_handler=RequestHandler,
    )
    threading.Thread(target=clock.run, name="clock", daemon=True).start()
    logging.info("serving on 127.0.0.1:%d", arguments.port)
    server.serve_forever()


if __name__ == "__main__":
    main()
