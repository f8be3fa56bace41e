"""One bucket of an object store that speaks S3: Amazon's, Cloudflare R2, MinIO, and the network volumes of RunPod.

A file goes up in parts, each with its SHA-256, which the store checks on arrival. Parts that are there already are not
sent again: an interrupted upload goes on where it was, on any machine. Credentials and the endpoint come from where
boto3 looks for them (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ~/.aws).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillway_server.obstacle import Obstacle
from spillway_server.stores.manifest import FileEntry

PART_BYTES, MOST_PARTS = 16 * 1024 * 1024, 10_000
_READ_BYTES = 1024 * 1024
_CONNECT_S, _READ_S, _ATTEMPTS = 10, 120, 5
_NOT_FOUND = 404
Say = Callable[[str], None]


class StoreError(Exception):
    """The store refused or failed; the message says what it answered and what to change."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is in an object store."""

    bucket: str
    prefix: str

    def key(self, name: str) -> str:
        """Return the key of a file of the model."""
        return f"{self.prefix}/{name}" if self.prefix else name

    @property
    def name(self) -> str:
        """The last word of the place, by which its model is known."""
        return self.prefix.rpartition("/")[2] or self.bucket

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def place_of(text: str) -> Place | None:
    """Return the place that s3://BUCKET/PREFIX names, None for any other text."""
    if not text.startswith("s3://"):
        return None
    bucket, _, prefix = text[5:].partition("/")
    return Place(bucket, prefix.strip("/")) if bucket else None


class ObjectStore:
    """A client for one bucket."""

    def __init__(self, client: Any, bucket: str, part_bytes: int = PART_BYTES) -> None:
        self._client, self._bucket, self._part_bytes = client, bucket, part_bytes

    def has(self, key: str, entry: FileEntry) -> bool:
        """Return whether the store has this very file under a key."""
        head = self._head(key)
        stored = None if head is None else head.get("Metadata", {}).get("sha256")
        return head is not None and head["ContentLength"] == entry.size and stored == entry.sha256

    def put(self, key: str, path: Path, entry: FileEntry, say: Say) -> None:
        """Upload a file, or what is missing of it. Raise StoreError."""
        part_bytes = max(self._part_bytes, -(-entry.size // MOST_PARTS))
        if entry.size <= part_bytes:
            self.put_bytes(key, path.read_bytes(), {"sha256": entry.sha256})
            return
        upload, present = self._unfinished(key)
        resumed = bool(upload)
        if not upload:
            started = self._call("create_multipart_upload", Key=key, ChecksumAlgorithm="SHA256",
                              Metadata={"sha256": entry.sha256})  # fmt: skip
            upload = started["UploadId"]
        parts: list[dict[str, Any]] = []
        for number, block in enumerate(_blocks(path, part_bytes), 1):
            checksum = base64.b64encode(hashlib.sha256(block).digest()).decode()
            tag = present.get((number, checksum)) or present.get((number, _md5(block)))
            if tag is None:
                sent = self._call("upload_part", Key=key, UploadId=upload, PartNumber=number, Body=block,
                                  ChecksumSHA256=checksum)  # fmt: skip
                tag = sent["ETag"]
                say(f"{path.name}: {min(number * part_bytes, entry.size):,} of {entry.size:,} bytes")
            parts.append({"PartNumber": number, "ETag": tag, "ChecksumSHA256": checksum})
        self._call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
        if self.has(key, entry):
            return
        self._call("delete_object", Key=key)
        if not resumed:
            raise StoreError(f"{key} did not arrive as it was sent")
        self.put(key, path, entry, say)  # the unfinished upload was of an older file, and is gone now

    def put_bytes(self, key: str, content: bytes, metadata: Mapping[str, str]) -> None:
        """Upload a small file in one request. Raise StoreError."""
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        self._call("put_object", Key=key, Body=content, ChecksumSHA256=checksum, Metadata=dict(metadata))

    def delete_other(self, key: str, content: bytes) -> None:
        """Delete a small file unless it has this very content. Raise StoreError."""
        head = self._head(key)
        if head is None:
            return
        if head["ContentLength"] != len(content) or self._call("get_object", Key=key)["Body"].read() != content:
            self._call("delete_object", Key=key)

    def get_bytes(self, key: str, most: int) -> bytes | None:
        """Return a small file, None if there is none. Raise StoreError if it is larger than `most` bytes."""
        head = self._head(key)
        if head is None:
            return None
        if head["ContentLength"] > most:
            raise StoreError(f"{key} has {head['ContentLength']} bytes; at most {most} are read")
        content: bytes = self._call("get_object", Key=key)["Body"].read()
        return content

    def get(self, key: str, path: Path, say: Say) -> None:
        """Download a file; what an interrupted download left at `path` is kept and continued. Raise StoreError."""
        have = path.stat().st_size if path.exists() else 0
        head = self._head(key)
        if head is None:
            raise StoreError(f"{key} is not in the store any more; push the model again")
        total = head["ContentLength"]
        if have > total:
            path.unlink()
            have = 0
        if have == total and path.exists():
            return
        wanted = {"Range": f"bytes={have}-"} if have else {}
        body = self._call("get_object", Key=key, **wanted)["Body"]
        with path.open("ab") as file:
            for block in body.iter_chunks(_READ_BYTES):
                file.write(block)
        say(f"{path.name}: {total:,} bytes")

    def _unfinished(self, key: str) -> tuple[str, dict[tuple[int, str], str]]:
        """Return the newest unfinished upload of a key, "" if there is none, and its parts: tags by number and sum."""
        uploads = self._call("list_multipart_uploads", Prefix=key).get("Uploads") or []
        mine = sorted((one for one in uploads if one["Key"] == key), key=lambda one: str(one.get("Initiated", "")))
        if not mine:
            return "", {}
        upload = mine[-1]["UploadId"]
        present: dict[tuple[int, str], str] = {}
        after = 0
        while True:
            page = self._call("list_parts", Key=key, UploadId=upload, PartNumberMarker=after)
            for part in page.get("Parts") or []:
                sum_of_part = part.get("ChecksumSHA256") or part["ETag"].strip('"')
                present[part["PartNumber"], sum_of_part] = part["ETag"]
            if not page.get("IsTruncated"):
                return upload, present
            after = page["NextPartNumberMarker"]

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            head: dict[str, Any] = self._call("head_object", Key=key)
        except StoreError as error:
            if isinstance(error.__cause__, Exception) and _status(error.__cause__) == _NOT_FOUND:
                return None
            raise
        return head

    def _call(self, name: str, **fields: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, name)(Bucket=self._bucket, **fields)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(
                f"{name} on s3://{self._bucket} failed: {error}; check the bucket, AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and, for a store that is not Amazon's, AWS_ENDPOINT_URL"
            ) from error


def _md5(block: bytes) -> str:
    """Return what stores that list no SHA-256 name as the tag of a part. The whole file's SHA-256 is checked later."""
    return hashlib.md5(block, usedforsecurity=False).hexdigest()


def _status(error: Exception) -> int:
    response: dict[str, Any] = getattr(error, "response", {})
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(size):
            yield block


def open_store(place: Place, endpoint: str = "") -> ObjectStore | Obstacle:
    """Return a client for a place; `endpoint` is the store's address where it is not Amazon's."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        return Obstacle(
            f"{place} needs the extra `s3`.", "Install it: pip install '.[s3]' from the checkout; the images have it."
        )
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"max_attempts": _ATTEMPTS, "mode": "standard"},
    )
    client = boto3.client("s3", endpoint_url=endpoint or None, config=config)
    return ObjectStore(client, place.bucket)
