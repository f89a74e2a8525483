"""The EC2 client of the scripts beside this file. The first argument of each is the endpoint's URL."""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ec2 = boto3.client(
    "ec2",
    region_name="eu-west-1",
    endpoint_url=sys.argv[1],
    config=Config(retries={"total_max_attempts": 1}),
)


def refused(call, *arguments, **more):
    """The HTTP status and the error code of a call that must fail."""
    try:
        call(*arguments, **more)
    except ClientError as error:
        assert error.response["ResponseMetadata"]["RequestId"], error.response
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    raise AssertionError(f"{call} {arguments} {more} succeeded")
