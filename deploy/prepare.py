"""What has to be there before a search: the artifacts' bucket, the studies' tables, the user that it signs in as.

`prepare.py bucket NAME` reads MLFLOW_S3_ENDPOINT_URL and boto3's variables; `prepare.py studies URL` reads libpq's;
`prepare.py user NAME` reads MLFLOW_TRACKING_URI, the administrator's MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD, and NEW_USER_PASSWORD. Each may be run again.
"""

import os
import sys


def make_bucket(name: str) -> None:
    """The bucket, made unless it is there."""
    import boto3

    store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    if name not in {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}:
        store.create_bucket(Bucket=name)


def make_tables(url: str) -> None:
    """Optuna's tables in the database, made unless they are there."""
    from optuna.storages import RDBStorage

    RDBStorage(url)


def make_user(name: str) -> None:
    """The user, with NEW_USER_PASSWORD as password, made or given that password."""
    from mlflow.exceptions import MlflowException
    from mlflow.server import get_app_client

    accounts = get_app_client("basic-auth", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    password = os.environ["NEW_USER_PASSWORD"]
    try:
        accounts.get_user(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        accounts.create_user(name, password)
    else:
        accounts.update_user_password(name, password)


if __name__ == "__main__":
    kinds = {"bucket": make_bucket, "studies": make_tables, "user": make_user}
    if len(sys.argv) != 3 or sys.argv[1] not in kinds:
        sys.exit(f"usage: prepare.py ({' | '.join(kinds)}) NAME")
    kinds[sys.argv[1]](sys.argv[2])
