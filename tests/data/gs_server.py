"""A Google Cloud Storage server on this machine, with one bucket. It asks for no credentials.

Tells its address as the environment variable that users set; ends with its standard input.
"""

import json
import socket
import sys

from gcp_storage_emulator.server import create_server

BUCKET = "bucket"
HOST = "127.0.0.1"


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def main() -> None:
    port = free_port()  # the emulator does not tell which one it was given
    with create_server(HOST, port, in_memory=True, default_bucket=BUCKET):
        print(json.dumps({"STORAGE_EMULATOR_HOST": f"http://{HOST}:{port}"}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
