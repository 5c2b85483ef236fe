"""An S3 server on this machine that checks signatures, with one bucket and one user.

Tells its address and the user's keys as the environment variables that users set; ends with its
standard input.
"""

import json
import logging
import sys

import boto3
from moto import settings
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
MAY_ALL = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    print(json.dumps({"AWS_ENDPOINT_URL": url, **keys(url)}), flush=True)
    sys.stdin.read()


def keys(url: str) -> dict[str, str]:
    """Make the bucket and the user; from then on requests of others are refused."""
    place = {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "aws_access_key_id": "any",
        "aws_secret_access_key": "any",
    }
    boto3.client("s3", **place).create_bucket(Bucket=BUCKET)
    iam = boto3.client("iam", **place)
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(MAY_ALL))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


if __name__ == "__main__":
    main()
