from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import UploadFile

from serving.access import KeyRing
from serving.batches import files, store
from serving.batches.disk import write_whole
from tests.unit.batches.conftest import NOON, Opener, jsonl, line
from tests.unit.serving.conftest import CHAT


async def test_a_file_is_kept_listed_read_and_deleted(opened: Opener) -> None:
    house = opened()
    content = jsonl(line(1))
    uploaded = (await house.upload(content, name="../../my requests.jsonl")).json
    assert uploaded == {
        "id": uploaded["id"],
        "object": "file",
        "bytes": len(content),
        "created_at": int(NOON),
        "expires_at": int(NOON) + 30 * 86_400,
        "filename": "my requests.jsonl",
        "purpose": "batch",
        "status": "processed",
    }
    house.wall.advance(1)
    second = (await house.upload(b"x")).json
    listed = (await house.get("/v1/files")).json
    assert [file["id"] for file in listed["data"]] == [second["id"], uploaded["id"]]
    assert not listed["has_more"]
    other_way = await house.send(raw=b"", path="/v1/files", method="GET", query="order=asc&limit=1&purpose=batch")
    assert [file["id"] for file in other_way.json["data"]] == [uploaded["id"]]
    assert other_way.json["has_more"]
    assert (await house.get(f"/v1/files/{uploaded['id']}")).json == uploaded
    assert (await house.get(f"/v1/files/{uploaded['id']}/content")).body == content
    deleted = await house.send(raw=b"", path=f"/v1/files/{uploaded['id']}", method="DELETE")
    assert deleted.json == {"id": uploaded["id"], "object": "file", "deleted": True}
    for path in ("", "/content"):
        gone = await house.get(f"/v1/files/{uploaded['id']}{path}")
        assert (gone.status, gone.error["code"]) == (404, "file_not_found")
    assert (await house.send(raw=b"", path=f"/v1/files/{uploaded['id']}", method="DELETE")).status == 404


async def test_a_running_batch_keeps_its_hold_on_a_deleted_input(opened: Opener) -> None:
    house = opened()
    batch_id = await house.batch_of(line(1))
    input_id = (await house.seen(batch_id))["input_file_id"]
    await house.send(raw=b"", path=f"/v1/files/{input_id}", method="DELETE")
    await house.run()
    assert (await house.seen(batch_id))["status"] == "completed"


async def test_what_is_kept_is_nobody_elses_to_read(opened: Opener) -> None:
    house = opened()
    await house.batch_of(line(1))
    await house.run()
    found = [house.root, *house.root.rglob("*")]
    assert any(path.suffix == ".jsonl" for path in found)
    for path in found:
        if path.is_dir() or path.suffix in (".json", ".jsonl"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_file_that_is_too_large_is_refused_and_not_kept(opened: Opener) -> None:
    house = opened(settings={"max_file_bytes": 2048})
    assert (await house.upload(b"x" * 2048)).status == 200
    for size in (2049, 500_000):
        refused = await house.upload(b"x" * size)
        assert (refused.status, refused.error["code"]) == (413, "request_too_large")
    assert len(house.batches.files.all_of("default")) == 1
    assert list(house.root.glob("drafts/*")) == []


async def test_a_tenants_files_together_are_bounded_and_deleting_makes_room(opened: Opener) -> None:
    house = opened(settings={"max_tenant_bytes": 2048})
    first = (await house.upload(b"x" * 1500)).json
    refused = await house.upload(b"x" * 1500)
    assert (refused.status, refused.error["code"]) == (413, "storage_exceeded")
    await house.send(raw=b"", path=f"/v1/files/{first['id']}", method="DELETE")
    assert (await house.upload(b"x" * 1500)).status == 200


@pytest.mark.parametrize("purpose", ["", "fine-tune", "assistants"])
async def test_only_batches_are_a_purpose(opened: Opener, purpose: str) -> None:
    refused = await opened().upload(b"x", purpose=purpose)
    assert (refused.status, refused.error["param"]) == (400, "purpose")


async def test_what_is_no_form_with_a_file_is_refused(opened: Opener) -> None:
    house = opened()
    for kind, raw in [
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n"),
        ("multipart/form-data", b"--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\nx\r\n--x--\r\n',
        ),
    ]:
        refused = await house.send(raw=raw, path="/v1/files", content_type=kind)
        assert refused.status == 400, raw
        assert refused.error["message"]
    assert list(house.root.glob("drafts/*")) == []


async def test_a_folder_that_cannot_be_used_is_said_so(opened: Opener) -> None:
    house = opened()
    house.root.write_text("a file where the folder should be")
    refused = await house.upload(b"x")
    assert (refused.status, refused.error["code"]) == (503, "file_store_unavailable")


@pytest.mark.parametrize("parts", [1, 4])
async def test_a_disk_that_is_full_while_a_file_comes_is_said_so_to_its_end(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    async def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadFile, "write", full)
    refused = await opened().upload(b"x", parts=parts)
    assert (refused.status, refused.error["code"]) == (503, "file_store_unavailable")


async def test_a_file_or_a_batch_that_does_not_come_is_408(opened: Opener) -> None:
    house = opened(keys=KeyRing({"acme": "key"}), request_timeout_seconds=0.01)
    mine = {"authorization": "Bearer key"}
    for sent in (
        await house.upload(b"x", ends=False, **mine),
        await house.upload(b"x", ends=False),
        await house.send(raw=b"{", path="/v1/batches", ends=False, **mine),
    ):
        assert (sent.status, sent.error["code"]) == (408, "request_timeout")


@pytest.mark.parametrize("file_id", ["file-..", "file-%2e%2e", "x", "batch_" + "0" * 28, "file-" + "0" * 27])
async def test_what_is_no_id_is_never_a_path(opened: Opener, file_id: str) -> None:
    assert (await opened().get(f"/v1/files/{file_id}")).status == 404


@pytest.mark.parametrize("written", [0, 1])
async def test_a_batch_that_the_disk_does_not_take_leaves_nothing_behind(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    house = opened()
    file_id = (await house.upload(jsonl(line(1)))).json["id"]
    room = [True] * written

    def full(path: Path, text: bytes) -> None:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        room.pop()
        write_whole(path, text)

    asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    with monkeypatch.context() as patched:
        patched.setattr(store, "write_whole", full)
        refused = await house.send(asked, path="/v1/batches")
    assert (refused.status, refused.error["code"]) == (503, "file_store_unavailable")
    assert list(house.root.glob("tenants/*/batches/*")) == []
    assert (await house.get("/v1/batches")).json["data"] == []


async def test_an_upload_that_the_disk_does_not_take_leaves_nothing_behind(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = opened()

    def full(path: Path, text: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_whole", full)
        refused = await house.upload(jsonl(line(1)))
    assert (refused.status, refused.error["code"]) == (503, "file_store_unavailable")
    assert [path for path in house.root.rglob("*") if path.is_file() and path.name != "lock"] == []


async def test_half_a_copy_is_not_left_where_links_are_not_known(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = opened()

    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def half(content: Path, draft: Path) -> None:
        draft.write_bytes(content.read_bytes()[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "link", no_links)
        patched.setattr(files.shutil, "copyfile", half)
        refused = await house.upload(jsonl(line(1)))
    assert (refused.status, refused.error["code"]) == (503, "file_store_unavailable")
    assert [path for path in house.root.rglob("*") if path.is_file() and path.name != "lock"] == []
